/**
 * Scenarios: what stands between the clients and the services of a capture. A scenario is plain
 * data, services for the engine and the managed resources that they stand for. Every port of
 * the capture stands before service 0, and all of them belong to one VPC, so that whoever sends
 * the first packet of a flow is its client.
 *
 * Addresses come from ranges that are set aside, so that they do not meet those of a capture:
 * 203.0.113.0/24 (RFC 5737), 198.18.0.0/15 (RFC 2544), 100.64.0.0/10 (RFC 6598), 2001:db8::/32
 * (RFC 3849).
 */

import type { Config, ScenarioConfig, TargetConfig } from "../config/schema.ts";
import type { EngineOptions, HeaderPlacement, ServiceOptions, Target } from "../engine/api.ts";
import type { ResourceResult } from "../replay/result.ts";

export type ScenarioName = "nat" | "nlb" | "privatelink";

export const TARGET_COUNT_MAX = 1000;

/** A resource and the index of the service that does its work. */
export interface ScenarioResource {
  id: string;
  kind: ResourceResult["kind"];
  service: number;
}

export interface Scenario {
  name: ScenarioName | "network";
  services: ServiceOptions[];
  resources: ScenarioResource[];
  engine: Pick<
    EngineOptions,
    "flowCountMax" | "flow6CountMax" | "seed" | "timeouts" | "networkBytes" | "proxyProtocol"
  >;
  /** What a reader of the report has to know. */
  notes: string[];
}

/** Sixteen bytes that key the engine's hashes where nothing else is asked: runs are repeatable. */
export const DEFAULT_SEED: Uint8Array = new TextEncoder().encode("flowplane replay");

const ENDPOINT_ID = "vpce-00000000000000001";
const SOURCE_ADDRESS_COUNT = 8;
/**
 * Default targets stand for as many groups of them as there are listeners, as behind load balancers
 * of their own; else a client's port towards two listeners would mean one tuple at one target.
 */
const LISTENER_BITS = 12;

/** The scenario as it is without a configuration; `targetCount` is 1 to TARGET_COUNT_MAX. */
export function defaultScenario(name: ScenarioName, targetCount = 4): Scenario {
  const targets = defaultTargets(targetCount);
  return scenario(name, {
    adopt: true,
    sourceAddresses: name === "nat" ? natAddresses() : nlbAddresses(),
    targets,
    listenerBits: LISTENER_BITS,
    engine: { seed: DEFAULT_SEED },
  });
}

/** The scenario of a configuration; what it leaves out is as in the default one. */
export function configuredScenario(config: ScenarioConfig): Scenario {
  const name = config.scenario;
  const engine = engineSettings(config);
  return scenario(name, {
    adopt: config.adopt,
    sourceAddresses:
      name === "nat"
        ? (config.nat?.addresses ?? natAddresses())
        : (config.nlb?.addresses ?? nlbAddresses()),
    targets: config.nlb?.targets?.map(engineTarget) ?? defaultTargets(4),
    listenerBits: config.nlb?.targets ? 0 : LISTENER_BITS,
    hasHeader: config.nlb?.["proxy_protocol_v2.enabled"],
    placement: config.nlb?.["proxy_protocol_v2.client_to_server.header_placement"],
    engine,
  });
}

/** Table sizes, seed and time-outs that a configuration of either form gives. */
export function engineSettings({
  flow_table: table,
  timeouts,
}: Pick<Config, "flow_table" | "timeouts">): Scenario["engine"] {
  const engine: Scenario["engine"] = { seed: DEFAULT_SEED };
  if (table) {
    engine.flowCountMax = table.ipv4_flows;
    engine.flow6CountMax = table.ipv6_flows;
    if (table.seed) engine.seed = bytesOfHex(table.seed);
  }
  if (timeouts) {
    engine.timeouts = {
      halfOpen: timeouts.tcp_half_open_seconds,
      established: timeouts["tcp.idle_timeout.seconds"],
      closing: timeouts.tcp_closing_seconds,
      udp: timeouts.udp_seconds,
      icmp: timeouts.icmp_seconds,
      other: timeouts.other_seconds,
    };
  }
  return engine;
}

function bytesOfHex(digits: string): Uint8Array {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

interface Parts {
  adopt: boolean;
  sourceAddresses: string[];
  targets: Target[];
  listenerBits: number;
  /** Default: through an endpoint only. */
  hasHeader?: boolean | undefined;
  placement?: HeaderPlacement | undefined;
  engine: Scenario["engine"];
}

function scenario(
  name: ScenarioName,
  { adopt, sourceAddresses, targets, listenerBits, hasHeader, placement, engine }: Parts,
): Scenario {
  const isEndpoint = name === "privatelink";
  const proxyProtocol = {
    ...(isEndpoint && { vpce: ENDPOINT_ID }),
    ...(placement && { placement }),
  };
  const header = (hasHeader ?? isEndpoint) && name !== "nat" ? { proxyProtocol } : {};
  if ("proxyProtocol" in header) engine.proxyProtocol = true;
  const nlb = { id: "nlb-1", kind: "network-load-balancer", service: 0 } as const;
  switch (name) {
    case "nat":
      return {
        name,
        services: [{ sourceAddresses, adopt }],
        resources: [{ id: "nat-1", kind: "nat-gateway", service: 0 }],
        engine,
        notes: [],
      };
    case "nlb":
      return {
        name,
        services: [{ targets, listenerBits, adopt, ...header }],
        resources: [nlb],
        engine,
        notes: [],
      };
    case "privatelink":
      return {
        name,
        services: [{ sourceAddresses, targets, listenerBits, adopt, ...header }],
        resources: [{ id: ENDPOINT_ID, kind: "vpc-endpoint", service: 0 }, nlb],
        engine,
        notes: [],
      };
  }
}

function engineTarget({ address, port, weight }: TargetConfig): Target {
  return port === undefined ? { address, weight } : { address, port, weight };
}

/** Addresses of the NAT gateway: eight of each family. */
function natAddresses(): string[] {
  return [...series((n) => `203.0.113.${n}`), ...series((n) => `2001:db8:0:1::${n}`)];
}

/** The load balancer's own addresses, the source of flows through an endpoint. */
function nlbAddresses(): string[] {
  return [...series((n) => `198.19.255.${n}`), ...series((n) => `2001:db8:0:2::${n}`)];
}

function series(address: (number: number) => string): string[] {
  return Array.from({ length: SOURCE_ADDRESS_COUNT }, (_, index) => address(index + 1));
}

/** Targets of each family: networks of 2^LISTENER_BITS addresses; the listener's port stays. */
function defaultTargets(count: number): Target[] {
  const numbers = Array.from({ length: count }, (_, index) => index);
  return [
    ...numbers.map((index) => ({ address: `100.${64 + (index >> 4)}.${(index & 15) << 4}.0` })),
    ...numbers.map((index) => ({ address: `2001:db8:0:3:${index.toString(16)}::` })),
  ];
}
