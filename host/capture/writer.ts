/**
 * Writes captures: `CaptureWriter` writes a source's records back in the source's own format, and
 * `PcapngWriter` makes a file from nothing.
 *
 * Records are not copied: frames were rewritten in place, so whole runs of the source's memory,
 * file headers and unknown blocks included, are the output. Dropped records are closed over.
 * Invariant: bytes handed to the output always end at the end of a record.
 */
import * as abi from "../../assembly/abi.ts";
import {
  buildInterface,
  buildPacket,
  buildPcapRecord,
  buildSection,
  type InterfaceBytes,
  rebuildRecord,
} from "./build.ts";
import type { ByteOutput, FrameSink, FrameSource, InsertOptions } from "./source.ts";

const WORDS = abi.FRAME_BYTES / 4;
const WORD_ADDRESS = abi.FRAME_ADDRESS / 4;
const WORD_CAPTURED_BYTES = abi.FRAME_CAPTURED_BYTES / 4;
const WORD_RECORD = abi.FRAME_RECORD / 4;
const WORD_WIRE_BYTES = abi.FRAME_WIRE_BYTES / 4;

export class CaptureWriter implements FrameSink {
  readonly #source: FrameSource;
  readonly #output: ByteOutput;
  readonly #view: DataView;
  /** Kept bytes before this address are with the output; 0: none of the current slot. */
  #written = 0;
  #inserted = 0;
  #insertedBytes = 0;
  #pending: Promise<void> | undefined;
  #final: { packets: number; bytes: number } | undefined;

  /** Becomes the one sink of a source that has described nothing yet. */
  constructor(source: FrameSource, output: ByteOutput) {
    this.#source = source;
    this.#output = output;
    const { bytes } = source.memory;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    source.onLeave = (start, end) => this.#leave(start, end);
    source.onBlock = (block) => this.#write(block);
  }

  get packets(): number {
    return this.#final?.packets ?? this.#kept(abi.WALK_KEPT_PACKETS) + this.#inserted;
  }

  get bytes(): number {
    return this.#final?.bytes ?? this.#kept(abi.WALK_KEPT_OCTETS) + this.#insertedBytes;
  }

  take(count: number, first = 0): void {
    const { state, memory } = this.#source;
    const { descriptors, exports } = memory;
    for (let next = first; next < count; next++) {
      next = exports.walkCompact(state, descriptors.byteOffset, next, count);
      if (next < count) this.#rebuild(next);
    }
  }

  insert(index: number, frame: Uint8Array, options: InsertOptions): void {
    const { state, memory, layout, count, position } = this.#source;
    const end =
      index < count ? (memory.descriptors[index * WORDS + WORD_RECORD] as number) : position;
    if (end > this.#get(abi.WALK_KEPT_FROM)) memory.exports.walkKeep(state, end);
    const { timeNs, wireBytes = frame.length } = options;
    if (layout.format === "pcap") {
      this.#between(buildPcapRecord(layout, { timeNs, bytes: frame, wireBytes }));
    } else {
      const taken = options.port === undefined ? 0 : this.#interfaceOf(options.port);
      const entry = this.#get(abi.WALK_INTERFACES) + taken * abi.INTERFACE_BYTES;
      const units = unitsOf(this.#view, entry, timeNs);
      const block = { interface: taken, units, bytes: frame, wireBytes };
      this.#between(buildPacket(layout.bigEndian, block));
    }
    this.#inserted++;
    this.#insertedBytes += frame.length;
  }

  /** Index in its section of the interface that has an ingress port. */
  #interfaceOf(port: number): number {
    const entries = this.#get(abi.WALK_INTERFACES);
    for (let index = 0; index < this.#get(abi.WALK_INTERFACE_COUNT); index++) {
      const entry = entries + index * abi.INTERFACE_BYTES;
      if (this.#view.getUint16(entry + abi.INTERFACE_PORT, true) === port) return index;
    }
    throw new RangeError(`port: ${port} is not an interface of this section`);
  }

  /** Before the source is closed. Totals stay readable afterwards. */
  async close(): Promise<void> {
    try {
      await this.#source.settle();
    } finally {
      const { packets, bytes } = this;
      this.#final = { packets, bytes };
      await this.#output.close();
    }
  }

  #get(field: number): number {
    return this.#view.getUint32(this.#source.state + field, true);
  }

  #kept(field: number): number {
    return Number(this.#view.getBigUint64(this.#source.state + field, true));
  }

  /** The source is about to overwrite [start, end): what is kept of it goes out. */
  #leave(start: number, end: number): Promise<void> | undefined {
    this.#source.memory.exports.walkKeep(this.#source.state, end);
    this.#flush(this.#written || start);
    this.#written = 0;
    const pending = this.#pending;
    this.#pending = undefined;
    return pending;
  }

  #flush(from: number): void {
    const to = this.#get(abi.WALK_KEPT_TO);
    if (to > from) this.#write(this.#source.memory.bytes.subarray(from, to));
  }

  #write(bytes: Uint8Array): void {
    // Outputs write in order, so the last promise stands for all before it.
    this.#pending = this.#output.write(bytes) ?? this.#pending;
  }

  /** Writes `record` behind the kept bytes; a new run begins with the undecided ones. */
  #between(record: Uint8Array): void {
    this.#flush(this.#written || this.#source.unsettled);
    this.#write(record);
    const from = this.#get(abi.WALK_KEPT_FROM);
    this.#view.setUint32(this.#source.state + abi.WALK_KEPT_TO, from, true);
    this.#written = from;
  }

  /** The walk has closed over the record of a frame that moved: writes one for it. */
  #rebuild(index: number): void {
    const { memory, layout } = this.#source;
    const { bytes, descriptors } = memory;
    const word = (offset: number) => descriptors[index * WORDS + offset] as number;
    const address = word(WORD_ADDRESS);
    const frame = bytes.slice(address, address + word(WORD_CAPTURED_BYTES));
    const record = bytes.slice(word(WORD_RECORD), this.#get(abi.WALK_KEPT_FROM));
    this.#between(rebuildRecord(layout, record, frame, word(WORD_WIRE_BYTES)));
  }
}

/** An instant in units of an interface's clock: the reverse of what the walk does. */
function unitsOf(memory: DataView, entry: number, timeNs: bigint): bigint {
  const scale = memory.getBigUint64(entry + abi.INTERFACE_SCALE, true);
  const ns = timeNs - memory.getBigInt64(entry + abi.INTERFACE_OFFSET_NS, true);
  const clock = memory.getUint32(entry + abi.INTERFACE_CLOCK, true);
  if (clock === abi.INTERFACE_CLOCK_BINARY) return (ns << scale) / 1_000_000_000n;
  if (clock === abi.INTERFACE_CLOCK_DIVIDE) return ns * scale;
  return scale ? ns / scale : 0n;
}

/** What a `PcapngWriter` gathers before it writes. */
const GATHER_BYTES = 64 * 1024;

export interface WrittenPacket {
  /** What `interface()` returned. */
  interface: number;
  /** In ns since 1970-01-01 UTC. */
  timeNs: bigint;
  /** Default: all of it was captured. */
  wireBytes?: number;
  /** opt_comment, shown beside the packet. */
  comment?: string;
}

/** Makes a pcapng of one little-endian section with nanosecond clocks; frames are copied. */
export class PcapngWriter {
  readonly #output: ByteOutput;
  #parts: Uint8Array[] = [buildSection(false)];
  #partBytes = 0;
  #interfaces = 0;
  packets = 0;

  /** Writes the section at once, so that the file is valid whatever ends the program. */
  constructor(output: ByteOutput) {
    this.#output = output;
    this.#flush();
  }

  /** Describes an interface; returns its number. */
  interface(taken: Omit<InterfaceBytes, "resolution" | "offsetSeconds">): number {
    this.#add(buildInterface(false, { ...taken, resolution: 9 }));
    return this.#interfaces++;
  }

  packet(frame: Uint8Array, options: WrittenPacket): void {
    const { timeNs, ...rest } = options;
    this.#add(buildPacket(false, { ...rest, units: timeNs, bytes: frame }));
    this.packets++;
  }

  async close(): Promise<void> {
    await this.#flush();
    await this.#output.close();
  }

  #add(block: Uint8Array): void {
    this.#parts.push(block);
    this.#partBytes += block.length;
    if (this.#partBytes >= GATHER_BYTES) this.#flush();
  }

  #flush(): Promise<void> | undefined {
    const parts = this.#parts;
    if (parts.length === 0) return undefined;
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#partBytes = 0;
    return this.#output.write(bytes);
  }
}
