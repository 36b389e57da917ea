/**
 * The benchmark's results as one self-contained page: charts, tables, machine and versions. Pure
 * but for `writePage`; the style and the way of inlining are those of the replay's report.
 */
import { writeText } from "../host/cli/files.ts";
import {
  type ChartLibrary,
  chart,
  escaped,
  pageDocument,
  REPORT_STYLE,
  tableHtml,
} from "../host/page/document.ts";
import { readChartLibrary } from "../host/page/library.ts";
import { count, memorySize, significant } from "../host/report/units.ts";
import { chartScript, type LineChart } from "./page-script.ts";
import { partsReport } from "./parts.ts";
import { benchReport } from "./report.ts";
import type { BenchResult, LargeRow, PartsResult } from "./result.ts";

/** What a run has, which need not be all. */
export type PageResult = Pick<BenchResult, "mode" | "machine"> & {
  [Name in keyof BenchResult]?: BenchResult[Name] | undefined;
};

export function writePage(file: string, result: PageResult): void {
  writeText(file, benchPage(result, readChartLibrary()));
}

/** The page, complete with doctype. */
export function benchPage(result: PageResult, library: ChartLibrary): string {
  const { machine } = result;
  const drawn = chartsOf(result);
  const { cpu, cores, memoryBytes, system, node } = machine;
  const hardware = `${cpu}, ${cores} cores, ${memorySize(memoryBytes)}`;
  const sub = `${hardware}; ${system}; Node ${node}; ${result.mode} run`;
  const texts = [
    ...(result.flows ? [benchReport(result as BenchResult)] : []),
    ...partsReport(result as PartsResult),
  ];
  const title = `Flowplane ${machine.flowplane}: benchmark`;
  const main = `<h1>${escaped(title)}</h1>
<p class="sub">${escaped(sub)}</p>
<section class="charts">
${drawn.map(({ id, title }) => chart(id, title)).join("\n")}
</section>
<section class="tables">
${tablesOf(result).join("\n")}
</section>
<details><summary>Text report</summary><pre>${escaped(texts.join("\n\n"))}</pre></details>`;
  const style = `${REPORT_STYLE}.tables > :not(#table-machine) { grid-column: 1 / -1; }`;
  const drawing = { library, script: chartScript(), data: drawn };
  return pageDocument({ title, style, main, drawing });
}

/** Every chart that the result has figures for. */
export function chartsOf(result: PageResult): LineChart[] {
  return [...engineCharts(result), ...scalingCharts(result), ...latencyCharts(result)];
}

const FRAME_BYTES: Record<string, number> = { "64 bytes": 64, IMIX: 362, "1514 bytes": 1514 };

function engineCharts({ traffic, flows }: PageResult): LineChart[] {
  const charts: LineChart[] = [];
  const sizes = (traffic ?? [])
    .filter(({ name }) => name in FRAME_BYTES)
    .toSorted((a, b) => (FRAME_BYTES[a.name] ?? 0) - (FRAME_BYTES[b.name] ?? 0));
  if (sizes.length > 1) {
    charts.push({
      id: "sizes",
      title: "One core against frame size, 1 M flows",
      x: { label: "bytes a frame", values: sizes.map(({ name }) => FRAME_BYTES[name] as number) },
      y: { label: "Gbit/s", isLog: true },
      series: [{ label: "engine", values: sizes.map(({ gbps }) => gbps) }],
    });
  }
  if (flows && flows.length > 1) {
    const series = [
      { label: "Flowplane", values: flows.map(({ wasm }) => wasm.min) },
      { label: "the same in C", values: flows.map(({ twin }) => twin?.min ?? null) },
      { label: "typed-array TypeScript", values: flows.map(({ typed }) => typed?.min ?? null) },
      { label: "idiomatic TypeScript", values: flows.map((row) => row.idiomatic?.min ?? null) },
      { label: "one load from memory", values: flows.map(({ chaseNs }) => chaseNs ?? null) },
    ];
    charts.push({
      id: "flows",
      title: "A packet against live flows, and peers",
      x: { label: "flows", values: flows.map((row) => row.flows), isLog: true },
      y: { label: "ns per packet", isLog: true },
      series: series.filter(({ values }) => values.some((value) => value !== null)),
    });
  }
  return charts;
}

function scalingCharts({ scaling, large, compact }: PageResult): LineChart[] {
  const charts: LineChart[] = [];
  const first = scaling?.curves[0];
  if (scaling && first) {
    charts.push({
      id: "workers",
      title: "Speed-up with workers",
      x: { label: "workers", values: first.points.map(({ workers }) => workers) },
      y: { label: "times one worker" },
      series: [
        ...scaling.curves.map(({ name, points }) => {
          return { label: name, values: points.map(({ speedup }) => speedup) };
        }),
        { label: "each adds its own", values: first.points.map(({ workers }) => workers) },
      ],
    });
  }
  const many = (family: LargeRow["family"], of: PageResult["large"], id: string) => {
    const rows = of?.rows.filter((row) => row.family === family) ?? [];
    if (rows.length < 2) return;
    charts.push({
      id,
      title: `Many ${family} flows in several engines: a packet on each core`,
      x: { label: "flows", values: rows.map(({ flows }) => flows), isLog: true },
      y: { label: "ns per packet" },
      series: [
        { label: "best window", values: rows.map(({ lookNs }) => lookNs) },
        { label: "median", values: rows.map(({ lookMedianNs }) => lookMedianNs) },
      ],
    });
  };
  many("IPv4", large, "many-flows");
  many("IPv4 compact", compact, "compact-flows");
  return charts;
}

/** A percentile as its distance from 100 %, so that the tail has room: 90 is 1, 99 is 2. */
function nines(percentile: number): number {
  return -Math.log10(1 - percentile / 100);
}

function latencyCharts({ latency }: PageResult): LineChart[] {
  if (!latency) return [];
  const { batches, loads, handed } = latency;
  const most = loads.some(({ batch }) => batch === 64)
    ? 64
    : Math.max(...loads.map((r) => r.batch));
  const chosen = loads.filter(({ batch }) => batch === most);
  const curve = chosen[0]?.curve ?? [];
  const curves = [
    ...chosen.map((row) => ({ label: `${Math.round(row.load * 100)} % of peak`, row })),
    ...handed.map((row) => ({ label: `50 %, handed over, ${row.how}`, row })),
  ];
  return [
    {
      id: "latency",
      title: `Latency of a packet, open loop, batches of at most ${most}`,
      x: {
        label: "nines: 1 is p90, 2 is p99",
        values: curve.map(([percentile]) => nines(percentile)),
      },
      y: { label: "microseconds", isLog: true },
      series: curves.map(({ label, row }) => ({ label, values: row.curve.map(([, us]) => us) })),
    },
    {
      id: "batches",
      title: "Latency of a batch, back to back",
      x: { label: "packets a batch", values: batches.map(({ batch }) => batch), isLog: true },
      y: { label: "microseconds", isLog: true },
      series: [
        { label: "p50", values: batches.map(({ p50 }) => p50) },
        { label: "p99", values: batches.map(({ p99 }) => p99) },
        { label: "p99.9", values: batches.map(({ p999 }) => p999) },
      ],
    },
  ];
}

function tablesOf({ goals, files, scaling, large, compact, machine }: PageResult): string[] {
  const tables: string[] = [];
  const number = (value: number | undefined) => (value === undefined ? "-" : significant(value));
  const all = [...(goals ?? []), ...(large?.goals ?? []), ...(compact?.goals ?? [])];
  if (all.length > 0) {
    const rows = all.map(({ name, is, goal, unit, value, met }) => [
      name,
      `${is === "atMost" ? "≤" : "≥"} ${significant(goal)} ${unit}`,
      number(value),
      met === undefined ? "-" : met ? "yes" : "no",
    ]);
    tables.push(tableHtml("Goals", ["", "goal", "here", "met"], rows));
  }
  if (large || compact) {
    const rows = [...(large?.rows ?? []), ...(compact?.rows ?? [])].map((row) => [
      `${row.family}, ${row.engines} engines`,
      count(row.flows),
      memorySize(row.tableBytes),
      `${significant(row.flowsPerSecond / 1e6)} M/s`,
      `${significant(row.lookNs)} ns`,
      count(row.verified),
    ]);
    const titles = ["", "flows", "tables", "set up", "a packet", "checked"];
    tables.push(tableHtml("Many flows", titles, rows));
  }
  if (scaling) {
    const cell = (value: number | undefined) =>
      value === undefined ? "never" : significant(value);
    const rows = scaling.curves.flatMap(({ name, serial, targets }) =>
      targets.map(({ gbps, cores, coresLow, coresHigh }) => [
        name,
        `${(100 * serial.median).toFixed(1)} %`,
        gbps === 1000 ? "1 Tbit/s" : `${gbps} Gbit/s`,
        `${cell(cores)} (${cell(coresLow)} to ${cell(coresHigh)})`,
      ]),
    );
    tables.push(tableHtml("Capacity", ["", "serial share", "target", "cores"], rows));
  }
  if (files && files.length > 0) {
    const rows = files.flatMap(({ name, seconds, others }) =>
      Object.entries(others).map(([peer, time]) => [
        name,
        peer,
        `${(1e3 * seconds).toFixed(0)} ms`,
        `${(1e3 * time).toFixed(0)} ms`,
        `${(time / seconds).toFixed(2)} x`,
      ]),
    );
    tables.push(tableHtml("Peers", ["", "peer", "Flowplane", "peer takes", "ratio"], rows));
  }
  const { load, memoryBytes, ...words } = machine;
  const rows = Object.entries(words).map(([name, value]) => [name, String(value)]);
  rows.push(["memory", memorySize(memoryBytes)], ["load before, after", load.join(", ")]);
  tables.push(tableHtml("Machine", ["", ""], rows));
  return tables;
}
