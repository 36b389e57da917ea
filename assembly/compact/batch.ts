/**
 * The batch loop over the compact table: the stages of ../stages.ts and ../batch.ts for whole IPv4
 * packets of TCP and UDP, all of one NAT gateway. A frame's direction is that of its port: client-side
 * ports carry packets of clients, service-side ports packets from outside.
 *
 * All else that the engine knows (fragments, ICMP, IPv6, VLANs, load balancing, PROXY headers) is not
 * for this table: such packets are unintended. Only `finish` changes state, in the order of frames.
 */
import {
  BATCH_COUNT_MAX,
  COMPACT_CLIENT_ADDRESS_BE,
  COMPACT_CLIENT_PORT_BE,
  COMPACT_SERVER_ADDRESS_BE,
  COMPACT_SERVER_PORT_BE,
  COUNTER_VERDICTS,
  DIRECTION_FROM_CLIENT,
  DIRECTION_FROM_SERVICE,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  FRAME_PORT_OUT,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  PORT_BYTES,
  PORT_PEER,
  PORT_SIDE_SERVICE,
  PORT_SIDES,
  PORT_ZONE,
  SIDE_CLIENT,
  SIDE_SERVICE,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_PORT_EXHAUSTED,
  VERDICT_DROP_UNINTENDED,
} from "../abi";
import { areInside } from "../admit";
import { deltaOf, updated, updatedUdp } from "../checksum";
import { isInWindow, moveClock } from "../clock";
import { countUp } from "../counters";
import { countUsage, forward } from "../established";
import { nextState, STATE_REOPEN } from "../flow/state";
import { tagMatches, tagOf } from "../flow/table";
import { counters, frames, ports } from "../memory";
import {
  PACKET_BYTES,
  PACKET_DECIDED,
  PACKET_FAST,
  Packet,
  PROTOCOL_UDP,
  packetAt,
} from "../packet";
import { parseAll } from "../stages";
import { IPV4_CHECKSUM, IPV4_DESTINATION, IPV4_SOURCE } from "../wire/ipv4";
import { TCP_CHECKSUM, UDP_CHECKSUM } from "../wire/transport";
import {
  account,
  begin,
  beginAgain,
  isOver,
  mayBegin,
  reopen,
  setState,
  stateOf,
  sweep,
} from "./flow";
import {
  addressOfSlot,
  findByClient,
  firstGroup,
  groupFor,
  hasProtocol,
  holds,
  portOfSlot,
  recordAt,
  recordOf,
  secondGroup,
  slotOf,
  slotOfTags,
} from "./table";

/** Packets of clients that are looked up, each with the group: packet's address, then the tags'. */
const LOOKUP_TAGS: usize = 4;
const LOOKUP_BYTES: usize = 8;
const lookups: usize = memory.data(8 * <i32>BATCH_COUNT_MAX, 64);
let lookupsEnd: usize = 0;
/** Records: at most two a packet. */
const lines: usize = memory.data(8 * <i32>BATCH_COUNT_MAX, 64);
let linesEnd: usize = 0;
const LINE_BYTES: usize = 4;
const sink: usize = memory.data(8, 64);

/**
 * Translates the first `count` frames of the batch in place. Returns false, and has done nothing,
 * when a frame does not lie in the arena or names a port that there is not.
 */
export function processCompact(count: u32): bool {
  assert(count <= BATCH_COUNT_MAX, "process: more frames than a batch holds");
  if (count == 0) return true;
  if (!areInside(count)) return false;
  parseAll(count);
  listAll(count);
  touch(lookups + LOOKUP_TAGS, lookupsEnd, LOOKUP_BYTES);
  probe(false);
  touch(lookups + LOOKUP_TAGS, lookupsEnd, LOOKUP_BYTES);
  probe(true);
  touch(lines, linesEnd, LINE_BYTES);
  finishAll(count);
  return true;
}

/** Loads a byte of each line that the u32 at every `stride` bytes points to, and nothing else. */
function touch(list: usize, end: usize, stride: usize): void {
  let seen: u32 = 0;
  for (let at = list; at < end; at += stride) seen += load<u8>(<usize>load<u32>(at));
  store<u32>(sink, seen);
}

function addLine(record: usize): void {
  store<u32>(linesEnd, <u32>record);
  linesEnd += LINE_BYTES;
}

/** Lists the records of packets from outside, and groups for those of clients. */
function listAll(count: u32): void {
  lookupsEnd = lookups;
  linesEnd = lines;
  let packet = packetAt(0);
  const end = frames + <usize>(count * FRAME_BYTES);
  for (let descriptor = frames; descriptor < end; descriptor += FRAME_BYTES) {
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    if (isCarried(packet, port)) {
      if (load<u8>(port, PORT_SIDES) & PORT_SIDE_SERVICE) {
        const record = namedRecord(packet);
        packet.candidate = <u32>record;
        if (record != 0) addLine(record);
      } else {
        store<u32>(lookupsEnd, <u32>changetype<usize>(packet));
        store<u32>(lookupsEnd, <u32>firstGroup(packet), LOOKUP_TAGS);
        lookupsEnd += LOOKUP_BYTES;
      }
    }
    packet = changetype<Packet>(changetype<usize>(packet) + PACKET_BYTES);
  }
}

/** Whole IPv4 packets of TCP and UDP, untagged: what this table is for. */
function isCarried(packet: Packet, port: usize): bool {
  return packet.kind == PACKET_FAST && <u32>(packet.rest >> 40) == load<u32>(port, PORT_ZONE);
}

/** Record that the destination of a packet from outside names, 0 = none. */
function namedRecord(packet: Packet): usize {
  const address = load<u32>(<usize>packet.network, IPV4_DESTINATION);
  return recordAt(address, load<u16>(<usize>packet.transport, 2));
}

/**
 * Looks at one group for each packet on the list: the candidates' records are listed. Packets that
 * are not there stay on the list with their second group; after that, the place that they may take.
 */
function probe(isSecond: bool): void {
  let staying = lookups;
  const end = lookupsEnd;
  for (let at = lookups; at < end; at += LOOKUP_BYTES) {
    const packet = changetype<Packet>(<usize>load<u32>(at));
    const groupAt = <usize>load<u32>(at, LOOKUP_TAGS);
    const hits = tagMatches(groupAt, tagOf(packet.hash));
    if (hits) {
      const record = recordOf(slotOfTags(groupAt) + ctz(hits));
      packet.candidate = <u32>record;
      addLine(record);
    } else if (isSecond) {
      const chosen = groupFor(packet);
      const free = tagMatches(chosen, 0);
      if (free) addLine(recordOf(slotOfTags(chosen) + ctz(free)));
    } else {
      store<u32>(staying, <u32>changetype<usize>(packet));
      store<u32>(staying, <u32>secondGroup(packet), LOOKUP_TAGS);
      staying += LOOKUP_BYTES;
    }
  }
  lookupsEnd = staying;
}

function finishAll(count: u32): void {
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const packet = packetAt(index);
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
    if (!isInWindow(nowMs)) moveClock(nowMs);
    store<u16>(descriptor, load<u16>(port, PORT_PEER), FRAME_PORT_OUT);
    const isOutside = (load<u8>(port, PORT_SIDES) & PORT_SIDE_SERVICE) != 0;
    if (packet.kind == PACKET_DECIDED) giveVerdict(descriptor, packet.verdict);
    else if (!isCarried(packet, port)) giveVerdict(descriptor, VERDICT_DROP_UNINTENDED);
    else if (isOutside) finishFromService(descriptor, packet);
    else finishFromClient(descriptor, packet);
    sweep(nowMs);
  }
}

function giveVerdict(descriptor: usize, verdict: u32): void {
  store<u64>(descriptor, verdict, FRAME_VERDICT);
  countUp(counters + <usize>(COUNTER_VERDICTS + (verdict << 3)));
}

function finishFromClient(descriptor: usize, packet: Packet): void {
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  let record = <usize>packet.candidate;
  if (record == 0 || !holds(record, packet)) record = findByClient(packet);
  if (record == 0) {
    if (!mayBegin(packet)) return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
    record = begin(packet, nowMs);
    if (record == 0) return giveVerdict(descriptor, VERDICT_DROP_PORT_EXHAUSTED);
  } else if (isOver(record, nowMs)) {
    if (!mayBegin(packet)) return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
    beginAgain(record, packet, nowMs);
  } else {
    const state = nextState(stateOf(record), DIRECTION_FROM_CLIENT, packet.flags);
    if (state == STATE_REOPEN) reopen(record, packet, nowMs);
    else setState(record, state);
  }
  const slot = slotOf(record);
  const ip = <usize>packet.network;
  const transport = <usize>packet.transport;
  const before = load<u32>(ip, IPV4_SOURCE);
  const beforePort = <u32>load<u16>(transport);
  const after = addressOfSlot(slot);
  const afterPort = portOfSlot(slot);
  store<u32>(ip, after, IPV4_SOURCE);
  store<u16>(transport, <u16>afterPort);
  updateChecksums(packet, before, after, beforePort, afterPort);
  leave(descriptor, record, SIDE_CLIENT, DIRECTION_FROM_CLIENT, nowMs);
}

function finishFromService(descriptor: usize, packet: Packet): void {
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  const record = <usize>packet.candidate;
  if (record == 0) return giveVerdict(descriptor, VERDICT_DROP_UNINTENDED);
  if (!answers(record, packet) || isOver(record, nowMs)) {
    return giveVerdict(descriptor, VERDICT_DROP_NO_FLOW);
  }
  setState(record, nextState(stateOf(record), DIRECTION_FROM_SERVICE, packet.flags));
  const ip = <usize>packet.network;
  const transport = <usize>packet.transport;
  const before = load<u32>(ip, IPV4_DESTINATION);
  const beforePort = <u32>load<u16>(transport, 2);
  const after = load<u32>(record, COMPACT_CLIENT_ADDRESS_BE);
  const afterPort = <u32>load<u16>(record, COMPACT_CLIENT_PORT_BE);
  store<u32>(ip, after, IPV4_DESTINATION);
  store<u16>(transport, <u16>afterPort, 2);
  updateChecksums(packet, before, after, beforePort, afterPort);
  leave(descriptor, record, SIDE_SERVICE, DIRECTION_FROM_SERVICE, nowMs);
}

/** Whether a packet from outside comes from the server of the record's flow. */
function answers(record: usize, packet: Packet): bool {
  const address = load<u32>(<usize>packet.network, IPV4_SOURCE);
  const port = load<u16>(<usize>packet.transport);
  const isSame =
    i32(load<u32>(record, COMPACT_SERVER_ADDRESS_BE) == address) &
    i32(load<u16>(record, COMPACT_SERVER_PORT_BE) == port);
  return isSame != 0 && hasProtocol(record, packet);
}

/** Both checksums after an address and a port have changed. */
function updateChecksums(
  packet: Packet,
  before: u32,
  after: u32,
  beforePort: u32,
  afterPort: u32,
): void {
  const ip = <usize>packet.network;
  const network = <u32>load<u16>(ip, IPV4_CHECKSUM);
  store<u16>(ip, <u16>updated(network, deltaOf(before, after)), IPV4_CHECKSUM);
  const isUdp = packet.protocol == PROTOCOL_UDP;
  const at = <usize>packet.transport + select<usize>(UDP_CHECKSUM, TCP_CHECKSUM, isUdp);
  const delta = deltaOf(<u64>before + beforePort, <u64>after + afterPort);
  const checksum = <u32>load<u16>(at);
  const tcp = updated(checksum, delta);
  store<u16>(at, <u16>select<u32>(updatedUdp(checksum, delta), tcp, isUdp));
}

function leave(descriptor: usize, record: usize, side: u32, direction: u32, nowMs: u32): void {
  const bytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  account(record, bytes, direction, nowMs);
  countUsage(0, direction, bytes);
  forward(descriptor, slotOf(record) + 1, side, direction);
}
