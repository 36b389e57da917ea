/**
 * Labs that are told to end: by ctrl-C and its kin, while they are up and while they are being
 * brought up. Nothing of them may be left, nor of `lab top` in the terminal.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { namespaceExists } from "../host/io/namespaces.ts";
import { takeDown } from "../host/lab/lab.ts";
import { STATE_FOLDER } from "../host/lab/state.ts";
import type { LiveEvent } from "../host/live/events.ts";
import { requireLab, uniqueName, until } from "./lab-harness.ts";
import { labText, ROOT } from "./live-world.ts";

let folder = "";
let name = "";
let child: ChildProcess | undefined;

beforeEach(async ({ skip }) => {
  await requireLab(skip);
  folder = mkdtempSync(join(tmpdir(), "flowplane-signals-"));
  name = uniqueName();
});
afterEach(async () => {
  child?.kill("SIGKILL");
  await takeDown(name);
  rmSync(folder, { recursive: true, force: true });
});

/** Starts `flowplane lab up`; what it says is collected. */
function startLab(flags: readonly string[]) {
  const file = join(folder, "lab.yaml");
  writeFileSync(file, labText("nat", name));
  const words = [`${ROOT}host/cli/main.ts`, "lab", "up", file, ...flags];
  const started = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
  child = started;
  const said = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    started[stream].on("data", (text) => {
      said[stream] += text;
    });
  }
  const ended = new Promise<number | null>((resolve) => started.once("close", resolve));
  return { said, ended, signal: (one: NodeJS.Signals) => started.kill(one) };
}

function leftovers(places = ["/run/netns", "/etc/netns", STATE_FOLDER]): string[] {
  const entries = places.flatMap((place) => (existsSync(place) ? readdirSync(place) : []));
  return entries.filter((entry) => entry.startsWith(name));
}

describe("a lab in the foreground", { timeout: 60_000 }, () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "says its events and ends on %s",
    async (one) => {
      const lab = startLab(["--foreground"]);
      await until("the lab is up", () => lab.said.stdout.includes('"lab.up"'), 30_000);
      expect(namespaceExists(`${name}-inside`)).toBe(true);
      lab.signal(one);
      expect(await lab.ended).toBe(0);
      expect(lab.said.stderr).toBe("");
      const events = lab.said.stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as LiveEvent);
      expect(events.map(({ number }) => number)).toEqual(events.map((_, index) => index + 1));
      expect(leftovers()).toEqual([]);
    },
  );
});

describe("a lab that is watched", { timeout: 60_000 }, () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "leaves the terminal its cursor on %s",
    async (one) => {
      const lab = startLab(["--foreground"]);
      await until("the lab is up", () => lab.said.stdout.includes('"lab.up"'), 30_000);
      // A terminal that does not tell its size, as stdin is none.
      const pidFile = join(folder, "pid");
      const top = `exec "${process.execPath}" "${ROOT}host/cli/main.ts" lab top ${name}`;
      const words = ["-qec", `echo $$ >"${pidFile}"; ${top}`, "/dev/null"];
      const env = { ...process.env, SHELL: "/bin/sh", TERM: "xterm" };
      const terminal = spawn("script", words, { env, stdio: ["pipe", "pipe", "inherit"] });
      let shown = "";
      terminal.stdout.on("data", (text) => {
        shown += text;
      });
      const ended = new Promise<number | null>((resolve) => terminal.once("close", resolve));
      await until("it is drawn", () => shown.includes("nat-gateway"), 30_000);
      process.kill(Number(readFileSync(pidFile, "utf8")), one);
      expect(await ended).toBe(0);
      expect(shown).toContain("\x1b[?25l");
      expect(shown.endsWith("\x1b[?25h")).toBe(true);
      lab.signal("SIGTERM");
      expect(await lab.ended).toBe(0);
      expect(leftovers()).toEqual([]);
    },
  );
});

describe("a lab that is not up yet", { timeout: 60_000 }, () => {
  test.each([
    ["in the foreground", ["--foreground"], 0, ""],
    ["in the background", [], 1, "was interrupted, everything is removed\n"],
  ] as const)("is gone after ctrl-C, %s", async (_, flags, status, message) => {
    const lab = startLab(flags);
    await until("its first namespace is there", () => leftovers(["/run/netns"]).length > 0, 30_000);
    lab.signal("SIGINT");
    expect(await lab.ended).toBe(status);
    expect(lab.said.stderr).toBe(message && `flowplane: lab ${name}: ${message}`);
    expect(leftovers()).toEqual([]);
  });
});
