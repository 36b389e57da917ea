/**
 * Measures what the engine's descriptors say, batch by batch: bytes that go out, the busiest
 * second, and, when asked, the course of the capture for charts.
 *
 * The clock is the capture's, in ms since its first record modulo 2^32; it may step back a little.
 * It is unwound here, so that captures of any length are measured right. What lies before the
 * first record counts as its instant.
 */

import {
  VERDICT_OUT_MAX,
  WORD_CAPTURED,
  WORD_FLOW,
  WORD_TIME,
  WORD_VERDICT,
  WORD_WIRE,
  WORDS,
} from "./batch.ts";
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

export class Meter {
  readonly #batch: DecidedBatch;
  readonly #course: Course | undefined;
  #seconds = new Float64Array(64);
  #nowMs = 0;
  #latestMs = 0;
  #outputBytes = 0;

  constructor(batch: DecidedBatch, wantsTimeline: boolean) {
    this.#batch = batch;
    this.#course = wantsTimeline ? new Course() : undefined;
  }

  /**
   * Counts the first `count` descriptors, which the engine has just decided, and what it made.
   * `times` is the capture's clock, unwound, at each of them, where they do not follow each other.
   */
  measure(count: number, times?: Float64Array): void {
    const { descriptors } = this.#batch;
    const course = this.#course;
    let [nowMs, latestMs, outputBytes] = [this.#nowMs, this.#latestMs, 0];
    // Neighbours mostly are of one second: what belongs to it is summed up here.
    let [second, secondBytes] = [0, 0];
    for (let index = 0, word = 0; index < count; index++, word += WORDS) {
      const bytes = descriptors[word + WORD_CAPTURED] as number;
      if (times) nowMs = times[index] as number;
      else nowMs += ((descriptors[word + WORD_TIME] as number) - nowMs) | 0;
      const ms = nowMs > 0 ? nowMs : 0;
      if (ms > latestMs) latestMs = ms;
      course?.count(ms, bytes, descriptors[word + WORD_WIRE] as number);
      if (((descriptors[word + WORD_VERDICT] as number) & 0xffff) > VERDICT_OUT_MAX) continue;
      outputBytes += bytes;
      if (descriptors[word + WORD_FLOW] === 0) continue;
      if (ms < second * 1000 || ms >= second * 1000 + 1000) {
        this.#addToSecond(second, secondBytes);
        second = Math.floor(ms / 1000);
        secondBytes = 0;
      }
      secondBytes += bytes;
    }
    this.#addToSecond(second, secondBytes);
    this.#nowMs = nowMs;
    this.#latestMs = latestMs;
    this.#outputBytes += outputBytes;
    const { emits, emitCount } = this.#batch;
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
