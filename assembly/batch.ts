/**
 * The batch loop: the one function that holds the whole way of a packet.
 *
 *   parse      every frame's tuple and hash
 *   touch      the lines that the hashes point to (tags, index), all at once
 *   probe      tags and index cells: which record probably holds the flow
 *   touch      those records, all at once
 *   finish     in order: verify, create, count, rewrite, give the verdict
 *
 * WebAssembly has no prefetch instruction. A loop that does nothing but load one byte of each line
 * keeps a dozen cache misses in flight, which is what makes a large flow table fast. Only `finish`
 * changes state, in the order of the frames, so the result does not depend on the batch size.
 */
import {
  BATCH_COUNT_MAX,
  CONFIG_ARENA_BYTES,
  COUNTER_VERDICTS,
  FLOW_LAST_SEEN_MS,
  FLOW_OCTETS_CLIENT,
  FLOW_OCTETS_SERVICE,
  FLOW_PACKETS_CLIENT,
  FLOW_STATE,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_PORT,
  FRAME_PORT_OUT,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  LAYOUT_ARENA,
  PORT_BYTES,
  PORT_COUNT_MAX,
  PORT_PEER,
  PORT_SIDE_CLIENT,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  SERVICE_BYTES,
  SERVICE_POOL_COUNT,
  SERVICE_POOL6_COUNT,
  SIDE_CLIENT,
  SIDE_SERVICE,
  USAGE_BYTES,
  USAGE_OCTETS_CLIENT,
  USAGE_PACKETS_CLIENT,
  VERDICT_DROP_FRAGMENT,
  VERDICT_DROP_NO_FLOW,
  VERDICT_FORWARD,
} from "./abi";
import { countBy, countUp } from "./counters";
import { findInOtherZones } from "./flow/asymmetric";
import { forgetIfGone, sweep } from "./flow/expiry";
import { begin, beginAgain, foreseeIndex, refusal, reopen } from "./flow/lifecycle";
import { isExpired, nextState, STATE_REOPEN } from "./flow/state";
import {
  FlowTable,
  findByClientSide,
  findByIndex,
  firstBucket,
  flowTable,
  groupTags,
  handleOf,
  homeGroup,
  probeBucket,
  recordAt,
  recordOfCell,
  secondBucket,
  tagMatches,
  tagOf,
} from "./flow/table";
import { findFragment, foundDirection, foundSide, rememberFragment } from "./fragment";
import { parseQuote, rewriteError } from "./icmp";
import { config, counters, frames, layout, ports, services, usage } from "./memory";
import {
  FRAGMENT_FIRST,
  indexOf,
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_FAST,
  PACKET_LATER,
  Packet,
  packetAt,
  quotedScratch,
} from "./packet";
import { directionOf, rewriteAddresses, rewriteFast, rewritePacket } from "./rewrite";
import { parseFrame } from "./wire/link";

/** Per batch: packets to be looked up at home and in the index, and lines to touch. */
const homeList: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);
const homeLines: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);
const indexList: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);
const indexLines: usize = memory.data(4 * <i32>BATCH_COUNT_MAX, 64);
/** A packet touches at most two records of two lines, or one record and two index lines. */
const recordLines: usize = memory.data(16 * <i32>BATCH_COUNT_MAX, 64);
/** Keeps the loads of the touch loops alive. */
const sink: usize = memory.data(8, 64);

/**
 * Translates the first `count` frames of the batch in place. Returns false, and has done nothing,
 * when a frame does not lie in the arena or names a port that there is not.
 */
export function processBatch(count: u32): bool {
  assert(count <= BATCH_COUNT_MAX, "process: more frames than a batch holds");
  if (count == 0) return true;
  if (!areInside(count)) return false;
  const homeAndIndex = parseAll(count);
  const homeCount = homeAndIndex & 0xffff;
  let indexCount = homeAndIndex >> 16;
  touch(homeLines, homeCount);
  touch(indexLines, indexCount);
  let lineCount = 0;
  const afterHome = probeHomes(homeCount, indexCount);
  lineCount = afterHome >> 16;
  touch(indexLines + ((<usize>indexCount) << 2), (afterHome & 0xffff) - indexCount);
  indexCount = afterHome & 0xffff;
  const afterFirst = probeIndex(indexCount, lineCount, false);
  lineCount = afterFirst >> 16;
  const again = afterFirst & 0xffff;
  touch(indexLines, again);
  lineCount = probeIndex(again, lineCount, true) >> 16;
  touch(recordLines, lineCount);
  finishAll(count);
  const nowMs = load<u32>(frames + <usize>((count - 1) * FRAME_BYTES), FRAME_TIME_MS);
  sweep(flowTable(0), nowMs, count);
  sweep(flowTable(1), nowMs, count);
  return true;
}

/**
 * Whether all frames lie in the arena and come from a port: what is parsed later is trusted.
 *
 * Takes four words of a descriptor at once: address, captured bytes, time, ports. An arena has at
 * most 2^30 bytes, so offsets and lengths have no bit above that; then the room behind a frame
 * cannot wrap, and its sign tells whether the frame ends in the arena.
 */
function areInside(count: u32): bool {
  const none = i32x4.splat(0);
  const arena = i32x4.replace_lane(none, 0, load<i32>(layout, LAYOUT_ARENA));
  const size = i32x4.replace_lane(none, 0, load<i32>(config, CONFIG_ARENA_BYTES));
  let words = none;
  let rooms = none;
  const end = frames + <usize>(count * FRAME_BYTES);
  for (let descriptor = frames; descriptor < end; descriptor += FRAME_BYTES) {
    const word = i32x4.sub(v128.load(descriptor, FRAME_ADDRESS), arena);
    const bytes = i32x4.shuffle(word, word, 1, 1, 1, 1);
    words = v128.or(words, word);
    rooms = v128.or(rooms, i32x4.sub(i32x4.sub(size, word), bytes));
  }
  const high = <u32>(i32x4.extract_lane(words, 0) | i32x4.extract_lane(words, 1)) >> 30;
  const portBits = <u32>i32x4.extract_lane(words, 3) & 0xffff;
  return high == 0 && i32x4.extract_lane(rooms, 0) >= 0 && portBits < PORT_COUNT_MAX;
}

/** Loads a byte of each of `count` lines and nothing else. */
function touch(lines: usize, count: u32): void {
  let seen: u32 = 0;
  const end = lines + ((<usize>count) << 2);
  for (let line = lines; line < end; line += 4) seen += load<u8>(<usize>load<u32>(line));
  store<u32>(sink, seen);
}

/** Parses all frames; returns home lookups | index lookups << 16. */
function parseAll(count: u32): u32 {
  let homes: usize = 0;
  let indexed: usize = 0;
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const packet = packetAt(index);
    parseFrame(descriptor, packet);
    if (packet.kind == PACKET_ERROR) parseQuote(descriptor, packet);
    if (packet.kind == PACKET_DECIDED || packet.kind == PACKET_LATER) continue;
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    const isHome = <u32>load<u8>(port, PORT_SIDES) & PORT_SIDE_CLIENT;
    const table = flowTable(packet.isIpv6);
    const hash = packet.hash;
    store<u32>(homeList + homes, <u32>changetype<usize>(packet));
    store<u32>(homeLines + homes, <u32>groupTags(table, homeGroup(table, hash)));
    store<u32>(indexList + indexed, <u32>changetype<usize>(packet));
    store<u32>(indexLines + indexed, <u32>firstBucket(table, hash));
    homes += (<usize>isHome) << 2;
    indexed += (<usize>(isHome ^ 1)) << 2;
  }
  return <u32>(homes >> 2) | ((<u32>(indexed >> 2)) << 16);
}

/**
 * Looks at the home groups. Packets that miss where the index might know more join the index list.
 * Returns index lookups | record lines << 16.
 */
function probeHomes(homeCount: u32, indexCount: u32): u32 {
  let indexed = indexCount;
  let lines: u32 = 0;
  for (let index: u32 = 0; index < homeCount; index++) {
    const at = (<usize>index) << 2;
    const packet = changetype<Packet>(<usize>load<u32>(homeList + at));
    const tags = <usize>load<u32>(homeLines + at);
    const table = flowTable(packet.isIpv6);
    const slot = <u32>(tags - table.tags);
    const hits = tagMatches(tags, tagOf(packet.hash));
    if (hits) {
      const record = recordAt(table, slot + ctz(hits));
      packet.candidate = <u32>record;
      lines = addLines(lines, record, packet.isIpv6);
      const others = hits & (hits - 1);
      if (others) lines = addLines(lines, recordAt(table, slot + ctz(others)), packet.isIpv6);
      continue;
    }
    lines = addBeginning(lines, table, packet, tags, slot);
    store<u32>(indexList + ((<usize>indexed) << 2), <u32>changetype<usize>(packet));
    store<u32>(indexLines + ((<usize>indexed) << 2), <u32>firstBucket(table, packet.hash));
    const isSpilled = load<u8>(table.spills + <usize>(slot >> 4)) != 0;
    indexed += u32(isSpilled);
  }
  return indexed | (lines << 16);
}

/** Adds what a packet touches that probably begins a flow: a free slot and two index lines. */
function addBeginning(lines: u32, table: FlowTable, packet: Packet, tags: usize, slot: u32): u32 {
  let count = lines;
  const free = tagMatches(tags, 0);
  if (free) count = addLines(count, recordAt(table, slot + ctz(free)), packet.isIpv6);
  const descriptor = frames + <usize>(indexOf(packet) * FRAME_BYTES);
  const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
  const hash = foreseeIndex(packet, port);
  if (hash == 0) return count;
  const at = recordLines + ((<usize>count) << 2);
  store<u32>(at, <u32>firstBucket(table, hash));
  store<u32>(at, <u32>secondBucket(table, hash), 4);
  return count + 2;
}

/** Adds the one or two lines of a record to those to touch. */
function addLines(lines: u32, record: usize, isIpv6: u32): u32 {
  store<u32>(recordLines + ((<usize>lines) << 2), <u32>record);
  store<u32>(recordLines + ((<usize>lines) << 2), <u32>record + 64, 4);
  return lines + 1 + isIpv6;
}

/**
 * Looks at one bucket for each packet of the index list. Those that find nothing in their first
 * bucket stay on the list with the second. Returns packets that stay | record lines << 16.
 */
function probeIndex(count: u32, lineCount: u32, isSecond: bool): u32 {
  let staying: u32 = 0;
  let lines = lineCount;
  for (let index: u32 = 0; index < count; index++) {
    const at = (<usize>index) << 2;
    const packet = changetype<Packet>(<usize>load<u32>(indexList + at));
    const bucket = <usize>load<u32>(indexLines + at);
    const table = flowTable(packet.isIpv6);
    const hits = probeBucket(table, bucket, packet.hash);
    if (hits) {
      const record = recordOfCell(table, bucket, ctz(hits));
      packet.candidate = <u32>record;
      lines = addLines(lines, record, packet.isIpv6);
      const others = hits & (hits - 1);
      if (others) {
        lines = addLines(lines, recordOfCell(table, bucket, ctz(others)), packet.isIpv6);
      }
    } else if (!isSecond) {
      store<u32>(indexList + ((<usize>staying) << 2), <u32>changetype<usize>(packet));
      store<u32>(indexLines + ((<usize>staying) << 2), <u32>secondBucket(table, packet.hash));
      staying++;
    }
  }
  return staying | (lines << 16);
}

function finishAll(count: u32): void {
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const packet = packetAt(index);
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    store<u16>(descriptor, load<u16>(port, PORT_PEER), FRAME_PORT_OUT);
    const isDone = packet.kind == PACKET_FAST && finishFast(descriptor, packet, port);
    if (!isDone) finishSlow(descriptor, packet, port);
  }
}

/** An established IPv4 flow of TCP or UDP; false when the packet needs anything more. */
function finishFast(descriptor: usize, packet: Packet, port: usize): bool {
  const record = <usize>packet.candidate;
  if (record == 0) return false;
  const sides = <u32>load<u8>(port, PORT_SIDES);
  const isClientSide =
    i32(load<u64>(record) == packet.addresses) & i32(load<u64>(record, 8) == packet.rest) & sides;
  const isServiceSide =
    i32(load<u64>(record, 16) == packet.addresses) &
    i32(load<u64>(record, 24) == packet.rest) &
    (sides >> 1);
  if ((isClientSide | isServiceSide) == 0) return false;
  const side = <u32>isClientSide ^ 1;
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  if (isExpired(record, nowMs)) return false;
  const direction = directionOf(record, side, packet);
  const state = nextState(load<u8>(record, FLOW_STATE), direction, packet.flags);
  if (state == STATE_REOPEN) return false;
  account(descriptor, record, direction, state, nowMs);
  rewriteFast(packet, record, side, direction);
  forward(descriptor, handleOf(flowTable(0), record), side, direction);
  return true;
}

const OCTETS_MASK: u64 = 0x0000ffffffffffff;

/** Counts a packet of a flow and moves the flow's state and clock. */
function account(descriptor: usize, record: usize, direction: u32, state: u32, nowMs: u32): void {
  const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const fromClient = load<u64>(record, FLOW_OCTETS_CLIENT);
  const fromService = load<u64>(record, FLOW_OCTETS_SERVICE);
  const clientOctets = (fromClient + select<u64>(0, bytes, direction)) & OCTETS_MASK;
  const serviceOctets = (fromService + select<u64>(bytes, 0, direction)) & OCTETS_MASK;
  const flags = (fromClient >> 56) << 56;
  store<u64>(record, clientOctets | flags | ((<u64>state) << 48), FLOW_OCTETS_CLIENT);
  store<u64>(record, serviceOctets | (fromService & ~OCTETS_MASK), FLOW_OCTETS_SERVICE);
  const packetCount = record + <usize>(FLOW_PACKETS_CLIENT + (direction << 2));
  store<u32>(packetCount, load<u32>(packetCount) + 1);
  store<u32>(record, nowMs, FLOW_LAST_SEEN_MS);
  countUsage(<u32>(fromService >> 48), direction, bytes);
}

function countUsage(service: u32, direction: u32, bytes: u64): void {
  const used = usage + <usize>(service * USAGE_BYTES + (direction << 3));
  countUp(used + USAGE_PACKETS_CLIENT);
  countBy(used + USAGE_OCTETS_CLIENT, bytes);
}

function forward(descriptor: usize, handle: u32, side: u32, direction: u32): void {
  const verdictAndWay = VERDICT_FORWARD | (side << 16) | (direction << 24);
  store<u32>(descriptor, verdictAndWay, FRAME_VERDICT);
  store<u32>(descriptor, handle, FRAME_FLOW);
  countUp(counters + COUNTER_VERDICTS + VERDICT_FORWARD * 8);
}

function giveVerdict(descriptor: usize, verdict: u32): void {
  store<u32>(descriptor, verdict, FRAME_VERDICT);
  store<u32>(descriptor, 0, FRAME_FLOW);
  countUp(counters + <usize>(COUNTER_VERDICTS + (verdict << 3)));
}

/** Everything but packets of established IPv4 flows. */
function finishSlow(descriptor: usize, packet: Packet, port: usize): void {
  if (packet.kind == PACKET_DECIDED) return giveVerdict(descriptor, packet.verdict);
  if (packet.kind == PACKET_LATER) return finishFragment(descriptor, packet);
  if (packet.kind == PACKET_ERROR) return finishError(descriptor, packet, port);
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const table = flowTable(packet.isIpv6);
  let record = find(table, packet, port, nowMs);
  let side = foundOn;
  if (record == 0) {
    record = findInOtherZones(table, packet, port, nowMs);
    side = SIDE_CLIENT;
  }
  let direction: u32 = 0;
  let state: u32 = 0;
  if (record == 0) {
    if ((load<u8>(port, PORT_SIDES) & PORT_SIDE_CLIENT) == 0) {
      return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
    }
    record = begin(table, packet, port, nowMs);
    if (record == 0) return giveVerdict(descriptor, refusal);
    side = SIDE_CLIENT;
    state = load<u8>(record, FLOW_STATE);
  } else {
    direction = directionOf(record, side, packet);
    if (isExpired(record, nowMs)) {
      const isBegun = beginAgain(record, packet, direction, nowMs);
      if (!isBegun) return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
      state = load<u8>(record, FLOW_STATE);
    } else {
      state = nextState(load<u8>(record, FLOW_STATE), direction, packet.flags);
      if (state == STATE_REOPEN) {
        reopen(record, packet, nowMs);
        state = load<u8>(record, FLOW_STATE);
      }
    }
  }
  account(descriptor, record, direction, state, nowMs);
  const handle = handleOf(table, record);
  if (packet.fragment == FRAGMENT_FIRST) {
    rememberFragment(packet, record, handle, side, direction, nowMs);
  }
  if (packet.kind == PACKET_FAST) rewriteFast(packet, record, side, direction);
  else rewritePacket(packet, record, side, direction);
  forward(descriptor, handle, side, direction);
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

function finishFragment(descriptor: usize, packet: Packet): void {
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const record = findFragment(packet, nowMs);
  if (record == 0 || isExpired(record, nowMs)) {
    return giveVerdict(descriptor, VERDICT_DROP_FRAGMENT);
  }
  const side = foundSide;
  const direction = foundDirection;
  account(descriptor, record, direction, load<u8>(record, FLOW_STATE), nowMs);
  rewriteAddresses(packet, record, side, direction);
  forward(descriptor, handleOf(flowTable(packet.isIpv6), record), side, direction);
}

/** ICMP errors do not keep a flow alive (RFC 5508 section 4.2) and move no state. */
function finishError(descriptor: usize, packet: Packet, port: usize): void {
  parseQuote(descriptor, packet);
  if (packet.kind == PACKET_DECIDED) return giveVerdict(descriptor, packet.verdict);
  const quoted = quotedScratch();
  const table = flowTable(packet.isIpv6);
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const record = find(table, quoted, port, nowMs);
  if (record == 0 || isExpired(record, nowMs)) {
    return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
  }
  const side = foundOn;
  const direction = directionOf(record, side, quoted);
  const serviceIndex = <u32>(load<u64>(record, FLOW_OCTETS_SERVICE) >> 48);
  const service = services + <usize>(serviceIndex * SERVICE_BYTES);
  const poolCount = packet.isIpv6 ? SERVICE_POOL6_COUNT : SERVICE_POOL_COUNT;
  const isTranslated = load<u32>(service + <usize>poolCount) != 0;
  rewriteError(packet, record, side, direction, isTranslated);
  countUsage(serviceIndex, direction ^ 1, <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES));
  forward(descriptor, handleOf(table, record), side, direction ^ 1);
}
