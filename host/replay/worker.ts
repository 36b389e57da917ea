/**
 * A worker of a replay, in a thread of its own: walks all records of the capture, keeps the frames
 * of its lanes and decides them with its own engine. In the first pass it tells its decisions
 * through its ring; later passes only take time.
 *
 * Runs only as a worker thread that team.ts has started.
 */
import { parentPort, workerData } from "node:worker_threads";
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
import { FlowplaneError } from "../errors.ts";
import { definePorts, WORD_ADDRESS, WORD_TIME, WORDS } from "./batch.ts";
import type { TeamTask } from "./decider.ts";
import { Control, RingWriter, type SharedRings } from "./ring.ts";
import { engineFor } from "./sizes.ts";

/** What a worker is told at its start. */
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
  bytes: number;
}

/** What a worker tells beside its ring. */
export type WorkerNews =
  | { what: "ready" }
  | { what: "first"; pass: WorkerPass; counters: Counters; usages: [number, Usage][] }
  | { what: "done"; passes: WorkerPass[] };

const BATCH = 256;

/** One worker's share of the replay. */
class Share {
  readonly #task: WorkerTask;
  readonly #engine: Engine;
  readonly #ring: RingWriter;
  /** The engine's list of decisions, and the same as words. */
  readonly #decisions: ReturnType<typeof decisionsOf>;
  #portCount = 0;
  /** The capture's clock, unwound, and the latest that it has been. */
  #nowMs = 0;
  #latestMs = 0;

  constructor(task: WorkerTask, engine: Engine) {
    this.#task = task;
    this.#engine = engine;
    this.#ring = new RingWriter(task.shared, task.worker);
    this.#decisions = decisionsOf(engine);
  }

  async pass(number: number): Promise<WorkerPass> {
    const startMs = performance.timeOrigin + performance.now();
    const { file, packetsMax } = this.#task;
    const source = await openCapture(file, this.#engine);
    const isFirst = number === 1;
    source.onDescribe = (index, count) => this.#select(source, index, count, isFirst);
    const times = { readMs: 0, engineMs: 0, packets: 0, bytes: 0 };
    for (;;) {
      const reading = performance.now();
      const count = source.packets < packetsMax ? await next(source) : 0;
      const deciding = performance.now();
      times.readMs += deciding - reading;
      if (count === 0) break;
      this.#engine.process(count);
      times.engineMs += performance.now() - deciding;
      times.packets += count;
      if (isFirst) this.#tell(count);
    }
    source.close();
    return { ...times, startMs, endMs: performance.timeOrigin + performance.now() };
  }

  /** Of frames that were just described, keeps this worker's. */
  #select(source: CaptureReader, first: number, described: number, isFirst: boolean): number {
    const { worker, shared, packetsMax, isSpread } = this.#task;
    this.#portCount = definePorts(this.#engine, source, this.#portCount);
    const number = source.packets - described;
    const count = Math.min(described, Math.max(0, packetsMax - number));
    if (count === 0) return 0;
    if (isFirst) this.#followClock(first, count);
    const workers = shared.rings.length;
    return this.#engine.select(first, count, { worker, workers, isSpread, number });
  }

  #followClock(first: number, count: number): void {
    const { descriptors } = this.#engine;
    const end = (first + count) * WORDS;
    for (let word = first * WORDS + WORD_TIME; word < end; word += WORDS) {
      this.#nowMs += ((descriptors[word] as number) - this.#nowMs) | 0;
      if (this.#nowMs > this.#latestMs) this.#latestMs = this.#nowMs;
    }
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

  first(pass: WorkerPass): WorkerNews {
    this.#engine.sweep(this.#latestMs >>> 0);
    const services = new Set(this.#task.scenario.resources.map(({ service }) => service));
    const usages = [...services].map((service): [number, Usage] => {
      return [service, this.#engine.usage(service)];
    });
    return { what: "first", pass, counters: this.#engine.counters(), usages };
  }
}

/** Frames described next; 0 at the end. A broken record is an end: who writes the report meets it too. */
async function next(source: CaptureReader): Promise<number> {
  try {
    return await source.next(BATCH);
  } catch (error) {
    if (error instanceof FlowplaneError) return 0;
    throw error;
  }
}

async function run(task: WorkerTask, tell: (news: WorkerNews) => void): Promise<void> {
  const { scenario, captureBytes, warmUp, wasm } = task;
  const engine = await engineFor(scenario, captureBytes, { warmUp, wasm });
  const control = new Control(task.shared);
  const share = new Share(task, engine);
  tell({ what: "ready" });
  const passes: WorkerPass[] = [];
  for (let number = 1; number <= task.passes; number++) {
    control.enter(number);
    const pass = await share.pass(number);
    passes.push(pass);
    if (number === 1) tell(share.first(pass));
  }
  tell({ what: "done", passes });
}

if (parentPort) await run(workerData as WorkerTask, (news) => parentPort?.postMessage(news));
