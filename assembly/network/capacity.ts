/**
 * What a resource may carry: units of 5 Gbit/s and 1 million packets a second, counted over the time
 * of packets. Two token buckets, one of bytes and one of packets, hold BURST_MS of its units each;
 * what finds either empty is over: dropped, or passed and only counted.
 *
 * Growth. At the end of each window of a second, a resource that has carried (or been offered) more
 * than GROW_PERCENT of its units, in bytes or in packets, gets one more, up to its limit; one that
 * has needed less than SHRINK_PERCENT of one unit fewer for SHRINK_WINDOWS in a row loses one, down to
 * what it began with. AWS says only that resources grow; the numbers are ours.
 */
import {
  CAPACITIES_CHANGES_MAX,
  CAPACITY_BYTES,
  CAPACITY_CHANGE_BYTES,
  CAPACITY_COUNT_MAX,
  CAPACITY_IS_DROPPING,
  CAPACITY_LAST_MS,
  CAPACITY_OVER_OCTETS,
  CAPACITY_OVER_PACKETS,
  CAPACITY_QUIET,
  CAPACITY_TOKENS_OCTETS,
  CAPACITY_TOKENS_PACKETS,
  CAPACITY_UNITS,
  CAPACITY_UNITS_MAX,
  CAPACITY_UNITS_MIN,
  CAPACITY_WINDOW_MS,
  CAPACITY_WINDOW_OCTETS,
  CAPACITY_WINDOW_PACKETS,
  FRAME_WIRE_BYTES,
  SERVICE_CAPACITY,
} from "../abi";
import { countBy, countUp } from "../counters";
import { inRange } from "../flow/state";
import { capacities, capacityChanges, image } from "../memory";

/** A unit, per millisecond. */
const OCTETS_PER_MS: i64 = 625000;
const PACKETS_PER_MS: i64 = 1000;
const BURST_MS: i64 = 5;
const WINDOW_MS: u32 = 1000;
const GROW_PERCENT: i64 = 80;
const SHRINK_PERCENT: i64 = 40;
const SHRINK_WINDOWS: u32 = 60;

/** Whether a frame of the service may pass at `nowMs`; counts it against the service's capacity. */
export function hasCapacity(service: usize, descriptor: usize, nowMs: u32): bool {
  const number = <u32>load<u16>(service, SERVICE_CAPACITY);
  return number == 0 || takesFrom(number, descriptor, nowMs);
}

/** The same of a capacity. */
function takesFrom(number: u32, descriptor: usize, nowMs: u32): bool {
  const capacity = capacities + <usize>(number * CAPACITY_BYTES);
  const octets = <i64>load<u32>(descriptor, FRAME_WIRE_BYTES);
  closeWindows(capacity, number, nowMs);
  refill(capacity, nowMs);
  countBy(capacity + CAPACITY_WINDOW_OCTETS, octets);
  countUp(capacity + CAPACITY_WINDOW_PACKETS);
  const octetsLeft = load<i64>(capacity, CAPACITY_TOKENS_OCTETS) - octets;
  const packetsLeft = load<i64>(capacity, CAPACITY_TOKENS_PACKETS) - 1;
  if (octetsLeft >= 0 && packetsLeft >= 0) {
    store<i64>(capacity, octetsLeft, CAPACITY_TOKENS_OCTETS);
    store<i64>(capacity, packetsLeft, CAPACITY_TOKENS_PACKETS);
    return true;
  }
  countUp(capacity + CAPACITY_OVER_PACKETS);
  countBy(capacity + CAPACITY_OVER_OCTETS, octets);
  return load<u32>(capacity, CAPACITY_IS_DROPPING) == 0;
}

/** Keeps the instants of all capacities within range (clock.ts); they were so at `agedMs`. */
export function ageCapacities(agedMs: u32, nowMs: u32): void {
  if (image == 0) return;
  for (let number: u32 = 1; number < CAPACITY_COUNT_MAX; number++) {
    const capacity = capacities + <usize>(number * CAPACITY_BYTES);
    const lastMs = inRange(load<u32>(capacity, CAPACITY_LAST_MS), agedMs, nowMs);
    store<u32>(capacity, lastMs, CAPACITY_LAST_MS);
    const windowMs = inRange(load<u32>(capacity, CAPACITY_WINDOW_MS), agedMs, nowMs);
    store<u32>(capacity, windowMs, CAPACITY_WINDOW_MS);
  }
}

/** Adds the tokens of the time since the last packet; time that steps back adds none. */
function refill(capacity: usize, nowMs: u32): void {
  const elapsedMs = <i64>(<i32>(nowMs - load<u32>(capacity, CAPACITY_LAST_MS)));
  if (elapsedMs <= 0) return;
  store<u32>(capacity, nowMs, CAPACITY_LAST_MS);
  const units = <i64>load<u32>(capacity, CAPACITY_UNITS);
  const ms = min<i64>(elapsedMs, BURST_MS);
  const octets = load<i64>(capacity, CAPACITY_TOKENS_OCTETS) + ms * units * OCTETS_PER_MS;
  const packets = load<i64>(capacity, CAPACITY_TOKENS_PACKETS) + ms * units * PACKETS_PER_MS;
  store<i64>(capacity, min(octets, BURST_MS * units * OCTETS_PER_MS), CAPACITY_TOKENS_OCTETS);
  store<i64>(capacity, min(packets, BURST_MS * units * PACKETS_PER_MS), CAPACITY_TOKENS_PACKETS);
}

/** Judges the window that has ended, and as many empty ones as have gone by since. */
function closeWindows(capacity: usize, number: u32, nowMs: u32): void {
  const elapsedMs = <i32>(nowMs - load<u32>(capacity, CAPACITY_WINDOW_MS));
  if (elapsedMs < <i32>WINDOW_MS) return;
  const windows = <u32>elapsedMs / WINDOW_MS;
  judge(capacity, number, load<u32>(capacity, CAPACITY_WINDOW_MS) + WINDOW_MS);
  store<u64>(capacity, 0, CAPACITY_WINDOW_OCTETS);
  store<u64>(capacity, 0, CAPACITY_WINDOW_PACKETS);
  rest(capacity, number, windows - 1);
  const start = load<u32>(capacity, CAPACITY_WINDOW_MS) + windows * WINDOW_MS;
  store<u32>(capacity, start, CAPACITY_WINDOW_MS);
}

function judge(capacity: usize, number: u32, atMs: u32): void {
  const units = load<u32>(capacity, CAPACITY_UNITS);
  const octets = load<i64>(capacity, CAPACITY_WINDOW_OCTETS);
  const packets = load<i64>(capacity, CAPACITY_WINDOW_PACKETS);
  if (exceeds(octets, packets, units, GROW_PERCENT)) {
    store<u32>(capacity, 0, CAPACITY_QUIET);
    const most = load<u32>(capacity, CAPACITY_UNITS_MAX);
    if (units < most) setUnits(capacity, number, units + 1, atMs);
    return;
  }
  if (exceeds(octets, packets, units - 1, SHRINK_PERCENT)) {
    return store<u32>(capacity, 0, CAPACITY_QUIET);
  }
  quieten(capacity, number, 1, atMs);
}

/** Whether a second's load is more than so many percent of so many units. */
function exceeds(octets: i64, packets: i64, units: u32, percent: i64): bool {
  const share = <i64>units * percent * <i64>WINDOW_MS;
  return octets * 100 > share * OCTETS_PER_MS || packets * 100 > share * PACKETS_PER_MS;
}

/** Windows in which nothing came. */
function rest(capacity: usize, number: u32, windows: u32): void {
  let left = windows;
  let atMs = load<u32>(capacity, CAPACITY_WINDOW_MS) + WINDOW_MS;
  while (
    left > 0 &&
    load<u32>(capacity, CAPACITY_UNITS) > load<u32>(capacity, CAPACITY_UNITS_MIN)
  ) {
    const step = min<u32>(left, SHRINK_WINDOWS - load<u32>(capacity, CAPACITY_QUIET));
    left -= step;
    atMs += step * WINDOW_MS;
    quieten(capacity, number, step, atMs);
  }
}

function quieten(capacity: usize, number: u32, windows: u32, atMs: u32): void {
  const units = load<u32>(capacity, CAPACITY_UNITS);
  if (units <= load<u32>(capacity, CAPACITY_UNITS_MIN)) {
    return store<u32>(capacity, 0, CAPACITY_QUIET);
  }
  const quiet = load<u32>(capacity, CAPACITY_QUIET) + windows;
  store<u32>(capacity, quiet >= SHRINK_WINDOWS ? 0 : quiet, CAPACITY_QUIET);
  if (quiet >= SHRINK_WINDOWS) setUnits(capacity, number, units - 1, atMs);
}

/** Changes the units and notes when; the list is full when nobody has read it for long. */
function setUnits(capacity: usize, number: u32, units: u32, atMs: u32): void {
  store<u32>(capacity, units, CAPACITY_UNITS);
  const count = load<u32>(capacityChanges);
  if (count >= CAPACITIES_CHANGES_MAX) return;
  const change = capacityChanges + <usize>((count + 1) * CAPACITY_CHANGE_BYTES);
  store<u32>(change, atMs);
  store<u16>(change, <u16>number, 4);
  store<u16>(change, <u16>units, 6);
  store<u32>(capacityChanges, count + 1);
}
