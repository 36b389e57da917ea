/** The machine and the versions that figures belong to. */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { packageVersion } from "../host/cli/program.ts";
import type { Machine } from "./result.ts";
import { PAGES } from "./traffic.ts";

const ABSENT = "not there";

/** The version in what a program says about itself. */
export function versionOf(program: string, flag: string): string {
  const { error, stdout, stderr } = spawnSync(program, [flag], { encoding: "utf8" });
  if (error) return ABSENT;
  // The number of gcc's distribution, in parentheses, comes before its own.
  const text = `${stdout}\n${stderr}`.replaceAll(/\([^)]*\)/g, "");
  return /\d+(\.\d+)+/.exec(text)?.[0] ?? "version unknown";
}

export function isThere(version: string): boolean {
  return version !== ABSENT;
}

function packageVersionOf(name: string): string {
  const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
  return (JSON.parse(fs.readFileSync(manifest, "utf8")) as { version: string }).version;
}

/** What the system has them for, and whether the engines' tables are in them. */
function hugePages(): string {
  const word = PAGES.isHuge ? "in use" : PAGES.word;
  try {
    const text = fs.readFileSync("/sys/kernel/mm/transparent_hugepage/enabled", "utf8");
    return `${/\[(\w+)\]/.exec(text)?.[1] ?? "unknown"}, ${word}`;
  } catch {
    return `unknown, ${word}`;
  }
}

/** This process's memory for which huge pages were asked, and how much of it is in them; bytes. */
export interface Pages {
  bytes: number;
  hugeBytes: number;
}

/** What the kernel says of it (smaps); undefined where it says nothing. */
export function pagesNow(): Pages | undefined {
  let text: string;
  try {
    text = fs.readFileSync("/proc/self/smaps", "utf8");
  } catch {
    return undefined;
  }
  const asked = text
    .split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    .filter((part) => /^VmFlags:.*\bhg\b/m.test(part));
  const sum = (name: string) => {
    const found = asked.map((part) => new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(part)?.[1]);
    return found.reduce((bytes, kib) => bytes + 1024 * Number(kib ?? 0), 0);
  };
  return { bytes: sum("Rss"), hugeBytes: sum("AnonHugePages") };
}

/** Ticks that the cores have had so far, and those that a hypervisor gave to others (proc_stat(5)). */
export interface CoreTime {
  all: number;
  stolen: number;
}

export function coreTime(): CoreTime {
  const [first = ""] = fs.readFileSync("/proc/stat", "utf8").split("\n", 1);
  // user nice system idle iowait irq softirq steal; guests are within user and nice.
  const ticks = first.trim().split(/\s+/).slice(1, 9).map(Number);
  return { all: ticks.reduce((sum, one) => sum + one, 0), stolen: ticks[7] ?? 0 };
}

export function loadNow(): number {
  return os.loadavg()[0] as number;
}

export function machine(): Machine {
  const processors = os.cpus();
  return {
    cpu: processors[0]?.model.trim() ?? "unknown processor",
    cores: processors.length,
    memoryBytes: os.totalmem(),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    v8: process.versions.v8,
    flowplane: packageVersion(),
    assemblyscript: packageVersionOf("assemblyscript"),
    gcc: versionOf("gcc", "--version"),
    tcprewrite: versionOf("tcprewrite", "--version"),
    hugePages: hugePages(),
    load: [loadNow(), loadNow()],
  };
}
