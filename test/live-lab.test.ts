/**
 * Labs as a user has them: the files of `fixtures/labs` brought up under names of their own, real
 * programs in their namespaces, commands on their control sockets.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import type { NetworkConfig } from "../host/config/schema.ts";
import { ConfigError } from "../host/errors.ts";
import { namespaceExists } from "../host/io/namespaces.ts";
import { logFile, readState, STATE_FOLDER } from "../host/lab/state.ts";
import type { LiveEvent } from "../host/live/events.ts";
import { LiveLab, socketPath } from "../host/live/lab.ts";
import { inside, requireLab, uniqueName, until } from "./lab-harness.ts";
import { closers, endWorlds, labText, ROOT, spawnServer, World } from "./live-world.ts";
import { requireTool } from "./setup/tools.ts";

const run = promisify(execFile);

beforeEach(({ skip }) => requireLab(skip));
afterEach(endWorlds);

const BLUE = "vpce-0b10e000000000001";
const GREEN = "vpce-09ee0000000000002";

describe("PrivateLink with tenants of equal addresses", { timeout: 240_000 }, () => {
  test("names, acceptance, health and events, from one end to the other", async ({ skip }) => {
    for (const tool of ["curl", "dig"] as const) requireTool(tool, skip);
    const w = await World.up("privatelink");
    // Until the first check has passed the group fails open: nobody is sent away.
    await Promise.all([w.serve("api-1"), w.serve("api-2")]);
    await w.healthy(2);

    // Through libc's resolver, the VPC's DNS server, the endpoint and the load balancer.
    expect(await w.curl("blue", "http://api.example.com/")).toMatch(
      /^api-[12] saw 10\.0\.[12]\.5, for 10\.0\.1\.10, through vpce-0b10e000000000001$/,
    );
    expect(await w.dig("green", "api.example.com")).toBe("");
    expect(await w.curl("green", "http://10.0.1.50/", 1)).toContain("timed out");

    await w.say("accept", { endpoint: GREEN });
    // The same client address in another VPC: the endpoint tells the tenants apart.
    expect(await w.curl("green", "http://api.example.com/")).toMatch(
      /, for 10\.0\.1\.10, through vpce-09ee0000000000002$/,
    );
    expect(await w.dig("green", "api.example.com")).toBe("10.0.1.50");
    const accepted = w.events.find(({ kind }) => kind === "endpoint.Accept");
    expect(accepted).toMatchObject({
      endpoint: GREEN,
      connection: {
        schema: "flowplane.connection/1",
        event: "Accept",
        serviceId: "vpce-svc-0123456789abcdef0",
        owner: "333333333333",
        vpc: "green",
      },
    });
    const connection = accepted?.connection as { dnsNames: string[] } | undefined;
    expect(await w.dig("blue", connection?.dnsNames[0] ?? "")).toBe("10.0.1.50");

    // The provider takes it back: connections end, names go, the other tenant stays.
    await w.say("reject", { endpoint: GREEN });
    expect(await w.curl("green", "http://10.0.1.50/", 1)).toContain("timed out");
    expect(await w.dig("green", "api.example.com")).toBe("");
    expect(await w.curl("blue", "http://10.0.1.50/")).toMatch(/^api-[12] saw/);
    await expect(w.say("accept", { endpoint: "vpce-0" })).rejects.toThrow("there is no vpce-0");
  });

  test("a zone that is unhealthy leaves the DNS, and comes back", async ({ skip }) => {
    requireTool("dig", skip);
    const zonal: [string, string] = [
      "load_balancing.cross_zone.enabled: true",
      "load_balancing.cross_zone.enabled: false",
    ];
    const w = await World.up("privatelink", [zonal]);
    const [, second] = await Promise.all([w.serve("api-1"), w.serve("api-2")]);
    await w.healthy(2);
    const { endpoints } = await w.live.snapshot();
    const names = endpoints.find(({ id }) => id === BLUE)?.dnsNames ?? [];
    const regional = async () => (await w.dig("blue", names[0] ?? "")).split("\n").toSorted();
    expect(await regional()).toEqual(["10.0.1.50", "10.0.2.50"]);
    second.kill("SIGKILL");
    await w.healthy(1);
    expect(await regional()).toEqual(["10.0.1.50"]);
    expect(await w.dig("blue", names[2] ?? "")).toBe("10.0.2.50");
    const why = w.events.findLast(({ kind, to }) => kind === "target.state" && to === "unhealthy");
    expect(why).toMatchObject({
      address: "10.0.2.10",
      reason: "Target.FailedHealthChecks",
      description: "Health checks failed: ECONNREFUSED",
    });
    await w.serve("api-2");
    await w.healthy(2);
    expect(await regional()).toEqual(["10.0.1.50", "10.0.2.50"]);
  });

  test("an endpoint connects, and its customer gets a name; webhooks hear of it", async ({
    skip,
  }) => {
    requireTool("dig", skip);
    const heard: LiveEvent[] = [];
    const hook = createServer((request, response) => {
      request.setEncoding("utf8").on("data", (text: string) => heard.push(JSON.parse(text)));
      request.on("end", () => response.end());
    });
    await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
    closers.push(() => hook.close());
    const url = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/`;
    const w = await World.up("privatelink", [["  http: 0\n", `  webhooks: ["${url}"]\n`]]);
    const words = ["fixtures/examples/wildcard.ts", socketPath(w.name), "supercoolservice.com"];
    const example = spawn(process.execPath, words, {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "inherit"],
    });
    closers.push(() => example.kill("SIGTERM"));
    // A customer that is not in the file, in a VPC that is.
    const endpoint = "vpce-0c0ffee0000000003";
    const definition = {
      service: "vpce-svc-0123456789abcdef0",
      vpc: "green",
      subnets: { "green-a": { address: "10.0.1.60" } },
    };
    await expect(w.say("create", { endpoint, ...definition, vpc: "red" })).rejects.toThrow(
      `endpoints.${endpoint}.vpc: "red" is not the name of a VPC`,
    );
    await new Promise((resolve) => example.stdout?.once("data", resolve));
    await w.say("create", { endpoint, ...definition });
    await expect
      .poll(() => w.dig("blue", "green.supercoolservice.com", "CNAME"))
      .toMatch(/^vpce-0c0ffee0000000003-[a-z0-9]{8}\.vpce-svc-/);
    await w.say("accept", { endpoint });
    expect(await w.dig("blue", "green.supercoolservice.com")).toContain("10.0.1.60");
    await w.say("delete", { endpoint });
    await expect.poll(() => w.dig("blue", "green.supercoolservice.com", "CNAME")).toBe("");
    const lifecycle = ["Connect", "Accept", "Delete"].map((event) => `endpoint.${event}`);
    await expect
      .poll(() => heard.map(({ kind }) => kind))
      .toEqual(expect.arrayContaining(lifecycle));
    expect(heard.map(({ number }) => number)).toEqual(
      heard.map(({ number }) => number).toSorted((a, b) => a - b),
    );
  });

  test("a private name needs its proof, and who has it keeps it", async ({ skip }) => {
    requireTool("dig", skip);
    const w = await World.up("privatelink");
    const service = "vpce-svc-0123456789abcdef0";
    await expect(w.say("verify", { service: "none" })).rejects.toThrow("there is no none");
    const lost = (await w.say("verify", { service })) as { state: string; record: string };
    expect(lost.state).toBe("pendingVerification");
    expect(await w.dig("blue", "api.example.com")).toContain("10.0.1.50");
    await w.say("accept", { endpoint: GREEN });
    expect(await w.dig("green", "api.example.com")).toBe("");
    const { record, value } = (await w.say("verify", { service })) as Record<string, string>;
    const [name = "", zone = ""] = [record?.split(".")[0], "proof.example.com"];
    expect(record).toBe(`${name}.api.example.com`);
    await expect(w.say("dns-set", { zone, name: "a b", texts: [value] })).rejects.toThrow(
      "is not a name",
    );
    await w.say("dns-set", { zone: "api.example.com", name, texts: [value] });
    expect(await w.say("verify", { service })).toMatchObject({ state: "verified" });
    expect(await w.dig("green", "api.example.com")).toBe("10.0.1.50");
  });
});

describe("a load balancer", { timeout: 240_000 }, () => {
  test("a security group blocks, DNS prefers the client's zone, drains lose nothing", async ({
    skip,
  }) => {
    for (const tool of ["curl", "dig"] as const) requireTool(tool, skip);
    const w = await World.up("nlb");
    await Promise.all(["web-1", "web-2", "web-3"].map((host) => w.serve(host)));
    await w.healthy(3);
    expect(await w.curl("stranger", "http://10.0.1.5/", 1)).toContain("timed out");
    const before = await w.live.snapshot();
    expect(before.verdicts["drop.security-group"]).toBeGreaterThan(0);
    const [name = ""] = before.resources[0]?.dnsNames ?? [];
    expect(name).toMatch(/^web-[0-9a-f]{16}\.elb\.us-east-1\.amazonaws\.com$/);
    expect(await w.dig("client", name)).toBe("10.0.1.5");
    expect(await w.dig("stranger", name)).toBe("10.0.2.5");

    // Requests go on all the time while a target is taken out and put back.
    const answers: string[] = [];
    let isLoading = true;
    const load = (async () => {
      while (isLoading) answers.push(await w.curl("client", "http://10.0.1.5/"));
    })();
    const slow = Array.from({ length: 9 }, () => w.curl("client", "http://10.0.1.5/slow", 20));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await w.say("deregister", { target_group: "web", target: "10.0.1.11" });
    const at = answers.length;
    // Flows that the target had end well.
    for (const answer of await Promise.all(slow))
      expect(answer).toMatch(/^web-\d saw 10\.0\.1\.20$/);
    await until("more answers", () => answers.length > at + 12, 60_000);
    const since = answers.slice(at + 1);
    expect(since.filter((answer) => answer.startsWith("web-2"))).toEqual([]);
    await w.say("register", { target_group: "web", target: "10.0.1.11" });
    await w.healthy(3);
    await expect
      .poll(() => answers.slice(-40).some((answer) => answer.startsWith("web-2")), {
        timeout: 15_000,
      })
      .toBe(true);
    isLoading = false;
    await load;
    expect(answers.filter((answer) => !/^web-\d saw 10\.0\.1\.20$/.test(answer))).toEqual([]);
  });

  test("a target that is killed under load is left out; with all gone it fails open", async ({
    skip,
  }) => {
    requireTool("curl", skip);
    const w = await World.up("nlb");
    const servers = await Promise.all(["web-1", "web-2", "web-3"].map((host) => w.serve(host)));
    await w.healthy(3);
    servers[0]?.kill("SIGKILL");
    await w.healthy(2);
    const answers = await Promise.all(
      Array.from({ length: 12 }, () => w.curl("client", "http://10.0.1.5/")),
    );
    expect(answers.filter((answer) => !/^web-[23] saw/.test(answer))).toEqual([]);
    for (const server of servers) server.kill("SIGKILL");
    await w.healthy(0);
    // Fail open: flows go to the targets as if they were well, and they refuse for themselves.
    expect(await w.curl("client", "http://10.0.1.5/", 3)).toMatch(/after \d+ ms: Couldn't connect/);
  });
});

describe("a VPC without IPv4", { timeout: 60_000 }, () => {
  test("has its resolver at the second address of its IPv6 range", async ({ skip }) => {
    requireTool("dig", skip);
    const name = uniqueName();
    const text = `
vpcs:
  six:
    cidrs: [2001:db8:5::/56]
lab:
  name: ${name}
  prefix: ${name}-
  hosts: { client: { vpc: six, addresses: ["2001:db8:5:1::10"] } }
  dns: { zones: { example.com: [{ name: www, addresses: ["2001:db8:5:1::99"] }] } }
`;
    const live = await LiveLab.start(parseConfig(text, "six.yaml") as NetworkConfig);
    closers.push(() => live.stop());
    expect(live.plan.serviceHosts.map(({ resolver }) => resolver)).toEqual(["2001:db8:5::2"]);
    const ask = async (...words: string[]) => (await inside(`${name}-client`, words)).stdout.trim();
    const dig = ["dig", "+short", "+time=2", "+tries=1", "www.example.com", "AAAA"];
    expect(await ask(...dig)).toBe("2001:db8:5:1::99");
    expect(await ask(...dig, "+tcp")).toBe("2001:db8:5:1::99");
    expect(await ask("dig", "+time=2", "+tries=1", "www.example.com", "AAAA")).toContain(
      "SERVER: 2001:db8:5::2#53",
    );
    expect(await ask("getent", "ahostsv6", "www.example.com")).toContain("2001:db8:5:1::99");
  });
});

describe("health checks", { timeout: 120_000 }, () => {
  test("leave from the node of the target's zone, through the outbound rules", async ({ skip }) => {
    const python = requireTool("python3", skip);
    const rule = (address: string) => `{ protocol: tcp, ports: 8080, to: ${address}/32 }`;
    const w = await World.up("nlb", [
      [
        "from: 10.0.1.0/24 }] }",
        `from: 10.0.1.0/24 }], egress: [${rule("10.0.1.10")}, ${rule("10.0.2.10")}] }`,
      ],
      ["path: /, interval_seconds: 5,", "path: /, interval_seconds: 5, timeout_seconds: 2,"],
    ]);
    // Its log begins every line with the address that asked.
    const logs = ["web-1", "web-2", "web-3"].map((host) => {
      const words = ["netns", "exec", w.space(host), python, "-m", "http.server", "8080"];
      const server = spawn("ip", words, { stdio: ["ignore", "ignore", "pipe"], cwd: ROOT });
      closers.push(() => server.kill("SIGKILL"));
      const lines: string[] = [];
      server.stderr?.on("data", (text) => lines.push(...`${text}`.trim().split("\n")));
      return lines;
    });
    await w.healthy(2);
    const told = async () => {
      const { targets } = await w.live.snapshot();
      return targets.map(({ address, state, reason }) => [address, state, reason]);
    };
    await expect.poll(told, { timeout: 60_000, interval: 500 }).toEqual([
      ["10.0.1.10", "healthy", undefined],
      ["10.0.1.11", "unhealthy", "Target.Timeout"],
      ["10.0.2.10", "healthy", undefined],
    ]);
    const askers = logs.map((lines) => [...new Set(lines.map((line) => line.split(" ")[0]))]);
    expect(askers).toEqual([["10.0.1.5"], [], ["10.0.2.5"]]);
  });
});

describe("two workers", { timeout: 120_000 }, () => {
  test("of a lab file have the same tables, whichever a connection belongs to", async ({
    skip,
  }) => {
    requireTool("curl", skip);
    const w = await World.up("nlb", [["  hosts:\n", "  workers: 2\n  hosts:\n"]]);
    expect(w.live.plan.workers).toBe(2);
    await Promise.all(["web-1", "web-2", "web-3"].map((host) => w.serve(host)));
    await w.healthy(3);
    // The low bits of the ports choose the worker: 32 in a row are 16 for each.
    const all = async (first: number) => {
      const last = first + 31;
      const loop = `for port in $(seq ${first} ${last}); do
        curl -sS -m 5 --local-port $port http://10.0.1.5/; done`;
      const { stdout, stderr } = await inside(w.space("client"), ["sh", "-c", loop], 60_000);
      expect(stderr).toBe("");
      return stdout.trim().split("\n");
    };
    const before = await all(40_000);
    expect(before).toHaveLength(32);
    expect(new Set(before)).toEqual(
      new Set(["web-1", "web-2", "web-3"].map((host) => `${host} saw 10.0.1.20`)),
    );
    await w.say("deregister", { target_group: "web", target: "10.0.1.11" });
    const after = await all(41_000);
    expect(after.filter((answer) => !/^web-[13] saw 10\.0\.1\.20$/.test(answer))).toEqual([]);
    const { verdicts } = await w.live.snapshot();
    expect(
      Object.entries(verdicts).filter(([verdict, n]) => verdict.startsWith("drop.") && n > 0),
    ).toEqual([]);
  });
});

describe("a room for network tables", { timeout: 120_000 }, () => {
  const roomOf = (targets: number) =>
    `  room: { services: 50, targets: ${targets}, ring_entries: 10000, rules: 100, entries: 100 }\n`;
  const withRoom = (targets: number): [string, string][] => [
    ["  hosts:\n", `${roomOf(targets)}  hosts:\n`],
  ];

  test("is refused when the configuration does not fit, and leaves nothing", async () => {
    const name = uniqueName();
    const config = parseConfig(labText("nlb", name, withRoom(3)), "nlb") as NetworkConfig;
    await expect(LiveLab.start(config, {})).rejects.toThrow(
      new ConfigError("lab.room.targets: the tables hold 6, more than 3"),
    );
    expect(namespaceExists(`${name}-client`)).toBe(false);
  });

  test("holds what comes up to its limit; beyond it packets go on by the tables before", async ({
    skip,
  }) => {
    requireTool("curl", skip);
    // Three targets of a node each, in two zones.
    const w = await World.up("nlb", withRoom(6));
    await Promise.all(["web-1", "web-2", "web-3", "stranger"].map((host) => w.serve(host)));
    await w.healthy(3);
    await w.say("register", { target_group: "web", target: "10.0.2.20" });
    await until("it is said", () => w.events.some(({ kind }) => kind === "lab.failed"), 30_000);
    expect(w.events.find(({ kind }) => kind === "lab.failed")).toMatchObject({
      reason: "room.targets: the tables hold 8, more than 6",
    });
    expect(await w.curl("client", "http://10.0.1.5/")).toMatch(/^web-\d saw 10\.0\.1\.20$/);
    await w.say("deregister", { target_group: "web", target: "10.0.2.20" });
    await w.say("deregister", { target_group: "web", target: "10.0.1.10" });
    expect(await w.curl("client", "http://10.0.1.5/")).toMatch(/^web-[23] saw 10\.0\.1\.20$/);
  });
});

describe("the command", { timeout: 240_000 }, () => {
  const flowplane = async (...words: string[]) => {
    const all = [`${ROOT}host/cli/main.ts`, "lab", ...words];
    try {
      const { stdout, stderr } = await run(process.execPath, all, { cwd: ROOT, timeout: 100_000 });
      return { stdout, stderr, status: 0 };
    } catch (error) {
      const { stdout, stderr, code } = error as { stdout: string; stderr: string; code: number };
      return { stdout, stderr, status: code };
    }
  };

  test("brings up, shows, changes and takes down, and nothing is left", async ({ skip }) => {
    requireTool("curl", skip);
    const name = uniqueName();
    const folder = mkdtempSync("/tmp/flowplane-cli-");
    closers.push(() => run("rm", ["-r", folder]));
    const file = `${folder}/lab.yaml`;
    writeFileSync(file, labText("nat", name));
    closers.push(() => flowplane("down", name));
    const up = await flowplane("up", file);
    expect(up.stderr).toBe("");
    expect(up.stdout).toContain(`lab ${name} is up\n`);
    expect(up.stdout).toContain(`${name}-inside`);
    expect(await flowplane("up", file)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^flowplane: lab \S+: is up already \(process \d+\)/),
    });
    const server = spawnServer(`${name}-outside`, "out");
    await new Promise((resolve) => server.stdout?.once("data", resolve));
    const curl = () =>
      inside(`${name}-inside`, ["curl", "-sS", "-m10", "http://198.51.100.10:8080/"]);
    expect((await curl()).stdout).toBe("out saw 203.0.113.1\n");
    expect((await flowplane("associate", name, "nat-1", "203.0.113.2")).status).toBe(0);
    expect(await flowplane("associate", name, "nat-1", "203.0.113.300")).toMatchObject({
      status: 2,
      stderr: 'flowplane: associate.address: "203.0.113.300" is not an IPv4 address\n',
    });
    expect(await flowplane("disassociate", name, "nat-1", "203.0.113.1")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("is the primary address"),
    });
    const status = await flowplane("status", file, "--json");
    expect(JSON.parse(status.stdout)).toMatchObject({
      schema: "flowplane.live/1",
      resources: [{ id: "nat-1", kind: "nat-gateway", flowsCreated: 1 }],
    });
    expect((await flowplane("top", name, "--seconds", "2")).stdout).toMatch(/nat-1 +nat-gateway/);
    expect((await flowplane("events", name)).stdout).toContain('"kind":"nat-address.state"');
    expect((await flowplane("down", name)).status).toBe(0);
    expect(await flowplane("status", name)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(`^flowplane: lab ${name}: is not up; [^\n]+\n$`),
    });
    expect(namespaceExists(`${name}-inside`)).toBe(false);
    for (const left of [`/run/flowplane/${name}.sock`, `/etc/netns/${name}-inside`]) {
      expect(existsSync(left), left).toBe(false);
    }
  });

  test("a lab that was killed is cleared away by the next one; two stand side by side", async () => {
    const folder = mkdtempSync("/tmp/flowplane-cli-");
    closers.push(() => run("rm", ["-r", folder]));
    const [one, other] = [uniqueName(), uniqueName()];
    const fileOf = (name: string) => `${folder}/${name}.yaml`;
    for (const name of [one, other]) {
      writeFileSync(fileOf(name), labText("nat", name));
      closers.push(() => flowplane("down", name));
      expect(await flowplane("up", fileOf(name))).toMatchObject({ status: 0, stderr: "" });
    }
    const mistyped = await flowplane("down", uniqueName());
    expect(mistyped.status).toBe(1);
    expect(mistyped.stderr).toContain(": is not up; these are: ");
    for (const name of [one, other]) expect(mistyped.stderr).toContain(name);
    const { pid = 0 } = readState(one) ?? {};
    process.kill(pid, "SIGKILL");
    await until("the process ends", async () => (await flowplane("status", one)).status === 1);
    const ended = `flowplane: lab ${one}: its process ${pid} has ended; lab down removes what it has left`;
    for (const words of [["status"], ["events"], ["top"], ["verify", "x"]]) {
      const [command = "", ...rest] = words;
      expect((await flowplane(command, one, ...rest)).stderr).toContain(ended);
    }
    expect(namespaceExists(`${one}-inside`)).toBe(true);
    expect(await flowplane("up", fileOf(one))).toMatchObject({ status: 0, stderr: "" });
    expect((await flowplane("status", other)).status).toBe(0);
    // Another lab that wants a name of this one is refused, and leaves nothing.
    const third = uniqueName();
    const clash = labText("nat", third).replace(`prefix: ${third}-`, `prefix: ${one}-`);
    writeFileSync(fileOf(third), clash);
    expect(await flowplane("up", fileOf(third))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`namespace ${one}-inside exists`),
    });
    expect(readState(third)).toBeUndefined();
    expect(existsSync(logFile(STATE_FOLDER, third))).toBe(false);
    process.kill(readState(one)?.pid ?? 0, "SIGTERM");
    await until("SIGTERM removes it", () => readState(one) === undefined);
    await until("and its log", () => !existsSync(logFile(STATE_FOLDER, one)));
    expect(namespaceExists(`${one}-inside`)).toBe(false);
    expect(namespaceExists(`${other}-inside`)).toBe(true);
  });
});
