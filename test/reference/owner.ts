/**
 * The twin of capture/select: whose frame is this? One frame at a time, by the twin's parser, with
 * a map that forgets nothing.
 */
import type { Link } from "../../fixtures/verify.ts";
import { type Parsed, parseFrame, parseIpv4, parseIpv6 } from "./parse.ts";

const LIFETIME_MS = 30_000;

export class Lanes {
  /** Lane and time of the last first fragment, by datagram. */
  readonly #datagrams = new Map<string, { lane: number; timeMs: number }>();

  /** The lane of a frame, 0 to 63; frames must come in order. */
  laneOf(frame: Uint8Array, link: Link, vpc: number, timeMs: number): number {
    const parsed = parseFrame(frame, link, vpc);
    if ("verdict" in parsed) return plainLane(frame, link);
    const datagram = identity(parsed, frame);
    if (parsed.namedBy === "later") {
      const first = this.#datagrams.get(datagram);
      if (first === undefined || timeMs - first.timeMs > LIFETIME_MS) return 0;
      return first.lane;
    }
    const named = parsed.namedBy === "error" ? quotedOf(parsed, frame) : parsed;
    if (named === undefined) return 0;
    const { sourcePort, destinationPort } = named.tuple;
    const lane = (sourcePort ^ destinationPort) & 63;
    if (parsed.fragment === "first" && parsed.namedBy === "own") {
      this.#datagrams.set(datagram, { lane, timeMs });
    }
    return lane;
  }
}

/** The worker of a lane: lanes are dealt out in an order in which neighbours lie far apart. */
export function workerOf(lane: number, workers: number): number {
  const place = (lane * 37) % 64;
  return Math.floor((place * workers) / 64);
}

/** A frame that is dropped later still has ports where headers are as short as they can be. */
function plainLane(frame: Uint8Array, link: Link): number {
  const byte = (at: number) => frame[at] as number;
  const isPlain =
    link === "ethernet" &&
    frame.length >= 42 &&
    byte(12) === 8 &&
    byte(13) === 0 &&
    byte(14) === 0x45 &&
    (byte(20) & 0x3f) === 0 &&
    byte(21) === 0 &&
    (byte(23) === 6 || byte(23) === 17);
  return isPlain ? (byte(35) ^ byte(37)) & 63 : 0;
}

/** The packet that an ICMP error quotes, if its own tuple names it. */
function quotedOf(outer: Parsed, frame: Uint8Array): Parsed | undefined {
  const parse = outer.family === 4 ? parseIpv4 : parseIpv6;
  const at = outer.transport + 8;
  const quoted = parse(frame, at, Math.max(outer.capturedEnd, at), outer.zone);
  return "verdict" in quoted || quoted.namedBy !== "own" ? undefined : quoted;
}

function identity(parsed: Parsed, frame: Uint8Array): string {
  const bytes = parsed.family === 4 ? 4 : 16;
  const address = (at: number) => frame.subarray(at, at + bytes).join(".");
  const ends = `${address(parsed.sourceAt)} ${address(parsed.destinationAt)}`;
  return `${parsed.family} ${ends} ${parsed.protocol} ${parsed.fragmentId} ${parsed.zone}`;
}
