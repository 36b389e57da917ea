/**
 * Time without end: the engine counts milliseconds in 32 bits, the twin without bounds, and both agree
 * on what is over, whatever the pauses and the batches. CLOCK_RUNS multiplies the number of sequences.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as abi from "../assembly/abi.ts";
import { eth, fragments4, type Packet } from "../fixtures/packets.ts";
import { buildPcapHeader, buildPcapRecord } from "../host/capture/build.ts";
import { openBytes } from "../host/capture/memory.ts";
import { openStream } from "../host/capture/stream.ts";
import { Clock, STEP_MS_MAX } from "../host/clock.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { Frames } from "../host/engine/frames.ts";
import { run } from "./capture-harness.ts";
import {
  type Arrival,
  bytesOf,
  type Departure,
  expectAsTwin,
  expectSameFlows,
  type Setup,
  send,
  smallEngine,
  twinOf,
} from "./harness.ts";
import { clockWords } from "./reference/clock.ts";
import type { TwinFlow } from "./reference/engine.ts";
import { parseFrame } from "./reference/parse.ts";
import { createWalkMemory } from "./walk-memory.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const FACTOR = Number(process.env.CLOCK_RUNS ?? 1);
const RUNS = 8 * FACTOR;
const TIME_MS = 120_000 * FACTOR;
const DAY_MS = 86_400_000;

/** Around everything at which 32 bits could go wrong. */
const EDGES = [2 ** 28, 2 ** 29, 2 ** 30, 2 ** 31, 2 ** 32, 3 * 2 ** 31, 2 ** 33];
const NEAR_MS = [-351_000, -60_001, -1000, -1, 0, 1, 1000, 30_001, 120_000, 350_000, 351_000];
const PAUSES_MS = [
  ...EDGES.flatMap((edge) => NEAR_MS.map((near) => edge + near)),
  ...[3, 7, 13, 25, 50, 75, 100, 365, 3650].map((days) => days * DAY_MS),
];

/** Most packets follow soon; some after one of the pauses. */
function pauseOf(seed: number): number {
  return seed % 23 === 0 ? (PAUSES_MS[(seed >>> 8) % PAUSES_MS.length] as number) : 0;
}

/**
 * An arrival that is not from one endpoint to itself: such a packet is refused, yet has made an expired
 * flow give up the tuple that it would have taken. The twin has no flow give up anything for nothing.
 */
function arrivalBut(
  seed: number,
  setup: Setup,
  flows: readonly TwinFlow[],
  nowMs: number,
): Arrival {
  const arrival = arrivalOf(seed, setup, flows, nowMs);
  const { link, vpc } = setup.ports[arrival.port ?? 0] ?? {};
  const parsed = parseFrame(bytesOf(arrival.frame), link ?? "ethernet", vpc ?? 0);
  if ("verdict" in parsed) return arrival;
  const { source, sourcePort, destination, destinationPort } = parsed.tuple;
  const isSelf = source === destination && sourcePort === destinationPort;
  return isSelf ? arrivalBut(seed + 1, setup, flows, nowMs) : arrival;
}

async function play(setup: Setup, seeds: readonly number[], batchSize: number) {
  const engine = await smallEngine(setup);
  const twin = twinOf(setup);
  const arrivals: Arrival[] = [];
  const departures: Departure[] = [];
  let nowMs = 1000;
  for (let start = 0; start < seeds.length; start += batchSize) {
    const batch = seeds.slice(start, start + batchSize).map((seed) => {
      const arrival = arrivalBut(seed, setup, twin.flows, nowMs + pauseOf(seed));
      nowMs = arrival.timeMs ?? nowMs;
      return arrival;
    });
    const out = send(engine, batch, batchSize);
    out.forEach((departure, i) => {
      expectAsTwin(twin, batch[i] as Arrival, departure);
    });
    arrivals.push(...batch);
    departures.push(...out);
  }
  const instants = arrivals.map(({ timeMs }) => timeMs ?? 0);
  const words = new Map(clockWords(instants).map((word, i) => [instants[i], word]));
  twin.expire(nowMs);
  for (const flow of twin.flows) flow.lastSeenMs = words.get(flow.lastSeenMs) as number;
  expectSameFlows(engine, twin, Number.NEGATIVE_INFINITY);
  return { arrivals, departures };
}

describe("pauses of any length", () => {
  test.each(Object.entries(SETUPS))("%s", { timeout: 2 * TIME_MS }, async (_, setup) => {
    const seed = fc.integer({ min: 0, max: 0xffffffff });
    let forwarded = 0;
    let days = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(seed, { minLength: 200, maxLength: 600, size: "max" }),
        fc.constantFrom(1, 3, 32, 256),
        fc.constantFrom(1, 7, 64, 256),
        async (seeds, batchSize, otherSize) => {
          const { arrivals, departures } = await play(setup, seeds, batchSize);
          const again = send(await smallEngine(setup), arrivals, otherSize);
          expect(again.map(({ verdict }) => verdict)).toEqual(
            departures.map(({ verdict }) => verdict),
          );
          forwarded += departures.filter(({ verdict }) => verdict === "forward").length;
          days += (arrivals.at(-1)?.timeMs ?? 0) / DAY_MS;
        },
      ),
      { numRuns: RUNS, seed: 20260722, interruptAfterTimeLimit: TIME_MS },
    );
    expect(forwarded).toBeGreaterThan(RUNS * 20);
    expect(days).toBeGreaterThan(RUNS * 365);
  });
});

const CLIENT = "10.0.0.1";
const NAT = "10.9.0.1";
const SERVER = "192.0.2.1";
const asked = (port = 5000) => eth().ipv4(CLIENT, SERVER).udp(port, 53).bytes();
const answered = (port = 5000) => eth().ipv4(SERVER, NAT).udp(53, port).bytes();

async function gateway(udp: number) {
  const options = { flowCountMax: 4096, flow6CountMax: 16, warmUp: false };
  const engine = await createEngine({ ...options, timeouts: { udp } });
  engine.setService(0, { sourceAddresses: [NAT] });
  engine.setPort(0, { service: 0, peer: 1 });
  engine.setPort(1, { sides: "service", peer: 0 });
  return { engine, frames: new Frames(engine) };
}

describe("a timeout is exact after any pause", () => {
  const timeouts = [5, 120, 86_400, abi.TIMEOUT_SECONDS_MAX];

  test.each(timeouts)("of %i s", async (seconds) => {
    const timeoutMs = seconds * 1000;
    const around = [timeoutMs - 1, timeoutMs, timeoutMs + 1];
    for (const pauseMs of [...around, ...PAUSES_MS, ...around.map((ms) => ms + 2 ** 32)]) {
      for (const isOneBatch of [false, true]) {
        const { frames } = await gateway(seconds);
        frames.add(asked(), 7);
        if (!isOneBatch) frames.process();
        frames.add(answered(), 7 + pauseMs, 1);
        const verdict = frames.process().at(-1)?.verdict;
        const wanted = pauseMs > timeoutMs ? "drop.no-flow" : "forward";
        expect(verdict, `${pauseMs} ms, ${isOneBatch}`).toBe(wanted);
      }
    }
  });

  test("of 0 s: never", async () => {
    for (const pauseMs of PAUSES_MS) {
      const { frames } = await gateway(0);
      frames.add(asked(), 7);
      frames.add(answered(), 7 + pauseMs, 1);
      expect(frames.process().at(-1)?.verdict, `${pauseMs} ms`).toBe("forward");
    }
  });

  test("and expire() says how many flows are over, also after a long one", async () => {
    for (const pauseMs of [121_000, ...PAUSES_MS]) {
      const { engine, frames } = await gateway(120);
      for (const port of [5000, 5001, 5002]) frames.add(asked(port), 7);
      frames.process();
      expect(engine.expire(7 + 120_000)).toBe(0);
      expect(engine.expire(7 + pauseMs), `${pauseMs} ms`).toBe(3);
      expect(engine.counters().flows).toMatchObject({ active: 0, expired: 3 });
    }
  });

  test("when others keep the clock going for months: the sweep alone, no long pause", async () => {
    for (const [seconds, wanted] of [
      [0, "forward"],
      [abi.TIMEOUT_SECONDS_MAX, "drop.no-flow"],
    ] as const) {
      const { frames } = await gateway(seconds);
      frames.add(asked(), 0);
      let nowMs = 0;
      for (let packet = 0; packet < 3000; packet++) {
        nowMs += 3_600_000;
        frames.add(asked(6000), nowMs);
        if (packet % 50 === 49) frames.process();
      }
      frames.add(answered(), nowMs, 1);
      expect(frames.process().at(-1)?.verdict).toBe(wanted);
    }
  });

  test("and time that steps back by a moment, at any edge, expires nothing", async () => {
    for (const edge of EDGES) {
      const { frames } = await gateway(120);
      frames.add(asked(6000), 0);
      frames.add(asked(), edge);
      frames.add(asked(6000), edge - 5000);
      frames.add(answered(), edge + 1, 1);
      frames.add(answered(6000), edge + 1, 1);
      expect(frames.process().map(({ verdict }) => verdict)).toEqual(Array(5).fill("forward"));
    }
  });

  test("also for later fragments", async () => {
    for (const pauseMs of [30_000, 30_001, ...PAUSES_MS]) {
      const { frames } = await gateway(0);
      const udp = (packet: Packet) => packet.udp(5000, 53).payload(new Uint8Array(200));
      const options = { id: 9, protocol: 17 };
      const [first, later] = fragments4(eth(), CLIENT, SERVER, options, udp, 64).map((cut) => {
        return cut.bytes();
      }) as [Uint8Array, Uint8Array];
      frames.add(first, 7);
      frames.add(later, 7 + pauseMs);
      const wanted = pauseMs > 30_000 ? "drop.fragment" : "forward";
      expect(frames.process().at(-1)?.verdict, `${pauseMs} ms`).toBe(wanted);
    }
  });
});

/** Instants whose steps are small or a pause, forwards and sometimes backwards. */
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: -2000, max: 60_000 }) },
    { weight: 1, arbitrary: fc.constantFrom(...PAUSES_MS, ...PAUSES_MS.map((ms) => -ms)) },
  ),
  { minLength: 1, maxLength: 60 },
);

function instantsOf(deltas: readonly number[]): number[] {
  let nowMs = 1_600_000_000_000;
  return deltas.map((delta) => {
    nowMs = Math.min(Math.max(nowMs + delta, 0), 4_000_000_000_000);
    return nowMs;
  });
}

describe("the clock of descriptors", () => {
  test("moves as defined, by the longest step that the engine takes", () => {
    expect(STEP_MS_MAX).toBe(abi.CLOCK_STEP_MS_MAX);
    fc.assert(
      fc.property(steps, (deltas) => {
        const instants = instantsOf(deltas);
        const clock = new Clock();
        expect(instants.map((ms) => clock.at(ms))).toEqual(clockWords(instants));
      }),
      { numRuns: 500 * FACTOR, seed: 20260722 },
    );
  });

  test("is the same in captures, by both readers and in any batches", {
    timeout: TIME_MS,
  }, async () => {
    const layout = { bigEndian: false, nanoseconds: false, lengthsSwapped: false };
    const data = asked();
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 1, max: 70 }), async (deltas, limit) => {
        const instants = instantsOf(deltas);
        const records = instants.map((ms) => {
          return buildPcapRecord(layout, { timeNs: BigInt(ms) * 1_000_000n, bytes: data });
        });
        const file = Buffer.concat([buildPcapHeader(layout, 1, 65535), ...records]);
        // Instants before the first record count as its own.
        const wanted = clockWords(instants.map((ms) => Math.max(ms - (instants[0] as number), 0)));
        const walked = await run(openBytes(new Uint8Array(file), await createWalkMemory()), {
          limit,
        });
        expect(walked.packets.map(({ timeMs }) => timeMs)).toEqual(wanted);
        const chunks = (async function* () {
          yield new Uint8Array(file);
        })();
        const parsed = await run(openStream("parser", chunks, await createWalkMemory()), { limit });
        expect(parsed.packets.map(({ timeMs }) => timeMs)).toEqual(wanted);
      }),
      { numRuns: 60 * FACTOR, seed: 20260722 },
    );
  });
});

describe("workers", () => {
  /** Verdicts of frames at the capture's clock, of the shards of one of `workers` (0: of all). */
  function verdictsOf(engine: Engine, frames: Uint8Array[], words: number[], worker: number) {
    const verdicts = new Map<number, number>();
    const { arena, bytes, descriptors } = engine;
    for (let first = 0; first < frames.length; first += 16) {
      const batch = frames.slice(first, first + 16);
      const rows = batch.map((frame, i) => {
        const at = arena.address + i * 256;
        bytes.set(frame, at);
        return [at, frame.length, words[first + i] as number, 0, 0, 0, first + i, frame.length];
      });
      descriptors.set(rows.flat());
      const count =
        worker < 0 ? batch.length : engine.select(0, batch.length, { worker, workers: 3 });
      engine.process(count);
      for (let i = 0; i < count; i++) {
        verdicts.set(descriptors[i * 8 + 6] as number, descriptors[i * 8 + 4] as number);
      }
    }
    return verdicts;
  }

  test("see the pauses that others have", async () => {
    const setup: Setup = {
      services: [{ sourceAddresses: [NAT] }],
      ports: [{ service: 0, sides: "both" }],
    };
    for (const pauseMs of PAUSES_MS.filter((ms) => ms > 2 ** 29)) {
      const frames: Uint8Array[] = [];
      const instants: number[] = [];
      for (let packet = 0; packet < 120; packet++) {
        // Every flow speaks twice in a row, is silent for a while, and is then answered.
        const port = 6000 + Math.floor((packet % 60) / 2);
        frames.push(packet < 60 ? bytesOf(asked(port)) : bytesOf(answered(port)));
        const before = instants.at(-1) ?? 0;
        instants.push(before + (packet % 9 === 0 ? pauseMs : 1));
      }
      const words = clockWords(instants);
      const whole = verdictsOf(await smallEngine(setup), frames, words, -1);
      const shares = await Promise.all(
        [0, 1, 2].map(async (worker) => [
          ...verdictsOf(await smallEngine(setup), frames, words, worker),
        ]),
      );
      const together = shares.flat().toSorted(([a], [b]) => a - b);
      expect(together, `${pauseMs} ms`).toEqual([...whole]);
    }
  });
});
