/**
 * Several workers over one capture: every frame has exactly one owner, the same as the slow twin
 * says, and whatever comes out is what one worker makes, byte for byte.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { openCapture } from "../host/capture/file.ts";
import { MemoryOutput } from "../host/capture/memory.ts";
import type { CaptureReader } from "../host/capture/reader.ts";
import { CaptureWriter } from "../host/capture/writer.ts";
import type { PortOptions } from "../host/engine/api.ts";
import { compileEngine } from "../host/engine/module.ts";
import { CaptureError } from "../host/errors.ts";
import { DropsRecorder, MapRecorder, WriteRecorder } from "../host/replay/recorders.ts";
import { type ReplayOptions, replay } from "../host/replay/replay.ts";
import { startTeam } from "../host/replay/team.ts";
import { defaultScenario, type Scenario } from "../host/scenario/scenario.ts";
import { bytesOf, type Setup, smallEngine } from "./harness.ts";
import { Lanes, workerOf } from "./reference/owner.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const SHIPPED = fileURLToPath(new URL("../fixtures/captures/", import.meta.url));
const SHARED = fileURLToPath(new URL("../../shared/captures/", import.meta.url));
const MACHINE = { cpu: "test", cores: 64, node: "0", v8: "0", flowplane: "0" };
const wasm = await compileEngine();
const folder = mkdtempSync(join(tmpdir(), "flowplane-workers-"));

afterAll(() => {
  rmSync(folder, { recursive: true });
});

interface Told {
  passes?: number;
  limit?: number;
  /** Whether something is written and drawn of each frame; default true. */
  isWatched?: boolean;
  wantsFrames?: boolean;
}

function hash(output: MemoryOutput): string {
  return createHash("sha256").update(output.toBytes()).digest("hex");
}

/** A replay by `workers` workers, with everything that it writes. */
async function run(file: string, scenario: Scenario, workers: number, told: Told = {}) {
  const { passes = 1, limit = Number.POSITIVE_INFINITY, isWatched = true } = told;
  const wantsFrames = isWatched && (told.wantsFrames ?? true);
  const [written, map, drops] = [new MemoryOutput(), new MemoryOutput(), new MemoryOutput()];
  const options: ReplayOptions = {
    file: "test",
    scenario,
    passes,
    captureBytes: readFileSync(file).length,
    open: (memory) => openCapture(file, memory),
    machine: MACHINE,
  };
  if (told.limit !== undefined) options.packetsMax = limit;
  if (isWatched) {
    options.wantsTimeline = true;
    options.recorders = [
      (batch) => new MapRecorder(batch, map),
      (batch, source) => new DropsRecorder(batch, source, drops),
    ];
  }
  if (wantsFrames) {
    options.recorders?.push((batch, source) => {
      const sink = new CaptureWriter(source as CaptureReader, written);
      return new WriteRecorder(batch, source, sink);
    });
  }
  if (workers > 1) {
    const whole = { workers, file, scenario, packetsMax: limit, wantsFrames, isSpread: true, wasm };
    options.team = (task) => startTeam({ ...task, ...whole, warmUp: false });
  }
  const { result, timeline, failure } = await replay(options);
  const { flows, verdicts, output, resources, capture, digest } = result;
  const { activeMax, ...counts } = flows;
  return {
    same: {
      flows: counts,
      verdicts,
      output,
      resources,
      capture,
      digest,
      failure: failure?.message,
      packets: timeline?.packets.join(" "),
      created: timeline?.flowsCreated.reduce((sum, count) => sum + count, 0),
      map: hash(map),
      drops: hash(drops),
      written: hash(written),
    },
    activeMax,
    result,
  };
}

/** Compares several workers with one. */
async function expectSame(file: string, scenario: Scenario, told: Told = {}, counts = [2, 7]) {
  const one = await run(file, scenario, 1, told);
  for (const workers of counts) {
    const several = await run(file, scenario, workers, told);
    expect(several.same, `${workers} workers`).toEqual(one.same);
    // Known as of whole batches.
    expect(several.activeMax).toBeLessThanOrEqual(one.result.flows.created);
    expect(several.activeMax).toBeGreaterThanOrEqual(one.activeMax - 256);
    const shared = several.result.workers.reduce((sum, { packets }) => sum + packets, 0);
    expect(shared).toBe(one.result.capture.packets);
    expect(several.result.run.workers).toBe(workers);
  }
  const most = counts.at(-1) as number;
  if (told.limit === undefined) await expectSameUnwatched(file, scenario, most, one);
  return one;
}

/** Compares workers of whom nothing is asked but the report with one. */
async function expectSameUnwatched(
  file: string,
  scenario: Scenario,
  workers: number,
  one: Awaited<ReturnType<typeof run>>,
) {
  const { same, activeMax, result } = await run(file, scenario, workers, { isWatched: false });
  const { flows, verdicts, output, resources, capture, digest, failure } = one.same;
  const report = { flows, verdicts, output, resources, capture, digest, failure };
  expect(same, `${workers} workers, unwatched`).toMatchObject(report);
  expect(activeMax).toBeLessThanOrEqual(result.flows.created);
  expect(activeMax).toBeGreaterThanOrEqual(one.activeMax - 256);
  expect(result.workers.reduce((sum, { packets }) => sum + packets, 0)).toBe(capture.packets);
}

/** Why a capture cannot be opened, if so. */
async function openedOf(path: string): Promise<Error | undefined> {
  const engine = await smallEngine({ services: [], ports: [] }, 16);
  try {
    (await openCapture(path, engine)).close();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** Random packets of a world, as one capture. */
function worldCapture(setup: Setup, seed: number, count: number): string {
  const records = [];
  let nowMs = 0;
  for (let packet = 0; packet < count; packet++) {
    const { frame, timeMs = 0 } = arrivalOf(seed + packet, setup, [], nowMs);
    nowMs = timeMs;
    records.push({ bytes: bytesOf(frame), timeNs: BigInt(timeMs) * 1_000_000n });
  }
  const path = join(folder, `world-${seed}.pcap`);
  writeFileSync(path, pcapFile(records, { linkType: LINKTYPE.ethernet }));
  return path;
}

describe("a frame's owner", () => {
  property.prop([fc.nat(2 ** 31 - 1), fc.constantFrom(...Object.keys(SETUPS))], { numRuns: 40 })(
    "is one of the workers, and the one that the twin names",
    async (seed, name) => {
      const setup = SETUPS[name] as Setup;
      const workers = 1 + (seed % 64);
      const engines = await Promise.all([setup, setup].map((one) => smallEngine(one, 64)));
      const [engine, other] = engines as [(typeof engines)[0], (typeof engines)[0]];
      const twin = new Lanes();
      let nowMs = 0;
      for (let packet = 0; packet < 300; packet++) {
        const { frame, port = 0, timeMs = 0 } = arrivalOf(seed + packet, setup, [], nowMs);
        nowMs = timeMs;
        const { link = "ethernet", vpc = 0 } = setup.ports[port] as PortOptions;
        const bytes = bytesOf(frame);
        const lane = twin.laneOf(bytes, link, vpc, timeMs);
        const owner = workerOf(lane, workers);
        const isMine = (asked: number, asking: typeof engine) => {
          const { address } = asking.arena;
          asking.bytes.set(bytes, address);
          asking.descriptors.set([address, bytes.length, timeMs, port, 0, 0, 0, bytes.length]);
          return asking.select(0, 1, { worker: asked, workers }) === 1;
        };
        expect(isMine(owner, engine), `packet ${packet} of lane ${lane}`).toBe(true);
        // Another one sees all frames as well, and never takes this one.
        if (workers > 1) expect(isMine((owner + 1) % workers, other)).toBe(false);
      }
    },
  );

  test("every worker has as many lanes as any other, give or take one", () => {
    for (let workers = 1; workers <= 64; workers++) {
      const lanes = Array.from({ length: workers }, () => 0);
      for (let lane = 0; lane < 64; lane++) {
        const worker = workerOf(lane, workers);
        lanes[worker] = (lanes[worker] as number) + 1;
      }
      expect(Math.max(...lanes) - Math.min(...lanes)).toBeLessThanOrEqual(1);
    }
  });

  test("selection keeps descriptors together, in order, with their numbers", async () => {
    const setup = SETUPS["source NAT that adopts flows, replayed on one port"] as Setup;
    // Each has seen nothing: what fragments it knows would decide.
    const engines = await Promise.all([0, 1, 2, 3, 4].map(() => smallEngine(setup, 64)));
    const { address } = (engines[0] as (typeof engines)[0]).arena;
    const rows = Array.from({ length: 200 }, (_, row) => {
      const frame = bytesOf(arrivalOf(row, setup, [], 0).frame);
      const start = address + row * 2048;
      for (const { bytes } of engines) bytes.set(frame.subarray(0, 2048), start);
      return [start, Math.min(frame.length, 2048), row, 0, 0, 0, row, frame.length];
    });
    const kept: number[][] = [];
    for (const [worker, engine] of engines.entries()) {
      engine.descriptors.set(rows.flat(), 3 * 8);
      const count = engine.select(3, rows.length, { worker, workers: 5, number: 1000 });
      const list = Array.from({ length: count }, (_, index) => {
        return [...engine.descriptors.subarray((3 + index) * 8, (4 + index) * 8)];
      });
      const numbers = list.map(([, , row]) => row as number);
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
      kept.push(...list);
    }
    expect(kept.toSorted((a, b) => (a[2] as number) - (b[2] as number))).toEqual(rows);
    const [engine] = engines as [(typeof engines)[0]];
    expect(() => engine.select(0, 1, { worker: 2, workers: 2 })).toThrow(/^worker: 2 is not/);
    expect(() => engine.select(0, 1, { worker: 0, workers: 65 })).toThrow(/^workers: 65 is not/);
  });
});

describe("workers make what one makes", () => {
  const collections = [SHIPPED, SHARED].flatMap((place) => {
    try {
      return readdirSync(place)
        .filter((name) => /\.(pcap|pcapng|cap|gz)$/.test(name))
        .map((name) => [name, join(place, name)] as const);
    } catch {
      return [];
    }
  });
  const scenarios = ["nat", "nlb", "privatelink"] as const;
  // Of a collection beside the checkout every eighth, or all (WORKERS_ALL=1): threads take time.
  const chosen = collections.filter(([, path], index) => {
    return path.startsWith(SHIPPED) || process.env.WORKERS_ALL || index % 8 === 0;
  });

  test.each(chosen)("of %s", { timeout: 300_000 }, async (name, path) => {
    const isShipped = path.startsWith(SHIPPED);
    const one = scenarios[name.length % 3] as (typeof scenarios)[number];
    const counts = isShipped ? [2, 7] : [name.length % 2 === 0 ? 2 : 7];
    for (const scenario of isShipped ? scenarios : [one]) {
      const opened = await openedOf(path);
      // A capture that cannot be opened cannot be opened by anybody.
      if (opened === undefined) await expectSame(path, defaultScenario(scenario), {}, counts);
      else await expect(run(path, defaultScenario(scenario), 2)).rejects.toThrow(opened.message);
    }
  });

  test.each([1, 2, 3, 4])("of random packets, seed %i", { timeout: 120_000 }, async (seed) => {
    const setup = SETUPS["source NAT that adopts flows, replayed on one port"] as Setup;
    const file = worldCapture(setup, seed * 1_000_000, 3000);
    for (const scenario of scenarios) await expectSame(file, defaultScenario(scenario));
    // Strays are dropped and answered: the engine makes frames of its own.
    const nat = defaultScenario("nat");
    const services = [{ ...nat.services[0], adopt: false, resetStrays: true }];
    const { result } = await expectSame(file, { ...nat, services });
    expect(result.output.inserted.rst).toBeGreaterThan(10);
  });

  test("also of flows that are over long before the capture is", { timeout: 60_000 }, async () => {
    const DAY_NS = 86_400_000_000_000n;
    const records = Array.from({ length: 20 }, (_, frame) => {
      // Ten flows of ten lanes in the first second, then one of them after pauses of many days.
      const flow = frame < 10 ? frame : 3;
      const timeNs = frame < 10 ? BigInt(frame) * 1_000_000n : BigInt(frame - 9) * 13n * DAY_NS;
      const packet = eth()
        .ipv4("10.0.0.1", "198.51.100.1")
        .tcp(4000 + flow, 443, { flags: "S" });
      return { timeNs, bytes: packet.bytes() };
    });
    const file = join(folder, "pauses.pcap");
    writeFileSync(file, pcapFile(records, { linkType: LINKTYPE.ethernet }));
    const { same } = await expectSame(file, defaultScenario("nat"));
    expect(same.flows.expired).toBeGreaterThan(9);
  });

  test("with a limit, several passes and nothing to write", { timeout: 60_000 }, async () => {
    const path = join(SHIPPED, "web.pcap");
    await expectSame(path, defaultScenario("nat"), { limit: 777, wantsFrames: false });
    const { result } = await run(path, defaultScenario("nat"), 3, { passes: 4, isWatched: false });
    expect(result.run).toEqual({ scenario: "nat", passes: 4, workers: 3 });
    expect(result.workers).toHaveLength(3);
    expect(result.balance).toBeGreaterThan(0.3);
    expect(result.balance).toBeLessThanOrEqual(1);
    const mpps = result.workers.reduce((sum, worker) => sum + worker.mpps, 0);
    expect(result.engine.mpps).toBeLessThanOrEqual(mpps * 1.5);
  });

  test("also when the capture breaks off", { timeout: 60_000 }, async () => {
    const whole = readFileSync(join(SHIPPED, "web.pcap"));
    const path = join(folder, "broken.pcap");
    writeFileSync(path, whole.subarray(0, 600_011));
    const { same } = await expectSame(path, defaultScenario("nat"));
    expect(same.failure).toMatch(/record \d+ at byte \d+: the file ends after/);
  });

  test.each([true, false])("a worker that stops ends it, watched: %s", async (isWatched) => {
    const file = join(SHIPPED, "web.pcap");
    const scenario = defaultScenario("nat");
    const gone = {
      workers: 3,
      file: join(folder, "gone.pcap"),
      packetsMax: Number.POSITIVE_INFINITY,
    };
    const options: ReplayOptions = {
      file,
      scenario,
      wantsTimeline: isWatched,
      open: (memory) => openCapture(file, memory),
      machine: MACHINE,
      team: (task) =>
        startTeam({ ...task, ...gone, scenario, wantsFrames: false, isSpread: true, wasm }),
    };
    const failure = await replay(options).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CaptureError);
    expect((failure as Error).message).toMatch(/gone\.pcap: ENOENT/);
  });

  test("and a worker that fails ends the replay", { timeout: 60_000 }, async () => {
    const file = join(SHIPPED, "web.pcap");
    const scenario = defaultScenario("nat");
    const task = { workers: 2, file, scenario, captureBytes: 1, passes: 1, packetsMax: 9 };
    const services = [{ sourceAddresses: ["nonsense"] }];
    const team = startTeam({
      ...task,
      scenario: { ...scenario, services },
      isWatched: false,
      wantsFrames: false,
      isSpread: true,
      warmUp: false,
      wasm,
    });
    await expect(team).rejects.toThrow(/sourceAddresses\[0\]/);
  });
});
