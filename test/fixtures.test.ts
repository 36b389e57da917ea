/** The shipped captures are what their stories say, and what README.md says of them. */
import { readdir, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { GENERATED } from "../fixtures/generate.ts";
import { verifyFrame } from "../fixtures/verify.ts";
import { readCapture } from "./reference/capture.ts";

const FOLDER = new URL("../fixtures/captures/", import.meta.url);
const SIZE_MAX = 1_100_000;

const names = await readdir(FOLDER);
const readme = await readFile(new URL("../fixtures/README.md", import.meta.url), "utf8");

describe("shipped captures", () => {
  test.each(Object.entries(GENERATED))("%s is up to date", async (name, make) => {
    const onDisk = await readFile(new URL(name, FOLDER));
    expect(onDisk.equals(make()), "run `node fixtures/generate.ts`").toBe(true);
  });

  test.each(names)(
    "%s is small, listed with its packets, and its checksums are right",
    async (name) => {
      const bytes = await readFile(new URL(name, FOLDER));
      expect(bytes.length).toBeLessThanOrEqual(SIZE_MAX);
      const frames = readCapture(bytes);
      expect(readme).toContain(`| \`captures/${name}\` | ${frames.length} |`);
      const reports = frames.flatMap((frame) => verifyFrame(frame.bytes, frame.link));
      expect(reports.filter((report) => report.state === "wrong")).toEqual([]);
      expect(reports.filter((report) => report.state === "right").length).toBeGreaterThan(10);
    },
  );
});
