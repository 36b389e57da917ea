/** Whoever watches the simulated fleet: sees every forwarded packet, and says what must not be. */
import type { Schedule } from "./schedule.ts";

const SENTENCES_MAX = 20;
/** Trying that long without an answer is more than bad luck. */
const LONG_MS = 1200;

/** What was acknowledged of a flow: since and until when whoever asks must find it. */
interface Known {
  tuple: number;
  sinceMs: number;
  untilMs: number;
}

export class Watch {
  /** What must not be and was, as sentences; the first twenty. */
  readonly violations: string[] = [];
  /** From a flow's first packet to its first answer from a decision, simulated ms. */
  readonly decisionMs: number[] = [];
  forwarded = 0;
  readonly #schedule: Schedule;
  readonly #ttlMs: number;
  readonly #holdMs: number;
  /** By flow, its decision and the one that ended before. */
  readonly #knownOf = new Map<number, Known>();
  readonly #endedOf = new Map<number, Known>();
  readonly #ownerOf = new Map<number, number>();
  /** Flows that have left a tuple to a later one, by tuple. */
  readonly #formerOf = new Map<number, Set<number>>();
  /** Since the attack: tenants that have sent something, and such as got an answer. */
  readonly #trying = new Map<number, { firstMs: number; lastMs: number }>();
  readonly #served = new Set<number>();
  #isAttack = false;
  #digest = 0x811c9dc5;

  constructor(schedule: Schedule, { ttlMs, holdMs }: { ttlMs: number; holdMs: number }) {
    this.#schedule = schedule;
    this.#ttlMs = ttlMs;
    this.#holdMs = holdMs;
  }

  /** A node lets a packet of a flow through with this translated tuple. */
  forwards(flow: number, tuple: number): void {
    this.forwarded++;
    for (const word of [flow, tuple]) this.#digest = Math.imul(this.#digest ^ word, 0x01000193);
    this.#digest ^= this.#digest >>> 13;
    const known = this.#knownOf.get(flow);
    if (known && known.tuple !== tuple && !this.#isLate(flow, tuple)) {
      this.#say(`flow ${flow} left with tuple ${tuple} after ${known.tuple}`);
    }
    const owner = this.#ownerOf.get(tuple);
    if (owner === flow) return;
    this.#ownerOf.set(tuple, flow);
    const former = this.#formerOf.get(tuple) ?? new Set<number>();
    // A tuple may go on from an ended flow to a later one, but never back.
    if (former.has(flow)) this.#say(`flows ${owner} and ${flow} both have tuple ${tuple}`);
    if (owner !== undefined) this.#formerOf.set(tuple, former.add(owner));
  }

  /** Whether the tuple is that of a decision of the flow which has ended, and rests. */
  #isLate(flow: number, tuple: number): boolean {
    const ended = this.#endedOf.get(flow);
    if (ended?.tuple !== tuple) return false;
    return this.#schedule.nowMs <= ended.untilMs + this.#holdMs;
  }

  /** The store has told a node that a decision holds, which was asked at `askedMs`. */
  acknowledged(flow: number, tuple: number, askedMs: number): void {
    const untilMs = askedMs + this.#ttlMs;
    const known = this.#knownOf.get(flow);
    if (known?.tuple === tuple) {
      known.untilMs = Math.max(known.untilMs, untilMs);
      return;
    }
    // Told late of what had ended by the time that another decision was made.
    if (known && askedMs < known.sinceMs && this.#endedOf.get(flow)?.tuple === tuple) return;
    if (known && askedMs <= known.untilMs) {
      this.#say(`flow ${flow} was decided to have tuple ${tuple} while it had ${known.tuple}`);
      return;
    }
    if (known) this.#endedOf.set(flow, known);
    this.#knownOf.set(flow, { tuple, sinceMs: askedMs, untilMs });
    this.#formerOf.get(tuple)?.delete(flow);
  }

  /** A node has asked for the decision of a flow, by a tuple if it knew one, and there was none. */
  notFound(flow: number, tuple?: number): void {
    const known = this.#knownOf.get(flow);
    if (!known || this.#schedule.nowMs >= known.untilMs) return;
    if (tuple !== undefined && tuple !== known.tuple) return;
    this.#say(`the decision of flow ${flow} was not found again`);
  }

  attackBegins(): void {
    this.#isAttack = true;
  }

  tries(tenant: number): void {
    if (!this.#isAttack) return;
    const lastMs = this.#schedule.nowMs;
    const firstMs = this.#trying.get(tenant)?.firstMs ?? lastMs;
    this.#trying.set(tenant, { firstMs, lastMs });
  }

  isServed(tenant: number): void {
    if (this.#isAttack) this.#served.add(tenant);
  }

  /** Tenants but the first that were served since the attack or tried for long; dead: in vain. */
  blast(): { tenants: number; dead: number } {
    let [tenants, dead] = [0, 0];
    for (const [tenant, { firstMs, lastMs }] of this.#trying) {
      const isServed = this.#served.has(tenant);
      if (tenant === 0 || (!isServed && lastMs - firstMs < LONG_MS)) continue;
      tenants++;
      if (!isServed) dead++;
    }
    return { tenants, dead };
  }

  digest(): string {
    return (this.#digest >>> 0).toString(16).padStart(8, "0");
  }

  #say(what: string): void {
    if (this.violations.length === SENTENCES_MAX) return;
    this.violations.push(`at ${Math.round(this.#schedule.nowMs)} ms: ${what}`);
  }
}
