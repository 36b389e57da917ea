/**
 * What decides the frames of a replay's first pass: one engine by itself, or workers that share the
 * capture (team.ts). Either way the batch lies where recorders and meters look for it.
 */

import type { FrameMemory, FrameSource } from "../capture/source.ts";
import type { Counters, Usage } from "../engine/api.ts";
import type { Engine } from "../engine/engine.ts";
import type { FlowplaneError } from "../errors.ts";
import type { Scenario } from "../scenario/scenario.ts";
import { definePorts } from "./batch.ts";
import type { Measured } from "./meter.ts";
import type { ReplayResult, ResourceResult } from "./result.ts";
import type { WorkerPass } from "./worker.ts";

/** A batch after its frames were decided; every `Engine` is one. */
export interface DecidedBatch
  extends Pick<Engine, "descriptors" | "bytes" | "emits" | "emitCount" | "exports"> {
  counters(): { flows: Pick<Counters["flows"], "active" | "created"> };
}

/** What a pass has counted. */
export interface PassCounts {
  counters: Counters;
  /** By index of the service. */
  usage(service: number): Usage;
  /** Where it knows more of resources than the scenario. */
  resources?: ResourceResult[];
}

export interface Decider {
  /** Where the source describes frames. */
  readonly memory: FrameMemory;
  readonly batch: DecidedBatch;
  /** Most frames of the next batch; default any number. */
  readonly batchMax?: number;
  /** After each batch of the first pass. */
  measure?(count: number): void;
  /** Before each batch: interfaces of the source may have shown up. */
  prepare(source: FrameSource): void;
  /** Decides the first `count` descriptors; returns what to wait for before they are. */
  process(count: number): Promise<void> | undefined;
  /** Adds the frames of the last batch that go out to a digest. */
  digest(count: number, previous: bigint): bigint;
  /** After the last batch; `nowMs` is the latest that the capture's clock has been. */
  finish(nowMs: number): Promise<PassCounts> | PassCounts;
}

/** One engine, in this thread. */
export class EngineDecider implements Decider {
  readonly batch: Engine;
  #portCount = 0;

  constructor(engine: Engine) {
    this.batch = engine;
  }

  get memory(): Engine {
    return this.batch;
  }

  prepare(source: FrameSource): void {
    this.#portCount = definePorts(this.batch, source, this.#portCount);
  }

  process(count: number): undefined {
    this.batch.process(count);
  }

  digest(count: number, previous: bigint): bigint {
    return this.batch.exports.digestFrames(count, previous);
  }

  /** What is over counts as expired, however far the sweep has come: batches do not show. */
  finish(nowMs: number): PassCounts {
    this.batch.sweep(nowMs >>> 0);
    return { counters: this.batch.counters(), usage: (service) => this.batch.usage(service) };
  }
}

/** What workers are told to do. */
export interface TeamTask {
  /** 1 to 64. */
  workers: number;
  /** Path of the capture, which every worker opens. */
  file: string;
  scenario: Scenario;
  captureBytes: number | undefined;
  passes: number;
  packetsMax: number;
  /** Whether something is written or drawn of each frame: then its starter reads the capture, too. */
  isWatched: boolean;
  /** Whether the bytes of frames that go out are wanted: something writes them. */
  wantsFrames: boolean;
  /** Whether frames are shared out; else one worker has them all. */
  isSpread: boolean;
  warmUp: boolean;
  wasm: WebAssembly.Module;
}

/** What a capture is, as far as it was read. */
export type CaptureFacts = Omit<ReplayResult["capture"], "file">;

export function factsOf(source: FrameSource): CaptureFacts {
  const { layout, interfaces, packets, capturedBytes } = source;
  const spanNs = packets > 0 ? source.latestNs - source.earliestNs : 0n;
  return {
    format: layout.format,
    linkTypes: [...new Set(interfaces.map(({ linkName }) => linkName))],
    packets,
    bytes: capturedBytes,
    durationSeconds: Number(spanNs) / 1e9,
  };
}

/** What workers tell of a first pass that nobody has watched. */
export interface Unwatched {
  capture: CaptureFacts;
  measured: Measured;
  digest: bigint;
  /** Why the capture could not be read to its end. */
  failure: FlowplaneError | undefined;
}

/** Workers that decide a capture together. */
export interface Team extends Decider {
  /** Lets the workers into the first pass. */
  begin(): void;
  /**
   * Waits for the first pass in place of reading the capture; `report` is told of its progress, packets and
   * bytes (about) as of the same record as the batch's counters.
   */
  unwatched(report: (packets: number, bytes: number) => void): Promise<Unwatched>;
  /** Runs the other passes; returns all passes of each worker. */
  rest(passes: number): Promise<WorkerPass[][]>;
  /** Ends the threads, whatever they do. */
  stop(): Promise<void>;
}
