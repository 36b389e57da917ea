/**
 * IPv4 (RFC 791). `parseIpv4` checks every length once; what comes after may trust the packet.
 * A total length of 0 is what offloads leave in captured super-packets: the captured length counts.
 */
import { VERDICT_DROP_MALFORMED, VERDICT_DROP_TRUNCATED } from "../abi";
import { plainBytesMax } from "../memory";
import {
  FRAGMENT_FIRST,
  FRAGMENT_LATER,
  FRAGMENT_NONE,
  PACKET_FAST,
  Packet,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../packet";
import { decide, isTcpHeaderSound, parseTransport, setTuple4, tcpFlags } from "./transport";

export const IPV4_BYTES_MIN: u32 = 20;
export const IPV4_TOTAL_LENGTH: u32 = 2;
export const IPV4_IDENTIFICATION: u32 = 4;
export const IPV4_FRAGMENT: u32 = 6;
export const IPV4_PROTOCOL: u32 = 9;
export const IPV4_CHECKSUM: u32 = 10;
export const IPV4_SOURCE: u32 = 12;
export const IPV4_DESTINATION: u32 = 16;

/** More-fragments flag and offset, as a little-endian load sees them. */
const FRAGMENT_MASK: u32 = 0xff3f;
const FRAGMENT_OFFSET_MASK: u32 = 0xff1f;

/** Parses the IPv4 packet at `ip`, of which `bytes` are captured, in zone `zone`. */
export function parseIpv4(packet: Packet, ip: usize, bytes: u32, zone: u32): void {
  packet.isIpv6 = 0;
  packet.flags = 0;
  packet.candidate = 0;
  packet.quoted = 0;
  if (bytes < IPV4_BYTES_MIN) return decide(packet, VERDICT_DROP_TRUNCATED);
  const first = load<u8>(ip);
  const headerBytes = (<u32>(first & 15)) << 2;
  let totalBytes = <u32>bswap<u16>(load<u16>(ip, IPV4_TOTAL_LENGTH));
  if (totalBytes == 0) totalBytes = bytes;
  const isMalformed =
    i32(first >> 4 != 4) | i32(headerBytes < IPV4_BYTES_MIN) | i32(totalBytes < headerBytes);
  if (isMalformed) return decide(packet, VERDICT_DROP_MALFORMED);
  if (bytes < headerBytes) return decide(packet, VERDICT_DROP_TRUNCATED);

  const transport = ip + <usize>headerBytes;
  const protocol = load<u8>(ip, IPV4_PROTOCOL);
  packet.network = <u32>ip;
  packet.transport = <u32>transport;
  packet.sourceAddress = <u32>ip + IPV4_SOURCE;
  packet.destinationAddress = <u32>ip + IPV4_DESTINATION;
  packet.protocol = protocol;
  const present = min<u32>(bytes, totalBytes) - headerBytes;
  const fragment = <u32>load<u16>(ip, IPV4_FRAGMENT) & FRAGMENT_MASK;
  const isTcp = protocol == PROTOCOL_TCP;
  const isPlain =
    i32(fragment == 0) &
    i32(totalBytes <= plainBytesMax) &
    (i32(isTcp) | i32(protocol == PROTOCOL_UDP)) &
    i32(present >= select<u32>(20, 8, isTcp)) &
    (i32(!isTcp) | i32(isTcpHeaderSound(transport, totalBytes - headerBytes)));
  if (isPlain) {
    packet.kind = PACKET_FAST;
    packet.fragment = FRAGMENT_NONE;
    packet.transportBytes = present;
    packet.flags = select<u8>(tcpFlags(transport), 0, isTcp);
    const protocolZone = <u32>protocol | (zone << 8);
    return setTuple4(packet, load<u64>(ip, IPV4_SOURCE), load<u32>(transport), protocolZone);
  }
  packet.fragment = FRAGMENT_NONE;
  if (fragment) {
    packet.fragment = fragment & FRAGMENT_OFFSET_MASK ? FRAGMENT_LATER : FRAGMENT_FIRST;
    packet.fragmentId = load<u16>(ip, IPV4_IDENTIFICATION);
  }
  parseTransport(packet, present, totalBytes - headerBytes, zone);
}
