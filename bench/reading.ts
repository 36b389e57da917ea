/**
 * Why workers of a replay read the capture each for itself: what two threads on two cores spend on a
 * packet of IMIX when each reads all of it, when they share one reading, and when they map the file.
 * `node bench/reading.ts`; needs gcc and two cores.
 *
 * The program is bench/c/reading.c; all ways must have read the same. They take turns, and of each the
 * round with the median total counts, beside the least and the most. Beside them the engine's walk over
 * the same capture, on one thread: all frames, and one of two workers' alone.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createEngine } from "../host/engine/engine.ts";
import { selectAlways } from "../host/engine/selection.ts";
import { writeImix } from "./imix.ts";
import { sampleOf } from "./measure.ts";
import { walkParts } from "./walk.ts";

const ROUNDS = 9;
const FILE_BYTES = 200_000_000;
const SOURCE = fileURLToPath(new URL("c/reading.c", import.meta.url));
const WAYS = {
  each: "each reads all",
  turns: "one reading for both",
  mapped: "each maps the file",
};

/** What a record takes in the engine's walk: medians of parts, of each round, from the least. */
interface Walked {
  allNs: number[];
  ownNs: number[];
}

interface Measured {
  spent: Map<string, Spent[]>;
  walked: Walked;
}

interface Spent {
  readNs: number;
  walkNs: number;
  /** Per frame, of those that the thread's own core has read, and the other one. */
  ownNs: number;
  otherNs: number;
  /** Of all headers, which is the same whoever has read them. */
  sum: string;
}

/** What each of the two threads spends on a packet of the capture. */
export function totalNs({ readNs, walkNs, ownNs, otherNs }: Spent): number {
  if (otherNs === 0) return readNs + walkNs + ownNs / 2;
  return (readNs + walkNs) / 2 + (ownNs + otherNs) / 4;
}

async function walker(isSelecting: boolean) {
  const engine = await createEngine({ flowCountMax: 1024, warmUp: false });
  if (isSelecting)
    selectAlways(engine.exports, { worker: 0, workers: 2 }, Number.POSITIVE_INFINITY);
  return (capture: string, count: number) => {
    const { ns, packets } = walkParts(capture, engine);
    if (packets !== count) throw new Error(`bench: the walk has seen ${packets} of ${count}`);
    return sampleOf(ns).median;
  };
}

/**
 * Builds the program and measures: `rounds` rounds over a capture of `fileBytes` bytes, those of each
 * way in the order of their totals.
 */
export async function measureReading(rounds: number, fileBytes: number): Promise<Measured> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "flowplane-reading-"));
  try {
    const program = path.join(folder, "reading");
    const warnings = ["-Wall", "-Wextra", "-Werror"];
    const words = ["-O3", "-march=native", "-pthread", ...warnings, "-o", program, SOURCE];
    execFileSync("gcc", words, { stdio: "inherit" });
    const capture = path.join(folder, "imix.pcap");
    const count = writeImix(capture, fileBytes);
    const [all, own] = await Promise.all([walker(false), walker(true)]);
    const spent = new Map(Object.keys(WAYS).map((way): [string, Spent[]] => [way, []]));
    const walked: Walked = { allNs: [], ownNs: [] };
    for (let round = 0; round < rounds; round++) {
      for (const [way, list] of spent) {
        list.push(JSON.parse(execFileSync(program, [capture, way], { encoding: "utf8" })));
      }
      walked.allNs.push(all(capture, count));
      walked.ownNs.push(own(capture, count));
    }
    const sums = new Set([...spent.values()].flat().map(({ sum }) => sum));
    if (sums.size !== 1) throw new Error(`bench: ways of reading differ: ${[...sums].join(", ")}`);
    for (const list of spent.values()) list.sort((a, b) => totalNs(a) - totalNs(b));
    for (const list of [walked.allNs, walked.ownNs]) list.sort((a, b) => a - b);
    return { spent, walked };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function print({ spent, walked }: Measured): void {
  const row = (name: string, values: string[]) => {
    console.log(`${name.padEnd(22)}${values.map((value) => value.padStart(10)).join("")}`);
  };
  row("Two threads, ns", ["read", "walk", "own", "other's", "a packet", "least", "most"]);
  for (const [way, list] of spent) {
    const one = list[list.length >> 1] as Spent;
    const { readNs, walkNs, ownNs, otherNs } = one;
    const totals = [one, list[0] as Spent, list.at(-1) as Spent].map(totalNs);
    const values = [readNs, walkNs, ownNs, otherNs, ...totals].map((ns) => ns.toFixed(1));
    if (otherNs === 0) values[3] = "-";
    row(WAYS[way as keyof typeof WAYS], values);
  }
  console.log("The engine's walk in WebAssembly, one thread");
  for (const [name, list] of [
    ["all frames", walked.allNs],
    ["one of two workers'", walked.ownNs],
  ] as const) {
    const [least, most] = [list[0] as number, list.at(-1) as number];
    const walk = (list[list.length >> 1] as number).toFixed(1);
    row(name, ["-", walk, "-", "-", "-", least.toFixed(1), most.toFixed(1)]);
  }
}

if (import.meta.main) {
  if (os.availableParallelism() < 2) console.log("bench: reading: skipped, there is one core");
  else print(await measureReading(ROUNDS, FILE_BYTES));
}
