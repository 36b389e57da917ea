/**
 * The parts of the benchmark that take cores and memory: that they measure what they say, that the
 * law follows its figures, that the page draws them, and what happens where memory is not there.
 * Nothing here looks at how long anything took.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { measureLarge } from "../bench/large.ts";
import { benchPage, chartsOf } from "../bench/page.ts";
import { pageOf, type ReleaseResults, resultsPath } from "../bench/record.ts";
import type { BenchResult, Distribution } from "../bench/result.ts";
import { coresFor, curveOf, serialShare } from "../bench/scaling.ts";
import { createEngine } from "../host/engine/engine.ts";
import { readChartLibrary } from "../host/page/library.ts";
import manifest from "../package.json" with { type: "json" };
import { chromiumOptions } from "./chromium.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "flowplane-parts-"));
const page = join(folder, "bench.html");
let result: BenchResult;
let browser: Browser | undefined;
let leftOut = "";

beforeAll(async () => {
  const parts = ["engine", "workers", "latency", "flows", "compact"];
  const words = ["host/cli/main.ts", "bench", "--smoke", "--part", ...parts, "--html", page];
  const options = { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 26 } as const;
  const printed = execFileSync(process.execPath, [...words, "--json", "--quiet"], options);
  result = JSON.parse(printed) as BenchResult;
  const chosen = chromiumOptions();
  if (typeof chosen === "string") leftOut = chosen;
  else browser = await chromium.launch(chosen);
}, 360_000);

afterAll(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true });
});

function expectOrdered({ count, p50, p90, p99, p999, max, curve }: Distribution): void {
  expect(count).toBeGreaterThan(0);
  const points = [p50, p90, p99, p999, max];
  expect(points).toEqual(points.toSorted((a, b) => a - b));
  expect(curve.map(([, us]) => us)).toEqual(curve.map(([, us]) => us).toSorted((a, b) => a - b));
}

describe("a smoke run of the parts", () => {
  test("has the latency of batches, loads and hand-overs", () => {
    const { batches, loads, handed, echoes } = result.latency as NonNullable<
      BenchResult["latency"]
    >;
    expect(batches.map(({ batch }) => batch)).toEqual([1, 64]);
    expect(loads.map(({ batch, load }) => [batch, load])).toEqual([
      [1, 0.5],
      [64, 0.5],
    ]);
    expect(echoes.map(({ how }) => how)).toEqual(["spinning", "sleeping"]);
    expect(handed.map(({ how }) => how)).toEqual(["spinning", "sleeping"]);
    for (const row of [...batches, ...loads, ...handed, ...echoes]) expectOrdered(row);
    // A loop that does nothing goes on for as long as a batch takes, in as many turns.
    // So does the prototype, in as many batches.
    for (const { machine, prototype, count } of batches) {
      expectOrdered(machine as NonNullable<typeof machine>);
      expectOrdered(prototype as NonNullable<typeof prototype>);
      expect([machine?.count, prototype?.count]).toEqual([count, count]);
    }
    // Every packet has its latency, also those that had to wait.
    for (const { count, load, peakMpps } of loads) {
      expect(count).toBe(Math.floor(peakMpps * 1e3 * load * 20));
    }
  });

  test("has curves of engines and replays, with targets", () => {
    const { curves, goals = [] } = result.scaling as NonNullable<BenchResult["scaling"]>;
    expect(curves).toHaveLength(3);
    expect(goals).toHaveLength(3);
    for (const [index, { value, met, goal, is }] of goals.entries()) {
      const { workers = 1, speedup = 0 } = curves[index]?.points.at(-1) ?? {};
      expect([goal, is]).toEqual([0.9 * workers, "atLeast"]);
      expect(value).toBe(workers > 1 ? speedup : undefined);
      expect(met).toBe(workers > 1 ? speedup >= goal : undefined);
    }
    for (const { points, serial, targets } of curves) {
      expect(points[0]).toMatchObject({ workers: 1, speedup: 1 });
      expect(serial.low).toBeLessThanOrEqual(serial.median);
      expect(serial.median).toBeLessThanOrEqual(serial.high);
      expect(targets.map(({ gbps }) => gbps)).toEqual([100, 1000]);
    }
  });

  test("has as many live flows as it was asked for, and has checked a sample", () => {
    const { goals, rows, pages } = result.large as NonNullable<BenchResult["large"]>;
    expect(goals.map(({ goal, unit }) => [goal, unit])).toEqual([
      [200, "M"],
      [4, "M/s"],
      [4, "x"],
    ]);
    expect(goals[0]).toMatchObject({ reason: "--flows 200M" });
    for (const { met, value = 0, goal, is } of goals.slice(1)) {
      expect(met).toBe(is === "atLeast" ? value >= goal : value <= goal);
    }
    if (pages) {
      for (const cost of [pages.plain, pages.huge]) {
        for (const figure of Object.values(cost)) expect(figure).toBeGreaterThan(0);
      }
    }
    expect(rows.map(({ family }) => family)).toEqual(["IPv4", "IPv4", "IPv6"]);
    // A record, its tag and its index cells, and a fifth more room than flows.
    const bytesOf = { IPv4: 71.4 * 1.2, IPv6: 136 * 1.2 };
    for (const { family, flows, verified, tableBytes, touchSeconds } of rows) {
      expect(touchSeconds).toBeGreaterThan(0);
      expect(flows).toBeGreaterThanOrEqual(25_000);
      expect(verified).toBeGreaterThanOrEqual(512);
      const bytes = bytesOf[family as keyof typeof bytesOf];
      expect(Math.abs(tableBytes / flows - bytes) / bytes).toBeLessThan(0.03);
    }
    const compact = result.compact as NonNullable<BenchResult["compact"]>;
    expect(compact.rows.map(({ family }) => family)).toEqual(["IPv4 compact", "IPv4 compact"]);
    for (const { flows, verified, tableBytes, engines } of compact.rows) {
      expect(flows).toBeGreaterThanOrEqual(100_000);
      expect(verified).toBe(engines * 2 * 4 * 128);
      // Whole addresses, at most 82 % full.
      expect(tableBytes / flows).toBeGreaterThan(33 / 0.82);
    }
  });
});

describe("the law", () => {
  const share = fc.double({ min: 0, max: 0.9, noNaN: true });

  property.prop([share, fc.double({ min: 0.1, max: 100, noNaN: true })])(
    "gives back the share that rates were made with",
    (serial, one) => {
      const counts = [1, 2, 3, 7];
      const rates = counts.map((count) => (one * count) / (1 + serial * (count - 1)));
      expect(serialShare(counts, rates)).toBeCloseTo(serial, 6);
    },
  );

  property.prop([share, fc.double({ min: 1.01, max: 500, noNaN: true })])(
    "says with how many cores a target is met, or that none meet it",
    (serial, times) => {
      const cores = coresFor(times, serial);
      if (cores === undefined) expect(times * serial).toBeGreaterThanOrEqual(1);
      else expect(cores / (1 + serial * (cores - 1))).toBeCloseTo(times, 3);
    },
  );

  test("takes each round for itself", () => {
    const rates = [
      [10, 10, 10],
      [20, 19, 16],
    ];
    const curve = curveOf("x", [1, 2], rates, 1250);
    expect(curve.points[1]).toMatchObject({ workers: 2, mpps: 19, speedup: 1.9 });
    expect(curve.serial.low).toBeCloseTo(0, 9);
    expect(curve.serial.median).toBeCloseTo(2 / 1.9 - 1, 9);
    expect(curve.serial.high).toBeCloseTo(0.25, 9);
    // One worker carries 100 Gbit/s.
    expect(curve.targets[0]).toMatchObject({ gbps: 100, cores: 1 });
    expect(curve.targets[1]?.coresHigh).toBeUndefined();
  });
});

describe("memory that is not there", () => {
  test("is said before the first flow", { timeout: 120_000 }, async () => {
    const free = vi.spyOn(process, "availableMemory").mockReturnValue(2 ** 30);
    try {
      await expect(measureLarge(200e6, () => undefined)).rejects.toThrow(
        /^bench: 200000000 flows take 16.5 GiB of memory, 1.0 GiB are free$/,
      );
      const options = { flowCountMax: 50e6, flow6CountMax: 16, warmUp: false };
      await expect(createEngine(options)).rejects.toThrow(
        /^flowCountMax, flow6CountMax: tables of 357\d{7} bytes, and 1073741824 bytes .* free$/,
      );
    } finally {
      free.mockRestore();
    }
    await expect(measureLarge(1e9, () => undefined)).rejects.toThrow(/more than the 268435455/);
  });

  test("is a RangeError also where the system refuses it", { timeout: 120_000 }, () => {
    const url = pathToFileURL(join(ROOT, "host/engine/engine.ts")).href;
    const program = `import { createEngine } from ${JSON.stringify(url)};
      await createEngine({ flowCountMax: 5e7, flow6CountMax: 16, warmUp: false });`;
    // Eight of the ten GiB that a WebAssembly memory reserves of addresses.
    const script = 'ulimit -v 8388608; exec "$0" --input-type=module -e "$1"';
    // A start from the run's compile cache takes fewer addresses, and the memory may find its place.
    const env = { ...process.env, NODE_DISABLE_COMPILE_CACHE: "1" };
    const words = ["-c", script, process.execPath, program];
    const run = spawnSync("sh", words, { encoding: "utf8", env });
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(
      /RangeError: flowCountMax, flow6CountMax and arenaBytes: more memory/,
    );
  });
});

describe("the page", () => {
  test("has every chart that there are figures for", () => {
    const ids = chartsOf(result).map(({ id }) => id);
    expect(ids).toEqual(["sizes", "workers", "many-flows", "compact-flows", "latency", "batches"]);
    const html = readFileSync(page, "utf8");
    for (const table of ["goals", "many-flows", "capacity", "peers", "machine"]) {
      expect(html).toContain(`id="table-${table}"`);
    }
  });

  test("draws them from a file, without the network", { timeout: 60_000 }, async ({ skip }) => {
    if (browser === undefined) return skip(leftOut);
    const view = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    const [errors, requests]: [string[], string[]] = [[], []];
    view.on("pageerror", (error) => errors.push(error.message));
    view.on("request", (request) => requests.push(request.url()));
    const { href } = pathToFileURL(page);
    await view.goto(href);
    expect(errors).toEqual([]);
    expect(requests).toEqual([href]);
    for (const { id } of chartsOf(result)) {
      const ink = await view.evaluate(`(() => {
        const canvas = document.querySelector("#chart-${id} canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, index) => index % 4 === 3 && value > 0).length;
      })()`);
      expect.soft(ink, id).toBeGreaterThan(500);
    }
    await view.setViewportSize({ width: 400, height: 800 });
    await expect.poll(() => view.evaluate("document.documentElement.scrollWidth")).toBe(400);
    await view.close();
  });
});

describe("recorded results", () => {
  const recorded = JSON.parse(readFileSync(resultsPath(), "utf8")) as ReleaseResults;

  test("stay as they are when parts fail, which are told of", { timeout: 120_000 }, () => {
    const out = join(folder, "results.json");
    writeFileSync(out, JSON.stringify({ ...recorded, engine: undefined }));
    const before = readFileSync(out, "utf8");
    // More flows than any memory holds: both fail before the first.
    const words = ["bench/record.ts", "flows", "compact", "--flows", "2e12", "--out", out];
    const run = spawnSync(process.execPath, words, { cwd: ROOT, encoding: "utf8" });
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(/flows are more than the 268435455 of the generator/);
    expect(run.stderr).toMatch(/flows are more than the 2147483647 of the generator/);
    expect(run.stderr).toMatch(/^not recorded: flows, compact$/m);
    expect(readFileSync(out, "utf8")).toBe(before);
  });

  test("are of this version, each part with its day and its machine", () => {
    expect(recorded.schema).toBe("flowplane.bench-results/1");
    expect(recorded.flowplane).toBe(manifest.version);
    const { workers, latency } = recorded;
    for (const part of [workers, latency]) {
      expect(part?.measured).toMatch(/^\d{4}-\d\d-\d\d$/);
      expect(part?.machine.cores).toBeGreaterThan(0);
    }
  });

  test("make a page", () => {
    const ids = chartsOf(pageOf(recorded)).map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining(["workers", "latency", "batches"]));
  });

  test("stand whole on a page of usual width", async ({ skip }) => {
    if (!browser) return skip(leftOut);
    const view = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    await view.setContent(benchPage(pageOf(recorded), readChartLibrary()));
    const cut = await view.evaluate(`[...document.querySelectorAll(".card")]
      .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth).map(({ id }) => id)`);
    expect(cut).toEqual([]);
    expect(await view.locator("#table-capacity tr").count()).toBeGreaterThan(2);
    await view.close();
  });
});
