/** What a configuration file puts between clients and services: a scenario, or a network. */

import type { NetworkReplay } from "../replay/network.ts";
import type { Scenario } from "../scenario/scenario.ts";
import { readConfig } from "./files.ts";

export interface World {
  scenario: Scenario;
  network?: NetworkReplay;
}

/** @throws {ConfigError} */
export async function configuredWorld(file: string): Promise<World> {
  const { parseConfig } = await import("../config/config.ts");
  const { isNetwork } = await import("../config/schema.ts");
  const config = parseConfig(readConfig(file), file);
  if (isNetwork(config)) {
    const { networkScenario } = await import("../scenario/network.ts");
    return networkScenario(config, file);
  }
  const { configuredScenario } = await import("../scenario/scenario.ts");
  return { scenario: configuredScenario(config) };
}
