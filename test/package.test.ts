/**
 * The package as its users get it: packed, installed into an empty project, run and type-checked
 * there. `npm test` has built what is packed.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { afterAll, beforeAll, expect, test } from "vitest";
import manifest from "../package.json" with { type: "json" };

const { version } = manifest;
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-package-"));
const PROJECT = join(FOLDER, "project");
const TSC = join(ROOT, "node_modules/typescript/bin/tsc");
let tarball = "";

/** npm as it runs these tests, or the one in the path. */
function npm(cwd: string, ...words: string[]): string {
  const script = process.env.npm_execpath;
  const [program, first] = script ? [process.execPath, [script]] : ["npm", []];
  const env = { ...process.env, npm_config_loglevel: "error", npm_config_update_notifier: "false" };
  return execFileSync(program, [...first, ...words], { cwd, env, encoding: "utf8" });
}

function flowplane(...words: string[]) {
  const command = join(PROJECT, "node_modules/.bin/flowplane");
  return spawnSync(command, words, { cwd: PROJECT, encoding: "utf8" });
}

beforeAll(() => {
  // The build ran before the tests; running it again would pull files from under other tests.
  npm(ROOT, "pack", "--ignore-scripts", "--pack-destination", FOLDER);
  tarball = join(FOLDER, `flowplane-${version}.tgz`);
  mkdirSync(PROJECT);
  writeFileSync(join(PROJECT, "package.json"), '{ "type": "module", "private": true }');
  npm(PROJECT, "install", "--prefer-offline", "--no-audit", "--no-fund", tarball);
  cpSync(join(ROOT, "fixtures/captures/web.pcap"), join(PROJECT, "web.pcap"));
}, 180_000);

afterAll(() => rmSync(FOLDER, { recursive: true }));

test("the package holds what it needs and nothing else", () => {
  const list = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n");
  const files = list.map((path) => path.replace(/^package\//, ""));
  const outside = files.filter((path) => !path.startsWith("dist/host/")).toSorted();
  expect(outside).toEqual([
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "assembly/pp2/README.md",
    "bench/README.md",
    "build/engine.wasm",
    "build/store.wasm",
    "dist/assembly/abi.js",
    "dist/config.schema.json",
    "host/README.md",
    "host/api.md",
    "host/cli/README.md",
    "host/compliance.md",
    "host/lab/README.md",
    "host/nodes/README.md",
    "host/shard/README.md",
    "package.json",
  ]);
  expect(files.filter((path) => /\.tsx?$/.test(path) && !path.endsWith(".d.ts"))).toEqual([]);
  expect(files.filter((path) => /write-|test|bench\.ts|fixture/.test(path))).toEqual([]);
});

test("links of what can be read in it lead to what is in it", () => {
  const installed = join(PROJECT, "node_modules/flowplane");
  const list = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n");
  const broken: string[] = [];
  for (const file of list.filter((path) => path.endsWith(".md"))) {
    const path = join(installed, file.replace(/^package\//, ""));
    for (const [, link = ""] of readFileSync(path, "utf8").matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)) {
      const isThere = /^https:/.test(link) || existsSync(join(dirname(path), link));
      if (!isThere) broken.push(`${file}: ${link}`);
    }
  }
  expect(broken).toEqual([]);
});

test("publint has nothing to say", async () => {
  const bytes = readFileSync(tarball);
  const pack = { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) };
  const { messages } = await publint({ pack, strict: true });
  expect(messages).toEqual([]);
});

test("the installed command replays a capture as the sources do", () => {
  expect(flowplane("--version").stdout.trim()).toBe(version);
  const words = ["replay", "web.pcap", "--json", "--html", "report.html"];
  const installed = flowplane(...words);
  expect(installed.stderr).toBe("wrote report.html: the report with charts\n");
  expect(installed.status).toBe(0);
  const main = join(ROOT, "host/cli/main.ts");
  const sources = execFileSync(process.execPath, [main, ...words], { cwd: PROJECT });
  const [here, there] = [JSON.parse(installed.stdout), JSON.parse(sources.toString())];
  expect(here.digest).toMatch(/^[0-9a-f]{16}$/);
  expect(here.digest).toBe(there.digest);
  expect(here.verdicts).toEqual(there.verdicts);
  expect(here.machine.flowplane).toBe(version);
});

test("a benchmark that is not installed says so", () => {
  const { status, stdout, stderr } = flowplane("bench");
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toBe("flowplane: bench: the benchmark is not part of this installation\n");
});

const CONSUMER = `
import type { Counters, Engine, Flow } from "flowplane";
import { createEngine, EngineError, Frames, openBytes, VERDICT_NAMES } from "flowplane";
import { openCapture } from "flowplane/node";

const engine: Engine = await createEngine({ flowCountMax: 1000, timeouts: { udp: 30 } });
engine.setService(0, { sourceAddresses: ["203.0.113.1"], adopt: true });
engine.setPort(0, { service: 0, link: "ethernet" });
const source = await openCapture("web.pcap", engine);
let packets = 0;
for (let count = await source.next(); count > 0; count = await source.next()) {
  engine.process(count);
  packets += count;
}
const counters: Counters = engine.counters();
const flows: Flow[] = [...engine.flows()];
const digest: bigint = engine.digest();
const first: string | undefined = VERDICT_NAMES[0];
console.log(packets, counters.verdicts.forward, flows.length, first);
if (digest === 0n) throw new EngineError("no digest");
new Frames(engine).add(new Uint8Array(60), 0);
await openBytes(new Uint8Array(0), engine).catch(() => undefined);
`;

/** Each line is a wrong call that the types must refuse. */
const WRONG_CALLS = [
  'createEngine({ flowCountMax: "many" });',
  "createEngine({ flowCount: 5 });",
  'engine.setPort(0, { link: "token-ring" });',
  'engine.setService(0, { sourceAddresses: "203.0.113.1" });',
  "engine.setService(0, { targets: [{ port: 80 }] });",
  "engine.process();",
  "engine.arena = { address: 0, bytes: 0 };",
  "engine.counters().verdicts.lost;",
  "const count: string = engine.usage(0).packetsFromClient;",
  "new Frames();",
];

/** As in a browser: nothing is skipped, and nothing of Node is there. */
const EVERYWHERE = ["--lib", "es2024,esnext,dom", "--types", ""];

/** What the compiler says of a program in the project. */
function typeCheck(name: string, text: string, options: readonly string[] = EVERYWHERE): string {
  writeFileSync(join(PROJECT, name), text);
  const always = "--noEmit --strict --target es2024 --module nodenext --ignoreConfig".split(" ");
  const words = [TSC, ...always, ...options, name];
  return spawnSync(process.execPath, words, { cwd: PROJECT, encoding: "utf8" }).stdout;
}

test("a program type-checks against the package, and runs", () => {
  expect(typeCheck("consumer.ts", CONSUMER)).toBe("");
  const printed = execFileSync(process.execPath, ["consumer.ts"], { cwd: PROJECT });
  expect(printed.toString()).toBe("2229 2217 185 forward\n");
});

test("a program for Node alone type-checks, as host/README.md says", () => {
  const types = ["--types", "node", "--typeRoots", join(ROOT, "node_modules/@types")];
  const options = ["--lib", "es2024", ...types, "--skipLibCheck"];
  expect(typeCheck("consumer.ts", CONSUMER, options)).toBe("");
});

test("the README's program type-checks against the package", () => {
  const block = readFileSync(join(ROOT, "README.md"), "utf8").match(/```ts\n([^`]+)```/)?.[1];
  expect(block).toContain('from "flowplane"');
  const given = "declare const frame: Uint8Array;\ndeclare const nowMs: number;\n";
  expect(typeCheck("readme.ts", `${given}${block}`)).toBe("");
});

test("the types refuse wrong calls", () => {
  const text = `import { createEngine, type Engine, Frames } from "flowplane";
const engine: Engine = await createEngine();
${WRONG_CALLS.join("\n")}
`;
  const said = typeCheck("wrong.ts", text);
  const lines = [...said.matchAll(/^wrong\.ts\((\d+),/gm)].map(([, line]) => Number(line) - 3);
  const accepted = WRONG_CALLS.filter((_, at) => !lines.includes(at));
  expect(accepted).toEqual([]);
});
