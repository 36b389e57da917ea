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
  FLOW_NETWORK_DELTA,
  FLOW_OCTETS_CLIENT,
  FLOW_OCTETS_SERVICE,
  FLOW_PACKETS_CLIENT,
  FLOW_SERVICE,
  FLOW_STATE_ICMP,
  FLOW_STATE_UDP,
  FLOW_TRANSPORT_DELTA,
  PORT_BYTES,
  PORT_PEER,
  PORT_SERVICE,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  PORT_VPC,
  PORT_ZONE,
  SERVICE_BYTES,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAGS,
  SERVICE_NONE,
  SIDE_CLIENT,
  SIDE_SERVICE,
  USAGE_BYTES,
  USAGE_FLOWS_ACTIVE,
  USAGE_FLOWS_CREATED,
  USAGE_PORTS_EXHAUSTED,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_NO_SERVICE,
  VERDICT_DROP_PORT_EXHAUSTED,
  VERDICT_DROP_SAME_ENDPOINT,
  VERDICT_DROP_TABLE_FULL,
  VERDICT_DROP_ZONE_FULL,
  VERDICT_FORWARD,
} from "../abi";
import { deltaOf } from "../checksum";
import { countUp } from "../counters";
import { counters, ports, services, usage } from "../memory";
import { Packet, PROTOCOL_TCP, sumAddresses, TCP_ACK, TCP_RST, TCP_SYN } from "../packet";
import { armHeader } from "../pp2/stream";
import { foresee, outside, translate } from "../translate";
import { ZONE_NONE, zoneInner, zoneOf, zoneVpcAndOuter } from "../zone";
import { sweepGroups } from "./expiry";
import { firstState } from "./state";
import { addToIndex, FlowTable, releaseSlot, slotOf, storeSide, takeSlot } from "./table";

/** Groups looked at for expired flows when a new flow finds the table full. */
const RESCUE_GROUPS: u32 = 16;

/** Verdict of the last `begin` that returned no record. */
export let refusal: u32 = 0;

function refuse(verdict: u32): usize {
  refusal = verdict;
  return 0;
}

/** Makes the flow that `packet`, from its client, begins; returns its record or 0 (`refusal`). */
export function begin(table: FlowTable, packet: Packet, port: usize, nowMs: u32): usize {
  const serviceIndex = <u32>load<u16>(port, PORT_SERVICE);
  if (serviceIndex == SERVICE_NONE) return refuse(VERDICT_DROP_NO_SERVICE);
  const service = services + <usize>(serviceIndex * SERVICE_BYTES);
  if (!mayBegin(service, packet)) return refuse(VERDICT_DROP_NO_FLOW);
  if (table.flowCount >= table.flowCountMax) {
    sweepGroups(table, nowMs, RESCUE_GROUPS);
    if (table.flowCount >= table.flowCountMax) return refuse(VERDICT_DROP_TABLE_FULL);
  }
  const peer = ports + <usize>(<u32>load<u16>(port, PORT_PEER) * PORT_BYTES);
  const zone = zoneBehind(port, peer, <u32>(packet.rest >> 40));
  if (zone == ZONE_NONE) return refuse(VERDICT_DROP_ZONE_FULL);
  const protocolZone = <u32>packet.protocol | (zone << 8);
  const verdict = translate(table, service, packet, protocolZone, nowMs);
  if (verdict != VERDICT_FORWARD) {
    if (verdict == VERDICT_DROP_PORT_EXHAUSTED) {
      countUp(usage + <usize>(serviceIndex * USAGE_BYTES + USAGE_PORTS_EXHAUSTED));
    }
    return refuse(verdict);
  }
  if (isSelf(packet) && !isUntranslated(packet)) return refuse(VERDICT_DROP_SAME_ENDPOINT);
  const record = takeSlot(table, packet.hash);
  if (record == 0) return refuse(VERDICT_DROP_TABLE_FULL);
  if (!fill(table, record, packet, needsIndex(packet, peer))) {
    releaseSlot(table, record);
    return refuse(VERDICT_DROP_TABLE_FULL);
  }
  store<u64>(record, (<u64>serviceIndex) << 48, FLOW_OCTETS_SERVICE);
  start(record, packet, DIRECTION_FROM_CLIENT, nowMs);
  armHeader(record, packet);
  countBeginning(record, packet);
  return record;
}

/**
 * Hash under which the flow that `packet` may begin will be indexed, as far as that can be foreseen;
 * 0 when it may not begin one.
 */
export function foreseeIndex(packet: Packet, port: usize): u64 {
  const serviceIndex = <u32>load<u16>(port, PORT_SERVICE);
  if (serviceIndex == SERVICE_NONE) return 0;
  const service = services + <usize>(serviceIndex * SERVICE_BYTES);
  if (!mayBegin(service, packet)) return 0;
  const peer = ports + <usize>(<u32>load<u16>(port, PORT_PEER) * PORT_BYTES);
  const zone = zoneBehind(port, peer, <u32>(packet.rest >> 40));
  return zone == ZONE_NONE ? 0 : foresee(service, packet, <u32>packet.protocol | (zone << 8));
}

/** A TCP flow begins with a SYN, unless the service adopts flows in mid-stream. */
function mayBegin(service: usize, packet: Packet): bool {
  if (packet.protocol != PROTOCOL_TCP) return true;
  if (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) return true;
  return (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/** Zone of the service side: the VPC of the port behind, the VLAN tags of the frame. */
function zoneBehind(port: usize, peer: usize, zone: u32): u32 {
  if (zone == load<u32>(port, PORT_ZONE)) return load<u32>(peer, PORT_ZONE);
  const vpc = <u32>load<u16>(peer, PORT_VPC);
  const vpcAndOuter = zoneVpcAndOuter(zone);
  if ((vpcAndOuter & 0xffff) == vpc) return zone;
  return zoneOf(vpc, vpcAndOuter >> 16, zoneInner(zone));
}

/** True when source and destination are one endpoint. */
function isSelf(packet: Packet): bool {
  const portPair = <u32>packet.rest;
  const bytes: usize = packet.isIpv6 ? 16 : 4;
  if ((portPair & 0xffff) != portPair >> 16) return false;
  return memory.compare(packet.sourceAddress, packet.destinationAddress, bytes) == 0;
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
function fill(table: FlowTable, record: usize, packet: Packet, isIndexed: bool): bool {
  const tuple = outside();
  storeSide(record, SIDE_CLIENT, packet);
  storeSide(record, SIDE_SERVICE, tuple);
  let flags = <u32>load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_SPILLED;
  if (flags) countUp(counters + COUNTER_FLOWS_SPILLED);
  if (packet.swapped) flags |= FLOW_FLAG_CLIENT_HIGH;
  if (tuple.swapped) flags |= FLOW_FLAG_SERVICE_HIGH;
  store<u8>(record, <u8>flags, FLOW_FLAGS);
  const before = sumAddresses(packet);
  const after = sumAddresses(tuple);
  store<u16>(record, <u16>deltaOf(before, after), FLOW_NETWORK_DELTA);
  const beforePorts = before + (packet.rest & 0xffffffff);
  const afterPorts = after + (tuple.rest & 0xffffffff);
  store<u16>(record, <u16>deltaOf(beforePorts, afterPorts), FLOW_TRANSPORT_DELTA);
  table.unindexedCount++;
  if (!isIndexed) return true;
  if (!addToIndex(table, tuple.hash, slotOf(table, record))) return false;
  store<u8>(record, <u8>(flags | FLOW_FLAG_INDEXED), FLOW_FLAGS);
  table.unindexedCount--;
  return true;
}

/** First state and empty counters; what the record says of service and flags stays. */
function start(record: usize, packet: Packet, direction: u32, nowMs: u32): void {
  const state = firstState(packet.protocol, packet.flags, direction);
  const flags = <u64>(load<u8>(record, FLOW_FLAGS) & ~(<u8>FLOW_FLAG_RETIRED));
  const service = <u64>load<u16>(record, FLOW_SERVICE);
  store<u64>(record, ((<u64>state) << 48) | (flags << 56), FLOW_OCTETS_CLIENT);
  store<u64>(record, service << 48, FLOW_OCTETS_SERVICE);
  store<u64>(record, 0, FLOW_PACKETS_CLIENT);
  store<u32>(record, nowMs, FLOW_LAST_SEEN_MS);
}

function countBeginning(record: usize, packet: Packet): void {
  countActive(record);
  countCreated(record, packet);
}

function countActive(record: usize): void {
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  countUp(used + USAGE_FLOWS_ACTIVE);
  countUp(counters + COUNTER_FLOWS_ACTIVE);
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
  if (state < FLOW_STATE_UDP) counter = COUNTER_FLOWS_TCP;
  else if (state == FLOW_STATE_UDP) counter = COUNTER_FLOWS_UDP;
  else if (state == FLOW_STATE_ICMP) counter = COUNTER_FLOWS_ICMP;
  countUp(counters + <usize>counter);
}

/**
 * Begins an expired flow again in place. A packet from the service may do so only where flows are
 * adopted, for it is nobody's reply. Returns false when the packet may not.
 */
export function beginAgain(record: usize, packet: Packet, direction: u32, nowMs: u32): bool {
  const index = <u32>load<u16>(record, FLOW_SERVICE);
  const service = services + <usize>(index * SERVICE_BYTES);
  const adopts = (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) != 0;
  if (!adopts && (direction == DIRECTION_FROM_SERVICE || !mayBegin(service, packet))) return false;
  if (load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_RETIRED) countActive(record);
  else countUp(counters + COUNTER_FLOWS_EXPIRED);
  start(record, packet, direction, nowMs);
  if (direction == DIRECTION_FROM_CLIENT) armHeader(record, packet);
  countCreated(record, packet);
  return true;
}

/** A SYN of the client on the tuple of an ended connection. */
export function reopen(record: usize, packet: Packet, nowMs: u32): void {
  countUp(counters + COUNTER_FLOWS_REOPENED);
  start(record, packet, DIRECTION_FROM_CLIENT, nowMs);
  armHeader(record, packet);
}
