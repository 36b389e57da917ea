/**
 * The record walk over pcapng (draft-ietf-opsawg-pcapng): enhanced, simple and obsolete packet blocks;
 * blocks of other types are stepped over. Section headers and interface descriptions are rare and
 * belong to the host: the walk stops in front of them. Nearly all blocks are whole, enhanced and
 * little-endian: those are looked at once, and whatever is wrong with others the long way says.
 */
import {
  FRAME_BYTES,
  INTERFACE_BYTES,
  INTERFACE_CLOCK,
  INTERFACE_CLOCK_DIVIDE,
  INTERFACE_CLOCK_MULTIPLY,
  INTERFACE_OFFSET_NS,
  INTERFACE_PORT,
  INTERFACE_REFUSED,
  INTERFACE_SCALE,
  INTERFACE_SNAP_BYTES,
  WALK_BLOCK_BYTES_MAX,
  WALK_CLOCK_MS,
  WALK_DETAIL,
  WALK_FLAG_SWAPPED,
  WALK_FLAG_TIMED,
  WALK_FLAGS,
  WALK_INTERFACE_COUNT,
  WALK_INTERFACES,
  WALK_LAST_NS,
  WALK_LATEST_NS,
  WALK_LENGTH_MAX,
  WALK_OCTETS,
  WALK_PACKETS,
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
import { isSelecting, keepDescribed } from "./select";
import { begin, describe, moveTime, NS_PER_SECOND, stop, tickOf, u32At } from "./walk";

const SECTION_HEADER: u32 = 0x0a0d0d0a; // the same in both byte orders
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
export const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

function isPacketBlock(type: u32): bool {
  return type == ENHANCED_PACKET || type == SIMPLE_PACKET || type == OBSOLETE_PACKET;
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

/** Number of the interface that a block, which is no simple one, is of. */
function interfaceOf(block: usize, type: u32, swapped: bool): u32 {
  if (type == ENHANCED_PACKET) return u32At(block + 8, swapped);
  const value = load<u16>(block, 8);
  return swapped ? bswap<u16>(value) : value;
}

/** The time of a block in units of its interface's clock. */
function unitsOf(block: usize, swapped: bool): u64 {
  const high = <u64>u32At(block + 12, swapped);
  return (high << 32) | u32At(block + 16, swapped);
}

/** The instant of a block, which is no simple one, of the current section. */
export function blockNs(state: usize, block: usize, type: u32, swapped: bool): i64 {
  const index = interfaceOf(block, type, swapped);
  const entry = <usize>load<u32>(state, WALK_INTERFACES) + <usize>index * INTERFACE_BYTES;
  return interfaceNs(entry, unitsOf(block, swapped));
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
  let mayBeUsual = isUsualFrom(state);
  const descriptorsEnd = descriptors + limit * FRAME_BYTES;
  let descriptor = descriptors;
  let block = start;
  let packets = load<u64>(state, WALK_PACKETS);
  let reason = WALK_STOP_FULL;
  store<u32>(state, 0, WALK_DETAIL);
  while (descriptor != descriptorsEnd) {
    const left = <u32>(end - block);
    let length: u32 = mayBeUsual ? describeUsual(state, block, left, descriptor) : 0;
    let isPacket: bool = length != 0;
    if (!isPacket) {
      reason = checkBlock(state, block, left, swapped);
      if (reason != WALK_STOP_FULL) break;
      const type = u32At(block, swapped);
      length = u32At(block + 4, swapped);
      isPacket = isPacketBlock(type);
      if (isPacket) reason = describeBlock(state, block, type, length, swapped, descriptor);
      if (reason != WALK_STOP_FULL) break;
      mayBeUsual = isUsualFrom(state);
    }
    if (isPacket) {
      descriptor += isSelecting ? keepDescribed(descriptor, packets) * FRAME_BYTES : FRAME_BYTES;
      packets++;
    }
    block += length;
  }
  stop(state, block, reason, load<u32>(state, WALK_DETAIL), packets);
  return <u32>((descriptor - descriptors) / FRAME_BYTES);
}

/** Whether blocks from here on may be of the usual kind: little-endian, and after the first. */
function isUsualFrom(state: usize): bool {
  const flags = load<u32>(state, WALK_FLAGS) & (WALK_FLAG_SWAPPED | WALK_FLAG_TIMED);
  return flags == WALK_FLAG_TIMED;
}

/**
 * Describes the block at `block` if it is of the kind that captures are made of: whole, enhanced,
 * little-endian, its clock no finer than ns, and not the first. Returns its length, or 0 and has
 * done nothing.
 */
function describeUsual(state: usize, block: usize, left: u32, descriptor: usize): u32 {
  if (left < 32 || load<u32>(block) != ENHANCED_PACKET) return 0;
  const length = load<u32>(block, 4);
  if (length > min<u32>(left, WALK_BLOCK_BYTES_MAX) || length < 32 || (length & 3) != 0) return 0;
  if (load<u32>(block + length - 4) != length) return 0;
  const index = load<u32>(block, 8);
  if (index >= load<u32>(state, WALK_INTERFACE_COUNT)) return 0;
  const entry = <usize>load<u32>(state, WALK_INTERFACES) + <usize>index * INTERFACE_BYTES;
  if (load<u8>(entry, INTERFACE_REFUSED)) return 0;
  if (load<u32>(entry, INTERFACE_CLOCK) != INTERFACE_CLOCK_MULTIPLY) return 0;
  const captured = load<u32>(block, 20);
  if (captured > min<u32>(length - 32, load<u32>(state, WALK_LENGTH_MAX))) return 0;
  const offsetNs = load<i64>(entry, INTERFACE_OFFSET_NS);
  takeTime(state, <i64>(unitsOf(block, false) * load<u64>(entry, INTERFACE_SCALE)) + offsetNs);
  const wire = load<u32>(block, 24);
  const timeMs = load<u32>(state, WALK_CLOCK_MS);
  describe(descriptor, block, block + 28, captured, wire, load<u16>(entry, INTERFACE_PORT), timeMs);
  store<u64>(state, load<u64>(state, WALK_OCTETS) + captured, WALK_OCTETS);
  return length;
}

/** Notes the instant of a block, which is not the first; the virtual clock moves there. */
function takeTime(state: usize, ns: i64): void {
  store<i64>(state, ns, WALK_LAST_NS);
  if (ns < load<i64>(state, WALK_LATEST_NS) || ns >= tickOf(state)) moveTime(state, ns);
  else store<i64>(state, ns, WALK_LATEST_NS);
}

/** Whether a whole block that is no concern of the host's begins at `block`; else why not. */
function checkBlock(state: usize, block: usize, left: u32, swapped: bool): u32 {
  if (left < 8) return fault(state, WALK_STOP_SHORT, 12);
  const type = u32At(block, swapped);
  if (type == SECTION_HEADER) return WALK_STOP_BLOCK;
  const length = u32At(block + 4, swapped);
  if (length < 12 || (length & 3) != 0 || length > WALK_BLOCK_BYTES_MAX) {
    return fault(state, WALK_STOP_BLOCK_LENGTH, length);
  }
  if (left < length) return fault(state, WALK_STOP_SHORT, length);
  const trailer = u32At(block + length - 4, swapped);
  if (trailer != length) return fault(state, WALK_STOP_TRAILER, trailer);
  return type == INTERFACE_DESCRIPTION ? WALK_STOP_BLOCK : WALK_STOP_FULL;
}

/** Describes the packet block at `block`; returns WALK_STOP_FULL, or the reason to stop there. */
function describeBlock(
  state: usize,
  block: usize,
  type: u32,
  length: u32,
  swapped: bool,
  descriptor: usize,
): u32 {
  const simple = type == SIMPLE_PACKET;
  const overhead: u32 = simple ? 16 : 32; // all but the data, the trailing length included
  if (length < overhead) return fault(state, WALK_STOP_BLOCK_LENGTH, length);
  const index: u32 = simple ? 0 : interfaceOf(block, type, swapped);
  if (index >= load<u32>(state, WALK_INTERFACE_COUNT)) {
    return fault(state, WALK_STOP_INTERFACE, index);
  }
  const entry = <usize>load<u32>(state, WALK_INTERFACES) + <usize>index * INTERFACE_BYTES;
  if (load<u8>(entry, INTERFACE_REFUSED)) return fault(state, WALK_STOP_REFUSED, index);
  let captured: u32;
  let wire: u32;
  if (simple) {
    // No captured length: cut at the snapshot length.
    wire = u32At(block + 8, swapped);
    const snap = load<u32>(entry, INTERFACE_SNAP_BYTES);
    captured = min<u32>(wire, length - overhead);
    if (snap) captured = min<u32>(captured, snap);
  } else {
    captured = u32At(block + 20, swapped);
    wire = u32At(block + 24, swapped);
  }
  if (captured > length - overhead) return fault(state, WALK_STOP_OVERRUN, captured);
  if (captured > load<u32>(state, WALK_LENGTH_MAX)) return fault(state, WALK_STOP_LONG, captured);
  // No time either: as late as the one before.
  if (!simple) {
    const ns = interfaceNs(entry, unitsOf(block, swapped));
    begin(state, ns);
    takeTime(state, ns);
  }
  const data = block + (simple ? 12 : 28);
  const timeMs = load<u32>(state, WALK_CLOCK_MS);
  describe(descriptor, block, data, captured, wire, load<u16>(entry, INTERFACE_PORT), timeMs);
  store<u64>(state, load<u64>(state, WALK_OCTETS) + captured, WALK_OCTETS);
  return WALK_STOP_FULL;
}

/** Notes the number that a reason to stop is about; returns the reason. */
function fault(state: usize, reason: u32, detail: u32): u32 {
  store<u32>(state, detail, WALK_DETAIL);
  return reason;
}
