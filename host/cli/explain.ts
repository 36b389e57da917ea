/** `flowplane explain`: why a packet of a capture, or one that is only asked about, fared as it did. */

import { openCapture } from "../capture/file.ts";
import { UsageError } from "../errors.ts";
import { type ExplainOptions, explain } from "../replay/explain.ts";
import { parseTuple } from "../replay/tuple.ts";
import { explainReport } from "../report/explain.ts";
import { defaultScenario } from "../scenario/scenario.ts";
import type { ExplainFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";
import { configuredWorld } from "./world.ts";

/** @throws {FlowplaneError} */
export async function runExplain(capture: string | undefined, flags: ExplainFlags): Promise<void> {
  const { packet, tuple, vpc, config, scenario } = flags;
  if ((packet === undefined) === (tuple === undefined)) {
    throw new UsageError("--packet or --tuple: exactly one of them is needed");
  }
  if (packet !== undefined && capture === undefined) {
    throw new UsageError("--packet: a capture is needed");
  }
  if (vpc !== undefined && tuple === undefined) {
    throw new UsageError("--vpc: only --tuple takes one; a packet of the capture has its own");
  }
  const world =
    config === undefined
      ? { scenario: defaultScenario(scenario ?? "nat") }
      : await configuredWorld(config);
  const options: ExplainOptions = { ...world };
  if (capture !== undefined) options.open = (engine) => openCapture(capture, engine);
  if (packet !== undefined) options.packet = packet;
  if (vpc !== undefined) options.vpc = vpc;
  if (tuple !== undefined) options.tuple = tupleOf(tuple);
  const explanation = await explain(options);
  const terminal = new Terminal(flags);
  terminal.result(flags.json ? JSON.stringify(explanation, null, 2) : explainReport(explanation));
}

function tupleOf(text: string) {
  try {
    return parseTuple(text);
  } catch (error) {
    throw new UsageError(`--tuple: ${(error as Error).message}`);
  }
}
