/**
 * Measuring: windows of work timed one by one. The figure is the best window, because what disturbs
 * a machine only ever makes it slower; median and spread tell how much it was disturbed.
 *
 * Things that are compared take turns within one run, so that a slow minute slows both.
 */

export interface Sample {
  /** Best window. */
  min: number;
  median: number;
  /** How far the median lies above the best window, as a share of it. */
  spread: number;
  windows: number;
}

/** @throws RangeError without a value. */
export function sampleOf(values: readonly number[]): Sample {
  if (values.length === 0) throw new RangeError("sample: no windows");
  const sorted = [...values].sort((a, b) => a - b);
  const min = sorted[0] as number;
  const median = sorted[sorted.length >> 1] as number;
  return { min, median, spread: min > 0 ? median / min - 1 : 0, windows: values.length };
}

/** The middle of ratios, each of two windows that were neighbours, and where their middle half lies. */
export function ratioOf(ratios: readonly number[]): { middle: number; range: string } {
  const sorted = ratios.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] as number;
  return { middle: at(0.5), range: `${at(0.25).toFixed(2)} to ${at(0.75).toFixed(2)}` };
}

/** Milliseconds that `run` takes. */
export function timed(run: () => unknown): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}

/** Times of each task in ms, the tasks taking turns, `rounds` times each. */
export function alternate<Name extends string>(
  tasks: Record<Name, () => unknown>,
  rounds: number,
): Record<Name, number[]> {
  const names = Object.keys(tasks) as Name[];
  const times = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
    Name,
    number[]
  >;
  for (let round = 0; round < rounds; round++) {
    for (const name of names) times[name].push(timed(tasks[name]));
  }
  return times;
}

/**
 * Cost of one of `count` things: time of `full` less that of the best `overhead`, in ns. A disturbed
 * overhead would take off too much.
 */
export function costNs(
  full: readonly number[],
  overhead: readonly number[],
  count: number,
): Sample {
  const own = sampleOf(full);
  const other = sampleOf(overhead);
  const min = ((own.min - other.min) * 1e6) / count;
  const median = ((own.median - other.min) * 1e6) / count;
  return { min, median, spread: min > 0 ? median / min - 1 : 0, windows: own.windows };
}

/** Best times so far of what is taken off, by name: a disturbed one would take off too much. */
export class Overheads {
  readonly #best = new Map<string, number>();

  /** `times` are new ones. */
  best(name: string, times: readonly number[]): number {
    const best = Math.min(...times, this.#best.get(name) ?? Number.POSITIVE_INFINITY);
    this.#best.set(name, best);
    return best;
  }
}
