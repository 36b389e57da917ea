/**
 * Captures from mirror ports may carry VLAN tags in one direction only. A flow that a service has
 * adopted in one zone and that has not been answered there may therefore be answered in another
 * zone of the same VPC: the packet that would begin a flow of its own joins it instead.
 *
 * Only services that adopt flows, and only the first ZONES_TRIED_MAX zones: bounded work, and live
 * traffic, where zones keep tenants apart, never takes this way.
 */
import {
  DIRECTION_FROM_SERVICE,
  FLOW_FLAG_ASYMMETRIC,
  FLOW_FLAGS,
  FLOW_PACKETS_SERVICE,
  PORT_SERVICE,
  SERVICE_BYTES,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAGS,
  SERVICE_NONE,
} from "../abi";
import { services } from "../memory";
import { Packet } from "../packet";
import { directionOf } from "../rewrite";
import { portPairOf, setTuple } from "../wire/transport";
import { zoneCount, zoneVpcAndOuter } from "../zone";
import { isExpired } from "./state";
import { FlowTable, findByClientSide } from "./table";

const ZONES_TRIED_MAX: u32 = 16;
const scratch: usize = memory.data(64, 64);

/** The flow of another zone that `packet` answers, or 0. */
export function findInOtherZones(table: FlowTable, packet: Packet, port: usize, nowMs: u32): usize {
  const count = min<u32>(zoneCount(), ZONES_TRIED_MAX);
  if (count < 2 || !adopts(port)) return 0;
  const zone = <u32>(packet.rest >> 40);
  const vpc = zoneVpcAndOuter(zone) & 0xffff;
  const other = changetype<Packet>(scratch);
  memory.copy(scratch, changetype<usize>(packet), 64);
  for (let candidate: u32 = 0; candidate < count; candidate++) {
    if (candidate == zone || (zoneVpcAndOuter(candidate) & 0xffff) != vpc) continue;
    setTuple(other, portPairOf(packet), <u32>packet.protocol | (candidate << 8));
    const record = findByClientSide(table, other);
    if (record == 0 || directionOf(record, 0, other) != DIRECTION_FROM_SERVICE) continue;
    const flags = <u32>load<u8>(record, FLOW_FLAGS);
    const isAnswered = load<u32>(record, FLOW_PACKETS_SERVICE) != 0;
    if (isExpired(record, nowMs)) continue;
    if (isAnswered && (flags & FLOW_FLAG_ASYMMETRIC) == 0) continue;
    store<u8>(record, <u8>(flags | FLOW_FLAG_ASYMMETRIC), FLOW_FLAGS);
    return record;
  }
  return 0;
}

function adopts(port: usize): bool {
  const index = <u32>load<u16>(port, PORT_SERVICE);
  if (index == SERVICE_NONE) return false;
  const flags = load<u32>(services + <usize>(index * SERVICE_BYTES), SERVICE_FLAGS);
  return (flags & SERVICE_FLAG_ADOPT) != 0;
}
