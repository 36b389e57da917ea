/**
 * Live fleets: the nodes of a lab as processes of their own behind the kernel, killed under load, with
 * decisions in the lab's process and in a Redis cluster.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Fleet } from "../host/lab/fleet.ts";
import { takeDown } from "../host/lab/lab.ts";
import { type LabPlan, PLAN_DEFAULTS } from "../host/lab/plan.ts";
import { startTicksOf } from "../host/lab/state.ts";
import {
  inside,
  listening,
  oneTarget,
  requireLab,
  type Scene,
  scene,
  uniqueName,
  until,
} from "./lab-harness.ts";
import { closers, endWorlds, World } from "./live-world.ts";
import { endServers, killServer, startCluster } from "./redis-servers.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));
afterAll(endServers);

const LISTENER = "10.0.1.50";

const ECHO_SERVER = `
import selectors, socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 7))
listener.listen(4096)
listener.setblocking(False)
poll = selectors.DefaultSelector()
poll.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in poll.select():
        if key.fileobj is listener:
            connection, _ = listener.accept()
            connection.setblocking(False)
            poll.register(connection, selectors.EVENT_READ)
        else:
            try: data = key.fileobj.recv(65536)
            except ConnectionError: data = b""
            if data: key.fileobj.sendall(data)
            else:
                poll.unregister(key.fileobj)
                key.fileobj.close()
`;

/**
 * Opens so many connections and sends a line on each, round after round, that must come back; prints
 * after each round how many have come back in time and how long the last one took, in ms.
 */
const ECHO_CLIENT = `
import select, socket, sys, time
count, rounds, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
connections = {}
for n in range(count):
    s = socket.create_connection((sys.argv[1], 7), seconds)
    s.setblocking(False)
    connections[s.fileno()] = s
print("open", flush=True)
for number in range(rounds):
    start = time.monotonic()
    poll, expected = select.poll(), {}
    for fd, s in list(connections.items()):
        line = b"%d %d;" % (number, fd) * 8
        try: s.sendall(line)
        except OSError: del connections[fd]; continue
        expected[fd] = line
        poll.register(fd, select.POLLIN)
    while expected and time.monotonic() - start < seconds:
        for fd, event in poll.poll(100):
            try: data = connections[fd].recv(4096)
            except OSError: data = b""
            if not data or not expected[fd].startswith(data):
                poll.unregister(fd); del connections[fd], expected[fd]; continue
            expected[fd] = expected[fd][len(data):]
            if not expected[fd]:
                poll.unregister(fd); del expected[fd]
    for fd in expected: del connections[fd]
    took = time.monotonic() - start
    print(len(connections), round(took * 1000), flush=True)
    time.sleep(max(0, 0.5 - took))
`;

/** Connects again and again until it is ended; prints how long each connection took, in ms, or -1. */
const NEW_CLIENT = `
import socket, sys, time
while True:
    start = time.monotonic()
    try:
        socket.create_connection((sys.argv[1], 7), float(sys.argv[2])).close()
        print(round((time.monotonic() - start) * 1000), flush=True)
    except OSError: print(-1, flush=True)
    time.sleep(0.05)
`;

const CONNECTIONS = 1000;
const ROUNDS = 16;
/** How long an echo may take: a few of TCP's own retransmissions. */
const ECHO_SECONDS = 20;

/** What a program has printed so far, line by line. */
function linesOf(child: ChildProcess): string[] {
  const lines: string[] = [];
  if (child.stdout) createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
  child.stderr?.on("data", (text: Buffer) => lines.push(`! ${text}`));
  return lines;
}

/** A load balancer with an echo server, carried by nodes. */
async function fleetWith(s: Scene, nodes: NonNullable<LabPlan["nodes"]>, python: string) {
  const name = uniqueName();
  const lab = await s.lab({ ...oneTarget(name), nodes });
  s.start(`${name}-s`, [python, "-c", ECHO_SERVER]);
  s.start(`${name}-s`, ["iperf3", "-s"]);
  await listening(`${name}-s`, 7);
  await listening(`${name}-s`, 5201);
  return { name, fleet: lab.plane as Fleet };
}

/** Live flows of each node that is up, by its number. */
async function flowsOf(fleet: Fleet): Promise<number[]> {
  const counters = await fleet.all("counters");
  const up = fleet.nodes.filter(({ isUp }) => isUp);
  const active: number[] = [];
  for (const [at, { flows }] of counters.entries()) active[up[at]?.node ?? 0] = flows.active;
  return active;
}

async function adopted(fleet: Fleet): Promise<number> {
  const counters = await fleet.all("decisions");
  return counters.reduce((sum, one) => sum + (one?.adopted ?? 0), 0);
}

describe("three nodes", { timeout: 240_000 }, () => {
  test("lose one under load by kill -9, and no connection", async ({ skip }) => {
    const python = requireTool("python3", skip);
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const { name, fleet } = await fleetWith(s, { count: 3, perResource: 3 }, python);
      const client = `${name}-c`;
      const words = [LISTENER, `${CONNECTIONS}`, `${ROUNDS}`, `${ECHO_SECONDS}`];
      const echoes = linesOf(s.start(client, [python, "-c", ECHO_CLIENT, ...words]));
      await until("all connections are open", () => echoes[0] === "open", 60_000);
      const stream = inside(client, ["iperf3", "-c", LISTENER, "-t", "8", "-J"], 60_000);
      const fresh = linesOf(s.start(client, [python, "-c", NEW_CLIENT, LISTENER, "10"]));
      await until("three rounds are over", () => echoes.length > 3, 60_000);
      const before = await flowsOf(fleet);
      expect(Math.min(...before)).toBeGreaterThan(CONNECTIONS / 10);
      const victim = fleet.nodes[1] as (typeof fleet.nodes)[number];
      const adoptedBefore = await adopted(fleet);
      process.kill(victim.pid, "SIGKILL");
      await until("the node is known to be down", () => fleet.nodes[1]?.isUp === false, 5000);
      await until("the node is up again", () => fleet.nodes[1]?.isUp === true, 60_000);
      await until("all rounds are over", () => echoes.length > ROUNDS, 200_000);
      const left = echoes.slice(1).map((line) => line.split(" ")[0]);
      expect(left).toEqual(Array.from({ length: ROUNDS }, () => `${CONNECTIONS}`));
      expect((await adopted(fleet)) - adoptedBefore).toBeGreaterThan(CONNECTIONS / 10);
      const { error, end } = JSON.parse((await stream).stdout);
      expect(error).toBeUndefined();
      expect(end.sum_received.seconds).toBeGreaterThan(7);
      expect(fresh.length).toBeGreaterThan(10);
      expect(fresh.filter((line) => !/^\d+$/.test(line))).toEqual([]);
    });
  });
});

describe("a node", { timeout: 120_000 }, () => {
  test("keeps decisions alive for longer than they live", async ({ skip }) => {
    const python = requireTool("python3", skip);
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const nodes = { count: 2, perResource: 2, ttlMs: 6000 };
      const { name, fleet } = await fleetWith(s, nodes, python);
      const words = [LISTENER, "20", "40", `${ECHO_SECONDS}`];
      const echoes = linesOf(s.start(`${name}-c`, [python, "-c", ECHO_CLIENT, ...words]));
      // Eighteen seconds: three lives of a decision, of which no node has asked a second time.
      await until("36 rounds are over", () => echoes.length > 36, 90_000);
      expect(await adopted(fleet)).toBe(0);
      process.kill(fleet.nodes[0]?.pid ?? 0, "SIGKILL");
      await until("all rounds are over", () => echoes.length > 40, 60_000);
      expect(echoes.slice(1).map((line) => line.split(" ")[0])).toEqual(Array(40).fill("20"));
      expect(await adopted(fleet)).toBeGreaterThan(0);
    });
  });

  test("that sleeps is ended before another one takes its place", async ({ skip }) => {
    const python = requireTool("python3", skip);
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const { fleet } = await fleetWith(s, { count: 2, perResource: 2 }, python);
      const before = fleet.nodes[0]?.pid ?? 0;
      process.kill(before, "SIGSTOP");
      await until("it counts as down", () => fleet.nodes[0]?.isUp === false, 30_000);
      expect(startTicksOf(before)).toBeUndefined();
      await until("it is back", () => fleet.nodes[0]?.isUp === true, 30_000);
      expect(fleet.nodes[0]?.pid).not.toBe(before);
    });
  });

  test("ends with the lab's process, however that ends", async () => {
    const name = uniqueName();
    const plan = { ...PLAN_DEFAULTS, name, ...oneTarget(name) };
    const source = `
      const { raise } = await import(process.argv[1]);
      const plan = { ...JSON.parse(process.argv[2]), nodes: { count: 2, perResource: 2 } };
      const { plane } = await raise(plan);
      console.log(JSON.stringify(plane.nodes.map(({ pid }) => pid)));`;
    const file = new URL("../host/lab/lab.ts", import.meta.url).href;
    const words = ["--input-type=module", "-e", source, file, JSON.stringify(plan)];
    const lab = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const lines = linesOf(lab);
      await until("the lab is up", () => lines.length > 0, 30_000);
      const pids = JSON.parse(lines[0] ?? "[]") as number[];
      expect(pids).toHaveLength(2);
      lab.kill("SIGKILL");
      await until("its nodes are gone", () => pids.every((pid) => !startTicksOf(pid)));
    } finally {
      lab.kill("SIGKILL");
      await takeDown(name);
    }
  });
});

/** Rounds before a master dies, before a node dies after that, and after that. */
const MASTER_ROUNDS = 3;
const NODE_ROUNDS = 14;
const LAST_ROUNDS = 8;
/**
 * A server of the cluster counts as dead after a second, and an election takes another one. Within
 * this, a SYN that is sent again opens its connection.
 */
const FAILOVER_SECONDS = 20;

describe("three nodes and a Redis cluster", { timeout: 300_000 }, () => {
  test("lose a master and then a node, and no connection", async ({ skip }) => {
    const python = requireTool("python3", skip);
    requireTool("iperf3", skip);
    const cluster = await startCluster(requireTool("redis-server", skip));
    await scene(async (s) => {
      const redis = { servers: cluster.servers, timeoutMs: 2000 };
      const { name, fleet } = await fleetWith(s, { count: 3, perResource: 3, redis }, python);
      const client = `${name}-c`;
      const words = [LISTENER, `${CONNECTIONS}`, "1000", `${ECHO_SECONDS}`];
      const echoes = linesOf(s.start(client, [python, "-c", ECHO_CLIENT, ...words]));
      await until("all connections are open", () => echoes[0] === "open", 90_000);
      const stream = inside(client, ["iperf3", "-c", LISTENER, "-t", "10", "-J"], 60_000);
      await until("rounds are over", () => echoes.length > MASTER_ROUNDS, 60_000);
      const fresh = linesOf(
        s.start(client, [python, "-c", NEW_CLIENT, LISTENER, `${FAILOVER_SECONDS}`]),
      );
      await until("new connections come about", () => fresh.length > 5, 30_000);
      killServer(cluster.aMaster());
      await until("rounds are over", () => echoes.length > NODE_ROUNDS, 90_000);
      const count = fresh.length;
      await until("new connections come about", () => fresh.length > count + 20, 60_000);
      process.kill(fleet.nodes[1]?.pid ?? 0, "SIGKILL");
      const before = echoes.length;
      await until("more rounds are over", () => echoes.length > before + LAST_ROUNDS, 200_000);
      const left = echoes.slice(1).map((line) => line.split(" ")[0]);
      expect(new Set(left)).toEqual(new Set([`${CONNECTIONS}`]));
      expect(await adopted(fleet)).toBeGreaterThan(CONNECTIONS / 10);
      const { error, end } = JSON.parse((await stream).stdout);
      expect(error).toBeUndefined();
      expect(end.sum_received.seconds).toBeGreaterThan(9);
      expect(fresh.filter((line) => !/^\d+$/.test(line))).toEqual([]);
    });
  });
});

/** Sends half of a request, waits for a line on its standard input, sends the rest; prints the answer. */
const HALVING_CLIENT = `
import socket, sys
s = socket.create_connection((sys.argv[1], 80), 20)
s.sendall(b"GET / HTTP/1.1\\r\\n")
print("half", flush=True)
sys.stdin.readline()
s.sendall(b"Host: api\\r\\nConnection: close\\r\\n\\r\\n")
while True:
    data = s.recv(4096)
    if not data: break
    print(data.decode(), flush=True)
`;

describe("an endpoint on one node and its load balancer on another", { timeout: 240_000 }, () => {
  afterEach(endWorlds);

  test("keep PROXY headers right when nodes die in the middle of a request", async ({ skip }) => {
    const python = requireTool("python3", skip);
    requireTool("curl", skip);
    const w = await World.up("privatelink", [
      ["  http: 0\n", "  nodes: { count: 3, per_resource: 1 }\n"],
    ]);
    await Promise.all([w.serve("api-1"), w.serve("api-2")]);
    await w.healthy(2);
    const seen = /^api-[12] saw 10\.0\.[12]\.5, for 10\.0\.1\.10, through vpce-0b10e000000000001$/m;
    for (let round = 0; round < 5; round++) {
      expect(await w.curl("blue", "http://10.0.1.50/")).toMatch(seen);
    }
    const { nodes = [] } = await w.live.snapshot();
    expect(nodes.map(({ isUp }) => isUp)).toEqual([true, true, true]);
    const words = ["netns", "exec", w.space("blue"), python, "-c", HALVING_CLIENT, "10.0.1.50"];
    const client = spawn("ip", words, { stdio: ["pipe", "pipe", "inherit"] });
    closers.push(() => client.kill("SIGKILL"));
    const lines = linesOf(client);
    await until("half of the request is there", () => lines.includes("half"));
    // A resource whose only node is down waits for it: so all of them lose what they know.
    for (const { pid } of nodes) process.kill(pid, "SIGKILL");
    const isBack = ({ isUp, restarts }: { isUp: boolean; restarts: number }) =>
      isUp && restarts > 0;
    await until(
      "all nodes are back",
      async () => (await w.live.snapshot()).nodes?.every(isBack) === true,
      60_000,
    );
    client.stdin?.write("\n");
    await until("the answer is there", () => lines.some((line) => seen.test(line)), 60_000);
    const downs = w.events.filter(({ kind, isUp }) => kind === "node.state" && isUp === false);
    expect(downs).toHaveLength(3);
  });
});
