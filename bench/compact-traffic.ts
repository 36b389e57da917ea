/** Generated traffic over a compact engine: what traffic.ts is to the engine. */
import {
  COMPACT_FLOWS_PER_ADDRESS,
  type CompactEngine,
  createCompactEngine,
} from "../host/engine/compact.ts";
import { BATCH, benchModule, PAGES, STRIDE } from "./traffic.ts";

/** Exports of bench/assembly/compact.ts. */
interface CompactExports {
  generateCompact(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
  ): void;
  compactBatches(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
    batches: number,
    isProcessed: number,
  ): void;
  sampleCompact(
    arena: number,
    stride: number,
    count: number,
    first: number,
    flowCount: number,
  ): void;
}

const FIRST_ADDRESS = "100.64.0.0";
const FIRST_NUMBER = 0x64400000;
const ADDRESS_COUNT_MAX = 1950;
/** How full the table is to be at most: of 100 million flows one found both its groups taken at 0.82. */
const FULL = 0.76;
const NEW = 1;
const CLIENTS = 2;

export class CompactTraffic {
  readonly engine: CompactEngine;
  readonly #bench: CompactExports;
  readonly #flows: number;
  readonly #base: number;

  /** An engine with room for `flows` flows, the first of which is number `base`. */
  static async create(flows: number, base: number): Promise<CompactTraffic> {
    const addresses = Math.ceil(flows / COMPACT_FLOWS_PER_ADDRESS / FULL);
    const engine = await createCompactEngine({
      firstAddress: FIRST_ADDRESS,
      addressCount: Math.min(addresses, ADDRESS_COUNT_MAX),
      seed: new Uint8Array(16).fill(7),
      wasm: benchModule(),
      prepareMemory: PAGES.prepare,
    });
    engine.setPort(0, { side: "client", peer: 1 });
    engine.setPort(1, { side: "service", peer: 0 });
    return new CompactTraffic(engine, flows, base);
  }

  private constructor(engine: CompactEngine, flows: number, base: number) {
    this.engine = engine;
    this.#bench = engine.exports as unknown as CompactExports;
    this.#flows = flows;
    this.#base = base;
  }

  /** Makes the flows of `batches` batches, from the one after `done` batches on. */
  fill(done: number, batches: number): void {
    this.#run(NEW, this.#base + done * BATCH, batches, true);
  }

  /** Prepares answers to flows at random. */
  sample(): void {
    const { address } = this.engine.arena;
    this.#bench.sampleCompact(address, STRIDE, BATCH, this.#base, this.#flows);
  }

  /** Packets of flows at random, half of them answers. */
  look(batches: number, isProcessed: boolean): void {
    this.#run(0, this.#base, batches, isProcessed);
  }

  #run(mode: number, first: number, batches: number, isProcessed: boolean): void {
    const { address } = this.engine.arena;
    const flows = this.#flows;
    const on = isProcessed ? 1 : 0;
    this.#bench.compactBatches(address, STRIDE, BATCH, mode, first, flows, batches, on);
  }

  /**
   * Sends a packet of a random client out and an answer back, and compares both with what they must be.
   * @returns packets checked; @throws Error naming the first that is wrong
   */
  verify(batches: number): number {
    const { engine } = this;
    const { descriptors, arena } = engine;
    for (let batch = 0; batch < batches; batch++) {
      const { address } = arena;
      this.#bench.generateCompact(address, STRIDE, BATCH, CLIENTS, this.#base, this.#flows);
      const sent = Array.from({ length: BATCH }, (_, index) => this.#tuple(index));
      engine.process(BATCH);
      for (const [index, [source = 0, to, port = 0, toPort]] of sent.entries()) {
        const [outer = 0, left, outerPort = 0, leftPort] = this.#tuple(index);
        const isOwn = outer >= FIRST_NUMBER && outer < FIRST_NUMBER + ADDRESS_COUNT_MAX;
        const isKept = (outerPort & 63) === (port & 63) && left === to && leftPort === toPort;
        if (!isOwn || !isKept || this.#verdict(index) !== 0) {
          throw new Error(`bench: ${source}:${port} left as ${outer}:${outerPort}`);
        }
        this.#turn(index);
        descriptors[index * 8 + 3] = 1;
      }
      engine.process(BATCH);
      for (const [index, [source, to, port, toPort]] of sent.entries()) {
        const got = this.#tuple(index).join(" ");
        const wanted = [to, source, toPort, port].join(" ");
        if (this.#verdict(index) !== 0 || got !== wanted) {
          throw new Error(`bench: an answer came back as ${got} instead of ${wanted}`);
        }
      }
    }
    return 2 * batches * BATCH;
  }

  #verdict(index: number): number {
    return (this.engine.descriptors[index * 8 + 4] as number) & 0xffff;
  }

  #view(index: number): DataView {
    return new DataView(this.engine.bytes.buffer, this.engine.arena.address + index * STRIDE, 64);
  }

  /** Source, destination, source port and destination port of frame `index`. */
  #tuple(index: number): number[] {
    const view = this.#view(index);
    return [view.getUint32(26), view.getUint32(30), view.getUint16(34), view.getUint16(36)];
  }

  /** Makes a frame that has left the answer to it. */
  #turn(index: number): void {
    const [source = 0, destination = 0, port = 0, toPort = 0] = this.#tuple(index);
    const view = this.#view(index);
    view.setUint32(26, destination);
    view.setUint32(30, source);
    view.setUint16(34, toPort);
    view.setUint16(36, port);
  }
}
