/** The store of decisions the obvious way: a map with an end of life for every entry. */
type Side = "client" | "service";

export class MapStore {
  readonly #entries = new Map<string, { decision: Uint8Array; endMs: number }>();
  readonly #times: { ttlMs: number; holdMs: number };

  constructor(times: { ttlMs: number; holdMs: number }) {
    this.#times = times;
  }

  async claim(side: Side, decisions: readonly Uint8Array[], nowMs: number) {
    return decisions.map((decision) => this.#claim(side, decision, nowMs, false));
  }

  async refresh(side: Side, decisions: readonly Uint8Array[], nowMs: number) {
    return decisions.map((decision) => this.#claim(side, decision, nowMs, true));
  }

  async find(side: Side, tuples: readonly Uint8Array[], nowMs: number) {
    return tuples.map((tuple) => this.#live(side + tuple.join(), nowMs)?.decision);
  }

  async close() {}

  #live(key: string, nowMs: number) {
    const entry = this.#entries.get(key);
    return entry && entry.endMs >= nowMs ? entry : undefined;
  }

  #claim(side: Side, decision: Uint8Array, nowMs: number, refreshes: boolean): Uint8Array {
    const tuple = side === "client" ? decision.subarray(0, 48) : decision.subarray(48, 96);
    const key = side + tuple.join();
    const endMs = nowMs + this.#times.ttlMs + (side === "service" ? this.#times.holdMs : 0);
    const there = this.#live(key, nowMs);
    if (!there) {
      this.#entries.set(key, { decision: decision.slice(), endMs });
      return decision;
    }
    const isSame = there.decision.subarray(0, 96).join() === decision.subarray(0, 96).join();
    if (!isSame) return there.decision;
    // Byte 101: told by the first packet of a new stream.
    const next = decision[101] === 1 ? decision.slice() : there.decision;
    if (refreshes) this.#entries.set(key, { decision: next, endMs });
    return decision;
  }
}
