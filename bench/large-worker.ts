/**
 * One engine of bench/large.ts in a thread of its own: fills its table, looks flows up at random,
 * and proves that they live. Answers one message with one.
 */
import { parentPort, workerData } from "node:worker_threads";
import type { Counters } from "../host/engine/api.ts";
import type { EngineExports } from "../host/engine/module.ts";
import { CompactTraffic } from "./compact-traffic.ts";
import { sampleOf, timed } from "./measure.ts";
import type { LargeRow } from "./result.ts";
import { BATCH, KIND, STRIDE, Traffic } from "./traffic.ts";

export interface LargeTask {
  flows: number;
  /** Number of this engine's first flow: no two engines have one in common. */
  base: number;
  family: LargeRow["family"];
  /** Whether its memory has plain pages in any case. */
  isPlain?: boolean;
}

/** What is asked, and what is told. */
export type LargeOrder =
  | { what: "touch" }
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

const { flows, base, family, isPlain = false } = workerData as LargeTask;

/** Traffic over an engine of either kind. */
interface Subject {
  readonly engine: { counters(): Counters; exports: Pick<EngineExports, "touchTables"> };
  tableBytes: number;
  fill(done: number, batches: number): void;
  sample(): void;
  look(batches: number, isProcessed: boolean): void;
  verify(batches: number): number;
}

async function subjectOf(): Promise<Subject> {
  if (family === "IPv4 compact") {
    const traffic = await CompactTraffic.create(flows, base);
    return Object.assign(traffic, { tableBytes: traffic.engine.tableBytes });
  }
  const isIpv6 = family === "IPv6";
  // Room to spare, as far as 4 GiB go: a table that is nearly full looks long for a free slot.
  const flowsMax = Math.max(flows, Math.min(Math.ceil(flows * 1.2), isIpv6 ? 30e6 : 58e6));
  const traffic = await Traffic.create({ flows, flowsMax, isIpv6, base, isPlain });
  const { engine, bench } = traffic;
  const run = (kind: number, first: number, count: number, isProcessed: number) => {
    const { address } = engine.arena;
    bench.runBatches(address, STRIDE, BATCH, kind, first, flows, 64, count, isProcessed);
  };
  return {
    engine,
    tableBytes: isIpv6 ? engine.flow6TableBytes : engine.flowTableBytes,
    fill: (done, batches) => run(KIND.new, base + done * BATCH, batches, 1),
    sample: () => undefined,
    look: (batches, isProcessed) => run(KIND.established, base, batches, isProcessed ? 1 : 0),
    verify: (batches) => traffic.verify(batches),
  };
}

const start = performance.now();
const subject = await subjectOf();
const createMs = performance.now() - start;

/** Makes all flows, in chunks so that the thread stays in one call for no more than a second. */
function fill(): LargeAnswer {
  const all = Math.ceil(flows / BATCH);
  const chunk = 8192;
  const ms = timed(() => {
    for (let done = 0; done < all; done += chunk) {
      subject.fill(done, Math.min(chunk, all - done));
    }
  });
  const { active } = subject.engine.counters().flows;
  return { ms, active, tableBytes: subject.tableBytes };
}

/** Established packets of flows at random, either direction; the generator's time taken off. */
function look(windows: number, packets: number): LargeAnswer {
  const count = Math.ceil(packets / BATCH);
  subject.sample();
  const generatorMs = Math.min(...[0, 1, 2].map(() => timed(() => subject.look(count, false))));
  subject.look(count, true);
  const times: number[] = [];
  for (let window = 0; window < windows; window++) {
    times.push(timed(() => subject.look(count, true)));
  }
  const ns = times.map((ms) => ((ms - generatorMs) * 1e6) / count / BATCH);
  const { min, median } = sampleOf(ns);
  return { ms: times.reduce((sum, ms) => sum + ms, 0), min, median };
}

function answer(order: LargeOrder): LargeAnswer {
  switch (order.what) {
    case "touch":
      // As `touchTables` of createEngine does, but by the clock.
      return { ms: timed(() => subject.engine.exports.touchTables()) };
    case "fill":
      return fill();
    case "look":
      return look(order.windows, order.packets);
    case "verify": {
      let verified = 0;
      const ms = timed(() => {
        verified = subject.verify(order.batches);
      });
      const { forward, ...others } = subject.engine.counters().verdicts;
      const dropped = Object.values(others).reduce((sum, count) => sum + count, 0);
      if (dropped > 0) throw new Error(`bench: ${dropped} of ${forward + dropped} were dropped`);
      return { ms, verified };
    }
  }
}

parentPort?.on("message", (order: LargeOrder) => parentPort?.postMessage(answer(order)));
parentPort?.postMessage({ ms: createMs });
