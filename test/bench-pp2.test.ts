/**
 * The benchmarks of PROXY headers work: their smallest runs measure everything that they say, compare
 * what they measure with what it must be, and judge by their figures. Nothing here looks at how long
 * anything took.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";

// Processes, and a compiler where there is one: seconds, more of them where other work goes on.
vi.setConfig({ testTimeout: 120_000 });

function smoke(name: string): string[] {
  const program = fileURLToPath(new URL(`../bench/${name}`, import.meta.url));
  const run = spawnSync(process.execPath, [program, "--smoke"], { encoding: "utf8" });
  expect(run.stderr).toBe("");
  expect(run.status).toBe(0);
  return run.stdout.trimEnd().split("\n");
}

const NUMBER = /^[\d,.]+$/;

test("packets and openings with a header in the stream, beside those without", () => {
  const [titles = "", ...rows] = smoke("pp2-stream.ts");
  expect(titles.trim().split(/\s{2,}/)).toEqual([
    "ns",
    "plain",
    "median",
    "with header",
    "median",
    "ratio",
    "median",
    "at most",
    "met",
  ]);
  const kinds = ["packet", "opening", "opening, on_first_ack,"];
  const names = ["IPv4", "IPv6"].flatMap((family) => {
    return kinds.map((kind) => `per ${kind} among 1,000 flows, ${family}`);
  });
  expect(rows.map((row) => row.split(/\s{2,}/)[0])).toEqual(names);
  for (const row of rows) {
    const [, ...cells] = row.split(/\s{2,}/);
    const met = cells.pop();
    const figures = cells.map((cell) => {
      expect(cell).toMatch(NUMBER);
      return Number(cell.replaceAll(",", ""));
    });
    expect(figures).toHaveLength(7);
    expect(Math.min(...figures)).toBeGreaterThan(0);
    const [median = 0, goal = 0] = figures.slice(5);
    // Figures are printed with three decimals.
    if (Math.abs(median - goal) > 0.001) expect(met).toBe(median <= goal ? "yes" : "no");
  }
});

test("headers read and written, beside npm's and Go's parsers", () => {
  const lines = smoke("pp2.ts");
  const end = lines.indexOf("");
  const rows = lines.slice(1, end).map((line) => line.split(/\s{2,}/));
  const names = rows.map(([name]) => name);
  const rest = lines.slice(end + 1);
  const hasGo = !rest.some((line) => line.startsWith("Go parser: skipped, "));
  const ours = ["decode", "encode", "encode, prepared", "encode, prepared, in place"];
  const go = hasGo ? ["go read", "go write"] : [];
  expect(names.toSorted()).toEqual([...ours, "npm parse", "npm build, no TLVs", ...go].toSorted());
  for (const [, ...cells] of rows) {
    expect(cells).toHaveLength(2);
    for (const cell of cells) {
      expect(cell).toMatch(NUMBER);
      expect(Number(cell.replaceAll(",", ""))).toBeGreaterThan(0);
    }
  }
  const rivals = ["npm parse / decode", "npm build, no TLVs / encode, prepared, in place"];
  if (hasGo) rivals.push("go read / decode", "go write / encode, prepared, in place");
  const compared = rest.slice(1).filter((line) => !line.startsWith("Go parser"));
  expect(compared.map((line) => line.split(/\s{2,}/)[0]).toSorted()).toEqual(rivals.toSorted());
  for (const line of compared) {
    const [, ratio, range, isAbove] = line.split(/\s{2,}/);
    expect(range).toMatch(/^[\d.]+ to [\d.]+$/);
    // Figures are printed with two decimals.
    if (Math.abs(Number(ratio) - 1) > 0.01) expect(isAbove).toBe(Number(ratio) > 1 ? "yes" : "no");
  }
});
