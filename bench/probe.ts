/** A probe of this machine's memory: what one load costs when it has to wait, and when not. */

import { timed } from "./measure.ts";
import { type BenchExports, benchEngine } from "./traffic.ts";

const LINE_BYTES = 64;

export interface MemoryCost {
  chaseNs: number;
  loadNs: number;
}

/** Costs by working set in bytes; sets larger than 1 GiB are probed at 1 GiB. */
export async function probeMemory(
  workingSets: readonly number[],
  steps: number,
): Promise<MemoryCost[]> {
  const limit = 1 << 30;
  const arenaBytes = Math.max(1 << 16, ...workingSets.map((bytes) => Math.min(bytes, limit)));
  const engine = await benchEngine({
    flowCountMax: 16,
    flow6CountMax: 16,
    arenaBytes: Math.floor(arenaBytes / LINE_BYTES) * LINE_BYTES,
    warmUp: false,
  });
  const probe = engine.exports as unknown as BenchExports;
  const start = engine.arena.address;
  return workingSets.map((bytes) => {
    const lines = Math.max(16, Math.floor(Math.min(bytes, limit) / LINE_BYTES));
    probe.probeLink(start, lines);
    let line = probe.probeChase(start, 0, Math.min(lines, steps));
    const best = (run: () => void) => Math.min(timed(run), timed(run), timed(run));
    const chaseMs = best(() => {
      line = probe.probeChase(start, line, steps);
    });
    const loadMs = best(() => probe.probeLoads(start, lines, steps * 4));
    return { chaseNs: (chaseMs * 1e6) / steps, loadNs: (loadMs * 1e6) / (steps * 4) };
  });
}
