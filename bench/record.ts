/**
 * The results of a release, kept with the sources: runs the parts that are named (all of them by
 * default), one after the other, and puts each into `bench/results/VERSION.json` with the machine
 * and the day that it belongs to. A part that is not run keeps what it has. `npm run bench:record`.
 * Several parts run in a process each, so that none has the memory of another, and one that fails is
 * told of at the end and takes no other along.
 *
 *   node bench/record.ts [PART…] [--flows N] [--html FILE] [--out FILE]
 */
import { spawnSync } from "node:child_process";
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

/** The results on file, or none yet. */
function resultsAt(file: string): ReleaseResults {
  if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file, "utf8")) as ReleaseResults;
  return { schema: "flowplane.bench-results/1", flowplane: packageVersion() };
}

/** Measures one part and puts it into the results at `file`. */
async function recordPart(part: BenchPart, file: string, flows: number | undefined): Promise<void> {
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const measured = new Date().toISOString().slice(0, 10);
  const at = { measured, machine: machine() };
  const engine = part === "engine" ? await measure("canonical", say) : undefined;
  const flags = flows === undefined ? {} : { flows };
  const { scaling, latency, large, compact } = await measureParts([part], flags, say);
  // Read only now: another part may have been recorded in the meantime.
  const results = resultsAt(file);
  if (engine) results.engine = { ...at, result: engine };
  if (scaling) results.workers = { ...at, result: scaling };
  if (latency) results.latency = { ...at, result: latency };
  if (large) results.flows = { ...at, result: large };
  if (compact) results.compact = { ...at, result: compact };
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(`${file}.new`, `${JSON.stringify(results, null, 2)}\n`);
  fs.renameSync(`${file}.new`, file);
}

/** Records parts one after the other, each in a process of its own; returns those that failed. */
function recordEach(parts: readonly BenchPart[], words: readonly string[]): BenchPart[] {
  const program = fileURLToPath(import.meta.url);
  return parts.filter((part) => {
    process.stderr.write(`${part}\n`);
    const run = spawnSync(process.execPath, [program, part, ...words], { stdio: "inherit" });
    return run.status !== 0;
  });
}

async function record(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { flows: { type: "string" }, html: { type: "string" }, out: { type: "string" } },
  });
  const parts = (positionals.length > 0 ? positionals : PARTS) as BenchPart[];
  const wrong = parts.find((part) => !PARTS.includes(part));
  if (wrong) throw new RangeError(`${wrong}: is not one of ${PARTS.join(", ")}`);
  const file = values.out ?? resultsPath();
  const { flows, html } = values;
  const [only, ...others] = parts;
  if (only && others.length === 0) await recordPart(only, file, flows ? Number(flows) : undefined);
  else {
    const words = [...(flows ? ["--flows", flows] : []), "--out", file];
    const failed = recordEach(parts, words);
    if (failed.length > 0) {
      process.stderr.write(`not recorded: ${failed.join(", ")}\n`);
      process.exitCode = 1;
    }
  }
  if (html) writePage(html, pageOf(resultsAt(file)));
}

if (import.meta.main) await record();
