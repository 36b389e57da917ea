/**
 * The canonical benchmark: `flowplane bench`. Everything that is compared runs within one run, in
 * turns. A smaller run (`--smoke`) takes the same way with less of everything; a larger one
 * (`--full`) adds a table of 50 M flows and a capture of 1 GB. What the output is, is checked on
 * the way: a wrong translation or digests that differ end the run with an error.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { BenchFlags } from "../host/cli/program.ts";
import { Terminal } from "../host/cli/terminal.ts";
import { jsonReport } from "../host/report/json.ts";
import { measureFiles, measureProcesses } from "./files.ts";
import {
  type Effort,
  measureCapacity,
  measureFlows,
  measureTraffic,
  measureTwin,
} from "./flows.ts";
import { flowsText, judge } from "./goals.ts";
import { measureHost } from "./host.ts";
import { isThere, loadNow, machine } from "./machine.ts";
import { writePage } from "./page.ts";
import { measureParts, partsOf, partsReport } from "./parts.ts";
import { measurePieces } from "./pieces.ts";
import { probeMemory } from "./probe.ts";
import { benchReport } from "./report.ts";
import type { BenchResult, FlowsRow, Mode } from "./result.ts";
import { CTwin } from "./twin-c.ts";

const K = 1000;
const M = 1_000_000;
/** What a live IPv4 flow takes of the table, about. */
const FLOW_BYTES = 72;

interface Plan extends Effort {
  flows: number[];
  typed: number[];
  idiomatic: number[];
  trafficFlows: number;
  /** Room of tables that are filled, IPv4 and IPv6. */
  capacity: [number, number][];
  pieceMs: number;
  heapPackets: number;
  processes: number;
  fileBytes: number;
  fileRounds: number;
  largeBytes: number;
}

const CANONICAL: Plan = {
  windows: 12,
  turns: 12,
  turnWindows: 3,
  windowPackets: 131_072,
  // As many as the C twin digests.
  digestBatches: 1024,
  flows: [K, 100 * K, M, 10 * M],
  typed: [K, 100 * K, M],
  idiomatic: [K, 100 * K, M],
  trafficFlows: M,
  capacity: [[M, M / 4]],
  pieceMs: 200,
  heapPackets: 10 * M,
  processes: 25,
  fileBytes: 200 * M,
  fileRounds: 9,
  largeBytes: 0,
};

const PLANS: Record<Mode, Plan> = {
  canonical: CANONICAL,
  smoke: {
    ...CANONICAL,
    windows: 2,
    turns: 1,
    turnWindows: 2,
    windowPackets: 8192,
    flows: [K],
    typed: [K],
    idiomatic: [K],
    trafficFlows: K,
    capacity: [[20 * K, 5 * K]],
    pieceMs: 10,
    heapPackets: 200 * K,
    processes: 1,
    fileBytes: 2 * M,
    fileRounds: 1,
  },
  full: {
    ...CANONICAL,
    typed: CANONICAL.flows,
    capacity: [...CANONICAL.capacity, [53 * M, 0]],
    largeBytes: 1000 * M,
  },
};

export async function runBench(flags: BenchFlags): Promise<void> {
  const terminal = new Terminal(flags);
  const mode: Mode = flags.smoke ? "smoke" : flags.full ? "full" : "canonical";
  const say = (line: string) => terminal.progress(line);
  const parts = partsOf(flags);
  const more = await measureParts(parts, flags, say);
  const engine = parts.includes("engine") ? await measure(mode, say) : undefined;
  const schema = "flowplane.bench/1" as const;
  const result = { schema, mode, machine: machine(), ...engine, ...more };
  if (flags.html !== undefined) await writePage(flags.html, result);
  const text = () => [...(engine ? [benchReport(engine)] : []), ...partsReport(more)].join("\n\n");
  terminal.result(flags.json ? jsonReport(result) : text());
}

/** @throws Error when anything comes out that must not. */
export async function measure(mode: Mode, say: (line: string) => void): Promise<BenchResult> {
  const start = performance.now();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-bench-"));
  try {
    return await new Run(mode, folder, say).measure(start);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

class Run {
  readonly #mode: Mode;
  readonly #plan: Plan;
  readonly #folder: string;
  readonly #say: (line: string) => void;
  readonly #skipped: string[] = [];
  readonly #c: CTwin | undefined;

  constructor(mode: Mode, folder: string, say: (line: string) => void) {
    this.#mode = mode;
    this.#plan = PLANS[mode];
    this.#folder = folder;
    this.#say = say;
    const twin = CTwin.compile(folder);
    if (typeof twin === "string") this.#skipped.push(twin);
    else this.#c = twin;
  }

  async measure(start: number): Promise<BenchResult> {
    const plan = this.#plan;
    const here = machine();
    // Captures first: tables of gigabytes would take the page cache's room.
    const { files, capture, large } = await this.#files(isThere(here.tcprewrite));
    this.#say("host");
    const host = await measureHost(plan.windows, plan.heapPackets, plan.processes);
    this.#say("steps alone");
    const pieces = await measurePieces(plan.pieceMs, 16);
    const flows = await this.#flows();
    this.#say("traffic");
    const traffic = await measureTraffic(plan.trafficFlows, plan, this.#c);
    const capacity = await this.#capacity();
    const measured = { mode: this.#mode, flows, capacity, host, files, capture, large };
    return {
      schema: "flowplane.bench/1",
      mode: this.#mode,
      machine: { ...here, load: [here.load[0], loadNow()] },
      goals: judge(measured),
      flows,
      traffic,
      capacity,
      pieces,
      host,
      capture,
      files: large ? [...files, large] : files,
      skipped: this.#skipped,
      seconds: (performance.now() - start) / 1e3,
    };
  }

  async #files(hasTcprewrite: boolean) {
    const { fileBytes, fileRounds, largeBytes } = this.#plan;
    this.#say("captures");
    if (!hasTcprewrite) this.#skipped.push("tcprewrite: skipped, it is not there");
    const effort = { bytes: fileBytes, rounds: fileRounds, hasTcprewrite };
    const { rows, bytes, packets, digest } = await measureFiles(this.#folder, effort, this.#c);
    const capture = { bytes, packets, digest };
    if (largeBytes === 0) return { files: rows, capture, large: undefined };
    this.#say("capture of 1 GB");
    const large = measureProcesses(this.#folder, { ...effort, bytes: largeBytes, rounds: 3 });
    return { files: rows, capture, large: { ...large, name: "whole process, 1 GB" } };
  }

  async #flows(): Promise<FlowsRow[]> {
    const { flows: sizes, typed, idiomatic } = this.#plan;
    this.#say("memory");
    const costs = await probeMemory(
      sizes.map((flows) => flows * FLOW_BYTES),
      this.#mode === "smoke" ? 10 * K : 500 * K,
    );
    const rows: FlowsRow[] = [];
    for (const [index, flows] of sizes.entries()) {
      this.#say(`${flowsText(flows)} flows`);
      const row = await measureFlows(flows, this.#plan, this.#c);
      if (typed.includes(flows)) row.typed = await measureTwin("typed", flows, this.#plan);
      if (idiomatic.includes(flows)) {
        row.idiomatic = await measureTwin("idiomatic", flows, this.#plan);
      }
      requireSameDigests(row);
      rows.push({ ...row, ...costs[index] });
    }
    return rows;
  }

  async #capacity() {
    const rows = [];
    for (const [flows, flows6] of this.#plan.capacity) {
      this.#say(`a table of ${flowsText(flows)} flows`);
      rows.push(await measureCapacity(flows, false));
      if (flows6 > 0) rows.push(await measureCapacity(flows6, true));
    }
    return rows;
  }
}

/** Whoever did the work, the same packets must have come out. */
function requireSameDigests({ flows, digest, twin, typed, idiomatic }: FlowsRow): void {
  for (const [name, other] of Object.entries({ twin, typed, idiomatic })) {
    if (other && other.digest !== digest) {
      throw new Error(`bench: ${flows} flows: digest ${digest}, of ${name} ${other.digest}`);
    }
  }
}
