/**
 * How a worker waits for packets, by how dense traffic is.
 *
 * Sparse traffic, as between two ends that wait for each other: to be woken takes longer than anything
 * else here, so the worker looks again for some microseconds before it sleeps. Dense traffic: the
 * next packet is there before the worker could fall asleep. Where each round costs several system
 * calls (call-carrier.ts) it rests for as short as the timer can, so that the next batch holds several
 * packets; a ring, whose round is one call, takes a rest for sleep.
 */

/** Traffic with fewer frames and bytes than these in a millisecond is sparse. */
export const SPARSE_FRAMES = 32;
export const SPARSE_BYTES = 128 << 10;
/** A batch of as many frames needs no rest to become larger. */
const FULL_FRAMES = 8;

/** What to do before the next look: sleep until there is something, look at once, or rest. */
export type Pause = "sleep" | "look" | "rest";

export interface PaceOptions {
  /** Look again that long after a packet while traffic is sparse. */
  spinMs: number;
  /** Look again that long after a packet in any case. */
  busyPollMs: number;
}

export class Pace {
  readonly #options: PaceOptions;
  #sinceMs = 0;
  #frames = 0;
  #bytes = 0;
  #wasDense = false;
  #lookUntilMs = 0;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** Notes a batch that was read at `nowMs` and is done by now; says how to go on. */
  after(nowMs: number, clock: () => number, frames: number, bytes: number): Pause {
    const elapsedMs = nowMs - this.#sinceMs;
    if (elapsedMs >= 1) {
      const most = Math.max(this.#frames / SPARSE_FRAMES, this.#bytes / SPARSE_BYTES);
      this.#wasDense = most >= elapsedMs;
      this.#sinceMs = nowMs;
      this.#frames = 0;
      this.#bytes = 0;
    }
    this.#frames += frames;
    this.#bytes += bytes;
    const isDense = this.#wasDense || this.#frames >= SPARSE_FRAMES || this.#bytes >= SPARSE_BYTES;
    const { spinMs, busyPollMs } = this.#options;
    const lookMs = isDense ? busyPollMs : Math.max(spinMs, busyPollMs);
    if (lookMs > 0) {
      this.#lookUntilMs = clock() + lookMs;
      return "look";
    }
    this.#lookUntilMs = 0;
    return isDense && frames < FULL_FRAMES ? "rest" : "sleep";
  }

  /** How to go on after a look at which there was nothing. */
  afterNothing(nowMs: number): Pause {
    return nowMs < this.#lookUntilMs ? "look" : "sleep";
  }
}
