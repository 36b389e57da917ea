/**
 * Builds the bytes of captures: file headers, interfaces and records, pcap and pcapng.
 * Every function returns a whole header, record or block. Instants are ns since 1970-01-01 UTC.
 */
import {
  ENHANCED_PACKET,
  INTERFACE_DESCRIPTION,
  OBSOLETE_PACKET,
  PCAP_FILE_HEADER_BYTES,
  PCAP_RECORD_HEADER_BYTES,
  SECTION_HEADER,
  SIMPLE_PACKET,
} from "./format.ts";
import type { RecordLayout } from "./source.ts";

const NS_PER_SECOND = 1_000_000_000n;
const NS_PER_US = 1_000n;

export type PcapLayout = Omit<RecordLayout, "format">;

export interface Packet {
  timeNs: bigint;
  bytes: Uint8Array;
  /** Default: all of it was captured. */
  wireBytes?: number;
}

/** The 24 bytes at the begin of a pcap, version 2.4 unless `minor` says otherwise. */
export function buildPcapHeader(
  layout: PcapLayout,
  linkType: number,
  snapBytes = 262144,
  minor = 4,
): Uint8Array {
  const bytes = new Uint8Array(PCAP_FILE_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  const little = !layout.bigEndian;
  view.setUint32(0, layout.nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4, little);
  view.setUint16(4, 2, little);
  view.setUint16(6, minor, little);
  view.setUint32(16, snapBytes, little);
  view.setUint32(20, linkType, little);
  return bytes;
}

export function buildPcapRecord(layout: PcapLayout, packet: Packet): Uint8Array {
  const { timeNs, bytes } = packet;
  const record = new Uint8Array(PCAP_RECORD_HEADER_BYTES + bytes.length);
  const view = new DataView(record.buffer);
  const little = !layout.bigEndian;
  const fraction = timeNs % NS_PER_SECOND;
  view.setUint32(0, Number(timeNs / NS_PER_SECOND), little);
  view.setUint32(4, Number(layout.nanoseconds ? fraction : fraction / NS_PER_US), little);
  view.setUint32(layout.lengthsSwapped ? 12 : 8, bytes.length, little);
  view.setUint32(layout.lengthsSwapped ? 8 : 12, packet.wireBytes ?? bytes.length, little);
  record.set(bytes, PCAP_RECORD_HEADER_BYTES);
  return record;
}

/** A pcapng option: its code and value. */
export type OptionBytes = [code: number, value: Uint8Array];

/** Any pcapng block: `body` and options padded to 4 bytes, between its two lengths. */
export function buildBlock(
  bigEndian: boolean,
  type: number,
  body: Uint8Array,
  options: readonly OptionBytes[] = [],
): Uint8Array {
  const padded = (bytes: number) => (bytes + 3) & ~3;
  let optionBytes = options.length ? 4 : 0;
  for (const [, value] of options) optionBytes += 4 + padded(value.length);
  const block = new Uint8Array(12 + padded(body.length) + optionBytes);
  const view = new DataView(block.buffer);
  view.setUint32(0, type, !bigEndian);
  view.setUint32(4, block.length, !bigEndian);
  block.set(body, 8);
  let at = 8 + padded(body.length);
  for (const [code, value] of options) {
    view.setUint16(at, code, !bigEndian);
    view.setUint16(at + 2, value.length, !bigEndian);
    block.set(value, at + 4);
    at += 4 + padded(value.length);
  }
  view.setUint32(block.length - 4, block.length, !bigEndian);
  return block;
}

export function buildSection(bigEndian: boolean, options?: readonly OptionBytes[]): Uint8Array {
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  view.setUint32(0, 0x1a2b3c4d, !bigEndian);
  view.setUint16(4, 1, !bigEndian);
  view.setBigInt64(8, -1n, !bigEndian);
  return buildBlock(bigEndian, SECTION_HEADER, body, options);
}

export interface InterfaceBytes {
  linkType: number;
  snapBytes?: number;
  name?: string;
  /** if_tsresol as it stands in the file; default 6 (us). */
  resolution?: number;
  /** if_tsoffset in seconds. */
  offsetSeconds?: bigint;
}

export function buildInterface(bigEndian: boolean, taken: InterfaceBytes): Uint8Array {
  const body = new Uint8Array(8);
  const view = new DataView(body.buffer);
  view.setUint16(0, taken.linkType, !bigEndian);
  view.setUint32(4, taken.snapBytes ?? 0, !bigEndian);
  const options: OptionBytes[] = [];
  if (taken.name) options.push([2, new TextEncoder().encode(taken.name)]);
  if (taken.resolution !== undefined) options.push([9, Uint8Array.of(taken.resolution)]);
  if (taken.offsetSeconds !== undefined) {
    const value = new Uint8Array(8);
    new DataView(value.buffer).setBigInt64(0, taken.offsetSeconds, !bigEndian);
    options.push([14, value]);
  }
  return buildBlock(bigEndian, INTERFACE_DESCRIPTION, body, options);
}

export interface PacketBlock {
  interface: number;
  /** In units of the interface's clock. */
  units: bigint;
  bytes: Uint8Array;
  wireBytes?: number;
  comment?: string;
}

/** An enhanced packet block, or with `obsolete` a packet block. */
export function buildPacket(bigEndian: boolean, packet: PacketBlock, obsolete = false): Uint8Array {
  const body = new Uint8Array(20 + packet.bytes.length);
  const view = new DataView(body.buffer);
  if (obsolete) view.setUint16(0, packet.interface, !bigEndian);
  else view.setUint32(0, packet.interface, !bigEndian);
  view.setUint32(4, Number((packet.units >> 32n) & 0xffffffffn), !bigEndian);
  view.setUint32(8, Number(packet.units & 0xffffffffn), !bigEndian);
  view.setUint32(12, packet.bytes.length, !bigEndian);
  view.setUint32(16, packet.wireBytes ?? packet.bytes.length, !bigEndian);
  body.set(packet.bytes, 20);
  const comment: OptionBytes[] = packet.comment
    ? [[1, new TextEncoder().encode(packet.comment)]]
    : [];
  return buildBlock(bigEndian, obsolete ? OBSOLETE_PACKET : ENHANCED_PACKET, body, comment);
}

export function buildSimplePacket(
  bigEndian: boolean,
  bytes: Uint8Array,
  wireBytes = bytes.length,
): Uint8Array {
  const body = new Uint8Array(4 + bytes.length);
  new DataView(body.buffer).setUint32(0, wireBytes, !bigEndian);
  body.set(bytes, 4);
  return buildBlock(bigEndian, SIMPLE_PACKET, body);
}

/**
 * A record like `record` for a frame that has grown or shrunk: its time, interface and options stay.
 */
export function rebuildRecord(
  layout: RecordLayout,
  record: Uint8Array,
  frame: Uint8Array,
  wireBytes: number,
): Uint8Array {
  const little = !layout.bigEndian;
  const old = new DataView(record.buffer, record.byteOffset, record.byteLength);
  if (layout.format === "pcap") {
    const bytes = new Uint8Array(PCAP_RECORD_HEADER_BYTES + frame.length);
    bytes.set(record.subarray(0, 8));
    const view = new DataView(bytes.buffer);
    view.setUint32(layout.lengthsSwapped ? 12 : 8, frame.length, little);
    view.setUint32(layout.lengthsSwapped ? 8 : 12, wireBytes, little);
    bytes.set(frame, PCAP_RECORD_HEADER_BYTES);
    return bytes;
  }
  const type = old.getUint32(0, little);
  if (type === SIMPLE_PACKET) return buildSimplePacket(layout.bigEndian, frame, wireBytes);
  const options = record.subarray(28 + ((old.getUint32(20, little) + 3) & ~3), record.length - 4);
  const body = new Uint8Array(20 + ((frame.length + 3) & ~3) + options.length);
  body.set(record.subarray(8, 20));
  const view = new DataView(body.buffer);
  view.setUint32(12, frame.length, little);
  view.setUint32(16, wireBytes, little);
  body.set(frame, 20);
  body.set(options, body.length - options.length);
  return buildBlock(layout.bigEndian, type, body);
}
