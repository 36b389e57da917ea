/**
 * ICMP errors in the twin (RFC 792, RFC 4443, RFC 5508): the quoted packet names the flow; quote,
 * outer addresses and checksums get their other side. An error keeps no flow alive.
 */

import { addressBytes } from "../../fixtures/bytes.ts";
import type { PortOptions, VerdictName } from "../../host/engine/api.ts";
import type { Direction, Outcome, Twin, TwinFlow } from "./engine.ts";
import { hexOf, mirror, type Parsed, parseIpv4, parseIpv6 } from "./parse.ts";
import { updateError, writeAddress, writeTuple } from "./rewrite.ts";

export function translateError(
  twin: Twin,
  frame: Uint8Array,
  outer: Parsed,
  port: PortOptions,
  timeMs: number,
): Outcome | VerdictName {
  const parse = outer.family === 4 ? parseIpv4 : parseIpv6;
  const at = outer.transport + 8;
  const quoted = parse(frame, at, Math.max(outer.capturedEnd, at), outer.zone);
  if ("verdict" in quoted) return quoted.verdict;
  if (quoted.namedBy === "error") return "drop.malformed";
  if (quoted.namedBy === "later") return "drop.no-flow";
  const found = twin.find(quoted.tuple, port, timeMs);
  if (found === undefined || twin.isExpired(found.flow, timeMs)) return "drop.no-flow";
  const { flow, side, direction } = found;
  const out = frame.slice();
  // The error travels against the quoted packet: its source is at the quote's destination.
  const from: Direction = direction === "from-client" ? "from-service" : "from-client";
  const here = direction === "from-client" ? flow[side] : mirror(flow[side]);
  const there = twin.tupleOut(found);
  const width = outer.family === 4 ? 4 : 16;
  const hides = from === "from-client" && side === "client" && hasPool(twin, flow, width);
  if (hides || hexOf(frame, outer.sourceAt, width) === here.destination) {
    writeAddress(out, outer.sourceAt, there.destination);
  }
  if (hexOf(frame, outer.destinationAt, width) === here.source) {
    writeAddress(out, outer.destinationAt, there.source);
  }
  writeTuple(out, quoted, there);
  updateError(frame, out, outer);
  return { verdict: "forward", frame: out, portOut: -1, flow, side, direction: from };
}

function hasPool(twin: Twin, flow: TwinFlow, width: number): boolean {
  const addresses = twin.services[flow.madeBy]?.sourceAddresses ?? [];
  return addresses.some((address) => addressBytes(address).length === width);
}
