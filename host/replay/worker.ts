/**
 * A worker of a replay, in a thread of its own: walks all records of the capture, keeps the frames
 * of its lanes and decides them with its own engine. In the first pass it tells its decisions
 * through its ring; later passes only take time.
 *
 * Runs only as a worker thread (hiring.ts), which waits for its task and ends when it is done.
 */
import { once } from "node:events";
import { parentPort } from "node:worker_threads";
import { openCapture } from "../capture/file.ts";
import type { CaptureReader } from "../capture/reader.ts";
import type { Counters, Usage } from "../engine/api.ts";
import {
  DECISION_BYTES,
  DECISION_WORD_BYTES,
  DECISION_WORD_VERDICT,
  DECISION_WORDS,
  decisionsOf,
  isDecisionMade,
  isDecisionOut,
} from "../engine/decisions.ts";
import type { Engine } from "../engine/engine.ts";
import { selectAlways } from "../engine/selection.ts";
import { FlowplaneError } from "../errors.ts";
import { definePorts, WORD_ADDRESS, WORDS } from "./batch.ts";
import { type CaptureFacts, factsOf, type TeamTask } from "./decider.ts";
import { type Measured, Meter } from "./meter.ts";
import { Control, RingWriter, type SharedRings } from "./ring.ts";
import { engineFor } from "./sizes.ts";

/** What a worker is told, in one message. */
export interface WorkerTask extends TeamTask {
  worker: number;
  shared: SharedRings;
}

/** One pass of one worker; instants in ms since 1970-01-01 UTC. */
export interface WorkerPass {
  startMs: number;
  endMs: number;
  /** Reading, walking and selecting. */
  readMs: number;
  engineMs: number;
  packets: number;
}

/** What a worker has found out in the first pass. */
export interface FirstNews {
  what: "first";
  counters: Counters;
  usages: [number, Usage][];
  /** Of all records, and why they could not be read to the end: every worker tells the same. */
  capture: CaptureFacts;
  failure: string | undefined;
  /** Of its own frames. */
  measured: Measured;
}

/** What a worker tells beside its ring. */
export type WorkerNews =
  | { what: "ready" }
  | { what: "at"; packets: number; bytes: number }
  | FirstNews
  | { what: "done"; passes: WorkerPass[] };

const BATCH = 256;
const PROGRESS_MS = 20;

/** One worker's share of the replay. */
class Share {
  readonly #task: WorkerTask;
  readonly #engine: Engine;
  readonly #ring: RingWriter;
  /** The engine's list of decisions, and the same as words. */
  readonly #decisions: ReturnType<typeof decisionsOf>;
  readonly #meter: Meter;
  readonly #tellNews: (news: WorkerNews) => void;
  #portCount = 0;
  #toldMs = 0;
  #failure: string | undefined;

  constructor(task: WorkerTask, engine: Engine, tell: (news: WorkerNews) => void) {
    this.#task = task;
    this.#engine = engine;
    this.#tellNews = tell;
    this.#meter = new Meter(engine, false);
    this.#ring = new RingWriter(task.shared, task.worker);
    this.#decisions = decisionsOf(engine);
  }

  async pass(number: number): Promise<WorkerPass> {
    const startMs = performance.timeOrigin + performance.now();
    const { file, packetsMax } = this.#task;
    const source = await openCapture(file, this.#engine, { packetsMax });
    const isFirst = number === 1;
    source.onInterface = () => {
      this.#portCount = definePorts(this.#engine, source, this.#portCount);
    };
    source.onInterface();
    const times = { readMs: 0, engineMs: 0, packets: 0 };
    for (;;) {
      const reading = performance.now();
      const next = this.#next(source);
      const count = typeof next === "number" ? next : await next;
      const deciding = performance.now();
      times.readMs += deciding - reading;
      if (count === 0) break;
      this.#engine.process(count);
      const decided = performance.now();
      times.engineMs += decided - deciding;
      times.packets += count;
      if (isFirst) this.#record(source, count, decided);
    }
    source.close();
    if (isFirst) this.#tellNews(this.#first(source));
    return { ...times, startMs, endMs: performance.timeOrigin + performance.now() };
  }

  /** Frames described next; 0 at the end, and a broken record is one. */
  #next(source: CaptureReader): number | Promise<number> {
    try {
      const next = source.next(BATCH);
      return typeof next === "number" ? next : next.catch((error) => this.#broken(error));
    } catch (error) {
      return this.#broken(error);
    }
  }

  #broken(error: unknown): number {
    if (!(error instanceof FlowplaneError)) throw error;
    this.#failure = error.message;
    return 0;
  }

  /** Tells and measures a batch of the first pass. */
  #record(source: CaptureReader, count: number, nowMs: number): void {
    const { isWatched, worker } = this.#task;
    this.#tell(count);
    if (isWatched) return;
    this.#meter.measure(count, true);
    if (worker > 0 || nowMs - this.#toldMs < PROGRESS_MS) return;
    this.#toldMs = nowMs;
    const { packets, capturedBytes } = source;
    this.#tellNews({ what: "at", packets, bytes: capturedBytes });
  }

  /** Tells what became of the batch. */
  #tell(count: number): void {
    const decided = this.#engine.exports.listDecisions(count);
    if (this.#task.wantsFrames) this.#tellFrames(decided);
    else {
      const list = this.#decisions.bytes.subarray(0, decided * DECISION_BYTES);
      this.#ring.reserve(list.length);
      this.#ring.put(list);
    }
    this.#ring.publish();
  }

  /** Each decision, followed by the frame's bytes if it goes out. */
  #tellFrames(decided: number): void {
    const { bytes, descriptors, emits } = this.#engine;
    const { bytes: list, words } = this.#decisions;
    let [frame, made] = [0, 0];
    for (let decision = 0; decision < decided; decision++) {
      const at = decision * DECISION_WORDS;
      const verdict = words[at + DECISION_WORD_VERDICT] as number;
      const length = words[at + DECISION_WORD_BYTES] as number;
      const isMade = isDecisionMade(verdict);
      const index = isMade ? made++ : frame++;
      const isOut = isDecisionOut(verdict);
      this.#ring.reserve(DECISION_BYTES + (isOut ? length : 0));
      this.#ring.put(list.subarray(at * 4, at * 4 + DECISION_BYTES));
      if (!isOut) continue;
      const address = (isMade ? emits : descriptors)[index * WORDS + WORD_ADDRESS] as number;
      this.#ring.put(bytes.subarray(address, address + length));
    }
  }

  #first(source: CaptureReader): FirstNews {
    const engine = this.#engine;
    engine.sweep(engine.exports.ownLatestMs() >>> 0);
    const services = new Set(this.#task.scenario.resources.map(({ service }) => service));
    const usages = [...services].map((service): [number, Usage] => {
      return [service, engine.usage(service)];
    });
    return {
      what: "first",
      counters: engine.counters(),
      usages,
      capture: factsOf(source),
      failure: this.#failure,
      measured: this.#meter.measured,
    };
  }
}

async function run(task: WorkerTask, tell: (news: WorkerNews) => void): Promise<void> {
  const { scenario, captureBytes, warmUp, wasm } = task;
  const engine = await engineFor(scenario, captureBytes, { warmUp, wasm });
  const control = new Control(task.shared);
  const { worker, shared, isSpread, packetsMax } = task;
  const workers = shared.rings.length;
  selectAlways(engine.exports, { worker, workers, isSpread }, packetsMax);
  const share = new Share(task, engine, tell);
  tell({ what: "ready" });
  const passes: WorkerPass[] = [];
  for (let number = 1; number <= task.passes; number++) {
    control.enter(number);
    passes.push(await share.pass(number));
  }
  tell({ what: "done", passes });
}

if (parentPort) {
  const [task] = await once(parentPort, "message");
  await run(task as WorkerTask, (news) => parentPort?.postMessage(news));
}
