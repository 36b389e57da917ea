/**
 * Segments of flows with a header on short ways, nearly all of them of IPv4. Whatever they do not take goes
 * the long way (stream.ts), which means the same: of a flow that opens, all but its usual five.
 *
 * Of a flow whose header is acknowledged, as it nearly always is: what becomes of any packet, and one number
 * moved by H.
 *
 * Nothing here branches on the direction, which has no pattern, and no number is brought into the
 * machine's byte order. A sum in one's complement is right in any (RFC 1071 section 2(B)), and it is that
 * of the integers unless it carries. So H is added to the low half of the number like a word of a checksum,
 * and what carries is looked at again: it has turned the half's highest bit over. The packet's own checksum
 * costs nothing more, for the delta that the flow keeps has H in it.
 */
import {
  DIRECTION_FROM_SERVICE,
  FLOW_FLAG_HEADER,
  FLOW_FLAG_OPEN,
  FLOW_FLAGS,
  FLOW_STATE,
  FLOW_STATE_HALF_OPEN,
  SIDE_CLIENT,
  VERDICT_ABSORB_HEADER,
  VERDICT_FORWARD,
} from "../abi";
import { fold, updated } from "../checksum";
import { handleOf4 } from "../flow/table";
import { asksFirst } from "../memory";
import { Packet, TCP_ACK, TCP_RST, TCP_SYN } from "../packet";
import {
  deltasOf,
  keepsDeltas,
  portsOf,
  rewriteAddresses,
  rewriteFast,
  rewriteHead,
  sumDeltas4,
  transportDelta,
} from "../rewrite";
import {
  headerBytesOf,
  loadBe32,
  TCP_ACKNOWLEDGEMENT,
  TCP_BYTES_MIN,
  TCP_SEQUENCE,
} from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";
import { hasSacks, mapSacks } from "./options";
import { emitHeader, headerBytesFor, serviceOf } from "./segment";
import {
  acknowledge,
  begin,
  firstOf,
  isFirstAck,
  passStream,
  repeatsHeader,
  STREAM_FLAGS,
  streamFlags,
} from "./stream";

/** The highest bit of a number's low half, as it is loaded. */
const HALF_HIGH_BIT: u32 = 0x80;
/** What a number that wraps adds to the sum of its words: 2^32 is 1, of which the bytes are swapped. */
const WRAP_DELTA: u32 = 0x0100;

/** Rewrites a whole IPv4 packet of a flow with flags, and passes its stream. Returns a VERDICT_*. */
export function rewriteStream(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
): u32 {
  if (ends(packet, record, side, direction)) {
    rewriteFast(packet, record, side, direction);
    lowerNumber(<usize>packet.transport, headerBytesFor(serviceOf(record), 0));
    return VERDICT_FORWARD;
  }
  if (keepsDeltas(record, 0)) rewriteFast(packet, record, side, direction);
  else {
    const deltas = sumDeltas4(record, side, 0);
    rewriteHead(packet, record, side, direction, deltas & 0xffff);
    if ((side | direction) == 0) {
      const verdict = passPlainly(descriptor, packet, record, deltas >> 16);
      if (verdict != UNPLAIN) return verdict;
    }
    updateSum(packet, deltas >> 16);
    if (direction == DIRECTION_FROM_SERVICE && passQuietly(packet, record)) return VERDICT_FORWARD;
  }
  return passStream(descriptor, packet, record, side, direction, handleOf4(record));
}

function updateSum(packet: Packet, delta: u32): void {
  const checksum = <usize>packet.transport + TCP_CHECKSUM;
  store<u16>(checksum, <u16>updated(load<u16>(checksum), delta));
}

/**
 * Passes a segment of the target while the header has not been caused. Only a SYN-ACK asks for more: it
 * says where the header begins. False when the segment is none of both, and nothing has changed.
 */
function passQuietly(packet: Packet, record: usize): bool {
  if (streamFlags(record) != FLOW_FLAG_OPEN || asksFirst) return false;
  if ((packet.flags & TCP_SYN) == 0) return true;
  if ((packet.flags & (TCP_ACK | TCP_RST)) != TCP_ACK) return false;
  begin(record, loadBe32(<usize>packet.transport + TCP_ACKNOWLEDGEMENT));
  return true;
}

/**
 * Whether this segment acknowledges the whole header of its flow, which is done then. SACK blocks need a
 * closer look: they may name the header.
 */
function ends(packet: Packet, record: usize, side: u32, direction: u32): bool {
  const isFromTarget = (side & direction) != 0;
  if (!isFromTarget || (packet.flags & (TCP_ACK | TCP_SYN)) != TCP_ACK) return false;
  return !hasSacks(<usize>packet.transport) && acknowledge(packet, record);
}

/** Instead of a verdict: the segment is not plain, and nothing has changed. */
const UNPLAIN: u32 = 0xffff;

/**
 * Passes a segment of the client that opens a flow as nearly all do, of which the addresses are translated
 * and `delta` is what that means to the checksum: an ACK alone, what is in order and causes the header once the
 * target has answered, and data while the header is on its way.
 */
function passPlainly(descriptor: usize, packet: Packet, record: usize, delta: u32): u32 {
  if (asksFirst || (packet.flags & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK) return UNPLAIN;
  const number = loadBe32(<usize>packet.transport + TCP_SEQUENCE);
  const isAlone = packet.transportBytes == headerBytesOf(packet);
  const stream = streamFlags(record);
  if (stream == FLOW_FLAG_OPEN) {
    if (isAlone) {
      if (packet.flags != TCP_ACK) return UNPLAIN;
      if (!isFirstAck(record)) {
        updateSum(packet, delta);
        return VERDICT_FORWARD;
      }
    }
    if (<u32>load<u8>(record, FLOW_STATE) == FLOW_STATE_HALF_OPEN) return UNPLAIN;
    if (number != firstOf(record)) return UNPLAIN;
    store<u8>(record, load<u8>(record, FLOW_FLAGS) | <u8>FLOW_FLAG_HEADER, FLOW_FLAGS);
    emitHeader(descriptor, packet, record, number, handleOf4(record));
    if (isAlone) {
      updateSum(packet, delta);
      return VERDICT_ABSORB_HEADER;
    }
  } else if (isAlone || stream != STREAM_FLAGS || repeatsHeader(packet, record, number)) {
    return UNPLAIN;
  }
  raiseNumber(packet, number, headerBytesFor(serviceOf(record), 0), delta);
  return VERDICT_FORWARD;
}

/**
 * Rewrites a segment of a flow whose header is acknowledged, by this segment at the latest, of either family: a
 * whole header with ACK and without SYN, of which one number moves. It does not branch on which, and sums
 * once. False when the segment is another, and nothing has changed.
 */
export function rewriteMoved(packet: Packet, record: usize, side: u32, direction: u32): bool {
  if ((packet.flags & (TCP_ACK | TCP_SYN)) != TCP_ACK || packet.partial != 0) return false;
  if (packet.transportBytes < TCP_BYTES_MIN) return false;
  const isDone = streamFlags(record) == FLOW_FLAG_HEADER;
  if (!isDone && !ends(packet, record, side, direction)) return false;
  rewriteAddresses(packet, record, side, direction);
  const segment = <usize>packet.transport;
  const at = segment + <usize>(direction << 2);
  const bytes = headerBytesFor(serviceOf(record), packet.isIpv6);
  const amount = select<u32>(bytes, 0 - bytes, side == SIDE_CLIENT);
  const before = load<u32>(at, TCP_SEQUENCE);
  const after = bswap<u32>(bswap<u32>(before) + amount);
  const delta = deltasOf(record, side, packet.isIpv6) >> 16;
  const checksum = <u64>(~(<u32>load<u16>(segment, TCP_CHECKSUM)) & 0xffff);
  const sum = checksum + <u64>delta + <u64>~before + <u64>after;
  store<u32>(segment, portsOf(record, side ^ 1, direction));
  store<u32>(at, after, TCP_SEQUENCE);
  store<u16>(segment, <u16>(~fold(sum) & 0xffff), TCP_CHECKSUM);
  if (hasSacks(segment) && direction == DIRECTION_FROM_SERVICE) mapSacks(packet, amount, 0, false);
  return true;
}

/** Adds H to the number of the client's segment; its checksum has yet to follow a change of `delta`. */
function raiseNumber(packet: Packet, number: u32, bytes: u32, delta: u32): void {
  const segment = <usize>packet.transport;
  const before = bswap<u32>(number);
  const after = bswap<u32>(number + bytes);
  const checksum = <u64>(~(<u32>load<u16>(segment, TCP_CHECKSUM)) & 0xffff);
  const sum = checksum + <u64>delta + <u64>~before + <u64>after;
  store<u32>(segment, after, TCP_SEQUENCE);
  store<u16>(segment, <u16>(~fold(sum) & 0xffff), TCP_CHECKSUM);
}

/**
 * Takes H off the number that the target acknowledges. The checksum, which says so already, follows only
 * when the number wraps.
 */
function lowerNumber(segment: usize, bytes: u32): void {
  const number = loadBe32(segment + TCP_ACKNOWLEDGEMENT);
  store<u32>(segment, bswap<u32>(number - bytes), TCP_ACKNOWLEDGEMENT);
  if (number >= bytes) return;
  store<u16>(segment, <u16>updated(load<u16>(segment, TCP_CHECKSUM), WRAP_DELTA), TCP_CHECKSUM);
}

/**
 * Checksum and number of a segment with ACK and without SYN, of a flow whose header is acknowledged and
 * takes `shift` bytes (TRAIT_SHIFT). The number goes up by it on the client side, else down.
 */
export function rewriteShifted(
  packet: Packet,
  record: usize,
  shift: u32,
  side: u32,
  direction: u32,
): void {
  const segment = <usize>packet.transport;
  const checksum = <u32>load<u16>(segment, TCP_CHECKSUM);
  store<u16>(segment, <u16>updated(checksum, transportDelta(record, side)), TCP_CHECKSUM);
  const half = segment + <usize>(direction << 2);
  const before = <u32>load<u16>(half, TCP_SEQUENCE + 2);
  const sum = before + (shift ^ (side == SIDE_CLIENT ? 0 : 0xffff));
  const after = (sum & 0xffff) + (sum >> 16);
  store<u16>(half, <u16>after, TCP_SEQUENCE + 2);
  if ((before ^ after) & HALF_HIGH_BIT) addWhole(half, before, segment, record, side);
  if (hasSacks(segment) && direction == DIRECTION_FROM_SERVICE) {
    mapSacks(packet, amountOf(record, side), 0, false);
  }
}

function amountOf(record: usize, side: u32): u32 {
  const bytes = headerBytesFor(serviceOf(record), 0);
  return side == SIDE_CLIENT ? bytes : 0 - bytes;
}

/**
 * Adds H to all bits of a number whose low half was `before`. The checksum, which says so already, follows
 * only when the number wraps.
 */
function addWhole(half: usize, before: u32, segment: usize, record: usize, side: u32): void {
  store<u16>(half, <u16>before, TCP_SEQUENCE + 2);
  const number = <u64>loadBe32(half + TCP_SEQUENCE) + <u64>(<i64>(<i32>amountOf(record, side)));
  store<u32>(half, bswap<u32>(<u32>number), TCP_SEQUENCE);
  if (number >> 32 == 0) return;
  const delta = side == SIDE_CLIENT ? WRAP_DELTA ^ 0xffff : WRAP_DELTA;
  store<u16>(segment, <u16>updated(load<u16>(segment, TCP_CHECKSUM), delta), TCP_CHECKSUM);
}
