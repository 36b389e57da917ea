/**
 * A carrier that waits in poll and makes a system call for each frame. The devices take turns at being read
 * first, so none can starve another.
 */
import { READ_BYTES_MAX } from "../engine/transit.ts";
import { EINTR, POLLIN, type Syscalls, type Window } from "../io/syscalls.ts";
import { Carrier, type CarrierOptions, EVENT_BYTES, type LoopDevice } from "./carrier.ts";
import type { Pause } from "./pace.ts";

const SLEEP_MS_MAX = 1000;
/** The shortest that a thread can ask for; the timer of a virtual machine makes 25 of it. */
const REST_MICROS = 1;
/**
 * After a rest, devices that are so few are read without asking poll: most have something, and to read one
 * that has not costs less. Of so many rests one is followed by a poll all the same, which alone sees the eventfd.
 */
const FEW_DEVICES = 4;
const RESTS_A_POLL = 16;

export class CallCarrier extends Carrier {
  readonly #system: Syscalls;
  readonly #window: Window;
  readonly #wakeFd: number;
  readonly #scratchAddress: number;
  /** pollfd structures: the eventfd first, then the devices; a descriptor of -1 is left out. */
  readonly #set: Int32Array;
  #first = 0;
  #rests = 0;

  constructor(options: CarrierOptions & { system: Syscalls; window: Window }) {
    super(options);
    const { system, window, devices, wakeFd, scratchAddress } = options;
    this.#system = system;
    this.#window = window;
    this.#wakeFd = wakeFd;
    this.#scratchAddress = scratchAddress;
    const fds = [wakeFd, ...devices.map(({ fd }) => fd)];
    this.#set = Int32Array.from(fds.flatMap((fd) => [fd, POLLIN]));
  }

  wait(pause: Pause): boolean {
    if (pause === "rest") {
      this.#system.usleep(REST_MICROS);
      this.#rests += 1;
      if (this.devices.length <= FEW_DEVICES && this.#rests % RESTS_A_POLL !== 0) {
        this.#answerAll(POLLIN);
        return false;
      }
    }
    const ready = this.#system.poll(this.#set, pause === "look" ? 0 : SLEEP_MS_MAX);
    if (ready < 0 && ready !== -EINTR) throw new Error(`poll: error ${-ready}`);
    if (ready <= 0) this.#answerAll(0);
    if (this.#returned(0) === 0) return false;
    this.#window.read(this.#wakeFd, this.#scratchAddress, EVENT_BYTES);
    return true;
  }

  take(timeMs: number): void {
    const { transit } = this;
    const count = this.devices.length;
    const first = this.#first;
    for (let step = 0; step < count && !transit.isFull; step++) {
      const device = first + step < count ? first + step : first + step - count;
      const events = this.#returned(device + 1);
      if (events === POLLIN) this.#read(device, timeMs);
      else if (events !== 0) this.lose(device);
    }
    this.#first = first + 1 < count ? first + 1 : 0;
  }

  flush(): void {}

  protected put(device: number, address: number, bytes: number): void {
    const { fd } = this.devices[device] as LoopDevice;
    this.wrote(device, this.#window.write(fd, address, bytes));
  }

  /** A device that is gone would end every wait at once: it is waited for no longer. */
  protected override lose(device: number): void {
    this.#set[(device + 1) * 2] = -1;
    super.lose(device);
  }

  /** Reads until the device has no more or the batch is full. */
  #read(device: number, timeMs: number): void {
    const { transit } = this;
    const { fd } = this.devices[device] as LoopDevice;
    while (!transit.isFull) {
      const address = transit.slotAddress(transit.count);
      const bytes = this.#window.read(fd, address, READ_BYTES_MAX);
      if (!this.took(device, address, bytes, timeMs)) return;
    }
  }

  /** Puts those events into every entry of a device that is waited for, and none of the eventfd's. */
  #answerAll(events: number): void {
    const set = this.#set;
    set[1] = POLLIN;
    for (let entry = 2; entry < set.length; entry += 2) {
      set[entry + 1] = POLLIN | ((set[entry] as number) < 0 ? 0 : events << 16);
    }
  }

  /** Events that poll returned for an entry of the set. */
  #returned(entry: number): number {
    return (this.#set[entry * 2 + 1] as number) >>> 16;
  }
}
