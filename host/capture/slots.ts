/**
 * Slots: parts of the frames region that a source fills in turn, so that it can go on while a sink
 * still writes what the one before holds.
 *
 * Invariant: a slot is filled only after everything written from it has been written.
 */
import type { Region } from "../engine/api.ts";

/** A longest record, the header of the next, and something to spare. */
const SLOT_BYTES_MIN = 384 * 1024;

export class Slots {
  readonly #starts: number[] = [];
  readonly #busy: (Promise<void> | undefined)[] = [];
  readonly bytes: number;
  #current = 0;

  constructor(region: Region, count: number) {
    if (region.bytes < count * SLOT_BYTES_MIN) {
      const least = `${count} slots of ${SLOT_BYTES_MIN} bytes`;
      throw new RangeError(`${region.bytes} bytes of the arena are less than ${least}`);
    }
    this.bytes = Math.floor(region.bytes / count / 64) * 64;
    for (let i = 0; i < count; i++) {
      this.#starts.push(region.address + i * this.bytes);
      this.#busy.push(undefined);
    }
  }

  get start(): number {
    return this.#starts[this.#current] as number;
  }

  get end(): number {
    return this.start + this.bytes;
  }

  /**
   * Leaves the current slot, whose bytes are being written until `busy`: without that it is used
   * again. Returns what to wait for before the slot that is current now may be filled.
   */
  turn(busy: Promise<void> | undefined): Promise<void> | undefined {
    if (!busy) return undefined;
    this.#busy[this.#current] = busy;
    this.#current = (this.#current + 1) % this.#starts.length;
    const wait = this.#busy[this.#current];
    this.#busy[this.#current] = undefined;
    return wait;
  }
}
