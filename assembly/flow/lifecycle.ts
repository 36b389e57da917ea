/**
 * How flows begin: made by the service of the port that their first packet enters, begun again in
 * place when a packet finds them expired, reopened by a SYN on the tuple of an ended connection.
 *
 * Whoever begins again keeps the translation: a client that returns meets the same tuple.
 */
import {
  COUNTER_FLOWS_ACTIVE,
  COUNTER_FLOWS_ACTIVE_MAX,
  COUNTER_FLOWS_CREATED,
  COUNTER_FLOWS_EXPIRED,
  COUNTER_FLOWS_ICMP,
  COUNTER_FLOWS_OTHER,
  COUNTER_FLOWS_REOPENED,
  COUNTER_FLOWS_SPILLED,
  COUNTER_FLOWS_TCP,
  COUNTER_FLOWS_UDP,
  DIRECTION_FROM_CLIENT,
  DIRECTION_FROM_SERVICE,
  FLOW_FLAG_CLIENT_HIGH,
  FLOW_FLAG_INDEXED,
  FLOW_FLAG_RETIRED,
  FLOW_FLAG_SERVICE_HIGH,
  FLOW_FLAG_SPILLED,
  FLOW_FLAGS,
  FLOW_LAST_SEEN_MS,
  FLOW_OCTETS_CLIENT,
  FLOW_OCTETS_SERVICE,
  FLOW_PACKETS_CLIENT,
  FLOW_SERVICE,
  FLOW_STATE,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_ICMP,
  FLOW_STATE_UDP,
  KEY_PROTOCOL,
  PORT_BYTES,
  PORT_PEER,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  PORT_VPC,
  PORT_ZONE,
  ROUTE_BLACKHOLE,
  SERVICE_BYTES,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAGS,
  SERVICE_NONE,
  SERVICE_TRAITS,
  SERVICE_VPC,
  SIDE_CLIENT,
  SIDE_SERVICE,
  TRAIT_FAIL_OPEN,
  TRAIT_NAT,
  TRAIT_NETWORK,
  TRAIT_TARGETED,
  USAGE_ACTIVE_TCP,
  USAGE_ACTIVE_UDP,
  USAGE_BYTES,
  USAGE_ESTABLISHED,
  USAGE_FAIL_OPEN,
  USAGE_FLOWS_ACTIVE,
  USAGE_FLOWS_CREATED,
  USAGE_FLOWS_TCP,
  USAGE_FLOWS_UDP,
  USAGE_PORTS_EXHAUSTED,
  USAGE_REFUSED,
  USAGE_RESETS_CLIENT,
  USAGE_RESETS_SERVICE,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_NO_TARGET,
  VERDICT_DROP_PORT_EXHAUSTED,
  VERDICT_DROP_SAME_ENDPOINT,
  VERDICT_DROP_SECURITY_GROUP,
  VERDICT_DROP_TABLE_FULL,
  VERDICT_DROP_TUPLE_TAKEN,
  VERDICT_DROP_ZONE_FULL,
  VERDICT_FORWARD,
} from "../abi";
import { countBy, countUp } from "../counters";
import { counters, ports, services, usage } from "../memory";
import { admits, admitsOut, hindranceOf } from "../network/admission";
import { refusalOf, serviceFor, serviceOwning } from "../network/resolve";
import { Packet, PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK, TCP_RST, TCP_SYN } from "../packet";
import { armHeader } from "../pp2/stream";
import { storeDeltas } from "../rewrite";
import { foresee, isIcmpRequest, outside, translate } from "../translate";
import { ZONE_NONE, zoneInner, zoneOf, zoneVpcAndOuter } from "../zone";
import { forget, makeRoom } from "./expiry";
import { forgetExhausted } from "./port";
import { firstState } from "./state";
import { addToIndex, FlowTable, releaseSlot, slotOf, storeSide, takeSlot } from "./table";

/** Verdict of the last `begin` that returned no record, and the service that gave it or SERVICE_NONE. */
export let refusal: u32 = 0;
export let refusedBy: u32 = 0;

function refuse(verdict: u32): usize {
  refusal = verdict;
  if (refusedBy != SERVICE_NONE) countRefusal(refusedBy, verdict);
  return 0;
}

function countRefusal(service: u32, verdict: u32): void {
  const used = usage + <usize>(service * USAGE_BYTES);
  if (verdict == VERDICT_DROP_PORT_EXHAUSTED) countUp(used + USAGE_PORTS_EXHAUSTED);
  const isRefused =
    i32(verdict == VERDICT_DROP_TUPLE_TAKEN) |
    i32(verdict == VERDICT_DROP_TABLE_FULL) |
    i32(verdict == VERDICT_DROP_NO_TARGET);
  if (isRefused) countUp(used + USAGE_REFUSED);
}

/** Makes the flow that `packet`, from its client, begins; returns its record or 0 (`refusal`). */
export function begin(table: FlowTable, packet: Packet, port: usize, nowMs: u32): usize {
  const serviceIndex = serviceFor(packet, port);
  refusedBy = serviceOwning(serviceIndex);
  if (serviceIndex >= ROUTE_BLACKHOLE) return refuse(refusalOf(serviceIndex, packet));
  const service = services + <usize>(serviceIndex * SERVICE_BYTES);
  if (!mayBegin(service, packet)) return refuse(VERDICT_DROP_NO_FLOW);
  const hindrance = hindranceOf(service, packet);
  if (hindrance != VERDICT_FORWARD) return refuse(hindrance);
  if (!admits(service, serviceIndex, packet)) return refuse(VERDICT_DROP_SECURITY_GROUP);
  if (!makeRoom(table, service, nowMs)) return refuse(VERDICT_DROP_TABLE_FULL);
  const peer = ports + <usize>(<u32>load<u16>(port, PORT_PEER) * PORT_BYTES);
  const zone = zoneBehind(service, port, peer, <u32>(packet.rest >> 40));
  if (zone == ZONE_NONE) return refuse(VERDICT_DROP_ZONE_FULL);
  const protocolZone = <u32>packet.protocol | (zone << 8);
  const verdict = translate(table, service, packet, protocolZone, nowMs);
  if (verdict != VERDICT_FORWARD) return refuse(verdict);
  if (isSelf(packet) && !isUntranslated(packet)) return refuse(VERDICT_DROP_SAME_ENDPOINT);
  if (isHairpin(service)) return refuse(VERDICT_DROP_SAME_ENDPOINT);
  if (!admitsOut(service, serviceIndex, outside())) return refuse(VERDICT_DROP_SECURITY_GROUP);
  const record = takeSlot(table, packet.hash);
  if (record == 0) return refuse(VERDICT_DROP_TABLE_FULL);
  if (!fill(table, record, packet, needsIndex(packet, peer))) {
    releaseSlot(table, record);
    return refuse(VERDICT_DROP_TABLE_FULL);
  }
  store<u64>(record, (<u64>serviceIndex) << 48, FLOW_OCTETS_SERVICE);
  if (load<u32>(service, SERVICE_TRAITS) & TRAIT_FAIL_OPEN) {
    countUp(usage + <usize>(serviceIndex * USAGE_BYTES + USAGE_FAIL_OPEN));
  }
  armHeader(record, packet);
  start(record, packet, DIRECTION_FROM_CLIENT, nowMs);
  countBeginning(record, packet);
  return record;
}

/**
 * Hash under which the flow of `service` that `packet` may begin will be indexed, as far as that can
 * be foreseen; 0 when it may not begin one.
 */
export function foreseeIndex(service: usize, packet: Packet, port: usize): u64 {
  if (!mayBegin(service, packet)) return 0;
  const peer = ports + <usize>(<u32>load<u16>(port, PORT_PEER) * PORT_BYTES);
  const zone = zoneBehind(service, port, peer, <u32>(packet.rest >> 40));
  return zone == ZONE_NONE ? 0 : foresee(service, packet, <u32>packet.protocol | (zone << 8));
}

/** A TCP flow begins with a SYN, unless the service adopts flows in mid-stream. */
function mayBegin(service: usize, packet: Packet): bool {
  if (packet.protocol != PROTOCOL_TCP) {
    return (load<u32>(service, SERVICE_TRAITS) & TRAIT_NAT) == 0 || isNatProtocol(packet);
  }
  if (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) return true;
  return (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/** NAT gateways take UDP and queries of ICMP beside TCP. */
function isNatProtocol(packet: Packet): bool {
  return packet.protocol == PROTOCOL_UDP || isIcmpRequest(packet);
}

/** Zone of the service side: the VPC of service or port behind, the VLAN tags of the frame. */
function zoneBehind(service: usize, port: usize, peer: usize, zone: u32): u32 {
  const isRouted = load<u32>(service, SERVICE_TRAITS) & TRAIT_NETWORK;
  if (!isRouted && zone == load<u32>(port, PORT_ZONE)) return load<u32>(peer, PORT_ZONE);
  const vpc = <u32>(isRouted ? load<u16>(service, SERVICE_VPC) : load<u16>(peer, PORT_VPC));
  const vpcAndOuter = zoneVpcAndOuter(zone);
  if ((vpcAndOuter & 0xffff) == vpc) return zone;
  return zoneOf(vpc, vpcAndOuter >> 16, zoneInner(zone));
}

/** True when source and destination are one endpoint. */
export function isSelf(packet: Packet): bool {
  const portPair = <u32>packet.rest;
  const bytes: usize = packet.isIpv6 ? 16 : 4;
  if ((portPair & 0xffff) != portPair >> 16) return false;
  return memory.compare(packet.sourceAddress, packet.destinationAddress, bytes) == 0;
}

/**
 * True when a load balancer has picked the client itself as its target: the target would answer
 * its own address, past the load balancer. As with AWS, the flow just never begins.
 */
function isHairpin(service: usize): bool {
  if ((load<u32>(service, SERVICE_TRAITS) & TRAIT_TARGETED) == 0) return false;
  const tuple = outside();
  const bytes: usize = tuple.isIpv6 ? 16 : 4;
  return memory.compare(tuple.sourceAddress, tuple.destinationAddress, bytes) == 0;
}

/** True when the service leaves both ends as they are. */
function isUntranslated(packet: Packet): bool {
  const tuple = outside();
  return tuple.addresses == packet.addresses && tuple.rest == packet.rest;
}

/** An untranslated flow that only ever arrives on client-side ports needs no index cell. */
function needsIndex(packet: Packet, peer: usize): bool {
  if (!isUntranslated(packet)) return true;
  return (load<u8>(peer, PORT_SIDES) & PORT_SIDE_SERVICE) != 0;
}

/** Writes both tuples and what follows from them; false when the index has no room. */
export function fill(table: FlowTable, record: usize, packet: Packet, isIndexed: bool): bool {
  const tuple = outside();
  storeSide(record, SIDE_CLIENT, packet);
  storeSide(record, SIDE_SERVICE, tuple);
  let flags = <u32>load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_SPILLED;
  if (flags) countUp(counters + COUNTER_FLOWS_SPILLED);
  flags |= select<u32>(FLOW_FLAG_CLIENT_HIGH, 0, packet.swapped);
  flags |= select<u32>(FLOW_FLAG_SERVICE_HIGH, 0, tuple.swapped);
  storeDeltas(record, packet.isIpv6);
  const hasCell = isIndexed && addToIndex(table, tuple.hash, slotOf(table, record));
  if (hasCell) flags |= FLOW_FLAG_INDEXED;
  else table.unindexedCount++;
  store<u8>(record, <u8>flags, FLOW_FLAGS);
  return hasCell || !isIndexed;
}

/** First state and empty counters; what the record says of service and flags stays. */
export function start(record: usize, packet: Packet, direction: u32, nowMs: u32): void {
  const state = firstState(packet.protocol, packet.flags, direction);
  const flags = <u64>(load<u8>(record, FLOW_FLAGS) & ~(<u8>FLOW_FLAG_RETIRED));
  const service = <u64>load<u16>(record, FLOW_SERVICE);
  store<u64>(record, ((<u64>state) << 48) | (flags << 56), FLOW_OCTETS_CLIENT);
  store<u64>(record, service << 48, FLOW_OCTETS_SERVICE);
  store<u64>(record, 0, FLOW_PACKETS_CLIENT);
  store<u32>(record, nowMs, FLOW_LAST_SEEN_MS);
}

export function countBeginning(record: usize, packet: Packet): void {
  countActive(record);
  countCreated(record, packet);
}

/** Counts flows that have begun the fast way (fresh.ts). */
export function countBegun(service: u32, tcp: u64, udp: u64): void {
  const used = usage + <usize>(service * USAGE_BYTES);
  countBy(used + USAGE_FLOWS_ACTIVE, tcp + udp);
  countBy(used + USAGE_FLOWS_CREATED, tcp + udp);
  countBy(used + USAGE_ACTIVE_TCP, tcp);
  countBy(used + USAGE_ACTIVE_UDP, udp);
  countBy(used + USAGE_FLOWS_TCP, tcp);
  countBy(used + USAGE_FLOWS_UDP, udp);
  countBy(counters + COUNTER_FLOWS_CREATED, tcp + udp);
  countBy(counters + COUNTER_FLOWS_TCP, tcp);
  countBy(counters + COUNTER_FLOWS_UDP, udp);
  countBy(counters + COUNTER_FLOWS_ACTIVE, tcp + udp);
  raiseActiveMax();
}

function countActive(record: usize): void {
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  countUp(used + USAGE_FLOWS_ACTIVE);
  const protocol = load<u8>(record, KEY_PROTOCOL);
  if (protocol == PROTOCOL_TCP) countUp(used + USAGE_ACTIVE_TCP);
  else if (protocol == PROTOCOL_UDP) countUp(used + USAGE_ACTIVE_UDP);
  countUp(counters + COUNTER_FLOWS_ACTIVE);
  raiseActiveMax();
}

function raiseActiveMax(): void {
  const active = load<u64>(counters, COUNTER_FLOWS_ACTIVE);
  if (active > load<u64>(counters, COUNTER_FLOWS_ACTIVE_MAX)) {
    store<u64>(counters, active, COUNTER_FLOWS_ACTIVE_MAX);
  }
}

function countCreated(record: usize, packet: Packet): void {
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  countUp(used + USAGE_FLOWS_CREATED);
  countUp(counters + COUNTER_FLOWS_CREATED);
  const state = firstState(packet.protocol, packet.flags, DIRECTION_FROM_CLIENT);
  let counter = COUNTER_FLOWS_OTHER;
  if (state < FLOW_STATE_UDP) {
    counter = COUNTER_FLOWS_TCP;
    countUp(used + USAGE_FLOWS_TCP);
  } else if (state == FLOW_STATE_UDP) {
    counter = COUNTER_FLOWS_UDP;
    countUp(used + USAGE_FLOWS_UDP);
  } else if (state == FLOW_STATE_ICMP) {
    counter = COUNTER_FLOWS_ICMP;
  }
  countUp(counters + <usize>counter);
}

/** What became of an expired flow that a packet has found. */
export const OVER_BEGUN: u32 = 0; // begun again in place
export const OVER_GONE: u32 = 1; //  forgotten: the packet may begin a flow of its own
export const OVER_STRAY: u32 = 2; // over: the packet is a stray

/**
 * Begins an expired flow again: in place, so that a client that comes back meets the same tuple, or,
 * for services of network tables, as a new one with a new choice. A packet from the service may do so
 * only where flows are adopted, for it is nobody's reply.
 */
export function beginAgain(
  table: FlowTable,
  record: usize,
  packet: Packet,
  direction: u32,
  nowMs: u32,
): u32 {
  const index = <u32>load<u16>(record, FLOW_SERVICE);
  const service = services + <usize>(index * SERVICE_BYTES);
  const adopts = (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) != 0;
  if (!adopts && (direction == DIRECTION_FROM_SERVICE || !mayBegin(service, packet))) {
    return OVER_STRAY;
  }
  if (load<u32>(service, SERVICE_TRAITS) & TRAIT_NETWORK) {
    forget(table, record);
    forgetExhausted();
    return OVER_GONE;
  }
  if (load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_RETIRED) countActive(record);
  else countUp(counters + COUNTER_FLOWS_EXPIRED);
  start(record, packet, direction, nowMs);
  if (direction == DIRECTION_FROM_CLIENT) armHeader(record, packet);
  countCreated(record, packet);
  return OVER_BEGUN;
}

/**
 * A SYN of the client on the tuple of an ended connection. True: begun again in place; false: the
 * ended flow is forgotten, and the packet begins a new one.
 */
export function reopen(table: FlowTable, record: usize, packet: Packet, nowMs: u32): bool {
  const service = services + <usize>load<u16>(record, FLOW_SERVICE) * SERVICE_BYTES;
  if (load<u32>(service, SERVICE_TRAITS) & TRAIT_NETWORK) {
    forget(table, record);
    forgetExhausted();
    return false;
  }
  countUp(counters + COUNTER_FLOWS_REOPENED);
  start(record, packet, DIRECTION_FROM_CLIENT, nowMs);
  armHeader(record, packet);
  return true;
}

/** Moves the state of a flow, and counts what that means to its service. */
export function moveState(record: usize, direction: u32, state: u32, flags: u32): void {
  const before = <u32>load<u8>(record, FLOW_STATE);
  if (before == state) return;
  store<u8>(record, <u8>state, FLOW_STATE);
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  if (flags & TCP_RST) {
    const fromClient = direction == DIRECTION_FROM_CLIENT;
    countUp(used + (fromClient ? USAGE_RESETS_CLIENT : USAGE_RESETS_SERVICE));
  } else if (before == FLOW_STATE_HALF_OPEN) {
    countUp(used + USAGE_ESTABLISHED);
  }
}
