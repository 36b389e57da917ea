/**
 * The frame of every page that Flowplane writes: one document that loads nothing from anywhere, light
 * or dark as its reader has it. Pure: text goes in, text comes out.
 */

import { sharedScript } from "./browser.ts";

/** The charting library as text: uPlot's `iife` build and its style sheet. */
export interface ChartLibrary {
  js: string;
  css: string;
}

export interface Page {
  /** As text; it is escaped here. */
  title: string;
  /** Rules beyond the common ones. */
  style: string;
  /** Markup of the page's one `main` element. */
  main: string;
  /** What to draw charts with, and the script that does it; none on pages without scripts. */
  drawing?: { library: ChartLibrary; script: string; data?: unknown };
}

/** The page, complete with doctype. */
export function pageDocument({ title, style, main, drawing }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<link rel="icon" href="data:,">
<style>
${[drawing?.library.css, STYLE, style].filter(Boolean).join("\n")}
</style>
</head>
<body>
<main>
${main}
</main>
${drawing ? scripts(drawing) : ""}</body>
</html>
`;
}

function scripts({ library, script, data }: NonNullable<Page["drawing"]>): string {
  const parts = [
    `<script>${inlined(library.js)}</script>`,
    `<script>${inlined(`${sharedScript()}\n${script}`)}</script>`,
  ];
  if (data !== undefined) {
    parts.unshift(`<script type="application/json" id="data">${embedded(data)}</script>`);
  }
  return `${parts.join("\n")}\n`;
}

/** Place of a chart, which a script fills. */
export function chart(id: string, title: string): string {
  return `<figure id="chart-${id}"><figcaption>${title}</figcaption><div></div></figure>`;
}

export function tableHtml(caption: string, titles: string[], rows: string[][]): string {
  const line = (cells: string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  return (
    `<div class="card" id="table-${caption.toLowerCase().replaceAll(" ", "-")}"><table><caption>${caption}</caption>` +
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
function embedded(data: unknown): string {
  return JSON.stringify(data).replace(/</g, "\\u003c");
}

/** Code for a script element: "</script" can stand in its strings only, where "\/" is "/". */
function inlined(code: string): string {
  return code.replace(/<\/script/gi, "<\\/script");
}

/** How reports look beyond that: tables of figures, two beside each other. */
export const REPORT_STYLE = `
.note { background: var(--warn); border-radius: 6px; padding: 8px 12px; margin: 0 0 12px; }
.tables { grid-template-columns: repeat(2, minmax(0, 1fr)); }
th, td { text-align: right; padding: 3px 0 3px 12px; white-space: nowrap; }
tr > :first-child { text-align: left; padding-left: 0; }
@media (max-width: 760px) { .tables { grid-template-columns: minmax(0, 1fr); } }
`;

const STYLE = `
:root { --ink: #1a1f26; --dim: #5c6670; --line: #d8dde3; --page: #f6f7f9; --card: #ffffff;
  --first: #1f6feb; --second: #c2410c; --warn: #fff4d6; --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #97a1ad; --line: #323943; --page: #12161b; --card: #1b2027;
    --first: #6ea8fe; --second: #ff9e64; --warn: #3a3113; --good: #57c26f; --bad: #ff8177; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
.sub { color: var(--dim); margin: 4px 0 16px; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin: 0 0 16px; }
.figures div, figure, .card, details { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px; }
.figures span, .figures em { display: block; color: var(--dim); font-style: normal;
  font-size: 13px; }
.figures strong { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
figure { margin: 0; min-width: 0; }
figcaption, caption { font-weight: 600; text-align: left; margin-bottom: 6px; }
.tables { display: grid; gap: 16px; margin: 16px 0; align-items: start; }
.card { overflow-x: auto; }
table { border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th { color: var(--dim); font-weight: 400; }
th, td { border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
pre { overflow-x: auto; font-size: 12.5px; }
.u-legend { font-size: 13px; color: var(--dim); }
.u-legend th, .u-legend td { border: 0; }
@media (max-width: 760px) { .charts, .tables { grid-template-columns: minmax(0, 1fr); } }
`;
