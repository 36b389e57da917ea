/**
 * How a node and a store come to one decision per flow. A node proposes; then
 *
 *   1. it claims the service-side tuple. Somebody else's flow there: another tuple must be proposed.
 *   2. it claims the client-side tuple with what now holds the service-side tuple. Whatever is there
 *      afterwards is the decision, whoever made it.
 *
 * So a decision can only be read under the client-side tuple once its service-side tuple is its own,
 * and claims are never taken back: the loser of step 2 leaves its service-side tuple to rest until
 * it ends by itself. Every step may be repeated, by anyone, after any loss.
 *
 * Pure: it knows no engine. The simulation runs this very code.
 */
import { sameSide } from "../engine/decision.ts";
import type { FlowStore, Found } from "./store.ts";

export interface Agreement {
  /**
   * decided: `decision` is the flow's. taken: `decision` is of another flow, which has the tuple that
   * was proposed. full: the store has no room.
   */
  outcome: "decided" | "taken" | "full";
  decision: Uint8Array;
}

/** One decision for each proposal. @throws when the store cannot be asked: nothing is known then */
export async function agree(
  store: FlowStore,
  proposals: readonly Uint8Array[],
  nowMs: number,
): Promise<Agreement[]> {
  const holders = await store.claim("service", proposals, nowMs);
  const agreements = proposals.map((proposal, at): Agreement => {
    const holder = holders[at];
    if (!holder) return { outcome: "full", decision: proposal };
    const isOurs = sameSide(holder, proposal, "client");
    return { outcome: isOurs ? "decided" : "taken", decision: holder };
  });
  const open = agreements.filter(({ outcome }) => outcome === "decided");
  const flows = await store.claim(
    "client",
    open.map(({ decision }) => decision),
    nowMs,
  );
  for (const [at, agreement] of open.entries()) {
    const decision = flows[at];
    if (decision) agreement.decision = decision;
    else agreement.outcome = "full";
  }
  return agreements;
}

/**
 * What is known of flows that packets were met of: under their tuples of the service side where a
 * decision stands, and under those of the client side.
 */
export async function lookUp(
  store: FlowStore,
  side: "client" | "service",
  tuples: readonly Uint8Array[],
  nowMs: number,
): Promise<Found[]> {
  const found = await store.find(side, tuples, nowMs);
  if (side === "client") return found;
  // A service-side tuple alone decides nothing: it may be the one that lost.
  const there = found.filter((decision) => decision !== undefined);
  const flows = await store.find(
    "client",
    there.map((decision) => decision.subarray(0, SIDE_BYTES)),
    nowMs,
  );
  const decided = new Map(there.map((decision, at) => [decision, flows[at]]));
  return found.map((decision) => {
    const flow = decision && decided.get(decision);
    return flow && decision && sameSide(flow, decision, "service") ? flow : undefined;
  });
}

const SIDE_BYTES = 48;

/**
 * Lets decisions live on, the service-side tuples first so that they always outlive their flows.
 * Returns for each whether it still is what holds both tuples; if not, its flow has to end.
 */
export async function renew(
  store: FlowStore,
  decisions: readonly Uint8Array[],
  nowMs: number,
): Promise<boolean[]> {
  const holders = await store.refresh("service", decisions, nowMs);
  const isHeld = decisions.map((decision, at) => {
    const holder = holders[at];
    return holder !== undefined && sameSide(holder, decision, "client");
  });
  const held = decisions.filter((_, at) => isHeld[at]);
  const flows = await store.refresh("client", held, nowMs);
  let next = 0;
  return decisions.map((decision, at) => {
    if (!isHeld[at]) return false;
    const flow = flows[next++];
    return flow !== undefined && sameSide(flow, decision, "service");
  });
}
