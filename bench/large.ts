/**
 * Hundreds of millions of flows: several engines, each in a thread and a memory of its own, as many
 * at work at once as there are cores. Their tables are touched, as a table is that is sized for its
 * use at the start (`touchTables`); then all flows are made through the whole way of a packet, looked
 * up at random in both directions, and a sample of each engine's is compared with what must come
 * out. `flowplane bench --flows 200M`.
 */
import os from "node:os";
import { Worker } from "node:worker_threads";
import { FlowplaneError } from "../host/errors.ts";
import { count } from "../host/report/units.ts";
import type { LargeAnswer, LargeOrder, LargeTask } from "./large-worker.ts";
import type { Goal, LargeResult, LargeRow, PagesCost } from "./result.ts";
import { PAGES } from "./traffic.ts";

type Family = LargeRow["family"];

/** Flows that one memory of 4 GiB holds, and IPv6 flows to compare them with. */
const ENGINE_FLOWS_MAX = { IPv4: 52_000_000, "IPv4 compact": 80_000_000 };
const FLOWS6_MAX = 10_000_000;
/** In each of the engines that compare pages, and how often they are looked up in turns. */
const PAGES_FLOWS_MAX = 10_000_000;
const PAGES_ROUNDS = 3;
/** Millions. */
const FLOWS_GOAL = { IPv4: 200, "IPv4 compact": 400 };
/** Of a flow, table and room for others included; of an engine beside its table. */
const FLOW_BYTES: Readonly<Record<Family, number>> = { IPv4: 87, IPv6: 165, "IPv4 compact": 44 };
const ENGINE_BYTES = 80_000_000;
const BASELINE_FLOWS = 1_000_000;
const FLOWS_MAX = { IPv4: 0x0fff_ffff, "IPv4 compact": 0x7fff_ffff };

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
function requireMemory(flows: number, engines: number, family: Family): void {
  const needed = flows * FLOW_BYTES[family] + engines * ENGINE_BYTES;
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
  family: Family,
  engineCount: number,
  effort: Effort,
  say: (line: string) => void,
): Promise<LargeRow> {
  const cores = os.availableParallelism();
  const each = Math.ceil(flows / engineCount);
  requireMemory(each * engineCount, engineCount, family);
  const tasks = Array.from({ length: engineCount }, (_, index) => {
    return { flows: each, base: index * each, family };
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
    const name = `${count(flows)} ${family} flows`;
    say(`${name}: set up`);
    const touch = await inTurns(engines, { what: "touch" }, cores);
    const fill = await inTurns(engines, { what: "fill" }, cores);
    say(`${name}: looked up`);
    const look = await inTurns(engines, { what: "look", windows, packets }, cores);
    // One after the other: it allocates, and collectors of two threads at real-time priority may starve.
    const verify = await inTurns(engines, { what: "verify", batches: verifyBatches }, 1);
    const most = (part: "ms" | "min" | "median", of: readonly LargeAnswer[]) =>
      Math.max(...of.map((answer) => answer[part] ?? 0));
    const sum = (part: "active" | "verified" | "tableBytes", of: readonly LargeAnswer[]) =>
      of.reduce((total, answer) => total + (answer[part] ?? 0), 0);
    const active = sum("active", fill.answers);
    if (active < flows) throw new Error(`bench: of ${flows} flows only ${active} live`);
    return {
      family,
      engines: engineCount,
      flows: active,
      tableBytes: sum("tableBytes", fill.answers),
      residentBytes: process.memoryUsage.rss(),
      createMs: most("ms", created),
      touchSeconds: touch.seconds,
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
function touchOf(prepare?: (memory: WebAssembly.Memory) => void) {
  const pages = 16384;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
  prepare?.(memory);
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

function measureTouch(): LargeResult["touch"] {
  const plain = touchOf();
  return { ...plain, enginesFirstSecondsPerGib: touchOf(PAGES.prepare).firstSecondsPerGib };
}

/** One engine in plain and one in huge pages, taking turns; undefined where there are no huge ones. */
async function measurePages(flows: number, effort: Effort): Promise<LargeResult["pages"]> {
  if (!PAGES.isHuge) return undefined;
  requireMemory(2 * flows, 2, "IPv4");
  const kinds = [true, false];
  const engines = kinds.map((isPlain) => {
    return new LargeEngine({ flows, base: 0, family: "IPv4", isPlain });
  });
  try {
    const ask = async (order: LargeOrder) => (await inTurns(engines, order, 1)).answers;
    await Promise.all(engines.map((engine) => engine.answer()));
    const touched = await ask({ what: "touch" });
    const filled = await ask({ what: "fill" });
    const looks: LargeAnswer[][] = [];
    const { windows, packets } = effort;
    for (let round = 0; round < PAGES_ROUNDS; round++) {
      looks.push(await ask({ what: "look", windows, packets }));
    }
    const [plain, huge] = kinds.map((_, index): PagesCost => {
      return {
        touchSeconds: (touched[index]?.ms as number) / 1e3,
        fillNs: ((filled[index]?.ms as number) * 1e6) / flows,
        lookNs: Math.min(...looks.map((answers) => answers[index]?.min as number)),
      };
    });
    return { flows, plain: plain as PagesCost, huge: huge as PagesCost };
  } finally {
    await Promise.all(engines.map((engine) => engine.stop()));
  }
}

/** What issue and documents promise of this size. */
function goalsOf(
  asked: number,
  { flows, family, flowsPerSecond }: LargeRow,
  ratio: number,
): Goal[] {
  const wanted = FLOWS_GOAL[family as keyof typeof FLOWS_GOAL];
  const live = {
    name: `${family} flows that live`,
    is: "atLeast",
    goal: wanted,
    unit: "M",
  } as const;
  const named = { is: "atLeast", goal: 4, unit: "M/s", value: flowsPerSecond / 1e6 } as const;
  const cost = { is: "atMost", goal: 4, unit: "x", value: ratio } as const;
  return [
    asked < wanted * 1e6
      ? { ...live, reason: `--flows ${wanted}M` }
      : { ...live, value: flows / 1e6, met: flows >= wanted * 1e6 },
    { ...named, name: "set up, on all cores", met: named.value >= named.goal },
    { ...cost, name: "cost of a packet over that at 1 M flows", met: cost.value <= cost.goal },
  ];
}

/**
 * Flows of one family, and as many as fit the first caches beside them; with plain IPv4 also IPv6.
 * @throws FlowplaneError when the flows do not fit the memory
 */
export async function measureLarge(
  flows: number,
  say: (line: string) => void,
  effort: Effort = LARGE_EFFORT,
  family: "IPv4" | "IPv4 compact" = "IPv4",
): Promise<LargeResult> {
  if (flows > FLOWS_MAX[family]) {
    throw new FlowplaneError(
      `bench: ${flows} flows are more than the ${FLOWS_MAX[family]} of the generator`,
    );
  }
  const cores = os.availableParallelism();
  const engines = Math.max(Math.ceil(flows / ENGINE_FLOWS_MAX[family]), Math.min(cores, flows));
  requireMemory(flows, engines, family);
  const baselineFlows = Math.min(BASELINE_FLOWS, flows);
  const baseline = await measureRow(baselineFlows * cores, family, cores, effort, say);
  const many = await measureRow(flows, family, engines, effort, say);
  const rows = [baseline, many];
  let pages: LargeResult["pages"];
  if (family === "IPv4") {
    // One engine is enough to compare: what a flow and a packet of IPv6 take.
    const flows6 = Math.min(FLOWS6_MAX, Math.ceil(flows / engines / 2));
    rows.push(await measureRow(flows6, "IPv6", 1, effort, say));
    say("pages of both kinds");
    pages = await measurePages(Math.min(PAGES_FLOWS_MAX, Math.ceil(flows / engines)), effort);
  }
  say("first touch of memory");
  const touch = measureTouch();
  const lookRatio = many.lookNs / baseline.lookNs;
  const goals = goalsOf(flows, many, lookRatio);
  return { goals, rows, ...(pages && { pages }), lookRatio, touch };
}
