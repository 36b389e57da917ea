/**
 * The table behind `SharedStore` (assembly/store): one memory, in which each thread has a place for
 * its batch, and the module's functions over it. All that knows where things lie is here.
 */
import * as abi from "../../assembly/abi.ts";
import type { SideName } from "./decision.ts";
import { fileBytes, moduleUrl } from "./module.ts";

/** Decisions that one call takes. */
export const BATCH_COUNT_MAX: number = abi.STORE_BATCH_COUNT_MAX;
export const CLAIM_OWN: number = abi.STORE_CLAIM_OWN;
export const CLAIM_EARLIER: number = abi.STORE_CLAIM_EARLIER;

const PAGE_BYTES = 65536;
const REGION_SLOTS = abi.STORE_REGION_BUCKETS * abi.STORE_BUCKET_SLOTS;
const REGION_BYTES =
  abi.STORE_LOCK_BYTES +
  abi.STORE_REGION_BUCKETS * abi.STORE_BUCKET_BYTES +
  REGION_SLOTS * abi.DECIDED_BYTES;

interface StoreExports {
  claim(
    batch: number,
    count: number,
    key: number,
    regionCount: number,
    nowMs: number,
    endMs: number,
    refreshes: number,
  ): number;
  find(batch: number, count: number, key: number, regionCount: number, nowMs: number): number;
}

let compiled: WebAssembly.Module | undefined;

/** Memory for a table of at least `slots` slots. */
export function tableMemory(slots: number): WebAssembly.Memory {
  const regions = Math.ceil(slots / REGION_SLOTS);
  const pages = Math.ceil((abi.STORE_LOCKS + regions * REGION_BYTES) / PAGE_BYTES);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  new Uint32Array(memory.buffer)[REGIONS_WORD] = regions;
  return memory;
}

const THREADS_WORD = abi.STORE_THREADS / 4;
const REGIONS_WORD = THREADS_WORD + 1;

/** A thread's view of a table. */
export class SharedTable {
  /** Decisions of the batch, DECISION_BYTES each, and what became of them, STORE_CLAIM_*. */
  readonly decisions: Uint8Array;
  readonly outcomes: Uint8Array;
  readonly #exports: StoreExports;
  readonly #batch: number;
  readonly #regionCount: number;

  /** @throws RangeError when the memory is none of a table's, or 64 threads have a view of it already */
  constructor(memory: WebAssembly.Memory) {
    const { buffer } = memory;
    const words = new Uint32Array(buffer, 0, 16);
    this.#regionCount = words[REGIONS_WORD] as number;
    const end = abi.STORE_LOCKS + this.#regionCount * REGION_BYTES;
    if (this.#regionCount === 0 || Math.ceil(end / PAGE_BYTES) * PAGE_BYTES !== buffer.byteLength) {
      throw new RangeError(`memory: ${buffer.byteLength} bytes are no shared store`);
    }
    const thread = Atomics.add(words, THREADS_WORD, 1);
    if (thread >= abi.STORE_THREAD_COUNT_MAX) {
      Atomics.sub(words, THREADS_WORD, 1);
      throw new RangeError(`memory: has ${abi.STORE_THREAD_COUNT_MAX} views already`);
    }
    this.#batch = abi.STORE_BATCHES + thread * abi.STORE_BATCH_BYTES;
    const bytes = abi.STORE_BATCH_COUNT_MAX * abi.DECIDED_BYTES;
    this.decisions = new Uint8Array(buffer, this.#batch, bytes);
    const outcomes = this.#batch + abi.STORE_BATCH_OUTCOMES;
    this.outcomes = new Uint8Array(buffer, outcomes, abi.STORE_BATCH_COUNT_MAX);
    compiled ??= new WebAssembly.Module(fileBytes(moduleUrl("store")));
    const instance = new WebAssembly.Instance(compiled, { env: { memory } });
    this.#exports = instance.exports as unknown as StoreExports;
  }

  /** Claims the first `count` decisions of the batch, which live until `endMs`. */
  claim(side: SideName, count: number, nowMs: number, endMs: number, refreshes: boolean): void {
    const key = keyOf(side);
    const on = refreshes ? 1 : 0;
    const regions = this.#regionCount;
    alive(this.#exports.claim(this.#batch, count, key, regions, nowMs | 0, endMs | 0, on));
  }

  /** Looks up the first `count` tuples of the batch, each where its side stands in a decision. */
  find(side: SideName, count: number, nowMs: number): void {
    alive(this.#exports.find(this.#batch, count, keyOf(side), this.#regionCount, nowMs | 0));
  }
}

function keyOf(side: SideName): number {
  return side === "client" ? abi.DECIDED_CLIENT_SIDE : abi.DECIDED_SERVICE_SIDE;
}

function alive(isDone: number): void {
  if (isDone === 0) throw new Error("shared store: a thread has died within an operation");
}
