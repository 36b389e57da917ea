/**
 * Frames of devices as records of a capture: pcapng enhanced packet blocks (draft-ietf-opsawg-pcapng
 * section 4.3), little-endian, without the virtio_net_hdr. A checksum that was left to the device is
 * completed in the copy, over all of a super-packet, so that whoever reads the capture finds it right.
 */
import {
  VNET_BYTES,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAG_PARTIAL,
  VNET_FLAGS,
} from "../abi";
import { fold, sumOf } from "../checksum";
import { UDP_CHECKSUM } from "../wire/transport";

const ENHANCED_PACKET: u32 = 6;
const HEADER_BYTES: u32 = 28;
/** epb_flags with its direction, the end of options, and the length again. */
const TRAILER_BYTES: u32 = 16;
const OPTION_FLAGS: u32 = 2;

/**
 * Writes the frame behind the virtio_net_hdr at `header`, `bytes` with it, as a block at `to`.
 * `direction` is 1 for frames that come in and 2 for those that go out. Returns the block's bytes.
 */
export function writeRecord(
  to: usize,
  header: usize,
  bytes: u32,
  device: u32,
  direction: u32,
  timeNs: u64,
): u32 {
  const frameBytes = bytes - VNET_BYTES;
  const padded = (frameBytes + 3) & ~3;
  const blockBytes = HEADER_BYTES + padded + TRAILER_BYTES;
  store<u32>(to, ENHANCED_PACKET);
  store<u32>(to, blockBytes, 4);
  store<u32>(to, device, 8);
  store<u32>(to, <u32>(timeNs >> 32), 12);
  store<u32>(to, <u32>timeNs, 16);
  store<u32>(to, frameBytes, 20);
  store<u32>(to, frameBytes, 24);
  const frame = to + HEADER_BYTES;
  // The padding first: the frame ends somewhere in its last word.
  if (padded != 0) store<u32>(frame + padded - 4, 0);
  memory.copy(frame, header + VNET_BYTES, frameBytes);
  completeChecksum(frame, frameBytes, header);
  const trailer = frame + padded;
  store<u32>(trailer, OPTION_FLAGS | (4 << 16));
  store<u32>(trailer, direction, 4);
  store<u32>(trailer, 0, 8);
  store<u32>(trailer, blockBytes, 12);
  return blockBytes;
}

/** Completes the checksum that the header says is partial, unless that lies outside the frame. */
export function completeChecksum(frame: usize, bytes: u32, header: usize): void {
  if ((load<u8>(header, VNET_FLAGS) & VNET_FLAG_PARTIAL) == 0) return;
  const start = <u32>load<u16>(header, VNET_CHECKSUM_START);
  const offset = <u32>load<u16>(header, VNET_CHECKSUM_OFFSET);
  if (start + offset + 2 > bytes) return;
  const sum = fold(wideSum(frame + <usize>start, bytes - start)) ^ 0xffff;
  // All ones is the other zero, and means "a checksum" to UDP (RFC 768).
  const checksum = select<u32>(0xffff, sum, sum == 0 && offset == UDP_CHECKSUM);
  store<u16>(frame + <usize>(start + offset), <u16>checksum);
}

/** Below this many bytes the plain loop is faster. */
const WIDE_BYTES_MIN: u32 = 192;

/** `sumOf`, sixteen bytes at a time: four lanes of 32 bits hold the sums of 64 KiB. */
function wideSum(start: usize, bytes: u32): u64 {
  if (bytes < WIDE_BYTES_MIN) return sumOf(start, bytes);
  assert(bytes <= 0x20000, "record: a frame is longer than its lanes can sum");
  let lanes = i32x4.splat(0);
  const whole = bytes & ~15;
  const end = start + <usize>whole;
  for (let at = start; at < end; at += 16) {
    lanes = i32x4.add(lanes, i32x4.extadd_pairwise_i16x8_u(v128.load(at)));
  }
  return (
    <u64>(<u32>i32x4.extract_lane(lanes, 0)) +
    <u64>(<u32>i32x4.extract_lane(lanes, 1)) +
    <u64>(<u32>i32x4.extract_lane(lanes, 2)) +
    <u64>(<u32>i32x4.extract_lane(lanes, 3)) +
    sumOf(end, bytes - whole)
  );
}
