/**
 * The schema of what packets pass through before they reach a resource: ports, VPCs with subnets
 * and route tables, security groups and prefix lists. Limits are AWS's (VPC quotas).
 */

import { z } from "zod";
import { accountId, region, zoneId, zoneName } from "./names.ts";
import {
  address,
  cidr,
  integer,
  list,
  name,
  named,
  object,
  oneOf,
  plainCidr,
  text,
  truth,
  unique,
} from "./parts.ts";

/** Where frames enter: a capture's interface, a VLAN of it, or both. */
const port = object({
  interface: integer(0, 4095).optional().describe("number of the capture's interface"),
  vlan: integer(1, 4094).optional().describe("outermost VLAN tag of the frames"),
  vpc: name,
  access: oneOf("vpc", "direct_connect")
    .default("vpc")
    .describe("direct_connect: from on premises, which reaches endpoints but no gateway"),
});

/** A range, or a name that stands for ranges. */
function nameOrCidr(names: string) {
  const kinds = [cidr, name] as const;
  return z
    .string({ error: `is neither a CIDR nor ${names}` })
    .check((context) => {
      const kind = context.value.includes("/") ? kinds[0] : kinds[1];
      const { error } = kind.safeParse(context.value);
      const message = error?.issues[0]?.message;
      if (message) context.issues.push({ code: "custom", input: context.value, message });
    })
    .overwrite(plainCidr)
    .describe(`CIDR or ${names}`);
}

const route = object({
  to: nameOrCidr("the name of a prefix list"),
  via: name.describe("nat gateway, gateway endpoint, peered VPC, internet, blackhole or local"),
});

const vpc = object({
  account: accountId.default("111111111111"),
  cidrs: list(cidr, 10).check(unique((one: string) => one)),
  subnets: named(
    object({
      cidr,
      ipv6_cidr: cidr.optional(),
      zone: zoneId,
      route_table: name.default("main"),
    }),
    200,
  ).prefault({}),
  route_tables: named(
    list(route, 1000, 0).check(unique(({ to }: { to: string }) => to)),
    200,
  ).prefault({}),
  enable_dns_support: truth.default(true),
  enable_dns_hostnames: truth.default(true),
});

const PORTS = /^\d{1,5}(-\d{1,5})?$/;
const rule = object({
  protocol: oneOf("tcp", "udp", "icmp", "icmpv6", "all"),
  ports: integer(0, 65_535)
    .or(text(PORTS, "a port or a range such as 80-89"))
    .optional()
    .describe("default: all; TCP and UDP only"),
});
const peer = nameOrCidr("the name of a security group or a prefix list");

const securityGroup = object({
  vpc: name,
  ingress: list(rule.extend({ from: peer }), 60, 0)
    .default([])
    .describe("default: nothing"),
  egress: list(rule.extend({ to: peer }), 60, 0)
    .optional()
    .describe("default: everything"),
  members: list(address, 1000, 0)
    .default([])
    .describe("addresses of instances that carry it, for rules that name the group"),
});

const prefixList = list(cidr, 1000, 0).check(unique((one: string) => one));

export const networkShape = {
  region: region.default("us-east-1"),
  ports: list(port, 1024, 0).default([]),
  accounts: z
    .record(
      accountId,
      object({ zone_names: z.record(zoneId, zoneName, { error: "is not a group of names" }) }),
      { error: "is not a group of names" },
    )
    .optional()
    .describe("names of zones differ between accounts"),
  vpcs: named(vpc, 64).check(
    z.refine((all) => Object.keys(all).length > 0, { error: "names no VPC" }),
  ),
  security_groups: named(securityGroup, 2500).prefault({}),
  prefix_lists: named(prefixList, 100).prefault({}),
};

export type PortConfig = z.output<typeof port>;
export type VpcConfig = z.output<typeof vpc>;
export type RouteConfig = z.output<typeof route>;
export type SecurityGroupConfig = z.output<typeof securityGroup>;
