/**
 * Security groups as the engine takes them: allowed address ranges and ports. Rules that name
 * another group mean the addresses that carry it, those that name a prefix list mean its ranges.
 * Several groups on one thing allow what any of them allows.
 */
import { addressBytes } from "../address.ts";
import { contains, parseCidr } from "../cidr.ts";
import type { NetworkConfig } from "../config/schema.ts";
import type { NetworkRule } from "../engine/network.ts";

type Rule = NetworkConfig["security_groups"][string]["ingress"][number] | EgressRule;
type EgressRule = NonNullable<NetworkConfig["security_groups"][string]["egress"]>[number];

const PROTOCOL_TCP = 6;
export const EVERYTHING: readonly NetworkRule[] = [{ cidr: "0.0.0.0/0" }, { cidr: "::/0" }];

/** What may come in through groups. */
export function inboundRules(config: NetworkConfig, groups: readonly string[]): NetworkRule[] {
  return groups.flatMap((name) => {
    const rules = config.security_groups[name]?.ingress ?? [];
    return rules.flatMap((rule) => expand(config, rule, rule.from));
  });
}

/** What may go out through groups: everything through one that says nothing about it. */
export function outboundRules(config: NetworkConfig, groups: readonly string[]): NetworkRule[] {
  return groups.flatMap((name) => {
    const rules = config.security_groups[name]?.egress;
    return rules?.flatMap((rule) => expand(config, rule, rule.to)) ?? EVERYTHING;
  });
}

/** Whether rules let a TCP connection to a port of an address through. */
export function permitsTcp(rules: readonly NetworkRule[], address: string, port: number): boolean {
  const bytes = addressBytes(address);
  return rules.some(({ protocol = "tcp", ports: [first, last] = [0, 65_535], cidr }) => {
    if (protocol !== "tcp" && protocol !== PROTOCOL_TCP) return false;
    return port >= first && port <= last && contains(parseCidr(cidr), bytes);
  });
}

function expand(config: NetworkConfig, { protocol, ports }: Rule, peer: string): NetworkRule[] {
  const rest: Omit<NetworkRule, "cidr"> = {};
  if (protocol !== "all") rest.protocol = protocol;
  if (ports !== undefined) {
    const [first = 0, last = first] = String(ports).split("-").map(Number);
    rest.ports = [first, last];
  }
  return rangesOf(config, peer).map((cidr) => ({ ...rest, cidr }));
}

function rangesOf(config: NetworkConfig, peer: string): readonly string[] {
  if (peer.includes("/")) return [peer];
  return config.prefix_lists[peer] ?? membersOf(config, peer).map(hostRange);
}

function hostRange(address: string): string {
  return `${address}/${address.includes(":") ? 128 : 32}`;
}

/** Addresses of what carries a security group: instances that it names, and resources. */
function membersOf(config: NetworkConfig, group: string): string[] {
  const carries = ({ security_groups }: { security_groups?: string[] | undefined }) =>
    security_groups?.includes(group);
  const balancers = Object.values(config.load_balancers).filter(carries);
  const endpoints = Object.values(config.endpoints).filter(carries);
  const mounts = Object.values(config.mount_targets).filter(carries);
  return [
    ...(config.security_groups[group]?.members ?? []),
    ...balancers.flatMap(({ subnets }) => Object.values(subnets).flatMap(nodeAddresses)),
    ...endpoints.flatMap(({ subnets }) => Object.values(subnets).flatMap(nodeAddresses)),
    ...mounts.map(({ address }) => address),
  ];
}

/** All addresses of a load balancer's node or an endpoint's interface, the primary one first. */
export function nodeAddresses(node: {
  address: string;
  secondary_addresses?: string[] | undefined;
  ipv6_address?: string | undefined;
}): string[] {
  const { address, secondary_addresses = [], ipv6_address } = node;
  return [address, ...secondary_addresses, ...(ipv6_address ? [ipv6_address] : [])];
}
