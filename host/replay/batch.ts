/**
 * A batch as the engine's descriptors show it: eight words a frame, in `Engine.descriptors`.
 * Names for the words, so that loops over descriptors read as sentences.
 */

import type { FrameSource } from "../capture/source.ts";
import type { PortOptions } from "../engine/api.ts";
import type { Engine } from "../engine/engine.ts";

/** Words of a descriptor. */
export const WORDS = 8;
export const WORD_ADDRESS = 0;
export const WORD_CAPTURED = 1;
/** ms since the capture's first record, modulo 2^32. */
export const WORD_TIME = 2;
/** Ingress port in the low half, egress port in the high half. */
export const WORD_PORTS = 3;
/** Verdict in the low half, then side and direction. */
export const WORD_VERDICT = 4;
export const WORD_FLOW = 5;
/** Of emitted frames: index of the frame that caused it. */
export const WORD_CAUSE = 6;
export const WORD_WIRE = 7;

/** In WORD_VERDICT of emitted frames: leaves after its cause, else before it. */
export const EMIT_AFTER = 0x10000;

/** Verdicts up to this one go out; see VERDICT_NAMES. */
export const VERDICT_OUT_MAX = 1;

/** What a port of the replay is, by number of the source's interface. */
export type PortRule = (port: number) => PortOptions;

/**
 * Makes a port of each interface of the source from number `known` on: those of a pcapng show up as
 * it is read. They stand before service 0 unless `rule` says otherwise. Returns how many there are.
 */
export function definePorts(
  engine: Engine,
  { interfaces }: FrameSource,
  known: number,
  rule: PortRule = () => ({ service: 0 }),
): number {
  for (let port = known; port < interfaces.length; port++) {
    const link = interfaces[port]?.link;
    // Frames of an interface whose link type is refused never come.
    if (link) engine.setPort(port, { ...rule(port), link });
  }
  return interfaces.length;
}
