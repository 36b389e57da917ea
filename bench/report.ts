/** The benchmark's text: ratios first, then absolutes, the machine, digests. Data in, text out. */
import { type Column, table, wrapped } from "../host/report/table.ts";
import { count, dataSize, memorySize, significant } from "../host/report/units.ts";
import { flowsText } from "./goals.ts";
import type { BenchResult, FlowsRow, Goal } from "./result.ts";

const WIDTH = 98;
const ABSENT = "-";

export function benchReport(result: BenchResult): string {
  const { mode, seconds, skipped } = result;
  const head = `flowplane bench, ${mode} run, ${significant(seconds)} s`;
  const sections = [
    [head],
    section("Ratios and goals", goalRows(result.goals), ["", "goal", "here", "met"]),
    flowSection(result.flows),
    trafficSection(result),
    section(
      "Steps alone, 1 k flows, ns",
      result.pieces.map(({ name, unit, wasmNs, typescriptNs }) => [
        name,
        `per ${unit}`,
        ns(wasmNs),
        typescriptNs === undefined ? ABSENT : ns(typescriptNs),
      ]),
      ["", "", "WASM", "TypeScript"],
    ),
    fileSection(result),
    hostLines(result),
    machineLines(result),
    digestLines(result),
    skipped.flatMap((line) => wrapped(line, WIDTH)),
  ];
  return sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n");
}

/** A title, then a table whose first column is words and whose others are figures. */
function section(title: string, rows: string[][], titles: string[]): string[] {
  if (rows.length === 0) return [];
  const columns = titles.map(
    (text, index): Column => ({ title: text, align: index === 0 ? "left" : "right" }),
  );
  return [title, ...table(columns, rows).map((line) => `  ${line}`)];
}

function ns(value: number | undefined): string {
  if (value === undefined) return ABSENT;
  return value >= 100 ? count(value) : value >= 0.1 ? value.toFixed(1) : value.toFixed(3);
}

export function goalRows(goals: readonly Goal[]): string[][] {
  const text = (value: number, unit: string) => {
    const figure = unit === "bytes" && value > 1000 ? count(value) : significant(value);
    return unit === "x" ? figure : `${figure} ${unit}`;
  };
  return goals.map(({ name, goal, is, unit, value, met, reason }) => [
    name,
    `${is === "atMost" ? "<=" : ">="} ${text(goal, unit)}`,
    value === undefined ? (reason ?? ABSENT) : text(value, unit),
    met === undefined ? ABSENT : met ? "yes" : "no",
  ]);
}

function flowSection(rows: readonly FlowsRow[]): string[] {
  const titles = ["flows", "WASM", "median", "singly", "bare", "C twin", "typed TS", "plain TS"];
  const memory = ["chase", "load"];
  const established = rows.map((row) => [
    flowsText(row.flows),
    ns(row.wasm.min),
    ns(row.wasm.median),
    ns(row.single),
    ns(row.prototype?.min),
    ns(row.twin?.min),
    ns(row.typed?.min),
    ns(row.idiomatic?.min),
    ns(row.chaseNs),
    ns(row.loadNs),
  ]);
  const creating = rows.map((row) => [
    flowsText(row.flows),
    ns(row.fresh.min),
    ns(row.fresh.median),
    ns(row.freshFull.min),
    ns(row.freshFull.median),
    ns(row.fillNs),
    ns(row.twin?.newNs),
    ns(row.typed?.newNs),
    ns(row.idiomatic?.newNs),
  ]);
  const title = "Established flows, random flow and direction, 64 bytes, batch 128: ns per packet";
  return [
    ...section(title, established, [...titles, ...memory]),
    "",
    "New flows: ns per flow, in a table with room for twice as many and for a quarter more",
    ...section("(fill: into an untouched table, as the twins)", creating, [
      "flows",
      "WASM x 2",
      "median",
      "WASM x 1.25",
      "median",
      "WASM fill",
      "C twin fill",
      "typed TS fill",
      "plain TS fill",
    ]),
  ];
}

function trafficSection({ traffic, capacity }: BenchResult): string[] {
  const rows = traffic.map(({ name, flows, wasm, gbps, twin }) => [
    `${name}, ${flowsText(flows)} flows`,
    ns(wasm.min),
    ns(wasm.median),
    ns(twin?.min),
    significant(1e3 / wasm.min),
    significant(gbps),
  ]);
  const tables = capacity.map(({ name, flows, bytesPerFlow, fillSeconds, verified }) => [
    `${name} table, filled`,
    count(flows),
    bytesPerFlow.toFixed(2),
    significant(fillSeconds),
    verified > 0 ? count(verified) : ABSENT,
  ]);
  return [
    ...section("Traffic: ns per packet", rows, ["", "WASM", "median", "C twin", "Mpps", "Gbit/s"]),
    "",
    ...section("Tables", tables, ["", "flows", "bytes per flow", "fill s", "packets verified"]),
  ];
}

function fileSection({ files, capture }: BenchResult): string[] {
  if (!capture) return [];
  const rows = files.map(({ name, seconds, nsPerPacket, gbps, others }) => [
    name,
    seconds.toFixed(3),
    ns(nsPerPacket),
    significant(gbps),
    Object.entries(others)
      .map(([other, time]) => `${other} ${time.toFixed(3)} s`)
      .join(", ") || ABSENT,
  ]);
  const title = `Files, IMIX pcap of ${dataSize(capture.bytes)}, ${count(capture.packets)} packets`;
  return section(title, rows, ["", "s", "ns/packet", "Gbit/s", "beside"]);
}

function hostLines({ host }: BenchResult): string[] {
  const growth = `${count(Math.max(0, host.heapGrowthBytes))} bytes`;
  return [
    "Host",
    `  a call into WASM ${ns(host.crossingNs * 128)} ns, ${ns(host.crossingNs)} ns per packet of 128; ` +
      `heap growth over ${count(host.heapPackets)} packets ${growth}`,
    `  first batches of a process ${ns(host.firstNs)} ns per packet, later ones ${ns(host.laterNs)}, ` +
      `with empty caches ${ns(host.emptiedNs)}; without warm-up ${ns(host.coldFirstNs)}`,
  ];
}

function machineLines({ machine, flows }: BenchResult): string[] {
  const { cpu, cores, memoryBytes, system, node, v8, flowplane, assemblyscript } = machine;
  return [
    "Machine",
    `  ${cpu}, ${cores} cores, ${memorySize(memoryBytes)}, ${system}, huge pages ${machine.hugePages}`,
    `  flowplane ${flowplane}, AssemblyScript ${assemblyscript}, Node ${node}, V8 ${v8}`,
    `  gcc ${machine.gcc}, tcprewrite ${machine.tcprewrite}; load ${machine.load
      .map((load) => load.toFixed(1))
      .join(" before, ")} after the run`,
    ...pagesLine(flows),
  ];
}

function pagesLine(flows: readonly FlowsRow[]): string[] {
  const shares = flows.flatMap(({ flows: size, pages }) => {
    if (!pages || pages.bytes === 0) return [];
    const share = ((100 * pages.hugeBytes) / pages.bytes).toFixed(0);
    return [`${share} % of ${memorySize(pages.bytes)} at ${flowsText(size)} flows`];
  });
  return shares.length > 0 ? wrapped(`  in huge pages: ${shares.join(", ")}`, WIDTH) : [];
}

function digestLines({ flows, capture }: BenchResult): string[] {
  const lines = flows.map((row) => {
    const twins = { C: row.twin, typed: row.typed, plain: row.idiomatic };
    const same = Object.entries(twins).filter(([, twin]) => twin?.digest === row.digest);
    const names = same.map(([name]) => name).join(", ");
    return `  ${flowsText(row.flows)} flows ${row.digest}${names && `, the same from ${names}`}`;
  });
  return ["Digests of the output", ...lines, ...(capture ? [`  capture ${capture.digest}`] : [])];
}
