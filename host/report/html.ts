/**
 * The replay's report as one self-contained web page: figures, tables and charts, with the
 * charting library and the data inlined, so that it opens from a file and can be sent by mail.
 * Pure: result, timeline and the library's own text go in, the page comes out. Without scripts
 * it still shows every number: charts repeat what the tables say.
 */

import type { ReplayResult, Timeline } from "../replay/result.ts";
import { type PageData, pageScript } from "./page.ts";
import { targetName, textReport } from "./text.ts";
import { bitRate, count, dataSize, duration, packetRate, share, significant } from "./units.ts";

/** The charting library as text: uPlot's `iife` build and its style sheet. */
export interface ChartLibrary {
  js: string;
  css: string;
}

/** The page, complete with doctype. */
export function htmlReport(
  result: ReplayResult,
  timeline: Timeline,
  library: ChartLibrary,
): string {
  const title = `Flowplane replay of ${result.capture.file}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<style>
${library.css}
${STYLE}
</style>
</head>
<body>
<main>
<h1>${escaped(result.capture.file)}</h1>
<p class="sub">${escaped(subtitle(result))}</p>
${result.notes.map((note) => `<p class="note">${escaped(note)}</p>`).join("\n")}
<section class="figures">
${figures(result)}
</section>
<section class="charts">
${chart("throughput", "Throughput over the capture")}
${chart("flows", "Flows in the table")}
${chart("sizes", "Frame sizes on the wire")}
${chart("verdicts", "Verdicts")}
${chart("capacity", "Cores for a target rate")}
</section>
<section class="tables">
${resourceTable(result)}
${verdictTable(result)}
${capacityTable(result)}
</section>
<details><summary>Text report</summary><pre>${escaped(textReport(result))}</pre></details>
</main>
<script type="application/json" id="data">${embedded(pageData(result, timeline))}</script>
<script>${inlined(library.js)}</script>
<script>${inlined(pageScript())}</script>
</body>
</html>
`;
}

/** What the charts draw: parallel arrays, seconds, bit/s and counts. */
export function pageData(result: ReplayResult, timeline: Timeline): PageData {
  const { sliceSeconds } = timeline;
  return {
    seconds: timeline.bytes.map((_, slice) => slice * sliceSeconds),
    bitsPerSecond: timeline.bytes.map((bytes) => (8 * bytes) / sliceSeconds),
    packetsPerSecond: timeline.packets.map((packets) => packets / sliceSeconds),
    flowsActive: timeline.flowsActive,
    flowsPerSecond: timeline.flowsCreated.map((flows) => flows / sliceSeconds),
    sizeNames: ["≤64", "65–127", "128–255", "256–511", "512–1023", "1024–1518", "≥1519"],
    sizes: timeline.sizes,
    verdictNames: Object.keys(result.verdicts).filter((name) => seen(result, name) > 0),
    verdicts: Object.values(result.verdicts).filter((packets) => packets > 0),
    targetNames: result.capacity.targets.map(({ gbps }) => targetName(gbps)),
    targetCores: result.capacity.targets.map(({ cores }) => cores),
    cores: result.machine.cores,
  };
}

function seen(result: ReplayResult, verdict: string): number {
  return (result.verdicts as Record<string, number>)[verdict] ?? 0;
}

function subtitle({ capture, run, machine }: ReplayResult): string {
  const passes = run.passes === 1 ? "1 pass" : `${run.passes} passes`;
  return (
    `${capture.format}, ${capture.linkTypes.join(", ") || "no interface"}; scenario ` +
    `${run.scenario}, ${passes}; ${machine.cpu}, Node ${machine.node}, ` +
    `Flowplane ${machine.flowplane}`
  );
}

function figures(result: ReplayResult): string {
  const { capture, engine, flows, output } = result;
  const dropped = capture.packets - output.packets;
  const cells: [label: string, value: string, more: string][] = [
    ["Packets", count(capture.packets), dataSize(capture.bytes)],
    ["Capture", duration(capture.durationSeconds), "on its own clock"],
    ["Flows", count(flows.created), `at most ${count(flows.activeMax)} at once`],
    ["Dropped", count(dropped), share(dropped, capture.packets)],
    ["Engine", `${significant(engine.nsPerPacket)} ns`, `a packet; ${packetRate(engine.mpps)}`],
    ["One core", bitRate(engine.gbps), `${significant(result.capacity.unitsPerCore)} units`],
  ];
  return cells
    .map(
      ([label, value, more]) =>
        `<div><span>${label}</span><strong>${escaped(value)}</strong><em>${escaped(more)}</em></div>`,
    )
    .join("\n");
}

export function chart(id: string, title: string): string {
  return `<figure id="chart-${id}"><figcaption>${title}</figcaption><div></div></figure>`;
}

function verdictTable(result: ReplayResult): string {
  const rows = Object.entries(result.verdicts)
    .filter(([, packets]) => packets > 0)
    .map(([name, packets]) => [name, count(packets), share(packets, result.capture.packets)]);
  return tableHtml("Verdicts", ["verdict", "packets", "share"], rows);
}

function resourceTable(result: ReplayResult): string {
  const rows = result.resources.map((resource) => [
    resource.id,
    resource.kind,
    count(resource.packets),
    dataSize(resource.bytes),
    count(resource.newFlows),
    bitRate(resource.peakGbps),
    count(resource.units),
  ]);
  const titles = ["resource", "kind", "packets", "data", "new flows", "peak", "units"];
  return tableHtml("Resources", titles, rows);
}

function capacityTable(result: ReplayResult): string {
  const rows = result.capacity.targets.map(({ gbps, cores, met }) => [
    targetName(gbps),
    significant(cores),
    met ? "yes" : "no",
  ]);
  return tableHtml("Capacity", ["target", "cores", "reached in this run"], rows);
}

export function tableHtml(caption: string, titles: string[], rows: string[][]): string {
  const line = (cells: string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  return (
    `<div id="table-${caption.toLowerCase().replaceAll(" ", "-")}"><table><caption>${caption}</caption>` +
    `<thead>${line(titles, "th")}</thead>` +
    `<tbody>${rows.map((row) => line(row, "td")).join("")}</tbody></table></div>`
  );
}

/** Text for element content and attributes. */
export function escaped(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? "");
}

/** JSON for a script element, where only "<" could end it early. */
export function embedded(data: unknown): string {
  return JSON.stringify(data).replace(/</g, "\\u003c");
}

/** Code for a script element: "</script" can stand in its strings only, where "\/" is "/". */
export function inlined(code: string): string {
  return code.replace(/<\/script/gi, "<\\/script");
}

/** The look of every page: light and dark. */
export const STYLE = `
:root { --ink: #1a1f26; --dim: #5c6670; --line: #d8dde3; --page: #f6f7f9; --card: #ffffff;
  --first: #1f6feb; --second: #c2410c; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #97a1ad; --line: #323943; --page: #12161b; --card: #1b2027;
    --first: #6ea8fe; --second: #ff9e64; --warn: #3a3113; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
.sub { color: var(--dim); margin: 4px 0 16px; }
.note { background: var(--warn); border-radius: 6px; padding: 8px 12px; margin: 0 0 12px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin: 0 0 16px; }
.figures div, figure, .tables > div, details { background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
.figures div { padding: 10px 14px; }
.figures span, .figures em { display: block; color: var(--dim); font-style: normal;
  font-size: 13px; }
.figures strong { font-size: 22px; font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
#chart-throughput { grid-column: 1 / -1; }
figure { margin: 0; padding: 12px 14px 6px; min-width: 0; }
figcaption, caption { font-weight: 600; text-align: left; margin-bottom: 6px; }
.tables { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px;
  margin: 16px 0; align-items: start; }
.tables > div { padding: 10px 14px; overflow-x: auto; }
#table-resources { grid-column: 1 / -1; }
.tables table { border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
.tables th, .tables td { text-align: right; padding: 3px 0 3px 12px; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
.tables th { color: var(--dim); font-weight: 400; }
.tables tr > :first-child { text-align: left; padding-left: 0; }
.tables tbody tr:last-child td { border-bottom: 0; }
details { padding: 10px 14px; }
pre { overflow-x: auto; font-size: 12.5px; }
.u-legend { font-size: 13px; color: var(--dim); }
@media (max-width: 760px) { .charts, .tables { grid-template-columns: minmax(0, 1fr); } }
`;
