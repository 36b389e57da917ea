/**
 * What a service makes of a new flow: its service-side tuple. Destination NAT picks a target from
 * the service's Maglev ring (Eisenbud et al., NSDI '16); source NAT picks an address of the pool
 * and a port. Two flows never share a service-side tuple, so every return packet has one owner;
 * ports are reused per destination (RFC 4787 calls it address- and port-dependent mapping).
 *
 * Source port: the client's own if it is high enough and free (RFC 4787 REQ-3), else another of
 * flow/port.ts. Identifiers of ICMP queries are such ports, too. The client's address picks the pool
 * address that is tried first (paired pooling, REQ-2).
 * Work is bounded: TARGETS_TRIED_MAX targets, POOL_TRIED_MAX addresses, and the ports of each.
 */
import {
  BATCH_COUNT_MAX,
  POOL_BYTES,
  POOL6_BYTES,
  SERVICE_LISTENER_BITS,
  SERVICE_POOL,
  SERVICE_POOL_COUNT,
  SERVICE_POOL6,
  SERVICE_POOL6_COUNT,
  SERVICE_PORT_MIN,
  SERVICE_RING,
  SERVICE_RING_SIZE,
  SERVICE_RING6,
  SERVICE_TARGET_COUNT,
  SERVICE_TARGET6_COUNT,
  SERVICE_TARGETS,
  SERVICE_TARGETS6,
  SERVICE_TRAITS,
  TARGET_BYTES,
  TARGET_PORT_BE,
  TARGET6_BYTES,
  TARGET6_PORT_BE,
  TRAIT_SEQUENCE,
  TRAIT_STICKY,
  TRAIT_TARGETED,
  VERDICT_DROP_NO_TARGET,
  VERDICT_DROP_PORT_EXHAUSTED,
  VERDICT_DROP_TUPLE_TAKEN,
  VERDICT_FORWARD,
} from "./abi";
import { allocatePort, isFree } from "./flow/port";
import { FlowTable } from "./flow/table";
import { hashDigest, hashTuple, hashWord } from "./hash";
import {
  indexOf,
  PACKET_BYTES,
  Packet,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "./packet";
import { ICMP_REQUEST, icmpRole, portPairOf, setTuple, setTuple4 } from "./wire/transport";

const PORTS_AND_PROTOCOL: u64 = 0x000000ffffffffff;
const PORT_MIN: u32 = 1024;
const POOL_TRIED_MAX: u32 = 16;
const TCP_SEQUENCE: u32 = 4;
const TARGETS_TRIED_MAX: u32 = 64;

/** The service-side tuple under construction; its addresses lie in `endpoints`. */
const outsidePacket: usize = memory.data(64, 64);
const endpoints: usize = memory.data(32, 64);
/** The one in use: that, or one that was foreseen. */
let outsideTuple: usize = outsidePacket;

/** Service-side tuples of IPv4 that were foreseen for packets of the batch, and for which. */
const foreseenTuples: usize = memory.data(64 * <i32>BATCH_COUNT_MAX, 64);
const foreseenMarks: usize = memory.data(<i32>BATCH_COUNT_MAX, 64);
/** Addresses of ring entries that were looked up for packets of the batch, 0 = none. */
const entries: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);

/** The service-side tuple of the flow that begins. */
export function outside(): Packet {
  return changetype<Packet>(outsideTuple);
}

/** The same, for who sets all of it. */
export function newOutside(): Packet {
  outsideTuple = outsidePacket;
  return changetype<Packet>(outsidePacket);
}

/**
 * Finds a free service-side tuple for the flow that `packet` begins and leaves it in `outside()`.
 * `protocolZone` is the protocol and the zone of the service side. Returns a VERDICT_*.
 */
export function translate(
  table: FlowTable,
  service: usize,
  packet: Packet,
  protocolZone: u32,
  nowMs: u32,
): u32 {
  if (takeForeseen(packet, protocolZone) && isFree(table, outside(), nowMs)) return VERDICT_FORWARD;
  takeOver(packet);
  const portPair = portPairOf(packet);
  const targetCount = targetsOf(service, packet);
  if (targetCount == 0) {
    if (load<u32>(service, SERVICE_TRAITS) & TRAIT_TARGETED) return VERDICT_DROP_NO_TARGET;
    return translateSource(table, service, packet, portPair, protocolZone, nowMs);
  }
  const first = firstTarget(service, packet);
  const tries = min<u32>(targetCount, TARGETS_TRIED_MAX);
  let verdict = VERDICT_DROP_TUPLE_TAKEN;
  for (let step: u32 = 0; step < tries; step++) {
    const aimed = aimAt(service, packet, (first + step) % targetCount, portPair);
    verdict = translateSource(table, service, packet, aimed, protocolZone, nowMs);
    if (verdict == VERDICT_FORWARD) return verdict;
    // Whoever has tried many ports in vain stops here; without ports another target may be free.
    if (verdict == VERDICT_DROP_PORT_EXHAUSTED && hasPortToChange(packet)) return verdict;
  }
  return verdict;
}

/** Forgets what was foreseen for the packets of an earlier batch. */
export function clearForeseen(count: u32): void {
  memory.fill(foreseenMarks, 0, count);
}

/**
 * Makes the tuple that `translate` tries first (the first target, the first address, the client's
 * own port) and returns its hash, so that index lines can be touched before they are needed. One
 * of IPv4 is kept for `translate`, which then need not make it again.
 */
export function foresee(service: usize, packet: Packet, protocolZone: u32): u64 {
  takeOver(packet);
  let portPair = portPairOf(packet);
  if (targetsOf(service, packet) != 0) {
    const entry = load<u16>(foreseenEntry(service, packet));
    portPair = aimAt(service, packet, entry, portPair);
  } else if (load<u32>(service, SERVICE_TRAITS) & TRAIT_TARGETED) {
    return 0;
  }
  const count = addressesOf(service, packet);
  if (count != 0) takeAddress(service, packet, firstAddress(packet, count));
  if (packet.isIpv6) {
    setTuple(outside(), portPair, protocolZone);
    return outside().hash;
  }
  const mayKeep = count == 0 || mayKeepPort(service, packet, portPair);
  return foresee4(packet, portPair, protocolZone, mayKeep).hash;
}

/** Makes the packet's place hold the tuple between `endpoints`; as `isKept`, for `translate` as well. */
function foresee4(packet: Packet, portPair: u32, protocolZone: u32, isKept: bool): Packet {
  const index = <usize>indexOf(packet);
  const tuple = foreseenAt(index);
  tuple.isIpv6 = 0;
  const addresses = <u64>load<u32>(endpoints) | ((<u64>load<u32>(endpoints, 16)) << 32);
  setTuple4(tuple, addresses, portPair, protocolZone);
  // The key itself holds both addresses.
  const low = <u32>changetype<usize>(tuple) + offsetof<Packet>("addresses");
  const swapped = <u32>tuple.swapped;
  tuple.sourceAddress = low + (swapped << 2);
  tuple.destinationAddress = low + ((swapped ^ 1) << 2);
  store<u8>(foreseenMarks + index, u8(isKept));
  return tuple;
}

function foreseenAt(index: usize): Packet {
  return changetype<Packet>(foreseenTuples + index * PACKET_BYTES);
}

/** The tuple that was foreseen and kept for the packet; its address is 0 when there is none. */
export function foreseenFor(packet: Packet): Packet {
  const index = <usize>indexOf(packet);
  const isKept = load<u8>(foreseenMarks + index) != 0;
  return changetype<Packet>(isKept ? changetype<usize>(foreseenAt(index)) : 0);
}

/**
 * Address of the ring's entry that names the flow's first target, kept for `foresee`; 0 when the service
 * has no targets. Called for each packet before `foresee`, so that entries can be touched.
 */
export function ringEntry(service: usize, packet: Packet): usize {
  const entry: usize = targetsOf(service, packet) == 0 ? 0 : entryOf(service, packet);
  store<u32>(entries + ((<usize>indexOf(packet)) << 2), <u32>entry);
  return entry;
}

/** Address of the target that a ring's entry names. */
export function targetAt(service: usize, packet: Packet, entry: usize): usize {
  const target = <u32>load<u16>(entry);
  return packet.isIpv6
    ? <usize>(load<u32>(service, SERVICE_TARGETS6) + target * TARGET6_BYTES)
    : <usize>(load<u32>(service, SERVICE_TARGETS) + target * TARGET_BYTES);
}

function foreseenEntry(service: usize, packet: Packet): usize {
  const kept = <usize>load<u32>(entries + ((<usize>indexOf(packet)) << 2));
  return kept != 0 ? kept : entryOf(service, packet);
}

/** Makes the tuple that was foreseen for the packet the one in use; false when there is none. */
function takeForeseen(packet: Packet, protocolZone: u32): bool {
  const tuple = foreseenFor(packet);
  if (changetype<usize>(tuple) == 0 || <u32>(tuple.rest >> 32) != protocolZone) return false;
  outsideTuple = changetype<usize>(tuple);
  return true;
}

/** Begins the tuple with the packet's own endpoints. */
function takeOver(packet: Packet): void {
  const tuple = newOutside();
  tuple.isIpv6 = packet.isIpv6;
  tuple.sourceAddress = <u32>endpoints;
  tuple.destinationAddress = <u32>endpoints + 16;
  copyAddress(endpoints, packet.sourceAddress, packet.isIpv6);
  copyAddress(endpoints + 16, packet.destinationAddress, packet.isIpv6);
}

/** How many targets the service has for the packet's family. */
export function targetsOf(service: usize, packet: Packet): u32 {
  return load<u32>(service + (packet.isIpv6 ? SERVICE_TARGET6_COUNT : SERVICE_TARGET_COUNT));
}

/** Place in the service's ring that the flow's hash names. */
export function ringSlot(service: usize, packet: Packet): u32 {
  const ringSize = load<u32>(service, SERVICE_RING_SIZE);
  return <u32>((<u64>(<u32>hashOfTarget(service, packet)) * <u64>ringSize) >> 32);
}

/** Index of the target that the ring gives the flow. */
export function firstTarget(service: usize, packet: Packet): u32 {
  return load<u16>(entryOf(service, packet));
}

function entryOf(service: usize, packet: Packet): usize {
  const at = ringSlot(service, packet);
  const ring = <usize>load<u32>(service + (packet.isIpv6 ? SERVICE_RING6 : SERVICE_RING));
  return ring + ((<usize>at) << 1);
}

/**
 * What a target is chosen by: the five-tuple, and the sequence number of the SYN where the service
 * says so, as load balancers do; a SYN that is sent again finds the same target. Or the client alone.
 */
function hashOfTarget(service: usize, packet: Packet): u64 {
  const traits = load<u32>(service, SERVICE_TRAITS);
  if (traits & TRAIT_STICKY) return hashAddress(packet);
  const hash = hashOfChoice(packet);
  const isCounted = (traits & TRAIT_SEQUENCE) != 0 && packet.protocol == PROTOCOL_TCP;
  if (!isCounted || packet.transportBytes < TCP_SEQUENCE + 4) return hash;
  return hashWord(hash ^ <u64>load<u32>(packet.transport, TCP_SEQUENCE));
}

/** How many source addresses the service has for the packet's family. */
function addressesOf(service: usize, packet: Packet): u32 {
  return load<u32>(service + (packet.isIpv6 ? SERVICE_POOL6_COUNT : SERVICE_POOL_COUNT));
}

/** Index of the source address that is the client's own. */
function firstAddress(packet: Packet, count: u32): u32 {
  if (count == 1) return 0;
  return <u32>(hashAddress(packet) >> 32) % count;
}

/** Puts a source address of the service into the tuple. */
function takeAddress(service: usize, packet: Packet, index: u32): void {
  const isIpv6 = packet.isIpv6;
  const pool = <usize>load<u32>(service + (isIpv6 ? SERVICE_POOL6 : SERVICE_POOL));
  copyAddress(endpoints, pool + <usize>(index * (isIpv6 ? POOL6_BYTES : POOL_BYTES)), isIpv6);
}

/**
 * What choices are made by: the hash of the tuple without its zone. Equal tuples of different VLANs
 * are different flows, but a load balancer sends them to the same target.
 */
function hashOfChoice(packet: Packet): u64 {
  const rest = packet.rest & PORTS_AND_PROTOCOL;
  const addresses = packet.addresses;
  return packet.isIpv6 ? hashDigest(addresses, rest) : hashTuple(addresses, rest);
}

/** Gives every listener targets of its own: the low bits of a target's address. */
function spread(service: usize, packet: Packet, portPair: u32): void {
  const bits = load<u32>(service, SERVICE_LISTENER_BITS);
  if (bits == 0) return;
  const destination = <usize>packet.destinationAddress;
  const port = (<u64>(portPair >> 16)) << 40;
  const listener = packet.isIpv6
    ? hashWord(hashWord(load<u64>(destination) ^ port) ^ load<u64>(destination, 8))
    : hashWord(<u64>load<u32>(destination) ^ port);
  const low = <u32>(listener >> 32) & ((1 << bits) - 1);
  const at = endpoints + (packet.isIpv6 ? 28 : 16);
  store<u32>(at, bswap<u32>(bswap<u32>(load<u32>(at)) | low));
}

/** Puts the target's address into the tuple and returns the ports with its port. */
function aimAt(service: usize, packet: Packet, target: u32, portPair: u32): u32 {
  let port: u32 = 0;
  if (packet.isIpv6) {
    const entry = <usize>(load<u32>(service, SERVICE_TARGETS6) + target * TARGET6_BYTES);
    copyAddress(endpoints + 16, entry, 1);
    port = load<u16>(entry, TARGET6_PORT_BE);
  } else {
    const entry = <usize>(load<u32>(service, SERVICE_TARGETS) + target * TARGET_BYTES);
    copyAddress(endpoints + 16, entry, 0);
    port = load<u16>(entry, TARGET_PORT_BE);
  }
  spread(service, packet, portPair);
  return port != 0 && hasPorts(packet) ? (portPair & 0xffff) | (port << 16) : portPair;
}

function translateSource(
  table: FlowTable,
  service: usize,
  packet: Packet,
  portPair: u32,
  protocolZone: u32,
  nowMs: u32,
): u32 {
  const count = addressesOf(service, packet);
  if (count == 0) {
    const isFree = isTupleFree(table, portPair, protocolZone, nowMs);
    return isFree ? VERDICT_FORWARD : VERDICT_DROP_TUPLE_TAKEN;
  }
  const first = firstAddress(packet, count);
  const tries = min<u32>(count, POOL_TRIED_MAX);
  for (let step: u32 = 0; step < tries; step++) {
    takeAddress(service, packet, first + step < count ? first + step : first + step - count);
    if (allocate(table, service, packet, portPair, protocolZone, nowMs)) return VERDICT_FORWARD;
  }
  return VERDICT_DROP_PORT_EXHAUSTED;
}

/** Sets the tuple and asks whether no other flow uses it. */
function isTupleFree(table: FlowTable, portPair: u32, protocolZone: u32, nowMs: u32): bool {
  setTuple(outside(), portPair, protocolZone);
  return isFree(table, outside(), nowMs);
}

/** Chooses the source port, with the source address already in the tuple. */
function allocate(
  table: FlowTable,
  service: usize,
  packet: Packet,
  portPair: u32,
  protocolZone: u32,
  nowMs: u32,
): bool {
  const mayKeep = mayKeepPort(service, packet, portPair);
  if (mayKeep && isTupleFree(table, portPair, protocolZone, nowMs)) return true;
  if (!hasPortToChange(packet)) return false;
  const order = hashWord(hashOfChoice(packet));
  const isExact = load<u16>(service, SERVICE_PORT_MIN) != 0;
  const portMin = lowestPort(service);
  return allocatePort(table, outside(), portPair, protocolZone, portMin, isExact, order, nowMs);
}

/** Lowest source port that the service assigns. */
function lowestPort(service: usize): u32 {
  const own = <u32>load<u16>(service, SERVICE_PORT_MIN);
  return own == 0 ? PORT_MIN : own;
}

/**
 * Ports that are high enough may stay, and whatever is no port; identifiers of ICMP count as ports
 * where the number of flows is limited.
 */
function mayKeepPort(service: usize, packet: Packet, portPair: u32): bool {
  const isLimited = load<u16>(service, SERVICE_PORT_MIN) != 0;
  const counts = isLimited ? hasPortToChange(packet) : hasPorts(packet);
  return !counts || <u32>bswap<u16>(<u16>portPair) >= lowestPort(service);
}

function hasPorts(packet: Packet): bool {
  return packet.protocol == PROTOCOL_TCP || packet.protocol == PROTOCOL_UDP;
}

function hasPortToChange(packet: Packet): bool {
  return hasPorts(packet) || isIcmpRequest(packet);
}

export function isIcmpRequest(packet: Packet): bool {
  const isIcmp = packet.protocol == (packet.isIpv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP);
  return isIcmp && icmpRole(load<u8>(packet.transport), packet.isIpv6 != 0) == ICMP_REQUEST;
}

function hashAddress(packet: Packet): u64 {
  const source = <usize>packet.sourceAddress;
  if (!packet.isIpv6) return hashWord(load<u32>(source));
  return hashWord(hashWord(load<u64>(source)) ^ load<u64>(source, 8));
}

function copyAddress(to: usize, from: usize, isIpv6: u8): void {
  if (isIpv6) v128.store(to, v128.load(from));
  else store<u32>(to, load<u32>(from));
}
