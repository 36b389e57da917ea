/**
 * The IP header of an answer that the engine makes itself: from the packet's destination back to its
 * source, IPv4 (RFC 791) or IPv6 (RFC 8200) as the packet is.
 */
import { fold, sumOf } from "./checksum";
import { FRAGMENT_LATER, Packet, sumAddresses } from "./packet";
import { IPV4_BYTES_MIN, IPV4_CHECKSUM, IPV4_SOURCE, IPV4_TOTAL_LENGTH } from "./wire/ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "./wire/ipv6";
import { isOfDevice, isUnverified } from "./wire/vnet";

const HOP_LIMIT: u8 = 64;
const DO_NOT_FRAGMENT_BE: u16 = 0x0040;
/** First octets of IPv4 addresses that are no single host's: this network, multicast and all above. */
const THIS_NETWORK: u32 = 0;
const MULTICAST: u32 = 224;
const MULTICAST6: u32 = 255;
/** What the sum of a header and its checksum comes to. */
const ALL_ONES: u32 = 0xffff;

/**
 * Whether a packet may be answered at all: it goes from one host to one host, and is no later fragment
 * (RFC 1122 section 3.2.2, RFC 4443 section 2.4, RFC 9293 section 3.10.7.1). One whose header is wrong
 * may have come from anybody (RFC 1122 section 3.2.1.2).
 */
export function isAnswerable(descriptor: usize, packet: Packet): bool {
  if (packet.fragment == FRAGMENT_LATER) return false;
  if (!packet.isIpv6 && isOfDevice(descriptor)) {
    if (fold(sumOf(packet.network, packet.transport - packet.network)) != ALL_ONES) return false;
  }
  return isHost(packet.sourceAddress, packet) && isHost(packet.destinationAddress, packet);
}

function isHost(address: usize, packet: Packet): bool {
  const first = <u32>load<u8>(address);
  if (!packet.isIpv6) return first != THIS_NETWORK && first < MULTICAST;
  return first != MULTICAST6 && v128.any_true(v128.load(address));
}

/**
 * Whether the transport checksum of a packet is wrong, as far as anybody can tell: a capture has recorded
 * many before a network card completed them.
 */
export function isCorrupt(descriptor: usize, packet: Packet): bool {
  if (!isOfDevice(descriptor) || !isUnverified(descriptor)) return false;
  return replyChecksum(packet.transport, packet, packet.protocol, packet.transportBytes) != 0;
}

/** Length of the header that `writeReply` writes. */
export function replyBytesOf(packet: Packet): u32 {
  return packet.isIpv6 ? IPV6_BYTES : IPV4_BYTES_MIN;
}

/** Writes the header before `payloadBytes` of `protocol`; `isWhole` forbids fragments of IPv4. */
export function writeReply(
  at: usize,
  packet: Packet,
  protocol: u8,
  payloadBytes: u32,
  isWhole: bool,
): void {
  if (packet.isIpv6) return writeIpv6(at, packet, protocol, payloadBytes);
  memory.fill(at, 0, IPV4_BYTES_MIN);
  store<u8>(at, 0x45);
  store<u16>(at, bswap<u16>(<u16>(IPV4_BYTES_MIN + payloadBytes)), IPV4_TOTAL_LENGTH);
  if (isWhole) store<u16>(at, DO_NOT_FRAGMENT_BE, 6);
  store<u8>(at, HOP_LIMIT, 8);
  store<u8>(at, protocol, 9);
  store<u32>(at, load<u32>(packet.destinationAddress), IPV4_SOURCE);
  store<u32>(at, load<u32>(packet.sourceAddress), IPV4_SOURCE + 4);
  store<u16>(at, <u16>(~fold(sumOf(at, IPV4_BYTES_MIN)) & 0xffff), IPV4_CHECKSUM);
}

function writeIpv6(at: usize, packet: Packet, protocol: u8, payloadBytes: u32): void {
  memory.fill(at, 0, IPV6_BYTES);
  store<u8>(at, 0x60);
  store<u16>(at, bswap<u16>(<u16>payloadBytes), IPV6_PAYLOAD_LENGTH);
  store<u8>(at, protocol, 6);
  store<u8>(at, HOP_LIMIT, 7);
  v128.store(at, v128.load(packet.destinationAddress), IPV6_SOURCE);
  v128.store(at, v128.load(packet.sourceAddress), IPV6_SOURCE + 16);
}

/** Checksum of what `protocol` carries back in `bytes` bytes at `at`: pseudo-header and all. */
export function replyChecksum(at: usize, packet: Packet, protocol: u8, bytes: u32): u16 {
  const pseudo = sumAddresses(packet) + <u64>bswap<u16>(protocol) + <u64>bswap<u16>(<u16>bytes);
  return <u16>(~fold(pseudo + sumOf(at, bytes)) & 0xffff);
}
