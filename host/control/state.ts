/**
 * What changes while a network runs: targets and their health, endpoints and their states,
 * addresses of NAT gateways, weights of target groups. The configuration beside it never changes.
 */
import type { NetworkConfig } from "../config/schema.ts";
import { Directory, forwardsOf } from "./directory.ts";
import type { EndpointState } from "./endpoints.ts";
import { NatAddresses } from "./nat-addresses.ts";
import { POLICY_DEFAULT, type Policy, parsePolicy } from "./policy.ts";
import { settingsOf } from "./settings.ts";
import { TargetGroup } from "./targets.ts";

export interface EndpointRecord {
  state: EndpointState;
  sinceMs: number;
  /** When its bill begins. */
  createdMs: number;
}

export class ControlState {
  readonly config: NetworkConfig;
  readonly directory: Directory;
  readonly groups = new Map<string, TargetGroup>();
  /** Endpoints that exist; those that the timeline creates do not yet. */
  readonly endpoints = new Map<string, EndpointRecord>();
  /** Policies of the endpoints that exist, and of gateway endpoints. */
  readonly policies = new Map<string, Policy>();
  readonly nats = new Map<string, NatAddresses>();
  /** Weights that differ from the configuration's, by `weightKey`. */
  readonly weights = new Map<string, number>();

  constructor(config: NetworkConfig, nowMs: number) {
    this.config = config;
    this.directory = new Directory(config);
    for (const [name, { max_drain_duration_seconds, addresses }] of Object.entries(
      config.nat_gateways,
    )) {
      this.nats.set(name, new NatAddresses(addresses, max_drain_duration_seconds * 1000));
    }
    for (const name of Object.keys(config.target_groups)) this.#addGroup(name, nowMs);
    const later = new Set(config.timeline.map(({ create }) => create?.endpoint));
    for (const [id, { state, service, policy }] of Object.entries(config.endpoints)) {
      if (later.has(id)) continue;
      const isAcceptanceRequired = config.endpoint_services[service]?.acceptance_required ?? true;
      const first = isAcceptanceRequired ? "pendingAcceptance" : "available";
      this.endpoints.set(id, { state: state ?? first, sinceMs: nowMs, createdMs: nowMs });
      if (state !== "deleted") this.policies.set(id, parsePolicy(policy ?? POLICY_DEFAULT));
    }
    for (const [id, { policy }] of Object.entries(config.gateway_endpoints)) {
      this.policies.set(id, parsePolicy(policy ?? POLICY_DEFAULT));
    }
  }

  #addGroup(name: string, nowMs: number): void {
    const config = this.config.target_groups[name] as (typeof this.config.target_groups)[string];
    const group = new TargetGroup(settingsOf(config));
    const zones = this.zonesUsing(name);
    const isCrossZone = this.isCrossZone(name);
    group.setUse((zone) => {
      return zones.length > 0 && (isCrossZone || zone === "all" || zones.includes(zone));
    }, nowMs);
    for (const { address, port, zone, state } of config.targets) {
      const place = zone ?? this.zoneOf(config.vpc, address);
      const key = { address, port: port ?? config.port };
      group.register(key, place, nowMs, state === "initial" ? undefined : state);
    }
    this.groups.set(name, group);
  }

  /** The zone of an address: that of its subnet; outside of all it serves every zone. */
  zoneOf(vpc: string, address: string): string {
    return this.directory.subnetHolding(vpc, address)?.zone ?? "all";
  }

  /** Why a NAT gateway cannot get an address now: the end of a sentence that begins with it. */
  whyNoNatAddress(gateway: string, address: string): string | undefined {
    const { nat_gateways, lab } = this.config;
    /** Where its addresses are told apart: in its VPC, or outside of all. */
    const spaceOf = (name: string) => {
      const { connectivity, subnet: place = "" } = nat_gateways[name] ?? {};
      return connectivity === "private" ? this.directory.subnets.get(place)?.vpc : "internet";
    };
    const space = spaceOf(gateway);
    for (const [name, { addresses }] of this.nats) {
      if (name === gateway || spaceOf(name) !== space) continue;
      if (addresses.some((one) => one.address === address)) return `belongs to ${name}`;
    }
    for (const [name, { vpc, addresses }] of Object.entries(lab?.hosts ?? {})) {
      if (vpc === space && addresses.includes(address)) return `is also at lab.hosts.${name}`;
    }
    return this.directory.whyNotNat(gateway, address);
  }

  /** Zones of the load balancer and the mount targets that a target group serves. */
  zonesUsing(group: string): string[] {
    const balancers = this.directory.usersOf(group).map(({ loadBalancer }) => loadBalancer);
    const mounts = Object.values(this.config.mount_targets).filter((one) => one.forward === group);
    return [
      ...new Set([
        ...balancers.flatMap((name) => this.directory.zonesOf(name)),
        ...mounts.flatMap(({ subnet }) => this.directory.subnets.get(subnet)?.zone ?? []),
      ]),
    ];
  }

  /** Whether a group's targets serve nodes of every zone; mount targets always use all of them. */
  isCrossZone(group: string): boolean {
    const own = settingsOf(this.config.target_groups[group] as never).isCrossZone;
    const [user] = this.directory.usersOf(group);
    if (!user) return true;
    const balancer = this.config.load_balancers[user.loadBalancer];
    return own ?? balancer?.attributes["load_balancing.cross_zone.enabled"] ?? false;
  }

  /** When an endpoint expires unless its provider accepts or rejects it; infinity: never. */
  expiryMs(id: string): number {
    const record = this.endpoints.get(id);
    if (record?.state !== "pendingAcceptance") return Number.POSITIVE_INFINITY;
    const service = this.config.endpoint_services[this.config.endpoints[id]?.service ?? ""];
    if (!service) return Number.POSITIVE_INFINITY;
    return record.sinceMs + service.acceptance_timeout_seconds * 1000;
  }

  /** The target groups of a listener with the weights that they have now. */
  forwards(loadBalancer: string, listener: number): { group: string; weight: number }[] {
    const config = this.config.load_balancers[loadBalancer]?.listeners[listener];
    if (!config) return [];
    return forwardsOf(config.forward).map(({ target_group: group, weight }) => {
      const key = weightKey(loadBalancer, config.protocol, config.port, group);
      return { group, weight: this.weights.get(key) ?? weight };
    });
  }
}

export function weightKey(
  loadBalancer: string,
  protocol: string,
  port: number,
  group: string,
): string {
  return `${loadBalancer} ${protocol} ${port} ${group}`;
}
