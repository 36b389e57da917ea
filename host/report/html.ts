/**
 * The replay's report as one self-contained web page: figures, tables and charts, with the
 * charting library and the data inlined, so that it opens from a file and can be sent by mail.
 * Pure: result, timeline and the library's own text go in, the page comes out. Without scripts
 * it still shows every number: charts repeat what the tables say.
 */

import {
  type ChartLibrary,
  chart,
  escaped,
  pageDocument,
  REPORT_STYLE,
  tableHtml,
} from "../page/document.ts";
import type { ReplayResult, Timeline } from "../replay/result.ts";
import { type PageData, pageScript } from "./page.ts";
import { targetName, textReport } from "./text.ts";
import { bitRate, count, dataSize, duration, packetRate, share, significant } from "./units.ts";

/** The page, complete with doctype. */
export function htmlReport(
  result: ReplayResult,
  timeline: Timeline,
  library: ChartLibrary,
): string {
  const title = `Flowplane replay of ${result.capture.file}`;
  const main = `<h1>${escaped(result.capture.file)}</h1>
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
<details><summary>Text report</summary><pre>${escaped(textReport(result))}</pre></details>`;
  const data = pageData(result, timeline);
  const drawing = { library, script: pageScript(), data };
  const style = `${REPORT_STYLE}#chart-throughput, #table-resources { grid-column: 1 / -1; }`;
  return pageDocument({ title, style, main, drawing });
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
