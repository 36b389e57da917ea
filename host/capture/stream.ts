/**
 * pcap-parser behind the interface of a source: for captures that arrive as a Node stream or any
 * other sequence of chunks, and as a second opinion on the fast reader.
 *
 * It copies every packet into the arena, behind a record header that it rebuilds, so that sinks
 * write its records like any other's: an unchanged capture comes out byte for byte.
 *
 * Limits of pcap-parser 0.2.1, and what the adapter makes of them:
 * - classic pcap with microseconds only: nanosecond magic, pcapng and gzip are refused here;
 * - it takes version x.4 for 2.4: refused here; and it knows nothing of the two lengths having
 *   stood in the other order before 2.4: a record of such a file that was cut ends the reading;
 * - it would wait for ever, gathering all input, for a record that claims more than is left:
 *   captured lengths above 262144 end the reading here, and snapshot lengths are not looked at;
 * - it says nothing of a file that ends within a record: counted and said here;
 * - two objects and five events per packet, one more copy, deprecated `new Buffer` (a warning);
 *   ten times slower than the fast reader (bench/capture.ts), which reads pipes and web
 *   streams as well (StreamInput in memory.ts) and is what the commands use.
 */
import { EventEmitter } from "node:events";
import { type GlobalHeader, type PacketHeader, parse } from "pcap-parser";
import * as abi from "../../assembly/abi.ts";
import { Clock } from "../clock.ts";
import { CaptureError } from "../errors.ts";
import { buildPcapHeader } from "./build.ts";
import {
  describeInterface,
  linkTypeText,
  PCAP_RECORD_HEADER_BYTES,
  tooLongText,
} from "./format.ts";
import { Slots } from "./slots.ts";
import type {
  CaptureInterface,
  FrameMemory,
  FrameSource,
  LeaveHook,
  RecordLayout,
} from "./source.ts";
import { WalkState } from "./state.ts";

const HEADER_BYTES = PCAP_RECORD_HEADER_BYTES;
const WORDS = abi.FRAME_BYTES / 4;

interface Packet {
  header: PacketHeader;
  data: Buffer;
}

export class StreamSource implements FrameSource {
  readonly name: string;
  readonly memory: FrameMemory;
  readonly layout: RecordLayout = {
    format: "pcap",
    bigEndian: false,
    nanoseconds: false,
    lengthsSwapped: false,
  };
  readonly interfaces: CaptureInterface[] = [];
  packets = 0;
  capturedBytes = 0;
  count = 0;

  readonly #state: WalkState;
  readonly #clock = new Clock();
  readonly #slots: Slots;
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What pcap-parser takes for a stream: it is fed by hand, one chunk after the other. */
  readonly #feed = Object.assign(new EventEmitter(), { pause() {}, resume() {} });
  /** Parsed of the last chunk and not described yet: from #taken on. */
  #parsed: Packet[] = [];
  #taken = 0;
  #at: number;
  #fedBytes = 0;
  #parsedBytes = 0;
  #parsedPackets = 0;
  #minor = 4;
  #isAtEnd = false;
  #error: CaptureError | undefined;
  #baseUs = 0;
  #earliestUs = 0;
  #latestUs = 0;

  constructor(name: string, chunks: AsyncIterable<Uint8Array>, memory: FrameMemory) {
    const { address, bytes } = memory.arena;
    this.name = name;
    this.memory = memory;
    this.#state = new WalkState(memory);
    this.#chunks = chunks[Symbol.asyncIterator]();
    const reserved = abi.WALK_BYTES;
    this.#slots = new Slots({ address: address + reserved, bytes: bytes - reserved }, 2);
    this.#at = this.#slots.start;
    this.#state.settleFrom(this.#at);
    const parser = parse(this.#feed as EventEmitter);
    parser.on("globalHeader", (header: GlobalHeader) => {
      this.#header(header, parser.endianness === "BE");
    });
    parser.on("packetHeader", (header: PacketHeader) => {
      const length = header.capturedLength;
      if (length > abi.WALK_CAPTURED_BYTES_MAX) {
        this.#fail(tooLongText(length, this.interfaces[0]?.snapBytes ?? 0));
      }
      this.#checkOrder(length, header.originalLength);
    });
    parser.on("packet", (packet: Packet) => {
      if (this.#error) return;
      this.#parsed.push(packet);
      this.#parsedPackets++;
      this.#parsedBytes += HEADER_BYTES + packet.data.length;
    });
    parser.on("error", (error: Error) => {
      this.#error ??= new CaptureError(`${this.name}: pcap-parser: ${error.message}`);
    });
  }

  /** Reads the file header; throws CaptureError if this is nothing that pcap-parser reads. */
  async open(): Promise<this> {
    while (this.interfaces.length === 0 && !this.#error && !this.#isAtEnd) await this.#pull();
    if (this.#error && this.interfaces.length === 0) throw this.#error;
    return this;
  }

  get position(): number {
    return this.#at;
  }

  get earliestNs(): bigint {
    return BigInt(this.#earliestUs) * 1000n;
  }

  get latestNs(): bigint {
    return BigInt(this.#latestUs) * 1000n;
  }

  get state(): number {
    return this.#state.address;
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

  async next(limit: number = abi.BATCH_COUNT_MAX): Promise<number> {
    while (this.#taken === this.#parsed.length) {
      if (this.#error || this.#isAtEnd) {
        this.count = 0;
        await this.settle();
        if (this.#error) throw this.#error;
        return 0;
      }
      await this.#pull();
    }
    await this.#makeRoom();
    let count = 0;
    for (; count < limit && this.#taken < this.#parsed.length; count++) {
      const packet = this.#parsed[this.#taken] as Packet;
      if (this.#at + HEADER_BYTES + packet.data.length > this.#slots.end) break;
      this.#place(packet, count);
      this.#taken++;
    }
    this.count = count;
    return count;
  }

  settle(): Promise<void> | undefined {
    return this.#state.settle(this.#at);
  }

  close(): void {
    this.#isAtEnd = true;
    this.#chunks.return?.().catch(() => undefined);
  }

  /** Begins another slot where the current one cannot take the next packet. */
  async #makeRoom(): Promise<void> {
    const { data } = this.#parsed[this.#taken] as Packet;
    if (this.#at + HEADER_BYTES + data.length <= this.#slots.end) return;
    await this.#slots.turn(this.settle());
    this.#at = this.#slots.start;
    this.#state.settleFrom(this.#at);
  }

  async #pull(): Promise<void> {
    this.#parsed = [];
    this.#taken = 0;
    const chunk = await this.#chunks.next().catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      this.#error = new CaptureError(`${this.name}: ${text}`);
      return undefined;
    });
    if (!chunk) return;
    if (!chunk.done) {
      this.#fedBytes += chunk.value.length;
      this.#feed.emit("data", Buffer.from(chunk.value));
      return;
    }
    this.#isAtEnd = true;
    const left = this.#fedBytes - this.#parsedBytes;
    if (this.interfaces.length === 0) {
      this.#error ??= new CaptureError(`${this.name}: the file ends after ${left} of 24 bytes`);
    } else if (left > 0) this.#fail(`the file ends after ${left} bytes of it`);
  }

  #fail(fault: string): void {
    const place = `record ${this.#parsedPackets + 1} at byte ${this.#parsedBytes}`;
    this.#error ??= new CaptureError(`${this.name}: ${place}: ${fault}`);
  }

  /** Before 2.3 the wire length came first, in 2.3 it may: pcap-parser would cut frames there. */
  #checkOrder(first: number, second: number): void {
    if (this.#minor < 3 ? first !== second : this.#minor === 3 && first > second) {
      this.#fail(`pcap-parser does not read cut frames of version 2.${this.#minor}`);
    }
  }

  /** Rebuilds the 24 bytes that pcap-parser has read. */
  #header(header: GlobalHeader, bigEndian: boolean): void {
    const { majorVersion: major, minorVersion: minor, linkLayerType } = header;
    const taken = describeInterface(linkLayerType & 0x03ffffff, header.snapshotLength);
    if (major !== 2) {
      this.#error = new CaptureError(`${this.name}: pcap version ${major}.${minor} is not 2.x`);
      return;
    }
    if (!taken.link) {
      const fault = `link type ${linkTypeText(taken)} is not supported`;
      this.#error = new CaptureError(`${this.name}: ${fault}`);
      return;
    }
    this.interfaces.push(taken);
    this.#minor = minor;
    this.layout.bigEndian = bigEndian;
    this.layout.lengthsSwapped = minor < 3;
    const { snapshotLength: snapBytes } = header;
    this.#state.beginPcap({ bigEndian, nanoseconds: false, minor, snapBytes });
    const { bytes } = this.memory;
    bytes.set(buildPcapHeader(this.layout, linkLayerType, header.snapshotLength, minor), this.#at);
    this.#state.view.setInt32(this.#at + 8, header.gmtOffset, !bigEndian);
    this.#state.view.setUint32(this.#at + 12, header.timestampAccuracy, !bigEndian);
    this.#at += 24;
    this.#parsedBytes += 24;
  }

  /** Copies a packet behind a record header and describes it. */
  #place({ header, data }: Packet, index: number): void {
    const { bytes, descriptors } = this.memory;
    const little = !this.layout.bigEndian;
    const record = this.#at;
    this.#state.view.setUint32(record, header.timestampSeconds, little);
    this.#state.view.setUint32(record + 4, header.timestampMicroseconds, little);
    this.#state.view.setUint32(record + 8, header.capturedLength, little);
    this.#state.view.setUint32(record + 12, header.originalLength, little);
    bytes.set(data, record + HEADER_BYTES);
    const us = header.timestampSeconds * 1e6 + header.timestampMicroseconds;
    if (this.packets === 0) {
      this.#baseUs = us;
      this.#earliestUs = us;
      this.#latestUs = us;
    }
    this.#earliestUs = Math.min(this.#earliestUs, us);
    this.#latestUs = Math.max(this.#latestUs, us);
    const word = index * WORDS;
    descriptors.fill(0, word, word + WORDS);
    descriptors[word + abi.FRAME_ADDRESS / 4] = record + HEADER_BYTES;
    descriptors[word + abi.FRAME_CAPTURED_BYTES / 4] = data.length;
    const elapsedMs = Math.max(0, Math.trunc((us - this.#baseUs) / 1000));
    descriptors[word + abi.FRAME_TIME_MS / 4] = this.#clock.at(elapsedMs);
    descriptors[word + abi.FRAME_RECORD / 4] = record;
    descriptors[word + abi.FRAME_WIRE_BYTES / 4] = header.originalLength;
    this.packets++;
    this.capturedBytes += data.length;
    this.#at = record + HEADER_BYTES + data.length;
  }
}

/** Opens a classic pcap that arrives in chunks, by way of pcap-parser. */
export function openStream(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
  memory: FrameMemory,
): Promise<StreamSource> {
  return new StreamSource(name, chunks, memory).open();
}
