/**
 * The loop of one worker: wait until a device has packets, read up to 64 of them into the engine's
 * memory, process them as one batch, write what leaves. Nothing here copies or looks at a packet.
 *
 * Reading all, then translating all, then writing all is what makes it fast: each piece of code runs
 * over the whole batch while it is in the cache. The devices take turns at being read first, so none
 * can starve another. The thread blocks in poll and nowhere else, and an eventfd wakes it; so it can
 * always be stopped, and an idle lab costs one wake-up a second.
 * What it does between two looks stands in pace.ts.
 */
import { type HeldFrame, READ_BYTES_MAX, type Transit } from "../engine/transit.ts";
import { EAGAIN, EINTR, POLLIN, type Syscalls, type Window } from "../io/syscalls.ts";
import type { Pace, Pause } from "./pace.ts";

export interface LoopDevice {
  /** As the kernel names it. */
  name: string;
  fd: number;
  /** Port of the engine on which its frames enter. */
  port: number;
}

/** What passed through a device, and what did not. */
export interface DeviceCounts {
  name: string;
  readFrames: number;
  readBytes: number;
  writtenFrames: number;
  writtenBytes: number;
  /** Frames that the kernel refused, by error number: 5 interface down, 22 bad header. */
  refused: Record<number, number>;
  /** The device is gone; nothing is read from it any more. */
  isGone: boolean;
}

/** What a loop lets others see of its batches: before the engine and after it. */
export interface Tap {
  entered(device: number, address: number, bytes: number): void;
  left(device: number, address: number, bytes: number): void;
  /** A batch is over. */
  flush(): void;
}

export interface LoopOptions {
  system: Syscalls;
  /** The engine's memory. */
  window: Window;
  transit: Transit;
  /** By number as departures name them. */
  devices: readonly LoopDevice[];
  /** An eventfd that ends the wait. */
  wakeFd: number;
  /** Eight bytes of the window that the eventfd may be read to. */
  scratchAddress: number;
  /** Milliseconds that only grow, with their fractions. */
  clock: () => number;
  /** Called whenever the wait was ended through the eventfd. */
  onWake: () => void;
  /** Called when a device has gone away. */
  onGone: (device: LoopDevice) => void;
  /** Called after a batch of `count` frames, whose descriptors are as the engine left them. */
  onBatch?: (count: number) => void;
  pace: Pace;
}

const SLEEP_MS_MAX = 1000;
/** The shortest that a thread can ask for; the timer of a virtual machine makes 25 of it. */
const REST_MICROS = 1;
/**
 * After a rest, devices that are so few are read without asking poll: most have something, and to read one
 * that has not costs less. Of so many rests one is followed by a poll all the same, which alone sees the eventfd.
 */
const FEW_DEVICES = 4;
const RESTS_A_POLL = 16;
const EVENT_BYTES = 8;

export class Loop {
  readonly counts: DeviceCounts[];
  readonly #options: LoopOptions;
  /** pollfd structures: the eventfd first, then the devices; a descriptor of -1 is left out. */
  readonly #set: Int32Array;
  tap: Tap | undefined;
  #first = 0;
  #rests = 0;
  #isStopping = false;

  constructor(options: LoopOptions) {
    this.#options = options;
    const fds = [options.wakeFd, ...options.devices.map(({ fd }) => fd)];
    this.#set = Int32Array.from(fds.flatMap((fd) => [fd, POLLIN]));
    this.counts = options.devices.map(({ name }) => ({
      name,
      readFrames: 0,
      readBytes: 0,
      writtenFrames: 0,
      writtenBytes: 0,
      refused: {},
      isGone: false,
    }));
  }

  /** Ends `run` after the batch at hand; to be called from `onWake`. */
  stop(): void {
    this.#isStopping = true;
  }

  /** Runs until it is stopped. */
  run(): void {
    const { transit, clock, pace } = this.#options;
    let pause: Pause = "sleep";
    while (!this.#isStopping) {
      const ready = this.#wait(pause);
      if (ready === 0 || ready === -EINTR) {
        pause = pause === "look" ? pace.afterNothing(clock()) : "sleep";
        continue;
      }
      if (ready < 0) throw new Error(`poll: error ${-ready}`);
      if (this.#returned(0) !== 0) this.#wake();
      const nowMs = clock();
      this.#readAll(Math.floor(nowMs));
      const { count, bytes } = transit;
      if (count === 0) {
        if (pause === "rest") pause = "sleep";
        continue;
      }
      this.#pass(count);
      pause = pace.after(nowMs, clock(), count, bytes);
    }
  }

  /** Waits as the pace says; returns what poll does. */
  #wait(pause: Pause): number {
    const { system } = this.#options;
    if (pause === "rest") {
      system.usleep(REST_MICROS);
      this.#rests += 1;
      const isFew = this.#options.devices.length <= FEW_DEVICES;
      if (isFew && this.#rests % RESTS_A_POLL !== 0) return this.#allReady();
    }
    return system.poll(this.#set, pause === "look" ? 0 : SLEEP_MS_MAX);
  }

  /** Takes every device for ready. */
  #allReady(): number {
    const set = this.#set;
    set[1] = POLLIN;
    for (let entry = 2; entry < set.length; entry += 2) {
      set[entry + 1] = (set[entry] as number) < 0 ? POLLIN : POLLIN | (POLLIN << 16);
    }
    return 1;
  }

  /** Runs frames that were held, as batches of their own; to be called from `onWake`. */
  rerun(frames: readonly HeldFrame[]): void {
    const { transit } = this.#options;
    for (const [index, frame] of frames.entries()) {
      transit.takeHeld(frame);
      if (transit.isFull || index === frames.length - 1) this.#pass(transit.count);
    }
  }

  /** Lets the batch through the engine and writes what leaves. */
  #pass(count: number): void {
    this.#writeAll(this.#options.transit.process());
    this.tap?.flush();
    this.#options.onBatch?.(count);
  }

  /** Events that poll returned for an entry of the set. */
  #returned(entry: number): number {
    return (this.#set[entry * 2 + 1] as number) >>> 16;
  }

  #wake(): void {
    const { window, wakeFd, scratchAddress, onWake } = this.#options;
    window.read(wakeFd, scratchAddress, EVENT_BYTES);
    onWake();
  }

  #readAll(timeMs: number): void {
    const { devices, transit } = this.#options;
    const count = devices.length;
    const first = this.#first;
    for (let step = 0; step < count && !transit.isFull; step++) {
      const device = first + step < count ? first + step : first + step - count;
      const events = this.#returned(device + 1);
      if (events === 0) continue;
      if (events === POLLIN) this.#read(device, timeMs);
      else this.#lose(device);
    }
    this.#first = first + 1 < count ? first + 1 : 0;
  }

  /** Reads until the device has no more or the batch is full. */
  #read(device: number, timeMs: number): void {
    const { devices, transit, window } = this.#options;
    const { fd, port } = devices[device] as LoopDevice;
    const counts = this.counts[device] as DeviceCounts;
    while (!transit.isFull) {
      const address = transit.nextAddress;
      const bytes = window.read(fd, address, READ_BYTES_MAX);
      if (bytes < 0) {
        if (bytes !== -EAGAIN) this.#lose(device);
        return;
      }
      counts.readFrames++;
      counts.readBytes += bytes;
      this.tap?.entered(device, address, bytes);
      transit.take(bytes, port, timeMs);
    }
  }

  #writeAll(departures: number): void {
    const { devices, transit, window } = this.#options;
    for (let index = 0; index < departures; index++) {
      const device = transit.deviceOf(index);
      const address = transit.addressOf(index);
      const bytes = transit.bytesOf(index);
      const counts = this.counts[device] as DeviceCounts;
      this.tap?.left(device, address, bytes);
      const written = window.write((devices[device] as LoopDevice).fd, address, bytes);
      if (written < 0) {
        counts.refused[-written] = (counts.refused[-written] ?? 0) + 1;
        continue;
      }
      counts.writtenFrames++;
      counts.writtenBytes += written;
    }
  }

  /** A device that is gone would end every wait at once: it is waited for no longer. */
  #lose(device: number): void {
    const counts = this.counts[device] as DeviceCounts;
    this.#set[(device + 1) * 2] = -1;
    counts.isGone = true;
    this.#options.onGone(this.#options.devices[device] as LoopDevice);
  }
}
