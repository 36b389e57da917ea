/**
 * Ageing. Whether a flow is over is decided when somebody asks (isExpired at lookup), so timeouts
 * are exact; the sweep only gives memory back, and keeps ages within range (clock.ts). It walks the
 * table in step with the virtual clock, one round each SWEEP_ROUND_MS, and never more than
 * SWEEP_SLOTS_PER_PACKET slots a packet.
 */
import {
  CLOCK_WINDOW_MS,
  COUNTER_FLOWS_ACTIVE,
  COUNTER_FLOWS_EXPIRED,
  DIRECTION_FROM_CLIENT,
  FLOW_FLAG_RETIRED,
  FLOW_FLAGS,
  FLOW_LAST_SEEN_MS,
  FLOW_SERVICE,
  FLOW_STATE,
  FLOW_STATE_CLOSING,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_TERMINATED,
  KEY_PROTOCOL,
  SERVICE_BYTES,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAGS,
  SERVICE_NONE,
  SIDE_SERVICE,
  USAGE_ACTIVE_TCP,
  USAGE_ACTIVE_UDP,
  USAGE_BYTES,
  USAGE_FLOWS_ACTIVE,
  USAGE_IDLE_TIMEOUTS,
} from "../abi";
import { countDown, countUp } from "../counters";
import { counters, services, usage } from "../memory";
import { isEmbedded } from "../network/nat64";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../packet";
import { addressOf, portsOf } from "../rewrite";
import { forgetExhausted } from "./port";
import { inRange, isExpired, isForgettable } from "./state";
import { FlowTable, GROUP_SLOTS, groupTags, recordAt, releaseSlot, tagMatches } from "./table";

const SWEEP_ROUND_MS: u32 = 10000;
const SWEEP_SLOTS_PER_PACKET: u32 = 2;
/** Groups looked at when a flow of an adopting service finds the table crowded, and any finds it full. */
const ROOM_GROUPS: u32 = 1;
const RESCUE_GROUPS: u32 = 16;

/** Takes a flow out of the active ones. */
function retire(record: usize): void {
  const service = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  countDown(counters + COUNTER_FLOWS_ACTIVE);
  countDown(service + USAGE_FLOWS_ACTIVE);
  const protocol = load<u8>(record, KEY_PROTOCOL);
  if (protocol == PROTOCOL_TCP) countDown(service + USAGE_ACTIVE_TCP);
  else if (protocol == PROTOCOL_UDP) countDown(service + USAGE_ACTIVE_UDP);
  if (isSilent(load<u8>(record, FLOW_STATE))) countUp(service + USAGE_IDLE_TIMEOUTS);
  countUp(counters + COUNTER_FLOWS_EXPIRED);
  store<u8>(record, load<u8>(record, FLOW_FLAGS) | <u8>FLOW_FLAG_RETIRED, FLOW_FLAGS);
}

/** The states in which a flow that is over has ended by silence: established, and not closed. */
function isSilent(state: u32): bool {
  const isClosed = state == FLOW_STATE_CLOSING || state == FLOW_STATE_TERMINATED;
  return state != FLOW_STATE_HALF_OPEN && !isClosed;
}

function isRetired(record: usize): bool {
  return (load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_RETIRED) != 0;
}

/**
 * Captures, which services that adopt flows are for, fall silent and go on: such a flow keeps its
 * translation as long as there is room. To all others a flow that is over is gone.
 */
function isKept(record: usize): bool {
  const service = services + <usize>load<u16>(record, FLOW_SERVICE) * SERVICE_BYTES;
  return (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) != 0;
}

/** Forgets a flow and takes it out of the active ones. */
export function forget(table: FlowTable, record: usize): void {
  if (!isRetired(record)) retire(record);
  releaseSlot(table, record);
}

/**
 * Forgets the flow if it is over for every packet, whether the sweep has come by or not: what
 * happens to a packet must not depend on how packets were batched. True when it is gone.
 */
export function forgetIfGone(table: FlowTable, record: usize, nowMs: u32): bool {
  return !isKept(record) && forgetIfOver(table, record, nowMs);
}

/** Forgets the flow if nobody may miss its tuples any more; true when it is gone. */
export function forgetIfOver(table: FlowTable, record: usize, nowMs: u32): bool {
  if (!isForgettable(record, nowMs)) return false;
  forget(table, record);
  return true;
}

/** Looks at the slots that are due at `nowMs`, at most 2 a packet of the batch. */
export function sweep(table: FlowTable, nowMs: u32, packetCount: u32): void {
  if (table.flowCount == 0) return restClock(table, nowMs);
  const elapsedMs = <i32>(nowMs - table.sweptMs);
  if (elapsedMs <= 0) return;
  const due = (<u64>table.groupCount * <u64>elapsedMs) / SWEEP_ROUND_MS;
  if (due == 0) return;
  table.sweptMs = nowMs;
  const groupsMax = max<u32>(1, (packetCount * SWEEP_SLOTS_PER_PACKET) / GROUP_SLOTS);
  sweepGroups(table, nowMs, <u32>min<u64>(due, groupsMax));
}

/** Keeps an empty table's clocks at the present. */
function restClock(table: FlowTable, nowMs: u32): void {
  table.sweptMs = nowMs;
  table.agedMs = nowMs;
  table.roundMs = nowMs;
}

/**
 * Brings the ages of all flows into range when the sweep has not done so of late, or the clock has
 * stepped back (clock.ts).
 */
export function ageFlows(table: FlowTable, nowMs: u32, isBack: bool): void {
  if (table.flowCount == 0) return restClock(table, nowMs);
  const sinceMs = <i32>(nowMs - table.agedMs);
  if (!isBack && sinceMs < <i32>(CLOCK_WINDOW_MS / 2)) return;
  sweepGroups(table, nowMs, table.groupCount);
  restClock(table, nowMs);
}

/** Three quarters full. */
export function isCrowded(table: FlowTable): bool {
  return table.flowCount > table.flowCountMax - (table.flowCountMax >> 2);
}

/** Looks at `count` groups from where the last sweep stopped. */
export function sweepGroups(table: FlowTable, nowMs: u32, count: u32): void {
  let group = table.sweepCursor;
  for (let step: u32 = 0; step < count; step++) {
    if (group >= table.groupCount) {
      group = 0;
      table.agedMs = table.roundMs;
      table.roundMs = nowMs;
    }
    let live = ~tagMatches(groupTags(table, group), 0) & 0xffff;
    while (live) {
      const record = recordAt(table, group * GROUP_SLOTS + ctz(live));
      const seenMs = inRange(load<u32>(record, FLOW_LAST_SEEN_MS), table.agedMs, nowMs);
      store<u32>(record, seenMs, FLOW_LAST_SEEN_MS);
      if (isForgettable(record, nowMs)) {
        if (!isKept(record)) forget(table, record);
        else if (!isRetired(record)) retire(record);
      }
      live &= live - 1;
    }
    group++;
  }
  table.sweepCursor = group;
}

/**
 * Makes room for a flow of `service`; false when the table is full. Which of the flows that are kept
 * a crowded table forgets must depend on the packets alone, not on batches: flows that begin, not
 * the sweep, forget them, with a cursor of their own.
 */
export function makeRoom(table: FlowTable, service: usize, nowMs: u32): bool {
  const adopts = (load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_ADOPT) != 0;
  if (adopts && isCrowded(table)) forgetIn(table, nowMs, ROOM_GROUPS);
  if (table.flowCount < table.flowCountMax) return true;
  forgetIn(table, nowMs, RESCUE_GROUPS);
  return table.flowCount < table.flowCountMax;
}

/** Forgets what may be forgotten in `count` groups from where the last flow that began stopped. */
function forgetIn(table: FlowTable, nowMs: u32, count: u32): void {
  let group = table.roomCursor;
  for (let step: u32 = 0; step < count; step++) {
    if (group >= table.groupCount) group = 0;
    let live = ~tagMatches(groupTags(table, group), 0) & 0xffff;
    while (live) {
      forgetIfOver(table, recordAt(table, group * GROUP_SLOTS + ctz(live)), nowMs);
      live &= live - 1;
    }
    group++;
  }
  table.roomCursor = group;
}

/**
 * Forgets every flow that is over at `nowMs`, whatever holds its tuple, in groups from `first` up to
 * `end`.
 */
export function forgetExpired(table: FlowTable, nowMs: u32, first: u32, end: u32): void {
  const before = table.flowCount;
  for (let group = first; group < end; group++) {
    let live = ~tagMatches(groupTags(table, group), 0) & 0xffff;
    while (live) {
      const record = recordAt(table, group * GROUP_SLOTS + ctz(live));
      live &= live - 1;
      if (isExpired(record, nowMs)) forget(table, record);
    }
  }
  if (table.flowCount < before) forgetExhausted();
}

/** Ends flows by service and target in groups from `first` up to `end`: see `terminate` in index.ts. */
export function terminateIn(
  table: FlowTable,
  first: u32,
  end: u32,
  service: u32,
  address: usize,
  addressBytes: u32,
  portBe: u32,
): u32 {
  let count: u32 = 0;
  for (let group = first; group < end; group++) {
    let live = ~tagMatches(groupTags(table, group), 0) & 0xffff;
    while (live) {
      const record = recordAt(table, group * GROUP_SLOTS + ctz(live));
      live &= live - 1;
      if (!isMeant(table, record, service, address, addressBytes, portBe)) continue;
      store<u8>(record, <u8>FLOW_STATE_TERMINATED, FLOW_STATE);
      count++;
    }
  }
  return count;
}

function isMeant(
  table: FlowTable,
  record: usize,
  service: u32,
  address: usize,
  addressBytes: u32,
  portBe: u32,
): bool {
  if (service != SERVICE_NONE && <u32>load<u16>(record, FLOW_SERVICE) != service) return false;
  if (load<u8>(record, FLOW_STATE) == <u8>FLOW_STATE_TERMINATED) return false;
  if (addressBytes != 0) {
    let target = addressOf(record, <u8>table.isIpv6, SIDE_SERVICE, false);
    // IPv6 flows have IPv4 targets under the prefix of NAT64.
    if (table.isIpv6 && addressBytes == 4) target = isEmbedded(target) ? target + 12 : 0;
    if (target == 0 || memory.compare(target, address, addressBytes) != 0) return false;
  }
  return portBe == 0 || servicePortOf(record) == portBe;
}

/** The target's port on the service side, network order. */
function servicePortOf(record: usize): u32 {
  const ports = portsOf(record, SIDE_SERVICE, DIRECTION_FROM_CLIENT);
  return ports >> 16;
}
