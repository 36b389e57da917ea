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
  adoptDecision,
  inMidStream,
  readDecision,
  readTuple,
  type SideName,
} from "../engine/decision.ts";
import type { Engine } from "../engine/engine.ts";
import { type Departure, Frames } from "../engine/frames.ts";
import { agree, lookUp, renew } from "./agreement.ts";
import { type FlowStore, isSameDecision, TTL_MS } from "./store.ts";

export interface NodeOptions {
  engine: Engine;
  store: FlowStore;
  /** Side of the tuples that frames of a port carry; default: "client" for even ports. */
  sideOf: (port: number) => SideName;
  /** How long decisions live in the store; default 410 s, as there. */
  ttlMs?: number;
  /** Frames that wait at most, 0 to 65,536: 0 drops undecided frames. Default 1024. */
  queueMax?: number;
}

/** What became of frames that had to wait, and of decisions; only ever grows. */
export interface NodeCounters {
  /** Flows that were decided as the node proposed, and such as others had decided. */
  made: number;
  adopted: number;
  /** Proposals whose tuple another flow had. */
  conflicts: number;
  /** Frames that found no room to wait, and such as the store could not be asked about. */
  dropped: number;
  undecided: number;
  /** Flows that ended because their decision was no longer theirs. */
  lost: number;
}

const QUEUE_MAX = 1024;
/** Tuples proposed for one frame before it is dropped. */
const TRIES_MAX = 8;
const BATCH_MAX = 256;

interface Waiting {
  frame: Uint8Array;
  timeMs: number;
  port: number;
  /** The flow that the engine has proposed; 0 when it only wants to know one. */
  flow: number;
  tuple: Uint8Array | undefined;
  tries: number;
}

export class FleetNode {
  readonly engine: Engine;
  readonly counters: NodeCounters = {
    made: 0,
    adopted: 0,
    conflicts: 0,
    dropped: 0,
    undecided: 0,
    lost: 0,
  };
  readonly #store: FlowStore;
  readonly #frames: Frames;
  readonly #sideOf: (port: number) => SideName;
  readonly #queueMax: number;
  readonly #ttlMs: number;
  /** When all flows of the node were last refreshed; undefined before the first time. */
  #refreshedMs: number | undefined;
  #queue: Waiting[] = [];
  /** Frames of the batch under way, in order. */
  #batch: Waiting[] = [];

  constructor({ engine, store, sideOf, ttlMs = TTL_MS, queueMax = QUEUE_MAX }: NodeOptions) {
    this.engine = engine;
    this.#store = store;
    this.#frames = new Frames(engine);
    this.#sideOf = sideOf;
    this.#ttlMs = wholeNumber("ttlMs", ttlMs, 1000, 2 ** 31 - 1);
    this.#queueMax = wholeNumber("queueMax", queueMax, 0, 65_536);
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#queue.length;
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
    const waiting = this.#queue;
    this.#queue = [];
    if (waiting.length === 0) return [];
    try {
      const proposed = await this.#decide(waiting, nowMs);
      const known = await this.#ask(waiting, nowMs);
      return this.#again(waiting, new Set([...proposed, ...known]));
    } catch {
      this.counters.undecided += waiting.length;
      return [];
    }
  }

  /**
   * Tells the store that the flows of this node live on, and ends those that are no longer its own.
   * To be called several times within the life of a decision. When the store cannot be asked for a
   * whole life, all flows end.
   * @throws what the store throws
   */
  async refresh(nowMs: number): Promise<void> {
    const flows = [...this.engine.flows()].filter(({ state }) => state !== "proposed");
    const all = flows.flatMap(({ handle }) => {
      const decision = readDecision(this.engine, handle);
      return decision ? [{ handle, decision }] : [];
    });
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

  #end({ handle, decision }: { handle: number; decision: Uint8Array }): void {
    const now = readDecision(this.engine, handle);
    // The slot may have gone to another flow since.
    if (!now || !isSameDecision(now, decision)) return;
    this.engine.exports.forgetFlow(handle);
    this.counters.lost++;
  }

  /** Claims what was proposed; frames whose flow is decided now, or must be proposed anew. */
  async #decide(waiting: readonly Waiting[], nowMs: number): Promise<Waiting[]> {
    const byFlow = Map.groupBy(
      waiting.filter(({ flow }) => flow !== 0),
      ({ flow }) => flow,
    );
    const groups: Waiting[][] = [];
    const proposals: Uint8Array[] = [];
    for (const [flow, frames] of byFlow) {
      const proposal = readDecision(this.engine, flow);
      if (!proposal) continue;
      groups.push(frames);
      proposals.push(proposal);
    }
    const agreements = await agree(this.#store, proposals, nowMs);
    const open: Waiting[] = [];
    for (const [at, { outcome, decision }] of agreements.entries()) {
      if (outcome === "full") continue;
      adoptDecision(this.engine, decision, nowMs);
      const isOwn = decision === proposals[at];
      if (outcome === "taken") this.counters.conflicts++;
      else if (isOwn) this.counters.made++;
      else this.counters.adopted++;
      open.push(...(groups[at] as Waiting[]));
    }
    return open;
  }

  /** Looks up what only wants to know; all of it goes on, as strays where nothing is known. */
  async #ask(waiting: readonly Waiting[], nowMs: number): Promise<Waiting[]> {
    const asking = waiting.filter(({ flow, tuple }) => flow === 0 && tuple !== undefined);
    for (const side of ["client", "service"] as const) {
      const here = asking.filter(({ port }) => this.#sideOf(port) === side);
      const tuples = here.map(({ tuple }) => tuple as Uint8Array);
      const found = await lookUp(this.#store, side, tuples, nowMs);
      for (const [at, decision] of found.entries()) {
        if (!decision) (here[at] as Waiting).tries = TRIES_MAX;
        else if (adoptDecision(this.engine, inMidStream(decision), nowMs)) this.counters.adopted++;
      }
    }
    return asking;
  }

  /** Runs frames again, in the order in which they came. */
  #again(waiting: readonly Waiting[], goesOn: ReadonlySet<Waiting>): Departure[] {
    const left = waiting.filter((one) => goesOn.has(one));
    this.counters.undecided += waiting.length - left.length;
    const departures: Departure[] = [];
    // Those that nobody knows are treated as any engine treats strays.
    for (const asks of [true, false]) {
      const part = left.filter(({ tries }) => tries < TRIES_MAX === asks);
      for (let start = 0; start < part.length; start += BATCH_MAX) {
        for (const one of part.slice(start, start + BATCH_MAX)) {
          this.#frames.add(one.frame, one.timeMs, one.port);
          this.#batch.push({ ...one, tries: one.tries + 1, flow: 0 });
        }
        const leaving = this.#run(asks);
        departures.push(...leaving.map((one) => ({ ...one, frame: one.frame.slice() })));
      }
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
      this.#wait({ ...one, frame: frame.slice(), flow, tuple });
      return false;
    });
  }

  #wait(one: Waiting): void {
    if (this.#queue.length >= this.#queueMax || one.tries >= TRIES_MAX) this.counters.dropped++;
    else this.#queue.push(one);
  }
}
