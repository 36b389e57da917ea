/**
 * Measures what passes through each resource over the capture's clock: the busiest second, the
 * units of capacity that every second takes, and the busiest ten seconds, which CloudWatch's peaks
 * are averages of. Counts frames that go out, by the service that made their flow.
 */
import type { Engine } from "../engine/engine.ts";
import {
  VERDICT_OUT_MAX,
  WORD_CAPTURED,
  WORD_FLOW,
  WORD_TIME,
  WORD_VERDICT,
  WORDS,
} from "./batch.ts";

export const UNIT_GBPS = 5;
export const UNIT_MPPS = 1;
const CHANGES_MAX = 1000;
const TEN_SECONDS = 10;

/** Units that a second with so much traffic takes. */
export function unitsFor(bytes: number, packets: number): number {
  const byBytes = (bytes * 8) / 1e9 / UNIT_GBPS;
  return Math.ceil(Math.max(byBytes, packets / 1e6 / UNIT_MPPS));
}

/** The course of one resource. */
export class ResourceCourse {
  #second = -1;
  #bytes = 0;
  #packets = 0;
  #tens = -1;
  #tenBytes = 0;
  #tenPackets = 0;
  peakBytes = 0;
  peakPackets = 0;
  /** Averages of the busiest ten seconds. */
  peakBytesPerSecond = 0;
  peakPacketsPerSecond = 0;
  readonly units: { second: number; units: number }[] = [];

  add(second: number, bytes: number): void {
    if (second !== this.#second) this.#turn(second);
    this.#bytes += bytes;
    this.#packets += 1;
  }

  /** Ends the second that is under way. */
  #turn(second: number): void {
    if (this.#second >= 0) {
      this.peakBytes = Math.max(this.peakBytes, this.#bytes);
      this.peakPackets = Math.max(this.peakPackets, this.#packets);
      this.#change(this.#second, unitsFor(this.#bytes, this.#packets));
      if (second !== this.#second + 1) this.#change(this.#second + 1, 0);
      this.#addToTens(Math.floor(this.#second / TEN_SECONDS));
    }
    this.#second = second;
    this.#bytes = 0;
    this.#packets = 0;
  }

  #addToTens(tens: number): void {
    if (tens !== this.#tens) {
      this.#tens = tens;
      this.#tenBytes = 0;
      this.#tenPackets = 0;
    }
    this.#tenBytes += this.#bytes;
    this.#tenPackets += this.#packets;
    this.peakBytesPerSecond = Math.max(this.peakBytesPerSecond, this.#tenBytes / TEN_SECONDS);
    this.peakPacketsPerSecond = Math.max(this.peakPacketsPerSecond, this.#tenPackets / TEN_SECONDS);
  }

  #change(second: number, units: number): void {
    if (this.units.at(-1)?.units === units || this.units.length >= CHANGES_MAX) return;
    this.units.push({ second, units });
  }

  close(): void {
    this.#turn(this.#second + 2);
  }
}

/** The courses of all resources of a network. */
export class ResourceMeter {
  readonly #engine: Engine;
  readonly #courses = new Map<string, ResourceCourse>();
  /** Resources that a service works for, by its number. */
  #resources: readonly (readonly string[])[] = [];
  #nowMs = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Says which resources the services work for from here on. */
  name(resources: readonly (readonly string[])[]): void {
    this.#resources = resources;
  }

  /** Counts the first `count` descriptors, which have just been decided. */
  measure(count: number): void {
    const { descriptors } = this.#engine;
    for (let word = 0; word < count * WORDS; word += WORDS) {
      this.#nowMs += ((descriptors[word + WORD_TIME] as number) - this.#nowMs) | 0;
      if (((descriptors[word + WORD_VERDICT] as number) & 0xffff) > VERDICT_OUT_MAX) continue;
      const service = this.#engine.madeBy(descriptors[word + WORD_FLOW] as number);
      if (service === undefined) continue;
      // A clock that steps back a little counts for the second in which it did.
      const second = Math.floor(Math.max(0, this.#nowMs) / 1000);
      const bytes = descriptors[word + WORD_CAPTURED] as number;
      for (const id of this.#resources[service] ?? []) this.#course(id).add(second, bytes);
    }
  }

  #course(id: string): ResourceCourse {
    const known = this.#courses.get(id);
    if (known) return known;
    const course = new ResourceCourse();
    this.#courses.set(id, course);
    return course;
  }

  /** What a resource's course was; to be asked once, at the end. */
  close(id: string): ResourceCourse {
    const course = this.#course(id);
    course.close();
    return course;
  }
}
