/**
 * Style as a test: who imports whom, how long things are, what words may not be said, what lies
 * where, and that the packet path stays one piece of machine code.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import manifest from "../package.json" with { type: "json" };
import { LIVE } from "../vitest.config.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const tracked = execFileSync("git", ["ls-files"], { cwd: ROOT, encoding: "utf8" }).trim();
/** Files under version control that still exist, by path from the root. */
const FILES = tracked.split("\n").filter((path) => !path.startsWith("fixtures/captures/"));
const CODE = FILES.filter((path) => path.endsWith(".ts"));
const text = (path: string) => readFileSync(join(ROOT, path), "utf8");

interface Import {
  from: string;
  /** Path from the root of a file of our own, or the name of a package. */
  to: string;
  isType: boolean;
}

const STATEMENT = /^(?:import|export)\s+(type\s)?([^"';]*?)from\s+"([^"]+)"/gm;
const BARE = /(?:^import\s+|\bimport\()"([^"]+)"/gm;

function importsOf(from: string): Import[] {
  const content = text(from);
  const found: [specifier: string, isType: boolean][] = [];
  for (const [, type, names = "", specifier = ""] of content.matchAll(STATEMENT)) {
    const list = names.match(/^\{([^}]*)\}\s*$/)?.[1]?.split(",") ?? [""];
    const isEach = list.filter((one) => one.trim()).every((one) => one.trim().startsWith("type "));
    found.push([specifier, type !== undefined || (names.startsWith("{") && isEach)]);
  }
  for (const [, specifier = ""] of content.matchAll(BARE)) found.push([specifier, false]);
  return found.map(([specifier, isType]) => {
    if (!specifier.startsWith(".")) return { from, to: specifier, isType };
    const path = posix.join(posix.dirname(from), specifier);
    return { from, to: from.includes("assembly/") ? `${path}.ts` : path, isType };
  });
}

const IMPORTS = CODE.flatMap(importsOf);

/** Imports from files that begin with `from` that are not allowed to lead to `to`. */
function broken(from: string, isAllowed: (one: Import) => boolean): string[] {
  const wrong = IMPORTS.filter((one) => one.from.startsWith(from) && !isAllowed(one));
  return wrong.map((one) => `${one.from} imports ${one.to}`);
}

const under = (...folders: string[]) => {
  return ({ to }: Import) => folders.some((folder) => to.startsWith(folder));
};

describe("layers", () => {
  test("the walk over imports sees them", () => {
    expect(IMPORTS.length).toBeGreaterThan(300);
    const one = (from: string, to: string) => IMPORTS.find((i) => i.from === from && i.to === to);
    expect(one("host/engine/engine.ts", "assembly/abi.ts")?.isType).toBe(false);
    expect(one("host/engine/engine.ts", "host/engine/api.ts")?.isType).toBe(true);
    expect(one("assembly/batch.ts", "assembly/abi.ts")).toBeDefined();
    const missing = IMPORTS.filter(({ to }) => to.includes("/") && /^[a-z]+\//.test(to));
    const dangling = missing.filter(({ to }) => !to.endsWith(".json") && !FILES.includes(to));
    const all = { ...manifest.dependencies, ...manifest.devDependencies, flowplane: "" };
    const packages = Object.keys(all);
    const unknown = dangling.filter(({ to }) => !packages.some((name) => to.startsWith(name)));
    expect(unknown).toEqual([]);
  });

  test("the contract and the leaves of the engine import nothing else", () => {
    const abi = under("assembly/abi.ts");
    expect(broken("assembly/abi.ts", () => false)).toEqual([]);
    expect(broken("assembly/checksum.ts", abi)).toEqual([]);
    expect(broken("assembly/hash.ts", under("assembly/abi.ts", "assembly/memory.ts"))).toEqual([]);
    expect(broken("assembly/memory.ts", abi)).toEqual([]);
  });

  test("the engine stays inside assembly/", () => {
    expect(broken("assembly/", under("assembly/"))).toEqual([]);
    expect(broken("assembly/wire/", ({ to }) => !/\/(batch|index|rewrite)\.ts$/.test(to))).toEqual(
      [],
    );
  });

  test("captures know descriptors, but of the engine only its types", () => {
    const isAllowed = (one: Import) => !one.to.startsWith("host/engine/") || one.isType;
    expect(broken("host/capture/", isAllowed)).toEqual([]);
    expect(broken("host/capture/", (one) => !under("host/cli/", "host/replay/")(one))).toEqual([]);
  });

  test("only the host code of engine, captures and PROXY headers knows offsets", () => {
    const known = ["host/engine/", "host/capture/", "host/pp2/"];
    const users = IMPORTS.filter(
      ({ from, to }) => from.startsWith("host/") && /^assembly\//.test(to),
    );
    expect(users.filter(({ to }) => to !== "assembly/abi.ts")).toEqual([]);
    const outside = users.filter(({ from }) => !known.some((folder) => from.startsWith(folder)));
    expect(outside.map(({ from }) => from)).toEqual([]);
  });

  test("reports are pure: data in, text out", () => {
    const isPure = (one: Import) =>
      one.isType ||
      under("host/report/", "host/replay/result", "host/page/document", "host/page/browser")(one);
    expect(broken("host/page/document", under("host/page/browser"))).toEqual([]);
    expect(broken("host/page/browser", () => false)).toEqual([]);
    expect(broken("host/report/", isPure)).toEqual([]);
    const leaves = under("host/control/", "host/cidr.ts", "host/address.ts");
    expect(broken("host/control/", (one) => one.isType || leaves(one))).toEqual([]);
  });

  test("nothing imports the command, the benchmarks or the tests", () => {
    const isFine = ({ to }: Import) => !/^(bench|test)\//.test(to);
    expect(broken("host/", isFine)).toEqual([]);
    expect(broken("fixtures/", isFine)).toEqual([]);
    const library = IMPORTS.filter(({ from }) => /^host\/(?!cli\/)/.test(from));
    expect(library.filter(({ to }) => to.startsWith("host/cli/"))).toEqual([]);
  });

  test("packets of the tests are built without the engine's help", () => {
    expect(broken("fixtures/packets.ts", under("fixtures/"))).toEqual([]);
    expect(broken("fixtures/layers.ts", under("fixtures/"))).toEqual([]);
    const isApart = (one: Import) => one.isType || !/^(host|assembly)\//.test(one.to);
    expect(broken("test/reference/", isApart)).toEqual([]);
  });

  test("tests that make namespaces are those that run after all others", () => {
    const users = IMPORTS.filter(({ to }) => to === "test/lab-harness.ts").map(({ from }) => from);
    const tests = users.filter((file) => file.endsWith(".test.ts"));
    expect(tests.length).toBeGreaterThan(8);
    expect(tests.filter((file) => !LIVE.some((glob) => posix.matchesGlob(file, glob)))).toEqual([]);
  });
});

/** Lines that begin a function, as the formatter leaves them. */
const FUNCTION = /^ *(export |async |default )*function\b.*[({]$/;
const METHOD = /^ {2}(static |async |get |set |override |\*)*#?\w+\(([^"'`]*\)(: .+)? \{|)$/;
/** Text that the formatter cannot break. */
const LONG_TEXT = /(["'`/]).{40,}\1/;

describe("sizes", () => {
  /** The contract is one table of constants: a line for each, and nothing to understand. */
  const limitOf = (path: string) =>
    path === "assembly/abi.ts" || path.startsWith("test/") ? 600 : 500;

  test("no file is longer than 500 lines; a file of tests, and the contract, than 600", () => {
    const long = CODE.filter((path) => {
      return text(path).split("\n").length > limitOf(path);
    });
    expect(long).toEqual([]);
  });

  test("no function is longer than 70 lines", () => {
    const found: string[] = [];
    let functions = 0;
    for (const path of CODE) {
      const lines = text(path).split("\n");
      for (const [start, line] of lines.entries()) {
        if (!FUNCTION.test(line) && !METHOD.test(line)) continue;
        const indent = line.match(/^ */)?.[0] ?? "";
        const rest = lines.slice(start);
        // What looks like a method over several lines may be a call.
        if (
          line.endsWith("(") &&
          !rest.find((one) => one.startsWith(`${indent})`))?.endsWith("{")
        ) {
          continue;
        }
        functions++;
        const count = rest.indexOf(`${indent}}`) + 1;
        if (count > 70) found.push(`${path}:${start + 1}: ${count} lines`);
      }
    }
    expect(functions).toBeGreaterThan(500);
    expect(found).toEqual([]);
  });

  test("no line of code is longer than 100 columns, and no table behind it than 120", () => {
    const long: string[] = [];
    for (const path of CODE) {
      for (const [at, line] of text(path).split("\n").entries()) {
        const isComment = /^\s*(\*|\/\*|\/\/)/.test(line);
        const code = isComment || LONG_TEXT.test(line) ? "" : line.replace(/ \/\/ .*/, "");
        const limit = path.startsWith("test/") ? 102 : 100;
        if (line.length > 120 || code.length > limit)
          long.push(`${path}:${at + 1}: ${line.length}`);
      }
    }
    expect(long).toEqual([]);
  });
});

describe("words", () => {
  // Taken apart, so that this file does not find itself.
  const BANNED = [
    ["TO", "DO"],
    ["FIX", "ME"],
    ["XX", "X"],
    ["/wo", "rk/"],
    ["/ho", "me/"],
    ["/ro", "ot/"],
    ["registry", ".npm"],
    ["npm", "js.org"],
    ["yarn", "pkg"],
    ["HACK", ":"],
  ].map((parts) => parts.join(""));

  test.each(BANNED)("nobody says %s", (word) => {
    const users = FILES.filter((path) => text(path).includes(word));
    expect(users).toEqual([]);
  });

  test("a file of code begins with what it is", () => {
    const isBegun = (path: string) => /^(#!.*\n)?\/\*\*/.test(text(path));
    const own = CODE.filter((path) => /^(assembly|host|fixtures|bench)\//.test(path));
    expect(own.filter((path) => !isBegun(path))).toEqual([]);
  });
});

describe("the tree", () => {
  const ROOT_FILES = [
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "asconfig.json",
    "assembly",
    "bench",
    "biome.json",
    "fixtures",
    "host",
    "package-lock.json",
    "package.json",
    "test",
    "tsconfig.build.json",
    "tsconfig.json",
    "vitest.config.ts",
  ];

  test("the top level holds what it should and nothing else", () => {
    const there = [...new Set(FILES.map((path) => path.split("/")[0]))].toSorted();
    expect(there).toEqual(ROOT_FILES.toSorted());
  });

  test.each(["assembly", "host", "fixtures", "bench", "test"])("%s/ has its chapter", (folder) => {
    expect(FILES).toContain(`${folder}/README.md`);
    expect(text(`${folder}/README.md`).length).toBeGreaterThan(300);
  });

  test("versions are exact", () => {
    const all = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });
    const loose = all.filter(
      ([, version]) => !/^\d+\.\d+\.\d+(-nightly\.\d+)?$|^file:\.ci\//.test(version),
    );
    expect(loose).toEqual([]);
    expect(text("package-lock.json")).not.toContain('"resolved": "http');
  });

  test("every dependency is used", () => {
    const uses = IMPORTS.map(({ to }) => to);
    const tools = ["dev-node", "typescript", "@biomejs/biome", "binaryen", "@types/node", "uplot"];
    tools.push("@types/dns-packet");
    const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
    const isUsed = (name: string) => uses.some((to) => to === name || to.startsWith(`${name}/`));
    const unused = names.filter((name) => !tools.includes(name) && !isUsed(name));
    expect(unused).toEqual([]);
  });
});

describe("the packet path is one piece", () => {
  const folder = mkdtempSync(join(tmpdir(), "flowplane-wat-"));
  const wasm = `${folder}/engine.wasm`;
  const wat = `${folder}/engine.wat`;
  const words = ["assembly/index.ts", "--target", "release", "--debug", "--outFile", wasm];
  const [optimizer = "", ...flags] = manifest.scripts.optimize.split(" ");
  const tool = (name: string) => join(ROOT, "node_modules/.bin", name);
  execFileSync(process.execPath, [tool("asc"), ...words], { cwd: ROOT });
  execFileSync(process.execPath, [tool(optimizer), wasm, ...flags, "-g", "-S", "-o", wat]);
  const pieces = readFileSync(wat, "utf8")
    .split(/^ \(func \$/m)
    .slice(1);
  rmSync(folder, { recursive: true });
  const calls = new Map(
    pieces.map((piece) => [
      piece
        .match(/^[^\s)]+/)?.[0]
        .split("/")
        .at(-1) ?? "",
      [...piece.matchAll(/call \$([^\s)]+)/g)].map(([, name]) => name?.split("/").at(-1) ?? ""),
    ]),
  );

  test("the leaves are inlined wherever packets pass", () => {
    expect(calls.has("processBatch")).toBe(true);
    const leaves = "updated updatedUdp fold inverse hashTuple hashDigest tagMatches recordAt";
    const steps = "parseFrame finishFast isIdle nextState directionOf forward giveVerdict touch";
    for (const name of `${leaves} ${steps}`.split(" ")) {
      expect(calls.has(name), `${name} is a function of its own`).toBe(false);
    }
  });

  test("an established flow's packet costs no call", () => {
    const way = "parsePlain setTuple4 hashTuple finishFast holds accountFlow mark rewriteHead";
    const left = `${way} rewriteSum`.split(" ").filter((name) => calls.has(name));
    expect(left).toEqual([]);
  });
});
