/** Engines with network tables, and what goes through them, for the tests about networks. */
import type { Packet } from "../fixtures/packets.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import type { NetworkService, NetworkTables } from "../host/engine/network.ts";
import { type Departure, send } from "./harness.ts";

const SEED = Uint8Array.from({ length: 16 }, (_, i) => i);

/** An engine in which every VPC that names a port has it, for frames of both sides. */
export async function networkEngine(tables: NetworkTables, flowCountMax = 4096): Promise<Engine> {
  const engine = await createEngine({
    flowCountMax,
    flow6CountMax: flowCountMax,
    seed: SEED,
    warmUp: false,
    networkBytes: 1 << 20,
  });
  engine.setTables(tables);
  for (const { vpc, port } of tables.vpcs) {
    if (port !== undefined) engine.setPort(port, { vpc, sides: "both", routed: true });
  }
  return engine;
}

/** Sends one frame through. */
export function one(engine: Engine, frame: Packet, port = 1, timeMs = 1000): Departure {
  const [departure] = send(engine, [{ frame, port, timeMs }]);
  if (departure === undefined) throw new Error("nothing became of a frame");
  return departure;
}

/** Usage of a service by its id. */
export function usageOf(engine: Engine, id: string) {
  const number = engine.serviceNumber(id);
  if (number === undefined) throw new Error(`no service ${id}`);
  return engine.usage(number);
}

export const CLIENT = "10.0.1.7";
export const NODE = "10.0.1.100";
const addresses = (count: number) => Array.from({ length: count }, (_, n) => `10.0.2.${n + 10}`);
export const TARGETS = addresses(8).map((address) => ({ address, port: 8080 }));

/** A load balancer at NODE, TCP and UDP 80, in a VPC whose addresses reach each other. */
export function balanced(options: Partial<NetworkService> = {}): NetworkTables {
  const listeners = (["tcp", "udp"] as const).map((protocol) => ({
    protocol,
    port: 80,
    service: "web",
  }));
  return {
    vpcs: [
      {
        vpc: 1,
        port: 1,
        addresses: [{ address: NODE, service: "web", listeners }],
        routeTables: [[{ to: "10.0.0.0/16", service: "local" }]],
      },
    ],
    services: [
      { id: "web", kind: "load-balancer", vpc: 1, targets: TARGETS, ...options },
      { id: "local", kind: "route", vpc: 1 },
    ],
  };
}

/** A NAT gateway between VPC 1 and the outside, VPC 9. */
export function gateway(options: Partial<NetworkService> = {}): NetworkTables {
  return {
    vpcs: [
      { vpc: 1, port: 1, routeTables: [[{ to: "0.0.0.0/0", service: "nat" }]] },
      { vpc: 9, port: 9, addresses: [{ address: "203.0.113.1", service: "nat" }] },
    ],
    services: [
      {
        id: "nat",
        kind: "nat-gateway",
        vpc: 9,
        sources: ["203.0.113.1"],
        mtuBytes: 8500,
        isMtuTold: true,
        ...options,
      },
    ],
  };
}
