/**
 * Compiles a network and its state into the engine's tables. Nothing is decided here that the
 * models have not decided: which targets serve a zone, which endpoints are available, which
 * addresses drain.
 *
 * Ids of services: `nlb-1/use1-az1/tcp:80` is a listener in a zone, `nlb-1/use1-az1` the node itself,
 * `nat-1` a gateway, `vpc:NAME` and `internet` where routes lead.
 */

import { inNat64 } from "../address.ts";
import type {
  NetworkAddress,
  NetworkCapacity,
  NetworkListener,
  NetworkRule,
  NetworkService,
  NetworkTables,
} from "../engine/network.ts";
import { eligible } from "./failover.ts";
import { compileVpcs, INTERNET_NUMBER, vpcNumbers } from "./routes.ts";
import { inboundRules, nodeAddresses, outboundRules } from "./rules.ts";
import { settingsOf } from "./settings.ts";
import type { ControlState } from "./state.ts";

/** Largest packet through endpoints and NAT gateways. */
const MTU_BYTES = 8500;
const NFS_PORT = 2049;
const GATEWAY_UNITS_MAX = 20;
const BALANCER_UNITS_MAX = 1000;

export type ResourceKind =
  | "network-load-balancer"
  | "nat-gateway"
  | "vpc-endpoint"
  | "gateway-endpoint"
  | "mount-target";

/** A resource and the services that do its work. */
export interface CompiledResource {
  id: string;
  kind: ResourceKind;
  services: CompiledService[];
}

export interface CompiledService {
  id: string;
  zone: string | undefined;
  /** `TCP:80`; undefined for what is no listener. */
  listener: string | undefined;
  /** Target groups behind it. */
  groups: string[];
}

export interface Compiled {
  tables: NetworkTables;
  resources: CompiledResource[];
}

export interface CompileOptions {
  /** What capacities do that say nothing: a replay reports, a lab drops. */
  capacityMode: "report" | "drop";
  /** Whether the engine puts PROXY headers in; default false: then groups that ask for them get none. */
  hasProxyHeaders?: boolean;
}

export function compile(state: ControlState, options: CompileOptions): Compiled {
  return new Compiler(state, options).compile();
}

/** A node of a load balancer, or an endpoint's interface in front of it, being compiled. */
interface Front {
  /** Id of the resource that clients talk to, and the VPC in which it stands. */
  owner: string;
  vpc: string;
  zone: string;
  addresses: string[];
  /** The load balancer and its own addresses in the zone. */
  loadBalancer: string;
  sources: string[];
  /** Set for endpoints: whose security groups also apply. */
  endpoint: string | undefined;
  isOpen: boolean;
}

class Compiler {
  readonly #state: ControlState;
  readonly #options: CompileOptions;
  readonly #numbers: Map<string, number>;
  readonly #services = new Map<string, NetworkService>();
  readonly #rules: Record<string, NetworkRule[]> = {};
  readonly #capacities: Record<string, NetworkCapacity> = {};
  /** Addresses by name of the VPC. */
  readonly #addresses = new Map<string, NetworkAddress[]>();
  readonly #resources: CompiledResource[] = [];

  constructor(state: ControlState, options: CompileOptions) {
    this.#state = state;
    this.#options = options;
    this.#numbers = vpcNumbers(state.config);
  }

  compile(): Compiled {
    const { config } = this.#state;
    for (const name of Object.keys(config.vpcs)) this.#addRoute(`vpc:${name}`, name);
    this.#addRoute("internet", "internet");
    for (const name of Object.keys(config.load_balancers)) this.#addBalancer(name);
    for (const name of Object.keys(config.endpoints)) this.#addEndpoint(name);
    for (const name of Object.keys(config.mount_targets)) this.#addMountTarget(name);
    for (const name of Object.keys(config.nat_gateways)) this.#addNatGateway(name);
    for (const name of Object.keys(config.gateway_endpoints)) {
      this.#addRoute(name, `gateway:${name}`);
      const service = { id: name, zone: undefined, listener: undefined, groups: [] };
      this.#resources.push({ id: name, kind: "gateway-endpoint", services: [service] });
    }
    const tables: NetworkTables = {
      vpcs: compileVpcs(this.#state, this.#numbers, this.#addresses),
      services: [...this.#services.values()],
      rules: this.#rules,
      capacities: this.#capacities,
    };
    return { tables, resources: this.#resources };
  }

  #number(vpc: string): number {
    return this.#numbers.get(vpc) ?? INTERNET_NUMBER;
  }

  #addRoute(id: string, vpc: string): void {
    this.#services.set(id, { id, kind: "route", vpc: this.#number(vpc) });
  }

  #addAddresses(vpc: string, addresses: NetworkAddress[]): void {
    this.#addresses.set(vpc, [...(this.#addresses.get(vpc) ?? []), ...addresses]);
  }

  #addBalancer(name: string): void {
    const { config, directory } = this.#state;
    const balancer = config.load_balancers[name] as (typeof config.load_balancers)[string];
    const capacity = this.#capacity(name, balancer.capacity, BALANCER_UNITS_MAX);
    const services = Object.entries(balancer.subnets).flatMap(([subnet, node]) => {
      const addresses = nodeAddresses(node);
      return this.#addFront(
        {
          owner: name,
          vpc: balancer.vpc,
          zone: directory.subnets.get(subnet)?.zone ?? "",
          addresses,
          loadBalancer: name,
          sources: addresses,
          endpoint: undefined,
          isOpen: true,
        },
        capacity,
      );
    });
    this.#resources.push({ id: name, kind: "network-load-balancer", services });
  }

  #addEndpoint(name: string): void {
    const { config, directory, endpoints } = this.#state;
    const endpoint = config.endpoints[name] as (typeof config.endpoints)[string];
    const state = endpoints.get(name)?.state;
    if (state === undefined || state === "deleted") return;
    const loadBalancer = config.endpoint_services[endpoint.service]?.load_balancer ?? "";
    const nodes = Object.entries(config.load_balancers[loadBalancer]?.subnets ?? {});
    const services = Object.entries(endpoint.subnets).flatMap(([subnet, card]) => {
      const zone = directory.subnets.get(subnet)?.zone ?? "";
      const node = nodes.find(([other]) => directory.subnets.get(other)?.zone === zone)?.[1];
      const capacity = this.#capacity(`${name}/${zone}`, endpoint.capacity, GATEWAY_UNITS_MAX);
      return this.#addFront(
        {
          owner: name,
          vpc: endpoint.vpc,
          zone,
          addresses: nodeAddresses(card),
          loadBalancer,
          sources: node ? nodeAddresses(node) : [],
          endpoint: name,
          isOpen: state === "available",
        },
        capacity,
      );
    });
    this.#resources.push({ id: name, kind: "vpc-endpoint", services });
  }

  /** Services of a node's listeners in a zone, and the addresses that lead to them. */
  #addFront(front: Front, capacity: string): CompiledService[] {
    const { config } = this.#state;
    const node = `${front.owner}/${front.zone}`;
    const balancer = config.load_balancers[front.loadBalancer];
    const vpc = this.#number(balancer?.vpc ?? "");
    this.#services.set(node, { id: node, kind: "load-balancer", vpc, capacity });
    const all: CompiledService[] = [
      { id: node, zone: front.zone, listener: undefined, groups: [] },
    ];
    const listeners: NetworkListener[] = [];
    for (const [index, { protocol, port }] of (balancer?.listeners ?? []).entries()) {
      if (!front.isOpen) break;
      for (const word of protocol.split("_")) {
        const one = word === "TCP" ? "tcp" : "udp";
        const id = `${node}/${one}:${port}`;
        this.#services.set(id, this.#listener(id, front, index, one, capacity));
        listeners.push({ protocol: one, port, service: id });
        const groups = this.#state.forwards(front.loadBalancer, index).map(({ group }) => group);
        all.push({ id, zone: front.zone, listener: `${word}:${port}`, groups });
      }
    }
    this.#addAddresses(
      front.vpc,
      front.addresses.map((address) => ({ address, service: node, listeners })),
    );
    return all;
  }

  /** The PROXY header of a listener: all of its target groups ask for it, or it has none. */
  #proxyProtocol(
    loadBalancer: string,
    index: number,
    endpoint: string | undefined,
  ): Pick<NetworkService, "proxyProtocol"> {
    if (!this.#options.hasProxyHeaders) return {};
    const groups = this.#state.forwards(loadBalancer, index).map(({ group }) => {
      return this.#state.config.target_groups[group];
    });
    const settings = groups.map((group) => group && settingsOf(group));
    const [first] = settings;
    if (first === undefined || !settings.every((one) => one?.hasProxyHeader)) return {};
    const placement = first.headerPlacement;
    const vpce = endpoint === undefined ? {} : { vpce: endpoint };
    const protocol = this.#state.config.load_balancers[loadBalancer]?.listeners[index]?.protocol;
    return { proxyProtocol: { placement, udp: protocol !== "TCP", ...vpce } };
  }

  #listener(
    id: string,
    front: Front,
    index: number,
    protocol: "tcp" | "udp",
    capacity: string,
  ): NetworkService {
    const { config } = this.#state;
    const { loadBalancer, zone, endpoint } = front;
    const balancer = config.load_balancers[loadBalancer] as (typeof config.load_balancers)[string];
    const { targets, isFailOpen, preserves, isSticky } = this.#targets(loadBalancer, index, zone);
    const keepsClient = endpoint === undefined && preserves;
    const idleSeconds = balancer.listeners[index]?.attributes["tcp.idle_timeout.seconds"] ?? 350;
    const rules = this.#rulesOf(front);
    const header = this.#proxyProtocol(loadBalancer, index, endpoint);
    const mayCross = protocol === "tcp" && header.proxyProtocol === undefined;
    const crossing = mayCross ? crossingOf(front, targets) : undefined;
    return {
      id,
      kind: "load-balancer",
      vpc: this.#number(balancer.vpc),
      targets: [...targets, ...(crossing?.targets ?? [])],
      capacity,
      idleSeconds,
      isSticky,
      isFailOpen,
      ...sourcesOf(keepsClient ? [] : front.sources, crossing?.sources),
      ...header,
      ...(endpoint === undefined ? {} : { mtuBytes: MTU_BYTES }),
      ...(rules ? { rules } : {}),
    };
  }

  /** Targets that get a zone's new flows; each group shares its weight evenly among its own. */
  #targets(loadBalancer: string, listener: number, zone: string) {
    const { groups } = this.#state;
    const targets: { address: string; port: number; weight: number }[] = [];
    let [isFailOpen, preserves, isSticky] = [false, false, false];
    for (const { group: name, weight } of this.#state.forwards(loadBalancer, listener)) {
      const group = groups.get(name);
      if (!group) continue;
      const chosen = eligible(group.targets, zone, this.#state.isCrossZone(name), group.settings);
      isFailOpen ||= chosen.isFailOpen;
      preserves ||= group.settings.preservesClient;
      isSticky ||= group.settings.isSticky;
      for (const { address, port } of chosen.targets) {
        targets.push({ address, port, weight: weight / chosen.targets.length });
      }
    }
    return { targets, isFailOpen, preserves, isSticky };
  }

  #rulesOf({ loadBalancer, endpoint }: Front): NetworkService["rules"] {
    const { config } = this.#state;
    const balancer = config.load_balancers[loadBalancer];
    const own = endpoint === undefined ? undefined : config.endpoints[endpoint]?.security_groups;
    const groups = balancer?.security_groups;
    const isEnforced =
      endpoint === undefined ||
      balancer?.enforce_security_group_inbound_rules_on_private_link_traffic === "on";
    const rules: NonNullable<NetworkService["rules"]> = {};
    if (own) rules.endpoint = this.#ruleSet(own, "in");
    if (groups && isEnforced) rules.inbound = this.#ruleSet(groups, "in");
    if (groups) rules.outbound = this.#ruleSet(groups, "out");
    return Object.keys(rules).length > 0 ? rules : undefined;
  }

  /** The name of what groups allow in a direction. */
  #ruleSet(groups: readonly string[], direction: "in" | "out"): string {
    const { config } = this.#state;
    const name = `${groups.join("+")} ${direction}`;
    this.#rules[name] ??= (direction === "in" ? inboundRules : outboundRules)(config, groups);
    return name;
  }

  #addMountTarget(name: string): void {
    const { config, directory, groups } = this.#state;
    const mount = config.mount_targets[name] as (typeof config.mount_targets)[string];
    const { vpc = "", zone = "" } = directory.subnets.get(mount.subnet) ?? {};
    const group = groups.get(mount.forward);
    const targets = group ? eligible(group.targets, zone, true, group.settings) : undefined;
    const number = this.#number(config.target_groups[mount.forward]?.vpc ?? vpc);
    const id = `${name}/tcp:${NFS_PORT}`;
    this.#services.set(name, { id: name, kind: "load-balancer", vpc: number });
    this.#services.set(id, {
      id,
      kind: "load-balancer",
      vpc: number,
      sources: [mount.address],
      targets: (targets?.targets ?? []).map(({ address, port }) => ({ address, port })),
      isFailOpen: targets?.isFailOpen ?? false,
      // Connections of file systems live for years.
      idleSeconds: 0,
      ...(mount.security_groups
        ? { rules: { inbound: this.#ruleSet(mount.security_groups, "in") } }
        : {}),
    });
    const listeners = [{ protocol: "tcp", port: NFS_PORT, service: id } as const];
    this.#addAddresses(vpc, [{ address: mount.address, service: name, listeners }]);
    const services = [
      { id: name, zone, listener: undefined, groups: [] },
      { id, zone, listener: `TCP:${NFS_PORT}`, groups: [mount.forward] },
    ];
    this.#resources.push({ id: name, kind: "mount-target", services });
  }

  #addNatGateway(name: string): void {
    const { config, directory, nats } = this.#state;
    const nat = config.nat_gateways[name] as (typeof config.nat_gateways)[string];
    const { vpc = "", zone } = directory.subnets.get(nat.subnet) ?? {};
    const number = nat.connectivity === "public" ? INTERNET_NUMBER : this.#number(vpc);
    this.#services.set(name, {
      id: name,
      kind: "nat-gateway",
      vpc: number,
      sources: nats.get(name)?.serving ?? [],
      idleSeconds: 350,
      mtuBytes: MTU_BYTES,
      isMtuTold: true,
      capacity: this.#capacity(name, nat.capacity, GATEWAY_UNITS_MAX),
    });
    const service = { id: name, zone, listener: undefined, groups: [] };
    this.#resources.push({ id: name, kind: "nat-gateway", services: [service] });
  }

  #capacity(
    name: string,
    { units, action }: { units: number | "auto"; action?: "drop" | "report" | undefined },
    most: number,
  ): string {
    const mode = action ?? this.#options.capacityMode;
    this.#capacities[name] =
      units === "auto" ? { units: 1, unitsMax: most, mode } : { units, mode };
    return name;
  }
}

interface WeightedTarget {
  address: string;
  port: number;
  weight: number;
}

const isIpv6 = (address: string) => address.includes(":");

/**
 * What a front with IPv6 addresses needs to bring IPv6 clients to IPv4 targets: the targets as they are
 * seen from IPv6, and addresses of the node in place of the client's, which IPv4 cannot say.
 */
function crossingOf(
  { addresses, sources }: Front,
  targets: readonly WeightedTarget[],
): { targets: WeightedTarget[]; sources: string[] } | undefined {
  const own = sources.filter((address) => !isIpv6(address));
  const isNeeded = addresses.some(isIpv6) && own.length > 0;
  if (!isNeeded || targets.some(({ address }) => isIpv6(address))) return undefined;
  return {
    targets: targets.map((target) => ({ ...target, address: inNat64(target.address) })),
    sources: own.map(inNat64),
  };
}

/** Addresses of a listener's flows; those that cross take the place of IPv6 addresses. */
function sourcesOf(
  own: readonly string[],
  crossing: readonly string[] | undefined,
): Pick<NetworkService, "sources"> {
  if (crossing === undefined) return own.length > 0 ? { sources: own } : {};
  return { sources: [...own.filter((address) => !isIpv6(address)), ...crossing] };
}
