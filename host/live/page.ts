/**
 * The lab's page: everything in one document, the charting library and the script inlined, so that
 * it loads nothing but its data. Text and tables are filled in by browser.ts.
 */

import { type ChartLibrary, chart, pageDocument } from "../page/document.ts";
import { liveScript } from "./browser.ts";

/** The page, complete with doctype. */
export function livePage(library: ChartLibrary): string {
  const main = `<header><h1>Flowplane lab</h1>
<p><span id="status">connecting</span> · <span id="subtitle"></span></p></header>
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
</section>`;
  const drawing = { library, script: liveScript() };
  return pageDocument({ title: "Flowplane lab", style: STYLE, main, drawing });
}

function figure(id: string, label: string): string {
  return `<div><span>${label}</span><strong id="figure-${id}">–</strong></div>`;
}

function tableFrame(id: string, caption: string, titles: string[]): string {
  const heads = titles.map((title) => `<th>${title}</th>`).join("");
  return (
    `<div id="table-${id}" class="card"><table><caption>${caption}</caption>` +
    `<thead><tr>${heads}</tr></thead><tbody></tbody></table></div>`
  );
}

const STYLE = `
h2 { font-size: 15px; margin: 0 0 8px; }
header p { color: var(--dim); margin: 4px 0 16px; }
.charts { margin: 0 0 16px; }
th, td { text-align: left; padding: 3px 12px 3px 0; vertical-align: top; }
.good { color: var(--good); }
.bad { color: var(--bad); }
#map svg { width: 100%; height: auto; max-height: 520px; }
#map .edge { fill: none; stroke: var(--first); stroke-opacity: 0.45; }
#map .node { fill: var(--page); stroke: var(--line); }
#map text { fill: var(--ink); font-size: 12px; }
`;
