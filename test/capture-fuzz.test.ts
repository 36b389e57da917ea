/**
 * Captures with random damage: the reader and its slow twin must agree on every packet, on where
 * the reading ends, and on what may be written. FUZZ_RUNS sets the number of runs (default 300).
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildInterface, buildPacket, buildSection } from "../host/capture/build.ts";
import { openBytes } from "../host/capture/memory.ts";
import { makePcap, makePcapng, PCAP_VARIANTS } from "./capture-generated.ts";
import { runOrRefuse } from "./capture-harness.ts";
import { readTwin, type TwinPacket } from "./capture-twin.ts";
import { clockWords } from "./reference/clock.ts";
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

/** What the virtual clock shows at each packet; those without a time are as late as the one before. */
function wordsOf(packets: readonly TwinPacket[]): number[] {
  const base = packets.find(({ ns }) => ns !== undefined)?.ns ?? 0n;
  let elapsedMs = 0n;
  const instants = packets.map(({ ns }) => {
    if (ns !== undefined) elapsedMs = BigInt.asIntN(64, ns - base) / 1_000_000n;
    if (elapsedMs < 0n) elapsedMs = 0n;
    return Number(elapsedMs);
  });
  return clockWords(instants);
}

/** Reader and twin agree on packets, on where the reading ends, and on what may be written. */
async function expectTwin(bytes: Uint8Array, limit?: number): Promise<void> {
  const twin = readTwin(bytes);
  const options = limit === undefined ? {} : { limit };
  const reading = await runOrRefuse(() => openBytes(bytes, memory), options);
  expect(reading.packets.length).toBe(twin.packets.length);
  expect(reading.error === undefined).toBe(twin.brokenAt === undefined);
  const words = wordsOf(twin.packets);
  for (const [i, { data, wire, ns, timeMs }] of reading.packets.entries()) {
    const other = twin.packets[i];
    if (!other) throw new Error("the twin has fewer packets");
    const { dataAt, captured } = other;
    expect(Buffer.compare(data, bytes.subarray(dataAt, dataAt + captured))).toBe(0);
    expect(wire).toBe(other.wire);
    expect(timeMs).toBe(words[i]);
    if (other.ns !== undefined) expect(ns).toBe(other.ns);
  }
  if (!("written" in reading)) return;
  const end = twin.brokenAt ?? bytes.length;
  expect(Buffer.compare(reading.written, bytes.subarray(0, end))).toBe(0);
  if (twin.brokenAt !== undefined) expect(reading.error).toContain(`at byte ${end}`);
}

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
      await expectTwin(bytes);
    },
  );
  await fc.assert(property, { numRuns, seed: 20_260 });
  expect(runs).toBe(numRuns);
});

const BLOCK_BYTES = 32 + 20;
const BLOCKS = 6;

/** Blocks as captures are made of, all of the same size, behind interfaces of which the third is refused. */
const [USUAL, USUAL_AT] = (() => {
  const interfaces = [1, 1, 147].map((linkType, i) => {
    return buildInterface(false, { linkType, resolution: i === 0 ? 9 : 6 });
  });
  const head = Buffer.concat([buildSection(false), ...interfaces]);
  const blocks = Array.from({ length: BLOCKS }, (_, i) => {
    const units = 1_700_000_000_000_000n + BigInt(i) * 500n;
    return buildPacket(false, { interface: 1, units, bytes: new Uint8Array(20).fill(i) });
  });
  return [Buffer.concat([head, ...blocks]), head.length] as const;
})();

test("headers of usual blocks, each word with whatever it may not be", async () => {
  const lengths = [...Array(60).keys(), BLOCK_BYTES + 52, 1 << 24, (1 << 24) + 4, -4, -1];
  const changes = [
    ...[1, 2, 3, 4, 5, 6, 7, 0x06000000].map((type) => [[0, type]]),
    ...lengths.flatMap((length) => [
      [[4, length]],
      [
        [4, length],
        [length - 4, length],
      ],
      [[BLOCK_BYTES - 4, length]],
      [[20, length]],
    ]),
    ...[0, 1, 2, 3, 4, -1].map((index) => [[8, index]]),
    ...[0, 1, 2 ** 31 - 1, -1].map((high) => [[12, high]]),
  ];
  for (const change of changes) {
    for (const block of [0, 1, BLOCKS - 1]) {
      const bytes = new Uint8Array(USUAL);
      const view = new DataView(bytes.buffer);
      for (const [offset, word] of change as [number, number][]) {
        const at = USUAL_AT + block * BLOCK_BYTES + offset;
        if (offset >= 0 && at + 4 <= bytes.length) view.setInt32(at, word, true);
      }
      await expectTwin(bytes, 1 + block);
      for (let cut = 1; cut < 40 && block === BLOCKS - 1 && change[0]?.[0] === 0; cut += 3) {
        await expectTwin(bytes.slice(0, -cut), 1);
      }
    }
  }
});

test("a block of the other byte order is not read in its own", async () => {
  for (const bigEndian of [true, false]) {
    const packet = { interface: 0, units: 1_700_000_000_000_000n, bytes: new Uint8Array(20) };
    const [own, other] = [bigEndian, !bigEndian].map((order) => buildPacket(order, packet));
    const head = [buildSection(bigEndian), buildInterface(bigEndian, { linkType: 1 })];
    const bytes = Buffer.concat([...head, own, own, other] as Uint8Array[]);
    expect(readTwin(bytes)).toMatchObject({ packets: [{}, {}], brokenAt: bytes.length - 52 });
    for (const limit of [1, 256]) await expectTwin(bytes, limit);
  }
});
