/**
 * Carriers bring frames from devices into the engine's memory and back, and count them. Nothing here
 * copies or looks at a packet. CallCarrier makes a system call for each frame; RingCarrier has the kernel do
 * a whole batch by one.
 */
import type { Transit } from "../engine/transit.ts";
import { EAGAIN } from "../io/syscalls.ts";
import type { Pause } from "./pace.ts";

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

export interface CarrierOptions {
  transit: Transit;
  /** By number as departures name them. */
  devices: readonly LoopDevice[];
  /** An eventfd that ends a wait. */
  wakeFd: number;
  /** Eight bytes of the engine's memory that it may be read to. */
  scratchAddress: number;
  tap?: Tap | undefined;
}

export const EVENT_BYTES = 8;

export abstract class Carrier {
  readonly counts: DeviceCounts[];
  /** Called once for a device that has gone away; a loop sets it. */
  onGone: (device: number) => void = () => {};
  protected readonly transit: Transit;
  protected readonly devices: readonly LoopDevice[];
  readonly #tap: Tap | undefined;

  constructor({ transit, devices, tap }: CarrierOptions) {
    this.transit = transit;
    this.devices = devices;
    this.#tap = tap;
    this.counts = devices.map(({ name }) => ({
      name,
      readFrames: 0,
      readBytes: 0,
      writtenFrames: 0,
      writtenBytes: 0,
      refused: {},
      isGone: false,
    }));
  }

  /** Waits for frames as the pause says; returns whether the eventfd was written to. */
  abstract wait(pause: Pause): boolean;

  /** Takes what the devices have into the batch, as of `timeMs`. */
  abstract take(timeMs: number): void;

  /** Writes a frame, before the next wait ends. */
  protected abstract put(device: number, address: number, bytes: number): void;

  /** What was to be written is written after this. */
  abstract flush(): void;

  /** Writes the departures of a batch, before the next wait ends. */
  write(departures: number): void {
    const { transit } = this;
    const tap = this.#tap;
    for (let index = 0; index < departures; index++) {
      const device = transit.deviceOf(index);
      const address = transit.addressOf(index);
      const bytes = transit.bytesOf(index);
      tap?.left(device, address, bytes);
      this.put(device, address, bytes);
    }
    tap?.flush();
  }

  /** Ends it; devices stay open. */
  close(): void {}

  /** Gives a device up. */
  protected lose(device: number): void {
    const counts = this.counts[device] as DeviceCounts;
    if (counts.isGone) return;
    counts.isGone = true;
    this.onGone(device);
  }

  /** Takes what a read has brought: bytes or a negative error number; whether it is a frame. */
  protected took(device: number, address: number, bytes: number, timeMs: number): boolean {
    if (bytes < 0) {
      if (bytes !== -EAGAIN) this.lose(device);
      return false;
    }
    const counts = this.counts[device] as DeviceCounts;
    counts.readFrames++;
    counts.readBytes += bytes;
    this.#tap?.entered(device, address, bytes);
    this.transit.take(address, bytes, (this.devices[device] as LoopDevice).port, timeMs);
    return true;
  }

  /** Counts what a write has done. */
  protected wrote(device: number, bytes: number): void {
    const counts = this.counts[device] as DeviceCounts;
    if (bytes < 0) {
      counts.refused[-bytes] = (counts.refused[-bytes] ?? 0) + 1;
      return;
    }
    counts.writtenFrames++;
    counts.writtenBytes += bytes;
  }
}
