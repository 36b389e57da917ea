/**
 * Life of a compact flow: states and timeouts are those of flow/state.ts, counters those of the one
 * service, number 0. A flow ends when it is forgotten: as its slot is its translated port, that is
 * no sooner than nobody may miss that port any more (CONFIG_TUPLE_HOLD_MS).
 */
import {
  COMPACT_CLIENT_ADDRESS_BE,
  COMPACT_CLIENT_PORT_BE,
  COMPACT_LAST_SEEN_MS,
  COMPACT_OCTETS_CLIENT,
  COMPACT_PACKETS_CLIENT_SHIFT,
  COMPACT_PACKETS_SERVICE_SHIFT,
  COMPACT_STATE,
  COUNTER_FLOWS_ACTIVE,
  COUNTER_FLOWS_ACTIVE_MAX,
  COUNTER_FLOWS_CREATED,
  COUNTER_FLOWS_EXPIRED,
  COUNTER_FLOWS_REOPENED,
  COUNTER_FLOWS_TCP,
  COUNTER_FLOWS_UDP,
  DIRECTION_FROM_CLIENT,
  DIRECTION_FROM_SERVICE,
  USAGE_FLOWS_ACTIVE,
  USAGE_FLOWS_CREATED,
  USAGE_PORTS_EXHAUSTED,
} from "../abi";
import { countDown, countUp } from "../counters";
import { firstState, holdMsOf, inRange, timeoutMsOf } from "../flow/state";
import { tagMatches } from "../flow/table";
import { counters, usage } from "../memory";
import { Packet, PROTOCOL_UDP, TCP_ACK, TCP_RST, TCP_SYN } from "../packet";
import {
  firstGroup,
  groupCount,
  groupTags,
  recordOf,
  releaseSlot,
  secondGroup,
  slotOfTags,
  takeSlot,
} from "./table";

const SWEEP_ROUND_MS: u32 = 10000;
const PACKETS_PER_GROUP: u32 = 8;

let sweepGroup: u32 = 0;
let sweptMs: u32 = 0;
let packetCount: u32 = 0;
let dueGroups: u32 = 0;

/** Ageing begins anew. */
export function prepareSweep(): void {
  sweepGroup = 0;
  sweptMs = 0;
  packetCount = 0;
  dueGroups = 0;
}

/** FLOW_STATE_* of a record that is taken. */
export function stateOf(record: usize): u32 {
  return <u32>load<u8>(record, COMPACT_STATE) - 1;
}

export function setState(record: usize, state: u32): void {
  store<u8>(record, <u8>(state + 1), COMPACT_STATE);
}

function idleMs(record: usize, nowMs: u32): i32 {
  return <i32>(nowMs - load<u32>(record, COMPACT_LAST_SEEN_MS));
}

/** True when the flow has been idle longer than its state allows. Time may step back. */
export function isOver(record: usize, nowMs: u32): bool {
  return idleMs(record, nowMs) > <i32>timeoutMsOf(stateOf(record));
}

/** True when, beyond that, nobody may miss its port any more. */
function isForgettable(record: usize, nowMs: u32): bool {
  return idleMs(record, nowMs) > <i32>holdMsOf(stateOf(record));
}

/** What may begin a flow: the first segment of a TCP connection, any UDP datagram. */
export function mayBegin(packet: Packet): bool {
  if (packet.protocol == PROTOCOL_UDP) return true;
  return (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/** Makes the flow that a packet of its client begins; 0 when the ports for it are in use. */
export function begin(packet: Packet, nowMs: u32): usize {
  let record = takeSlot(packet);
  if (record == 0) {
    forgetIn(firstGroup(packet), nowMs);
    forgetIn(secondGroup(packet), nowMs);
    record = takeSlot(packet);
  }
  if (record == 0) {
    countUp(usage + USAGE_PORTS_EXHAUSTED);
    return 0;
  }
  store<u64>(record, load<u64>(<usize>packet.sourceAddress), COMPACT_CLIENT_ADDRESS_BE);
  store<u32>(record, load<u32>(<usize>packet.transport), COMPACT_CLIENT_PORT_BE);
  start(record, packet, nowMs);
  countUp(usage + USAGE_FLOWS_ACTIVE);
  countUp(counters + COUNTER_FLOWS_ACTIVE);
  const active = load<u64>(counters, COUNTER_FLOWS_ACTIVE);
  if (active > load<u64>(counters, COUNTER_FLOWS_ACTIVE_MAX)) {
    store<u64>(counters, active, COUNTER_FLOWS_ACTIVE_MAX);
  }
  countCreated(packet);
  return record;
}

/** A flow that is over begins again, with the port that it had. */
export function beginAgain(record: usize, packet: Packet, nowMs: u32): void {
  countUp(counters + COUNTER_FLOWS_EXPIRED);
  countCreated(packet);
  start(record, packet, nowMs);
}

/** A SYN on the tuple of a connection that has ended. */
export function reopen(record: usize, packet: Packet, nowMs: u32): void {
  countUp(counters + COUNTER_FLOWS_REOPENED);
  start(record, packet, nowMs);
}

/** First state and empty counters. */
function start(record: usize, packet: Packet, nowMs: u32): void {
  const state = firstState(packet.protocol, packet.flags, DIRECTION_FROM_CLIENT);
  store<u32>(record, nowMs, COMPACT_LAST_SEEN_MS);
  store<u64>(record, 0, COMPACT_OCTETS_CLIENT);
  store<u64>(record, <u64>(state + 1), COMPACT_STATE);
}

function countCreated(packet: Packet): void {
  countUp(usage + USAGE_FLOWS_CREATED);
  countUp(counters + COUNTER_FLOWS_CREATED);
  const isUdp = packet.protocol == PROTOCOL_UDP;
  countUp(counters + <usize>(isUdp ? COUNTER_FLOWS_UDP : COUNTER_FLOWS_TCP));
}

const PACKETS_MASK: u64 = 0x0fffffff;

/** Counts a packet of a flow and moves the flow's clock. Counts of both directions share a word. */
export function account(record: usize, bytes: u32, direction: u32, nowMs: u32): void {
  const octets = record + <usize>(COMPACT_OCTETS_CLIENT + (direction << 2));
  store<u32>(octets, load<u32>(octets) + bytes);
  const shift = select<u64>(
    COMPACT_PACKETS_SERVICE_SHIFT,
    COMPACT_PACKETS_CLIENT_SHIFT,
    direction == DIRECTION_FROM_SERVICE,
  );
  const before = load<u64>(record, COMPACT_STATE);
  const after = before + ((<u64>1) << shift);
  const changed = (before ^ after) & (PACKETS_MASK << shift);
  store<u64>(record, before ^ changed, COMPACT_STATE);
  store<u32>(record, nowMs, COMPACT_LAST_SEEN_MS);
}

function forget(record: usize): void {
  countDown(counters + COUNTER_FLOWS_ACTIVE);
  countDown(usage + USAGE_FLOWS_ACTIVE);
  countUp(counters + COUNTER_FLOWS_EXPIRED);
  releaseSlot(record);
}

/** Forgets what may be forgotten of a group; returns how many. */
function forgetIn(groupAt: usize, nowMs: u32): u32 {
  let count: u32 = 0;
  let live = ~tagMatches(groupAt, 0) & 0xffff;
  while (live) {
    const record = recordOf(slotOfTags(groupAt) + ctz(live));
    live &= live - 1;
    if (!isForgettable(record, nowMs)) continue;
    forget(record);
    count++;
  }
  return count;
}

/**
 * Ageing, asked once for each packet: a round of the table each ten seconds of the clock, a group
 * every eight packets at most. As freed ports are given out again, what is swept when must follow
 * from the packets alone, not from how they were batched.
 */
export function sweep(nowMs: u32): void {
  if (++packetCount % PACKETS_PER_GROUP != 0) return;
  const elapsedMs = <i32>(nowMs - sweptMs);
  if (elapsedMs > 0) {
    const due = (<u64>groupCount() * <u64>elapsedMs) / SWEEP_ROUND_MS;
    if (due > 0) sweptMs = nowMs;
    dueGroups = <u32>min<u64>(due + dueGroups, groupCount());
  }
  if (dueGroups == 0) return;
  dueGroups--;
  if (sweepGroup >= groupCount()) sweepGroup = 0;
  forgetIn(groupTags(sweepGroup++), nowMs);
}

/** Brings the ages of all flows into range; each lies within range of `agedMs` (clock.ts). */
export function ageCompact(agedMs: u32, nowMs: u32): void {
  for (let group: u32 = 0; group < groupCount(); group++) {
    const groupAt = groupTags(group);
    let live = ~tagMatches(groupAt, 0) & 0xffff;
    while (live) {
      const record = recordOf(slotOfTags(groupAt) + ctz(live));
      live &= live - 1;
      const seenMs = inRange(load<u32>(record, COMPACT_LAST_SEEN_MS), agedMs, nowMs);
      store<u32>(record, seenMs, COMPACT_LAST_SEEN_MS);
    }
  }
}

/** Forgets every flow that may be forgotten at `nowMs`; returns how many. */
export function forgetAll(nowMs: u32): u32 {
  let count: u32 = 0;
  for (let group: u32 = 0; group < groupCount(); group++)
    count += forgetIn(groupTags(group), nowMs);
  return count;
}
