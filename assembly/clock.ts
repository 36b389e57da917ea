/**
 * The virtual clock: milliseconds in 32 bits, compared by signed difference. It goes around in 49.7
 * days, so whoever has not been seen for 24.8 would look alive again. Therefore ages are kept in range:
 *
 *   - a timeout is shorter than CLOCK_WINDOW_MS, 6.2 days, or never ends;
 *   - from one frame to the next the clock moves by CLOCK_STEP_MS_MAX, 12.4 days, at most: whoever
 *     makes descriptors shortens longer pauses to that (capture/walk.ts, host/clock.ts);
 *   - at least once in CLOCK_WINDOW_MS, every instant that lies further back than CLOCK_STEP_MS_MAX is
 *     moved up to that. No timeout can tell the difference.
 *
 * Invariant: when a frame is finished, its time lies less than CLOCK_WINDOW_MS from `baseMs`, and all
 * instants that are kept at most CLOCK_STEP_MS_MAX and a window from it. Hence batches say nothing:
 * `processBatch` moves the clock right before the frame that leaves the window.
 *
 * Cost: none while time goes on and there is traffic, for the sweep comes by everywhere. Else one walk
 * through the table, each 6.2 days of packet time at most.
 */
import { CLOCK_WINDOW_MS } from "./abi";
import { ageCompact } from "./compact/flow";
import { ageFlows } from "./flow/expiry";
import { forgetExhausted } from "./flow/port";
import { flowTable } from "./flow/table";
import { ageFragments } from "./fragment";
import { ageCapacities } from "./network/capacity";

/** Where the window begins: the time of the frame that left the one before. */
export let baseMs: u32 = 0;

export function resetClock(): void {
  baseMs = 0;
}

/** Whether the frame of this time may be finished without more ado. */
export function isInWindow(nowMs: u32): bool {
  const sinceMs = <i32>(nowMs - baseMs);
  return sinceMs > -(<i32>CLOCK_WINDOW_MS) && sinceMs < <i32>CLOCK_WINDOW_MS;
}

/** Moves the window to a frame that lies outside of it; every age within range before and after. */
export function moveClock(nowMs: u32): void {
  if (isInWindow(nowMs)) return;
  const isBack = <i32>(nowMs - baseMs) < 0;
  ageFlows(flowTable(0), nowMs, isBack);
  ageFlows(flowTable(1), nowMs, isBack);
  ageCompact(baseMs, nowMs);
  ageFragments(baseMs, nowMs);
  ageCapacities(baseMs, nowMs);
  forgetExhausted();
  baseMs = nowMs;
}
