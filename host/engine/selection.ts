/** Which frames a worker wants of a capture that several share: the host's side of assembly/capture/select.ts. */
import { WORKER_COUNT_MAX } from "../../assembly/abi.ts";
import type { Selection } from "./api.ts";
import { wholeNumber } from "./check.ts";
import type { EngineExports } from "./module.ts";

/** More than any capture has. */
const ALL_RECORDS = 2n ** 64n - 1n;

/** @throws RangeError naming the option, its value and its range */
export function checkSelection({ worker, workers }: Selection): void {
  wholeNumber("workers", workers, 1, WORKER_COUNT_MAX);
  wholeNumber("worker", worker, 0, workers - 1);
}

function begin(exports: EngineExports, selection: Selection, isWalking: boolean, end: bigint) {
  const { worker, workers, isSpread = true } = selection;
  exports.beginSelection(worker, workers, isSpread ? 1 : 0, isWalking ? 1 : 0, end);
}

/** Of the described frames [first, first + count) keeps those that are wanted; returns how many. */
export function selectFrames(
  exports: EngineExports,
  first: number,
  count: number,
  selection: Selection,
): number {
  begin(exports, selection, false, ALL_RECORDS);
  return exports.selectFrames(first, count, selection.number ?? 0);
}

/**
 * Lets sources describe the wanted frames alone, and of no more records than the first `recordsMax`.
 * Ports must be set before frames of them are described.
 */
export function selectAlways(
  exports: EngineExports,
  selection: Selection,
  recordsMax: number,
): void {
  checkSelection(selection);
  const end = Number.isFinite(recordsMax) ? BigInt(recordsMax) : ALL_RECORDS;
  begin(exports, selection, true, end);
}
