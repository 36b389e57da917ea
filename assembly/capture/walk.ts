/**
 * Walks the records of a capture where they lie in memory and fills frame descriptors.
 *
 * Formats: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng: enhanced, simple and
 * obsolete packet blocks; blocks of other types are stepped over). Section headers and interface
 * descriptions are rare and belong to the host: the walk stops in front of them.
 *
 * Where workers share a capture, the walk passes over the frames that are not this worker's.
 *
 * Records of one millisecond that come in order move no clock and leave no trace but the latest instant,
 * so of them the walk only asks that; whatever can be told from where it began and ended is told then.
 *
 * Invariants: nothing outside [start, end) is read and only the state and the descriptors are
 * written; WALK_NEXT always is the begin of a record (or `end`); every stop has a reason, so that a
 * walk either makes progress or says what is missing. All addresses come from the caller.
 */
import {
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_RECORD,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  INTERFACE_BYTES,
  INTERFACE_CLOCK,
  INTERFACE_CLOCK_DIVIDE,
  INTERFACE_CLOCK_MULTIPLY,
  INTERFACE_OFFSET_NS,
  INTERFACE_PORT,
  INTERFACE_REFUSED,
  INTERFACE_SCALE,
  INTERFACE_SNAP_BYTES,
  VERDICT_DROP_TRUNCATED,
  WALK_BASE_NS,
  WALK_BLOCK_BYTES_MAX,
  WALK_CLOCK_MS,
  WALK_DETAIL,
  WALK_EARLIEST_NS,
  WALK_ELAPSED_MS,
  WALK_FLAG_LENGTHS_EITHER,
  WALK_FLAG_LENGTHS_SWAPPED,
  WALK_FLAG_NANOSECONDS,
  WALK_FLAG_PCAPNG,
  WALK_FLAG_SWAPPED,
  WALK_FLAG_TIMED,
  WALK_FLAGS,
  WALK_INTERFACE_COUNT,
  WALK_INTERFACES,
  WALK_KEPT_FROM,
  WALK_KEPT_OCTETS,
  WALK_KEPT_PACKETS,
  WALK_KEPT_TO,
  WALK_LAST_NS,
  WALK_LATEST_NS,
  WALK_LENGTH_MAX,
  WALK_NEXT,
  WALK_OCTETS,
  WALK_PACKETS,
  WALK_REASON,
  WALK_STOP_BLOCK,
  WALK_STOP_BLOCK_LENGTH,
  WALK_STOP_FULL,
  WALK_STOP_INTERFACE,
  WALK_STOP_LONG,
  WALK_STOP_OVERRUN,
  WALK_STOP_REFUSED,
  WALK_STOP_SHORT,
  WALK_STOP_TRAILER,
} from "../abi";
import { clockStep } from "../flow/state";
import { isSelecting, keep } from "./select";

const PCAP_HEADER_BYTES: u32 = 16;
const SECTION_HEADER: u32 = 0x0a0d0d0a; // the same in both byte orders
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const NS_PER_SECOND: i64 = 1000000000;
const NS_PER_MS: i64 = 1000000;
/** Whatever makes a pcap record another than four little-endian words in today's order. */
const UNUSUAL: u32 = WALK_FLAG_SWAPPED | WALK_FLAG_LENGTHS_SWAPPED | WALK_FLAG_LENGTHS_EITHER;

function u32At(address: usize, swapped: bool): u32 {
  const value = load<u32>(address);
  return swapped ? bswap<u32>(value) : value;
}

function isPacketBlock(type: u32): bool {
  return type == ENHANCED_PACKET || type == SIMPLE_PACKET || type == OBSOLETE_PACKET;
}

function pcapNs(record: usize, swapped: bool, fractionNs: i64): i64 {
  return <i64>u32At(record, swapped) * NS_PER_SECOND + <i64>u32At(record + 4, swapped) * fractionNs;
}

/** Captured length of a pcap record from its two lengths, which stood the other way before 2.4. */
function capturedOf(first: u32, second: u32, flags: u32): u32 {
  if (flags & WALK_FLAG_LENGTHS_SWAPPED) return second;
  return (flags & WALK_FLAG_LENGTHS_EITHER) != 0 ? min<u32>(first, second) : first;
}

function pcapCapturedBytes(record: usize, flags: u32, swapped: bool): u32 {
  return capturedOf(u32At(record + 8, swapped), u32At(record + 12, swapped), flags);
}

/** The instant that `units` of an interface's clock mean (pcapng: if_tsresol, if_tsoffset). */
function interfaceNs(entry: usize, units: u64): i64 {
  const clock = load<u32>(entry, INTERFACE_CLOCK);
  const scale = load<u64>(entry, INTERFACE_SCALE);
  let ns: i64;
  if (clock == INTERFACE_CLOCK_MULTIPLY) ns = <i64>(units * scale);
  else if (clock == INTERFACE_CLOCK_DIVIDE) ns = <i64>(units / scale);
  else {
    // 30 bits of fraction are finer than a nanosecond and keep the product within 64 bits.
    let fraction = units & (((<u64>1) << scale) - 1);
    let bits = scale;
    if (bits > 30) {
      fraction >>= bits - 30;
      bits = 30;
    }
    ns = <i64>(units >> scale) * NS_PER_SECOND + <i64>((fraction * NS_PER_SECOND) >> bits);
  }
  return ns + load<i64>(entry, INTERFACE_OFFSET_NS);
}

/** ms since the first record, 0 for instants before it. */
function elapsedOf(ns: i64, baseNs: i64): i64 {
  return max<i64>(ns - baseNs, 0) / NS_PER_MS;
}

/** Makes `ns` the begin of the virtual clock unless the capture has one. */
function begin(state: usize, ns: i64): void {
  const flags = load<u32>(state, WALK_FLAGS);
  if (flags & WALK_FLAG_TIMED) return;
  store<u32>(state, flags | WALK_FLAG_TIMED, WALK_FLAGS);
  store<i64>(state, ns, WALK_BASE_NS);
  store<i64>(state, ns, WALK_EARLIEST_NS);
  store<i64>(state, ns, WALK_LATEST_NS);
  store<i64>(state, ns, WALK_LAST_NS);
}

function describe(
  descriptor: usize,
  record: usize,
  address: usize,
  captured: u32,
  wire: u32,
  port: u32,
  timeMs: u32,
): void {
  // Two fields at a time; see the layout of FRAME_* in abi.ts.
  store<u64>(descriptor, ((<u64>captured) << 32) | <u64>(<u32>address), FRAME_ADDRESS);
  store<u64>(descriptor, ((<u64>port) << 32) | <u64>timeMs, FRAME_TIME_MS);
  store<u64>(descriptor, 0, FRAME_VERDICT);
  store<u64>(descriptor, ((<u64>wire) << 32) | <u64>(<u32>record), FRAME_RECORD);
}

/** Notes where and why the walk stops, and how many records there were. */
function stop(state: usize, next: usize, reason: u32, detail: u32, packets: u64): void {
  store<u32>(state, <u32>next, WALK_NEXT);
  store<u32>(state, reason, WALK_REASON);
  store<u32>(state, detail, WALK_DETAIL);
  store<u64>(state, packets, WALK_PACKETS);
}

/**
 * Describes up to `limit` pcap records of [start, end). Returns how many, and where and why it
 * stopped in the state. Port 0; timeMs counts from the first record, truncated, modulo 2^32, and
 * moves by 12.4 days a record at most (assembly/clock.ts).
 */
export function walkPcap(
  state: usize,
  start: usize,
  end: usize,
  descriptors: usize,
  limit: u32,
): u32 {
  const flags = load<u32>(state, WALK_FLAGS);
  const isUnusual = (flags & UNUSUAL) != 0;
  const fractionNs: i64 = (flags & WALK_FLAG_NANOSECONDS) != 0 ? 1 : 1000;
  const lengthMax = load<u32>(state, WALK_LENGTH_MAX);
  if (end - start >= PCAP_HEADER_BYTES) {
    begin(state, pcapNs(start, (flags & WALK_FLAG_SWAPPED) != 0, fractionNs));
  }
  const firstPacket = load<u64>(state, WALK_PACKETS);
  const descriptorsEnd = descriptors + limit * FRAME_BYTES;
  let latestNs = load<i64>(state, WALK_LATEST_NS);
  let tickNs = tickOf(state);
  let timeMs = load<u32>(state, WALK_CLOCK_MS);
  let reason = WALK_STOP_FULL;
  let detail: u32 = 0;
  let record = start;
  let packets = firstPacket;
  let descriptor = descriptors;
  while (descriptor != descriptorsEnd) {
    const left = end - record;
    if (left < PCAP_HEADER_BYTES) {
      reason = WALK_STOP_SHORT;
      detail = PCAP_HEADER_BYTES;
      break;
    }
    let captured = load<u32>(record, 8);
    let wire = load<u32>(record, 12);
    let ns = <i64>load<u32>(record) * NS_PER_SECOND + <i64>load<u32>(record, 4) * fractionNs;
    if (isUnusual) {
      const swapped = (flags & WALK_FLAG_SWAPPED) != 0;
      captured = pcapCapturedBytes(record, flags, swapped);
      // Whichever of the two is not the captured length.
      wire = u32At(record + 8, swapped) ^ u32At(record + 12, swapped) ^ captured;
      ns = pcapNs(record, swapped, fractionNs);
    }
    if (captured > lengthMax) {
      reason = WALK_STOP_LONG;
      detail = captured;
      break;
    }
    if (left - PCAP_HEADER_BYTES < captured) {
      reason = WALK_STOP_SHORT;
      detail = PCAP_HEADER_BYTES + captured;
      break;
    }
    if (ns < latestNs || ns >= tickNs) {
      store<i64>(state, latestNs, WALK_LATEST_NS);
      timeMs = moveTime(state, ns);
      latestNs = load<i64>(state, WALK_LATEST_NS);
      tickNs = tickOf(state);
    } else latestNs = ns;
    describe(descriptor, record, record + PCAP_HEADER_BYTES, captured, wire, 0, timeMs);
    descriptor += isSelecting ? keep(descriptor, packets) * FRAME_BYTES : FRAME_BYTES;
    packets++;
    record += PCAP_HEADER_BYTES + captured;
  }
  store<i64>(state, latestNs, WALK_LATEST_NS);
  const octets = <u64>(record - start) - (packets - firstPacket) * PCAP_HEADER_BYTES;
  store<u64>(state, load<u64>(state, WALK_OCTETS) + octets, WALK_OCTETS);
  stop(state, record, reason, detail, packets);
  return <u32>((descriptor - descriptors) / FRAME_BYTES);
}

/** Instant from which on the virtual clock shows more than it does. */
function tickOf(state: usize): i64 {
  const elapsedMs = load<i64>(state, WALK_ELAPSED_MS);
  return load<i64>(state, WALK_BASE_NS) + (elapsedMs + 1) * NS_PER_MS;
}

/** Notes the instant of a record and moves the virtual clock there. Returns what it shows. */
function moveTime(state: usize, ns: i64): u32 {
  store<i64>(state, min<i64>(ns, load<i64>(state, WALK_EARLIEST_NS)), WALK_EARLIEST_NS);
  store<i64>(state, max<i64>(ns, load<i64>(state, WALK_LATEST_NS)), WALK_LATEST_NS);
  return moveWalkClock(state, elapsedOf(ns, load<i64>(state, WALK_BASE_NS)));
}

function moveWalkClock(state: usize, nextMs: i64): u32 {
  const timeMs =
    load<u32>(state, WALK_CLOCK_MS) + clockStep(nextMs - load<i64>(state, WALK_ELAPSED_MS));
  store<i64>(state, nextMs, WALK_ELAPSED_MS);
  store<u32>(state, timeMs, WALK_CLOCK_MS);
  return timeMs;
}

/** Describes the packet block at `block`; returns WALK_STOP_FULL, or the reason to stop there. */
function describeBlock(state: usize, block: usize, length: u32, descriptor: usize): u32 {
  const swapped = (load<u32>(state, WALK_FLAGS) & WALK_FLAG_SWAPPED) != 0;
  const type = u32At(block, swapped);
  const simple = type == SIMPLE_PACKET;
  const overhead: u32 = simple ? 16 : 32; // all but the data, the trailing length included
  store<u32>(state, length, WALK_DETAIL);
  if (length < overhead) return WALK_STOP_BLOCK_LENGTH;
  let index: u32 = 0;
  if (type == ENHANCED_PACKET) index = u32At(block + 8, swapped);
  else if (type == OBSOLETE_PACKET) {
    const value = load<u16>(block + 8);
    index = swapped ? bswap<u16>(value) : value;
  }
  store<u32>(state, index, WALK_DETAIL);
  if (index >= load<u32>(state, WALK_INTERFACE_COUNT)) return WALK_STOP_INTERFACE;
  const entry = <usize>load<u32>(state, WALK_INTERFACES) + <usize>index * INTERFACE_BYTES;
  if (load<u8>(entry, INTERFACE_REFUSED)) return WALK_STOP_REFUSED;
  let captured: u32;
  let wire: u32;
  let ns: i64;
  if (simple) {
    // No captured length and no time: cut at the snapshot length, and as late as the one before.
    wire = u32At(block + 8, swapped);
    const snap = load<u32>(entry, INTERFACE_SNAP_BYTES);
    captured = min<u32>(wire, length - overhead);
    if (snap) captured = min<u32>(captured, snap);
    ns = load<i64>(state, WALK_LAST_NS);
  } else {
    captured = u32At(block + 20, swapped);
    wire = u32At(block + 24, swapped);
    const high = <u64>u32At(block + 12, swapped);
    ns = interfaceNs(entry, (high << 32) | u32At(block + 16, swapped));
  }
  store<u32>(state, captured, WALK_DETAIL);
  if (captured > length - overhead) return WALK_STOP_OVERRUN;
  if (captured > load<u32>(state, WALK_LENGTH_MAX)) return WALK_STOP_LONG;
  if (!simple) begin(state, ns);
  store<i64>(state, ns, WALK_LAST_NS);
  if (load<u32>(state, WALK_FLAGS) & WALK_FLAG_TIMED) {
    store<i64>(state, min<i64>(ns, load<i64>(state, WALK_EARLIEST_NS)), WALK_EARLIEST_NS);
    store<i64>(state, max<i64>(ns, load<i64>(state, WALK_LATEST_NS)), WALK_LATEST_NS);
  }
  store<u64>(state, load<u64>(state, WALK_OCTETS) + captured, WALK_OCTETS);
  const timeMs = moveWalkClock(state, elapsedOf(ns, load<i64>(state, WALK_BASE_NS)));
  const data = block + (simple ? 12 : 28);
  describe(descriptor, block, data, captured, wire, load<u16>(entry, INTERFACE_PORT), timeMs);
  return WALK_STOP_FULL;
}

/**
 * Describes up to `limit` packet blocks of [start, end), all of one pcapng section, and steps over
 * blocks that hold no packet. Returns how many, and where and why it stopped in the state.
 */
export function walkPcapng(
  state: usize,
  start: usize,
  end: usize,
  descriptors: usize,
  limit: u32,
): u32 {
  const swapped = (load<u32>(state, WALK_FLAGS) & WALK_FLAG_SWAPPED) != 0;
  let block = start;
  let packets = load<u64>(state, WALK_PACKETS);
  let count: u32 = 0;
  let reason = WALK_STOP_FULL;
  store<u32>(state, 0, WALK_DETAIL);
  while (count < limit) {
    reason = checkBlock(state, block, <u32>(end - block), swapped);
    if (reason != WALK_STOP_FULL) break;
    const length = u32At(block + 4, swapped);
    if (isPacketBlock(u32At(block, swapped))) {
      const descriptor = descriptors + count * FRAME_BYTES;
      reason = describeBlock(state, block, length, descriptor);
      if (reason != WALK_STOP_FULL) break;
      count += isSelecting ? keep(descriptor, packets) : 1;
      packets++;
    }
    block += length;
  }
  stop(state, block, reason, load<u32>(state, WALK_DETAIL), packets);
  return count;
}

/** Whether a whole block that is no concern of the host's begins at `block`; else why not. */
function checkBlock(state: usize, block: usize, left: u32, swapped: bool): u32 {
  store<u32>(state, 12, WALK_DETAIL);
  if (left < 8) return WALK_STOP_SHORT;
  const type = u32At(block, swapped);
  store<u32>(state, 0, WALK_DETAIL);
  if (type == SECTION_HEADER) return WALK_STOP_BLOCK;
  const length = u32At(block + 4, swapped);
  store<u32>(state, length, WALK_DETAIL);
  if (length < 12 || (length & 3) != 0 || length > WALK_BLOCK_BYTES_MAX) {
    return WALK_STOP_BLOCK_LENGTH;
  }
  if (left < length) return WALK_STOP_SHORT;
  const trailer = u32At(block + length - 4, swapped);
  store<u32>(state, trailer, WALK_DETAIL);
  if (trailer != length) return WALK_STOP_TRAILER;
  return type == INTERFACE_DESCRIPTION ? WALK_STOP_BLOCK : WALK_STOP_FULL;
}

/**
 * The exact instant of a described frame in ns since 1970-01-01 UTC. A simple packet block has
 * none: then what the virtual clock says. The frame's section must be the current one.
 */
export function walkTimeNs(state: usize, descriptor: usize): i64 {
  const flags = load<u32>(state, WALK_FLAGS);
  const swapped = (flags & WALK_FLAG_SWAPPED) != 0;
  const record = <usize>load<u32>(descriptor, FRAME_RECORD);
  if (!(flags & WALK_FLAG_PCAPNG)) {
    return pcapNs(record, swapped, (flags & WALK_FLAG_NANOSECONDS) != 0 ? 1 : 1000);
  }
  const type = u32At(record, swapped);
  if (type == SIMPLE_PACKET) {
    // Told by how far back it lies of where the walk stands: the clock itself goes around.
    const sinceMs = <i32>(load<u32>(state, WALK_CLOCK_MS) - load<u32>(descriptor, FRAME_TIME_MS));
    const elapsedMs = load<i64>(state, WALK_ELAPSED_MS) - <i64>sinceMs;
    return load<i64>(state, WALK_BASE_NS) + elapsedMs * NS_PER_MS;
  }
  let index = u32At(record + 8, swapped);
  if (type == OBSOLETE_PACKET) {
    const value = load<u16>(record + 8);
    index = swapped ? bswap<u16>(value) : value;
  }
  const entry = <usize>load<u32>(state, WALK_INTERFACES) + <usize>index * INTERFACE_BYTES;
  const high = <u64>u32At(record + 12, swapped);
  return interfaceNs(entry, (high << 32) | u32At(record + 16, swapped));
}

/** Bytes of a whole record or block, its header included. */
function recordBytes(record: usize, flags: u32, swapped: bool): u32 {
  if (flags & WALK_FLAG_PCAPNG) return u32At(record + 4, swapped);
  return PCAP_HEADER_BYTES + pcapCapturedBytes(record, flags, swapped);
}

/** Whether a frame still is where, and as long as, its record says. */
function isInPlace(descriptor: usize, record: usize, flags: u32, swapped: bool): bool {
  const address = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const captured = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  if (!(flags & WALK_FLAG_PCAPNG)) {
    return (
      address == record + PCAP_HEADER_BYTES && captured == pcapCapturedBytes(record, flags, swapped)
    );
  }
  // A simple block's captured length follows from its wire length: any change is caught below 12.
  if (u32At(record, swapped) == SIMPLE_PACKET) {
    return address == record + 12 && captured <= u32At(record + 4, swapped) - 16;
  }
  return address == record + 28 && captured == u32At(record + 20, swapped);
}

/** Moves the undecided bytes before `end` to the kept ones. */
export function walkKeep(state: usize, end: usize): void {
  const from = <usize>load<u32>(state, WALK_KEPT_FROM);
  const to = <usize>load<u32>(state, WALK_KEPT_TO);
  const bytes = end - from;
  if (from != to) memory.copy(to, from, bytes);
  store<u32>(state, <u32>(to + bytes), WALK_KEPT_TO);
  store<u32>(state, <u32>end, WALK_KEPT_FROM);
}

/**
 * Closes the gaps that dropped frames leave: records of descriptors [first, count) whose verdict is
 * a drop are left out, everything else in between (blocks of other types too) is kept in order.
 * Returns `count`, or earlier the index of a frame that left its record: the caller writes that one.
 */
export function walkCompact(state: usize, descriptors: usize, first: u32, count: u32): u32 {
  const flags = load<u32>(state, WALK_FLAGS);
  const swapped = (flags & WALK_FLAG_SWAPPED) != 0;
  let packets = load<u64>(state, WALK_KEPT_PACKETS);
  let octets = load<u64>(state, WALK_KEPT_OCTETS);
  let index = first;
  for (; index < count; index++) {
    const descriptor = descriptors + index * FRAME_BYTES;
    const record = <usize>load<u32>(descriptor, FRAME_RECORD);
    const isDropped = load<u16>(descriptor, FRAME_VERDICT) >= VERDICT_DROP_TRUNCATED;
    if (!isDropped) {
      packets++;
      octets += load<u32>(descriptor, FRAME_CAPTURED_BYTES);
      if (isInPlace(descriptor, record, flags, swapped)) continue;
    }
    walkKeep(state, record);
    store<u32>(state, <u32>(record + recordBytes(record, flags, swapped)), WALK_KEPT_FROM);
    if (!isDropped) break;
  }
  store<u64>(state, packets, WALK_KEPT_PACKETS);
  store<u64>(state, octets, WALK_KEPT_OCTETS);
  return index;
}
