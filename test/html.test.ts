import { mkdirSync, writeFileSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readChartLibrary } from "../host/page/library.ts";
import { htmlReport } from "../host/report/html.ts";
import { chromiumOptions } from "./chromium.ts";
import { sampleResult, sampleTimeline } from "./sample.ts";

const BUILD = new URL("../build/", import.meta.url);
const CHARTS = ["throughput", "flows", "sizes", "verdicts", "capacity"];

let browser: Browser | undefined;
let leftOut = "";

beforeAll(async () => {
  const options = chromiumOptions();
  if (typeof options === "string") leftOut = options;
  else browser = await chromium.launch(options);
}, 360_000);

afterAll(() => browser?.close());

function samplePage(): URL {
  const page = htmlReport(sampleResult(), sampleTimeline(), readChartLibrary());
  mkdirSync(BUILD, { recursive: true });
  const file = new URL("report.html", BUILD);
  writeFileSync(file, page);
  return file;
}

test.for(["light", "dark"] as const)(
  "the page draws five charts from a file, without the network, on %s",
  { timeout: 60_000 },
  async (colorScheme, { skip }) => {
    if (browser === undefined) return skip(leftOut);
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, colorScheme });
    const errors: string[] = [];
    const requests: string[] = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => errors.push(message.text()));
    page.on("request", (request) => requests.push(request.url()));
    const file = samplePage();
    await page.goto(file.href);
    await page.screenshot({
      path: new URL(`report-${colorScheme}.png`, BUILD).pathname,
      fullPage: true,
    });
    expect(errors).toEqual([]);
    expect(requests).toEqual([file.href]);
    for (const chart of CHARTS) {
      expect.soft(await inkOf(page, chart), chart).toBeGreaterThan(500);
    }
    expect(await page.textContent("#table-verdicts")).toContain("drop.truncated");
    expect(await page.textContent("#table-capacity")).toContain("1 Tbit/s");
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(1200);
    await page.close();
  },
);

test("the page fits a narrow window, and charts follow its width", async ({ skip }) => {
  if (browser === undefined) return skip(leftOut);
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  await page.goto(samplePage().href);
  await page.setViewportSize({ width: 400, height: 800 });
  await expect.poll(() => page.evaluate("document.documentElement.scrollWidth")).toBe(400);
  expect(await page.locator("canvas").count()).toBe(CHARTS.length);
  await page.close();
});

/** Pixels of a chart that are not transparent: axes, lines and bars. */
function inkOf(page: import("playwright-core").Page, chart: string): Promise<number> {
  return page.evaluate(`(() => {
    const canvas = document.querySelector("#chart-${chart} canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, index) => index % 4 === 3 && value > 0).length;
  })()`);
}
