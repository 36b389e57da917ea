/**
 * The lab's page: everything in one document, the charting library and the script inlined, so that
 * it loads nothing but its data. Text and tables are filled in by browser.ts.
 */

import { liveScript } from "./browser.ts";

/** uPlot's `iife` build and its style sheet. */
export interface ChartLibrary {
  js: string;
  css: string;
}

/** The page, complete with doctype. */
export function livePage(library: ChartLibrary): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Flowplane lab</title>
<link rel="icon" href="data:,">
<style>
${library.css}
${STYLE}
</style>
</head>
<body>
<main>
<header><h1>Flowplane lab</h1><p><span id="status">connecting</span> · <span id="subtitle"></span></p></header>
<section class="figures">
${figure("rate", "Traffic")}
${figure("packets", "Packets")}
${figure("flows", "Flows")}
${figure("drops", "Dropped")}
${figure("targets", "Healthy targets")}
${figure("endpoints", "Available endpoints")}
</section>
<section class="charts">
${chart("traffic", "Traffic")}
${chart("flows", "Flows")}
${chart("latency", "Health checks: time to answer")}
${chart("load", "Load and drops")}
</section>
<section class="card"><h2>Who talks to whom</h2><div id="map"></div></section>
<section class="tables">
${tableFrame("targets", "Targets", ["group", "target", "zone", "state", "why", "check"])}
${tableFrame("endpoints", "Endpoints", ["endpoint", "service", "VPC", "state", "addresses"])}
${tableFrame("resources", "Resources", ["resource", "kind", "VPC", "packets", "data", "flows", "new"])}
${tableFrame("verdicts", "Verdicts", ["verdict", "packets"])}
${tableFrame("events", "Events", ["time", "event", "details"])}
</section>
</main>
<script>${inlined(library.js)}</script>
<script>${inlined(liveScript())}</script>
</body>
</html>
`;
}

function figure(id: string, label: string): string {
  return `<div><span>${label}</span><strong id="figure-${id}">–</strong></div>`;
}

function chart(id: string, title: string): string {
  return `<figure id="chart-${id}"><figcaption>${title}</figcaption><div></div></figure>`;
}

function tableFrame(id: string, caption: string, titles: string[]): string {
  const heads = titles.map((title) => `<th>${title}</th>`).join("");
  return (
    `<div id="table-${id}" class="card"><table><caption>${caption}</caption>` +
    `<thead><tr>${heads}</tr></thead><tbody></tbody></table></div>`
  );
}

/** Code for a script element: "</script" can stand in its strings only, where "\\/" is "/". */
function inlined(code: string): string {
  return code.replace(/<\/script/gi, "<\\/script");
}

const STYLE = `
:root { --ink: #1a1f26; --dim: #5c6670; --line: #d8dde3; --page: #f6f7f9; --card: #ffffff;
  --first: #1f6feb; --second: #c2410c; --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #97a1ad; --line: #323943; --page: #12161b; --card: #1b2027;
    --first: #6ea8fe; --second: #ff9e64; --good: #57c26f; --bad: #ff8177; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0; }
h2 { font-size: 15px; margin: 0 0 8px; }
header p { color: var(--dim); margin: 4px 0 16px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin: 0 0 16px; }
.figures div, figure, .card { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px; }
.figures span { display: block; color: var(--dim); font-size: 13px; }
.figures strong { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px;
  margin: 0 0 16px; }
figure { margin: 0; min-width: 0; }
figcaption, caption { font-weight: 600; text-align: left; margin-bottom: 6px; }
.tables { display: grid; gap: 16px; margin: 16px 0; }
.card { overflow-x: auto; }
table { border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--dim); font-weight: 400; }
tbody tr:last-child td { border-bottom: 0; }
.good { color: var(--good); }
.bad { color: var(--bad); }
#map svg { width: 100%; height: auto; max-height: 520px; }
#map .edge { fill: none; stroke: var(--first); stroke-opacity: 0.45; }
#map .node { fill: var(--page); stroke: var(--line); }
#map text { fill: var(--ink); font-size: 12px; }
.u-legend { font-size: 13px; color: var(--dim); }
@media (max-width: 760px) { .charts { grid-template-columns: minmax(0, 1fr); } }
`;
