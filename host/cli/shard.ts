/** `flowplane shard`: the shuffle-sharding calculator. */

import { UsageError } from "../errors.ts";
import { jsonReport } from "../report/json.ts";
import { shardReport } from "../report/shard.ts";
import { calculate } from "../shard/calculator.ts";
import type { ShardResult } from "../shard/result.ts";
import { checkOutputs, writeText } from "./files.ts";
import type { ShardFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";

/** @throws {FlowplaneError} when the fleet cannot be, or has no shard left for a tenant */
export async function runShard(tenants: string[], flags: ShardFlags): Promise<void> {
  checkOutputs({}, { "--html": flags.html });
  const result = answer(tenants, flags);
  const terminal = new Terminal(flags);
  if (flags.html !== undefined) {
    const { shardPage } = await import("../report/shard-page.ts");
    writeText(flags.html, shardPage(result));
    terminal.note(`wrote ${flags.html}: the report with drawings`);
  }
  terminal.result(flags.json ? jsonReport(result) : shardReport(result));
}

function answer(tenants: string[], flags: ShardFlags): ShardResult {
  const { nodes, size, zones, overlapMax, infima, secret, tenants: tenantCount } = flags;
  // Without names the drawing has some tenants all the same.
  const named = tenants.length > 0 ? tenants : ["tenant-0", "tenant-1", "tenant-2"];
  const infimaSeed = infima;
  try {
    return calculate({
      nodes,
      size,
      zones,
      overlapMax,
      infimaSeed,
      secret,
      tenants: named,
      tenantCount,
      wantsDeck: flags.deck,
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(inFlags(error.message), { cause: error });
  }
}

/** A message of the library in the command's words: the option that it begins with is a flag here. */
function inFlags(message: string): string {
  return message.replace(/^(nodes|size|zones|overlapMax|secret)(?=:)/, (option) => {
    return option === "overlapMax" ? "--overlap-max" : `--${option}`;
  });
}
