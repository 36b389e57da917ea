/** An engine of bench/scaling.ts: does the same work whenever it is told to, and says how fast. */
import { parentPort, workerData } from "node:worker_threads";
import { timed } from "./measure.ts";
import { BATCH, KIND, Traffic } from "./traffic.ts";

export interface ScalingAnswer {
  mpps: number;
}

const { flows, packets } = workerData as { flows: number; packets: number };
const traffic = await Traffic.create({ flows });
traffic.create();
const run = (count: number, isProcessed: boolean) => {
  traffic.run(count, KIND.established, 64, BATCH, isProcessed);
};
run(packets, true);
const generatorMs = Math.min(...[0, 1, 2].map(() => timed(() => run(packets, false))));

parentPort?.on("message", () => {
  const ms = timed(() => run(packets, true)) - generatorMs;
  parentPort?.postMessage({ mpps: packets / ms / 1e3 } satisfies ScalingAnswer);
});
parentPort?.postMessage({ mpps: 0 });
