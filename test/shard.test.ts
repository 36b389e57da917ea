/**
 * Shuffle sharding: exact tables against counting, packings against pairwise comparison, Infima's
 * shards against a second implementation, and the command from outside.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fc, test as property } from "@fast-check/vitest";
import { chromium } from "playwright-core";
import { afterAll, describe, expect, test } from "vitest";
import { shardPage } from "../host/report/shard-page.ts";
import { blastRadius, plainShards } from "../host/shard/blast.ts";
import { calculate } from "../host/shard/calculator.ts";
import { deckTables } from "../host/shard/deck.ts";
import { choose, percent, ratio } from "../host/shard/exact.ts";
import { Field, primeOf } from "../host/shard/field.ts";
import { infimaShard, JavaRandom, singleCell } from "../host/shard/infima.ts";
import { keyedShard } from "../host/shard/keyed.ts";
import { latticeOf, overlapOf, type Shard } from "../host/shard/lattice.ts";
import { overlapTable, shardCountBound } from "../host/shard/overlap.ts";
import { KeyedRandom } from "../host/shard/random.ts";
import type { ShardResult } from "../host/shard/result.ts";
import { NoShardLeft, StatefulSharder } from "../host/shard/stateful.ts";
import { chromiumOptions } from "./chromium.ts";
import { allShards, infimaByHand, overlapsByCounting, sharedNodes } from "./reference/shard.ts";

const MAIN = fileURLToPath(new URL("../host/cli/main.ts", import.meta.url));
const VECTORS = new URL(
  "../../shared/reference/vectors/infima-simple-n8-k3-seed42.tsv",
  import.meta.url,
);
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-shard-"));

afterAll(() => rmSync(FOLDER, { recursive: true }));

/** Fleets that are small enough to count through: at most 12 nodes, in 1 to 3 zones. */
const smallFleet = fc
  .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }))
  .chain(([zones, perZone]) =>
    fc.record({
      zones: fc.constant(zones),
      size: fc.constant(zones * perZone),
      nodes: fc.integer({ min: zones * perZone, max: Math.max(zones * perZone, 12) }),
    }),
  );

describe("exact tables", () => {
  property.prop([smallFleet], { numRuns: 150 })("are what counting gives", (fleet) => {
    const lattice = latticeOf(fleet.nodes, fleet.size, fleet.zones);
    const { ways, shardCount } = overlapTable(lattice);
    expect(ways.map(Number)).toEqual(overlapsByCounting(lattice.zoneSizes, lattice.perZone));
    expect(ways.reduce((sum, count) => sum + count)).toBe(shardCount);
  });

  property.prop([fc.integer({ min: 0, max: 60 }), fc.integer({ min: -2, max: 62 })])(
    "binomials follow Pascal's rule",
    (n, k) => {
      expect(choose(n + 1, k)).toBe(choose(n, k) + choose(n, k - 1));
    },
  );

  const part = fc.tuple(
    fc.bigInt({ min: 1n, max: 10n ** 18n }),
    fc.bigInt({ min: 1n, max: 10n ** 12n }),
  );
  property.prop([part, fc.integer({ min: 1, max: 9 })])(
    "percents are rounded once",
    (pair, digits) => {
      const [whole, some] = [pair[0] + pair[1], pair[1]];
      const text = percent(some, whole, digits);
      expect(text).toMatch(/^\d+(\.\d+)?$/);
      // Off by half a unit of the last digit at most, in exact arithmetic.
      const decimals = BigInt(text.split(".")[1]?.length ?? 0);
      const scaled = BigInt(text.replace(".", ""));
      const error = 2n * (scaled * whole - some * 100n * 10n ** decimals);
      expect(error <= whole && -error <= whole).toBe(true);
      const significant = text.replace(".", "").replace(/^0+/, "").length;
      expect(significant).toBeGreaterThanOrEqual(Math.min(digits, significant));
      expect(Math.abs(ratio(some, whole) / (Number(some) / Number(whole)) - 1)).toBeLessThan(1e-14);
    },
  );

  test("percents of known values", () => {
    expect(percent(15n, 56n)).toBe("26.786");
    expect(percent(1n, choose(100, 5))).toBe("0.0000013282");
    expect(percent(99_999n, 100_000n, 3)).toBe("100.0");
    expect(percent(9_999n, 1_000_000n, 2)).toBe("1.00");
    expect([percent(0n, 7n), percent(7n, 7n)]).toEqual(["0", "100"]);
  });

  test("the deck's tables are right to their digits but for two entries", () => {
    for (const { rows, nodes, size } of deckTables()) {
      const { ways, shardCount } = overlapTable(latticeOf(nodes, size));
      for (const { overlap, printed, exact, remark } of rows) {
        const digits = printed.replace(/^0[.0]*|[.%]/g, "").length;
        const isRight =
          Number(exact).toPrecision(Math.max(1, digits)) ===
          Number.parseFloat(printed).toPrecision(Math.max(1, digits));
        expect(isRight, `${nodes} nodes, overlap ${overlap}`).toBe(
          !/^26|^10 times/.test(remark ?? ""),
        );
        expect(ways[overlap] as bigint).toBeLessThan(shardCount);
      }
    }
    const wrong = deckTables().flatMap(({ rows }) => rows.filter(({ remark }) => remark));
    expect(wrong.map(({ printed }) => printed)).toEqual(["26%", "0.0006", "0.00000013"]);
  });
});

describe("fields", () => {
  const orders = Array.from({ length: 129 }, (_, n) => n).filter((n) => primeOf(n) !== undefined);

  test("there is one for every power of a prime, and for nothing else", () => {
    expect(orders.slice(0, 14)).toEqual([2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25]);
    expect(() => new Field(100)).toThrow("field: there is none of 100 elements");
  });

  property.prop([fc.constantFrom(...orders), fc.array(fc.nat(), { minLength: 3, maxLength: 3 })], {
    numRuns: 2000,
  })("obey the axioms", (order, draws) => {
    const field = new Field(order);
    const [a, b, c] = draws.map((draw) => draw % order) as [number, number, number];
    const { add, multiply } = { add: field.add.bind(field), multiply: field.multiply.bind(field) };
    expect(add(a, b)).toBe(add(b, a));
    expect(add(add(a, b), c)).toBe(add(a, add(b, c)));
    expect(multiply(a, b)).toBe(multiply(b, a));
    expect(multiply(multiply(a, b), c)).toBe(multiply(a, multiply(b, c)));
    expect(multiply(a, add(b, c))).toBe(add(multiply(a, b), multiply(a, c)));
    expect([add(a, 0), multiply(a, 1), multiply(a, 0)]).toEqual([a, a, 0]);
  });

  test.each(orders)("GF(%i): every element but 0 is a power of one element", (order) => {
    const field = new Field(order);
    const powers = new Set(Array.from({ length: order - 1 }, (_, power) => field.power(power)));
    expect(powers.size).toBe(order - 1);
    expect(powers.has(0)).toBe(false);
  });
});

/** The most that two of the shards share, by comparing every pair. */
function worstOverlap(shards: readonly Shard[]): number {
  let worst = 0;
  for (const [at, one] of shards.entries()) {
    for (let other = 0; other < at; other++) {
      worst = Math.max(worst, overlapOf(one, shards[other] as Shard));
    }
  }
  return worst;
}

describe("the stateful sharder", () => {
  property.prop([smallFleet, fc.nat(), fc.string()], { numRuns: 60 })(
    "gives whole shards that overlap no more than allowed, and all that fit",
    (fleet, draw, secret) => {
      const overlapMax = draw % fleet.size;
      const sharder = new StatefulSharder({ ...fleet, overlapMax, secret });
      const { zoneSizes, perZone } = sharder.lattice;
      const given: Shard[] = [];
      for (let tenant = 0; tenant < sharder.shardCount; tenant++) {
        given.push(sharder.assign(`tenant ${tenant}`));
      }
      expect(() => sharder.assign("one more")).toThrow(NoShardLeft);
      const all = allShards(zoneSizes, perZone).map((shard) => shard.join());
      for (const shard of given) expect(all).toContain(shard.join());
      for (const [at, one] of given.entries()) {
        for (const other of given.slice(0, at)) {
          expect(sharedNodes(one, other)).toBeLessThanOrEqual(overlapMax);
        }
      }
      // Maximal: whatever shard is left overlaps one of them too much.
      const rest = allShards(zoneSizes, perZone).filter((shard) =>
        given.every((one) => sharedNodes(one, shard) <= overlapMax),
      );
      expect([sharder.isMaximal, rest]).toEqual([true, []]);
      expect(BigInt(given.length)).toBeLessThanOrEqual(
        shardCountBound(sharder.lattice, overlapMax),
      );
    },
  );

  test.each([
    [100, 5, 1, 480, 480n],
    [16, 4, 1, 20, 20n],
    [8, 3, 1, 8, 8n],
    [8, 3, 2, 56, 56n],
    [64, 5, 2, 4032, 4032n],
    [100, 5, 2, 13_000, 15_840n],
  ])("%i nodes, size %i, overlap %i: at least %i shards", { timeout: 120_000 }, (...row) => {
    const [nodes, size, overlapMax, least, bound] = row;
    const sharder = new StatefulSharder({ nodes, size, overlapMax, secret: "packing" });
    expect(sharder.shardCount).toBeGreaterThanOrEqual(least);
    expect(shardCountBound(sharder.lattice, overlapMax)).toBe(bound);
    const shards = sharder.shards();
    expect(new Set(shards.map((shard) => shard.join())).size).toBe(shards.length);
    expect(shards.every((shard) => new Set(shard).size === size)).toBe(true);
    expect(worstOverlap(shards.slice(0, 3000))).toBeLessThanOrEqual(overlapMax);
  });

  test("the same secret and calls give the same shards, another secret others", () => {
    const names = Array.from({ length: 50 }, (_, tenant) => `tenant ${tenant}`);
    const shardsOf = (secret: string) => {
      const sharder = new StatefulSharder({ nodes: 40, size: 4, overlapMax: 1, secret });
      return names.map((name) => sharder.assign(name).join());
    };
    expect(shardsOf("a")).toEqual(shardsOf("a"));
    expect(shardsOf("a")).not.toEqual(shardsOf("b"));
  });

  test("remembers, takes back, and goes on after a restart", () => {
    const options = { nodes: 16, size: 4, overlapMax: 1, secret: "s" };
    const sharder = new StatefulSharder(options);
    const shards = Array.from({ length: 20 }, (_, tenant) => sharder.assign(`t${tenant}`));
    expect(sharder.assign("t3")).toBe(shards[3]);
    expect(() => sharder.assign("t20")).toThrow(
      "shard: 20 tenants have all shards of 4 of 16 nodes with overlaps of at most 1",
    );
    expect([sharder.release("t7"), sharder.release("t7")]).toEqual([true, false]);
    const restarted = new StatefulSharder({ ...options, assignments: sharder.assignments() });
    expect(restarted.assign("t19")).toEqual(shards[19]);
    expect(restarted.assign("t20")).toEqual(shards[7]);
    const twice = [["x", shards[0] as Shard] as const, ["y", shards[0] as Shard] as const];
    expect(() => new StatefulSharder({ ...options, assignments: twice })).toThrow(
      'assignments: the shard of "y" is none that can be had',
    );
  });

  test("a fleet too large for a packing beforehand is filled as tenants come", () => {
    const sharder = new StatefulSharder({ nodes: 2048, size: 4, overlapMax: 2, secret: "s" });
    const shards = Array.from({ length: 1000 }, (_, tenant) => sharder.assign(`t${tenant}`));
    expect(sharder.isMaximal).toBe(false);
    expect(worstOverlap(shards)).toBeLessThanOrEqual(2);
  });

  test.each([
    [{ nodes: 0 }, "nodes: 0 is not a whole number from 1 to 65536"],
    [{ size: 101 }, "size: 101 is not a whole number from 1 to 64"],
    [{ zones: 2 }, "size: 5 is not a multiple of the 2 zones"],
    [{ overlapMax: 5 }, "overlapMax: 5 is not a whole number from 0 to 4"],
    [
      { nodes: 65_536, size: 10, overlapMax: 8 },
      "overlapMax: 8 of 65536 nodes has too many fragments",
    ],
  ])("refuses %o", (change, message) => {
    const options = { nodes: 100, size: 5, overlapMax: 2, secret: "s", ...change };
    expect(() => new StatefulSharder(options)).toThrow(message);
  });
});

describe("wrong calls from JavaScript name what is wrong", () => {
  const fleet = latticeOf(10, 2);
  const random = new KeyedRandom("s", "l");
  const uses: [string, (lattice: never) => unknown][] = [
    ["keyedShard", (lattice) => keyedShard(lattice, "s", "tenant")],
    ["overlapTable", (lattice) => overlapTable(lattice)],
    ["shardCountBound", (lattice) => shardCountBound(lattice, 0)],
    ["plainShards", (lattice) => plainShards(lattice, 3, random)],
  ];

  test.each(uses)("%s of what is no lattice", (_, use) => {
    const refused: [unknown, string][] = [
      [undefined, "lattice: undefined is not one as of latticeOf"],
      ["x", 'lattice: "x" is not one as of latticeOf'],
      [{}, "lattice.perZone: undefined is not a whole number from 1 to 64"],
      [{ ...fleet, zoneSizes: 10 }, "lattice.zoneSizes: 10 is not a list"],
      [{ ...fleet, zoneSizes: [1] }, "lattice.zoneSizes[0]: 1 is not a whole number from 2"],
      [{ ...fleet, nodeCount: "10" }, 'lattice.nodeCount: "10" is not a whole number'],
    ];
    for (const [lattice, message] of refused) {
      expect(() => use(lattice as never)).toThrow(message);
    }
  });

  const noSecret = { nodes: 10, size: 2, overlapMax: 1 };
  test.each([
    [() => keyedShard(fleet, 5 as never, "t"), "secret: 5 is neither text nor a Uint8Array"],
    [() => new KeyedRandom(undefined as never, "l"), "secret: undefined is neither text"],
    [() => new StatefulSharder(undefined as never), "options: undefined is not an object"],
    [() => new StatefulSharder({} as never), "nodes: undefined is not a whole number"],
    [() => new StatefulSharder(noSecret as never), "secret: undefined is neither text"],
    [() => new StatefulSharder({ seed: 5 } as never), "seed: no such option; there are nodes"],
    [() => infimaShard({} as never, 7n, "t", 2), "lattice.cells: undefined is not a Map"],
    [() => infimaShard(singleCell(["a"]), 7 as never, "t", 1), "seed: 7 is not a bigint"],
    [() => blastRadius("plain", {} as never, 1, random), "shards: an object of class Object is"],
  ])("%s", (call, message) => {
    expect(call).toThrow(message);
  });
});

describe("the stateless sharder", () => {
  test("overlaps are as the table says, and nodes are used alike", () => {
    const lattice = latticeOf(12, 4, 2);
    const shards = Array.from({ length: 3000 }, (_, t) => keyedShard(lattice, "secret", `t${t}`));
    const load = new Array<number>(12).fill(0);
    for (const shard of shards) {
      expect(shard.filter((node) => node < 6).length).toBe(2);
      for (const node of shard) load[node] = (load[node] as number) + 1;
    }
    // 1000 expected, a standard deviation of 26.
    for (const count of load) expect(Math.abs(count - 1000)).toBeLessThan(130);
    const table = overlapTable(lattice);
    const counts = new Array<number>(5).fill(0);
    for (let at = 0; at + 1 < shards.length; at += 2) {
      const overlap = overlapOf(shards[at] as Shard, shards[at + 1] as Shard);
      counts[overlap] = (counts[overlap] as number) + 1;
    }
    for (const [overlap, count] of counts.entries()) {
      const expected = 1500 * ratio(table.ways[overlap] as bigint, table.shardCount);
      expect(Math.abs(count - expected)).toBeLessThan(5 * Math.sqrt(expected) + 1);
    }
  });

  test("depends on the secret and on the name, and on nothing else", () => {
    const lattice = latticeOf(100, 5);
    expect(keyedShard(lattice, "a", "t")).toEqual(keyedShard(lattice, "a", "t"));
    expect(keyedShard(lattice, "a", "t")).not.toEqual(keyedShard(lattice, "b", "t"));
    expect(keyedShard(lattice, "a", "t")).not.toEqual(keyedShard(lattice, "a", "u"));
  });
});

describe("Infima's shards", () => {
  const endpoints = (count: number) => Array.from({ length: count }, (_, node) => `n${node}`);

  test("the generator is Java's: what its documentation promises for seed 42", () => {
    const random = new JavaRandom(42n);
    // new Random(42).nextInt() begins -1170105035, 234785527, -1360544799, 205897768.
    expect(Array.from({ length: 4 }, () => random.nextInt(10))).toEqual([0, 3, 8, 4]);
  });

  property.prop(
    [
      fc.integer({ min: 1, max: 40 }),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      fc.string(),
    ],
    { numRuns: 2000 },
  )("agree with a second implementation", (count, seed, tenant) => {
    const size = 1 + (count % 5 < count ? count % 5 : 0);
    expect(infimaShard(singleCell(endpoints(count)), seed, tenant, size)).toEqual(
      infimaByHand(endpoints(count), seed.toString(), tenant, size),
    );
  });

  test("agree with what Infima itself gave", ({ skip }) => {
    if (!existsSync(VECTORS)) skip("left out: the golden vectors are not beside the checkout");
    const lines = readFileSync(VECTORS, "utf8").trim().split("\n");
    const rows = lines
      .filter((line) => !line.startsWith("#"))
      .map((line) => line.split("\t") as [string, string]);
    expect(rows.length).toBeGreaterThan(100);
    for (const [tenant, nodes] of rows) {
      const shard = infimaShard(singleCell(endpoints(8)), 42n, tenant, 3);
      expect([tenant, shard.join()]).toEqual([tenant, nodes]);
    }
  });

  test("a lattice of zones gives endpoints from each, one of two dimensions on a diagonal", () => {
    const zones = ["a", "b", "c"];
    const byZone = {
      dimensions: [zones],
      cells: new Map(zones.map((zone) => [zone, endpoints(4).map((node) => zone + node)])),
    };
    const shard = infimaShard(byZone, 7n, "tenant", 2);
    expect(
      shard
        .map((node) => node[0])
        .toSorted()
        .join(""),
    ).toBe("aabbcc");
    const versions = ["1", "2"];
    const byBoth = {
      dimensions: [zones, versions],
      cells: new Map(
        zones.flatMap((z) => versions.map((v) => [`${z}/${v}`, [`${z}${v}`]] as const)),
      ),
    };
    const [one, other] = infimaShard(byBoth, 7n, "tenant", 1) as [string, string];
    expect([one[0] === other[0], one[1] === other[1]]).toEqual([false, false]);
    expect(() => infimaShard(byBoth, 7n, "tenant", 2)).toThrow("1 endpoints are fewer than 2");
  });
});

describe("blast radius", () => {
  test("is counted right on a fleet that can be seen through", () => {
    const shards = [
      [0, 1],
      [0, 1],
      [1, 2],
      [2, 3],
    ];
    const result = blastRadius("shuffled", shards, 4, new KeyedRandom("s", "t"));
    // Each of the four attacks: losses of 0, 1 and 2 nodes among the three others.
    expect(result).toEqual({
      placement: "shuffled",
      attacks: 4,
      tenantsByLoss: [4, 6, 2],
      deadMean: 2 / 12,
      deadMax: 1 / 3,
    });
  });

  test("shuffle sharding leaves nodes to those whom plain sharding leaves none", () => {
    const lattice = latticeOf(100, 5);
    const random = new KeyedRandom("s", "blast");
    const plain = blastRadius("plain", plainShards(lattice, 2000, random), 100, random);
    const keyed = Array.from({ length: 2000 }, (_, t) => keyedShard(lattice, "s", `t${t}`));
    const shuffled = blastRadius("shuffled", keyed, 100, random);
    expect(Math.abs(plain.deadMean - 1 / 20)).toBeLessThan(0.005);
    expect(shuffled.deadMax).toBeLessThan(0.001);
    expect(shuffled.tenantsByLoss.reduce((sum, n) => sum + n)).toBe(100 * 1999);
  });
});

describe("flowplane shard", () => {
  const run = (...words: string[]) => {
    const child = spawnSync(process.execPath, [MAIN, "shard", ...words], { cwd: FOLDER });
    return { status: child.status, stdout: `${child.stdout}`, stderr: `${child.stderr}` };
  };

  test("prints tables, nodes, blast radius and the deck beside the exact numbers", () => {
    const { status, stdout, stderr } = run("--deck", "acme", "umbrella");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("100 nodes; shards of 5: 75,287,520 there are");
    expect(stdout).toMatch(/^ +5 +1 +0\.0000013282 %$/m);
    expect(stdout).toMatch(/^acme +\d+ \d+ \d+ \d+ \d+$/m);
    expect(stdout).toMatch(/^plain sharding +95\.\d %/m);
    expect(stdout).toContain("26.786 rounds to 27");
  });

  test("--json is one document, --html a page with drawings", () => {
    const words = ["--json", "--html", "page.html", "-n", "16", "-k", "4", "-o", "1", "a", "<b>"];
    const { status, stdout, stderr } = run(...words);
    expect([status, stderr]).toEqual([0, "wrote page.html: the report with drawings\n"]);
    const result = JSON.parse(stdout) as ShardResult;
    expect(result).toMatchObject({
      schema: "flowplane.shard/1",
      sharder: "stateful",
      packing: { shards: 20, bound: "20", isMaximal: true, loadMin: 5, loadMax: 5, pairs: 190 },
    });
    const page = readFileSync(join(FOLDER, "page.html"), "utf8");
    expect(page.match(/class="node"/g)?.length).toBe(16);
    expect(page).toContain("&lt;b&gt;");
    expect(page).not.toContain("<b>");
    expect(page).not.toContain("<script");
  });

  test("a page has room for long names and for large numbers", async ({ skip }) => {
    const options = chromiumOptions();
    if (typeof options === "string") return skip(options);
    const browser = await chromium.launch(options);
    try {
      const view = await browser.newPage({ viewport: { width: 1000, height: 800 } });
      const name = "a tenant with a name of some length";
      const common = { zones: 1, secret: "s", tenantCount: 10, tenants: [name] };
      for (const [nodes, size] of [
        [4, 2],
        [1000, 60],
      ] as const) {
        await view.setContent(shardPage(calculate({ ...common, nodes, size })));
        const width = await view.evaluate("document.documentElement.scrollWidth");
        expect([nodes, width]).toEqual([nodes, 1000]);
        const isCut = await view.evaluate(`(() => {
          const texts = [...document.querySelectorAll("#chart-fleet text")];
          const right = (element) => element.getBoundingClientRect().right;
          return texts.map((text) => right(text) > right(text.ownerSVGElement));
        })()`);
        expect([nodes, isCut]).toEqual([nodes, [false]]);
      }
    } finally {
      await browser.close();
    }
  });

  test("--infima gives Infima's shards in its order", () => {
    const { stdout } = run("-n", "8", "-k", "3", "--infima", "42", "--json", "customer-0");
    const { assignments } = JSON.parse(stdout) as ShardResult;
    const endpoints = Array.from({ length: 8 }, (_, node) => `${node}`);
    expect(assignments[0]?.nodes.join()).toBe(
      infimaByHand(endpoints, "42", "customer-0", 3).join(),
    );
  });

  test.each([
    [["-k", "0"], '--size: "0" is not an integer from 1 to 64'],
    [["-n", "3"], "--size: 5 is not a whole number from 1 to 3"],
    [["-z", "3"], "--size: 5 is not a multiple of the 3 zones"],
    [["-o", "7"], "--overlap-max: 7 is not a whole number from 0 to 4"],
    [["--infima", "x"], '--infima: "x" is not an integer of 64 bits'],
    [
      ["-k", "4", "-z", "2", "--infima", "1"],
      "--zones: 2 is not 1, all that Infima's shards have here",
    ],
  ])("%j is refused in one line", (words, message) => {
    expect(run(...words)).toEqual({ status: 2, stdout: "", stderr: `flowplane: ${message}\n` });
  });

  test("more tenants than shards is an error of its own", () => {
    const { status, stderr } = run("-n", "4", "-k", "2", "-o", "0", "a", "b", "c");
    expect([status, stderr]).toEqual([
      1,
      "flowplane: shard: 2 tenants have all shards of 2 of 4 nodes with overlaps of at most 0\n",
    ]);
  });

  test("the calculator's fleet is checked before anything is drawn", () => {
    const question = { nodes: 100, size: 5, zones: 1, secret: "s", tenants: [], tenantCount: 1 };
    expect(() => calculate(question)).toThrow("tenantCount: 1 is not a whole number from 2");
  });
});
