/**
 * A carrier that hands a batch's writes and the next batch's reads to the kernel by one system call and waits in
 * it (io/uring.ts).
 *
 * Every device has one patient read, which ends the wait, and a slot of its own for that. How many frames
 * are behind its first is not known before they are read: it is asked for as many as came last, and for twice as
 * many where all of those came. A device is asked only together with a new patient read, so what it has comes in
 * its order.
 */
import { HELD_COUNT, READ_BYTES_MAX, SLOT_COUNT } from "../engine/transit.ts";
import { RING_COUNT, type Ring } from "../io/uring.ts";
import { Carrier, type CarrierOptions, EVENT_BYTES, type LoopDevice } from "./carrier.ts";
import type { Pause } from "./pace.ts";

/** More devices are carried by calls. */
export const RING_DEVICES_MAX = 32;
/** Most frames of a device that are asked for behind its first. */
const MORE_MAX = 20;
/** The first slot of patient reads; tags of reads are their slots. */
const PATIENT_SLOT = SLOT_COUNT + HELD_COUNT;
const WAKE_TAG = PATIENT_SLOT + RING_DEVICES_MAX;
/** Behind it writes, by device. */
const WRITE_TAG = WAKE_TAG + 1;

export class RingCarrier extends Carrier {
  readonly #ring: Ring;
  readonly #wakeFd: number;
  readonly #scratchAddress: number;
  /** Device of each slot that may be read to behind a first frame. */
  readonly #owners = new Int32Array(SLOT_COUNT);
  #slots = 0;
  /** Reads that have ended: slots and what they brought, in the order of the kernel. */
  readonly #ended = new Int32Array(SLOT_COUNT + RING_DEVICES_MAX);
  readonly #brought = new Int32Array(SLOT_COUNT + RING_DEVICES_MAX);
  #endedCount = 0;
  /** Of each device: whether it has a patient read, and how many frames behind that it is asked for next. */
  readonly #isWaiting: Uint8Array;
  readonly #more: Int32Array;
  /** How many it has been asked for since the last take, and how many of those have come. */
  readonly #asked: Int32Array;
  readonly #came: Int32Array;
  #isWakeWaiting = false;
  #isWoken = false;
  #first = 0;

  constructor(options: CarrierOptions & { ring: Ring }) {
    super(options);
    const { ring, devices, wakeFd, scratchAddress } = options;
    this.#ring = ring;
    this.#wakeFd = wakeFd;
    this.#scratchAddress = scratchAddress;
    this.#isWaiting = new Uint8Array(devices.length);
    this.#more = new Int32Array(devices.length);
    this.#asked = new Int32Array(devices.length);
    this.#came = new Int32Array(devices.length);
  }

  wait(pause: Pause): boolean {
    const ring = this.#ring;
    this.#slots = 0;
    // Room for as many reads as there can be.
    if (ring.count + SLOT_COUNT > RING_COUNT) this.flush();
    let patient = 0;
    if (!this.#isWakeWaiting) {
      ring.read(this.#wakeFd, this.#scratchAddress, EVENT_BYTES, WAKE_TAG, true);
      this.#isWakeWaiting = true;
      patient++;
    }
    const count = this.devices.length;
    for (let step = 0; step < count; step++) {
      const device = this.#first + step < count ? this.#first + step : this.#first + step - count;
      if (this.#ask(device)) patient++;
    }
    this.#first = this.#first + 1 < count ? this.#first + 1 : 0;
    // What an earlier submission has brought is not to be waited for.
    const hasSome = this.#endedCount > 0 || this.#isWoken;
    this.#submit(pause === "look" || hasSome ? 0 : ring.count - patient + 1);
    const isWoken = this.#isWoken;
    this.#isWoken = false;
    return isWoken;
  }

  take(timeMs: number): void {
    const { transit } = this;
    for (let index = 0; index < this.#endedCount; index++) {
      const slot = this.#ended[index] as number;
      const device = slot < SLOT_COUNT ? (this.#owners[slot] as number) : slot - PATIENT_SLOT;
      const bytes = this.#brought[index] as number;
      if (this.took(device, transit.slotAddress(slot), bytes, timeMs)) {
        (this.#came[device] as number)++;
      }
    }
    this.#endedCount = 0;
    this.#expect();
  }

  /** Says how many frames devices are asked for next behind the first, of those that have been asked. */
  #expect(): void {
    for (let device = 0; device < this.#more.length; device++) {
      const asked = this.#asked[device] as number;
      const came = this.#came[device] as number;
      this.#asked[device] = 0;
      this.#came[device] = 0;
      if (asked === 0) continue;
      const next = came === asked ? 2 * asked : came;
      this.#more[device] = Math.min(Math.max(next - 1, 0), MORE_MAX);
    }
  }

  flush(): void {
    if (this.#ring.count > 0) this.#submit(0);
  }

  override close(): void {
    this.#ring.close();
  }

  protected put(device: number, address: number, bytes: number): void {
    if (this.#ring.isFull) this.flush();
    const { fd } = this.devices[device] as LoopDevice;
    this.#ring.write(fd, address, bytes, WRITE_TAG + device);
  }

  /** Asks a device for its next frames, unless it has a patient read; whether it has got one. */
  #ask(device: number): boolean {
    if (this.#isWaiting[device] === 1 || this.counts[device]?.isGone) return false;
    const { fd } = this.devices[device] as LoopDevice;
    const slot = PATIENT_SLOT + device;
    this.#ring.read(fd, this.transit.slotAddress(slot), READ_BYTES_MAX, slot, true);
    this.#isWaiting[device] = 1;
    const room = SLOT_COUNT - this.devices.length - this.#slots;
    const asked = Math.min(this.#more[device] as number, room);
    for (let left = asked; left > 0; left--) {
      const more = this.#slots++;
      this.#owners[more] = device;
      this.#ring.read(fd, this.transit.slotAddress(more), READ_BYTES_MAX, more, false);
    }
    this.#asked[device] = asked + 1;
    return true;
  }

  #submit(least: number): void {
    this.#ring.submit(least, this.#tell);
  }

  readonly #tell = (tag: number, result: number) => {
    if (tag >= WRITE_TAG) {
      this.wrote(tag - WRITE_TAG, result);
      return;
    }
    if (tag === WAKE_TAG) {
      this.#isWakeWaiting = false;
      this.#isWoken = true;
      return;
    }
    if (tag >= PATIENT_SLOT) this.#isWaiting[tag - PATIENT_SLOT] = 0;
    this.#ended[this.#endedCount] = tag;
    this.#brought[this.#endedCount++] = result;
  };
}
