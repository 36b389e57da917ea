/**
 * The plan of a lab from a network's configuration: which machines there are, on which port of the
 * engine, with which addresses.
 *
 * Every VPC is one port of the engine, with the VPC's own number; the internet is port 0. A machine
 * is a host of `lab.hosts`, or a target that none of those has the address of. Each VPC also has
 * one service host, where its agent lives (the DNS server at the second address after the base of
 * the VPC's range, health checks at the addresses of load balancers' nodes).
 */

import { addressAt, parseCidr } from "../cidr.ts";
import { INTERNET } from "../config/checks/lab.ts";
import { placedAddresses } from "../config/checks/placement.ts";
import type { LabConfig } from "../config/lab.ts";
import type { NetworkConfig } from "../config/schema.ts";
import { Directory } from "../control/directory.ts";
import { proxyProtocolOf } from "../control/settings.ts";
import type { TableRoom } from "../engine/room.ts";
import { ConfigError } from "../errors.ts";
import { type HostPlan, type LabPlan, type NodesPlan, PLAN_DEFAULTS } from "./plan.ts";

/** A machine and what it is called without the lab's prefix. */
export interface LabHost extends HostPlan {
  name: string;
  /** Name of the VPC, or "internet". */
  vpc: string;
}

/** Where a VPC's agent lives. */
export interface ServiceHost {
  vpc: string;
  namespace: string;
  /** Address of the DNS server. */
  resolver: string;
}

export interface NetworkPlan extends LabPlan {
  machines: LabHost[];
  serviceHosts: ServiceHost[];
}

/** Places after the base of a VPC's range: the resolver, as AWS has it. */
const RESOLVER_PLACE = 2;
const NETWORK_BYTES = 16 << 20;

/** @throws ConfigError when the configuration has no lab, or two of its namespaces one name */
export function planOf(config: NetworkConfig): NetworkPlan {
  const { lab } = config;
  if (lab === undefined) throw new ConfigError("lab: is missing; it has at least a name");
  const ports = [INTERNET, ...Object.keys(config.vpcs)];
  const machines = [...declaredHosts(lab, ports), ...targetHosts(config, lab, ports)];
  const services = serviceHosts(config, lab, ports);
  const hosts = [...machines, ...services.map(({ host }) => host)];
  const seen = new Set<string>();
  for (const { namespace } of hosts) {
    if (seen.has(namespace)) {
      throw new ConfigError(`lab.hosts: two machines would be called ${namespace}`);
    }
    seen.add(namespace);
  }
  const proxyProtocol = proxyProtocolOf(Object.values(config.target_groups));
  return {
    ...PLAN_DEFAULTS,
    name: lab.name,
    hosts: hosts.map(({ namespace, port, addresses, mtu }) => ({
      namespace,
      port,
      addresses,
      mtu,
    })),
    ports: ports.map((_, vpc) => ({ vpc, routed: true, sides: "both" })),
    services: [],
    networkBytes: NETWORK_BYTES,
    ...(lab.room && { room: roomOf(lab.room) }),
    proxyProtocol,
    // Every datagram gets a PROXY header of its own, so none may come as part of a super-packet.
    offload: proxyProtocol === "udp" && lab.offload === "udp" ? "tcp" : lab.offload,
    io: lab.io,
    workers: lab.workers,
    priority: lab.priority,
    ...(lab.nodes && { nodes: nodesOf(lab.nodes) }),
    busyPollMs: lab.busy_poll_ms,
    flowCountMax: config.flow_table?.ipv4_flows ?? PLAN_DEFAULTS.flowCountMax,
    flow6CountMax: config.flow_table?.ipv6_flows ?? PLAN_DEFAULTS.flow6CountMax,
    timeouts: timeoutsOf(config),
    machines,
    serviceHosts: services.map(({ host, resolver }) => ({
      vpc: host.vpc,
      namespace: host.namespace,
      resolver,
    })),
  };
}

function nodesOf({ count, per_resource, redis }: NonNullable<LabConfig["nodes"]>): NodesPlan {
  const nodes = { count, perResource: per_resource ?? count };
  if (redis === undefined) return nodes;
  const { servers, is_cluster: isCluster, password } = redis;
  return {
    ...nodes,
    redis: {
      servers,
      ...(isCluster !== undefined && { isCluster }),
      ...(password !== undefined && { password }),
    },
  };
}

function roomOf({ ring_entries: ringEntries, ...rest }: NonNullable<LabConfig["room"]>): TableRoom {
  return { ...rest, ringEntries };
}

function timeoutsOf({ timeouts }: NetworkConfig): LabPlan["timeouts"] {
  if (timeouts === undefined) return {};
  return {
    halfOpen: timeouts.tcp_half_open_seconds,
    established: timeouts["tcp.idle_timeout.seconds"],
    closing: timeouts.tcp_closing_seconds,
    udp: timeouts.udp_seconds,
    icmp: timeouts.icmp_seconds,
    other: timeouts.other_seconds,
  };
}

function declaredHosts(lab: LabConfig, ports: string[]): LabHost[] {
  return Object.entries(lab.hosts).map(([name, { vpc, addresses, mtu }]) => ({
    name,
    vpc,
    namespace: lab.prefix + name,
    port: ports.indexOf(vpc),
    addresses,
    mtu: mtu ?? lab.mtu,
  }));
}

/** One machine for every target that no declared host is. */
function targetHosts(config: NetworkConfig, lab: LabConfig, ports: string[]): LabHost[] {
  const taken = new Set<string>();
  for (const { vpc, addresses } of Object.values(lab.hosts)) {
    for (const address of addresses) taken.add(`${vpc} ${address}`);
  }
  const found: LabHost[] = [];
  for (const { vpc, targets } of Object.values(config.target_groups)) {
    for (const { address } of targets) {
      const key = `${vpc} ${address}`;
      if (taken.has(key)) continue;
      taken.add(key);
      const name = `${vpc}-${address.replace(/[.:]+/g, "-")}`;
      const namespace = lab.prefix + name;
      const port = ports.indexOf(vpc);
      found.push({ name, vpc, namespace, port, addresses: [address], mtu: lab.mtu });
    }
  }
  return found;
}

function serviceHosts(
  config: NetworkConfig,
  lab: LabConfig,
  ports: string[],
): { host: LabHost; resolver: string }[] {
  const nodes = placedAddresses(new Directory(config)).filter(({ path }) => {
    return path[0] === "load_balancers" || path[0] === "mount_targets";
  });
  return Object.entries(config.vpcs).map(([vpc, { cidrs }]) => {
    const range = cidrs.find((cidr) => !cidr.includes(":")) ?? (cidrs[0] as string);
    const resolver = addressAt(parseCidr(range), RESOLVER_PLACE);
    const own = nodes.filter((one) => one.vpc === vpc).map(({ address }) => address);
    const name = `${vpc}-services`;
    const namespace = lab.prefix + name;
    const addresses = [resolver, ...new Set(own)];
    const port = ports.indexOf(vpc);
    return { host: { name, vpc, namespace, port, addresses, mtu: lab.mtu }, resolver };
  });
}
