/**
 * The types of network tables: what stands behind the addresses of VPCs, as plain data. The control
 * plane compiles them from its configuration and state; `Engine.setTables` packs them into the
 * engine's image and swaps it in between two batches.
 *
 * The engine meets a new flow on a routed port and asks, in this order: which listener has the
 * packet's destination, protocol and port; is the destination an address of a resource; which
 * subnet does the source lie in, and which route of its table is the longest that matches. The
 * answer is a service, which the flow belongs to for life. Established flows ask nothing.
 */
import type { ProxyProtocolOptions, Target } from "./api.ts";

/**
 * What kind of work a service does.
 *
 * - `load-balancer`: a listener in a zone. Targets over a ring, chosen by the five-tuple and, with
 *   TCP, the sequence number of the SYN. TCP that belongs to no flow is answered by a RST.
 *   Fragments pass if they are of UDP, ICMP errors if they tell of an unreachable destination.
 * - `nat-gateway`: source NAT on the way out. TCP from inside that belongs to no flow is answered by
 *   a RST, nothing from outside ever is. Fragments pass if they are of UDP; only TCP, UDP and ICMP.
 *   Unless it has IPv6 addresses, it takes IPv6 to 64:ff9b::/96 and lets it out as IPv4 (NAT64).
 * - `route`: packets pass as they are, into the service's VPC. Flows begin anywhere, as routers keep
 *   no state.
 */
export type NetworkServiceKind = "load-balancer" | "nat-gateway" | "route";

export interface NetworkService {
  /** Its name for life. Tables that come later and have it again mean the same service: its flows
   *  and its counters go on. Flows of a service that is left out go on as well, until they end. */
  id: string;
  kind: NetworkServiceKind;
  /** Number of the VPC that its packets leave to, 0 to 65535. */
  vpc: number;
  /**
   * Addresses that flows leave with, IPv4 and IPv6; none keeps the client's. At most 55,000 flows
   * from one of them to one destination (address, port, protocol). An address that drains is left
   * out: flows that have it keep it.
   */
  sources?: readonly string[];
  /** Where flows go, by family; a load balancer without any refuses them. Weights are any numbers
   *  from 0, compared with each other. IPv6 flows reach an IPv4 target by its address in 64:ff9b::/96,
   *  from a source there. */
  targets?: readonly Target[];
  /** Targets are chosen by the client's address alone (`source_ip` stickiness); default false. */
  isSticky?: boolean;
  /** Targets get traffic although all of them are unhealthy: flows are counted; default false. */
  isFailOpen?: boolean;
  /** How long TCP flows may be idle in seconds, 0 for ever; default the engine's. */
  idleSeconds?: number;
  /** Largest IP packet that passes in bytes; MSS options of TCP are clamped to it; default none. */
  mtuBytes?: number;
  /** Whether the sender of a larger packet is told by ICMP (NAT gateways) or not; default false. */
  isMtuTold?: boolean;
  /** Security groups, by name of `NetworkTables.rules`; no name lets everything pass. */
  rules?: {
    /** Of the endpoint that the flow comes through: the client's address, the listener's port. */
    endpoint?: string;
    /** Inbound of the load balancer: the client's address, the listener's port. */
    inbound?: string;
    /** Outbound of the load balancer: the target's address and port. */
    outbound?: string;
  };
  /** A PROXY protocol v2 header in the stream of every new TCP flow, with the id of the endpoint
   *  that it comes through; default none. The engine needs `proxyProtocol`. */
  proxyProtocol?: ProxyProtocolOptions;
  /** Capacity that it shares, by name of `NetworkTables.capacities`; default unlimited. */
  capacity?: string;
}

/** The flows that a set of rules lets pass are those that one of them matches. */
export interface NetworkRule {
  /** Default any. */
  protocol?: "tcp" | "udp" | "icmp" | "icmpv6" | number;
  /** First and last port, 0 to 65535; default all. */
  ports?: readonly [number, number];
  /** Address range of the other end, "10.0.0.0/8" or "::/0". */
  cidr: string;
}

/** What a resource may carry: a unit is 5 Gbit/s and 1 million packets a second. */
export interface NetworkCapacity {
  /** Units that it begins with, 1 to 1000; default 1. */
  units?: number;
  /** Units that it may grow to by itself; default `units`: it stays. */
  unitsMax?: number;
  /** Whether packets above it are dropped, or only counted; default "report". */
  mode?: "report" | "drop";
}

/** What has become of a capacity. */
export interface CapacityState {
  /** Units as they are now. */
  units: number;
  /** What was beyond the units, dropped or not. */
  over: { packets: number; bytes: number };
}

/** A resource has grown or shrunk to `units` at an instant of the virtual clock. */
export interface CapacityChange {
  name: string;
  timeMs: number;
  units: number;
}

export interface NetworkListener {
  protocol: "tcp" | "udp";
  /** 1 to 65535. */
  port: number;
  /** Id of the service behind it. */
  service: string;
}

/** An address that a resource has in a VPC. */
export interface NetworkAddress {
  address: string;
  /** Id of the service that unintended packets are counted for: those that no listener has. */
  service: string;
  listeners?: readonly NetworkListener[];
}

export interface NetworkRoute {
  /** "0.0.0.0/0", "64:ff9b::/96". */
  to: string;
  /** Id of the service that takes the packets; none: a blackhole. */
  service?: string;
}

export interface NetworkVpc {
  /** Its number, as ports have it: 0 to 65535. */
  vpc: number;
  /** Port on which frames that are bound for it leave; default the port that they came in on. */
  port?: number;
  addresses?: readonly NetworkAddress[];
  /** Its route tables; the first is the main one. Without any, everything else has no route. */
  routeTables?: readonly (readonly NetworkRoute[])[];
  /** Subnets with a route table other than the main one, by its place in `routeTables`. */
  subnets?: readonly { cidr: string; routeTable: number }[];
}

export interface NetworkTables {
  vpcs: readonly NetworkVpc[];
  services: readonly NetworkService[];
  /**
   * Ids of services in the order of their numbers, for engines that must agree in them: ids may be
   * added behind, never taken out. Default: numbers in the order in which tables name services.
   */
  numbering?: readonly string[];
  rules?: Readonly<Record<string, readonly NetworkRule[]>>;
  capacities?: Readonly<Record<string, NetworkCapacity>>;
}
