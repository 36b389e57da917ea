/** Events, webhooks and the control socket, each by itself. */
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { ConfigError } from "../host/errors.ts";
import { ControlServer, call, follow } from "../host/live/control.ts";
import { EventLog, type LiveEvent } from "../host/live/events.ts";
import { Webhook } from "../host/live/webhook.ts";

const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-live-"));
const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closers.toReversed()) await close();
  rmSync(FOLDER, { recursive: true });
});

describe("events", () => {
  test("are numbered and dated, and the latest thousand are kept", () => {
    const log = new EventLog(() => Date.UTC(2026, 0, 2, 3, 4, 5, 6));
    expect(log.add("endpoint.Connect", { endpoint: "vpce-1" })).toEqual({
      schema: "flowplane.event/1",
      number: 1,
      time: "2026-01-02T03:04:05.006Z",
      kind: "endpoint.Connect",
      endpoint: "vpce-1",
    });
    for (let count = 0; count < 1500; count++) log.add("lab.tick");
    expect(log.latest().map(({ number }) => number)).toEqual(
      Array.from({ length: 1000 }, (_, at) => at + 502),
    );
    expect(log.latest(0)).toEqual([]);
  });

  test("a listener that fails is dropped, the others stay", () => {
    const log = new EventLog();
    const seen: number[] = [];
    log.follow(() => {
      throw new Error("gone");
    });
    const end = log.follow(({ number }) => seen.push(number));
    log.add("a");
    log.add("b");
    end();
    log.add("c");
    expect(seen).toEqual([1, 2]);
  });
});

describe("webhooks", () => {
  /** A server that answers with the given statuses, then 200. */
  async function sink(...statuses: number[]) {
    const received: LiveEvent[] = [];
    const server = createHttpServer((request, response) => {
      let text = "";
      request.on("data", (part) => {
        text += part;
      });
      request.on("end", () => {
        const status = statuses.shift() ?? 200;
        if (status === 200) received.push(JSON.parse(text) as LiveEvent);
        response.writeHead(status).end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    closers.push(() => server.close());
    return { received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook` };
  }

  test("deliver in order, again after a failure, with doubled waits", async () => {
    const { received, url } = await sink(500, 503, 200, 302);
    const waits: number[] = [];
    const webhook = new Webhook({ url, wait: async (ms) => void waits.push(ms) });
    const log = new EventLog();
    log.follow((event) => webhook.send(event));
    for (const kind of ["Connect", "Accept", "Delete"]) log.add(`endpoint.${kind}`);
    await expect.poll(() => received.length).toBe(3);
    expect(received.map(({ kind }) => kind)).toEqual(
      ["Connect", "Accept", "Delete"].map((kind) => `endpoint.${kind}`),
    );
    expect(waits).toEqual([1000, 2000, 1000]);
    expect(webhook.counters).toEqual({ delivered: 3, retried: 3, failed: 0, dropped: 0 });
    await webhook.close();
  });

  test("give up after five tries, and go on with the next", async () => {
    const { received, url } = await sink(500, 500, 500, 500, 500);
    const webhook = new Webhook({ url, wait: async () => undefined });
    const log = new EventLog();
    webhook.send(log.add("a"));
    webhook.send(log.add("b"));
    await expect.poll(() => received.map(({ kind }) => kind)).toEqual(["b"]);
    expect(webhook.counters).toEqual({ delivered: 1, retried: 4, failed: 1, dropped: 0 });
    await webhook.close();
  });

  test("drop what a thousand waiting events leave no room for", async () => {
    const webhook = new Webhook({ url: "http://x.invalid", fetch: () => new Promise(() => {}) });
    const event = new EventLog().add("a");
    for (let count = 0; count < 1100; count++) webhook.send(event);
    // One is on its way.
    expect(webhook.counters.dropped).toBe(99);
  });

  test("closing gives up what waits", async () => {
    const webhook = new Webhook({ url: "http://127.0.0.1:1/" });
    const log = new EventLog();
    for (const kind of ["a", "b", "c"]) webhook.send(log.add(kind));
    await webhook.close();
    expect(webhook.counters).toMatchObject({ delivered: 0, failed: 1, dropped: 2 });
  });
});

describe("the control socket", () => {
  const path = join(FOLDER, "lab.sock");
  const events = new EventLog();
  const order: string[] = [];
  const handlers = {
    add: (given: unknown) => {
      events.add("target.registered", given as object as Record<string, unknown>);
      return { added: given };
    },
    slow: async (given: unknown) => {
      order.push(`begin ${given}`);
      await new Promise((resolve) => setTimeout(resolve, 30));
      order.push(`end ${given}`);
    },
    wrong: () => {
      throw new ConfigError('targets.0: "x" is not an IP address');
    },
  };

  test("runs commands and gives their results or their errors", async () => {
    const server = await ControlServer.listen({ path, handlers, events });
    closers.push(() => server.close());
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await call(path, "add", { target: "10.0.2.11" })).toEqual({
      added: { target: "10.0.2.11" },
    });
    const wrong = call(path, "wrong");
    await expect(wrong).rejects.toThrow('targets.0: "x" is not an IP address');
    await expect(wrong).rejects.toMatchObject({ exitCode: 2 });
    await expect(call(path, "toString")).rejects.toThrow('"toString" is not one of add, slow');
    await expect(call(join(FOLDER, "none.sock"), "add")).rejects.toThrow("no lab listens here");
  });

  test("one at a time, whoever sends them", async () => {
    await Promise.all([call(path, "slow", 1), call(path, "slow", 2), call(path, "slow", 3)]);
    const pairs = [order.slice(0, 2), order.slice(2, 4), order.slice(4)];
    for (const [begin, end] of pairs) expect(end).toBe(begin?.replace("begin", "end"));
  });

  test("a follower gets every event from then on", async () => {
    const seen: LiveEvent[] = [];
    const done = (async () => {
      for await (const event of follow(path)) if (seen.push(event) === 3) break;
    })();
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (const at of [1, 2, 3]) await call(path, "add", { at });
    await done;
    expect(seen.map(({ kind, at }) => [kind, at])).toEqual(
      [1, 2, 3].map((at) => ["target.registered", at]),
    );
  });

  test("garbage is answered, and a line without end is not kept", async () => {
    const lines = await new Promise<string>((resolve, reject) => {
      const socket = connect(path);
      let text = "";
      socket.setEncoding("utf8").on("data", (part) => {
        text += part;
      });
      socket.on("close", () => resolve(text));
      socket.on("error", reject);
      socket.write('nonsense\n[]\n{"id":7}\n{"id":8,"command":"add"}\n');
      setTimeout(() => socket.write("x".repeat(100_000)), 50);
    });
    const answers = lines
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(answers.map(({ id }) => id)).toEqual([null, null, null, 8, null]);
    expect(answers[0].error).toContain("not JSON");
    expect(answers[4].error).toContain("65536");
    const long = JSON.stringify({ id: 1, command: "add", arguments: "x".repeat(70_000) });
    const socket = connect(path).setEncoding("utf8");
    socket.write(`${long}\n`);
    let text = "";
    for await (const part of socket) text += part;
    expect(text).toContain("a line is longer than 65536 bytes");
  });

  test("one that sends without end and never reads keeps nobody waiting", async () => {
    const flood = connect(path).on("error", () => undefined);
    flood.pause().write('{"id":1,"command":"slow","arguments":"flood"}\n'.repeat(20_000));
    await expect.poll(() => order.filter((one) => one === "end flood").length).toBeGreaterThan(1);
    const before = order.length;
    await call(path, "slow", "other");
    // At most the one that was under way, and the one that had its turn first.
    expect(order.slice(before).filter((one) => one === "begin flood").length).toBeLessThan(3);
    flood.destroy();
    await call(path, "slow", "again");
    const after = order.length;
    await call(path, "slow", "last");
    expect(order.slice(after)).toEqual(["begin last", "end last"]);
  });

  test("what a client says before it closes its side is answered", async () => {
    const socket = connect(path).setEncoding("utf8");
    socket.end('{"id":1,"command":"slow"}\n{"id":2,"command":"nothing"}\n{"id":3,"comm');
    let text = "";
    for await (const part of socket) text += part;
    const answers = text.trim().split("\n");
    expect(answers.map((line) => JSON.parse(line).id)).toEqual([1, 2]);
  });

  test("a second lab is refused, a stale socket replaced, a closed one gone", async () => {
    const again = ControlServer.listen({ path, handlers, events });
    await expect(again).rejects.toThrow("another process listens");
    const stale = join(FOLDER, "stale.sock");
    const { execFileSync } = await import("node:child_process");
    const script = `require("net").createServer().listen("${stale}", () => process.kill(process.pid, 9))`;
    try {
      execFileSync(process.execPath, ["-e", script], { stdio: "ignore" });
    } catch {
      // It killed itself, as it should.
    }
    expect(existsSync(stale)).toBe(true);
    const server = await ControlServer.listen({ path: stale, handlers, events });
    await call(stale, "slow", 9);
    await server.close();
    expect(existsSync(stale)).toBe(false);
  });
});
