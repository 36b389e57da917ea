/**
 * Files and pipes that captures are written to.
 *
 * A file is written at once: beside the processing of what follows, by way of Node's thread pool, it
 * took as long, and a third more of both cores' time (replays of 1 GB: 1.1 to 1.8 against 1.0 to 1.4
 * s), for the bytes then lie in another core's cache. A pipe takes its time, so it is written beside.
 * Invariant: whatever fails, a file ends with the last write that was whole, hence with a record.
 */
import fs from "node:fs";
import { CaptureError, reasonOf } from "../errors.ts";
import type { ByteOutput } from "./source.ts";

export const PIPE_RETRY_MS = 2;

export function isAgain(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EAGAIN";
}

function writeError(name: string, at: number, error: unknown): CaptureError {
  return new CaptureError(`${name}: write at byte ${at}: ${reasonOf(error)}`);
}

interface Opened {
  name: string;
  descriptor: number;
  isFile: boolean;
}

/** Writes when it is told to, so that nothing piles up in memory. */
class SyncOutput implements ByteOutput {
  readonly #name: string;
  readonly #descriptor: number;
  readonly #isFile: boolean;
  /** Bytes of whole writes so far. */
  #goodBytes = 0;
  #error: CaptureError | undefined;

  constructor({ name, descriptor, isFile }: Opened) {
    this.#name = name;
    this.#descriptor = descriptor;
    this.#isFile = isFile;
  }

  write(bytes: Uint8Array): undefined {
    if (this.#error) throw this.#error;
    let done = 0;
    try {
      while (done < bytes.length) done += fs.writeSync(this.#descriptor, bytes.subarray(done));
    } catch (error) {
      this.#error = writeError(this.#name, this.#goodBytes + done, error);
      if (this.#isFile) fs.ftruncateSync(this.#descriptor, this.#goodBytes);
      throw this.#error;
    }
    this.#goodBytes += bytes.length;
  }

  close(): undefined {
    fs.closeSync(this.#descriptor);
  }
}

class PipeOutput implements ByteOutput {
  readonly #name: string;
  readonly #descriptor: number;
  #goodBytes = 0;
  #last: Promise<void> | undefined;

  constructor({ name, descriptor }: Opened) {
    this.#name = name;
    this.#descriptor = descriptor;
  }

  write(bytes: Uint8Array): Promise<void> {
    const previous = this.#last;
    const run = previous ? previous.then(() => this.#put(bytes)) : this.#put(bytes);
    // Whoever waits for the memory or closes the pipe hears of a failure.
    run.catch(() => undefined);
    this.#last = run;
    return run;
  }

  async close(): Promise<void> {
    try {
      await this.#last;
    } finally {
      fs.closeSync(this.#descriptor);
    }
  }

  async #put(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      try {
        done += await this.#attempt(bytes.subarray(done));
      } catch (error) {
        if (!isAgain(error)) throw writeError(this.#name, this.#goodBytes + done, error);
        await new Promise((resolve) => setTimeout(resolve, PIPE_RETRY_MS));
      }
    }
    this.#goodBytes += bytes.length;
  }

  #attempt(bytes: Uint8Array): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    fs.write(this.#descriptor, bytes, 0, bytes.length, null, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
    return promise;
  }
}

/** Creates (or empties) a file, or opens a pipe. Throws CaptureError if that is not possible. */
export function createOutput(path: string): ByteOutput {
  const opened = open(path);
  return opened.isFile ? new SyncOutput(opened) : new PipeOutput(opened);
}

/** The same, and a pipe is waited for as well. */
export function createSyncOutput(path: string): ByteOutput {
  return new SyncOutput(open(path));
}

function open(name: string): Opened {
  try {
    const descriptor = fs.openSync(name, "w");
    return { name, descriptor, isFile: fs.fstatSync(descriptor).isFile() };
  } catch (error) {
    throw new CaptureError(`${name}: ${reasonOf(error)}`);
  }
}
