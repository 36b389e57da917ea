/** Checks of endpoint services, endpoints, gateway endpoints and NAT gateways. */

import type { Directory } from "../../control/directory.ts";
import { serviceName } from "../../control/names.ts";
import { isAllowed } from "../../control/permissions.ts";
import { policyError } from "../../control/policy.ts";
import { type Path, type Problem, wrongValue } from "../path.ts";
import type { EndpointConfig } from "../resources.ts";
import { groupProblems, subnetProblems } from "./placement.ts";

export function* accessProblems(directory: Directory): Generator<Problem> {
  const { config } = directory;
  const owners = new Map<string, string>();
  for (const [id, service] of Object.entries(config.endpoint_services)) {
    const path = ["endpoint_services", id];
    if (!(service.load_balancer in config.load_balancers)) {
      const rest = "is not the name of a load balancer";
      yield wrongValue(config, [...path, "load_balancer"], rest);
    }
    const name = service.service_name ?? serviceName(id, config.region);
    const other = owners.get(name);
    const message = `"${name}" is the name of ${other} as well`;
    if (other) yield { path: [...path, "service_name"], message };
    owners.set(name, id);
  }
  for (const [name, endpoint] of Object.entries(config.endpoints)) {
    yield* endpointProblems(directory, ["endpoints", name], endpoint);
  }
  yield* privateNameProblems(directory);
  yield* gatewayEndpointProblems(directory);
  yield* natGatewayProblems(directory);
}

function* endpointProblems(
  directory: Directory,
  path: Path,
  endpoint: EndpointConfig,
): Generator<Problem> {
  const { config } = directory;
  const { service: id, vpc, subnets, security_groups, policy } = endpoint;
  const service = config.endpoint_services[id];
  if (!service) {
    yield wrongValue(config, [...path, "service"], "is not the id of an endpoint service");
    return;
  }
  yield* subnetProblems(directory, path, vpc, Object.keys(subnets));
  yield* groupProblems(directory, path, vpc, security_groups);
  const offered = directory.zonesOf(service.load_balancer);
  for (const name of Object.keys(subnets)) {
    const zone = directory.subnets.get(name)?.zone ?? "";
    if (offered.includes(zone)) continue;
    const message = `lies in ${zone}; ${id} is offered in ${offered.join(", ")}`;
    yield { path: [...path, "subnets", name], message };
  }
  const account = config.vpcs[vpc]?.account ?? "";
  const principal = endpoint.principal ?? `arn:aws:iam::${account}:root`;
  if (!isAllowed(service.allowed_principals, principal)) {
    const message = `${principal} is not among the allowed_principals of ${id}`;
    yield { path, message };
  }
  const wrong = policy === undefined ? undefined : policyError(policy);
  if (wrong) yield { path: [...path, "policy"], message: wrong };
  if (!endpoint.private_dns_enabled) return;
  const at = [...path, "private_dns_enabled"];
  if (service.private_dns_name === undefined) {
    yield { path: at, message: `true needs the private_dns_name of ${id}` };
  } else if (service.private_dns_state !== "verified") {
    const message = `true needs a verified name; that of ${id} is ${service.private_dns_state}`;
    yield { path: at, message };
  } else if (!config.vpcs[vpc]?.enable_dns_support || !config.vpcs[vpc]?.enable_dns_hostnames) {
    yield { path: at, message: `true needs enable_dns_support and enable_dns_hostnames in ${vpc}` };
  }
}

/** States of endpoints that have no names. */
const GONE = ["rejected", "expired", "failed", "deleting", "deleted"];

/** A VPC has one zone of a name: the endpoints whose private name it is take turns, in the timeline. */
function* privateNameProblems({ config }: Directory): Generator<Problem> {
  const turns = new Set(
    config.timeline.flatMap((event) => [event.create?.endpoint, event.delete?.endpoint]),
  );
  const owners = new Map<string, string>();
  for (const [id, { vpc, service, private_dns_enabled, state }] of Object.entries(
    config.endpoints,
  )) {
    const name = config.endpoint_services[service]?.private_dns_name;
    const isThere = private_dns_enabled && !turns.has(id) && !GONE.includes(state ?? "");
    if (name === undefined || !isThere) continue;
    const apex = name.replace(/^\*\./, "");
    const other = owners.get(`${vpc} ${apex}`);
    const message = `true gives ${vpc} a second ${apex} beside that of ${other}`;
    if (other) yield { path: ["endpoints", id, "private_dns_enabled"], message };
    owners.set(`${vpc} ${apex}`, id);
  }
}

function* gatewayEndpointProblems({ config }: Directory): Generator<Problem> {
  const taken = new Map<string, string>();
  for (const [name, gateway] of Object.entries(config.gateway_endpoints)) {
    const { vpc, prefix_list, route_tables, policy } = gateway;
    const path = ["gateway_endpoints", name];
    if (!(vpc in config.vpcs)) {
      yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC");
      continue;
    }
    if (!(prefix_list in config.prefix_lists)) {
      yield wrongValue(config, [...path, "prefix_list"], "is not the name of a prefix list");
    }
    for (const [index, table] of route_tables.entries()) {
      const at = [...path, "route_tables", index];
      if (table !== "main" && !(table in (config.vpcs[vpc]?.route_tables ?? {}))) {
        yield wrongValue(config, at, `is not a route table of ${vpc}`);
      }
      const place = `${vpc} ${table} ${prefix_list}`;
      const other = taken.get(place);
      if (other) yield { path: at, message: `"${table}" leads to ${prefix_list} via ${other}` };
      taken.set(place, name);
    }
    const wrong = policy === undefined ? undefined : policyError(policy);
    if (wrong) yield { path: [...path, "policy"], message: wrong };
  }
}

function* natGatewayProblems(directory: Directory): Generator<Problem> {
  const { config, subnets } = directory;
  const owners = new Map<string, string>();
  for (const [name, { subnet, connectivity, addresses }] of Object.entries(config.nat_gateways)) {
    const path = ["nat_gateways", name];
    if (!subnets.has(subnet)) {
      yield wrongValue(config, [...path, "subnet"], "is not the name of a subnet");
    }
    if (connectivity !== "public") continue;
    for (const [index, address] of addresses.entries()) {
      const at = [...path, "addresses", index];
      const why = directory.whyNotNat(name, address);
      if (why) yield { path: at, message: `"${address}" ${why}` };
      const other = owners.get(address);
      if (other) yield { path: at, message: `"${address}" belongs to ${other}` };
      owners.set(address, name);
    }
  }
}
