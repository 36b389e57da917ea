/**
 * The part of the HTML report that runs in the browser. Its functions are written into the page
 * as their own source text (`pageScript`), so they may use nothing but each other: no imports, no
 * constants from outside. `startPage` is called with the browser's document, window and uPlot.
 */

import type {
  drawAgain as DrawAgain,
  PageDocument,
  PageElement,
  PageWindow,
  short as Short,
} from "../page/browser.ts";

declare const short: typeof Short;
declare const drawAgain: typeof DrawAgain;

/** What the page draws; all arrays of one chart run in parallel. */
export interface PageData {
  seconds: number[];
  bitsPerSecond: number[];
  packetsPerSecond: number[];
  flowsActive: number[];
  flowsPerSecond: number[];
  sizeNames: string[];
  sizes: number[];
  verdictNames: string[];
  verdicts: number[];
  targetNames: string[];
  targetCores: number[];
  cores: number;
}

interface UPlot {
  new (options: object, columns: unknown[], target: PageElement): unknown;
  paths: { bars(options: object): unknown };
}

/** The colours of the page's style sheet, light or dark. */
interface Colors {
  dim: string;
  line: string;
  first: string;
  second: string;
}

interface Series {
  label: string;
  color: string;
  values: number[];
}

type Chart = [options: object, columns: unknown[]];

const FUNCTIONS = [axis, course, bars, barScale, charts, startPage];

/** The script that draws every chart of the page that it stands in. */
export function pageScript(): string {
  return `${FUNCTIONS.map(String).join("\n")}\nstartPage(document, window, uPlot);`;
}

function axis(colors: Colors, more: object): object {
  const line = { stroke: colors.line, width: 1 };
  return { stroke: colors.dim, grid: line, ticks: line, ...more };
}

/** Two quantities over the capture's clock, each with its own axis that begins at zero. */
function course(colors: Colors, seconds: number[], left: Series, right: Series) {
  const fromZero = (_: unknown, __: number, most: number) => [0, most > 0 ? most * 1.05 : 1];
  const line = ({ label, color, values }: Series, scale: string) => ({
    label,
    scale,
    stroke: color,
    width: 1.5,
    points: { show: values.length < 40 },
    value: (_: unknown, value: number | null) => short(value),
  });
  const side = ({ label, color }: Series, scale: string, place: number) =>
    axis(colors, {
      scale,
      label,
      side: place,
      size: 62,
      stroke: color,
      grid: { show: place === 3, stroke: colors.line, width: 1 },
      values: (_: unknown, ticks: number[]) => ticks.map(short),
    });
  return (width: number): Chart => [
    {
      width,
      height: 250,
      scales: { x: { time: false }, left: { range: fromZero }, right: { range: fromZero } },
      series: [
        { label: "second", value: (_: unknown, value: number | null) => short(value) },
        line(left, "left"),
        line(right, "right"),
      ],
      axes: [
        axis(colors, { label: "seconds of the capture" }),
        side(left, "left", 3),
        side(right, "right", 1),
      ],
    },
    [seconds, left.values, right.values],
  ];
}

/** Decades that hold all the values: bars stand on a logarithmic scale, rare things count. */
function barScale(values: number[]): [least: number, most: number] {
  const present = values.filter((value) => value > 0);
  const least = Math.min(1, ...present);
  const most = Math.max(1, ...present);
  return [10 ** (Math.floor(Math.log10(least)) - 0.5), 10 ** (Math.log10(most) + 0.3)];
}

/** One bar for each name; `level`, where given, is drawn across all of them. */
function bars(
  uPlot: UPlot,
  colors: Colors,
  names: string[],
  series: Series,
  level: Series | undefined,
) {
  const places = names.map((_, index) => index);
  const columns = [places, series.values.map((value) => (value > 0 ? value : null))];
  const drawn: object[] = [
    { label: "bar", value: (_: unknown, index: number | null) => names[index ?? -1] ?? "" },
    {
      label: series.label,
      stroke: series.color,
      fill: `${series.color}99`,
      paths: uPlot.paths.bars({ size: [0.7, 90] }),
      points: { show: false },
      value: (_: unknown, value: number | null) => short(value),
    },
  ];
  if (level) {
    drawn.push({
      label: level.label,
      stroke: level.color,
      width: 1.5,
      dash: [6, 4],
      points: { show: false },
      value: (_: unknown, value: number | null) => short(value),
    });
    columns.push(level.values);
  }
  const range = barScale([...series.values, ...(level?.values ?? [])]);
  const letters = Math.max(...names.map((name) => name.length));
  const decades: number[] = [];
  for (let power = Math.ceil(Math.log10(range[0])); 10 ** power <= range[1]; power += 1) {
    decades.push(10 ** power);
  }
  return (width: number): Chart => {
    const crowded = letters * names.length * 8 > width - 62;
    return [
      {
        width,
        height: 250,
        scales: {
          x: { time: false, range: [-0.6, names.length - 0.4] },
          y: { distr: 3, log: 10, range },
        },
        series: drawn,
        axes: [
          axis(colors, {
            splits: () => places,
            values: () => names,
            grid: { show: false },
            rotate: crowded ? -30 : 0,
            size: crowded ? 26 + letters * 4 : 34,
          }),
          axis(colors, { size: 62, splits: () => decades, values: () => decades.map(short) }),
        ],
      },
      columns,
    ];
  };
}

/** Every chart by the id of its place. */
function charts(data: PageData, colors: Colors, uPlot: UPlot) {
  const { first, second } = colors;
  return {
    throughput: course(
      colors,
      data.seconds,
      { label: "bit/s", color: first, values: data.bitsPerSecond },
      { label: "packets/s", color: second, values: data.packetsPerSecond },
    ),
    flows: course(
      colors,
      data.seconds,
      { label: "flows", color: first, values: data.flowsActive },
      { label: "new flows/s", color: second, values: data.flowsPerSecond },
    ),
    sizes: bars(
      uPlot,
      colors,
      data.sizeNames,
      { label: "frames", color: first, values: data.sizes },
      undefined,
    ),
    verdicts: bars(
      uPlot,
      colors,
      data.verdictNames,
      { label: "packets", color: first, values: data.verdicts },
      undefined,
    ),
    capacity: bars(
      uPlot,
      colors,
      data.targetNames,
      { label: "cores needed", color: first, values: data.targetCores },
      {
        label: "cores of this machine",
        color: second,
        values: data.targetNames.map(() => data.cores),
      },
    ),
  };
}

/** Draws the charts, and again whenever the page's width or its colours change. */
function startPage(page: PageDocument, view: PageWindow, uPlot: UPlot): void {
  const data = JSON.parse(page.querySelector("#data")?.textContent ?? "{}") as PageData;
  const color = (name: string) =>
    view.getComputedStyle(page.documentElement).getPropertyValue(name).trim();
  const draw = () => {
    const colors = {
      dim: color("--dim"),
      line: color("--line"),
      first: color("--first"),
      second: color("--second"),
    };
    for (const [id, chart] of Object.entries(charts(data, colors, uPlot))) {
      const place = page.querySelector(`#chart-${id} div`);
      if (place === null) continue;
      place.replaceChildren();
      const [options, columns] = chart(place.clientWidth);
      new uPlot(options, columns, place);
    }
  };
  drawAgain(view, draw);
}
