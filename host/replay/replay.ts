/**
 * The replay: a capture goes through an engine, as fast as it can, as often as asked.
 *
 * The first pass is cold, it creates the flows; the others run over the same frames, read again,
 * on the table that it left. Verdicts, flows, output, resources and digest are those of the first
 * pass, times are those of all. Only `engine.process` counts as engine time.
 *
 * The clock is the capture's: the same capture, scenario and seed give the same digest anywhere.
 */

import type { FrameSource } from "../capture/source.ts";
import type { Counters, EngineOptions } from "../engine/api.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import { FlowplaneError } from "../errors.ts";
import type { Scenario } from "../scenario/scenario.ts";
import { definePorts } from "./batch.ts";
import { Meter } from "./meter.ts";
import type { CapacityTarget, ReplayResult, ResourceResult, Timeline } from "./result.ts";

/** Takes every batch of the first pass after the engine, in the order of the list. */
export interface Recorder {
  /** The first `count` descriptors are decided; they are the recorder's until it returns. */
  take(count: number): void;
  close(): Promise<void> | undefined;
}

export interface ReplayOptions {
  /** Name of the capture for the report. */
  file: string;
  scenario: Scenario;
  /** Opens the capture anew, once for each pass. */
  open(engine: Engine): Promise<FrameSource>;
  /** Make what writes the first pass's frames; one that takes frames' memory stands last. */
  recorders?: ((engine: Engine, source: FrameSource) => Promise<Recorder> | Recorder)[];
  passes?: number;
  /** Size of the capture where it is known: no more flows than packets need a place. */
  captureBytes?: number;
  /** Packets after which a pass ends. */
  packetsMax?: number;
  /** Whether to record the course of the capture. */
  wantsTimeline?: boolean;
  machine: ReplayResult["machine"];
  /** Called between batches, about every 100 ms, with what has been read in this pass. */
  onProgress?: (progress: { pass: number; packets: number; bytes: number }) => void;
  /** The engine's module, where it is not beside the package. */
  wasm?: URL | BufferSource | WebAssembly.Module;
}

export interface ReplayRun {
  result: ReplayResult;
  timeline: Timeline | undefined;
  /** Why the capture could not be read to its end; the result is about what came before. */
  failure: FlowplaneError | undefined;
}

const BATCH = 256;
/** With a timeline, the first packets come in small batches so that few flows show one by one. */
const FINE_BATCH = 16;
const FINE_PACKETS = 8192;
const PROGRESS_MS = 100;
const UNIT_GBPS = 5;
const TARGETS_GBPS = [5, 10, 25, 50, 100, 1000];
const WORKERS = 1;

/** Times of one pass in ms; `engineMs` is without the host's own loops. */
interface PassTimes {
  wallMs: number;
  readMs: number;
  engineMs: number;
  writeMs: number;
}

/** What the first pass found out, before later passes add to the engine's counters. */
interface FirstPass {
  counters: Counters;
  resources: ResourceResult[];
  capture: ReplayResult["capture"];
  outputBytes: number;
  digest: string;
  timeline: Timeline | undefined;
}

/** Captures hold about one flow in so many bytes; most hold far fewer. */
const BYTES_PER_FLOW = 1024;
const FLOW_COUNT_MIN = 8192;
const LARGE_BYTES = 16 << 20;

/**
 * Table sizes for a capture of known size; the engine's own for any other. A table that is no
 * larger than needed costs fewer page faults.
 */
export function tableSizes(
  captureBytes: number | undefined,
): Pick<EngineOptions, "flowCountMax" | "flow6CountMax"> {
  if (captureBytes === undefined) return {};
  const flows = Math.max(FLOW_COUNT_MIN, Math.ceil(captureBytes / BYTES_PER_FLOW));
  return { flowCountMax: Math.min(flows, 1 << 20), flow6CountMax: Math.min(flows, 1 << 18) };
}

async function engineFor(options: ReplayOptions, captureBytes: number | undefined) {
  const { scenario, wasm } = options;
  const engine = await createEngine({
    ...tableSizes(captureBytes),
    // The one pass over a large capture is through before a warm-up would pay.
    warmUp: (options.passes ?? 1) > 1 || (options.captureBytes ?? 0) < LARGE_BYTES,
    ...scenario.engine,
    ...(wasm ? { wasm } : {}),
  });
  scenario.services.forEach((service, index) => {
    engine.setService(index, service);
  });
  return engine;
}

/** @throws FlowplaneError when the capture cannot be opened or an output cannot be written */
export async function replay(options: ReplayOptions): Promise<ReplayRun> {
  const run = await replayWith(options, options.captureBytes);
  if (!isTooSmall(tableSizes(options.captureBytes), run.result.flows.created)) return run;
  return replayWith(options, undefined);
}

/**
 * True when a capture has more flows than its size let expect: it is replayed once more, with
 * tables of the full size. A table that may fill up could refuse flows, and forgets some earlier.
 */
function isTooSmall(sizes: ReturnType<typeof tableSizes>, created: number): boolean {
  return sizes.flow6CountMax !== undefined && created > sizes.flow6CountMax / 2;
}

async function replayWith(
  options: ReplayOptions,
  captureBytes: number | undefined,
): Promise<ReplayRun> {
  const engine = await engineFor(options, captureBytes);
  const times: PassTimes[] = [];
  let first: FirstPass | undefined;
  let failure: FlowplaneError | undefined;
  for (let pass = 1; pass <= (options.passes ?? 1); pass++) {
    const run = new Pass(engine, options, pass);
    const ended = await run.run();
    times.push(run.times);
    first ??= run.firstPass();
    failure ??= ended;
    if (isTooSmall(tableSizes(captureBytes), first.counters.flows.created)) break;
  }
  if (first === undefined) throw new RangeError(`passes: ${options.passes} is not at least 1`);
  return { result: resultOf(options, first, times), timeline: first.timeline, failure };
}

/** One way of a capture through the engine. */
class Pass {
  readonly times: PassTimes = { wallMs: 0, readMs: 0, engineMs: 0, writeMs: 0 };
  readonly #engine: Engine;
  readonly #options: ReplayOptions;
  readonly #number: number;
  readonly #meter: Meter;
  readonly #recorders: Recorder[] = [];
  #source: FrameSource | undefined;
  #portCount = 0;
  #digest = 0n;
  #reportedMs = 0;

  constructor(engine: Engine, options: ReplayOptions, number: number) {
    this.#engine = engine;
    this.#options = options;
    this.#number = number;
    this.#meter = new Meter(engine, options.wantsTimeline ?? false);
  }

  /** Runs to the end of the capture, of the limit, or to a broken record, which is returned. */
  async run(): Promise<FlowplaneError | undefined> {
    const start = performance.now();
    const source = await this.#options.open(this.#engine);
    this.#source = source;
    try {
      if (this.#number === 1) {
        for (const make of this.#options.recorders ?? []) {
          this.#recorders.push(await make(this.#engine, source));
        }
      }
      return await this.#passFrames(source);
    } finally {
      // Whatever was written stays a valid file, also after an error.
      const closing = performance.now();
      for (const recorder of this.#recorders) await recorder.close();
      source.close();
      const end = performance.now();
      this.times.writeMs += this.#recorders.length > 0 ? end - closing : 0;
      this.times.wallMs = end - start;
    }
  }

  async #passFrames(source: FrameSource): Promise<FlowplaneError | undefined> {
    const packetsMax = this.#options.packetsMax ?? Number.POSITIVE_INFINITY;
    for (;;) {
      const reading = performance.now();
      const limit = Math.min(this.#batchMax(source.packets), packetsMax - source.packets);
      let count = 0;
      try {
        const next = limit > 0 ? source.next(limit) : 0;
        count = typeof next === "number" ? next : await next;
      } catch (error) {
        if (error instanceof FlowplaneError) return error;
        throw error;
      }
      const read = performance.now();
      this.times.readMs += read - reading;
      if (count === 0) return undefined;
      this.#portCount = definePorts(this.#engine, source, this.#portCount);
      const deciding = performance.now();
      this.#engine.process(count);
      const decided = performance.now();
      this.times.engineMs += decided - deciding;
      if (this.#number === 1) this.#record(count);
      this.#report(source, decided);
    }
  }

  #batchMax(packets: number): number {
    const isFine = this.#options.wantsTimeline && this.#number === 1 && packets < FINE_PACKETS;
    return isFine ? FINE_BATCH : BATCH;
  }

  /** Measures and writes a batch of the first pass. */
  #record(count: number): void {
    this.#digest = this.#engine.exports.digestFrames(count, this.#digest);
    this.#meter.measure(count);
    if (this.#recorders.length === 0) return;
    const writing = performance.now();
    for (const recorder of this.#recorders) recorder.take(count);
    this.times.writeMs += performance.now() - writing;
  }

  #report(source: FrameSource, nowMs: number): void {
    if (!this.#options.onProgress || nowMs - this.#reportedMs < PROGRESS_MS) return;
    this.#reportedMs = nowMs;
    const { packets, capturedBytes } = source;
    this.#options.onProgress({ pass: this.#number, packets, bytes: capturedBytes });
  }

  /** What this pass found out; to be asked before the next one begins. */
  firstPass(): FirstPass {
    const { file, scenario } = this.#options;
    const source = this.#source as FrameSource;
    const { layout, interfaces, packets } = source;
    const spanNs = packets > 0 ? source.latestNs - source.earliestNs : 0n;
    const peakGbps = this.#meter.peakGbps();
    return {
      counters: this.#engine.counters(),
      resources: scenario.resources.map((resource) =>
        resourceResult(this.#engine, resource, peakGbps),
      ),
      capture: {
        file,
        format: layout.format,
        linkTypes: [...new Set(interfaces.map(({ linkName }) => linkName))],
        packets,
        bytes: source.capturedBytes,
        durationSeconds: Number(spanNs) / 1e9,
      },
      outputBytes: this.#meter.outputBytes,
      digest: BigInt.asUintN(64, this.#digest).toString(16).padStart(16, "0"),
      timeline: this.#meter.timeline(),
    };
  }
}

function resourceResult(
  engine: Engine,
  { id, kind, service }: Scenario["resources"][number],
  peakGbps: number,
): ResourceResult {
  const usage = engine.usage(service);
  return {
    id,
    kind,
    packets: usage.packetsFromClient + usage.packetsFromService,
    bytes: usage.bytesFromClient + usage.bytesFromService,
    activeFlows: usage.flowsActive,
    newFlows: usage.flowsCreated,
    portsExhausted: usage.portsExhausted,
    peakGbps,
    units: Math.ceil(peakGbps / UNIT_GBPS),
  };
}

function resultOf(options: ReplayOptions, first: FirstPass, times: PassTimes[]): ReplayResult {
  const { capture, counters } = first;
  const { packets, bytes } = capture;
  const total = (part: keyof PassTimes) => sum(times.map((pass) => pass[part])) / 1e3;
  const nsPerPacket = (ms: number) => (packets > 0 ? (ms * 1e6) / packets : 0);
  const [cold = 0, ...warm] = times.map(({ engineMs }) => nsPerPacket(engineMs));
  const engineNs = warm.length > 0 ? median(warm) : cold;
  const bytesPerPacket = packets > 0 ? bytes / packets : 0;
  const rates = (ns: number) => {
    const mpps = ns > 0 ? 1e3 / ns : 0;
    return { mpps, gbps: (mpps * bytesPerPacket * 8) / 1e3 };
  };
  const wallSeconds = total("wallMs");
  const engine = rates(engineNs);
  const { created, expired, activeMax, tcp, udp, icmp, other } = counters.flows;
  return {
    schema: "flowplane.replay/1",
    capture,
    run: { scenario: options.scenario.name, passes: times.length, workers: WORKERS },
    flows: { created, expired, activeMax, tcp, udp, icmp, other },
    verdicts: counters.verdicts,
    output: {
      packets:
        counters.verdicts.forward +
        counters.verdicts["pass.non-ip"] +
        sum(Object.values(counters.emitted)),
      bytes: first.outputBytes,
      inserted: counters.emitted,
    },
    time: {
      wallSeconds,
      readSeconds: total("readMs"),
      engineSeconds: total("engineMs"),
      writeSeconds: total("writeMs"),
    },
    engine: { nsPerPacket: engineNs, coldNsPerPacket: cold, ...engine },
    endToEnd: rates(nsPerPacket((wallSeconds * 1e3) / times.length)),
    capacity: {
      unitGbps: UNIT_GBPS,
      unitsPerCore: engine.gbps / UNIT_GBPS,
      targets: TARGETS_GBPS.map((gbps) => capacityTarget(gbps, engine.gbps)),
    },
    resources: first.resources,
    digest: first.digest,
    machine: options.machine,
    notes: options.scenario.notes,
  };
}

/** Cores that a rate takes when each carries `coreGbps`; nothing measured takes 0 and is not met. */
function capacityTarget(gbps: number, coreGbps: number): CapacityTarget {
  return {
    gbps,
    cores: coreGbps > 0 ? gbps / coreGbps : 0,
    met: WORKERS * coreGbps >= gbps,
  };
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}
