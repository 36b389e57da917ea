/** The compliance table names tests that are there, and says why where there are none. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

const TABLE = readFileSync(new URL("../host/compliance.md", import.meta.url), "utf8");

interface Row {
  requirement: string;
  holds: string;
  where: string;
  tests: { file: string; title: string }[];
}

const rows: Row[] = TABLE.split("\n")
  .filter((line) => line.startsWith("| ") && !/^\| (requirement|---) /.test(line))
  .map((line) => {
    const [requirement = "", , holds = "", where = ""] = line.slice(2, -2).split(" | ");
    const tests = [...where.matchAll(/`([a-z0-9-]+): ([^`]+)`/g)].map(
      ([, file = "", title = ""]) => {
        return { file, title };
      },
    );
    return { requirement, holds, where, tests };
  });

describe("the compliance table", () => {
  test("has a row for each requirement, each with an answer", () => {
    expect(rows.length).toBeGreaterThan(60);
    const names = rows.map(({ requirement }) => requirement);
    expect(new Set(names).size).toBe(names.length);
    expect([...new Set(rows.map(({ holds }) => holds))].toSorted()).toEqual(["no", "part", "yes"]);
  });

  test.each(rows)("$requirement: $holds", ({ holds, where, tests }) => {
    if (holds === "no") {
      expect(tests).toEqual([]);
      expect(where.length).toBeGreaterThan(20);
      return;
    }
    expect(tests.length).toBeGreaterThan(0);
    if (holds === "part") expect(where).toMatch(/`; .{20,}/);
    for (const { file, title } of tests) {
      const url = new URL(`${file}.test.ts`, import.meta.url);
      expect(existsSync(url), `test/${file}.test.ts is there`).toBe(true);
      expect(readFileSync(url, "utf8"), `"${title}" is a test of ${file}`).toContain(`"${title}"`);
    }
  });
});
