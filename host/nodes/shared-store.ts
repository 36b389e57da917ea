/**
 * The store of one machine: an open-addressed table in shared memory, for engines in worker threads.
 * A claim costs less than a microsecond and no message.
 *
 * A key's home is a region of 256 slots under one lock, a word that is taken by compare-and-exchange
 * and held for the few dozen instructions of an operation. Probing stays in the region; a slot whose
 * time is over is used again. When a region is full its claims find no room (undefined): at the
 * default load of at most a half that does not happen by chance.
 *
 * Layout in 32-bit words: a lock per region, then the slots: hash (0 = never used), end of life in
 * ms mod 2^32, then the decision.
 */

import { wholeNumber } from "../engine/check.ts";
import { DECISION_BYTES, isOfBeginning, SIDE_BYTES, type SideName } from "../engine/decision.ts";
import { type FlowStore, type Found, lifetimeMs, type StoreTimes } from "./store.ts";

const REGION_SLOTS = 256;
const HEAD_WORDS = 2;
const DECISION_WORDS = DECISION_BYTES / 4;
const SLOT_WORDS = HEAD_WORDS + DECISION_WORDS;
const SIDE_WORDS = SIDE_BYTES / 4;
/** Spins after which a lock counts as left behind by a thread that died. */
const SPINS_MAX = 50_000_000;
const ENTRIES_MAX = 8_000_000;

export interface SharedStoreOptions extends StoreTimes {
  /** Entries that can live at once, 2 a flow: 128 to 8,000,000; default 131,072. */
  entries?: number;
}

/** How much shared memory `entries` take. */
export function sharedStoreBytes(entries: number): number {
  wholeNumber("entries", entries, 128, ENTRIES_MAX);
  const regions = Math.ceil((2 * entries) / REGION_SLOTS);
  return 4 * regions * (1 + REGION_SLOTS * SLOT_WORDS);
}

/** A store, or another thread's view of it: made from the same memory. */
export class SharedStore implements FlowStore {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #regionCount: number;
  readonly #clientMs: number;
  readonly #serviceMs: number;
  /** The decision or tuple that is asked about, in words. */
  readonly #asked = new Int32Array(DECISION_WORDS);
  readonly #askedBytes = new Uint8Array(this.#asked.buffer);

  constructor(
    { entries = 131_072, ...times }: SharedStoreOptions = {},
    memory?: SharedArrayBuffer,
  ) {
    this.memory = memory ?? new SharedArrayBuffer(sharedStoreBytes(entries));
    this.#words = new Int32Array(this.memory);
    this.#regionCount = this.#words.length / (1 + REGION_SLOTS * SLOT_WORDS);
    if (!Number.isInteger(this.#regionCount)) {
      throw new RangeError(`memory: ${this.memory.byteLength} bytes are no shared store`);
    }
    this.#clientMs = lifetimeMs(times, "client");
    this.#serviceMs = lifetimeMs(times, "service");
  }

  async claim(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return decisions.map((decision) => this.claimOne(side, decision, nowMs));
  }

  async refresh(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return decisions.map((decision) => this.claimOne(side, decision, nowMs, true));
  }

  async find(side: SideName, tuples: readonly Uint8Array[], nowMs: number): Promise<Found[]> {
    return tuples.map((tuple) => this.findOne(side, tuple, nowMs));
  }

  async close(): Promise<void> {}

  /** `claim` for one, at once. */
  claimOne(side: SideName, decision: Uint8Array, nowMs: number, refreshes = false): Found {
    this.#askedBytes.set(decision);
    const first = side === "client" ? 0 : SIDE_WORDS;
    const hash = this.#hash(first);
    const region = this.#regionOf(hash);
    this.#lock(region);
    try {
      const slot = this.#search(region, hash, first, nowMs);
      if (slot >= 0) {
        if (!this.#matches(slot, 0, 2 * SIDE_WORDS)) return this.#read(slot);
        if (refreshes && isOfBeginning(decision)) this.#write(slot, hash, side, nowMs);
        else if (refreshes) this.#words[slot + 1] = this.#endMs(side, nowMs);
        return decision;
      }
      if (slot === NO_ROOM) return undefined;
      this.#write(-1 - slot, hash, side, nowMs);
      return decision;
    } finally {
      Atomics.store(this.#words, region, 0);
    }
  }

  /** `find` for one, at once. */
  findOne(side: SideName, tuple: Uint8Array, nowMs: number): Found {
    const first = side === "client" ? 0 : SIDE_WORDS;
    this.#askedBytes.set(tuple, 4 * first);
    const hash = this.#hash(first);
    const region = this.#regionOf(hash);
    this.#lock(region);
    const slot = this.#search(region, hash, first, nowMs);
    const found = slot >= 0 ? this.#read(slot) : undefined;
    Atomics.store(this.#words, region, 0);
    return found;
  }

  /** Of the tuple and the side, never 0. */
  #hash(first: number): number {
    let hash = first + 0x9e3779b9;
    for (let word = first; word < first + SIDE_WORDS; word++) {
      hash = Math.imul(hash ^ (this.#asked[word] as number), 0x85ebca6b);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash, 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) | 1;
  }

  #regionOf(hash: number): number {
    return Math.floor(((hash >>> 0) / 2 ** 32) * this.#regionCount);
  }

  #lock(region: number): void {
    for (let spin = 0; Atomics.compareExchange(this.#words, region, 0, 1) !== 0; spin++) {
      if (spin === SPINS_MAX)
        throw new Error("shared store: a thread has died within an operation");
    }
  }

  /** Slot of the tuple asked about; else -1 - the slot it may have, or NO_ROOM. */
  #search(region: number, hash: number, first: number, nowMs: number): number {
    const words = this.#words;
    const start = this.#regionCount + region * REGION_SLOTS * SLOT_WORDS;
    let free = NO_ROOM;
    for (let probe = 0; probe < REGION_SLOTS; probe++) {
      const slot = start + (((hash >>> 1) + probe) % REGION_SLOTS) * SLOT_WORDS;
      const there = words[slot] as number;
      if (there === 0) return free === NO_ROOM ? -1 - slot : free;
      const isOver = (((words[slot + 1] as number) - nowMs) | 0) < 0;
      if (isOver && free === NO_ROOM) free = -1 - slot;
      if (!isOver && there === hash && this.#matches(slot, first, SIDE_WORDS)) return slot;
    }
    return free;
  }

  #matches(slot: number, first: number, count: number): boolean {
    for (let word = first; word < first + count; word++) {
      if (this.#words[slot + HEAD_WORDS + word] !== this.#asked[word]) return false;
    }
    return true;
  }

  #read(slot: number): Uint8Array {
    const start = 4 * (slot + HEAD_WORDS);
    return new Uint8Array(new Uint8Array(this.memory, start, DECISION_BYTES));
  }

  #endMs(side: SideName, nowMs: number): number {
    return (nowMs + (side === "client" ? this.#clientMs : this.#serviceMs)) | 0;
  }

  #write(slot: number, hash: number, side: SideName, nowMs: number): void {
    this.#words[slot] = hash;
    this.#words[slot + 1] = this.#endMs(side, nowMs);
    for (let word = 0; word < DECISION_WORDS; word++) {
      this.#words[slot + HEAD_WORDS + word] = this.#asked[word] as number;
    }
  }
}

/** Lower than -1 - any slot. */
const NO_ROOM = -(2 ** 31);
