/**
 * What a replay can write: its output frames (`--write`), which record became which (`--map`), and
 * what was dropped (`--drops`). Frames that the engine made stand where they leave.
 */

import type { ByteOutput, FrameSink, FrameSource } from "../capture/source.ts";
import { PcapngWriter } from "../capture/writer.ts";
import { EMIT_NAMES, VERDICT_NAMES } from "../engine/engine.ts";
import {
  EMIT_AFTER,
  VERDICT_OUT_MAX,
  WORD_ADDRESS,
  WORD_CAPTURED,
  WORD_CAUSE,
  WORD_PORTS,
  WORD_VERDICT,
  WORD_WIRE,
  WORDS,
} from "./batch.ts";
import type { DecidedBatch } from "./decider.ts";
import type { Recorder } from "./replay.ts";

const GATHER_BYTES = 64 * 1024;

/** Lines of a map end so, by verdict and by kind of emitted frame. */
const ENDS = VERDICT_NAMES.map((name) => bytesOf(`\t${name}\n`));
const MADE_ENDS = EMIT_NAMES.map((name) => bytesOf(`\tmade.${name}\n`));
const TAB = 9;
const DIGIT_0 = 48;
/** Two numbers below 2^53 and the longest name take less. */
const LINE_BYTES_MAX = 128;

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Writes a whole number in decimal digits; returns where it ends. */
function writeNumber(text: Uint8Array, start: number, value: number): number {
  let end = start + 1;
  for (let bound = 10; value >= bound; bound *= 10) end++;
  let rest = value;
  for (let at = end - 1; at >= start; at--) {
    const tenth = Math.floor(rest / 10);
    text[at] = DIGIT_0 + rest - tenth * 10;
    rest = tenth;
  }
  return end;
}

/**
 * Lines of input record number (0 = made by the engine), output record number (0 = dropped) and
 * verdict or what was made, separated by tabs. Records count from 1.
 */
export class MapRecorder implements Recorder {
  readonly #batch: DecidedBatch;
  readonly #output: ByteOutput;
  #text = new Uint8Array(GATHER_BYTES + LINE_BYTES_MAX);
  #length = 0;
  #inputs = 0;
  #outputs = 0;

  constructor(batch: DecidedBatch, output: ByteOutput) {
    this.#batch = batch;
    this.#output = output;
  }

  take(count: number): void {
    const { descriptors, emits, emitCount } = this.#batch;
    let made = 0;
    const addMade = (cause: number, after: number) => {
      for (; made < emitCount; made++) {
        const kind = emits[made * WORDS + WORD_VERDICT] as number;
        if (emits[made * WORDS + WORD_CAUSE] !== cause || (kind & EMIT_AFTER) !== after) return;
        this.#outputs += 1;
        this.#line(0, this.#outputs, MADE_ENDS[kind & 0xffff] as Uint8Array);
      }
    };
    for (let index = 0; index < count; index++) {
      if (made < emitCount) addMade(index, 0);
      const word = index * WORDS + WORD_VERDICT;
      const verdict = (descriptors[word] as number) & 0xffff;
      const isOut = verdict <= VERDICT_OUT_MAX;
      this.#inputs += 1;
      if (isOut) this.#outputs += 1;
      this.#line(this.#inputs, isOut ? this.#outputs : 0, ENDS[verdict] as Uint8Array);
      if (made < emitCount) addMade(index, EMIT_AFTER);
    }
  }

  close(): Promise<void> | undefined {
    this.#flush();
    return this.#output.close();
  }

  #line(input: number, output: number, end: Uint8Array): void {
    if (this.#length >= GATHER_BYTES) this.#flush();
    const text = this.#text;
    let at = writeNumber(text, this.#length, input);
    text[at++] = TAB;
    at = writeNumber(text, at, output);
    // Shorter than what a call would cost.
    for (let from = 0; from < end.length; from++) text[at++] = end[from] as number;
    this.#length = at;
  }

  #flush(): void {
    if (this.#length === 0) return;
    this.#output.write(this.#text.subarray(0, this.#length));
    // What was handed over must stay as it is.
    this.#text = new Uint8Array(GATHER_BYTES + LINE_BYTES_MAX);
    this.#length = 0;
  }
}

/** Frames that go out, by the capture's own writer; it takes their memory, so it stands last. */
export class WriteRecorder implements Recorder {
  readonly #batch: DecidedBatch;
  readonly #source: FrameSource;
  readonly #sink: FrameSink;

  constructor(batch: DecidedBatch, source: FrameSource, sink: FrameSink) {
    this.#batch = batch;
    this.#source = source;
    this.#sink = sink;
  }

  take(count: number): void {
    const { bytes, emits, emitCount } = this.#batch;
    let taken = 0;
    let timed = -1;
    let timeNs = 0n;
    for (let word = 0; word < emitCount * WORDS; word += WORDS) {
      const cause = emits[word + WORD_CAUSE] as number;
      // A record that has been taken may lie somewhere else.
      if (cause !== timed) timeNs = this.#source.timeNs(cause);
      timed = cause;
      const at = (emits[word + WORD_VERDICT] as number) & EMIT_AFTER ? cause + 1 : cause;
      this.#sink.take(at, taken);
      taken = at;
      const address = emits[word + WORD_ADDRESS] as number;
      const frame = bytes.subarray(address, address + (emits[word + WORD_CAPTURED] as number));
      const port = (emits[word + WORD_PORTS] as number) & 0xffff;
      this.#sink.insert(at, frame, { timeNs, port });
    }
    this.#sink.take(count, taken);
  }

  close(): Promise<void> {
    return this.#sink.close();
  }
}

/** Dropped frames as pcapng, each with its verdict as the packet's comment. */
export class DropsRecorder implements Recorder {
  readonly #batch: DecidedBatch;
  readonly #source: FrameSource;
  readonly #writer: PcapngWriter;
  /** The source's interfaces by the number that they have in the written file. */
  readonly #interfaces = new Map<number, number>();

  constructor(batch: DecidedBatch, source: FrameSource, output: ByteOutput) {
    this.#batch = batch;
    this.#source = source;
    this.#writer = new PcapngWriter(output);
  }

  take(count: number): void {
    const { descriptors, bytes } = this.#batch;
    for (let index = 0; index < count; index++) {
      const at = index * WORDS;
      const verdict = (descriptors[at + WORD_VERDICT] as number) & 0xffff;
      if (verdict <= VERDICT_OUT_MAX) continue;
      const address = descriptors[at + WORD_ADDRESS] as number;
      const end = address + (descriptors[at + WORD_CAPTURED] as number);
      // A copy: the writer gathers, and the source goes on in the same memory.
      this.#writer.packet(bytes.slice(address, end), {
        interface: this.#interfaceOf((descriptors[at + WORD_PORTS] as number) & 0xffff),
        timeNs: this.#source.timeNs(index),
        wireBytes: descriptors[at + WORD_WIRE] as number,
        comment: VERDICT_NAMES[verdict] as string,
      });
    }
  }

  close(): Promise<void> {
    return this.#writer.close();
  }

  #interfaceOf(port: number): number {
    const known = this.#interfaces.get(port);
    if (known !== undefined) return known;
    const { linkType = 0, snapBytes = 0, name = "" } = this.#source.interfaces[port] ?? {};
    const number = this.#writer.interface({ linkType, snapBytes, name });
    this.#interfaces.set(port, number);
    return number;
  }
}
