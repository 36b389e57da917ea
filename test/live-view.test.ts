/** The views of a lab over made-up snapshots: metrics, dashboard, page, terminal. */
import { mkdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EventLog } from "../host/live/events.ts";
import { labMetrics } from "../host/live/metrics.ts";
import { History } from "../host/live/snapshot.ts";
import { topLines } from "../host/live/top.ts";
import { WebServer } from "../host/live/web.ts";
import { chromiumOptions } from "./chromium.ts";
import { labSnapshot } from "./sample-lab.ts";

const events = new EventLog();
let seconds = 0;
const snapshot = async () => labSnapshot(++seconds);
let web: WebServer;

beforeAll(async () => {
  const scrape = await labMetrics(snapshot, events);
  events.add("endpoint.Connect", { endpoint: "vpce-0a1b2c3d4e5f60718" });
  web = await WebServer.listen({ port: 0, snapshot, scrape, events, intervalMs: 50 });
});
afterAll(() => web.close());

const url = (path: string) => `http://127.0.0.1:${web.port}${path}`;
const textOf = async (path: string) => (await fetch(url(path))).text();

/** Values by name and labels, as Prometheus reads them. */
function parsed(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const match = line.match(/^([a-z_]+(?:\{(?:[a-z]+="[^"]*",?)*\})?) (\S+)$/);
      if (match?.[1] === undefined) throw new Error(`not a sample: ${line}`);
      return [match[1], Number(match[2])];
    }),
  );
}

describe("metrics", () => {
  test("are the snapshot's numbers, again and again", async () => {
    const scrape = await labMetrics(async () => labSnapshot(10), events);
    await scrape();
    const values = parsed((await scrape()).text);
    expect(values.get('flowplane_packets_total{verdict="forward"}')).toBe(19_900);
    expect(values.get("flowplane_up_seconds")).toBe(10);
    const client = 'resource="nlb-1",kind="load-balancer",vpc="provider",from="client"';
    expect(values.get(`flowplane_resource_packets_total{${client}}`)).toBe(10_000);
    expect(values.get('flowplane_targets{group="web",state="unhealthy"}')).toBe(1);
    const target = 'group="web",target="[fd00::11]:8080",zone="use1-az2"';
    expect(values.get(`flowplane_target_healthy{${target}}`)).toBe(0);
    expect(values.get('flowplane_worker_cpu_seconds_total{mode="user"}')).toBeCloseTo(0.4);
    expect(values.get('flowplane_node_up{node="1"}')).toBe(0);
    expect(values.get('flowplane_decisions_total{outcome="adopted"}')).toBe(7);
    const verdicts = [...values].filter(([name]) => name.startsWith("flowplane_packets_total"));
    expect(verdicts.reduce((sum, [, packets]) => sum + packets, 0)).toBe(20_000);
  });

  test("have types and help, and names as Prometheus wants them", async () => {
    const text = await textOf("/metrics");
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [
      name,
      type,
    ]);
    expect(types.length).toBeGreaterThan(15);
    for (const [name, type] of types) {
      expect(name?.endsWith("_total"), name).toBe(type === "counter");
      expect(text).toMatch(new RegExp(`^# HELP ${name} [A-Z0-9].+\\.$`, "m"));
    }
    expect(text).toContain('flowplane_events_total{kind="endpoint.Connect"} 1');
  });
});

describe("the Grafana dashboard", () => {
  interface Panel {
    title: string;
    targets: { expr: string; legendFormat: string }[];
  }
  const file = new URL("../fixtures/grafana/lab.json", import.meta.url);
  const { panels } = JSON.parse(readFileSync(file, "utf8")) as { panels: Panel[] };
  const queries = panels.flatMap(({ targets }) => targets);

  test("names only metrics and labels that there are, and leaves none out", async () => {
    const samples = [...parsed(await textOf("/metrics")).keys()];
    const labelsOf = (metric: string) =>
      samples
        .filter((sample) => sample.split("{")[0] === metric)
        .flatMap((sample) => [...sample.matchAll(/([a-z]+)=/g)].map(([, label]) => label));
    expect(queries.length).toBeGreaterThan(15);
    for (const { expr, legendFormat } of queries) {
      const names = expr.match(/flowplane_[a-z_]+/g) ?? [];
      expect(names.length, expr).toBeGreaterThan(0);
      const labels = names.flatMap(labelsOf);
      const used = [
        ...(expr.match(/by \(([^)]*)\)/)?.[1]?.split(", ") ?? []),
        ...[...expr.matchAll(/([a-z]+)!?=~?"/g)].map(([, label]) => label),
        ...[...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label),
      ];
      expect(samples.map((sample) => sample.split("{")[0])).toEqual(expect.arrayContaining(names));
      expect(labels, expr).toEqual(expect.arrayContaining(used));
    }
    const shown = queries.map(({ expr }) => expr).join(" ");
    const all = new Set(samples.map((sample) => sample.split("{")[0] ?? ""));
    expect([...all].filter((name) => !shown.includes(name))).toEqual([]);
  });
});

describe("the web server", () => {
  test("shows and changes nothing", async () => {
    expect(await (await fetch(url("/snapshot.json"))).json()).toMatchObject({ lab: "demo" });
    expect((await fetch(url("/"), { method: "POST" })).status).toBe(405);
    for (const path of ["/nothing", "//", "//nothing?x"]) {
      expect((await fetch(url(path))).status).toBe(404);
    }
    expect((await fetch(url("/snapshot.json?x"))).status).toBe(200);
  });

  test("answers HEAD as GET, without what GET would show", async () => {
    for (const path of ["/", "/metrics", "/snapshot.json", "/events", "/nothing"]) {
      const [got, head] = await Promise.all(
        ["GET", "HEAD"].map(async (method) => {
          const signal = AbortSignal.timeout(5000);
          const { status, headers, body } = await fetch(url(path), { method, signal });
          if (method === "GET") await body?.cancel();
          else expect(body).toBeNull();
          return { status, type: headers.get("content-type"), cache: headers.get("cache-control") };
        }),
      );
      expect(head, path).toEqual(got);
    }
    const refused = await fetch(url("/"), { method: "POST" });
    expect(refused.headers.get("allow")).toBe("GET, HEAD");
  });

  test("answers to its own names only, so that no foreign page can read it", async () => {
    const status = await new Promise((resolve) => {
      const headers = { Host: "attacker.example" };
      const asked = request(
        { host: "127.0.0.1", port: web.port, path: "/", headers },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      asked.end();
    });
    expect(status).toBe(421);
  });

  test("no more than 32 pages follow", async () => {
    const stop = new AbortController();
    const all = Array.from({ length: 33 }, () => fetch(url("/events"), { signal: stop.signal }));
    const statuses = (await Promise.all(all)).map(({ status }) => status);
    expect(statuses.toSorted()).toEqual([...Array(32).fill(200), 503]);
    stop.abort();
  });
});

describe("the page in a browser", () => {
  let browser: Browser | undefined;
  let leftOut = "";
  beforeAll(async () => {
    const options = chromiumOptions();
    if (typeof options === "string") leftOut = options;
    else browser = await chromium.launch(options);
  }, 360_000);
  afterAll(() => browser?.close());

  test.for(["light", "dark"] as const)(
    "lives, on %s",
    { timeout: 60_000 },
    async (scheme, { skip }) => {
      if (browser === undefined) return skip(leftOut);
      const viewport = { width: 1200, height: 1000 };
      const page = await browser.newPage({ viewport, colorScheme: scheme });
      const errors: string[] = [];
      const requests = new Set<string>();
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => errors.push(message.text()));
      page.on("request", (asked) => requests.add(new URL(asked.url()).pathname));
      await page.goto(url("/"));
      await page.waitForFunction('document.querySelector("#status").textContent === "live"');
      await expect.poll(() => page.textContent("#figure-rate")).toBe("10 Mbit/s");
      expect(await page.textContent("#figure-targets")).toBe("1 of 2");
      expect(await page.textContent("#table-targets")).toContain("Request timed out <script>");
      expect(await page.textContent("#table-endpoints")).toContain("vpce-0a1b2c3d4e5f60718");
      expect(await page.locator("#map path").count()).toBe(4);
      expect(await page.textContent("#map")).toContain("nlb-1");
      for (const chart of ["traffic", "flows", "latency", "load"]) {
        const canvas = `document.querySelector("#chart-${chart} canvas")`;
        const ink = `(() => { const canvas = ${canvas};
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, index) => index % 4 === 3 && value > 0).length; })()`;
        await expect.poll(() => page.evaluate(ink), { message: chart }).toBeGreaterThan(500);
      }
      events.add("endpoint.Accept", { endpoint: `vpce-${scheme}` });
      await expect.poll(() => page.textContent("#table-events")).toContain(`vpce-${scheme}`);
      mkdirSync(new URL("../build/", import.meta.url), { recursive: true });
      const path = new URL(`../build/lab-${scheme}.png`, import.meta.url).pathname;
      await page.screenshot({ path, fullPage: true });
      expect(errors).toEqual([]);
      expect([...requests].toSorted()).toEqual(["/", "/events"]);
      await page.setViewportSize({ width: 400, height: 800 });
      await expect.poll(() => page.evaluate("document.documentElement.scrollWidth")).toBe(400);
      await page.close();
    },
  );
});

describe("the terminal view", () => {
  function lines(columns: number, rows: number, isColored = false): string[] {
    const history = new History();
    for (const second of [1, 2, 3]) history.add(labSnapshot(second));
    return topLines(labSnapshot(3), history, { columns, rows, isColored });
  }

  test("is a table of everything, as wide and long as the window", () => {
    const all = lines(120, 50);
    expect(all.slice(0, 3)).toEqual([
      "lab demo, up 3 s, CPU 10.0 % (0.3 s in all)",
      "10 Mbit/s  2 kpackets/s  10 drops/s (30 in all)",
      "flows 84 (most 90), 20 new/s, 60 in all",
    ]);
    expect(all).toContain(
      "web    [fd00::11]:8080  use1-az2  unhealthy  Request timed out <script>",
    );
    const small = lines(40, 6);
    expect(small).toHaveLength(6);
    expect(Math.max(...small.map(({ length }) => length))).toBe(40);
  });

  test("colours states, and nothing else changes", () => {
    const ESC = String.fromCharCode(27);
    const plain = lines(120, 50);
    const colored = lines(120, 50, true);
    const bare = colored.map((line) => line.replaceAll(new RegExp(`${ESC}\\[\\d+m`, "g"), ""));
    expect(bare).toEqual(plain);
    expect(colored.join("")).toContain(`${ESC}[31munhealthy`);
    expect(colored.join("")).toContain(`${ESC}[32mhealthy`);
  });
});
