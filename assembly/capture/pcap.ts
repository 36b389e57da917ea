/**
 * The record walk over pcap (draft-ietf-opsawg-pcap): microseconds and nanoseconds, both byte orders, and
 * the lengths of versions before 2.4. Nearly all records are four little-endian words: those are read as
 * such, and all others are one question more.
 */
import {
  FRAME_BYTES,
  WALK_CLOCK_MS,
  WALK_FLAG_LENGTHS_EITHER,
  WALK_FLAG_LENGTHS_SWAPPED,
  WALK_FLAG_NANOSECONDS,
  WALK_FLAG_SWAPPED,
  WALK_FLAGS,
  WALK_LATEST_NS,
  WALK_LENGTH_MAX,
  WALK_OCTETS,
  WALK_PACKETS,
  WALK_STOP_FULL,
  WALK_STOP_LONG,
  WALK_STOP_SHORT,
} from "../abi";
import { isSelecting, keep } from "./select";
import { begin, describe, moveTime, NS_PER_SECOND, stop, tickOf, u32At } from "./walk";

export const PCAP_HEADER_BYTES: u32 = 16;
/** Whatever makes a pcap record another than four little-endian words in today's order. */
const UNUSUAL: u32 = WALK_FLAG_SWAPPED | WALK_FLAG_LENGTHS_SWAPPED | WALK_FLAG_LENGTHS_EITHER;

export function pcapNs(record: usize, swapped: bool, fractionNs: i64): i64 {
  return <i64>u32At(record, swapped) * NS_PER_SECOND + <i64>u32At(record + 4, swapped) * fractionNs;
}

/** Captured length of a pcap record from its two lengths, which stood the other way before 2.4. */
function capturedOf(first: u32, second: u32, flags: u32): u32 {
  if (flags & WALK_FLAG_LENGTHS_SWAPPED) return second;
  return (flags & WALK_FLAG_LENGTHS_EITHER) != 0 ? min<u32>(first, second) : first;
}

export function pcapCapturedBytes(record: usize, flags: u32, swapped: bool): u32 {
  return capturedOf(u32At(record + 8, swapped), u32At(record + 12, swapped), flags);
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
    const frame = record + PCAP_HEADER_BYTES;
    describe(descriptor, record, frame, captured, wire, 0, timeMs);
    const isKept = isSelecting ? keep(descriptor, packets, frame, captured, 0, timeMs) : 1;
    descriptor += isKept * FRAME_BYTES;
    packets++;
    record += PCAP_HEADER_BYTES + captured;
  }
  store<i64>(state, latestNs, WALK_LATEST_NS);
  const octets = <u64>(record - start) - (packets - firstPacket) * PCAP_HEADER_BYTES;
  store<u64>(state, load<u64>(state, WALK_OCTETS) + octets, WALK_OCTETS);
  stop(state, record, reason, detail, packets);
  return <u32>((descriptor - descriptors) / FRAME_BYTES);
}
