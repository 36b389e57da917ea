/**
 * The largest network that the goals of bench/network.ts speak of: two VPCs, 1,000 load balancers'
 * listeners of 10 targets each, 1,000 endpoints, and security groups of 60 rules of which the last one
 * matches.
 */
import type { NetworkRule, NetworkService, NetworkTables } from "../host/engine/network.ts";
import type { TableRoom } from "../host/engine/room.ts";

export const LISTENERS = 1000;
export const NODE = "10.250.0.1";
/** Ports of the two VPCs. */
export const IN = 1;
export const OUT = 2;
const TARGETS = 10;
const RULES = 60;
/** Of a list of up to ten targets. */
const RING_ENTRIES = 1021;

/** Room for it, and for nothing more. */
export const ROOM: TableRoom = {
  services: 2 * LISTENERS + 2,
  targets: 2 * LISTENERS * TARGETS,
  // An endpoint's list of targets is that of its listener.
  ringEntries: LISTENERS * RING_ENTRIES,
  rules: 2 * RULES,
  // VPCs and routes, and what listeners and endpoints have: an address, and a listener on it.
  entries: 2 + 3 + 4 * LISTENERS,
};

const listenerAddress = (index: number) => `10.200.${index >> 8}.${index & 255}`;
const endpointAddress = (index: number) => `10.201.${index >> 8}.${index & 255}`;

export function targetsOf(index: number) {
  return Array.from({ length: TARGETS }, (_, n) => {
    const number = index * TARGETS + n;
    return {
      address: `10.${100 + (number >> 12)}.${(number >> 4) & 255}.${number & 15}`,
      port: 8443,
    };
  });
}

/** Rules of which only the last one matches the traffic. */
function rulesFor(cidr: string): NetworkRule[] {
  const others = Array.from({ length: RULES - 1 }, (_, n): NetworkRule => {
    return { protocol: "tcp", ports: [n + 1, n + 1], cidr: `172.16.${n}.0/24` };
  });
  return [...others, { protocol: "tcp", ports: [443, 8443], cidr }];
}

/** VPC 1 of the clients, VPC 2 behind the endpoints; `count` listeners and as many endpoints. */
export function networkTables(count = LISTENERS): NetworkTables {
  const numbers = Array.from({ length: count }, (_, index) => index);
  const rules = { clients: rulesFor("10.0.0.0/8"), targets: rulesFor("10.0.0.0/8") };
  const service = (id: string, vpc: number, index: number): NetworkService => ({
    id,
    kind: "load-balancer",
    vpc,
    sources: [NODE],
    targets: targetsOf(index),
    rules: { inbound: "clients", outbound: "targets" },
  });
  const addresses = (name: string, addressOf: (index: number) => string) =>
    numbers.map((index) => ({
      address: addressOf(index),
      service: `${name}-${index}`,
      listeners: [{ protocol: "tcp" as const, port: 443, service: `${name}-${index}` }],
    }));
  return {
    vpcs: [
      {
        vpc: 1,
        port: IN,
        addresses: [
          ...addresses("listener", listenerAddress),
          ...addresses("endpoint", endpointAddress),
        ],
        routeTables: [[{ to: "10.0.0.0/8", service: "local" }, { to: "0.0.0.0/0" }]],
      },
      { vpc: 2, port: OUT, routeTables: [[{ to: "10.0.0.0/8", service: "local-2" }]] },
    ],
    services: [
      ...numbers.map((index) => service(`listener-${index}`, 2, index)),
      ...numbers.map((index) => ({
        ...service(`endpoint-${index}`, 2, index),
        rules: { endpoint: "clients", inbound: "clients", outbound: "targets" },
        mtuBytes: 8500,
      })),
      { id: "local", kind: "route", vpc: 1 },
      { id: "local-2", kind: "route", vpc: 2 },
    ],
    rules,
  };
}
