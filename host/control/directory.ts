/**
 * Finds what a network's names stand for. Subnets have names of their own over all VPCs, as AWS's
 * ids have; what a route leads to and whom a rule is about are told apart by where the name is.
 */
import { addressBytes } from "../address.ts";
import { type Cidr, contains, parseCidr } from "../cidr.ts";
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
