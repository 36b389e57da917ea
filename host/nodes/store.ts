/**
 * FlowStore: where the nodes of a fleet decide about flows. One operation decides: whoever first
 * writes a decision under one of its tuples wins, and everybody who comes later reads what the
 * winner wrote. Nothing is ever taken back; what nobody refreshes ends by itself.
 *
 * Times are of a clock that all nodes share, in ms. All operations take batches. An operation that
 * cannot be done rejects: then nobody knows whether it was done, and doing it again is safe.
 */
import type { SideName } from "../engine/decision.ts";

export interface FlowStore {
  /**
   * Writes each decision under its tuple of `side` unless there is one already; returns for each
   * what is there now: the decision itself, as given, or an earlier one. Undefined where the store
   * is full.
   */
  claim(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]>;
  /** What is there under each tuple (48 bytes) of `side`. */
  find(side: SideName, tuples: readonly Uint8Array[], nowMs: number): Promise<Found[]>;
  /**
   * As `claim`, and lets what is there live on from now where it sends the flow the way that is given.
   * What a new stream's first packet tells (`isOfBeginning`) takes the place of what was known.
   */
  refresh(side: SideName, decisions: readonly Uint8Array[], nowMs: number): Promise<Found[]>;
  close(): Promise<void>;
}

export type Found = Uint8Array | undefined;

export interface StoreTimes {
  /** How long a decision lives after it was made or refreshed; default 410 s. */
  ttlMs?: number;
  /** How much longer its service-side tuple rests, so that late packets meet nobody else; 60 s. */
  holdMs?: number;
}

/** The idle timeout of established TCP flows, and a minute. */
export const TTL_MS = 410_000;
const HOLD_MS = 60_000;

/** How long an entry under the tuple of `side` lives. */
export function lifetimeMs({ ttlMs = TTL_MS, holdMs = HOLD_MS }: StoreTimes, side: SideName) {
  return side === "client" ? ttlMs : ttlMs + holdMs;
}

/** Whether two decisions send the same flow the same way; their states may differ. */
export function isSameDecision(one: Uint8Array, other: Uint8Array): boolean {
  for (let at = 0; at < SIDES_BYTES; at++) if (one[at] !== other[at]) return false;
  return true;
}

/** Both tuples: what a decision decides. */
const SIDES_BYTES = 96;
