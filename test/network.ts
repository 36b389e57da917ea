/** Engines with network tables, and what goes through them, for the tests about networks. */
import type { Packet } from "../fixtures/packets.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import type { NetworkTables } from "../host/engine/network.ts";
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
