/**
 * SYNs of flows that get a header: data on them (RFC 9293 section 3.5 allows it) and TCP Fast Open
 * (RFC 7413) would reach the target before the header. Both are taken off; the client sends its
 * data again when the SYN-ACK acknowledges none of it.
 */
import { COUNTER_PP2_CUT, FRAME_ADDRESS, FRAME_CAPTURED_BYTES, FRAME_WIRE_BYTES } from "../abi";
import { deltaOf, fold, sumOf, updated } from "../checksum";
import { countUp } from "../counters";
import { counters } from "../memory";
import { FRAGMENT_NONE, Packet } from "../packet";
import { IPV4_CHECKSUM, IPV4_TOTAL_LENGTH } from "../wire/ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH } from "../wire/ipv6";
import { headerBytesOf, payloadBytesOf } from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";
import { removeFastOpen } from "./options";

/** Takes data and Fast Open off a SYN that has been translated. */
export function cutSyn(descriptor: usize, packet: Packet): void {
  const header = headerBytesOf(packet);
  if (packet.transportBytes < header || packet.fragment != FRAGMENT_NONE) return;
  const hadFastOpen = removeFastOpen(packet);
  const payload = payloadBytesOf(packet);
  if (!hadFastOpen && payload == 0) return;
  countUp(counters + COUNTER_PP2_CUT);
  if (payload != 0) cutPayload(descriptor, packet, header, payload);
}

/**
 * The frame ends with its TCP header then. Its checksum loses what was captured of the payload: if
 * the capture had cut some off, it ends up as wrong as nobody can tell.
 */
function cutPayload(descriptor: usize, packet: Packet, header: u32, payload: u32): void {
  const segment = <usize>packet.transport;
  const captured = packet.transportBytes - header;
  const length = lengthWord(header + payload);
  const checksum = <u32>load<u16>(segment, TCP_CHECKSUM);
  let after: u32 = 0;
  if (packet.partial != 0) {
    after = fold(<u64>checksum + deltaOf(length, lengthWord(header)));
  } else {
    const before = sumOf(segment + header, captured) + length;
    after = updated(checksum, deltaOf(before, lengthWord(header)));
  }
  store<u16>(segment, <u16>after, TCP_CHECKSUM);
  shorten(packet, header);
  const end = packet.transport + header;
  const bytes = end - load<u32>(descriptor, FRAME_ADDRESS);
  store<u32>(descriptor, bytes, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, bytes, FRAME_WIRE_BYTES);
}

/** The segment's length as the pseudo-header counts it. */
function lengthWord(bytes: u32): u64 {
  return <u64>bswap<u16>(<u16>bytes) + <u64>bswap<u16>(<u16>(bytes >> 16));
}

/** Writes the IP header's length for a segment of `bytes` bytes. */
function shorten(packet: Packet, bytes: u32): void {
  const ip = <usize>packet.network;
  const total = packet.transport - packet.network + bytes;
  packet.transportBytes = bytes;
  if (packet.isIpv6) {
    store<u16>(ip, bswap<u16>(<u16>(total - IPV6_BYTES)), IPV6_PAYLOAD_LENGTH);
    return;
  }
  const before = load<u16>(ip, IPV4_TOTAL_LENGTH);
  const after = bswap<u16>(<u16>total);
  store<u16>(ip, after, IPV4_TOTAL_LENGTH);
  const checksum = updated(load<u16>(ip, IPV4_CHECKSUM), deltaOf(before, after));
  store<u16>(ip, <u16>checksum, IPV4_CHECKSUM);
}
