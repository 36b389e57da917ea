/**
 * The configuration's network as something to replay through. Its timeline is rehearsed first, so
 * that a contradiction in it is an error of the configuration, found before the first packet.
 */
import type { NetworkConfig } from "../config/schema.ts";
import { Controller, ControlRefusal } from "../control/controller.ts";
import type { NetworkTables } from "../engine/network.ts";
import { ConfigError } from "../errors.ts";
import { imageBytes, NetworkReplay } from "../replay/network.ts";
import { engineSettings, type Scenario } from "./scenario.ts";

/** Services that an engine can number. */
const SERVICE_COUNT_MAX = 4096;

export interface NetworkScenario {
  scenario: Scenario;
  network: NetworkReplay;
}

/** @throws {ConfigError} when the network is larger than an engine, or its timeline contradictory */
export function networkScenario(config: NetworkConfig, file: string): NetworkScenario {
  const fail = (message: string): never => {
    throw new ConfigError(`${file}: ${message}`);
  };
  if (config.ports.length === 0 && Object.keys(config.vpcs).length > 1) {
    fail("ports: is missing; with several VPCs a replay has to know where frames come in");
  }
  let bytes = 0;
  let services = 0;
  let headers: boolean | "udp" = false;
  const setTables = (tables: NetworkTables) => {
    bytes = Math.max(bytes, imageBytes(tables));
    services = Math.max(services, tables.services.length);
    for (const { proxyProtocol } of tables.services) {
      if (proxyProtocol && headers !== "udp") headers = proxyProtocol.udp ? "udp" : true;
    }
  };
  try {
    const rehearsal = new Controller(config, {
      nowMs: 0,
      capacityMode: "report",
      hasProxyHeaders: true,
    });
    rehearsal.attach({ setTables, terminate: () => undefined });
    while (Number.isFinite(rehearsal.nextMs)) rehearsal.tick(rehearsal.nextMs);
  } catch (error) {
    if (error instanceof ControlRefusal) fail(error.message);
    throw error;
  }
  if (services > SERVICE_COUNT_MAX) {
    const what = "a service is a listener in a zone, of a load balancer or of an endpoint";
    fail(`load_balancers: ${services} services are more than ${SERVICE_COUNT_MAX}; ${what}`);
  }
  return {
    scenario: {
      name: "network",
      services: [],
      resources: [],
      engine: { ...engineSettings(config), networkBytes: bytes, proxyProtocol: headers },
      notes: [],
    },
    network: new NetworkReplay(config),
  };
}
