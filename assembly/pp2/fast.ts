/**
 * IPv4 segments of flows whose header is acknowledged, which nearly all segments of such flows are:
 * what rewriteFast does for any flow, and one number moved by H. Being of TCP pays for most of it.
 *
 * Nothing here branches on the direction, which has no pattern. What H adds to a number and to the
 * checksum stands by side in the line in which the service counts.
 */
import {
  DIRECTION_FROM_CLIENT,
  FLOW_FLAG_HEADER,
  FLOW_SERVICE,
  SHIFT_BYTES,
  USAGE_BYTES,
  USAGE_PP2_SHIFTS,
} from "../abi";
import { updated } from "../checksum";
import { handleOf4 } from "../flow/table";
import { usage } from "../memory";
import { Packet, TCP_ACK, TCP_SYN } from "../packet";
import { rewriteFast, rewriteHead, transportDelta } from "../rewrite";
import { TCP_BYTES_MIN, TCP_DATA_OFFSET, TCP_SEQUENCE } from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";
import { mapSacks, TIMESTAMPS_ALONE } from "./options";
import { passStream, streamFlags } from "./stream";

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
  const isNumbered = (packet.flags & (TCP_ACK | TCP_SYN)) == TCP_ACK;
  if (isNumbered && streamFlags(record) == FLOW_FLAG_HEADER) {
    return rewriteShifted(packet, record, side, direction);
  }
  rewriteFast(packet, record, side, direction);
  passStream(descriptor, packet, record, side, direction, handleOf4(record));
}

function rewriteShifted(packet: Packet, record: usize, side: u32, direction: u32): void {
  rewriteHead(packet, record, side, direction);
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
  // Timestamps alone, as nearly always, or too few options for SACK.
  const offset = <u32>load<u8>(segment, TCP_DATA_OFFSET);
  if ((load<u32>(segment, TCP_BYTES_MIN) ^ TIMESTAMPS_ALONE) | (offset ^ OFFSET_OF_12)) {
    if (offset < OFFSET_OF_12 || direction == DIRECTION_FROM_CLIENT) return;
    mapSacks(packet, <u32>(shift >> 16), 0, false);
  }
}

function settleWrap(segment: usize, side: u32): void {
  const delta = side ? WRAP_DELTA : WRAP_DELTA ^ 0xffff;
  store<u16>(segment, <u16>updated(load<u16>(segment, TCP_CHECKSUM), delta), TCP_CHECKSUM);
}
