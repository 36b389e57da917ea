/** The C programs of the live benchmark, compiled when they are first needed (gcc), gone when the process ends. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const paths = new Map<string, string>();

/** Where a program is whose source is in bench/c. @throws when it cannot be compiled */
export function compiled(name: "traffic" | "copies"): string {
  const before = paths.get(name);
  if (before !== undefined) return before;
  const folder = mkdtempSync(join(os.tmpdir(), "flowplane-live-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const source = fileURLToPath(new URL(`../c/${name}.c`, import.meta.url));
  const path = join(folder, name);
  const { status, stderr, error } = spawnSync("gcc", ["-O2", "-o", path, source], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`gcc: ${error?.message ?? stderr}`);
  paths.set(name, path);
  return path;
}
