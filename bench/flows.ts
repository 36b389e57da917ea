/**
 * Flow traffic in memory: WebAssembly, the C twin and the two TypeScript twins over the same
 * generated packets, the rounds of one beside the rounds of the other.
 */
import { setTimeout } from "node:timers/promises";
import { costNs, type Sample, sampleOf, timed } from "./measure.ts";
import { Prototype } from "./prototype.ts";
import type { CapacityRow, FlowsRow, TrafficRow, TwinCost } from "./result.ts";
import { BATCH, KIND, Traffic } from "./traffic.ts";
import type { CTwin } from "./twin-c.ts";
import { IdiomaticTwin } from "./twin-idiomatic.ts";
import { TypedTwin } from "./twin-typed.ts";

/** Between windows that are to lie apart. */
const REST_MS = 250;

/** How much is measured. */
export interface Effort {
  windows: number;
  windowPackets: number;
  /** Batches that go into digests. */
  digestBatches: number;
}

interface Twin {
  process(count: number): void;
}

/** The pool's address as the typed twin loads it, and as a number. */
const NAT_WORD = 0x017100cb;
const NAT_ADDRESS = 0xcb007101;
/** Frame lengths: the row's name, bytes as the generator takes them, and the C twin's word. */
const FRAME_LENGTHS = [
  ["64 bytes", 64, "64"],
  ["IMIX", 0, "imix"],
  ["1514 bytes", 1514, "1514"],
] as const;
/** Batches that the C twin digests. */
const TWIN_DIGEST_BATCHES = 1024;
/** 7 of 64, 4 of 594 and 1 of 1518 bytes. */
const IMIX_BYTES = (7 * 64 + 4 * 594 + 1518) / 12;

/** One size: engine, prototype and C twin take turns, three rounds each. */
export async function measureFlows(
  flows: number,
  effort: Effort,
  c: CTwin | undefined,
): Promise<FlowsRow> {
  const traffic = await Traffic.create({ flows });
  const fillNs = traffic.create();
  traffic.establish();
  traffic.verify(4);
  const digest = traffic.digest(effort.digestBatches);
  const prototype = await Prototype.create(flows);
  prototype.verify(16);
  const rounds = [0, 1, 2].map(() => {
    const wasm = traffic.cost(effort.windows, effort.windowPackets);
    const bare = prototype.cost(effort.windows, effort.windowPackets);
    const twin = c?.memory(flows, BATCH, effort.windows);
    return { wasm, bare, twin };
  });
  const single = traffic.cost(Math.min(5, effort.windows), effort.windowPackets / 2, { batch: 1 });
  const newFullNs = await newFlowNs(traffic, flows);
  const roomy = await Traffic.create({ flows, flowsMax: Math.max(1024, 2 * flows) });
  roomy.create();
  const newNs = await newFlowNs(roomy, flows);
  const row: FlowsRow = {
    flows,
    wasm: joined(rounds.map(({ wasm }) => wasm)),
    single: single.min,
    fillNs,
    newNs,
    newFullNs,
    prototype: joined(rounds.map(({ bare }) => bare)),
    digest,
  };
  const twins = rounds.flatMap(({ twin }) => (twin ? [twin] : []));
  const best = twins.sort((a, b) => a.min - b.min)[0];
  if (best) row.twin = { ...best, newNs: Math.min(...twins.map(({ newNs }) => newNs)) };
  return row;
}

/**
 * An eighth more flows; ns per flow in the best of many short windows. They come in four bursts over a
 * second, for a machine that others share has slow spells as long as one burst.
 */
async function newFlowNs(traffic: Traffic, flows: number): Promise<number> {
  const windows = Math.max(1, Math.min(16, Math.floor(flows / 8 / BATCH)));
  let best = Number.POSITIVE_INFINITY;
  for (let window = 0; window < windows; window++) {
    if (window > 0 && window % 4 === 0) await setTimeout(REST_MS);
    best = Math.min(best, traffic.create(flows / 8 / windows));
  }
  return best;
}

/** Rounds of windows as one. */
function joined(rounds: readonly Sample[]): Sample {
  const min = Math.min(...rounds.map((round) => round.min));
  const median = sampleOf(rounds.map((round) => round.median)).median;
  const windows = rounds.reduce((sum, round) => sum + round.windows, 0);
  return { min, median, spread: median / min - 1, windows };
}

/** The typed or the idiomatic twin over the packets that the engine has had. */
export async function measureTwin(
  kind: "typed" | "idiomatic",
  flows: number,
  effort: Effort,
): Promise<TwinCost> {
  const traffic = await Traffic.create({ flows, flowsMax: 16 });
  const { bytes, descriptors } = traffic.engine;
  const flowsMax = Math.ceil(flows * 1.25) + BATCH;
  const twin: Twin =
    kind === "typed"
      ? new TypedTwin(bytes, descriptors, NAT_WORD, flowsMax)
      : new IdiomaticTwin(bytes, descriptors, NAT_ADDRESS);
  const create = (isProcessed: boolean) => {
    for (let first = 0; first < flows; first += BATCH) {
      traffic.generateNew(BATCH, first);
      if (isProcessed) twin.process(BATCH);
    }
  };
  create(false);
  const generatorMs = timed(() => create(false));
  const newNs = ((timed(() => create(true)) - generatorMs) * 1e6) / flows;
  const batches = Math.ceil(effort.windowPackets / BATCH);
  const run = (isProcessed: boolean) => {
    for (let batch = 0; batch < batches; batch++) {
      traffic.generate(BATCH);
      if (isProcessed) twin.process(BATCH);
    }
  };
  const digest = twinDigest(traffic, twin, effort.digestBatches);
  run(true);
  const full: number[] = [];
  const generator: number[] = [];
  for (let window = 0; window < effort.windows; window++) {
    full.push(timed(() => run(true)));
    generator.push(timed(() => run(false)));
  }
  const { min, median } = costNs(full, generator, batches * BATCH);
  return { min, median, newNs, digest };
}

function twinDigest(traffic: Traffic, twin: Twin, batches: number): string {
  traffic.bench.generatorSeed(2);
  let digest = 0n;
  for (let batch = 0; batch < batches; batch++) {
    traffic.generate(BATCH);
    twin.process(BATCH);
    digest = traffic.engine.exports.digestFrames(BATCH, digest);
  }
  return BigInt.asUintN(64, digest).toString(16).padStart(16, "0");
}

/** Frame lengths, one constant flow and IPv6, each over `flows` flows. */
export async function measureTraffic(
  flows: number,
  effort: Effort,
  c: CTwin | undefined,
): Promise<TrafficRow[]> {
  const traffic = await Traffic.create({ flows });
  traffic.create();
  traffic.establish();
  const rows: TrafficRow[] = [];
  const add = (name: string, rowFlows: number, wasm: Sample, bytes: number) => {
    const row: TrafficRow = { name, flows: rowFlows, wasm, gbps: (bytes * 8) / wasm.min };
    rows.push(row);
    return row;
  };
  for (const [name, frameBytes, length] of FRAME_LENGTHS) {
    const wasm = traffic.cost(effort.windows, effort.windowPackets, { frameBytes });
    const row = add(name, flows, wasm, frameBytes || IMIX_BYTES);
    if (c) row.twin = c.memory(flows, BATCH, effort.windows, "established", "staged", length);
  }
  const constant = traffic.cost(effort.windows, effort.windowPackets, { kind: KIND.constant });
  const row = add("one constant flow", flows, constant, 64);
  if (c) row.twin = c.memory(flows, BATCH, effort.windows, "constant");
  const ipv6 = await Traffic.create({ flows, isIpv6: true });
  ipv6.create();
  ipv6.establish();
  const cost6 = ipv6.cost(effort.windows, effort.windowPackets);
  const row6 = add("IPv6, 74 bytes", flows, cost6, 74);
  if (c) {
    row6.twin = c.memory(flows, BATCH, effort.windows, "established", "staged", "64", "ipv6");
    const digest = ipv6.digest(TWIN_DIGEST_BATCHES);
    if (row6.twin.digest !== digest) {
      throw new Error(`bench: IPv6: digest ${digest}, of twin ${row6.twin.digest}`);
    }
  }
  const { forward } = ipv6.engine.counters().verdicts;
  const total = Object.values(ipv6.engine.counters().verdicts).reduce((sum, n) => sum + n, 0);
  if (forward !== total) throw new Error(`bench: ${total - forward} IPv6 packets did not pass`);
  return rows;
}

/** Fills a table until it refuses a flow; bytes per flow are those of the table over its flows. */
export async function measureCapacity(flowsMax: number, isIpv6: boolean): Promise<CapacityRow> {
  const traffic = await Traffic.create({ flows: flowsMax, flowsMax, isIpv6 });
  const { engine } = traffic;
  const start = performance.now();
  // In large steps at first; from there on batch by batch, to stop at the first refusal.
  traffic.create(Math.floor(flowsMax * 0.8));
  while (engine.counters().verdicts["drop.table-full"] === 0) traffic.create(BATCH);
  const fillSeconds = (performance.now() - start) / 1e3;
  const { active } = engine.counters().flows;
  const bytes = isIpv6 ? engine.flow6TableBytes : engine.flowTableBytes;
  const verified = isIpv6 ? 0 : verifyFull(traffic, active);
  return {
    name: isIpv6 ? "IPv6" : "IPv4",
    flows: active,
    bytesPerFlow: bytes / active,
    fillSeconds,
    verified,
  };
}

/** Refused flows are the last ones: the first 97 % are all there. */
function verifyFull(traffic: Traffic, active: number): number {
  traffic.flows = Math.floor(active * 0.97);
  return traffic.verify(512);
}
