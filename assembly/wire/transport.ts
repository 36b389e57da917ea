/**
 * From addresses and a transport header to a canonical tuple.
 *
 * TCP (RFC 9293) and UDP (RFC 768) have ports. ICMP queries (RFC 792, RFC 4443, RFC 5508) use
 * their identifier as the port of whoever asks. ICMP errors are named by the packet they quote.
 * All other protocols are told apart by addresses and protocol alone (ports 0).
 */

import { VERDICT_DROP_MALFORMED, VERDICT_DROP_TRUNCATED } from "../abi";
import { digestAddresses, hashDigest, hashTuple } from "../hash";
import { plainBytesMax } from "../memory";
import {
  FRAGMENT_LATER,
  FRAGMENT_NONE,
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_FAST,
  PACKET_FLOW,
  PACKET_LATER,
  Packet,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../packet";

const TCP_DATA_OFFSET: u32 = 12;
export const TCP_CHECKSUM: u32 = 16;
export const UDP_CHECKSUM: u32 = 6;
export const ICMP_CHECKSUM: u32 = 2;
export const ICMP_IDENTIFIER: u32 = 4;
/** Where the quoted packet begins in an ICMP error. */
export const ICMP_QUOTE: u32 = 8;

const TCP_BYTES_MIN: u32 = 20;
const UDP_BYTES_MIN: u32 = 8;
const ICMP_QUERY_BYTES_MIN: u32 = 6;

export const ICMP_NEITHER: u32 = 0;
export const ICMP_REQUEST: u32 = 1;
export const ICMP_REPLY: u32 = 2;
export const ICMP_IS_ERROR: u32 = 3;

export function decide(packet: Packet, verdict: u32): void {
  packet.kind = PACKET_DECIDED;
  packet.verdict = <u8>verdict;
}

/** ICMP_*: what role a message type plays. */
export function icmpRole(type: u32, isIpv6: bool): u32 {
  if (isIpv6) {
    if (type == 128) return ICMP_REQUEST;
    if (type == 129) return ICMP_REPLY;
    return type >= 1 && type <= 4 ? ICMP_IS_ERROR : ICMP_NEITHER;
  }
  if (type == 8 || type == 13 || type == 15 || type == 17) return ICMP_REQUEST;
  if (type == 0 || type == 14 || type == 16 || type == 18) return ICMP_REPLY;
  const isError = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  return isError ? ICMP_IS_ERROR : ICMP_NEITHER;
}

/**
 * Names the tuple of an IPv4 packet. `addresses` is source | destination << 32 and `portPair`
 * source | destination << 16, as loaded from the packet.
 */
export function setTuple4(packet: Packet, addresses: u64, portPair: u32, protocolZone: u32): void {
  const source = ((addresses & 0xffffffff) << 16) | (portPair & 0xffff);
  const destination = ((addresses >> 32) << 16) | (portPair >> 16);
  const swapped = source > destination;
  packet.swapped = u8(swapped);
  packet.addresses = select<u64>(rotl<u64>(addresses, 32), addresses, swapped);
  const canonical = select<u32>(rotl<u32>(portPair, 16), portPair, swapped);
  packet.rest = <u64>canonical | ((<u64>protocolZone) << 32);
  packet.hash = hashTuple(packet.addresses, packet.rest);
}

/** The same for IPv6; the packet's source and destination addresses are already known. */
export function setTuple6(packet: Packet, portPair: u32, protocolZone: u32): void {
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  const order = compare16(source, destination);
  const swapped = order > 0 || (order == 0 && (portPair & 0xffff) > portPair >> 16);
  packet.swapped = u8(swapped);
  const canonical = swapped ? rotl<u32>(portPair, 16) : portPair;
  packet.addresses = swapped
    ? digestAddresses(destination, source)
    : digestAddresses(source, destination);
  packet.rest = <u64>canonical | ((<u64>protocolZone) << 32);
  packet.hash = hashDigest(packet.addresses, packet.rest);
}

export function setTuple(packet: Packet, portPair: u32, protocolZone: u32): void {
  if (packet.isIpv6) return setTuple6(packet, portPair, protocolZone);
  const source = <u64>load<u32>(packet.sourceAddress);
  const destination = <u64>load<u32>(packet.destinationAddress);
  setTuple4(packet, source | (destination << 32), portPair, protocolZone);
}

/** The ports as the packet carries them: source | destination << 16. */
export function portPairOf(packet: Packet): u32 {
  const canonical = <u32>packet.rest;
  return packet.swapped ? rotl<u32>(canonical, 16) : canonical;
}

/**
 * Classifies what follows the IP headers. `present` bytes are captured of a transport segment that
 * is `total` bytes long; of the packet's fields all but kind, tuple and flags are set.
 */
export function parseTransport(packet: Packet, present: u32, total: u32, zone: u32): void {
  const protocol = packet.protocol;
  const protocolZone = <u32>protocol | (zone << 8);
  // A later fragment has no transport header: its first bytes are payload.
  packet.transportBytes = packet.fragment == FRAGMENT_LATER ? 0 : present;
  packet.kind = PACKET_FLOW;
  const isIcmp = protocol == (packet.isIpv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP);
  const hasPorts = protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
  if (!hasPorts && !isIcmp) return setTuple(packet, 0, protocolZone);
  if (packet.fragment == FRAGMENT_LATER) {
    packet.kind = PACKET_LATER;
    packet.rest = (<u64>protocolZone) << 32;
    return;
  }
  if (isIcmp) return parseIcmp(packet, present, total, protocolZone);
  const isTcp = protocol == PROTOCOL_TCP;
  const bytesMin = isTcp ? TCP_BYTES_MIN : UDP_BYTES_MIN;
  if (total < bytesMin) return decide(packet, VERDICT_DROP_MALFORMED);
  if (present < 4) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (isTcp && present > TCP_DATA_OFFSET && !isTcpHeaderSound(packet.transport, total)) {
    return decide(packet, VERDICT_DROP_MALFORMED);
  }
  if (isTcp && present > 13) packet.flags = tcpFlags(packet.transport);
  const isSmall = packet.transport - packet.network + total <= plainBytesMax;
  const isWhole = packet.fragment == FRAGMENT_NONE && present >= bytesMin;
  if (!packet.isIpv6 && isWhole && isSmall) packet.kind = PACKET_FAST;
  setTuple(packet, load<u32>(packet.transport), protocolZone);
}

/** True when a TCP header of the length that it claims fits a segment of `total` bytes. */
export function isTcpHeaderSound(transport: usize, total: u32): bool {
  const headerBytes = (<u32>(load<u8>(transport, TCP_DATA_OFFSET) >> 4)) << 2;
  return (i32(headerBytes >= TCP_BYTES_MIN) & i32(headerBytes <= total)) != 0;
}

/** FIN, SYN, RST and ACK of a TCP header as TCP_*. */
export function tcpFlags(transport: usize): u8 {
  const bits = load<u8>(transport, 13);
  return (bits & 7) | ((bits >> 1) & 8);
}

function parseIcmp(packet: Packet, present: u32, total: u32, protocolZone: u32): void {
  if (total < UDP_BYTES_MIN) return decide(packet, VERDICT_DROP_MALFORMED);
  if (present < ICMP_QUERY_BYTES_MIN) return decide(packet, VERDICT_DROP_TRUNCATED);
  const role = icmpRole(load<u8>(packet.transport), packet.isIpv6 != 0);
  const identifier = <u32>load<u16>(packet.transport, ICMP_IDENTIFIER);
  if (role == ICMP_IS_ERROR) {
    packet.kind = PACKET_ERROR;
    packet.quoted = packet.transport + ICMP_QUOTE;
    packet.rest = (<u64>protocolZone) << 32;
    return;
  }
  let portPair: u32 = 0;
  if (role == ICMP_REQUEST) portPair = identifier;
  if (role == ICMP_REPLY) portPair = identifier << 16;
  setTuple(packet, portPair, protocolZone);
}

/** Order of two 16-byte addresses: negative, zero or positive. Any total order will do. */
function compare16(left: usize, right: usize): i32 {
  const leftFirst = load<u64>(left);
  const rightFirst = load<u64>(right);
  if (leftFirst != rightFirst) return leftFirst < rightFirst ? -1 : 1;
  const leftLast = load<u64>(left, 8);
  const rightLast = load<u64>(right, 8);
  if (leftLast == rightLast) return 0;
  return leftLast < rightLast ? -1 : 1;
}
