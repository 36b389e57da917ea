/** The host side: crossing into WebAssembly, the heap, and the first batches of a process. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { sampleOf, timed } from "./measure.ts";
import type { HostFigures } from "./result.ts";
import { BATCH, Traffic } from "./traffic.ts";

const CHILD = fileURLToPath(new URL("child.ts", import.meta.url));
const CALLS = 200_000;

/** Answer of bench/child.ts. */
export function child<Answer>(words: string[], flags: string[] = []): Answer {
  const run = spawnSync(process.execPath, [...flags, CHILD, ...words], { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`bench child ${words.join(" ")}: ${run.stderr}`);
  return JSON.parse(run.stdout) as Answer;
}

/** Cost of calls with empty batches, spread over the packets of a full one. */
export async function crossing(windows: number): Promise<number> {
  const { engine } = await Traffic.create({ flows: 16 });
  const calls = () => {
    for (let call = 0; call < CALLS; call++) engine.process(0);
  };
  calls();
  const times = Array.from({ length: windows }, () => timed(calls));
  return (sampleOf(times).min * 1e6) / CALLS / BATCH;
}

export async function measureHost(
  windows: number,
  heapPackets: number,
  processes: number,
): Promise<HostFigures> {
  const heap = child<{ growthBytes: number }>(["heap", String(heapPackets)], ["--expose-gc"]);
  const firsts = (words: string[]) => {
    const runs = Array.from({ length: processes }, () =>
      child<{ firstNs: number; laterNs: number }>(["first", ...words]),
    );
    return {
      firstNs: sampleOf(runs.map(({ firstNs }) => firstNs)).median,
      laterNs: sampleOf(runs.map(({ laterNs }) => laterNs)).median,
    };
  };
  const warm = firsts([]);
  return {
    crossingNs: await crossing(windows),
    heapGrowthBytes: heap.growthBytes,
    heapPackets,
    ...warm,
    coldFirstNs: firsts(["cold"]).firstNs,
  };
}
