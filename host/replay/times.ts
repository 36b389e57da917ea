/**
 * Times of passes, by one engine or by several workers at once. With several, a pass takes as long
 * as its slowest worker: that is what engine and reading time mean.
 */
import type { WorkerResult } from "./result.ts";
import type { WorkerPass } from "./worker.ts";

/** Times of one pass in ms; `engineMs` is without the host's own loops. */
export interface PassTimes {
  wallMs: number;
  readMs: number;
  engineMs: number;
  writeMs: number;
}

/**
 * Passes of a team: `first` is what the thread that restored the order took for the first one.
 * Workers that outnumber the cores take turns: then their time on `cores` cores counts.
 */
export function together(
  first: PassTimes,
  shares: readonly WorkerPass[][],
  cores: number,
): PassTimes[] {
  const count = shares[0]?.length ?? 1;
  return Array.from({ length: count }, (_, index) => {
    const pass = shares.map((share) => share[index] as WorkerPass);
    const most = (part: "readMs" | "engineMs") => {
      const ms = pass.map((one) => one[part]);
      return Math.max(0, ...ms, shares.length > cores ? sum(ms) / cores : 0);
    };
    const start = Math.min(...pass.map(({ startMs }) => startMs));
    const end = Math.max(...pass.map(({ endMs }) => endMs));
    return {
      wallMs: index === 0 ? first.wallMs : end - start,
      readMs: most("readMs"),
      engineMs: most("engineMs"),
      writeMs: index === 0 ? first.writeMs : 0,
    };
  });
}

/** What one worker did in all its passes, of `packets` packets each. */
export function workerResult(
  packets: number,
  passes: readonly Pick<PassTimes, "readMs" | "engineMs">[],
): WorkerResult {
  const ms = warmMedian(passes.map(({ engineMs }) => engineMs));
  return {
    packets,
    readSeconds: sum(passes.map(({ readMs }) => readMs)) / 1e3,
    engineSeconds: sum(passes.map(({ engineMs }) => engineMs)) / 1e3,
    nsPerPacket: packets > 0 ? (ms * 1e6) / packets : 0,
    mpps: ms > 0 ? packets / ms / 1e3 : 0,
  };
}

/** How busy the workers were while the slowest of them was: 1 when the work was shared evenly. */
export function balanceOf(workers: readonly WorkerResult[]): number {
  const busy = workers.map(({ nsPerPacket, packets }) => nsPerPacket * packets);
  const most = Math.max(0, ...busy);
  return most > 0 ? sum(busy) / (workers.length * most) : 1;
}

/** Median of the values after the first, or the first if it is alone. */
export function warmMedian([first = 0, ...warm]: readonly number[]): number {
  if (warm.length === 0) return first;
  const sorted = warm.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
