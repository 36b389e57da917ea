/**
 * TCP segments in bare IP packets, built and read the obvious way for endpoints of tests. Reading
 * checks every checksum: an endpoint accepts nothing that a kernel would not.
 */
import { concat, internetChecksum, u16, u32 } from "../fixtures/bytes.ts";

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;
export const URG = 32;

export interface SegmentOptions {
  mss?: number;
  scale?: number;
  sackPermitted?: boolean;
  timestamps?: [value: number, echo: number];
  sack?: [left: number, right: number][];
  fastOpen?: Uint8Array;
  /** NOPs in front of the options, so that they stand on any byte. */
  shift?: number;
}

export interface Segment {
  source: Uint8Array;
  destination: Uint8Array;
  sourcePort: number;
  destinationPort: number;
  /** Mod 2^32, as all numbers here. */
  seq: number;
  ack: number;
  flags: number;
  window: number;
  urgent: number;
  options: SegmentOptions;
  payload: Uint8Array;
}

export function build(segment: Segment): Uint8Array {
  const { source, destination, payload } = segment;
  const options = optionBytes(segment.options);
  const head = concat(
    u16(segment.sourcePort),
    u16(segment.destinationPort),
    u32(segment.seq),
    u32(segment.ack),
    Uint8Array.of(((20 + options.length) / 4) << 4, segment.flags),
    u16(segment.window),
    u16(0),
    u16(segment.urgent),
    options,
    payload,
  );
  const pseudo = concat(source, destination, u32(head.length), u32(6));
  head.set(u16(internetChecksum(pseudo, head)), 16);
  if (source.length === 16) {
    const ip = concat(u32(0x60000000), u16(head.length), Uint8Array.of(6, 64), source, destination);
    return concat(ip, head);
  }
  const ip = concat(
    Uint8Array.of(0x45, 0),
    u16(20 + head.length),
    Uint8Array.of(0, 7, 0x40, 0, 64, 6, 0, 0),
    source,
    destination,
  );
  ip.set(u16(internetChecksum(ip)), 10);
  return concat(ip, head);
}

function optionBytes(options: SegmentOptions): Uint8Array {
  const parts: Uint8Array[] = [new Uint8Array(options.shift ?? 0).fill(1)];
  if (options.mss !== undefined) parts.push(Uint8Array.of(2, 4), u16(options.mss));
  if (options.sackPermitted) parts.push(Uint8Array.of(4, 2));
  if (options.scale !== undefined) parts.push(Uint8Array.of(3, 3, options.scale));
  if (options.timestamps) parts.push(Uint8Array.of(8, 10), ...options.timestamps.map(u32));
  if (options.fastOpen) {
    parts.push(Uint8Array.of(34, 2 + options.fastOpen.length), options.fastOpen);
  }
  if (options.sack && options.sack.length > 0) {
    parts.push(Uint8Array.of(5, 2 + 8 * options.sack.length), ...options.sack.flat().map(u32));
  }
  const bytes = concat(...parts);
  return concat(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4).fill(1));
}

/** @throws Error when a length or a checksum is wrong */
export function read(packet: Uint8Array): Segment {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const isIpv6 = (packet[0] ?? 0) >> 4 === 6;
  const ipBytes = isIpv6 ? 40 : 20;
  const total = isIpv6 ? 40 + view.getUint16(4) : view.getUint16(2);
  if (total !== packet.length)
    throw new Error(`IP says ${total} bytes, ${packet.length} are there`);
  const addressAt = isIpv6 ? 8 : 12;
  const size = isIpv6 ? 16 : 4;
  const source = packet.slice(addressAt, addressAt + size);
  const destination = packet.slice(addressAt + size, addressAt + 2 * size);
  if (!isIpv6 && internetChecksum(packet.subarray(0, 20)) !== 0) throw new Error("IP checksum");
  const tcp = packet.subarray(ipBytes);
  const pseudo = concat(source, destination, u32(tcp.length), u32(6));
  if (internetChecksum(pseudo, tcp) !== 0) throw new Error("TCP checksum");
  const headBytes = ((tcp[12] ?? 0) >> 4) * 4;
  return {
    source,
    destination,
    sourcePort: view.getUint16(ipBytes),
    destinationPort: view.getUint16(ipBytes + 2),
    seq: view.getUint32(ipBytes + 4),
    ack: view.getUint32(ipBytes + 8),
    flags: tcp[13] ?? 0,
    window: view.getUint16(ipBytes + 14),
    urgent: view.getUint16(ipBytes + 18),
    options: readOptions(tcp.subarray(20, headBytes)),
    payload: tcp.slice(headBytes),
  };
}

function readOptions(bytes: Uint8Array): SegmentOptions {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const options: SegmentOptions = {};
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const kind = bytes[at] ?? 0;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = bytes[at + 1] ?? 0;
    if (length < 2 || at + length > bytes.length) throw new Error(`option ${kind} of ${length}`);
    if (kind === 2) options.mss = view.getUint16(at + 2);
    if (kind === 3) options.scale = bytes[at + 2] ?? 0;
    if (kind === 4) options.sackPermitted = true;
    if (kind === 8) options.timestamps = [view.getUint32(at + 2), view.getUint32(at + 6)];
    if (kind === 34) options.fastOpen = bytes.slice(at + 2, at + length);
    if (kind === 5) {
      if (length % 8 !== 2) throw new Error(`SACK of ${length} bytes`);
      options.sack = [];
      for (let block = at + 2; block < at + length; block += 8) {
        options.sack.push([view.getUint32(block), view.getUint32(block + 4)]);
      }
    }
    at += length;
  }
  return options;
}
