/**
 * ICMP errors about flows that cross between IPv6 and IPv4 (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3):
 * type, code, MTU or pointer, and the quoted packet, become those of the other family. Between the
 * families every address has the prefix of NAT64, so that what comes in from IPv4 is an IPv6 error
 * about the flow's service side, and what goes out was one: icmp.ts does the rest.
 *
 * Checksums follow by what has changed. What stands behind a quoted packet (RFC 4884) becomes a part
 * of it. Errors that the other family has no word for do not cross.
 */
import { FRAME_ADDRESS, FRAME_CAPTURED_BYTES, SIDE_SERVICE } from "../abi";
import { deltaOf, sumOf, updated } from "../checksum";
import { findByIndex, flowTable } from "../flow/table";
import { FRAGMENT_NONE, Packet, PROTOCOL_ICMP, PROTOCOL_ICMPV6, quotedScratch } from "../packet";
import { IPV4_BYTES_MIN, IPV4_TOTAL_LENGTH } from "../wire/ipv4";
import { IPV6_BYTES } from "../wire/ipv6";
import { totalBytesOf } from "../wire/length";
import { ICMP_CHECKSUM, ICMP_QUOTE } from "../wire/transport";
import {
  crossedProtocol,
  crossedTuple,
  enlarge,
  movedTo,
  pseudoSum,
  reduce,
  Shrunk,
  shrink,
  turnIcmp,
  writeIpv4,
  writeIpv6,
} from "./nat64";

const HEADER_DIFFERENCE: u32 = IPV6_BYTES - IPV4_BYTES_MIN;
const MTU6_MIN: u32 = 1280;
const MTU_MIN: u32 = 68;
const MTU_MAX: u32 = 65535;
/** No type and code. */
const NONE: u32 = 0xffff;
/** No pointer. */
const NOWHERE: u32 = 0xff;
/** What of a quoted transport header may change when a query of ICMP turns. */
const TURNED_BYTES: u32 = 4;

/** Where the fields of one header are in the other (RFC 7915 figures 4 and 6), by offset. */
const pointers6: usize = memory.data<u8>([
  0, 1, 4, 4, 255, 255, 255, 255, 7, 6, 255, 255, 8, 8, 8, 8, 24, 24, 24, 24,
]);
const pointers4: usize = memory.data<u8>([
  0, 1, 255, 255, 2, 2, 9, 8, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 16,
  16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16,
]);
/** Sizes that paths have (RFC 1191 section 7), for routers that tell none. */
const plateaus: usize = memory.data<u16>([
  65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
]);

/** The message at `icmp` in the other family: type << 8 | code, then the word behind the checksum. */
let turned: u32 = 0;
let turnedWord: u32 = 0;

/** Whether the ICMPv6 error of a flow that crosses has a counterpart; it is kept for `crossErrorOut`. */
export function hasCounterpart(packet: Packet): bool {
  const icmp = <usize>packet.transport;
  const word = bswap<u32>(load<u32>(icmp, 4));
  turned = typeOf4(load<u8>(icmp), load<u8>(icmp, 1));
  turnedWord = 0;
  if (turned == 0x0304) {
    const mtu6 = max<u32>(word, MTU_MIN + HEADER_DIFFERENCE);
    turnedWord = min<u32>(mtu6 - HEADER_DIFFERENCE, MTU_MAX);
  }
  if (turned == 0x0c00) {
    const pointer = word < IPV6_BYTES ? <u32>load<u8>(pointers4 + <usize>word) : NOWHERE;
    if (pointer == NOWHERE) return false;
    turnedWord = pointer << 24;
  }
  return turned != NONE;
}

function typeOf4(type: u32, code: u32): u32 {
  if (type == 1) {
    if (code > 4) return NONE;
    return code == 1 ? 0x030a : code == 4 ? 0x0303 : 0x0301;
  }
  if (type == 2) return 0x0304;
  if (type == 3) return 0x0b00 | code;
  if (type != 4 || code > 1) return NONE;
  return code == 0 ? 0x0c00 : 0x0302;
}

/** The same for an ICMPv4 error about a packet of `quotedBytes`. */
function turnFrom4(icmp: usize, quotedBytes: u32): bool {
  const type = <u32>load<u8>(icmp);
  const code = <u32>load<u8>(icmp, 1);
  turned = typeOf6(type, code);
  turnedWord = 0;
  if (type == 3 && code == 2) turnedWord = 6;
  if (turned == 0x0200) {
    const told = <u32>bswap<u16>(load<u16>(icmp, 6));
    const mtu = told == 0 ? plateauBelow(quotedBytes) : told;
    turnedWord = max<u32>(MTU6_MIN, mtu + HEADER_DIFFERENCE);
  }
  if (turned == 0x0400 && type == 12) {
    const at = <u32>load<u8>(icmp, 4);
    turnedWord = at < IPV4_BYTES_MIN ? <u32>load<u8>(pointers6 + <usize>at) : NOWHERE;
    if (turnedWord == NOWHERE) return false;
  }
  return turned != NONE;
}

function typeOf6(type: u32, code: u32): u32 {
  if (type == 11) return 0x0300 | code;
  if (type == 12) return code == 0 || code == 2 ? 0x0400 : NONE;
  if (type != 3 || code > 15 || code == 14) return NONE;
  if (code == 2) return 0x0401;
  if (code == 3) return 0x0104;
  if (code == 4) return 0x0200;
  return code == 9 || code == 10 || code == 13 || code == 15 ? 0x0101 : 0x0100;
}

function plateauBelow(bytes: u32): u32 {
  let at = plateaus;
  while (<u32>load<u16>(at) >= bytes && <u32>load<u16>(at) > MTU_MIN) at += 2;
  return load<u16>(at);
}

/** Sum of an ICMP header without its checksum. */
function sumHead(icmp: usize): u64 {
  return <u64>load<u16>(icmp) + <u64>load<u32>(icmp, 4);
}

/** Writes type, code and word of the message, and a checksum. */
function putHead(icmp: usize, checksum: u32, word: u32): void {
  store<u16>(icmp, bswap<u16>(<u16>turned));
  store<u16>(icmp, <u16>checksum, ICMP_CHECKSUM);
  store<u32>(icmp, bswap<u32>(word), 4);
}

/**
 * Makes an ICMP error of IPv4, whose quote is parsed, one of IPv6 if it is about a flow that crosses;
 * false when it is not, and nothing has happened.
 */
export function crossErrorIn(descriptor: usize, packet: Packet): bool {
  const quoted = quotedScratch();
  if (packet.isIpv6 || quoted.fragment != FRAGMENT_NONE || flowTable(1).flowCount == 0)
    return false;
  const tuple = crossedTuple(quoted);
  if (tuple == 0) return false;
  if (findByIndex(flowTable(1), changetype<Packet>(tuple), SIDE_SERVICE) == 0) return false;
  const quotedBytes = <u32>bswap<u16>(load<u16>(quoted.network, IPV4_TOTAL_LENGTH));
  const icmp = <usize>packet.transport;
  if (!turnFrom4(icmp, quotedBytes)) return false;
  const headerBytes = packet.transport - packet.network;
  const quotedHeader = quoted.transport - quoted.network;
  const more = IPV6_BYTES - headerBytes + IPV6_BYTES - quotedHeader;
  const checksum = <u32>load<u16>(icmp, ICMP_CHECKSUM);
  const turning = turningBytes(descriptor, quoted);
  const before = sumHead(icmp) + sumOf(quoted.network, quotedHeader + turning);
  const messageBytes = totalBytesOf(packet) - headerBytes - quotedHeader + IPV6_BYTES;
  const quotedPayload = totalBytesOf(quoted) - quotedHeader;
  const network = enlarge(descriptor, packet, quoted.transport, more);
  if (network == 0) return false;
  writeIpv6(network, packet.network, PROTOCOL_ICMPV6, messageBytes);
  const to = network + <usize>IPV6_BYTES;
  const quote = to + <usize>ICMP_QUOTE;
  const protocol = crossedProtocol(quoted.protocol);
  writeIpv6(quote, quoted.network, protocol, quotedPayload);
  movedTo(quoted, quote, quote + <usize>IPV6_BYTES);
  quoted.protocol = protocol;
  if (turning) turnIcmp(quoted, quoted.sourceAddress, quoted.destinationAddress);
  movedTo(packet, network, to);
  packet.protocol = PROTOCOL_ICMPV6;
  packet.quoted = <u32>quote;
  packet.transportBytes += IPV6_BYTES - quotedHeader;
  putHead(to, checksum, turnedWord);
  const pseudo = pseudoSum(
    packet.sourceAddress,
    packet.destinationAddress,
    messageBytes,
    PROTOCOL_ICMPV6,
  );
  const after = pseudo + sumHead(to) + sumOf(quote, IPV6_BYTES + turning);
  store<u16>(to, <u16>updated(checksum, deltaOf(before, after)), ICMP_CHECKSUM);
  return true;
}

/** Bytes of the quoted transport header that change with the family: those of a query, if captured. */
function turningBytes(descriptor: usize, quoted: Packet): u32 {
  const protocol = quoted.protocol;
  if (protocol != PROTOCOL_ICMP && protocol != PROTOCOL_ICMPV6) return 0;
  const end = load<u32>(descriptor, FRAME_ADDRESS) + load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  return end - quoted.transport >= TURNED_BYTES ? TURNED_BYTES : 0;
}

const shrunkOuter: usize = memory.data(32, 8);
const shrunkQuote: usize = memory.data(32, 8);

/**
 * Makes an ICMPv6 error that has a counterpart, and the tuple of its flow's service side, one of IPv4
 * in place.
 */
export function crossErrorOut(descriptor: usize, packet: Packet, number: u32): void {
  const quoted = quotedScratch();
  const outer = changetype<Shrunk>(shrunkOuter);
  const inner = changetype<Shrunk>(shrunkQuote);
  shrink(outer, packet, number);
  shrink(inner, quoted, 0);
  const icmp = <usize>packet.transport;
  const headerBytes = packet.transport - packet.network;
  const quotedHeader = quoted.transport - quoted.network;
  const lessInner = quotedHeader - IPV4_BYTES_MIN;
  const turning = turningBytes(descriptor, quoted);
  const checksum = <u32>load<u16>(icmp, ICMP_CHECKSUM);
  const before =
    pseudoSum(
      packet.sourceAddress,
      packet.destinationAddress,
      totalBytesOf(packet) - headerBytes,
      PROTOCOL_ICMPV6,
    ) +
    sumHead(icmp) +
    sumOf(quoted.network, quotedHeader + turning);
  if (turning) turnIcmp(quoted, quoted.sourceAddress, quoted.destinationAddress);
  outer.bytes -= lessInner;
  const quote = <usize>quoted.transport - IPV4_BYTES_MIN;
  const to = quote - <usize>ICMP_QUOTE;
  const less = lessInner + headerBytes - IPV4_BYTES_MIN;
  const network = reduce(descriptor, packet, to - IPV4_BYTES_MIN, less);
  writeIpv4(network, outer);
  writeIpv4(quote, inner);
  putHead(to, checksum, turnedWord);
  const after = sumHead(to) + sumOf(quote, IPV4_BYTES_MIN + turning);
  store<u16>(to, <u16>updated(checksum, deltaOf(before, after)), ICMP_CHECKSUM);
}
