/**
 * VPCs as the engine takes them: their numbers, the addresses of resources in them, route tables
 * and subnets (Amazon VPC: "Configure route tables").
 *
 * Number 0 is the internet; VPCs of the configuration count from 1 in its order; behind them come
 * the networks of gateway endpoints and, for each VPC, its on-premises side, which has the VPC's
 * endpoints and load balancers but none of its gateways.
 */
import { addressBytes, addressText, inNat64 } from "../address.ts";
import { contains, parseCidr } from "../cidr.ts";
import type { NetworkConfig } from "../config/schema.ts";
import type { NetworkAddress, NetworkRoute, NetworkVpc } from "../engine/network.ts";
import type { ControlState } from "./state.ts";

export const INTERNET_NUMBER = 0;

type Addresses = ReadonlyMap<string, readonly NetworkAddress[]>;
type Numbers = ReadonlyMap<string, number>;

/** Numbers of VPCs by name; `internet`, `gateway:NAME` and `direct-connect:VPC` are among them. */
export function vpcNumbers(config: NetworkConfig): Map<string, number> {
  const names = [
    "internet",
    ...Object.keys(config.vpcs),
    ...Object.keys(config.gateway_endpoints).map((name) => `gateway:${name}`),
    ...Object.keys(config.vpcs).map((name) => `direct-connect:${name}`),
  ];
  return new Map(names.map((name, number) => [name, number]));
}

/** All VPCs; `addresses` are those of resources by name of the VPC. */
export function compileVpcs(
  state: ControlState,
  numbers: Numbers,
  addresses: Addresses,
): NetworkVpc[] {
  const names = Object.keys(state.config.vpcs);
  return [
    { vpc: INTERNET_NUMBER },
    ...names.map((name) => inside(state, name, numbers, addresses)),
    ...names.map((name) => onPremises(state, name, numbers, addresses)),
  ];
}

function inside(
  state: ControlState,
  name: string,
  numbers: Numbers,
  addresses: Addresses,
): NetworkVpc {
  const { config, directory } = state;
  const names = ["main", ...Object.keys(config.vpcs[name]?.route_tables ?? {})];
  const tables = [...new Set(names)];
  const subnets = directory.subnetsOf(name).flatMap(({ routeTable, ranges }) =>
    ranges.map(({ bytes, prefixBits }) => ({
      cidr: `${addressText(bytes)}/${prefixBits}`,
      routeTable: tables.indexOf(routeTable),
    })),
  );
  const others = [
    ...(addresses.get(name) ?? []),
    ...peerAddresses({ config, directory }, name, addresses),
  ];
  return {
    vpc: numbers.get(name) ?? INTERNET_NUMBER,
    addresses: [...others, ...natAddresses(state, name, others)],
    routeTables: tables.map((table) => routes({ config, directory }, name, table)),
    subnets: subnets.filter(({ routeTable }) => routeTable > 0),
  };
}

/** What comes from on premises reaches the VPC and its endpoints, and no gateway. */
function onPremises(
  { config }: ControlState,
  name: string,
  numbers: Numbers,
  addresses: Addresses,
): NetworkVpc {
  const cidrs = config.vpcs[name]?.cidrs ?? [];
  return {
    vpc: numbers.get(`direct-connect:${name}`) ?? INTERNET_NUMBER,
    addresses: addresses.get(name) ?? [],
    routeTables: [cidrs.map((to) => ({ to, service: `vpc:${name}` }))],
  };
}

type World = Pick<ControlState, "config" | "directory">;

/**
 * Routes of a table: the VPC's own ranges, those of gateway endpoints, then what the file says,
 * which takes the place of an equal one. Of the others the longest prefix wins.
 */
function routes({ config, directory }: World, vpc: string, table: string): NetworkRoute[] {
  const found = new Map<string, NetworkRoute>();
  const add = (to: string, service: string | undefined) => {
    found.set(to, service === undefined ? { to } : { to, service });
  };
  for (const cidr of config.vpcs[vpc]?.cidrs ?? []) add(cidr, `vpc:${vpc}`);
  for (const [name, gateway] of Object.entries(config.gateway_endpoints)) {
    if (gateway.vpc !== vpc || !gateway.route_tables.includes(table)) continue;
    for (const cidr of config.prefix_lists[gateway.prefix_list] ?? []) add(cidr, name);
  }
  for (const { to, via } of config.vpcs[vpc]?.route_tables[table] ?? []) {
    const target = directory.via(via);
    let service: string | undefined = via;
    if (target?.kind === "blackhole") service = undefined;
    if (target?.kind === "local") service = `vpc:${vpc}`;
    if (target?.kind === "peering") service = `vpc:${target.name}`;
    const ranges = to.includes("/") ? [to] : (config.prefix_lists[to] ?? []);
    for (const cidr of ranges) add(cidr, service);
  }
  return [...found.values()];
}

/**
 * Addresses of private NAT gateways of a VPC, and of public ones that its routes lead to. A gateway is
 * nobody to talk to: what is sent to an address of its own would leave as if it came from there.
 */
function natAddresses(
  { config, directory, nats }: ControlState,
  vpc: string,
  others: readonly NetworkAddress[],
): NetworkAddress[] {
  const routes = Object.values(config.vpcs[vpc]?.route_tables ?? {}).flat();
  const vias = new Set(routes.map(({ via }) => via));
  const found = new Map<string, NetworkAddress>();
  for (const [service, { connectivity, subnet }] of Object.entries(config.nat_gateways)) {
    const isPrivate = connectivity === "private";
    const isHere = directory.subnets.get(subnet)?.vpc === vpc;
    if (isPrivate ? !isHere : !vias.has(service)) continue;
    for (const { address } of nats.get(service)?.addresses ?? []) {
      // What a VPC has itself is nearer than the internet.
      const isOther = !isPrivate && directory.isInVpc(vpc, address);
      const seen = [...(isOther ? [] : [address]), inNat64(address)];
      for (const one of seen) found.set(one, { address: one, service });
    }
  }
  for (const { address } of others) found.delete(address);
  return [...found.values()];
}

/** Addresses of a peered VPC's load balancers, as far as a route leads there. */
function peerAddresses(
  { config, directory }: World,
  vpc: string,
  addresses: Addresses,
): NetworkAddress[] {
  const all = Object.values(config.vpcs[vpc]?.route_tables ?? {}).flat();
  const found = all.flatMap(({ to, via }) => {
    const target = directory.via(via);
    if (target?.kind !== "peering" || !to.includes("/")) return [];
    const range = parseCidr(to);
    const there = addresses.get(target.name) ?? [];
    return there.filter(({ address }) => contains(range, addressBytes(address)));
  });
  return [...new Set(found)];
}
