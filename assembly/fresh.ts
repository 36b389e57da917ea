/**
 * Packets that begin plain flows, which nearly all first packets are: IPv4, TCP with a SYN or UDP, for a
 * service that asks for nothing beyond the translation that was foreseen.
 *
 * `beginFast` either does all that `finishSlow` would, to the bit, or nothing at all and says no. So it
 * may refuse what it likes. What it asks changes nothing before all has been answered; then the
 * record is written once, in order, with its first packet in it.
 */
import {
  COUNTER_FLOWS_SPILLED,
  COUNTER_VERDICTS,
  DIRECTION_FROM_CLIENT,
  FLOW_FLAG_CLIENT_HIGH,
  FLOW_FLAG_INDEXED,
  FLOW_FLAG_OPEN,
  FLOW_FLAG_SERVICE_HIGH,
  FLOW_FLAGS,
  FLOW_LAST_SEEN_MS,
  FLOW_OCTETS_CLIENT,
  FLOW_OCTETS_SERVICE,
  FLOW_PACKETS_CLIENT,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_UDP,
  FRAME_CAPTURED_BYTES,
  FRAME_TIME_MS,
  PORT_SIDE_CLIENT,
  PORT_SIDE_ROUTED,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  SERVICE_BYTES,
  SERVICE_CAPACITY,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAG_PP2,
  SERVICE_FLAG_PP2_UDP,
  SERVICE_FLAGS,
  SERVICE_RULES_ENDPOINT,
  SERVICE_RULES_OUTBOUND,
  SERVICE_TRAITS,
  SIDE_CLIENT,
  SIDE_SERVICE,
  TRAIT_FAIL_OPEN,
  VERDICT_FORWARD,
} from "./abi";
import { countBy, countUp } from "./counters";
import { mark, routeOut, tally } from "./established";
import { isCrowded } from "./flow/expiry";
import { countBegun, isSelf } from "./flow/lifecycle";
import {
  FlowTable,
  findByClientSide,
  findByIndex,
  findOwner,
  flowTable,
  handleOf4,
  mayBeClientSide,
  mayHaveOwner,
  storeSide,
  takePlace,
} from "./flow/table";
import { asksFirst, counters, hasCrossings, services } from "./memory";
import { clampSegments } from "./network/mtu";
import { crossedTuple } from "./network/nat64";
import { serviceFor } from "./network/resolve";
import { Packet, PROTOCOL_UDP, TCP_ACK, TCP_RST, TCP_SYN } from "./packet";
import { openStream } from "./pp2/stream";
import { rewriteFast, storeDeltas } from "./rewrite";
import { foreseenFor } from "./translate";
import { zoneCount } from "./zone";

/**
 * Flows that have begun and are not counted yet, all of one service: how many of TCP, of UDP, and the
 * octets of their first packets. Every other way may look at counters, so they are counted before.
 */
let service: u32 = 0;
let tcpCount: u32 = 0;
let udpCount: u32 = 0;
let octets: u64 = 0;

/** Counts what has begun: flows, and their first packets. */
export function countFresh(): void {
  const count = tcpCount + udpCount;
  if (count == 0) return;
  countBegun(service, tcpCount, udpCount);
  tally(service, DIRECTION_FROM_CLIENT, count, octets);
  countBy(counters + COUNTER_VERDICTS + VERDICT_FORWARD * 8, count);
  tcpCount = 0;
  udpCount = 0;
  octets = 0;
}

function note(index: u32, descriptor: usize, isUdp: bool): void {
  if (index != service) countFresh();
  service = index;
  tcpCount += u32(!isUdp);
  udpCount += u32(isUdp);
  octets += <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
}

/** Begins the flow of a PACKET_FAST and lets the packet out; false when it is not plain. */
export function beginFast(descriptor: usize, packet: Packet, port: usize): bool {
  const tuple = foreseenFor(packet);
  if (changetype<usize>(tuple) == 0 || asksFirst) return false;
  const sides = <u32>load<u8>(port, PORT_SIDES);
  if ((sides & PORT_SIDE_CLIENT) == 0) return false;
  const isUdp = packet.protocol == PROTOCOL_UDP;
  if (!isUdp && (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN) return false;
  const index = serviceFor(packet, port);
  const from = services + <usize>(index * SERVICE_BYTES);
  const table = flowTable(0);
  if (!isPlain(from, isUdp) || !hasRoom(table, from)) return false;
  if (isSelf(packet) || isUnchangedOrHairpin(packet, tuple)) return false;
  if (mayBeClientSide(table, packet) && findByClientSide(table, packet) != 0) return false;
  if (mayHaveOwner(table, tuple) && findOwner(table, tuple) != 0) return false;
  if (sides & PORT_SIDE_SERVICE && findByIndex(table, packet, SIDE_SERVICE) != 0) return false;
  if (hasCrossings && (mayCross(packet) || mayCross(tuple))) return false;
  const record = takePlace(table, packet, tuple);
  if (record == 0) return false;
  const hasHeader = !isUdp && (load<u32>(from, SERVICE_FLAGS) & SERVICE_FLAG_PP2) != 0;
  write(record, descriptor, packet, tuple, index, hasHeader);
  note(index, descriptor, isUdp);
  if (!isUdp) clampSegments(packet, from);
  rewriteFast(packet, record, SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  if (sides & PORT_SIDE_ROUTED) routeOut(descriptor, record, SIDE_CLIENT);
  if (hasHeader) openStream(descriptor, packet, record);
  mark(descriptor, handleOf4(record), SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  return true;
}

/**
 * Whether flows of the service begin without security groups, capacity, a count of their own, or headers in
 * datagrams.
 */
function isPlain(from: usize, isUdp: bool): bool {
  const flags = load<u32>(from, SERVICE_FLAGS) & (isUdp ? SERVICE_FLAG_PP2_UDP : 0);
  const traits = load<u32>(from, SERVICE_TRAITS) & TRAIT_FAIL_OPEN;
  const capacity = <u32>load<u16>(from, SERVICE_CAPACITY);
  const outbound = load<u32>(from, SERVICE_RULES_OUTBOUND);
  // Endpoint and inbound stand side by side.
  return (load<u64>(from, SERVICE_RULES_ENDPOINT) | (flags | traits | capacity | outbound)) == 0;
}

/** Whether nobody has to make way; a service that adopts flows may know the packet from another zone. */
function hasRoom(table: FlowTable, from: usize): bool {
  if (table.flowCount >= table.flowCountMax) return false;
  if ((load<u32>(from, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) == 0) return true;
  return zoneCount() < 2 && !isCrowded(table);
}

/** Whether the service side is the client side, or has one address at both ends. */
function isUnchangedOrHairpin(packet: Packet, tuple: Packet): bool {
  const addresses = tuple.addresses;
  const isUnchanged = addresses == packet.addresses && tuple.rest == packet.rest;
  return isUnchanged || <u32>addresses == <u32>(addresses >> 32);
}

/** Whether a flow of IPv6 may have the tuple, as NAT64 takes it. */
function mayCross(tuple: Packet): bool {
  const table = flowTable(1);
  if (table.flowCount == 0) return false;
  const crossed = crossedTuple(tuple);
  return crossed != 0 && findOwner(table, changetype<Packet>(crossed)) != 0;
}

/** Writes what is missing of the record. */
function write(
  record: usize,
  descriptor: usize,
  packet: Packet,
  tuple: Packet,
  index: u32,
  hasHeader: bool,
): void {
  storeSide(record, SIDE_SERVICE, tuple);
  store<u32>(record, load<u32>(descriptor, FRAME_TIME_MS), FLOW_LAST_SEEN_MS);
  storeDeltas(record, 0);
  store<u64>(record, 1, FLOW_PACKETS_CLIENT);
  const isUdp = packet.protocol == PROTOCOL_UDP;
  const state = select<u32>(FLOW_STATE_UDP, FLOW_STATE_HALF_OPEN, isUdp);
  const clientHigh = select<u32>(FLOW_FLAG_CLIENT_HIGH, 0, packet.swapped != 0);
  const serviceHigh = select<u32>(FLOW_FLAG_SERVICE_HIGH, 0, tuple.swapped != 0);
  const spilled = load<u8>(record, FLOW_FLAGS);
  if (spilled) countUp(counters + COUNTER_FLOWS_SPILLED);
  const open = select<u32>(FLOW_FLAG_OPEN, 0, hasHeader);
  const flags = FLOW_FLAG_INDEXED | spilled | clientHigh | serviceHigh | open;
  const stateAndFlags = state | (flags << 8);
  const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  store<u64>(record, bytes | ((<u64>stateAndFlags) << 48), FLOW_OCTETS_CLIENT);
  store<u64>(record, (<u64>index) << 48, FLOW_OCTETS_SERVICE);
}
