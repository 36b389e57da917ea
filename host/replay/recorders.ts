/**
 * What a replay can write beside its output frames: which record became which (`--map`), and
 * what was dropped (`--drops`).
 */

import type { ByteOutput, FrameSource } from "../capture/source.ts";
import { PcapngWriter } from "../capture/writer.ts";
import { type Engine, VERDICT_NAMES } from "../engine/engine.ts";
import {
  VERDICT_OUT_MAX,
  WORD_ADDRESS,
  WORD_CAPTURED,
  WORD_PORTS,
  WORD_VERDICT,
  WORD_WIRE,
  WORDS,
} from "./batch.ts";
import type { Recorder } from "./replay.ts";

const GATHER_CHARACTERS = 64 * 1024;

/**
 * Lines of input record number, output record number (0 = dropped) and verdict, separated by tabs.
 * Records count from 1.
 */
export class MapRecorder implements Recorder {
  readonly #engine: Engine;
  readonly #output: ByteOutput;
  #text = "";
  #inputs = 0;
  #outputs = 0;

  constructor(engine: Engine, output: ByteOutput) {
    this.#engine = engine;
    this.#output = output;
  }

  take(count: number): void {
    const { descriptors } = this.#engine;
    for (let word = WORD_VERDICT; word < count * WORDS; word += WORDS) {
      const verdict = (descriptors[word] as number) & 0xffff;
      const isOut = verdict <= VERDICT_OUT_MAX;
      this.#inputs += 1;
      if (isOut) this.#outputs += 1;
      this.#text += `${this.#inputs}\t${isOut ? this.#outputs : 0}\t${VERDICT_NAMES[verdict]}\n`;
    }
    if (this.#text.length >= GATHER_CHARACTERS) this.#flush();
  }

  close(): Promise<void> | undefined {
    this.#flush();
    return this.#output.close();
  }

  #flush(): void {
    if (this.#text === "") return;
    this.#output.write(new TextEncoder().encode(this.#text));
    this.#text = "";
  }
}

/** Dropped frames as pcapng, each with its verdict as the packet's comment. */
export class DropsRecorder implements Recorder {
  readonly #engine: Engine;
  readonly #source: FrameSource;
  readonly #writer: PcapngWriter;
  /** The source's interfaces by the number that they have in the written file. */
  readonly #interfaces = new Map<number, number>();

  constructor(engine: Engine, source: FrameSource, output: ByteOutput) {
    this.#engine = engine;
    this.#source = source;
    this.#writer = new PcapngWriter(output);
  }

  take(count: number): void {
    const { descriptors, bytes } = this.#engine;
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
