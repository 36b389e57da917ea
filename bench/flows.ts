/**
 * Flow traffic in memory: WebAssembly, the C twin and the two TypeScript twins over the same
 * generated packets, the rounds of one beside the rounds of the other.
 */
import { pagesNow } from "./machine.ts";
import { costNs, ratioOf, type Sample, sampleOf, timed } from "./measure.ts";
import { Prototype } from "./prototype.ts";
import type { CapacityRow, FlowsRow, TrafficRow, TwinCost } from "./result.ts";
import { BATCH, KIND, Traffic } from "./traffic.ts";
import type { CTwin } from "./twin-c.ts";
import { IdiomaticTwin } from "./twin-idiomatic.ts";
import { TypedTwin } from "./twin-typed.ts";

/** How much is measured. */
export interface Effort {
  windows: number;
  turns: number;
  /** Of each turn. */
  turnWindows: number;
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
/** Most flows that live in all passes over one table that takes new ones: filling it takes time. */
const PASS_FLOWS = 12_000_000;
/** 7 of 64, 4 of 594 and 1 of 1518 bytes. */
const IMIX_BYTES = (7 * 64 + 4 * 594 + 1518) / 12;

/** One size: engine, prototype, C twin and tables that take new flows have their turns one after the other. */
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
  const roomy = await NewFlows.create(flows, Math.max(1024, 2 * flows));
  const full = await NewFlows.create(flows);
  const twin = c?.turns(flows, BATCH, effort.turnWindows);
  const turns: Turn[] = [];
  for (let turn = 0; turn < effort.turns; turn++) {
    const wasm = traffic.cost(effort.turnWindows, effort.windowPackets);
    const bare = prototype.cost(effort.turnWindows, effort.windowPackets);
    turns.push({ wasm, bare, ...(twin && { twinNs: await twin.turn() }) });
    roomy.turn();
    full.turn();
  }
  const single = traffic.cost(5, effort.windowPackets / 2, { batch: 1 });
  const row: FlowsRow = {
    flows,
    wasm: joined(turns.map(({ wasm }) => wasm)),
    single: single.min,
    fillNs,
    fresh: roomy.sample,
    freshFull: full.sample,
    prototype: joined(turns.map(({ bare }) => bare)),
    over: { prototype: ratioOf(turns.map(({ wasm, bare }) => wasm.min / bare.min)).middle },
    digest,
  };
  const pages = pagesNow();
  if (pages) row.pages = pages;
  if (twin) {
    row.twin = await twin.finish();
    row.over.twin = ratioOf(turns.map(({ wasm, twinNs = 0 }) => wasm.min / twinNs)).middle;
  }
  return row;
}

interface Turn {
  wasm: Sample;
  bare: Sample;
  twinNs?: number;
}

/**
 * A table in which an eighth more flows begin beside those that live, in one go and right behind those: as in
 * a gateway to which new ones keep coming. Every pass begins with an empty table.
 */
class NewFlows {
  readonly #traffic: Traffic;
  readonly #passesMax: number;
  readonly #passes: number[] = [];

  static async create(flows: number, flowsMax?: number): Promise<NewFlows> {
    return new NewFlows(await Traffic.create({ flows, ...(flowsMax && { flowsMax }) }));
  }

  private constructor(traffic: Traffic) {
    this.#traffic = traffic;
    this.#passesMax = Math.ceil(PASS_FLOWS / traffic.flows);
  }

  turn(): void {
    if (this.#passes.length >= this.#passesMax) return;
    this.#traffic.empty();
    this.#traffic.create();
    this.#passes.push(this.#traffic.create(this.#traffic.flows / 8));
  }

  get sample(): Sample {
    return sampleOf(this.#passes);
  }
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
