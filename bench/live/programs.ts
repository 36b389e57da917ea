/** The C programs of the live benchmark, compiled when it runs (gcc). */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = mkdtempSync(join(os.tmpdir(), "flowplane-live-"));

/** Where one of them is: its source in bench/c, compiled once. @throws when that fails */
function compiled(name: string): string {
  const source = fileURLToPath(new URL(`../c/${name}.c`, import.meta.url));
  const path = join(folder, name);
  const { status, stderr, error } = spawnSync("gcc", ["-O2", "-o", path, source], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`gcc: ${error?.message ?? stderr}`);
  return path;
}

export const TRAFFIC: string = compiled("traffic");
export const COPIES: string = compiled("copies");

export function removePrograms(): void {
  rmSync(folder, { recursive: true, force: true });
}
