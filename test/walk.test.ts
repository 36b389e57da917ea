/**
 * What the record walk spares itself: the clock is moved only where a record leaves the millisecond or
 * goes back, totals are made of where the walk began and ended, and a worker's clock stands still with
 * the capture's. Instants around all such edges, against clocks and totals that do it for every record.
 * WALK_RUNS multiplies the number of sequences.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  buildInterface,
  buildPacket,
  buildPcapHeader,
  buildPcapRecord,
  buildSection,
} from "../host/capture/build.ts";
import { openBytes } from "../host/capture/memory.ts";
import { selectAlways } from "../host/engine/selection.ts";
import { describeFrame } from "./capture-harness.ts";
import { bytesOf, smallEngine } from "./harness.ts";
import { clockWords, workerClocks } from "./reference/clock.ts";
import { Lanes, workerOf } from "./reference/owner.ts";
import { createWalkMemory } from "./walk-memory.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const FACTOR = Number(process.env.WALK_RUNS ?? 1);
const MS = 1_000_000n;
const LONGEST_MS = 2n ** 30n;
const memory = await createWalkMemory();
const setup = SETUPS[
  "source NAT that adopts flows, replayed on one port"
] as (typeof SETUPS)[string];

/** To the edge of some millisecond after the first record, or by so many ns from the record before. */
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ byNs: fc.bigInt(0n, 300_000n) }) },
  { weight: 2, arbitrary: fc.record({ byNs: fc.bigInt(-2n * MS, 5n * MS) }) },
  {
    weight: 3,
    arbitrary: fc.record({ edgeMs: fc.bigInt(-3n, 12n), besideNs: fc.bigInt(-1n, 1n) }),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(-3n, -1n, 1n, 3n), fc.bigInt(-2n, 2n))
      .map(([times, beside]) => ({ byNs: times * (LONGEST_MS + beside) * MS })),
  },
);
const steps = fc.array(step, { minLength: 1, maxLength: 120, size: "max" });
type Step = { byNs: bigint } | { edgeMs: bigint; besideNs: bigint };

const BEGIN_NS = 1_700_000_000_000_456_789n;
const LAST_NS = 4_294_967_295_999_999_999n;

/** Instants in whole `unitNs`, none before 1970 nor too late for a pcap. */
function instantsOf(list: readonly Step[], unitNs: bigint): bigint[] {
  const whole = (ns: bigint) => (ns / unitNs) * unitNs;
  let nowNs = whole(BEGIN_NS);
  const base = nowNs;
  return list.map((one) => {
    const wanted =
      "byNs" in one ? nowNs + one.byNs : base + one.edgeMs * MS + one.besideNs * unitNs;
    if (wanted >= 0n && wanted <= LAST_NS) nowNs = whole(wanted);
    return nowNs;
  });
}

/** The virtual clock at each of them, modulo 2^32. */
function wordsOf(instants: readonly bigint[]): number[] {
  const base = instants[0] as bigint;
  return clockWords(instants.map((ns) => Number((ns > base ? ns - base : 0n) / MS)));
}

const FORMATS = {
  "pcap, us": { unitNs: 1000n, bigEndian: false, resolution: 0 },
  "pcap, ns": { unitNs: 1n, bigEndian: false, resolution: 0 },
  "pcap, ns, big-endian": { unitNs: 1n, bigEndian: true, resolution: 0 },
  "pcapng, us": { unitNs: 1000n, bigEndian: false, resolution: 6 },
  "pcapng, ns": { unitNs: 1n, bigEndian: false, resolution: 9 },
  "pcapng, ns, big-endian": { unitNs: 1n, bigEndian: true, resolution: 9 },
};
type Format = (typeof FORMATS)[keyof typeof FORMATS];

function captureOf(format: Format, instants: readonly bigint[], frames: readonly Uint8Array[]) {
  const { unitNs, bigEndian, resolution } = format;
  const bytesAt = (i: number) => frames[i % frames.length] as Uint8Array;
  if (resolution > 0) {
    const parts = instants.map((ns, i) => {
      return buildPacket(bigEndian, { interface: 0, units: ns / unitNs, bytes: bytesAt(i) });
    });
    const taken = { linkType: 1, resolution };
    return Buffer.concat([buildSection(bigEndian), buildInterface(bigEndian, taken), ...parts]);
  }
  const layout = { bigEndian, nanoseconds: unitNs === 1n, lengthsSwapped: false };
  const records = instants.map((ns, i) => {
    return buildPcapRecord(layout, { timeNs: ns, bytes: bytesAt(i) });
  });
  return Buffer.concat([buildPcapHeader(layout, 1, 65535), ...records]);
}

const FRAMES = [0, 1, 60, 61].map((bytes) => new Uint8Array(bytes).fill(bytes));

describe.each(Object.entries(FORMATS))("%s", (_name, format) => {
  test("clock and totals are those of every single record, in any batches", async () => {
    const property = fc.asyncProperty(
      steps,
      fc.integer({ min: 1, max: 70 }),
      async (list, limit) => {
        const instants = instantsOf(list, format.unitNs);
        const words = wordsOf(instants);
        const source = await openBytes(captureOf(format, instants, FRAMES), memory);
        let packets = 0;
        let octets = 0;
        for (;;) {
          const count = await source.next(limit);
          if (count === 0) break;
          for (let index = 0; index < count; index++, packets++) {
            const frame = FRAMES[packets % FRAMES.length] as Uint8Array;
            const { data, wire, timeMs, ns, port } = describeFrame(source, index);
            expect({ wire, timeMs, ns, port }).toEqual({
              wire: frame.length,
              timeMs: words[packets],
              ns: instants[packets],
              port: 0,
            });
            expect(data).toEqual(frame);
            octets += frame.length;
          }
          const walked = instants.slice(0, packets).toSorted((a, b) => (a < b ? -1 : 1));
          expect([source.packets, source.capturedBytes]).toEqual([packets, octets]);
          expect([source.earliestNs, source.latestNs]).toEqual([walked[0], walked.at(-1)]);
        }
        expect(packets).toBe(instants.length);
        source.close();
      },
    );
    await fc.assert(property, { numRuns: 60 * FACTOR, seed: 20260722 });
  });
});

describe.each(Object.entries(FORMATS).filter(([, { bigEndian }]) => !bigEndian))(
  "%s, for one of several workers",
  (_name, format) => {
    test("describes its frames alone, with its own clock and the capture's", async () => {
      let others = 0;
      const property = fc.asyncProperty(
        steps,
        fc.nat(1_000_000),
        fc.record({ workers: fc.integer({ min: 1, max: 7 }), draw: fc.nat(6), cut: fc.nat(150) }),
        fc.integer({ min: 1, max: 70 }),
        async (list, seed, { workers, draw, cut }, limit) => {
          const worker = draw % workers;
          const instants = instantsOf(list, format.unitNs);
          const words = wordsOf(instants);
          const frames = instants.map((_, i) => bytesOf(arrivalOf(seed + i, setup, [], 0).frame));
          const lanes = new Lanes();
          // Whoever knows fragments sees the capture's clock.
          const clocks = workerClocks(words, Array(words.length).fill(true));
          const isOwn = frames.map((frame, i) => {
            const nowMs = (clocks[i] as (typeof clocks)[0]).captureMs;
            return workerOf(lanes.laneOf(frame, "ethernet", 0, nowMs), workers) === worker;
          });
          const isKept = isOwn.map((own, i) => own && i < cut);
          const wanted = workerClocks(words.slice(0, cut), isKept).map((clock, i) => {
            return { ...clock, frame: frames.filter((_, at) => isKept[at])[i] };
          });
          const engine = await smallEngine(setup, 64);
          selectAlways(engine.exports, { worker, workers }, cut);
          const source = await openBytes(captureOf(format, instants, frames), engine);
          const seen: unknown[] = [];
          for (;;) {
            const count = await source.next(limit);
            if (count === 0) break;
            for (let index = 0; index < count; index++) {
              const { data, timeMs } = describeFrame(source, index);
              engine.exports.measureFrames(index, index + 1, 1, 0);
              const captureMs = engine.exports.measuredMs();
              seen.push({ timeMs, captureMs, frame: data });
            }
          }
          expect(seen).toEqual(wanted);
          expect(source.packets).toBe(instants.length);
          // At the capture's latest instant, as if that frame had been the worker's.
          const instantsMs = clocks.slice(0, cut).map(({ captureMs }) => captureMs);
          const last = instantsMs.indexOf(Math.max(0, ...instantsMs));
          const until = words.slice(0, last + 1);
          const [latest] = workerClocks(until, isKept.slice(0, last).concat(true)).slice(-1);
          expect(engine.exports.ownLatestMs() >>> 0).toBe(last < 0 ? 0 : latest?.timeMs);
          source.close();
          others += instants.length - seen.length;
        },
      );
      await fc.assert(property, { numRuns: 40 * FACTOR, seed: 20260722 });
      expect(others).toBeGreaterThan(100);
    });
  },
);
