/**
 * Finds what a network's names stand for. Subnets have names of their own over all VPCs, as AWS's
 * ids have; what a route leads to and whom a rule is about are told apart by where the name is.
 */
import { addressBytes } from "../address.ts";
import { type Cidr, contains, isReserved, isSourceless, parseCidr } from "../cidr.ts";
import type { NetworkConfig } from "../config/schema.ts";

export interface SubnetEntry {
  name: string;
  vpc: string;
  zone: string;
  routeTable: string;
  /** IPv4, then IPv6 if it has one. */
  ranges: Cidr[];
}

export type RouteVia =
  | { kind: "local" | "blackhole" | "internet" }
  | { kind: "nat-gateway" | "gateway-endpoint" | "peering"; name: string };

/** Ranges that targets of the type ip may have beside those of the VPC. */
const PRIVATE = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"].map(parseCidr);
const PLAIN_ROUTES = ["local", "blackhole", "internet"] as const;

/** A read-only view of a checked configuration, or of one that is being checked. */
export class Directory {
  readonly config: NetworkConfig;
  readonly subnets = new Map<string, SubnetEntry>();

  constructor(config: NetworkConfig) {
    this.config = config;
    for (const [vpc, { subnets }] of Object.entries(config.vpcs)) {
      for (const [name, { cidr, ipv6_cidr, zone, route_table }] of Object.entries(subnets)) {
        const ranges = [cidr, ...(ipv6_cidr ? [ipv6_cidr] : [])].map(parseCidr);
        this.subnets.set(name, { name, vpc, zone, routeTable: route_table, ranges });
      }
    }
  }

  subnetsOf(vpc: string): SubnetEntry[] {
    return [...this.subnets.values()].filter((subnet) => subnet.vpc === vpc);
  }

  /** The subnet of a VPC that holds an address. */
  subnetHolding(vpc: string, address: string): SubnetEntry | undefined {
    const bytes = addressBytes(address);
    return this.subnetsOf(vpc).find(({ ranges }) => ranges.some((one) => contains(one, bytes)));
  }

  /** Whether an address lies in one of a VPC's ranges. */
  isInVpc(vpc: string, address: string): boolean {
    const bytes = addressBytes(address);
    const cidrs = this.config.vpcs[vpc]?.cidrs ?? [];
    return cidrs.some((cidr) => contains(parseCidr(cidr), bytes));
  }

  /** Why an address cannot be a target of a group: the end of a sentence that begins with it. */
  whyNoTarget(targetGroup: string, address: string): string | undefined {
    const group = this.config.target_groups[targetGroup];
    if (group === undefined) return undefined;
    const { vpc, target_type, ip_address_type } = group;
    if (address.includes(":") !== (ip_address_type === "ipv6")) {
      return `is not of the group's type, ${ip_address_type}`;
    }
    if (target_type === "instance" && !this.subnetHolding(vpc, address)) {
      return `lies in no subnet of ${vpc}, as instances do`;
    }
    const bytes = addressBytes(address);
    if (this.isInVpc(vpc, address) || PRIVATE.some((range) => contains(range, bytes))) {
      return undefined;
    }
    return `is neither in ${vpc} nor a private address`;
  }

  /** Why an address cannot be one of a NAT gateway: the end of a sentence that begins with it. */
  whyNotNat(natGateway: string, address: string): string | undefined {
    const gateway = this.config.nat_gateways[natGateway];
    if (gateway === undefined) return undefined;
    const bytes = addressBytes(address);
    if (isSourceless({ bytes, prefixBits: 32 })) return "is no address that packets come from";
    const subnet = this.subnets.get(gateway.subnet);
    if (gateway.connectivity !== "private" || subnet === undefined) return undefined;
    if (!subnet.ranges.some((range) => contains(range, bytes))) {
      return `lies outside the subnet ${subnet.name}`;
    }
    const isKept = subnet.ranges.some((range) => isReserved(range, bytes));
    return isKept ? `is one of the five addresses of ${subnet.name} that are reserved` : undefined;
  }

  /** What a route's `via` names. */
  via(name: string): RouteVia | undefined {
    const plain = PLAIN_ROUTES.find((kind) => kind === name);
    if (plain) return { kind: plain };
    if (name in this.config.nat_gateways) return { kind: "nat-gateway", name };
    if (name in this.config.gateway_endpoints) return { kind: "gateway-endpoint", name };
    if (name in this.config.vpcs) return { kind: "peering", name };
    return undefined;
  }

  /** Zones of a load balancer, and with them of the services behind it. */
  zonesOf(loadBalancer: string): string[] {
    const subnets = Object.keys(this.config.load_balancers[loadBalancer]?.subnets ?? {});
    return subnets.flatMap((name) => this.subnets.get(name)?.zone ?? []);
  }

  /** Whether a load balancer has such a listener, and that forwards to the target group. */
  forwards(loadBalancer: string, protocol: string, port: number, targetGroup: string): boolean {
    const listener = this.config.load_balancers[loadBalancer]?.listeners.find(
      (one) => one.port === port && one.protocol === protocol,
    );
    const groups = listener ? forwardsOf(listener.forward) : [];
    return groups.some(({ target_group }) => target_group === targetGroup);
  }

  /** Load balancers with a listener that forwards to a target group, and the listeners' indices. */
  usersOf(targetGroup: string): { loadBalancer: string; listener: number }[] {
    return Object.entries(this.config.load_balancers).flatMap(([loadBalancer, { listeners }]) =>
      listeners.flatMap(({ forward }, listener) =>
        forwardsOf(forward).some(({ target_group }) => target_group === targetGroup)
          ? [{ loadBalancer, listener }]
          : [],
      ),
    );
  }
}

/** The target groups and weights of a listener's `forward`, whichever way it is written. */
export function forwardsOf(
  forward: string | { target_group: string; weight: number }[],
): { target_group: string; weight: number }[] {
  return typeof forward === "string" ? [{ target_group: forward, weight: 1 }] : forward;
}
