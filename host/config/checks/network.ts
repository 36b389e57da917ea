/** Checks of ports, VPCs, routes and security groups against each other. */

import { NAT64_PREFIX } from "../../address.ts";
import { type Cidr, holds, isSourceless, overlap, parseCidr } from "../../cidr.ts";
import type { Directory } from "../../control/directory.ts";
import type { SecurityGroupConfig } from "../network.ts";
import { type Path, type Problem, wrongValue } from "../path.ts";

const CIDRS_PER_FAMILY_MAX = 5;
const RESERVED_NAMES = ["local", "blackhole", "internet"];

type Ranges = { path: Path; range: Cidr; text: string }[];

export function* networkProblems(directory: Directory): Generator<Problem> {
  yield* portProblems(directory);
  const names = new Map<string, string>();
  for (const [vpc, { subnets }] of Object.entries(directory.config.vpcs)) {
    yield* vpcProblems(directory, vpc);
    for (const subnet of Object.keys(subnets)) {
      const other = names.get(subnet);
      names.set(subnet, vpc);
      if (other !== undefined) {
        const message = `is also a subnet of ${other}; names of subnets hold for the whole file`;
        yield { path: ["vpcs", vpc, "subnets", subnet], message };
      }
    }
  }
  yield* nameProblems(directory);
  for (const vpc of Object.keys(directory.config.vpcs)) yield* routeProblems(directory, vpc);
  yield* securityGroupProblems(directory);
}

function* portProblems({ config }: Directory): Generator<Problem> {
  const seen = new Map<string, number>();
  for (const [index, port] of config.ports.entries()) {
    const path = ["ports", index];
    if (port.interface === undefined && port.vlan === undefined) {
      yield { path, message: "has neither an interface nor a vlan" };
    }
    if (!(port.vpc in config.vpcs)) {
      yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC");
    }
    const place = `${port.interface} ${port.vlan}`;
    const other = seen.get(place);
    if (other !== undefined) yield { path, message: `means the same frames as ports[${other}]` };
    seen.set(place, index);
  }
}

function* vpcProblems({ config }: Directory, vpc: string): Generator<Problem> {
  const { cidrs, subnets, route_tables } = config.vpcs[vpc] as (typeof config.vpcs)[string];
  const path = ["vpcs", vpc];
  const ranges: Ranges = cidrs.map((text, index) => {
    return { path: [...path, "cidrs", index], range: parseCidr(text), text };
  });
  for (const bytes of [4, 16]) {
    const family = ranges.filter(({ range }) => range.bytes.length === bytes);
    if (family.length > CIDRS_PER_FAMILY_MAX) {
      const name = bytes === 4 ? "IPv4" : "IPv6";
      const message = `${family.length} ranges of ${name} are more than ${CIDRS_PER_FAMILY_MAX}`;
      yield { path: [...path, "cidrs"], message };
    }
  }
  yield* sizeProblems(ranges);
  for (const { path: at, range, text } of ranges) {
    if (isSourceless(range)) {
      yield { path: at, message: `"${text}" has addresses that no packet comes from` };
    } else if (overlap(range, parseCidr(NAT64_PREFIX))) {
      const message = `"${text}" overlaps ${NAT64_PREFIX}, where IPv6 finds IPv4`;
      yield { path: at, message };
    }
  }
  yield* overlapProblems(ranges);
  const parts: Ranges = [];
  for (const [name, { cidr, ipv6_cidr, route_table }] of Object.entries(subnets)) {
    const place = [...path, "subnets", name];
    parts.push({ path: [...place, "cidr"], range: parseCidr(cidr), text: cidr });
    if (ipv6_cidr) {
      const at = [...place, "ipv6_cidr"];
      parts.push({ path: at, range: parseCidr(ipv6_cidr), text: ipv6_cidr });
      if (!ipv6_cidr.includes(":")) yield wrongValue(config, at, "is not a range of IPv6");
    }
    if (cidr.includes(":")) {
      yield wrongValue(config, [...place, "cidr"], "is not a range of IPv4; IPv6 is ipv6_cidr");
    }
    if (route_table !== "main" && !(route_table in route_tables)) {
      yield wrongValue(config, [...place, "route_table"], `is not a route table of ${vpc}`);
    }
  }
  yield* sizeProblems(parts);
  for (const { path: at, range, text } of parts) {
    if (ranges.some((outer) => holds(outer.range, range))) continue;
    yield { path: at, message: `"${text}" lies outside ${cidrs.join(", ")}` };
  }
  yield* overlapProblems(parts);
}

/** AWS: IPv4 ranges of VPCs and subnets have 16 to 28 bits. */
function* sizeProblems(ranges: Ranges): Generator<Problem> {
  for (const { path, range, text } of ranges) {
    const [least, most] = range.bytes.length === 4 ? [16, 28] : [16, 112];
    if (range.prefixBits >= least && range.prefixBits <= most) continue;
    yield { path, message: `"${text}" has a prefix that is not from /${least} to /${most}` };
  }
}

function* overlapProblems(ranges: Ranges): Generator<Problem> {
  for (const [index, one] of ranges.entries()) {
    const other = ranges.slice(0, index).find(({ range }) => overlap(range, one.range));
    if (other) yield { path: one.path, message: `"${one.text}" overlaps "${other.text}"` };
  }
}

/** A name that a route or a rule may use means one thing. */
function* nameProblems({ config }: Directory): Generator<Problem> {
  const isReserved = (name: string) => RESERVED_NAMES.includes(name);
  const routed = ["vpcs", "nat_gateways", "gateway_endpoints"] as const;
  const ruled = ["security_groups", "prefix_lists"] as const;
  for (const groups of [routed, ruled]) {
    const seen = new Map<string, string>();
    for (const group of groups) {
      for (const name of Object.keys(config[group])) {
        const other = groups === routed && isReserved(name) ? "a route's own word" : seen.get(name);
        if (other) yield { path: [group, name], message: `is already ${other}` };
        seen.set(name, `a name in ${group}`);
      }
    }
  }
}

function* routeProblems(directory: Directory, vpc: string): Generator<Problem> {
  const { config } = directory;
  for (const [table, routes] of Object.entries(config.vpcs[vpc]?.route_tables ?? {})) {
    for (const [index, { to, via }] of routes.entries()) {
      const path = ["vpcs", vpc, "route_tables", table, index];
      const isList = !to.includes("/");
      if (isList && !(to in config.prefix_lists)) {
        yield wrongValue(config, [...path, "to"], "is neither a CIDR nor a prefix list");
      }
      const target = directory.via(via);
      if (!target) {
        const known = "a NAT gateway, a VPC, internet, blackhole or local";
        yield wrongValue(config, [...path, "via"], `is not ${known}`);
      } else if (target.kind === "gateway-endpoint") {
        const message = `"${via}" adds its routes itself, where its route_tables say so`;
        yield { path: [...path, "via"], message };
      } else if (target.kind === "nat-gateway" && to.includes(":") && to !== NAT64_PREFIX) {
        const rest = `is not for a NAT gateway, which takes IPv4 and ${NAT64_PREFIX}`;
        yield wrongValue(config, [...path, "to"], rest);
      } else if (target.kind === "peering" && target.name === vpc) {
        yield { path: [...path, "via"], message: `"${via}" is the route's own VPC` };
      }
    }
  }
}

function* securityGroupProblems({ config }: Directory): Generator<Problem> {
  for (const [name, group] of Object.entries(config.security_groups)) {
    const path = ["security_groups", name];
    if (!(group.vpc in config.vpcs)) {
      yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC");
    }
    for (const [at, peer, ports, protocol] of rulesOf(group)) {
      const place = [...path, ...at];
      const isKnown = peer in config.security_groups || peer in config.prefix_lists;
      if (!peer.includes("/") && !isKnown) {
        const key = at[0] === "ingress" ? "from" : "to";
        const rest = "is not a CIDR, a security group or a prefix list";
        yield wrongValue(config, [...place, key], rest);
      }
      if (ports === undefined) continue;
      const [first = 0, last = first] = String(ports).split("-").map(Number);
      if (protocol !== "tcp" && protocol !== "udp") {
        yield { path: [...place, "ports"], message: `have no meaning for ${protocol}` };
      } else if (first > last || last > 65_535) {
        yield wrongValue(config, [...place, "ports"], "is not a range from 0 to 65535");
      }
    }
  }
}

function* rulesOf(
  group: SecurityGroupConfig,
): Generator<[Path, peer: string, ports: string | number | undefined, protocol: string]> {
  for (const [index, { from, ports, protocol }] of group.ingress.entries()) {
    yield [["ingress", index], from, ports, protocol];
  }
  for (const [index, { to, ports, protocol }] of (group.egress ?? []).entries()) {
    yield [["egress", index], to, ports, protocol];
  }
}
