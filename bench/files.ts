/**
 * Captures: read and translated, with and without an output file, in one process beside the C twin;
 * whole processes from file to file beside tcprewrite; and the record walk beside pcap-parser.
 * Files lie in a folder of their own, read from the page cache. Digests are part of what is timed.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createCapture, openCapture } from "../host/capture/file.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { definePorts } from "../host/replay/batch.ts";
import { tableSizes } from "../host/replay/sizes.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";
import { writeImix } from "./imix.ts";
import { ratioOf, sampleOf } from "./measure.ts";
import type { FileRow } from "./result.ts";
import type { CTwin } from "./twin-c.ts";
import { parseBytes, walkAlone, wholeRecords } from "./walk.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PARSED_BYTES_MAX = 50e6;
/** The nearest that tcprewrite comes to source and destination NAT. */
const TCPREWRITE = ["--pnat=10.0.0.0/8:203.0.113.0/24", "--portmap=443:8443"];

export interface FilesEffort {
  bytes: number;
  rounds: number;
  /** Of whole processes, which take longer. */
  processRounds: number;
  hasTcprewrite: boolean;
}

export interface FilesResult {
  rows: FileRow[];
  bytes: number;
  packets: number;
  digest: string;
}

export async function measureFiles(
  folder: string,
  effort: FilesEffort,
  c: CTwin | undefined,
): Promise<FilesResult> {
  const input = path.join(folder, "imix.pcap");
  const packets = writeImix(input, effort.bytes);
  const { size } = fs.statSync(input);
  const run = new Files(folder, input, packets, size, effort, c);
  const rows = [
    await run.translate("read and translate", undefined),
    await run.translate("read, translate and write", path.join(folder, "out.pcap")),
    run.processes(),
    await run.walk(),
  ];
  for (const name of fs.readdirSync(folder)) {
    if (name.endsWith(".pcap")) fs.rmSync(path.join(folder, name));
  }
  return { rows, bytes: size, packets, digest: run.digest };
}

/** Whole processes alone, over a larger file. */
export function measureProcesses(folder: string, effort: FilesEffort): FileRow {
  const input = path.join(folder, "imix.pcap");
  const packets = writeImix(input, effort.bytes);
  const { size } = fs.statSync(input);
  return new Files(folder, input, packets, size, effort, undefined).processes();
}

class Files {
  digest = "";
  readonly #folder: string;
  readonly #input: string;
  readonly #packets: number;
  readonly #bytes: number;
  readonly #effort: FilesEffort;
  readonly #c: CTwin | undefined;

  constructor(
    folder: string,
    input: string,
    packets: number,
    bytes: number,
    effort: FilesEffort,
    c: CTwin | undefined,
  ) {
    this.#folder = folder;
    this.#input = input;
    this.#packets = packets;
    this.#bytes = bytes;
    this.#effort = effort;
    this.#c = c;
  }

  /** In this process, beside the C twin, in turns; both begin with an empty flow table. */
  async translate(name: string, output: string | undefined): Promise<FileRow> {
    const twinOutput = output && `${output}.twin.pcap`;
    const ours: number[] = [];
    const theirs: number[] = [];
    let twinDigest = "";
    for (let round = 0; round < this.#effort.rounds; round++) {
      // Both make a new file: emptying an old one would count for us, and not for the twin.
      for (const file of [output, twinOutput]) if (file) fs.rmSync(file, { force: true });
      const { seconds, digest } = await translateOnce(this.#input, output);
      ours.push(seconds);
      this.digest = digest;
      const twin = this.#c?.file(this.#input, twinOutput);
      if (!twin) continue;
      theirs.push(twin.seconds);
      twinDigest = twin.digest;
    }
    if (this.#c && twinDigest !== this.digest) {
      throw new Error(`bench: ${name}: digest ${this.digest}, of the C twin ${twinDigest}`);
    }
    return this.#row(name, ours, { "C twin": theirs });
  }

  /**
   * `flowplane replay --write` and tcprewrite, in turns, from start to exit. Each makes a new file,
   * and nothing is left of the other's that the system would still have to write.
   */
  processes(): FileRow {
    const main = mainProgram();
    const output = path.join(this.#folder, "process.pcap");
    const outputs = [output, `${output}.other.pcap`];
    const seconds = (program: string, words: string[]) => {
      for (const file of outputs) fs.rmSync(file, { force: true });
      return processSeconds(program, words);
    };
    reachDisk(this.#input);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < this.#effort.processRounds; round++) {
      const words = [main.path, "replay", this.#input, "--write", output, "--quiet", "--json"];
      ours.push(seconds(process.execPath, words));
      if (!this.#effort.hasTcprewrite) continue;
      const files = ["-i", this.#input, "-o", outputs[1] as string];
      theirs.push(seconds("tcprewrite", [...TCPREWRITE, ...files]));
    }
    return this.#row(`whole process, file to file, ${main.from}`, ours, { tcprewrite: theirs });
  }

  /** The record walk and pcap-parser in this process, in turns, over a part of the capture. */
  async walk(): Promise<FileRow> {
    const capture = wholeRecords(fs.readFileSync(this.#input), PARSED_BYTES_MAX);
    const engine = await createEngine({ flowCountMax: 16, flow6CountMax: 16, warmUp: false });
    const ours: number[] = [];
    const theirs: number[] = [];
    let packets = 0;
    for (let round = 0; round < this.#effort.rounds; round++) {
      const parser = await elapsed(() => parseBytes(capture));
      packets = parser.value;
      const walk = await elapsed(() => walkAlone(capture, engine, packets));
      if (walk.value !== packets) throw new Error("bench: pcap-parser counts differently");
      ours.push(walk.seconds);
      theirs.push(parser.seconds);
    }
    const name = "record walk alone, in memory";
    const row = this.#row(name, ours, { "pcap-parser": theirs });
    const nsPerPacket = (row.seconds * 1e9) / packets;
    return { ...row, nsPerPacket, gbps: (capture.length * 8) / row.seconds / 1e9 };
  }

  /** `rivals` are the others' times in the rounds of `times`; none where they are not there. */
  #row(name: string, times: number[], rivals: Record<string, number[]>): FileRow {
    const seconds = sampleOf(times).min;
    const nsPerPacket = (seconds * 1e9) / this.#packets;
    const others: FileRow["others"] = {};
    const over: FileRow["over"] = {};
    for (const [rival, theirs] of Object.entries(rivals)) {
      if (theirs.length === 0) continue;
      others[rival] = sampleOf(theirs).min;
      over[rival] = ratioOf(theirs.map((time, round) => time / (times[round] as number))).middle;
    }
    return { name, seconds, nsPerPacket, gbps: (this.#bytes * 8) / seconds / 1e9, others, over };
  }
}

interface Elapsed {
  value: number;
  seconds: number;
}

async function elapsed(run: () => Promise<number>): Promise<Elapsed> {
  const start = performance.now();
  const value = await run();
  return { value, seconds: (performance.now() - start) / 1e3 };
}

/** The command line as it is published, if dist/ is as new as the sources; else the sources. */
function mainProgram(): { path: string; from: string } {
  const published = path.join(ROOT, "dist/host/cli/main.js");
  const built = fs.statSync(published, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = fs.globSync("{host,assembly}/**/*.ts", { cwd: ROOT });
  const isNew = sources.every((name) => fs.statSync(path.join(ROOT, name)).mtimeMs <= built);
  if (isNew) return { path: published, from: "dist" };
  return { path: path.join(ROOT, "host/cli/main.ts"), from: "sources" };
}

/** Waits until the system has written a file: it would do so while others are timed. */
function reachDisk(file: string): void {
  const descriptor = fs.openSync(file, "r+");
  fs.fsyncSync(descriptor);
  fs.closeSync(descriptor);
}

function processSeconds(program: string, words: string[]): number {
  const start = performance.now();
  const { error, status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  const seconds = (performance.now() - start) / 1e3;
  if (error || status !== 0) throw new Error(`bench: ${program}: ${error?.message ?? stderr}`);
  return seconds;
}

async function translateOnce(input: string, output: string | undefined) {
  const engine = await gateway(fs.statSync(input).size);
  const start = performance.now();
  const source = await openCapture(input, engine);
  const sink = output === undefined ? undefined : createCapture(output, source);
  let portCount = 0;
  let chained = 0n;
  for (;;) {
    const next = source.next();
    const count = typeof next === "number" ? next : await next;
    if (count === 0) break;
    portCount = definePorts(engine, source, portCount);
    engine.process(count);
    chained = engine.exports.digestFrames(count, chained);
    sink?.take(count);
  }
  await sink?.close();
  source.close();
  const seconds = (performance.now() - start) / 1e3;
  return { seconds, digest: BigInt.asUintN(64, chained).toString(16).padStart(16, "0") };
}

/** The engine of `flowplane replay` by default, with as much room for flows as the C twin makes. */
async function gateway(captureBytes: number): Promise<Engine> {
  const scenario = defaultScenario("nat");
  const engine = await createEngine({ ...tableSizes(captureBytes), ...scenario.engine });
  scenario.services.forEach((service, index) => {
    engine.setService(index, service);
  });
  return engine;
}
