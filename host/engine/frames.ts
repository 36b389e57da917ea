/**
 * Frames: a batch by hand, for programs that have packets in memory. Copies each frame into the
 * engine's arena, and shows what the engine made of it there. Captures need none of this: their
 * readers fill the arena themselves.
 *
 * Frames stand side by side from the begin of the arena, each on a cache line.
 */
import * as abi from "../../assembly/abi.ts";
import type { EmitName, VerdictName } from "./api.ts";
import { shown, wholeNumber } from "./check.ts";
import { EMIT_NAMES, type Engine, VERDICT_NAMES } from "./engine.ts";

const WORDS = abi.FRAME_BYTES / 4;
const LINE_BYTES = 64;

/** What became of a frame, or a frame that the engine made. */
export interface Departure {
  /** "forward" for frames that the engine made. */
  verdict: VerdictName;
  /** What the engine made; absent for frames that were added. */
  made?: EmitName;
  /** The frame as it is now: a view of the arena, valid until the next batch begins. */
  frame: Uint8Array;
  /** Port on which a forwarded or made frame leaves. */
  port: number;
  /** Handle of its flow for `engine.flow`; 0 when it has none. */
  flow: number;
}

/** Batches of one engine, one after the other. */
export class Frames {
  readonly #engine: Engine;
  #count = 0;
  #next: number;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#next = engine.arena.address;
  }

  /**
   * Adds a frame to the batch. `timeMs` is the virtual clock in ms: it moves timeouts, and must not
   * run backwards. It may begin anywhere and pause for any time.
   * @throws RangeError when the batch has 256 frames or the arena is full.
   */
  add(frame: Uint8Array, timeMs: number, port = 0): void {
    if (!(frame instanceof Uint8Array)) {
      throw new TypeError(`frame: ${shown(frame)} is not a Uint8Array`);
    }
    wholeNumber("timeMs", timeMs, 0, Number.MAX_SAFE_INTEGER);
    wholeNumber("port", port, 0, abi.PORT_COUNT_MAX - 1);
    const { arena, bytes, descriptors } = this.#engine;
    const end = arena.address + arena.bytes;
    if (this.#count === abi.BATCH_COUNT_MAX) {
      throw new RangeError(`frame: the batch has ${abi.BATCH_COUNT_MAX} already`);
    }
    if (this.#next + frame.length > end) {
      throw new RangeError(`frame: ${frame.length} bytes, ${end - this.#next} are left`);
    }
    bytes.set(frame, this.#next);
    const length = frame.length;
    const word = this.#engine.clock.at(timeMs);
    descriptors.set([this.#next, length, word, port, 0, 0, 0, length], this.#count * WORDS);
    this.#count++;
    this.#next = Math.ceil((this.#next + length) / LINE_BYTES) * LINE_BYTES;
  }

  /**
   * Runs the batch through the engine; the next `add` begins another. Returns the frames in the
   * order in which they were added, those that the engine made standing where they leave.
   * @throws as process does
   */
  process(): Departure[] {
    const { arena, descriptors, emits } = this.#engine;
    const count = this.#count;
    this.#count = 0;
    this.#next = arena.address;
    this.#engine.process(count);
    const departures: Departure[] = [];
    let made = 0;
    const addMade = (cause: number, isAfter: number) => {
      for (; made < this.#engine.emitCount; made++) {
        const [, , , , kind = 0, , index] = emits.subarray(made * WORDS, (made + 1) * WORDS);
        if (index !== cause || ((kind >>> 16) & 0xff) !== isAfter) return;
        const name = EMIT_NAMES[kind & 0xffff] as EmitName;
        departures.push({ ...this.#departure(emits, made), verdict: "forward", made: name });
      }
    };
    for (let index = 0; index < count; index++) {
      addMade(index, 0);
      departures.push(this.#departure(descriptors, index));
      addMade(index, 1);
    }
    return departures;
  }

  #departure(list: Uint32Array, index: number): Departure {
    const words = list.subarray(index * WORDS, (index + 1) * WORDS);
    const [address = 0, length = 0, , ports = 0, verdict = 0, flow = 0] = words;
    return {
      verdict: VERDICT_NAMES[verdict & 0xffff] as VerdictName,
      frame: this.#engine.bytes.subarray(address, address + length),
      port: ports >>> 16,
      flow,
    };
  }
}
