/**
 * The engine's clock from the host's: ms of any number to ms modulo 2^32. Both go at the same pace, but
 * pauses of more than 12.4 days are shortened to that: no timeout is longer, and the engine would take
 * times that are further apart for others (assembly/clock.ts).
 */

/** CLOCK_STEP_MS_MAX of the engine. */
export const STEP_MS_MAX = 2 ** 30;

export class Clock {
  #lastMs: number | undefined;
  #word = 0;

  /** The engine's clock at `ms`, a whole number; remembers it as the present. */
  at(ms: number): number {
    const stepMs = ms - (this.#lastMs ?? ms);
    if (this.#lastMs === undefined) this.#word = (ms % 2 ** 32) >>> 0;
    this.#word = (this.#word + Math.min(Math.max(stepMs, -STEP_MS_MAX), STEP_MS_MAX)) >>> 0;
    this.#lastMs = ms;
    return this.#word;
  }
}
