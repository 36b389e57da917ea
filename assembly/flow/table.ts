/**
 * Flow table. One per IP version; both work alike, only the record size differs.
 *
 * Theory of operation. A flow lives in one slot and never moves. Its client-side tuple hashes to a
 * *home group* of 16 slots; 16 one-byte tags, one SIMD comparison wide, tell which slots may hold
 * it. When the home group is full the flow *spills* to any free slot; the group counts it, and sets one
 * of 24 bits by its hash, so that few lookups of flows that are not there go on to the index.
 * The *index* finds flows by any other hash: every translated flow by its service-side tuple, and
 * spilled flows by their client-side tuple. The index is an array of u32 cells in buckets of one
 * cache line; a cell holds the slot in as many bits as
 * it needs and a tag in the rest. A cell goes into the first of its two buckets while that has room to
 * spare, else into the emptier.
 *
 *   client-side packet:  tag line, record line            (home)
 *   service-side packet: index line, record line
 *
 * Invariants: (1) tag 0 = free slot, cell 0 = free cell; (2) a flow is in its home group, or is
 * SPILLED and has a cell under its client-side hash and its home group's spill count includes it;
 * (3) a flow is INDEXED when it has a cell under its service-side hash; (4) a match always compares
 * the full key; (5) nothing here takes more than a fixed number of steps: 16 slots, 2 buckets of
 * 16 cells, SPILL_GROUPS_MAX groups on insertion.
 *
 * Cost per IPv4 flow at capacity: record 64 B, tag 1 B and counts 0.25 B at 1.01 slots a flow, 1.41 cells
 * of 4 B.
 */
import {
  FLOW_BYTES,
  FLOW_CLIENT_SIDE,
  FLOW_FLAG_INDEXED,
  FLOW_FLAG_SPILLED,
  FLOW_FLAGS,
  FLOW_SERVICE_SIDE,
  FLOW6_CLIENT_HIGH,
  FLOW6_CLIENT_LOW,
  FLOW6_SERVICE_HIGH,
  FLOW6_SERVICE_LOW,
  HANDLE_IPV6,
  SIDE_CLIENT,
  SIDE_SERVICE,
} from "../abi";
import { hashDigest, hashTuple } from "../hash";
import { reserve } from "../memory";
import { Packet } from "../packet";

/** Where a flow table lies and how full it is. */
@unmanaged
export class FlowTable {
  tags: usize;
  records: usize;
  /** A u32 a group: how many of its flows have spilled, and above that the bits of their hashes. */
  spills: usize;
  cells: usize;
  groupCount: u32;
  bucketCount: u32;
  /** log2 of the record size. */
  recordShift: u32;
  isIpv6: u32;
  flowCount: u32;
  flowCountMax: u32;
  /** Group at which the next spill begins to look. */
  spillCursor: u32;
  /** Group at which ageing goes on. */
  sweepCursor: u32;
  /** Flows without an index cell: their service side is their client side. */
  unindexedCount: u32;
  /** Virtual clock up to which ageing has kept pace. */
  sweptMs: u32;
  /** Low bits of an index cell that name a slot; the bits above are its tag. */
  slotBits: u32;
  /** Group at which the next flow that needs room begins to look. */
  roomCursor: u32;
  /** Clock at which all ages were within range (clock.ts), and that at which the sweep's round began. */
  agedMs: u32;
  roundMs: u32;
}
if (offsetof<FlowTable>() > 128) ERROR("FlowTable does not fit its region");

export const GROUP_SLOTS: u32 = 16;
const BUCKET_CELLS: u32 = 16;
const BUCKET_BYTES: u32 = 64;
/**
 * Free cells below which the first bucket of a hash no longer takes cells unasked. More: more
 * lookups need both buckets (6 % of them at four fifths of the capacity); fewer: buckets run full
 * before the table does (at 5 a table of 53 M flows refuses one at 97 %).
 */
const FIRST_BUCKET_RESERVE: u32 = 6;
const SPILL_GROUPS_MAX: u32 = 64;
const SPILL_COUNT_MAX: u32 = 255;
const SPILL_BITS: u64 = 24;
/** Most slots that a cell can name (slot + 1 must fit). */
export const SLOT_COUNT_MAX: u32 = (1 << 26) - 1;

/** Second half of a tuple that no packet has: its zone is beyond ZONE_COUNT_MAX. */
const NO_TUPLE: u64 = 0xffffffffffffffff;

const table4: usize = memory.data(128, 64);
const table6: usize = memory.data(128, 64);

export function flowTable(isIpv6: u32): FlowTable {
  return changetype<FlowTable>(isIpv6 ? table6 : table4);
}

/** Lays out the regions of a table; returns its size in bytes. */
export function reserveTable(table: FlowTable, isIpv6: u32, flowCountMax: u32): u64 {
  const slots = <u64>flowCountMax + <u64>(flowCountMax / 100) + GROUP_SLOTS;
  const cells = <u64>flowCountMax + (<u64>flowCountMax * 41) / 100 + 2 * BUCKET_CELLS;
  table.isIpv6 = isIpv6;
  table.flowCount = 0;
  table.spillCursor = 0;
  table.sweepCursor = 0;
  table.roomCursor = 0;
  table.unindexedCount = 0;
  table.sweptMs = 0;
  table.agedMs = 0;
  table.roundMs = 0;
  table.recordShift = isIpv6 ? 7 : 6;
  table.flowCountMax = flowCountMax;
  table.groupCount = <u32>((slots + GROUP_SLOTS - 1) / GROUP_SLOTS);
  table.bucketCount = <u32>((cells + BUCKET_CELLS - 1) / BUCKET_CELLS);
  const slotCount = <u64>table.groupCount * GROUP_SLOTS;
  table.slotBits = 32 - clz<u32>(<u32>slotCount);
  assert(slotCount <= <u64>SLOT_COUNT_MAX, "flow table: more slots than an index cell can name");
  const spillBytes = <u64>table.groupCount * 4;
  const bytes = (slotCount << table.recordShift) + slotCount + spillBytes;
  table.tags = reserve(slotCount);
  table.cells = reserve(<u64>table.bucketCount * BUCKET_BYTES);
  table.spills = reserve(spillBytes);
  table.records = reserve(slotCount << table.recordShift);
  return bytes + <u64>table.bucketCount * BUCKET_BYTES;
}

export function homeGroup(table: FlowTable, hash: u64): u32 {
  return <u32>(((hash >> 32) * <u64>table.groupCount) >> 32);
}

export function groupTags(table: FlowTable, group: u32): usize {
  return table.tags + ((<usize>group) << 4);
}

export function tagOf(hash: u64): u8 {
  const tag = <u8>hash;
  return select<u8>(1, tag, tag == 0);
}

/** Bit per slot of a group whose tag is `tag`. */
export function tagMatches(tags: usize, tag: u8): u32 {
  return <u32>i8x16.bitmask(i8x16.eq(v128.load(tags), i8x16.splat(<i8>tag)));
}

/** The bit of a hash beside the spill count; bits that place it neither in the index nor among tags. */
function spillBit(hash: u64): u32 {
  const bit = 8 + ((((hash >> 8) & 0xffff) * SPILL_BITS) >> 16);
  return 1 << (<u32>bit);
}

/** The word of a group that knows of flows which have spilled from it. */
export function spillsOf(table: FlowTable, group: u32): usize {
  return table.spills + ((<usize>group) << 2);
}

/** False when no flow with this client-side hash has spilled from the group whose word it is. */
export function hasSpilled(spills: usize, hash: u64): bool {
  return (load<u32>(spills) & spillBit(hash)) != 0;
}

export function recordAt(table: FlowTable, slot: u32): usize {
  return table.records + ((<usize>slot) << table.recordShift);
}

export function slotOf(table: FlowTable, record: usize): u32 {
  return <u32>((record - table.records) >> table.recordShift);
}

/** Handle by which the outside names a flow; 0 is no flow. */
export function handleOf(table: FlowTable, record: usize): u32 {
  return (slotOf(table, record) + 1) | (table.isIpv6 ? HANDLE_IPV6 : 0);
}

/** The same for a record of the IPv4 table, whose record size is known here. */
export function handleOf4(record: usize): u32 {
  return <u32>((record - flowTable(0).records) / FLOW_BYTES) + 1;
}

/** The two index buckets of a hash. */
export function firstBucket(table: FlowTable, hash: u64): usize {
  const bucket = ((hash & 0xffffffff) * <u64>table.bucketCount) >> 32;
  return table.cells + <usize>(bucket << 6);
}

export function secondBucket(table: FlowTable, hash: u64): usize {
  const other = (hash * 0xff51afd7ed558ccd) >> 32;
  return table.cells + <usize>(((other * <u64>table.bucketCount) >> 32) << 6);
}

/** Bits of an index cell that are its tag. */
function tagMask(table: FlowTable): u32 {
  return (<u32>-1) << table.slotBits;
}

/** Tag of a hash in place in an index cell: not 0, and of the hash's upper bits. */
function cellTag(table: FlowTable, hash: u64): u32 {
  const tag = <u32>(hash >> 32) & tagMask(table);
  return select<u32>(1 << table.slotBits, tag, tag == 0);
}

/** The slot that a cell names. */
function cellRecord(table: FlowTable, cell: u32): usize {
  return recordAt(table, (cell & ~tagMask(table)) - 1);
}

/** Bit per cell of a bucket that is `wanted` in the bits of `mask`. */
function cellMatches(bucket: usize, mask: u32, wanted: u32): u32 {
  const bits = i32x4.splat(<i32>mask);
  const value = i32x4.splat(<i32>wanted);
  const first = i32x4.eq(v128.and(v128.load(bucket), bits), value);
  const second = i32x4.eq(v128.and(v128.load(bucket, 16), bits), value);
  const third = i32x4.eq(v128.and(v128.load(bucket, 32), bits), value);
  const fourth = i32x4.eq(v128.and(v128.load(bucket, 48), bits), value);
  const low = i16x8.narrow_i32x4_s(first, second);
  const high = i16x8.narrow_i32x4_s(third, fourth);
  return <u32>i8x16.bitmask(i8x16.narrow_i16x8_s(low, high));
}

/** Bit per cell of a bucket that may hold a flow under `hash`. */
export function probeBucket(table: FlowTable, bucket: usize, hash: u64): u32 {
  return cellMatches(bucket, tagMask(table), cellTag(table, hash));
}

/** Record that cell `position` of a bucket points to. */
export function recordOfCell(table: FlowTable, bucket: usize, position: u32): usize {
  return cellRecord(table, load<u32>(bucket + ((<usize>position) << 2)));
}

/** True when the packet's tuple is the record's tuple of `side`. */
export function matches(record: usize, side: u32, packet: Packet): bool {
  const key = record + ((<usize>side) << 4);
  const isSame = i32(load<u64>(key) == packet.addresses) & i32(load<u64>(key, 8) == packet.rest);
  if (!isSame || !packet.isIpv6) return isSame != 0;
  const addresses = record + (side == SIDE_CLIENT ? FLOW6_CLIENT_LOW : FLOW6_SERVICE_LOW);
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  const low = packet.swapped ? destination : source;
  const high = packet.swapped ? source : destination;
  return isSame16(addresses, low) && isSame16(addresses + 16, high);
}

function isSame16(left: usize, right: usize): bool {
  return load<u64>(left) == load<u64>(right) && load<u64>(left, 8) == load<u64>(right, 8);
}

/** Flow whose client-side tuple is the packet's, or 0. */
export function findByClientSide(table: FlowTable, packet: Packet): usize {
  const group = homeGroup(table, packet.hash);
  let hits = tagMatches(groupTags(table, group), tagOf(packet.hash));
  while (hits) {
    const record = recordAt(table, (group << 4) + ctz(hits));
    if (matches(record, SIDE_CLIENT, packet)) return record;
    hits &= hits - 1;
  }
  if (!hasSpilled(spillsOf(table, group), packet.hash)) return 0;
  return findByIndex(table, packet, SIDE_CLIENT);
}

/** Flow whose service-side tuple is the packet's, indexed or not, or 0. */
export function findOwner(table: FlowTable, packet: Packet): usize {
  const owner = findByIndex(table, packet, SIDE_SERVICE);
  if (owner != 0 || table.unindexedCount == 0) return owner;
  const untranslated = findByClientSide(table, packet);
  if (untranslated == 0) return 0;
  return load<u8>(untranslated, FLOW_FLAGS) & FLOW_FLAG_INDEXED ? 0 : untranslated;
}

/** Flow that the index holds under the packet's tuple as its tuple of `side`, or 0. */
export function findByIndex(table: FlowTable, packet: Packet, side: u32): usize {
  const hash = packet.hash;
  const found = searchBucket(table, firstBucket(table, hash), packet, side);
  if (found) return found;
  return searchBucket(table, secondBucket(table, hash), packet, side);
}

function searchBucket(table: FlowTable, bucket: usize, packet: Packet, side: u32): usize {
  let hits = probeBucket(table, bucket, packet.hash);
  while (hits) {
    const record = recordOfCell(table, bucket, ctz(hits));
    if (matches(record, side, packet)) return record;
    hits &= hits - 1;
  }
  return 0;
}

/** Bit per free cell of a bucket. */
function freeCells(bucket: usize): u32 {
  return cellMatches(bucket, 0xffffffff, 0);
}

function cellOf(table: FlowTable, hash: u64, slot: u32): u32 {
  return cellTag(table, hash) | (slot + 1);
}

/** Adds a cell for `slot` under `hash`; false when both buckets are full. */
export function addToIndex(table: FlowTable, hash: u64, slot: u32): bool {
  const first = firstBucket(table, hash);
  const second = secondBucket(table, hash);
  const firstFree = freeCells(first);
  const secondFree = freeCells(second);
  // No branches: in a full table it is either bucket, as it happens.
  const isFull = u32(<u32>popcnt(firstFree) < FIRST_BUCKET_RESERVE);
  const isSecond = isFull & u32(popcnt(secondFree) > popcnt(firstFree));
  const bucket = select<usize>(second, first, isSecond);
  const free = select<u32>(secondFree, firstFree, isSecond);
  if (free == 0) return false;
  store<u32>(bucket + ((<usize>ctz(free)) << 2), cellOf(table, hash, slot));
  return true;
}

function removeFromIndex(table: FlowTable, hash: u64, slot: u32): void {
  const cell = cellOf(table, hash, slot);
  if (clearCell(firstBucket(table, hash), cell)) return;
  const isRemoved = clearCell(secondBucket(table, hash), cell);
  assert(isRemoved, "flow table: an indexed flow has no index cell");
}

function clearCell(bucket: usize, cell: u32): bool {
  for (let offset: usize = 0; offset < <usize>BUCKET_BYTES; offset += 4) {
    if (load<u32>(bucket + offset) != cell) continue;
    store<u32>(bucket + offset, 0);
    return true;
  }
  return false;
}

/**
 * Takes a slot for a flow with this client-side hash and returns its record with FLOW_FLAGS set,
 * all else undefined; 0 when there is none. The caller has checked flowCount < flowCountMax.
 */
export function takeSlot(table: FlowTable, hash: u64): usize {
  const group = homeGroup(table, hash);
  const tags = groupTags(table, group);
  const free = tagMatches(tags, 0);
  if (free == 0) return takeSpilledSlot(table, hash, group);
  const position = ctz(free);
  store<u8>(tags + <usize>position, tagOf(hash));
  const record = recordAt(table, (group << 4) + position);
  store<u8>(record, 0, FLOW_FLAGS);
  table.flowCount++;
  return record;
}

/**
 * False when for certain no flow has the packet's tuple as its client side; true says nothing. It is what
 * the first packet of a flow nearly always gets, after two looks.
 */
export function mayBeClientSide(table: FlowTable, packet: Packet): bool {
  const group = homeGroup(table, packet.hash);
  if (tagMatches(groupTags(table, group), tagOf(packet.hash)) != 0) return true;
  return hasSpilled(spillsOf(table, group), packet.hash);
}

/** The same for `findOwner`. */
export function mayHaveOwner(table: FlowTable, tuple: Packet): bool {
  const hash = tuple.hash;
  const first = probeBucket(table, firstBucket(table, hash), hash);
  const second = probeBucket(table, secondBucket(table, hash), hash);
  return (first | second | table.unindexedCount) != 0;
}

/**
 * Takes a slot for a flow, and an index cell under its service-side tuple. Returns the record with
 * its client side and FLOW_FLAGS set, all else undefined; 0, with nothing changed, when either is not
 * to be had. The caller has checked flowCount < flowCountMax.
 */
export function takePlace(table: FlowTable, packet: Packet, tuple: Packet): usize {
  const hash = packet.hash;
  const group = homeGroup(table, hash);
  const tags = groupTags(table, group);
  const free = tagMatches(tags, 0);
  if (free == 0) return takeSpilledPlace(table, packet, tuple, group);
  const slot = (group << 4) + ctz(free);
  if (!addToIndex(table, tuple.hash, slot)) return 0;
  store<u8>(tags + <usize>ctz(free), tagOf(hash));
  const record = recordAt(table, slot);
  storeSide(record, SIDE_CLIENT, packet);
  store<u8>(record, 0, FLOW_FLAGS);
  table.flowCount++;
  return record;
}

/** The same where the home group is full. */
function takeSpilledPlace(table: FlowTable, packet: Packet, tuple: Packet, home: u32): usize {
  const cursor = table.spillCursor;
  const record = takeSpilledSlot(table, packet.hash, home);
  if (record != 0) {
    storeSide(record, SIDE_CLIENT, packet);
    if (addToIndex(table, tuple.hash, slotOf(table, record))) return record;
    table.unindexedCount++;
    releaseSlot(table, record);
  }
  table.spillCursor = cursor;
  return 0;
}

function takeSpilledSlot(table: FlowTable, hash: u64, home: u32): usize {
  const spills = spillsOf(table, home);
  if (load<u8>(spills) == SPILL_COUNT_MAX) return 0;
  let group = table.spillCursor;
  for (let step: u32 = 0; step < SPILL_GROUPS_MAX; step++) {
    if (group >= table.groupCount) group = 0;
    const tags = groupTags(table, group);
    const free = tagMatches(tags, 0);
    if (free) {
      table.spillCursor = group;
      const slot = (group << 4) + ctz(free);
      if (!addToIndex(table, hash, slot)) return 0;
      store<u8>(tags + <usize>ctz(free), tagOf(hash));
      store<u32>(spills, (load<u32>(spills) | spillBit(hash)) + 1);
      const record = recordAt(table, slot);
      store<u8>(record, <u8>FLOW_FLAG_SPILLED, FLOW_FLAGS);
      table.flowCount++;
      return record;
    }
    group++;
  }
  table.spillCursor = group;
  return 0;
}

/** Hash of the tuple that a record stores for `side`. */
export function hashOfSide(table: FlowTable, record: usize, side: u32): u64 {
  const key = record + (side == SIDE_CLIENT ? FLOW_CLIENT_SIDE : FLOW_SERVICE_SIDE);
  const addresses = load<u64>(key);
  const rest = load<u64>(key, 8);
  return table.isIpv6 ? hashDigest(addresses, rest) : hashTuple(addresses, rest);
}

/** Gives a flow's slot and index cells back. */
export function releaseSlot(table: FlowTable, record: usize): void {
  const slot = slotOf(table, record);
  const tag = table.tags + <usize>slot;
  assert(load<u8>(tag) != 0, "flow table: a free slot was released");
  const flags = load<u8>(record, FLOW_FLAGS);
  if (flags & FLOW_FLAG_INDEXED) {
    removeFromIndex(table, hashOfSide(table, record, SIDE_SERVICE), slot);
  } else {
    table.unindexedCount--;
  }
  if (flags & FLOW_FLAG_SPILLED) {
    const hash = hashOfSide(table, record, SIDE_CLIENT);
    removeFromIndex(table, hash, slot);
    const spills = spillsOf(table, homeGroup(table, hash));
    // Bits are shared: only the last flow to leave clears them.
    const isLast = load<u8>(spills) == 1;
    store<u32>(spills, isLast ? 0 : load<u32>(spills) - 1);
  }
  store<u8>(tag, 0);
  // A packet of the same batch may still hold this record as its candidate: no tuple matches it now.
  store<u64>(record + FLOW_CLIENT_SIDE, NO_TUPLE, 8);
  store<u64>(record + FLOW_SERVICE_SIDE, NO_TUPLE, 8);
  table.flowCount--;
}

/** True when the slot holds a flow. */
export function isLive(table: FlowTable, slot: u32): bool {
  return load<u8>(table.tags + <usize>slot) != 0;
}

/** Writes the packet's tuple as the record's tuple of `side`. */
export function storeSide(record: usize, side: u32, packet: Packet): void {
  const key = record + ((<usize>side) << 4);
  store<u64>(key, packet.addresses);
  store<u64>(key, packet.rest, 8);
  if (!packet.isIpv6) return;
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  const low = packet.swapped ? destination : source;
  const high = packet.swapped ? source : destination;
  const isClient = side == SIDE_CLIENT;
  v128.store(record + (isClient ? FLOW6_CLIENT_LOW : FLOW6_SERVICE_LOW), v128.load(low));
  v128.store(record + (isClient ? FLOW6_CLIENT_HIGH : FLOW6_SERVICE_HIGH), v128.load(high));
}
