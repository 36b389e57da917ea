/**
 * Which frames are whose, when several workers replay one capture. Every worker walks all records
 * and keeps the frames of its lanes; nobody has to be asked, and no frame is copied.
 *
 * The lane of a frame is the exclusive or of the low LANE_BITS bits of the two ports of the tuple
 * that names its flow. It is symmetric, so both directions meet; addresses do not count, and source
 * NAT keeps those bits of a port (translate.ts), so whatever is tried for a flow's service side lies
 * in the flow's own lane: no two workers can choose the same tuple. ICMP queries have their
 * identifier for a port, ICMP errors belong to the flow that they quote, later fragments to where
 * their first went. Protocols without ports, frames whose ports cannot be told and fragments that
 * nobody knows are in lane 0. Where targets have ports of their own a port does not
 * tell where a tuple ends: then everything is in lane 0 (`isSpread` 0).
 *
 * From one of its frames to the next a worker may miss any number of steps of the clock: they are
 * shortened to one (clock.ts), so a worker's clock may fall behind the capture's after long pauses.
 *
 * Invariants: every frame has exactly one owner, and all workers agree on it, because each sees all
 * frames in order; for the same reason zones have the same numbers in all of them.
 */
import {
  CLOCK_WINDOW_MS,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  FRAME_TIME_MS,
  LANE_BITS,
  LINK_ETHERNET,
  PORT_BYTES,
  PORT_LINK,
} from "../abi";
import { clockStep } from "../flow/state";
import { ageLanes, laneOfFragment, rememberLane } from "../fragment";
import { parseQuote } from "../icmp";
import { frames, ports, recordNumbers, recordTimes } from "../memory";
import {
  FRAGMENT_FIRST,
  PACKET_DECIDED,
  PACKET_ERROR,
  PACKET_LATER,
  Packet,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../packet";
import { parseFrame } from "../wire/link";

const LANE_COUNT: u32 = 1 << LANE_BITS;
/** An odd factor: ports are often all even, so the bits that decide must depend on all others. */
const SPREAD: u32 = 37;

// Ethernet, IPv4 without options or fragments: the same words as in wire/plain.ts.
const PLAIN_BYTES_MIN: u32 = 42;
const TYPE_AND_VERSION: u32 = 0x00450008;
const TYPE_AND_VERSION_MASK: u32 = 0x00ffffff;
const FRAGMENT_MASK: u32 = 0x0000ff3f;
const PORTED: u64 = (1 << (<u64>PROTOCOL_TCP)) | (1 << (<u64>PROTOCOL_UDP));

const scratch: usize = memory.data(64, 64);

/** Whether the walk keeps the worker's frames alone, the lanes that are its, and where it ends. */
export let isSelecting: bool = false;
/** A bit for each lane: whether it is the worker's. */
let ownLanes: u64 = 0;
let recordsEnd: u64 = U64.MAX_VALUE;

/** Clock of the last frame that was walked; the same unwound, and the latest that it has been. */
let walkedMs: u32 = 0;
let captureMs: f64 = 0;
let latestMs: f64 = 0;
/**
 * What the worker's own clock would show there, what at the latest instant, and whether a frame of its
 * has shown it.
 */
let shownMs: u32 = 0;
let latestShownMs: u32 = 0;
let isShown: u32 = 0;
/** What it showed for the last frame that lies at another instant, and what it has missed since. */
let ownMs: u32 = 0;
let missedMs: i64 = 0;
/** Clock at which all that is known of lanes of fragments was in range. */
let lanesAgedMs: u32 = 0;

export function resetSelection(): void {
  walkedMs = 0;
  captureMs = 0;
  latestMs = 0;
  shownMs = 0;
  latestShownMs = 0;
  isShown = 0;
  ownMs = 0;
  missedMs = 0;
  lanesAgedMs = 0;
  isSelecting = false;
}

/**
 * Says which frames are wanted: those of worker `worker` of `workers`. `isSpread` 0: all frames are in
 * lane 0. `isWalking`: the walk keeps no others, and none of record number `end` or later.
 */
export function beginSelection(
  worker: u32,
  workers: u32,
  isSpread: u32,
  isWalking: u32,
  end: u64,
): void {
  ownLanes = 0;
  for (let lane: u32 = 0; lane < LANE_COUNT; lane++) {
    const isOwn = workerOf(isSpread ? lane : 0, workers) == worker;
    ownLanes |= u64(isOwn) << (<u64>lane);
  }
  isSelecting = isWalking != 0;
  recordsEnd = end;
}

/**
 * What the worker's own clock shows at the latest instant of the capture: less than the capture's, where
 * it has missed long pauses.
 */
export function ownLatestMs(): u32 {
  return latestShownMs;
}

/** Keeps the instants of fragments' lanes within range, as clock.ts does with all others. */
function moveLaneClock(nowMs: u32): void {
  const sinceMs = <i32>(nowMs - lanesAgedMs);
  if (sinceMs < <i32>CLOCK_WINDOW_MS && sinceMs > -(<i32>CLOCK_WINDOW_MS)) return;
  ageLanes(lanesAgedMs, nowMs);
  lanesAgedMs = nowMs;
}

/** Lane of a pair of ports as a packet or a tuple holds them, in network order. */
function laneOfPorts(portPair: u32): u32 {
  return ((portPair ^ (portPair >> 16)) >> 8) & (LANE_COUNT - 1);
}

/** The worker that a lane belongs to: every worker has as many lanes as any other, give or take one. */
export function workerOf(lane: u32, workers: u32): u32 {
  return (((lane * SPREAD) & (LANE_COUNT - 1)) * workers) >> LANE_BITS;
}

/** Lane of the frame of a descriptor, which lies at `frame`, has `bytes` bytes and came in at `port`. */
function laneOf(descriptor: usize, frame: usize, bytes: u32, port: u32): u32 {
  const link = load<u8>(ports + <usize>port * PORT_BYTES, PORT_LINK);
  if (link == LINK_ETHERNET && bytes >= PLAIN_BYTES_MIN) {
    const fragmentAndProtocol = load<u32>(frame, 20);
    const protocol = fragmentAndProtocol >> 24;
    const differs =
      ((load<u32>(frame, 12) ^ TYPE_AND_VERSION) & TYPE_AND_VERSION_MASK) |
      (fragmentAndProtocol & FRAGMENT_MASK);
    const isPorted = (PORTED >> <u64>protocol) & u64(protocol <= PROTOCOL_UDP);
    if ((isPorted & u64(differs == 0)) != 0) return laneOfPorts(load<u32>(frame, 34));
  }
  return laneOfOther(descriptor);
}

/** The same for frames that have to be parsed. */
function laneOfOther(descriptor: usize): u32 {
  const packet = changetype<Packet>(scratch);
  parseFrame(descriptor, packet);
  if (packet.kind == PACKET_ERROR) parseQuote(descriptor, packet);
  if (packet.kind == PACKET_DECIDED) return 0;
  const nowMs = load<u32>(descriptor, FRAME_TIME_MS);
  if (packet.kind == PACKET_LATER) return laneOfFragment(packet, nowMs);
  const lane = laneOfPorts(<u32>packet.rest);
  const isFirst = packet.fragment == FRAGMENT_FIRST && packet.kind != PACKET_ERROR;
  if (isFirst) rememberLane(packet, lane, nowMs);
  return lane;
}

/**
 * 1 if the frame of a descriptor, which is one of the batch, is the worker's: then the number of its
 * record and the capture's clock are noted. Else 0: the descriptor is free for the next frame. What
 * the descriptor says is passed as well, by who has just written it there.
 */
export function keep(
  descriptor: usize,
  record: u64,
  frame: usize,
  bytes: u32,
  port: u32,
  timeMs: u32,
): u32 {
  if (record >= recordsEnd) return 0;
  if (timeMs != walkedMs) moveTo(timeMs);
  // Shifts look at six bits: a lane's number needs no mask.
  const mine = <u32>(ownLanes >> <u64>laneOf(descriptor, frame, bytes, port)) & 1;
  isShown |= mine;
  const at = descriptor - frames;
  store<u32>(descriptor, shownMs, FRAME_TIME_MS);
  store<u32>(recordNumbers + at / (FRAME_BYTES / 4), <u32>record);
  store<f64>(recordTimes + at / (FRAME_BYTES / 8), captureMs);
  return mine;
}

/** The same, of what the descriptor says. */
export function keepDescribed(descriptor: usize, record: u64): u32 {
  return keep(
    descriptor,
    record,
    load<u32>(descriptor, FRAME_ADDRESS),
    load<u32>(descriptor, FRAME_CAPTURED_BYTES),
    load<u16>(descriptor, FRAME_PORT),
    load<u32>(descriptor, FRAME_TIME_MS),
  );
}

/**
 * Moves all clocks to a frame's, where it is not that of the frame before: most frames share their
 * millisecond with that one, so nothing else of clocks is done for them.
 */
function moveTo(timeMs: u32): void {
  moveLaneClock(timeMs);
  if (isShown) {
    ownMs = shownMs;
    missedMs = 0;
    isShown = 0;
  }
  const stepMs = <i32>(timeMs - walkedMs);
  walkedMs = timeMs;
  captureMs += <f64>stepMs;
  missedMs += <i64>stepMs;
  shownMs = ownMs + clockStep(missedMs);
  if (captureMs > latestMs) {
    latestMs = captureMs;
    latestShownMs = shownMs;
  }
}

/**
 * Keeps, of descriptors [first, first + count), those that are wanted, moved together; the first one's
 * record is number `number`. Returns how many are left.
 */
export function selectFrames(first: u32, count: u32, number: u32): u32 {
  let to = frames + <usize>(first * FRAME_BYTES);
  let from = to;
  const begin = to;
  for (let record: u32 = 0; record < count; record++) {
    v128.store(to, v128.load(from));
    v128.store(to, v128.load(from, 16), 16);
    to += <usize>keepDescribed(to, <u64>(number + record)) * FRAME_BYTES;
    from += FRAME_BYTES;
  }
  return <u32>((to - begin) / FRAME_BYTES);
}
