/** The same algorithm in C (bench/c/twin.c), compiled when the benchmark runs. */
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline/promises";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { TwinFlows } from "./result.ts";
import { PAGES } from "./traffic.ts";

const SOURCE = fileURLToPath(new URL("c/twin.c", import.meta.url));
const FLAGS = ["-O3", "-march=native", ...(PAGES.isHuge ? ["-DHUGE_PAGES"] : [])];
/** The families differ in what a tuple and a record are, so each is a program of its own. */
const FAMILY_FLAGS = { ipv4: [], ipv6: ["-DTWIN_IPV6"] };
type Family = keyof typeof FAMILY_FLAGS;

interface TwinMemory {
  nsPerPacketMin: number;
  nsPerPacketMedian: number;
  newNsPerFlow: number;
  digest: string;
}

export interface TwinFile {
  packets: number;
  bytes: number;
  seconds: number;
  engineSeconds: number;
  digest: string;
}

function flowsOf(memory: TwinMemory): TwinFlows {
  const { nsPerPacketMin: min, nsPerPacketMedian: median, newNsPerFlow: newNs, digest } = memory;
  return { min, median, newNs, digest };
}

/** A twin that waits between turns, so that what it is compared with has the machine meanwhile. */
export class TwinTurns {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(process: ChildProcessByStdio<Writable, Readable, null>) {
    this.#process = process;
    this.#lines = createInterface({ input: process.stdout })[Symbol.asyncIterator]();
  }

  /** Best cost of its windows, ns per packet. */
  async turn(): Promise<number> {
    this.#process.stdin.write("\n");
    return Number((await this.#line()).split(" ")[0]);
  }

  /** Ends it; what it says of all its turns. */
  async finish(): Promise<TwinFlows> {
    this.#process.stdin.end();
    return flowsOf(JSON.parse(await this.#line()) as TwinMemory);
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("twin: it ended before its turn");
    return value;
  }
}

export class CTwin {
  readonly #programs: Record<Family, string>;

  /** Compiles it into `folder`; what stands in the way is returned as one line. */
  static compile(folder: string): CTwin | string {
    if (!fs.existsSync(SOURCE)) return "C twin: skipped, bench/c/twin.c is not there";
    const programs = { ipv4: path.join(folder, "twin"), ipv6: path.join(folder, "twin6") };
    for (const [family, flags] of Object.entries(FAMILY_FLAGS)) {
      const words = [...FLAGS, ...flags, "-o", programs[family as Family], SOURCE];
      const built = spawnSync("gcc", words, { encoding: "utf8" });
      if (built.error) return "C twin: skipped, gcc is not there";
      if (built.status === 0) continue;
      const error = built.stderr.split("\n").find((line) => line.includes("error"));
      return `C twin: skipped, gcc refuses it: ${error ?? built.stderr.slice(0, 200)}`;
    }
    return new CTwin(programs);
  }

  private constructor(programs: Record<Family, string>) {
    this.#programs = programs;
  }

  memory(
    flows: number,
    batch: number,
    passes: number,
    kind: "established" | "new" | "constant" = "established",
    way: "staged" | "single" = "staged",
    length: "64" | "imix" | "1514" = "64",
    family: Family = "ipv4",
  ): TwinFlows {
    const words = ["memory", String(flows), String(batch), String(passes), kind, way, length];
    const got = this.#run<TwinMemory>(this.#programs[family], words);
    return flowsOf(got);
  }

  /** Flows that live until the last turn: windows of them whenever it is the twin's turn. */
  turns(flows: number, batch: number, windows: number): TwinTurns {
    const words = ["memory", String(flows), String(batch), String(windows)];
    const program = this.#programs.ipv4;
    return new TwinTurns(
      spawn(program, [...words, "established", "staged", "64", "turns"], {
        stdio: ["pipe", "pipe", "inherit"],
      }),
    );
  }

  file(input: string, output?: string): TwinFile {
    const words = ["file", input, ...(output === undefined ? [] : [output])];
    return this.#run<TwinFile>(this.#programs.ipv4, words);
  }

  /** @throws Error with what the twin said when it did not end well. */
  #run<Answer>(program: string, words: string[]): Answer {
    const run = spawnSync(program, words, { encoding: "utf8", maxBuffer: 1 << 20 });
    if (run.status !== 0) throw new Error(`twin ${words.join(" ")}: ${run.stderr || run.signal}`);
    return JSON.parse(run.stdout) as Answer;
  }
}
