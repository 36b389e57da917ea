/**
 * What captures are written to: files and pipes. And replays that begin anew, with what they have
 * written.
 */
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { openBytes } from "../host/capture/memory.ts";
import { createOutput, createSyncOutput } from "../host/capture/output.ts";
import { MapRecorder } from "../host/replay/recorders.ts";
import { replay } from "../host/replay/replay.ts";
import type { ReplayResult } from "../host/replay/result.ts";
import { Forecast, TooManyFlows, tableSizes } from "../host/replay/sizes.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";

const MAIN = fileURLToPath(new URL("../host/cli/main.ts", import.meta.url));
const MACHINE = { cpu: "test", cores: 1, node: "0", v8: "0", flowplane: "0" };
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-output-"));

afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Datagrams of so many flows, one each, spread over clients and ports. */
function manyFlows(count: number): Uint8Array {
  const records = Array.from({ length: count }, (_, flow) => ({
    timeNs: 1_700_000_000_000_000_000n + BigInt(flow) * 1000n,
    bytes: eth()
      .ipv4(`10.0.${flow >> 12}.${flow & 15}`, "10.9.0.1")
      .udp(1024 + ((flow >> 4) & 255), 53)
      .payload(18)
      .bytes(),
  }));
  return pcapFile(records, { linkType: LINKTYPE.ethernet });
}

property.prop([fc.array(fc.nat(3000), { maxLength: 60 }), fc.nat(5)], {
  numRuns: 100,
})("bytes arrive in order, whole, and as they were", async (sizes, waitEvery) => {
  const file = path.join(folder, "ordered");
  const output = createOutput(file);
  const parts = sizes.map((size, index) => new Uint8Array(size).fill(index + 1));
  const expected = Buffer.concat(parts.map((part) => part.slice()));
  for (const [index, part] of parts.entries()) {
    const written = output.write(part);
    if (waitEvery === 0 || index % waitEvery > 0) continue;
    await written;
    // What has been written is the caller's again, and all before it.
    for (const before of parts.slice(0, index + 1)) before.fill(0);
  }
  await output.close();
  expect(Buffer.compare(fs.readFileSync(file), expected)).toBe(0);
});

test("thousands of small writes that nobody waits for go through a pipe", async () => {
  const pipe = path.join(folder, "small");
  execFileSync("mkfifo", [pipe]);
  const reader = spawn("cat", [pipe], { stdio: ["ignore", "pipe", "inherit"] });
  const parts: Buffer[] = [];
  reader.stdout.on("data", (part: Buffer) => parts.push(part));
  const isRead = new Promise((resolve) => reader.on("close", resolve));
  const output = createOutput(pipe);
  const all = Array.from({ length: 5000 }, (_, index) => Buffer.alloc(1 + (index % 90), index));
  for (const one of all) output.write(one);
  await output.close();
  await isRead;
  expect(Buffer.compare(Buffer.concat(parts), Buffer.concat(all))).toBe(0);
});

test("a replay with more flows than expected begins anew, and nobody can tell", async () => {
  const file = manyFlows(5000);
  const created = async (captureBytes?: number) => {
    const map = path.join(folder, `map-${captureBytes}`);
    let opened = 0;
    const { result } = await replay({
      file: "test",
      scenario: defaultScenario("nat"),
      open: (engine) => {
        opened += 1;
        return openBytes(file, engine);
      },
      recorders: [(batch) => new MapRecorder(batch, createSyncOutput(map))],
      machine: MACHINE,
      passes: 2,
      ...(captureBytes === undefined ? {} : { captureBytes }),
    });
    const { digest, flows, verdicts, output, run } = result;
    return { opened, map: fs.readFileSync(map, "utf8"), digest, flows, verdicts, output, run };
  };
  const large = await created();
  const small = await created(file.length);
  expect(large).toMatchObject({ opened: 2, flows: { created: 5000 }, run: { passes: 2 } });
  expect({ ...small, opened: 2 }).toEqual(large);
  expect(small.opened).toBe(3);
});

test("a pipe gets a capture of many flows once", { timeout: 30_000 }, async () => {
  const capture = path.join(folder, "many.pcap");
  const [file, pipe] = [path.join(folder, "many-out.pcap"), path.join(folder, "many-pipe")];
  fs.writeFileSync(capture, manyFlows(5000));
  execFileSync("mkfifo", [pipe]);
  const reader = spawn("cat", [pipe], { stdio: ["ignore", "pipe", "inherit"] });
  const parts: Buffer[] = [];
  reader.stdout.on("data", (part: Buffer) => parts.push(part));
  const isRead = new Promise((resolve) => reader.on("close", resolve));
  for (const output of [file, pipe]) {
    const words = [MAIN, "replay", capture, "--write", output, "--quiet"];
    const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
    expect(await new Promise((resolve) => child.on("close", resolve))).toBe(0);
  }
  await isRead;
  expect(Buffer.compare(Buffer.concat(parts), fs.readFileSync(file))).toBe(0);
});

test("workers begin anew together", { timeout: 60_000 }, () => {
  const capture = path.join(folder, "shared.pcap");
  fs.writeFileSync(capture, manyFlows(5000));
  const results = ["1", "2"].map((workers) => {
    const output = path.join(folder, `shared-${workers}.pcap`);
    const words = [MAIN, "replay", capture, "--workers", workers, "--write", output];
    const told = execFileSync(process.execPath, [...words, "--quiet", "--json"]);
    const { digest, flows } = JSON.parse(told.toString()) as ReplayResult;
    return { digest, created: flows.created, file: fs.readFileSync(output).toString("hex") };
  });
  expect(results[1]).toEqual(results[0]);
  expect(results[0]?.created).toBe(5000);
});

const MB = 1e6;

test.each([
  ["few flows", 1000 * MB, (read: number) => read / (100 * MB), undefined],
  ["many that live already, and few more", 1000 * MB, () => 20_000, undefined],
  ["one in each 10 kB", 1000 * MB, (read: number) => read / 10_000, 17 * MB],
  ["many from the middle on", 1000 * MB, (read: number) => (read < 500 * MB ? 9 : 1e6), 500 * MB],
  [
    "many at the beginning, all in its first 4 MB",
    200 * MB,
    (read: number) => Math.min(10_000, read / 400),
    undefined,
  ],
  ["as many as may be", 8 * MB, (read: number) => read / 512, undefined],
])("of a capture with %s it is known soon whether it has too many", (_, bytes, flows, latest) => {
  const forecast = new Forecast(bytes);
  let known: number | undefined;
  for (let read = 0; read <= bytes && known === undefined; read += MB) {
    try {
      forecast.check(read, Math.floor(flows(read)));
    } catch (error) {
      expect(error).toBeInstanceOf(TooManyFlows);
      known = read;
    }
  }
  if (latest === undefined) expect(known).toBeUndefined();
  else expect(known).toBeLessThanOrEqual(latest);
});

property.prop([
  fc.nat(2 ** 31),
  fc.array(fc.tuple(fc.integer({ min: 1, max: 1 << 20 }), fc.nat(2000))),
])("no table is ever more than half full unnoticed", (captureBytes, steps) => {
  const { flowCountMax = 0 } = tableSizes(captureBytes);
  const forecast = new Forecast(captureBytes);
  let [read, created] = [0, 0];
  for (const [bytes, began] of steps) {
    read += bytes;
    created += began;
    const check = () => forecast.check(read, created);
    if (created > flowCountMax / 2) {
      expect(check).toThrow(TooManyFlows);
      return;
    }
    try {
      check();
    } catch {
      // Began anew earlier than it had to.
      return;
    }
  }
});
