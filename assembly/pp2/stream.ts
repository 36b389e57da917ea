/**
 * A PROXY protocol header in a TCP stream that nobody terminates.
 *
 * Theory of operation. The target's stream is the client's with H bytes in front, so everything
 * that the client numbers lies H higher behind the engine, for the life of the flow:
 *
 *   client to target   SEQ + H
 *   target to client   ACK - H, and the edges of SACK blocks
 *
 * A flow passes three stages, told by two flags of its record:
 *
 *   stage    flags          until                        numbers
 *   silent   OPEN           the header is caused         as they are: the target knows of no header
 *   sent     HEADER, OPEN   the target acknowledges it   with the ISN at hand, see below
 *   done     HEADER         the end                      H and nothing else (fast.ts)
 *
 * What causes the header: the first segment of the client that takes sequence space beyond its SYN
 * (payload or FIN, so never a pure ACK), or, as the service wants it, the first one after the
 * handshake. It goes before that segment, and again before every segment that begins where the
 * header belongs, for then the client repeats its first bytes, and that is how the loss of the
 * header shows: acknowledgements inside it, or before it, reach the client as ISN + 1.
 *
 * SYNs are never touched, in no stage: their numbers come before the header. Data on a SYN and
 * Fast Open are taken off, so that nothing reaches the target before the header.
 *
 * A header that goes with the handshake's last packet takes its place: the ACK alone is absorbed. A
 * target that has not received the header is not connected then, and repeats its SYN-ACK until
 * the client's answer brings the header again. So a loss is repaired even where both ends wait
 * for each other, and no timer is needed here.
 *
 * A capture's replay (frames of both directions carry the client side) maps acknowledgements up
 * instead of down: behind it nothing is lost, and what comes back has seen the header.
 *
 * Nodes of a fleet know from a flow's decision where its header begins, not its stage. Who takes a
 * flow over counts it as sent, and all who are silent listen for signs that another node has sent it:
 * a header too many is a repetition to the target, and what nobody has sent shows as unsent.
 *
 * Invariants: (1) the ISN of a flow is right from its first SYN on until it is done; (2) a flow that
 * is met in mid-stream, and that no decision tells of, has no flag and is never shifted; (3) H does not
 * change while a service lives. Cost when done: one number, its checksum, and a look at the options of what comes back.
 */
import {
  COUNTER_PP2_ADOPTED,
  COUNTER_PP2_CLAMPED,
  COUNTER_PP2_REPEATED,
  DIRECTION_FROM_CLIENT,
  FLOW_FIRST_NUMBER,
  FLOW_FLAG_HEADER,
  FLOW_FLAG_OPEN,
  FLOW_FLAGS,
  FLOW_PACKETS_CLIENT,
  FLOW_STATE,
  FLOW_STATE_HALF_OPEN,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAG_PP2,
  SERVICE_FLAG_PP2_FIRST_ACK,
  SERVICE_FLAG_PP2_UDP,
  SERVICE_FLAGS,
  SIDE_CLIENT,
  VERDICT_ABSORB_HEADER,
  VERDICT_FORWARD,
} from "../abi";
import { countUp } from "../counters";
import { asksFirst, counters } from "../memory";
import {
  FRAGMENT_NONE,
  Packet,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from "../packet";
import { isOpening, storeDeltas, storeShiftedDeltas } from "../rewrite";
import {
  loadBe32,
  payloadBytesOf,
  replaceWord,
  TCP_ACKNOWLEDGEMENT,
  TCP_SEQUENCE,
} from "../wire/segment";
import { prependToDatagram } from "./datagram";
import { behindHeader, hasSacks, isBeyond, mapSacks } from "./options";
import { emitHeader, headerBytesFor, serviceOf } from "./segment";
import { cutSyn } from "./syn";

export const STREAM_FLAGS: u32 = FLOW_FLAG_HEADER | FLOW_FLAG_OPEN;
/** A segment whose flags are captured, and both numbers with them. */
const NUMBERED_BYTES: u32 = 14;
/** SYN, ACK and the first data of a client that has to repeat nothing. */
const PACKETS_OPENING: u32 = 3;

/** 64 and 128 of the flags: which stage the flow is in, 0 when it has no header. */
export function streamFlags(record: usize): u32 {
  return <u32>load<u8>(record, FLOW_FLAGS) & STREAM_FLAGS;
}

function sequenceOf(packet: Packet): u32 {
  return loadBe32(<usize>packet.transport + TCP_SEQUENCE);
}

/** The checksum deltas come back as soon as the place is no longer needed, with the header's. */
function setStreamFlags(record: usize, flags: u32, isIpv6: u32): void {
  const others = <u32>load<u8>(record, FLOW_FLAGS) & ~STREAM_FLAGS;
  store<u8>(record, <u8>(others | flags), FLOW_FLAGS);
  if (isOpening(record)) return;
  if (flags != FLOW_FLAG_HEADER || isIpv6) return storeDeltas(record, isIpv6);
  storeShiftedDeltas(record, headerBytesFor(serviceOf(record), isIpv6));
}

/** Where the header of a stream begins, until it is done: the number of the client's first byte. */
export function firstOf(record: usize): u32 {
  return isOpening(record) ? load<u32>(record, FLOW_FIRST_NUMBER) : 0;
}

/** Notes where the header of a stream begins. */
export function begin(record: usize, first: u32): void {
  assert(isOpening(record), "pp2: a stream that is done has no place for where its header begins");
  store<u32>(record, first, FLOW_FIRST_NUMBER);
}

/** Decides, as a flow begins or begins again with a packet of its client, whether it gets a header. */
export function armHeader(record: usize, packet: Packet): void {
  const service = load<u32>(serviceOf(record), SERVICE_FLAGS);
  const isUdp = packet.protocol == PROTOCOL_UDP;
  const isWanted = (service & (isUdp ? SERVICE_FLAG_PP2_UDP : SERVICE_FLAG_PP2)) != 0;
  const before = streamFlags(record);
  if (!isUdp && (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN) {
    const isAdopted = isWanted && before == 0 && packet.protocol == PROTOCOL_TCP;
    if (isAdopted) countUp(counters + COUNTER_PP2_ADOPTED);
    return;
  }
  const flags = isWanted ? FLOW_FLAG_OPEN : 0;
  if (before != flags) setStreamFlags(record, flags, packet.isIpv6);
}

/** The SYN that begins an open flow, already translated: its number, and what it may not carry. */
export function openStream(descriptor: usize, packet: Packet, record: usize): void {
  begin(record, sequenceOf(packet) + 1);
  cutSyn(descriptor, packet);
}

/** Notes where the header of a flow will begin that is not let through yet (flow/decision.ts). */
export function noteOpening(record: usize, packet: Packet): void {
  if (!isOpening(record)) return;
  const sequence = packet.transportBytes < NUMBERED_BYTES ? 0 : sequenceOf(packet);
  begin(record, sequence + 1);
}

/** True for the SYN of a client that has given up its first one: the header begins elsewhere now. */
export function isOtherStream(packet: Packet, record: usize, direction: u32): bool {
  const isSyn = (packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
  if (!isSyn || direction != DIRECTION_FROM_CLIENT) return false;
  if (streamFlags(record) != FLOW_FLAG_OPEN || packet.transportBytes < NUMBERED_BYTES) return false;
  return firstOf(record) != sequenceOf(packet) + 1;
}

/**
 * Goes on with a flow that another engine has begun. Of a stream nobody says how far it is: it counts
 * as sent, which puts the header in again where the client repeats its first bytes, and learns
 * from the target's acknowledgements that it is done. See `passOpening` for one that is not sent.
 */
export function resumeStream(record: usize, packet: Packet, first: u32): void {
  const isBegun = <u32>load<u8>(record, FLOW_STATE) != FLOW_STATE_HALF_OPEN;
  const isStream = packet.protocol == PROTOCOL_TCP;
  setStreamFlags(record, isStream && isBegun ? STREAM_FLAGS : FLOW_FLAG_OPEN, packet.isIpv6);
  if (isStream) begin(record, first);
}

/** The same of a stream whose header is known to be acknowledged. */
export function resumeDone(record: usize, packet: Packet): void {
  setStreamFlags(record, FLOW_FLAG_HEADER, packet.isIpv6);
}

/**
 * A packet of a flow with flags, already translated. Returns a VERDICT_*, for a datagram may have
 * become too long, and an acknowledgement may leave with the header.
 */
export function passStream(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
  handle: u32,
): u32 {
  const fromClient = direction == DIRECTION_FROM_CLIENT;
  if (packet.protocol == PROTOCOL_UDP) {
    if (!fromClient || side != SIDE_CLIENT) return VERDICT_FORWARD;
    return prependToDatagram(descriptor, packet, record);
  }
  if (packet.transportBytes < NUMBERED_BYTES) return VERDICT_FORWARD;
  if (asksFirst) noticeHeader(packet, record, direction);
  const flags = streamFlags(record);
  if (packet.flags & TCP_SYN) {
    if (flags & FLOW_FLAG_OPEN) passSyn(descriptor, packet, record, side, direction);
  } else if (flags == FLOW_FLAG_HEADER) shiftSegment(packet, record, side, direction);
  else if (fromClient) return passOpening(descriptor, packet, record, side, flags, handle);
  else if (flags & FLOW_FLAG_HEADER) passAnswer(packet, record, side);
  return VERDICT_FORWARD;
}

/** A segment of a flow that is done, or one whose numbers all lie behind the header. */
export function shiftSegment(packet: Packet, record: usize, side: u32, direction: u32): void {
  const bytes = headerBytesFor(serviceOf(record), packet.isIpv6);
  const amount = select<u32>(bytes, 0 - bytes, side == SIDE_CLIENT);
  if (direction == DIRECTION_FROM_CLIENT) {
    const sequence = loadBe32(<usize>packet.transport + TCP_SEQUENCE);
    return replaceWord(packet, TCP_SEQUENCE, sequence + amount);
  }
  if ((packet.flags & TCP_ACK) == 0) return;
  const acknowledged = loadBe32(<usize>packet.transport + TCP_ACKNOWLEDGEMENT);
  replaceWord(packet, TCP_ACKNOWLEDGEMENT, acknowledged + amount);
  if (hasSacks(<usize>packet.transport)) mapSacks(packet, amount, 0, false);
}

/**
 * Another engine may have sent the header of a flow that is silent here. It has when the client is
 * beyond its first byte; when the target answers, it may have: see `passOpening` for when not.
 */
function noticeHeader(packet: Packet, record: usize, direction: u32): void {
  if (streamFlags(record) != FLOW_FLAG_OPEN || packet.flags & TCP_SYN) return;
  const first = firstOf(record);
  const isSent = direction == DIRECTION_FROM_CLIENT ? isBeyond(sequenceOf(packet), first) : true;
  if (isSent) setStreamFlags(record, STREAM_FLAGS, packet.isIpv6);
}

/** SYNs and SYN-ACKs tell where the header will begin. */
function passSyn(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
): void {
  if (packet.flags & TCP_RST) return;
  const isSilent = (streamFlags(record) & FLOW_FLAG_HEADER) == 0;
  if (direction == DIRECTION_FROM_CLIENT) {
    // Another SYN of a client that has given up the first; later ones are strays.
    if (isSilent && <u32>load<u8>(record, FLOW_STATE) == FLOW_STATE_HALF_OPEN) {
      begin(record, loadBe32(<usize>packet.transport + TCP_SEQUENCE) + 1);
    }
    if (side == SIDE_CLIENT) cutSyn(descriptor, packet);
  } else if (isSilent && packet.flags & TCP_ACK) {
    begin(record, loadBe32(<usize>packet.transport + TCP_ACKNOWLEDGEMENT));
  }
}

/** A segment of the client before the header is acknowledged. Returns a VERDICT_*. */
function passOpening(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  flags: u32,
  handle: u32,
): u32 {
  const first = load<u32>(record, FLOW_FIRST_NUMBER);
  const sequence = loadBe32(<usize>packet.transport + TCP_SEQUENCE);
  const taken = payloadBytesOf(packet) + u32((packet.flags & TCP_FIN) != 0);
  const end = sequence + taken;
  // Of a flow that was taken over the client may have sent nothing yet: the target knows of no header.
  const isUnsent = sequence == first && end == sequence;
  if (isUnsent && !isFirstAck(record)) return VERDICT_FORWARD;
  const isSent = (flags & FLOW_FLAG_HEADER) != 0;
  const isCause = side == SIDE_CLIENT && causesHeader(packet, record, isSent, sequence, end);
  if (isCause) {
    if (isSent) countUp(counters + COUNTER_PP2_REPEATED);
    else setStreamFlags(record, STREAM_FLAGS, packet.isIpv6);
    emitHeader(descriptor, packet, record, first, handle);
    if (end == sequence && (packet.flags & TCP_RST) == 0) return VERDICT_ABSORB_HEADER;
  }
  if (isCause || isSent) shiftSegment(packet, record, side, DIRECTION_FROM_CLIENT);
  return VERDICT_FORWARD;
}

/** Whether the header goes with the handshake's ACK, rather than before the first data. */
export function isFirstAck(record: usize): bool {
  return (load<u32>(serviceOf(record), SERVICE_FLAGS) & SERVICE_FLAG_PP2_FIRST_ACK) != 0;
}

/** Whether the header goes before this segment, for the first time or again. */
function causesHeader(packet: Packet, record: usize, isSent: bool, sequence: u32, end: u32): bool {
  if ((packet.flags & TCP_ACK) == 0) return false;
  const service = load<u32>(serviceOf(record), SERVICE_FLAGS);
  const isEarly = (service & SERVICE_FLAG_PP2_FIRST_ACK) != 0;
  const first = load<u32>(record, FLOW_FIRST_NUMBER);
  const isReset = (packet.flags & TCP_RST) != 0;
  const takesSpace = end != sequence && isBeyond(end, first);
  if (!isSent) {
    // Before the SYN-ACK only strays come, unless the capture has one direction alone.
    const isHalfOpen = <u32>load<u8>(record, FLOW_STATE) == FLOW_STATE_HALF_OPEN;
    if (isHalfOpen && (service & SERVICE_FLAG_ADOPT) == 0) return false;
    return !isReset && (isEarly || takesSpace);
  }
  // A reset must be the very next byte to the target, or it is challenged.
  if (isReset) return true;
  if (isBeyond(sequence, first)) return false;
  if (!takesSpace) return isEarly;
  // With the header in the handshake's ACK, the client's third packet is no sign of a loss yet.
  return !isEarly || load<u32>(record, FLOW_PACKETS_CLIENT) != PACKETS_OPENING;
}

/** Whether the header, which is on its way, goes again before this segment of the client. */
export function repeatsHeader(packet: Packet, record: usize, sequence: u32): bool {
  const taken = payloadBytesOf(packet) + u32((packet.flags & TCP_FIN) != 0);
  return causesHeader(packet, record, true, sequence, sequence + taken);
}

/** Ends the opening of a flow if this segment of the target acknowledges the whole header. */
export function acknowledge(packet: Packet, record: usize): bool {
  if (streamFlags(record) != STREAM_FLAGS) return false;
  const number = loadBe32(<usize>packet.transport + TCP_ACKNOWLEDGEMENT);
  const bytes = headerBytesFor(serviceOf(record), packet.isIpv6);
  const first = load<u32>(record, FLOW_FIRST_NUMBER);
  if (!isBeyond(number, first) || number - first < bytes) return false;
  setStreamFlags(record, FLOW_FLAG_HEADER, packet.isIpv6);
  return true;
}

/** A segment for the client before the header is acknowledged, and the one that does it. */
function passAnswer(packet: Packet, record: usize, side: u32): void {
  if ((packet.flags & TCP_ACK) == 0) return;
  const first = firstOf(record);
  const acknowledged = loadBe32(<usize>packet.transport + TCP_ACKNOWLEDGEMENT);
  if (side == SIDE_CLIENT) {
    if (<i32>(acknowledged - first) < 0) return;
    setStreamFlags(record, FLOW_FLAG_HEADER, packet.isIpv6);
    return shiftSegment(packet, record, side, 1);
  }
  const bytes = headerBytesFor(serviceOf(record), packet.isIpv6);
  const isInside = isBeyond(acknowledged, first) && !acknowledge(packet, record);
  if (isInside) countUp(counters + COUNTER_PP2_CLAMPED);
  const mapped = behindHeader(acknowledged, first, bytes);
  if (mapped != acknowledged) replaceWord(packet, TCP_ACKNOWLEDGEMENT, mapped);
  mapSacks(packet, bytes, first, true);
}

/**
 * The numbers in a segment that an ICMP error quotes, which arrived on `side`; `direction` is the
 * quoted segment's. Senders believe no error about numbers that they have not sent.
 */
export function shiftQuote(quoted: Packet, record: usize, side: u32, direction: u32): void {
  if (quoted.protocol != PROTOCOL_TCP || quoted.fragment != FRAGMENT_NONE) return;
  const flags = streamFlags(record);
  if ((flags & FLOW_FLAG_HEADER) == 0) return;
  const offset = direction == DIRECTION_FROM_CLIENT ? TCP_SEQUENCE : TCP_ACKNOWLEDGEMENT;
  if (quoted.transportBytes < offset + 4) return;
  const bytes = headerBytesFor(serviceOf(record), quoted.isIpv6);
  const value = loadBe32(<usize>(quoted.transport + offset));
  let mapped = side == SIDE_CLIENT ? value + bytes : value - bytes;
  if (flags & FLOW_FLAG_OPEN) {
    const first = firstOf(record);
    const isBefore = <i32>(value - first) < 0;
    mapped = side == SIDE_CLIENT && !isBefore ? mapped : behindHeader(value, first, bytes);
  }
  replaceWord(quoted, offset, mapped);
}
