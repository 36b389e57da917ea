/**
 * TCP segments (RFC 9293) beyond their tuple: how much they carry, and words that change under the
 * checksum. Numbers of 32 bits lie on even offsets of the segment, so sums need no swapping.
 */
import { fold } from "../checksum";
import { Packet } from "../packet";
import { IPV4_TOTAL_LENGTH } from "./ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH } from "./ipv6";
import { TCP_CHECKSUM } from "./transport";

export const TCP_BYTES_MIN: u32 = 20;
export const TCP_SEQUENCE: u32 = 4;
export const TCP_ACKNOWLEDGEMENT: u32 = 8;
export const TCP_DATA_OFFSET: u32 = 12;
export const TCP_FLAGS: u32 = 13;
export const TCP_WINDOW: u32 = 14;

/** Length of the TCP header as it claims, options included. */
export function headerBytesOf(packet: Packet): u32 {
  return (<u32>(load<u8>(packet.transport, TCP_DATA_OFFSET) >> 4)) << 2;
}

/** Bytes that the segment carries, as its IP header counts them, captured or not. */
export function payloadBytesOf(packet: Packet): u32 {
  const network = <usize>packet.network;
  const before = packet.transport - packet.network;
  const total = packet.isIpv6
    ? IPV6_BYTES + <u32>bswap<u16>(load<u16>(network, IPV6_PAYLOAD_LENGTH))
    : <u32>bswap<u16>(load<u16>(network, IPV4_TOTAL_LENGTH));
  // Super-packets have no length: what is present stands for it.
  const segment = total > before ? total - before : packet.transportBytes;
  const header = headerBytesOf(packet);
  return segment > header ? segment - header : 0;
}

export function loadBe32(at: usize): u32 {
  return bswap<u32>(load<u32>(at));
}

/**
 * Replaces a 32-bit number of a segment; the checksum follows (RFC 1624 equation 3), unless it is
 * partial: then it holds the sum of the pseudo-header alone.
 */
export function replaceWord(packet: Packet, offset: u32, value: u32): void {
  const segment = <usize>packet.transport;
  const at = segment + <usize>offset;
  const before = load<u32>(at);
  const after = bswap<u32>(value);
  store<u32>(at, after);
  if (packet.partial != 0 || packet.transportBytes < TCP_CHECKSUM + 2) return;
  const sum = <u64>(~(<u32>load<u16>(segment, TCP_CHECKSUM)) & 0xffff) + <u64>~before + <u64>after;
  store<u16>(segment, <u16>(~fold(sum) & 0xffff), TCP_CHECKSUM);
}
