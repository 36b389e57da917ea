/**
 * The replay: a capture goes through an engine, as fast as it can, as often as asked.
 *
 * The first pass is cold, it creates the flows; the others run over the same frames, read again,
 * on the table that it left. Verdicts, flows, output, resources and digest are those of the first
 * pass, times are those of all. Only `engine.process` counts as engine time. Several workers may
 * share a capture: what comes out is the same, byte for byte.
 *
 * The clock is the capture's: the same capture, scenario and seed give the same digest anywhere.
 */

import type { FrameMemory, FrameSource } from "../capture/source.ts";
import type { Counters, Usage } from "../engine/api.ts";
import { FlowplaneError } from "../errors.ts";
import type { Scenario } from "../scenario/scenario.ts";
import {
  type CaptureFacts,
  type DecidedBatch,
  type Decider,
  EngineDecider,
  factsOf,
  type PassCounts,
  type Team,
  type TeamTask,
} from "./decider.ts";
import { type Measured, Meter, peakGbps } from "./meter.ts";
import type { NetworkReplay } from "./network.ts";
import type {
  CapacityTarget,
  ReplayResult,
  ResourceResult,
  Timeline,
  WorkerResult,
} from "./result.ts";
import { engineFor, Forecast, TooManyFlows } from "./sizes.ts";
import { balanceOf, type PassTimes, sum, together, warmMedian, workerResult } from "./times.ts";

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
  /** A network in place of the scenario's services. */
  network?: NetworkReplay;
  /** Opens the capture anew, once for each pass. */
  open(memory: FrameMemory): Promise<FrameSource>;
  /** Make what writes the first pass's frames; one that takes frames' memory stands last. */
  recorders?: ((batch: DecidedBatch, source: FrameSource) => Promise<Recorder> | Recorder)[];
  passes?: number;
  /**
   * Size of the capture where it is known: tables are then made for as many flows as it may have,
   * and if it has more, everything begins anew, recorders as well.
   */
  captureBytes?: number;
  /** Packets after which a pass ends. */
  packetsMax?: number;
  /** Whether to record the course of the capture. */
  wantsTimeline?: boolean;
  machine: ReplayResult["machine"];
  /** Called between batches, about every 100 ms, with what has been read in this pass. */
  onProgress?: (progress: { pass: number; packets: number; bytes: number }) => void;
  /** Starts workers that share the capture (team.ts); without it one engine does all. */
  team?: (
    task: Pick<TeamTask, "captureBytes" | "passes" | "warmUp" | "isWatched">,
  ) => Promise<Team>;
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
const LARGE_BYTES = 16 << 20;
const CHECK_PACKETS = 8192;

/** What the first pass found out, before later passes add to the engine's counters. */
interface FirstPass {
  counters: Counters;
  resources: ResourceResult[];
  capture: ReplayResult["capture"];
  outputBytes: number;
  digest: string;
  timeline: Timeline | undefined;
}

/** @throws FlowplaneError when the capture cannot be opened or an output cannot be written */
export async function replay(options: ReplayOptions): Promise<ReplayRun> {
  const { captureBytes, passes = 1 } = options;
  if (passes < 1) throw new RangeError(`passes: ${passes} is not at least 1`);
  try {
    return await replayWith(options, captureBytes);
  } catch (error) {
    if (error instanceof TooManyFlows) return replayWith(options, undefined);
    throw error;
  }
}

async function replayWith(
  options: ReplayOptions,
  captureBytes: number | undefined,
): Promise<ReplayRun> {
  const { passes = 1 } = options;
  // The one pass over a large capture is through before a warm-up would pay.
  const warmUp = passes > 1 || (options.captureBytes ?? 0) < LARGE_BYTES;
  const isWatched = isWatchedBy(options);
  const team = await options.team?.({ captureBytes, passes, warmUp, isWatched });
  const all = team
    ? await teamPasses(team, options, captureBytes)
    : await enginePasses(options, captureBytes, warmUp);
  const { first, failure } = all;
  return { result: resultOf(options, all), timeline: first.timeline, failure };
}

/** Everything that all passes found out. */
interface Passes {
  first: FirstPass;
  times: PassTimes[];
  workers: WorkerResult[];
  failure: FlowplaneError | undefined;
}

async function enginePasses(
  options: ReplayOptions,
  captureBytes: number | undefined,
  warmUp: boolean,
): Promise<Passes> {
  const { scenario, passes = 1, wasm } = options;
  const engine = await engineFor(scenario, captureBytes, { warmUp, ...(wasm ? { wasm } : {}) });
  const decider = options.network?.decider(engine) ?? new EngineDecider(engine);
  const cold = new Pass(decider, options, 1, captureBytes);
  const failure = await cold.run();
  const first = await cold.firstPass();
  const times = [cold.times];
  for (let pass = 2; pass <= passes; pass++) {
    const warm = new Pass(decider, options, pass);
    await warm.run();
    times.push(warm.times);
  }
  return { first, times, workers: [workerResult(first.capture.packets, times)], failure };
}

/** Whether a team's first pass needs a reader here: something is written or drawn, or it may end early. */
function isWatchedBy({
  recorders = [],
  wantsTimeline = false,
  packetsMax,
}: ReplayOptions): boolean {
  return recorders.length > 0 || wantsTimeline || packetsMax !== undefined;
}

async function teamPasses(
  team: Team,
  options: ReplayOptions,
  captureBytes: number | undefined,
): Promise<Passes> {
  try {
    const pass = isWatchedBy(options) ? watchedPass : unwatchedPass;
    const { first, time, failure } = await pass(team, options, captureBytes);
    const shares = await team.rest(options.passes ?? 1);
    const workers = shares.map((passes) => workerResult(passes[0]?.packets ?? 0, passes));
    return { first, times: together(time, shares, options.machine.cores), workers, failure };
  } finally {
    await team.stop();
  }
}

/** The first pass of a team, and what the starter's thread took for it. */
interface TeamPass {
  first: FirstPass;
  time: PassTimes;
  failure: FlowplaneError | undefined;
}

async function watchedPass(
  team: Team,
  options: ReplayOptions,
  captureBytes: number | undefined,
): Promise<TeamPass> {
  const pass = new Pass(team, options, 1, captureBytes);
  team.begin();
  const failure = await pass.run();
  return { first: await pass.firstPass(), time: pass.times, failure };
}

async function unwatchedPass(
  team: Team,
  options: ReplayOptions,
  captureBytes: number | undefined,
): Promise<TeamPass> {
  const start = performance.now();
  const forecast = captureBytes === undefined ? undefined : new Forecast(captureBytes);
  const check = (bytes: number) => {
    forecast?.check(bytes, team.batch.counters().flows.created);
  };
  // What keeps a capture from being opened is found here, before workers meet it.
  (await options.open(team.memory)).close();
  team.begin();
  let reportedMs = start;
  const { capture, measured, digest, failure } = await team.unwatched((packets, bytes) => {
    check(bytes);
    const nowMs = performance.now();
    if (!options.onProgress || nowMs - reportedMs < PROGRESS_MS) return;
    reportedMs = nowMs;
    options.onProgress({ pass: 1, packets, bytes });
  });
  check(capture.bytes);
  const wallMs = performance.now() - start;
  const found = { capture, measured, digest, timeline: undefined };
  const first = firstPassOf(options, await team.finish(0), found);
  return { first, time: { wallMs, readMs: 0, engineMs: 0, writeMs: 0 }, failure };
}

/** One way of a capture through the engine. */
class Pass {
  readonly times: PassTimes = { wallMs: 0, readMs: 0, engineMs: 0, writeMs: 0 };
  readonly #decider: Decider;
  readonly #options: ReplayOptions;
  readonly #number: number;
  readonly #meter: Meter;
  readonly #recorders: Recorder[] = [];
  /** Where tables were made for a capture of known size. */
  readonly #forecast: Forecast | undefined;
  #checkedPackets = 0;
  #source: FrameSource | undefined;
  #digest = 0n;
  #reportedMs = 0;

  constructor(decider: Decider, options: ReplayOptions, number: number, captureBytes?: number) {
    this.#decider = decider;
    this.#options = options;
    this.#number = number;
    this.#meter = new Meter(decider.batch, options.wantsTimeline ?? false);
    if (captureBytes !== undefined) this.#forecast = new Forecast(captureBytes);
  }

  /** Runs to the end of the capture, of the limit, or to a broken record, which is returned. */
  async run(): Promise<FlowplaneError | undefined> {
    const start = performance.now();
    const source = await this.#options.open(this.#decider.memory);
    this.#source = source;
    try {
      if (this.#number === 1) {
        for (const make of this.#options.recorders ?? []) {
          this.#recorders.push(await make(this.#decider.batch, source));
        }
      }
      const failure = await this.#passFrames(source);
      this.#check(source);
      return failure;
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
      this.#decider.prepare(source);
      const deciding = performance.now();
      const pending = this.#decider.process(count);
      if (pending) await pending;
      const decided = performance.now();
      this.times.engineMs += decided - deciding;
      if (this.#number === 1) this.#record(count);
      if (source.packets - this.#checkedPackets >= CHECK_PACKETS) this.#check(source);
      this.#report(source, decided);
    }
  }

  /** Whether the tables are large enough. @throws {TooManyFlows} */
  #check({ packets, capturedBytes }: FrameSource): void {
    this.#checkedPackets = packets;
    this.#forecast?.check(capturedBytes, this.#decider.batch.counters().flows.created);
  }

  #batchMax(packets: number): number {
    const isFine = this.#options.wantsTimeline && this.#number === 1 && packets < FINE_PACKETS;
    return Math.min(isFine ? FINE_BATCH : BATCH, this.#decider.batchMax ?? BATCH);
  }

  /** Measures and writes a batch of the first pass. */
  #record(count: number): void {
    this.#digest = this.#decider.digest(count, this.#digest);
    this.#meter.measure(count);
    this.#decider.measure?.(count);
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
  async firstPass(): Promise<FirstPass> {
    const counts = await this.#decider.finish(this.#meter.latestMs);
    return firstPassOf(this.#options, counts, {
      capture: factsOf(this.#source as FrameSource),
      measured: this.#meter.measured,
      digest: this.#digest,
      timeline: this.#meter.timeline(),
    });
  }
}

/** What a first pass has found out beside what it counted. */
interface Found {
  capture: CaptureFacts;
  measured: Measured;
  digest: bigint;
  timeline: Timeline | undefined;
}

function firstPassOf(
  { file, scenario }: ReplayOptions,
  { counters, usage, resources }: PassCounts,
  { capture, measured, digest, timeline }: Found,
): FirstPass {
  const peak = peakGbps(measured);
  return {
    counters,
    resources:
      resources ??
      scenario.resources.map((resource) => resourceResult(usage(resource.service), resource, peak)),
    capture: { file, ...capture },
    outputBytes: measured.outputBytes,
    digest: BigInt.asUintN(64, digest).toString(16).padStart(16, "0"),
    timeline,
  };
}

function resourceResult(
  usage: Usage,
  { id, kind }: Scenario["resources"][number],
  peakGbps: number,
): ResourceResult {
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

function resultOf(options: ReplayOptions, { first, times, workers }: Passes): ReplayResult {
  const { capture, counters } = first;
  const { packets, bytes } = capture;
  const total = (part: keyof PassTimes) => sum(times.map((pass) => pass[part])) / 1e3;
  const nsPerPacket = (ms: number) => (packets > 0 ? (ms * 1e6) / packets : 0);
  const engineNs = nsPerPacket(warmMedian(times.map(({ engineMs }) => engineMs)));
  const cold = nsPerPacket(times[0]?.engineMs ?? 0);
  const bytesPerPacket = packets > 0 ? bytes / packets : 0;
  const rates = (ns: number) => {
    const mpps = ns > 0 ? 1e3 / ns : 0;
    return { mpps, gbps: (mpps * bytesPerPacket * 8) / 1e3 };
  };
  const wallSeconds = total("wallMs");
  const engine = rates(engineNs);
  const coreGbps = engine.gbps / Math.max(1, workers.length);
  const { created, expired, activeMax, tcp, udp, icmp, other } = counters.flows;
  return {
    schema: "flowplane.replay/1",
    capture,
    run: { scenario: options.scenario.name, passes: times.length, workers: workers.length },
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
    workers,
    balance: balanceOf(workers),
    capacity: {
      unitGbps: UNIT_GBPS,
      unitsPerCore: coreGbps / UNIT_GBPS,
      targets: TARGETS_GBPS.map((gbps) => capacityTarget(gbps, coreGbps, workers.length)),
    },
    resources: first.resources,
    digest: first.digest,
    machine: options.machine,
    notes: options.scenario.notes,
  };
}

/** Cores that a rate takes when each carries `coreGbps`; nothing measured takes 0 and is not met. */
function capacityTarget(gbps: number, coreGbps: number, workers: number): CapacityTarget {
  return {
    gbps,
    cores: coreGbps > 0 ? gbps / coreGbps : 0,
    met: workers * coreGbps >= gbps,
  };
}
