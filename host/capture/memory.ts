/**
 * Captures in memory and from web streams, without Node: for tests, embedding and browsers.
 */
import { CaptureReader, type ReaderOptions } from "./reader.ts";
import type { ByteInput, ByteOutput, FrameMemory } from "./source.ts";

/** Bytes in hand. `pieceBytes` bounds what one read returns, as a pipe would. */
export class MemoryInput implements ByteInput {
  readonly #bytes: Uint8Array;
  readonly #pieceBytes: number;
  #at = 0;

  constructor(bytes: Uint8Array, pieceBytes = Number.POSITIVE_INFINITY) {
    this.#bytes = bytes;
    this.#pieceBytes = pieceBytes;
  }

  read(target: Uint8Array): number {
    const count = Math.min(target.length, this.#pieceBytes, this.#bytes.length - this.#at);
    target.set(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return count;
  }

  close(): void {
    this.#at = this.#bytes.length;
  }

  gunzip(prefix: Uint8Array): ByteInput {
    const rest = this.#bytes.subarray(this.#at);
    this.close();
    return gunzipWeb(streamOf([prefix, rest][Symbol.iterator]()));
  }
}

function streamOf(chunks: Iterator<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    pull(controller) {
      const { value, done } = chunks.next();
      if (done) controller.close();
      else controller.enqueue(value.slice());
    },
  });
}

function gunzipWeb(stream: ReadableStream<Uint8Array<ArrayBuffer>>): ByteInput {
  return new StreamInput(stream.pipeThrough(new DecompressionStream("gzip")));
}

/** Chunks of any size that come when they come: a web stream, a socket, a pipe. */
export class StreamInput implements ByteInput {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  read(target: Uint8Array): number | Promise<number> {
    return this.#rest.length > 0 ? this.#give(target) : this.#pull(target);
  }

  close(): void {
    // The other end may fail while it is being told; nobody listens any more.
    this.#chunks.return?.().catch(() => undefined);
  }

  gunzip(prefix: Uint8Array): ByteInput {
    const read = async (): Promise<Uint8Array<ArrayBuffer> | undefined> => {
      const chunk = new Uint8Array(65536);
      const count = await this.read(chunk);
      return count ? chunk.subarray(0, count) : undefined;
    };
    let first: Uint8Array<ArrayBuffer> | undefined = prefix.slice();
    const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      async pull(controller) {
        const chunk = first ?? (await read());
        first = undefined;
        if (chunk) controller.enqueue(chunk);
        else controller.close();
      },
    });
    return gunzipWeb(stream);
  }

  async #pull(target: Uint8Array): Promise<number> {
    while (this.#rest.length === 0) {
      const { value, done } = await this.#chunks.next();
      if (done) return 0;
      this.#rest = value;
    }
    return this.#give(target);
  }

  #give(target: Uint8Array): number {
    const count = Math.min(target.length, this.#rest.length);
    target.set(this.#rest.subarray(0, count));
    this.#rest = this.#rest.subarray(count);
    return count;
  }
}

/** Gathers what is written. */
export class MemoryOutput implements ByteOutput {
  readonly #parts: Uint8Array[] = [];

  write(bytes: Uint8Array): undefined {
    this.#parts.push(bytes.slice());
  }

  close(): undefined {}

  /** Everything written so far. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }
}

/**
 * Opens a capture given as bytes or as a stream of them.
 * @throws CaptureError when it is none, TypeError when it is neither bytes nor a stream
 */
export function openBytes(
  capture: Uint8Array | AsyncIterable<Uint8Array>,
  memory: FrameMemory,
  options: ReaderOptions & { name?: string } = {},
): Promise<CaptureReader> {
  const isBytes = capture instanceof Uint8Array;
  if (!isBytes && typeof capture?.[Symbol.asyncIterator] !== "function") {
    throw new TypeError(`capture: ${typeof capture} is neither a Uint8Array nor a stream of them`);
  }
  const input = isBytes ? new MemoryInput(capture) : new StreamInput(capture);
  return new CaptureReader(options.name ?? "capture", input, memory, options).open();
}
