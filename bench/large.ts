/**
 * Hundreds of millions of flows: several engines, each in a thread and a memory of its own, as many
 * at work at once as there are cores. All flows are made through the whole way of a packet, looked
 * up at random in both directions, and a sample of each engine's is compared with what must come
 * out. `flowplane bench --flows 200M`.
 */
import os from "node:os";
import { Worker } from "node:worker_threads";
import { FlowplaneError } from "../host/errors.ts";
import { count } from "../host/report/units.ts";
import type { LargeAnswer, LargeOrder, LargeTask } from "./large-worker.ts";
import type { LargeResult, LargeRow } from "./result.ts";

/** IPv4 flows that one memory of 4 GiB holds, and IPv6 flows to compare them with. */
const ENGINE_FLOWS_MAX = 52_000_000;
const FLOWS6_MAX = 10_000_000;
/** Of a flow, table and room for others included; of an engine beside its table. */
const FLOW_BYTES = 87;
const FLOW6_BYTES = 165;
const ENGINE_BYTES = 80_000_000;
const BASELINE_FLOWS = 1_000_000;
const FLOWS_MAX = 0x0fff_ffff;

interface Effort {
  windows: number;
  packets: number;
  verifyBatches: number;
}

export const LARGE_EFFORT: Effort = { windows: 7, packets: 1 << 20, verifyBatches: 256 };
export const LARGE_SMOKE: Effort = { windows: 2, packets: 1 << 14, verifyBatches: 4 };

/** An engine's thread, asked and answered in turn. */
class LargeEngine {
  readonly #thread: Worker;
  #answers: ((answer: LargeAnswer) => void)[] = [];
  #failure: ((error: unknown) => void)[] = [];

  constructor(task: LargeTask) {
    this.#thread = new Worker(new URL("./large-worker.ts", import.meta.url), { workerData: task });
    this.#thread.on("message", (answer: LargeAnswer) => {
      this.#failure.shift();
      this.#answers.shift()?.(answer);
    });
    this.#thread.on("error", (error) => {
      for (const fail of this.#failure) fail(error);
    });
  }

  answer(): Promise<LargeAnswer> {
    return new Promise((resolve, reject) => {
      this.#answers.push(resolve);
      this.#failure.push(reject);
    });
  }

  ask(order: LargeOrder): Promise<LargeAnswer> {
    const answer = this.answer();
    this.#thread.postMessage(order);
    return answer;
  }

  async stop(): Promise<void> {
    await this.#thread.terminate();
  }
}

/** Answers of all engines, as many at work as there are cores; and the wall clock that took. */
async function inTurns(engines: readonly LargeEngine[], order: LargeOrder, cores: number) {
  const start = performance.now();
  const answers: LargeAnswer[] = [];
  for (let first = 0; first < engines.length; first += cores) {
    const wave = engines.slice(first, first + cores);
    answers.push(...(await Promise.all(wave.map((engine) => engine.ask(order)))));
  }
  return { answers, seconds: (performance.now() - start) / 1e3 };
}

/** @throws FlowplaneError when the memory is not there: before the first flow */
function requireMemory(flows: number, engines: number, isIpv6: boolean): void {
  const needed = flows * (isIpv6 ? FLOW6_BYTES : FLOW_BYTES) + engines * ENGINE_BYTES;
  const there = process.availableMemory();
  if (needed <= there) return;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  throw new FlowplaneError(
    `bench: ${flows} flows take ${gib(needed)} of memory, ${gib(there)} are free`,
  );
}

/** One size. */
async function measureRow(
  flows: number,
  isIpv6: boolean,
  engineCount: number,
  effort: Effort,
  say: (line: string) => void,
): Promise<LargeRow> {
  const cores = os.availableParallelism();
  const each = Math.ceil(flows / engineCount);
  requireMemory(each * engineCount, engineCount, isIpv6);
  const tasks = Array.from({ length: engineCount }, (_, index) => {
    return { flows: each, base: index * each, isIpv6 };
  });
  const engines: LargeEngine[] = [];
  try {
    const created: LargeAnswer[] = [];
    for (const task of tasks) {
      const engine = new LargeEngine(task);
      engines.push(engine);
      created.push(await engine.answer());
    }
    const { windows, packets, verifyBatches } = effort;
    const name = `${count(flows)} ${isIpv6 ? "IPv6" : "IPv4"} flows`;
    say(`${name}: set up`);
    const fill = await inTurns(engines, { what: "fill" }, cores);
    say(`${name}: looked up`);
    const look = await inTurns(engines, { what: "look", windows, packets }, cores);
    const verify = await inTurns(engines, { what: "verify", batches: verifyBatches }, cores);
    const most = (part: "ms" | "min" | "median", of: readonly LargeAnswer[]) =>
      Math.max(...of.map((answer) => answer[part] ?? 0));
    const sum = (part: "active" | "verified" | "tableBytes", of: readonly LargeAnswer[]) =>
      of.reduce((total, answer) => total + (answer[part] ?? 0), 0);
    const active = sum("active", fill.answers);
    if (active < flows) throw new Error(`bench: of ${flows} flows only ${active} live`);
    return {
      family: isIpv6 ? "IPv6" : "IPv4",
      engines: engineCount,
      flows: active,
      tableBytes: sum("tableBytes", fill.answers),
      residentBytes: process.memoryUsage.rss(),
      createMs: most("ms", created),
      fillSeconds: fill.seconds,
      flowsPerSecond: active / fill.seconds,
      lookNs: most("min", look.answers),
      lookMedianNs: most("median", look.answers),
      verified: sum("verified", verify.answers),
    };
  } finally {
    await Promise.all(engines.map((engine) => engine.stop()));
  }
}

/** What the first and the second writing of a GiB of fresh memory take, in seconds. */
function measureTouch(): LargeResult["touch"] {
  const pages = 16384;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
  const start = performance.now();
  memory.grow(pages);
  const grown = performance.now();
  const bytes = new Uint8Array(memory.buffer);
  bytes.fill(1);
  const first = performance.now();
  bytes.fill(2);
  const second = performance.now();
  return {
    growMs: grown - start,
    firstSecondsPerGib: (first - grown) / 1e3,
    againSecondsPerGib: (second - first) / 1e3,
  };
}

/** @throws FlowplaneError when the flows do not fit the memory */
export async function measureLarge(
  flows: number,
  say: (line: string) => void,
  effort: Effort = LARGE_EFFORT,
): Promise<LargeResult> {
  if (flows > FLOWS_MAX) {
    throw new FlowplaneError(
      `bench: ${flows} flows are more than the ${FLOWS_MAX} of the generator`,
    );
  }
  const cores = os.availableParallelism();
  const engines = Math.max(Math.ceil(flows / ENGINE_FLOWS_MAX), Math.min(cores, flows));
  requireMemory(flows, engines, false);
  const baselineFlows = Math.min(BASELINE_FLOWS, flows);
  const baseline = await measureRow(baselineFlows * cores, false, cores, effort, say);
  const ipv4 = await measureRow(flows, false, engines, effort, say);
  // One engine is enough to compare: what a flow and a packet of IPv6 take.
  const flows6 = Math.min(FLOWS6_MAX, Math.ceil(flows / engines / 2));
  const ipv6 = await measureRow(flows6, true, 1, effort, say);
  say("first touch of memory");
  const touch = measureTouch();
  return { rows: [baseline, ipv4, ipv6], lookRatio: ipv4.lookNs / baseline.lookNs, touch };
}
