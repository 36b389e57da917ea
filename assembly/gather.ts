/**
 * Gathers what workers have decided, in the order of the capture's records: the other end of
 * decision.ts. Each worker's decisions lie in this engine's memory as its ring brought them, in
 * order; every record was decided by one worker, so the next record's decision is the next one of
 * exactly one worker. Their hashes are chained to the digest, flows are added up, and, where somebody
 * reads the capture here as well, descriptors and emitted frames become what one
 * engine would have made of them.
 *
 * Invariants: a record is taken whole or not at all; frames are copied only where they are wanted.
 */
import {
  DECISION_ACTIVE,
  DECISION_BYTES,
  DECISION_CREATED,
  DECISION_EMITTED,
  DECISION_FLOW,
  DECISION_HASH,
  DECISION_LAST,
  DECISION_RECORD,
  DECISION_SIZE,
  DECISION_VERDICT,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_PORT,
  FRAME_RECORD,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  FRAME_WIRE_BYTES,
  VERDICT_PASS_NON_IP,
  WORKER_COUNT_MAX,
} from "./abi";
import { chain } from "./digest";
import { emits } from "./emit";
import { frames } from "./memory";

const MARKS: u32 = DECISION_EMITTED | DECISION_LAST;

// Of each worker: the part of the arena that holds what it has told and was not gathered yet, and its
// flows as of its last decision that was gathered.
const MEMBER_NEXT: u32 = 0;
const MEMBER_END: u32 = 4;
const MEMBER_ACTIVE: u32 = 8;
const MEMBER_CREATED: u32 = 12;
const MEMBER_BYTES: u32 = 16;
const members: usize = memory.data(<i32>(MEMBER_BYTES * WORKER_COUNT_MAX), 64);
let membersEnd: usize = members;
/** Who decided the last record: packets come in trains. */
let owner: usize = members;

let describes: bool = false;
let hasFrames: bool = false;
let digest: u64 = 0;
let active: u32 = 0;
let activeMax: u32 = 0;
let created: u32 = 0;
/** Emitted frames of this batch, and where frames go that do not stand in their records. */
let emitted: u32 = 0;
let room: u32 = 0;
let roomEnd: u32 = 0;

/**
 * Begins with nothing gathered. `isDescribed`: into the descriptors, which hold the records' frames.
 * `isWithFrames`: decisions of frames that go out are followed by their bytes, in whole cells.
 */
export function beginGathering(workers: u32, isDescribed: u32, isWithFrames: u32): void {
  memory.fill(members, 0, <usize>(MEMBER_BYTES * WORKER_COUNT_MAX));
  membersEnd = members + <usize>(workers * MEMBER_BYTES);
  owner = members;
  describes = isDescribed != 0;
  hasFrames = isWithFrames != 0;
  digest = 0;
  active = 0;
  activeMax = 0;
  created = 0;
}

/** Begins a batch, with room at [start, end) for frames that do not stand in their records. */
export function beginGathered(start: u32, end: u32): void {
  emitted = 0;
  room = start;
  roomEnd = end;
}

/** Says where what a worker has told, and was not gathered, lies now. */
export function setTold(worker: u32, next: u32, end: u32): void {
  const member = members + <usize>(worker * MEMBER_BYTES);
  store<u32>(member, next, MEMBER_NEXT);
  store<u32>(member, end, MEMBER_END);
}

/** Address of the first decision of a worker that was not gathered yet. */
export function toldFrom(worker: u32): u32 {
  return load<u32>(members + <usize>(worker * MEMBER_BYTES), MEMBER_NEXT);
}

/** Digest of all frames so far that go out. */
export function gatheredDigest(): u64 {
  return digest;
}

/** Flows that are active in all workers, as of the last record. */
export function gatheredActive(): u32 {
  return active;
}

/** The most of them that there have been. */
export function gatheredActiveMax(): u32 {
  return activeMax;
}

export function gatheredCreated(): u32 {
  return created;
}

export function gatheredEmits(): u32 {
  return emitted;
}

/**
 * Takes the decisions of up to `count` records, the first of which is number `record` and, where
 * they are described, the batch's descriptor `index`. Returns of how many: fewer when a record's
 * decisions are not all there yet.
 */
export function gather(record: u32, index: u32, count: u32): u32 {
  const one = <usize>MEMBER_BYTES;
  let chained = digest;
  let member = owner;
  let taken: u32 = 0;
  for (; taken < count; taken++) {
    let end = endOf(member, record + taken);
    for (let other = members + one; end == 0 && other < membersEnd; other += one) {
      member = member + one == membersEnd ? members : member + one;
      end = endOf(member, record + taken);
    }
    if (end == 0) break;
    let decision = <usize>load<u32>(member, MEMBER_NEXT);
    for (;;) {
      const verdict = load<u32>(decision, DECISION_VERDICT);
      if (isOut(verdict)) chained = chain(load<u64>(decision, DECISION_HASH), chained);
      if (describes) describe(decision, verdict, index + taken);
      if (verdict & DECISION_LAST) break;
      decision = after(decision, verdict);
    }
    countFlows(member, decision);
    store<u32>(member, <u32>end, MEMBER_NEXT);
  }
  digest = chained;
  owner = member;
  return taken;
}

function isOut(verdict: u32): bool {
  return (verdict & DECISION_EMITTED) != 0 || (verdict & 0xffff) <= VERDICT_PASS_NON_IP;
}

/** Where what follows a decision begins. */
function after(decision: usize, verdict: u32): usize {
  const next = decision + DECISION_SIZE;
  if (!hasFrames || !isOut(verdict)) return next;
  const bytes = load<u32>(decision, DECISION_BYTES);
  return next + <usize>((bytes + DECISION_SIZE - 1) & ~(DECISION_SIZE - 1));
}

/** Address behind a record's decisions, if they are a worker's next ones and all there; else 0. */
function endOf(member: usize, record: u32): usize {
  let decision = <usize>load<u32>(member, MEMBER_NEXT);
  const end = <usize>load<u32>(member, MEMBER_END);
  if (decision >= end || load<u32>(decision, DECISION_RECORD) != record) return 0;
  while (decision < end) {
    const verdict = load<u32>(decision, DECISION_VERDICT);
    decision = after(decision, verdict);
    if (verdict & DECISION_LAST) return decision <= end ? decision : 0;
  }
  return 0;
}

/** Adds what has changed of a worker's flows. */
function countFlows(member: usize, decision: usize): void {
  const nowActive = load<u32>(decision, DECISION_ACTIVE);
  const nowCreated = load<u32>(decision, DECISION_CREATED);
  active += nowActive - load<u32>(member, MEMBER_ACTIVE);
  created += nowCreated - load<u32>(member, MEMBER_CREATED);
  activeMax = max<u32>(activeMax, active);
  store<u32>(member, nowActive, MEMBER_ACTIVE);
  store<u32>(member, nowCreated, MEMBER_CREATED);
}

/** Writes a decision where one engine has it: into descriptor `index`, or among the emitted. */
function describe(decision: usize, verdict: u32, index: u32): void {
  const bytes = load<u32>(decision, DECISION_BYTES);
  let descriptor = frames + <usize>(index * FRAME_BYTES);
  if (verdict & DECISION_EMITTED) descriptor = newEmitted(descriptor, index, bytes);
  else if (load<u32>(descriptor, FRAME_CAPTURED_BYTES) != bytes) move(descriptor, bytes);
  store<u32>(descriptor, verdict & ~MARKS, FRAME_VERDICT);
  store<u32>(descriptor, load<u32>(decision, DECISION_FLOW), FRAME_FLOW);
  if (!hasFrames || !isOut(verdict)) return;
  memory.copy(<usize>load<u32>(descriptor, FRAME_ADDRESS), decision + DECISION_SIZE, bytes);
}

/** Lists an emitted frame, which frame `index` has caused. */
function newEmitted(cause: usize, index: u32, bytes: u32): usize {
  const descriptor = emits + <usize>(emitted++ * FRAME_BYTES);
  store<u32>(descriptor, take(bytes), FRAME_ADDRESS);
  store<u32>(descriptor, bytes, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, load<u32>(cause, FRAME_TIME_MS), FRAME_TIME_MS);
  store<u32>(descriptor, load<u32>(cause, FRAME_PORT), FRAME_PORT);
  store<u32>(descriptor, index, FRAME_RECORD);
  store<u32>(descriptor, bytes, FRAME_WIRE_BYTES);
  return descriptor;
}

/** Gives a frame that has grown or shrunk a place beside its record. */
function move(descriptor: usize, bytes: u32): void {
  const grown = bytes - load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, take(bytes), FRAME_ADDRESS);
  store<u32>(descriptor, bytes, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, load<u32>(descriptor, FRAME_WIRE_BYTES) + grown, FRAME_WIRE_BYTES);
}

/** Takes some of the room beside the records. */
function take(bytes: u32): u32 {
  assert(bytes <= roomEnd - room, "gather: a batch has grown by more than there is room for");
  const address = room;
  room += bytes;
  return address;
}
