/**
 * The twin's TCP reset: the frame that answers a segment of no flow (RFC 9293 section 3.10.7.1),
 * built field by field from whole headers, checksums computed in full.
 */
import { readU16, u32, writeU16 } from "../../fixtures/bytes.ts";
import type { Link } from "../../fixtures/verify.ts";
import { internetChecksum } from "./checksum.ts";
import type { Parsed } from "./parse.ts";

const TCP_BYTES = 20;

/** The reset that answers a frame, or undefined when there is nothing to answer. */
export function resetOf(frame: Uint8Array, parsed: Parsed, link: Link): Uint8Array | undefined {
  const isWhole = parsed.transport + TCP_BYTES <= parsed.capturedEnd;
  if (parsed.protocol !== 6 || parsed.rst || parsed.fragment !== "none" || !isWhole)
    return undefined;
  const width = parsed.family === 4 ? 4 : 16;
  const source = frame.slice(parsed.destinationAt, parsed.destinationAt + width);
  const destination = frame.slice(parsed.sourceAt, parsed.sourceAt + width);
  const segment = tcpHeader(frame, parsed);
  const pseudo = Uint8Array.of(...source, ...destination, 0, 6, 0, TCP_BYTES);
  writeU16(segment, 16, internetChecksum(Uint8Array.of(...pseudo, ...segment)));
  const ip = parsed.family === 4 ? ipv4(source, destination) : ipv6(source, destination);
  return Uint8Array.of(...linkHeader(frame, parsed, link), ...ip, ...segment);
}

function linkHeader(frame: Uint8Array, parsed: Parsed, link: Link): Uint8Array {
  const header = frame.slice(0, parsed.network);
  if (link !== "ethernet") return header;
  header.set(frame.subarray(6, 12), 0);
  header.set(frame.subarray(0, 6), 6);
  return header;
}

function ipv4(source: Uint8Array, destination: Uint8Array): Uint8Array {
  const header = Uint8Array.of(
    0x45,
    0,
    0,
    40,
    0,
    0,
    0x40,
    0,
    64,
    6,
    0,
    0,
    ...source,
    ...destination,
  );
  writeU16(header, 10, internetChecksum(header));
  return header;
}

function ipv6(source: Uint8Array, destination: Uint8Array): Uint8Array {
  return Uint8Array.of(0x60, 0, 0, 0, 0, TCP_BYTES, 6, 64, ...source, ...destination);
}

function tcpHeader(frame: Uint8Array, parsed: Parsed): Uint8Array {
  const at = parsed.transport;
  const header = new Uint8Array(TCP_BYTES);
  writeU16(header, 0, readU16(frame, at + 2));
  writeU16(header, 2, readU16(frame, at));
  header[12] = 0x50;
  header[13] = parsed.ack ? 0x04 : 0x14;
  if (parsed.ack) {
    header.set(frame.subarray(at + 8, at + 12), 4);
    return header;
  }
  const payload = parsed.end - at - ((frame[at + 12] ?? 0) >> 4) * 4;
  const length = payload + Number(parsed.syn) + Number(parsed.fin);
  const sequence = readU16(frame, at + 4) * 65536 + readU16(frame, at + 6);
  header.set(u32((sequence + length) >>> 0), 8);
  return header;
}
