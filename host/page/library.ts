/**
 * The charting library of the pages, from the installed package.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { ChartLibrary } from "./document.ts";

export function readChartLibrary(): ChartLibrary {
  const require = createRequire(import.meta.url);
  const text = (name: string) => readFileSync(require.resolve(`uplot/dist/${name}`), "utf8");
  return { js: text("uPlot.iife.min.js"), css: text("uPlot.min.css") };
}
