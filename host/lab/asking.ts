/**
 * A worker of a node asks before flows begin: what the engine holds waits here, is asked about all
 * at once, and runs again when the answers are there. While one question is under way the next one
 * grows, so a batch of decisions is as large as the store is slow.
 */
import { type DecidedFlow, readDecision, type SideName } from "../engine/decision.ts";
import type { Engine } from "../engine/engine.ts";
import type { HeldFrame, Transit } from "../engine/transit.ts";
import { isSameDecision } from "../nodes/store.ts";
import { type Answers, type Asked, type Questions, Undecided } from "../nodes/undecided.ts";

export interface AskingOptions {
  engine: Engine;
  transit: Transit;
  queueMax: number;
  sidesOf: (port: number) => readonly SideName[];
  /** Milliseconds of the nodes' clock. */
  clock: () => number;
  ask: (questions: Questions, nowMs: number) => void;
  /** Runs frames again, as batches of their own. */
  rerun: (frames: readonly HeldFrame[]) => void;
}

export class Asking {
  readonly #options: AskingOptions;
  readonly #undecided: Undecided;
  /** What is being asked, if anything is. */
  #asked: Asked | undefined;

  constructor(options: AskingOptions) {
    this.#options = options;
    this.#undecided = new Undecided(options);
    options.engine.exports.askFirst(1);
  }

  get counters() {
    return this.#undecided.counters;
  }

  /** After each batch of `count` frames: keeps what was held. */
  collect(count: number): void {
    for (const held of this.#options.transit.held(count)) this.#undecided.wait(held);
    this.#ask();
  }

  /** Takes the answers to what was asked last; undefined when nobody could be asked. */
  answered(answers: Answers | undefined): void {
    const asked = this.#asked;
    this.#asked = undefined;
    if (asked === undefined) return;
    if (answers === undefined) this.#undecided.fail(asked);
    else this.#runAgain(asked, answers);
    this.#ask();
  }

  #ask(): void {
    if (this.#asked !== undefined || this.#undecided.count === 0) return;
    this.#asked = this.#undecided.ask();
    this.#options.ask(this.#asked.questions, Math.floor(this.#options.clock()));
  }

  #runAgain(asked: Asked, answers: Answers): void {
    const { engine, clock, rerun } = this.#options;
    const { open, strays } = this.#undecided.answer(asked, answers, Math.floor(clock()));
    rerun(open);
    engine.exports.askFirst(0);
    rerun(strays);
    engine.exports.askFirst(1);
  }

  /** Ends flows whose decision is no longer theirs. */
  end(flows: readonly DecidedFlow[]): void {
    const { engine } = this.#options;
    for (const { handle, decision } of flows) {
      const now = readDecision(engine, handle);
      // The slot may have gone to another flow since.
      if (!now || !isSameDecision(now, decision)) continue;
      engine.exports.forgetFlow(handle);
      this.#undecided.counters.lost++;
    }
  }
}
