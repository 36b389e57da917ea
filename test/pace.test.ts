/** When a lab's worker sleeps, looks again and rests, against the rule counted out anew. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Pace, type Pause, SPARSE_BYTES, SPARSE_FRAMES } from "../host/lab/pace.ts";

const SPIN_MS = 0.05;

interface Batch {
  /** Since the batch before. */
  gapMs: number;
  frames: number;
  bytes: number;
}

const batches = fc.array(
  fc.record({
    gapMs: fc.oneof(fc.double({ min: 0.001, max: 0.4, noNaN: true }), fc.constantFrom(1, 3, 500)),
    frames: fc.integer({ min: 1, max: 64 }),
    bytes: fc.integer({ min: 20, max: 400_000 }),
  }),
  { minLength: 1, maxLength: 200 },
);

/**
 * Dense is what had enough frames or bytes in the last window that has ended, for its length, or has
 * in the one that runs. A window ends with the first batch a millisecond or more after it began.
 */
function expected(all: readonly Batch[], busyPollMs: number): Pause[] {
  let nowMs = 0;
  const windows: { fromMs: number; batches: Batch[] }[] = [{ fromMs: 0, batches: [] }];
  const isEnough = (some: readonly Batch[], ms: number) =>
    some.reduce((sum, { frames }) => sum + frames, 0) / SPARSE_FRAMES >= ms ||
    some.reduce((sum, { bytes }) => sum + bytes, 0) / SPARSE_BYTES >= ms;
  return all.map((batch) => {
    nowMs += batch.gapMs;
    const last = windows.at(-1) as (typeof windows)[0];
    if (nowMs - last.fromMs >= 1) windows.push({ fromMs: nowMs, batches: [] });
    const open = windows.at(-1) as (typeof windows)[0];
    open.batches.push(batch);
    const ended = windows.at(-2);
    const isDense =
      (ended !== undefined && isEnough(ended.batches, open.fromMs - ended.fromMs)) ||
      isEnough(open.batches, 1);
    if (busyPollMs > 0 || !isDense) return "look";
    return batch.frames < 8 ? "rest" : "sleep";
  });
}

function said(all: readonly Batch[], busyPollMs: number): Pause[] {
  const pace = new Pace({ spinMs: SPIN_MS, busyPollMs });
  let nowMs = 0;
  return all.map(({ gapMs, frames, bytes }) => {
    nowMs += gapMs;
    return pace.after(nowMs, () => nowMs + 0.01, frames, bytes);
  });
}

describe("the pace of a worker", () => {
  test("follows the density of frames and of bytes", () => {
    fc.assert(
      fc.property(batches, fc.constantFrom(0, 1), (all, busyPollMs) => {
        expect(said(all, busyPollMs)).toEqual(expected(all, busyPollMs));
      }),
      { seed: 7, numRuns: 2000 },
    );
  });

  test("of two ends that wait for each other is to look again, of a long stream to rest", () => {
    const roundTrips = Array<Batch>(100).fill({ gapMs: 0.035, frames: 1, bytes: 116 });
    expect(new Set(said(roundTrips, 0))).toEqual(new Set(["look"]));
    const stream = Array<Batch>(100).fill({ gapMs: 0.05, frames: 1, bytes: 65_000 });
    expect(new Set(said(stream, 0).slice(3))).toEqual(new Set(["rest"]));
  });

  test("to look again ends after its time, and without one there is none", () => {
    const pace = new Pace({ spinMs: SPIN_MS, busyPollMs: 0 });
    expect(pace.after(1, () => 1.01, 1, 60)).toBe("look");
    expect(pace.afterNothing(1.05)).toBe("look");
    expect(pace.afterNothing(1.07)).toBe("sleep");
    const sleepy = new Pace({ spinMs: 0, busyPollMs: 0 });
    expect(sleepy.after(1, () => 1.01, 1, 60)).toBe("sleep");
    expect(sleepy.afterNothing(1.01)).toBe("sleep");
  });
});
