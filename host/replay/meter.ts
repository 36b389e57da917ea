/**
 * Measures what was decided, batch by batch: bytes that go out, the busiest second (summed up by the
 * engine, assembly/measure.ts), and, when asked, the course of the capture for charts.
 */

import { WORD_CAPTURED, WORD_TIME, WORD_WIRE, WORDS } from "./batch.ts";
import type { DecidedBatch } from "./decider.ts";
import { SIZE_CLASS_BYTES, type Timeline } from "./result.ts";

/** Slices of a timeline: when one more is needed, neighbours are merged. */
const SLICE_COUNT_MAX = 256;
/** Captures that span more seconds than this have their last peak among all that follow. */
const SECOND_COUNT_MAX = 1 << 22;

/** What went out in all. */
export interface Measured {
  outputBytes: number;
  /** Bytes that belonged to flows in each second of the capture's clock; as long as it happens to be. */
  bytesBySecond: Float64Array;
}

/** Several workers' measures together. */
export function addMeasured(parts: readonly Measured[]): Measured {
  const seconds = Math.max(...parts.map(({ bytesBySecond }) => bytesBySecond.length));
  const bytesBySecond = new Float64Array(seconds);
  for (const part of parts) {
    part.bytesBySecond.forEach((bytes, second) => {
      bytesBySecond[second] = (bytesBySecond[second] as number) + bytes;
    });
  }
  return { outputBytes: parts.reduce((sum, part) => sum + part.outputBytes, 0), bytesBySecond };
}

/** Most bits that belonged to flows in one second of the capture's clock, in Gbit. */
export function peakGbps({ bytesBySecond }: Measured): number {
  return (8 * bytesBySecond.reduce((most, bytes) => Math.max(most, bytes), 0)) / 1e9;
}

/** What meters need of a batch. */
export type MeasuredBatch = Pick<
  DecidedBatch,
  "descriptors" | "emits" | "emitCount" | "counters" | "exports"
>;

export class Meter {
  readonly #batch: MeasuredBatch;
  readonly #course: Course | undefined;
  #seconds = new Float64Array(64);
  #nowMs = 0;
  #latestMs = 0;
  #outputBytes = 0;

  constructor(batch: MeasuredBatch, wantsTimeline: boolean) {
    this.#batch = batch;
    this.#course = wantsTimeline ? new Course() : undefined;
  }

  /**
   * Counts the first `count` descriptors, which the engine has just decided, and what it made. `isTold`: the
   * frames do not follow each other, and the engine has noted the capture's clock at each of them.
   */
  measure(count: number, isTold = false): void {
    const { emits, emitCount, exports } = this.#batch;
    this.#course?.countAll(this.#batch.descriptors, count, this.#nowMs);
    for (let index = 0; index < count; ) {
      index = exports.measureFrames(index, count, isTold ? 1 : 0, this.#nowMs);
      this.#nowMs = exports.measuredMs();
      this.#latestMs = Math.max(this.#latestMs, exports.measuredLatestMs());
      this.#outputBytes += exports.measuredOutputBytes();
      const flowBytes = exports.measuredFlowBytes();
      if (flowBytes > 0) this.#addToSecond(exports.measuredSecond(), flowBytes);
    }
    for (let word = WORD_CAPTURED; word < emitCount * WORDS; word += WORDS) {
      this.#outputBytes += emits[word] as number;
    }
    this.#course?.sample(this.#nowMs, this.#batch.counters().flows);
  }

  #addToSecond(second: number, bytes: number): void {
    const index = Math.min(second, SECOND_COUNT_MAX - 1);
    if (index >= this.#seconds.length) {
      const grown = new Float64Array(Math.max(index + 1, this.#seconds.length * 2));
      grown.set(this.#seconds);
      this.#seconds = grown;
    }
    this.#seconds[index] = (this.#seconds[index] as number) + bytes;
  }

  /** The latest that the capture's clock has been. */
  get latestMs(): number {
    return this.#latestMs;
  }

  get measured(): Measured {
    return { outputBytes: this.#outputBytes, bytesBySecond: this.#seconds };
  }

  timeline(): Timeline | undefined {
    return this.#course?.timeline();
  }
}

/** The course of a capture in at most SLICE_COUNT_MAX slices, as fine as they can be. */
export class Course {
  #sliceMs = 1;
  #sliceCount = 1;
  readonly #packets = new Float64Array(SLICE_COUNT_MAX);
  readonly #bytes = new Float64Array(SLICE_COUNT_MAX);
  readonly #flowsActive = new Float64Array(SLICE_COUNT_MAX);
  readonly #flowsCreated = new Float64Array(SLICE_COUNT_MAX);
  readonly #sizes = SIZE_CLASS_BYTES.map(() => 0);
  #created = 0;

  /** Counts the frames of a batch; the clock was at `nowMs` before. */
  countAll(descriptors: Uint32Array, count: number, nowMs: number): void {
    let ms = nowMs;
    for (let word = 0; word < count * WORDS; word += WORDS) {
      ms += ((descriptors[word + WORD_TIME] as number) - ms) | 0;
      const bytes = descriptors[word + WORD_CAPTURED] as number;
      this.count(Math.max(ms, 0), bytes, descriptors[word + WORD_WIRE] as number);
    }
  }

  count(ms: number, bytes: number, wireBytes: number): void {
    const slice = this.#sliceAt(ms);
    this.#packets[slice] = (this.#packets[slice] as number) + 1;
    this.#bytes[slice] = (this.#bytes[slice] as number) + bytes;
    let size = SIZE_CLASS_BYTES.length - 1;
    while (wireBytes < (SIZE_CLASS_BYTES[size] as number)) size -= 1;
    this.#sizes[size] = (this.#sizes[size] as number) + 1;
  }

  /** Notes the flow counters at an instant. */
  sample(ms: number, flows: { active: number; created: number }): void {
    const slice = this.#sliceAt(Math.max(ms, 0));
    const active = this.#flowsActive[slice] as number;
    this.#flowsActive[slice] = Math.max(active, flows.active);
    this.#flowsCreated[slice] =
      (this.#flowsCreated[slice] as number) + flows.created - this.#created;
    this.#created = flows.created;
  }

  #sliceAt(ms: number): number {
    while (ms >= this.#sliceMs * SLICE_COUNT_MAX) this.#merge();
    const slice = Math.floor(ms / this.#sliceMs);
    this.#sliceCount = Math.max(this.#sliceCount, slice + 1);
    return slice;
  }

  /** Doubles the slices: sums add up, and of flows at once the most counts. */
  #merge(): void {
    const half = SLICE_COUNT_MAX / 2;
    for (let slice = 0; slice < half; slice++) {
      const [left, right] = [2 * slice, 2 * slice + 1];
      for (const sums of [this.#packets, this.#bytes, this.#flowsCreated]) {
        sums[slice] = (sums[left] as number) + (sums[right] as number);
      }
      const active = this.#flowsActive;
      active[slice] = Math.max(active[left] as number, active[right] as number);
    }
    for (const values of [this.#packets, this.#bytes, this.#flowsCreated, this.#flowsActive]) {
      values.fill(0, half);
    }
    this.#sliceMs *= 2;
    this.#sliceCount = Math.ceil(this.#sliceCount / 2);
  }

  timeline(): Timeline {
    const used = (values: Float64Array) => Array.from(values.subarray(0, this.#sliceCount));
    // A slice in which no batch ended has the flows of the one before.
    const flowsActive = used(this.#flowsActive);
    for (let slice = 1; slice < flowsActive.length; slice++) {
      if (flowsActive[slice] === 0) flowsActive[slice] = flowsActive[slice - 1] as number;
    }
    return {
      sliceSeconds: this.#sliceMs / 1000,
      packets: used(this.#packets),
      bytes: used(this.#bytes),
      flowsActive,
      flowsCreated: used(this.#flowsCreated),
      sizes: [...this.#sizes],
    };
  }
}
