/**
 * The part of the benchmark's page that runs in the browser: draws every chart in the page's data.
 * Like that of the replay's report, its functions are written into the page as their own source
 * text, so they may use nothing but each other.
 */

import type {
  drawAgain as DrawAgain,
  PageDocument,
  PageElement,
  PageWindow,
  short as Short,
} from "../host/page/browser.ts";

declare const short: typeof Short;
declare const drawAgain: typeof DrawAgain;

/** Lines over a common axis; null where a series has no figure. */
export interface LineChart {
  id: string;
  title: string;
  x: { label: string; values: number[]; isLog?: boolean };
  y: { label: string; isLog?: boolean };
  series: { label: string; values: (number | null)[] }[];
}

type UPlot = new (options: object, columns: unknown[], target: PageElement) => unknown;

const FUNCTIONS = [colorAt, lineOptions, drawAll];

/** The script that draws every chart of the page that it stands in. */
export function chartScript(): string {
  return `${FUNCTIONS.map(String).join("\n")}\ndrawAll(document, window, uPlot);`;
}

function colorAt(index: number): string {
  const colors = ["#1f6feb", "#c2410c", "#15803d", "#9333ea", "#b45309", "#0e7490"];
  return colors[index % colors.length] as string;
}

function lineOptions(chart: LineChart, width: number, dim: string, line: string): object {
  const grid = { stroke: line, width: 1 };
  const ticks = (_: unknown, values: (number | null)[]) => values.map(short);
  const value = (_: unknown, one: number | null) => short(one);
  const axis = { stroke: dim, grid, ticks: grid, values: ticks };
  return {
    width,
    height: 270,
    scales: {
      x: { time: false, distr: chart.x.isLog ? 3 : 1 },
      y: chart.y.isLog
        ? { distr: 3 }
        : { range: (_: unknown, __: number, most: number) => [0, most * 1.05] },
    },
    axes: [
      { ...axis, label: chart.x.label },
      { ...axis, label: chart.y.label, size: 62 },
    ],
    series: [
      { label: chart.x.label, value },
      ...chart.series.map(({ label }, index) => ({
        label,
        value,
        stroke: colorAt(index),
        width: 1.5,
        spanGaps: true,
        points: { show: true, size: 5 },
      })),
    ],
  };
}

/** Draws the charts, and again whenever the page's width or its colours change. */
function drawAll(page: PageDocument, view: PageWindow, uPlot: UPlot): void {
  const charts = JSON.parse(page.querySelector("#data")?.textContent ?? "[]") as LineChart[];
  const color = (name: string) =>
    view.getComputedStyle(page.documentElement).getPropertyValue(name).trim();
  const draw = () => {
    for (const chart of charts) {
      const place = page.querySelector(`#chart-${chart.id} div`);
      if (place === null) continue;
      place.replaceChildren();
      const options = lineOptions(chart, place.clientWidth, color("--dim"), color("--line"));
      new uPlot(options, [chart.x.values, ...chart.series.map(({ values }) => values)], place);
    }
  };
  drawAgain(view, draw);
}
