/**
 * The benchmark works: its smallest run has every part of the report, what it measures is right,
 * and its judgement follows its figures. Nothing here looks at how long anything took.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { judge } from "../bench/goals.ts";
import { IMIX_FLOWS, writeImix } from "../bench/imix.ts";
import { alternate, costNs, sampleOf } from "../bench/measure.ts";
import { benchReport } from "../bench/report.ts";
import type { BenchResult } from "../bench/result.ts";

const MAIN = fileURLToPath(new URL("../host/cli/main.ts", import.meta.url));
const SCREENS_LINES = 110;
const COLUMNS = 120;

describe("a smoke run", () => {
  let result: BenchResult;

  beforeAll(() => {
    const words = [MAIN, "bench", "--smoke", "--json", "--quiet"];
    const run = spawnSync(process.execPath, words, { encoding: "utf8" });
    expect(run.stderr).toBe("");
    expect(run.status).toBe(0);
    result = JSON.parse(run.stdout) as BenchResult;
  });

  test("has every part, each figure a positive number", () => {
    expect(result.schema).toBe("flowplane.bench/1");
    expect(result.mode).toBe("smoke");
    expect(result.flows.map(({ flows }) => flows)).toEqual([1000]);
    expect(result.traffic.map(({ name }) => name)).toEqual([
      "64 bytes",
      "IMIX",
      "1514 bytes",
      "one constant flow",
      "IPv6, 74 bytes",
    ]);
    expect(result.pieces.length).toBeGreaterThanOrEqual(5);
    expect(result.files).toHaveLength(4);
    const [row] = result.flows;
    for (const figure of [
      row?.fresh.min,
      row?.freshFull.median,
      row?.fillNs,
      row?.wasm.min,
      row?.typed?.min,
      row?.idiomatic?.min,
      row?.chaseNs,
    ]) {
      expect(figure).toBeGreaterThan(0);
    }
    for (const { wasmNs } of result.pieces) expect(wasmNs).toBeGreaterThan(0);
    for (const { nsPerPacket } of result.files) expect(nsPerPacket).toBeGreaterThan(0);
  });

  test("gives the digests that it must give, the same from every twin", () => {
    const [row] = result.flows;
    expect(row?.digest).toBe("07819d43ceb54d56");
    expect(row?.typed?.digest).toBe(row?.digest);
    expect(row?.idiomatic?.digest).toBe(row?.digest);
    if (row?.twin) expect(row.twin.digest).toBe(row.digest);
    else expect(result.skipped.join()).toContain("C twin: skipped, ");
    // The run compares the digests of IPv6 itself and would have ended.
    const ipv6 = result.traffic.find(({ name }) => name.startsWith("IPv6"));
    expect(ipv6?.twin?.digest).toBe(row?.twin && "36257be57581b6e4");
    expect(result.capture?.digest).toBe("ec3de535baa20edc");
  });

  test("fills tables to their first refusal and finds the flows again", () => {
    const [ipv4, ipv6] = result.capacity;
    expect(ipv4?.flows).toBeGreaterThan(19_000);
    expect(ipv4?.flows).toBeLessThanOrEqual(20_000);
    expect(ipv4?.bytesPerFlow).toBeGreaterThan(64);
    expect(ipv4?.verified).toBeGreaterThan(50_000);
    expect(ipv6?.bytesPerFlow).toBeGreaterThan(128);
  });

  test("is reported on two screens, with what was skipped", () => {
    const lines = benchReport(result).split("\n");
    expect(lines.length).toBeLessThanOrEqual(SCREENS_LINES);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(COLUMNS);
    const text = lines.join("\n");
    for (const title of ["Ratios and goals", "Established flows", "Machine", "Digests"]) {
      expect(text).toContain(title);
    }
    for (const line of result.skipped) expect(text.replaceAll("\n", " ")).toContain(line);
  });

  test("leaves the goals open that it is too small for", () => {
    const ratio = result.goals.find(({ name }) => name.includes("idiomatic"));
    expect(ratio).toMatchObject({ reason: "not in this run" });
    expect(ratio).not.toHaveProperty("met");
  });

  test("meets a goal exactly when its figure is on the right side", () => {
    const [row] = result.flows;
    if (!row) throw new Error("no row");
    const large = { ...row, flows: 1_000_000, single: 4 * row.wasm.min };
    const fresh = { ...row.fresh, min: 100, median: 200 };
    const full = { ...large, fresh, freshFull: { ...fresh, median: 250 }, over: { twin: 1.36 } };
    const goals = judge({ ...result, mode: "canonical", flows: [full], large: undefined });
    const named = (begin: string) => goals.find(({ name }) => name.startsWith(begin));
    expect(named("batches of 128")).toMatchObject({ value: 4, met: true });
    expect(named("time of WASM over C twin, 1 M")).toMatchObject({ value: 1.36, met: false });
    expect(named("time of WASM over the prototype, 1 M")).toMatchObject({
      reason: "not in this run",
    });
    expect(named("new flows beside 1 M, room for 2 M")).toMatchObject({ value: 5, met: true });
    expect(named("new flows beside 1 M, room for 1.25 M")).toMatchObject({ value: 4, met: false });
  });
});

describe("measuring", () => {
  test("takes the best window and tells how far the middle one is from it", () => {
    expect(sampleOf([30, 10, 15])).toEqual({ min: 10, median: 15, spread: 0.5, windows: 3 });
    expect(() => sampleOf([])).toThrow("no windows");
  });

  test("takes the best overhead off, in ns for each thing", () => {
    const cost = costNs([5, 4, 7], [2, 1, 3], 1_000_000);
    expect(cost).toEqual({ min: 3, median: 4, spread: 4 / 3 - 1, windows: 3 });
  });

  test("lets tasks take turns", () => {
    const order: string[] = [];
    const times = alternate({ a: () => order.push("a"), b: () => order.push("b") }, 3);
    expect(order.join("")).toBe("ababab");
    expect(times.a).toHaveLength(3);
    expect(times.b).toHaveLength(3);
  });
});

test("the generated IMIX capture has its mix of lengths, both directions and valid checksums", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-imix-"));
  try {
    const file = path.join(folder, "imix.pcap");
    const packets = writeImix(file, 6e6);
    const capture = fs.readFileSync(file);
    expect(packets).toBeGreaterThan(IMIX_FLOWS);
    const lengths = new Map<number, number>();
    const isReplies = new Set<boolean>();
    let at = 24;
    for (let packet = 0; packet < packets; packet++) {
      const bytes = capture.readUInt32LE(at + 8);
      const frame = capture.subarray(at + 16, at + 16 + bytes);
      lengths.set(bytes, (lengths.get(bytes) ?? 0) + 1);
      isReplies.add(frame.readUInt16BE(34) === 443);
      expect(frame.readUInt16BE(16)).toBe(bytes - 14);
      expect(foldedSum(frame.subarray(14, 34))).toBe(0xffff);
      expect(foldedSum(Buffer.concat([pseudoHeader(frame), frame.subarray(34)]))).toBe(0xffff);
      at += 16 + bytes;
    }
    expect(at).toBe(capture.length);
    expect([...isReplies].sort()).toEqual([false, true]);
    const twelfth = packets / 12;
    expect((lengths.get(64) ?? 0) / twelfth).toBeCloseTo(7, 1);
    expect((lengths.get(594) ?? 0) / twelfth).toBeCloseTo(4, 1);
    expect((lengths.get(1518) ?? 0) / twelfth).toBeCloseTo(1, 1);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

/** The one's complement sum of RFC 1071, word by word. */
function foldedSum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += bytes.readUInt8(at) * 256 + (at + 1 < bytes.length ? bytes.readUInt8(at + 1) : 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

function pseudoHeader(frame: Buffer): Buffer {
  const header = Buffer.alloc(12);
  frame.copy(header, 0, 26, 34);
  header[9] = frame[23] as number;
  header.writeUInt16BE(frame.length - 34, 10);
  return header;
}
