/**
 * The results of a release, kept with the sources: runs the parts that are named (all of them by
 * default), one after the other, and puts each into `bench/results/VERSION.json` with the machine
 * and the day that it belongs to. A part that is not run keeps what it has. `npm run bench:record`.
 *
 *   node bench/record.ts [PART…] [--flows N] [--html FILE]
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { BenchPart } from "../host/cli/program.ts";
import { packageVersion } from "../host/cli/program.ts";
import { measure } from "./bench.ts";
import { machine } from "./machine.ts";
import { type PageResult, writePage } from "./page.ts";
import { measureParts } from "./parts.ts";
import type { BenchResult, Machine, PartsResult } from "./result.ts";

/** A part as it was measured. */
interface Recorded<Result> {
  measured: string;
  machine: Machine;
  result: Result;
}

export interface ReleaseResults {
  schema: "flowplane.bench-results/1";
  flowplane: string;
  engine?: Recorded<BenchResult>;
  workers?: Recorded<PartsResult["scaling"]>;
  latency?: Recorded<PartsResult["latency"]>;
  flows?: Recorded<PartsResult["large"]>;
  compact?: Recorded<PartsResult["compact"]>;
}

const PARTS: readonly BenchPart[] = ["engine", "workers", "latency", "flows", "compact"];

/** Where the results of a version are. */
export function resultsPath(version = packageVersion()): string {
  return fileURLToPath(new URL(`results/${version}.json`, import.meta.url));
}

/** Recorded results as the page takes them: the machine is that of the part measured last. */
export function pageOf(results: ReleaseResults): PageResult {
  const { engine, workers, latency, flows, compact } = results;
  const all = [engine, workers, latency, flows, compact].filter((one) => one !== undefined);
  const last = all.toSorted((a, b) => a.measured.localeCompare(b.measured)).at(-1);
  return {
    mode: "canonical",
    ...engine?.result,
    machine: last?.machine ?? machine(),
    scaling: workers?.result,
    latency: latency?.result,
    large: flows?.result,
    compact: compact?.result,
  };
}

async function record(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { flows: { type: "string" }, html: { type: "string" } },
  });
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const parts = (positionals.length > 0 ? positionals : PARTS) as BenchPart[];
  const wrong = parts.find((part) => !PARTS.includes(part));
  if (wrong) throw new RangeError(`${wrong}: is not one of ${PARTS.join(", ")}`);
  const version = packageVersion();
  const file = resultsPath(version);
  const results: ReleaseResults = fs.existsSync(file)
    ? (JSON.parse(fs.readFileSync(file, "utf8")) as ReleaseResults)
    : { schema: "flowplane.bench-results/1", flowplane: version };
  fs.mkdirSync(path.dirname(file), { recursive: true });
  for (const part of parts) {
    const measured = new Date().toISOString().slice(0, 10);
    const at = { measured, machine: machine() };
    if (part === "engine") results.engine = { ...at, result: await measure("canonical", say) };
    const flags = { ...(values.flows ? { flows: Number(values.flows) } : {}) };
    const { scaling, latency, large, compact } = await measureParts([part], flags, say);
    if (scaling) results.workers = { ...at, result: scaling };
    if (latency) results.latency = { ...at, result: latency };
    if (large) results.flows = { ...at, result: large };
    if (compact) results.compact = { ...at, result: compact };
    fs.writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  }
  if (values.html) writePage(values.html, pageOf(results));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await record();
