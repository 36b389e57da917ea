/** The host side: crossing into WebAssembly, the heap, and the first batches of a process. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { alternate, costNs } from "./measure.ts";
import type { HostFigures } from "./result.ts";
import { BATCH, Traffic } from "./traffic.ts";

const CHILD = fileURLToPath(new URL("child.ts", import.meta.url));
const CALLS = 200_000;
/** Of those without warm-up, whose ratio is no goal. */
const COLD_PROCESSES = 3;

type First = Pick<HostFigures, "firstNs" | "laterNs" | "emptiedNs">;

/** Answer of bench/child.ts. */
export function child<Answer>(words: string[], flags: string[] = []): Answer {
  const run = spawnSync(process.execPath, [...flags, CHILD, ...words], { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`bench child ${words.join(" ")}: ${run.stderr}`);
  return JSON.parse(run.stdout) as Answer;
}

/**
 * What JavaScript's calls cost, spread over the packets of a full batch: batches of one frame that
 * is no IP, called from JavaScript less the same called within WebAssembly. (A call that does
 * nothing would tell nothing: V8 inlines it.)
 */
export async function crossing(windows: number): Promise<number> {
  const { engine, bench } = await Traffic.create({ flows: 16 });
  const { descriptors, arena } = engine;
  descriptors.set([arena.address, 64, 0, 0, 0, 0, 0, 64]);
  const times = alternate(
    {
      called: () => {
        for (let call = 0; call < CALLS; call++) engine.process(1);
      },
      within: () => bench.processAgain(1, CALLS),
    },
    windows + 1,
  );
  // The first round compiles.
  return costNs(times.called.slice(1), times.within.slice(1), CALLS).min / BATCH;
}

export async function measureHost(
  windows: number,
  heapPackets: number,
  processes: number,
): Promise<HostFigures> {
  const heap = child<{ growthBytes: number }>(["heap", String(heapPackets)], ["--expose-gc"]);
  // Of several processes the one with the median ratio: its figures are of one moment.
  const firsts = (count: number, words: string[]) => {
    const runs = Array.from({ length: count }, () => child<First>(["first", ...words]));
    runs.sort((a, b) => a.firstNs / a.emptiedNs - b.firstNs / b.emptiedNs);
    return runs[runs.length >> 1] as First;
  };
  return {
    crossingNs: await crossing(windows),
    heapGrowthBytes: heap.growthBytes,
    heapPackets,
    ...firsts(processes, []),
    coldFirstNs: firsts(Math.min(processes, COLD_PROCESSES), ["cold"]).firstNs,
  };
}
