/**
 * The part of the lab's page that runs in the browser. Its functions are written into the page as
 * their own source text (`liveScript`), so they may use nothing but each other: no imports, no
 * constants from outside. Every text of the lab gets into the page as text, never as markup.
 */

import type { PageWindow, short as Short } from "../page/browser.ts";
import type { LiveEvent } from "./events.ts";
import type { LiveSnapshot, Sample, Talk } from "./snapshot.ts";

declare const short: typeof Short;

// The little of a browser that the page needs; the project compiles without its DOM types.
interface Element {
  textContent: string | null;
  className: string;
  clientWidth: number;
  append(...parts: (Element | string)[]): void;
  replaceChildren(...parts: Element[]): void;
  setAttribute(name: string, value: string): void;
}

interface Document {
  querySelector(selector: string): Element | null;
  createElement(name: string): Element;
  createElementNS(space: string, name: string): Element;
  documentElement: Element;
}

interface Source {
  addEventListener(type: string, listener: (message: { data: string }) => void): void;
  onerror: (() => void) | null;
}

interface Chart {
  setData(columns: unknown[]): void;
  setSize(size: { width: number; height: number }): void;
  destroy(): void;
}

interface Browser {
  document: Document;
  window: PageWindow;
  EventSource: new (url: string) => Source;
  uPlot: new (options: object, columns: unknown[], target: Element) => Chart;
}

interface Line {
  label: string;
  color: string;
  of: (sample: Sample) => number | null;
}

/** What the page remembers between two messages. */
interface State {
  samples: Sample[];
  events: LiveEvent[];
}

const FUNCTIONS = [
  amount,
  age,
  table,
  figures,
  tables,
  eventRows,
  talkMap,
  nodeLabel,
  chartOf,
  charts,
  startPage,
];

/** The script that keeps the page that it stands in up to date. */
export function liveScript(): string {
  return `${FUNCTIONS.map(String).join("\n")}\nstartPage({ document, window, EventSource, uPlot });`;
}

/** A number with a unit: 10 Mbit/s. */
function amount(value: number, unit: string): string {
  return short(value).replace(/[A-Z]?$/i, (prefix) => ` ${prefix}${unit}`);
}

function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 3600), "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  return parts
    .filter(([count], at) => count > 0 || at === 2)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** Fills the body of a table; a cell is text, or text with a class. */
function table(document: Document, id: string, rows: (string | [string, string])[][]): void {
  const body = document.querySelector(`#table-${id} tbody`);
  body?.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      for (const cell of cells) {
        const [text, look] = typeof cell === "string" ? [cell, ""] : cell;
        const element = document.createElement("td");
        element.textContent = text;
        element.className = look;
        row.append(element);
      }
      return row;
    }),
  );
}

function figures(document: Document, snapshot: LiveSnapshot, sample: Sample | undefined): void {
  const healthy = snapshot.targets.filter(({ state }) => state === "healthy").length;
  const available = snapshot.endpoints.filter(({ state }) => state === "available").length;
  const drops = Object.entries(snapshot.verdicts)
    .filter(([name]) => name.startsWith("drop."))
    .reduce((sum, [, count]) => sum + count, 0);
  const values: Record<string, string> = {
    rate: amount(sample?.bitsPerSecond ?? 0, "bit/s"),
    packets: `${short(sample?.packetsPerSecond ?? 0)}/s`,
    flows: short(snapshot.flows.active),
    drops: short(drops),
    targets: `${healthy} of ${snapshot.targets.length}`,
    endpoints: `${available} of ${snapshot.endpoints.length}`,
  };
  for (const [name, value] of Object.entries(values)) {
    const element = document.querySelector(`#figure-${name}`);
    if (element) element.textContent = value;
  }
  const subtitle = document.querySelector("#subtitle");
  if (subtitle) subtitle.textContent = `up for ${age(snapshot.timeMs - snapshot.startedMs)}`;
}

function tables(document: Document, snapshot: LiveSnapshot): void {
  const good = ["healthy", "available"];
  const look = (state: string) => (good.includes(state) ? "good" : "bad");
  table(
    document,
    "targets",
    snapshot.targets.map(({ group, address, port, zone, state, ...more }) => [
      group,
      address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`,
      zone,
      [state, look(state)],
      more.description ?? more.reason ?? "",
      more.checkMilliseconds === undefined ? "" : `${short(more.checkMilliseconds)} ms`,
    ]),
  );
  table(
    document,
    "endpoints",
    snapshot.endpoints.map(({ id, service, vpc, state, addresses }) => [
      id,
      service,
      vpc,
      [state, look(state)],
      addresses.join(" "),
    ]),
  );
  table(
    document,
    "resources",
    snapshot.resources.map((one) => [
      one.id,
      one.kind,
      one.vpc,
      short(one.packetsFromClient + one.packetsFromService),
      amount(one.bytesFromClient + one.bytesFromService, "B"),
      short(one.flowsActive),
      short(one.flowsCreated),
    ]),
  );
  table(
    document,
    "verdicts",
    Object.entries(snapshot.verdicts)
      .filter(([, packets]) => packets > 0)
      .map(([name, packets]) => [name, short(packets)]),
  );
}

function eventRows(document: Document, events: LiveEvent[]): void {
  const rows = events.map(({ schema, number, time, kind, ...details }) => {
    // What is nested is for programs.
    const words = Object.entries(details)
      .filter(([, value]) => typeof value !== "object" && value !== "")
      .map(([name, value]) => `${name} ${value}`);
    return [time.slice(11, 19), kind, words.join(", ")];
  });
  table(document, "events", rows.toReversed());
}

/** Clients, the resources between, and services as three columns with lines between them. */
function talkMap(document: Document, talks: Talk[]): void {
  const most = talks.toSorted((a, b) => b.bytes - a.bytes).slice(0, 40);
  const columns = [
    [...new Set(most.map(({ clientVpc, client }) => `${clientVpc} ${client}`))],
    [...new Set(most.map(({ via }) => via))],
    [...new Set(most.map(({ service, servicePort }) => `${service} ${servicePort}`))],
  ];
  const rows = Math.max(1, ...columns.map(({ length }) => length));
  const height = 34 * rows + 16;
  const make = (name: string, attributes: Record<string, string | number>) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, `${value}`);
    return element;
  };
  const xOf = [10, 400, 790];
  const yOf = (column: number, name: string) => {
    const names = columns[column] ?? [];
    return ((names.indexOf(name) + 0.5) * height) / Math.max(1, names.length);
  };
  const svg = make("svg", { viewBox: `0 0 1000 ${height}`, role: "img" });
  for (const talk of most) {
    const places = [
      `${talk.clientVpc} ${talk.client}`,
      talk.via,
      `${talk.service} ${talk.servicePort}`,
    ].map((name, column) => [xOf[column] ?? 0, yOf(column, name)] as const);
    for (const at of [0, 1]) {
      const [[x1, y1] = [0, 0], [x2, y2] = [0, 0]] = [places[at], places[at + 1]];
      const from = x1 + 200;
      const middle = (from + x2) / 2;
      const path = `M${from},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2}`;
      const width = Math.max(1, Math.min(8, Math.log10(talk.bytes + 1)));
      svg.append(make("path", { d: path, class: "edge", "stroke-width": width }));
    }
  }
  for (const [column, names] of columns.entries()) {
    for (const name of names) {
      const [x, y] = [xOf[column] ?? 0, yOf(column, name)];
      svg.append(make("rect", { x, y: y - 12, width: 200, height: 24, rx: 5, class: "node" }));
      const text = make("text", { x: x + 10, y: y + 4 });
      text.textContent = nodeLabel(name);
      svg.append(text);
    }
  }
  document.querySelector("#map")?.replaceChildren(svg);
}

function nodeLabel(name: string): string {
  return name.length > 30 ? `${name.slice(0, 29)}…` : name;
}

/** A chart over time with one or two lines, each with its own axis. */
function chartOf(browser: Browser, id: string, lines: Line[]): (samples: Sample[]) => void {
  const { document, window, uPlot } = browser;
  const target = document.querySelector(`#chart-${id} div`);
  if (!target) return () => undefined;
  let chart: Chart | undefined;
  let columns: unknown[] = [[], ...lines.map(() => [])];
  const make = () => {
    chart?.destroy();
    const style = window.getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const range = (room: number) => (_: unknown, __: number, most: number) => {
      return [0, most > 0 ? most * room : 1];
    };
    const clock = (_: unknown, ticks: number[]) =>
      ticks.map((seconds) => new Date(1000 * seconds).toISOString().slice(11, 19));
    const line = { stroke: color("--line"), width: 1 };
    const options = {
      width: target.clientWidth,
      height: 190,
      scales: Object.fromEntries(
        // Room of its own for each, so that steady lines do not lie upon each other.
        lines.map(({ label }, at) => [label, { range: range(1.1 + 0.2 * at) }]),
      ),
      series: [
        { value: (_: unknown, at: number | null) => (at === null ? "" : clock(_, [at])[0]) },
        ...lines.map(({ label, color: name }) => ({
          label,
          scale: label,
          stroke: color(name),
          width: 1.5,
          points: { show: false },
          value: (_: unknown, value: number | null) => short(value),
        })),
      ],
      axes: [
        { stroke: color("--dim"), grid: line, ticks: line, values: clock, space: 80 },
        ...lines.map(({ label, color: name }, at) => ({
          scale: label,
          side: at === 0 ? 3 : 1,
          size: 56,
          stroke: color(name),
          grid: { ...line, show: at === 0 },
          ticks: line,
          values: (_: unknown, ticks: number[]) => ticks.map(short),
        })),
      ],
    };
    chart = new uPlot(options, columns, target);
  };
  make();
  window.addEventListener("resize", () => {
    chart?.setSize({ width: target.clientWidth, height: 190 });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", make);
  return (samples) => {
    const seconds = samples.map(({ timeMs }) => timeMs / 1000);
    columns = [seconds, ...lines.map(({ of }) => samples.map(of))];
    chart?.setData(columns);
  };
}

function charts(browser: Browser): (samples: Sample[]) => void {
  const [first, second] = ["--first", "--second"] as const;
  const all = [
    chartOf(browser, "traffic", [
      { label: "bit/s", color: first, of: ({ bitsPerSecond }) => bitsPerSecond },
      { label: "packets/s", color: second, of: ({ packetsPerSecond }) => packetsPerSecond },
    ]),
    chartOf(browser, "flows", [
      { label: "flows", color: first, of: ({ flowsActive }) => flowsActive },
      { label: "new/s", color: second, of: ({ flowsPerSecond }) => flowsPerSecond },
    ]),
    chartOf(browser, "latency", [
      { label: "median ms", color: first, of: ({ checkMedianMs }) => checkMedianMs },
      { label: "longest ms", color: second, of: ({ checkMostMs }) => checkMostMs },
    ]),
    chartOf(browser, "load", [
      { label: "% of a core", color: first, of: ({ cpuPercent }) => cpuPercent },
      { label: "drops/s", color: second, of: ({ dropsPerSecond }) => dropsPerSecond },
    ]),
  ];
  return (samples) => {
    for (const draw of all) draw(samples);
  };
}

/** Follows the lab: history once, then a snapshot a second and every event. */
function startPage(browser: Browser): void {
  const { document } = browser;
  const draw = charts(browser);
  const state: State = { samples: [], events: [] };
  const show = (snapshot: LiveSnapshot | undefined) => {
    draw(state.samples);
    if (!snapshot) return;
    figures(document, snapshot, state.samples.at(-1));
    tables(document, snapshot);
    talkMap(document, snapshot.talks);
  };
  const status = (text: string) => {
    const element = document.querySelector("#status");
    if (element) element.textContent = text;
  };
  const source = new browser.EventSource("/events");
  source.addEventListener("history", ({ data }) => {
    const history = JSON.parse(data) as State & { snapshot?: LiveSnapshot };
    state.samples = history.samples;
    state.events = history.events;
    status("live");
    show(history.snapshot);
    eventRows(document, state.events);
  });
  source.addEventListener("snapshot", ({ data }) => {
    const { snapshot, sample } = JSON.parse(data) as { snapshot: LiveSnapshot; sample?: Sample };
    if (sample) state.samples = [...state.samples, sample].slice(-300);
    show(snapshot);
  });
  source.addEventListener("event", ({ data }) => {
    state.events = [...state.events, JSON.parse(data) as LiveEvent].slice(-50);
    eventRows(document, state.events);
  });
  source.onerror = () => status("the lab does not answer");
}
