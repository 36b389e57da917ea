/** Random network tables over few addresses, so that everything meets everything. */
import { seeded } from "../fixtures/bytes.ts";
import type { NetworkRule, NetworkService, NetworkTables } from "../host/engine/network.ts";

export const ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.1", "192.0.2.1"];
export const ADDRESSES6 = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8:1::1"];
const RANGES = [
  ...["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.2/32", "10.1.0.0/16"],
  ...["::/0", "2001:db8::/32", "2001:db8::/64", "2001:db8::2/128", "2001:db8:1::/48"],
];
export const PORTS = [53, 80, 443, 8080];

export class Dice {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seeded(seed);
  }

  below(n: number): number {
    return Math.floor(this.#random() * n);
  }

  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  some<T>(items: readonly T[], oneIn = 2): T[] {
    return items.filter(() => this.oneIn(oneIn));
  }
}

function randomRules(d: Dice): NetworkRule[] {
  return Array.from({ length: d.below(14) }, () => {
    const protocol = d.of(["tcp", "udp", "icmp", "icmpv6", 50, undefined] as const);
    const cidr = d.of(RANGES);
    if (protocol === undefined) return { cidr };
    const first = d.of(PORTS);
    const ports = [first, first + d.below(400)] as const;
    return d.oneIn(2) ? { protocol, cidr } : { protocol, cidr, ports };
  });
}

function randomService(d: Dice, id: string): NetworkService {
  const kind = d.of(["load-balancer", "load-balancer", "nat-gateway", "route"] as const);
  const service: NetworkService = { id, kind, vpc: 1 + d.below(3) };
  const all = [...ADDRESSES, ...ADDRESSES6];
  if (kind === "load-balancer") {
    service.targets = d.some(all).map((address) => ({ address, port: 8080, weight: d.below(3) }));
    service.isSticky = d.oneIn(3);
  }
  if (kind === "nat-gateway" || d.oneIn(3))
    service.sources = d.some(["198.51.100.1", "2001:db8:f::1"], 1);
  if (kind === "route") delete service.sources;
  if (d.oneIn(3)) Object.assign(service, { mtuBytes: 1300 + d.below(200), isMtuTold: d.oneIn(2) });
  if (d.oneIn(2)) {
    const name = () => (d.oneIn(2) ? d.of(["a", "b"]) : undefined);
    const named = Object.entries({ endpoint: name(), inbound: name(), outbound: name() });
    service.rules = Object.fromEntries(named.filter(([, rules]) => rules !== undefined));
  }
  return service;
}

export function randomTables(d: Dice): NetworkTables {
  const ids = Array.from({ length: 6 }, (_, n) => `service-${n}`);
  const vpcs = [1, 2, 3].map((vpc) => ({
    vpc,
    port: vpc,
    addresses: d.some([...ADDRESSES, ...ADDRESSES6], 3).map((address) => ({
      address,
      service: d.of(ids),
      listeners: d
        .some(
          PORTS.flatMap((port) =>
            (["tcp", "udp"] as const).map((protocol) => ({ protocol, port })),
          ),
        )
        .map((listener) => ({ ...listener, service: d.of(ids) })),
    })),
    routeTables: [0, 1].map(() =>
      d.some(RANGES).map((to) => (d.oneIn(6) ? { to } : { to, service: d.of(ids) })),
    ),
    subnets: d.some(RANGES, 4).map((cidr) => ({ cidr, routeTable: d.below(2) })),
  }));
  return {
    vpcs,
    services: ids.map((id) => randomService(d, id)),
    rules: { a: randomRules(d), b: randomRules(d) },
  };
}
