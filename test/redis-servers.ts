/**
 * Redis servers on loopback for tests, single or as a cluster; they end with `endServers`.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";

const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-redis-"));
const running = new Map<number, ChildProcess>();

/** Ends all servers that were started. */
export function endServers(): void {
  for (const server of running.values()) server.kill("SIGKILL");
  rmSync(FOLDER, { recursive: true, force: true });
}

/** Kills a server as a crash does. */
export function killServer(port: number): void {
  running.get(port)?.kill("SIGKILL");
}

/** A port that nobody has just now, and nobody has 10,000 above: the cluster's bus. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer();
    const port = await new Promise<number>((resolve) => {
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
    });
    await new Promise((resolve) => server.close(resolve));
    if (port < 55_000) return port;
  }
}

export async function startServer(path: string, ...more: string[]): Promise<number> {
  const port = await freePort();
  const folder = join(FOLDER, `${port}`);
  mkdirSync(folder);
  const words = [
    "--port",
    `${port}`,
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--dir",
    folder,
    ...more,
  ];
  const server = spawn(path, words, { stdio: "ignore" });
  running.set(port, server);
  const client = new Redis(port, "127.0.0.1");
  client.on("error", () => undefined);
  await retried(() => client.ping(), 20_000);
  client.disconnect();
  return port;
}

/** Tries until it works. @throws what it threw last, when time is over */
export async function retried<T>(attempt: () => Promise<T>, timeMs: number): Promise<T> {
  const end = performance.now() + timeMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(50);
    }
  }
}

/** A cluster of three masters with a replica each. */
export interface Cluster {
  /** Addresses of its servers. */
  servers: string[];
  /** Port of one of the masters. */
  aMaster(): number;
}

/** Starts a cluster and waits until all of it is in order. */
export async function startCluster(path: string): Promise<Cluster> {
  const cli = path.replace(/redis-server$/, "redis-cli");
  const more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "no"];
  const ports: number[] = [];
  while (ports.length < 6) ports.push(await startServer(path, ...more));
  const servers = ports.map((port) => `127.0.0.1:${port}`);
  const create = ["--cluster", "create", ...servers, "--cluster-replicas", "1", "--cluster-yes"];
  execFileSync(cli, create, { timeout: 60_000 });
  const ask = (port: number, ...words: string[]) =>
    `${execFileSync(cli, ["-p", `${port}`, ...words], { timeout: 10_000 })}`;
  await retried(async () => {
    for (const port of ports) {
      if (!ask(port, "cluster", "info").includes("cluster_state:ok")) throw new Error("not yet");
      const role = ask(port, "info", "replication");
      if (role.includes("role:slave") && !role.includes("master_link_status:up")) {
        throw new Error("a replica is not there yet");
      }
    }
  }, 60_000);
  return {
    servers,
    aMaster() {
      const master = ports.find((port) => ask(port, "info", "replication").includes("role:master"));
      if (master === undefined) throw new Error("the cluster has no master");
      return master;
    },
  };
}
