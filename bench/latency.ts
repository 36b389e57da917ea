/**
 * Latency: whole batches back to back; packets that arrive by the clock, whether the engine keeps
 * up or not (open loop: the time counts from the instant at which a packet was due, so waiting is
 * never left out); and what a hand-over to another thread adds. `flowplane bench --part latency`.
 */
import { once } from "node:events";
import { createHistogram } from "node:perf_hooks";
import { Worker } from "node:worker_threads";
import {
  ARRIVED,
  distributionOf,
  IS_ASLEEP,
  type LatencyAnswer,
  type LatencyOrder,
  PING,
  PONG,
} from "./latency-worker.ts";
import type { Goal, LatencyResult, LoadRow } from "./result.ts";

interface Effort {
  flows: number;
  batchSizes: number[];
  batches: number;
  loads: number[];
  loadMs: number;
  rounds: number;
}

export const LATENCY_EFFORT: Effort = {
  flows: 1_000_000,
  batchSizes: [1, 4, 16, 64, 256],
  batches: 50_000,
  loads: [0.1, 0.5, 0.9],
  loadMs: 400,
  rounds: 100_000,
};

export const LATENCY_SMOKE: Effort = {
  flows: 1000,
  batchSizes: [1, 64],
  batches: 500,
  loads: [0.5],
  loadMs: 20,
  rounds: 200,
};

const PAUSE_MS = 200;

/** The measured thread. */
class Measured {
  readonly words: Int32Array;
  readonly #thread: Worker;

  constructor(flows: number) {
    const shared = new SharedArrayBuffer(64);
    this.words = new Int32Array(shared);
    const url = new URL("./latency-worker.ts", import.meta.url);
    this.#thread = new Worker(url, { workerData: { flows, shared } });
  }

  /** Rejects when the thread fails. */
  async answer(): Promise<LatencyAnswer> {
    const [told] = await once(this.#thread, "message");
    return told as LatencyAnswer;
  }

  ask(order: LatencyOrder): Promise<LatencyAnswer> {
    const answer = this.answer();
    this.#thread.postMessage(order);
    return answer;
  }

  async stop(): Promise<void> {
    await this.#thread.terminate();
  }
}

export async function measureLatency(
  say: (line: string) => void,
  effort: Effort = LATENCY_EFFORT,
): Promise<LatencyResult> {
  const measured = new Measured(effort.flows);
  try {
    await measured.answer();
    const batches: LatencyResult["batches"] = [];
    const loads: LoadRow[] = [];
    for (const batch of effort.batchSizes) {
      say(`latency, batches of ${batch}`);
      const whole = await measured.ask({ what: "batches", batch, batches: effort.batches });
      const { distribution, machine, prototype, packetsPerMs = 0, collections } = whole;
      if (!distribution || !machine) throw new Error("bench: batches without a distribution");
      batches.push({ batch, ...distribution, machine, prototype, collections });
      for (const load of effort.loads) {
        loads.push(await loadRow(measured, batch, load, packetsPerMs, effort));
      }
    }
    const peak = Math.max(...loads.map((row) => row.peakMpps));
    say("latency, handed over");
    const handed: LatencyResult["handed"] = [];
    for (const isSleeping of [false, true]) {
      await pause();
      const packetsPerMs = peak * 1e3 * 0.5;
      const packets = Math.ceil(packetsPerMs * effort.loadMs);
      const distribution = await handOver(measured, 64, isSleeping, packetsPerMs, packets);
      handed.push({ how: isSleeping ? "sleeping" : "spinning", load: 0.5, ...distribution });
    }
    const echoes: LatencyResult["echoes"] = [];
    for (const isSleeping of [false, true]) {
      await pause();
      const rounds = isSleeping ? Math.ceil(effort.rounds / 20) : effort.rounds;
      const distribution = await echo(measured, isSleeping, rounds);
      echoes.push({ how: isSleeping ? "sleeping" : "spinning", ...distribution });
    }
    const goals = latencyGoals({ batches, echoes });
    return { flows: effort.flows, goals, batches, loads, handed, echoes };
  } finally {
    await measured.stop();
  }
}

const GOAL_BATCH = 64;
const TAIL_US = 20;

/**
 * What is promised of latency. A core is quiet where a loop that does nothing keeps the goal for the tail
 * itself; on any other the tail of batches says nothing about the engine.
 */
export function latencyGoals({
  batches,
  echoes,
}: Pick<LatencyResult, "batches" | "echoes">): Goal[] {
  const row = batches.find(({ batch }) => batch === GOAL_BATCH);
  const name = `batch of ${GOAL_BATCH}`;
  const isQuiet = (row?.machine?.p999 ?? 0) <= TAIL_US;
  const tail = { name: `${name}, p99.9`, goal: TAIL_US, is: "atMost", unit: " µs" } as const;
  const reason = `no quiet core: ${(row?.machine?.p999 ?? 0).toFixed(0)} µs doing nothing`;
  const echoGoal = (how: "spinning" | "sleeping", goal: number) => {
    const value = echoes.find((echo) => echo.how === how)?.p50;
    return atMost(`a word there and back, ${how}, p50`, goal, value, " µs");
  };
  const collections = batches.reduce((sum, batch) => sum + batch.collections, 0);
  return [
    atMost(`${name}, p50`, 3, row?.p50, " µs"),
    isQuiet ? atMost(tail.name, tail.goal, row?.p999, tail.unit) : { ...tail, reason },
    echoGoal("spinning", 1),
    echoGoal("sleeping", 100),
    atMost("collections of garbage in all batches", 0, collections, ""),
  ];
}

function atMost(name: string, goal: number, value: number | undefined, unit: string): Goal {
  if (value === undefined) return { name, goal, is: "atMost", unit, reason: "not in this run" };
  return { name, goal, is: "atMost", unit, value, met: value <= goal };
}

/** Systems take a core away from threads that never rest: those of real-time priority for 50 ms. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}

async function loadRow(
  measured: Measured,
  batch: number,
  load: number,
  peakPerMs: number,
  { loadMs }: Effort,
): Promise<LoadRow> {
  const packetsPerMs = peakPerMs * load;
  await pause();
  const told = await measured.ask({ what: "load", batch, packetsPerMs, ms: loadMs });
  if (!told.distribution) throw new Error("bench: a load without a distribution");
  return {
    batch,
    load,
    peakMpps: peakPerMs / 1e3,
    ...told.distribution,
    collections: told.collections,
  };
}

/** Packets become due by this thread's clock; the other decides them. */
async function handOver(
  measured: Measured,
  batch: number,
  isSleeping: boolean,
  packetsPerMs: number,
  packets: number,
) {
  const { words } = measured;
  Atomics.store(words, ARRIVED, 0);
  const answered = measured.ask({ what: "handed", batch, isSleeping, packets });
  await new Promise((resolve) => setTimeout(resolve, 50));
  const start = performance.now() + 1;
  for (let told = 0; told < packets; ) {
    const due = Math.min(packets, Math.floor((performance.now() - start) * packetsPerMs) + 1);
    if (due <= told) continue;
    told = due;
    Atomics.store(words, ARRIVED, told);
    if (isSleeping && Atomics.load(words, IS_ASLEEP) === 1) Atomics.notify(words, ARRIVED);
  }
  const { ends, counts } = await answered;
  const histogram = createHistogram();
  const startOf = start + performance.timeOrigin;
  let packet = 0;
  for (const [index, end] of (ends ?? new Float64Array()).entries()) {
    for (let one = counts?.[index] ?? 0; one > 0; one--, packet++) {
      histogram.record(Math.max(1, Math.round((end - startOf - packet / packetsPerMs) * 1e6)));
    }
  }
  return distributionOf(histogram);
}

/** A word there and back. */
async function echo(measured: Measured, isSleeping: boolean, rounds: number) {
  const { words } = measured;
  Atomics.store(words, PING, 0);
  Atomics.store(words, PONG, 0);
  const answered = measured.ask({ what: "echo", isSleeping, rounds });
  await new Promise((resolve) => setTimeout(resolve, 50));
  const times = new Float64Array(rounds);
  for (let round = 1; round <= rounds; round++) {
    const start = performance.now();
    Atomics.store(words, PING, round);
    if (isSleeping) Atomics.notify(words, PING);
    while (Atomics.load(words, PONG) !== round) {
      if (isSleeping) Atomics.wait(words, PONG, round - 1);
    }
    times[round - 1] = performance.now() - start;
  }
  await answered;
  const histogram = createHistogram();
  for (const ms of times) histogram.record(Math.max(1, Math.round(ms * 1e6)));
  return distributionOf(histogram);
}
