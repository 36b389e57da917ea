/**
 * Scaling: the same work by one worker and by several, in turns within one run, and the law that
 * follows (Amdahl 1967): n workers do n / (1 + s (n - 1)) times the work of one, where s is the
 * share that does not get faster. Each round gives an s of its own; their spread is the uncertainty.
 * `flowplane bench --part workers`.
 */
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { openCapture } from "../host/capture/file.ts";
import { compileEngine } from "../host/engine/module.ts";
import { type ReplayOptions, replay } from "../host/replay/replay.ts";
import { startTeam } from "../host/replay/team.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";
import { flowsText } from "./goals.ts";
import { writeImix } from "./imix.ts";
import type { Goal, ScalingCurve, ScalingResult } from "./result.ts";
import type { ScalingAnswer } from "./scaling-worker.ts";

interface Effort {
  rounds: number;
  flows: number;
  packets: number;
  fileBytes: number;
  passes: number;
}

export const SCALING_EFFORT: Effort = {
  rounds: 7,
  flows: 1_000_000,
  packets: 4 << 20,
  fileBytes: 200_000_000,
  passes: 5,
};

export const SCALING_SMOKE: Effort = {
  rounds: 2,
  flows: 1000,
  packets: 1 << 16,
  fileBytes: 2_000_000,
  passes: 2,
};

const TARGETS_GBPS = [100, 1000];

/** Worker counts that are measured: those that have a core each, doubling. */
function workerCounts(): number[] {
  const cores = os.availableParallelism();
  const counts = [1];
  for (let count = 2; count < cores; count *= 2) counts.push(count);
  return cores > 1 ? [...counts, cores] : counts;
}

export async function measureScaling(
  folder: string,
  say: (line: string) => void,
  effort: Effort = SCALING_EFFORT,
): Promise<ScalingResult> {
  const counts = workerCounts();
  say("scaling, engines");
  const engines = await measureEngines(counts, effort);
  say("scaling, replays");
  const replays = await measureReplays(folder, counts, effort);
  const curves = [engines, ...replays];
  return { cores: os.availableParallelism(), goals: scalingGoals(curves), curves };
}

/** What each worker is to do beside others, as a share of what one does alone. */
const EFFICIENCY = 0.9;

/** Each curve's most workers against one: medians over rounds. */
export function scalingGoals(curves: readonly ScalingCurve[]): Goal[] {
  return curves.map(({ name, points }) => {
    const { workers = 1, speedup = 1 } = points.at(-1) ?? {};
    const goal = EFFICIENCY * workers;
    const common = { name: `${name}, ${workers} workers`, goal, is: "atLeast", unit: "x" } as const;
    if (workers === 1) return { ...common, reason: "one core" };
    return { ...common, value: speedup, met: speedup >= goal };
  });
}

/** Engines with flows of their own, 64-byte frames. */
async function measureEngines(counts: readonly number[], effort: Effort): Promise<ScalingCurve> {
  const most = Math.max(...counts);
  const url = new URL("./scaling-worker.ts", import.meta.url);
  const threads = Array.from({ length: most }, () => {
    return new Worker(url, { workerData: { flows: effort.flows, packets: effort.packets } });
  });
  const answer = async (thread: Worker) => {
    // Rejects when the thread fails.
    const [told] = await once(thread, "message");
    return told as ScalingAnswer;
  };
  try {
    await Promise.all(threads.map(answer));
    const mpps = counts.map((): number[] => []);
    for (let round = 0; round < effort.rounds; round++) {
      for (const [index, count] of counts.entries()) {
        const used = threads.slice(0, count);
        const answers = used.map(answer);
        for (const thread of used) thread.postMessage("run");
        const rates = (await Promise.all(answers)).map((told) => told.mpps);
        mpps[index]?.push(rates.reduce((sum, rate) => sum + rate, 0));
      }
    }
    return curveOf(`engines, 64 bytes, ${flowsText(effort.flows)} flows each`, counts, mpps, 64);
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

/** A capture of IMIX frames: engine time alone, and everything. */
async function measureReplays(
  folder: string,
  counts: readonly number[],
  effort: Effort,
): Promise<ScalingCurve[]> {
  const file = path.join(folder, "scaling.pcap");
  writeImix(file, effort.fileBytes);
  const engine = counts.map((): number[] => []);
  const whole = counts.map((): number[] => []);
  const digests = new Set<string>();
  let frameBytes = 0;
  for (let round = 0; round < effort.rounds; round++) {
    for (const [index, workers] of counts.entries()) {
      const { result } = await replay(await optionsOf(file, workers, effort.passes));
      engine[index]?.push(result.engine.mpps);
      const { packets, bytes } = result.capture;
      frameBytes = bytes / packets;
      whole[index]?.push(result.endToEnd.mpps);
      digests.add(result.digest);
    }
  }
  if (digests.size !== 1) throw new Error(`bench: workers differ: ${[...digests].join(", ")}`);
  return [
    curveOf("replay of IMIX, engine time", counts, engine, frameBytes),
    curveOf("replay of IMIX, end to end", counts, whole, frameBytes),
  ];
}

async function optionsOf(file: string, workers: number, passes: number): Promise<ReplayOptions> {
  const scenario = defaultScenario("nat");
  const wasm = await compileEngine();
  const options: ReplayOptions = {
    file,
    scenario,
    passes,
    wasm,
    captureBytes: fs.statSync(file).size,
    open: (memory) => openCapture(file, memory),
    machine: { cpu: "", cores: os.availableParallelism(), node: "", v8: "", flowplane: "" },
  };
  if (workers === 1) return options;
  const packetsMax = Number.POSITIVE_INFINITY;
  options.team = (task) =>
    startTeam({
      ...task,
      workers,
      file,
      scenario,
      packetsMax,
      wantsFrames: false,
      isSpread: true,
      wasm,
    });
  return options;
}

/** Rates of each worker count, all rounds, to a curve and its law. */
export function curveOf(
  name: string,
  counts: readonly number[],
  mpps: readonly (readonly number[])[],
  frameBytes: number,
): ScalingCurve {
  const rounds = mpps[0]?.length ?? 0;
  const shares = Array.from({ length: rounds }, (_, round) => {
    return serialShare(
      counts,
      mpps.map((rates) => rates[round] as number),
    );
  });
  const gbps = (rate: number) => (rate * frameBytes * 8) / 1e3;
  const points = counts.map((workers, index) => {
    const rates = mpps[index] ?? [];
    const speedups = rates.map((rate, round) => rate / (mpps[0]?.[round] as number));
    return { workers, mpps: median(rates), gbps: gbps(median(rates)), speedup: median(speedups) };
  });
  const serial = { low: Math.min(...shares), median: median(shares), high: Math.max(...shares) };
  const one = points[0]?.gbps ?? 0;
  const targets = TARGETS_GBPS.map((target) => ({
    gbps: target,
    cores: coresFor(target / one, serial.median),
    coresLow: coresFor(target / one, serial.low),
    coresHigh: coresFor(target / one, serial.high),
  }));
  return { name, frameBytes, points, serial, targets };
}

/** The share s that fits the speedups best: least squares of n / speedup - 1 = s (n - 1). */
export function serialShare(counts: readonly number[], rates: readonly number[]): number {
  const one = rates[0] as number;
  let [above, below] = [0, 0];
  for (const [index, count] of counts.entries()) {
    const excess = (count * one) / (rates[index] as number) - 1;
    above += excess * (count - 1);
    below += (count - 1) ** 2;
  }
  return below > 0 ? Math.max(0, above / below) : 0;
}

/** Cores for `times` the work of one; undefined where no number of them does it. */
export function coresFor(times: number, serial: number): number | undefined {
  if (times <= 1) return times;
  return times * serial < 1 ? (times * (1 - serial)) / (1 - times * serial) : undefined;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
