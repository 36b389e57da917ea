/**
 * The slow twin of network tables: what becomes of a packet that begins a flow, told by loops over
 * the tables as they were given. It knows no directory, no image, no ring: where the engine chooses by
 * hashes, the twin says what it may choose from.
 */
import ipaddr from "ipaddr.js";
import type { VerdictName } from "../../host/engine/api.ts";
import type {
  NetworkRule,
  NetworkService,
  NetworkTables,
  NetworkVpc,
} from "../../host/engine/network.ts";

/** A packet that belongs to no flow. */
export interface FirstPacket {
  vpc: number;
  protocol: number;
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
  /** TCP: a SYN and nothing that denies it. */
  begins: boolean;
  /** ICMP: a query. */
  asks: boolean;
  /** Neither SYN nor RST. */
  isLate: boolean;
  ipBytes: number;
  isFragment: boolean;
}

/** What the twin expects: a verdict, and the service that is to be told or to make the flow. */
export interface Expected {
  verdict: VerdictName;
  service?: NetworkService;
}

function contains(cidr: string, address: string): boolean {
  const range = ipaddr.parseCIDR(cidr);
  const parsed = ipaddr.parse(address);
  return parsed.kind() === range[0].kind() && parsed.match(range as [ipaddr.IPv4, number]);
}

function prefixLength(cidr: string): number {
  return ipaddr.parseCIDR(cidr)[1];
}

/** The entry with the longest prefix that holds the address. */
function longest<T>(entries: readonly T[], cidrOf: (entry: T) => string, address: string) {
  const holding = entries.filter((entry) => contains(cidrOf(entry), address));
  const longer = (a: T, b: T) => prefixLength(cidrOf(b)) - prefixLength(cidrOf(a));
  return holding.toSorted(longer)[0];
}

function allows(rules: readonly NetworkRule[], protocol: number, address: string, port: number) {
  const numbers: Record<string, number> = { tcp: 6, udp: 17, icmp: 1, icmpv6: 58 };
  return rules.some((rule) => {
    const wanted = typeof rule.protocol === "string" ? numbers[rule.protocol] : rule.protocol;
    if (wanted !== undefined && wanted !== protocol) return false;
    const hasPorts = wanted === 6 || wanted === 17;
    const [first, last] = rule.ports ?? [0, 65535];
    if (hasPorts && (port < first || port > last)) return false;
    return contains(rule.cidr, address);
  });
}

export class NetworkTwin {
  readonly tables: NetworkTables;

  constructor(tables: NetworkTables) {
    this.tables = tables;
  }

  private service(id: string): NetworkService {
    const found = this.tables.services.find((one) => one.id === id);
    if (found === undefined) throw new Error(`the twin has no service ${id}`);
    return found;
  }

  /** What becomes of the packet, as far as no choice of a target matters. */
  expect(packet: FirstPacket): Expected {
    const vpc = this.tables.vpcs.find((one) => one.vpc === packet.vpc);
    if (vpc === undefined) return { verdict: "drop.no-route" };
    const owned = vpc.addresses?.find(({ address }) => address === packet.destination);
    if (owned !== undefined) {
      const listener = owned.listeners?.find(({ protocol, port }) => {
        return { tcp: 6, udp: 17 }[protocol] === packet.protocol && port === packet.destinationPort;
      });
      if (listener !== undefined) return this.judge(this.service(listener.service), packet);
      const service = this.service(owned.service);
      const isStray = service.kind === "load-balancer" && packet.protocol === 6 && packet.isLate;
      return { verdict: isStray ? "drop.no-flow" : "drop.unintended", service };
    }
    const late = this.balancerOf(packet);
    if (late) return { verdict: packet.isLate ? "drop.no-flow" : "drop.unintended", service: late };
    const route = this.routeOf(vpc, packet);
    if (route === undefined) return { verdict: "drop.no-route" };
    if (route.service === undefined) return { verdict: "drop.blackhole" };
    return this.judge(this.service(route.service), packet);
  }

  /** The load balancer whose target sends what begins no connection, and sees clients' addresses. */
  balancerOf({ vpc, protocol, source, sourcePort, begins }: FirstPacket) {
    if (protocol !== 6 || begins) return undefined;
    return this.tables.services.find(({ kind, vpc: own, sources = [], targets = [] }) => {
      const isHidden = sources.some((one) => one.includes(":") === source.includes(":"));
      if (kind !== "load-balancer" || own !== vpc || isHidden) return false;
      return targets.some(({ address, port }) => address === source && port === sourcePort);
    });
  }

  private routeOf(vpc: NetworkVpc, { source, destination }: FirstPacket) {
    const subnet = longest(vpc.subnets ?? [], ({ cidr }) => cidr, source);
    const routes = vpc.routeTables?.[subnet?.routeTable ?? 0] ?? [];
    return longest(routes, ({ to }) => to, destination);
  }

  private judge(service: NetworkService, packet: FirstPacket): Expected {
    const refuse = (verdict: VerdictName): Expected => ({ verdict, service });
    const { protocol } = packet;
    if (protocol === 6 && !packet.begins && service.kind !== "route") return refuse("drop.no-flow");
    const isNat = service.kind === "nat-gateway";
    if (isNat && protocol !== 6 && protocol !== 17 && !packet.asks) return refuse("drop.no-flow");
    if (packet.isFragment && protocol !== 17 && service.kind !== "route") {
      return refuse("drop.fragment");
    }
    if (packet.ipBytes > (service.mtuBytes ?? 65535)) return refuse("drop.too-large");
    const { endpoint, inbound } = service.rules ?? {};
    for (const name of [endpoint, inbound]) {
      const rules = name === undefined ? undefined : this.tables.rules?.[name];
      if (rules && !allows(rules, protocol, packet.source, packet.destinationPort)) {
        return refuse("drop.security-group");
      }
    }
    const isBalanced = service.kind === "load-balancer";
    if (isBalanced && this.targetsOf(service, packet).length === 0) return refuse("drop.no-target");
    return { verdict: "forward", service };
  }

  /** Targets that the flow may get. */
  targetsOf(service: NetworkService, { source }: FirstPacket) {
    const isIpv6 = source.includes(":");
    return (service.targets ?? []).filter(
      ({ address, weight = 1 }) => address.includes(":") === isIpv6 && weight > 0,
    );
  }

  /** Whether the outbound group lets a flow out to a target. */
  allowsOut(service: NetworkService, protocol: number, address: string, port: number): boolean {
    const name = service.rules?.outbound;
    const rules = name === undefined ? undefined : this.tables.rules?.[name];
    return rules === undefined || allows(rules, protocol, address, port);
  }
}
