/**
 * What this machine's memory costs: a chase of pointers, each load waiting for the one before, and
 * loads at random that do not depend on each other. The region is the engine's arena.
 */

const LINE_BYTES: u32 = 64;
let seed: u64 = 0x2545f4914f6cdd1d;

function randomBelow(limit: u32): u32 {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return <u32>(((seed >> 32) * <u64>limit) >> 32);
}

/** Links `lineCount` cache lines at `start` to one cycle in random order (Sattolo 1986). */
export function probeLink(start: usize, lineCount: u32): void {
  for (let line: u32 = 0; line < lineCount; line++) {
    store<u32>(start + <usize>(line * LINE_BYTES), line);
  }
  for (let line = lineCount - 1; line > 0; line--) {
    const own = start + <usize>(line * LINE_BYTES);
    const other = start + <usize>(randomBelow(line) * LINE_BYTES);
    const next = load<u32>(own);
    store<u32>(own, load<u32>(other));
    store<u32>(other, next);
  }
}

/** Follows `steps` links from `line` on; returns the line it came to. */
export function probeChase(start: usize, line: u32, steps: u32): u32 {
  let at = line;
  for (let step: u32 = 0; step < steps; step++) at = load<u32>(start + <usize>(at * LINE_BYTES));
  return at;
}

/** Loads from `count` lines at random, none waiting for another. */
export function probeLoads(start: usize, lineCount: u32, count: u32): u32 {
  let sum: u32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    sum += load<u32>(start + <usize>(randomBelow(lineCount) * LINE_BYTES));
  }
  return sum;
}
