/**
 * The store of one machine: a table in shared memory (assembly/store), for engines in worker threads.
 *
 * Where both buckets of a tuple are full its claims find no room (undefined): at a load of at most a
 * half, which is what `entries` stands for, that does not happen by chance (of four million slots, the
 * first claim found none at 59 %).
 */

import { wholeNumber } from "../engine/check.ts";
import { DECISION_BYTES, SIDE_BYTES, type SideName } from "../engine/decision.ts";
import {
  BATCH_COUNT_MAX,
  CLAIM_EARLIER,
  CLAIM_OWN,
  SharedTable,
  tableMemory,
} from "../engine/shared-table.ts";
import { type FlowStore, type Found, lifetimeMs, type StoreTimes } from "./store.ts";

export { CLAIM_EARLIER, CLAIM_OWN };

const ENTRIES_MAX = 8_000_000;
/** No system has smaller pages. */
const PAGE_WORDS = 4096 / 4;

export interface SharedStoreOptions extends StoreTimes {
  /** Entries that can live at once, 2 a flow: 128 to 8,000,000; default 131,072. */
  entries?: number;
  /**
   * Gets the memory before anything is in it, unless it is another thread's: so tables can have huge
   * pages (`hugePages`).
   */
  prepareMemory?: (memory: WebAssembly.Memory) => void;
}

/** A store, or another thread's view of it: made from the same memory. At most 64 threads have one. */
export class SharedStore implements FlowStore {
  readonly memory: WebAssembly.Memory;
  readonly #table: SharedTable;
  readonly #clientMs: number;
  readonly #serviceMs: number;

  constructor(
    { entries = 131_072, prepareMemory, ...times }: SharedStoreOptions = {},
    memory?: WebAssembly.Memory,
  ) {
    wholeNumber("entries", entries, 128, ENTRIES_MAX);
    this.memory = memory ?? tableMemory(2 * entries);
    if (!memory) prepareMemory?.(this.memory);
    this.#table = new SharedTable(this.memory);
    this.#clientMs = lifetimeMs(times, "client");
    this.#serviceMs = lifetimeMs(times, "service");
  }

  async claim(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return this.#claimEach(side, decisions, nowMs, false);
  }

  async refresh(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return this.#claimEach(side, decisions, nowMs, true);
  }

  async find(side: SideName, tuples: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return tuples.map((tuple) => this.findOne(side, tuple, nowMs));
  }

  async close(): Promise<void> {}

  /**
   * Touches every page of the table, so that no claim waits for the system to find one: a huge page takes
   * it milliseconds, and a claim touches four. Changes nothing, whoever claims meanwhile.
   */
  touch(): void {
    const words = new Int32Array(this.memory.buffer);
    for (let at = 0; at < words.length; at += PAGE_WORDS) Atomics.add(words, at, 0);
  }

  /** `claim` for one, at once. */
  claimOne(side: SideName, decision: Uint8Array, nowMs: number, refreshes = false): Found {
    return this.#claimEach(side, [decision], nowMs, refreshes)[0];
  }

  /** `find` for one, at once. */
  findOne(side: SideName, tuple: Uint8Array, nowMs: number): Found {
    const { decisions, outcomes } = this.#table;
    decisions.set(tuple, side === "client" ? 0 : SIDE_BYTES);
    this.#table.find(side, 1, nowMs);
    return outcomes[0] === CLAIM_EARLIER ? copyOf(decisions, 0) : undefined;
  }

  #claimEach(
    side: SideName,
    given: readonly Uint8Array[],
    nowMs: number,
    refreshes: boolean,
  ): Found[] {
    const { decisions, outcomes } = this.#table;
    const found: Found[] = [];
    for (let first = 0; first < given.length; first += BATCH_COUNT_MAX) {
      const count = Math.min(BATCH_COUNT_MAX, given.length - first);
      for (let index = 0; index < count; index++) {
        decisions.set(given[first + index] as Uint8Array, index * DECISION_BYTES);
      }
      this.#claim(side, count, nowMs, refreshes);
      for (let index = 0; index < count; index++) {
        const outcome = outcomes[index];
        if (outcome === CLAIM_OWN) found.push(given[first + index]);
        else found.push(outcome === CLAIM_EARLIER ? copyOf(decisions, index) : undefined);
      }
    }
    return found;
  }

  /**
   * `claim`, or `refresh`, of decisions that lie together, DECISION_BYTES each, without allocating
   * anything. `outcomes` gets CLAIM_OWN (0) for each that is there now, CLAIM_EARLIER (1) where an earlier
   * one is and has taken the place of what was given, 2 where there is no room.
   */
  claimPacked(
    side: SideName,
    given: Uint8Array,
    nowMs: number,
    outcomes: Uint8Array,
    refreshes = false,
  ): void {
    const table = this.#table;
    const batchBytes = BATCH_COUNT_MAX * DECISION_BYTES;
    for (let at = 0; at < given.length; at += batchBytes) {
      const end = Math.min(at + batchBytes, given.length);
      const isWhole = at === 0 && end === given.length;
      table.decisions.set(isWhole ? given : given.subarray(at, end));
      const count = (end - at) / DECISION_BYTES;
      const first = at / DECISION_BYTES;
      this.#claim(side, count, nowMs, refreshes);
      let isOwn = true;
      for (let index = 0; index < count; index++) {
        const outcome = table.outcomes[index] as number;
        outcomes[first + index] = outcome;
        isOwn &&= outcome === CLAIM_OWN;
      }
      if (!isOwn) given.set(table.decisions.subarray(0, end - at), at);
    }
  }

  #claim(side: SideName, count: number, nowMs: number, refreshes: boolean): void {
    const endMs = nowMs + (side === "client" ? this.#clientMs : this.#serviceMs);
    this.#table.claim(side, count, nowMs, endMs, refreshes);
  }
}

function copyOf(decisions: Uint8Array, index: number): Uint8Array {
  const copy = new Uint8Array(DECISION_BYTES);
  copy.set(decisions.subarray(index * DECISION_BYTES, (index + 1) * DECISION_BYTES));
  return copy;
}
