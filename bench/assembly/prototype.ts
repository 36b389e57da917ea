/**
 * The prototype that the engine's speed is held against: one Swiss table whose slots are the NAT
 * addresses and ports. Of one NAT address come 64,512 slots, so a reply finds its record by arithmetic:
 * no second key, no index, no port to choose. It does what a packet needs and nothing else:
 *
 *   parse Ethernet, one VLAN tag and IPv4 with checks; hash and find, or make, the flow; compare the whole
 *   key; rewrite addresses and ports, update both checksums (RFC 1624); packets, bytes, last seen and the
 *   union of TCP flags in the record; a verdict.
 *
 * Left out, and what the engine has: source NAT with few addresses, the client's own port, ports used
 * again for other destinations; states and timeouts; counters beyond the record; IPv6, ICMP, fragments,
 * options, other links; services, network tables, PROXY headers; frames that end early.
 *
 * A batch is staged: parse all, touch tag lines and the records of replies, probe tags, touch records,
 * rewrite. Groups of 16 slots, one byte of tag each; a full group goes on in the next one.
 */
import {
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  VERDICT_DROP_MALFORMED,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_TABLE_FULL,
  VERDICT_FORWARD,
} from "../../assembly/abi";
import { deltaOf, inverse, updated } from "../../assembly/checksum";
import { frames } from "../../assembly/memory";

const NAT_BASE: u32 = 0x64400000; // 100.64.0.0
const NAT_PORTS: u32 = 64512;
const NAT_PORT_MIN: u32 = 1024;
const GROUP_SLOTS: u32 = 16;
const MULTIPLIER: u64 = 0x9e3779b97f4a7c15;
const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;

// Record, one cache line: the key as the client's packets carry it, and as replies do.
const FORWARD: usize = 0;
const REVERSE: usize = 16;
const NETWORK_DELTA: usize = 32;
const TRANSPORT_DELTA: usize = 34;
const LAST_SEEN_MS: usize = 36;
const PACKETS: usize = 40; // 4 each direction
const OCTETS: usize = 48; //  4 each direction
const TCP_FLAGS: usize = 56;
const SCRATCH: usize = 63; // the byte that is stored to for a touch
const RECORD_BYTES: u32 = 64;

// What is known of a packet of the batch.
const PACKET_KEY: usize = 0;
const PACKET_HASH: usize = 16;
const PACKET_RECORD: usize = 24;
const PACKET_DESCRIPTOR: usize = 28;
const PACKET_IP: usize = 32;
const PACKET_BYTES: usize = 64;
const packets: usize = memory.data(64 * 256, 64);
/** Packets of clients and replies; lines to touch. */
const forwards: usize = memory.data(4 * 256, 64);
const replies: usize = memory.data(4 * 256, 64);
const lines: usize = memory.data(4 * 256, 64);
const records: usize = memory.data(4 * 256, 64);
const sink: usize = memory.data(8, 64);

let tagsAt: usize = 0;
let recordsAt: usize = 0;
let groupCount: u32 = 0;

/** Lays an empty table out at `start`, four fifths full with `flowCount` flows; returns its end. */
export function createPrototype(start: usize, flowCount: u32): usize {
  groupCount = (flowCount + (flowCount >> 2)) / GROUP_SLOTS + 1;
  const slotCount = groupCount * GROUP_SLOTS;
  recordsAt = (start + 63) & ~63;
  tagsAt = recordsAt + <usize>slotCount * RECORD_BYTES;
  const end = tagsAt + <usize>slotCount;
  memory.fill(recordsAt, 0, end - recordsAt);
  return end;
}

function hashOf(low: u64, high: u64): u64 {
  let hash = (low ^ SEED) * MULTIPLIER;
  hash ^= hash >> 32;
  hash = (hash ^ high) * MULTIPLIER;
  hash ^= hash >> 29;
  return hash * MULTIPLIER;
}

function groupOf(hash: u64): u32 {
  return <u32>(((hash >> 32) * <u64>groupCount) >> 32);
}

function tagOf(hash: u64): u8 {
  return <u8>hash | 1;
}

function matches(group: u32, tag: u8): u32 {
  const tags = v128.load(tagsAt + ((<usize>group) << 4));
  return <u32>i8x16.bitmask(i8x16.eq(tags, i8x16.splat(<i8>tag)));
}

function recordAt(slot: u32): usize {
  return recordsAt + ((<usize>slot) << 6);
}

/** Checks the headers; 0, or where the IPv4 header begins. */
function networkOf(frame: usize, bytes: u32): usize {
  const isTagged = load<u16>(frame, 12) == 0x0081;
  const ip = frame + (isTagged ? 18 : 14);
  const room = <i32>(bytes - <u32>(ip - frame));
  if (room < 28 || load<u16>(ip - 2) != 0x0008 || load<u8>(ip) != 0x45) return 0;
  if ((load<u16>(ip, 6) & 0xff3f) != 0) return 0;
  const total = <i32>(<u32>bswap<u16>(load<u16>(ip, 2)));
  const protocol = load<u8>(ip, 9);
  const least = select<i32>(40, 28, protocol == 6);
  if (i32(protocol == 6) | i32(protocol == 17)) return total >= least && total <= room ? ip : 0;
  return 0;
}

/** Parses all and shares them out; returns how many are the clients' and how many replies. */
function parseAll(count: u32): u64 {
  let forward: usize = forwards;
  let reply: usize = replies;
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const packet = packets + <usize>index * PACKET_BYTES;
    const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
    const ip = networkOf(frame, load<u32>(descriptor, FRAME_CAPTURED_BYTES));
    if (ip == 0) {
      store<u64>(descriptor, VERDICT_DROP_MALFORMED, FRAME_VERDICT);
      continue;
    }
    const addresses = load<u64>(ip, 12);
    const rest = <u64>load<u32>(ip, 20) | ((<u64>load<u8>(ip, 9)) << 32);
    store<u64>(packet, addresses, PACKET_KEY);
    store<u64>(packet, rest, PACKET_KEY + 8);
    store<u32>(packet, <u32>descriptor, PACKET_DESCRIPTOR);
    store<u32>(packet, <u32>ip, PACKET_IP);
    const nat = bswap<u32>(<u32>(addresses >> 32)) - NAT_BASE;
    const port = <u32>bswap<u16>(<u16>(rest >> 16)) - NAT_PORT_MIN;
    const slot = nat * NAT_PORTS + port;
    const isReply = i32(nat < 0x400000) & i32(port < NAT_PORTS) & i32(slot < groupCount << 4);
    const hash = hashOf(addresses, rest);
    store<u64>(packet, hash, PACKET_HASH);
    store<u32>(packet, <u32>recordAt(slot), PACKET_RECORD);
    store<u32>(forward, <u32>packet);
    store<u32>(reply, <u32>packet);
    store<u32>(lines + (forward - forwards), <u32>tagsAt + (groupOf(hash) << 4));
    store<u32>(records + (reply - replies), <u32>recordAt(select<u32>(slot, 0, isReply)));
    forward += (isReply ^ 1) << 2;
    reply += isReply << 2;
  }
  return <u64>((forward - forwards) >> 2) | ((<u64>((reply - replies) >> 2)) << 32);
}

function touchLoads(list: usize, count: u32): void {
  let seen: u32 = 0;
  const end = list + ((<usize>count) << 2);
  for (let at = list; at < end; at += 4) seen += load<u8>(<usize>load<u32>(at));
  store<u32>(sink, seen);
}

/** Stores need not wait for the line, and keep as many on their way. */
function touchStores(list: usize, count: u32): void {
  const end = list + ((<usize>count) << 2);
  for (let at = list; at < end; at += 4) store<u8>(<usize>load<u32>(at), 0, SCRATCH);
}

/** The record that the home group's first match names, else its first free slot. */
function probeAll(forwardCount: u32): void {
  for (let at: u32 = 0; at < forwardCount; at++) {
    const packet = <usize>load<u32>(forwards + ((<usize>at) << 2));
    const hash = load<u64>(packet, PACKET_HASH);
    const group = groupOf(hash);
    const hits = matches(group, tagOf(hash));
    const likely = hits ? hits : matches(group, 0);
    const record = recordAt((group << 4) + (likely ? ctz(likely) : 0));
    store<u32>(packet, <u32>record, PACKET_RECORD);
    store<u32>(records + ((<usize>at) << 2), <u32>record);
  }
}

function holds(record: usize, packet: usize): bool {
  const low = load<u64>(record) ^ load<u64>(packet, PACKET_KEY);
  return (low | (load<u64>(record, 8) ^ load<u64>(packet, PACKET_KEY + 8))) == 0;
}

/** Makes a packet with the key at `record + side` one with the other key, halves swapped. */
function rewrite(packet: usize, record: usize, isReply: u32): void {
  const descriptor = <usize>load<u32>(packet, PACKET_DESCRIPTOR);
  const ip = <usize>load<u32>(packet, PACKET_IP);
  const other = record + ((<usize>isReply ^ 1) << 4);
  store<u64>(ip, rotl<u64>(load<u64>(other), 32), 12);
  store<u32>(ip, rotl<u32>(load<u32>(other, 8), 16), 20);
  const network = <u32>load<u16>(record, NETWORK_DELTA);
  const transport = <u32>load<u16>(record, TRANSPORT_DELTA);
  const isUdp = load<u8>(packet, PACKET_KEY + 12) == 17;
  const sum = <u32>load<u16>(ip, 10);
  store<u16>(ip, <u16>updated(sum, select<u32>(inverse(network), network, isReply)), 10);
  const at = ip + select<usize>(26, 36, isUdp);
  const before = <u32>load<u16>(at);
  let after = updated(before, select<u32>(inverse(transport), transport, isReply));
  if (i32(before == 0) | i32(after == 0)) after = isUdp ? (before == 0 ? 0 : 0xffff) : after;
  store<u16>(at, <u16>after);
  const direction = (<usize>isReply) << 2;
  const octets = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  store<u32>(record + direction, load<u32>(record + direction, PACKETS) + 1, PACKETS);
  store<u32>(record + direction, load<u32>(record + direction, OCTETS) + octets, OCTETS);
  store<u32>(record, load<u32>(descriptor, FRAME_TIME_MS), LAST_SEEN_MS);
  const flags = select<u8>(0, load<u8>(ip, 33), isUdp);
  store<u8>(record, load<u8>(record, TCP_FLAGS) | flags, TCP_FLAGS);
  const handle = <u64>((record - recordsAt) >> 6) + 1;
  store<u64>(descriptor, <u64>VERDICT_FORWARD | (handle << 32), FRAME_VERDICT);
}

/** The packet's flow, found beyond its home group, or made; 0 when the table is full. */
function findOrMake(packet: usize): usize {
  const hash = load<u64>(packet, PACKET_HASH);
  const tag = tagOf(hash);
  let group = groupOf(hash);
  for (let step: u32 = 0; step < groupCount; step++) {
    let hits = matches(group, tag);
    while (hits) {
      const record = recordAt((group << 4) + ctz(hits));
      if (holds(record, packet)) return record;
      hits &= hits - 1;
    }
    const free = matches(group, 0);
    if (free) return make(packet, (group << 4) + ctz(free), tag);
    group = group + 1 == groupCount ? 0 : group + 1;
  }
  return 0;
}

/** Address and port of NAT in network order: the slot, spelt differently. */
export function natOf(slot: u32): u64 {
  const address = bswap<u32>(NAT_BASE + slot / NAT_PORTS);
  return <u64>address | ((<u64>bswap<u16>(<u16>(NAT_PORT_MIN + (slot % NAT_PORTS)))) << 32);
}

function make(packet: usize, slot: u32, tag: u8): usize {
  const record = recordAt(slot);
  const addresses = load<u64>(packet, PACKET_KEY);
  const rest = load<u64>(packet, PACKET_KEY + 8);
  const nat = natOf(slot);
  const natAddress = nat & 0xffffffff;
  const natPort = nat >> 32;
  store<u8>(tagsAt + <usize>slot, tag);
  store<u64>(record, addresses, FORWARD);
  store<u64>(record, rest, FORWARD + 8);
  store<u64>(record, (addresses >> 32) | (natAddress << 32), REVERSE);
  const ports = ((rest >> 16) & 0xffff) | (natPort << 16);
  store<u64>(record, ports | (rest & 0xffffffff00000000), REVERSE + 8);
  const client = addresses & 0xffffffff;
  store<u16>(record, <u16>deltaOf(client, natAddress), NETWORK_DELTA);
  const delta = deltaOf(client + (rest & 0xffff), natAddress + natPort);
  store<u16>(record, <u16>delta, TRANSPORT_DELTA);
  return record;
}

/** Translates the first `count` frames of the batch in place. */
export function prototypeBatch(count: u32): void {
  const counts = parseAll(count);
  const forwardCount = <u32>counts;
  const replyCount = <u32>(counts >> 32);
  touchLoads(lines, forwardCount);
  touchStores(records, replyCount);
  probeAll(forwardCount);
  touchStores(records, forwardCount);
  for (let at: u32 = 0; at < replyCount; at++) {
    const packet = <usize>load<u32>(replies + ((<usize>at) << 2));
    const record = <usize>load<u32>(packet, PACKET_RECORD);
    if (holds(record + REVERSE, packet)) rewrite(packet, record, 1);
    else
      store<u64>(<usize>load<u32>(packet, PACKET_DESCRIPTOR), VERDICT_DROP_NO_FLOW, FRAME_VERDICT);
  }
  for (let at: u32 = 0; at < forwardCount; at++) {
    const packet = <usize>load<u32>(forwards + ((<usize>at) << 2));
    let record = <usize>load<u32>(packet, PACKET_RECORD);
    if (!holds(record, packet)) record = findOrMake(packet);
    if (record != 0) rewrite(packet, record, 0);
    else
      store<u64>(
        <usize>load<u32>(packet, PACKET_DESCRIPTOR),
        VERDICT_DROP_TABLE_FULL,
        FRAME_VERDICT,
      );
  }
}
