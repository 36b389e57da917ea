/**
 * The thread that bench/latency.ts measures: an engine with its flows, fed by a clock. Nothing is
 * allocated while it runs; every batch leaves its count and its end, and latencies are computed
 * afterwards.
 */
import { createHistogram, PerformanceObserver, type RecordableHistogram } from "node:perf_hooks";
import { parentPort, workerData } from "node:worker_threads";
import { Prototype } from "./prototype.ts";
import type { Distribution } from "./result.ts";
import { Traffic } from "./traffic.ts";

export interface LatencyTask {
  flows: number;
  shared: SharedArrayBuffer;
}

export type LatencyOrder =
  /**
   * As fast as it goes, in full batches; after each, a loop that does nothing for as long. The prototype
   * has its turn every so many batches.
   */
  | { what: "batches"; batch: number; batches: number }
  /** Packets that arrive at `packetsPerMs`, in batches of what is there, at most `batch`. */
  | { what: "load"; batch: number; packetsPerMs: number; ms: number }
  /** The same, but another thread says what has arrived. */
  | { what: "handed"; batch: number; isSleeping: boolean; packets: number }
  /** Answers a word in shared memory `rounds` times. */
  | { what: "echo"; isSleeping: boolean; rounds: number };

export interface LatencyAnswer {
  /** Of whole batches, or of packets from arrival to the end of their batch. */
  distribution?: Distribution;
  /** Of the loops that do nothing for as long as a batch takes: the machine's own tail. */
  machine?: Distribution;
  /** Of batches of the prototype, the least that a batch could be; not of such as it does not take. */
  prototype?: Distribution;
  packetsPerMs?: number;
  /** Ends of batches and packets decided by then, for `handed`; instants of performance.timeOrigin. */
  ends?: Float64Array;
  counts?: Uint32Array;
  collections: number;
}

/** Words of the shared memory: packets that have arrived, and the word that is echoed. */
export const ARRIVED = 0;
export const PING = 1;
export const PONG = 2;
export const IS_ASLEEP = 3;

const BATCHES_MAX = 1 << 22;
const WARM_BATCHES = 2000;
/** Batches of a turn of the engine, and of one of the prototype. */
const TURN_BATCHES = 1000;
const NS_PER_MS = 1e6;

export function distributionOf(histogram: RecordableHistogram): Distribution {
  const at = (percentile: number) => histogram.percentile(percentile) / 1e3;
  const points = [1, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999];
  return {
    count: histogram.count,
    p50: at(50),
    p90: at(90),
    p99: at(99),
    p999: at(99.9),
    max: histogram.max / 1e3,
    curve: points.map((percentile): [number, number] => [percentile, at(percentile)]),
  };
}

/** The first `total` of times in ms. */
function histogramOf(times: Float64Array, total: number): RecordableHistogram {
  const histogram = createHistogram();
  for (let index = 0; index < total; index++) {
    histogram.record(Math.max(1, Math.round((times[index] as number) * NS_PER_MS)));
  }
  return histogram;
}

/** Collections of garbage in this thread since it began. */
let collections = 0;

/** The engine with its traffic, and room for what it finds out. */
class Server {
  readonly #words: Int32Array;
  readonly #traffic: Traffic;
  /** Ends of batches (or how long they took), and their packets. */
  readonly #ends = new Float64Array(BATCHES_MAX);
  readonly #counts = new Uint32Array(BATCHES_MAX);
  /** How long the loops that do nothing took, and the prototype's batches. */
  readonly #idle = new Float64Array(BATCHES_MAX);
  readonly #bare = new Float64Array(BATCHES_MAX);
  readonly #prototype: Prototype;

  constructor(shared: SharedArrayBuffer, traffic: Traffic, prototype: Prototype) {
    this.#words = new Int32Array(shared);
    this.#traffic = traffic;
    this.#prototype = prototype;
  }

  answer(order: LatencyOrder): LatencyAnswer {
    switch (order.what) {
      case "batches":
        return this.#batches(order.batch, order.batches);
      case "load":
        return this.#load(order.batch, order.packetsPerMs, order.ms);
      case "handed":
        return this.#handed(order.batch, order.isSleeping, order.packets);
      case "echo":
        return this.#echo(order.isSleeping, order.rounds);
    }
  }

  #step(count: number): void {
    this.#traffic.generate(count);
    this.#traffic.engine.process(count);
  }

  #batches(batch: number, total: number): LatencyAnswer {
    for (let index = 0; index < WARM_BATCHES; index++) this.#timeBatch(batch, index);
    const usualMs = this.#ends.slice(0, WARM_BATCHES).sort()[WARM_BATCHES >> 1] as number;
    const hasPrototype = batch <= this.#prototype.batchMax;
    let ms = 0;
    for (let index = 0; index < total; index++) {
      if (hasPrototype && index % TURN_BATCHES === 0) {
        this.#timePrototype(batch, index, Math.min(index + TURN_BATCHES, total));
      }
      ms += this.#timeBatch(batch, index);
      this.#timeNothing(usualMs, index);
    }
    return {
      distribution: distributionOf(histogramOf(this.#ends, total)),
      machine: distributionOf(histogramOf(this.#idle, total)),
      ...(hasPrototype ? { prototype: distributionOf(histogramOf(this.#bare, total)) } : {}),
      packetsPerMs: (batch * total) / ms,
      collections,
    };
  }

  /** Batches of the prototype, from number `first` on. */
  #timePrototype(batch: number, first: number, end: number): void {
    for (let index = first; index < end; index++) {
      this.#prototype.generate(batch);
      const start = performance.now();
      this.#prototype.process(batch);
      this.#bare[index] = performance.now() - start;
    }
  }

  #timeBatch(batch: number, index: number): number {
    this.#traffic.generate(batch);
    const start = performance.now();
    this.#traffic.engine.process(batch);
    const ms = performance.now() - start;
    this.#ends[index] = ms;
    return ms;
  }

  /** A loop that looks at the clock until `ms` are over: whatever it takes longer is the machine's. */
  #timeNothing(ms: number, index: number): void {
    const start = performance.now();
    let end = start;
    while (end - start < ms) end = performance.now();
    this.#idle[index] = end - start;
  }

  /** Takes what has arrived until all have; returns how many batches that were. */
  #serve(batch: number, packets: number, arrived: (done: number) => number): number {
    let done = 0;
    let index = 0;
    while (done < packets && index < BATCHES_MAX) {
      const count = Math.min(arrived(done) - done, batch, packets - done);
      if (count <= 0) continue;
      this.#step(count);
      done += count;
      this.#ends[index] = performance.now();
      this.#counts[index] = count;
      index++;
    }
    return index;
  }

  #load(batch: number, packetsPerMs: number, ms: number): LatencyAnswer {
    const packets = Math.floor(packetsPerMs * ms);
    const start = performance.now() + 1;
    const due = () => Math.floor((performance.now() - start) * packetsPerMs) + 1;
    const used = this.#serve(batch, packets, due);
    const histogram = createHistogram();
    let packet = 0;
    for (let index = 0; index < used; index++) {
      const end = this.#ends[index] as number;
      for (let one = this.#counts[index] as number; one > 0; one--, packet++) {
        const latencyMs = end - start - packet / packetsPerMs;
        histogram.record(Math.max(1, Math.round(latencyMs * NS_PER_MS)));
      }
    }
    return { distribution: distributionOf(histogram), packetsPerMs, collections };
  }

  #handed(batch: number, isSleeping: boolean, packets: number): LatencyAnswer {
    const words = this.#words;
    const arrived = (done: number) => {
      const there = Atomics.load(words, ARRIVED);
      if (there > done || !isSleeping) return there;
      Atomics.store(words, IS_ASLEEP, 1);
      Atomics.wait(words, ARRIVED, there, 100);
      Atomics.store(words, IS_ASLEEP, 0);
      return Atomics.load(words, ARRIVED);
    };
    const used = this.#serve(batch, packets, arrived);
    const origin = performance.timeOrigin;
    return {
      ends: this.#ends.slice(0, used).map((end) => end + origin),
      counts: this.#counts.slice(0, used),
      collections,
    };
  }

  #echo(isSleeping: boolean, rounds: number): LatencyAnswer {
    const words = this.#words;
    for (let round = 1; round <= rounds; round++) {
      while (Atomics.load(words, PING) !== round) {
        if (isSleeping) Atomics.wait(words, PING, round - 1);
      }
      Atomics.store(words, PONG, round);
      if (isSleeping) Atomics.notify(words, PONG);
    }
    return { collections };
  }
}

if (parentPort) {
  const port = parentPort;
  const task = workerData as LatencyTask;
  new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  }).observe({ entryTypes: ["gc"] });
  const traffic = await Traffic.create({ flows: task.flows });
  traffic.create();
  const server = new Server(task.shared, traffic, await Prototype.create(task.flows));
  port.on("message", (order: LatencyOrder) => {
    // The collector's reports come through the event loop: those of before do not count.
    collections = 0;
    const told = server.answer(order);
    setImmediate(() => port.postMessage({ ...told, collections }));
  });
  port.postMessage({ collections: 0 });
}
