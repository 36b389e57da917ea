/**
 * Measures what the engine has decided of a batch: bytes that go out, and those that belong to flows, by
 * seconds of the capture's clock (host/replay/meter.ts). Frames that follow each other mostly are of one
 * second, so they are summed up until another one begins.
 *
 * The clock is the capture's, in ms since its first record modulo 2^32; it may step back a little. It is
 * unwound here, so that captures of any length are measured right. What lies before the first record counts
 * as its instant.
 */
import {
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  VERDICT_PASS_NON_IP,
} from "./abi";
import { frames, recordTimes } from "./memory";

const MS_PER_SECOND: f64 = 1000;

// What the last call has found out.
let clockMs: f64 = 0;
let mostMs: f64 = 0;
let second: f64 = 0;
let leavingBytes: f64 = 0;
let flowBytes: f64 = 0;

/** The capture's clock at the last frame that was measured. */
export function measuredMs(): f64 {
  return clockMs;
}

/** The latest that it was, not before the first record. */
export function measuredLatestMs(): f64 {
  return mostMs;
}

/** The second of the clock that all measured frames are of. */
export function measuredSecond(): f64 {
  return second;
}

/** Bytes of them that go out. */
export function measuredOutputBytes(): f64 {
  return leavingBytes;
}

/** Bytes of those that belong to flows. */
export function measuredFlowBytes(): f64 {
  return flowBytes;
}

/**
 * Measures descriptors from `first` on, before `count`, up to one of another second; returns which. The
 * clock was at `nowMs` before. `isTold`: frames do not follow each other, and where the clock was at each
 * stands beside it (capture/select).
 */
export function measureFrames(first: u32, count: u32, isTold: u32, nowMs: f64): u32 {
  let atMs = nowMs;
  let latestMs: f64 = 0;
  let startMs: f64 = 0;
  let endMs: f64 = 0;
  let outputs: u64 = 0;
  let ofFlows: u64 = 0;
  let shownMs: u32 = 0;
  let index = first;
  for (; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const timeMs = load<u32>(descriptor, FRAME_TIME_MS);
    // Most frames share their millisecond with the one before.
    if (timeMs != shownMs || index == first || isTold != 0) {
      const nextMs = isTold ? load<f64>(recordTimes + <usize>(index << 3)) : unwound(atMs, timeMs);
      const ms = max<f64>(nextMs, 0);
      if (ms < startMs || ms >= endMs) {
        if (index != first) break;
        startMs = Math.floor(ms / MS_PER_SECOND) * MS_PER_SECOND;
        endMs = startMs + MS_PER_SECOND;
      }
      shownMs = timeMs;
      atMs = nextMs;
      latestMs = max<f64>(latestMs, ms);
    }
    const isOut = u64(load<u16>(descriptor, FRAME_VERDICT) <= VERDICT_PASS_NON_IP);
    const isOfFlow = u64(load<u32>(descriptor, FRAME_FLOW) != 0);
    const bytes = <u64>load<u32>(descriptor, FRAME_CAPTURED_BYTES) & (0 - isOut);
    outputs += bytes;
    ofFlows += bytes & (0 - isOfFlow);
  }
  clockMs = atMs;
  mostMs = latestMs;
  second = startMs / MS_PER_SECOND;
  leavingBytes = <f64>outputs;
  flowBytes = <f64>ofFlows;
  return index;
}

/** The instant that a clock at `fromMs` shows as `timeMs`. */
function unwound(fromMs: f64, timeMs: u32): f64 {
  return fromMs + <f64>(<i32>(timeMs - <u32>(<i64>fromMs)));
}
