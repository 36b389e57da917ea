/**
 * IPv4 segments of flows whose header is acknowledged, which nearly all segments of such flows are:
 * what rewriteFast does for any flow, and one number moved by H. Being of TCP pays for most of it.
 *
 * Nothing here branches on the direction, which has no pattern. What H adds to a number and to the
 * checksum stands by side in the line in which the service counts.
 */
import {
  DIRECTION_FROM_SERVICE,
  FLOW_FLAG_HEADER,
  FLOW_SERVICE,
  SHIFT_BYTES,
  SIDE_SERVICE,
  USAGE_BYTES,
  USAGE_PP2_SHIFTS,
  VERDICT_FORWARD,
} from "../abi";
import { updated } from "../checksum";
import { handleOf4 } from "../flow/table";
import { usage } from "../memory";
import { Packet, TCP_ACK, TCP_SYN } from "../packet";
import { networkDelta, rewriteHead, rewriteWhole, transportDelta } from "../rewrite";
import { TCP_BYTES_MIN, TCP_DATA_OFFSET, TCP_SEQUENCE } from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";
import { mapSacks, TIMESTAMPS_ALONE } from "./options";
import { acknowledge, passStream, streamFlags } from "./stream";

/** Data offset of a header with 12 bytes of options; none shorter has room for a SACK block. */
const OFFSET_OF_12: u32 = 0x80;
/** What a number that wraps adds to the sum of its words: 2^32 is 1, of which the bytes are swapped. */
const WRAP_DELTA: u32 = 0x0100;

/** Rewrites a whole IPv4 packet of a flow with flags, of TCP, and passes its stream. */
export function rewriteStream(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
): void {
  if ((packet.flags & (TCP_ACK | TCP_SYN)) == TCP_ACK) {
    if (streamFlags(record) == FLOW_FLAG_HEADER) {
      return rewriteShifted(packet, record, side, direction);
    }
    const isFromTarget = side == SIDE_SERVICE && direction == DIRECTION_FROM_SERVICE;
    if (isFromTarget && !hasSacks(<usize>packet.transport) && acknowledge(packet, record)) {
      return rewriteShifted(packet, record, side, direction);
    }
  }
  rewriteWhole(packet, record, side, direction);
  const verdict = passStream(descriptor, packet, record, side, direction, handleOf4(record));
  assert(verdict == VERDICT_FORWARD, "pp2: a packet on the fast path does not leave");
}

function rewriteShifted(packet: Packet, record: usize, side: u32, direction: u32): void {
  rewriteHead(packet, record, side, direction, networkDelta(record, side));
  const segment = <usize>packet.transport;
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  const shift = load<i32>(used + <usize>(side * SHIFT_BYTES), USAGE_PP2_SHIFTS);
  const at = segment + TCP_SEQUENCE + <usize>(direction << 2);
  const number = <u64>bswap<u32>(load<u32>(at)) + <u64>(<i64>(shift >> 16));
  store<u32>(at, bswap<u32>(<u32>number));
  const delta = transportDelta(record, side) + (<u32>shift & 0xffff);
  const sum = (~(<u32>load<u16>(segment, TCP_CHECKSUM)) & 0xffff) + delta;
  const once = (sum & 0xffff) + (sum >> 16);
  store<u16>(segment, <u16>~(once + (once >> 16)), TCP_CHECKSUM);
  if (number >> 32) settleWrap(segment, side);
  if (hasSacks(segment) && direction == DIRECTION_FROM_SERVICE) {
    mapSacks(packet, <u32>(shift >> 16), 0, false);
  }
}

/** Whether there may be SACK blocks: neither timestamps alone, as nearly always, nor too few bytes. */
function hasSacks(segment: usize): bool {
  const offset = <u32>load<u8>(segment, TCP_DATA_OFFSET);
  const others = (load<u32>(segment, TCP_BYTES_MIN) ^ TIMESTAMPS_ALONE) | (offset ^ OFFSET_OF_12);
  return others != 0 && offset >= OFFSET_OF_12;
}

function settleWrap(segment: usize, side: u32): void {
  const delta = side ? WRAP_DELTA : WRAP_DELTA ^ 0xffff;
  store<u16>(segment, <u16>updated(load<u16>(segment, TCP_CHECKSUM), delta), TCP_CHECKSUM);
}
