/**
 * Decisions as words: what a worker tells of its frames to whoever restores their order, eight
 * 32-bit words each. `EngineExports.listDecisions` writes them after a batch.
 */
import * as abi from "../../assembly/abi.ts";
import type { Engine } from "./engine.ts";

export const DECISION_BYTES: number = abi.DECISION_SIZE;
export const DECISION_WORDS: number = abi.DECISION_SIZE / 4;
/** Most decisions of a batch: each frame's, and those of frames that it caused. */
export const DECISION_COUNT_MAX: number = abi.BATCH_COUNT_MAX * (1 + abi.EMIT_PER_FRAME_MAX);

export const DECISION_WORD_VERDICT: number = abi.DECISION_VERDICT / 4;
export const DECISION_WORD_BYTES: number = abi.DECISION_BYTES / 4;

/** Whether the verdict word is that of a frame that the engine made. */
export function isDecisionMade(verdict: number): boolean {
  return (verdict & abi.DECISION_EMITTED) !== 0;
}

/** Whether the frame goes out. */
export function isDecisionOut(verdict: number): boolean {
  return isDecisionMade(verdict) || (verdict & 0xffff) <= abi.VERDICT_PASS_NON_IP;
}

/** Where an engine writes its decisions: the same memory as bytes and as words. */
export function decisionsOf(engine: Engine): { bytes: Uint8Array; words: Uint32Array } {
  const address = engine.exports.decisionsAddress() >>> 0;
  const length = DECISION_COUNT_MAX * DECISION_BYTES;
  return {
    bytes: engine.bytes.subarray(address, address + length),
    words: new Uint32Array(engine.bytes.buffer, address, length / 4),
  };
}
