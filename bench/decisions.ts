/**
 * What a shared decision costs: in shared memory, and in a Redis server on loopback that this
 * command starts (where redis-server is installed). `node bench/decisions.ts`.
 *
 * A decision is two claims (host/nodes/agreement.ts). Rates are of the best of several passes, the
 * latencies of batches of decisions, one after the other; a claim in shared memory is the best pass over
 * a table of 25 MB.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { DECISION_BYTES, SIDE_BYTES } from "../host/engine/decision.ts";
import { agree } from "../host/nodes/agreement.ts";
import { openRedisStore } from "../host/nodes/redis-store.ts";
import { CLAIM_EARLIER, SharedStore } from "../host/nodes/shared-store.ts";
import type { FlowStore } from "../host/nodes/store.ts";

const PASSES = 5;
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

/** Claims in shared memory, without promises: ns each, and how many decisions a second. */
function claims(batch: number): void {
  const count = 50_048;
  const store = new SharedStore({ entries: 2 * count });
  const decisions = new Uint8Array(batch * DECISION_BYTES);
  const words = new Uint32Array(decisions.buffer);
  const outcomes = new Uint8Array(batch);
  let flow = 0;
  const times = Array.from({ length: 4 * PASSES }, (_, pass) => {
    // What the pass before has written is over by now.
    const nowMs = pass * 1_000_000;
    const start = process.hrtime.bigint();
    for (let done = 0; done < count; done += batch) {
      for (let at = 0; at < words.length; at += DECISION_BYTES / 4) {
        words[at] = flow;
        words[at + SIDE_BYTES / 4] = flow++;
      }
      for (const side of ["service", "client"] as const) {
        store.claimPacked(side, decisions, nowMs, outcomes);
        if (outcomes.includes(CLAIM_EARLIER)) throw new Error("a claim was lost");
      }
    }
    return Number(process.hrtime.bigint() - start) / count / 2;
  });
  const best = Math.min(...times);
  line(
    `shared memory, a claim, batches of ${batch}`,
    `${(5e2 / best).toFixed(2)} M/s`,
    `${best.toFixed(0)} ns`,
  );
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
    times.sort((a, b) => a - b);
    const at = (share: number) =>
      `${(times[Math.floor(share * (times.length - 1))] ?? 0).toFixed(1)} µs`;
    line(`${what}, batches of ${batch}`, `${Math.max(...rates).toFixed(0)} k/s`, at(0.5), at(0.99));
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

line("", "decisions", "p50 of a batch", "p99");
for (const batch of [1, 16, 64, 256]) claims(batch);
await agreements("shared memory", new SharedStore({ entries: 1_000_000 }), 20_000);
await redis();
