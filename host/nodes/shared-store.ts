/**
 * The store of one machine: an open-addressed table in shared memory, for engines in worker threads.
 *
 * A key's home is a region of 256 slots under one lock, a word that is taken by compare-and-exchange
 * and held for the few dozen instructions of an operation. Probing stays in the region; a slot whose
 * time is over is used again. When a region is full its claims find no room (undefined): at the
 * default load of at most a half that does not happen by chance.
 *
 * What takes time is memory, not work: so a batch first hashes all its keys and touches their slots,
 * all at once, and then decides one after the other.
 *
 * Layout in 32-bit words: a lock per region, each in a cache line of its own; then the slots, two
 * cache lines each: hash (0 = never used), end of life in ms mod 2^32, then the decision but for its
 * last eight bytes, which are zero in every decision.
 */

import { wholeNumber } from "../engine/check.ts";
import {
  DECIDED_END_BYTES,
  DECISION_BYTES,
  isOfBeginningAt,
  SIDE_BYTES,
  type SideName,
} from "../engine/decision.ts";
import { type FlowStore, type Found, lifetimeMs, type StoreTimes } from "./store.ts";

const REGION_SLOTS = 256;
const LINE_WORDS = 16;
const HEAD_WORDS = 2;
const SLOT_WORDS = 2 * LINE_WORDS;
/** Of a decision as it is handed over, and as it is kept. */
export const DECISION_WORDS = DECISION_BYTES / 4;
const KEPT_WORDS = SLOT_WORDS - HEAD_WORDS;
const SIDE_WORDS = SIDE_BYTES / 4;
if (4 * KEPT_WORDS < DECIDED_END_BYTES) throw new Error("decisions have outgrown their slots");
/** Decisions that are hashed and touched before the first is looked at. */
const TOUCH_COUNT = 64;
/** Spins after which a lock counts as left behind by a thread that died. */
const SPINS_MAX = 50_000_000;
const ENTRIES_MAX = 8_000_000;

/** What became of a claim: the given decision is there, an earlier one is, or there is no room. */
export const CLAIM_OWN = 0;
export const CLAIM_EARLIER = 1;
export const CLAIM_NO_ROOM = 2;

export interface SharedStoreOptions extends StoreTimes {
  /** Entries that can live at once, 2 a flow: 128 to 8,000,000; default 131,072. */
  entries?: number;
}

/** How much shared memory `entries` take. */
function sharedStoreBytes(entries: number): number {
  wholeNumber("entries", entries, 128, ENTRIES_MAX);
  return 4 * Math.ceil((2 * entries) / REGION_SLOTS) * (LINE_WORDS + REGION_SLOTS * SLOT_WORDS);
}

/** A store, or another thread's view of it: made from the same memory. */
export class SharedStore implements FlowStore {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #regionCount: number;
  readonly #clientMs: number;
  readonly #serviceMs: number;
  /** Hashes of a part of a batch, and a word that nobody reads. */
  readonly #hashes = new Int32Array(TOUCH_COUNT + 1);
  /** A batch of the interface that hands decisions over one by one. */
  readonly #batch = new Int32Array(TOUCH_COUNT * DECISION_WORDS);
  readonly #batchBytes = new Uint8Array(this.#batch.buffer);
  readonly #outcomes = new Uint8Array(TOUCH_COUNT);

  constructor(
    { entries = 131_072, ...times }: SharedStoreOptions = {},
    memory?: SharedArrayBuffer,
  ) {
    this.memory = memory ?? new SharedArrayBuffer(sharedStoreBytes(entries));
    this.#words = new Int32Array(this.memory);
    this.#regionCount = this.#words.length / (LINE_WORDS + REGION_SLOTS * SLOT_WORDS);
    if (!Number.isInteger(this.#regionCount)) {
      throw new RangeError(`memory: ${this.memory.byteLength} bytes are no shared store`);
    }
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

  /** `claim` for one, at once. */
  claimOne(side: SideName, decision: Uint8Array, nowMs: number, refreshes = false): Found {
    return this.#claimEach(side, [decision], nowMs, refreshes)[0];
  }

  #claimEach(
    side: SideName,
    decisions: readonly Uint8Array[],
    nowMs: number,
    refreshes: boolean,
  ): Found[] {
    const found: Found[] = [];
    for (let first = 0; first < decisions.length; first += TOUCH_COUNT) {
      const count = Math.min(TOUCH_COUNT, decisions.length - first);
      for (let index = 0; index < count; index++) {
        this.#batchBytes.set(decisions[first + index] as Uint8Array, index * DECISION_BYTES);
      }
      this.claimPacked(side, this.#batch, count, nowMs, this.#outcomes, refreshes);
      for (let index = 0; index < count; index++) {
        const start = index * DECISION_BYTES;
        const outcome = this.#outcomes[index];
        if (outcome === CLAIM_OWN) found.push(decisions[first + index]);
        else if (outcome === CLAIM_NO_ROOM) found.push(undefined);
        else found.push(this.#batchBytes.slice(start, start + DECISION_BYTES));
      }
    }
    return found;
  }

  /**
   * `claim`, or `refresh`, of the first `count` decisions of `decisions`, DECISION_WORDS each, without
   * allocating anything. `outcomes` gets CLAIM_* for each; where it is CLAIM_EARLIER, what was there
   * has taken the place of what was given.
   */
  claimPacked(
    side: SideName,
    decisions: Int32Array,
    count: number,
    nowMs: number,
    outcomes: Uint8Array,
    refreshes = false,
  ): void {
    const key = side === "client" ? 0 : SIDE_WORDS;
    const endMs = (nowMs + (side === "client" ? this.#clientMs : this.#serviceMs)) | 0;
    for (let first = 0; first < count; first += TOUCH_COUNT) {
      const end = Math.min(first + TOUCH_COUNT, count);
      this.#touch(decisions, first, end, key);
      for (let index = first; index < end; index++) {
        const hash = this.#hashes[index - first] as number;
        const at = index * DECISION_WORDS;
        outcomes[index] = this.#claimAt(decisions, at, key, hash, nowMs | 0, endMs, refreshes);
      }
    }
  }

  /** Hashes decisions [first, end) and loads a word of each line that they will need. */
  #touch(decisions: Int32Array, first: number, end: number, key: number): void {
    const words = this.#words;
    let seen = 0;
    for (let index = first; index < end; index++) {
      const hash = hashOf(decisions, index * DECISION_WORDS + key, key);
      this.#hashes[index - first] = hash;
      const slot = this.#slotAt(this.#regionOf(hash), hash >>> 1);
      seen ^= (words[slot] as number) ^ (words[slot + LINE_WORDS] as number);
    }
    // Behind the hashes, so that the loads are not left out.
    this.#hashes[TOUCH_COUNT] = seen;
  }

  #claimAt(
    decisions: Int32Array,
    at: number,
    key: number,
    hash: number,
    nowMs: number,
    endMs: number,
    refreshes: boolean,
  ): number {
    const words = this.#words;
    const region = this.#regionOf(hash);
    this.#lock(region);
    const slot = this.#search(decisions, at + key, key, hash, nowMs);
    let outcome = CLAIM_OWN;
    if (slot === NO_ROOM) outcome = CLAIM_NO_ROOM;
    else if (slot < 0) this.#write(-1 - slot, hash, endMs, decisions, at);
    else if (!matches(words, slot + HEAD_WORDS, decisions, at, 2 * SIDE_WORDS)) {
      outcome = CLAIM_EARLIER;
      this.#read(slot, decisions, at);
    } else if (refreshes && isOfBeginningAt(decisions, at)) {
      this.#write(slot, hash, endMs, decisions, at);
    } else if (refreshes) words[slot + 1] = endMs;
    this.#unlock(region);
    return outcome;
  }

  /** `find` for one, at once. */
  findOne(side: SideName, tuple: Uint8Array, nowMs: number): Found {
    const key = side === "client" ? 0 : SIDE_WORDS;
    this.#batchBytes.set(tuple, 4 * key);
    const hash = hashOf(this.#batch, key, key);
    const region = this.#regionOf(hash);
    this.#lock(region);
    const slot = this.#search(this.#batch, key, key, hash, nowMs | 0);
    if (slot >= 0) this.#read(slot, this.#batch, 0);
    this.#unlock(region);
    return slot >= 0 ? this.#batchBytes.slice(0, DECISION_BYTES) : undefined;
  }

  #regionOf(hash: number): number {
    return Math.floor((hash >>> 0) * 2 ** -32 * this.#regionCount);
  }

  #slotAt(region: number, probe: number): number {
    const slot = region * REGION_SLOTS + (probe & (REGION_SLOTS - 1));
    return this.#regionCount * LINE_WORDS + slot * SLOT_WORDS;
  }

  #lock(region: number): void {
    const lock = region * LINE_WORDS;
    for (let spin = 0; Atomics.compareExchange(this.#words, lock, 0, 1) !== 0; spin++) {
      if (spin === SPINS_MAX)
        throw new Error("shared store: a thread has died within an operation");
    }
  }

  #unlock(region: number): void {
    Atomics.store(this.#words, region * LINE_WORDS, 0);
  }

  /** Slot of the tuple at `from`; else -1 - the slot it may have, or NO_ROOM. */
  #search(asked: Int32Array, from: number, key: number, hash: number, nowMs: number): number {
    const words = this.#words;
    const region = this.#regionOf(hash);
    let free = NO_ROOM;
    for (let probe = 0; probe < REGION_SLOTS; probe++) {
      const slot = this.#slotAt(region, (hash >>> 1) + probe);
      const there = words[slot] as number;
      if (there === 0) return free === NO_ROOM ? -1 - slot : free;
      const isOver = (((words[slot + 1] as number) - nowMs) | 0) < 0;
      if (isOver) {
        if (free === NO_ROOM) free = -1 - slot;
        continue;
      }
      if (there !== hash) continue;
      if (matches(words, slot + HEAD_WORDS + key, asked, from, SIDE_WORDS)) return slot;
    }
    return free;
  }

  #write(slot: number, hash: number, endMs: number, from: Int32Array, at: number): void {
    const words = this.#words;
    words[slot] = hash;
    words[slot + 1] = endMs;
    for (let word = 0; word < KEPT_WORDS; word++) {
      words[slot + HEAD_WORDS + word] = from[at + word] as number;
    }
  }

  /** Copies the decision of a slot to word `at` of `to`. */
  #read(slot: number, to: Int32Array, at: number): void {
    for (let word = 0; word < KEPT_WORDS; word++) {
      to[at + word] = this.#words[slot + HEAD_WORDS + word] as number;
    }
    to.fill(0, at + KEPT_WORDS, at + DECISION_WORDS);
  }
}

/** Lower than -1 - any slot. */
const NO_ROOM = -(2 ** 31);

/** Odd, one for each word of a tuple, so that the products do not wait for each other. */
const FACTORS = Int32Array.of(
  ...[0x9e3779b1, 0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f, 0x165667b1, 0xd3a2646d],
  ...[0xfd7046c5, 0xb55a4f09, 0x2c1b3c6d, 0x297a2d39, 0x7feb352d, 0x846ca68b],
);

/** Hash of the tuple at `from` and of its side, never 0. */
function hashOf(words: Int32Array, from: number, key: number): number {
  let hash = key + 0x61c88647;
  for (let word = 0; word < SIDE_WORDS; word++) {
    const value = words[from + word] as number;
    hash = (hash + Math.imul(value ^ (value >>> 15), FACTORS[word] as number)) | 0;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) | 1;
}

function matches(
  one: Int32Array,
  from: number,
  other: Int32Array,
  otherFrom: number,
  count: number,
): boolean {
  let differs = 0;
  for (let word = 0; word < count; word++) {
    differs |= (one[from + word] as number) ^ (other[otherFrom + word] as number);
  }
  return differs === 0;
}
