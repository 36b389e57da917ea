/** A VPC's agent in a network namespace of its own: DNS and health checks from inside. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Agent } from "../host/agent/agent.ts";
import { forwarder } from "../host/dns/forward.ts";
import { DnsServer } from "../host/dns/server.ts";
import { DnsView, type DnsZone } from "../host/dns/view.ts";
import type { CheckPlan } from "../host/health/checker.ts";
import type { CheckResult } from "../host/health/probe.ts";
import { namespaceFile } from "../host/io/namespaces.ts";
import { requireTool } from "./setup/tools.ts";

const NAME = `fp-agent-${process.pid}`;
const namespaceOf = (path: string) => readlinkSync(path);
const HOME = namespaceOf("/proc/self/ns/net");
const isRoot = process.getuid?.() === 0;
const run = promisify(execFile);
const ip = (...words: string[]) => execFileSync("ip", words, { stdio: "pipe", timeout: 10_000 });
const closers: (() => unknown)[] = [];
const results: { key: string; result: CheckResult }[] = [];
let agent: Agent;

const zonesOf = (address: string): DnsZone[] => [
  {
    apex: "elb.us-east-1.amazonaws.com",
    names: [
      {
        name: "lb.elb.us-east-1.amazonaws.com",
        policy: "availability_zone_affinity",
        addresses: [
          { address, zone: "use1-az1" },
          { address: "10.0.2.5", zone: "use1-az2" },
        ],
      },
    ],
  },
];

/** A server in the namespace that answers with who connected. */
const SERVER = `require("node:http").createServer(({ socket }, response) => {
  response.end(socket.remoteAddress + " " + socket.remotePort);
}).listen(8080, "10.0.1.10", () => console.log("up"));`;

beforeAll(async () => {
  if (!isRoot) return;
  ip("netns", "add", NAME);
  closers.push(() => ip("netns", "delete", NAME));
  ip("-n", NAME, "link", "set", "lo", "up");
  for (const address of ["10.0.0.2", "10.0.1.5", "10.0.1.10", "10.0.2.20"]) {
    ip("-n", NAME, "addr", "add", `${address}/32`, "dev", "lo");
  }
  const words = ["netns", "exec", NAME, process.execPath, "-e", SERVER];
  const server = spawn("ip", words, { stdio: ["ignore", "pipe", "inherit"] });
  closers.push(() => server.kill("SIGTERM"));
  await new Promise((resolve) => server.stdout.once("data", resolve));
  const elsewhere = [{ name: "elsewhere.test", addresses: [{ address: "192.0.2.9" }] }];
  const upstream = await DnsServer.listen({
    address: "127.0.0.1",
    port: 0,
    view: new DnsView([{ apex: "test", names: elsewhere }]),
  });
  closers.push(() => upstream.close());
  agent = await Agent.start({
    namespace: namespaceFile(NAME),
    dnsAddresses: ["10.0.0.2"],
    zones: zonesOf("10.0.1.5"),
    places: [
      { cidr: "10.0.1.0/24", zone: "use1-az1" },
      { cidr: "10.0.2.0/24", zone: "use1-az2" },
    ],
    plans: [],
    onResult: (key, result) => results.push({ key, result }),
    forward: forwarder([{ address: "127.0.0.1", port: upstream.port }]),
  });
  closers.push(() => agent.stop());
}, 60_000);

afterAll(async () => {
  for (const close of closers.toReversed()) await close();
});

const dig = async (path: string, client: string, name: string) => {
  const words = ["netns", "exec", NAME, path, "-b", client, "@10.0.0.2", "+short", "+time=3", name];
  return (await run("ip", words, { timeout: 15_000 })).stdout.trim();
};

test("answers inside its namespace, each client with its own zone's address", async ({ skip }) => {
  if (!isRoot) return skip("left out: needs root for a namespace");
  const path = requireTool("dig", skip);
  const name = "lb.elb.us-east-1.amazonaws.com";
  expect(await dig(path, "10.0.1.10", name)).toBe("10.0.1.5");
  expect(await dig(path, "10.0.2.20", name)).toBe("10.0.2.5");
  agent.setZones(zonesOf("10.0.1.6"));
  expect(await dig(path, "10.0.1.10", name)).toBe("10.0.1.6");
  expect(() => agent.setZones([{ apex: "a b", names: [] }])).toThrow("is not a name");
  expect((await agent.counters())?.responses).toBeGreaterThanOrEqual(3);
});

test("asks the host's resolver for other names", async ({ skip }) => {
  if (!isRoot) return skip("left out: needs root for a namespace");
  expect(await dig(requireTool("dig", skip), "10.0.1.10", "elsewhere.test")).toBe("192.0.2.9");
});

test("checks targets from the node's address and a port that no flow has", async ({ skip }) => {
  if (!isRoot) return skip("left out: needs root for a namespace");
  const plan = (key: string, port: number, path: string): CheckPlan => ({
    key,
    intervalMs: 100,
    check: {
      protocol: "HTTP",
      address: "10.0.1.10",
      port,
      path,
      timeoutMs: 2000,
      source: { address: "10.0.1.5", port: 0 },
    },
  });
  // Its server answers 200 with the peer's name to everything.
  agent.setPlans([plan("up", 8080, "/"), plan("down", 8081, "/")]);
  await expect.poll(() => results.filter(({ key }) => key === "up").length).toBeGreaterThan(8);
  const of = (key: string) => results.filter((one) => one.key === key).map(({ result }) => result);
  expect(of("up").every(({ isHealthy }) => isHealthy)).toBe(true);
  expect(of("down")[0]).toMatchObject({ reason: "Target.FailedHealthChecks" });
  const { stdout } = await run("ip", ["netns", "exec", NAME, "ss", "-Htan", "dport", "=", ":8080"]);
  const sources = [...stdout.matchAll(/10\.0\.1\.5:(\d+)/g)].map(([, port]) => Number(port));
  expect(sources.length).toBeGreaterThan(0);
  expect(sources.filter((port) => port < 512 || port > 1023)).toEqual([]);
  agent.setPlans([]);
});

test("its namespace is its own thread's: all others stay where they were", ({ skip }) => {
  if (!isRoot) return skip("left out: needs root for a namespace");
  const threads = readdirSync("/proc/self/task").map((id) => `/proc/self/task/${id}/ns/net`);
  const elsewhere = threads.map(namespaceOf).filter((one) => one !== HOME);
  expect(elsewhere).toHaveLength(1);
});

test("what cannot start says why", async ({ skip }) => {
  if (!isRoot) return skip("left out: needs root for a namespace");
  const common = { zones: [], places: [], plans: [], onResult: () => undefined };
  const missing = Agent.start({ ...common, namespace: "/run/netns/none", dnsAddresses: [] });
  await expect(missing).rejects.toThrow("/run/netns/none");
  const namespace = namespaceFile(NAME);
  const taken = Agent.start({ ...common, namespace, dnsAddresses: ["10.0.0.2"] });
  await expect(taken).rejects.toThrow("EADDRINUSE");
});
