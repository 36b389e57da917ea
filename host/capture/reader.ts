/**
 * The fast reader: file bytes go straight into the engine's memory, where the record walk
 * describes them in place. Only file headers, interface descriptions and errors are met in
 * JavaScript. pcap and pcapng, gzip where the input can undo it; see format.ts and assembly/capture.
 *
 * Invariants: memory use is constant (two slots of the arena; a block too large for a slot, at most
 * 16 MiB, is held alone); an incomplete record at the end of a slot moves to the front of the next;
 * whatever next() has described is settled: an error only shows on the call after it.
 */
import * as abi from "../../assembly/abi.ts";
import { CaptureError, reasonOf } from "../errors.ts";
import {
  describeInterface,
  detectFormat,
  ENHANCED_PACKET,
  INTERFACE_DESCRIPTION,
  linkTypeText,
  OBSOLETE_PACKET,
  PCAP_FILE_HEADER_BYTES,
  PCAP_RECORD_HEADER_BYTES,
  readPcapHeader,
  SECTION_HEADER,
  SIMPLE_PACKET,
  tooLongText,
} from "./format.ts";
import { Sections } from "./section.ts";
import { Slots } from "./slots.ts";
import type {
  ByteInput,
  CaptureInterface,
  FrameMemory,
  FrameSource,
  LeaveHook,
  RecordLayout,
} from "./source.ts";
import { WalkState } from "./state.ts";

/** Stays in a second-level cache between reading, processing and writing. */
const CHUNK_BYTES = 256 * 1024;

export interface ReaderOptions {
  /** Bytes per read; default 256 KiB. */
  chunkBytes?: number;
  /** Records after which no more are read; default all. Some more may have been described. */
  packetsMax?: number;
}

export class CaptureReader implements FrameSource {
  readonly name: string;
  readonly memory: FrameMemory;
  readonly layout: RecordLayout = {
    format: "pcap",
    bigEndian: false,
    nanoseconds: false,
    lengthsSwapped: false,
  };
  onBlock: ((block: Uint8Array) => void) | undefined;
  onInterface: (() => void) | undefined;

  #input: ByteInput;
  readonly #chunkBytes: number;
  readonly #packetsMax: number;
  readonly #state: WalkState;
  readonly #slots: Slots;
  readonly #sections: Sections;
  /** Slot bytes not walked yet: [#at, #end). The file's byte at #at is number #offset. */
  #at: number;
  #end: number;
  #offset = 0;
  #count = 0;
  #hasHeader = false;
  #isAtEnd = false;
  #isDone = false;
  #isGzip = false;
  #error: CaptureError | undefined;
  #snapBytes = 0;
  /** A block larger than a slot while it is being collected. */
  #large: Uint8Array | undefined;
  #largeBytes = 0;

  constructor(name: string, input: ByteInput, memory: FrameMemory, options: ReaderOptions = {}) {
    const { address, bytes } = memory.arena;
    this.name = name;
    this.memory = memory;
    this.#input = input;
    this.#chunkBytes = options.chunkBytes ?? CHUNK_BYTES;
    this.#packetsMax = options.packetsMax ?? Number.POSITIVE_INFINITY;
    this.#state = new WalkState(memory);
    this.#state.set(abi.WALK_INTERFACES, address + abi.WALK_BYTES);
    this.#sections = new Sections(this.#state.view, address, this.layout);
    const reserved = abi.WALK_BYTES + abi.PORT_COUNT_MAX * abi.INTERFACE_BYTES;
    this.#slots = new Slots({ address: address + reserved, bytes: bytes - reserved }, 2);
    this.#at = this.#slots.start;
    this.#end = this.#at;
    this.#state.settleFrom(this.#at);
  }

  /** Reads until the file header has been understood, so that its errors show before any work. */
  async open(): Promise<this> {
    while (!this.#hasHeader && !this.#isDone) {
      this.#header();
      if (!this.#hasHeader && !this.#isDone) await this.#refill();
    }
    if (this.#error) {
      this.close();
      throw this.#error;
    }
    return this;
  }

  get interfaces(): readonly CaptureInterface[] {
    return this.#sections.interfaces;
  }

  get packets(): number {
    return this.#state.packets;
  }

  get capturedBytes(): number {
    return this.#state.capturedBytes;
  }

  get earliestNs(): bigint {
    return this.#state.earliestNs;
  }

  get latestNs(): bigint {
    return this.#state.latestNs;
  }

  get state(): number {
    return this.#state.address;
  }

  get count(): number {
    return this.#count;
  }

  get position(): number {
    return this.#at;
  }

  get unsettled(): number {
    return this.#state.unsettled;
  }

  set onLeave(hook: LeaveHook | undefined) {
    this.#state.onLeave = hook;
  }

  timeNs(index: number): bigint {
    return this.#state.timeNs(index);
  }

  next(limit: number = abi.BATCH_COUNT_MAX): number | Promise<number> {
    for (;;) {
      const count = this.#isDone ? 0 : this.#walk(limit);
      this.#count = count;
      if (count > 0) return count;
      if (this.#isDone) return this.#finish();
      const pending = this.#refill();
      if (pending) return pending.then(() => this.next(limit));
    }
  }

  /** Totals stay readable afterwards; the memory is free for another source. */
  close(): void {
    this.#state.close();
    this.#isDone = true;
    this.#input.close();
  }

  settle(): Promise<void> | undefined {
    return this.#state.settle(this.#at);
  }

  #finish(): number | Promise<number> {
    const settled = this.settle();
    const end = () => {
      if (this.#error) throw this.#error;
      return 0;
    };
    return settled ? settled.then(end) : end();
  }

  /** Ends the reading with an error; false, so that callers can pass it on. */
  #fail(place: "file" | "record" | "block", fault: string): false {
    const at = this.#offset + (this.#at - this.#slots.start);
    const where = {
      file: "",
      record: `record ${this.packets + 1} at byte ${at}: `,
      block: `block at byte ${at}: `,
    }[place];
    this.#error = new CaptureError(`${this.name}: ${where}${fault}`);
    this.#isDone = true;
    return false;
  }

  /** Makes room and reads once. Bytes that were walked go to the sink first. */
  #refill(): Promise<void> | undefined {
    const { bytes } = this.memory;
    const from = this.#at;
    const end = this.#end;
    this.#offset += from - this.#slots.start;
    const wait = this.#slots.turn(this.settle());
    const load = () => {
      this.#at = this.#slots.start;
      this.#state.settleFrom(this.#at);
      this.#end = this.#at + (end - from);
      if (this.#large) {
        this.#end = this.#at;
        return this.#read(this.#large.subarray(this.#largeBytes), (count) => {
          this.#largeBytes += count;
        });
      }
      if (from !== this.#at) bytes.copyWithin(this.#at, from, end);
      const room = Math.min(this.#slots.end - this.#end, this.#chunkBytes);
      return this.#read(bytes.subarray(this.#end, this.#end + room), (count) => {
        this.#end += count;
      });
    };
    return wait ? wait.then(load) : load();
  }

  #read(target: Uint8Array, done: (count: number) => void): Promise<void> | undefined {
    const accept = (count: number) => {
      if (count === 0) this.#isAtEnd = true;
      done(count);
    };
    const refuse = (error: unknown) => {
      const at = this.#large
        ? this.#offset + this.#largeBytes
        : this.#offset + (this.#end - this.#slots.start);
      this.#fail("file", `read at byte ${at}: ${reasonOf(error)}`);
    };
    try {
      const count = this.#input.read(target);
      if (typeof count !== "number") return count.then(accept).catch(refuse);
      accept(count);
    } catch (error) {
      refuse(error);
    }
    return undefined;
  }

  /** Understands the begin of the file, or leaves #hasHeader unset until more has been read. */
  #header(): void {
    const bytes = this.memory.bytes.subarray(this.#at, this.#end);
    if (bytes.length < 4 && !this.#isAtEnd) return;
    const format = detectFormat(bytes);
    if (format === "gzip" && !this.#isGzip) this.#unpack(bytes);
    else if (format === "pcap") this.#pcapHeader(bytes);
    else if (format === "pcapng") {
      this.layout.format = "pcapng";
      this.#hasHeader = true;
    } else if (bytes.length === 0) this.#fail("file", "the file is empty");
    else {
      const begin = Array.from(bytes.subarray(0, 4), (b) => b.toString(16).padStart(2, "0"));
      this.#fail("file", `neither pcap nor pcapng: begins with ${begin.join(" ")}`);
    }
  }

  #unpack(prefix: Uint8Array): void {
    if (!this.#input.gunzip) {
      this.#fail("file", "gzip cannot be read from this kind of input");
      return;
    }
    this.#input = this.#input.gunzip(prefix.slice());
    this.#isGzip = true;
    this.#isAtEnd = false;
    this.#end = this.#at;
  }

  #pcapHeader(bytes: Uint8Array): void {
    if (bytes.length < PCAP_FILE_HEADER_BYTES) {
      if (this.#isAtEnd) {
        this.#fail(
          "file",
          `the file ends after ${bytes.length} of ${PCAP_FILE_HEADER_BYTES} bytes`,
        );
      }
      return;
    }
    const header = readPcapHeader(bytes);
    const taken = describeInterface(header.linkType, header.snapBytes);
    this.#sections.interfaces.push(taken);
    if (header.major !== 2) {
      this.#fail("file", `pcap version ${header.major}.${header.minor} is not 2.x`);
    } else if (!taken.link) {
      this.#fail("file", `link type ${linkTypeText(taken)} is not supported`);
    }
    if (this.#error) return;
    const { bigEndian, nanoseconds, minor } = header;
    Object.assign(this.layout, { bigEndian, nanoseconds, lengthsSwapped: minor < 3 });
    this.#state.beginPcap(header);
    this.#snapBytes = header.snapBytes;
    this.#at += PCAP_FILE_HEADER_BYTES;
    this.#hasHeader = true;
  }

  /** Walks what lies in the slot; returns how many frames it described. */
  #walk(limit: number): number {
    if (!this.#hasHeader) {
      this.#header();
      if (!this.#hasHeader) return 0;
    }
    if (this.#large && !this.#largeBlock(this.#large)) return 0;
    const { exports, descriptors } = this.memory;
    const state = this.#state.address;
    const isPcap = this.layout.format === "pcap";
    for (let count = 0; ; ) {
      const target = descriptors.byteOffset + count * abi.FRAME_BYTES;
      const room = limit - count;
      const walked = isPcap
        ? exports.walkPcap(state, this.#at, this.#end, target, room)
        : exports.walkPcapng(state, this.#at, this.#end, target, room);
      this.#at = this.#state.get(abi.WALK_NEXT);
      count += walked;
      if (this.packets >= this.#packetsMax) this.#isDone = true;
      if (walked === room || this.#isDone || !this.#resolve(count)) return count;
    }
  }

  /** Does what the walk stopped for; returns whether it can go on at once. */
  #resolve(count: number): boolean {
    const detail = this.#state.get(abi.WALK_DETAIL);
    switch (this.#state.get(abi.WALK_REASON)) {
      case abi.WALK_STOP_SHORT:
        return this.#short(detail);
      case abi.WALK_STOP_BLOCK:
        return this.#block(count);
      case abi.WALK_STOP_LONG:
        return this.#long(detail);
      default:
        return this.#broken(detail);
    }
  }

  /** The walk stopped at a fault. */
  #broken(detail: number): false {
    switch (this.#state.get(abi.WALK_REASON)) {
      case abi.WALK_STOP_TRAILER:
        return this.#fail("block", `length ${this.#word(4)}, but ${detail} at its end`);
      case abi.WALK_STOP_BLOCK_LENGTH: {
        const range = `a multiple of 4 from 12 to ${abi.WALK_BLOCK_BYTES_MAX}`;
        return this.#fail("block", `length ${detail} is not ${range}`);
      }
      case abi.WALK_STOP_OVERRUN:
        return this.#fail("record", `captured length ${detail} exceeds its block`);
      case abi.WALK_STOP_INTERFACE: {
        const known = this.#state.get(abi.WALK_INTERFACE_COUNT);
        return this.#fail("record", `interface ${detail} was not described, only ${known} were`);
      }
      default: {
        const type = linkTypeText(this.#sections.at(detail));
        return this.#fail("record", `link type ${type} of interface ${detail} is not supported`);
      }
    }
  }

  /** The 32-bit word at an offset from where the walk stands, in the file's byte order. */
  #word(offset: number): number {
    return this.#state.view.getUint32(this.#at + offset, !this.layout.bigEndian);
  }

  /** A record of `needed` bytes is not whole yet: at the end of the file it never will be. */
  #short(needed: number): false {
    const left = this.#end - this.#at;
    if (this.#isAtEnd && left === 0) this.#isDone = true;
    else if (this.#isAtEnd) {
      const isRecord = this.layout.format === "pcap" || (left >= 4 && isPacket(this.#word(0)));
      this.#fail(isRecord ? "record" : "block", `the file ends after ${left} of ${needed} bytes`);
    } else if (needed > this.#slots.bytes) {
      const type = this.#word(0);
      if (isPacket(type) || type === INTERFACE_DESCRIPTION) {
        this.#fail(
          "block",
          `length ${needed} exceeds the ${this.#slots.bytes} bytes of memory for it`,
        );
      } else {
        this.#large = new Uint8Array(needed);
        this.#large.set(this.memory.bytes.subarray(this.#at, this.#end));
        this.#largeBytes = left;
      }
    }
    return false;
  }

  /** Passes a block on that was collected outside the slots; returns whether it was complete. */
  #largeBlock(block: Uint8Array): boolean {
    if (this.#largeBytes < block.length) {
      if (!this.#isAtEnd) return false;
      return this.#fail(
        "block",
        `the file ends after ${this.#largeBytes} of ${block.length} bytes`,
      );
    }
    const trailer = new DataView(block.buffer).getUint32(block.length - 4, !this.layout.bigEndian);
    if (trailer !== block.length) {
      return this.#fail("block", `length ${block.length}, but ${trailer} at its end`);
    }
    this.onBlock?.(block);
    this.#offset += block.length;
    this.#large = undefined;
    return true;
  }

  /** A section header or an interface description. */
  #block(count: number): boolean {
    const bytes = this.memory.bytes.subarray(this.#at, this.#end);
    if (new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) !== SECTION_HEADER) {
      const length = this.#word(4);
      const fault = this.#sections.add(bytes.subarray(0, length));
      if (fault) return this.#fail("block", fault);
      this.onInterface?.();
      this.#at += length;
      return true;
    }
    // Records of a batch are read with their own section's byte order and clocks.
    if (count > 0) return false;
    const length = this.#sections.begin(bytes, this.#slots.bytes);
    if (typeof length === "string") return this.#fail("block", length);
    if (length > bytes.length) return this.#short(length);
    this.#at += length;
    return true;
  }

  /**
   * A captured length above the file's snapshot length. Some writers do that, and readers accept
   * it up to 262144 bytes; so it is taken if the record is whole and what follows looks like one.
   */
  #long(captured: number): boolean {
    const fault = tooLongText(captured, this.#snapBytes);
    if (captured > abi.WALK_CAPTURED_BYTES_MAX) return this.#fail("record", fault);
    const next = PCAP_RECORD_HEADER_BYTES + captured;
    const left = this.#end - this.#at;
    if (left < next + PCAP_RECORD_HEADER_BYTES && !this.#isAtEnd) return false;
    if (left < next) return this.#fail("record", fault);
    if (left >= next + PCAP_RECORD_HEADER_BYTES) {
      const length = Math.min(this.#word(next + 8), this.#word(next + 12));
      const fractions = this.layout.nanoseconds ? 1e9 : 1e6;
      const isRecord = length <= abi.WALK_CAPTURED_BYTES_MAX && this.#word(next + 4) < fractions;
      if (!isRecord) return this.#fail("record", fault);
    }
    this.#state.set(abi.WALK_LENGTH_MAX, abi.WALK_CAPTURED_BYTES_MAX);
    return true;
  }
}

function isPacket(type: number): boolean {
  return type === ENHANCED_PACKET || type === SIMPLE_PACKET || type === OBSOLETE_PACKET;
}
