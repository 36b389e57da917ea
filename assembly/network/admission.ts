/**
 * What a service of network tables lets through: the size of a packet and whether fragments pass,
 * asked about every packet; security groups, asked about the packet that begins a flow.
 *
 * Each of the three groups that a flow meets is asked about the end that is not the group's own:
 * inbound about the client, outbound about the target (AWS: a security group of a load balancer
 * sees the consumer's client also where traffic comes through an endpoint).
 */
import {
  SERVICE_MTU_BYTES,
  SERVICE_RULES_ENDPOINT,
  SERVICE_RULES_INBOUND,
  SERVICE_RULES_OUTBOUND,
  SERVICE_TRAITS,
  TRAIT_NAT64,
  TRAIT_UDP_FRAGMENTS,
  TRAIT_UNREACHABLE,
  USAGE_BLOCKED,
  USAGE_BLOCKED_ENDPOINT,
  USAGE_BYTES,
  VERDICT_DROP_FRAGMENT,
  VERDICT_DROP_TOO_LARGE,
  VERDICT_DROP_UNINTENDED,
  VERDICT_FORWARD,
} from "../abi";
import { countUp } from "../counters";
import { usage } from "../memory";
import { FRAGMENT_NONE, Packet, PROTOCOL_TCP, PROTOCOL_UDP } from "../packet";
import { IPV4_BYTES_MIN } from "../wire/ipv4";
import { ipBytesOf } from "../wire/length";
import { portPairOf } from "../wire/transport";
import { isEmbedded } from "./nat64";
import { allows } from "./rules";

const BLOCKED_OUTBOUND: u32 = 24;

// ICMP types: destination unreachable (RFC 792, RFC 4443), and packet too big, a code of it in IPv4.
const UNREACHABLE: u32 = 3;
const UNREACHABLE6: u32 = 1;
const TOO_BIG6: u32 = 2;

/** VERDICT_FORWARD, or why the service does not let the packet through in either direction. */
export function hindranceOf(service: usize, packet: Packet): u32 {
  const traits = load<u32>(service, SERVICE_TRAITS);
  if (packet.fragment != FRAGMENT_NONE && packet.protocol != PROTOCOL_UDP) {
    if (traits & TRAIT_UDP_FRAGMENTS) return VERDICT_DROP_FRAGMENT;
  }
  // What has come in as IPv4 is longer now by the difference of the headers.
  let grown: u32 = 0;
  if (packet.isIpv6 && (traits & TRAIT_NAT64) != 0) {
    // Also in the other direction: there the client's is the only address without the prefix.
    const isOut = isEmbedded(packet.destinationAddress);
    if (!isOut && !isEmbedded(packet.sourceAddress)) return VERDICT_DROP_UNINTENDED;
    if (!isOut) grown = packet.transport - packet.network - IPV4_BYTES_MIN;
  }
  const mtu = <u32>load<u16>(service, SERVICE_MTU_BYTES);
  if (mtu != 0 && ipBytesOf(packet) > mtu + grown) return VERDICT_DROP_TOO_LARGE;
  return VERDICT_FORWARD;
}

/** Whether an ICMP error about one of its flows passes a service: to load balancers only type 3 is intended. */
export function takesError(service: usize, packet: Packet): bool {
  if ((load<u32>(service, SERVICE_TRAITS) & TRAIT_UNREACHABLE) == 0) return true;
  const type = <u32>load<u8>(packet.transport);
  return packet.isIpv6 ? type == UNREACHABLE6 || type == TOO_BIG6 : type == UNREACHABLE;
}

/** Whether the groups on the client's side let the flow begin; counts what they block. */
export function admits(service: usize, index: u32, packet: Packet): bool {
  const endpoint = <usize>load<u32>(service, SERVICE_RULES_ENDPOINT);
  const inbound = <usize>load<u32>(service, SERVICE_RULES_INBOUND);
  if ((endpoint | inbound) == 0) return true;
  const client = <usize>packet.sourceAddress;
  const key = keyOf(packet);
  const used = usage + <usize>(index * USAGE_BYTES);
  if (endpoint != 0 && !allows(endpoint, client, packet.isIpv6, key)) {
    countUp(used + USAGE_BLOCKED_ENDPOINT);
    return false;
  }
  if (inbound == 0 || allows(inbound, client, packet.isIpv6, key)) return true;
  countUp(used + <usize>(USAGE_BLOCKED + blockedCell(packet.protocol)));
  return false;
}

/** Whether the group on the target's side does; `tuple` is the flow's on its service side. */
export function admitsOut(service: usize, index: u32, tuple: Packet): bool {
  const outbound = <usize>load<u32>(service, SERVICE_RULES_OUTBOUND);
  if (outbound == 0) return true;
  const address = <usize>tuple.destinationAddress;
  // What is an IPv4 address out there is held against rules of IPv4.
  const crosses = tuple.isIpv6 != 0 && isEmbedded(address);
  const isAllowed = crosses
    ? allows(outbound, address + 12, 0, keyOf(tuple))
    : allows(outbound, address, tuple.isIpv6, keyOf(tuple));
  if (isAllowed) return true;
  const cell = BLOCKED_OUTBOUND + blockedCell(<u8>(tuple.rest >> 32));
  countUp(usage + <usize>(index * USAGE_BYTES + USAGE_BLOCKED + cell));
  return false;
}

/** Protocol and destination port as rules have them. */
function keyOf(packet: Packet): u32 {
  const port = <u32>bswap<u16>(<u16>(portPairOf(packet) >> 16));
  return ((<u32>(packet.rest >> 32) & 0xff) << 16) | port;
}

/** Offset of a protocol's cell among those of one direction. */
function blockedCell(protocol: u8): u32 {
  if (protocol == PROTOCOL_TCP) return 0;
  return protocol == PROTOCOL_UDP ? 8 : 16;
}
