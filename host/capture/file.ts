/**
 * Captures in files and on standard input; the only part of capture input and output that needs
 * Node besides the pcap-parser adapter.
 *
 * Reads go straight into the engine's memory: a file's at once, a pipe's beside whatever else runs.
 */
import fs from "node:fs";
import { createGunzip, type Gunzip } from "node:zlib";
import { CaptureError, reasonOf, UsageError } from "../errors.ts";
import { createOutput, isAgain, PIPE_RETRY_MS } from "./output.ts";
import { CaptureReader, type ReaderOptions } from "./reader.ts";
import type { ByteInput, FrameMemory } from "./source.ts";
import { CaptureWriter } from "./writer.ts";

/** A file that is read at once where it lies, without a copy. */
class FileInput implements ByteInput {
  readonly #descriptor: number;
  #isOpen = true;
  #at = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(target: Uint8Array): number {
    if (!this.#isOpen) return 0;
    const count = fs.readSync(this.#descriptor, target, 0, target.length, this.#at);
    this.#at += count;
    return count;
  }

  close(): void {
    if (this.#isOpen) fs.closeSync(this.#descriptor);
    this.#isOpen = false;
  }

  gunzip(prefix: Uint8Array): ByteInput {
    return new GunzipInput(this, prefix, () => {
      this.#at = 0;
    });
  }
}

/** A pipe or terminal: waits for bytes beside whatever else goes on. Never closes it. */
class PipeInput implements ByteInput {
  readonly #descriptor: number;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(target: Uint8Array): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const attempt = () => {
      fs.read(this.#descriptor, target, 0, target.length, null, (error, count) => {
        if (!error) resolve(count);
        else if (isAgain(error)) setTimeout(attempt, PIPE_RETRY_MS);
        else if (error.code === "EOF") resolve(0);
        else reject(error);
      });
    };
    attempt();
    return promise;
  }

  close(): void {}

  gunzip(prefix: Uint8Array): ByteInput {
    return new GunzipInput(this, prefix);
  }
}

const PLAIN_BYTES = 256 * 1024;
const PACKED_BYTES = 64 * 1024;

/**
 * Undoes gzip, member after member. What could be undone before a fault is delivered before it: all
 * of it from a file, which is read again for that; of a pipe that is damaged all but the last
 * chunk, as zlib keeps that back. Holds one compressed and a few plain chunks; at a fault, what a
 * compressed chunk comes to.
 */
class GunzipInput implements ByteInput {
  readonly #input: ByteInput;
  readonly #rewind: (() => void) | undefined;
  readonly #gunzip: Gunzip = createGunzip({ chunkSize: PLAIN_BYTES });
  readonly #plain: Buffer[] = [];
  /** Compressed bytes that zlib has taken, and plain bytes that it has given. */
  #packedBytes = 0;
  #plainBytes = 0;
  #error: Error | undefined;
  #isDone = false;
  #wake: (() => void) | undefined;

  constructor(input: ByteInput, prefix: Uint8Array, rewind?: () => void) {
    this.#input = input;
    this.#rewind = rewind;
    this.#gunzip.on("data", (chunk: Buffer) => {
      this.#plain.push(chunk);
      this.#plainBytes += chunk.length;
      this.#gunzip.pause();
      this.#wake?.();
    });
    this.#gunzip.on("end", () => this.#stop(undefined));
    this.#gunzip.on("error", (error) => {
      const stop = () => this.#stop(error);
      this.#salvage().then(stop, stop);
    });
    this.#feed(prefix).catch((error) => this.#stop(error));
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#plain.length === 0) {
      if (this.#error) throw new Error(`gzip: ${reasonOf(this.#error)}`);
      if (this.#isDone) return 0;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#gunzip.resume();
      await promise;
    }
    const chunk = this.#plain[0] as Buffer;
    const count = Math.min(target.length, chunk.length);
    target.set(chunk.subarray(0, count));
    if (count < chunk.length) this.#plain[0] = chunk.subarray(count);
    else this.#plain.shift();
    return count;
  }

  close(): void {
    this.#stop(undefined);
    this.#gunzip.destroy();
    this.#input.close();
  }

  async #feed(prefix: Uint8Array): Promise<void> {
    for (let rest = prefix; !this.#isDone; ) {
      const chunk = rest.subarray(0, PACKED_BYTES);
      const { length } = chunk;
      const isTaken = this.#gunzip.write(chunk, (error) => {
        if (!error) this.#packedBytes += length;
      });
      if (!isTaken) {
        await new Promise<void>((resolve) => {
          this.#gunzip.once("drain", resolve);
          this.#gunzip.once("close", resolve);
        });
      }
      if (this.#gunzip.destroyed) return;
      rest = rest.subarray(length);
      if (rest.length > 0) continue;
      const next = new Uint8Array(PACKED_BYTES);
      const count = await this.#input.read(next);
      if (count === 0) break;
      rest = next.subarray(0, count);
    }
    this.#gunzip.end();
  }

  /** Adds what zlib has kept back, where the input can be read again: to the byte, in two steps. */
  async #salvage(): Promise<void> {
    let sound = this.#packedBytes;
    let kept = Buffer.alloc(0);
    for (const step of [256, 1]) {
      if (!this.#rewind || this.#isDone) return;
      this.#rewind();
      const found = await undone(this.#input, sound, step, this.#plainBytes);
      kept = found.kept;
      sound = found.sound;
      if (!found.hasFault) break;
    }
    if (kept.length > 0) this.#plain.push(kept);
  }

  #stop(error: Error | undefined): void {
    this.#error ??= error;
    this.#isDone = true;
    this.#wake?.();
  }
}

/**
 * What can be undone of a gzip with a fault, from the plain byte `from` on. Of a piece that has the
 * fault zlib gives nothing, so pieces are of `step` bytes behind the `sound` ones.
 */
async function undone(input: ByteInput, sound: number, step: number, from: number) {
  const gunzip = createGunzip({ chunkSize: PLAIN_BYTES });
  const kept: Buffer[] = [];
  let passed = 0;
  gunzip.on("data", (chunk: Buffer) => {
    if (passed + chunk.length > from) kept.push(chunk.subarray(Math.max(0, from - passed)));
    passed += chunk.length;
  });
  let wake: ((hasFault: boolean) => void) | undefined;
  gunzip.on("error", () => wake?.(true));
  let hasFault = false;
  let at = 0;
  for (;;) {
    const piece = new Uint8Array(at < sound ? Math.min(PACKED_BYTES, sound - at) : step);
    const count = await input.read(piece);
    if (count === 0) break;
    hasFault = await new Promise<boolean>((resolve) => {
      wake = resolve;
      gunzip.write(piece.subarray(0, count), (error) => resolve(error != null));
    });
    if (hasFault) break;
    at += count;
  }
  gunzip.destroy();
  return { kept: Buffer.concat(kept), sound: at, hasFault };
}

/**
 * Opens a capture by its path; `-` is standard input. Throws CaptureError if it cannot be read, is
 * no capture, or has a link type that is refused.
 */
export async function openCapture(
  path: string,
  memory: FrameMemory,
  options?: ReaderOptions,
): Promise<CaptureReader> {
  const name = path === "-" ? "standard input" : path;
  let input: ByteInput;
  try {
    const descriptor = path === "-" ? 0 : fs.openSync(path, "r");
    const status = fs.fstatSync(descriptor);
    if (status.isDirectory()) throw new Error("EISDIR: it is a directory");
    input = path !== "-" && status.isFile() ? new FileInput(descriptor) : new PipeInput(descriptor);
  } catch (error) {
    throw new CaptureError(`${name}: ${reasonOf(error)}`);
  }
  return new CaptureReader(name, input, memory, options).open();
}

/** Creates the file that a source's records are written to, in the source's format. */
export function createCapture(path: string, source: CaptureReader): CaptureWriter {
  if (isSameFile(source.name, path)) {
    throw new UsageError(`${path}: the output cannot be the capture that is being read`);
  }
  return new CaptureWriter(source, createOutput(path));
}

function isSameFile(left: string, right: string): boolean {
  try {
    const [a, b] = [fs.statSync(left), fs.statSync(right)];
    return a.isFile() && a.dev === b.dev && a.ino === b.ino;
  } catch {
    // One is not there, or opening it says what is wrong with it.
    return false;
  }
}
