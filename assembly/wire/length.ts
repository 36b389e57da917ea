/**
 * Length of IP packets as their headers give it, not as far as they are captured. Headers of
 * captured super-packets give none: then what is present counts. A super-packet of a device is as
 * long as each of the packets that it will be cut into.
 */
import { VNET_BYTES, VNET_GSO_NONE, VNET_GSO_TYPE, VNET_SEGMENT_BYTES } from "../abi";
import { Packet, PROTOCOL_TCP } from "../packet";
import { IPV4_TOTAL_LENGTH } from "./ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH } from "./ipv6";

/** Bytes of the whole IP packet. */
export function ipBytesOf(packet: Packet): u32 {
  if (packet.partial) {
    const header = <usize>packet.network - VNET_BYTES;
    if (load<u8>(header, VNET_GSO_TYPE) != VNET_GSO_NONE) return segmentBytesOf(packet, header);
  }
  return totalBytesOf(packet);
}

/** The same, but of a super-packet all of it. */
export function totalBytesOf(packet: Packet): u32 {
  const network = <usize>packet.network;
  const present = packet.transport - packet.network + packet.transportBytes;
  if (packet.isIpv6) {
    const payload = <u32>bswap<u16>(load<u16>(network, IPV6_PAYLOAD_LENGTH));
    return payload == 0 ? present : payload + IPV6_BYTES;
  }
  const total = <u32>bswap<u16>(load<u16>(network, IPV4_TOTAL_LENGTH));
  return total == 0 ? present : total;
}

/** Bytes of each whole IP packet that a super-packet stands for. Only they have partial checksums. */
function segmentBytesOf(packet: Packet, header: usize): u32 {
  const isTcp = packet.protocol == PROTOCOL_TCP && packet.transportBytes > TCP_DATA_OFFSET;
  const transportBytes = isTcp
    ? (<u32>(load<u8>(packet.transport, TCP_DATA_OFFSET) >> 4)) << 2
    : UDP_BYTES;
  const headerBytes = packet.transport - packet.network + transportBytes;
  return headerBytes + load<u16>(header, VNET_SEGMENT_BYTES);
}

const TCP_DATA_OFFSET: u32 = 12;
const UDP_BYTES: u32 = 8;
