/**
 * Packets of established IPv4 flows of TCP and UDP, which nearly all packets are: verify, count,
 * rewrite. Whatever is not that takes the long way in batch.ts, which counts by the same functions.
 *
 * What differs from packet to packet without pattern (side, direction, protocol) is computed, never
 * branched on; what nearly always is the same is branched on.
 */
import {
  COUNTER_VERDICTS,
  FLOW_FLAG_OPEN,
  FLOW_LAST_SEEN_MS,
  FLOW_OCTETS_CLIENT,
  FLOW_PACKETS_CLIENT,
  FLOW_SERVICE,
  FLOW_STATE,
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  FRAME_PORT_OUT,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  KEY_PROTOCOL,
  LINK_ETHERNET,
  PORT_BYTES,
  PORT_LINK,
  PORT_NONE,
  PORT_SIDE_CLIENT,
  PORT_SIDE_ROUTED,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  SIDE_SERVICE,
  TALLY_BYTES,
  TALLY_PACKETS_SHIFT,
  TRAITS_BYTES,
  USAGE_BYTES,
  USAGE_OCTETS_CLIENT,
  USAGE_PACKETS_CLIENT,
  VERDICT_ABSORB_HEADER,
  VERDICT_FORWARD,
} from "./abi";
import { countBy, countUp } from "./counters";
import { isIdle, isSteady } from "./flow/state";
import { handleOf4 } from "./flow/table";
import { counters, ports, tallies, traits, usage } from "./memory";
import { Packet, PROTOCOL_UDP } from "./packet";
import { rewriteShifted, rewriteStream } from "./pp2/fast";
import { streamFlags } from "./pp2/stream";
import { directionOf, networkDelta, rewriteHead, rewriteSum } from "./rewrite";
import { isVlan } from "./wire/link";
import { routeOfZone } from "./zone";

/** Instead of a direction: the packet needs anything more. */
export const UNDONE: u32 = 2;
/** Instead of a direction: it leaves with the PROXY header that it has caused, and all is counted. */
export const ABSORBED: u32 = 3;
/**
 * An established IPv4 flow of TCP or UDP: returns the packet's direction, UNDONE or ABSORBED. The caller
 * counts the verdict, and the packet for its service, of those that have a direction.
 */
export function finishFast(descriptor: usize, packet: Packet, port: usize): u32 {
  const record = <usize>packet.candidate;
  if (record == 0) return UNDONE;
  const sides = <u32>load<u8>(port, PORT_SIDES);
  let side = u32((sides & BOTH_SIDES) == PORT_SIDE_SERVICE);
  if (!holds(record, side, packet)) {
    if ((sides & BOTH_SIDES) != BOTH_SIDES) return UNDONE;
    side = SIDE_SERVICE;
    if (!holds(record, side, packet)) return UNDONE;
  }
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  if (isIdle(record, nowMs)) return UNDONE;
  const direction = directionOf(record, side, packet);
  if (!isSteady(load<u8>(record, FLOW_STATE), direction, packet.flags)) return UNDONE;
  const stream = streamFlags(record);
  const service = traitsOf(record);
  if (<u16>service != 0) return UNDONE; // TRAIT_POLICED
  // A datagram that gets a header.
  if (stream >= FLOW_FLAG_OPEN && packet.protocol == PROTOCOL_UDP) return UNDONE;
  accountFlow(descriptor, record, direction, nowMs);
  if (isRouted(sides)) routeOut(descriptor, record, side);
  if (stream < FLOW_FLAG_OPEN) {
    // As rewriteFast does, which would be a call.
    rewriteHead(packet, record, side, direction, networkDelta(record, side));
    if (stream == 0) rewriteSum(packet, record, side);
    else rewriteShifted(packet, record, service >> 16, side, direction);
  } else {
    const verdict = rewriteStream(descriptor, packet, record, side, direction);
    if (verdict != VERDICT_FORWARD) return absorb(descriptor, record, direction, verdict);
  }
  mark(descriptor, handleOf4(record), side, direction);
  return direction;
}

function absorb(descriptor: usize, record: usize, direction: u32, verdict: u32): u32 {
  assert(verdict == VERDICT_ABSORB_HEADER, "pp2: a packet on the fast path does not leave");
  store<u64>(descriptor, verdict, FRAME_VERDICT);
  countUp(counters + COUNTER_VERDICTS + VERDICT_ABSORB_HEADER * 8);
  const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  tally(load<u16>(record, FLOW_SERVICE), direction, 1, bytes);
  return ABSORBED;
}

const BOTH_SIDES: u32 = PORT_SIDE_CLIENT | PORT_SIDE_SERVICE;

/** TRAIT_* of the flow's service. */
function traitsOf(record: usize): u32 {
  return load<u32>(traits + <usize>load<u16>(record, FLOW_SERVICE) * TRAITS_BYTES);
}

function isRouted(sides: u32): bool {
  return (sides & PORT_SIDE_ROUTED) != 0;
}

/** Sends the frame to the port of the VPC that its flow's other side lies in. */
export function routeOut(descriptor: usize, record: usize, side: u32): void {
  const zone = load<u32>(record + ((<usize>(side ^ 1)) << 4), KEY_PROTOCOL) >> 8;
  const route = routeOfZone(zone);
  if (<u16>route != <u16>PORT_NONE) store<u16>(descriptor, <u16>route, FRAME_PORT_OUT);
  if (route > 0xffff) retag(descriptor, route >> 16);
}

/** Gives a tagged Ethernet frame the VLAN by which the VPC that it leaves to is known. */
function retag(descriptor: usize, vlan: u32): void {
  const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
  const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  if (load<u8>(port, PORT_LINK) != LINK_ETHERNET || !isVlan(load<u16>(frame, 12))) return;
  const priority = <u32>bswap<u16>(load<u16>(frame, 14)) & 0xf000;
  store<u16>(frame, bswap<u16>(<u16>(priority | vlan)), 14);
}

/** True when the IPv4 packet's tuple is the record's tuple of `side`. */
function holds(record: usize, side: u32, packet: Packet): bool {
  const key = record + ((<usize>side) << 4);
  return ((load<u64>(key) ^ packet.addresses) | (load<u64>(key, 8) ^ packet.rest)) == 0;
}

const OCTETS_MASK: u64 = 0x0000ffffffffffff;

/** Counts a packet of a flow, for its service as well, and moves the flow's clock. */
export function account(descriptor: usize, record: usize, direction: u32, nowMs: u32): void {
  accountFlow(descriptor, record, direction, nowMs);
  const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  countUsage(load<u16>(record, FLOW_SERVICE), direction, bytes);
}

function accountFlow(descriptor: usize, record: usize, direction: u32, nowMs: u32): void {
  const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const octetCount = record + <usize>(FLOW_OCTETS_CLIENT + (direction << 3));
  const before = load<u64>(octetCount);
  store<u64>(octetCount, before ^ ((before ^ (before + bytes)) & OCTETS_MASK));
  const packetCount = record + <usize>(FLOW_PACKETS_CLIENT + (direction << 2));
  store<u32>(packetCount, load<u32>(packetCount) + 1);
  store<u32>(record, nowMs, FLOW_LAST_SEEN_MS);
}

/** Counts packets of one direction for their service: one word for them and their octets. */
export function tally(service: u32, direction: u32, count: u32, octets: u64): void {
  const cell = tallies + <usize>(service * TALLY_BYTES + (direction << 3));
  const both = load<u64>(cell) + ((<u64>count) << (<u64>TALLY_PACKETS_SHIFT)) + octets;
  store<u64>(cell, both);
  if (<i64>both < 0) moveTally(service, direction);
}

const TALLY_OCTETS_MASK: u64 = ((<u64>1) << (<u64>TALLY_PACKETS_SHIFT)) - 1;

/** Moves what a direction has tallied to the service's usage, before it runs over. */
function moveTally(service: u32, direction: u32): void {
  const cell = tallies + <usize>(service * TALLY_BYTES + (direction << 3));
  const both = load<u64>(cell);
  const used = usage + <usize>(service * USAGE_BYTES + (direction << 3));
  countBy(used + USAGE_PACKETS_CLIENT, both >> <u64>TALLY_PACKETS_SHIFT);
  countBy(used + USAGE_OCTETS_CLIENT, both & TALLY_OCTETS_MASK);
  store<u64>(cell, 0);
}

export function countUsage(service: u32, direction: u32, bytes: u64): void {
  const used = usage + <usize>(service * USAGE_BYTES + (direction << 3));
  countUp(used + USAGE_PACKETS_CLIENT);
  countBy(used + USAGE_OCTETS_CLIENT, bytes);
}

/** Writes the verdict of a frame that goes out translated, without counting it. */
export function mark(descriptor: usize, handle: u32, side: u32, direction: u32): void {
  const verdictAndWay = VERDICT_FORWARD | (side << 16) | (direction << 24);
  store<u64>(descriptor, <u64>verdictAndWay | ((<u64>handle) << 32), FRAME_VERDICT);
}

export function forward(descriptor: usize, handle: u32, side: u32, direction: u32): void {
  mark(descriptor, handle, side, direction);
  countUp(counters + COUNTER_VERDICTS + VERDICT_FORWARD * 8);
}
