/**
 * Packet: what the parser found out about one frame of the batch, kept until the frame is
 * rewritten. One per descriptor, one cache line each, so a batch of 128 fits the first cache.
 *
 * A Packet begins with a Tuple. Addresses named `…Address` point to bytes of the frame; the
 * source and destination may lie outside the IP header (routing header, home address option),
 * because that is what transport checksums cover.
 */
import { BATCH_COUNT_MAX } from "./abi";
import { sumOf16 } from "./checksum";

/** A tuple in canonical order: the smaller endpoint first, whoever sent. */
@unmanaged
export class Tuple {
  /** IPv4: low address, high address. IPv6: keyed digest of both. */
  addresses: u64;
  /** Low port, high port, protocol, zone (KEY_* from KEY_LOW_PORT_BE on). */
  rest: u64;
  hash: u64;
}

@unmanaged
export class Packet extends Tuple {
  /** PACKET_*: how the frame goes on. The next four are stored at once by parsePlain. */
  kind: u8;
  /** 1 when the source is the larger endpoint of the tuple. */
  swapped: u8;
  protocol: u8;
  /** FIN 1, SYN 2, RST 4, ACK 8; 0 unless TCP and captured. */
  flags: u8;
  /** Bytes of the transport segment present, 0 for later fragments. */
  transportBytes: u32;
  /** Network header. */
  network: u32;
  /** Transport header. */
  transport: u32;
  /** Source and destination address as transport checksums see them. */
  sourceAddress: u32;
  destinationAddress: u32;
  /** Record that probably holds the flow; 0 = none seen. */
  candidate: u32;
  /** Of the quoted packet in an ICMP error; else 0. */
  quoted: u32;
  /** Fragment identification, network order, when FRAGMENT_FIRST or FRAGMENT_LATER. */
  fragmentId: u32;
  /** FRAGMENT_*. The next four, too, are stored at once. */
  fragment: u8;
  isIpv6: u8;
  /** Verdict of PACKET_DECIDED. */
  verdict: u8;
  /** Offset in the transport header of a checksum that the sender left to the device; else 0. */
  partial: u8;
}
if (offsetof<Packet>() > 64) ERROR("Packet does not fit one cache line");

export const PACKET_BYTES: usize = 64;

export const PACKET_DECIDED: u8 = 0; //  the parser gave the verdict
export const PACKET_FAST: u8 = 1; //     IPv4, TCP or UDP, whole, checksum captured
export const PACKET_FLOW: u8 = 2; //     anything else that its own tuple names
export const PACKET_ERROR: u8 = 3; //    ICMP error: the quoted packet's tuple names the flow
export const PACKET_LATER: u8 = 4; //    later fragment: its datagram names the flow

export const FRAGMENT_NONE: u8 = 0;
export const FRAGMENT_FIRST: u8 = 1;
export const FRAGMENT_LATER: u8 = 2;

export const TCP_FIN: u8 = 1;
export const TCP_SYN: u8 = 2;
export const TCP_RST: u8 = 4;
export const TCP_ACK: u8 = 8;

export const PROTOCOL_ICMP: u8 = 1;
export const PROTOCOL_TCP: u8 = 6;
export const PROTOCOL_UDP: u8 = 17;
export const PROTOCOL_DCCP: u8 = 33;
export const PROTOCOL_ICMPV6: u8 = 58;
export const PROTOCOL_UDPLITE: u8 = 136;

const packets: usize = memory.data(64 * <i32>BATCH_COUNT_MAX, 64);
/** The packet quoted in an ICMP error; one at a time is enough. */
const quotedPacket: usize = memory.data(64, 64);

export function packetAt(index: u32): Packet {
  return changetype<Packet>(packets + <usize>index * PACKET_BYTES);
}

/** Index of the descriptor that a packet belongs to. */
export function indexOf(packet: Packet): u32 {
  return <u32>((changetype<usize>(packet) - packets) / PACKET_BYTES);
}

export function quotedScratch(): Packet {
  return changetype<Packet>(quotedPacket);
}

/** Sum of both addresses as transport checksums see them, unfolded. */
export function sumAddresses(packet: Packet): u64 {
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  if (packet.isIpv6) return sumOf16(source) + sumOf16(destination);
  return <u64>load<u32>(source) + <u64>load<u32>(destination);
}
