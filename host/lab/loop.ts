/**
 * The loop of one worker: wait until a device has packets, have up to 64 of them carried into the
 * engine's memory, process them as one batch, have carried away what leaves (carrier.ts).
 *
 * Reading all, then translating all, then writing all is what makes it fast: each piece of code runs
 * over the whole batch while it is in the cache. The thread waits in its carrier and nowhere else, and an
 * eventfd ends that; so it can always be stopped, and an idle lab costs nothing.
 * How it waits stands in pace.ts.
 */
import { HELD_COUNT, type HeldFrame, type Transit } from "../engine/transit.ts";
import type { Carrier, DeviceCounts, LoopDevice } from "./carrier.ts";
import type { Pace, Pause } from "./pace.ts";

export interface LoopOptions {
  transit: Transit;
  carrier: Carrier;
  /** By number as departures name them. */
  devices: readonly LoopDevice[];
  /** Milliseconds that only grow, with their fractions. */
  clock: () => number;
  /** Called whenever a wait was ended through the eventfd. */
  onWake: () => void;
  /** Called when a device has gone away. */
  onGone: (device: LoopDevice) => void;
  /** Called after a batch of `count` frames, whose descriptors are as the engine left them. */
  onBatch?: (count: number) => void;
  pace: Pace;
}

export class Loop {
  readonly #options: LoopOptions;
  #isStopping = false;

  constructor(options: LoopOptions) {
    this.#options = options;
    options.carrier.onGone = (device) => options.onGone(options.devices[device] as LoopDevice);
  }

  get counts(): DeviceCounts[] {
    return this.#options.carrier.counts;
  }

  /** Ends `run` after the batch at hand; to be called from `onWake`. */
  stop(): void {
    this.#isStopping = true;
  }

  /** Runs until it is stopped. */
  run(): void {
    const { transit, carrier, clock, onWake, pace } = this.#options;
    let pause: Pause = "sleep";
    while (!this.#isStopping) {
      if (carrier.wait(pause)) onWake();
      const nowMs = clock();
      carrier.take(Math.floor(nowMs));
      const { count, bytes } = transit;
      if (count > 0) {
        this.#pass(count);
        pause = pace.after(nowMs, clock, count, bytes);
      } else pause = pause === "look" ? pace.afterNothing(nowMs) : "sleep";
    }
    carrier.flush();
  }

  /** Runs frames that were held, as batches of their own; to be called from `onWake`. */
  rerun(frames: readonly HeldFrame[]): void {
    const { transit, carrier } = this.#options;
    for (const [index, frame] of frames.entries()) {
      transit.takeHeld(frame);
      if (transit.count < HELD_COUNT && index < frames.length - 1) continue;
      this.#pass(transit.count);
      // The next ones are put where these are written from.
      carrier.flush();
    }
  }

  /** Lets the batch through the engine and has written what leaves. */
  #pass(count: number): void {
    const { transit, carrier, onBatch } = this.#options;
    carrier.write(transit.process());
    onBatch?.(count);
  }
}
