/** Flows through an engine with one plain service, and with the largest network tables. */
import type { Engine } from "../host/engine/engine.ts";
import { createEngine } from "../host/engine/engine.ts";
import { sampleOf } from "./measure.ts";
import { IN, LISTENERS, NODE, networkTables, OUT, targetsOf } from "./network-tables.ts";
import { benchModule, PAGES } from "./traffic.ts";

export const FLOWS = 131_072;
/** Room for one image. */
const NETWORK_BYTES = 8 << 20;
const BATCH = 128;
const FRAME_BYTES = 64;
const STRIDE = 192;
const SEED = new Uint8Array(16).fill(7);

export async function engineOf(networkBytes = NETWORK_BYTES): Promise<Engine> {
  return createEngine({
    prepareMemory: PAGES.prepare,
    wasm: benchModule(),
    seed: SEED,
    flowCountMax: FLOWS * 2,
    flow6CountMax: 1024,
    networkBytes,
  });
}

export async function plainEngine(): Promise<Engine> {
  const engine = await engineOf(0);
  engine.setService(0, { sourceAddresses: [NODE], targets: targetsOf(0) });
  engine.setPort(IN, { service: 0, peer: OUT, vpc: 1 });
  engine.setPort(OUT, { sides: "service", peer: IN, vpc: 2 });
  return engine;
}

export async function networkEngine(): Promise<Engine> {
  const engine = await engineOf();
  engine.setTables(networkTables());
  engine.setPort(IN, { routed: true, vpc: 1 });
  engine.setPort(OUT, { routed: true, vpc: 2, sides: "service" });
  return engine;
}

/** Flows over an engine: the frames that begin them, and those that answer. */
export class Flows {
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

  /** Makes the flows from `first` on; returns ns per flow, the engine's part alone. */
  create(first: number, count: number): number {
    const order = Uint32Array.from({ length: count }, (_, flow) => (first + flow) << 1);
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

  /** All flows answered, so that they are established. */
  answer(): void {
    const order = Uint32Array.from({ length: FLOWS }, (_, flow) => (flow << 1) | 1);
    this.#run(order, this.#replies);
  }

  /** Packets of established flows, flow << 1 | 1 for one that the service sends; ns per packet. */
  established(order: Uint32Array): number {
    return this.#run(order, this.#replies);
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
    const times: number[] = [];
    for (let first = 0; first < order.length; first += BATCH) {
      this.#fill(first, order, replies);
      const start = performance.now();
      exports.processBatch(BATCH);
      times.push(performance.now() - start);
      for (let index = 0; index < BATCH; index++) {
        const verdict = (descriptors[index * 8 + 4] as number) & 0xffff;
        if (verdict !== 0)
          throw new Error(`bench: flow ${order[first + index]}: verdict ${verdict}`);
        const address = arena.address + index * STRIDE;
        this.#frame.set(bytes.subarray(address, address + FRAME_BYTES));
        seen?.((order[first + index] as number) >>> 1, this.#frame);
      }
    }
    // The middle batch: one in which the system took the core away says nothing about packets.
    return (sampleOf(times).median * 1e6) / BATCH;
  }
}
