/**
 * Compact flow table: 33 bytes a flow, for a NAT gateway that owns its addresses. Nothing of the
 * translation is stored, for the slot is the translation: slot number and (address, port) follow
 * from each other, so a packet from outside finds its record by arithmetic, without a hash.
 *
 *   port  = 1024 + 64 * (16 * k + s) + c       c: low six bits of the client's port, 0 ... 63
 *   block = 63 * address + k                   k: 0 ... 62, s: place in the group, 0 ... 15
 *   slot  = 16 * (64 * block + c) + s
 *
 * A flow stands in one of two groups of 16 slots, which its keyed hash names among those that keep
 * the low six bits of the client's port (as flow/port.ts does, for the same reasons). It takes the
 * first while that has room to spare, else the emptier.
 *
 *   client-side packet:  tag line (two if the first group does not have it), record line
 *   service-side packet: record line
 *
 * Invariants: (1) tag 0 = free slot, and then the record's state is 0; (2) a match always compares
 * the whole key; (3) nothing here takes more than two groups of 16 steps.
 */
import {
  COMPACT_BLOCKS_PER_ADDRESS,
  COMPACT_BYTES,
  COMPACT_CLIENT_ADDRESS_BE,
  COMPACT_CLIENT_PORT_BE,
  COMPACT_STATE,
  CONFIG_COMPACT_ADDRESS,
  CONFIG_COMPACT_ADDRESS_COUNT,
  FLOW_STATE_UDP,
} from "../abi";
import { tagMatches, tagOf } from "../flow/table";
import { config, reserve } from "../memory";
import { Packet, PROTOCOL_UDP } from "../packet";

const GROUP_SLOTS: u32 = 16;
const PORT_MIN: u32 = 1024;
const KEPT_BITS: u32 = 6;
const KEPT_MASK: u32 = (1 << KEPT_BITS) - 1;
/** Free slots below which the first group takes no flow unasked. */
const FIRST_GROUP_RESERVE: u32 = 8;

let tags: usize = 0;
let records: usize = 0;
/** Groups by 64: the choices that a client's port leaves. */
let blockCount: u32 = 0;
let firstAddress: u32 = 0;
let addressCount: u32 = 0;

/** Lays the table out as the configuration says; returns its bytes, 0 when there is none. */
export function reserveCompact(): u64 {
  firstAddress = load<u32>(config, CONFIG_COMPACT_ADDRESS);
  addressCount = load<u32>(config, CONFIG_COMPACT_ADDRESS_COUNT);
  blockCount = addressCount * COMPACT_BLOCKS_PER_ADDRESS;
  const slots = <u64>slotCount();
  tags = reserve(slots);
  records = reserve(slots * COMPACT_BYTES);
  return slots * (COMPACT_BYTES + 1);
}

export function slotCount(): u32 {
  return groupCount() * GROUP_SLOTS;
}

export function groupCount(): u32 {
  return blockCount << KEPT_BITS;
}

export function recordOf(slot: u32): usize {
  return records + <usize>slot * COMPACT_BYTES;
}

export function slotOf(record: usize): u32 {
  return <u32>((record - records) / COMPACT_BYTES);
}

export function groupTags(group: u32): usize {
  return tags + ((<usize>group) << 4);
}

/** Slot of the first place of the group that `groupTags` returned. */
export function slotOfTags(groupAt: usize): u32 {
  return <u32>(groupAt - tags);
}

/** The low six bits of a client's port, by which groups are told apart. */
function kept(packet: Packet): u32 {
  return <u32>load<u8>(<usize>packet.transport, 1) & KEPT_MASK;
}

/** Tags of the two groups that a packet's flow may stand in. */
export function firstGroup(packet: Packet): usize {
  const block = <u32>(((packet.hash >> 32) * <u64>blockCount) >> 32);
  return groupTags((block << KEPT_BITS) | kept(packet));
}

export function secondGroup(packet: Packet): usize {
  const other = (packet.hash * 0xff51afd7ed558ccd) >> 32;
  const block = <u32>((other * <u64>blockCount) >> 32);
  return groupTags((block << KEPT_BITS) | kept(packet));
}

/** Whether the record holds the flow of a packet from its client. */
export function holds(record: usize, packet: Packet): bool {
  const addresses = load<u64>(<usize>packet.sourceAddress);
  const ports = load<u32>(<usize>packet.transport);
  const differs =
    (load<u64>(record, COMPACT_CLIENT_ADDRESS_BE) ^ addresses) |
    <u64>(load<u32>(record, COMPACT_CLIENT_PORT_BE) ^ ports);
  return differs == 0 && hasProtocol(record, packet);
}

/** Whether a record that is taken is of the packet's protocol. States count from 1 here. */
export function hasProtocol(record: usize, packet: Packet): bool {
  const state = <u32>load<u8>(record, COMPACT_STATE);
  const isUdp = packet.protocol == PROTOCOL_UDP;
  return (i32(state != 0) & i32((state == FLOW_STATE_UDP + 1) == isUdp)) != 0;
}

/** The record of a packet from its client, 0 when it has no flow. */
export function findByClient(packet: Packet): usize {
  const tag = tagOf(packet.hash);
  const record = findIn(firstGroup(packet), tag, packet);
  return record != 0 ? record : findIn(secondGroup(packet), tag, packet);
}

function findIn(groupAt: usize, tag: u8, packet: Packet): usize {
  let hits = tagMatches(groupAt, tag);
  while (hits) {
    const record = recordOf(slotOfTags(groupAt) + ctz(hits));
    if (holds(record, packet)) return record;
    hits &= hits - 1;
  }
  return 0;
}

/** The record that an address and port of the gateway name, both as loaded; 0 when they are none. */
export function recordAt(addressBe: u32, portBe: u32): usize {
  const address = bswap<u32>(addressBe) - firstAddress;
  const port = <u32>bswap<u16>(<u16>portBe);
  if (address >= addressCount || port < PORT_MIN) return 0;
  const place = (port - PORT_MIN) >> KEPT_BITS;
  const block = address * COMPACT_BLOCKS_PER_ADDRESS + (place >> 4);
  const group = (block << KEPT_BITS) | (port & KEPT_MASK);
  return recordOf((group << 4) | (place & 15));
}

/** The gateway's address that a slot means, in network order as a load gives it. */
export function addressOfSlot(slot: u32): u32 {
  const block = slot >> (4 + KEPT_BITS);
  return bswap<u32>(firstAddress + block / COMPACT_BLOCKS_PER_ADDRESS);
}

/** The gateway's port that a slot means, likewise. */
export function portOfSlot(slot: u32): u32 {
  const block = slot >> (4 + KEPT_BITS);
  const place = ((block % COMPACT_BLOCKS_PER_ADDRESS) << 4) | (slot & 15);
  const port = PORT_MIN + (place << KEPT_BITS) + ((slot >> 4) & KEPT_MASK);
  return <u32>bswap<u16>(<u16>port);
}

/** The group that the flow of a packet would be put in. */
export function groupFor(packet: Packet): usize {
  const first = firstGroup(packet);
  const free = popcnt(tagMatches(first, 0));
  if (free >= FIRST_GROUP_RESERVE) return first;
  const second = secondGroup(packet);
  return popcnt(tagMatches(second, 0)) > free ? second : first;
}

/** Takes a free slot for the flow of a packet; returns its record, 0 when its groups are full. */
export function takeSlot(packet: Packet): usize {
  const groupAt = groupFor(packet);
  const free = tagMatches(groupAt, 0);
  if (free == 0) return 0;
  store<u8>(groupAt + <usize>ctz(free), tagOf(packet.hash));
  return recordOf(slotOfTags(groupAt) + ctz(free));
}

export function releaseSlot(record: usize): void {
  const tag = tags + <usize>slotOf(record);
  assert(load<u8>(tag) != 0, "compact table: a free slot was released");
  store<u8>(tag, 0);
  store<u8>(record, 0, COMPACT_STATE);
}
