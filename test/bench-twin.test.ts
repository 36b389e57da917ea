/**
 * The engine against its twin in C (bench/c/twin.c): the same frames, verdicts, counts and flow
 * records. Where there is no gcc nothing can be compared, and the report says that it is left out.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import * as abi from "../assembly/abi.ts";
import { measureReading, totalNs } from "../bench/reading.ts";
import type { Bytes } from "../fixtures/bytes.ts";
import { eth, type Packet } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile, type Record } from "../fixtures/write.ts";
import { MemoryOutput, openBytes } from "../host/capture/memory.ts";
import type { CaptureReader } from "../host/capture/reader.ts";
import { CaptureWriter } from "../host/capture/writer.ts";
import type { Counters } from "../host/engine/api.ts";
import { createEngine, type Engine, VERDICT_NAMES } from "../host/engine/engine.ts";
import type { EngineExports } from "../host/engine/module.ts";
import { replay } from "../host/replay/replay.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";
import { xxh64 } from "./reference/xxh64.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-twin-"));
const TWIN = join(FOLDER, "twin");
const TWIN6 = join(FOLDER, "twin6");
const hasCompiler = spawnSync("gcc", ["--version"]).status === 0;
const compared = (name: string, tests: () => void) =>
  hasCompiler ? describe(name, tests) : describe.skip(`${name}: left out, there is no gcc`, tests);
const WINDOW_PACKETS = 131072;
const MACHINE = { cpu: "test", cores: 1, node: "0", v8: "0", flowplane: "0" };

interface TwinReport {
  digest: string;
  verdicts: number[];
  flows: { [name: string]: number };
  records: string;
  packets: number;
  bytes: number;
}

interface BenchExports extends EngineExports {
  generatorSeed(seed: number): void;
  generatorFamily(isIpv6: number): void;
  runBatches(
    arena: number,
    strideBytes: number,
    count: number,
    mode: number,
    first: number,
    flowCount: number,
    capturedBytes: number,
    batches: number,
    isProcessed: number,
  ): number;
}

// Millions of packets and a compiler: seconds, more of them where other work goes on.
vi.setConfig({ testTimeout: 60_000 });

let bench: WebAssembly.Module;

beforeAll(() => {
  if (!hasCompiler) return;
  const sources = ["assembly/index.ts", "bench/assembly/generator.ts"];
  const wasm = join(FOLDER, "bench.wasm");
  const asc = join(ROOT, "node_modules/assemblyscript/bin/asc.js");
  const words = [asc, ...sources, "--target", "bench", "--outFile", wasm];
  execFileSync(process.execPath, words, { cwd: ROOT });
  bench = new WebAssembly.Module(readFileSync(wasm));
  const warnings = ["-Wall", "-Wextra", "-Werror"];
  const source = join(ROOT, "bench/c/twin.c");
  for (const [program, ...flags] of [[TWIN], [TWIN6, "-DTWIN_IPV6"]] as [string, ...string[]][]) {
    execFileSync("gcc", ["-O3", "-march=native", ...warnings, ...flags, "-o", program, source]);
  }
}, 60_000);

afterAll(() => rmSync(FOLDER, { recursive: true }));

function hex(digest: bigint): string {
  return BigInt.asUintN(64, digest).toString(16).padStart(16, "0");
}

/** Verdicts that the twin knows nothing of stand at zero. */
function twin(...words: (string | number)[]): TwinReport {
  return reportOf(TWIN, words);
}

function twin6(...words: (string | number)[]): TwinReport {
  return reportOf(TWIN6, words);
}

function reportOf(program: string, words: (string | number)[]): TwinReport {
  const report: TwinReport = JSON.parse(execFileSync(program, words.map(String)).toString());
  const verdicts = VERDICT_NAMES.map((_, index) => report.verdicts[index] ?? 0);
  return { ...report, verdicts };
}

/** The engine's counters as the twin prints them; what the twin has not must be zero. */
function told({ verdicts, flows }: Counters) {
  const { icmp, other, ...rest } = flows;
  expect({ icmp, other }).toEqual({ icmp: 0, other: 0 });
  return { verdicts: VERDICT_NAMES.map((name) => verdicts[name]), flows: rest };
}

/** Digest of all flow records of one family; `flowCountMax` is its table's. */
function recordsDigest(engine: Engine, flowCountMax: number, isIpv6: boolean): string {
  const recordBytes = isIpv6 ? 128 : 64;
  const groups = Math.ceil((flowCountMax + Math.floor(flowCountMax / 100) + 16) / 16);
  const handle = engine.exports.flowAfter(isIpv6 ? abi.HANDLE_IPV6 : 0);
  const slot = (handle & ~abi.HANDLE_IPV6) - 1;
  const first = (engine.exports.flowRecord(handle) >>> 0) - slot * recordBytes;
  return hex(engine.exports.xxh64(first, groups * 16 * recordBytes, 0n));
}

/** What `twin memory` does, done by the engine. */
async function generated(flowCount: number, batch: number, passes: number, isIpv6 = false) {
  const flowCountMax = Math.max(1024, Math.ceil(flowCount * 1.25));
  const engine = await createEngine({
    wasm: bench,
    flowCountMax: isIpv6 ? 1024 : flowCountMax,
    flow6CountMax: isIpv6 ? flowCountMax : 1024,
    seed: new Uint8Array(16).fill(7),
  });
  engine.setService(0, { sourceAddresses: ["203.0.113.1", "2001:db8:ffff::1"] });
  engine.setPort(0, { service: 0, peer: 1 });
  engine.setPort(1, { sides: "service", peer: 0 });
  const exports = engine.exports as BenchExports;
  const run = (mode: number, batches: number, isProcessed: number) =>
    exports.runBatches(
      engine.arena.address,
      192,
      batch,
      mode,
      0,
      flowCount,
      64,
      batches,
      isProcessed,
    );
  const window = Math.ceil(WINDOW_PACKETS / batch);
  exports.generatorFamily(isIpv6 ? 1 : 0);
  exports.generatorSeed(1);
  run(1, Math.ceil(flowCount / batch), 1);
  run(3, Math.ceil(flowCount / batch), 1);
  run(0, window * 4, 1);
  for (let pass = 0; pass < passes; pass++) {
    run(0, window, 1);
    run(0, window, 0);
  }
  exports.generatorSeed(2);
  let digest = 0n;
  for (let at = 0; at < 1024; at++) {
    run(0, 1, 1);
    digest = exports.digestFrames(batch, digest);
  }
  const records = recordsDigest(engine, flowCountMax, isIpv6);
  return { digest: hex(digest), records, ...told(engine.counters()) };
}

compared("generated traffic", () => {
  test.each([
    [1_000, 64],
    [1_000, 128],
    [100_000, 64],
    [100_000, 128],
  ])("of %i flows in batches of %i: same frames, counts and records", async (flows, batch) => {
    const expected = await generated(flows, batch, 2);
    const { digest, records, verdicts, flows: counts } = twin("memory", flows, batch, 2);
    expect({ digest, records, verdicts, flows: counts }).toEqual(expected);
    expect(verdicts[0]).toBeGreaterThan(WINDOW_PACKETS);
  });

  test.each([
    [1_000, 64],
    [1_000, 128],
    [100_000, 128],
  ])("of %i flows of IPv6 in batches of %i: the same", async (flows, batch) => {
    const expected = await generated(flows, batch, 2, true);
    const { digest, records, verdicts, flows: counts } = twin6("memory", flows, batch, 2);
    expect({ digest, records, verdicts, flows: counts }).toEqual(expected);
    expect(verdicts[0]).toBeGreaterThan(WINDOW_PACKETS);
    expect(digest).not.toBe(twin("memory", flows, batch, 1).digest);
  });

  test("comes out the same frame by frame as in stages", () => {
    const pick = ({ digest, records, verdicts }: TwinReport) => ({ digest, records, verdicts });
    const staged = pick(twin("memory", 50_000, 100, 2, "established", "staged"));
    expect(pick(twin("memory", 50_000, 100, 2, "established", "single"))).toEqual(staged);
  });
});

/** Repeatable draws from 0 to `below` - 1 (xorshift32). */
function draws(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** A frame of a random conversation; few clients, ports and servers, so that tuples collide. */
function randomFrame(draw: (below: number) => number): Packet {
  const client = `10.${draw(3)}.0.${1 + draw(200)}`;
  const server = `8.0.0.${1 + draw(2)}`;
  const clientPort = draw(4) === 0 ? 500 + draw(2) : 40000 + draw(12);
  const [source, destination] = draw(3) === 0 ? [server, client] : [client, server];
  const ports: [number, number] = source === client ? [clientPort, 443] : [443, clientPort];
  const packet = eth().ipv4(source, destination);
  const flags = ["S", "SA", "A", "AP", "AF", "AR"][draw(6)] as string;
  const upper = draw(4) === 0 ? packet.udp(...ports) : packet.tcp(...ports, { flags });
  return upper.payload(draw(600));
}

/** A frame as captures have them at times: cut, of another type, or wrong in one byte. */
function spoilt(frame: Bytes, draw: (below: number) => number): Bytes {
  const choice = draw(24);
  if (choice < 3) return frame.subarray(0, draw(70));
  if (choice === 3) return eth().arp("10.0.0.1", "10.0.0.2").bytes();
  if (choice > 4) return frame;
  const bytes = frame.slice();
  // IP version and header length, total length, TCP data offset, UDP checksum.
  const at = [14, 16, 17, 46, 40][draw(5)] as number;
  bytes[at] = draw(3) * 0x28;
  if (at === 40) bytes[41] = 0;
  return bytes;
}

/** Mostly milliseconds between frames, at times as long as timeouts are. */
function randomCapture(count: number, seed: number): Bytes {
  const draw = draws(seed);
  const records: Record[] = [];
  let timeNs = 1_700_000_000_000_000_000n;
  for (let at = 0; at < count; at++) {
    timeNs += BigInt(draw(2000) === 0 ? draw(400_000) : draw(20)) * 1_000_000n;
    const frame = randomFrame(draw).bytes();
    records.push({ timeNs, bytes: spoilt(frame, draw), wireBytes: frame.length });
  }
  return pcapFile(records, { linkType: LINKTYPE.ethernet });
}

/** Counts of flows that do not depend on when the sweep came by, which batches decide. */
function lasting({ created, reopened, spilled, tcp, udp }: { [name: string]: number }) {
  return { created, reopened, spilled, tcp, udp };
}

/** The tables of a replay that knows nothing of the size of its capture. */
const FLOW_COUNT_MAX = String(1 << 20);

/** What `flowplane replay` makes of a capture. */
async function replayed(file: Bytes) {
  const output = new MemoryOutput();
  let engine: Engine | undefined;
  const { result, failure } = await replay({
    file: "test",
    scenario: defaultScenario("nat"),
    wasm: bench,
    open: (opened) => {
      engine = opened as Engine;
      return openBytes(file, opened, { name: "test" });
    },
    recorders: [(_, source) => new CaptureWriter(source as CaptureReader, output)],
    machine: MACHINE,
  });
  expect(failure).toBeUndefined();
  const { verdicts, flows } = told((engine as Engine).counters());
  const { packets, bytes } = result.capture;
  const written = hex(xxh64(output.toBytes(), 0n));
  return { digest: result.digest, packets, bytes, written, verdicts, flows: lasting(flows) };
}

compared("a capture of random conversations", () => {
  const kinds = ["forward", "pass.non-ip", "drop.truncated", "drop.malformed"] as const;

  test.each([1, 2, 3])("(seed %i): same output file, digest and counts", async (seed) => {
    const [input, output] = [join(FOLDER, "in.pcap"), join(FOLDER, "out.pcap")];
    const file = randomCapture(10_000, seed);
    writeFileSync(input, file);
    const expected = await replayed(file);
    const { digest, packets, bytes, verdicts, flows } = twin("file", input, output, FLOW_COUNT_MAX);
    const written = hex(xxh64(readFileSync(output), 0n));
    const actual = { digest, packets, bytes, written, verdicts, flows: lasting(flows) };
    expect(actual).toEqual(expected);
    expect(twin("file", input, "-", FLOW_COUNT_MAX).digest).toBe(digest);
    for (const kind of kinds) expect(verdicts[VERDICT_NAMES.indexOf(kind)]).toBeGreaterThan(0);
    for (const name of ["expired", "reopened", "tcp", "udp"]) {
      expect(flows[name]).toBeGreaterThan(0);
    }
  });
});

compared("the program that reads a capture in three ways", () => {
  test("has read the same in each, or ends with an error", async () => {
    const { spent, walked } = await measureReading(2, 3_000_000);
    for (const list of [walked.allNs, walked.ownNs]) {
      expect(list).toHaveLength(2);
      for (const ns of list) expect(ns).toBeGreaterThan(0);
    }
    expect([...spent.keys()]).toEqual(["each", "turns", "mapped"]);
    const all = [...spent.values()].flat();
    expect(all).toHaveLength(6);
    for (const one of all) {
      expect(one.sum).toMatch(/^[1-9a-f]/);
      expect(totalNs(one)).toBeGreaterThan(0);
    }
  });
});
