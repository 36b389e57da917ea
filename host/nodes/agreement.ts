/**
 * How a node and a store come to one decision per flow. A node proposes; then
 *
 *   1. it claims the service-side tuple. Somebody else's claim there: another tuple must be proposed.
 *   2. it claims the client-side tuple with what now holds the service-side tuple. Whatever is there
 *      afterwards is the decision, whoever made it.
 *
 * So a decision can only be read under the client-side tuple once its service-side tuple is its own,
 * and claims are never taken back: the loser of step 2 leaves its service-side tuple to rest until
 * it ends by itself. Every step may be repeated, by anyone, after any loss.
 *
 * Pure: it knows no engine. The simulation runs this very code.
 */
import { asKnown, begunAnew, type SideName, sameSide, sideOf } from "../engine/decision.ts";
import type { FlowStore, Found } from "./store.ts";

export interface Agreement {
  /**
   * decided: `decision` is the flow's. taken: `decision` is of another flow, which has the tuple that
   * was proposed, and lives on from now. resting: `decision` is a claim that lost, or of a flow that
   * has ended; it says only that the tuple is not to be had. full: the store has no room, or what it
   * had has just ended.
   */
  outcome: "decided" | "taken" | "resting" | "full";
  decision: Uint8Array;
}

/** One decision for each proposal. @throws when the store cannot be asked: nothing is known then */
export async function agree(
  store: FlowStore,
  proposals: readonly Uint8Array[],
  nowMs: number,
): Promise<Agreement[]> {
  const holders = await store.refresh("service", proposals, nowMs);
  const agreements = proposals.map((proposal, at): Agreement => {
    const holder = holders[at];
    if (!holder) return { outcome: "full", decision: proposal };
    const isOurs = sameSide(holder, proposal, "client");
    return { outcome: isOurs ? "decided" : "taken", decision: holder };
  });
  const open = [...agreements.entries()].filter(([, { outcome }]) => outcome === "decided");
  const flows = await store.refresh(
    "client",
    open.map(([, { decision }]) => decision),
    nowMs,
  );
  const foreign: Agreement[] = [];
  for (const [index, [at, agreement]] of open.entries()) {
    const decision = flows[index];
    const proposal = proposals[at] as Uint8Array;
    if (!decision) agreement.outcome = "full";
    else if (decision !== proposal) {
      agreement.decision = begunAnew(decision, proposal);
      foreign.push(agreement);
    }
  }
  const taken = agreements.filter(({ outcome }) => outcome === "taken");
  await tellLosers(store, taken, nowMs);
  foreign.push(...taken.filter(({ outcome }) => outcome === "taken"));
  await keepAlive(store, foreign, nowMs);
  return agreements;
}

/** A claim that lost is only looked at, so that it ends. */
async function tellLosers(store: FlowStore, taken: Agreement[], nowMs: number): Promise<void> {
  if (taken.length === 0) return;
  const tuples = taken.map(({ decision }) => sideOf(decision, "client"));
  const flows = await store.find("client", tuples, nowMs);
  for (const [at, agreement] of taken.entries()) {
    const flow = flows[at];
    if (flow && sameSide(flow, agreement.decision, "service")) agreement.decision = asKnown(flow);
    else agreement.outcome = "resting";
  }
}

/** What others decided may be about to end: it counts only once it lives on from now. */
async function keepAlive(store: FlowStore, foreign: Agreement[], nowMs: number): Promise<void> {
  const decisions = foreign.map(({ decision }) => decision);
  const isAlive = await renew(store, decisions, nowMs);
  for (const [at, agreement] of foreign.entries()) {
    if (isAlive[at]) continue;
    agreement.outcome = agreement.outcome === "taken" ? "resting" : "full";
  }
}

/**
 * What is known of the flows of packets that carry these tuples of `side`; whatever is found lives on
 * from now. A service-side tuple alone decides nothing, for it may be the one that lost.
 */
export async function lookUp(
  store: FlowStore,
  side: SideName,
  tuples: readonly Uint8Array[],
  nowMs: number,
): Promise<Found[]> {
  const found = await store.find(side, tuples, nowMs);
  const there = found.filter((decision) => decision !== undefined).map(asKnown);
  const isAlive = await renew(store, there, nowMs);
  let next = 0;
  return found.map((decision) => (decision && isAlive[next++] ? decision : undefined));
}

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
