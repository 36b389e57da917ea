/**
 * What the engine knows about the first frame of a batch before it is processed: how it was parsed,
 * its key and hash, the flow that the key finds, and otherwise the service and the target that a new
 * flow would get. Asks the functions that the packet path asks, and changes nothing.
 */
import {
  EXPLAIN_BYTES,
  EXPLAIN_DESTINATION,
  EXPLAIN_DESTINATION_PORT_BE,
  EXPLAIN_FOUND,
  EXPLAIN_FOUND_SIDE,
  EXPLAIN_GROUP,
  EXPLAIN_HASH,
  EXPLAIN_IPV6,
  EXPLAIN_KIND,
  EXPLAIN_KIND_DECIDED,
  EXPLAIN_KIND_ERROR,
  EXPLAIN_KIND_FAST,
  EXPLAIN_KIND_FLOW,
  EXPLAIN_KIND_LATER,
  EXPLAIN_OWNER,
  EXPLAIN_PROTOCOL,
  EXPLAIN_RING_SIZE,
  EXPLAIN_RING_SLOT,
  EXPLAIN_SERVICE,
  EXPLAIN_SERVICE_BLACKHOLE,
  EXPLAIN_SERVICE_NO_ROUTE,
  EXPLAIN_SERVICE_UNINTENDED,
  EXPLAIN_SERVICE_UNOWNED,
  EXPLAIN_SOURCE,
  EXPLAIN_SOURCE_PORT_BE,
  EXPLAIN_SWAPPED,
  EXPLAIN_TAG,
  EXPLAIN_TARGET,
  EXPLAIN_TARGET_COUNT,
  EXPLAIN_TCP_FLAGS,
  EXPLAIN_VERDICT,
  EXPLAIN_ZONE,
  FRAME_PORT,
  PORT_BYTES,
  PORT_SIDE_CLIENT,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  ROUTE_BLACKHOLE,
  SERVICE_BYTES,
  SERVICE_NONE,
  SERVICE_RING_SIZE,
  SIDE_CLIENT,
  SIDE_SERVICE,
} from "./abi";
import { findByClientSide, findByIndex, flowTable, handleOf, homeGroup, tagOf } from "./flow/table";
import { frames, ports, services } from "./memory";
import { NOTHING } from "./network/directory";
import { serviceFor, serviceOwning } from "./network/resolve";
import {
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_FAST,
  PACKET_FLOW,
  PACKET_LATER,
  Packet,
  packetAt,
  quotedScratch,
} from "./packet";
import { findCandidates } from "./stages";
import { firstTarget, ringSlot, targetsOf } from "./translate";
import { portPairOf } from "./wire/transport";

if (EXPLAIN_KIND_DECIDED != PACKET_DECIDED) ERROR("EXPLAIN_KIND_DECIDED is not PACKET_DECIDED");
if (EXPLAIN_KIND_FAST != PACKET_FAST) ERROR("EXPLAIN_KIND_FAST is not PACKET_FAST");
if (EXPLAIN_KIND_FLOW != PACKET_FLOW) ERROR("EXPLAIN_KIND_FLOW is not PACKET_FLOW");
if (EXPLAIN_KIND_ERROR != PACKET_ERROR) ERROR("EXPLAIN_KIND_ERROR is not PACKET_ERROR");
if (EXPLAIN_KIND_LATER != PACKET_LATER) ERROR("EXPLAIN_KIND_LATER is not PACKET_LATER");

const block: usize = memory.data(96, 64);

/** Fills the block for the first descriptor, which has to be whole, and returns its address. */
export function explainFrame(): usize {
  memory.fill(block, 0, EXPLAIN_BYTES);
  findCandidates(1);
  const packet = packetAt(0);
  store<u8>(block, packet.kind, EXPLAIN_KIND);
  store<u8>(block, packet.isIpv6, EXPLAIN_IPV6);
  store<u32>(block, SERVICE_NONE, EXPLAIN_SERVICE);
  if (packet.kind == PACKET_DECIDED) {
    store<u8>(block, packet.verdict, EXPLAIN_VERDICT);
    return block;
  }
  if (packet.kind == PACKET_LATER) return block;
  const named = packet.kind == PACKET_ERROR ? quotedScratch() : packet;
  store<u8>(block, packet.flags, EXPLAIN_TCP_FLAGS);
  const port = ports + <usize>load<u16>(frames, FRAME_PORT) * PORT_BYTES;
  describe(named);
  find(named, port);
  if (packet.kind != PACKET_ERROR) choose(packet, port);
  return block;
}

/** The tuple, and where a flow with it would be at home. */
function describe(packet: Packet): void {
  const bytes: usize = packet.isIpv6 ? 16 : 4;
  const ports = portPairOf(packet);
  memory.copy(block + EXPLAIN_SOURCE, packet.sourceAddress, bytes);
  memory.copy(block + EXPLAIN_DESTINATION, packet.destinationAddress, bytes);
  store<u16>(block, <u16>ports, EXPLAIN_SOURCE_PORT_BE);
  store<u16>(block, <u16>(ports >> 16), EXPLAIN_DESTINATION_PORT_BE);
  store<u8>(block, packet.protocol, EXPLAIN_PROTOCOL);
  store<u8>(block, packet.swapped, EXPLAIN_SWAPPED);
  store<u32>(block, <u32>(packet.rest >> 40), EXPLAIN_ZONE);
  store<u64>(block, packet.hash, EXPLAIN_HASH);
  store<u32>(block, homeGroup(flowTable(packet.isIpv6), packet.hash), EXPLAIN_GROUP);
  store<u8>(block, tagOf(packet.hash), EXPLAIN_TAG);
}

function find(packet: Packet, port: usize): void {
  const table = flowTable(packet.isIpv6);
  const sides = <u32>load<u8>(port, PORT_SIDES);
  let record: usize = 0;
  let side = SIDE_CLIENT;
  if (sides & PORT_SIDE_CLIENT) record = findByClientSide(table, packet);
  if (record == 0 && (sides & PORT_SIDE_SERVICE) != 0) {
    record = findByIndex(table, packet, SIDE_SERVICE);
    side = SIDE_SERVICE;
  }
  if (record == 0) return;
  store<u32>(block, handleOf(table, record), EXPLAIN_FOUND);
  store<u8>(block, <u8>side, EXPLAIN_FOUND_SIDE);
}

/** The service and the target that a new flow would get. */
function choose(packet: Packet, port: usize): void {
  const service = serviceFor(packet, port);
  store<u32>(block, nameOf(service), EXPLAIN_SERVICE);
  store<u32>(block, serviceOwning(service), EXPLAIN_OWNER);
  if (service >= ROUTE_BLACKHOLE) return;
  const record = services + <usize>(service * SERVICE_BYTES);
  const count = targetsOf(record, packet);
  store<u32>(block, count, EXPLAIN_TARGET_COUNT);
  if (count == 0) return;
  store<u32>(block, load<u32>(record, SERVICE_RING_SIZE), EXPLAIN_RING_SIZE);
  store<u32>(block, ringSlot(record, packet), EXPLAIN_RING_SLOT);
  store<u32>(block, firstTarget(record, packet), EXPLAIN_TARGET);
}

function nameOf(resolved: u32): u32 {
  if (resolved < ROUTE_BLACKHOLE) return resolved;
  if (resolved == SERVICE_NONE) return EXPLAIN_SERVICE_UNOWNED;
  if (resolved == ROUTE_BLACKHOLE) return EXPLAIN_SERVICE_BLACKHOLE;
  return resolved == NOTHING ? EXPLAIN_SERVICE_NO_ROUTE : EXPLAIN_SERVICE_UNINTENDED;
}
