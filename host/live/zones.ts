/**
 * What the resolver of a VPC knows, from a network and its state: names of endpoints and load
 * balancers (seen everywhere, as AWS's public ones are), names of file systems (in their VPC),
 * private DNS names (in the VPCs of endpoints that have them), and the lab's own zones. Where a
 * resource has a name that stands in an own zone as well, the resource's answers.
 *
 * A zone of a load balancer that is too unhealthy leaves its regional name and those of endpoints
 * to it; zonal names stay, as the address itself does (Elastic Load Balancing: "Target group
 * health", DNS failover).
 */

import type { NetworkConfig } from "../config/schema.ts";
import { zonesInDns } from "../control/failover.ts";
import {
  awsDnsName,
  type EndpointNames,
  endpointNames,
  fileSystemNames,
  loadBalancerNames,
  serviceLabel,
} from "../control/names.ts";
import { mayUse, type VerificationState } from "../control/private-dns.ts";
import type { ControlState } from "../control/state.ts";
import { zoneName } from "../control/zones.ts";
import type { DnsAddress, DnsName, DnsZone } from "../dns/view.ts";

/** A name of one's own in the lab, by zone. */
export type OwnZones = ReadonlyMap<string, readonly DnsName[]>;

export interface ZoneOptions {
  own: OwnZones;
  /** State of the private DNS name of a service, where it differs from the configuration. */
  verification: ReadonlyMap<string, VerificationState>;
  /** Endpoints that used their private name before it lost its verification. */
  keepsPrivateName: ReadonlySet<string>;
}

/** Addresses by zone of a resource's interfaces. */
type Places = { zone: string; addresses: string[] }[];

const ANSWERED = ["available", "pending"];

/** Zones of the VPC's resolver. */
export function dnsZones(state: ControlState, vpc: string, options: ZoneOptions): DnsZone[] {
  const { config } = state;
  const { region } = config;
  const ofResources = [
    {
      apex: `${region}.vpce.amazonaws.com`,
      names: Object.keys(config.endpoints).flatMap((id) => namesOfEndpoint(state, id)),
    },
    {
      apex: `elb.${region}.amazonaws.com`,
      names: Object.keys(config.load_balancers).flatMap((id) => namesOfBalancer(state, id)),
    },
    { apex: `efs.${region}.amazonaws.com`, names: namesOfFileSystems(state, vpc) },
    ...privateZones(state, vpc, options),
  ];
  const taken = new Set(
    ofResources.flatMap(({ names }) => names.map(({ name }) => name.toLowerCase())),
  );
  const own = [...options.own].map(([apex, names]) => {
    return { apex, names: names.filter(({ name }) => !taken.has(name)) };
  });
  return [...ofResources, ...own];
}

/** Zones of a load balancer that its regional name has. */
export function healthyZones(state: ControlState, loadBalancer: string): string[] {
  const balancer = state.config.load_balancers[loadBalancer];
  const names = (balancer?.listeners ?? []).flatMap((_, index) => {
    return state.forwards(loadBalancer, index).map(({ group }) => group);
  });
  const groups = [...new Set(names)].flatMap((name) => {
    const group = state.groups.get(name);
    if (group === undefined) return [];
    const { targets, settings } = group;
    return [{ targets, settings, isCrossZone: state.isCrossZone(name) }];
  });
  return zonesInDns(state.directory.zonesOf(loadBalancer), groups);
}

/** The regional and zonal names of an endpoint that exists. */
export function endpointNamesOf({ config, directory }: ControlState, id: string): EndpointNames {
  const endpoint = config.endpoints[id] as NetworkConfig["endpoints"][string];
  const service = config.endpoint_services[endpoint.service];
  const label = serviceLabel(endpoint.service, service?.service_name);
  const zones = Object.keys(endpoint.subnets).flatMap((name) => {
    return directory.subnets.get(name)?.zone ?? [];
  });
  const account = config.vpcs[endpoint.vpc]?.account ?? "";
  return endpointNames(id, label, config.region, labelsOf(config, account, zones));
}

function labelsOf(config: NetworkConfig, account: string, zones: string[]) {
  const names = zones.map((zone) => [
    zone,
    zoneName(config.accounts, account, zone, config.region),
  ]);
  return Object.fromEntries(names) as Record<string, string>;
}

function namesOfEndpoint(state: ControlState, id: string): DnsName[] {
  if (!ANSWERED.includes(state.endpoints.get(id)?.state ?? "")) return [];
  const places = endpointPlaces(state, id);
  return namesOf(endpointNamesOf(state, id), places, servedZones(state, id));
}

/** An endpoint's interfaces by zone. */
function endpointPlaces({ config, directory }: ControlState, id: string): Places {
  return Object.entries(config.endpoints[id]?.subnets ?? {}).map(([subnet, card]) => ({
    zone: directory.subnets.get(subnet)?.zone ?? "",
    addresses: [card.address, card.ipv6_address].filter((one) => one !== undefined),
  }));
}

/** Zones of an endpoint whose node of the load balancer is healthy; all, if none of them is. */
function servedZones(state: ControlState, id: string): string[] {
  const service = state.config.endpoints[id]?.service ?? "";
  const loadBalancer = state.config.endpoint_services[service]?.load_balancer ?? "";
  const healthy = healthyZones(state, loadBalancer);
  const own = endpointPlaces(state, id).map(({ zone }) => zone);
  const served = own.filter((zone) => healthy.includes(zone));
  return served.length > 0 ? served : own;
}

function namesOfBalancer(state: ControlState, id: string): DnsName[] {
  const { config, directory } = state;
  const balancer = config.load_balancers[id] as NetworkConfig["load_balancers"][string];
  const places = Object.entries(balancer.subnets).map(([subnet, node]) => ({
    zone: directory.subnets.get(subnet)?.zone ?? "",
    addresses: [node.address, node.ipv6_address].filter((one) => one !== undefined),
  }));
  const policy = balancer.attributes["dns_record.client_routing_policy"];
  return namesOf(balancerNamesOf(state, id), places, healthyZones(state, id), policy);
}

/** The regional and zonal names of a load balancer. */
export function balancerNamesOf({ config, directory }: ControlState, id: string): EndpointNames {
  const account = config.vpcs[config.load_balancers[id]?.vpc ?? ""]?.account ?? "";
  return loadBalancerNames(id, config.region, labelsOf(config, account, directory.zonesOf(id)));
}

/** File systems in their VPC: the regional name is the mount target of the caller's zone. */
function namesOfFileSystems({ config, directory }: ControlState, vpc: string): DnsName[] {
  const byFileSystem = new Map<string, Places>();
  for (const { subnet, address, file_system } of Object.values(config.mount_targets)) {
    const entry = directory.subnets.get(subnet);
    if (entry?.vpc !== vpc) continue;
    const places = byFileSystem.get(file_system) ?? [];
    places.push({ zone: entry.zone, addresses: [address] });
    byFileSystem.set(file_system, places);
  }
  const account = config.vpcs[vpc]?.account ?? "";
  return [...byFileSystem].flatMap(([fileSystem, places]) => {
    const zones = places.map(({ zone }) => zone);
    const names = fileSystemNames(fileSystem, config.region, labelsOf(config, account, zones));
    return namesOf(names, places, zones, "availability_zone_affinity");
  });
}

function namesOf(
  names: EndpointNames,
  places: Places,
  healthy: readonly string[],
  policy?: DnsName["policy"],
): DnsName[] {
  const all = places.flatMap(({ zone, addresses }): DnsAddress[] => {
    return healthy.includes(zone) ? addresses.map((address) => ({ address, zone })) : [];
  });
  const zonal = places.map(({ zone, addresses }) => ({
    name: names.zonal[zone] ?? "",
    addresses: addresses.map((address) => ({ address, zone })),
  }));
  return [{ name: names.regional, addresses: all, ...(policy && { policy }) }, ...zonal];
}

/** One zone for each private name that an endpoint in the VPC may use. */
function privateZones(state: ControlState, vpc: string, options: ZoneOptions): DnsZone[] {
  const { config } = state;
  const settings = config.vpcs[vpc];
  if (!settings?.enable_dns_hostnames || !settings.enable_dns_support) return [];
  const zones = new Map<string, DnsZone>();
  for (const [id, endpoint] of Object.entries(config.endpoints)) {
    if (endpoint.vpc !== vpc || !endpoint.private_dns_enabled) continue;
    if (state.endpoints.get(id)?.state !== "available") continue;
    const name = privateNameOf(config, endpoint.service, id, options);
    if (name === undefined) continue;
    const apex = name.replace(/^\*\./, "");
    const served = servedZones(state, id);
    const addresses = endpointPlaces(state, id).flatMap((place): DnsAddress[] => {
      const { zone } = place;
      return served.includes(zone) ? place.addresses.map((address) => ({ address, zone })) : [];
    });
    // The first endpoint of a VPC has the name; AWS lets no second one have it.
    if (!zones.has(apex)) zones.set(apex, { apex, names: [{ name, addresses }] });
  }
  return [...zones.values()];
}

function privateNameOf(
  config: NetworkConfig,
  id: string,
  endpoint: string,
  { verification, keepsPrivateName }: ZoneOptions,
): string | undefined {
  const service = config.endpoint_services[id];
  if (service?.private_dns_name === undefined) {
    const label = service?.service_name && serviceLabel(id, service.service_name);
    return label ? awsDnsName(label, config.region) : undefined;
  }
  const state = verification.get(id) ?? service.private_dns_state;
  return mayUse(state, keepsPrivateName.has(endpoint)) ? service.private_dns_name : undefined;
}
