/**
 * The digest of a run: XXH64 (Collet) of every frame that goes out, chained in their order: the
 * digest so far seeds the hash of the next frame's hash, eight bytes little-endian. So frames can
 * be hashed wherever they are, and only hashes have to be brought into order. The same input, tables
 * and seed give the same digest anywhere.
 */
import {
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_RECORD,
  FRAME_SIDE,
  FRAME_VERDICT,
  VERDICT_PASS_NON_IP,
} from "./abi";
import { emitCount, emits } from "./emit";
import { frames } from "./memory";

const P1: u64 = 0x9e3779b185ebca87;
const P2: u64 = 0xc2b2ae3d27d4eb4f;
const P3: u64 = 0x165667b19e3779f9;
const P4: u64 = 0x85ebca77c2b2ae63;
const P5: u64 = 0x27d4eb2f165667c5;

function round(lane: u64, input: u64): u64 {
  return rotl<u64>(lane + input * P2, 31) * P1;
}

function merge(hash: u64, lane: u64): u64 {
  return (hash ^ round(0, lane)) * P1 + P4;
}

/** XXH64 of `bytes` bytes at `start`. */
export function xxh64(start: usize, bytes: u32, seed: u64): u64 {
  let at = start;
  const end = start + <usize>bytes;
  let hash: u64;
  if (bytes >= 32) {
    let lane1 = seed + P1 + P2;
    let lane2 = seed + P2;
    let lane3 = seed;
    let lane4 = seed - P1;
    const last = end - 32;
    while (at <= last) {
      lane1 = round(lane1, load<u64>(at));
      lane2 = round(lane2, load<u64>(at, 8));
      lane3 = round(lane3, load<u64>(at, 16));
      lane4 = round(lane4, load<u64>(at, 24));
      at += 32;
    }
    hash = rotl<u64>(lane1, 1) + rotl<u64>(lane2, 7) + rotl<u64>(lane3, 12) + rotl<u64>(lane4, 18);
    hash = merge(merge(merge(merge(hash, lane1), lane2), lane3), lane4);
  } else {
    hash = seed + P5;
  }
  hash += bytes;
  for (; at + 8 <= end; at += 8) {
    hash = rotl<u64>(hash ^ round(0, load<u64>(at)), 27) * P1 + P4;
  }
  if (at + 4 <= end) {
    hash = rotl<u64>(hash ^ (<u64>load<u32>(at) * P1), 23) * P2 + P3;
    at += 4;
  }
  for (; at < end; at++) hash = rotl<u64>(hash ^ (<u64>load<u8>(at) * P5), 11) * P1;
  return mixed(hash);
}

function mixed(hash: u64): u64 {
  let last = (hash ^ (hash >> 33)) * P2;
  last = (last ^ (last >> 29)) * P3;
  return last ^ (last >> 32);
}

/** Adds a frame's hash to the digest: XXH64 of the hash's eight bytes, the digest being the seed. */
export function chain(hash: u64, digest: u64): u64 {
  const seeded = digest + P5 + 8;
  return mixed(rotl<u64>(seeded ^ round(0, hash), 27) * P1 + P4);
}

/** Hash of the frame of a descriptor as it is now. */
export function hashFrame(descriptor: usize): u64 {
  return xxh64(
    <usize>load<u32>(descriptor, FRAME_ADDRESS),
    load<u32>(descriptor, FRAME_CAPTURED_BYTES),
    0,
  );
}

/** Chains the digest over all frames of the batch that go out, emitted ones where they leave. */
export function digestFrames(count: u32, digest: u64): u64 {
  let chained = digest;
  let emitted = emits;
  const end = emits + <usize>(emitCount() * FRAME_BYTES);
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    for (; leavesWith(emitted, end, index, 0); emitted += FRAME_BYTES) {
      chained = digestFrame(emitted, chained);
    }
    if (load<u16>(descriptor, FRAME_VERDICT) <= VERDICT_PASS_NON_IP) {
      chained = digestFrame(descriptor, chained);
    }
    for (; leavesWith(emitted, end, index, 1); emitted += FRAME_BYTES) {
      chained = digestFrame(emitted, chained);
    }
  }
  return chained;
}

/** Whether the emitted frame is there and leaves before (0) or after (1) frame `index`. */
export function leavesWith(emitted: usize, end: usize, index: u32, isAfter: u32): bool {
  if (emitted >= end || load<u32>(emitted, FRAME_RECORD) != index) return false;
  return load<u8>(emitted, FRAME_SIDE) == isAfter;
}

function digestFrame(descriptor: usize, digest: u64): u64 {
  return chain(hashFrame(descriptor), digest);
}
