/**
 * The engine's exports, and nothing else. Sizes and seeds come through the configuration block
 * (CONFIG_*), addresses go back through the layout block (LAYOUT_*), both in abi.ts.
 */
import {
  ABI_VERSION,
  CONFIG_ARENA_BYTES,
  CONFIG_FLOW_COUNT_MAX,
  CONFIG_FLOW6_COUNT_MAX,
  CONFIG_TABLES_BYTES,
  COUNTERS_BYTES,
  HANDLE_IPV6,
  LAYOUT_ARENA,
  LAYOUT_COUNTERS,
  LAYOUT_EMITS,
  LAYOUT_FLOW_RECORDS,
  LAYOUT_FLOW_TABLE_BYTES,
  LAYOUT_FLOW6_RECORDS,
  LAYOUT_FLOW6_TABLE_BYTES,
  LAYOUT_FRAMES,
  LAYOUT_PORTS,
  LAYOUT_SERVICES,
  LAYOUT_TABLES,
  LAYOUT_TOTAL_BYTES,
  LAYOUT_USAGE,
  PORT_BYTES,
  PORT_COUNT_MAX,
  SERVICE_BYTES,
  SERVICE_COUNT_MAX,
  USAGE_BYTES,
} from "./abi";
import { emits, reserveEmits } from "./emit";
import { forgetExpired } from "./flow/expiry";
import { prepareStates } from "./flow/state";
import { flowTable, isLive, recordAt, reserveTable } from "./flow/table";
import { reserveFragments } from "./fragment";
import { seedHash } from "./hash";
import {
  begin,
  commit,
  config,
  counters,
  frames,
  layout,
  ports,
  reserve,
  services,
  totalBytes,
  usage,
} from "./memory";
import { reserveDatagrams } from "./pp2/datagram";
import { reserveOpenings } from "./pp2/stream";
import { reserveZones } from "./zone";

export { processBatch } from "./batch";
export * from "./capture/walk";
export { digestFrames, xxh64 } from "./digest";
export { emitCount } from "./emit";
export * from "./pp2/codec";
export { zoneInner, zoneOf, zoneVpcAndOuter } from "./zone";

const TOUCH_BYTES_MAX: u64 = 32 << 20;

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
  begin();
  reserveZones();
  reserveFragments();
  reserveEmits();
  store<u32>(layout, <u32>reserve(load<u32>(config, CONFIG_TABLES_BYTES)), LAYOUT_TABLES);
  store<u32>(layout, <u32>reserve(load<u32>(config, CONFIG_ARENA_BYTES)), LAYOUT_ARENA);
  const table4 = flowTable(0);
  const table6 = flowTable(1);
  const tables = totalBytes();
  const bytes4 = reserveTable(table4, 0, load<u32>(config, CONFIG_FLOW_COUNT_MAX));
  const bytes6 = reserveTable(table6, 1, load<u32>(config, CONFIG_FLOW6_COUNT_MAX));
  reserveOpenings();
  reserveDatagrams();
  if (!commit()) return 1;
  touchSmall(tables);
  store<u32>(layout, <u32>frames, LAYOUT_FRAMES);
  store<u32>(layout, <u32>ports, LAYOUT_PORTS);
  store<u32>(layout, <u32>services, LAYOUT_SERVICES);
  store<u32>(layout, <u32>usage, LAYOUT_USAGE);
  store<u32>(layout, <u32>counters, LAYOUT_COUNTERS);
  store<u32>(layout, <u32>emits, LAYOUT_EMITS);
  store<u32>(layout, <u32>table4.records, LAYOUT_FLOW_RECORDS);
  store<u32>(layout, <u32>table6.records, LAYOUT_FLOW6_RECORDS);
  store<u32>(layout, <u32>bytes4, LAYOUT_FLOW_TABLE_BYTES);
  store<u32>(layout, <u32>bytes6, LAYOUT_FLOW6_TABLE_BYTES);
  store<u32>(layout, <u32>totalBytes(), LAYOUT_TOTAL_BYTES);
  seedHash();
  prepareStates();
  return 0;
}

/**
 * The first touch of a page may cost microseconds: flow tables that are not large, from `start` on,
 * are touched now, so that a first packet does not pay. Most of a large one may never be used.
 */
function touchSmall(start: u64): void {
  const bytes = totalBytes() - start;
  if (bytes <= TOUCH_BYTES_MAX) memory.fill(<usize>start, 0, <usize>bytes);
}

/** Clears what an earlier `create` has used. Fresh memory is zero already and stays untouched. */
function wipe(): void {
  const end = min<u64>(totalBytes(), (<u64>memory.size()) << 16);
  if (end == 0) return;
  memory.fill(__heap_base, 0, <usize>end - __heap_base);
  memory.fill(counters, 0, COUNTERS_BYTES);
  memory.fill(ports, 0, PORT_BYTES * PORT_COUNT_MAX);
  memory.fill(services, 0, SERVICE_BYTES * SERVICE_COUNT_MAX);
  memory.fill(usage, 0, USAGE_BYTES * SERVICE_COUNT_MAX);
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

/** Address of the record that a handle names, 0 when no flow lives there. */
export function flowRecord(handle: u32): usize {
  const table = flowTable(u32((handle & HANDLE_IPV6) != 0));
  const slot = (handle & ~HANDLE_IPV6) - 1;
  if (slot >= table.groupCount << 4 || !isLive(table, slot)) return 0;
  return recordAt(table, slot);
}

/** Forgets every flow that is over at `nowMs`; returns how many. */
export function expire(nowMs: u32): u32 {
  return forgetExpired(flowTable(0), nowMs) + forgetExpired(flowTable(1), nowMs);
}
