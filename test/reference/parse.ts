/**
 * The twin's parser: what is this frame, and which tuple names its flow? It answers the same
 * question as assembly/wire, from the same RFCs, in plain TypeScript with a bounds check on every
 * byte. Offsets count from the beginning of the frame.
 */

import { readU16 } from "../../fixtures/bytes.ts";
import type { Link } from "../../fixtures/verify.ts";
import type { VerdictName } from "../../host/engine/api.ts";

/** One side's tuple, in the direction of a packet. Addresses are hexadecimal digits. */
export interface Tuple {
  protocol: number;
  zone: string;
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
}

export type FragmentKind = "none" | "first" | "later";

export interface Parsed {
  family: 4 | 6;
  zone: string;
  /** Where the IP header begins. */
  network: number;
  /** Where the addresses stand that transport checksums cover. */
  sourceAt: number;
  destinationAt: number;
  protocol: number;
  /** Where the transport header begins and the packet ends, and how much of it is captured. */
  transport: number;
  end: number;
  capturedEnd: number;
  fragment: FragmentKind;
  fragmentId: number;
  /** "own": `tuple` names the flow; "error": the quoted packet; "later": the first fragment. */
  namedBy: "own" | "error" | "later";
  tuple: Tuple;
  /** An ICMP query that asks. */
  requests: boolean;
  fin: boolean;
  syn: boolean;
  rst: boolean;
  ack: boolean;
}

/** A verdict that the parser gives by itself. */
export interface Decided {
  verdict: VerdictName;
  /** Where it was IP at least. */
  zone?: string;
}

export function mirror(tuple: Tuple): Tuple {
  const { source, sourcePort, destination, destinationPort, ...rest } = tuple;
  return {
    ...rest,
    source: destination,
    sourcePort: destinationPort,
    destination: source,
    destinationPort: sourcePort,
  };
}

export function keyOf(tuple: Tuple): string {
  const { protocol, zone, source, sourcePort, destination, destinationPort } = tuple;
  return `${protocol} ${zone} ${source}:${sourcePort} ${destination}:${destinationPort}`;
}

const TRUNCATED: Decided = { verdict: "drop.truncated" };
const MALFORMED: Decided = { verdict: "drop.malformed" };
const NOT_IP: Decided = { verdict: "pass.non-ip" };

/** Parses a frame that arrived on a port with this link in this VPC. */
export function parseFrame(frame: Uint8Array, link: Link, vpc: number): Parsed | Decided {
  if (link === "raw") return parseByVersion(frame, `${vpc}`);
  if (link === "null") return parseLoopback(frame, `${vpc}`);
  const header = { ethernet: 14, sll: 16, sll2: 20 }[link];
  const typeAt = { ethernet: 12, sll: 14, sll2: 0 }[link];
  if (frame.length < header) return TRUNCATED;
  let type = readU16(frame, typeAt);
  let offset = header;
  const tags: number[] = [];
  if (type === 0x8903) {
    if (frame.length < offset + 16) return TRUNCATED;
    type = readU16(frame, offset + 14);
    offset += 16;
  }
  while (type === 0x8100 || type === 0x88a8 || type === 0x9100) {
    if (tags.length === 2) return NOT_IP;
    if (frame.length < offset + 4) return TRUNCATED;
    tags.push(readU16(frame, offset) & 0xfff);
    type = readU16(frame, offset + 2);
    offset += 4;
  }
  // VLAN 0 is a priority tag, not a VLAN.
  const zone = tags.some((id) => id !== 0) ? `${vpc} ${tags[0] ?? 0} ${tags[1] ?? 0}` : `${vpc}`;
  if (type === 0x0800) return { zone, ...parseIpv4(frame, offset, frame.length, zone) };
  if (type === 0x86dd) return { zone, ...parseIpv6(frame, offset, frame.length, zone) };
  return NOT_IP;
}

function parseByVersion(frame: Uint8Array, zone: string): Parsed | Decided {
  const first = frame[0];
  if (first === undefined) return TRUNCATED;
  if (first >> 4 === 4) return parseIpv4(frame, 0, frame.length, zone);
  if (first >> 4 === 6) return parseIpv6(frame, 0, frame.length, zone);
  return NOT_IP;
}

function parseLoopback(frame: Uint8Array, zone: string): Parsed | Decided {
  if (frame.length < 4) return TRUNCATED;
  const big = readU16(frame, 0) * 65536 + readU16(frame, 2);
  const little = new DataView(frame.buffer, frame.byteOffset).getUint32(0, true);
  const family = Math.min(big, little);
  if (family === 2) return parseIpv4(frame, 4, frame.length, zone);
  if ([10, 24, 28, 30].includes(family)) return parseIpv6(frame, 4, frame.length, zone);
  return NOT_IP;
}

/** Parses the IPv4 packet at `at`; nothing at or beyond `limit` is captured. */
export function parseIpv4(
  frame: Uint8Array,
  at: number,
  limit: number,
  zone: string,
): Parsed | Decided {
  if (limit < at + 20) return TRUNCATED;
  const headerBytes = ((frame[at] ?? 0) & 15) * 4;
  const totalLength = readU16(frame, at + 2) || limit - at;
  if ((frame[at] ?? 0) >> 4 !== 4 || headerBytes < 20 || totalLength < headerBytes)
    return MALFORMED;
  if (limit < at + headerBytes) return TRUNCATED;
  const flags = readU16(frame, at + 6);
  const later = (flags & 0x1fff) !== 0;
  const first = !later && (flags & 0x2000) !== 0;
  return parseTransport(frame, {
    family: 4,
    zone,
    network: at,
    sourceAt: at + 12,
    destinationAt: at + 16,
    protocol: frame[at + 9] ?? 0,
    transport: at + headerBytes,
    end: at + totalLength,
    capturedEnd: Math.min(limit, at + totalLength),
    fragment: later ? "later" : first ? "first" : "none",
    fragmentId: readU16(frame, at + 4),
  });
}

type Network = Omit<Parsed, "namedBy" | "tuple" | "requests" | "fin" | "syn" | "rst" | "ack">;

/** Parses the IPv6 packet at `at`, as `parseIpv4` does. */
export function parseIpv6(
  frame: Uint8Array,
  at: number,
  limit: number,
  zone: string,
): Parsed | Decided {
  if (limit < at + 40) return TRUNCATED;
  if ((frame[at] ?? 0) >> 4 !== 6) return MALFORMED;
  const payloadLength = readU16(frame, at + 4) || limit - at - 40;
  const network: Network = {
    family: 6,
    zone,
    network: at,
    sourceAt: at + 8,
    destinationAt: at + 24,
    protocol: frame[at + 6] ?? 0,
    transport: at + 40,
    end: at + 40 + payloadLength,
    capturedEnd: Math.min(limit, at + 40 + payloadLength),
    fragment: "none",
    fragmentId: 0,
  };
  for (let count = 0; isExtension(network.protocol) && network.fragment !== "later"; count++) {
    if (count === 8) return MALFORMED;
    const start = network.transport;
    const complete = start + 8 <= network.capturedEnd;
    const bytes = complete ? extensionBytes(frame, start, network.protocol) : 8;
    if (start + bytes > network.end) return MALFORMED;
    if (start + bytes > network.capturedEnd) return TRUNCATED;
    readExtension(frame, network, bytes);
    network.protocol = frame[start] ?? 0;
    network.transport = start + bytes;
  }
  return parseTransport(frame, network);
}

function isExtension(protocol: number): boolean {
  return [0, 43, 44, 51, 60, 135].includes(protocol);
}

function extensionBytes(frame: Uint8Array, at: number, protocol: number): number {
  const units = frame[at + 1] ?? 0;
  if (protocol === 44) return 8;
  return protocol === 51 ? (units + 2) * 4 : (units + 1) * 8;
}

/** What an extension header says about fragments and addresses. */
function readExtension(frame: Uint8Array, network: Network, bytes: number): void {
  const at = network.transport;
  if (network.protocol === 44) {
    const word = readU16(frame, at + 2);
    if (word >> 3 !== 0) network.fragment = "later";
    else if (word & 1) network.fragment = "first";
    network.fragmentId = readU16(frame, at + 4) * 65536 + readU16(frame, at + 6);
  }
  const type = frame[at + 2];
  if (network.protocol === 43 && (type === 0 || type === 2) && bytes >= 24 && frame[at + 3] !== 0) {
    network.destinationAt = at + bytes - 16;
  }
  if (network.protocol === 60) {
    const option = homeAddressAt(frame, at + 2, at + bytes);
    if (option !== undefined) network.sourceAt = option;
  }
}

function homeAddressAt(frame: Uint8Array, start: number, end: number): number | undefined {
  for (let at = start; at + 2 <= end; ) {
    if (frame[at] === 0) {
      at++;
      continue;
    }
    const length = frame[at + 1] ?? 0;
    if (at + 2 + length > end) return undefined;
    if (frame[at] === 201 && length === 16) return at + 2;
    at += 2 + length;
  }
  return undefined;
}

/** What part an ICMP message plays. */
export function icmpRole(family: 4 | 6, type: number): "request" | "reply" | "error" | "other" {
  const requests = family === 4 ? [8, 13, 15, 17] : [128];
  const replies = family === 4 ? [0, 14, 16, 18] : [129];
  const errors = family === 4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4];
  if (requests.includes(type)) return "request";
  if (replies.includes(type)) return "reply";
  return errors.includes(type) ? "error" : "other";
}

export function isIcmp(parsed: { family: 4 | 6; protocol: number }): boolean {
  return parsed.protocol === (parsed.family === 4 ? 1 : 58);
}

function parseTransport(frame: Uint8Array, network: Network): Parsed | Decided {
  const { family, protocol, transport, zone, sourceAt, destinationAt } = network;
  const width = family === 4 ? 4 : 16;
  const parsed: Parsed = {
    ...network,
    namedBy: "own",
    tuple: {
      protocol,
      zone,
      source: hexOf(frame, sourceAt, width),
      sourcePort: 0,
      destination: hexOf(frame, destinationAt, width),
      destinationPort: 0,
    },
    requests: false,
    fin: false,
    syn: false,
    rst: false,
    ack: false,
  };
  const hasPorts = protocol === 6 || protocol === 17;
  if (!hasPorts && !isIcmp(network)) return parsed;
  if (network.fragment === "later") return { ...parsed, namedBy: "later" };
  const total = network.end - transport;
  const present = network.capturedEnd - transport;
  if (total < (protocol === 6 ? 20 : 8)) return MALFORMED;
  if (present < (hasPorts ? 4 : 6)) return TRUNCATED;
  if (protocol === 6 && present > 12) {
    const headerBytes = ((frame[transport + 12] ?? 0) >> 4) * 4;
    if (headerBytes < 20 || headerBytes > total) return MALFORMED;
  }
  if (hasPorts) {
    parsed.tuple.sourcePort = readU16(frame, transport);
    parsed.tuple.destinationPort = readU16(frame, transport + 2);
    const flags = protocol === 6 && present >= 14 ? (frame[transport + 13] ?? 0) : 0;
    const bit = (mask: number) => (flags & mask) !== 0;
    return { ...parsed, fin: bit(1), syn: bit(2), rst: bit(4), ack: bit(16) };
  }
  const role = icmpRole(family, frame[transport] ?? 0);
  const identifier = readU16(frame, transport + 4);
  parsed.requests = role === "request";
  if (parsed.requests) parsed.tuple.sourcePort = identifier;
  if (role === "reply") parsed.tuple.destinationPort = identifier;
  return role === "error" ? { ...parsed, namedBy: "error" } : parsed;
}

export function hexOf(bytes: Uint8Array, at: number, count: number): string {
  return Buffer.from(bytes.subarray(at, at + count)).toString("hex");
}
