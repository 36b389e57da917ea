/**
 * What a batch costs by its size, and how much of it is waiting for memory: the same batches over flows
 * that lie in the caches and over a million that do not, and beside them so many loads at random that wait for
 * nothing. `node bench/batches.ts`.
 *
 * All take turns; medians in microseconds, two looks at the clock included (the batch of none says what they
 * take). Frames are written right before each batch, outside the clock.
 */
import { sampleOf, timed } from "./measure.ts";
import { type BenchExports, benchEngine, PAGES, Traffic } from "./traffic.ts";

const LINE_BYTES = 64;

interface Effort {
  sizes: readonly number[];
  /** Flows in caches, and as many as do not fit. */
  flows: readonly [few: number, many: number];
  /** Of the region in which lines are loaded. */
  loadBytes: number;
  turns: number;
  batches: number;
}

export const BATCHES_EFFORT: Effort = {
  sizes: [0, 1, 8, 16, 64, 128, 256],
  flows: [1000, 1_000_000],
  loadBytes: 64 << 20,
  turns: 20,
  batches: 1000,
};

/** Medians in microseconds by name of the row, in the order of `sizes`. */
export async function measureBatches(effort: Effort): Promise<Map<string, number[]>> {
  const { sizes, flows, loadBytes, turns, batches } = effort;
  const rows = new Map<string, (size: number) => number>();
  for (const count of flows) {
    const traffic = await Traffic.create({ flows: count });
    traffic.create();
    traffic.verify(1);
    rows.set(`${count.toLocaleString("en")} flows`, (size) => {
      traffic.generate(size);
      return timed(() => traffic.engine.process(size));
    });
  }
  const engine = await benchEngine({
    flowCountMax: 16,
    flow6CountMax: 16,
    arenaBytes: loadBytes,
    warmUp: false,
  });
  const { address } = engine.arena;
  // A page that nobody has written to is the same as all others.
  engine.bytes.fill(1, address, address + loadBytes);
  const { probeLoads } = engine.exports as unknown as BenchExports;
  rows.set(`loads in ${loadBytes >> 20} MiB`, (size) => {
    return timed(() => probeLoads(address, loadBytes / LINE_BYTES, size));
  });
  const times = new Map([...rows].map(([name]) => [name, sizes.map((): number[] => [])]));
  for (let turn = 0; turn <= turns; turn++) {
    for (const [name, run] of rows) {
      for (const [index, size] of sizes.entries()) {
        const list = times.get(name)?.[index] as number[];
        for (let batch = 0; batch < batches; batch++) {
          const ms = run(size);
          // The first turn warms up.
          if (turn > 0) list.push(ms);
        }
      }
    }
  }
  const medians = (lists: number[][]) => lists.map((list) => sampleOf(list).median * 1e3);
  return new Map([...times].map(([name, lists]) => [name, medians(lists)]));
}

function print(sizes: readonly number[], medians: Map<string, number[]>): void {
  const row = (name: string, values: string[]) => {
    console.log(`${name.padEnd(20)}${values.map((value) => value.padStart(8)).join("")}`);
  };
  row(`p50, µs; ${PAGES.word}`, sizes.map(String));
  for (const [name, list] of medians) {
    row(
      name,
      list.map((micros) => micros.toFixed(2)),
    );
  }
}

if (import.meta.main) {
  print(BATCHES_EFFORT.sizes, await measureBatches(BATCHES_EFFORT));
}
