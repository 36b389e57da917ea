/**
 * Emitted frames: packets that the engine makes itself (resets, ICMP errors, PROXY headers). Each
 * is caused by a frame of the batch and leaves just before or just after it.
 *
 * Invariants: a frame causes at most EMIT_PER_FRAME_MAX others, so the list of a batch cannot
 * overflow; the list is in the order in which frames leave; whoever makes a frame has EMIT_BYTES_MAX,
 * with EMIT_HEADROOM_BYTES before them for a virtio_net_hdr. Each frame begins right behind the one
 * before it: a batch that opens flows makes hundreds, which stay in the caches only side by side.
 */
import {
  BATCH_COUNT_MAX,
  COUNTER_EMITTED,
  EMIT_BYTES_MAX,
  EMIT_HEADROOM_BYTES,
  EMIT_PER_FRAME_MAX,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_PORT,
  FRAME_RECORD,
  FRAME_SIDE,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  LINK_ETHERNET,
  PORT_BYTES,
  PORT_LINK,
} from "./abi";
import { countUp } from "./counters";
import { counters, frames, ports, reserve } from "./memory";
import { Packet } from "./packet";

const EMITS_MAX: u32 = BATCH_COUNT_MAX * EMIT_PER_FRAME_MAX;
const SLOT_BYTES: u32 = EMIT_HEADROOM_BYTES + EMIT_BYTES_MAX;
const LINE_BYTES: usize = 16;
const MAC_BYTES: usize = 6;

/** Descriptors of the frames that the current batch has caused. */
export const emits: usize = memory.data(FRAME_BYTES * EMITS_MAX, 64);
let first: usize = 0;
let next: usize = 0;
let count: u32 = 0;
let lastPlace: u32 = 0;

export function reserveEmits(): void {
  // What is copied in lines runs over the last one.
  first = reserve(<u64>SLOT_BYTES * <u64>EMITS_MAX + LINE_BYTES) + EMIT_HEADROOM_BYTES;
  clearEmits();
}

/** Forgets the frames of the batch before. */
export function clearEmits(): void {
  next = first;
  count = 0;
  lastPlace = 0;
}

/** Frames that the last batch has caused. */
export function emitCount(): u32 {
  return count;
}

/** Where the next emitted frame is to be written: EMIT_BYTES_MAX bytes. */
export function emitSlot(): usize {
  assert(count < EMITS_MAX, "emit: a batch has caused more frames than there are slots");
  return next;
}

/**
 * Lists the frame that now stands in `emitSlot()`. `kind` is EMIT_*, `cause` the descriptor that it
 * leaves after or before, `portOut` where it leaves, `handle` its flow or 0.
 */
export function emit(
  kind: u32,
  cause: usize,
  isAfter: bool,
  bytes: u32,
  portOut: u32,
  handle: u32,
): void {
  assert(bytes <= EMIT_BYTES_MAX, "emit: a frame is longer than its room");
  const descriptor = emits + <usize>(count * FRAME_BYTES);
  const ports = <u32>load<u16>(cause, FRAME_PORT) | (portOut << 16);
  const verdictAndSide = kind | (u32(isAfter) << ((FRAME_SIDE - FRAME_VERDICT) << 3));
  const index = <u32>(cause - frames) / FRAME_BYTES;
  storePair(descriptor + FRAME_ADDRESS, <u32>next, bytes);
  storePair(descriptor + FRAME_TIME_MS, load<u32>(cause, FRAME_TIME_MS), ports);
  storePair(descriptor + FRAME_VERDICT, verdictAndSide, handle);
  storePair(descriptor + FRAME_RECORD, index, bytes);
  const place = (index << 1) + u32(isAfter);
  assert(place >= lastPlace, "emit: frames were listed out of the order in which they leave");
  lastPlace = place;
  count++;
  next = ((next + <usize>bytes + LINE_BYTES - 1) & ~(LINE_BYTES - 1)) + EMIT_HEADROOM_BYTES;
  countUp(counters + <usize>(COUNTER_EMITTED + (kind << 3)));
}

/** Stores two fields that stand side by side. */
function storePair(at: usize, first: u32, second: u32): void {
  store<u64>(at, <u64>first | ((<u64>second) << 32));
}

/** Twice the place of the cause, and one more for what leaves after it. */
export function placeOf(descriptor: usize): u32 {
  return (load<u32>(descriptor, FRAME_RECORD) << 1) + load<u8>(descriptor, FRAME_SIDE);
}

/** Copies `bytes` bytes and up to 15 more, which is faster than a call for so few. */
export function copyLines(to: usize, from: usize, bytes: u32): void {
  for (let at: usize = 0; at < <usize>bytes; at += LINE_BYTES)
    v128.store(to + at, v128.load(from + at));
}

/**
 * Copies the link header of a frame, VLAN tags included, for a frame that goes the same way or, as
 * `isReply`, back to its sender. Returns its length; up to 15 bytes behind it are written, too.
 */
export function copyLink(to: usize, cause: usize, packet: Packet, isReply: bool): u32 {
  const frame = <usize>load<u32>(cause, FRAME_ADDRESS);
  const bytes = packet.network - <u32>frame;
  copyLines(to, frame, bytes);
  if (!isReply) return bytes;
  const port = ports + <usize>load<u16>(cause, FRAME_PORT) * PORT_BYTES;
  if (load<u8>(port, PORT_LINK) == LINK_ETHERNET) {
    copyMac(to, frame + MAC_BYTES);
    copyMac(to + MAC_BYTES, frame);
  }
  return bytes;
}

function copyMac(to: usize, from: usize): void {
  store<u32>(to, load<u32>(from));
  store<u16>(to, load<u16>(from, 4), 4);
}
