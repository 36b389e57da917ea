/**
 * What network tables cost: the same packets through an engine with one plain service, and through
 * one with two VPCs, 1,000 load balancers' listeners of 10 targets each, 1,000 endpoints, and
 * security groups of 60 rules of which the last one matches. Half of the flows go to listeners, half
 * through endpoints into the other VPC. Then what a reload costs, of the largest tables and of nearly
 * empty ones: packing, which another thread does, and loading, with the longest time that it keeps a
 * batch waiting.
 *
 *     node bench/network.ts
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Engine } from "../host/engine/engine.ts";
import { createEngine } from "../host/engine/engine.ts";
import type { NetworkRule, NetworkService, NetworkTables } from "../host/engine/network.ts";
import { type Column, table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { sampleOf } from "./measure.ts";
import type { Packing } from "./network-worker.ts";
import { benchModule, PAGES } from "./traffic.ts";

const LISTENERS = 1000;
const TARGETS = 10;
const RULES = 60;
const FLOWS = 131_072;
const BATCH = 128;
const FRAME_BYTES = 64;
const STRIDE = 192;
const ROUNDS = 7;
const NETWORK_BYTES = 32 << 20;
const NODE = "10.250.0.1";
const SEED = new Uint8Array(16).fill(7);
const IN = 1;
const OUT = 2;

const listenerAddress = (index: number) => `10.200.${index >> 8}.${index & 255}`;
const endpointAddress = (index: number) => `10.201.${index >> 8}.${index & 255}`;

function targetsOf(index: number) {
  return Array.from({ length: TARGETS }, (_, n) => {
    const number = index * TARGETS + n;
    return {
      address: `10.${100 + (number >> 12)}.${(number >> 4) & 255}.${number & 15}`,
      port: 8443,
    };
  });
}

/** Rules of which only the last one matches the traffic. */
function rulesFor(cidr: string): NetworkRule[] {
  const others = Array.from({ length: RULES - 1 }, (_, n): NetworkRule => {
    return { protocol: "tcp", ports: [n + 1, n + 1], cidr: `172.16.${n}.0/24` };
  });
  return [...others, { protocol: "tcp", ports: [443, 8443], cidr }];
}

/** The largest tables: VPC 1 of the clients, VPC 2 behind the endpoints. */
export function largestTables(): NetworkTables {
  const numbers = Array.from({ length: LISTENERS }, (_, index) => index);
  const rules = { clients: rulesFor("10.0.0.0/8"), targets: rulesFor("10.0.0.0/8") };
  const service = (id: string, vpc: number, index: number): NetworkService => ({
    id,
    kind: "load-balancer",
    vpc,
    sources: [NODE],
    targets: targetsOf(index),
    rules: { inbound: "clients", outbound: "targets" },
  });
  const addresses = (name: string, addressOf: (index: number) => string) =>
    numbers.map((index) => ({
      address: addressOf(index),
      service: `${name}-${index}`,
      listeners: [{ protocol: "tcp" as const, port: 443, service: `${name}-${index}` }],
    }));
  return {
    vpcs: [
      {
        vpc: 1,
        port: IN,
        addresses: [
          ...addresses("listener", listenerAddress),
          ...addresses("endpoint", endpointAddress),
        ],
        routeTables: [[{ to: "10.0.0.0/8", service: "local" }, { to: "0.0.0.0/0" }]],
      },
      { vpc: 2, port: OUT, routeTables: [[{ to: "10.0.0.0/8", service: "local-2" }]] },
    ],
    services: [
      ...numbers.map((index) => service(`listener-${index}`, 2, index)),
      ...numbers.map((index) => ({
        ...service(`endpoint-${index}`, 2, index),
        rules: { endpoint: "clients", inbound: "clients", outbound: "targets" },
        mtuBytes: 8500,
      })),
      { id: "local", kind: "route", vpc: 1 },
      { id: "local-2", kind: "route", vpc: 2 },
    ],
    rules,
  };
}

const SMALLEST: NetworkTables = { vpcs: [{ vpc: 1, port: IN }], services: [] };

async function engineOf(networkBytes: number): Promise<Engine> {
  return createEngine({
    prepareMemory: PAGES.prepare,
    wasm: benchModule(),
    seed: SEED,
    flowCountMax: FLOWS * 2,
    flow6CountMax: 1024,
    networkBytes,
  });
}

async function plainEngine(): Promise<Engine> {
  const engine = await engineOf(0);
  engine.setService(0, { sourceAddresses: [NODE], targets: targetsOf(0) });
  engine.setPort(IN, { service: 0, peer: OUT, vpc: 1 });
  engine.setPort(OUT, { sides: "service", peer: IN, vpc: 2 });
  return engine;
}

async function networkEngine(tables: NetworkTables): Promise<Engine> {
  const engine = await engineOf(NETWORK_BYTES);
  engine.setTables(tables);
  engine.setPort(IN, { routed: true, vpc: 1 });
  engine.setPort(OUT, { routed: true, vpc: 2, sides: "service" });
  return engine;
}

/** Flows over an engine: the frames that begin them, and those that answer. */
class Flows {
  readonly engine: Engine;
  readonly #requests: Uint8Array;
  readonly #replies: Uint8Array;
  readonly #frame = new Uint8Array(FRAME_BYTES);

  constructor(engine: Engine) {
    this.engine = engine;
    this.#requests = new Uint8Array(FLOWS * FRAME_BYTES);
    this.#replies = new Uint8Array(FLOWS * FRAME_BYTES);
    for (let flow = 0; flow < FLOWS; flow++) this.#write(flow);
  }

  #write(flow: number): void {
    const view = new DataView(this.#requests.buffer, flow * FRAME_BYTES, FRAME_BYTES);
    const listener = (flow >> 1) % LISTENERS;
    view.setUint16(12, 0x0800);
    view.setUint16(14, 0x4500);
    view.setUint16(16, FRAME_BYTES - 14);
    view.setUint16(22, 0x4006);
    view.setUint32(26, 0x0a000000 + (flow >> 6));
    view.setUint32(30, (flow & 1 ? 0x0ac90000 : 0x0ac80000) + listener);
    view.setUint16(34, 20000 + (flow & 63) * 512 + ((flow >> 6) & 511));
    view.setUint16(36, 443);
    view.setUint32(38, flow);
    view.setUint16(46, 0x5002);
  }

  /** Lists frames of flows; `order` names them. Replies come in on the other port. */
  #fill(first: number, order: Uint32Array, replies: Uint8Array | undefined): void {
    const { arena, bytes, descriptors } = this.engine;
    for (let index = 0; index < BATCH; index++) {
      const draw = order[first + index] as number;
      const flow = draw >>> 1;
      const isReply = replies !== undefined && (draw & 1) === 1;
      const from = isReply ? (replies as Uint8Array) : this.#requests;
      const address = arena.address + index * STRIDE;
      bytes.set(from.subarray(flow * FRAME_BYTES, (flow + 1) * FRAME_BYTES), address);
      if (replies !== undefined && !isReply) bytes[address + 47] = 0x10;
      const port = isReply ? OUT : IN;
      descriptors.set([address, FRAME_BYTES, 1000, port, 0, 0, 0, FRAME_BYTES], index * 8);
    }
  }

  /** Makes all flows; returns ns per flow, the engine's part alone. */
  create(): number {
    const order = Uint32Array.from({ length: FLOWS }, (_, flow) => flow << 1);
    return this.#run(order, undefined, (flow, frame) => {
      const reply = this.#replies.subarray(flow * FRAME_BYTES, (flow + 1) * FRAME_BYTES);
      reply.set(frame);
      reply.set(frame.subarray(26, 30), 30);
      reply.set(frame.subarray(30, 34), 26);
      reply.set(frame.subarray(34, 36), 36);
      reply.set(frame.subarray(36, 38), 34);
      reply[47] = 0x10;
    });
  }

  /** Answers every flow once, then packets of random flows both ways; ns per packet. */
  established(order: Uint32Array): number {
    return this.#run(order, this.#replies);
  }

  /** All flows answered, so that they are established. */
  answer(): void {
    this.#run(
      Uint32Array.from({ length: FLOWS }, (_, flow) => (flow << 1) | 1),
      this.#replies,
    );
  }

  /** Forgets all flows. */
  forget(): void {
    this.#fill(0, new Uint32Array(BATCH), undefined);
    const { descriptors } = this.engine;
    for (let index = 0; index < BATCH; index++) descriptors[index * 8 + 2] = 2 ** 31 - 1;
    this.engine.process(BATCH);
    this.engine.expire();
  }

  #run(
    order: Uint32Array,
    replies: Uint8Array | undefined,
    seen?: (flow: number, frame: Uint8Array) => void,
  ): number {
    const { engine } = this;
    const { exports, arena, bytes, descriptors } = engine;
    let ms = 0;
    for (let first = 0; first < order.length; first += BATCH) {
      this.#fill(first, order, replies);
      const start = performance.now();
      exports.processBatch(BATCH);
      ms += performance.now() - start;
      for (let index = 0; index < BATCH; index++) {
        const verdict = (descriptors[index * 8 + 4] as number) & 0xffff;
        if (verdict !== 0)
          throw new Error(`bench: flow ${order[first + index]}: verdict ${verdict}`);
        const address = arena.address + index * STRIDE;
        this.#frame.set(bytes.subarray(address, address + FRAME_BYTES));
        seen?.((order[first + index] as number) >>> 1, this.#frame);
      }
    }
    return (ms * 1e6) / order.length;
  }
}

function randomOrder(count: number): Uint32Array {
  let state = 12345;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) % FLOWS) * 2 + ((state >>> 4) & 1);
  });
}

/** ns of both engines, round by round; the engines take turns. */
export async function measureNetwork(rounds = ROUNDS) {
  const plain = new Flows(await plainEngine());
  const network = new Flows(await networkEngine(largestTables()));
  const order = randomOrder(FLOWS * 2);
  const times = {
    new: { plain: [], network: [] },
    established: { plain: [], network: [] },
  } as Record<"new" | "established", Record<"plain" | "network", number[]>>;
  const both = [
    ["plain", plain],
    ["network", network],
  ] as const;
  for (let round = 0; round < rounds; round++) {
    for (const [name, flows] of both) {
      flows.forget();
      const ns = flows.create();
      if (round > 0) times.new[name].push(ns);
      flows.answer();
    }
    for (let turn = 0; turn < 3; turn++) {
      for (const [name, flows] of both) {
        const ns = flows.established(order);
        if (round > 0) times.established[name].push(ns);
      }
    }
  }
  return times;
}

/** The tables that reloads alternate between. */
const RELOADS = { largest: largestTables(), "nearly empty": SMALLEST };
type ReloadName = keyof typeof RELOADS;

/** Milliseconds of reloads: packing in a thread of its own, loading, and the longest step of that. */
export async function measureReloads(rounds = ROUNDS) {
  const engine = await engineOf(NETWORK_BYTES);
  const thread = new Worker(new URL("./network-worker.ts", import.meta.url), {
    workerData: { region: engine.networkRegion, wasm: benchModule(), tables: RELOADS },
  });
  const names = Object.keys(RELOADS) as ReloadName[];
  const times = names.map((name) => ({
    name,
    pack: [] as number[],
    load: [] as number[],
    longest: [] as number[],
  }));
  for (let round = 0; round < rounds; round++) {
    for (const { name, pack, load, longest } of times) {
      thread.postMessage(name);
      const [{ packed, packMs }] = (await once(thread, "message")) as [Packing];
      const steps = stepTimes(engine.loadTables(packed));
      if (round === 0) continue;
      pack.push(packMs);
      load.push(steps.reduce((sum, ms) => sum + ms, 0));
      longest.push(Math.max(...steps));
    }
  }
  await thread.terminate();
  return times;
}

function stepTimes(steps: Iterator<void>): number[] {
  const times: number[] = [];
  for (let isDone: boolean | undefined = false; !isDone; ) {
    const start = performance.now();
    isDone = steps.next().done;
    times.push(performance.now() - start);
  }
  return times;
}

async function main(): Promise<void> {
  const times = await measureNetwork();
  const rows = (["established", "new"] as const).map((kind) => {
    const plain = sampleOf(times[kind].plain);
    const network = sampleOf(times[kind].network);
    const goal = kind === "new" ? 2 : 1.15;
    const ratio = network.min / plain.min;
    const median = network.median / plain.median;
    return [
      kind === "new" ? "new flows" : "established",
      ...[plain.min, network.min, ratio, median].map((value) => significant(value)),
      `${goal}${ratio <= goal ? "" : " (missed)"}`,
    ];
  });
  print(["packets", "plain ns", "tables ns", "ratio", "of medians", "goal"], rows);
  const reloads = (await measureReloads()).map(({ name, pack, load, longest }) => {
    const values = [sampleOf(pack).min, sampleOf(load).min, sampleOf(load).median];
    values.push(sampleOf(longest).median, Math.max(...longest));
    return [name, ...values.map((value) => significant(value))];
  });
  const titles = ["tables", "pack ms", "load ms", "median", "longest step ms", "of all"];
  print(titles, reloads);
}

function print(titles: readonly string[], rows: readonly (readonly string[])[]): void {
  const columns = titles.map(
    (title, at): Column => ({ title, align: at === 0 ? "left" : "right" }),
  );
  process.stdout.write(`${table(columns, rows).join("\n")}\n`);
}

if (import.meta.main) await main();
