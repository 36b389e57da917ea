/**
 * The life of an interface endpoint (AWS PrivateLink: "Endpoint states"; EC2 API:
 * AcceptVpcEndpointConnections, RejectVpcEndpointConnections, ModifyVpcEndpoint,
 * DeleteVpcEndpoints).
 *
 * ```
 * create ─ acceptance required ─▶ pendingAcceptance ─ accept ─▶ pending ─ ready ─▶ available
 *        └ not required ────────▶ pending                ▲                          │ modify
 *                                                         └──────────────────────────┘
 * pendingAcceptance ─ reject ─▶ rejected ◀─ reject ─ pending, available
 * rejected ─ accept ─▶ pending            pendingAcceptance ─ time ─▶ expired
 * pending ─ fail ─▶ failed                every state ─ delete ─▶ deleting ─ gone ─▶ deleted
 * ```
 *
 * The consumer creates, modifies and deletes; the provider accepts and rejects and can do nothing
 * else. Flows pass in `available` alone.
 */

import type { ConnectionEvent } from "./notifications.ts";
import { isAllowed } from "./permissions.ts";

export type EndpointState =
  | "pendingAcceptance"
  | "pending"
  | "available"
  | "rejected"
  | "expired"
  | "failed"
  | "deleting"
  | "deleted";

export type EndpointAction =
  | "accept"
  | "reject"
  | "modify"
  | "ready"
  | "fail"
  | "expire"
  | "delete"
  | "gone";

/** Who asks for an action; `system` is the control plane itself. */
export type Actor = "consumer" | "provider" | "system";

export interface EndpointTransition {
  from: EndpointState | "none";
  to: EndpointState;
  /** The notification that the provider's subscribers get. */
  event: ConnectionEvent | undefined;
  /** Whether flows that passed before are to be closed. */
  terminates: boolean;
}

const ACTORS: Record<EndpointAction, Actor> = {
  accept: "provider",
  reject: "provider",
  modify: "consumer",
  delete: "consumer",
  ready: "system",
  fail: "system",
  expire: "system",
  gone: "system",
};

/** What an action leads to from each state; no entry: it is refused there. */
const TRANSITIONS: Record<EndpointAction, Partial<Record<EndpointState, EndpointState>>> = {
  accept: { pendingAcceptance: "pending", rejected: "pending" },
  reject: { pendingAcceptance: "rejected", pending: "rejected", available: "rejected" },
  modify: { available: "pending" },
  ready: { pending: "available" },
  fail: { pending: "failed" },
  expire: { pendingAcceptance: "expired" },
  delete: {
    pendingAcceptance: "deleting",
    pending: "deleting",
    available: "deleting",
    rejected: "deleting",
    expired: "deleting",
    failed: "deleting",
  },
  gone: { deleting: "deleted" },
};

const EVENTS: Partial<Record<EndpointAction, ConnectionEvent>> = {
  accept: "Accept",
  reject: "Reject",
  delete: "Delete",
};

/** An action that the state or the actor does not allow: nothing has changed. */
export class EndpointRefusal extends Error {
  override readonly name = "EndpointRefusal";
}

/** The first step of an endpoint. @throws {EndpointRefusal} when the principal is not let in */
export function createEndpoint(
  principal: string,
  service: { allowedPrincipals: readonly string[]; isAcceptanceRequired: boolean },
): EndpointTransition {
  if (!isAllowed(service.allowedPrincipals, principal)) {
    throw new EndpointRefusal(`${principal} may not create endpoints to this service`);
  }
  const to = service.isAcceptanceRequired ? "pendingAcceptance" : "pending";
  return { from: "none", to, event: "Connect", terminates: false };
}

/** The step that an action takes. @throws {EndpointRefusal} when actor or state do not allow it */
export function stepEndpoint(
  state: EndpointState,
  action: EndpointAction,
  actor: Actor = ACTORS[action],
): EndpointTransition {
  if (actor !== ACTORS[action]) {
    throw new EndpointRefusal(`${action} is for the ${ACTORS[action]}, not for the ${actor}`);
  }
  const to = TRANSITIONS[action][state];
  if (to === undefined) {
    const states = Object.keys(TRANSITIONS[action]).join(", ");
    throw new EndpointRefusal(`${action} is not possible in the state ${state}, only in ${states}`);
  }
  const terminates = state === "available" && to !== "pending";
  return { from: state, to, event: EVENTS[action], terminates };
}
