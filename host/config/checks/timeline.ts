/** Checks of control events against the resources that they name. */

import type { Directory } from "../../control/directory.ts";
import { policyError } from "../../control/policy.ts";
import { type Problem, wrongValue } from "../path.ts";
import type { TimelineEvent } from "../timeline.ts";

export function* timelineProblems(directory: Directory): Generator<Problem> {
  const { config } = directory;
  let latest = 0;
  for (const [index, event] of config.timeline.entries()) {
    const path = ["timeline", index];
    if (event.at_seconds < latest) {
      const message = `${event.at_seconds} comes before the event above it, at ${latest}`;
      yield { path: [...path, "at_seconds"], message };
    }
    latest = event.at_seconds;
    for (const [at, group, name] of referencesOf(event, config.gateway_endpoints)) {
      if (name in config[group]) continue;
      yield wrongValue(config, [...path, ...at], `is not a name in ${group}`);
    }
    yield* eventProblems(directory, index, event);
  }
}

type Group =
  | "target_groups"
  | "load_balancers"
  | "endpoints"
  | "gateway_endpoints"
  | "nat_gateways";

function* referencesOf(
  event: TimelineEvent,
  gatewayEndpoints: object,
): Generator<[string[], Group, string]> {
  for (const action of ["register", "deregister", "health", "weight"] as const) {
    const name = event[action]?.target_group;
    if (name !== undefined) yield [[action, "target_group"], "target_groups", name];
  }
  for (const action of ["create", "accept", "reject", "delete"] as const) {
    const name = event[action]?.endpoint;
    if (name !== undefined) yield [[action, "endpoint"], "endpoints", name];
  }
  for (const action of ["associate", "disassociate"] as const) {
    const name = event[action]?.nat_gateway;
    if (name !== undefined) yield [[action, "nat_gateway"], "nat_gateways", name];
  }
  const id = event.policy?.endpoint;
  if (id !== undefined) {
    const isGateway = id in gatewayEndpoints;
    yield [["policy", "endpoint"], isGateway ? "gateway_endpoints" : "endpoints", id];
  }
  const balancer = event.weight?.load_balancer;
  if (balancer !== undefined) yield [["weight", "load_balancer"], "load_balancers", balancer];
}

function* eventProblems(
  directory: Directory,
  index: number,
  { weight, policy, associate, disassociate, register }: TimelineEvent,
): Generator<Problem> {
  const { config } = directory;
  const path = ["timeline", index];
  if (weight) {
    const { load_balancer, port, protocol, target_group } = weight;
    if (!directory.forwards(load_balancer, protocol, port, target_group)) {
      const message = `${load_balancer} has no listener ${protocol} ${port} with ${target_group}`;
      yield { path: [...path, "weight"], message };
    }
  }
  const wrong = policy?.document === undefined ? undefined : policyError(policy.document);
  if (wrong) yield { path: [...path, "policy", "document"], message: wrong };
  if (
    disassociate &&
    config.nat_gateways[disassociate.nat_gateway]?.addresses[0] === disassociate.address
  ) {
    const message = `"${disassociate.address}" is the primary address, which stays`;
    yield { path: [...path, "disassociate", "address"], message };
  }
  const natWhy = associate && directory.whyNotNat(associate.nat_gateway, associate.address);
  if (natWhy) yield wrongValue(config, [...path, "associate", "address"], natWhy);
  const why = register && directory.whyNoTarget(register.target_group, register.target);
  if (why) yield wrongValue(config, [...path, "register", "target"], why);
}
