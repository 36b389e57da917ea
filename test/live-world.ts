/**
 * A lab file of `fixtures/labs` brought up for a test, under names of this process, with real
 * programs in it. What a test has begun ends with `endWorlds`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import type { NetworkConfig } from "../host/config/schema.ts";
import { call } from "../host/live/control.ts";
import type { LiveEvent } from "../host/live/events.ts";
import { LiveLab, socketPath } from "../host/live/lab.ts";
import { inside, uniqueName } from "./lab-harness.ts";

export const ROOT = fileURLToPath(new URL("../", import.meta.url));
const WHOAMI = `${ROOT}fixtures/labs/whoami.ts`;
/** What is to be ended after a test, in reverse order. */
export const closers: (() => unknown)[] = [];

export async function endWorlds(): Promise<void> {
  for (const close of closers.splice(0).toReversed()) await close();
}

/** A lab file under a name and prefix of this process, with pieces of its text replaced. */
export function labText(
  file: string,
  name: string,
  changes: [before: string, after: string][] = [],
) {
  let text = readFileSync(`${ROOT}fixtures/labs/${file}.yaml`, "utf8");
  const own: [string, string][] = [
    [`  name: ${file}\n`, `  name: ${name}\n`],
    [text.match(/ {2}prefix: .*\n/)?.[0] ?? "", `  prefix: ${name}-\n`],
  ];
  for (const [before, after] of [...own, ...changes]) {
    expect(text.split(before), `"${before}" stands in ${file}.yaml`).toHaveLength(2);
    text = text.replace(before, after);
  }
  return text;
}

/** `fixtures/labs/whoami.ts` in a namespace, on port 8080. */
export function spawnServer(namespace: string, name: string, flags: string[] = []): ChildProcess {
  const words = ["netns", "exec", namespace, process.execPath, WHOAMI, name, ...flags];
  const server = spawn("ip", words, { stdio: ["ignore", "pipe", "inherit"] });
  closers.push(() => server.kill("SIGKILL"));
  return server;
}

export class World {
  readonly name = uniqueName();
  readonly events: LiveEvent[] = [];
  live!: LiveLab;
  /** Whether servers want PROXY headers. */
  isProxied = false;

  static async up(file: string, changes: [string, string][] = []): Promise<World> {
    const world = new World();
    const config = parseConfig(labText(file, world.name, changes), file) as NetworkConfig;
    const groups = Object.values(config.target_groups);
    world.isProxied = groups.some(({ attributes }) => attributes["proxy_protocol_v2.enabled"]);
    world.live = await LiveLab.start(config, { onEvent: (event) => world.events.push(event) });
    closers.push(() => world.live.stop());
    return world;
  }

  space(host: string): string {
    return `${this.name}-${host}`;
  }

  /** Starts a web server on port 8080 of a host that says whom it saw. */
  async serve(host: string, isProxied = this.isProxied): Promise<ChildProcess> {
    const server = spawnServer(this.space(host), host, isProxied ? ["--proxy"] : []);
    await new Promise((resolve) => server.stdout?.once("data", resolve));
    return server;
  }

  async curl(host: string, url: string, seconds = 10): Promise<string> {
    const words = ["curl", "-sS", "-m", `${seconds}`, url];
    const { stdout, stderr } = await inside(this.space(host), words);
    return stdout.trim() || stderr.trim();
  }

  async dig(host: string, ...words: string[]): Promise<string> {
    const all = ["dig", "+short", "+time=2", "+tries=1", ...words];
    return (await inside(this.space(host), all)).stdout.trim();
  }

  say(command: string, given?: object): Promise<unknown> {
    return call(socketPath(this.name), command, given);
  }

  healthy(count: number) {
    const states = () =>
      this.live.snapshot().then(({ targets }) => targets.map((one) => one.state));
    return expect
      .poll(async () => (await states()).filter((state) => state === "healthy").length, {
        timeout: 60_000,
        interval: 200,
      })
      .toBe(count);
  }
}
