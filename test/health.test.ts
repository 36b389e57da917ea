/** Health checks: one check against real servers, the rhythm of many against a made-up clock. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Checker, type CheckPlan } from "../host/health/checker.ts";
import { type Check, type CheckResult, matches, probe } from "../host/health/probe.ts";
import { requireTool } from "./setup/tools.ts";

/** What AWS sends before a health check: PROXY v2, LOCAL, 100 bytes, CRC32C bce5951f. */
const LOCAL_HEADER = Buffer.concat([
  Buffer.from("0d0a0d0a000d0a515549540a20110054030004bce5951f04004a", "hex"),
  Buffer.alloc(74),
]);

const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-health-"));
const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closers) await close();
  rmSync(FOLDER, { recursive: true });
});

async function listening(server: Server | HttpServer): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

function checkOf(port: number, more: Partial<Check> = {}): Check {
  return { protocol: "HTTP", address: "127.0.0.1", port, timeoutMs: 3000, ...more };
}

const reasonOf = (result: CheckResult) => (result.isHealthy ? "healthy" : result.reason);

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe("one check", () => {
  let port = 0;
  const seen: { url?: string | undefined; headers: NodeJS.Dict<string | string[]> }[] = [];
  beforeAll(async () => {
    const server = createHttpServer(({ url, headers }, response) => {
      seen.push({ url, headers });
      response.statusCode = Number(url?.slice(1)) || 200;
      if (url !== "/never") response.end("x".repeat(100_000));
    });
    port = await listening(server);
  });

  test("an open port is healthy, a closed one is not", async () => {
    expect(reasonOf(await probe(checkOf(port, { protocol: "TCP" })))).toBe("healthy");
    const blocked = { protocol: "TCP", isBlocked: true, timeoutMs: 50 } as const;
    expect(await probe(checkOf(port, blocked))).toMatchObject({
      isHealthy: false,
      reason: "Target.Timeout",
      description: "Request timed out",
    });
    const closed = await probe(checkOf(await freePort(), { protocol: "TCP" }));
    expect(closed).toMatchObject({
      reason: "Target.FailedHealthChecks",
      description: "Health checks failed: ECONNREFUSED",
    });
  });

  test("HTTP asks for the path with the node's Host and looks at the status", async () => {
    const host = "10.0.2.5:80";
    expect(reasonOf(await probe(checkOf(port, { path: "/204", host })))).toBe("healthy");
    expect(seen.at(-1)).toMatchObject({
      url: "/204",
      headers: { host, "user-agent": "ELB-HealthChecker/2.0", connection: "close" },
    });
    expect(await probe(checkOf(port, { path: "/503" }))).toMatchObject({
      reason: "Target.ResponseCodeMismatch",
      description: "Health checks failed with these codes: [503]",
    });
    const matcher = "200,500-503";
    expect(reasonOf(await probe(checkOf(port, { path: "/503", matcher })))).toBe("healthy");
    expect(reasonOf(await probe(checkOf(port, { path: "/204", matcher })))).not.toBe("healthy");
  });

  test("a target that says nothing times out", async () => {
    const silent = await listening(createServer(() => undefined));
    for (const check of [checkOf(port, { path: "/never" }), checkOf(silent)]) {
      const result = await probe({ ...check, timeoutMs: 150 });
      expect(result).toMatchObject({ reason: "Target.Timeout", description: "Request timed out" });
    }
  });

  test("what is no HTTP, too long or cut off is a failure, not an exception", async () => {
    const answers = ["not http\r\n\r\n", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(70_000)}\r\n\r\n`, ""];
    for (const answer of answers) {
      const server = createServer((socket) => {
        socket.on("error", () => undefined);
        socket.on("data", () => socket.end(answer));
      });
      const result = await probe(checkOf(await listening(server)));
      expect(reasonOf(result), answer.slice(0, 20)).toBe("Target.FailedHealthChecks");
    }
  });

  test("HTTPS takes any certificate, and plain HTTP for none", async ({ skip }) => {
    const openssl = requireTool("openssl", skip);
    const words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=elsewhere.test".split(" ");
    const [keyFile, certFile] = [join(FOLDER, "key.pem"), join(FOLDER, "cert.pem")];
    execFileSync(openssl, [...words, "-keyout", keyFile, "-out", certFile], { stdio: "ignore" });
    const options = { key: readFileSync(keyFile), cert: readFileSync(certFile) };
    const secure = await listening(createHttpsServer(options, (_, response) => response.end()));
    expect(reasonOf(await probe(checkOf(secure, { protocol: "HTTPS" })))).toBe("healthy");
    const plain = await probe(checkOf(port, { protocol: "HTTPS" }));
    expect(reasonOf(plain)).toBe("Target.FailedHealthChecks");
  });

  test("matchers are codes and ranges", () => {
    expect([199, 200, 399, 400].map((code) => matches("200-399", code))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(matches("200, 301", 301)).toBe(true);
  });
});

describe("real servers that want a PROXY header", () => {
  async function started(child: ChildProcess, port: number): Promise<void> {
    closers.push(() => child.kill("SIGTERM"));
    await expect
      .poll(async () => reasonOf(await probe(checkOf(port, { protocol: "TCP" }))), {
        timeout: 15_000,
      })
      .toBe("healthy");
  }

  async function expectProxyOnly(port: number): Promise<void> {
    expect(reasonOf(await probe(checkOf(port, { preamble: LOCAL_HEADER })))).toBe("healthy");
    expect(reasonOf(await probe(checkOf(port)))).not.toBe("healthy");
  }

  test("HAProxy with accept-proxy takes the LOCAL header, and nothing without", async ({
    skip,
  }) => {
    const path = requireTool("haproxy", skip);
    const port = await freePort();
    const file = join(FOLDER, "haproxy.cfg");
    writeFileSync(
      file,
      `defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s
frontend f\n bind 127.0.0.1:${port} accept-proxy\n http-request return status 200\n`,
    );
    await started(spawn(path, ["-db", "-q", "-f", file], { stdio: "ignore" }), port);
    await expectProxyOnly(port);
  });

  test("nginx with proxy_protocol does too", async ({ skip }) => {
    const path = requireTool("nginx", skip);
    const port = await freePort();
    const file = join(FOLDER, "nginx.conf");
    writeFileSync(
      file,
      `pid ${FOLDER}/nginx.pid;\nerror_log /dev/null;\nevents {}\nhttp { access_log off;
 client_body_temp_path ${FOLDER}; proxy_temp_path ${FOLDER}; fastcgi_temp_path ${FOLDER};
 uwsgi_temp_path ${FOLDER}; scgi_temp_path ${FOLDER};
 server { listen 127.0.0.1:${port} proxy_protocol; location / { return 200 "ok"; } } }\n`,
    );
    const words = ["-c", file, "-e", "/dev/null", "-g", "daemon off;"];
    await started(spawn(path, words, { stdio: "ignore" }), port);
    await expectProxyOnly(port);
  });
});

describe("many checks", () => {
  /** A clock that moves when it is told to, with everything that is due in order. */
  class Clock {
    ms = 0;
    #next = 0;
    readonly #due = new Map<number, { ms: number; run: () => void }>();
    now = () => this.ms;
    set = (run: () => void, ms: number) => {
      this.#due.set(++this.#next, { ms: this.ms + ms, run });
      return this.#next;
    };
    clear = (timer: unknown) => this.#due.delete(timer as number);
    async to(ms: number): Promise<void> {
      for (;;) {
        await new Promise((resolve) => setImmediate(resolve));
        const first = [...this.#due].toSorted(([, a], [, b]) => a.ms - b.ms)[0];
        if (!first || first[1].ms > ms) break;
        this.#due.delete(first[0]);
        this.ms = first[1].ms;
        first[1].run();
      }
      this.ms = ms;
    }
  }

  function planOf(key: string, intervalMs: number): CheckPlan {
    return { key, intervalMs, check: checkOf(1, { address: key }) };
  }

  function running(durationMs: Record<string, number> = {}) {
    const clock = new Clock();
    const begun: [key: string, ms: number][] = [];
    const results: string[] = [];
    const checker = new Checker({
      timers: clock,
      random: () => 0.5,
      onResult: (key) => results.push(key),
      probe: ({ address }) => {
        begun.push([address, clock.ms]);
        const result: CheckResult = { isHealthy: true, milliseconds: 0 };
        const ms = durationMs[address] ?? 0;
        if (ms === 0) return Promise.resolve(result);
        return new Promise((resolve) => clock.set(() => resolve(result), ms));
      },
    });
    const times = (key: string) => begun.filter(([one]) => one === key).map(([, ms]) => ms);
    return { clock, checker, results, times };
  }

  test("each target is checked at its interval, the first time within a second", async () => {
    const { clock, checker, times, results } = running();
    checker.setPlans([planOf("a", 10_000), planOf("b", 400)]);
    await clock.to(30_000);
    expect(times("a")).toEqual([500, 10_500, 20_500]);
    expect(times("b").slice(0, 3)).toEqual([200, 600, 1000]);
    expect(results.filter((key) => key === "a")).toHaveLength(3);
  });

  test("a slow target is not checked twice at once", async () => {
    const { clock, checker, times } = running({ a: 7000 });
    checker.setPlans([planOf("a", 5000)]);
    await clock.to(22_000);
    expect(times("a")).toEqual([500, 7500, 14_500, 21_500]);
  });

  test("new plans keep the rhythm of what stays, and drop results of what went", async () => {
    const { clock, checker, times, results } = running({ slow: 2000 });
    checker.setPlans([planOf("a", 5000), planOf("slow", 5000)]);
    await clock.to(1000);
    checker.setPlans([planOf("a", 5000), planOf("c", 5000)]);
    await clock.to(6000);
    expect(times("a")).toEqual([500, 5500]);
    expect(times("c")).toEqual([1500]);
    expect(results).not.toContain("slow");
    checker.stop();
    await clock.to(60_000);
    expect(times("a")).toHaveLength(2);
    expect(checker.count).toBe(0);
  });
});
