/** Parts of the engine that tests look at one by one: compiled with it to build/internals.wasm. */
import { areInside } from "../../assembly/admit";
import { finishBatch } from "../../assembly/batch";
import { clearEmits } from "../../assembly/emit";
import { findCandidates } from "../../assembly/stages";
import { clearForeseen } from "../../assembly/translate";

export { deltaOf, fold, inverse, sumOf, updated, updatedUdp } from "../../assembly/checksum";
export { hashTuple, seedHash } from "../../assembly/hash";
export { crc32c, crc32cOfChange, crc32cOfTuple, crc32cOfTuple6 } from "../../assembly/pp2/crc32c";

/** Bytes that tests write to. */
export const scratch: usize = memory.data(16384, 64);

/** `processBatch` with nothing foreseen: every flow begins the long way. */
export function processSlowly(count: u32): void {
  assert(areInside(count), "test: frames lie outside the arena");
  clearEmits();
  findCandidates(count);
  clearForeseen(count);
  finishBatch(count);
}
