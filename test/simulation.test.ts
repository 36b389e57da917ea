/**
 * The simulated fleet: the same events from the same seed, every invariant under every mix of
 * faults, and a watch that sees it when the store does what it must not.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { SharedStore } from "../host/nodes/shared-store.ts";
import { type SimulationResult, simulate, TIMES } from "../host/nodes/simulation.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const MAIN = `${ROOT}host/cli/main.ts`;
const SMALL = { nodes: 60, tenants: 60, seconds: 20 };
/** Few tuples, many faults: whatever can meet meets. */
const HARSH = {
  nodes: 12,
  tenants: 12,
  shardSize: 4,
  flowsPerTenant: 12,
  tuplesPerTenant: 4,
  seconds: 40,
  loss: 0.1,
  crashes: 3,
  partitions: 6,
};

describe("the simulation", () => {
  test("is the same for the same seed, and another for another", async () => {
    const [one, again, other] = await Promise.all(
      ["a", "a", "b"].map((seed) => simulate({ ...SMALL, seed })),
    );
    expect(again).toEqual(one);
    expect(other?.digest).not.toBe(one?.digest);
  });

  test("without faults every flow is answered at once", async () => {
    const calm = { ...SMALL, loss: 0, crashes: 0, partitions: 0 };
    const { flows, packets, decisions, decisionMs, violations } = await simulate(calm);
    expect(violations).toEqual([]);
    expect([flows.begun, flows.established, flows.finished]).toEqual([180, 180, 180]);
    expect(decisions.made).toBe(180);
    // A late message is the only thing that costs more than a few milliseconds.
    expect(decisionMs.p50).toBeLessThan(10);
    expect(packets.sent).toBeGreaterThan(1000);
  });

  test.each(Array.from({ length: 12 }, (_, seed) => `${seed}`))(
    "seed %s: whatever is lost, late, cut off or crashes, every invariant holds",
    { timeout: 60_000 },
    async (seed) => {
      const result = await simulate({ ...HARSH, seed });
      expect(result.violations).toEqual([]);
      const { decisions, faults, flows } = result;
      expect(Math.min(faults.crashes, faults.partitions, decisions.conflicts)).toBeGreaterThan(10);
      expect(Math.min(decisions.adopted, flows.finished)).toBeGreaterThan(0);
    },
  );

  test("a claim that lost a race is nobody's flow", { timeout: 60_000 }, async () => {
    // More flows than tuples on two nodes: a flow claims a second tuple, which others then ask for.
    const crowded = {
      nodes: 20,
      tenants: 30,
      shardSize: 2,
      flowsPerTenant: 30,
      crashes: 2,
      partitions: 0,
      placement: "plain" as const,
    };
    const { violations, decisions } = await simulate({ ...crowded, seed: "1-213" });
    expect(violations).toEqual([]);
    expect(decisions.conflicts).toBeGreaterThan(100);
  });

  const store = () => new SharedStore({ entries: 4096, ...TIMES });

  test.each([
    [
      "gives one tuple to two flows",
      /^at \d+ ms: flows \d+ and \d+ both have tuple \d+$/,
      (table: SharedStore) => ({
        refresh: (...[side, decisions, nowMs]: Parameters<SharedStore["refresh"]>) =>
          side === "service"
            ? Promise.resolve([...decisions])
            : table.refresh(side, decisions, nowMs),
      }),
    ],
    [
      "decides a flow twice",
      /^at \d+ ms: flow \d+ was decided to have tuple \d+ while it had \d+$/,
      (table: SharedStore) => ({
        refresh: (...[side, decisions, nowMs]: Parameters<SharedStore["refresh"]>) =>
          side === "client"
            ? Promise.resolve([...decisions])
            : table.refresh(side, decisions, nowMs),
      }),
    ],
    [
      "forgets",
      /^at \d+ ms: the decision of flow \d+ was not found again$/,
      (table: SharedStore) => ({
        find: async (...words: Parameters<SharedStore["find"]>) =>
          (await table.find(...words)).map((found, at) => (at % 2 === 0 ? undefined : found)),
      }),
    ],
  ])("the watch sees a store that %s", { timeout: 60_000 }, async (what, sentence, broken) => {
    // A second decision needs a crash just after the first one.
    const worst = { ...HARSH, tuplesPerTenant: 12, crashes: 12, loss: 0.2 };
    const world = what === "decides a flow twice" ? worst : HARSH;
    const seen: string[] = [];
    for (let seed = 0; seed < 12 && !seen.some((one) => sentence.test(one)); seed++) {
      const table = store();
      const wrapped = Object.assign(Object.create(table), broken(table));
      for (const name of ["claim", "find", "refresh"] as const) {
        wrapped[name] = (broken(table) as Partial<SharedStore>)[name] ?? table[name].bind(table);
      }
      seen.push(...(await simulate({ ...world, seed: `${seed}` }, wrapped)).violations);
    }
    expect(seen.find((one) => sentence.test(one))).toBeDefined();
  });

  test("a poisoned tenant takes others with it under plain sharding, hardly any when shuffled", {
    timeout: 60_000,
  }, async () => {
    const attack = {
      nodes: 50,
      tenants: 200,
      flowsPerTenant: 6,
      seconds: 20,
      loss: 0,
      crashes: 0,
      partitions: 0,
      poison: true,
    };
    const plain = await simulate({ ...attack, placement: "plain" });
    const shuffled = await simulate({ ...attack, placement: "shuffled" });
    // 10 groups: a tenth of the others shares all nodes with the tenant.
    expect(plain.blast?.dead).toBeGreaterThan(8);
    expect(shuffled.blast?.dead).toBe(0);
    expect(shuffled.blast?.tenants).toBeGreaterThan(150);
  });

  test("refuses what is out of range", async () => {
    await expect(simulate({ nodes: 0 })).rejects.toThrow("nodes: 0 is not a whole number from 1");
    await expect(simulate({ loss: 0.6 })).rejects.toThrow(
      "loss: 0.6 is not a number from 0 to 0.5",
    );
  });

  test("flowplane simulate prints it", () => {
    const run = (...words: string[]) => {
      const all = ["simulate", "-n", "20", "-t", "10", "--seconds", "5", ...words];
      const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...all]);
      return { status, stdout: `${stdout}`, stderr: `${stderr}` };
    };
    const text = run();
    expect([text.status, text.stderr]).toEqual([0, ""]);
    expect(text.stdout).toMatch(/^invariants {2}all held: one decision a flow/m);
    const json = JSON.parse(run("--json").stdout) as SimulationResult;
    expect(json).toMatchObject({ schema: "flowplane.simulation/1", violations: [] });
    expect(text.stdout).toContain(json.digest);
    expect(run("-k", "21").stderr).toBe("flowplane: --size: 21 nodes a tenant are more than 20\n");
  });

  test("where nothing was built it says what makes it", () => {
    const folder = mkdtempSync(join(tmpdir(), "flowplane-unbuilt-"));
    try {
      for (const name of ["host", "assembly/abi.ts", "package.json"]) {
        cpSync(join(ROOT, name), join(folder, name), { recursive: true });
      }
      symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
      const main = join(folder, "host/cli/main.ts");
      const { status, stderr } = spawnSync(process.execPath, [main, "simulate"]);
      expect(`${stderr}`).toMatch(
        /^flowplane: file:\S+store\.wasm: cannot be read, npm run build makes it: ENOENT[^\n]+\n$/,
      );
      expect(status).toBe(1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
