/**
 * What a lab says where it cannot be made: `flowplane lab up` in a process that truly lacks root, the
 * device file or the package, while this one has them. Nothing may be left behind.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { STATE_FOLDER } from "../host/lab/state.ts";
import { requireLab, uniqueName } from "./lab-harness.ts";
import { labText, ROOT } from "./live-world.ts";

let folder = "";
beforeEach(async ({ skip }) => {
  await requireLab(skip);
  folder = mkdtempSync(join(tmpdir(), "flowplane-refusals-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Hides a folder from the program behind an empty one; only there, in its own mount namespace. */
const HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"';
const hiding = (path: string) => ["-m", "sh", "-c", HIDE, "sh", path];
const KOFFI = realpathSync(`${ROOT}node_modules/koffi`);

describe.each([
  // A user namespace without a mapping: the process is nobody, with no capabilities outside.
  ["root", ["-U"], "lab: needs root, for network namespaces and TUN devices"],
  ["/dev/net/tun", hiding("/dev/net"), "lab: /dev/net/tun is missing (modprobe tun makes it)"],
  ["koffi", hiding(KOFFI), "system calls: need the package koffi (npm install koffi): "],
])("without %s", (_, words, message) => {
  test.each([[[]], [["--foreground"]]])(
    "a lab is refused and leaves nothing, with flags %j",
    (flags) => {
      const name = uniqueName();
      const file = join(folder, "lab.yaml");
      writeFileSync(file, labText("nat", name));
      const up = [process.execPath, `${ROOT}host/cli/main.ts`, "lab", "up", ...flags, file];
      const { status, stdout, stderr } = spawnSync("unshare", [...words, ...up], {
        encoding: "utf8",
        timeout: 30_000,
      });
      expect(stderr).toMatch(/^flowplane: [^\n]+\n$/);
      expect(stderr.slice("flowplane: ".length)).toContain(message);
      expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
      for (const place of ["/run/netns", "/etc/netns", STATE_FOLDER]) {
        const left = existsSync(place) ? readdirSync(place) : [];
        expect(left.filter((entry) => entry.startsWith(name))).toEqual([]);
      }
    },
  );
});

test("without koffi, everything but labs works", () => {
  const replay = ["replay", `${ROOT}fixtures/captures/web.pcap`, "--json"];
  const words = [...hiding(KOFFI), process.execPath, `${ROOT}host/cli/main.ts`, ...replay];
  const { stdout, stderr } = spawnSync("unshare", words, { encoding: "utf8", timeout: 30_000 });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout).schema).toMatch(/^flowplane\.replay/);
});
