/**
 * Ageing. Whether a flow is over is decided when somebody asks (isExpired at lookup), so timeouts
 * are exact; the sweep only gives memory back. It walks the table in step with the virtual clock,
 * one round each SWEEP_ROUND_MS, and never more than SWEEP_SLOTS_PER_PACKET slots a packet.
 */
import {
  COUNTER_FLOWS_ACTIVE,
  COUNTER_FLOWS_EXPIRED,
  FLOW_FLAG_RETIRED,
  FLOW_FLAGS,
  FLOW_SERVICE,
  SERVICE_BYTES,
  SERVICE_FLAG_ADOPT,
  SERVICE_FLAGS,
  USAGE_BYTES,
  USAGE_FLOWS_ACTIVE,
} from "../abi";
import { countDown, countUp } from "../counters";
import { counters, services, usage } from "../memory";
import { isExpired, isForgettable } from "./state";
import {
  FlowTable,
  GROUP_SLOTS,
  groupTags,
  isLive,
  recordAt,
  releaseSlot,
  tagMatches,
} from "./table";

const SWEEP_ROUND_MS: u32 = 10000;
const SWEEP_SLOTS_PER_PACKET: u32 = 2;

/** Takes a flow out of the active ones. */
function retire(record: usize): void {
  const service = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  countDown(counters + COUNTER_FLOWS_ACTIVE);
  countDown(service + USAGE_FLOWS_ACTIVE);
  countUp(counters + COUNTER_FLOWS_EXPIRED);
  store<u8>(record, load<u8>(record, FLOW_FLAGS) | <u8>FLOW_FLAG_RETIRED, FLOW_FLAGS);
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
  if (table.flowCount == 0) {
    table.sweptMs = nowMs;
    return;
  }
  const elapsedMs = <i32>(nowMs - table.sweptMs);
  if (elapsedMs <= 0) return;
  const due = (<u64>table.groupCount * <u64>elapsedMs) / SWEEP_ROUND_MS;
  if (due == 0) return;
  table.sweptMs = nowMs;
  const groupsMax = max<u32>(1, (packetCount * SWEEP_SLOTS_PER_PACKET) / GROUP_SLOTS);
  sweepGroups(table, nowMs, <u32>min<u64>(due, groupsMax));
}

/** Three quarters full. */
function isCrowded(table: FlowTable): bool {
  return table.flowCount > table.flowCountMax - (table.flowCountMax >> 2);
}

/** Looks at `count` groups from where the last sweep stopped. */
export function sweepGroups(table: FlowTable, nowMs: u32, count: u32): void {
  let group = table.sweepCursor;
  for (let step: u32 = 0; step < count; step++) {
    if (group >= table.groupCount) group = 0;
    let live = ~tagMatches(groupTags(table, group), 0) & 0xffff;
    while (live) {
      const record = recordAt(table, group * GROUP_SLOTS + ctz(live));
      if (isForgettable(record, nowMs)) {
        if (!isKept(record) || isCrowded(table)) forget(table, record);
        else if (!isRetired(record)) retire(record);
      }
      live &= live - 1;
    }
    group++;
  }
  table.sweepCursor = group;
}

/** Forgets every flow that is over at `nowMs`, whatever holds its tuple; returns how many. */
export function forgetExpired(table: FlowTable, nowMs: u32): u32 {
  let count: u32 = 0;
  const slotCount = table.groupCount * GROUP_SLOTS;
  for (let slot: u32 = 0; slot < slotCount; slot++) {
    if (!isLive(table, slot)) continue;
    const record = recordAt(table, slot);
    if (!isExpired(record, nowMs)) continue;
    forget(table, record);
    count++;
  }
  return count;
}
