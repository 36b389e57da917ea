/**
 * What is asked of records that the walk has described: their exact instants, and those that stay when
 * frames are dropped.
 */
import {
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_RECORD,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  VERDICT_DROP_TRUNCATED,
  WALK_BASE_NS,
  WALK_CLOCK_MS,
  WALK_ELAPSED_MS,
  WALK_FLAG_NANOSECONDS,
  WALK_FLAG_PCAPNG,
  WALK_FLAG_SWAPPED,
  WALK_FLAGS,
  WALK_KEPT_FROM,
  WALK_KEPT_OCTETS,
  WALK_KEPT_PACKETS,
  WALK_KEPT_TO,
} from "../abi";
import { PCAP_HEADER_BYTES, pcapCapturedBytes, pcapNs } from "./pcap";
import { blockNs, SIMPLE_PACKET } from "./pcapng";
import { NS_PER_MS, u32At } from "./walk";

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
  return blockNs(state, record, type, swapped);
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
