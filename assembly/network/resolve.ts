/**
 * Which service a new flow of a routed port belongs to: the listener that its destination names,
 * else the longest route of the table that its source's subnet has. Established flows never come here.
 *
 * An answer depends on the packet and the image alone, and images are swapped between batches, so
 * the answer that a stage has asked for in advance is still right when the flow begins.
 */
import {
  BATCH_COUNT_MAX,
  PORT_SERVICE,
  PORT_SIDE_ROUTED,
  PORT_SIDES,
  ROUTE_BLACKHOLE,
  SERVICE_BYTES,
  SERVICE_NONE,
  SERVICE_TRAITS,
  SPACE_ADDRESS,
  SPACE_LISTENER,
  SPACE_TARGET,
  SPACE_VPC,
  TRAIT_TARGETED,
  USAGE_BYTES,
  USAGE_UNINTENDED,
  VERDICT_DROP_BLACKHOLE,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_NO_ROUTE,
  VERDICT_DROP_NO_SERVICE,
  VERDICT_DROP_UNINTENDED,
  VPC_MAIN,
  VPC_SUBNETS,
} from "../abi";
import { countUp } from "../counters";
import { image, services, usage } from "../memory";
import { indexOf, Packet, PROTOCOL_TCP, TCP_ACK, TCP_RST, TCP_SYN } from "../packet";
import { portPairOf } from "../wire/transport";
import { zoneVpcAndOuter } from "../zone";
import { firstLineOf, longestPrefix, lookUp, lookUpAddress, NOTHING } from "./directory";

/** Instead of a service: the address belongs to the service in the low half, but nothing listens. */
export const RESOLVED_UNINTENDED: u32 = 0x80000000;

/** What was asked in advance for packets of the batch, and for which. */
const answers: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);
const marks: usize = memory.data(<i32>BATCH_COUNT_MAX, 64);

/** Forgets what was asked for an earlier batch. */
export function clearAnswers(count: u32): void {
  memory.fill(marks, 0, count);
}

/**
 * Number of the service that the flow which `packet` begins would belong to; SERVICE_NONE,
 * ROUTE_BLACKHOLE, NOTHING (no route) or RESOLVED_UNINTENDED and a service when there is none.
 */
export function serviceFor(packet: Packet, port: usize): u32 {
  if ((load<u8>(port, PORT_SIDES) & PORT_SIDE_ROUTED) == 0) return load<u16>(port, PORT_SERVICE);
  if (image == 0) return NOTHING;
  const index = <usize>indexOf(packet);
  return load<u8>(marks + index) ? load<u32>(answers + (index << 2)) : resolve(packet);
}

/** Asks in advance, and keeps the answer for `serviceFor`. */
export function foreseeService(packet: Packet, port: usize): u32 {
  const service = serviceFor(packet, port);
  const index = <usize>indexOf(packet);
  store<u32>(answers + (index << 2), service);
  store<u8>(marks + index, 1);
  return service;
}

/** Line of the directory in which the packet's listener is looked up first; 0 when none is asked for. */
export function listenerLine(packet: Packet, port: usize): usize {
  if ((load<u8>(port, PORT_SIDES) & PORT_SIDE_ROUTED) == 0) return 0;
  const space = (SPACE_LISTENER << 24) | vpcOf(packet);
  return firstLineOf(space, wantedBy(packet), packet.destinationAddress, packet.isIpv6);
}

function vpcOf(packet: Packet): u32 {
  return zoneVpcAndOuter(<u32>(packet.rest >> 40)) & 0xffff;
}

/** Protocol and destination port. */
function wantedBy(packet: Packet): u32 {
  const port = <u32>bswap<u16>(<u16>(portPairOf(packet) >> 16));
  return ((<u32>packet.protocol) << 16) | port;
}

function resolve(packet: Packet): u32 {
  const vpc = vpcOf(packet);
  const isIpv6 = <u32>packet.isIpv6;
  const destination = <usize>packet.destinationAddress;
  const wanted = wantedBy(packet);
  const listener = lookUpAddress((SPACE_LISTENER << 24) | vpc, wanted, destination, isIpv6);
  if (listener != NOTHING) return listener;
  const owner = lookUpAddress((SPACE_ADDRESS << 24) | vpc, 0, destination, isIpv6);
  if (owner != NOTHING) return owner | RESOLVED_UNINTENDED;
  const balancer = balancerOf(packet, vpc);
  if (balancer != NOTHING) return balancer | RESOLVED_UNINTENDED;
  const record = lookUp((SPACE_VPC << 24) | vpc, 0, 0, 0);
  if (record == NOTHING) return NOTHING;
  let table = load<u32>(record, VPC_MAIN);
  const subnets = <usize>load<u32>(record, VPC_SUBNETS);
  if (subnets != 0) {
    const own = longestPrefix(subnets, packet.sourceAddress, isIpv6);
    if (own != NOTHING) table = own;
  }
  return table == 0 ? NOTHING : longestPrefix(table, destination, isIpv6);
}

/**
 * The load balancer whose target sends this, in a TCP connection that nobody knows (any more): a target
 * that sees clients' addresses answers to those, and no route may let it pass for their neighbour.
 */
function balancerOf(packet: Packet, vpc: u32): u32 {
  if (packet.protocol != PROTOCOL_TCP) return NOTHING;
  if ((packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) return NOTHING;
  const port = <u32>bswap<u16>(<u16>portPairOf(packet));
  const wanted = ((<u32>PROTOCOL_TCP) << 16) | port;
  return lookUpAddress((SPACE_TARGET << 24) | vpc, wanted, packet.sourceAddress, packet.isIpv6);
}

/** The service that an answer is about, if any: its own, or the owner of the address. */
export function serviceOwning(resolved: u32): u32 {
  if (resolved < ROUTE_BLACKHOLE) return resolved;
  const isOwned = (resolved & RESOLVED_UNINTENDED) != 0 && resolved != NOTHING;
  return isOwned ? resolved & 0xffff : SERVICE_NONE;
}

/**
 * The verdict on a packet that no service takes. Segments of TCP that begin nothing, to an address of
 * a load balancer or from one of its targets, are of a flow that has ended: they are strays.
 */
export function refusalOf(resolved: u32, packet: Packet): u32 {
  if (resolved == SERVICE_NONE) return VERDICT_DROP_NO_SERVICE;
  if (resolved == NOTHING) return VERDICT_DROP_NO_ROUTE;
  if (resolved == ROUTE_BLACKHOLE) return VERDICT_DROP_BLACKHOLE;
  const owner = resolved & 0xffff;
  const service = services + <usize>(owner * SERVICE_BYTES);
  const isBalancer = (load<u32>(service, SERVICE_TRAITS) & TRAIT_TARGETED) != 0;
  const isLate = packet.protocol == PROTOCOL_TCP && (packet.flags & (TCP_SYN | TCP_RST)) == 0;
  if (isBalancer && isLate) return VERDICT_DROP_NO_FLOW;
  countUp(usage + <usize>(owner * USAGE_BYTES + USAGE_UNINTENDED));
  return VERDICT_DROP_UNINTENDED;
}
