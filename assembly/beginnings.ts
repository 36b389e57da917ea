/**
 * Packets that probably begin flows: everything that making the flow will touch, foreseen step by
 * step. What each step reads, the step before has found: the listener's line of the directory, the
 * service, the ring, the target, the index. All packets take one step before any takes the next, so
 * that the misses of a step are in flight together.
 *
 * Nothing here has to be right but the answers that are kept (network/resolve.ts, translate.ts), and
 * those depend on nothing that changes within a batch.
 */
import {
  BATCH_COUNT_MAX,
  FRAME_BYTES,
  FRAME_PORT,
  PORT_BYTES,
  ROUTE_BLACKHOLE,
  SERVICE_BYTES,
  USAGE_BYTES,
} from "./abi";
import { foreseeIndex } from "./flow/lifecycle";
import { firstBucket, flowTable, secondBucket } from "./flow/table";
import { frames, image, ports, services, usage } from "./memory";
import { foreseeService, listenerLine, serviceFor } from "./network/resolve";
import { indexOf, Packet } from "./packet";
import { ringEntry, targetAt } from "./translate";

/** The packet's address, then the line that its next step reads; 0 = none. */
const LINE: usize = 4;
const BEGINNING_BYTES: usize = 8;
const beginnings: usize = memory.data(8 * <i32>BATCH_COUNT_MAX, 64);
let end: usize = 0;

const LINE_BYTES: usize = 4;
/** Keeps the loads of `touchLines` alive. */
const sink: usize = memory.data(8, 64);

export function clearBeginnings(): void {
  end = beginnings;
}

export function addBeginning(packet: Packet): void {
  store<u32>(end, <u32>changetype<usize>(packet));
  end += BEGINNING_BYTES;
}

/** Foresees all of them; adds up to four lines a packet, still to be touched, at `lines`; returns their end. */
export function foreseeBeginnings(lines: usize): usize {
  if (end == beginnings) return lines;
  if (image != 0) {
    findListeners();
    touchLines(0);
  }
  findServices();
  if (image != 0) {
    touchLines(0);
    touchLines(SERVICE_BYTES / 2);
  }
  findRings();
  touchLines(0);
  if (image != 0) {
    findTargets();
    touchLines(0);
  }
  return findIndexes(lines);
}

/** Loads a byte of every packet's line, and nothing else. */
function touchLines(offset: usize): void {
  let seen: u32 = 0;
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    seen += load<u8>(<usize>load<u32>(at, LINE) + offset);
  }
  store<u32>(sink, seen);
}

function packetOf(at: usize): Packet {
  return changetype<Packet>(<usize>load<u32>(at));
}

function portOf(packet: Packet): usize {
  const descriptor = frames + <usize>(indexOf(packet) * FRAME_BYTES);
  return ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
}

function findListeners(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const packet = packetOf(at);
    store<u32>(at, <u32>listenerLine(packet, portOf(packet)), LINE);
  }
}

function findServices(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const packet = packetOf(at);
    const index = foreseeService(packet, portOf(packet));
    const isNone = index >= ROUTE_BLACKHOLE;
    store<u32>(at, isNone ? 0 : <u32>services + index * SERVICE_BYTES, LINE);
  }
}

function findRings(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const service = <usize>load<u32>(at, LINE);
    if (service != 0) store<u32>(at, <u32>ringEntry(service, packetOf(at)), LINE);
  }
}

function findTargets(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const entry = <usize>load<u32>(at, LINE);
    if (entry == 0) continue;
    const packet = packetOf(at);
    const index = serviceFor(packet, portOf(packet));
    const service = services + <usize>(index * SERVICE_BYTES);
    store<u32>(at, <u32>targetAt(service, packet, entry), LINE);
  }
}

/** The two lines of the index, and the two in which the service counts. */
function findIndexes(lines: usize): usize {
  let line = lines;
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const packet = packetOf(at);
    const port = portOf(packet);
    const hash = foreseeIndex(packet, port);
    if (hash == 0) continue;
    const table = flowTable(packet.isIpv6);
    store<u32>(line, <u32>firstBucket(table, hash));
    store<u32>(line, <u32>secondBucket(table, hash), LINE_BYTES);
    line += 2 * LINE_BYTES;
    if (image == 0) continue;
    const used = <u32>usage + serviceFor(packet, port) * USAGE_BYTES;
    store<u32>(line, used);
    store<u32>(line, used + 64, LINE_BYTES);
    line += 2 * LINE_BYTES;
  }
  return line;
}
