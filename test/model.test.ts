/**
 * The engine against its slow twin on random sequences of packets: the same verdicts, bytes, flows
 * and counters, whatever the batch size. MODEL_RUNS multiplies the number of sequences.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { VerdictName } from "../host/engine/api.ts";
import { VERDICT_NAMES } from "../host/engine/engine.ts";
import {
  type Arrival,
  type Departure,
  expectAsTwin,
  expectSameFlows,
  type Setup,
  send,
  smallEngine,
  twinOf,
} from "./harness.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const FACTOR = Number(process.env.MODEL_RUNS ?? 1);
const RUNS = 50 * FACTOR;
/** Also the most that shrinking a failure may take. */
const TIME_MS = 120_000 * FACTOR;
const PACKETS_MAX = 1100;
const OTHER_SIZES = [1, 7, 64, 256];

/** Plays a sequence in batches of a size; each batch is made in view of the flows before it. */
async function play(setup: Setup, seeds: readonly number[], batchSize: number) {
  const engine = await smallEngine(setup);
  const twin = twinOf(setup);
  const arrivals: Arrival[] = [];
  const departures: Departure[] = [];
  let nowMs = 1000;
  for (let start = 0; start < seeds.length; start += batchSize) {
    const flows = twin.flows;
    const batch = seeds.slice(start, start + batchSize).map((seed) => {
      const arrival = arrivalOf(seed, setup, flows, nowMs);
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
  expectSameFlows(engine, twin, nowMs);
  return { arrivals, departures };
}

/** The same arrivals in batches of another size leave in the same way. */
async function expectSameInBatchesOf(
  size: number,
  setup: Setup,
  arrivals: readonly Arrival[],
  departures: readonly Departure[],
) {
  const again = send(await smallEngine(setup), arrivals, size);
  again.forEach((departure, i) => {
    const { verdict, frame } = departures[i] as Departure;
    const same = departure.verdict === verdict && Buffer.compare(departure.frame, frame) === 0;
    if (same) return;
    const told = { packet: i, verdict: departure.verdict, frame: departure.frame };
    expect(told, `in batches of ${size}`).toEqual({ packet: i, verdict, frame });
  });
}

const seen = new Set<VerdictName>();

describe("the engine behaves as its slow twin", () => {
  test.each(Object.entries(SETUPS))("%s", { timeout: 2 * TIME_MS }, async (_, setup) => {
    const seed = fc.integer({ min: 0, max: 0xffffffff });
    let packets = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(seed, { minLength: 1, maxLength: PACKETS_MAX, size: "max" }),
        fc.constantFrom(1, 3, 32, 100, 256),
        fc.constantFrom(...OTHER_SIZES),
        async (seeds, batchSize, otherSize) => {
          const { arrivals, departures } = await play(setup, seeds, batchSize);
          await expectSameInBatchesOf(otherSize, setup, arrivals, departures);
          packets += 2 * seeds.length;
          for (const { verdict } of departures) seen.add(verdict);
        },
      ),
      {
        numRuns: RUNS,
        seed: 20260105,
        interruptAfterTimeLimit: TIME_MS,
        markInterruptAsFailure: true,
      },
    );
    expect(packets).toBeGreaterThan(RUNS * 400);
  });

  test("and the worlds were rich enough to meet every verdict but those of full tables", () => {
    const full: VerdictName[] = ["drop.table-full", "drop.zone-full"];
    const ofNetworks = VERDICT_NAMES.slice(VERDICT_NAMES.indexOf("drop.no-route"));
    const reachable = VERDICT_NAMES.filter((name) => ![...full, ...ofNetworks].includes(name));
    expect([...seen].toSorted()).toEqual(reachable.toSorted());
  });
});
