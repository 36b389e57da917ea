/**
 * Zones: the address spaces that tuples live in. A zone is a VPC plus the VLAN tags of the frame
 * (802.1Q, 802.1ad); equal addresses in different zones are different endpoints. Zones get their
 * numbers in the order in which they are first seen, so numbers are small and reproducible.
 *
 * An open-addressed map of u64 entries: vpc | outer << 16 | inner << 32 | (number + 1) << 48.
 * Untagged frames of a port need no lookup: the host keeps their zone in the port. Where one cable
 * carries several VPCs, a tag is bound to one of them: then it names that VPC's untagged zone.
 */
import { PORT_NONE, SPACE_VPC, VPC_PORT, ZONE_COUNT_MAX } from "./abi";
import { hashWord } from "./hash";
import { image, reserve } from "./memory";
import { lookUp, NOTHING } from "./network/directory";

const SLOT_COUNT: u32 = ZONE_COUNT_MAX * 2;
const KEY_MASK: u64 = 0x0000ffffffffffff;
export const ZONE_NONE: u32 = 0xffffffff;

let slots: usize = 0;
let names: usize = 0;
/**
 * How frames leave to each zone, four bytes: the port, PORT_NONE = where they came in; above it the VLAN
 * by which the zone is known where one cable carries several VPCs, 0 = none.
 */
let zoneRoutes: usize = 0;
let count: u32 = 0;
/** Entries of the map that are no zones of their own. */
let joined: u32 = 0;

export function reserveZones(): void {
  slots = reserve(<u64>SLOT_COUNT * 8);
  names = reserve(<u64>ZONE_COUNT_MAX * 8);
  zoneRoutes = reserve(<u64>ZONE_COUNT_MAX * 4);
  count = 0;
  joined = 0;
}

/** Number of the zone of a VPC and two VLAN ids (0 = no tag); ZONE_NONE when there is no room. */
export function zoneOf(vpc: u32, outer: u32, inner: u32): u32 {
  const key = <u64>(vpc | (outer << 16)) | ((<u64>inner) << 32);
  let slot = <u32>(hashWord(key) >> 32) & (SLOT_COUNT - 1);
  while (true) {
    const entry = load<u64>(slots + ((<usize>slot) << 3));
    if (entry == 0) break;
    if ((entry & KEY_MASK) == key) return <u32>(entry >> 48) - 1;
    slot = (slot + 1) & (SLOT_COUNT - 1);
  }
  if (count >= ZONE_COUNT_MAX - 1) return ZONE_NONE;
  store<u64>(slots + ((<usize>slot) << 3), key | ((<u64>(count + 1)) << 48));
  store<u64>(names + ((<usize>count) << 3), key);
  store<u16>(zoneRoutes + ((<usize>count) << 2), <u16>portOfVpc(vpc));
  return count++;
}

/**
 * Lets frames of a VPC's ports with an outer tag, and no inner one, belong to the zone of another
 * VPC, as a trunk carries several. Such frames seen before keep their zone. False when there is no
 * room, or the tag has a zone already.
 */
export function joinZone(vpc: u32, outer: u32, zone: u32): bool {
  if (count >= ZONE_COUNT_MAX - 1 || zone >= count) return false;
  const key = <u64>(vpc | (outer << 16));
  let slot = <u32>(hashWord(key) >> 32) & (SLOT_COUNT - 1);
  while (true) {
    const entry = load<u64>(slots + ((<usize>slot) << 3));
    if (entry == 0) break;
    if ((entry & KEY_MASK) == key) return <u32>(entry >> 48) - 1 == zone;
    slot = (slot + 1) & (SLOT_COUNT - 1);
  }
  joined++;
  assert(joined + count < SLOT_COUNT, "zones: more tags have joined than the map holds");
  store<u64>(slots + ((<usize>slot) << 3), key | ((<u64>(zone + 1)) << 48));
  store<u16>(zoneRoutes + ((<usize>zone) << 2), <u16>outer, 2);
  return true;
}

/**
 * How frames leave to a zone: the port or PORT_NONE in the low half, above it the VLAN tag that tagged
 * frames carry then, 0 = the one they have.
 */
export function routeOfZone(zone: u32): u32 {
  return load<u32>(zoneRoutes + ((<usize>zone) << 2));
}

/** Takes the ports of all zones from the network image in use. */
export function nameZonePorts(): void {
  for (let zone: u32 = 0; zone < count; zone++) {
    const port = portOfVpc(zoneVpcAndOuter(zone) & 0xffff);
    store<u16>(zoneRoutes + ((<usize>zone) << 2), <u16>port);
  }
}

function portOfVpc(vpc: u32): u32 {
  if (image == 0) return PORT_NONE;
  const record = lookUp((SPACE_VPC << 24) | vpc, 0, 0, 0);
  return record == NOTHING ? PORT_NONE : load<u32>(record, VPC_PORT);
}

/** Zones that have a number. */
export function zoneCount(): u32 {
  return count;
}

/** The VPC (low 16 bits) and outer VLAN id (high 16 bits) of a zone. */
export function zoneVpcAndOuter(zone: u32): u32 {
  return zone < count ? load<u32>(names + ((<usize>zone) << 3)) : 0;
}

/** The inner VLAN id of a zone. */
export function zoneInner(zone: u32): u32 {
  return zone < count ? load<u32>(names + ((<usize>zone) << 3), 4) : 0;
}
