/**
 * The stages before `finish`: which record probably holds each packet's flow, with everything that
 * `finish` will need already on its way into the cache.
 *
 * Between the stages go two kinds of lists: lookups (a packet and the line where it is looked up)
 * and bare lines. Nothing here changes the flow table, so nothing here has to be right: a wrong
 * candidate costs time, never a wrong flow.
 */
import {
  BATCH_COUNT_MAX,
  FRAME_BYTES,
  FRAME_PORT,
  PORT_BYTES,
  PORT_FLAG_VNET,
  PORT_FLAGS,
  PORT_SIDE_CLIENT,
  PORT_SIDES,
} from "./abi";
import { clearBeginnings, foreseeBeginnings, addBeginning as listBeginning } from "./beginnings";
import {
  FlowTable,
  firstBucket,
  flowTable,
  groupTags,
  hasSpilled,
  homeGroup,
  probeBucket,
  recordAt,
  recordOfCell,
  secondBucket,
  spillsOf,
  tagMatches,
  tagOf,
} from "./flow/table";
import { parseQuote } from "./icmp";
import { frames, ports } from "./memory";
import { clearAnswers } from "./network/resolve";
import {
  PACKET_BYTES,
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_LATER,
  Packet,
  packetAt,
  TCP_ACK,
  TCP_SYN,
} from "./packet";
import { clearForeseen } from "./translate";
import { parseFrame } from "./wire/link";
import { parsePlain } from "./wire/plain";
import { notePartial } from "./wire/vnet";

/** A lookup: the packet's address, then the line's. */
const LOOKUP_LINE: usize = 4;
const LOOKUP_BYTES: usize = 8;
const homes: usize = memory.data(8 * <i32>BATCH_COUNT_MAX, 64);
const indexed: usize = memory.data(8 * <i32>BATCH_COUNT_MAX, 64);
let homesEnd: usize = 0;
let indexedEnd: usize = 0;
/**
 * A packet lists at most ten: three records (a free slot, a candidate and another) of two lines each if
 * they are of IPv6, two lines of the index and two where a service counts. All at once does a packet
 * whose flow has spilled from a group that has a free slot again.
 */
const lines: usize = memory.data(40 * <i32>BATCH_COUNT_MAX, 64);
const LINES_BYTES: usize = 40 * <usize>BATCH_COUNT_MAX;
const LINE_BYTES: usize = 4;
/** Keeps the loads of the touch loops alive. */
const sink: usize = memory.data(8, 64);

/** Parses the first `count` frames and leaves a candidate in every packet that may have a flow. */
export function findCandidates(count: u32): void {
  clearForeseen(count);
  clearAnswers(count);
  clearBeginnings();
  startSpills();
  parseAll(count);
  touch(homes + LOOKUP_LINE, homesEnd, LOOKUP_BYTES);
  touch(indexed + LOOKUP_LINE, indexedEnd, LOOKUP_BYTES);
  const indexedBefore = indexedEnd;
  let linesEnd = foreseeBeginnings(probeHomes(lines));
  touch(homes + LOOKUP_LINE, homesEnd, LOOKUP_BYTES);
  probeSpills();
  touch(indexedBefore + LOOKUP_LINE, indexedEnd, LOOKUP_BYTES);
  linesEnd = probeIndex(linesEnd, false);
  touch(indexed + LOOKUP_LINE, indexedEnd, LOOKUP_BYTES);
  linesEnd = probeIndex(linesEnd, true);
  assert(linesEnd <= lines + LINES_BYTES, "stages: more lines were listed than there is room for");
  touch(lines, linesEnd, LINE_BYTES);
}

/** Loads a byte of each line that the u32 at every `stride` bytes points to, and nothing else. */
function touch(list: usize, end: usize, stride: usize): void {
  let seen: u32 = 0;
  for (let at = list; at < end; at += stride) seen += load<u8>(<usize>load<u32>(at));
  store<u32>(sink, seen);
}

/** Parses all frames and lists where to look for their flows; the compact table has lists of its own. */
export function parseAll(count: u32): void {
  let home = homes;
  let index = indexed;
  let packet = packetAt(0);
  const end = frames + <usize>(count * FRAME_BYTES);
  for (let descriptor = frames; descriptor < end; descriptor += FRAME_BYTES) {
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    let table = flowTable(0);
    let hasTuple: bool = true;
    if (!parsePlain(descriptor, packet, port)) {
      hasTuple = parseOther(descriptor, packet, port);
      table = flowTable(packet.isIpv6);
    }
    if (hasTuple) {
      const hash = packet.hash;
      const isHome = <usize>load<u8>(port, PORT_SIDES) & PORT_SIDE_CLIENT;
      addLookup(home, packet, groupTags(table, homeGroup(table, hash)));
      addLookup(index, packet, firstBucket(table, hash));
      home += isHome << 3;
      index += (isHome ^ 1) << 3;
    }
    packet = changetype<Packet>(changetype<usize>(packet) + PACKET_BYTES);
  }
  homesEnd = home;
  indexedEnd = index;
}

/** Parses a frame that is not plain; false when there is no flow to look up. */
function parseOther(descriptor: usize, packet: Packet, port: usize): bool {
  parseFrame(descriptor, packet);
  packet.partial = 0;
  if (load<u8>(port, PORT_FLAGS) & PORT_FLAG_VNET) notePartial(descriptor, packet);
  if (packet.kind == PACKET_ERROR) parseQuote(descriptor, packet);
  return packet.kind != PACKET_DECIDED && packet.kind != PACKET_LATER;
}

function addLookup(at: usize, packet: Packet, line: usize): void {
  store<u32>(at, <u32>changetype<usize>(packet));
  store<u32>(at, <u32>line, LOOKUP_LINE);
}

/**
 * Looks at the home groups, and leaves in `homes` the packets that miss, with the line that knows of spilled
 * flows. Adds the lines of candidates at `linesAt` and returns where they end.
 */
function probeHomes(linesAt: usize): usize {
  let missed = homes;
  let line = linesAt;
  const end = homesEnd;
  for (let at = homes; at < end; at += LOOKUP_BYTES) {
    const packet = changetype<Packet>(<usize>load<u32>(at));
    const tags = <usize>load<u32>(at, LOOKUP_LINE);
    const table = flowTable(packet.isIpv6);
    const slot = <u32>(tags - table.tags);
    const hits = tagMatches(tags, tagOf(packet.hash));
    if (hits) {
      line = addCandidate(line, packet, recordAt(table, slot + ctz(hits)));
      const others = hits & (hits - 1);
      if (others) line = addLines(line, recordAt(table, slot + ctz(others)), packet.isIpv6);
      // Of those in a table that is nearly full, one in twenty only looks like a packet of another flow.
      if (isOpening(packet)) line = addBeginning(line, table, packet, tags, slot);
      continue;
    }
    line = addBeginning(line, table, packet, tags, slot);
    addLookup(missed, packet, spillsOf(table, slot >> 4));
    missed += LOOKUP_BYTES;
  }
  homesEnd = missed;
  return line;
}

/** Whether a packet of TCP asks for a new connection. */
function isOpening(packet: Packet): bool {
  return (packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/** Packets that missed at home where the index might know more join its list. */
function probeSpills(): void {
  let index = indexedEnd;
  const end = homesEnd;
  for (let at = homes; at < end; at += LOOKUP_BYTES) {
    const packet = changetype<Packet>(<usize>load<u32>(at));
    const table = flowTable(packet.isIpv6);
    if (!hasSpilled(<usize>load<u32>(at, LOOKUP_LINE), packet.hash)) continue;
    addLookup(index, packet, firstBucket(table, packet.hash));
    index += LOOKUP_BYTES;
  }
  indexedEnd = index;
}

function addCandidate(line: usize, packet: Packet, record: usize): usize {
  packet.candidate = <u32>record;
  return addLines(line, record, packet.isIpv6);
}

/** Adds the one or two lines of a record to those to touch. */
function addLines(line: usize, record: usize, isIpv6: u32): usize {
  store<u32>(line, <u32>record);
  if (!isIpv6) return line + LINE_BYTES;
  store<u32>(line, <u32>record + 64, LINE_BYTES);
  return line + 2 * LINE_BYTES;
}

/**
 * Lists a packet that probably begins a flow, and adds the line of a free slot for it; where a flow of IPv4
 * spills, also those of the index.
 */
function addBeginning(
  linesAt: usize,
  table: FlowTable,
  packet: Packet,
  tags: usize,
  slot: u32,
): usize {
  listBeginning(packet);
  const free = tagMatches(tags, 0);
  if (free) return addLines(linesAt, recordAt(table, slot + ctz(free)), packet.isIpv6);
  if (table.isIpv6) return linesAt;
  store<u32>(linesAt, <u32>firstBucket(table, packet.hash));
  store<u32>(linesAt, <u32>secondBucket(table, packet.hash), LINE_BYTES);
  store<u32>(linesAt, <u32>recordAt(table, nextSpill(table)), 2 * LINE_BYTES);
  return linesAt + 3 * LINE_BYTES;
}

/** Where flows of IPv4 that spill are foreseen to go: the group, and the slots that are left in it. */
let spillGroup: u32 = 0;
let spillFree: u32 = 0;
const SPILL_STEPS: u32 = 8;

function startSpills(): void {
  const table = flowTable(0);
  spillGroup = (table.spillCursor == 0 ? table.groupCount : table.spillCursor) - 1;
  spillFree = 0;
}

/** The slot that the next flow which spills will probably take. */
function nextSpill(table: FlowTable): u32 {
  for (let step: u32 = 0; step < SPILL_STEPS && spillFree == 0; step++) {
    spillGroup = spillGroup + 1 < table.groupCount ? spillGroup + 1 : 0;
    spillFree = tagMatches(groupTags(table, spillGroup), 0);
  }
  const slot = (spillGroup << 4) + (spillFree ? ctz(spillFree) : 0);
  spillFree &= spillFree - 1;
  return slot;
}

/**
 * Looks at one bucket for each lookup in the index. Those that find nothing in their first bucket
 * stay on the list with the second. Adds lines like `probeHomes`.
 */
function probeIndex(linesAt: usize, isSecond: bool): usize {
  let staying = indexed;
  let line = linesAt;
  const end = indexedEnd;
  for (let at = indexed; at < end; at += LOOKUP_BYTES) {
    const packet = changetype<Packet>(<usize>load<u32>(at));
    const bucket = <usize>load<u32>(at, LOOKUP_LINE);
    const table = flowTable(packet.isIpv6);
    const hits = probeBucket(table, bucket, packet.hash);
    if (hits) {
      line = addCandidate(line, packet, recordOfCell(table, bucket, ctz(hits)));
      const others = hits & (hits - 1);
      if (others) line = addLines(line, recordOfCell(table, bucket, ctz(others)), packet.isIpv6);
    } else if (!isSecond) {
      addLookup(staying, packet, secondBucket(table, packet.hash));
      staying += LOOKUP_BYTES;
    }
  }
  indexedEnd = staying;
  return line;
}
