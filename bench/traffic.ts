/**
 * An engine with the generator beside it (build/bench.wasm) and the translation that each of its
 * frames must get, known without the engine: the generator's flows keep their source port.
 */
import fs from "node:fs";
import type { EngineOptions } from "../host/engine/api.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { hugePages } from "../host/io/pages.ts";
import { alternate, costNs, Overheads, type Sample, timed } from "./measure.ts";

export const BATCH = 128;
export const STRIDE = 192;
/** Not a power of two: frames would share the sets of the first cache. */
const STRIDE_LARGE = 1600;
const SEED = new Uint8Array(16).fill(7);

/** Exports of bench/assembly beside those of the engine. */
export interface BenchExports {
  generatorSeed(seed: number): void;
  generatorFamily(isIpv6: number): void;
  generate(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
    bytes: number,
  ): void;
  runBatches(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
    bytes: number,
    batches: number,
    isProcessed: number,
  ): number;
  digestBatches(
    arena: number,
    stride: number,
    count: number,
    flowCount: number,
    bytes: number,
    batches: number,
  ): bigint;
  processAgain(count: number, times: number): void;
  piecesPrepare(count: number): number;
  piecesParse(count: number, rounds: number): void;
  piecesHash(count: number, rounds: number): bigint;
  piecesLookup(count: number, rounds: number): bigint;
  piecesRewrite(count: number, rounds: number): void;
  piecesUpdate(count: number, rounds: number): number;
  piecesChecksum(start: number, bytes: number, rounds: number): number;
  prototypeCreate(start: number, flowCount: number): number;
  prototypeGenerate(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
  ): void;
  prototypeBatch(count: number): void;
  prototypeRun(
    arena: number,
    stride: number,
    count: number,
    mode: number,
    flowCount: number,
    batches: number,
    isProcessed: number,
  ): void;
  probeLink(start: number, lineCount: number): void;
  probeChase(start: number, line: number, steps: number): number;
  probeLoads(start: number, lineCount: number, count: number): number;
}

/** What the engines of all benchmarks have their tables in, and the C twin, too. */
export const PAGES = await hugePages();

let compiled: WebAssembly.Module | undefined;

/** @throws Error when build/bench.wasm is not there. */
export function benchModule(): WebAssembly.Module {
  const url = new URL("../build/bench.wasm", import.meta.url);
  if (!fs.existsSync(url)) throw new Error("build/bench.wasm is missing: npm run build:bench");
  compiled ??= new WebAssembly.Module(fs.readFileSync(url));
  return compiled;
}

export async function benchEngine(options: EngineOptions): Promise<Engine> {
  const engine = await createEngine({
    wasm: benchModule(),
    seed: SEED,
    prepareMemory: PAGES.prepare,
    ...options,
  });
  engine.setService(0, { sourceAddresses: ["203.0.113.1", "2001:db8:ffff::1"] });
  engine.setPort(0, { service: 0, peer: 1 });
  engine.setPort(1, { sides: "service", peer: 0 });
  return engine;
}

export const KIND = { established: 0, new: 1, constant: 2, answer: 3 } as const;

/** Later than any flow of the generator lives. */
export const FOREVER_MS = 0x40000000;

export interface TrafficOptions {
  flows: number;
  /** Flows that there is room for; default a quarter more. */
  flowsMax?: number;
  isIpv6?: boolean;
  /** Number of the first flow; default 0. */
  base?: number;
  /** Default true. */
  warmUp?: boolean;
  /** Plain pages whatever the system has; default false. */
  isPlain?: boolean;
}

/** Generated traffic over one engine. */
export class Traffic {
  readonly engine: Engine;
  readonly bench: BenchExports;
  /** Established traffic visits this many flows, from the first on. */
  flows: number;
  readonly #arena: number;
  readonly #base: number;
  readonly #isIpv6: boolean;
  #created: number;
  /** The generator's best times: for a batch of new flows, for windows of other traffic. */
  readonly #generators = new Overheads();

  static async create(options: TrafficOptions): Promise<Traffic> {
    const room = options.flowsMax ?? Math.max(1024, Math.ceil(options.flows * 1.25));
    const { isIpv6 = false, warmUp = true, isPlain = false } = options;
    const flowCountMax = isIpv6 ? 1024 : room;
    const flow6CountMax = isIpv6 ? room : 1024;
    const engine = await benchEngine({
      flowCountMax,
      flow6CountMax,
      warmUp,
      ...(isPlain && { prepareMemory: undefined }),
    });
    const traffic = new Traffic(engine, options);
    traffic.bench.generatorFamily(isIpv6 ? 1 : 0);
    traffic.bench.generatorSeed(1);
    return traffic;
  }

  private constructor(engine: Engine, { flows, base = 0, isIpv6 = false }: TrafficOptions) {
    this.engine = engine;
    this.bench = engine.exports as unknown as BenchExports;
    this.flows = flows;
    this.#base = base;
    this.#created = base;
    this.#isIpv6 = isIpv6;
    this.#arena = engine.arena.address;
  }

  /** Creates `count` more flows; returns ns per flow, the generator's share taken off. */
  create(count = this.flows): number {
    const batches = Math.ceil(count / BATCH);
    const run = (isProcessed: number) => {
      const first = this.#created;
      return this.bench.runBatches(
        this.#arena,
        STRIDE,
        BATCH,
        KIND.new,
        first,
        0,
        64,
        batches,
        isProcessed,
      );
    };
    // Twice: the first call of a process compiles.
    const generatorMs = [0, 1].map(() => timed(() => run(0)) / batches);
    let end = 0;
    const ms = timed(() => {
      end = run(1);
    });
    this.#created = end;
    return ((ms / batches - this.#generators.best("new", generatorMs)) * 1e6) / BATCH;
  }

  /** Ends all flows; those made next are the first ones again. */
  empty(): void {
    const { expire, groupCount } = this.engine.exports;
    const ended = expire(FOREVER_MS, 0, groupCount());
    const made = this.#created - this.#base;
    if (ended !== made) throw new Error(`traffic: ${ended} flows ended, not ${made}`);
    this.#created = this.#base;
  }

  /** Lets every flow that was made be answered, so that it is established. */
  establish(): void {
    const batches = this.#created / BATCH;
    this.bench.runBatches(this.#arena, STRIDE, BATCH, KIND.answer, 0, 0, 64, batches, 1);
  }

  /** Established or constant traffic, `packets` of it. */
  run(packets: number, kind: number, frameBytes: number, batch: number, isProcessed: boolean) {
    const stride = frameBytes === 64 ? STRIDE : STRIDE_LARGE;
    const batches = Math.ceil(packets / batch);
    this.bench.runBatches(
      this.#arena,
      stride,
      batch,
      kind,
      this.#base,
      this.flows,
      frameBytes,
      batches,
      isProcessed ? 1 : 0,
    );
  }

  /** ns per packet over `windows` windows of `packets`, the generator's share taken off. */
  cost(windows: number, packets: number, options: CostOptions = {}): Sample {
    const { kind = KIND.established, frameBytes = 64, batch = BATCH } = options;
    this.run(packets, kind, frameBytes, batch, true);
    const { full, generator } = alternate(
      {
        full: () => this.run(packets, kind, frameBytes, batch, true),
        generator: () => this.run(packets, kind, frameBytes, batch, false),
      },
      windows,
    );
    const best = this.#generators.best(`${kind} ${frameBytes} ${batch} ${packets}`, generator);
    return costNs(full, [best], Math.ceil(packets / batch) * batch);
  }

  /** Digest of what comes out of `batches` batches after the generator's seed 2. */
  digest(batches: number): string {
    this.bench.generatorSeed(2);
    const digest = this.bench.digestBatches(this.#arena, STRIDE, BATCH, this.flows, 64, batches);
    return BigInt.asUintN(64, digest).toString(16).padStart(16, "0");
  }

  /** Fills descriptors and frames with one batch of established traffic. */
  generate(count: number): void {
    this.bench.generate(this.#arena, STRIDE, count, KIND.established, this.#base, this.flows, 64);
  }

  /** Fills descriptors and frames with one batch of new flows from `first` on. */
  generateNew(count: number, first: number): void {
    this.bench.generate(this.#arena, STRIDE, count, KIND.new, first, this.flows, 64);
  }

  /**
   * Processes `batches` batches and compares each frame with what it must become.
   * @returns packets checked; @throws Error naming the first that is wrong.
   */
  verify(batches: number): number {
    for (let batch = 0; batch < batches; batch++) {
      this.generate(BATCH);
      const expected = Array.from({ length: BATCH }, (_, index) => {
        return this.#isIpv6
          ? expectedTuple6(this.#tuple6(index))
          : expectedTuple(this.#tuple(index));
      });
      this.engine.process(BATCH);
      for (let index = 0; index < BATCH; index++) {
        const verdict = (this.engine.descriptors[index * 8 + 4] as number) & 0xffff;
        const got = (this.#isIpv6 ? this.#tuple6(index) : this.#tuple(index)).join(" ");
        const wanted = expected[index]?.join(" ");
        if (verdict !== 0 || got !== wanted) {
          throw new Error(`bench: verdict ${verdict}, tuple ${got} instead of ${wanted}`);
        }
      }
    }
    return batches * BATCH;
  }

  /** Source, destination, source port and destination port of frame `index`. */
  #tuple(index: number): number[] {
    const at = this.#arena + index * STRIDE;
    const { buffer } = this.engine.bytes;
    const view = new DataView(buffer, at, 64);
    return [view.getUint32(26), view.getUint32(30), view.getUint16(34), view.getUint16(36)];
  }

  /** The same for IPv6: upper and lower half of both addresses, then the ports. */
  #tuple6(index: number): bigint[] {
    const view = new DataView(this.engine.bytes.buffer, this.#arena + index * STRIDE, 74);
    const halves = [22, 30, 38, 46].map((at) => view.getBigUint64(at));
    return [...halves, BigInt(view.getUint16(54)), BigInt(view.getUint16(56))];
  }
}

export interface CostOptions {
  kind?: number;
  frameBytes?: number;
  batch?: number;
}

const NAT_ADDRESS = 0xcb007101;
const PORTS_PER_SERVER = 60000;

/** Tuple that the generator's frame must leave with. */
function expectedTuple([source = 0, destination = 0, sourcePort = 0, port = 0]: number[]) {
  if (destination !== NAT_ADDRESS) return [NAT_ADDRESS, destination, sourcePort, port];
  const flow = (source - 0x08000000) * PORTS_PER_SERVER + (port - 1024);
  return [source, 0x0a000000 + (flow & 0xffffff), sourcePort, port];
}

const CLIENT6_UPPER = 0xfd00_0000_0000_0000n;
const NAT6_UPPER = 0x2001_0db8_ffff_0000n;

/** The same for IPv6: clients are fd00::flow, servers 2001:db8::server. */
function expectedTuple6([
  upper = 0n,
  lower = 0n,
  farUpper = 0n,
  farLower = 0n,
  port = 0n,
  far = 0n,
]: bigint[]) {
  if (farUpper !== NAT6_UPPER) return [NAT6_UPPER, 1n, farUpper, farLower, port, far];
  const flow = lower * BigInt(PORTS_PER_SERVER) + far - 1024n;
  return [upper, lower, CLIENT6_UPPER, flow, port, far];
}
