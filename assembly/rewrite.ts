/**
 * The only code that writes packet bytes: a packet with the tuple of one side of its flow becomes
 * a packet with the tuple of the other side, in the same direction, checksums included.
 *
 * Checksums are updated, never computed (RFC 1624), so a wrong one stays exactly as wrong. Fields
 * that the capture has cut off are left out.
 */
import {
  FLOW_FLAG_HEADER,
  FLOW_FLAG_OPEN,
  FLOW_FLAGS,
  FLOW_NETWORK_DELTA,
  FLOW_TRANSPORT_DELTA,
  FLOW6_CLIENT_LOW,
  FLOW6_SERVICE_LOW,
  KEY_LOW_PORT_BE,
  KEY_PROTOCOL,
  SIDE_CLIENT,
  SIDE_SERVICE,
} from "./abi";
import { deltaOf, fold, inverse, sumOf16, updated, updatedUdp } from "./checksum";
import {
  Packet,
  PROTOCOL_DCCP,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  PROTOCOL_UDPLITE,
} from "./packet";
import { IPV4_CHECKSUM, IPV4_SOURCE } from "./wire/ipv4";
import {
  ICMP_CHECKSUM,
  ICMP_IDENTIFIER,
  ICMP_REPLY,
  ICMP_REQUEST,
  icmpRole,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from "./wire/transport";

/** 1 when, on `side`, the sender of `direction` is the larger endpoint. */
export function sourceIsHigh(record: usize, side: u32, direction: u32): u32 {
  return ((<u32>load<u8>(record, FLOW_FLAGS) >> side) & 1) ^ direction;
}

/** Direction of a packet that carries the tuple of `side`. */
export function directionOf(record: usize, side: u32, packet: Packet): u32 {
  return ((<u32>load<u8>(record, FLOW_FLAGS) >> side) & 1) ^ packet.swapped;
}

/** Network checksum delta for a packet that arrived on `side`, of a flow that keeps it. */
export function networkDelta(record: usize, side: u32): u32 {
  return towards(side, load<u16>(record, FLOW_NETWORK_DELTA));
}

/**
 * Transport checksum delta for a packet that arrived on `side`, of a flow that keeps it: for one whose
 * number a PROXY header has moved, where the flow has one.
 */
export function transportDelta(record: usize, side: u32): u32 {
  return towards(side, load<u16>(record, FLOW_TRANSPORT_DELTA));
}

function towards(side: u32, delta: u32): u32 {
  return select<u32>(inverse(delta), delta, side);
}

/** Both deltas for a packet of any flow that arrived on `side`: network | transport << 16. */
export function deltasOf(record: usize, side: u32, isIpv6: u32): u32 {
  if (!keepsDeltas(record, isIpv6)) return sumDeltas(record, side, isIpv6);
  const deltas = load<u32>(record, FLOW_NETWORK_DELTA);
  return towards(side, deltas & 0xffff) | (towards(side, deltas >> 16) << 16);
}

/**
 * True while a PROXY header may yet be caused in a stream: the place of the deltas holds the number
 * that it will have, and they are computed where they are needed.
 */
export function isOpening(record: usize): bool {
  if ((<u32>load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_OPEN) == 0) return false;
  return load<u8>(record, KEY_PROTOCOL) == PROTOCOL_TCP;
}

/** Keeps what follows from both tuples in the record. */
export function storeDeltas(record: usize, isIpv6: u32): void {
  store<u32>(record, sumDeltas(record, SIDE_CLIENT, isIpv6), FLOW_NETWORK_DELTA);
}

/**
 * The same of an IPv4 flow with a PROXY header of `bytes`. What it adds to a number is in the transport
 * delta, so that the checksum of a segment that has moved costs what that of any other does.
 */
export function storeShiftedDeltas(record: usize, bytes: u32): void {
  store<u32>(record, sumDeltas4(record, SIDE_CLIENT, bswap<u16>(<u16>bytes)), FLOW_NETWORK_DELTA);
}

/** Whether the kept deltas are those of the tuples alone. */
export function keepsDeltas(record: usize, isIpv6: u32): bool {
  const flags = <u32>load<u8>(record, FLOW_FLAGS);
  if (flags & FLOW_FLAG_OPEN) return load<u8>(record, KEY_PROTOCOL) != PROTOCOL_TCP;
  return (flags & FLOW_FLAG_HEADER) == 0 || isIpv6 != 0;
}

/** Deltas for a packet that arrived on `side`, from both tuples: network | transport << 16. */
function sumDeltas(record: usize, side: u32, isIpv6: u32): u32 {
  if (!isIpv6) return sumDeltas4(record, side, 0);
  const low = record + FLOW6_CLIENT_LOW + ((<usize>side) << 5);
  const out = record + FLOW6_CLIENT_LOW + ((<usize>(side ^ 1)) << 5);
  return bothDeltas(
    record,
    side,
    sumOf16(low) + sumOf16(low + 16),
    sumOf16(out) + sumOf16(out + 16),
    0,
  );
}

/** The same of IPv4; `shift` more is added to what the transport checksum covers. */
export function sumDeltas4(record: usize, side: u32, shift: u32): u32 {
  const before = load<u64>(record + ((<usize>side) << 4));
  const after = load<u64>(record + ((<usize>(side ^ 1)) << 4));
  const sumBefore = (before & 0xffffffff) + (before >> 32);
  return bothDeltas(record, side, sumBefore, (after & 0xffffffff) + (after >> 32), shift);
}

/** Both deltas of a change of addresses that sum to `before` to those that sum to `after`. */
function bothDeltas(record: usize, side: u32, before: u64, after: u64, shift: u32): u32 {
  const beforePorts = <u64>load<u32>(record + ((<usize>side) << 4), KEY_LOW_PORT_BE);
  const afterPorts = <u64>load<u32>(record + ((<usize>(side ^ 1)) << 4), KEY_LOW_PORT_BE);
  const transport = deltaOf(before + beforePorts, after + afterPorts + shift);
  return deltaOf(before, after) | (transport << 16);
}

/** Source and destination ports of the outgoing side: source | destination << 16. */
export function portsOf(record: usize, side: u32, direction: u32): u32 {
  const portPair = load<u32>(record + ((<usize>side) << 4), 8);
  return select<u32>(rotl<u32>(portPair, 16), portPair, sourceIsHigh(record, side, direction));
}

/**
 * Whole IPv4 TCP and UDP packets of flows without flags: the path that nearly all packets take. Its two
 * steps are small enough to become parts of their callers.
 */
export function rewriteFast(packet: Packet, record: usize, side: u32, direction: u32): void {
  rewriteHead(packet, record, side, direction, networkDelta(record, side));
  rewriteSum(packet, record, side);
}

/** The transport checksum of such a packet. */
export function rewriteSum(packet: Packet, record: usize, side: u32): void {
  const isUdp = packet.protocol == PROTOCOL_UDP;
  const at = <usize>packet.transport + select<usize>(UDP_CHECKSUM, TCP_CHECKSUM, isUdp);
  const before = <u32>load<u16>(at);
  let after = updated(before, transportDelta(record, side));
  // Zero is no checksum to UDP (updatedUdp), which branches here because it is rare.
  if (i32(before == 0) | i32(after == 0)) after = isUdp ? (before == 0 ? 0 : 0xffff) : after;
  store<u16>(at, <u16>after);
}

/** Addresses, ports and the checksum of the IP header in such a packet. */
export function rewriteHead(
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
  delta: u32,
): void {
  const out = side ^ 1;
  const isHigh = sourceIsHigh(record, out, direction);
  const key = record + ((<usize>out) << 4);
  const addresses = load<u64>(key);
  const portPair = load<u32>(key, 8);
  const ip = <usize>packet.network;
  store<u64>(ip, select<u64>(rotl<u64>(addresses, 32), addresses, isHigh), IPV4_SOURCE);
  store<u32>(packet.transport, select<u32>(rotl<u32>(portPair, 16), portPair, isHigh));
  const network = <u32>load<u16>(ip, IPV4_CHECKSUM);
  store<u16>(ip, <u16>updated(network, delta), IPV4_CHECKSUM);
}

/** Any packet that its own tuple names. */
export function rewritePacket(packet: Packet, record: usize, side: u32, direction: u32): void {
  rewriteAddresses(packet, record, side, direction);
  rewriteTransport(packet, record, side, direction);
}

/** Addresses and the IPv4 header checksum. */
export function rewriteAddresses(packet: Packet, record: usize, side: u32, direction: u32): void {
  const out = side ^ 1;
  const isHigh = sourceIsHigh(record, out, direction);
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  if (packet.isIpv6) {
    const low = record + (out == SIDE_CLIENT ? FLOW6_CLIENT_LOW : FLOW6_SERVICE_LOW);
    const lowAddress = v128.load(low);
    const highAddress = v128.load(low, 16);
    v128.store(isHigh ? destination : source, lowAddress);
    v128.store(isHigh ? source : destination, highAddress);
    return;
  }
  const addresses = load<u64>(record + ((<usize>out) << 4));
  const ip = <usize>packet.network;
  store<u64>(ip, isHigh ? rotl<u64>(addresses, 32) : addresses, IPV4_SOURCE);
  const checksum = <u32>load<u16>(ip, IPV4_CHECKSUM);
  const delta = deltasOf(record, side, 0) & 0xffff;
  store<u16>(ip, <u16>updated(checksum, delta), IPV4_CHECKSUM);
}

/** Ports or identifier, and the transport checksum as far as both are captured. */
function rewriteTransport(packet: Packet, record: usize, side: u32, direction: u32): void {
  const present = packet.transportBytes;
  const protocol = packet.protocol;
  const transport = <usize>packet.transport;
  if (present == 0) return;
  if (protocol == (packet.isIpv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) {
    return rewriteIcmp(packet, record, side, direction);
  }
  if (protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP) {
    store<u32>(transport, portsOf(record, side ^ 1, direction));
  }
  const deltas = deltasOf(record, side, packet.isIpv6);
  if (packet.partial) return addToPartial(packet, deltas & 0xffff);
  const delta = deltas >> 16;
  if (protocol == PROTOCOL_TCP) updateAt(packet, TCP_CHECKSUM, delta);
  else if (protocol == PROTOCOL_UDP) updateUdpAt(packet, delta);
  else if (protocol == PROTOCOL_DCCP || protocol == PROTOCOL_UDPLITE) {
    updateAt(packet, UDP_CHECKSUM, delta);
  }
}

/**
 * A checksum that the device will complete holds the sum of the pseudo-header, not complemented:
 * addresses change it, ports do not.
 */
function addToPartial(packet: Packet, delta: u32): void {
  const at = <usize>packet.transport + packet.partial;
  store<u16>(at, <u16>fold(<u64>load<u16>(at) + delta));
}

function updateAt(packet: Packet, offset: u32, delta: u32): void {
  if (packet.transportBytes < offset + 2) return;
  const at = <usize>(packet.transport + offset);
  store<u16>(at, <u16>updated(load<u16>(at), delta));
}

function updateUdpAt(packet: Packet, delta: u32): void {
  if (packet.transportBytes < UDP_CHECKSUM + 2) return;
  const at = <usize>(packet.transport + UDP_CHECKSUM);
  store<u16>(at, <u16>updatedUdp(load<u16>(at), delta));
}

/** ICMP queries: the identifier; its checksum covers addresses only in ICMPv6 (RFC 4443). */
function rewriteIcmp(packet: Packet, record: usize, side: u32, direction: u32): void {
  const isV6 = packet.protocol == PROTOCOL_ICMPV6;
  const transport = <usize>packet.transport;
  const role = icmpRole(load<u8>(transport), isV6);
  if (role == ICMP_REQUEST || role == ICMP_REPLY) {
    if (packet.transportBytes < ICMP_IDENTIFIER + 2) return;
    const portPair = portsOf(record, side ^ 1, direction);
    const after = role == ICMP_REQUEST ? portPair & 0xffff : portPair >> 16;
    const before = <u32>load<u16>(transport, ICMP_IDENTIFIER);
    store<u16>(transport, <u16>after, ICMP_IDENTIFIER);
    if (packet.partial == 0 && !isV6) {
      return updateAt(packet, ICMP_CHECKSUM, deltaOf(before, after));
    }
  }
  if (packet.partial) {
    // The sum that ICMP leaves to the device has no pseudo-header, that of ICMPv6 has one.
    if (isV6) addToPartial(packet, networkDelta(record, side));
    return;
  }
  if (isV6) updateAt(packet, ICMP_CHECKSUM, transportDelta(record, side));
}

/** Address of the client (or of the service) on a side; 4 or 16 bytes in the record. */
export function addressOf(record: usize, isIpv6: u8, side: u32, ofClient: bool): usize {
  const clientIsHigh = (<u32>load<u8>(record, FLOW_FLAGS) >> side) & 1;
  const isHigh = ofClient ? clientIsHigh : clientIsHigh ^ 1;
  if (!isIpv6) return record + ((<usize>side) << 4) + ((<usize>isHigh) << 2);
  const low = side == SIDE_SERVICE ? FLOW6_SERVICE_LOW : FLOW6_CLIENT_LOW;
  return record + low + ((<usize>isHigh) << 4);
}
