/**
 * The walk over the records of a capture where they lie in memory: what it notes of its state, and how
 * it fills frame descriptors. The formats are pcap.ts and pcapng.ts; described.ts is what comes after.
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
  FRAME_RECORD,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  WALK_BASE_NS,
  WALK_CLOCK_MS,
  WALK_DETAIL,
  WALK_EARLIEST_NS,
  WALK_ELAPSED_MS,
  WALK_FLAG_TIMED,
  WALK_FLAGS,
  WALK_LAST_NS,
  WALK_LATEST_NS,
  WALK_NEXT,
  WALK_PACKETS,
  WALK_REASON,
} from "../abi";
import { clockStep } from "../flow/state";

export const NS_PER_SECOND: i64 = 1000000000;
export const NS_PER_MS: i64 = 1000000;

export function u32At(address: usize, swapped: bool): u32 {
  const value = load<u32>(address);
  return swapped ? bswap<u32>(value) : value;
}

/** Makes `ns` the begin of the virtual clock unless the capture has one. */
export function begin(state: usize, ns: i64): void {
  const flags = load<u32>(state, WALK_FLAGS);
  if (flags & WALK_FLAG_TIMED) return;
  store<u32>(state, flags | WALK_FLAG_TIMED, WALK_FLAGS);
  store<i64>(state, ns, WALK_BASE_NS);
  store<i64>(state, ns, WALK_EARLIEST_NS);
  store<i64>(state, ns, WALK_LATEST_NS);
  store<i64>(state, ns, WALK_LAST_NS);
}

export function describe(
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
export function stop(state: usize, next: usize, reason: u32, detail: u32, packets: u64): void {
  store<u32>(state, <u32>next, WALK_NEXT);
  store<u32>(state, reason, WALK_REASON);
  store<u32>(state, detail, WALK_DETAIL);
  store<u64>(state, packets, WALK_PACKETS);
}

/** Instant from which on the virtual clock shows more than it does. */
export function tickOf(state: usize): i64 {
  const elapsedMs = load<i64>(state, WALK_ELAPSED_MS);
  return load<i64>(state, WALK_BASE_NS) + (elapsedMs + 1) * NS_PER_MS;
}

/** Notes the instant of a record and moves the virtual clock there. Returns what it shows. */
export function moveTime(state: usize, ns: i64): u32 {
  store<i64>(state, min<i64>(ns, load<i64>(state, WALK_EARLIEST_NS)), WALK_EARLIEST_NS);
  store<i64>(state, max<i64>(ns, load<i64>(state, WALK_LATEST_NS)), WALK_LATEST_NS);
  // Instants before the first record count as its own.
  const nextMs = max<i64>(ns - load<i64>(state, WALK_BASE_NS), 0) / NS_PER_MS;
  const stepMs = clockStep(nextMs - load<i64>(state, WALK_ELAPSED_MS));
  const timeMs = load<u32>(state, WALK_CLOCK_MS) + stepMs;
  store<i64>(state, nextMs, WALK_ELAPSED_MS);
  store<u32>(state, timeMs, WALK_CLOCK_MS);
  return timeMs;
}
