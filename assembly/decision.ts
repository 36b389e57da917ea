/**
 * Decisions: what a worker tells of the frames that it has decided, so that whoever restores the
 * order of a capture needs neither the worker's memory nor a lock. One record (DECISION_*) for each
 * frame of the batch, in the order in which frames leave; gather.ts takes them.
 */
import {
  BATCH_COUNT_MAX,
  COUNTER_FLOWS_ACTIVE,
  COUNTER_FLOWS_CREATED,
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
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_VERDICT,
  VERDICT_PASS_NON_IP,
} from "./abi";
import { hashFrame, leavesWith } from "./digest";
import { emitCount, emits } from "./emit";
import { counters, frames, recordNumbers } from "./memory";

/** The last batch's decisions: a frame and what it caused to be emitted. */
const decisions: usize = memory.data(<i32>(DECISION_SIZE * BATCH_COUNT_MAX * 3), 64);

export function decisionsAddress(): usize {
  return decisions;
}

/**
 * Writes down what became of the first `count` frames of the batch, and what they caused; returns
 * how many decisions.
 */
export function listDecisions(count: u32): u32 {
  let decision = decisions;
  let emitted = emits;
  const end = emits + <usize>(emitCount() * FRAME_BYTES);
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const isOut = load<u16>(descriptor, FRAME_VERDICT) <= VERDICT_PASS_NON_IP;
    for (; leavesWith(emitted, end, index, 0); emitted += FRAME_BYTES) {
      decision = write(decision, index, emitted, DECISION_EMITTED, true);
    }
    decision = write(decision, index, descriptor, 0, isOut);
    for (; leavesWith(emitted, end, index, 1); emitted += FRAME_BYTES) {
      decision = write(decision, index, emitted, DECISION_EMITTED, true);
    }
    const last = decision - DECISION_SIZE;
    store<u32>(last, load<u32>(last, DECISION_VERDICT) | DECISION_LAST, DECISION_VERDICT);
  }
  return <u32>((decision - decisions) / DECISION_SIZE);
}

/** Writes the decision of one frame, which came of frame `index`; returns where the next goes. */
function write(decision: usize, index: u32, descriptor: usize, mark: u32, isOut: bool): usize {
  store<u32>(decision, load<u32>(recordNumbers + ((<usize>index) << 2)), DECISION_RECORD);
  store<u32>(decision, load<u32>(descriptor, FRAME_VERDICT) | mark, DECISION_VERDICT);
  store<u32>(decision, load<u32>(descriptor, FRAME_FLOW), DECISION_FLOW);
  store<u32>(decision, load<u32>(counters, COUNTER_FLOWS_ACTIVE), DECISION_ACTIVE);
  store<u32>(decision, load<u32>(descriptor, FRAME_CAPTURED_BYTES), DECISION_BYTES);
  store<u32>(decision, load<u32>(counters, COUNTER_FLOWS_CREATED), DECISION_CREATED);
  store<u64>(decision, isOut ? hashFrame(descriptor) : 0, DECISION_HASH);
  return decision + DECISION_SIZE;
}
