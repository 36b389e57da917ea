/**
 * What happens in a lab, as events: numbered, dated, JSON. A bounded log keeps the latest; any
 * number of listeners follow (standard output, webhooks, the page, the control socket).
 *
 * Lifecycle events of endpoints carry AWS's names (`Accept`, `Connect`, `Delete`, `Reject`); AWS
 * does not publish the body of its notifications, so this one is our own and has a version.
 */

/** One event. Everything but the first four fields depends on the kind. */
export interface LiveEvent {
  schema: "flowplane.event/1";
  /** Counts from 1, without gaps. */
  number: number;
  /** RFC 3339, UTC, milliseconds. */
  time: string;
  /** Such as "endpoint.Connect", "target.state", "lab.up". */
  kind: string;
  [detail: string]: unknown;
}

export type Listener = (event: LiveEvent) => void;

const KEPT_MAX = 1000;

export class EventLog {
  readonly #now: () => number;
  readonly #kept: LiveEvent[] = [];
  readonly #listeners = new Set<Listener>();
  #number = 0;

  /** `now` gives milliseconds since 1970. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Numbers an event, keeps it and tells everybody. A listener's failure stops no other. */
  add(kind: string, details: Record<string, unknown> = {}): LiveEvent {
    const event: LiveEvent = {
      schema: "flowplane.event/1",
      number: ++this.#number,
      time: new Date(this.#now()).toISOString(),
      kind,
      ...details,
    };
    this.#kept.push(event);
    if (this.#kept.length > KEPT_MAX) this.#kept.shift();
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch {
        this.#listeners.delete(listener);
      }
    }
    return event;
  }

  /** The latest events, oldest first, at most 1,000 of them. */
  latest(count: number = KEPT_MAX): readonly LiveEvent[] {
    return count > 0 ? this.#kept.slice(-count) : [];
  }

  /** Follows from now on. @returns what ends it */
  follow(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
