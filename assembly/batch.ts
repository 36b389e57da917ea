/**
 * The batch loop: the one function that holds the whole way of a packet.
 *
 *   parse      every frame's tuple and hash                                      stages.ts
 *   touch      the lines that the hashes point to (tags, index), all at once
 *   probe      tags and index cells: which record probably holds the flow
 *   touch      those records, all at once
 *   finish     in order: verify, create, count, rewrite, give the verdict        here
 *
 * WebAssembly has no prefetch instruction. A loop that does nothing but load one byte of each line
 * keeps a dozen cache misses in flight, which is what makes a large flow table fast. Only `finish`
 * changes state, in the order of the frames, so the result does not depend on the batch size.
 */
import {
  BATCH_COUNT_MAX,
  COUNTER_VERDICTS,
  DIRECTION_FROM_CLIENT,
  FLOW_FLAG_HEADER,
  FLOW_PACKETS_CLIENT,
  FLOW_SERVICE,
  FLOW_STATE,
  FLOW_STATE_ESTABLISHED,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_PROPOSED,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_PORT,
  FRAME_PORT_OUT,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  PORT_BYTES,
  PORT_PEER,
  PORT_SIDE_CLIENT,
  PORT_SIDE_ROUTED,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  SERVICE_BYTES,
  SERVICE_FLAG_RESET_STRAYS,
  SERVICE_FLAGS,
  SERVICE_MTU_BYTES,
  SERVICE_NONE,
  SERVICE_POOL_COUNT,
  SERVICE_POOL6_COUNT,
  SERVICE_TRAITS,
  SIDE_CLIENT,
  SIDE_SERVICE,
  TRAIT_MTU_TOLD,
  TRAIT_NAT,
  USAGE_BYTES,
  USAGE_CROSSED_CLIENT,
  USAGE_CROSSED_SERVICE,
  USAGE_DROPPED,
  USAGE_RESETS_MADE,
  VERDICT_DROP_CAPACITY,
  VERDICT_DROP_FRAGMENT,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_TOO_LARGE,
  VERDICT_DROP_UNINTENDED,
  VERDICT_FORWARD,
  VERDICT_HOLD_UNDECIDED,
} from "./abi";
import { areInside, endOfWindow, leavesWindow } from "./admit";
import { countBy, countUp } from "./counters";
import { clearEmits } from "./emit";
import { account, countUsage, finishFast, forward, routeOut, tally, UNDONE } from "./established";
import { findInOtherZones } from "./flow/asymmetric";
import { propose } from "./flow/decision";
import { forget, forgetIfGone, sweep } from "./flow/expiry";
import {
  begin,
  beginAgain,
  moveState,
  OVER_GONE,
  OVER_STRAY,
  refusal,
  refusedBy,
  reopen,
} from "./flow/lifecycle";
import { isExpired, nextState, STATE_REOPEN } from "./flow/state";
import { FlowTable, findByClientSide, findByIndex, flowTable, handleOf } from "./flow/table";
import { findFragment, foundDirection, foundSide, rememberFragment } from "./fragment";
import { beginFast, countFresh } from "./fresh";
import { parseQuote, rewriteError } from "./icmp";
import { asksFirst, counters, frames, hasCrossings, ports, services, usage } from "./memory";
import { hindranceOf, takesError } from "./network/admission";
import { hasCapacity } from "./network/capacity";
import { clampSegments, tellMtu } from "./network/mtu";
import { crosses, crossIn, crossOut, takeGrown } from "./network/nat64";
import { crossErrorIn, crossErrorOut, hasCounterpart } from "./network/nat64-error";

import {
  FRAGMENT_FIRST,
  PACKET_BYTES,
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_FAST,
  PACKET_LATER,
  Packet,
  PROTOCOL_TCP,
  packetAt,
  quotedScratch,
  TCP_ACK,
  TCP_RST,
  TCP_SYN,
} from "./packet";
import { rewriteMoved, rewriteStream } from "./pp2/fast";
import { isOtherStream, passStream, streamFlags } from "./pp2/stream";
import { isAnswerable } from "./reply";
import { resetStray } from "./reset";
import { directionOf, rewriteAddresses, rewriteFast, rewritePacket } from "./rewrite";
import { findCandidates } from "./stages";

/**
 * Translates the first `count` frames of the batch in place. Returns false, and has done nothing,
 * when a frame does not lie in the arena or names a port that there is not.
 */
export function processBatch(count: u32): bool {
  assert(count <= BATCH_COUNT_MAX, "process: more frames than a batch holds");
  if (count == 0) return true;
  if (!areInside(count)) return false;
  clearEmits();
  findCandidates(count);
  finishBatch(count);
  return true;
}

/** All that changes anything: finishes the frames, whose candidates are known, then sweeps. */
export function finishBatch(count: u32): void {
  finishInTime(count);
  const nowMs = load<u32>(frames + <usize>((count - 1) * FRAME_BYTES), FRAME_TIME_MS);
  sweep(flowTable(0), nowMs, count);
  sweep(flowTable(1), nowMs, count);
}

/** Finishes the batch; the clock is moved right before each frame that leaves its window. */
function finishInTime(count: u32): void {
  let first: u32 = 0;
  do {
    const last = leavesWindow ? endOfWindow(first, count) : count;
    finish(first, last);
    first = last;
  } while (first < count);
}

/** Finishes the frames of the batch from `first` to before `last`. */
function finish(first: u32, last: u32): void {
  let fastCount: u64 = 0;
  let packet = packetAt(first);
  const end = frames + <usize>(last * FRAME_BYTES);
  for (
    let descriptor = frames + <usize>(first * FRAME_BYTES);
    descriptor < end;
    descriptor += FRAME_BYTES
  ) {
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    store<u16>(descriptor, load<u16>(port, PORT_PEER), FRAME_PORT_OUT);
    const bytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES); // as it came: it may be cut
    const direction = packet.kind == PACKET_FAST ? finishFast(descriptor, packet, port) : UNDONE;
    if (direction >= UNDONE) {
      if (direction == UNDONE) finishOther(descriptor, packet, port);
    } else {
      fastCount++;
      tally(load<u16>(<usize>packet.candidate, FLOW_SERVICE), direction, 1, bytes);
    }
    packet = changetype<Packet>(changetype<usize>(packet) + PACKET_BYTES);
  }
  countBy(counters + COUNTER_VERDICTS + VERDICT_FORWARD * 8, fastCount);
  countFresh();
}

/** Everything but packets of established IPv4 flows. */
function finishOther(descriptor: usize, packet: Packet, port: usize): void {
  if (packet.kind == PACKET_FAST && beginFast(descriptor, packet, port)) return;
  countFresh();
  finishSlow(descriptor, packet, port);
}

function giveVerdict(descriptor: usize, verdict: u32): void {
  store<u64>(descriptor, verdict, FRAME_VERDICT);
  countUp(counters + <usize>(COUNTER_VERDICTS + (verdict << 3)));
}

/** The long way, which takes everything. */
function finishSlow(descriptor: usize, packet: Packet, port: usize): void {
  if (packet.kind == PACKET_DECIDED) return giveVerdict(descriptor, packet.verdict);
  if (packet.kind == PACKET_LATER) return finishFragment(descriptor, packet, port);
  if (packet.kind == PACKET_ERROR) return finishError(descriptor, packet, port);
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const table = flowTable(packet.isIpv6);
  let record = find(table, packet, port, nowMs);
  let side = foundOn;
  if (record == 0) {
    record = findInOtherZones(table, packet, port, nowMs);
    side = SIDE_CLIENT;
  }
  if (record == 0) {
    if (mayCross(port) && crossIn(descriptor, packet)) {
      return finishSlow(descriptor, packet, port);
    }
    return finishNew(descriptor, packet, port, table, nowMs);
  }
  const direction = directionOf(record, side, packet);
  if (<u32>load<u8>(record, FLOW_STATE) == FLOW_STATE_PROPOSED) {
    return hold(descriptor, handleOf(table, record));
  }
  if (isExpired(record, nowMs)) {
    if (asksFirst) {
      forget(table, record);
      return finishNew(descriptor, packet, port, table, nowMs);
    }
    const service = <u32>load<u16>(record, FLOW_SERVICE);
    const became = beginAgain(table, record, packet, direction, nowMs);
    if (became == OVER_GONE) return finishNew(descriptor, packet, port, table, nowMs);
    if (became == OVER_STRAY) return refuseStray(descriptor, packet, service, direction);
  } else {
    const before = <u32>load<u8>(record, FLOW_STATE);
    let state = nextState(before, direction, packet.flags);
    if (asksFirst && state == FLOW_STATE_HALF_OPEN && isAnswered(packet)) {
      state = FLOW_STATE_ESTABLISHED;
    }
    const isAnew = state == STATE_REOPEN || isOtherStream(packet, record, direction);
    if (asksFirst && isAnew) {
      forget(table, record);
      return finishNew(descriptor, packet, port, table, nowMs);
    }
    if (state == STATE_REOPEN) {
      const isInPlace = reopen(table, record, packet, nowMs);
      if (!isInPlace) return finishNew(descriptor, packet, port, table, nowMs);
    } else {
      const verdict = loadHindranceOf(descriptor, serviceOf(record), packet, nowMs);
      if (verdict != VERDICT_FORWARD) {
        return refuse(descriptor, packet, load<u16>(record, FLOW_SERVICE), verdict);
      }
      moveState(record, direction, state, packet.flags);
    }
  }
  pass(descriptor, packet, port, table, record, side, direction, nowMs);
}

/** True when the client has seen an answer of its target, whichever node that went through. */
function isAnswered(packet: Packet): bool {
  return (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_ACK;
}

/** A packet that belongs to no flow. */
function finishNew(
  descriptor: usize,
  packet: Packet,
  port: usize,
  table: FlowTable,
  nowMs: u32,
): void {
  if ((load<u8>(port, PORT_SIDES) & PORT_SIDE_CLIENT) == 0) {
    return asksFirst ? hold(descriptor, 0) : giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
  }
  const record = begin(table, packet, port, nowMs);
  if (record == 0) {
    if (asksFirst && mayGoOn(packet)) return hold(descriptor, 0);
    return refuse(descriptor, packet, refusedBy, refusal);
  }
  if (asksFirst) {
    propose(record, packet);
    return hold(descriptor, handleOf(table, record));
  }
  if (!hasCapacity(serviceOf(record), descriptor, nowMs)) {
    const service = <u32>load<u16>(record, FLOW_SERVICE);
    forget(table, record);
    return refuse(descriptor, packet, service, VERDICT_DROP_CAPACITY);
  }
  pass(descriptor, packet, port, table, record, SIDE_CLIENT, DIRECTION_FROM_CLIENT, nowMs);
}

/** Whether a packet that begins no flow here may belong to one that another node knows. */
function mayGoOn(packet: Packet): bool {
  if (packet.protocol != PROTOCOL_TCP) return true;
  return (packet.flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN;
}

/** Nobody knows yet what becomes of the frame: its flow is proposed, or may be known elsewhere. */
function hold(descriptor: usize, handle: u32): void {
  giveVerdict(descriptor, VERDICT_HOLD_UNDECIDED);
  store<u32>(descriptor, handle, FRAME_FLOW);
}

/** Counts a packet of a flow and lets it out with the tuple of the other side. */
function pass(
  descriptor: usize,
  packet: Packet,
  port: usize,
  table: FlowTable,
  record: usize,
  side: u32,
  direction: u32,
  nowMs: u32,
): void {
  account(descriptor, record, direction, nowMs);
  const handle = handleOf(table, record);
  if (packet.fragment == FRAGMENT_FIRST) {
    rememberFragment(packet, record, handle, side, direction, nowMs);
  }
  if (packet.flags & TCP_SYN) clampSegments(packet, serviceOf(record));
  // Before the stream is looked at: a header leaves on the port of the frame that causes it.
  if (load<u8>(port, PORT_SIDES) & PORT_SIDE_ROUTED) routeOut(descriptor, record, side);
  const stream = streamFlags(record);
  let verdict = VERDICT_FORWARD;
  if (packet.kind != PACKET_FAST) {
    if (!(stream & FLOW_FLAG_HEADER) || !rewriteMoved(packet, record, side, direction)) {
      rewritePacket(packet, record, side, direction);
      if (stream) verdict = passStream(descriptor, packet, record, side, direction, handle);
    }
  } else if (stream) verdict = rewriteStream(descriptor, packet, record, side, direction);
  else rewriteFast(packet, record, side, direction);
  if (verdict != VERDICT_FORWARD) return giveVerdict(descriptor, verdict);
  if (hasCrossings) {
    leave(descriptor, packet, record, side, direction, load<u32>(record, FLOW_PACKETS_CLIENT));
  }
  forward(descriptor, handle, side, direction);
}

/**
 * Lets a packet that crosses between the families have the other one, and counts by how much, to the
 * side that the packet comes from: in a replay answers cross as requests do.
 */
function leave(
  descriptor: usize,
  packet: Packet,
  record: usize,
  side: u32,
  direction: u32,
  number: u32,
): void {
  if (!packet.isIpv6 || !crosses(record)) return;
  const fromClient = direction == DIRECTION_FROM_CLIENT;
  const used = usage + <usize>load<u16>(record, FLOW_SERVICE) * USAGE_BYTES;
  const cell = used + (fromClient ? USAGE_CROSSED_CLIENT : USAGE_CROSSED_SERVICE);
  if (side == SIDE_SERVICE) return countBy(cell, takeGrown());
  const before = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  if (packet.kind == PACKET_ERROR) crossErrorOut(descriptor, packet, number);
  else crossOut(descriptor, packet, number);
  const after = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  countBy(cell, <u64>(before - after));
}

/** Whether IPv4 packets of the port may be of flows of IPv6. */
function mayCross(port: usize): bool {
  return hasCrossings && (load<u8>(port, PORT_SIDES) & PORT_SIDE_SERVICE) != 0;
}

/** Whether a packet of IPv6 that came in on this side leaves as one of IPv4. */
function isCrossing(packet: Packet, record: usize, side: u32): bool {
  return hasCrossings && packet.isIpv6 != 0 && side == SIDE_CLIENT && crosses(record);
}

/** Drops a packet, and tells its sender where the service says so. */
function refuse(descriptor: usize, packet: Packet, service: u32, verdict: u32): void {
  if (service != SERVICE_NONE) {
    countUp(usage + <usize>(service * USAGE_BYTES + USAGE_DROPPED));
    answer(descriptor, packet, service, verdict);
  }
  giveVerdict(descriptor, verdict);
}

/** A packet of a flow that is over; a NAT gateway says so to the inside only. */
function refuseStray(descriptor: usize, packet: Packet, index: u32, direction: u32): void {
  const service = services + <usize>(index * SERVICE_BYTES);
  const isNat = (load<u32>(service, SERVICE_TRAITS) & TRAIT_NAT) != 0;
  if (!isNat || direction == DIRECTION_FROM_CLIENT) {
    return refuse(descriptor, packet, index, VERDICT_DROP_NO_FLOW);
  }
  countUp(usage + <usize>(index * USAGE_BYTES + USAGE_DROPPED));
  giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
}

/** Strays may get a reset, packets that are too large an ICMP error. */
function answer(descriptor: usize, packet: Packet, index: u32, verdict: u32): void {
  if (!isAnswerable(descriptor, packet)) return;
  const service = services + <usize>(index * SERVICE_BYTES);
  if (verdict == VERDICT_DROP_NO_FLOW) {
    const isAnswered = load<u32>(service, SERVICE_FLAGS) & SERVICE_FLAG_RESET_STRAYS;
    if (isAnswered && resetStray(descriptor, packet)) {
      countUp(usage + <usize>(index * USAGE_BYTES + USAGE_RESETS_MADE));
    }
  } else if (verdict == VERDICT_DROP_TOO_LARGE) {
    const isTold = load<u32>(service, SERVICE_TRAITS) & TRAIT_MTU_TOLD;
    if (isTold) tellMtu(descriptor, packet, load<u16>(service, SERVICE_MTU_BYTES));
  }
}

/** VERDICT_FORWARD, or why a packet of a flow does not pass its service now. */
function loadHindranceOf(descriptor: usize, service: usize, packet: Packet, nowMs: u32): u32 {
  const verdict = hindranceOf(service, packet);
  if (verdict != VERDICT_FORWARD) return verdict;
  return hasCapacity(service, descriptor, nowMs) ? VERDICT_FORWARD : VERDICT_DROP_CAPACITY;
}

/** The service that made a flow. */
function serviceOf(record: usize): usize {
  return services + <usize>load<u16>(record, FLOW_SERVICE) * SERVICE_BYTES;
}

/** SIDE_* that the last `find` found the flow by. */
let foundOn: u32 = 0;

/** The flow that the packet's tuple names on one of the port's sides, or 0. */
function find(table: FlowTable, packet: Packet, port: usize, nowMs: u32): usize {
  const sides = <u32>load<u8>(port, PORT_SIDES);
  if (sides & PORT_SIDE_CLIENT) {
    foundOn = SIDE_CLIENT;
    const record = findByClientSide(table, packet);
    if (record != 0 && !forgetIfGone(table, record, nowMs)) return record;
  }
  foundOn = SIDE_SERVICE;
  if ((sides & PORT_SIDE_SERVICE) == 0) return 0;
  const record = findByIndex(table, packet, SIDE_SERVICE);
  return record == 0 || forgetIfGone(table, record, nowMs) ? 0 : record;
}

function finishFragment(descriptor: usize, packet: Packet, port: usize): void {
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const record = findFragment(packet, nowMs);
  if (record == 0 && mayCross(port) && crossIn(descriptor, packet)) {
    return finishFragment(descriptor, packet, port);
  }
  if (record == 0 || isExpired(record, nowMs)) {
    return giveVerdict(descriptor, VERDICT_DROP_FRAGMENT);
  }
  const side = foundSide;
  const direction = foundDirection;
  const verdict = loadHindranceOf(descriptor, serviceOf(record), packet, nowMs);
  if (verdict != VERDICT_FORWARD) {
    return refuse(descriptor, packet, load<u16>(record, FLOW_SERVICE), verdict);
  }
  account(descriptor, record, direction, nowMs);
  rewriteAddresses(packet, record, side, direction);
  if (load<u8>(port, PORT_SIDES) & PORT_SIDE_ROUTED) routeOut(descriptor, record, side);
  const handle = handleOf(flowTable(packet.isIpv6), record);
  if (hasCrossings) leave(descriptor, packet, record, side, direction, 0);
  forward(descriptor, handle, side, direction);
}

/** ICMP errors do not keep a flow alive (RFC 5508 section 4.2) and move no state. */
function finishError(descriptor: usize, packet: Packet, port: usize): void {
  parseQuote(descriptor, packet);
  if (packet.kind == PACKET_DECIDED) return giveVerdict(descriptor, packet.verdict);
  const quoted = quotedScratch();
  const table = flowTable(packet.isIpv6);
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const record = find(table, quoted, port, nowMs);
  if (record == 0 && mayCross(port) && crossErrorIn(descriptor, packet)) {
    return finishError(descriptor, packet, port);
  }
  if (record == 0 || isExpired(record, nowMs)) {
    return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
  }
  const side = foundOn;
  const direction = directionOf(record, side, quoted);
  const serviceIndex = <u32>load<u16>(record, FLOW_SERVICE);
  const service = serviceOf(record);
  const crossing = isCrossing(packet, record, side);
  const isLost = crossing && (direction == DIRECTION_FROM_CLIENT || !hasCounterpart(packet));
  if (isLost || !takesError(service, packet)) {
    return giveVerdict(descriptor, VERDICT_DROP_UNINTENDED);
  }
  const poolCount = packet.isIpv6 ? SERVICE_POOL6_COUNT : SERVICE_POOL_COUNT;
  const isTranslated = load<u32>(service + <usize>poolCount) != 0;
  rewriteError(packet, record, side, direction, isTranslated);
  countUsage(serviceIndex, direction ^ 1, <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES));
  if (load<u8>(port, PORT_SIDES) & PORT_SIDE_ROUTED) routeOut(descriptor, record, side);
  if (hasCrossings) {
    const number = load<u32>(record, FLOW_PACKETS_CLIENT);
    leave(descriptor, packet, record, side, direction ^ 1, number);
  }
  forward(descriptor, handleOf(table, record), side, direction ^ 1);
}
