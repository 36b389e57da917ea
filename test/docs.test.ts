/** What the documents say exists, works, and is up to date. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { commandLine, withSubcommands } from "../host/cli/program.ts";
import manifest from "../package.json" with { type: "json" };
import { chapters } from "./setup/docs.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const text = (path: string) => readFileSync(join(ROOT, path), "utf8");
const tracked = execFileSync("git", ["ls-files", "*.md"], { cwd: ROOT, encoding: "utf8" });
const DOCUMENTS = tracked.trim().split("\n");
const FOLDERS = "assembly|host|fixtures|bench|test|\\.ci";
/** What a build or a command makes, and so is not there before. */
const MADE = /^(build|dist)\//;

describe.each(DOCUMENTS)("%s", (document) => {
  const content = text(document);
  const folder = dirname(document);

  test("its links lead somewhere", () => {
    const links = [...content.matchAll(/\]\(([^)#]+)(#[^)]*)?\)/g)].map(([, link = ""]) => link);
    const own = links.filter((link) => !/^https:/.test(link));
    expect(own.filter((link) => !existsSync(join(ROOT, folder, link)))).toEqual([]);
  });

  test("the files that it names exist", () => {
    const inside = new RegExp(`\`((?:${FOLDERS})/[\\w./-]*)\``, "g");
    const named = [...content.matchAll(inside)].map(([, path = ""]) => path);
    const commands = [...content.matchAll(/\bnode (\S+\.ts)/g)].map(([, path = ""]) => path);
    const isThere = (path: string) => {
      return [ROOT, join(ROOT, folder)].some((base) => existsSync(join(base, path)));
    };
    expect([...named, ...commands].filter((path) => !MADE.test(path) && !isThere(path))).toEqual(
      [],
    );
  });

  test("the scripts, commands and flags that it names exist", () => {
    const scripts = [...content.matchAll(/\bnpm run ([\w:]+)/g)].map(([, name = ""]) => name);
    expect(scripts.filter((name) => !(name in manifest.scripts))).toEqual([]);
    const program = commandLine();
    const known = program.commands.map((command) => command.name());
    const uses = [...content.matchAll(/`flowplane ([a-z]\w*)([^`]*)`/g)];
    expect(uses.map(([, name = ""]) => name).filter((name) => !known.includes(name))).toEqual([]);
    const options = withSubcommands(program).flatMap((command) => command.options);
    const flags = new Set(options.map((option) => option.long));
    const named = [...content.matchAll(/`(--[a-z]+)( [^`]*)?`/g)].map(([, flag = ""]) => flag);
    const others = ["--help", "--version", "--runtime", "--smoke"];
    expect(named.filter((flag) => !flags.has(flag) && !others.includes(flag))).toEqual([]);
  });
});

test("the session in the README is what the command prints", () => {
  const words = ["host/cli/main.ts", "replay", "fixtures/captures/web.pcap", "--repeat", "2"];
  const printed = execFileSync(process.execPath, words, { cwd: ROOT, encoding: "utf8" });
  const lines = printed.split("\n");
  const isStable = /^(capture|flows|output|verdict|forward|pass|drop) |^ {4,}[\d,]+ packets,/;
  const stable = lines.filter((line) => isStable.test(line));
  expect(stable.length).toBeGreaterThanOrEqual(6);
  const shown = text("README.md").split("\n");
  expect(stable.filter((line) => !shown.includes(line))).toEqual([]);
});

test("every dependency has its reason in ARCHITECTURE.md", () => {
  const reasons = text("ARCHITECTURE.md").split("## Dependencies")[1]?.split("\n## ")[0] ?? "";
  const given = [...reasons.matchAll(/`([^`]+)`/g)].map(([, name]) => name);
  const { dependencies, devDependencies, optionalDependencies } = manifest;
  const names = Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies });
  expect(names.filter((name) => !given.includes(name) && name !== "@types/node")).toEqual([]);
  const gone = given.filter((name) => !names.includes(name ?? "") && !name?.startsWith("."));
  expect(gone).toEqual([]);
});

test("the changelog has this version or what comes next", () => {
  const titles = [...text("CHANGELOG.md").matchAll(/^## (.+)$/gm)].map(([, title]) => title);
  const isNamed = titles[0] === "Unreleased" || titles[0]?.includes(manifest.version);
  expect(isNamed, `${titles[0]} or ${manifest.version}`).toBe(true);
});

describe("generated chapters are up to date; npm run docs writes them", () => {
  const made = chapters();
  test.each(Object.keys(made))("%s", (path) => {
    expect(text(path)).toBe(made[path]);
  });
});
