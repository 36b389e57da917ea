/** The parts of the live benchmark: the ways of each, what is measured, and the goals that its figures have. */
import { cpuOf, datagrams, dropsOf, iperf, type Note, proxied, readBy, times } from "./traffic.ts";
import type { Way, WayName } from "./ways.ts";

const STREAMS_SECONDS = "2";
/** Short, and often in turns: what is looked for is smaller than what changes from second to second. */
const TCP_SECONDS = "1";
const TCP_TURNS = 2;
const PROXY_TURNS = 16;
const IDLE_MS = 3000;

/** Looks up a figure of a way. */
export type Look<T> = (way: WayName, figure: string) => T;

interface Goal {
  name: string;
  value: (median: Look<number>, all: Look<number[]>) => number;
  /** None: a ratio to read the others by. */
  goal?: number;
  is: "at least" | "at most";
}

export interface Part {
  ways: WayName[];
  /** How often the ways take turns in a pass; default once. */
  turns?: number;
  /** Of all senders; default the machine's own. */
  congestion?: string;
  measure(way: Way, note: Note): Promise<void>;
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

/** The middle one; not a number where there is none. */
export function medianOf(values: readonly number[] | undefined): number {
  const sorted = [...(values ?? [])].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
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
      "copies",
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
      ratio("engine, real-time priority", "engine", "Gbit/s", "at least"),
      ratio("engine", "engine, calls", "Gbit/s", "at least"),
      ratio("engine", "wire", "Gbit/s", "at least"),
      ratio("kernel", "haproxy", "Gbit/s", "at least"),
      // What bounds the goals above: nothing between two TUN devices can do less than copy, and nothing at
      // all be much faster than the wire.
      ratio("engine", "copies", "Gbit/s", "at least"),
      ratio("copies", "kernel", "Gbit/s", "at least"),
      ratio("copies", "haproxy", "Gbit/s", "at least"),
      ratio("copies", "engine, no offloads", "Gbit/s", "at least"),
      ratio("wire", "haproxy", "Gbit/s", "at least"),
    ],
  };
}

export const PARTS: Readonly<Record<string, Part>> = {
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
    ways: ["kernel", "engine", "engine, real-time priority"],
    measure: datagrams,
    goals: [ratio("engine", "kernel", "received kpps", "at least", 1)],
  },
  latency: {
    ways: [
      "kernel",
      "engine",
      "engine, real-time priority",
      "engine, sleeping at once",
      "engine, busy-poll",
      "haproxy",
    ],
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
