/**
 * Decisions that nodes share. A node that asks first does not let a new flow begin: it makes the
 * flow, in the state FLOW_STATE_PROPOSED, and all its packets get the verdict hold.undecided until
 * the host has found out what the fleet has decided, and adopts that. A packet that may not begin a
 * flow and belongs to none is held, too: another node may know its flow.
 *
 * Adopting is the one way in: it decides the node's own proposal when that is what was decided,
 * and replaces it when it is not. A proposal that nobody decides is forgotten after the time that
 * tuples rest (CONFIG_TUPLE_HOLD_MS).
 */
import {
  DECIDED_BEGINS,
  DECIDED_BYTES,
  DECIDED_CLIENT_SIDE,
  DECIDED_FIRST,
  DECIDED_FLAGS,
  DECIDED_SERVICE,
  DECIDED_SERVICE_SIDE,
  DECIDED_SIDE_BYTES,
  DECIDED_SIDE_HIGH,
  DECIDED_SIDE_INNER,
  DECIDED_SIDE_IS_IPV6,
  DECIDED_SIDE_LOW,
  DECIDED_SIDE_OUTER,
  DECIDED_SIDE_PORTS,
  DECIDED_SIDE_PROTOCOL,
  DECIDED_SIDE_VPC,
  DECIDED_STATE,
  DECIDED_STREAM,
  DECIDED_STREAM_DONE,
  DECIDED_STREAM_HEADER,
  DIRECTION_FROM_CLIENT,
  FLOW_FLAG_CLIENT_HIGH,
  FLOW_FLAG_HEADER,
  FLOW_FLAG_SERVICE_HIGH,
  FLOW_FLAGS,
  FLOW_OCTETS_SERVICE,
  FLOW_PACKETS_SERVICE,
  FLOW_SERVICE,
  FLOW_STATE,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_PROPOSED,
  HANDLE_IPV6,
  KEY_LOW_PORT_BE,
  KEY_PROTOCOL,
  SIDE_CLIENT,
  SIDE_SERVICE,
} from "../abi";
import { moveClock } from "../clock";
import { PACKET_DECIDED, PACKET_LATER, Packet, packetAt, TCP_SYN } from "../packet";
import { firstOf, noteOpening, resumeDone, resumeStream, streamFlags } from "../pp2/stream";
import { addressOf } from "../rewrite";
import { newOutside } from "../translate";
import { setTuple } from "../wire/transport";
import { ZONE_NONE, zoneInner, zoneOf, zoneVpcAndOuter } from "../zone";
import { forget } from "./expiry";
import { countBeginning, fill, start } from "./lifecycle";
import { isExpired } from "./state";
import {
  FlowTable,
  findByClientSide,
  findOwner,
  flowTable,
  handleOf,
  isLive,
  matches,
  recordAt,
  releaseSlot,
  takeSlot,
} from "./table";

const HIGH_FLAGS: u8 = <u8>(FLOW_FLAG_CLIENT_HIGH | FLOW_FLAG_SERVICE_HIGH);
const decision: usize = memory.data(<i32>DECIDED_BYTES, 64);
/** Client side of the flow that is being adopted. */
const adopted: usize = memory.data(64, 64);

export function decisionAddress(): usize {
  return decision;
}

/** Forgets a flow whose decision is no longer its own; 0 when no flow has this handle. */
export function forgetFlow(handle: u32): u32 {
  const table = flowTable(u32((handle & HANDLE_IPV6) != 0));
  const slot = (handle & ~HANDLE_IPV6) - 1;
  if (slot >= table.groupCount << 4 || !isLive(table, slot)) return 0;
  forget(table, recordAt(table, slot));
  return 1;
}

/** Makes a flow that has just begun one that is only proposed; its first state is kept aside. */
export function propose(record: usize, packet: Packet): void {
  noteOpening(record, packet);
  store<u32>(record, load<u8>(record, FLOW_STATE), FLOW_PACKETS_SERVICE);
  store<u8>(record, <u8>FLOW_STATE_PROPOSED, FLOW_STATE);
}

/** Writes what other nodes have to know of a flow; 0 when no flow has this handle. */
export function writeDecision(handle: u32): u32 {
  const isIpv6 = u8((handle & HANDLE_IPV6) != 0);
  const table = flowTable(isIpv6);
  const slot = (handle & ~HANDLE_IPV6) - 1;
  if (slot >= table.groupCount << 4 || !isLive(table, slot)) return 0;
  const record = recordAt(table, slot);
  memory.fill(decision, 0, DECIDED_BYTES);
  writeSide(decision + DECIDED_CLIENT_SIDE, record, isIpv6, SIDE_CLIENT);
  writeSide(decision + DECIDED_SERVICE_SIDE, record, isIpv6, SIDE_SERVICE);
  store<u8>(decision, load<u8>(record, FLOW_FLAGS) & HIGH_FLAGS, DECIDED_FLAGS);
  const state = <u32>load<u8>(record, FLOW_STATE);
  const isProposed = state == FLOW_STATE_PROPOSED;
  const first = isProposed ? load<u32>(record, FLOW_PACKETS_SERVICE) : state;
  store<u8>(decision, <u8>first, DECIDED_STATE);
  store<u16>(decision, load<u16>(record, FLOW_SERVICE), DECIDED_SERVICE);
  store<u8>(decision, u8(isProposed && first == FLOW_STATE_HALF_OPEN), DECIDED_BEGINS);
  if (streamFlags(record) != 0) {
    const isDone = streamFlags(record) == FLOW_FLAG_HEADER;
    const stream = isDone ? DECIDED_STREAM_DONE : DECIDED_STREAM_HEADER;
    store<u8>(decision, <u8>stream, DECIDED_STREAM);
    store<u32>(decision, firstOf(record), DECIDED_FIRST);
  }
  return 1;
}

function writeSide(to: usize, record: usize, isIpv6: u8, side: u32): void {
  const key = record + ((<usize>side) << 4);
  const clientIsHigh = ((<u32>load<u8>(record, FLOW_FLAGS) >> side) & 1) != 0;
  writeAddress(to + DECIDED_SIDE_LOW, addressOf(record, isIpv6, side, !clientIsHigh), isIpv6);
  writeAddress(to + DECIDED_SIDE_HIGH, addressOf(record, isIpv6, side, clientIsHigh), isIpv6);
  store<u32>(to, load<u32>(key, KEY_LOW_PORT_BE), DECIDED_SIDE_PORTS);
  writeSpace(to, load<u32>(key, KEY_PROTOCOL), isIpv6);
}

function writeAddress(to: usize, from: usize, isIpv6: u8): void {
  if (isIpv6) v128.store(to, v128.load(from));
  else store<u32>(to, load<u32>(from));
}

function writeSpace(to: usize, protocolZone: u32, isIpv6: u8): void {
  const zone = protocolZone >> 8;
  store<u8>(to, <u8>protocolZone, DECIDED_SIDE_PROTOCOL);
  store<u8>(to, isIpv6, DECIDED_SIDE_IS_IPV6);
  // VPC and outer VLAN id stand side by side in both.
  store<u32>(to, zoneVpcAndOuter(zone), DECIDED_SIDE_VPC);
  store<u16>(to, <u16>zoneInner(zone), DECIDED_SIDE_INNER);
}

/** Writes the tuple of frame `index` of the last batch as one side; 0 when it has none. */
export function writeTuple(index: u32): u32 {
  const packet = packetAt(index);
  if (packet.kind == PACKET_DECIDED || packet.kind == PACKET_LATER) return 0;
  const isIpv6 = packet.isIpv6;
  const low = packet.swapped ? packet.destinationAddress : packet.sourceAddress;
  const high = packet.swapped ? packet.sourceAddress : packet.destinationAddress;
  memory.fill(decision, 0, DECIDED_SIDE_BYTES);
  writeAddress(decision + DECIDED_SIDE_LOW, low, isIpv6);
  writeAddress(decision + DECIDED_SIDE_HIGH, high, isIpv6);
  store<u32>(decision, <u32>packet.rest, DECIDED_SIDE_PORTS);
  writeSpace(decision, <u32>(packet.rest >> 32), isIpv6);
  return 1;
}

/** Puts a side of the decision into a tuple, seen from the client; false when zones run out. */
function readSide(from: usize, tuple: Packet, clientIsHigh: bool): bool {
  const zone = zoneOf(
    load<u16>(from, DECIDED_SIDE_VPC),
    load<u16>(from, DECIDED_SIDE_OUTER),
    load<u16>(from, DECIDED_SIDE_INNER),
  );
  if (zone == ZONE_NONE) return false;
  const ports = load<u32>(from, DECIDED_SIDE_PORTS);
  const low = <u32>(from + DECIDED_SIDE_LOW);
  const high = <u32>(from + DECIDED_SIDE_HIGH);
  tuple.isIpv6 = load<u8>(from, DECIDED_SIDE_IS_IPV6);
  tuple.protocol = load<u8>(from, DECIDED_SIDE_PROTOCOL);
  tuple.sourceAddress = clientIsHigh ? high : low;
  tuple.destinationAddress = clientIsHigh ? low : high;
  const portPair = clientIsHigh ? rotl<u32>(ports, 16) : ports;
  setTuple(tuple, portPair, <u32>tuple.protocol | (zone << 8));
  return true;
}

/**
 * Takes over what was decided of a flow: what `decisionAddress` holds. Returns its handle, or 0 when
 * there is no room, or when one of its tuples belongs to another flow that is alive here.
 */
export function adoptFlow(nowMs: u32): u32 {
  moveClock(nowMs);
  const flags = load<u8>(decision, DECIDED_FLAGS);
  const packet = changetype<Packet>(adopted);
  const tuple = newOutside();
  const isClientHigh = (flags & <u8>FLOW_FLAG_CLIENT_HIGH) != 0;
  const isServiceHigh = (flags & <u8>FLOW_FLAG_SERVICE_HIGH) != 0;
  if (!readSide(decision + DECIDED_CLIENT_SIDE, packet, isClientHigh)) return 0;
  if (!readSide(decision + DECIDED_SERVICE_SIDE, tuple, isServiceHigh)) return 0;
  const table = flowTable(packet.isIpv6);
  const known = findByClientSide(table, packet);
  if (known != 0) {
    if (matches(known, SIDE_SERVICE, tuple) && !isOver(known, nowMs)) return decided(table, known);
    if (!forgetUndecided(table, known, nowMs)) return 0;
  }
  const owner = findOwner(table, tuple);
  if (owner != 0 && !forgetUndecided(table, owner, nowMs)) return 0;
  if (table.flowCount >= table.flowCountMax) return 0;
  packet.flags = TCP_SYN;
  const record = takeSlot(table, packet.hash);
  if (record == 0) return 0;
  if (!fill(table, record, packet, true)) {
    releaseSlot(table, record);
    return 0;
  }
  store<u64>(record, (<u64>load<u16>(decision, DECIDED_SERVICE)) << 48, FLOW_OCTETS_SERVICE);
  // Decisions are written once; that one is asked for says that a packet has come just now.
  start(record, packet, DIRECTION_FROM_CLIENT, nowMs);
  countBeginning(record, packet);
  store<u8>(record, load<u8>(decision, DECIDED_STATE), FLOW_STATE);
  const stream = <u32>load<u8>(decision, DECIDED_STREAM);
  if (stream == DECIDED_STREAM_HEADER) {
    resumeStream(record, packet, load<u32>(decision, DECIDED_FIRST));
  } else if (stream == DECIDED_STREAM_DONE) resumeDone(record, packet);
  return handleOf(table, record);
}

/** A proposal that was decided as proposed begins; a flow that is known goes on. */
function decided(table: FlowTable, record: usize): u32 {
  if (isProposal(record)) {
    store<u8>(record, <u8>load<u32>(record, FLOW_PACKETS_SERVICE), FLOW_STATE);
    store<u32>(record, 0, FLOW_PACKETS_SERVICE);
  }
  return handleOf(table, record);
}

function isProposal(record: usize): bool {
  return <u32>load<u8>(record, FLOW_STATE) == FLOW_STATE_PROPOSED;
}

function isOver(record: usize, nowMs: u32): bool {
  return !isProposal(record) && isExpired(record, nowMs);
}

/** Makes way for a decision: only proposals and flows that are over do. */
function forgetUndecided(table: FlowTable, record: usize, nowMs: u32): bool {
  if (!isProposal(record) && !isExpired(record, nowMs)) return false;
  forget(table, record);
  return true;
}
