/** `flowplane flows`: the conversation table of a capture. */

import { openCapture } from "../capture/file.ts";
import { conversations } from "../replay/flows.ts";
import { flowsReport } from "../report/flows.ts";
import { jsonReport } from "../report/json.ts";
import { plainSize } from "./files.ts";
import type { FlowsFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";

/** @throws {FlowplaneError} also after the table, when the capture broke off */
export async function runFlows(capture: string, flags: FlowsFlags): Promise<void> {
  const fileBytes = plainSize(capture);
  const { result, failure } = await conversations({
    file: capture === "-" ? "standard input" : capture,
    fileBytes,
    open: (engine) => openCapture(capture, engine),
    isRepeatable: fileBytes !== undefined,
    packetsMax: flags.limit,
  });
  new Terminal(flags).result(flags.json ? jsonReport(result) : flowsReport(result));
  if (failure) throw failure;
}
