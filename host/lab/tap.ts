/**
 * `--capture`: everything that enters the engine from devices and leaves through them, as one pcapng
 * with an interface for each device. Blocks are built in the engine's memory and written from there,
 * once a batch; so what was written is whole whenever the lab ends. Workers append to one file.
 *
 * A disk that is full ends the capture, not the lab.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { buildInterface, buildSection } from "../capture/build.ts";
import type { Engine } from "../engine/engine.ts";
import { FlowplaneError } from "../errors.ts";
import type { Tap } from "./carrier.ts";

const LINK_TYPE_RAW = 101;
const SNAP_BYTES = 262_144;
const NANOSECONDS = 9;
/** Largest block: a packet of 64 KiB with what stands around it. */
const BLOCK_BYTES_MAX = 66_048;
/** Room for the blocks of a batch, or for as many as fit. */
export const CAPTURE_BYTES = 16 * BLOCK_BYTES_MAX;
const DIRECTION_IN = 1;
const DIRECTION_OUT = 2;

/** Begins the file: its section and interfaces. @throws FlowplaneError when it cannot be written */
export function beginCapture(file: string, devices: readonly string[]): void {
  const interfaces = devices.map((name) =>
    buildInterface(false, {
      linkType: LINK_TYPE_RAW,
      snapBytes: SNAP_BYTES,
      name,
      resolution: NANOSECONDS,
    }),
  );
  try {
    const fd = openSync(file, "w");
    for (const block of [buildSection(false), ...interfaces]) writeSync(fd, block);
    closeSync(fd);
  } catch (error) {
    throw new FlowplaneError(`--capture ${file}: ${(error as Error).message}`);
  }
}

export class CaptureTap implements Tap {
  readonly #engine: Engine;
  readonly #fd: number;
  /** Where in the engine's memory blocks are built, and how far they go. */
  readonly #start: number;
  #bytes = 0;
  readonly #onFailure: (message: string) => void;
  #isOver = false;

  /** `start` is the address of CAPTURE_BYTES in the engine's arena. */
  constructor(engine: Engine, file: string, start: number, onFailure: (message: string) => void) {
    this.#engine = engine;
    this.#start = start;
    this.#onFailure = onFailure;
    this.#fd = openSync(file, "a");
  }

  entered(device: number, address: number, bytes: number): void {
    this.#add(device, address, bytes, DIRECTION_IN);
  }

  left(device: number, address: number, bytes: number): void {
    this.#add(device, address, bytes, DIRECTION_OUT);
  }

  #add(device: number, address: number, bytes: number, direction: number): void {
    if (this.#isOver) return;
    if (this.#bytes + BLOCK_BYTES_MAX > CAPTURE_BYTES) this.flush();
    const to = this.#start + this.#bytes;
    const timeNs = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
    const { exports } = this.#engine;
    this.#bytes += exports.writeRecord(to, address, bytes, device, direction, timeNs);
  }

  /** Writes what there is. */
  flush(): void {
    const bytes = this.#engine.bytes.subarray(this.#start, this.#start + this.#bytes);
    this.#bytes = 0;
    if (bytes.length === 0 || this.#isOver) return;
    try {
      // One call: what several workers append does not mix.
      const written = writeSync(this.#fd, bytes);
      if (written < bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes fit`);
    } catch (error) {
      this.#isOver = true;
      this.#onFailure((error as Error).message);
    }
  }

  close(): void {
    this.flush();
    closeSync(this.#fd);
  }
}
