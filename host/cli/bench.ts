/**
 * `flowplane bench`: the canonical benchmark. It stands beside the sources and is loaded only when
 * it is asked for; a package without it says so.
 */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FlowplaneError } from "../errors.ts";
import type { BenchFlags } from "./program.ts";

/** What the benchmark's module offers. */
interface Bench {
  runBench(flags: BenchFlags): Promise<void>;
}

/** @throws {FlowplaneError} when the benchmark is not there */
export async function runBench(flags: BenchFlags): Promise<void> {
  const places = ["../bench/bench.ts", "../bench/bench.js", "../../bench/bench.ts"];
  const found = places
    .map((place) => new URL(place, import.meta.url))
    .find((url) => existsSync(fileURLToPath(url)));
  if (found === undefined) {
    throw new FlowplaneError("bench: the benchmark is not part of this installation");
  }
  const bench = (await import(found.href)) as Bench;
  await bench.runBench(flags);
}
