/**
 * The schema of the managed resources: target groups and load balancers, endpoint services and
 * endpoints, gateway endpoints, NAT gateways and mount targets. Limits and defaults are AWS's.
 */

import { z } from "zod";
import {
  healthCheck,
  listenerAttributes,
  loadBalancerAttributes,
  targetGroupAttributes,
} from "./attributes.ts";
import {
  domainName,
  endpointId,
  fileSystemId,
  principal,
  principalOrAll,
  serviceId,
  serviceName,
  zoneId,
} from "./names.ts";
import {
  address,
  address4,
  address6,
  integer,
  list,
  name,
  named,
  object,
  oneOf,
  policy,
  truth,
  unique,
} from "./parts.ts";

/** What a resource may carry; without a limit only its units are reported. */
const capacity = object({
  units: integer(1, 4000).or(oneOf("auto")).default("auto").describe("of 5 Gbit/s and 1 Mpps"),
  action: oneOf("drop", "report").optional().describe("default: report in replays, else drop"),
});

const target = object({
  address,
  port: integer(1, 65_535).optional().describe("default: the port of the group"),
  zone: zoneId.optional().describe("default: that of the subnet that holds the address"),
  state: oneOf("healthy", "unhealthy", "initial")
    .default("healthy")
    .describe("before the first health check"),
});

const targets = list(target, 1000, 0)
  .check(unique((item: z.output<typeof target>) => `${item.address} ${item.port ?? 0}`))
  .default([]);

const targetGroup = object({
  protocol: oneOf("TCP", "UDP", "TCP_UDP"),
  port: integer(1, 65_535),
  vpc: name,
  target_type: oneOf("instance", "ip").default("instance"),
  ip_address_type: oneOf("ipv4", "ipv6").default("ipv4"),
  targets,
  health_check: healthCheck.prefault({}),
  attributes: targetGroupAttributes.prefault({}),
});

const weighted = object({ target_group: name, weight: integer(0, 999).default(1) });
const forward = z.union(
  [name, list(weighted, 5).check(unique((one: z.output<typeof weighted>) => one.target_group))],
  { error: "is not the name of a target group or a list of 1 to 5 with weights" },
);

const listener = object({
  protocol: oneOf("TCP", "UDP", "TCP_UDP"),
  port: integer(1, 65_535),
  forward,
  attributes: listenerAttributes.prefault({}),
});

const node = object({
  address: address4,
  secondary_addresses: list(address4, 7)
    .check(unique((one: string) => one))
    .optional(),
  ipv6_address: address6.optional(),
});

const loadBalancer = object({
  vpc: name,
  scheme: oneOf("internal", "internet-facing").default("internal"),
  ip_address_type: oneOf("ipv4", "dualstack").default("ipv4"),
  subnets: named(node, 16).check(
    z.refine((all) => Object.keys(all).length > 0, { error: "names no subnet" }),
  ),
  security_groups: list(name, 5).optional().describe("default: everything may pass"),
  enforce_security_group_inbound_rules_on_private_link_traffic: oneOf("on", "off").default("on"),
  attributes: loadBalancerAttributes.prefault({}),
  listeners: list(listener, 50, 0).default([]),
  capacity: capacity.prefault({}),
});

const notification = object({
  events: list(oneOf("Accept", "Connect", "Delete", "Reject"), 4).check(
    unique((one: string) => one),
  ),
});

const endpointService = object({
  load_balancer: name,
  service_name: serviceName.optional().describe("default: com.amazonaws.vpce.REGION.ID"),
  acceptance_required: truth.default(true),
  acceptance_timeout_seconds: integer(1, 31_536_000)
    .default(604_800)
    .describe("after it an endpoint that waits for acceptance expires; AWS publishes no time"),
  allowed_principals: list(principalOrAll, 50, 0).default([]).describe("default: nobody"),
  private_dns_name: domainName.optional(),
  private_dns_state: oneOf("pendingVerification", "verified", "failed").default("verified"),
  notifications: named(notification, 20).prefault({}),
});

export const ENDPOINT_STATES = [
  "pendingAcceptance",
  "pending",
  "available",
  "rejected",
  "expired",
  "failed",
  "deleting",
  "deleted",
] as const;

const endpoint = object({
  service: serviceId,
  vpc: name,
  principal: principal
    .optional()
    .describe("who creates it; default: the root of the VPC's account"),
  subnets: named(object({ address: address4, ipv6_address: address6.optional() }), 16).check(
    z.refine((all) => Object.keys(all).length > 0, { error: "names no subnet" }),
  ),
  security_groups: list(name, 5).optional().describe("default: everything may pass"),
  private_dns_enabled: truth.default(false),
  policy: policy.optional(),
  state: oneOf(...ENDPOINT_STATES)
    .optional()
    .describe("default: what the service's acceptance gives"),
  capacity: capacity.prefault({}),
});

const gatewayEndpoint = object({
  vpc: name,
  prefix_list: name,
  route_tables: list(name, 200),
  policy: policy.optional(),
});

const natGateway = object({
  subnet: name,
  connectivity: oneOf("public", "private").default("public"),
  addresses: list(address4, 8).check(unique((one: string) => one)),
  max_drain_duration_seconds: integer(1, 4000).default(350),
  capacity: capacity.prefault({}),
});

const mountTarget = object({
  subnet: name,
  address: address4,
  file_system: fileSystemId,
  forward: name.describe("target group of the file servers"),
  security_groups: list(name, 5).optional(),
});

export const resourcesShape = {
  target_groups: named(targetGroup, 3000).prefault({}),
  load_balancers: named(loadBalancer, 500).prefault({}),
  endpoint_services: named(endpointService, 500, serviceId).prefault({}),
  endpoints: named(endpoint, 2000, endpointId).prefault({}),
  gateway_endpoints: named(gatewayEndpoint, 255).prefault({}),
  nat_gateways: named(natGateway, 500).prefault({}),
  mount_targets: named(mountTarget, 400).prefault({}),
};

export type TargetGroupConfig = z.output<typeof targetGroup>;
export type NetworkTargetConfig = z.output<typeof target>;
export type LoadBalancerConfig = z.output<typeof loadBalancer>;
export type ListenerConfig = z.output<typeof listener>;
export type EndpointServiceConfig = z.output<typeof endpointService>;
export type EndpointConfig = z.output<typeof endpoint>;
export type GatewayEndpointConfig = z.output<typeof gatewayEndpoint>;
export type NatGatewayConfig = z.output<typeof natGateway>;
export type MountTargetConfig = z.output<typeof mountTarget>;
export type CapacityConfig = z.output<typeof capacity>;
