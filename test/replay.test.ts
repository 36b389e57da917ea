import { readFileSync } from "node:fs";
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { raw } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { MemoryOutput, openBytes } from "../host/capture/memory.ts";
import type { CaptureReader } from "../host/capture/reader.ts";
import { CaptureWriter } from "../host/capture/writer.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { VERDICT_OUT_MAX, WORDS } from "../host/replay/batch.ts";
import { Course, Meter, peakGbps } from "../host/replay/meter.ts";
import { DropsRecorder, MapRecorder, WriteRecorder } from "../host/replay/recorders.ts";
import { type ReplayOptions, replay } from "../host/replay/replay.ts";
import { defaultScenario, type Scenario } from "../host/scenario/scenario.ts";
import { readCapture } from "./reference/capture.ts";
import { xxh64 } from "./reference/xxh64.ts";

const CAPTURES = new URL("../fixtures/captures/", import.meta.url);
const MACHINE = { cpu: "test", cores: 1, node: "0", v8: "0", flowplane: "0" };

function fixture(name: string): Buffer {
  return readFileSync(new URL(name, CAPTURES));
}

/** A replay in memory, with everything that it can write. */
async function run(file: Uint8Array, options: Partial<ReplayOptions> = {}) {
  const [written, map, drops] = [new MemoryOutput(), new MemoryOutput(), new MemoryOutput()];
  const replayed = await replay({
    file: "test",
    scenario: defaultScenario("nat"),
    open: (engine) => openBytes(file, engine, { name: "test" }),
    recorders: [
      (engine) => new MapRecorder(engine, map),
      (engine, source) => new DropsRecorder(engine, source, drops),
      (engine, source) => {
        return new WriteRecorder(
          engine,
          source,
          new CaptureWriter(source as CaptureReader, written),
        );
      },
    ],
    machine: MACHINE,
    ...options,
  });
  const lines = new TextDecoder().decode(map.toBytes()).split("\n").slice(0, -1);
  return {
    ...replayed,
    output: written.toBytes(),
    drops: drops.toBytes(),
    map: lines.map((line) => line.split("\t")),
  };
}

/** XXH64 of a frame, as eight bytes. */
function hashOf(frame: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, xxh64(frame, 0n), true);
  return bytes;
}

function verdictSum(verdicts: Record<string, number>): number {
  return Object.values(verdicts).reduce((sum, packets) => sum + packets, 0);
}

/** Scenario with a table of sixteen flows, so that most packets are dropped. */
function tinyScenario(): Scenario {
  const scenario = defaultScenario("nat");
  return { ...scenario, engine: { ...scenario.engine, flowCountMax: 16, flow6CountMax: 16 } };
}

describe("a replay", () => {
  test.each([
    "web.pcap",
    "icmp-errors.pcapng",
    "nanoseconds.pcapng",
    "snaplen.pcap",
    "live.pcapng",
  ])("of %s counts, writes and digests the same frames", async (name) => {
    const file = fixture(name);
    const { result, output, map, failure } = await run(file);
    const before = readCapture(file);
    const after = readCapture(output);
    expect(failure).toBeUndefined();
    expect(result.capture.packets).toBe(before.length);
    expect(verdictSum(result.verdicts)).toBe(before.length);
    expect(result.output.packets).toBe(after.length);
    expect(result.output.bytes).toBe(after.reduce((sum, { bytes }) => sum + bytes.length, 0));
    const digest = after.reduce((chain, { bytes }) => xxh64(hashOf(bytes), chain), 0n);
    expect(result.digest).toBe(digest.toString(16).padStart(16, "0"));
    expect(map.map(([input]) => Number(input))).toEqual(before.map((_, index) => index + 1));
    const outputs = map.map(([, number]) => Number(number)).filter((number) => number > 0);
    expect(outputs).toEqual(after.map((_, index) => index + 1));
    for (const [input, number, verdict] of map) {
      const isOut = verdict === "forward" || verdict === "pass.non-ip";
      expect(number !== "0").toBe(isOut);
      if (isOut) {
        expect(after[Number(number) - 1]?.timeNs).toBe(before[Number(input) - 1]?.timeNs);
      }
    }
  });

  test.each(["web.pcap", "icmp-errors.pcapng", "live.pcapng", "snaplen.pcap"])(
    "of %s writes the resets that answer strays, where they leave",
    async (name) => {
      const file = fixture(name);
      // A small table has no room for most flows: all that follows their SYN is stray.
      const scenario = { ...tinyScenario(), services: [{ resetStrays: true }] };
      const { result, output, map } = await run(file, { scenario });
      const before = readCapture(file);
      const after = readCapture(output);
      const { rst, pp2, icmp } = result.output.inserted;
      expect({ pp2, icmp }).toEqual({ pp2: 0, icmp: 0 });
      expect(rst).toBe(map.filter(([, , verdict]) => verdict === "made.rst").length);
      expect(result.output.packets).toBe(after.length);
      expect(result.output.bytes).toBe(after.reduce((sum, { bytes }) => sum + bytes.length, 0));
      const digest = after.reduce((chain, { bytes }) => xxh64(hashOf(bytes), chain), 0n);
      expect(result.digest).toBe(digest.toString(16).padStart(16, "0"));
      const outputs = map.map(([, number]) => Number(number)).filter((number) => number > 0);
      expect(outputs).toEqual(after.map((_, index) => index + 1));
      let cause = 0;
      for (const [input, number, verdict] of map) {
        if (verdict !== "made.rst") cause = Number(input);
        else {
          expect(input).toBe("0");
          expect(map[map.findIndex(([at]) => at === `${cause}`)]?.[2]).toBe("drop.no-flow");
          expect(after[Number(number) - 1]?.timeNs).toBe(before[cause - 1]?.timeNs);
        }
      }
      if (name === "live.pcapng" || name === "web.pcap") expect(rst).toBeGreaterThan(0);
    },
  );

  test("gives the same verdicts and digest every time, in batches of any size", async () => {
    const file = fixture("web.pcap");
    const first = await run(file);
    const again = await run(file, { wantsTimeline: true });
    expect(again.result.digest).toBe(first.result.digest);
    expect(again.result.verdicts).toEqual(first.result.verdicts);
    expect(Buffer.from(again.output).equals(first.output)).toBe(true);
  });

  test("reports and writes the first pass only, however many there are", async () => {
    const file = fixture("web.pcap");
    const once = await run(file);
    const often = await run(file, { passes: 4 });
    const { verdicts, flows, digest, output, resources, capture } = once.result;
    expect(often.result).toMatchObject({ verdicts, flows, digest, output, resources, capture });
    expect(often.result.run.passes).toBe(4);
    expect(often.output.length).toBe(once.output.length);
    expect(often.result.engine.nsPerPacket).toBeGreaterThan(0);
  });

  test("ends after as many packets as asked for", async () => {
    const { result, output } = await run(fixture("web.pcap"), { packetsMax: 300, passes: 2 });
    expect(result.capture.packets).toBe(300);
    expect(verdictSum(result.verdicts)).toBe(300);
    expect(readCapture(output)).toHaveLength(result.output.packets);
  });

  test("of a capture that breaks off reports what came before, and writes a valid file", async () => {
    const file = fixture("web.pcap");
    const { result, output, failure } = await run(file.subarray(0, file.length - 3), { passes: 3 });
    expect(failure?.message).toMatch(/^test: record 2229 at byte \d+: the file ends after/);
    expect(failure?.exitCode).toBe(1);
    expect(result.capture.packets).toBe(2228);
    expect(readCapture(output)).toHaveLength(result.output.packets);
  });

  test("writes every dropped packet with its verdict as the comment", async () => {
    const { result, drops, map } = await run(fixture("web.pcap"), { scenario: tinyScenario() });
    const dropped = result.capture.packets - result.output.packets;
    expect(result.verdicts["drop.table-full"]).toBeGreaterThan(0);
    const frames = readCapture(drops);
    expect(frames).toHaveLength(dropped);
    const before = readCapture(fixture("web.pcap"));
    const inputs = map.filter(([, number]) => number === "0").map(([input]) => Number(input) - 1);
    inputs.forEach((input, index) => {
      expect(frames[index]?.bytes).toEqual(before[input]?.bytes);
      expect(frames[index]?.timeNs).toBe(before[input]?.timeNs);
    });
    const text = Buffer.from(drops).toString("latin1");
    expect(text.split("drop.table-full").length - 1).toBe(result.verdicts["drop.table-full"]);
  });

  test("of a capture without packets is a result full of zeros", async () => {
    const { result, failure } = await run(pcapFile([], { linkType: LINKTYPE.ethernet }));
    expect(failure).toBeUndefined();
    expect(result.capture).toMatchObject({ packets: 0, bytes: 0, durationSeconds: 0 });
    expect(result.digest).toBe("0000000000000000");
    expect(result.engine).toEqual({ nsPerPacket: 0, coldNsPerPacket: 0, mpps: 0, gbps: 0 });
    expect(result.capacity.targets.every(({ cores, met }) => cores === 0 && !met)).toBe(true);
    expect(JSON.stringify(result)).not.toContain("null");
  });

  test("says how many cores a target takes at the rate that one reached", async () => {
    const { result } = await run(fixture("web.pcap"), { passes: 3 });
    const { engine, capacity, capture } = result;
    expect(engine.mpps).toBeCloseTo(1e3 / engine.nsPerPacket, 6);
    expect(engine.gbps).toBeCloseTo((engine.mpps * 8 * capture.bytes) / capture.packets / 1e3, 6);
    expect(capacity.unitsPerCore).toBeCloseTo(engine.gbps / 5, 6);
    expect(capacity.targets.map(({ gbps }) => gbps)).toEqual([5, 10, 25, 50, 100, 1000]);
    for (const { gbps, cores, met } of capacity.targets) {
      expect(cores).toBeCloseTo(gbps / engine.gbps, 6);
      expect(met).toBe(engine.gbps >= gbps);
    }
  });

  test("charges resources for what passed through them", async () => {
    const packets = Array.from({ length: 100 }, (_, index) => ({
      timeNs: BigInt(index) * 100_000_000n,
      bytes: raw().ipv4("10.0.0.1", "192.0.2.1").udp(5000, 53).payload(972).bytes(),
    }));
    const file = pcapFile(packets, { linkType: LINKTYPE.raw });
    const { result } = await run(file, { scenario: defaultScenario("privatelink") });
    expect(result.resources.map(({ kind }) => kind)).toEqual([
      "vpc-endpoint",
      "network-load-balancer",
    ]);
    for (const resource of result.resources) {
      // Ten packets of 1000 bytes a second.
      expect(resource).toMatchObject({
        packets: 100,
        bytes: 100_000,
        newFlows: 1,
        activeFlows: 1,
        peakGbps: 0.00008,
        units: 1,
      });
    }
    expect(result.notes).toEqual([]);
  });
});

interface Frame {
  stepMs: number;
  bytes: number;
  wire: number;
  inFlow: boolean;
  isDropped: boolean;
}

let engine: Engine | undefined;

const frame = fc.record({
  stepMs: fc.oneof(fc.integer({ min: -5, max: 3000 }), fc.integer({ min: 0, max: 2 ** 30 })),
  bytes: fc.integer({ min: 0, max: 9000 }),
  wire: fc.integer({ min: 0, max: 9000 }),
  inFlow: fc.boolean(),
  isDropped: fc.boolean(),
});

/** Instants of frames since the first, which is at 0; nothing lies before it. */
function instants(frames: readonly Frame[]): number[] {
  let now = 0;
  return frames.map(({ stepMs }, index) => {
    if (index > 0) now += stepMs;
    return now;
  });
}

describe("the meter", () => {
  // Told in batches of any size: what is noted of one must hold for the next.
  property.prop([fc.array(frame, { maxLength: 60 }), fc.integer({ min: 1, max: 60 })])(
    "finds the busiest second",
    async (frames, size) => {
      engine ??= await createEngine({ flowCountMax: 16, flow6CountMax: 16, warmUp: false });
      const meter = new Meter(engine, false);
      const bySecond = new Map<number, number>();
      const times = instants(frames);
      for (let from = 0; from < frames.length; from += size) {
        const batch = frames.slice(from, from + size);
        for (const [index, { bytes, wire, inFlow, isDropped }] of batch.entries()) {
          const ms = times[from + index] as number;
          const verdict = isDropped ? VERDICT_OUT_MAX + 1 : VERDICT_OUT_MAX;
          engine.descriptors.set(
            [0, bytes, ms, 0, verdict, inFlow ? 1 : 0, 0, wire],
            index * WORDS,
          );
          // Beyond 2^22 seconds all is one.
          const second = Math.min(Math.floor(Math.max(ms, 0) / 1000), 2 ** 22 - 1);
          if (inFlow && !isDropped) bySecond.set(second, (bySecond.get(second) ?? 0) + bytes);
        }
        meter.measure(batch.length);
      }
      const busiest = Math.max(0, ...bySecond.values());
      expect(peakGbps(meter.measured)).toBeCloseTo((8 * busiest) / 1e9, 12);
      const out = frames.filter(({ isDropped }) => !isDropped);
      expect(meter.measured.outputBytes).toBe(out.reduce((sum, { bytes }) => sum + bytes, 0));
      expect(meter.latestMs).toBe(Math.max(0, ...times));
    },
  );

  property.prop([fc.array(frame, { minLength: 1, maxLength: 60 })])(
    "keeps every packet in the slice of its instant, however long the capture",
    (frames) => {
      const course = new Course();
      const times = instants(frames).map((ms) => Math.max(ms, 0));
      times.forEach((ms, index) => {
        const { bytes, wire } = frames[index] as Frame;
        course.count(ms, bytes, wire);
        course.sample(ms, { active: index + 1, created: index + 1 });
      });
      const { sliceSeconds, packets, bytes, flowsActive, flowsCreated, sizes } = course.timeline();
      const sliceMs = sliceSeconds * 1000;
      const sliceOf = (ms: number) => Math.floor(ms / sliceMs);
      expect(packets.length).toBe(sliceOf(Math.max(...times)) + 1);
      expect(packets.length).toBeLessThanOrEqual(256);
      const inSlice = (slice: number) =>
        times.flatMap((ms, i) => (sliceOf(ms) === slice ? [i] : []));
      let active = 0;
      for (let slice = 0; slice < packets.length; slice++) {
        const indices = inSlice(slice);
        expect(packets[slice]).toBe(indices.length);
        expect(flowsCreated[slice]).toBe(indices.length);
        expect(bytes[slice]).toBe(indices.reduce((sum, i) => sum + (frames[i] as Frame).bytes, 0));
        active = indices.length > 0 ? Math.max(...indices) + 1 : active;
        expect(flowsActive[slice]).toBe(active);
      }
      const classes = [64, 127, 255, 511, 1023, 1518, Number.POSITIVE_INFINITY];
      const expected = classes.map((most, i) => {
        const least = i === 0 ? 0 : (classes[i - 1] as number) + 1;
        return frames.filter(({ wire }) => wire >= least && wire <= most).length;
      });
      expect(sizes).toEqual(expected);
    },
  );
});
