/**
 * Frames that nobody sane would send: mutations of the shipped captures and of the model's world,
 * and plain noise. The engine may drop what it likes, but it must not trap, must give every frame
 * a verdict, must leave what it drops as it was, and must write nowhere but into forwarded frames
 * (the harness keeps canaries around each). FUZZ_RUNS multiplies the number of sequences.
 */
import { readdir, readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import type { Link } from "../fixtures/verify.ts";
import { type Arrival, bytesOf, expectAsTwin, send, smallEngine, twinOf } from "./harness.ts";
import { readCapture } from "./reference/capture.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const FACTOR = Number(process.env.FUZZ_RUNS ?? 1);
const FOLDER = new URL("../fixtures/captures/", import.meta.url);
const LINKS: Link[] = ["ethernet", "raw", "null", "sll", "sll2"];

const files = await readdir(FOLDER);
const captured = (
  await Promise.all(files.map(async (name) => readCapture(await readFile(new URL(name, FOLDER)))))
).flat();

type Random = () => number;

function below(random: Random, n: number): number {
  return Math.floor(random() * n);
}

/** Bytes that decide how a packet is read, and values at their edges. */
const EDGES = [0, 1, 4, 5, 6, 17, 43, 44, 51, 58, 60, 127, 128, 201, 254, 255];

/** A frame with some bytes changed, cut, doubled or torn out. */
function mutated(frame: Uint8Array, random: Random): Uint8Array {
  let bytes = frame.slice();
  for (let n = 1 + below(random, 4); n > 0 && bytes.length > 0; n--) {
    // The first hundred bytes hold the headers.
    const at = below(random, Math.min(bytes.length, 100));
    switch (below(random, 6)) {
      case 0:
        bytes = bytes.slice(0, at);
        break;
      case 1:
        bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(at + below(random, 9)));
        break;
      case 2:
        bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(below(random, at + 1)));
        break;
      case 3:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << below(random, 8));
        break;
      default:
        bytes[at] = EDGES[below(random, EDGES.length)] ?? below(random, 256);
    }
  }
  return bytes.subarray(0, 2000);
}

function arrivalFrom(seed: number, nowMs: number): Arrival {
  const random = seeded(seed);
  const kind = below(random, 10);
  const timeMs = nowMs + below(random, 300);
  if (kind === 0) {
    const noise = Uint8Array.from({ length: below(random, 120) }, () => below(random, 256));
    return { frame: noise, port: below(random, LINKS.length), timeMs };
  }
  const original = captured[below(random, captured.length)];
  if (kind < 7 && original !== undefined) {
    // Mostly as the link that it is, sometimes as another.
    const known = LINKS.indexOf(original.link);
    const port = kind === 1 ? below(random, LINKS.length) : known;
    return { frame: kind === 2 ? original.bytes : mutated(original.bytes, random), port, timeMs };
  }
  const setup = { services: [], ports: [{}] };
  const { frame } = arrivalOf(below(random, 2 ** 31), setup, [], nowMs);
  return { frame: kind === 9 ? frame : mutated(bytesOf(frame), random), port: 0, timeMs };
}

/** The worlds' services, each behind one port per link. */
const ENGINES = Object.entries(SETUPS).map(([name, { services }]) => {
  const ports = LINKS.map((link) => ({ link, service: 0, sides: "both" as const }));
  return [name, { services, ports }] as const;
});

describe("mutated frames", () => {
  test.each(ENGINES)("%s", { timeout: 60_000 * FACTOR }, async (_, setup) => {
    const seed = fc.integer({ min: 0, max: 0x7fffffff });
    const seeds = fc.array(seed, { minLength: 1, maxLength: 600, size: "max" });
    await fc.assert(
      fc.asyncProperty(seeds, async (list) => {
        const engine = await smallEngine(setup);
        const twin = twinOf(setup);
        let nowMs = 0;
        const arrivals = list.map((one) => {
          const arrival = arrivalFrom(one, nowMs);
          nowMs = arrival.timeMs ?? nowMs;
          return arrival;
        });
        // The twin agrees on every byte, however odd the frame.
        send(engine, arrivals).forEach((departure, i) => {
          expectAsTwin(twin, arrivals[i] as Arrival, departure);
        });
        const { verdicts } = engine.counters();
        expect(Object.values(verdicts).reduce((sum, n) => sum + n)).toBe(list.length);
      }),
      { numRuns: 25 * FACTOR, seed: 20260106, interruptAfterTimeLimit: 30_000 * FACTOR },
    );
  });
});
