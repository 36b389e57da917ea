/** The prototype of assembly/prototype.ts over generated traffic, its output checked with full sums. */
import type { Engine } from "../host/engine/engine.ts";
import { alternate, costNs, Overheads, type Sample } from "./measure.ts";
import { BATCH, type BenchExports, benchEngine, STRIDE } from "./traffic.ts";

/** Its slots are a quarter more than flows; 65 bytes each, and 4 for where a flow went. */
const BYTES_PER_FLOW = 65 * 1.25 + 4;
const NEW = 1;
const ESTABLISHED = 0;
const SERVER_FIRST = 0x08000000;
const CLIENT_FIRST = 0x0a000000;
const NAT_FIRST = 0x64400000;
const PORTS_PER_SERVER = 60_000;

export class Prototype {
  readonly #engine: Engine;
  readonly #bench: BenchExports;
  readonly #flows: number;
  readonly #generator = new Overheads();

  /** A table with `flows` flows in it. */
  static async create(flows: number): Promise<Prototype> {
    const frames = BATCH * STRIDE;
    const arenaBytes = Math.max(1 << 20, frames + Math.ceil(flows * BYTES_PER_FLOW) + 4096);
    const small = { flowCountMax: 1024, flow6CountMax: 1024 };
    return new Prototype(await benchEngine({ ...small, arenaBytes }), flows);
  }

  private constructor(engine: Engine, flows: number) {
    this.#engine = engine;
    this.#bench = engine.exports as unknown as BenchExports;
    this.#flows = flows;
    const { address, bytes } = engine.arena;
    const end = this.#bench.prototypeCreate(address + BATCH * STRIDE, flows) >>> 0;
    if (end > address + bytes) throw new Error("prototype: the arena is too small");
    this.#bench.generatorFamily(0);
    this.#bench.generatorSeed(1);
    this.#run(NEW, Math.ceil(flows / BATCH), true);
  }

  #run(kind: number, batches: number, isProcessed: boolean): void {
    const { address } = this.#engine.arena;
    const flag = isProcessed ? 1 : 0;
    this.#bench.prototypeRun(address, STRIDE, BATCH, kind, this.#flows, batches, flag);
  }

  /** ns per packet of established flows, as Traffic.cost. */
  cost(windows: number, packets: number): Sample {
    const batches = Math.ceil(packets / BATCH);
    this.#run(ESTABLISHED, batches, true);
    const { full, generator } = alternate(
      {
        full: () => this.#run(ESTABLISHED, batches, true),
        generator: () => this.#run(ESTABLISHED, batches, false),
      },
      windows,
    );
    const best = this.#generator.best(String(packets), generator);
    return costNs(full, [best], batches * BATCH);
  }

  /** Packets of one batch at most. */
  readonly batchMax = BATCH;

  /** Writes `count` packets of established flows, which `process` then translates. */
  generate(count: number): void {
    const { address } = this.#engine.arena;
    this.#bench.prototypeGenerate(address, STRIDE, count, ESTABLISHED, 0, this.#flows);
  }

  process(count: number): void {
    this.#bench.prototypeBatch(count);
  }

  /**
   * Compares `batches` batches with what they must become: the tuple of the flow's other side, and
   * both checksums off by as much as before.
   * @throws Error naming the first frame that is wrong
   */
  verify(batches: number): number {
    const { arena, bytes } = this.#engine;
    const frameAt = (index: number) => {
      const start = arena.address + index * STRIDE;
      return bytes.slice(start, start + 64);
    };
    const natOf = new Map<number, string>();
    for (let batch = 0; batch < batches; batch++) {
      this.generate(BATCH);
      const before = Array.from({ length: BATCH }, (_, index) => frameAt(index));
      this.process(BATCH);
      for (const [index, frame] of before.entries()) {
        const after = frameAt(index);
        const fault = faultOf(frame, after, natOf);
        if (fault) throw new Error(`prototype: ${fault}: ${hex(frame)} became ${hex(after)}`);
      }
    }
    return batches * BATCH;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** What is wrong with a translation; undefined when nothing is. Learns the address of each flow. */
function faultOf(before: Uint8Array, after: Uint8Array, natOf: Map<number, string>) {
  const from = new DataView(before.buffer);
  const to = new DataView(after.buffer);
  const isReply = from.getUint32(30) >= NAT_FIRST;
  // The server and the client's own port name the flow; replies leave with that port.
  const client = isReply ? to : from;
  const server = client.getUint32(isReply ? 26 : 30);
  const port = client.getUint16(isReply ? 36 : 34);
  const flow = (server - SERVER_FIRST) * PORTS_PER_SERVER + (port - 1024);
  if (client.getUint32(isReply ? 30 : 26) !== CLIENT_FIRST + (flow & 0xffffff)) return "client";
  const nat = isReply ? from : to;
  const name = `${nat.getUint32(isReply ? 30 : 26)}:${nat.getUint16(isReply ? 36 : 34)}`;
  if ((natOf.get(flow) ?? name) !== name) return "another NAT address";
  natOf.set(flow, name);
  const [kept, keptPort] = isReply ? [26, 34] : [30, 36];
  if (from.getUint32(kept) !== to.getUint32(kept)) return "server";
  if (from.getUint16(keptPort) !== to.getUint16(keptPort)) return "server's port";
  if (sumOf(from, 14, 34) !== sumOf(to, 14, 34)) return "header checksum";
  return sumOf(from, 26, 64) === sumOf(to, 26, 64) ? undefined : "transport checksum";
}

/** One's complement sum of the words from `start` to `end`. */
function sumOf(view: DataView, start: number, end: number): number {
  let sum = 0;
  for (let at = start; at < end; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum === 0xffff ? 0 : sum;
}
