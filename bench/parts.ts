/**
 * The parts of the benchmark that need the machine's cores or memory to themselves: scaling,
 * latency, hundreds of millions of flows. Which are asked for, and their tables as text.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { BenchFlags, BenchPart } from "../host/cli/program.ts";
import { type Column, table } from "../host/report/table.ts";
import { count, memorySize, significant } from "../host/report/units.ts";
import { LARGE_EFFORT, LARGE_SMOKE, measureLarge } from "./large.ts";
import { LATENCY_EFFORT, LATENCY_SMOKE, measureLatency } from "./latency.ts";
import { goalRows } from "./report.ts";
import type {
  Distribution,
  LargeResult,
  LatencyResult,
  PagesCost,
  PartsResult,
  ScalingResult,
} from "./result.ts";
import { measureScaling, SCALING_EFFORT, SCALING_SMOKE } from "./scaling.ts";

/** Bytes that a flow takes of the memory, all counted, where the number of flows is not given. */
const FLOW_BYTES = 80;
const COMPACT_BYTES = 42;
const FLOWS_SMOKE = 100_000;

/** Named parts; else all of them in a full run, and the engine alone in others. */
export function partsOf(flags: BenchFlags): BenchPart[] {
  if (flags.part) return flags.part;
  if (flags.full) return ["engine", "workers", "latency", "flows", "compact"];
  return flags.flows === undefined ? ["engine"] : ["flows"];
}

export async function measureParts(
  parts: readonly BenchPart[],
  flags: BenchFlags,
  say: (line: string) => void,
): Promise<PartsResult> {
  const { smoke } = flags;
  const result: PartsResult = {};
  if (parts.includes("workers")) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-scaling-"));
    try {
      result.scaling = await measureScaling(folder, say, smoke ? SCALING_SMOKE : SCALING_EFFORT);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  }
  if (parts.includes("latency")) {
    result.latency = await measureLatency(say, smoke ? LATENCY_SMOKE : LATENCY_EFFORT);
  }
  if (parts.includes("flows")) {
    const flows = flags.flows ?? (smoke ? FLOWS_SMOKE : fittingFlows(FLOW_BYTES, 200e6));
    result.large = await measureLarge(flows, say, smoke ? LARGE_SMOKE : LARGE_EFFORT);
  }
  if (parts.includes("compact")) {
    const flows = flags.flows ?? (smoke ? FLOWS_SMOKE : fittingFlows(COMPACT_BYTES, 400e6));
    const effort = smoke ? LARGE_SMOKE : LARGE_EFFORT;
    result.compact = await measureLarge(flows, say, effort, "IPv4 compact");
  }
  return result;
}

/** Flows of `bytes` each that nine tenths of the free memory hold, at most `most`. */
function fittingFlows(bytes: number, most: number): number {
  const fitting = Math.floor((process.availableMemory() * 0.9) / bytes / 1e6) * 1e6;
  return Math.min(fitting, most);
}

/** Paragraphs of text, one for each part. */
export function partsReport({ scaling, latency, large, compact }: PartsResult): string[] {
  return [
    ...(scaling ? scalingText(scaling) : []),
    ...(latency ? latencyText(latency) : []),
    ...(large ? largeText(large) : []),
    ...(compact ? largeText(compact) : []),
  ];
}

function section(title: string, titles: string[], rows: string[][]): string {
  const columns = titles.map(
    (text, index): Column => ({ title: text, align: index === 0 ? "left" : "right" }),
  );
  return [title, ...table(columns, rows).map((line) => `  ${line}`)].join("\n");
}

function scalingText({ cores, goals = [], curves }: ScalingResult): string[] {
  const points = curves.flatMap(({ name, points }) =>
    points.map(({ workers, mpps, gbps, speedup }, index) => [
      index === 0 ? name : "",
      count(workers),
      significant(mpps),
      significant(gbps),
      speedup.toFixed(2),
    ]),
  );
  const cell = (value: number | undefined) => (value === undefined ? "never" : significant(value));
  const laws = curves.flatMap(({ name, serial, targets }) =>
    targets.map(({ gbps, cores: needed, coresLow, coresHigh }, index) => [
      index === 0 ? name : "",
      index === 0 ? percent(serial.median) : "",
      index === 0 ? `${percent(serial.low)} to ${percent(serial.high)}` : "",
      gbps === 1000 ? "1 Tbit/s" : `${gbps} Gbit/s`,
      cell(needed),
      `${cell(coresLow)} to ${cell(coresHigh)}`,
    ]),
  );
  return [
    section("Goals of workers", ["", "goal", "here", "met"], goalRows(goals)),
    section(
      `Scaling on ${cores} cores: medians of rounds in turns`,
      ["", "workers", "Mpps", "Gbit/s", "speed-up"],
      points,
    ),
    section(
      "Amdahl's law from these: the share that does not get faster, and cores of one machine",
      ["", "share", "over rounds", "target", "cores", "over rounds"],
      laws,
    ),
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function times({ p50, p99, p999, max }: Distribution): string[] {
  return [p50, p99, p999, max].map((value) => significant(value));
}

function latencyText(latency: LatencyResult): string[] {
  const { flows, goals = [], batches, loads, handed, echoes } = latency;
  const heads = ["p50", "p99", "p99.9", "max"];
  const how = `${count(flows)} flows, microseconds`;
  return [
    section("Goals of latency", ["", "goal", "here", "met"], goalRows(goals)),
    section(
      `Latency of a batch, back to back, ${how}`,
      ["batch", ...heads, "collections", "bare: p50", "doing nothing: p50", "p99.9", "max"],
      batches.map((row) => [
        count(row.batch),
        ...times(row),
        count(row.collections),
        row.prototype ? significant(row.prototype.p50) : "-",
        ...(row.machine ? times(row.machine).filter((_, index) => index !== 1) : []),
      ]),
    ),
    section(
      `Latency of a packet that arrives by the clock (open loop), ${how}`,
      ["at most a batch", "load", "Mpps", ...heads, "collections"],
      loads.map((row) => [
        count(row.batch),
        `${Math.round(row.load * 100)} %`,
        significant(row.peakMpps * row.load),
        ...times(row),
        count(row.collections),
      ]),
    ),
    section(
      "Between threads, microseconds",
      ["", ...heads],
      [
        ...echoes.map((row) => [`a word there and back, ${row.how}`, ...times(row)]),
        ...handed.map((row) => [
          `packets told of by another thread at ${row.load * 100} %, ${row.how}`,
          ...times(row),
        ]),
      ],
    ),
  ];
}

function largeText({ goals, rows, pages, lookRatio, touch }: LargeResult): string[] {
  const title = [
    "",
    "engines",
    "flows",
    "tables",
    "resident",
    "touch s",
    "fill s",
    "M/s",
    "ns/packet",
    "checked",
  ];
  const lines = rows.map((row) => [
    row.family,
    count(row.engines),
    count(row.flows),
    memorySize(row.tableBytes),
    memorySize(row.residentBytes),
    significant(row.touchSeconds),
    significant(row.fillSeconds),
    significant(row.flowsPerSecond / 1e6),
    significant(row.lookNs),
    count(row.verified),
  ]);
  const [, many] = rows;
  const memory = [
    `${significant(lookRatio)} times the cost of a packet with 1 M flows in each engine. Making an engine ` +
      `${significant(many?.createMs ?? 0)} ms;`,
    `growing by 1 GiB ${significant(touch.growMs)} ms, touching it first ` +
      `${significant(touch.firstSecondsPerGib)} s in plain pages, again ` +
      `${significant(touch.againSecondsPerGib)} s, first as`,
    `engines do ${significant(touch.enginesFirstSecondsPerGib)} s`,
  ];
  const text = section("Many flows: random flow and direction, each core", title, lines);
  return [
    section("Goals of many flows", ["", "goal", "here", "met"], goalRows(goals)),
    [text, ...memory.map((line) => `  ${line}`)].join("\n"),
    ...(pages ? [pagesText(pages)] : []),
  ];
}

function pagesText({ flows, plain, huge }: NonNullable<LargeResult["pages"]>): string {
  const row = (name: string, { touchSeconds, fillNs, lookNs }: PagesCost) => {
    return [name, ...[touchSeconds, fillNs, lookNs].map(significant)];
  };
  const ratios = {
    touchSeconds: plain.touchSeconds / huge.touchSeconds,
    fillNs: plain.fillNs / huge.fillNs,
    lookNs: plain.lookNs / huge.lookNs,
  };
  return section(
    `Pages: ${count(flows)} IPv4 flows in one engine of each kind, in turns`,
    ["", "touch s", "fill ns/flow", "ns/packet"],
    [row("plain", plain), row("huge", huge), row("plain over huge", ratios)],
  );
}
