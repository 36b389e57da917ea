/**
 * Fragments (RFC 791 section 3.2, RFC 8200 section 4.5). Only the first fragment of a datagram
 * carries ports, so the flow of each first fragment is remembered under the datagram's identity
 * (source, destination, protocol, identification, zone); later fragments follow it. A later
 * fragment that arrives before its first, or more than FRAGMENT_LIFETIME_MS after it, has no flow.
 *
 * A set-associative cache: FRAGMENT_COUNT_MAX entries of 64 bytes in sets of four; a full set
 * forgets its oldest entry. A forgotten datagram costs its later fragments, never a wrong flow:
 * entries compare whole keys, and the flow is checked again before it is used.
 */
import { DIRECTION_FROM_CLIENT, FRAGMENT_COUNT_MAX, HANDLE_IPV6, SIDE_CLIENT } from "./abi";
import { inRange } from "./flow/state";
import { flowTable, isLive, recordAt } from "./flow/table";
import { hashWord } from "./hash";
import { reserve } from "./memory";
import { Packet } from "./packet";

@unmanaged
class Datagram {
  /** IPv4 addresses in the first four bytes of each 16. */
  sourceFirst: u64;
  sourceLast: u64;
  destinationFirst: u64;
  destinationLast: u64;
  identification: u32;
  /** Protocol and zone; never 0 in a used entry. */
  protocolZone: u32;
  /** 0 = free. */
  handle: u32;
  seenMs: u32;
  /** Canonical tuple of the flow at that time, to notice that the slot has a new tenant. */
  rest: u64;
  side: u8;
  direction: u8;
}
if (offsetof<Datagram>() > 64) ERROR("Datagram does not fit its entry");

const ENTRY_BYTES: usize = 64;
const WAYS: u32 = 4;
const SET_COUNT: u32 = FRAGMENT_COUNT_MAX / WAYS;
const FRAGMENT_LIFETIME_MS: u32 = 30000;

let entries: usize = 0;
/** The same cache for lanes: what stands for the handle is the lane plus one. */
let laneEntries: usize = 0;
const wanted: usize = memory.data(64, 64);
/** Whether any datagram has been remembered. */
let hasDatagrams: bool = false;

export function reserveFragments(): void {
  hasDatagrams = false;
  entries = reserve(<u64>FRAGMENT_COUNT_MAX * <u64>ENTRY_BYTES);
  laneEntries = reserve(<u64>FRAGMENT_COUNT_MAX * <u64>ENTRY_BYTES);
}

function describe(packet: Packet): Datagram {
  const datagram = changetype<Datagram>(wanted);
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  const isIpv6 = packet.isIpv6 != 0;
  datagram.sourceFirst = isIpv6 ? load<u64>(source) : <u64>load<u32>(source);
  datagram.sourceLast = isIpv6 ? load<u64>(source, 8) : 0;
  datagram.destinationFirst = isIpv6 ? load<u64>(destination) : <u64>load<u32>(destination);
  datagram.destinationLast = isIpv6 ? load<u64>(destination, 8) : 0;
  datagram.identification = packet.fragmentId;
  datagram.protocolZone = <u32>(packet.rest >> 32);
  return datagram;
}

/** Byte offset of the set that a datagram belongs to. */
function setOf(datagram: Datagram): usize {
  let hash = hashWord(datagram.sourceFirst ^ rotl<u64>(datagram.destinationFirst, 21));
  hash = hashWord(hash ^ datagram.sourceLast ^ rotl<u64>(datagram.destinationLast, 43));
  hash = hashWord(hash ^ (<u64>datagram.identification | ((<u64>datagram.protocolZone) << 32)));
  return <usize>(<u32>(hash >> 40) & (SET_COUNT - 1)) * ENTRY_BYTES * WAYS;
}

function isSame(left: Datagram, right: Datagram): bool {
  return (
    left.identification == right.identification &&
    left.protocolZone == right.protocolZone &&
    left.sourceFirst == right.sourceFirst &&
    left.destinationFirst == right.destinationFirst &&
    left.sourceLast == right.sourceLast &&
    left.destinationLast == right.destinationLast
  );
}

/** Gives the packet's datagram an entry of `cache` with this handle. */
function remember(cache: usize, packet: Packet, handle: u32, nowMs: u32): Datagram {
  hasDatagrams = true;
  const datagram = describe(packet);
  const set = cache + setOf(datagram);
  let victim = changetype<Datagram>(set);
  for (let way: u32 = 0; way < WAYS; way++) {
    const entry = changetype<Datagram>(set + <usize>way * ENTRY_BYTES);
    if (entry.handle == 0 || isSame(entry, datagram)) {
      victim = entry;
      break;
    }
    if (<i32>(entry.seenMs - victim.seenMs) < 0) victim = entry;
  }
  memory.copy(changetype<usize>(victim), changetype<usize>(datagram), 40);
  victim.handle = handle;
  victim.seenMs = nowMs;
  return victim;
}

/** The entry of `cache` that the packet's datagram has, unless there is none or it is too old. */
function recall(cache: usize, packet: Packet, nowMs: u32): Datagram | null {
  const datagram = describe(packet);
  const set = cache + setOf(datagram);
  for (let way: u32 = 0; way < WAYS; way++) {
    const entry = changetype<Datagram>(set + <usize>way * ENTRY_BYTES);
    if (entry.handle == 0 || !isSame(entry, datagram)) continue;
    return <i32>(nowMs - entry.seenMs) > <i32>FRAGMENT_LIFETIME_MS ? null : entry;
  }
  return null;
}

/** Forgets datagrams that are too old at `nowMs`; their instants were in range at `agedMs`. */
export function ageFragments(agedMs: u32, nowMs: u32): void {
  if (hasDatagrams) ageCache(entries, agedMs, nowMs);
}

/** The same for lanes. */
export function ageLanes(agedMs: u32, nowMs: u32): void {
  if (hasDatagrams) ageCache(laneEntries, agedMs, nowMs);
}

function ageCache(cache: usize, agedMs: u32, nowMs: u32): void {
  for (let index: u32 = 0; index < FRAGMENT_COUNT_MAX; index++) {
    const entry = changetype<Datagram>(cache + <usize>index * ENTRY_BYTES);
    entry.seenMs = inRange(entry.seenMs, agedMs, nowMs);
  }
}

/** Remembers the lane of a first fragment. */
export function rememberLane(packet: Packet, lane: u32, nowMs: u32): void {
  remember(laneEntries, packet, lane + 1, nowMs);
}

/** Lane of the first fragment of a later fragment's datagram; 0 when it is not known. */
export function laneOfFragment(packet: Packet, nowMs: u32): u32 {
  const entry = recall(laneEntries, packet, nowMs);
  return entry === null ? 0 : entry.handle - 1;
}

/** Remembers the flow of a first fragment. */
export function rememberFragment(
  packet: Packet,
  record: usize,
  handle: u32,
  side: u32,
  direction: u32,
  nowMs: u32,
): void {
  const victim = remember(entries, packet, handle, nowMs);
  // Not the packet's, for the flow may be one of another zone.
  victim.rest = load<u64>(record + ((<usize>side) << 4), 8);
  victim.side = <u8>side;
  victim.direction = <u8>direction;
}

/** What `findFragment` found besides the record. */
export let foundSide: u32 = 0;
export let foundDirection: u32 = 0;

/** Record of the flow that a later fragment belongs to, or 0. */
export function findFragment(packet: Packet, nowMs: u32): usize {
  foundSide = SIDE_CLIENT;
  foundDirection = DIRECTION_FROM_CLIENT;
  const entry = recall(entries, packet, nowMs);
  if (entry === null) return 0;
  const table = flowTable(packet.isIpv6);
  const slot = (entry.handle & ~HANDLE_IPV6) - 1;
  if (!isLive(table, slot)) return 0;
  const record = recordAt(table, slot);
  if (load<u64>(record + ((<usize>entry.side) << 4), 8) != entry.rest) return 0;
  foundSide = entry.side;
  foundDirection = entry.direction;
  return record;
}
