/**
 * What a shared decision costs: in shared memory, and in a Redis server on loopback that this
 * command starts (where redis-server is installed). `node bench/decisions.ts`, after a build of the
 * benchmarks (the probe of memory is one of theirs).
 *
 * A decision is two claims (host/nodes/agreement.ts). Rates are of the best of several passes, the
 * latencies of batches of decisions, one after the other. Claims go to a table of 27 MB, in huge pages
 * where the system has them; beside them stands what a load at random costs in as much memory.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { DECISION_BYTES, SIDE_BYTES } from "../host/engine/decision.ts";
import { type HugePages, hugePages } from "../host/io/pages.ts";
import { agree } from "../host/nodes/agreement.ts";
import { openRedisStore } from "../host/nodes/redis-store.ts";
import { CLAIM_EARLIER, SharedStore } from "../host/nodes/shared-store.ts";
import type { FlowStore } from "../host/nodes/store.ts";
import { probeMemory } from "./probe.ts";

const PASSES = 5;
const CLAIM_PASSES = 20;
const PROBE_STEPS = 1_000_000;
const REDIS_PORT = 20_000 + (process.pid % 20_000);

let nextFlow = 0;

function proposals(count: number): Uint8Array[] {
  return Array.from({ length: count }, () => {
    const decision = new Uint8Array(DECISION_BYTES);
    const view = new DataView(decision.buffer);
    view.setUint32(0, nextFlow);
    view.setUint32(48, nextFlow++);
    return decision;
  });
}

function line(what: string, ...values: string[]): void {
  console.log([what.padEnd(44), ...values.map((value) => value.padStart(16))].join(""));
}

/** Claims in shared memory, without promises, in decisions of two; returns the bytes of the table. */
function claims(batch: number, { prepare }: HugePages): number {
  const count = 50_048;
  const store = new SharedStore({ entries: 2 * count, prepareMemory: prepare });
  const decisions = new Uint8Array(batch * DECISION_BYTES);
  const words = new Uint32Array(decisions.buffer);
  const outcomes = new Uint8Array(batch);
  const steps: number[] = [];
  let flow = 0;
  const passes = Array.from({ length: CLAIM_PASSES }, (_, pass) => {
    // What the pass before has written is over by now.
    const nowMs = pass * 1_000_000;
    let passMs = 0;
    for (let done = 0; done < count; done += batch) {
      for (let at = 0; at < words.length; at += DECISION_BYTES / 4) {
        words[at] = flow;
        words[at + SIDE_BYTES / 4] = flow++;
      }
      const start = performance.now();
      store.claimPacked("service", decisions, nowMs, outcomes);
      const isWon = !outcomes.includes(CLAIM_EARLIER);
      store.claimPacked("client", decisions, nowMs, outcomes);
      const ms = performance.now() - start;
      if (!isWon || outcomes.includes(CLAIM_EARLIER)) throw new Error("a claim was lost");
      steps.push(ms * 1000);
      passMs += ms;
    }
    return (passMs * 1e6) / count / 2;
  }).sort((one, other) => one - other);
  const [best = 0] = passes;
  line(
    `shared memory, claims, batches of ${batch}`,
    `${(5e2 / best).toFixed(2)} M/s`,
    ...percentiles(steps),
    `${best.toFixed(0)} (${(passes[CLAIM_PASSES >> 1] ?? 0).toFixed(0)}) ns`,
  );
  return store.memory.buffer.byteLength;
}

/** Median and 99th percentile, in µs. */
function percentiles(times: number[]): string[] {
  times.sort((one, other) => one - other);
  return [0.5, 0.99].map((share) => {
    return `${(times[Math.floor(share * (times.length - 1))] ?? 0).toFixed(1)} µs`;
  });
}

async function agreements(what: string, store: FlowStore, count: number): Promise<void> {
  for (const batch of [1, 16, 64, 256]) {
    const rates: number[] = [];
    const times: number[] = [];
    for (let pass = 0; pass < PASSES; pass++) {
      const passStart = performance.now();
      const steps = Math.ceil(count / batch);
      for (let step = 0; step < steps; step++) {
        const flows = proposals(batch);
        const start = performance.now();
        await agree(store, flows, 0);
        times.push((performance.now() - start) * 1000);
      }
      rates.push((steps * batch) / (performance.now() - passStart));
    }
    const rate = `${Math.max(...rates).toFixed(0)} k/s`;
    line(`${what}, batches of ${batch}`, rate, ...percentiles(times));
  }
}

async function redis(): Promise<void> {
  const words = [
    "--port",
    `${REDIS_PORT}`,
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--loglevel",
    "warning",
  ];
  const server: ChildProcess = spawn("redis-server", words, { stdio: "ignore" });
  const failed = new Promise<string>((resolve) => server.once("error", () => resolve("missing")));
  try {
    const isMissing = (await Promise.race([failed, sleep(500)])) === "missing";
    if (isMissing) return console.log("redis-server is not installed: left out");
    const store = await openRedisStore({ servers: [`127.0.0.1:${REDIS_PORT}`] });
    await agreements("Redis on loopback", store, 4000);
    await store.close();
  } finally {
    server.kill();
  }
}

line("", "decisions", "p50 of a batch", "p99", " a claim (median)");
const pages = await hugePages();
const [tableBytes = 0] = [1, 16, 64, 256].map((batch) => claims(batch, pages));
const [memory] = await probeMemory([tableBytes], PROBE_STEPS);
const { loadNs = 0, chaseNs = 0 } = memory ?? {};
line(
  `a load at random in ${Math.round(tableBytes / 1e6)} MB`,
  "",
  "",
  "",
  `${loadNs.toFixed(1)} ns`,
);
line("a load that waits for the one before", "", "", "", `${chaseNs.toFixed(1)} ns`);
const shared = new SharedStore({ entries: 1_000_000, prepareMemory: pages.prepare });
await agreements("shared memory", shared, 20_000);
await redis();
console.log(`memory in ${pages.word}`);
