/**
 * Merging datagrams of one flow into a UDP super-packet (VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2).
 *
 * The kernel gives each segment the IP header of the first with its own length, checksum and
 * identification. So only atomic datagrams are merged (DF set: RFC 6864 section 4.1 lets their
 * identification be anything), without IP options or extension headers, with equal TTL and TOS.
 */
import {
  DEPARTURE_ADDRESS,
  DEPARTURE_DATAGRAMS,
  DEPARTURE_LENGTH,
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  VNET_BYTES,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAG_PARTIAL,
  VNET_FLAG_VALID,
  VNET_FLAGS,
  VNET_GSO_NONE,
  VNET_GSO_TYPE,
  VNET_GSO_UDP,
  VNET_HEADER_BYTES,
  VNET_SEGMENT_BYTES,
} from "./abi";
import { fold, sumOf } from "./checksum";
import { PROTOCOL_UDP } from "./packet";
import { IPV4_CHECKSUM, IPV4_PROTOCOL } from "./wire/ipv4";
import { UDP_CHECKSUM } from "./wire/transport";

const DATAGRAMS_MAX: u32 = 64; // UDP_MAX_SEGMENTS of the kernel
const PACKET_BYTES_MAX: u32 = 65535;
const UDP_BYTES: u32 = 8;
const UDP_LENGTH: u32 = 4;
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
const IPV6_NEXT: u32 = 6;
const DONT_FRAGMENT: u32 = 0x0040; // of the fragment field, as a little-endian load sees it

/**
 * Adds the frame of a descriptor to the departure of the frames before it, whose flow it belongs to;
 * false when the two cannot be one.
 */
export function mergeDatagram(departure: usize, descriptor: usize): bool {
  const first = <usize>load<u32>(departure, DEPARTURE_ADDRESS) + VNET_BYTES;
  const firstBytes = load<u32>(departure, DEPARTURE_LENGTH) - VNET_BYTES;
  const next = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const nextBytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const count = load<u32>(departure, DEPARTURE_DATAGRAMS);
  const ipBytes = load<u8>(first) >> 4 == 4 ? IPV4_BYTES : IPV6_BYTES;
  const headerBytes = ipBytes + UDP_BYTES;
  if (!isMergeable(next, nextBytes, ipBytes) || !isAlike(first, next, ipBytes)) return false;
  if (count == 1 && !isMergeable(first, firstBytes, ipBytes)) return false;
  const segment =
    count == 1 ? firstBytes - headerBytes : <u32>load<u16>(first - VNET_BYTES, VNET_SEGMENT_BYTES);
  const payload = nextBytes - headerBytes;
  const isFull = firstBytes - headerBytes == segment * count;
  if (count == DATAGRAMS_MAX || !isFull || payload > segment) return false;
  if (firstBytes + payload > PACKET_BYTES_MAX) return false;
  memory.copy(first + <usize>firstBytes, next + <usize>headerBytes, payload);
  writeHeaders(first, firstBytes + payload, ipBytes, segment);
  store<u32>(departure, firstBytes + payload + VNET_BYTES, DEPARTURE_LENGTH);
  store<u32>(departure, count + 1, DEPARTURE_DATAGRAMS);
  return true;
}

/** A whole datagram with payload and a checksum that may be computed anew. */
function isMergeable(frame: usize, bytes: u32, ipBytes: u32): bool {
  const header = frame - VNET_BYTES;
  if (bytes <= ipBytes + UDP_BYTES || load<u8>(header, VNET_GSO_TYPE) != VNET_GSO_NONE)
    return false;
  const flags = <u32>load<u8>(header, VNET_FLAGS);
  if ((flags & (VNET_FLAG_PARTIAL | VNET_FLAG_VALID)) == 0) return false;
  const isIpv4 = ipBytes == IPV4_BYTES;
  if (load<u8>(frame + <usize>(isIpv4 ? IPV4_PROTOCOL : IPV6_NEXT)) != PROTOCOL_UDP) return false;
  if (isIpv4 && (load<u8>(frame) != 0x45 || load<u16>(frame, 6) != DONT_FRAGMENT)) return false;
  const lengthAt = isIpv4 ? 2 : 4;
  const length = <u32>bswap<u16>(load<u16>(frame + lengthAt)) + (isIpv4 ? 0 : IPV6_BYTES);
  if (length != bytes) return false;
  const udp = frame + <usize>ipBytes;
  if (load<u16>(udp, UDP_CHECKSUM) == 0) return false;
  return <u32>bswap<u16>(load<u16>(udp, UDP_LENGTH)) == bytes - ipBytes;
}

/** Equal in all that the segments will share: TOS or traffic class and label, TTL or hop limit. */
function isAlike(first: usize, next: usize, ipBytes: u32): bool {
  if (ipBytes == IPV4_BYTES) {
    return load<u16>(first) == load<u16>(next) && load<u8>(first, 8) == load<u8>(next, 8);
  }
  return load<u32>(first) == load<u32>(next) && load<u16>(first, 6) == load<u16>(next, 6);
}

/** Makes the packet of `bytes` bytes at `frame` a super-packet. */
function writeHeaders(frame: usize, bytes: u32, ipBytes: u32, segment: u32): void {
  const header = frame - VNET_BYTES;
  const udp = frame + <usize>ipBytes;
  store<u8>(header, VNET_FLAG_PARTIAL, VNET_FLAGS);
  store<u8>(header, VNET_GSO_UDP, VNET_GSO_TYPE);
  store<u16>(header, <u16>(ipBytes + UDP_BYTES), VNET_HEADER_BYTES);
  store<u16>(header, <u16>segment, VNET_SEGMENT_BYTES);
  store<u16>(header, <u16>ipBytes, VNET_CHECKSUM_START);
  store<u16>(header, <u16>UDP_CHECKSUM, VNET_CHECKSUM_OFFSET);
  const udpLength = bswap<u16>(<u16>(bytes - ipBytes));
  store<u16>(udp, udpLength, UDP_LENGTH);
  let sum = <u64>udpLength + ((<u64>PROTOCOL_UDP) << 8);
  if (ipBytes == IPV4_BYTES) {
    store<u16>(frame, bswap<u16>(<u16>bytes), 2);
    store<u16>(frame, 0, IPV4_CHECKSUM);
    store<u16>(frame, <u16>(fold(sumOf(frame, IPV4_BYTES)) ^ 0xffff), IPV4_CHECKSUM);
    sum += sumOf(frame + 12, 8);
  } else {
    store<u16>(frame, udpLength, 4);
    sum += sumOf(frame + 8, 32);
  }
  store<u16>(udp, <u16>fold(sum), UDP_CHECKSUM);
}
