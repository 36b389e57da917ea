/**
 * A packet that a five-tuple would begin a flow with: a SYN, a datagram without data, an echo
 * request; IPv4 or IPv6 (RFC 791, RFC 8200) without a link header, checksums right (RFC 1071).
 */
import { addressBytes } from "../address.ts";

export interface AskedTuple {
  protocol: "tcp" | "udp" | "icmp";
  source: { address: string; port: number };
  destination: { address: string; port: number };
}

const TUPLE = /^(tcp|udp|icmp)\s+(\S+)\s+(\S+)$/i;
const NUMBERS = { tcp: 6, udp: 17, icmp: 1, icmpv6: 58 };

/**
 * Reads `tcp 10.0.0.1:5000 10.0.0.2:80`; IPv6 addresses stand in brackets, ICMP has no ports.
 * @throws TypeError that says what is wrong
 */
export function parseTuple(text: string): AskedTuple {
  const [, word = "", from = "", to = ""] = TUPLE.exec(text.trim()) ?? [];
  if (word === "") {
    throw new TypeError(`"${text}" is not such as "tcp 10.0.0.1:5000 10.0.0.2:80"`);
  }
  const protocol = word.toLowerCase() as AskedTuple["protocol"];
  const [source, destination] = [from, to].map((end) => parseEnd(end, protocol !== "icmp"));
  const tuple = { protocol, source, destination } as AskedTuple;
  const isMixed = tuple.source.address.includes(":") !== tuple.destination.address.includes(":");
  if (isMixed) throw new TypeError(`"${from}" and "${to}" are not of one family`);
  return tuple;
}

function parseEnd(text: string, hasPort: boolean): { address: string; port: number } {
  const [, six, four, portText] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(text) ?? [];
  // Without a port, IPv6 needs no brackets.
  const address = six ?? four ?? (hasPort ? "" : text);
  const port = Number(portText ?? 0);
  if (hasPort && (portText === undefined || port > 65_535)) {
    throw new TypeError(`"${text}" is not an address and a port from 0 to 65535`);
  }
  addressBytes(address);
  return { address, port };
}

/** The packet's bytes, from its IP header on. */
export function packetOf({ protocol, source, destination }: AskedTuple): Uint8Array {
  const [from, to] = [addressBytes(source.address), addressBytes(destination.address)];
  const isIpv6 = from.length === 16;
  const segment = segmentOf(protocol, isIpv6, source.port, destination.port);
  const number = NUMBERS[isIpv6 && protocol === "icmp" ? "icmpv6" : protocol];
  const header = isIpv6 ? header6(from, to, number, segment) : header4(from, to, number, segment);
  const at = { tcp: 16, udp: 6, icmp: 2 }[protocol];
  const hasPseudo = protocol !== "icmp" || isIpv6;
  const pseudo = hasPseudo ? [from, to, Uint8Array.of(0, number, 0, segment.length)] : [];
  setChecksum(segment, at, [...pseudo, segment]);
  const packet = new Uint8Array(header.length + segment.length);
  packet.set(header);
  packet.set(segment, header.length);
  return packet;
}

function segmentOf(
  protocol: AskedTuple["protocol"],
  isIpv6: boolean,
  from: number,
  to: number,
): Uint8Array {
  if (protocol === "icmp") return Uint8Array.of(isIpv6 ? 128 : 8, 0, 0, 0, 0, 1, 0, 1);
  const ports = [from >> 8, from & 255, to >> 8, to & 255];
  if (protocol === "udp") return Uint8Array.of(...ports, 0, 8, 0, 0);
  const numbers = [0, 0, 0, 1, 0, 0, 0, 0];
  return Uint8Array.of(...ports, ...numbers, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0);
}

function header4(from: Uint8Array, to: Uint8Array, protocol: number, body: Uint8Array): Uint8Array {
  const bytes = 20 + body.length;
  const header = Uint8Array.of(
    0x45,
    0,
    0,
    bytes,
    0,
    0,
    0x40,
    0,
    64,
    protocol,
    0,
    0,
    ...from,
    ...to,
  );
  setChecksum(header, 10, [header]);
  return header;
}

function header6(from: Uint8Array, to: Uint8Array, protocol: number, body: Uint8Array): Uint8Array {
  return Uint8Array.of(0x60, 0, 0, 0, 0, body.length, protocol, 64, ...from, ...to);
}

/** Every part has an even number of bytes. */
function setChecksum(bytes: Uint8Array, at: number, parts: readonly Uint8Array[]): void {
  let sum = 0;
  for (const part of parts) {
    for (let index = 0; index < part.length; index += 2) {
      sum += ((part[index] as number) << 8) | (part[index + 1] as number);
    }
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  bytes[at] = (~sum >> 8) & 0xff;
  bytes[at + 1] = ~sum & 0xff;
}
