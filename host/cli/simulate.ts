/** `flowplane simulate`: a fleet in a simulated world. */

import { FlowplaneError, UsageError } from "../errors.ts";
import { type SimulationOptions, simulate } from "../nodes/simulation.ts";
import { jsonReport } from "../report/json.ts";
import { simulationReport } from "../report/simulation.ts";
import type { SimulateFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";

/** @throws {FlowplaneError} after the report, when an invariant was broken */
export async function runSimulate(flags: SimulateFlags): Promise<void> {
  if (flags.size > flags.nodes) {
    throw new UsageError(`--size: ${flags.size} nodes a tenant are more than ${flags.nodes}`);
  }
  const options: SimulationOptions = {
    nodes: flags.nodes,
    tenants: flags.tenants,
    shardSize: flags.size,
    flowsPerTenant: flags.flows,
    tuplesPerTenant: flags.tuples,
    seconds: flags.seconds,
    loss: flags.loss / 1000,
    crashes: flags.crashes / 60,
    partitions: flags.partitions / 60,
    placement: flags.plain ? "plain" : "shuffled",
    poison: flags.poison ?? false,
    seed: flags.seed,
  };
  const result = await simulate(options);
  new Terminal(flags).result(flags.json ? jsonReport(result) : simulationReport(result));
  if (result.violations.length > 0) throw new FlowplaneError(`simulate: ${result.violations[0]}`);
}
