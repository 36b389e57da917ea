/** The sessions of the chapter on PROXY headers are what the commands print. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-chapter-"));
const CHAPTER = readFileSync(`${ROOT}assembly/pp2/README.md`, "utf8");
const SESSIONS = [...CHAPTER.matchAll(/^```\n(\$ [^`]*?)^```$/gm)].map(([, text = ""]) => text);

for (const name of ["host", "assembly", "fixtures", "build", "node_modules", "package.json"]) {
  symlinkSync(join(ROOT, name), join(FOLDER, name));
}

afterAll(() => rmSync(FOLDER, { recursive: true }));

test("there are three sessions", () => {
  expect(SESSIONS).toHaveLength(3);
});

test.each(SESSIONS)("%s", (session) => {
  for (const part of session.split(/^\$ /m).filter(Boolean)) {
    const [command = "", ...printed] = part.trimEnd().split("\n");
    const found = execFileSync("sh", ["-c", command], {
      cwd: FOLDER,
      encoding: "utf8",
      env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
      stdio: ["ignore", "pipe", "inherit"],
    });
    expect(found.trimEnd().split("\n").filter(Boolean)).toEqual(printed.filter(Boolean));
  }
});
