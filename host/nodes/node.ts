/**
 * A node of a fleet: an engine that shares its decisions through a store. Packets of flows that it
 * knows pass at once, whatever the store does. Packets of flows that are new to it wait in a bounded
 * queue (or are dropped, if that is chosen) until the store has been asked; then they go on in the
 * order in which they came.
 *
 * All nodes must have the same services under the same numbers, and one clock. A node whose flows
 * could not be refreshed for as long as decisions live ends them: another node may have their tuples.
 */

import { wholeNumber } from "../engine/check.ts";
import {
  type DecidedFlow,
  decidedAfter,
  readDecision,
  readTuple,
  type SideName,
} from "../engine/decision.ts";
import type { Engine } from "../engine/engine.ts";
import { type Departure, Frames } from "../engine/frames.ts";
import { renew } from "./agreement.ts";
import { type FlowStore, isSameDecision, TTL_MS } from "./store.ts";
import { type Answers, decide, type NodeCounters, Undecided, type Waiting } from "./undecided.ts";

export interface NodeOptions {
  engine: Engine;
  store: FlowStore;
  /** Side of the tuples that frames of a port carry, "both" where they may carry either. */
  sideOf: (port: number) => SideName | "both";
  /** How long decisions live in the store; default 410 s, as there. */
  ttlMs?: number;
  /** Frames that wait at most, 0 to 65,536: 0 drops undecided frames. Default 1024. */
  queueMax?: number;
}

const QUEUE_MAX = 1024;
const BATCH_MAX = 256;

export class FleetNode {
  readonly engine: Engine;
  readonly #store: FlowStore;
  readonly #frames: Frames;
  readonly #undecided: Undecided;
  readonly #ttlMs: number;
  /** When all flows of the node were last refreshed; undefined before the first time. */
  #refreshedMs: number | undefined;
  /** Frames of the batch under way, in order. */
  #batch: Waiting[] = [];

  constructor({ engine, store, sideOf, ttlMs = TTL_MS, queueMax = QUEUE_MAX }: NodeOptions) {
    this.engine = engine;
    this.#store = store;
    this.#frames = new Frames(engine);
    this.#undecided = new Undecided({
      engine,
      queueMax: wholeNumber("queueMax", queueMax, 0, 65_536),
      sidesOf: (port) => {
        const side = sideOf(port);
        return side === "both" ? ["client", "service"] : [side];
      },
    });
    this.#ttlMs = wholeNumber("ttlMs", ttlMs, 1000, 2 ** 31 - 1);
  }

  /** What became of frames that had to wait, and of decisions. */
  get counters(): Readonly<NodeCounters> {
    return this.#undecided.counters;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#undecided.count;
  }

  /** Adds a frame to the batch, as `Frames.add`; it is copied. */
  add(frame: Uint8Array, timeMs: number, port = 0): void {
    this.#frames.add(frame, timeMs, port);
    this.#batch.push({ frame, timeMs, port, flow: 0, tuple: undefined, tries: 0 });
  }

  /** Runs the batch; returns what leaves at once. What has to wait is queued for `settle`. */
  process(): Departure[] {
    return this.#run(true);
  }

  /**
   * Asks the store about all that waits, and runs it again; returns what leaves now. Frames whose
   * flow stays undecided are dropped and counted.
   * The departures' frames are copies.
   */
  async settle(nowMs: number): Promise<Departure[]> {
    if (this.#undecided.count === 0) return [];
    const asked = this.#undecided.ask();
    let answers: Answers;
    try {
      answers = await decide(this.#store, asked.questions, nowMs);
    } catch {
      this.#undecided.fail(asked);
      return [];
    }
    const { open, strays } = this.#undecided.answer(asked, answers, nowMs);
    return [...this.#again(open, true), ...this.#again(strays, false)];
  }

  /**
   * Tells the store that the flows of this node live on, and ends those that are no longer its own.
   * To be called several times within the life of a decision. When the store cannot be asked for a
   * whole life, all flows end.
   * @throws what the store throws
   */
  async refresh(nowMs: number): Promise<void> {
    const all: DecidedFlow[] = [];
    let after = 0;
    do {
      const { flows, last } = decidedAfter(this.engine, after, BATCH_MAX);
      all.push(...flows);
      after = last;
    } while (after !== 0);
    const since = this.#refreshedMs ?? nowMs;
    try {
      for (let start = 0; start < all.length; start += BATCH_MAX) {
        const part = all.slice(start, start + BATCH_MAX);
        const decisions = part.map(({ decision }) => decision);
        const isOurs = await renew(this.#store, decisions, nowMs);
        for (const [at, flow] of part.entries()) if (!isOurs[at]) this.#end(flow);
      }
      this.#refreshedMs = nowMs;
    } catch (error) {
      this.#refreshedMs = since;
      if (nowMs - since >= this.#ttlMs) for (const flow of all) this.#end(flow);
      throw error;
    }
  }

  #end({ handle, decision }: DecidedFlow): void {
    const now = readDecision(this.engine, handle);
    // The slot may have gone to another flow since.
    if (!now || !isSameDecision(now, decision)) return;
    this.engine.exports.forgetFlow(handle);
    this.#undecided.counters.lost++;
  }

  #again(frames: readonly Waiting[], asks: boolean): Departure[] {
    const departures: Departure[] = [];
    for (let start = 0; start < frames.length; start += BATCH_MAX) {
      for (const one of frames.slice(start, start + BATCH_MAX)) {
        this.#frames.add(one.frame, one.timeMs, one.port);
        this.#batch.push(one);
      }
      const leaving = this.#run(asks);
      departures.push(...leaving.map((one) => ({ ...one, frame: one.frame.slice() })));
    }
    return departures;
  }

  #run(asks: boolean): Departure[] {
    const batch = this.#batch;
    this.#batch = [];
    this.engine.exports.askFirst(asks ? 1 : 0);
    const departures = this.#frames.process();
    let at = 0;
    return departures.filter(({ verdict, made, flow, frame }) => {
      if (made !== undefined) return true;
      const one = batch[at++] as Waiting;
      if (verdict !== "hold.undecided") return true;
      const tuple = flow === 0 ? readTuple(this.engine, at - 1) : undefined;
      // What waits is as it came, for nothing was rewritten.
      this.#undecided.wait({ ...one, frame: frame.slice(), flow, tuple });
      return false;
    });
  }
}
