/**
 * ICMP errors (RFC 792, RFC 4443, RFC 5508): the quoted packet names the flow, and the error
 * travels against it. The quote is rewritten to the other side like the packet it quotes, the
 * outer addresses where they are the flow's, and the checksum of the message follows.
 */
import {
  DIRECTION_FROM_CLIENT,
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  SIDE_CLIENT,
  SIDE_SERVICE,
  VERDICT_DROP_MALFORMED,
  VERDICT_DROP_NO_FLOW,
} from "./abi";
import { deltaOf, sumOf, updated } from "./checksum";
import {
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_LATER,
  Packet,
  quotedScratch,
  sumAddresses,
} from "./packet";
import { shiftQuote } from "./pp2/stream";
import { addressOf, rewritePacket } from "./rewrite";
import { IPV4_CHECKSUM, parseIpv4 } from "./wire/ipv4";
import { parseIpv6 } from "./wire/ipv6";
import { decide, ICMP_CHECKSUM } from "./wire/transport";

/** Longest quoted header part that can change: IPv4 with options, or IPv6 with extensions. */
const QUOTE_BYTES_MAX: u32 = 2048;

/**
 * Parses the packet quoted in an ICMP error into the scratch packet and gives the error its tuple;
 * leaves a verdict where that is impossible.
 */
export function parseQuote(descriptor: usize, packet: Packet): void {
  const quoted = quotedScratch();
  const zone = <u32>(packet.rest >> 40);
  const start = <usize>packet.quoted;
  const frameEnd =
    load<u32>(descriptor, FRAME_ADDRESS) + load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const messageEnd = min<u32>(frameEnd, packet.transport + packet.transportBytes);
  const present = messageEnd > <u32>start ? messageEnd - <u32>start : 0;
  if (packet.isIpv6) parseIpv6(quoted, start, present, zone);
  else parseIpv4(quoted, start, present, zone);
  if (quoted.kind == PACKET_ERROR) return decide(packet, VERDICT_DROP_MALFORMED);
  if (quoted.kind == PACKET_LATER) return decide(packet, VERDICT_DROP_NO_FLOW);
  if (quoted.kind == PACKET_DECIDED) return decide(packet, quoted.verdict);
  packet.addresses = quoted.addresses;
  packet.rest = quoted.rest;
  packet.hash = quoted.hash;
}

/** Rewrites an error about a packet of this flow; `direction` is the quoted packet's. */
export function rewriteError(
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
  isSourceTranslated: bool,
): void {
  const quoted = quotedScratch();
  const icmp = <usize>packet.transport;
  const start = <usize>packet.quoted;
  const quoteBytes = min<u32>(
    packet.transport + packet.transportBytes - <u32>start,
    QUOTE_BYTES_MAX,
  );
  const before = sumOf(start, quoteBytes);
  const source = <usize>packet.sourceAddress;
  const destination = <usize>packet.destinationAddress;
  const addressesBefore = sumAddresses(packet);
  const fromClient = direction != DIRECTION_FROM_CLIENT;
  const isHidden = isSourceTranslated && fromClient && side == SIDE_CLIENT;
  mapOuter(source, packet, record, side, fromClient, isHidden);
  mapOuter(destination, packet, record, side, !fromClient, false);
  rewritePacket(quoted, record, side, direction);
  shiftQuote(quoted, record, side, direction);
  const addressesAfter = sumAddresses(packet);
  const after = sumOf(start, quoteBytes);
  if (!packet.isIpv6) {
    const ip = <usize>packet.network;
    const delta = deltaOf(addressesBefore, addressesAfter);
    store<u16>(ip, <u16>updated(load<u16>(ip, IPV4_CHECKSUM), delta), IPV4_CHECKSUM);
    const quoteDelta = deltaOf(before, after);
    store<u16>(icmp, <u16>updated(load<u16>(icmp, ICMP_CHECKSUM), quoteDelta), ICMP_CHECKSUM);
    return;
  }
  const delta = deltaOf(before + addressesBefore, after + addressesAfter);
  store<u16>(icmp, <u16>updated(load<u16>(icmp, ICMP_CHECKSUM), delta), ICMP_CHECKSUM);
}

/**
 * Gives an outer address its other side when it is the flow's client (or service). `always`: the
 * error comes from behind a source NAT, whose inner addresses must not show (RFC 5508 REQ-5). The
 * routers on the service's side keep theirs, or no traceroute would show them.
 */
function mapOuter(
  address: usize,
  packet: Packet,
  record: usize,
  side: u32,
  isClient: bool,
  always: bool,
): void {
  const bytes: usize = packet.isIpv6 ? 16 : 4;
  const here = addressOf(record, packet.isIpv6, side, isClient);
  const there = addressOf(
    record,
    packet.isIpv6,
    side == SIDE_CLIENT ? SIDE_SERVICE : SIDE_CLIENT,
    isClient,
  );
  if (always || memory.compare(address, here, bytes) == 0) memory.copy(address, there, bytes);
}
