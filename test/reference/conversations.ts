/**
 * The slow twin of the conversation table: every frame on its own, a map from text to counts.
 * Later fragments belong where their first fragment belongs, once it has been seen.
 */

import { addressText, hex } from "../../fixtures/bytes.ts";
import { networkPacket } from "../../fixtures/verify.ts";
import type { CapturedFrame } from "./capture.ts";
import { hexOf, type Parsed, parseFrame } from "./parse.ts";

export interface TwinRow {
  key: string;
  source: string;
  packets: number;
  bytes: number;
  packetsFromSource: number;
  firstNs: bigint;
  lastNs: bigint;
}

const NAMES: Record<number, string> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6" };

/** Where a frame belongs: "protocol source destination zone", source and destination with ports. */
interface Place {
  protocol: string;
  source: string;
  destination: string;
  zone: string;
}

export function twinConversations(frames: readonly CapturedFrame[]): {
  rows: TwinRow[];
  unassigned: Record<string, number>;
} {
  const rows = new Map<string, TwinRow>();
  const firsts = new Map<string, Place>();
  const unassigned: Record<string, number> = {};
  for (const frame of frames) {
    const parsed = parseFrame(frame.bytes, frame.link, 0);
    if ("verdict" in parsed) {
      const place = parsed.verdict === "drop.truncated" ? placeOfCut(frame) : undefined;
      if (place) {
        add(rows, place, frame);
        continue;
      }
      unassigned[parsed.verdict] = (unassigned[parsed.verdict] ?? 0) + 1;
      continue;
    }
    const place = placeOf(parsed, frame.bytes);
    const datagram = [place.protocol, place.zone, parsed.fragmentId, ...bare(place)].join(" ");
    if (parsed.fragment === "first" && parsed.namedBy === "own") firsts.set(datagram, place);
    const found = parsed.namedBy === "later" ? (firsts.get(datagram) ?? place) : place;
    add(rows, found, frame);
  }
  return { rows: [...rows.values()], unassigned };
}

function bare({ source, destination }: Place): string[] {
  return [source, destination].map((end) => end.split(" ")[0] as string);
}

/** By its own tuple where it has ports; else by the addresses of its own header. */
function placeOf(parsed: Parsed, bytes: Uint8Array): Place {
  const { tuple, zone, protocol, namedBy } = parsed;
  const hasPorts = namedBy === "own" && (protocol === 6 || protocol === 17);
  const end = (digits: string, port: number) =>
    `${addressText(hex(digits))} ${hasPorts ? port : 0}`;
  // The parser says "vpc outer inner", the table leaves out what is not there.
  const [vpc, ...tags] = zone.split(" ");
  const zoneName = [vpc, ...tags.filter((id) => id !== "0")].join(".");
  const own = { protocol: NAMES[protocol] ?? String(protocol), zone: zoneName };
  if (namedBy === "own") {
    const { source, sourcePort, destination, destinationPort } = tuple;
    return {
      ...own,
      source: end(source, sourcePort),
      destination: end(destination, destinationPort),
    };
  }
  const width = parsed.family === 4 ? 4 : 16;
  return {
    ...own,
    source: end(hexOf(bytes, parsed.sourceAt, width), 0),
    destination: end(hexOf(bytes, parsed.destinationAt, width), 0),
  };
}

/** A frame that is cut short, if its protocol has no ports that could be missing. */
function placeOfCut({ bytes, link }: CapturedFrame): Place | undefined {
  const packet = networkPacket(bytes, link);
  if (packet === undefined) return undefined;
  const isIpv6 = (packet[0] ?? 0) >> 4 === 6;
  const [protocolAt, from, to, end] = isIpv6 ? [6, 8, 24, 40] : [9, 12, 16, 20];
  const protocol = packet[protocolAt as number];
  if (packet.length < (end as number) || protocol === undefined) return undefined;
  if (protocol === 6 || protocol === 17) return undefined;
  const address = (at?: number, until?: number) => `${addressText(packet.subarray(at, until))} 0`;
  return {
    protocol: NAMES[protocol] ?? String(protocol),
    zone: "0",
    source: address(from, to),
    destination: address(to, end),
  };
}

function add(rows: Map<string, TwinRow>, place: Place, { bytes, timeNs }: CapturedFrame): void {
  const { protocol, source, destination, zone } = place;
  const key = [protocol, ...[source, destination].sort(), zone].join(" ");
  const row = rows.get(key) ?? {
    key,
    source,
    packets: 0,
    bytes: 0,
    packetsFromSource: 0,
    firstNs: timeNs,
    lastNs: timeNs,
  };
  rows.set(key, row);
  row.packets += 1;
  row.bytes += bytes.length;
  if (row.source === source) row.packetsFromSource += 1;
  if (timeNs < row.firstNs) row.firstNs = timeNs;
  if (timeNs > row.lastNs) row.lastNs = timeNs;
}
