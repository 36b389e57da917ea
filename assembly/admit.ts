/**
 * What is looked at before a batch begins: that all its frames may be trusted to lie where they say, and
 * whether the clock has to be moved in between (clock.ts).
 */
import {
  CLOCK_WINDOW_MS,
  CONFIG_ARENA_BYTES,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_TIME_MS,
  LAYOUT_ARENA,
  PORT_COUNT_MAX,
} from "./abi";
import { baseMs, isInWindow, moveClock } from "./clock";
import { config, frames, layout } from "./memory";

/** Whether a frame of the batch may lie outside the clock's window. */
export let leavesWindow: bool = false;

/**
 * Whether all frames lie in the arena and come from a port: what is parsed later is trusted. Also
 * sets `leavesWindow`.
 *
 * Takes four words of a descriptor at once: address, captured bytes, time, ports. An arena has at
 * most 2^30 bytes, so offsets and lengths have no bit above that; then the room behind a frame
 * cannot wrap, and its sign tells whether the frame ends in the arena.
 */
export function areInside(count: u32): bool {
  const none = i32x4.splat(0);
  const start = i32x4.replace_lane(none, 0, load<i32>(layout, LAYOUT_ARENA));
  const arena = i32x4.replace_lane(start, 2, <i32>baseMs);
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
  leavesWindow = <u32>i32x4.extract_lane(words, 2) >= CLOCK_WINDOW_MS;
  return high == 0 && i32x4.extract_lane(rooms, 0) >= 0 && portBits < PORT_COUNT_MAX;
}

/** Moves the clock to frame `first`; returns the first one after it that it has to be moved for again. */
export function endOfWindow(first: u32, count: u32): u32 {
  moveClock(load<u32>(frames + <usize>(first * FRAME_BYTES), FRAME_TIME_MS));
  for (let index = first + 1; index < count; index++) {
    if (!isInWindow(load<u32>(frames + <usize>(index * FRAME_BYTES), FRAME_TIME_MS))) return index;
  }
  return count;
}
