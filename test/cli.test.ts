import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { commandLine, withSubcommands } from "../host/cli/program.ts";
import { abilitiesOf } from "../host/cli/terminal.ts";
import type { FlowsResult } from "../host/replay/flows.ts";
import type { ReplayResult } from "../host/replay/result.ts";
import { readCapture } from "./reference/capture.ts";

const MAIN = fileURLToPath(new URL("../host/cli/main.ts", import.meta.url));
const WEB = fileURLToPath(new URL("../fixtures/captures/web.pcap", import.meta.url));
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-cli-"));

afterAll(() => rmSync(FOLDER, { recursive: true }));

/** Runs the real command in a folder of its own. */
function flowplane(words: string[], input?: Uint8Array) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...words], {
    cwd: FOLDER,
    ...(input ? { input } : {}),
    maxBuffer: 1 << 26,
  });
  return { status, stdout: stdout.toString(), stderr: stderr.toString() };
}

function inFolder(name: string, content: string | Uint8Array): string {
  writeFileSync(join(FOLDER, name), content);
  return name;
}

function read(name: string): Buffer {
  return readFileSync(join(FOLDER, name));
}

const web = readFileSync(WEB);
inFolder("web.pcap", web);
execFileSync("mkfifo", [join(FOLDER, "pipe")]);
inFolder("empty.pcap", "");
inFolder("text.pcap", "this is no capture");
inFolder("cut.pcap", web.subarray(0, web.length - 10));
inFolder("bad.yaml", "scenario: nlb\nnlb:\n  targets:\n    - address: 10.0.0.999\n");
inFolder(
  "good.yaml",
  "scenario: nlb\nadopt: true\nnlb:\n  targets:\n    - {address: 10.99.0.1, port: 8080}\n" +
    "    - {address: '2001:db8:99::1'}\n",
);

describe("help", () => {
  test("is what the command alone prints, and --help, and help", () => {
    const alone = flowplane([]);
    expect(alone.status).toBe(0);
    expect(alone.stderr).toBe("");
    expect(alone.stdout).toContain("Usage: flowplane [options] [command]");
    expect(alone.stdout).toContain("Exit status: 0 done; 1 it could not be done; 2 ");
    expect(flowplane(["--help"])).toEqual(alone);
    expect(flowplane(["help"])).toEqual(alone);
  });

  test("of a command names all of its options", () => {
    const { status, stdout } = flowplane(["replay", "--help"]);
    expect(status).toBe(0);
    const flags = ["config", "scenario", "targets", "write", "map", "drops", "json", "html"];
    for (const flag of [...flags, "repeat", "workers", "limit", "quiet", "debug", "help"]) {
      expect(stdout).toContain(`--${flag}`);
    }
    expect(flowplane(["help", "replay"]).stdout).toBe(stdout);
  });

  test("has no line longer than a terminal and no command without a description", () => {
    for (const command of withSubcommands(commandLine())) {
      expect(command.description()).not.toBe("");
      const lines = command.helpInformation().split("\n");
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    }
  });

  test("the version is that of the package", () => {
    const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
    expect(flowplane(["--version"]).stdout).toBe(`${JSON.parse(text).version}\n`);
  });
});

describe("an error is one line and an exit status:", () => {
  test.each([
    [["--bogus"], 2, "flowplane: unknown option '--bogus'"],
    [["repaly"], 2, "flowplane: unknown command 'repaly' (Did you mean replay?)"],
    [["lab"], 2, /^flowplane: lab: what to do is missing: up, down, status, /],
    [["lab", "statsu", "x"], 2, /^flowplane: lab: "statsu" is none of up, down, status, /],
    [
      ["explain", "web.pcap", "--packet", "1", "--vpc", "x"],
      2,
      "flowplane: --vpc: only --tuple takes one; a packet of the capture has its own",
    ],
    [["help", "foo"], 2, "flowplane: help: there is no such command"],
    [["replay"], 2, "flowplane: missing required argument 'capture'"],
    [
      ["replay", "web.pcap", "--jsn"],
      2,
      "flowplane: unknown option '--jsn' (Did you mean --json?)",
    ],
    [["replay", "web.pcap", "x"], 2, /^flowplane: too many arguments for 'replay'/],
    [["replay", "web.pcap", "--scenario", "vpn"], 2, /'vpn' is invalid. .* nat, nlb, privatelink/],
    [["replay", "web.pcap", "--limit", "0"], 2, /--limit: "0" is not an integer of at least 1$/],
    [
      ["replay", "web.pcap", "--limit", "9007199254740993"],
      2,
      /--limit: "9007199254740993" is not an integer from 1 to 9007199254740991$/,
    ],
    [["replay", "web.pcap", "--repeat", "x"], 2, /--repeat: "x" is not an integer from 1 to/],
    [
      ["replay", "-", "--workers", "2"],
      2,
      /--workers: 2 workers each read the capture; standard input/,
    ],
    [["replay", "none.pcap", "--workers", "2"], 1, /^flowplane: none\.pcap: ENOENT/],
    [["replay", ".", "--workers", "2"], 1, /^flowplane: \.: EISDIR/],
    [
      ["replay", "web.pcap", "--workers", "65"],
      2,
      /--workers: "65" is not an integer from 1 to 64/,
    ],
    [
      ["replay", "web.pcap", "--scenario", "nlb", "--targets", "1001"],
      2,
      'flowplane: --targets: "1001" is not an integer from 1 to 1000',
    ],
    [
      ["replay", "web.pcap", "--targets", "3"],
      2,
      "flowplane: --targets: the scenario nat has no targets; nlb and privatelink have",
    ],
    [
      ["replay", "web.pcap", "--scenario", "nat", "--config", "good.yaml"],
      2,
      /'-s, --scenario <name>' cannot be used with option '-c, --config <file>'/,
    ],
    [
      ["replay", "web.pcap", "--config", "none.yaml"],
      2,
      "flowplane: none.yaml: ENOENT: no such file or directory",
    ],
    [
      ["replay", "web.pcap", "--config", "bad.yaml"],
      2,
      'flowplane: bad.yaml:4: nlb.targets[0].address: "10.0.0.999" is not an IP address',
    ],
    [
      ["replay", "web.pcap", "--write", "web.pcap"],
      2,
      "flowplane: --write: web.pcap is also capture",
    ],
    [
      ["replay", "web.pcap", "--map", "new", "--drops", "./new"],
      2,
      "flowplane: --drops: ./new is also --map",
    ],
    [
      ["replay", "web.pcap", "--write", "-"],
      2,
      "flowplane: --write: standard output carries the report; name a file",
    ],
    [
      ["replay", "-", "--repeat", "2"],
      2,
      "flowplane: --repeat: standard input can be read only once; save it to a file",
    ],
    [
      ["replay", "pipe", "--repeat", "2"],
      2,
      "flowplane: --repeat: pipe can be read only once; save it to a file",
    ],
    [["replay", ""], 2, "flowplane: capture: the name of the file is empty"],
    [
      ["replay", "web.pcap", "--write", ""],
      2,
      /^flowplane: --write: the name of the file is empty/,
    ],
    [["replay", "none.pcap"], 1, "flowplane: none.pcap: ENOENT: no such file or directory"],
    [["replay", "."], 1, "flowplane: .: EISDIR: it is a directory"],
    [["replay", "empty.pcap"], 1, "flowplane: empty.pcap: the file is empty"],
    [["flows", "empty.pcap"], 1, "flowplane: empty.pcap: the file is empty"],
    [["replay", "text.pcap"], 1, /^flowplane: text.pcap: neither pcap nor pcapng/],
    [["replay", "web.pcap", "--write", "no/where"], 1, /^flowplane: no\/where: ENOENT/],
    [["replay", "web.pcap", "--map", "no/where"], 1, /^flowplane: no\/where: ENOENT/],
    [["replay", "web.pcap", "--html", "no/where"], 1, /^flowplane: no\/where: ENOENT/],
    [["replay", "cut.pcap", "--html", "no/where"], 1, /^flowplane: no\/where: ENOENT/],
    [["replay", "web.pcap", "--html", "."], 1, "flowplane: .: EISDIR: it is a directory"],
  ])("flowplane %j", (words, status, message) => {
    const run = flowplane(words);
    const lines = run.stderr.split("\n").filter((line) => line !== "");
    expect(run.stdout).toBe("");
    expect(lines).toHaveLength(1);
    if (typeof message === "string") expect(lines[0]).toBe(message);
    else expect(lines[0]).toMatch(message);
    expect(run.status).toBe(status);
  });

  test.runIf(existsSync("/dev/full"))("a result that nobody can take", () => {
    const full = openSync("/dev/full", "w");
    const { status, stderr } = spawnSync(process.execPath, [MAIN, "flows", "web.pcap"], {
      cwd: FOLDER,
      stdio: ["ignore", full, "pipe"],
    });
    closeSync(full);
    expect(status).toBe(1);
    expect(stderr.toString()).toMatch(/^flowplane: standard output: ENOSPC: .*\n$/);
  });

  test.runIf(existsSync("/dev/full"))("a page that nobody can take, after the result", () => {
    const { status, stdout, stderr } = flowplane(["replay", "web.pcap", "--html", "/dev/full"]);
    expect(stdout).toMatch(/^capture .*web.pcap/);
    expect([status, stderr]).toEqual([
      1,
      "flowplane: /dev/full: ENOSPC: no space left on device\n",
    ]);
  });

  test.runIf(existsSync("/proc/self/mem"))("a capture that cannot be read, at its byte", () => {
    const { status, stderr } = flowplane(["flows", "/proc/self/mem"]);
    expect([status, stderr]).toEqual([
      1,
      "flowplane: /proc/self/mem: read at byte 0: EIO: i/o error\n",
    ]);
    expect(flowplane(["replay", "/proc/self/mem"]).stderr).toMatch(/^flowplane: .proc.self.mem: /);
  });

  test("a path that cannot be looked at, by its name", () => {
    symlinkSync("loop", join(FOLDER, "loop"));
    const line = "flowplane: loop: ELOOP: too many symbolic links encountered\n";
    expect(flowplane(["replay", "loop"])).toEqual({ status: 1, stdout: "", stderr: line });
    expect(flowplane(["replay", "web.pcap", "--config", "loop"]).stderr).toBe(line);
    for (const flag of ["--write", "--map", "--drops"]) {
      const { status, stdout, stderr } = flowplane(["replay", "web.pcap", flag, "loop"]);
      expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: "", stderr: line });
    }
  });

  test("an output that is full, at its byte, and it ends with a whole line", () => {
    const limited = (words: string) => {
      const command = `ulimit -f 200; exec "${process.execPath}" "${MAIN}" replay many.pcap ${words}`;
      return spawnSync("sh", ["-c", command], { cwd: FOLDER }).stderr.toString();
    };
    const body = web.subarray(24);
    inFolder("many.pcap", Buffer.concat([web, ...Array(20).fill(body)]));
    expect(limited("--map full.tsv")).toMatch(/^flowplane: full.tsv: write at byte \d+: EFBIG: /);
    expect(read("full.tsv").length).toBeGreaterThan(60_000);
    expect(read("full.tsv").toString()).toMatch(/\n$/);
  });

  test("with --debug the stack trace follows", () => {
    const { stderr, status } = flowplane(["replay", "none.pcap", "--debug"]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^flowplane: none.pcap: ENOENT.*\nCaptureError: .*\n +at /);
  });
});

describe("flowplane replay", () => {
  const json = (words: string[], input?: Uint8Array): ReplayResult => {
    const { stdout, stderr, status } = flowplane(["replay", ...words, "--json"], input);
    expect([status, stderr]).toEqual([0, ""]);
    return JSON.parse(stdout) as ReplayResult;
  };

  test("prints a report of one screen that ends with 1 Tbit/s", () => {
    const { stdout, stderr, status } = flowplane(["replay", "web.pcap"]);
    expect([status, stderr]).toEqual([0, ""]);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(40);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(lines.at(-6)).toMatch(/^ +5 Gbit\/s /);
    expect(lines.at(-1)).toMatch(/^ +1 Tbit\/s /);
    expect(stdout).toContain("2,229 packets");
  });

  test("prints one JSON document and nothing else, with the schema's keys", () => {
    const result = json(["web.pcap"]);
    expect(result).toMatchObject({
      schema: "flowplane.replay/1",
      capture: { file: "web.pcap", format: "pcap", linkTypes: ["ETHERNET"], packets: 2229 },
      output: { inserted: { pp2: 0, rst: 0, icmp: 0 } },
      capacity: { unitGbps: 5 },
    });
    const groups = ["flows", "verdicts", "time", "engine", "endToEnd", "resources", "machine"];
    for (const group of groups) expect(result).toHaveProperty(group);
    expect(Object.keys(result.flows).sort()).toEqual(
      ["activeMax", "created", "expired", "icmp", "other", "tcp", "udp"].sort(),
    );
    expect(Object.keys(result.time).sort()).toEqual(
      ["engineSeconds", "readSeconds", "wallSeconds", "writeSeconds"].sort(),
    );
    const sum = Object.values(result.verdicts).reduce((total, packets) => total + packets, 0);
    expect(sum).toBe(result.capture.packets);
    expect(result.digest).toMatch(/^[0-9a-f]{16}$/);
  });

  test("is reproducible, from gzip and from standard input as well", () => {
    const { digest, verdicts } = json(["web.pcap"]);
    const packed = gzipSync(web);
    inFolder("web.gz", packed);
    expect(json(["web.gz"])).toMatchObject({ digest, verdicts });
    expect(json(["-"], web)).toMatchObject({ digest, capture: { file: "standard input" } });
    expect(json(["-"], packed)).toMatchObject({ digest, verdicts });
  });

  test("writes capture, map, drops and page, and says so on stderr unless --quiet", () => {
    const files = [
      "--write",
      "o.pcap",
      "--map",
      "o.tsv",
      "--drops",
      "d.pcapng",
      "--html",
      "o.html",
    ];
    const { stderr, stdout, status } = flowplane(["replay", "web.pcap", "--json", ...files]);
    expect(status).toBe(0);
    const result = JSON.parse(stdout) as ReplayResult;
    const dropped = result.capture.packets - result.output.packets;
    expect(stderr.trimEnd().split("\n")).toEqual([
      `wrote o.pcap: ${result.output.packets.toLocaleString("en-US")} packets`,
      "wrote o.tsv: 2,229 lines",
      `wrote d.pcapng: ${dropped} dropped`,
      "wrote o.html: the report with charts",
    ]);
    expect(readCapture(read("o.pcap"))).toHaveLength(result.output.packets);
    expect(readCapture(read("d.pcapng"))).toHaveLength(dropped);
    expect(read("o.tsv").toString().split("\n")).toHaveLength(2229 + 1);
    expect(read("o.html").toString()).toMatch(/^<!doctype html>[\s\S]*<\/html>\n$/);
    expect(flowplane(["replay", "web.pcap", "--quiet", ...files]).stderr).toBe("");
  });

  test("of a capture that breaks off reports, then says where, and leaves valid files", () => {
    const { stdout, stderr, status } = flowplane(["replay", "cut.pcap", "--write", "c.pcap", "-q"]);
    expect(status).toBe(1);
    expect(stdout).toContain("2,228 packets");
    expect(stderr).toMatch(
      /^flowplane: cut.pcap: record 2229 at byte \d+: the file ends after .*\n$/,
    );
    expect(readCapture(read("c.pcap")).length).toBeGreaterThan(1500);
  });

  test("takes passes, a limit and one worker", () => {
    const words = ["web.pcap", "--repeat", "3", "--limit", "100", "--workers", "1"];
    expect(json(words)).toMatchObject({
      run: { scenario: "nat", passes: 3, workers: 1 },
      capture: { packets: 100 },
    });
  });

  test("spreads over as many targets as asked for, and through an endpoint", () => {
    const nlb = json([
      "web.pcap",
      "--scenario",
      "nlb",
      "--targets",
      "2",
      "--write",
      "n.pcap",
      "-q",
    ]);
    expect(nlb.resources.map(({ kind }) => kind)).toEqual(["network-load-balancer"]);
    const targets = new Set<string>();
    for (const { bytes } of readCapture(read("n.pcap"))) {
      if (bytes[12] === 8 && bytes[13] === 0 && bytes[30] === 100) {
        targets.add(`100.${bytes[31]}.${(bytes[32] ?? 0) & 0xf0}.0/20`);
      }
    }
    expect([...targets].sort()).toEqual(["100.64.0.0/20", "100.64.16.0/20"]);
    const link = json(["web.pcap", "--scenario", "privatelink"]);
    expect(link.resources).toHaveLength(2);
    // One header for each TCP flow that began with a SYN, in the report and in the document.
    const { pp2 } = link.output.inserted;
    expect(pp2).toBeGreaterThan(50);
    expect(flowplane(["replay", "web.pcap", "-s", "privatelink"]).stdout).toContain(
      `${pp2} pp2 made`,
    );
  });

  test("takes targets from a configuration", () => {
    const result = json(["web.pcap", "--config", "good.yaml", "--write", "g.pcap", "-q"]);
    expect(result.run.scenario).toBe("nlb");
    const isTarget = (bytes: Uint8Array) => bytes.subarray(30, 34).join(".") === "10.99.0.1";
    const frames = readCapture(read("g.pcap")).filter(({ bytes }) => isTarget(bytes));
    expect(frames.length).toBeGreaterThan(100);
    const tcp = frames.filter(({ bytes }) => bytes[14] === 0x45 && bytes[23] === 6);
    expect(tcp.every(({ bytes }) => bytes[36] === 0x1f && bytes[37] === 0x90)).toBe(true);
  });

  test("runs through the network of a configuration", () => {
    const [capture, config] = ["captures/network-nat.pcap", "networks/nat.yaml"].map((file) =>
      fileURLToPath(new URL(`../fixtures/${file}`, import.meta.url)),
    );
    const result = json([capture as string, "--config", config as string, "-q"]);
    expect(result.run.scenario).toBe("network");
    expect(result.resources.map(({ id }: { id: string }) => id)).toEqual(["gateway"]);
    expect(result.output.inserted).toMatchObject({ rst: 1, icmp: 1 });
    const shared = flowplane([
      "replay",
      capture as string,
      "-c",
      config as string,
      "--workers",
      "2",
    ]);
    expect([shared.status, shared.stderr]).toEqual([
      2,
      "flowplane: --workers: 2 cannot share a network; it has one worker\n",
    ]);
  });
});

describe("progress", () => {
  /** What a replay of two passes says on a terminal. */
  const onTerminal = (name: string) => {
    const command = `'${process.execPath}' '${MAIN}' replay web.pcap --repeat 2`;
    const options = { cwd: FOLDER, env: { ...process.env, TERM: name } };
    return spawnSync("script", ["-qec", command, "/dev/null"], options).stdout.toString();
  };

  test("is drawn over itself, and not on a terminal that cannot", () => {
    const drawn = onTerminal("xterm");
    expect(drawn.startsWith("\r\x1b[2Kpass 1 of 2: ")).toBe(true);
    expect(drawn).toContain("\r\x1b[2Kcapture     web.pcap");
    expect(onTerminal("dumb")).toMatch(/^capture {5}web\.pcap/);
    expect(onTerminal("dumb")).not.toContain("\x1b");
  });

  test("colours are for terminals whose user wants them", () => {
    const terminal = { isTTY: true };
    expect(abilitiesOf({}, { TERM: "xterm" })).toEqual({ canDraw: false, hasColor: false });
    expect(abilitiesOf(terminal, {})).toEqual({ canDraw: true, hasColor: true });
    expect(abilitiesOf(terminal, { NO_COLOR: "" })).toEqual({ canDraw: true, hasColor: true });
    expect(abilitiesOf(terminal, { NO_COLOR: "1" })).toEqual({ canDraw: true, hasColor: false });
    expect(abilitiesOf(terminal, { TERM: "dumb" })).toEqual({ canDraw: false, hasColor: false });
  });
});

describe("flowplane flows", () => {
  test("prints a row a conversation, or one JSON document", () => {
    const { stdout, stderr, status } = flowplane(["flows", "web.pcap"]);
    expect([status, stderr]).toEqual([0, ""]);
    const json = flowplane(["flows", "web.pcap", "--json"]);
    const result = JSON.parse(json.stdout) as FlowsResult;
    expect(result.schema).toBe("flowplane.flows/1");
    expect(stdout.split("\n").filter((line) => /^(tcp|udp|icmp)/.test(line))).toHaveLength(
      result.flows.length,
    );
    const keys = ["protocol", "source", "destination", "vlan", "packets", "bytes", "firstSeen"];
    for (const key of [...keys, "lastSeen", "state"]) expect(result.flows[0]).toHaveProperty(key);
  });

  test("ends at the limit, and says where a capture breaks off", () => {
    const { stdout } = flowplane(["flows", "web.pcap", "--limit", "1", "--json"]);
    expect((JSON.parse(stdout) as FlowsResult).capture.packets).toBe(1);
    const cut = flowplane(["flows", "cut.pcap"]);
    expect(cut.status).toBe(1);
    expect(cut.stdout).toContain("2,228 packets");
    expect(cut.stderr).toMatch(/^flowplane: cut.pcap: record 2229 /);
  });

  test("is no error for a reader that has seen enough", () => {
    const command = `"${process.execPath}" "${MAIN}" flows web.pcap --json | head -c 10`;
    const { stdout, stderr, status } = spawnSync("sh", ["-c", command], { cwd: FOLDER });
    expect([status, stderr.toString()]).toEqual([0, ""]);
    expect(stdout).toHaveLength(10);
  });
});
