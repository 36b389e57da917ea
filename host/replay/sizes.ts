/** Engines for a scenario: how large their tables are, and whether several may share the work. */

import type { EngineOptions } from "../engine/api.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import type { Scenario } from "../scenario/scenario.ts";

/** Captures hold at most about one flow in so many bytes; most hold far fewer. */
const BYTES_PER_FLOW = 256;
const FLOW_COUNT_MIN = 8192;
/** Tables of so many flows of either family stay in caches and within reach of the TLB. */
const FLOW_COUNT_MAX = 1 << 16;
/** What is read of a capture before its flows tell how many there will be, and before they count for that. */
const EARLY_BYTES = 16 << 20;
const START_BYTES = 8 << 20;

/**
 * Table sizes for a capture of known size; the engine's own for any other. A table that is no
 * larger than needed costs fewer page faults and cache misses.
 */
export function tableSizes(
  captureBytes: number | undefined,
): Pick<EngineOptions, "flowCountMax" | "flow6CountMax"> {
  if (captureBytes === undefined) return {};
  const expected = Math.max(FLOW_COUNT_MIN, Math.ceil(captureBytes / BYTES_PER_FLOW));
  const flows = Math.min(expected, FLOW_COUNT_MAX);
  return { flowCountMax: flows, flow6CountMax: flows };
}

/** A capture has more flows than its size let expect. */
export class TooManyFlows extends Error {}

/**
 * Watches whether the tables of `tableSizes` are too small for a capture, which then begins anew
 * with tables of the full size: a table that may fill up could refuse flows, and forgets some
 * earlier. Most show early: flows that began in a short while tell how many will.
 */
export class Forecast {
  readonly #captureBytes: number;
  readonly #createdMax: number;
  #start: { readBytes: number; created: number } | undefined;
  #hasLooked = false;

  constructor(captureBytes: number) {
    this.#captureBytes = captureBytes;
    this.#createdMax = (tableSizes(captureBytes).flowCountMax as number) / 2;
  }

  /** After `readBytes` of the capture. @throws {TooManyFlows} */
  check(readBytes: number, created: number): void {
    if (created > this.#createdMax) throw new TooManyFlows();
    if (!this.#start) {
      if (readBytes >= START_BYTES) this.#start = { readBytes, created };
      return;
    }
    if (this.#hasLooked || readBytes < EARLY_BYTES) return;
    this.#hasLooked = true;
    // What lives already when a capture begins shows at once, and says nothing of the rest.
    const perByte = (created - this.#start.created) / (readBytes - this.#start.readBytes);
    const rest = perByte * (this.#captureBytes - readBytes);
    if (created + rest > this.#createdMax) throw new TooManyFlows();
  }
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
