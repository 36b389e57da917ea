/** Whoever watches the simulated fleet: sees every forwarded packet, and says what must not be. */
import type { Schedule } from "./schedule.ts";

const SENTENCES_MAX = 20;
/** Trying that long without an answer is more than bad luck. */
const LONG_MS = 1200;

export class Watch {
  /** What must not be and was, as sentences; the first twenty. */
  readonly violations: string[] = [];
  /** From a flow's first packet to its first answer from a decision, simulated ms. */
  readonly decisionMs: number[] = [];
  forwarded = 0;
  readonly #schedule: Schedule;
  readonly #ttlMs: number;
  readonly #tupleOf = new Map<number, number>();
  readonly #ownerOf = new Map<number, number>();
  /** Flows that have left a tuple to a later one, by tuple. */
  readonly #formerOf = new Map<number, Set<number>>();
  /** Until when the decision of a flow must be found by whoever asks. */
  readonly #knownUntilMs = new Map<number, number>();
  /** Since the attack: tenants that have sent something, and such as got an answer. */
  readonly #trying = new Map<number, { firstMs: number; lastMs: number }>();
  readonly #served = new Set<number>();
  #isAttack = false;
  #digest = 0x811c9dc5;

  constructor(schedule: Schedule, ttlMs: number) {
    this.#schedule = schedule;
    this.#ttlMs = ttlMs;
  }

  /** A node lets a packet of a flow through with this translated tuple. */
  forwards(flow: number, tuple: number): void {
    this.forwarded++;
    for (const word of [flow, tuple]) this.#digest = Math.imul(this.#digest ^ word, 0x01000193);
    this.#digest ^= this.#digest >>> 13;
    const used = this.#tupleOf.get(flow);
    if (used === undefined) this.#tupleOf.set(flow, tuple);
    else if (used !== tuple) this.#say(`flow ${flow} left with tuple ${tuple} after ${used}`);
    const owner = this.#ownerOf.get(tuple);
    if (owner === flow) return;
    this.#ownerOf.set(tuple, flow);
    const former = this.#formerOf.get(tuple) ?? new Set<number>();
    // A tuple may go on from an ended flow to a later one, but never back.
    if (former.has(flow)) this.#say(`flows ${owner} and ${flow} both have tuple ${tuple}`);
    if (owner !== undefined) this.#formerOf.set(tuple, former.add(owner));
  }

  /** The store has told a node that a decision holds, which was asked at `askedMs`. */
  acknowledged(flow: number, askedMs: number): void {
    const until = Math.max(this.#knownUntilMs.get(flow) ?? 0, askedMs + this.#ttlMs);
    this.#knownUntilMs.set(flow, until);
  }

  /** A node has asked for the decision of a flow, and there was none. */
  notFound(flow: number): void {
    const until = this.#knownUntilMs.get(flow) ?? 0;
    if (this.#schedule.nowMs < until) this.#say(`the decision of flow ${flow} was not found again`);
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
