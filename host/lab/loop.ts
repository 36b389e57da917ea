/**
 * The loop of one worker: wait until a device has packets, read up to 64 of them into the engine's
 * memory, process them as one batch, write what leaves. Nothing here copies or looks at a packet.
 *
 * Reading all, then translating all, then writing all is what makes it fast: each piece of code runs
 * over the whole batch while it is in the cache. The devices take turns at being read first, so none
 * can starve another. The thread blocks in poll and nowhere else, and an eventfd wakes it; so it can
 * always be stopped, and an idle lab costs one wake-up a second.
 *
 * To wake up takes longer than anything else here. While traffic is sparse, as between two ends that
 * wait for each other, the thread therefore looks again for some microseconds before it sleeps.
 * Dense traffic is better served by sleeping: client and server get the core, and batches grow.
 */
import { type HeldFrame, READ_BYTES_MAX, type Transit } from "../engine/transit.ts";
import { EAGAIN, EINTR, POLLIN, type Syscalls, type Window } from "../io/syscalls.ts";

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
  /** Stay awake that long after a packet while traffic is sparse, instead of sleeping at once. */
  spinMs: number;
  /** Stay awake that long after a packet in any case. */
  busyPollMs: number;
}

const SLEEP_MS_MAX = 1000;
/** Traffic with fewer frames than this in a millisecond is sparse. */
const SPARSE_FRAMES = 32;
const EVENT_BYTES = 8;

export class Loop {
  readonly counts: DeviceCounts[];
  readonly #options: LoopOptions;
  /** pollfd structures: the eventfd first, then the devices; a descriptor of -1 is left out. */
  readonly #set: Int32Array;
  tap: Tap | undefined;
  #first = 0;
  /** Frames since an instant, to tell sparse traffic from dense. */
  #windowMs = 0;
  #windowFrames = 0;
  #wasSparse = false;
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
    const { system, transit, clock } = this.#options;
    let awakeUntilMs = 0;
    while (!this.#isStopping) {
      const isAwake = awakeUntilMs > 0 && clock() < awakeUntilMs;
      const ready = system.poll(this.#set, isAwake ? 0 : SLEEP_MS_MAX);
      if (ready === 0 || ready === -EINTR) continue;
      if (ready < 0) throw new Error(`poll: error ${-ready}`);
      if (this.#returned(0) !== 0) this.#wake();
      const nowMs = clock();
      const timeMs = Math.floor(nowMs);
      this.#readAll(timeMs);
      const count = transit.count;
      if (count === 0) continue;
      this.#pass(count);
      awakeUntilMs = this.#awakeUntil(nowMs, count);
    }
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

  /** Until when to look again without sleeping, after a batch of `count` frames. */
  #awakeUntil(nowMs: number, count: number): number {
    const { spinMs, busyPollMs, clock } = this.#options;
    if (nowMs - this.#windowMs >= 1) {
      this.#windowMs = nowMs;
      this.#wasSparse = this.#windowFrames < SPARSE_FRAMES;
      this.#windowFrames = 0;
    }
    this.#windowFrames += count;
    const isSparse = this.#wasSparse && this.#windowFrames < SPARSE_FRAMES;
    const awakeMs = isSparse ? Math.max(spinMs, busyPollMs) : busyPollMs;
    return awakeMs > 0 ? clock() + awakeMs : 0;
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
