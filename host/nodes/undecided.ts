/**
 * Frames whose flow is not decided yet. They wait in a bounded queue, in order, while somebody who
 * can reach the store answers what is asked about them; then the engine adopts the answers and the
 * frames run again. Established flows never come here.
 *
 * Questions and answers are plain data, so that the engine may run in a thread that has no time to
 * wait, and the store's client in another thread or process.
 */
import {
  adoptDecision,
  besideProposal,
  inMidStream,
  isOver,
  readDecision,
  restingTuple,
  type SideName,
} from "../engine/decision.ts";
import type { Engine } from "../engine/engine.ts";
import { type Agreement, agree, lookUp } from "./agreement.ts";
import type { FlowStore, Found } from "./store.ts";

/** What is asked about frames that wait. */
export interface Questions {
  /** Decisions that the engine proposes. */
  proposals: Uint8Array[];
  /** Tuples that may belong to somebody's flow, and the sides that they may be of. */
  tuples: { tuple: Uint8Array; sides: readonly SideName[] }[];
}

export interface Answers {
  /** One for each proposal, see `Agreement`; whether the decision is what was proposed. */
  agreements: {
    outcome: Agreement["outcome"];
    decision: Uint8Array;
    isOwn: boolean;
  }[];
  /** One for each tuple. */
  found: Found[];
}

/** Asks the store. @throws what the store throws: nothing is known then */
export async function decide(
  store: FlowStore,
  { proposals, tuples }: Questions,
  nowMs: number,
): Promise<Answers> {
  const agreements = await agree(store, proposals, nowMs);
  const found: Found[] = tuples.map(() => undefined);
  for (const side of ["client", "service"] as const) {
    const open = [...tuples.entries()].filter(
      ([at, { sides }]) => !found[at] && sides.includes(side),
    );
    const asked = open.map(([, { tuple }]) => tuple);
    const answers = await lookUp(store, side, asked, nowMs);
    for (const [index, [at]] of open.entries()) found[at] = answers[index];
  }
  return {
    agreements: agreements.map(({ outcome, decision }, at) => {
      return { outcome, decision, isOwn: decision === proposals[at] };
    }),
    found,
  };
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

export interface Waiting {
  frame: Uint8Array;
  timeMs: number;
  port: number;
  /** The flow that the engine has proposed; 0 when it only wants to know one. */
  flow: number;
  tuple: Uint8Array | undefined;
  /** How often it has run. */
  tries: number;
}

/** Frames about which something is being asked. */
export interface Asked {
  waiting: readonly Waiting[];
  questions: Questions;
  /** Frames of each proposal, and the frame of each tuple. */
  groups: readonly Waiting[][];
  asking: readonly Waiting[];
}

/** Tuples proposed for one frame before it is dropped. */
const TRIES_MAX = 8;

export interface UndecidedOptions {
  engine: Engine;
  /** Frames that wait at most; 0 drops all of them. */
  queueMax: number;
  /** Sides of the tuples that frames of a port may carry. */
  sidesOf: (port: number) => readonly SideName[];
}

export class Undecided {
  readonly counters: NodeCounters = {
    made: 0,
    adopted: 0,
    conflicts: 0,
    dropped: 0,
    undecided: 0,
    lost: 0,
  };
  readonly #options: UndecidedOptions;
  #queue: Waiting[] = [];

  constructor(options: UndecidedOptions) {
    this.#options = options;
  }

  /** Frames that wait and that nothing has been asked about. */
  get count(): number {
    return this.#queue.length;
  }

  /** Lets a frame wait, or drops it when there is no room or it has run too often. */
  wait(one: Waiting): void {
    const isFull = this.#queue.length >= this.#options.queueMax;
    if (isFull || one.tries >= TRIES_MAX) this.counters.dropped++;
    else this.#queue.push(one);
  }

  /** What is to be asked about all that waits; it waits for the answers from here on. */
  ask(): Asked {
    const waiting = this.#queue;
    this.#queue = [];
    const proposed = waiting.filter(({ flow }) => flow !== 0);
    const groups: Waiting[][] = [];
    const proposals: Uint8Array[] = [];
    for (const [flow, frames] of Map.groupBy(proposed, (one) => one.flow)) {
      const proposal = readDecision(this.#options.engine, flow);
      if (!proposal || isOver(proposal)) continue;
      groups.push(frames);
      proposals.push(proposal);
    }
    const asking = waiting.filter(({ flow, tuple }) => flow === 0 && tuple !== undefined);
    const tuples = asking.map(({ tuple, port }) => {
      return { tuple: tuple as Uint8Array, sides: this.#options.sidesOf(port) };
    });
    return { waiting, groups, asking, questions: { proposals, tuples } };
  }

  /**
   * Adopts what was decided. Returns frames that are to run again, in the order in which they came:
   * those that may have to wait again, and those that nobody knows, which are treated as any engine
   * treats strays. All others are dropped and counted.
   */
  answer(asked: Asked, answers: Answers, nowMs: number): { open: Waiting[]; strays: Waiting[] } {
    const goesOn = new Set<Waiting>();
    for (const [at, agreement] of answers.agreements.entries()) {
      if (agreement.outcome === "full") continue;
      this.#adopt(agreement, asked.questions.proposals[at] as Uint8Array, nowMs);
      for (const one of asked.groups[at] as Waiting[]) goesOn.add(one);
    }
    const unknown = new Set<Waiting>();
    for (const [at, decision] of answers.found.entries()) {
      const one = asked.asking[at] as Waiting;
      goesOn.add(one);
      if (!decision) unknown.add(one);
      else if (adoptDecision(this.#options.engine, inMidStream(decision), nowMs)) {
        this.counters.adopted++;
      }
    }
    const left = asked.waiting.filter((one) => goesOn.has(one));
    this.counters.undecided += asked.waiting.length - left.length;
    const again = left.map((one) => ({ ...one, tries: one.tries + 1, flow: 0 }));
    const isStray = (at: number) => unknown.has(left[at] as Waiting);
    return {
      open: again.filter((_, at) => !isStray(at)),
      strays: again.filter((_, at) => isStray(at)),
    };
  }

  #adopt(agreement: Answers["agreements"][number], proposal: Uint8Array, nowMs: number): void {
    const { outcome, decision, isOwn } = agreement;
    const { engine } = this.#options;
    const isResting = outcome === "resting";
    const told = isResting ? restingTuple(decision) : besideProposal(decision, proposal);
    adoptDecision(engine, told, nowMs);
    if (isResting || outcome === "taken") this.counters.conflicts++;
    else if (isOwn) this.counters.made++;
    else this.counters.adopted++;
  }

  /** Nobody could be asked: what waited for it is dropped. */
  fail({ waiting }: Asked): void {
    this.counters.undecided += waiting.length;
  }
}
