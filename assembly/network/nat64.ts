/**
 * NAT64 (RFC 6146): flows between IPv6 clients and IPv4 servers, which have addresses in 64:ff9b::/96
 * (RFC 6052). Such a flow lives in the IPv6 table: on its service side both ends have addresses with
 * that prefix, and its packets cross to IPv4 on the way out and to IPv6 on the way in (RFC 7915). The
 * prefix sums to zero, so checksums of TCP and UDP stay as they are.
 *
 * IPv6 frames shrink in place: the link header moves forward. IPv4 frames grow into a slot of their
 * own, those of devices into the room before them. Fragments cross with their fragment header, or
 * their flags and offset; ICMP errors are in nat64-error.ts.
 */
import {
  BATCH_COUNT_MAX,
  FLOW6_SERVICE_LOW,
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  FRAME_TIME_MS,
  FRAME_WIRE_BYTES,
  LINK_NULL,
  LINK_RAW,
  LINK_SLL2,
  PORT_BYTES,
  PORT_LINK,
  SIDE_SERVICE,
  VNET_BYTES,
  VNET_CHECKSUM_START,
  VNET_FLAG_PARTIAL,
  VNET_FLAGS,
  VNET_GSO_NONE,
  VNET_GSO_TCP4,
  VNET_GSO_TCP6,
  VNET_GSO_TYPE,
  VNET_HEADER_BYTES,
} from "../abi";
import { deltaOf, fold, sumOf, sumOf16, updated } from "../checksum";
import { findByIndex, flowTable } from "../flow/table";
import { findFragment } from "../fragment";
import { ports, reserve } from "../memory";
import {
  FRAGMENT_NONE,
  indexOf,
  PACKET_FAST,
  PACKET_FLOW,
  PACKET_LATER,
  Packet,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../packet";
import {
  IPV4_BYTES_MIN,
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
} from "../wire/ipv4";
import { extensionBytesOf, IPV6_BYTES, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "../wire/ipv6";
import { totalBytesOf } from "../wire/length";
import { ICMP_CHECKSUM, portPairOf, setTuple, UDP_CHECKSUM } from "../wire/transport";
import { isOfDevice } from "../wire/vnet";

/** 64:ff9b::/96 as its first two words are loaded; the third is zero. */
const PREFIX: u64 = 0x000000009bff6400;
const SLOT_BYTES: u32 = 9216;
const TYPE_IPV4: u16 = 0x0008;
const TYPE_IPV6: u16 = 0xdd86;
const FAMILY_IPV4: u32 = 2;
const FAMILY_IPV6: u32 = 30;
/** RFC 7915 section 5.1: packets up to this size may be fragmented on the way. */
const FRAGMENTABLE_BYTES_MAX: u32 = 1260;
const DO_NOT_FRAGMENT_BE: u32 = 0x0040;
const MORE_FRAGMENTS: u32 = 0x2000;
const OFFSET_MASK: u32 = 0x1fff;
/** Next header of a fragment header, and its length. */
const FRAGMENT: u8 = 44;
export const FRAGMENT_BYTES: u32 = 8;

let slots: usize = 0;
/** Bytes that a frame has gained since `takeGrown` was asked last. */
let grown: u32 = 0;
const crossedPacket: usize = memory.data(64, 64);
const crossedEnds: usize = memory.data(32, 64);

export function reserveCrossings(isUsed: bool): void {
  slots = isUsed ? reserve(<u64>BATCH_COUNT_MAX * <u64>SLOT_BYTES) : 0;
}

/** True when the 16 bytes at `address` are an IPv4 address in 64:ff9b::/96. */
export function isEmbedded(address: usize): bool {
  return load<u64>(address) == PREFIX && load<u32>(address, 8) == 0;
}

/** True when packets of this IPv6 flow are IPv4 on the service side. */
export function crosses(record: usize): bool {
  const low = record + FLOW6_SERVICE_LOW;
  return isEmbedded(low) && isEmbedded(low + 16);
}

/** The tuple of a packet in the other family, or 0 when it has none. */
export function crossedTuple(tuple: Packet): usize {
  const other = changetype<Packet>(crossedPacket);
  const isIpv6 = tuple.isIpv6 != 0;
  const source = <usize>tuple.sourceAddress;
  const destination = <usize>tuple.destinationAddress;
  if (isIpv6 && !(isEmbedded(source) && isEmbedded(destination))) return 0;
  const protocolZone = <u32>(tuple.rest >> 32);
  const protocol = crossedProtocol(<u8>protocolZone);
  if (protocol == 0) return 0;
  other.isIpv6 = u8(!isIpv6);
  other.protocol = protocol;
  other.sourceAddress = <u32>crossedEnds;
  other.destinationAddress = <u32>crossedEnds + 16;
  if (isIpv6) {
    store<u32>(crossedEnds, load<u32>(source, 12));
    store<u32>(crossedEnds, load<u32>(destination, 12), 16);
  } else {
    embed(crossedEnds, load<u32>(source));
    embed(crossedEnds + 16, load<u32>(destination));
  }
  setTuple(other, portPairOf(tuple), (protocolZone & 0xffffff00) | <u32>protocol);
  return crossedPacket;
}

export function crossedProtocol(protocol: u8): u8 {
  if (protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP) return protocol;
  if (protocol == PROTOCOL_ICMP) return PROTOCOL_ICMPV6;
  return protocol == PROTOCOL_ICMPV6 ? PROTOCOL_ICMP : 0;
}

/** Writes an IPv4 address with the prefix. */
function embed(to: usize, address: u32): void {
  store<u64>(to, PREFIX);
  store<u64>(to, (<u64>address) << 32, 8);
}

/**
 * Makes the IPv4 packet an IPv6 one when it answers a flow that crosses; false when it does not, and
 * nothing has happened.
 */
export function crossIn(descriptor: usize, packet: Packet): bool {
  if (packet.isIpv6 || slots == 0 || flowTable(1).flowCount == 0) return false;
  const tuple = crossedTuple(packet);
  if (tuple == 0) return false;
  const other = changetype<Packet>(tuple);
  // What is left of a number of 32 bits that began as one of 16.
  other.fragmentId = packet.fragmentId << 16;
  if (packet.kind == PACKET_LATER) {
    if (findFragment(other, load<u32>(descriptor, FRAME_TIME_MS)) == 0) return false;
  } else if (findByIndex(flowTable(1), other, SIDE_SERVICE) == 0 || !canSum(packet)) {
    return false;
  }
  const network = growInto(descriptor, packet);
  if (network == 0) return false;
  packet.addresses = other.addresses;
  packet.rest = other.rest;
  packet.hash = other.hash;
  packet.swapped = other.swapped;
  packet.fragmentId = other.fragmentId;
  packet.protocol = other.protocol;
  if (packet.kind == PACKET_FAST) packet.kind = PACKET_FLOW;
  movedTo(packet, network, network + <usize>headerBytesFor(packet));
  if (packet.protocol == PROTOCOL_ICMPV6)
    turnIcmp(packet, packet.sourceAddress, packet.destinationAddress);
  else if (packet.protocol == PROTOCOL_UDP) sumDatagram(packet);
  return true;
}

/** Bytes of the IPv6 headers that a packet gets. */
function headerBytesFor(packet: Packet): u32 {
  return packet.fragment == FRAGMENT_NONE ? IPV6_BYTES : IPV6_BYTES + FRAGMENT_BYTES;
}

/** Writes the packet as one of IPv6 into a slot; returns where its header is, 0 without room. */
function growInto(descriptor: usize, packet: Packet): usize {
  const headerBytes = packet.transport - packet.network;
  const enlarged = headerBytesFor(packet);
  const payload = totalBytesOf(packet) - headerBytes + enlarged - IPV6_BYTES;
  const word = <u32>bswap<u16>(load<u16>(packet.network, IPV4_FRAGMENT));
  const network = enlarge(descriptor, packet, packet.transport, enlarged - headerBytes);
  if (network == 0) return 0;
  const protocol = crossedProtocol(packet.protocol);
  writeIpv6(
    network,
    packet.network,
    packet.fragment == FRAGMENT_NONE ? protocol : FRAGMENT,
    payload,
  );
  if (packet.fragment != FRAGMENT_NONE) {
    const at = network + <usize>IPV6_BYTES;
    const more = (word & MORE_FRAGMENTS) != 0;
    store<u16>(at, protocol);
    store<u16>(at, bswap<u16>(<u16>(((word & OFFSET_MASK) << 3) | u32(more))), 2);
    store<u32>(at, packet.fragmentId << 16, 4);
  }
  return network;
}

/**
 * Makes room for `more` bytes between the frame's link header and `kept`, from where on it stays what
 * it is: in a slot of its own, or, with a device's frame, before it. Returns where the network header
 * begins now, 0 without room; what was there may only be read before anything is written.
 */
export function enlarge(descriptor: usize, packet: Packet, kept: usize, more: u32): usize {
  const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const linkBytes = packet.network - <u32>frame;
  const captured = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const bytes = captured + more;
  const isDevice = isOfDevice(descriptor);
  if (!isDevice && bytes > SLOT_BYTES) return 0;
  const to = isDevice ? frame - <usize>more : slots + <usize>(indexOf(packet) * SLOT_BYTES);
  if (isDevice) moveDeviceHeader(frame, to, <i32>more, true);
  memory.copy(to, frame, linkBytes);
  nameFamily(to, linkBytes, descriptor, true);
  if (!isDevice) {
    memory.copy(to + (kept - frame) + <usize>more, kept, frame + <usize>captured - kept);
  }
  store<u32>(descriptor, <u32>to, FRAME_ADDRESS);
  store<u32>(descriptor, bytes, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, load<u32>(descriptor, FRAME_WIRE_BYTES) + more, FRAME_WIRE_BYTES);
  grown = more;
  return to + <usize>linkBytes;
}

/** Bytes that the frame at hand has gained. */
export function takeGrown(): u32 {
  const bytes = grown;
  grown = 0;
  return bytes;
}

/** Moves a frame's virtio_net_hdr; its headers get longer by `more`. */
function moveDeviceHeader(frame: usize, to: usize, more: i32, isIpv6: bool): void {
  const header = to - VNET_BYTES;
  memory.copy(header, frame - VNET_BYTES, VNET_BYTES);
  if (load<u8>(header, VNET_FLAGS) & VNET_FLAG_PARTIAL) {
    const start = <i32>load<u16>(header, VNET_CHECKSUM_START);
    store<u16>(header, <u16>(start + more), VNET_CHECKSUM_START);
  }
  const type = load<u8>(header, VNET_GSO_TYPE);
  if (type == VNET_GSO_NONE) return;
  store<u16>(header, <u16>(<i32>load<u16>(header, VNET_HEADER_BYTES) + more), VNET_HEADER_BYTES);
  if (type == VNET_GSO_TCP4 || type == VNET_GSO_TCP6) {
    store<u8>(header, <u8>(isIpv6 ? VNET_GSO_TCP6 : VNET_GSO_TCP4), VNET_GSO_TYPE);
  }
}

/** The packet is one of IPv6 from here on. */
export function movedTo(packet: Packet, network: usize, transport: usize): void {
  packet.isIpv6 = 1;
  packet.candidate = 0;
  packet.network = <u32>network;
  packet.transport = <u32>transport;
  packet.sourceAddress = <u32>network + IPV6_SOURCE;
  packet.destinationAddress = <u32>network + IPV6_SOURCE + 16;
}

/** A datagram without a checksum needs one in IPv6, so it has to be there and captured whole. */
function canSum(packet: Packet): bool {
  if (packet.protocol != PROTOCOL_UDP || packet.transportBytes < UDP_CHECKSUM + 2) return true;
  if (load<u16>(packet.transport, UDP_CHECKSUM) != 0) return true;
  const isWhole =
    packet.transportBytes == totalBytesOf(packet) - (packet.transport - packet.network);
  return isWhole && packet.fragment == FRAGMENT_NONE;
}

function sumDatagram(packet: Packet): void {
  const at = <usize>packet.transport;
  if (packet.transportBytes < UDP_CHECKSUM + 2 || load<u16>(at, UDP_CHECKSUM) != 0) return;
  const sum = pseudoSum(
    packet.sourceAddress,
    packet.destinationAddress,
    packet.transportBytes,
    PROTOCOL_UDP,
  );
  const checksum = ~fold(sum + sumOf(at, packet.transportBytes)) & 0xffff;
  store<u16>(at, <u16>(checksum == 0 ? 0xffff : checksum), UDP_CHECKSUM);
}

export function pseudoSum(source: usize, destination: usize, bytes: u32, protocol: u8): u64 {
  const length = <u64>bswap<u16>(<u16>bytes) + <u64>bswap<u16>(<u16>protocol);
  return sumOf16(source) + sumOf16(destination) + length;
}

/** Sets the link layer's name of what follows. */
function nameFamily(frame: usize, linkBytes: u32, descriptor: usize, isIpv6: bool): void {
  const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
  const link = load<u8>(port, PORT_LINK);
  if (link == LINK_RAW) return;
  if (link == LINK_NULL) return store<u32>(frame, isIpv6 ? FAMILY_IPV6 : FAMILY_IPV4);
  const at = link == LINK_SLL2 ? frame : frame + <usize>(linkBytes - 2);
  store<u16>(at, isIpv6 ? TYPE_IPV6 : TYPE_IPV4);
}

/** An IPv6 header for the IPv4 header at `before`, with `payload` bytes of `protocol` behind
 * it. Both may overlap. */
export function writeIpv6(at: usize, before: usize, protocol: u8, payload: u32): void {
  const trafficClass = <u32>load<u8>(before, 1);
  const hopLimit = load<u8>(before, 8);
  const source = load<u32>(before, IPV4_SOURCE);
  const destination = load<u32>(before, IPV4_SOURCE + 4);
  store<u32>(at, bswap<u32>(0x60000000 | (trafficClass << 20)));
  store<u16>(at, bswap<u16>(<u16>payload), IPV6_PAYLOAD_LENGTH);
  store<u8>(at, protocol, 6);
  store<u8>(at, hopLimit, 7);
  embed(at + <usize>IPV6_SOURCE, source);
  embed(at + <usize>IPV6_SOURCE + 16, destination);
}

/** What an IPv6 header becomes in IPv4; read before anything is written over it. */
@unmanaged
export class Shrunk {
  trafficClass: u8;
  hopLimit: u8;
  protocol: u8;
  source: u32;
  destination: u32;
  /** Of the whole packet. */
  bytes: u32;
  /** Identification, then flags and offset, as they are stored. */
  fragment: u32;
}

/** Reads the headers of an IPv6 packet, which leaves as number `number` if it is no fragment. */
export function shrink(to: Shrunk, packet: Packet, number: u32): void {
  const network = <usize>packet.network;
  const bytes = totalBytesOf(packet) - (packet.transport - packet.network) + IPV4_BYTES_MIN;
  to.trafficClass = <u8>(bswap<u16>(load<u16>(network)) >> 4);
  to.hopLimit = load<u8>(network, 7);
  to.protocol = crossedProtocol(packet.protocol);
  to.source = load<u32>(packet.sourceAddress, 12);
  to.destination = load<u32>(packet.destinationAddress, 12);
  to.bytes = bytes;
  const isWhole = packet.fragment == FRAGMENT_NONE;
  if (!isWhole) to.fragment = fragmentOf(network);
  else if (bytes > FRAGMENTABLE_BYTES_MAX) to.fragment = DO_NOT_FRAGMENT_BE << 16;
  else to.fragment = bswap<u16>(<u16>number);
}

/** Identification, flags and offset of the fragment header that the parser has seen. */
function fragmentOf(network: usize): u32 {
  let header = load<u8>(network, 6);
  let at = network + <usize>IPV6_BYTES;
  while (header != FRAGMENT) {
    const bytes = extensionBytesOf(header, at);
    header = load<u8>(at);
    at += <usize>bytes;
  }
  const word = <u32>bswap<u16>(load<u16>(at, 2));
  const flags = (word >> 3) | (word & 1 ? MORE_FRAGMENTS : 0);
  return <u32>load<u16>(at, 6) | ((<u32>bswap<u16>(<u16>flags)) << 16);
}

/** Writes what was read as an IPv4 header. */
export function writeIpv4(at: usize, from: Shrunk): void {
  store<u8>(at, 0x45);
  store<u8>(at, from.trafficClass, 1);
  store<u16>(at, bswap<u16>(<u16>from.bytes), IPV4_TOTAL_LENGTH);
  store<u32>(at, from.fragment, 4);
  store<u8>(at, from.hopLimit, 8);
  store<u8>(at, from.protocol, 9);
  store<u16>(at, 0, IPV4_CHECKSUM);
  store<u32>(at, from.source, IPV4_SOURCE);
  store<u32>(at, from.destination, IPV4_SOURCE + 4);
  store<u16>(at, <u16>(~fold(sumOf(at, IPV4_BYTES_MIN)) & 0xffff), IPV4_CHECKSUM);
}

const shrunkOuter: usize = memory.data(32, 8);

/**
 * Makes the IPv6 packet, which already has the tuple of its service side, an IPv4 one in place.
 * `number` tells packets apart that may be fragmented.
 */
export function crossOut(descriptor: usize, packet: Packet, number: u32): void {
  const header = changetype<Shrunk>(shrunkOuter);
  shrink(header, packet, number);
  if (packet.protocol == PROTOCOL_ICMPV6)
    turnIcmp(packet, packet.sourceAddress, packet.destinationAddress);
  const less = packet.transport - packet.network - IPV4_BYTES_MIN;
  writeIpv4(reduce(descriptor, packet, <usize>packet.transport - IPV4_BYTES_MIN, less), header);
}

/** Takes `less` bytes out before `kept`: the link header moves there. Returns `kept`. */
export function reduce(descriptor: usize, packet: Packet, kept: usize, less: u32): usize {
  const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const linkBytes = packet.network - <u32>frame;
  const start = kept - <usize>linkBytes;
  if (isOfDevice(descriptor)) moveDeviceHeader(frame, start, -(<i32>less), false);
  memory.copy(start, frame, linkBytes);
  nameFamily(start, linkBytes, descriptor, false);
  store<u32>(descriptor, <u32>start, FRAME_ADDRESS);
  store<u32>(descriptor, load<u32>(descriptor, FRAME_CAPTURED_BYTES) - less, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, load<u32>(descriptor, FRAME_WIRE_BYTES) - less, FRAME_WIRE_BYTES);
  return kept;
}

/**
 * Gives a query of ICMP the other family's type (RFC 7915 sections 4.2 and 5.2). Its checksum covers
 * addresses only in ICMPv6; `source` and `destination` are those.
 */
export function turnIcmp(packet: Packet, source: usize, destination: usize): void {
  const at = <usize>packet.transport;
  const type = <u32>load<u8>(at);
  const headerBytes = packet.transport - packet.network;
  const pseudo = pseudoSum(
    source,
    destination,
    totalBytesOf(packet) - headerBytes,
    PROTOCOL_ICMPV6,
  );
  const fromV6 = type >= 128;
  const turned = fromV6 ? (type == 128 ? 8 : 0) : type == 8 ? 128 : 129;
  store<u8>(at, <u8>turned);
  const before = <u64>type + (fromV6 ? pseudo : 0);
  const after = <u64>turned + (fromV6 ? 0 : pseudo);
  const delta = deltaOf(before, after);
  store<u16>(at, <u16>updated(load<u16>(at, ICMP_CHECKSUM), delta), ICMP_CHECKSUM);
}
