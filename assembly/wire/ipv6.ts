/**
 * IPv6 (RFC 8200) with its extension headers, walked at most EXTENSION_COUNT_MAX deep.
 *
 * Transport checksums cover the final destination (RFC 8200 section 8.1) and the home address
 * (RFC 6275 section 11.3.1), so that is what the tuple holds and what is rewritten: the last
 * address of an active routing header, the address of a home address option.
 * A payload length of 0 is a jumbogram (RFC 2675) or an offloaded super-packet: the captured
 * length counts.
 */
import { VERDICT_DROP_MALFORMED, VERDICT_DROP_TRUNCATED } from "../abi";
import { FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, Packet } from "../packet";
import { decide, parseTransport } from "./transport";

export const IPV6_BYTES: u32 = 40;
export const IPV6_PAYLOAD_LENGTH: u32 = 4;
const IPV6_NEXT_HEADER: u32 = 6;
export const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;

const EXTENSION_COUNT_MAX: u32 = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const OPTION_PAD1: u8 = 0;
const OPTION_HOME_ADDRESS: u8 = 201;

function isExtension(header: u8): bool {
  return (
    header == HOP_BY_HOP ||
    header == ROUTING ||
    header == FRAGMENT ||
    header == AUTHENTICATION ||
    header == DESTINATION_OPTIONS ||
    header == MOBILITY
  );
}

/** Parses the IPv6 packet at `ip`, of which `bytes` are captured, in zone `zone`. */
export function parseIpv6(packet: Packet, ip: usize, bytes: u32, zone: u32): void {
  packet.isIpv6 = 1;
  packet.flags = 0;
  packet.candidate = 0;
  packet.quoted = 0;
  packet.fragment = FRAGMENT_NONE;
  if (bytes < IPV6_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (load<u8>(ip) >> 4 != 6) return decide(packet, VERDICT_DROP_MALFORMED);
  const payloadBytes = <u32>bswap<u16>(load<u16>(ip, IPV6_PAYLOAD_LENGTH));
  const total = payloadBytes == 0 ? bytes : payloadBytes + IPV6_BYTES;
  const present = min<u32>(bytes, total);
  packet.network = <u32>ip;
  packet.sourceAddress = <u32>ip + IPV6_SOURCE;
  packet.destinationAddress = <u32>ip + IPV6_DESTINATION;

  let header = load<u8>(ip, IPV6_NEXT_HEADER);
  let offset = IPV6_BYTES;
  for (let depth: u32 = 0; isExtension(header) && packet.fragment != FRAGMENT_LATER; depth++) {
    if (depth == EXTENSION_COUNT_MAX) return decide(packet, VERDICT_DROP_MALFORMED);
    const extensionBytes = offset + 8 <= present ? extensionBytesOf(header, ip + <usize>offset) : 8;
    if (offset + extensionBytes > total) return decide(packet, VERDICT_DROP_MALFORMED);
    if (offset + extensionBytes > present) return decide(packet, VERDICT_DROP_TRUNCATED);
    visit(packet, header, ip + <usize>offset, extensionBytes);
    header = load<u8>(ip + <usize>offset);
    offset += extensionBytes;
  }
  packet.protocol = header;
  packet.transport = <u32>ip + offset;
  parseTransport(packet, present - offset, total - offset, zone);
}

/** Length of the extension header at `at`, of which at least 8 bytes are present. */
export function extensionBytesOf(header: u8, at: usize): u32 {
  if (header == FRAGMENT) return 8;
  const units = <u32>load<u8>(at, 1);
  return header == AUTHENTICATION ? (units + 2) << 2 : (units + 1) << 3;
}

function visit(packet: Packet, header: u8, at: usize, bytes: u32): void {
  if (header == FRAGMENT) {
    const offsetAndMore = <u32>load<u16>(at, 2);
    // 0xf8ff is the 13-bit offset as a little-endian load sees it; an atomic fragment (RFC 6946)
    // has neither offset nor more-fragments and is treated as a whole packet.
    if (offsetAndMore & 0xf8ff) packet.fragment = FRAGMENT_LATER;
    else if (offsetAndMore & 0x0100) packet.fragment = FRAGMENT_FIRST;
    packet.fragmentId = load<u32>(at, 4);
  } else if (header == ROUTING) {
    const type = load<u8>(at, 2);
    const isActive = (type == 0 || type == 2) && load<u8>(at, 3) > 0 && bytes >= 24;
    if (isActive) packet.destinationAddress = <u32>at + bytes - 16;
  } else if (header == DESTINATION_OPTIONS) {
    const home = homeAddress(at, bytes);
    if (home) packet.sourceAddress = <u32>home;
  }
}

/** The address in a home address option of the destination options header, or 0. */
function homeAddress(at: usize, bytes: u32): usize {
  let offset: u32 = 2;
  while (offset + 2 <= bytes) {
    const type = load<u8>(at + <usize>offset);
    if (type == OPTION_PAD1) {
      offset++;
      continue;
    }
    const length = <u32>load<u8>(at + <usize>offset, 1);
    if (offset + 2 + length > bytes) return 0;
    if (type == OPTION_HOME_ADDRESS && length == 16) return at + <usize>(offset + 2);
    offset += 2 + length;
  }
  return 0;
}
