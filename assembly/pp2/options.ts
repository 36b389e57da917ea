/**
 * TCP options that a header in the stream concerns: SACK (RFC 2018, RFC 2883), timestamps (RFC
 * 7323) and Fast Open (RFC 7413, and the experiment of RFC 6994 before it). Options lie on any
 * byte; checksums are kept by summing all options before and after a change.
 *
 * Bounded by the header's 40 bytes of options. An option that is not all there, or whose length is
 * impossible, ends the walk: what follows it is nothing that anybody can read.
 */
import { deltaOf, sumOf, updated } from "../checksum";
import { Packet } from "../packet";
import { headerBytesOf, loadBe32, TCP_BYTES_MIN, TCP_DATA_OFFSET } from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";

const OPTION_END: u8 = 0;
const OPTION_NOOP: u8 = 1;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;
const OPTION_FAST_OPEN: u8 = 34;
const OPTION_EXPERIMENT: u8 = 254;
const FAST_OPEN_EXPERIMENT: u16 = 0x89f9;
export const TIMESTAMPS_BYTES: u32 = 10;
const SACK_BLOCK_BYTES: u32 = 8;
/** Where the options of a segment end at most. */
const OPTIONS_END_MAX: usize = 60;
/** NOP, NOP, timestamps of 10 bytes and nothing else, as nearly all segments have it. */
export const TIMESTAMPS_ALONE: u32 = 0x0a080101;

/** Data offset of a header with 12 bytes of options; none shorter has room for a SACK block. */
const OFFSET_OF_12: u32 = 0x80;

/** Whether options of 12 bytes are timestamps and nothing else. */
export function hasTimestampsAlone(segment: usize): bool {
  return load<u32>(segment, TCP_BYTES_MIN) == TIMESTAMPS_ALONE;
}

/** Whether there may be SACK blocks: neither timestamps alone, as nearly always, nor too few bytes. */
export function hasSacks(segment: usize): bool {
  const offset = <u32>load<u8>(segment, TCP_DATA_OFFSET);
  if (offset < OFFSET_OF_12) return false;
  return ((load<u32>(segment, TCP_BYTES_MIN) ^ TIMESTAMPS_ALONE) | (offset ^ OFFSET_OF_12)) != 0;
}

/** End of the options that are present. */
function optionsEnd(packet: Packet): usize {
  return <usize>(packet.transport + min<u32>(headerBytesOf(packet), packet.transportBytes));
}

/** Length of the option at `at`, a NOP's being 1; 0 where no more can be read. */
function lengthAt(at: usize, end: usize): u32 {
  if (at >= end) return 0;
  const kind = load<u8>(at);
  if (kind == OPTION_NOOP) return 1;
  if (kind == OPTION_END || at + 2 > end) return 0;
  const length = <u32>load<u8>(at, 1);
  return length < 2 || at + <usize>length > end ? 0 : length;
}

/** Address of the timestamps option, 0 when there is none. */
export function findTimestamps(packet: Packet): usize {
  const end = optionsEnd(packet);
  const first = <usize>(packet.transport + TCP_BYTES_MIN);
  if (end == first + 12 && hasTimestampsAlone(<usize>packet.transport)) return first + 2;
  let at = first;
  for (let length = lengthAt(at, end); length != 0; length = lengthAt(at, end)) {
    if (load<u8>(at) == OPTION_TIMESTAMPS && length == TIMESTAMPS_BYTES) return at;
    at += <usize>length;
  }
  return 0;
}

/**
 * Maps the edges of all SACK blocks. Without `limit` they move by `amount`. With it they follow a
 * header of `amount` bytes from `limit` on: edges inside the header become `limit`, those behind it
 * move down, and blocks that then begin at `limit` or are empty are taken out, because the sender
 * of what they name has seen no acknowledgement beyond `limit`.
 */
export function mapSacks(packet: Packet, amount: u32, limit: u32, hasLimit: bool): void {
  const end = optionsEnd(packet);
  const first = <usize>(packet.transport + TCP_BYTES_MIN);
  if (end == first + 12 && hasTimestampsAlone(<usize>packet.transport)) return;
  let at = first;
  let before: u64 = 0;
  let isFound = false;
  for (let length = lengthAt(at, end); length != 0; length = lengthAt(at, end)) {
    if (load<u8>(at) == OPTION_SACK) {
      if (!isFound) before = sumOf(first, <u32>(end - first));
      isFound = true;
      if (hasLimit) limitBlocks(at, length, amount, limit);
      else moveBlocks(at, length, amount);
    }
    at += <usize>length;
  }
  if (isFound) settle(packet, before, first, end);
}

/** Lets the checksum follow a change of the options, which summed to `before`. */
function settle(packet: Packet, before: u64, first: usize, end: usize): void {
  if (packet.partial != 0) return;
  const checksum = <usize>(packet.transport + TCP_CHECKSUM);
  const delta = deltaOf(before, sumOf(first, <u32>(end - first)));
  store<u16>(checksum, <u16>updated(load<u16>(checksum), delta));
}

function moveBlocks(option: usize, length: u32, amount: u32): void {
  const end = option + <usize>length;
  for (let edge = option + 2; edge + 4 <= end; edge += 4) {
    store<u32>(edge, bswap<u32>(loadBe32(edge) + amount));
  }
}

function limitBlocks(option: usize, length: u32, headerBytes: u32, limit: u32): void {
  const end = option + <usize>length;
  let kept = option + 2;
  for (let block = option + 2; block + <usize>SACK_BLOCK_BYTES <= end; block += 8) {
    const left = behindHeader(loadBe32(block), limit, headerBytes);
    const right = behindHeader(loadBe32(block + 4), limit, headerBytes);
    if (left == limit || left == right) continue;
    store<u32>(kept, bswap<u32>(left));
    store<u32>(kept, bswap<u32>(right), 4);
    kept += 8;
  }
  // What is left of the option becomes NOPs, and an option without blocks altogether.
  if (kept == option + 2) kept = option;
  else store<u8>(option, <u8>(kept - option), 1);
  memory.fill(kept, OPTION_NOOP, end - kept);
}

/** Numbers that lie so little before another count as before it, all others as after it. */
const BEFORE_MAX: u32 = 0x10000;

/**
 * Whether a number of a stream lies after its first. Nothing comes from long before that, but a
 * stream that was taken over may be anywhere in its 4 GiB.
 */
export function isBeyond(value: u32, first: u32): bool {
  return first - value >= BEFORE_MAX;
}

/** Where a number of the target's stream lies in the client's, whose first byte is `limit`. */
export function behindHeader(value: u32, limit: u32, headerBytes: u32): u32 {
  if (!isBeyond(value, limit)) return value;
  return value - limit < headerBytes ? limit : value - headerBytes;
}

/**
 * Whether any of the 40 bytes behind a TCP header, where all options are, may be the kind of one of Fast
 * Open. Hardly a SYN has one, so most are not walked through.
 */
function mayHaveFastOpen(segment: usize): bool {
  const kind = i8x16.splat(OPTION_FAST_OPEN);
  const experiment = i8x16.splat(OPTION_EXPERIMENT);
  let found = i8x16.splat(0);
  for (let at: usize = TCP_BYTES_MIN; at < OPTIONS_END_MAX; at += 16) {
    const bytes = v128.load(segment + min<usize>(at, OPTIONS_END_MAX - 16));
    found = v128.or(found, v128.or(i8x16.eq(bytes, kind), i8x16.eq(bytes, experiment)));
  }
  return v128.any_true(found);
}

/** Turns requests and cookies of TCP Fast Open into NOPs; true when there were any. */
export function removeFastOpen(packet: Packet): bool {
  if (!mayHaveFastOpen(<usize>packet.transport)) return false;
  const end = optionsEnd(packet);
  const first = <usize>(packet.transport + TCP_BYTES_MIN);
  let at = first;
  let before: u64 = 0;
  let isFound = false;
  for (let length = lengthAt(at, end); length != 0; length = lengthAt(at, end)) {
    if (isFastOpen(at, length)) {
      if (!isFound) before = sumOf(first, <u32>(end - first));
      memory.fill(at, OPTION_NOOP, <usize>length);
      isFound = true;
    }
    at += <usize>length;
  }
  if (isFound) settle(packet, before, first, end);
  return isFound;
}

function isFastOpen(option: usize, length: u32): bool {
  const kind = load<u8>(option);
  if (kind == OPTION_FAST_OPEN) return true;
  return kind == OPTION_EXPERIMENT && length >= 4 && load<u16>(option, 2) == FAST_OPEN_EXPERIMENT;
}
