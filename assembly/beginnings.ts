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
import { foreseeService, listenerLine } from "./network/resolve";
import { indexOf, Packet } from "./packet";
import { ringEntry, targetAt } from "./translate";

/** The packet, its port, its service (0 = none), and the line that its next step reads (0 = none): addresses. */
const PORT: usize = 4;
const SERVICE: usize = 8;
const LINE: usize = 12;
const BEGINNING_BYTES: usize = 16;
const beginnings: usize = memory.data(16 * <i32>BATCH_COUNT_MAX, 64);
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
  findPorts();
  if (image != 0) {
    findListeners();
    touchLines(LINE, 0);
  }
  findServices();
  if (image != 0) {
    touchLines(SERVICE, 0);
    touchLines(SERVICE, SERVICE_BYTES / 2);
  }
  findRings();
  touchLines(LINE, 0);
  if (image != 0) {
    findTargets();
    touchLines(LINE, 0);
  }
  return findIndexes(lines);
}

/** Loads a byte at `offset` from every packet's address of the kind `which`, and nothing else. */
function touchLines(which: usize, offset: usize): void {
  let seen: u32 = 0;
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    seen += load<u8>(<usize>load<u32>(at + which) + offset);
  }
  store<u32>(sink, seen);
}

function packetOf(at: usize): Packet {
  return changetype<Packet>(<usize>load<u32>(at));
}

function portOf(at: usize): usize {
  return <usize>load<u32>(at, PORT);
}

function serviceOf(at: usize): usize {
  return <usize>load<u32>(at, SERVICE);
}

function findPorts(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const descriptor = frames + <usize>(indexOf(packetOf(at)) * FRAME_BYTES);
    const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
    store<u32>(at, <u32>port, PORT);
  }
}

function findListeners(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    store<u32>(at, <u32>listenerLine(packetOf(at), portOf(at)), LINE);
  }
}

function findServices(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const index = foreseeService(packetOf(at), portOf(at));
    const isNone = index >= ROUTE_BLACKHOLE;
    store<u32>(at, isNone ? 0 : <u32>services + index * SERVICE_BYTES, SERVICE);
  }
}

function findRings(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const service = serviceOf(at);
    store<u32>(at, service == 0 ? 0 : <u32>ringEntry(service, packetOf(at)), LINE);
  }
}

function findTargets(): void {
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const entry = <usize>load<u32>(at, LINE);
    if (entry != 0) store<u32>(at, <u32>targetAt(serviceOf(at), packetOf(at), entry), LINE);
  }
}

/** The two lines of the index, and the two in which the service counts. */
function findIndexes(lines: usize): usize {
  let line = lines;
  for (let at = beginnings; at < end; at += BEGINNING_BYTES) {
    const service = serviceOf(at);
    if (service == 0) continue;
    const packet = packetOf(at);
    const hash = foreseeIndex(service, packet, portOf(at));
    if (hash == 0) continue;
    const table = flowTable(packet.isIpv6);
    store<u32>(line, <u32>firstBucket(table, hash));
    store<u32>(line, <u32>secondBucket(table, hash), LINE_BYTES);
    line += 2 * LINE_BYTES;
    if (image == 0) continue;
    const index = <u32>(service - services) / SERVICE_BYTES;
    const used = <u32>usage + index * USAGE_BYTES;
    store<u32>(line, used);
    store<u32>(line, used + 64, LINE_BYTES);
    line += 2 * LINE_BYTES;
  }
  return line;
}
