/**
 * The live benchmark: the engine between two namespaces beside the kernel's NAT, HAProxy and
 * slirp4netns between the same two, and a bare wire (live/ways.ts).
 *
 *   node bench/live.ts [PART…] [--passes N]     parts: tcp cubic streams proxy udp latency
 *                                               connections idle; default all
 *
 * Ways take turns in every pass. A ratio is that of the medians; the range stands beside it. On a
 * machine of two cores client, server and engine share them, so absolute figures are of the whole
 * arrangement. All of them are in this session, which goes before others while this runs. Needs root.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import {
  IPERF_PORT,
  makeWays,
  run,
  start,
  type Way,
  type WayName,
  type Ways,
} from "./live/ways.ts";

const TRAFFIC = fileURLToPath(new URL("c/traffic.c", import.meta.url));
const PORT = "5202";
const STREAMS_SECONDS = "2";
const UDP_SECONDS = 1.5;
/** Short, and often in turns: what is looked for is smaller than what changes from second to second. */
const TCP_SECONDS = "1";
const TCP_TURNS = 2;
const PROXY_SECONDS = "0.6";
const PROXY_TURNS = 16;
const ASK_SECONDS = "1.5";
const IDLE_MS = 3000;

/** Figures of one part by way and what was measured, one for each pass. */
type Figures = Map<string, number[]>;

/** Looks up a figure of a way. */
type Look<T> = (way: WayName, figure: string) => T;

interface Goal {
  name: string;
  value: (median: Look<number>, all: Look<number[]>) => number;
  /** None: a ratio to read the others by. */
  goal?: number;
  is: "at least" | "at most";
}

interface Part {
  ways: WayName[];
  /** How often the ways take turns in a pass; default once. */
  turns?: number;
  /** Of all senders; default the machine's own. */
  congestion?: string;
  measure(way: Way, note: (figure: string, value: number) => void): Promise<void>;
  goals: Goal[];
}

function ratio(of: WayName, to: WayName, figure: string, is: Goal["is"], goal?: number): Goal {
  const value: Goal["value"] = (median) => median(of, figure) / median(to, figure);
  return { name: `${figure}: ${of} / ${to}`, value, is, ...(goal !== undefined && { goal }) };
}

/** The ratio of two that ran one after the other, as the median of all turns: noise is in both. */
function paired(of: WayName, to: WayName, figure: string, goal: number): Goal {
  const value: Goal["value"] = (_, all) => {
    const others = all(to, figure);
    return medianOf(all(of, figure).map((one, turn) => one / (others[turn] as number)));
  };
  return { name: `${figure}: ${of} / ${to}`, value, goal, is: "at least" };
}

function noDrops(of: WayName): Goal {
  return { name: `drops: ${of}`, value: (median) => median(of, "drops"), goal: 0, is: "at most" };
}

const folder = mkdtempSync(join(os.tmpdir(), "flowplane-live-"));
const traffic = join(folder, "traffic");

async function cpuOf({ lab }: Way): Promise<{ user: number; system: number }> {
  const all = (await lab?.plane.all("cpu")) ?? [];
  const sum = (pick: (one: (typeof all)[0]) => number) => all.reduce((s, one) => s + pick(one), 0);
  return { user: sum((one) => one.userMicros) / 1e6, system: sum((one) => one.systemMicros) / 1e6 };
}

/** Runs iperf3 through a way; returns Gbit/s received. */
async function iperf(way: Way, seconds: string, words: readonly string[] = []): Promise<number> {
  const server = start(way.server, ["iperf3", "-s", "-1", "-p", IPERF_PORT]);
  try {
    const isListening = async () => {
      const found = await run(way.server, ["ss", "-Hltn", `sport = :${IPERF_PORT}`]);
      return found.trim() !== "";
    };
    while (!(await isListening())) await new Promise((resolve) => setTimeout(resolve, 20));
    const all = ["iperf3", "-c", way.address, "-p", way.iperfPort, "-J", "-t", seconds];
    const text = await run(way.client, [...all, "-O", "0.5", ...words]);
    const { end } = JSON.parse(text) as { end: { sum_received: { bits_per_second: number } } };
    return end.sum_received.bits_per_second / 1e9;
  } finally {
    server.kill("SIGKILL");
  }
}

/** Starts the program's receiving half and waits until it is ready. */
async function withServer<T>(
  way: Way,
  words: string[],
  part: (said: () => string) => Promise<T>,
): Promise<T> {
  const server = start(way.server, [traffic, ...words]);
  try {
    let said = "";
    server.stdout?.on("data", (text) => {
      said += text;
    });
    while (!said.includes("ready")) {
      if (server.exitCode !== null) throw new Error(`traffic ${words.join(" ")}: ended at once`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return await part(() => said.replace("ready", "").trim());
  } finally {
    server.kill("SIGKILL");
  }
}

async function datagrams(way: Way, note: (figure: string, value: number) => void): Promise<void> {
  await withServer(way, ["udp-receive", PORT, "10"], async (said) => {
    const sent = await run(way.client, [traffic, "udp-send", way.address, PORT, `${UDP_SECONDS}`]);
    while (said() === "") await new Promise((resolve) => setTimeout(resolve, 50));
    note("received kpps", Number(said()) / UDP_SECONDS / 1000);
    note("offered kpps", Number(sent) / UDP_SECONDS / 1000);
  });
}

/** Round trips or new connections, one after the other; the program says their quantiles. */
async function times(
  way: Way,
  what: "ask" | "connect",
  note: (figure: string, value: number) => void,
): Promise<void> {
  await withServer(way, ["echo", PORT], async () => {
    const said = await run(way.client, [traffic, what, way.address, PORT, ASK_SECONDS]);
    const [, p50 = 0, p99 = 0] = said.trim().split(" ").map(Number);
    note("p50 us", p50);
    note("p99 us", p99);
  });
}

/** One long stream; whether it begins with a header is what the server says. */
async function proxied(way: Way, note: (figure: string, value: number) => void): Promise<void> {
  await withServer(way, ["stream-receive", PORT], async (said) => {
    await run(way.client, [traffic, "stream-send", way.address, PORT, PROXY_SECONDS]);
    while (said() === "") await new Promise((resolve) => setTimeout(resolve, 10));
    const [rate = 0, hasHeader = 0] = said().split(" ").map(Number);
    note("MiB/s", rate);
    note("began with a header", hasHeader);
  });
}

/** What the engine has read from its devices. */
async function readBy({ lab }: Way): Promise<{ frames: number; bytes: number }> {
  const devices = ((await lab?.plane.all("devices")) ?? []).flat();
  const busiest = devices.sort((a, b) => b.readBytes - a.readBytes)[0];
  return { frames: busiest?.readFrames ?? 0, bytes: busiest?.readBytes ?? 0 };
}

/** One stream of TCP through every way, sent with the given congestion control. */
function tcpPart(congestion?: string): Part {
  return {
    ways: [
      "kernel",
      "engine",
      "engine, real-time priority",
      "engine, calls",
      "engine, no offloads",
      "haproxy",
      "slirp4netns",
      "wire",
    ],
    turns: TCP_TURNS,
    ...(congestion && { congestion }),
    async measure(way, note) {
      const before = { ...(await cpuOf(way)), ...(await readBy(way)) };
      note("Gbit/s", await iperf(way, TCP_SECONDS));
      const after = { ...(await cpuOf(way)), ...(await readBy(way)) };
      if (way.lab === undefined) return;
      note("user / system time", (after.user - before.user) / (after.system - before.system));
      note("KiB a read", (after.bytes - before.bytes) / (after.frames - before.frames) / 1024);
    },
    goals: [
      ratio("engine", "kernel", "Gbit/s", "at least", 0.85),
      ratio("engine", "haproxy", "Gbit/s", "at least", 2),
      ratio("engine", "slirp4netns", "Gbit/s", "at least", 10),
      ratio("engine", "engine, no offloads", "Gbit/s", "at least", 8),
      {
        name: "user time over the system time it causes",
        value: (median) => median("engine", "user / system time"),
        goal: 0.15,
        is: "at most",
      },
      ratio("engine", "engine, calls", "Gbit/s", "at least"),
      ratio("engine", "wire", "Gbit/s", "at least"),
      ratio("kernel", "haproxy", "Gbit/s", "at least"),
      ratio("wire", "haproxy", "Gbit/s", "at least"),
    ],
  };
}

const PARTS: Readonly<Record<string, Part>> = {
  tcp: tcpPart(),
  cubic: tcpPart("cubic"),
  streams: {
    ways: [
      "kernel",
      "engine",
      "engine, real-time priority",
      "engine, two workers",
      "engine, no offloads",
      "engine, two workers, no offloads",
      "haproxy",
    ],
    async measure(way, note) {
      const before = await dropsOf(way);
      note("Gbit/s", await iperf(way, STREAMS_SECONDS, ["-P", "4"]));
      if (way.lab !== undefined) note("drops", (await dropsOf(way)) - before);
    },
    goals: [
      // Without offloads one worker is what limits the streams. With them it fills two cores together
      // with client and server, so a second one can only show how much there is left of the machine.
      ratio("engine, two workers, no offloads", "engine, no offloads", "Gbit/s", "at least", 1.15),
      noDrops("engine, two workers, no offloads"),
      noDrops("engine, two workers"),
    ],
  },
  proxy: {
    ways: ["engine", "engine, PROXY headers"],
    turns: PROXY_TURNS,
    measure: proxied,
    goals: [
      paired("engine, PROXY headers", "engine", "MiB/s", 0.97),
      {
        name: "streams with a header where there should be one",
        value: (m) => m("engine, PROXY headers", "began with a header"),
        goal: 1,
        is: "at least",
      },
    ],
  },
  udp: {
    ways: ["kernel", "engine"],
    measure: datagrams,
    goals: [ratio("engine", "kernel", "received kpps", "at least", 1)],
  },
  latency: {
    ways: ["kernel", "engine", "engine, sleeping at once", "engine, busy-poll", "haproxy"],
    measure: (way, note) => times(way, "ask", note),
    goals: [
      ratio("engine", "kernel", "p50 us", "at most", 1.25),
      ratio("engine", "kernel", "p99 us", "at most", 1.5),
    ],
  },
  // What is new of each is decided: by the engine alone, or by a question to those who share decisions.
  connections: {
    ways: ["kernel", "engine", "three nodes", "three nodes, Redis", "haproxy"],
    measure: (way, note) => times(way, "connect", note),
    goals: (["three nodes", "three nodes, Redis"] as const).flatMap((nodes) =>
      ["p50 us", "p99 us"].map((figure) => ({
        name: `${figure} of a decision: ${nodes} - engine`,
        value: (median: Look<number>) => median(nodes, figure) - median("engine", figure),
        is: "at most" as const,
      })),
    ),
  },
  idle: {
    ways: ["engine"],
    async measure(way, note) {
      const before = await cpuOf(way);
      await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
      const after = await cpuOf(way);
      const spent = after.user + after.system - before.user - before.system;
      note("% of a core", (spent / (IDLE_MS / 1000)) * 100);
    },
    goals: [
      {
        name: "idle, % of a core",
        value: (m) => m("engine", "% of a core"),
        goal: 0.5,
        is: "at most",
      },
    ],
  },
};

async function dropsOf({ lab }: Way): Promise<number> {
  const all = (await lab?.plane.all("counters")) ?? [];
  const drops = all.map(({ verdicts }) =>
    Object.entries(verdicts).reduce(
      (sum, [name, n]) => sum + (name.startsWith("drop.") ? n : 0),
      0,
    ),
  );
  return drops.reduce((sum, one) => sum + one, 0);
}

function medianOf(values: readonly number[] | undefined): number {
  const sorted = [...(values ?? [])].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

async function runPart(ways: Ways, part: Part, passes: number): Promise<Figures> {
  const figures: Figures = new Map();
  await ways.setCongestion(part.congestion);
  for (let turn = passes * (part.turns ?? 1); turn > 0; turn--) {
    for (const name of part.ways) {
      const way = ways.all[name];
      if (way === undefined) continue;
      await part.measure(way, (figure, value) => {
        const key = `${name}\t${figure}`;
        figures.set(key, [...(figures.get(key) ?? []), value]);
      });
    }
  }
  return figures;
}

function printPart(name: string, part: Part, figures: Figures): void {
  const rows = [...figures].map(([key, values]) => {
    const [way = "", figure = ""] = key.split("\t");
    const range = `${significant(Math.min(...values))} to ${significant(Math.max(...values))}`;
    return [way, figure, significant(medianOf(values)), range];
  });
  const columns = ["way", "figure", "median", "range"].map((title, at) => ({
    title,
    align: at < 2 ? ("left" as const) : ("right" as const),
  }));
  const all: Look<number[]> = (way, figure) => figures.get(`${way}\t${figure}`) ?? [];
  const median: Look<number> = (way, figure) => medianOf(all(way, figure));
  const goals = part.goals.map(({ name: goalName, value, goal, is }) => {
    const got = value(median, all);
    const wanted = goal === undefined ? "-" : `${is} ${goal}`;
    if (Number.isNaN(got)) return [goalName, wanted, "-", "not measured"];
    if (goal === undefined) return [goalName, wanted, significant(got), "-"];
    const isMet = is === "at least" ? got >= goal : got <= goal;
    return [goalName, wanted, significant(got), isMet ? "yes" : "no"];
  });
  const goalColumns = ["ratio", "goal", "here", "met"].map((title, at) => ({
    title,
    align: at === 0 ? ("left" as const) : ("right" as const),
  }));
  const lines = [name, ...table(columns, rows), "", ...table(goalColumns, goals), "", ""];
  process.stdout.write(lines.join("\n"));
}

function words(): { parts: string[]; passes: number } {
  const { values, positionals } = parseArgs({
    options: { passes: { type: "string", default: "3" } },
    allowPositionals: true,
  });
  const unknown = positionals.find((name) => !(name in PARTS));
  if (unknown) throw new Error(`${unknown}: is not one of ${Object.keys(PARTS).join(", ")}`);
  return {
    parts: positionals.length > 0 ? positionals : Object.keys(PARTS),
    passes: Number(values.passes),
  };
}

/**
 * Gives this session's programs, clients and servers of every way among them, a larger share of the cores
 * than other sessions have (sched(7), autogroup); returns what puts that back.
 */
function goFirst(): () => void {
  const file = "/proc/self/autogroup";
  try {
    const before = /nice (-?\d+)/.exec(readFileSync(file, "utf8"))?.[1] ?? "0";
    writeFileSync(file, "-20");
    return () => writeFileSync(file, before);
  } catch {
    return () => undefined; // A kernel without autogroups.
  }
}

const { parts, passes } = words();
const built = spawnSync("gcc", ["-O2", "-o", traffic, TRAFFIC], { encoding: "utf8" });
if (built.status !== 0) throw new Error(`gcc: ${built.stderr}`);
const ways = await makeWays(new Set(parts.flatMap((name) => (PARTS[name] as Part).ways)));
const stepBack = goFirst();
try {
  const load = os.loadavg()[0] as number;
  const own = readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
  const cpu = os.cpus()[0]?.model.trim();
  process.stdout.write(
    `${cpu}, ${os.cpus().length} cores, Linux ${os.release()}, ${own}, Node ${process.versions.node}, load ${load}\n\n`,
  );
  for (const name of parts) {
    const part = PARTS[name] as Part;
    printPart(name, part, await runPart(ways, part, passes));
  }
  for (const line of ways.skipped) process.stdout.write(`left out: ${line}\n`);
} finally {
  stepBack();
  await ways.end();
  rmSync(folder, { recursive: true, force: true });
}
