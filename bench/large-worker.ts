/**
 * One engine of bench/large.ts in a thread of its own: fills its table, looks flows up at random,
 * and proves that they live. Answers one message with one.
 */
import { parentPort, workerData } from "node:worker_threads";
import { sampleOf, timed } from "./measure.ts";
import { BATCH, type BenchExports, KIND, STRIDE, Traffic } from "./traffic.ts";

export interface LargeTask {
  flows: number;
  /** Number of this engine's first flow: no two engines have one in common. */
  base: number;
  isIpv6: boolean;
}

/** What is asked, and what is told. */
export type LargeOrder =
  | { what: "fill" }
  | { what: "look"; windows: number; packets: number }
  | { what: "verify"; batches: number };

export interface LargeAnswer {
  ms: number;
  /** Fill: flows that live. Look: best and median window, ns per packet. Verify: packets checked. */
  active?: number;
  min?: number;
  median?: number;
  verified?: number;
  tableBytes?: number;
}

const { flows, base, isIpv6 } = workerData as LargeTask;
let traffic: Traffic | undefined;
const createMs = await timedAsync(async () => {
  // Room to spare, as far as 4 GiB go: a table that is nearly full looks long for a free slot.
  const flowsMax = Math.max(flows, Math.min(Math.ceil(flows * 1.2), isIpv6 ? 30e6 : 58e6));
  traffic = await Traffic.create({ flows, flowsMax, isIpv6, base });
});
const { engine, bench } = traffic as unknown as Traffic;

async function timedAsync(run: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

function batches(count: number, kind: number, isProcessed: number, first: number): void {
  const { address } = engine.arena;
  const run = (bench as BenchExports).runBatches;
  run(address, STRIDE, BATCH, kind, first, flows, 64, count, isProcessed);
}

/** Makes all flows, in chunks so that the thread stays in one call for no more than a second. */
function fill(): LargeAnswer {
  const all = Math.ceil(flows / BATCH);
  const chunk = 8192;
  const ms = timed(() => {
    for (let done = 0; done < all; done += chunk) {
      batches(Math.min(chunk, all - done), KIND.new, 1, base + done * BATCH);
    }
  });
  const { flowTableBytes, flow6TableBytes } = engine;
  const tableBytes = isIpv6 ? flow6TableBytes : flowTableBytes;
  return { ms, active: engine.counters().flows.active, tableBytes };
}

/** Established packets of flows at random, either direction; the generator's time taken off. */
function look(windows: number, packets: number): LargeAnswer {
  const count = Math.ceil(packets / BATCH);
  const generatorMs = Math.min(...[0, 1, 2].map(() => timed(() => batches(count, 0, 0, base))));
  batches(count, 0, 1, base);
  const times: number[] = [];
  for (let window = 0; window < windows; window++) {
    times.push(timed(() => batches(count, 0, 1, base)));
  }
  const ns = times.map((ms) => ((ms - generatorMs) * 1e6) / count / BATCH);
  const { min, median } = sampleOf(ns);
  return { ms: times.reduce((sum, ms) => sum + ms, 0), min, median };
}

function answer(order: LargeOrder): LargeAnswer {
  switch (order.what) {
    case "fill":
      return fill();
    case "look":
      return look(order.windows, order.packets);
    case "verify": {
      let verified = 0;
      const ms = timed(() => {
        verified = (traffic as Traffic).verify(order.batches);
      });
      const { forward, ...others } = engine.counters().verdicts;
      const dropped = Object.values(others).reduce((sum, count) => sum + count, 0);
      if (dropped > 0) throw new Error(`bench: ${dropped} of ${forward + dropped} were dropped`);
      return { ms, verified };
    }
  }
}

parentPort?.on("message", (order: LargeOrder) => parentPort?.postMessage(answer(order)));
parentPort?.postMessage({ ms: createMs });
