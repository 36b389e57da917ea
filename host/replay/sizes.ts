/** Engines for a scenario: how large their tables are, and whether several may share the work. */

import type { EngineOptions } from "../engine/api.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import type { Scenario } from "../scenario/scenario.ts";

/** Captures hold about one flow in so many bytes; most hold far fewer. */
const BYTES_PER_FLOW = 1024;
const FLOW_COUNT_MIN = 8192;

/**
 * Table sizes for a capture of known size; the engine's own for any other. A table that is no
 * larger than needed costs fewer page faults.
 */
export function tableSizes(
  captureBytes: number | undefined,
): Pick<EngineOptions, "flowCountMax" | "flow6CountMax"> {
  if (captureBytes === undefined) return {};
  const flows = Math.max(FLOW_COUNT_MIN, Math.ceil(captureBytes / BYTES_PER_FLOW));
  return { flowCountMax: Math.min(flows, 1 << 20), flow6CountMax: Math.min(flows, 1 << 18) };
}

/**
 * True when a capture has more flows than its size let expect: it is replayed once more, with
 * tables of the full size. A table that may fill up could refuse flows, and forgets some earlier.
 */
export function isTooSmall(captureBytes: number | undefined, created: number): boolean {
  const { flow6CountMax } = tableSizes(captureBytes);
  return flow6CountMax !== undefined && created > flow6CountMax / 2;
}

/** An engine with the scenario's services. */
export async function engineFor(
  scenario: Scenario,
  captureBytes: number | undefined,
  options: Pick<EngineOptions, "warmUp" | "wasm">,
): Promise<Engine> {
  const engine = await createEngine({
    ...tableSizes(captureBytes),
    ...scenario.engine,
    ...options,
  });
  scenario.services.forEach((service, index) => {
    engine.setService(index, service);
  });
  return engine;
}

/**
 * Whether workers can share a scenario's frames out by ports: a service that changes the port of
 * its destination could give flows of two workers one tuple.
 */
export function isShareable({ services }: Scenario): boolean {
  return services.every(({ targets = [] }) => targets.every(({ port }) => port === undefined));
}
