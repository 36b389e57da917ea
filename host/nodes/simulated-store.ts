/**
 * The store of the simulated fleet: one place, reached by messages that are late or lost. What gets
 * lost is answered by a rejection after a while, as a client of a real store does, whether the
 * operation took effect or not.
 */
import type { SideName } from "../engine/decision.ts";
import type { KeyedRandom } from "../shard/random.ts";
import type { Schedule } from "./schedule.ts";
import type { FlowStore, Found } from "./store.ts";

const TIMEOUT_MS = 500;
const DELAY_MIN_MS = 0.05;

export class SimulatedStore {
  lost = 0;
  readonly #schedule: Schedule;
  readonly #random: KeyedRandom;
  readonly #table: FlowStore;
  readonly #loss: number;

  constructor(schedule: Schedule, random: KeyedRandom, table: FlowStore, loss: number) {
    this.#schedule = schedule;
    this.#random = random;
    this.#loss = loss;
    this.#table = table;
  }

  /** The store as one node sees it; `isCutOff` says whether the node can be reached just now. */
  seenFrom(isCutOff: () => boolean): FlowStore {
    const ask = (run: () => Promise<Found[]>) => this.#ask(run, isCutOff);
    const table = this.#table;
    return {
      claim: (side: SideName, decisions, nowMs) => ask(() => table.claim(side, decisions, nowMs)),
      find: (side: SideName, tuples, nowMs) => ask(() => table.find(side, tuples, nowMs)),
      refresh: (side: SideName, decisions, nowMs) =>
        ask(() => table.refresh(side, decisions, nowMs)),
      close: async () => {},
    };
  }

  #ask(run: () => Promise<Found[]>, isCutOff: () => boolean): Promise<Found[]> {
    const { promise, resolve, reject } = Promise.withResolvers<Found[]>();
    this.#schedule.after(TIMEOUT_MS, () => reject(new Error("the store did not answer")));
    if (this.#isLost(isCutOff)) return promise;
    this.#schedule.after(this.#delayMs(), async () => {
      const found = await run();
      if (this.#isLost(isCutOff)) return;
      this.#schedule.after(this.#delayMs(), () => resolve(found));
    });
    return promise;
  }

  #isLost(isCutOff: () => boolean): boolean {
    const isLost = isCutOff() || this.#random.below(1_000_000) < this.#loss * 1e6;
    if (isLost) this.lost++;
    return isLost;
  }

  /** Mostly some tens of microseconds, now and then tens of milliseconds: so messages overtake. */
  #delayMs(): number {
    const draw = this.#random.below(1000);
    return DELAY_MIN_MS * (draw < 980 ? 1 + draw / 1000 : draw - 900);
  }
}
