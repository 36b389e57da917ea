/**
 * Captures with random damage: the reader and its slow twin must agree on every packet, on where
 * the reading ends, and on what may be written. FUZZ_RUNS sets the number of runs (default 300).
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { openBytes } from "../host/capture/memory.ts";
import { makePcap, makePcapng, PCAP_VARIANTS } from "./capture-generated.ts";
import { runOrRefuse } from "./capture-harness.ts";
import { readTwin } from "./capture-twin.ts";
import { createWalkMemory } from "./walk-memory.ts";

const numRuns = Number(process.env.FUZZ_RUNS ?? 300);
const memory = await createWalkMemory();
const SEEDS = [
  ...PCAP_VARIANTS.map((variant) => makePcap(variant, 12)),
  makePcapng(false, 14),
  makePcapng(true, 14),
  makePcapng(true, 14),
  makePcapng(false, 14),
];

const INTERESTING = [0, 1, 2, 3, 4, 8, 12, 16, 28, 32, 255, 65535, 262144, 262145, 0x7fffffff, -1];

const damage = fc.oneof(
  fc.record({ at: fc.nat(6000), byte: fc.nat(255) }),
  fc.record({
    at: fc.nat(6000),
    word: fc.constantFrom(...INTERESTING),
    little: fc.boolean(),
  }),
);

test("damaged captures are read like the twin reads them", { timeout: 600_000 }, async () => {
  let runs = 0;
  const property = fc.asyncProperty(
    fc.constantFrom(...SEEDS),
    fc.array(damage, { maxLength: 4 }),
    fc.option(fc.nat(6000)),
    async (seed, damages, cut) => {
      runs++;
      const bytes = seed.slice(0, cut ?? seed.length);
      const view = new DataView(bytes.buffer);
      for (const hit of damages) {
        const at = hit.at % Math.max(1, bytes.length - 4);
        if ("byte" in hit) bytes[at] = hit.byte;
        else if (at + 4 <= bytes.length) view.setInt32(at & ~3, hit.word, hit.little);
      }
      const twin = readTwin(bytes);
      const reading = await runOrRefuse(() => openBytes(bytes, memory));
      expect(reading.packets.length).toBe(twin.packets.length);
      expect(reading.error === undefined).toBe(twin.brokenAt === undefined);
      for (const [i, { data, wire, ns }] of reading.packets.entries()) {
        const other = twin.packets[i];
        if (!other) throw new Error("the twin has fewer packets");
        const { dataAt, captured } = other;
        expect(Buffer.compare(data, bytes.subarray(dataAt, dataAt + captured))).toBe(0);
        expect(wire).toBe(other.wire);
        if (other.ns !== undefined) expect(ns).toBe(other.ns);
      }
      if (!("written" in reading)) return;
      const end = twin.brokenAt ?? bytes.length;
      expect(Buffer.compare(reading.written, bytes.subarray(0, end))).toBe(0);
      if (twin.brokenAt !== undefined) expect(reading.error).toContain(`at byte ${end}`);
    },
  );
  await fc.assert(property, { numRuns, seed: 20_260 });
  expect(runs).toBe(numRuns);
});
