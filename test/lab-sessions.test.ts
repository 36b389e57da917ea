/** The sessions of the lab chapter, executed as they are written. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { takeDown } from "../host/lab/lab.ts";
import { isRunning, readState } from "../host/lab/state.ts";
import { requireLab, until } from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const CHAPTER = readFileSync(`${ROOT}host/lab/README.md`, "utf8");
const COMMAND_MS_MAX = 30_000;

interface Step {
  command: string;
  expected: string[];
}

/** Commands and what follows them, of each session by the name of its lab. */
function sessions(): [lab: string, steps: Step[]][] {
  const blocks = [...CHAPTER.matchAll(/```console\n([\s\S]*?)```/g)].map(([, block = ""]) => block);
  return blocks.map((block) => {
    const steps: Step[] = [];
    for (const line of block.trimEnd().split("\n")) {
      if (line.startsWith("$ ")) steps.push({ command: line.slice(2), expected: [] });
      else steps.at(-1)?.expected.push(line);
    }
    const lab = steps.at(-1)?.command.split(" ").at(-1) ?? "";
    return [lab, steps];
  });
}

/** What a written line stands for; columns may be wider than written. */
function pattern(line: string): RegExp {
  const parts = line
    .trim()
    .split("…")
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const text = parts
    .join(".*")
    .replace(/ +/g, " +")
    .replace(/time 0ms/, "time \\d+ms");
  return new RegExp(`^${text}$`);
}

/** A folder with the `flowplane` and `node` that the sessions name. */
function programs(): string {
  const folder = mkdtempSync(join(tmpdir(), "flowplane-session-"));
  const script = `#!/bin/sh\nexec "${process.execPath}" "${ROOT}host/cli/main.ts" "$@"\n`;
  writeFileSync(join(folder, "flowplane"), script, { mode: 0o755 });
  symlinkSync(process.execPath, join(folder, "node"));
  return folder;
}

describe.each(sessions())("%s", (lab, steps) => {
  const started: ChildProcess[] = [];
  const folder = programs();
  /** A lab of this name that somebody else has up is not to be touched. */
  let isOurs = false;
  const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };

  afterEach(async () => {
    for (const { pid } of started) if (pid !== undefined) endGroup(pid);
    if (isOurs) await takeDown(lab);
    rmSync(folder, { recursive: true, force: true });
  });

  /** All that a command prints, to its end; or its first line, when it goes on behind. */
  function printed(command: string): Promise<string> {
    const isBehind = command.endsWith(" &");
    const words = ["-c", isBehind ? `exec ${command.slice(0, -2)}` : command];
    const child = spawn("sh", words, { cwd: ROOT, env, detached: true });
    started.push(child);
    let text = "";
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`${command}: not done in ${COMMAND_MS_MAX} ms: ${text}`));
      const timer = setTimeout(late, COMMAND_MS_MAX);
      const end = () => {
        clearTimeout(timer);
        resolve(text);
      };
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (part: string) => {
          text += part;
          if (isBehind) end();
        });
      }
      child.on("close", end);
    });
  }

  test("runs as written", { timeout: 180_000 }, async ({ skip }) => {
    await requireLab(skip);
    for (const tool of ["curl", "dig", "ping"] as const) requireTool(tool, skip);
    await until(
      `lab ${lab} of somebody else is up`,
      () => {
        const state = readState(lab);
        return state === undefined || !isRunning(state);
      },
      60_000,
    );
    isOurs = true;
    expect(steps.length).toBeGreaterThanOrEqual(8);
    for (const { command, expected } of steps) {
      const lines = (await printed(command))
        .trimEnd()
        .split("\n")
        .map((line) => line.trim());
      const isOpen = expected.at(-1) === "…";
      const wanted = isOpen ? expected.slice(0, -1) : expected;
      const context = `$ ${command}\n${lines.join("\n")}`;
      if (!isOpen) expect(lines, context).toHaveLength(Math.max(1, wanted.length));
      for (const [at, line] of wanted.entries()) {
        expect(lines[at] ?? "", context).toMatch(pattern(line));
      }
    }
    expect(readState(lab)).toBeUndefined();
  });
});

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
