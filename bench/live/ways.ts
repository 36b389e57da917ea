/**
 * The ways between one client and one server that the live benchmark compares, all of them up at
 * once and through the same two namespaces: the engine over TUN devices; the kernel's nftables NAT
 * and HAProxy in a router's namespace, over veth pairs; slirp4netns out of the router's.
 *
 *   client ── fp0 ── engine ── fp0 ── server          10.0.1.50 leads to 10.0.2.10
 *   client ── veth ── router ── veth ── server        10.73.0.1 by nftables, 10.71.0.1 by HAProxy
 *   client ── tap0 ── slirp4netns in the router       10.72.0.2 itself
 *   client ── copies ── copies ── server              10.77.0.2 itself: a program that only copies
 *   client ── wire ── server                          10.76.0.2 itself: what the two ends can do
 *
 * The engine stands there several times, in labs of their own: as it is by default, without
 * offloads, with two workers, with PROXY headers, with a system call for each packet, with other ways
 * to wait, with a worker that goes before other threads, and as three processes that share their
 * decisions.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addNamespace, ip, removeNamespace } from "../../host/io/namespaces.ts";
import { type Lab, raise } from "../../host/lab/lab.ts";
import { type LabPlan, PLAN_DEFAULTS } from "../../host/lab/plan.ts";
import { openRedisStore } from "../../host/nodes/redis-store.ts";
import { isThere, versionOf } from "../machine.ts";
import { compiled } from "./programs.ts";

const PREFIX = `fpb${process.pid}`;
const ROUTER = `${PREFIX}-r`;
export const IPERF_PORT = "5201";
const HAPROXY_PORT = "6201";

/** One way from a client to a server. */
export interface Way {
  client: string;
  server: string;
  /** What the client calls, and the port that stands for iperf3's. */
  address: string;
  iperfPort: string;
  /** The first hop, as a route says it. */
  hop: string;
  lab?: Lab;
}

export type WayName =
  | "engine"
  | "engine, real-time priority"
  | "engine, calls"
  | "engine, no offloads"
  | "engine, two workers"
  | "engine, two workers, no offloads"
  | "engine, PROXY headers"
  | "engine, busy-poll"
  | "engine, sleeping at once"
  | "three nodes"
  | "three nodes, Redis"
  | "kernel"
  | "haproxy"
  | "slirp4netns"
  | "copies"
  | "wire";

export interface Ways {
  all: Partial<Record<WayName, Way>>;
  /** Why a way is not there, one line each. */
  skipped: string[];
  /** Sets the congestion control of all that sends through a way; without a name, the machine's own. */
  setCongestion(name?: string): Promise<void>;
  end(): Promise<void>;
}

const SERVICE = { sourceAddresses: ["10.0.2.5"], targets: [{ address: "10.0.2.10" }] };
/** Each flow may meet two of the three. */
const NODES = { count: 3, perResource: 2 };
const REDIS_PORT = 20_000 + (process.pid % 20_000);
const REDIS = `127.0.0.1:${REDIS_PORT}`;
const PROXIED = { ...SERVICE, proxyProtocol: { vpce: "vpce-0a1b2c3d4e5f60718" } };

function planOf(suffix: string, change: Partial<LabPlan>): LabPlan {
  const name = `${PREFIX}${suffix}`;
  return {
    ...PLAN_DEFAULTS,
    name,
    hosts: [
      { namespace: `${name}-c`, port: 0, addresses: ["10.0.1.10"], mtu: 1500 },
      { namespace: `${name}-s`, port: 1, addresses: ["10.0.2.10"], mtu: 1500 },
    ],
    ports: [
      { service: 0, peer: 1, vpc: 1 },
      { sides: "service", peer: 0, vpc: 2 },
    ],
    services: [SERVICE],
    ...change,
  };
}

const LABS: readonly [WayName, string, Partial<LabPlan>][] = [
  ["engine", "", {}],
  ["engine, real-time priority", "o", { priority: "realtime" }],
  ["engine, calls", "c", { io: "calls" }],
  ["engine, no offloads", "n", { offload: "none" }],
  ["engine, two workers", "w", { workers: 2 }],
  ["engine, two workers, no offloads", "v", { workers: 2, offload: "none" }],
  ["engine, PROXY headers", "p", { proxyProtocol: true, services: [PROXIED] }],
  ["engine, busy-poll", "b", { busyPollMs: 1 }],
  ["engine, sleeping at once", "x", { spinMs: 0 }],
  ["three nodes", "t", { nodes: NODES }],
  ["three nodes, Redis", "r", { nodes: { ...NODES, redis: { servers: [REDIS] } } }],
];

/** Makes the ways of these names. `end` takes them away; so does a failure. */
export async function makeWays(wanted: ReadonlySet<WayName>): Promise<Ways> {
  const folder = mkdtempSync(join(tmpdir(), "flowplane-ways-"));
  const labs: Lab[] = [];
  const programs: ChildProcess[] = [];
  const ways: Ways = {
    all: {},
    skipped: [],
    async setCongestion(name) {
      // A namespace takes only what the machine allows everybody; a route takes any (ip-route(8)). A
      // socket that changes only once it is connected (iperf3 -C) keeps the timers that BBR paces by.
      const congestion = name ? ["congctl", name] : [];
      const set = (namespace: string, address: string, hop: string) => {
        return ip(["-n", namespace, "route", "replace", address, ...hop.split(" "), ...congestion]);
      };
      for (const { client, address, hop } of Object.values(ways.all)) {
        await set(client, address, hop);
      }
      // What HAProxy and slirp4netns send on.
      await set(ROUTER, "10.72.0.2", "dev veth-s");
    },
    async end() {
      for (const program of programs) program.kill("SIGKILL");
      await Promise.all(labs.map((lab) => lab.stop()));
      await removeNamespace(ROUTER);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    const isLeftOut =
      wanted.has("three nodes, Redis") && !(await startRedis(ways, folder, programs));
    for (const [name, suffix, change] of LABS) {
      // The namespaces of the first are those of the peers.
      if (name !== "engine" && !wanted.has(name)) continue;
      if (name === "three nodes, Redis" && isLeftOut) continue;
      const lab = await raise(planOf(suffix, change));
      labs.push(lab);
      const [client, server] = lab.plan.hosts.map(({ namespace }) => namespace) as [string, string];
      const base = { client, server, iperfPort: IPERF_PORT, lab };
      ways.all[name] = { ...base, address: "10.0.1.50", hop: "dev fp0" };
    }
    const first = ways.all.engine as Way;
    await makeRouter(first);
    ways.all.wire = await addWire(first);
    if (wanted.has("copies")) ways.all.copies = await addCopies(first, programs);
    await addPeers(ways, first, folder, programs);
    return ways;
  } catch (error) {
    await ways.end();
    throw error;
  }
}

/** Starts the server that a fleet keeps its decisions in; false where there is none. */
async function startRedis(ways: Ways, folder: string, programs: ChildProcess[]): Promise<boolean> {
  if (!isThere(versionOf("redis-server", "--version"))) {
    ways.skipped.push("redis-server: not installed");
    return false;
  }
  const flags = ["--port", `${REDIS_PORT}`, "--bind", "127.0.0.1", "--save", "", "--dir", folder];
  programs.push(spawn("redis-server", flags, { stdio: "ignore" }));
  await waitFor(async () => (await openRedisStore({ servers: [REDIS] })).close());
  return true;
}

async function makeRouter({ client, server }: Way): Promise<void> {
  await addNamespace(ROUTER);
  const inRouter = (lines: string[]) => ip(["-n", ROUTER, "-batch", "-"], `${lines.join("\n")}\n`);
  await inRouter([
    `link add veth-c type veth peer name veth0 netns ${client}`,
    `link add veth-s type veth peer name veth0 netns ${server}`,
    "addr add 10.71.0.1/24 dev veth-c",
    "addr add 10.72.0.1/24 dev veth-s",
    "link set veth-c up",
    "link set veth-s up",
  ]);
  for (const [namespace, own, other] of [
    [client, "10.71.0", ["10.73.0.0/24"]],
    [server, "10.72.0", []],
  ] as const) {
    await ip(
      ["-n", namespace, "-batch", "-"],
      [
        `addr add ${own}.2/24 dev veth0`,
        "link set veth0 up",
        ...other.map((range) => `route add ${range} via ${own}.1`),
        "",
      ].join("\n"),
    );
  }
}

/** A veth pair between the two, with nothing on the way: no way that goes through more can be faster for long. */
async function addWire({ client, server }: Way): Promise<Way> {
  await ip(
    ["-n", client, "-batch", "-"],
    [
      `link add wire type veth peer name wire netns ${server}`,
      "addr add 10.76.0.1/24 dev wire",
      "link set wire up",
      "",
    ].join("\n"),
  );
  await ip(
    ["-n", server, "-batch", "-"],
    ["addr add 10.76.0.2/24 dev wire", "link set wire up", ""].join("\n"),
  );
  return { client, server, address: "10.76.0.2", iperfPort: IPERF_PORT, hop: "dev wire" };
}

/** TUN devices as the engine has them, with a program between them that copies and looks at nothing. */
async function addCopies({ client, server }: Way, programs: ChildProcess[]): Promise<Way> {
  const device = "copies";
  const words = [device, client, server];
  const program = spawn(compiled("copies"), words, { stdio: ["ignore", "pipe", "inherit"] });
  programs.push(program);
  await new Promise((resolve, reject) => {
    program.stdout.once("data", resolve);
    program.once("exit", () => reject(new Error("copies: ended at once")));
  });
  for (const [namespace, end] of [
    [client, 1],
    [server, 2],
  ] as const) {
    const lines = [`addr add 10.77.0.${end}/24 dev ${device}`, `link set ${device} up`, ""];
    await ip(["-n", namespace, "-batch", "-"], lines.join("\n"));
  }
  return { client, server, address: "10.77.0.2", iperfPort: IPERF_PORT, hop: `dev ${device}` };
}

const NFT_RULES = `
table ip nat {
  chain pre { type nat hook prerouting priority -100; ip daddr 10.73.0.1 dnat to 10.72.0.2; }
  chain post { type nat hook postrouting priority 100; oifname "veth-s" snat to 10.72.0.1; }
}`;

async function addPeers(
  ways: Ways,
  { client, server }: Way,
  folder: string,
  programs: ChildProcess[],
): Promise<void> {
  const router = (...words: string[]) => run(ROUTER, words);
  const base = { client, server, iperfPort: IPERF_PORT };
  const isMissing = (program: string, flag: string) => {
    if (isThere(versionOf(program, flag))) return false;
    ways.skipped.push(`${program}: not installed`);
    return true;
  };
  if (!isMissing("nft", "--version")) {
    writeFileSync(join(folder, "nat.nft"), NFT_RULES);
    await router("sysctl", "-qw", "net.ipv4.ip_forward=1");
    await router("nft", "-f", join(folder, "nat.nft"));
    ways.all.kernel = { ...base, address: "10.73.0.1", hop: "via 10.71.0.1" };
  }
  if (!isMissing("haproxy", "-v")) {
    const config = `
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
listen iperf
  bind 10.71.0.1:${HAPROXY_PORT}
  server one 10.72.0.2:${IPERF_PORT}
listen echo
  bind 10.71.0.1:5202
  server one 10.72.0.2:5202
`;
    writeFileSync(join(folder, "haproxy.cfg"), config);
    programs.push(start(ROUTER, ["haproxy", "-db", "-f", join(folder, "haproxy.cfg")]));
    const hop = "dev veth0";
    ways.all.haproxy = { ...base, address: "10.71.0.1", iperfPort: HAPROXY_PORT, hop };
  }
  if (!isMissing("slirp4netns", "--version")) {
    const words = ["slirp4netns", "--netns-type=path", "--mtu=1500", "--cidr=10.75.0.0/24"];
    programs.push(start(ROUTER, [...words, `/run/netns/${client}`, "tap0"]));
    await waitFor(() => ip(["-n", client, "link", "show", "tap0"]));
    const lines = ["addr add 10.75.0.100/24 dev tap0", "link set tap0 mtu 1500 up"];
    await ip(
      ["-n", client, "-batch", "-"],
      [...lines, "route add 10.72.0.0/24 via 10.75.0.2", ""].join("\n"),
    );
    ways.all.slirp4netns = { ...base, address: "10.72.0.2", hop: "via 10.75.0.2" };
  }
}

async function waitFor(look: () => Promise<unknown>): Promise<void> {
  for (let tries = 100; ; tries--) {
    try {
      await look();
      return;
    } catch (error) {
      if (tries === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/**
 * Starts a program inside a namespace. It stays in this process's session: every session has a share of
 * the cores to itself (sched(7), autogroup), and no way is to have more of those than another.
 */
export function start(namespace: string, words: readonly string[]): ChildProcess {
  const all = ["netns", "exec", namespace, ...words];
  return spawn("ip", all, { stdio: ["ignore", "pipe", "ignore"] });
}

/** Runs a program inside a namespace; returns what it prints. @throws when it fails */
export function run(namespace: string, words: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn("ip", ["netns", "exec", namespace, ...words], { timeout: 20_000 });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (text) => {
      stdout += text;
    });
    child.stderr.on("data", (text) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (status) => {
      if (status === 0) resolve(stdout);
      else reject(new Error(`${words.join(" ")}: ${stderr || stdout || `status ${status}`}`));
    });
  });
}
