/**
 * Decisions as bytes (DECIDED_* of abi.ts): what a node of a fleet tells the others of a flow. Side
 * tuples stand in them whole, so that a store can use them as keys without knowing what they mean.
 */
import * as abi from "../../assembly/abi.ts";
import type { Engine } from "./engine.ts";

export const DECISION_BYTES = abi.DECIDED_BYTES;
export const SIDE_BYTES = abi.DECIDED_SIDE_BYTES;

/** Which tuple of a flow: as clients see it, or as targets and remote servers do. */
export type SideName = "client" | "service";

/** What a decision says of the stream rather than of the way that its packets take. */
const STREAM_FIELDS: readonly number[] = [
  abi.DECIDED_STATE,
  abi.DECIDED_STREAM,
  abi.DECIDED_BEGINS,
  ...[0, 1, 2, 3].map((byte) => abi.DECIDED_FIRST + byte),
];

/** Beyond the twelve bits of a VLAN id. */
const NO_VLAN_ID = 4096;

/** The 48 bytes of a side: equal for all packets of the flow that carry that side's tuple. */
export function sideOf(decision: Uint8Array, side: SideName): Uint8Array {
  const start = side === "client" ? abi.DECIDED_CLIENT_SIDE : abi.DECIDED_SERVICE_SIDE;
  return decision.subarray(start, start + abi.DECIDED_SIDE_BYTES);
}

/** Whether two decisions are about the same tuple of a side. */
export function sameSide(one: Uint8Array, other: Uint8Array, side: SideName): boolean {
  const left = sideOf(one, side);
  const right = sideOf(other, side);
  return left.every((byte, at) => byte === right[at]);
}

/** The flow as other nodes have to know it, as a copy; undefined when the handle names none. */
export function readDecision(engine: Engine, handle: number): Uint8Array | undefined {
  if (handle === 0 || engine.exports.writeDecision(handle) === 0) return undefined;
  const address = engine.exports.decisionAddress() >>> 0;
  return engine.bytes.slice(address, address + abi.DECIDED_BYTES);
}

/** The tuple of a frame of the last batch, as a copy; undefined when it names none. */
export function readTuple(engine: Engine, index: number): Uint8Array | undefined {
  if (engine.exports.writeTuple(index) === 0) return undefined;
  const address = engine.exports.decisionAddress() >>> 0;
  return engine.bytes.slice(address, address + abi.DECIDED_SIDE_BYTES);
}

/** What a decision looks like to a node that meets its flow in mid-stream: no longer half-open. */
export function inMidStream(decision: Uint8Array): Uint8Array {
  if (decision[abi.DECIDED_STATE] !== abi.FLOW_STATE_HALF_OPEN) return decision;
  const copy = decision.slice();
  copy[abi.DECIDED_STATE] = abi.FLOW_STATE_ESTABLISHED;
  return copy;
}

/** The same for a node that has proposed another decision: its packet may have been the first. */
export function besideProposal(decision: Uint8Array, proposal: Uint8Array): Uint8Array {
  const isFirst = proposal[abi.DECIDED_STATE] === abi.FLOW_STATE_HALF_OPEN;
  return isFirst ? decision : inMidStream(decision);
}

/** Whether a decision was made by the first packet of a stream. */
export function isOfBeginning(decision: Uint8Array): boolean {
  return decision[abi.DECIDED_BEGINS] === 1;
}

/** Whether a decision is of a flow that is over at once: terminated, or only a tuple that rests. */
export function isOver(decision: Uint8Array): boolean {
  return decision[abi.DECIDED_STATE] === abi.FLOW_STATE_TERMINATED;
}

/** A decision with what the first packet of a new stream between the same ends has told. */
export function begunAnew(decision: Uint8Array, proposal: Uint8Array): Uint8Array {
  if (!isOfBeginning(proposal)) return decision;
  const copy = decision.slice();
  for (const field of STREAM_FIELDS) copy[field] = proposal[field] as number;
  return copy;
}

/** The same as something that is known, and not told anew. */
export function asKnown(decision: Uint8Array): Uint8Array {
  if (!isOfBeginning(decision)) return decision;
  const copy = decision.slice();
  copy[abi.DECIDED_BEGINS] = 0;
  return copy;
}

/**
 * What takes a decision's service-side tuple and nothing else: over from the beginning, between ends that
 * no packet has, so that it only keeps others from choosing the tuple until it has rested here.
 */
export function restingTuple(decision: Uint8Array): Uint8Array {
  const copy = new Uint8Array(DECISION_BYTES);
  for (const side of ["client", "service"] as const) {
    sideOf(copy, side).set(sideOf(decision, "service"));
  }
  const view = new DataView(copy.buffer);
  view.setUint16(abi.DECIDED_CLIENT_SIDE + abi.DECIDED_SIDE_OUTER, NO_VLAN_ID, true);
  view.setUint16(abi.DECIDED_SERVICE, serviceOf(decision), true);
  const isHigh = ((decision[abi.DECIDED_FLAGS] as number) & abi.FLOW_FLAG_SERVICE_HIGH) !== 0;
  copy[abi.DECIDED_FLAGS] = isHigh ? abi.FLOW_FLAG_SERVICE_HIGH | abi.FLOW_FLAG_CLIENT_HIGH : 0;
  copy[abi.DECIDED_STATE] = abi.FLOW_STATE_TERMINATED;
  return copy;
}

function serviceOf(decision: Uint8Array): number {
  const view = new DataView(decision.buffer, decision.byteOffset);
  return view.getUint16(abi.DECIDED_SERVICE, true);
}

/**
 * Takes over a decision: decides the engine's own proposal, or replaces it, or makes the flow known.
 * Returns the flow's handle, 0 when there is no room or its tuples are in use here.
 */
export function adoptDecision(engine: Engine, decision: Uint8Array, nowMs: number): number {
  engine.bytes.set(decision, engine.exports.decisionAddress() >>> 0);
  return engine.exports.adoptFlow(engine.clock.at(Math.trunc(nowMs))) >>> 0;
}

/** A flow and what was decided of it. */
export interface DecidedFlow {
  handle: number;
  decision: Uint8Array;
}

/**
 * Decided flows behind a handle (0: from the first on), of at most `most` that are looked at, and
 * the handle to go on behind; 0: there are no more. Flows that have been terminated are left out.
 */
export function decidedAfter(
  engine: Engine,
  handle: number,
  most: number,
): { flows: DecidedFlow[]; last: number } {
  const flows: DecidedFlow[] = [];
  let last = handle;
  for (let step = 0; step < most; step++) {
    const isIpv6 = (last & abi.HANDLE_IPV6) !== 0;
    let next = engine.exports.flowAfter(last) >>> 0;
    if (next === 0 && !isIpv6) next = engine.exports.flowAfter(abi.HANDLE_IPV6) >>> 0;
    if (next === 0) return { flows, last: 0 };
    last = next;
    const state = engine.bytes[(engine.exports.flowRecord(next) >>> 0) + abi.FLOW_STATE];
    if (state === abi.FLOW_STATE_PROPOSED || state === abi.FLOW_STATE_TERMINATED) continue;
    const decision = readDecision(engine, next);
    if (!decision) continue;
    flows.push({ handle: next, decision });
  }
  return { flows, last };
}
