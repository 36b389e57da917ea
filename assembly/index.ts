/**
 * The engine's exports, and nothing else. Sizes and seeds come through the configuration block
 * (CONFIG_*), addresses go back through the layout block (LAYOUT_*), both in abi.ts.
 */
import {
  ABI_VERSION,
  CAPACITY_BYTES,
  CAPACITY_COUNT_MAX,
  COMPACT_STATE,
  CONFIG_ARENA_BYTES,
  CONFIG_FLOW_COUNT_MAX,
  CONFIG_FLOW6_COUNT_MAX,
  CONFIG_NETWORK_BYTES,
  CONFIG_TABLES_BYTES,
  COUNTERS_BYTES,
  FLOW_SERVICE,
  HANDLE_IPV6,
  LAYOUT_ARENA,
  LAYOUT_CAPACITIES,
  LAYOUT_CAPACITY_CHANGES,
  LAYOUT_COMPACT_TABLE_BYTES,
  LAYOUT_COUNTERS,
  LAYOUT_DEPARTURES,
  LAYOUT_EMITS,
  LAYOUT_FLOW_RECORDS,
  LAYOUT_FLOW_TABLE_BYTES,
  LAYOUT_FLOW6_RECORDS,
  LAYOUT_FLOW6_TABLE_BYTES,
  LAYOUT_FRAMES,
  LAYOUT_NETWORK,
  LAYOUT_PORTS,
  LAYOUT_SERVICES,
  LAYOUT_TABLES,
  LAYOUT_TALLIES,
  LAYOUT_TOTAL_BYTES,
  LAYOUT_TRAITS,
  LAYOUT_USAGE,
  PORT_BYTES,
  PORT_COUNT_MAX,
  SERVICE_BYTES,
  SERVICE_COUNT_MAX,
  SERVICE_NONE,
  TALLY_BYTES,
  TRAITS_BYTES,
  USAGE_BYTES,
} from "./abi";
import { resetSelection } from "./capture/select";
import { moveClock, resetClock } from "./clock";
import { forgetAll, prepareSweep } from "./compact/flow";
import { recordOf, reserveCompact, slotCount } from "./compact/table";
import { departures, reserveDevices } from "./depart";
import { emits, reserveEmits } from "./emit";
import { forgetExpired, sweepGroups, terminateIn } from "./flow/expiry";
import { forgetExhausted } from "./flow/port";
import { prepareStates } from "./flow/state";
import { flowTable, isLive, recordAt, reserveTable } from "./flow/table";
import { reserveFragments } from "./fragment";
import { seedHash } from "./hash";
import {
  begin,
  capacities,
  capacityChanges,
  commit,
  config,
  counters,
  frames,
  layout,
  ownServices,
  ports,
  reserve,
  setImage,
  tallies,
  totalBytes,
  traits,
  usage,
} from "./memory";
import { reserveCrossings } from "./network/nat64";
import { reserveDatagrams } from "./pp2/datagram";
import { nameZonePorts, reserveZones } from "./zone";

export { processBatch } from "./batch";
export { walkCompact, walkKeep, walkTimeNs } from "./capture/described";
export { walkPcap } from "./capture/pcap";
export { walkPcapng } from "./capture/pcapng";
export { writeRecord } from "./capture/record";
export {
  beginSelection,
  ownLatestMs,
  selectFrames,
} from "./capture/select";
export { processCompact } from "./compact/batch";
export { decisionsAddress, listDecisions } from "./decision";
export { listDepartures, placeAddress } from "./depart";
export { digestFrames, xxh64 } from "./digest";
export { emitCount } from "./emit";
export { explainFrame } from "./explain";
export {
  adoptFlow,
  decisionAddress,
  forgetFlow,
  writeDecision,
  writeTuple,
} from "./flow/decision";
export * from "./gather";
export * from "./measure";
export { askFirst } from "./memory";
export * from "./pp2/codec";
export { joinZone, zoneInner, zoneOf, zoneVpcAndOuter } from "./zone";

const TOUCH_BYTES_MAX: u64 = 32 << 20;
const PAGE_BYTES: u64 = 4096;
/** Where the flow tables begin. */
let tablesStart: u64 = 0;

export function abiVersion(): u32 {
  return ABI_VERSION;
}

export function configAddress(): usize {
  return config;
}

export function layoutAddress(): usize {
  return layout;
}

/**
 * Lays everything out according to the configuration block, empty. May be called again: whatever
 * was there is forgotten. Returns 0, or 1 when the memory cannot be had.
 */
export function create(): u32 {
  wipe();
  setImage(0);
  begin();
  reserveZones();
  reserveFragments();
  reserveDevices();
  reserveEmits();
  store<u32>(layout, <u32>reserve(load<u32>(config, CONFIG_TABLES_BYTES)), LAYOUT_TABLES);
  store<u32>(layout, <u32>reserve(load<u32>(config, CONFIG_ARENA_BYTES)), LAYOUT_ARENA);
  const images = reserve(<u64>load<u32>(config, CONFIG_NETWORK_BYTES) * 2);
  store<u32>(layout, <u32>images, LAYOUT_NETWORK);
  reserveCrossings(load<u32>(config, CONFIG_NETWORK_BYTES) != 0);
  const table4 = flowTable(0);
  const table6 = flowTable(1);
  tablesStart = totalBytes();
  const bytes4 = reserveTable(table4, 0, load<u32>(config, CONFIG_FLOW_COUNT_MAX));
  const tables6 = totalBytes();
  const bytes6 = reserveTable(table6, 1, load<u32>(config, CONFIG_FLOW6_COUNT_MAX));
  reserveDatagrams();
  const compactBytes = reserveCompact();
  if (!commit()) return 1;
  touchSmall(tablesStart, tables6);
  store<u32>(layout, <u32>frames, LAYOUT_FRAMES);
  store<u32>(layout, <u32>ports, LAYOUT_PORTS);
  store<u32>(layout, <u32>ownServices, LAYOUT_SERVICES);
  store<u32>(layout, <u32>usage, LAYOUT_USAGE);
  store<u32>(layout, <u32>tallies, LAYOUT_TALLIES);
  store<u32>(layout, <u32>traits, LAYOUT_TRAITS);
  store<u32>(layout, <u32>counters, LAYOUT_COUNTERS);
  store<u32>(layout, <u32>capacities, LAYOUT_CAPACITIES);
  store<u32>(layout, <u32>capacityChanges, LAYOUT_CAPACITY_CHANGES);
  store<u32>(layout, <u32>departures, LAYOUT_DEPARTURES);
  store<u32>(layout, <u32>emits, LAYOUT_EMITS);
  store<u32>(layout, <u32>table4.records, LAYOUT_FLOW_RECORDS);
  store<u32>(layout, <u32>table6.records, LAYOUT_FLOW6_RECORDS);
  store<u32>(layout, <u32>bytes4, LAYOUT_FLOW_TABLE_BYTES);
  store<u32>(layout, <u32>bytes6, LAYOUT_FLOW6_TABLE_BYTES);
  store<u32>(layout, <u32>compactBytes, LAYOUT_COMPACT_TABLE_BYTES);
  store<u32>(layout, <u32>totalBytes(), LAYOUT_TOTAL_BYTES);
  seedHash();
  prepareStates();
  forgetExhausted();
  prepareSweep();
  resetClock();
  resetSelection();
  return 0;
}

/**
 * The first touch of a page may cost microseconds: flow tables that are not large are touched now,
 * so that a first packet does not pay. Most of a large one may never be used. From `start` on lies
 * the table of IPv4, from `start6` on that of IPv6, which is left when both are too much.
 */
function touchSmall(start: u64, start6: u64): void {
  const end = totalBytes();
  if (end - start <= TOUCH_BYTES_MAX) touch(start, end);
  else if (start6 - start <= TOUCH_BYTES_MAX) touch(start, start6);
}

/** Touches all flow tables, however large, so that no packet pays for it. They are empty still. */
export function touchTables(): void {
  const flowCount = flowTable(0).flowCount + flowTable(1).flowCount;
  assert(flowCount == 0, "engine: tables with flows were to be touched");
  touch(tablesStart, totalBytes());
}

/** Writes a byte of every page of zeros. To look at it first would cost a second fault. */
function touch(start: u64, end: u64): void {
  for (let at = start; at < end; at += PAGE_BYTES) store<u8>(<usize>at, 0);
}

/** Clears what an earlier `create` has used. Fresh memory is zero already and stays untouched. */
function wipe(): void {
  const end = min<u64>(totalBytes(), (<u64>memory.size()) << 16);
  if (end == 0) return;
  memory.fill(__heap_base, 0, <usize>end - __heap_base);
  memory.fill(counters, 0, COUNTERS_BYTES);
  memory.fill(ports, 0, PORT_BYTES * PORT_COUNT_MAX);
  memory.fill(capacities, 0, CAPACITY_BYTES * CAPACITY_COUNT_MAX);
  store<u32>(capacityChanges, 0);
  memory.fill(ownServices, 0, SERVICE_BYTES * SERVICE_COUNT_MAX);
  memory.fill(usage, 0, USAGE_BYTES * SERVICE_COUNT_MAX);
  memory.fill(tallies, 0, TALLY_BYTES * SERVICE_COUNT_MAX);
  memory.fill(traits, 0, TRAITS_BYTES * SERVICE_COUNT_MAX);
}

/** Handle of the first flow after `handle` (0 or HANDLE_IPV6 to begin), 0 at the end of its table. */
export function flowAfter(handle: u32): u32 {
  const table = flowTable(u32((handle & HANDLE_IPV6) != 0));
  const slotCount = table.groupCount << 4;
  for (let slot = handle & ~HANDLE_IPV6; slot < slotCount; slot++) {
    if (isLive(table, slot)) return (slot + 1) | (handle & HANDLE_IPV6);
  }
  return 0;
}

/** Handle of the first flow of the compact table after `handle` (0 to begin), 0 at its end. */
export function compactAfter(handle: u32): u32 {
  for (let slot = handle; slot < slotCount(); slot++) {
    if (load<u8>(recordOf(slot), COMPACT_STATE) != 0) return slot + 1;
  }
  return 0;
}

/** Forgets every flow of the compact table whose port nobody may miss at `nowMs`; returns how many. */
export function expireCompact(nowMs: u32): u32 {
  moveClock(nowMs);
  return forgetAll(nowMs);
}

/** Address of the compact record that a handle names, 0 when no flow lives there. */
export function compactRecord(handle: u32): usize {
  const slot = handle - 1;
  if (slot >= slotCount() || load<u8>(recordOf(slot), COMPACT_STATE) == 0) return 0;
  return recordOf(slot);
}

/** Address of the record that a handle names, 0 when no flow lives there. */
export function flowRecord(handle: u32): usize {
  const table = flowTable(u32((handle & HANDLE_IPV6) != 0));
  const slot = (handle & ~HANDLE_IPV6) - 1;
  if (slot >= table.groupCount << 4 || !isLive(table, slot)) return 0;
  return recordAt(table, slot);
}

/**
 * Number of the service that made a flow, also when the flow has ended since; SERVICE_NONE when there
 * is no such slot. A slot that has a new flow tells of that one.
 */
export function serviceOfFlow(handle: u32): u32 {
  const table = flowTable(u32((handle & HANDLE_IPV6) != 0));
  const slot = (handle & ~HANDLE_IPV6) - 1;
  if (slot >= table.groupCount << 4) return SERVICE_NONE;
  return load<u16>(recordAt(table, slot), FLOW_SERVICE);
}

/**
 * Swaps the network image at `address` in, 0 = none. It stays as it is from here on; the one before
 * may be written over once no flow asks for its services, which the new image has all.
 */
export function useImage(address: usize): void {
  setImage(address);
  prepareStates();
  nameZonePorts();
  forgetExhausted();
}

/**
 * Ends the live flows of a service (or of any, as SERVICE_NONE) whose other end on the service side
 * is the target `address` and `portBe` (0 = any port), or any as `addressBytes` is 0: their next
 * packets are strays. Looks at `count` groups from `first` on, those of IPv4 before those of IPv6.
 * Returns how many.
 */
export function terminate(
  service: u32,
  address: usize,
  addressBytes: u32,
  portBe: u32,
  first: u32,
  count: u32,
): u32 {
  let ended: u32 = 0;
  let before: u32 = 0;
  for (let isIpv6: u32 = 0; isIpv6 < 2; isIpv6++) {
    const table = flowTable(isIpv6);
    const groups = table.groupCount;
    const from = placeIn(first, before, groups);
    const to = placeIn(first + count, before, groups);
    before += groups;
    if (addressBytes == 16 && !isIpv6) continue;
    ended += terminateIn(table, from, to, service, address, addressBytes, portBe);
  }
  if (ended > 0) forgetExhausted();
  return ended;
}

/** Where a place counted over both tables lies in a table of `groups`, or its nearer end. */
function placeIn(place: u32, before: u32, groups: u32): u32 {
  return place > before ? min<u32>(place - before, groups) : 0;
}

/** Groups of both tables, of 16 slots each. */
export function groupCount(): u32 {
  return flowTable(0).groupCount + flowTable(1).groupCount;
}

/**
 * Forgets every flow that is over at `nowMs` in `count` groups from `first` on, those of IPv4 before
 * those of IPv6, and those that the clock's step leaves behind; returns how many.
 */
export function expire(nowMs: u32, first: u32, count: u32): u32 {
  const flows = flowTable(0).flowCount + flowTable(1).flowCount;
  let before: u32 = 0;
  moveClock(nowMs);
  for (let isIpv6: u32 = 0; isIpv6 < 2; isIpv6++) {
    const table = flowTable(isIpv6);
    const groups = table.groupCount;
    const from = placeIn(first, before, groups);
    const to = placeIn(first + count, before, groups);
    before += groups;
    forgetExpired(table, nowMs, from, to);
  }
  return flows - flowTable(0).flowCount - flowTable(1).flowCount;
}

/** Takes every flow that is over at `nowMs` out of the active ones, as the sweep does in time. */
export function sweepAll(nowMs: u32): void {
  moveClock(nowMs);
  sweepGroups(flowTable(0), nowMs, flowTable(0).groupCount);
  sweepGroups(flowTable(1), nowMs, flowTable(1).groupCount);
}
