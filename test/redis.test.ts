/**
 * Decisions in real Redis servers, started here on loopback: one, and a cluster of three masters and
 * three replicas, one of whose masters is killed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { afterAll, describe, expect, test } from "vitest";
import { raw } from "../fixtures/packets.ts";
import { DECISION_BYTES, sideOf } from "../host/engine/decision.ts";
import { agree, lookUp, renew } from "../host/nodes/agreement.ts";
import { FleetNode } from "../host/nodes/node.ts";
import { openRedisStore } from "../host/nodes/redis-store.ts";
import type { FlowStore } from "../host/nodes/store.ts";
import { CLIENT, nat, SERVER } from "./cases.ts";
import { smallEngine } from "./harness.ts";
import {
  endServers,
  freePort,
  killServer,
  retried,
  startCluster,
  startServer,
} from "./redis-servers.ts";
import { requireTool } from "./setup/tools.ts";

const stores: FlowStore[] = [];

afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  endServers();
});

async function open(options: Parameters<typeof openRedisStore>[0]): Promise<FlowStore> {
  const store = await openRedisStore(options);
  stores.push(store);
  return store;
}

function decisionOf(client: number, service: number): Uint8Array {
  const decision = new Uint8Array(DECISION_BYTES);
  const view = new DataView(decision.buffer);
  view.setUint32(0, client);
  view.setUint32(48, service);
  return decision;
}

describe("one server", () => {
  test("decides as the store in memory does", { timeout: 60_000 }, async ({ skip }) => {
    const port = await startServer(requireTool("redis-server", skip));
    const times = { ttlMs: 400, holdMs: 400 };
    const options = { servers: [`127.0.0.1:${port}`], ...times };
    const [one, other] = [await open(options), await open(options)];
    const [won, lost] = [decisionOf(1, 10), decisionOf(1, 11)];
    expect(await agree(one, [won], 0)).toEqual([{ outcome: "decided", decision: won }]);
    const [second] = await agree(other, [lost], 0);
    expect([second?.outcome, Buffer.from(won).equals(second?.decision ?? lost)]).toEqual([
      "decided",
      true,
    ]);
    expect((await agree(other, [decisionOf(2, 10)], 0))[0]?.outcome).toBe("taken");
    expect(await renew(other, [won, lost, decisionOf(3, 10)], 0)).toEqual([true, false, false]);
    // What the first packet of a new stream tells takes the place of what was known; nothing else does.
    const [anew, known] = [won.slice(), won.slice()];
    for (const [decision, begins] of [[anew, 1] as const, [known, 0] as const]) {
      decision[97] = 2;
      decision[101] = begins;
      await agree(other, [decision], 0);
      const [found] = await one.find("client", [sideOf(won, "client")], 0);
      expect(found && Buffer.from(found).equals(anew)).toBe(true);
      known[104] = 9;
    }
    const tuple = sideOf(won, "service");
    expect(
      (await lookUp(other, "service", [tuple, sideOf(lost, "service")], 0))[1],
    ).toBeUndefined();
    await sleep(900);
    expect(await one.find("client", [sideOf(won, "client")], 0)).toEqual([undefined]);
    expect(await one.find("service", [tuple], 0)).toEqual([undefined]);
  });

  test("two clients race over 2,000 flows: one decision each", { timeout: 60_000 }, async ({
    skip,
  }) => {
    const port = await startServer(requireTool("redis-server", skip));
    const options = { servers: [`127.0.0.1:${port}`], timeoutMs: 10_000 };
    const racers = [await open(options), await open(options)];
    const views = await Promise.all(
      racers.map(async (store, racer) => {
        const seen = new Map<number, number>();
        for (let start = 0; start < 2000; start += 100) {
          const clients = Array.from({ length: 100 }, (_, at) =>
            racer === 0 ? start + at : 1999 - start - at,
          );
          const proposals = clients.map((client) => decisionOf(client, racer * 2000 + client));
          for (const { decision } of await agree(store, proposals, 0)) {
            const view = new DataView(decision.buffer, decision.byteOffset);
            seen.set(view.getUint32(0), view.getUint32(48));
          }
        }
        return [...seen].sort(([a], [b]) => a - b);
      }),
    );
    expect(views[0]?.length).toBe(2000);
    expect(views[1]).toEqual(views[0]);
  });

  test("engines go on with each other's flows; a killed server stops only new ones", {
    timeout: 60_000,
  }, async ({ skip }) => {
    const port = await startServer(requireTool("redis-server", skip));
    const setup = nat({ link: "raw" });
    const sideOf = (port: number) => (port === 0 ? "client" : "service");
    const nodes: FleetNode[] = [];
    for (let node = 0; node < 2; node++) {
      const store = await open({ servers: [`127.0.0.1:${port}`] });
      nodes.push(new FleetNode({ engine: await smallEngine(setup), store, sideOf }));
    }
    const [one, other] = nodes as [FleetNode, FleetNode];
    const segment = (flags: string) => raw().ip(CLIENT, SERVER).tcp(4000, 80, { flags }).bytes();
    one.add(segment("S"), 0);
    expect(one.process()).toEqual([]);
    const [opened] = await one.settle(0);
    expect(opened?.verdict).toBe("forward");
    other.add(segment("A"), 5);
    expect(other.process()).toEqual([]);
    expect((await other.settle(5)).map(({ verdict }) => verdict)).toEqual(["forward"]);
    killServer(port);
    for (const node of nodes) {
      node.add(segment("A"), 10);
      expect(node.process().map(({ verdict }) => verdict)).toEqual(["forward"]);
    }
    one.add(raw().ip(CLIENT, SERVER).tcp(4001, 80, { flags: "S" }).bytes(), 10);
    expect(one.process()).toEqual([]);
    expect(await one.settle(10)).toEqual([]);
    expect(one.counters.undecided).toBe(1);
  });

  test("says what is missing", async () => {
    const nobody = `127.0.0.1:${await freePort()}`;
    const opened = (servers: string[], isCluster = false) =>
      openRedisStore({ servers, isCluster, timeoutMs: 200 });
    await expect(opened([nobody])).rejects.toThrow(
      `nodes: ${nobody}: connect ECONNREFUSED ${nobody}`,
    );
    await expect(opened([nobody], true)).rejects.toThrow(`nodes: ${nobody}: Connection is closed`);
    await expect(opened([])).rejects.toThrow("nodes: servers: there is none");
    for (const [wrong, message] of [
      [undefined, "options: undefined is not an object with options"],
      [{}, "servers: undefined is not a list"],
      [{ server: "a:1" }, "server: no such option; there are servers, isCluster"],
    ]) {
      await expect(openRedisStore(wrong as never)).rejects.toThrow(message as string);
    }
  });

  test("says why a server takes no decisions", { timeout: 60_000 }, async ({ skip }) => {
    const port = await startServer(requireTool("redis-server", skip));
    const admin = new Redis(port, "127.0.0.1");
    const opened = (password?: string) =>
      openRedisStore({
        servers: [`127.0.0.1:${port}`],
        ...(password !== undefined && { password }),
      });
    const whyOf = (attempt: Promise<FlowStore>) =>
      attempt.then(
        (store) => store.close(),
        ({ message }: Error) => message.replace(/^nodes: 127\.0\.0\.1:\d+: /, ""),
      );
    try {
      await admin.config("SET", "maxmemory", "1");
      expect(await whyOf(opened())).toMatch(/^OOM command not allowed/);
      await admin.config("SET", "maxmemory", "0");
      await admin.replicaof("127.0.0.1", port);
      expect(await whyOf(opened())).toMatch(/^READONLY /);
      await admin.replicaof("NO", "ONE");
      expect(await whyOf(opened())).toBeUndefined();
      await admin.config("SET", "requirepass", "secret");
      expect(await whyOf(opened())).toMatch(/^NOAUTH /);
      expect(await whyOf(opened("wrong"))).toMatch(/^WRONGPASS /);
      expect(await whyOf(opened("secret"))).toBeUndefined();
    } finally {
      admin.disconnect();
    }
  });
});

test("a cluster goes on without one of its masters, and has every decision", {
  timeout: 180_000,
}, async ({ skip }) => {
  const cluster = await startCluster(requireTool("redis-server", skip));
  const store = await retried(() => open({ servers: cluster.servers, timeoutMs: 2000 }), 20_000);
  const acknowledged = Array.from({ length: 600 }, (_, n) => decisionOf(n, n));
  for (let start = 0; start < 600; start += 100) {
    const part = acknowledged.slice(start, start + 100);
    const agreements = await retried(() => agree(store, part, 0), 10_000);
    expect(agreements.every(({ outcome }) => outcome === "decided")).toBe(true);
  }
  const master = cluster.aMaster();
  // What a master has not passed on dies with it: redis.io, "Redis Cluster consistency guarantees".
  await sleep(300);
  killServer(master);
  const next = Array.from({ length: 100 }, (_, n) => decisionOf(1000 + n, 1000 + n));
  const after = await retried(() => agree(store, next, 0), 60_000);
  expect(after.every(({ outcome }) => outcome === "decided")).toBe(true);
  const tuples = acknowledged.map((decision) => sideOf(decision, "service"));
  const found = await retried(() => lookUp(store, "service", tuples, 0), 30_000);
  expect(found.map((one) => one && Buffer.from(one).readUInt32BE(0))).toEqual(
    acknowledged.map((_, n) => n),
  );
});
