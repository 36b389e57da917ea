/**
 * Packing of network tables: rings against the paper's table, images against the words of their tables,
 * and tables that have a room against those that have none.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as abi from "../assembly/abi.ts";
import { addressBytes } from "../fixtures/bytes.ts";
import { fillRing } from "../host/control/maglev.ts";
import { createEngine } from "../host/engine/engine.ts";
import { NetworkImage } from "../host/engine/image.ts";
import { loadEngine } from "../host/engine/module.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { packNetwork } from "../host/engine/pack.ts";
import { createTablePacker, type TablePacker } from "../host/engine/packer.ts";
import { ServiceHeaders } from "../host/engine/proxy.ts";
import { Filler, type TableRoom, Work } from "../host/engine/room.ts";
import { HeaderCodec } from "../host/pp2/codec.ts";
import { directoryCounts, ImageReader, ringOf } from "./image-reader.ts";
import { Dice, randomTables } from "./network-worlds.ts";
import { maglevTable } from "./reference/maglev.ts";

const FACTOR = Number(process.env.MODEL_RUNS ?? 1);
const REGION = { address: 1 << 20, bytes: 8 << 20 };
const ROOM: TableRoom = {
  services: 40,
  targets: 400,
  ringEntries: 100 * 1021,
  rules: 200,
  entries: 1200,
};
const NOBODY = () => false;
/** VPC of filler. */
const NOWHERE = 1 << 16;

const worlds = fc.integer({ min: 1, max: 1e9 }).map((seed) => randomTables(new Dice(seed)));

test("a ring is the paper's table, whatever the weights", () => {
  const target = fc.record({
    offset: fc.nat(),
    skip: fc.nat(),
    weight: fc.oneof(
      fc.constant(1),
      fc.integer({ min: 0, max: 999 }),
      fc.double({ min: 1 / 64, max: 1, noNaN: true }),
    ),
  });
  const sizes = fc.constantFrom(7, 13, 251, 1021);
  const lists = fc.array(target, { maxLength: 7 });
  fc.assert(
    fc.property(sizes, lists, (size, list) => {
      const permutations = list.map(({ offset, skip }) => {
        return { offset: offset % size, skip: (skip % (size - 1)) + 1 };
      });
      const weights = list.map(({ weight }) => weight);
      const hasWeight = weights.some((weight) => weight > 0);
      const expected = hasWeight ? maglevTable(permutations, size, weights) : [];
      expect(Array.from(fillRing(permutations, weights, size))).toEqual(expected);
    }),
    { numRuns: 400 * FACTOR },
  );
});

function readerOf(packer: TablePacker, tables: NetworkTables): ImageReader {
  const { image, address } = packer.pack(tables, NOBODY);
  return new ImageReader(Uint8Array.from(image), address);
}

/** What leads somewhere: everything but filler. */
function inUse(reader: ImageReader): Map<string, number> {
  const isFiller = (key: string) => Number(key.split(" ")[1]) === NOWHERE;
  return new Map([...reader.directory()].filter(([key]) => !isFiller(key)));
}

const dotted = (address: string) => Array.from(addressBytes(address)).join(".");

describe("an image", () => {
  test("holds what its tables say", async () => {
    await fc.assert(
      fc.asyncProperty(worlds, async (tables) => {
        const packer = await createTablePacker(REGION);
        const reader = readerOf(packer, tables);
        for (const service of tables.services) {
          const read = reader.service(packer.numberOf(service.id) as number);
          expect(read.vpc).toBe(service.vpc);
          expect(read.v4.ring).toEqual(ringOf(service, false));
          expect(read.v6.ring).toEqual(ringOf(service, true));
          const targets = (service.targets ?? []).filter(({ weight }) => weight !== 0);
          const named = targets.map(({ address, port }) => `${dotted(address)}:${port}`);
          expect([...read.v4.targets, ...read.v6.targets].sort()).toEqual(named.sort());
          for (const source of service.sources ?? [])
            expect(read.sources).toContain(dotted(source));
        }
        expectDirectory(reader.directory(), tables, packer);
      }),
      { numRuns: 40 * FACTOR },
    );
  });

  test("leads to the same with a room and without", async () => {
    const packers = [
      await createTablePacker(REGION),
      await createTablePacker(REGION, { room: ROOM }),
    ];
    fc.assert(
      fc.property(worlds, (tables) => {
        const [own, padded] = packers.map((packer) => {
          const reader = readerOf(packer, tables);
          const numbers = tables.services.map(({ id }) => packer.numberOf(id) as number);
          return { services: numbers.map((number) => reader.service(number)), reader };
        });
        expect(padded?.services).toEqual(own?.services);
        const plain = own && inUse(own.reader);
        const roomy = padded && inUse(padded.reader);
        expect([...(roomy?.keys() ?? [])].sort()).toEqual([...(plain?.keys() ?? [])].sort());
      }),
      { numRuns: 40 * FACTOR },
    );
  });
});

/** Listeners and addresses lead to the services that the tables name; of the rest there is as much as said. */
function expectDirectory(entries: Map<string, number>, tables: NetworkTables, packer: TablePacker) {
  const counts = directoryCounts(tables);
  const countOf = (space: number) =>
    [...entries.keys()].filter((key) => key.startsWith(`${space} `)).length;
  expect(countOf(abi.SPACE_VPC)).toBe(counts.vpcs);
  expect(countOf(abi.SPACE_LISTENER)).toBe(counts.listeners);
  expect(countOf(abi.SPACE_ADDRESS)).toBe(counts.addresses);
  expect(countOf(abi.SPACE_PREFIX)).toBe(counts.prefixes);
  for (const { vpc, addresses = [] } of tables.vpcs) {
    for (const { address, service, listeners = [] } of addresses) {
      const family = address.includes(":") ? abi.DETAIL_IPV6 : 0;
      const valueAt = (space: number, detail: number) =>
        entries.get(`${space} ${vpc} ${(detail | family) >>> 0} ${dotted(address)}`);
      expect(valueAt(abi.SPACE_ADDRESS, 0)).toBe(packer.numberOf(service));
      for (const { protocol, port, service: behind } of listeners) {
        const detail = ((protocol === "tcp" ? 6 : 17) << 16) | port;
        expect(valueAt(abi.SPACE_LISTENER, detail)).toBe(packer.numberOf(behind));
      }
    }
  }
}

describe("tables with a room", () => {
  test("take all of it, whatever they hold", async () => {
    const headers = new ServiceHeaders(new HeaderCodec(await loadEngine()), 0);
    const filler = new Filler(ROOM);
    const tables = fc.oneof(worlds, fc.constant<NetworkTables>({ vpcs: [], services: [] }));
    fc.assert(
      fc.property(tables, (one) => {
        const work = new Work(ROOM);
        const numbers = new Map(one.services.map(({ id }, number) => [id, number]));
        const image = new NetworkImage(REGION.address, new Uint8Array(REGION.bytes / 2));
        packNetwork(image, one, {
          numberOf: (id) => numbers.get(id) as number,
          capacityOf: () => 1,
          remembered: (_, make) => make(),
          leftovers: new Map(),
          headers,
          work,
          filler,
        });
        // Rings are of 1,021 entries at least, so less than that may be left.
        const { ringEntries, ...rest } = work.done;
        expect({ ...rest, ringEntries: ROOM.ringEntries }).toEqual(ROOM);
        expect(image.entryCount).toBe(ROOM.entries);
        expect(ringEntries).toBeGreaterThan(ROOM.ringEntries - 1021);
        expect(ringEntries).toBeLessThanOrEqual(ROOM.ringEntries);
      }),
      { numRuns: 40 * FACTOR },
    );
  });

  test.each([
    ["services", { ...ROOM, services: 1 }, /^room.services: the tables hold 2, more than 1$/],
    ["targets", { ...ROOM, targets: 3 }, /^room.targets: the tables hold 4, more than 3$/],
    [
      "rings",
      { ...ROOM, ringEntries: 1021 },
      /^room.ringEntries: the tables hold 2042, more than 1021$/,
    ],
    ["rules", { ...ROOM, rules: 0 }, /^room.rules: the tables hold 1, more than 0$/],
    ["entries", { ...ROOM, entries: 2 }, /^room.entries: the tables hold 3, more than 2$/],
  ])("cannot hold more of %s, and nothing has changed then", async (_, room, message) => {
    const packer = await createTablePacker(REGION, { room });
    const service = (id: string, port: number) => {
      const targets = ["10.0.0.1", "10.0.0.2"].map((address) => ({ address, port }));
      return { id, kind: "load-balancer", vpc: 1, sources: ["10.0.0.9"], targets } as const;
    };
    const addresses = [
      {
        address: "10.0.0.9",
        service: "a",
        listeners: [{ protocol: "tcp", port: 80, service: "b" } as const],
      },
    ];
    const tables: NetworkTables = {
      vpcs: [{ vpc: 1, addresses }],
      services: [service("a", 80), service("b", 81)],
      rules: { one: [{ cidr: "10.0.0.0/8" }] },
    };
    expect(() => packer.pack(tables, NOBODY)).toThrow(message);
    const empty: NetworkTables = { vpcs: [], services: [] };
    const engine = await createEngine({ flowCountMax: 64, warmUp: false, networkBytes: 4 << 20 });
    const own = await createTablePacker(engine.networkRegion, { room });
    expect(() => own.pack(tables, NOBODY)).toThrow(message);
    for (const _ of engine.loadTables(own.pack(empty, NOBODY)));
  });

  test("need an image that holds their room, even while they are empty", async () => {
    const packer = await createTablePacker({ address: 1 << 20, bytes: 1 << 16 }, { room: ROOM });
    const pack = () => packer.pack({ vpcs: [], services: [] }, NOBODY);
    expect(pack).toThrow(/^networkBytes: 32768 bytes do not hold these tables/);
  });

  test.each([
    [{ ...ROOM, services: 16_385 }, "room.services: 16385 is not a whole number from 0 to 16384"],
    [{ ...ROOM, rules: -1 }, "room.rules: -1 is not a whole number from 0 to 1000000"],
    [
      { ...ROOM, hosts: 1 },
      "room.hosts: no such option; there are services, targets, ringEntries, rules, entries",
    ],
  ])("have a room of whole numbers in range: %o", async (room, message) => {
    await expect(createTablePacker(REGION, { room })).rejects.toThrow(message);
  });
});
