/** `flowplane lab …`: what its commands do. */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseConfig } from "../config/config.ts";
import { isNetwork, type NetworkConfig } from "../config/schema.ts";
import { ConfigError, FlowplaneError } from "../errors.ts";
import { checkMachine, takeDown } from "../lab/lab.ts";
import {
  allStates,
  isRunning,
  type LabState,
  logFile,
  readState,
  STATE_FOLDER,
} from "../lab/state.ts";
import { call, follow } from "../live/control.ts";
import type { LiveEvent } from "../live/events.ts";
import { socketPath } from "../live/lab.ts";
import { History, type LiveSnapshot } from "../live/snapshot.ts";
import { topLines } from "../live/top.ts";
import { readConfig } from "./files.ts";
import type { LabFlags } from "./lab-commands.ts";
import { abilitiesOf, Terminal } from "./terminal.ts";

const START_MS_MAX = 60_000;
const STEP_MS = 50;

/** Brings a lab up, here or in a process of its own. */
export async function runUp(file: string, flags: LabFlags): Promise<void> {
  const config = labConfig(file);
  await checkMachine();
  if (flags.foreground) return runForeground(config, file, flags);
  const name = config.lab?.name ?? "";
  refuseSecond(name);
  // That of a lab that was killed would look like an answer.
  rmSync(socketPath(name), { force: true });
  const log = logFile(STATE_FOLDER, name);
  mkdirSync(dirname(log), { recursive: true });
  const output = openSync(log, "w");
  const words = [process.argv[1] ?? "", "lab", "up", resolve(file), "--foreground"];
  if (flags.capture !== undefined) words.push("--capture", resolve(flags.capture));
  const child = spawn(process.execPath, words, {
    detached: true,
    stdio: ["ignore", output, output],
  });
  const ended = new Promise<"ended">((end) => child.once("exit", () => end("ended")));
  const interrupted = interruption();
  for (let waitedMs = 0; waitedMs < START_MS_MAX; waitedMs += STEP_MS) {
    const step = new Promise<undefined>((end) => setTimeout(end, STEP_MS));
    const event = await Promise.race([ended, interrupted, step]);
    if (event === "ended") throw new FlowplaneError(lastError(log, name));
    if (event === "interrupted") {
      child.kill("SIGTERM");
      await ended;
      rmSync(log, { force: true });
      throw new FlowplaneError(`lab ${name}: was interrupted, everything is removed`);
    }
    if (!existsSync(socketPath(name))) continue;
    child.unref();
    new Terminal(flags).result(upText(await state(name), await status(name)));
    return;
  }
  child.kill("SIGTERM");
  throw new FlowplaneError(`lab ${name}: is not up after ${START_MS_MAX / 1000} s; see ${log}`);
}

/** Resolves when somebody wants this process to end, who from here on does not end it. */
function interruption(): Promise<"interrupted"> {
  return new Promise((end) => {
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(name, () => end("interrupted"));
    }
  });
}

/** A lab that is up is told here, before another process is started for nothing. */
function refuseSecond(name: string): void {
  const found = readState(name);
  if (found && isRunning(found)) {
    throw new FlowplaneError(`lab ${name}: is up already (process ${found.pid}); lab down ends it`);
  }
}

async function runForeground(config: NetworkConfig, file: string, flags: LabFlags): Promise<void> {
  const { LiveLab } = await import("../live/lab.ts");
  const onEvent = (event: LiveEvent) => process.stdout.write(`${JSON.stringify(event)}\n`);
  const captureFile = flags.capture === undefined ? {} : { captureFile: resolve(flags.capture) };
  // A lab that is half up when it is to end is brought up first: there is one way to take it down.
  const interrupted = interruption();
  const live = await LiveLab.start(config, { file: resolve(file), onEvent, ...captureFile });
  const terminal = new Terminal(flags);
  if (live.httpPort !== undefined) terminal.note(pageLine(live.httpPort));
  const failure = await Promise.race([interrupted, live.failed]);
  await live.stop();
  if (failure !== "interrupted") throw new FlowplaneError(failure.message, { cause: failure });
  // What a lab in the background had to say; one that fails keeps it for whoever asks why.
  rmSync(logFile(STATE_FOLDER, live.plan.name), { force: true });
}

/** The error that a lab's own process has written last. */
function lastError(log: string, name: string): string {
  const lines = readFileSync(log, "utf8").trim().split("\n");
  const error = lines.findLast((line) => line.startsWith("flowplane: "));
  if (error === undefined) return `lab ${name}: has ended; see ${log}`;
  rmSync(log, { force: true });
  return error.slice("flowplane: ".length);
}

export async function runDown(lab: string, flags: LabFlags): Promise<void> {
  const name = labName(lab);
  if (!(await takeDown(name))) throw notUp(name);
  // What a killed lab could not remove itself.
  for (const file of [socketPath(name), logFile(STATE_FOLDER, name)]) rmSync(file, { force: true });
  new Terminal(flags).note(`lab ${name}: down, everything is removed`);
}

export async function runStatus(lab: string, flags: LabFlags): Promise<void> {
  const name = labName(lab);
  const snapshot = await status(name);
  const text = flags.json ? JSON.stringify(snapshot, undefined, 2) : undefined;
  new Terminal(flags).result(text ?? statusText(await state(name), snapshot));
}

export async function runEvents(lab: string, { follow: goesOn }: LabFlags): Promise<void> {
  const path = socketOf(labName(lab));
  const print = (event: LiveEvent) => process.stdout.write(`${JSON.stringify(event)}\n`);
  const latest = (await call(path, "events")) as LiveEvent[];
  for (const event of latest) print(event);
  if (!goesOn) return;
  let last = latest.at(-1)?.number ?? 0;
  for await (const event of follow(path)) {
    if (event.number > last) print(event);
    last = event.number;
  }
}

export async function runAction(action: string, lab: string, given: object): Promise<void> {
  const result = await call(socketOf(labName(lab)), action, given);
  if (result !== null) process.stdout.write(`${JSON.stringify(result)}\n`);
}

const CLEAR = "\x1b[2J";
const HOME = "\x1b[H";
const ERASE_REST = "\x1b[K";
const ERASE_BELOW = "\x1b[J";
const SHOW_CURSOR = "\x1b[?25h";
const HIDE_CURSOR = "\x1b[?25l";

/** Draws the lab once a second until it ends, the time is over or the user has seen enough. */
export async function runTop(lab: string, { seconds = Number.POSITIVE_INFINITY }: LabFlags) {
  const name = labName(lab);
  const history = new History();
  const { canDraw, hasColor } = abilitiesOf(process.stdout);
  const ending = new AbortController();
  interruption().then(() => ending.abort());
  if (canDraw) process.stdout.write(HIDE_CURSOR + CLEAR);
  try {
    for (let second = 0; second < seconds && !ending.signal.aborted; second++) {
      const snapshot = await status(name);
      history.add(snapshot);
      // Some terminals say 0, which is no size.
      const [columns, rows] = [process.stdout.columns || 120, process.stdout.rows || 40];
      const lines = topLines(snapshot, history, { columns, rows: rows - 1, isColored: hasColor });
      const [begin, end, after] = canDraw ? [HOME, ERASE_REST, ERASE_BELOW] : ["", "", "\n"];
      process.stdout.write(begin + lines.map((line) => `${line}${end}\n`).join("") + after);
      // Aborted, it ends at once and the loop with it.
      await sleep(1000, undefined, { signal: ending.signal }).catch(() => {});
    }
  } finally {
    if (canDraw) process.stdout.write(SHOW_CURSOR);
  }
}

function labConfig(file: string): NetworkConfig {
  const config = parseConfig(readConfig(file), file);
  if (!isNetwork(config) || config.lab === undefined) {
    throw new ConfigError(`${file}: lab: is missing; a lab has at least a name`);
  }
  return config;
}

/** The name of a lab that is given by itself or by its file. */
function labName(word: string): string {
  if (readState(word) !== undefined) return word;
  if (existsSync(word)) return labConfig(word).lab?.name ?? "";
  if (/^[A-Za-z0-9][A-Za-z0-9_-]*$/.test(word)) return word;
  throw new ConfigError(`${word}: is neither a lab that is up nor a file`);
}

async function status(name: string): Promise<LiveSnapshot> {
  return (await call(socketOf(name), "status")) as LiveSnapshot;
}

/** Where a lab is asked. @throws FlowplaneError when it is not up, or was killed */
function socketOf(name: string): string {
  const found = readState(name);
  if (found === undefined) throw notUp(name);
  if (!isRunning(found)) {
    const advice = "lab down removes what it has left, and so does the next lab up";
    throw new FlowplaneError(`lab ${name}: its process ${found.pid} has ended; ${advice}`);
  }
  return socketPath(name);
}

/** The error of a lab that is not there, with those that are: a name may be mistyped. */
function notUp(name: string): FlowplaneError {
  const others = allStates().filter(isRunning);
  const names = others.map((other) => other.name).join(", ");
  const advice = names ? `these are: ${names}` : "flowplane lab up FILE brings a lab up";
  return new FlowplaneError(`lab ${name}: is not up; ${advice}`);
}

async function state(name: string): Promise<LabState> {
  const found = readState(name);
  if (found === undefined) throw notUp(name);
  return found;
}

function pageLine(port: number): string {
  return `page and metrics: http://127.0.0.1:${port}/ and /metrics`;
}

function upText({ name, hosts, hints }: LabState, snapshot: LiveSnapshot): string {
  return [
    `lab ${name} is up`,
    ...hostLines(hosts),
    ...(snapshot.httpPort === undefined ? [] : ["", pageLine(snapshot.httpPort)]),
    "",
    "try:",
    ...hints.map((hint) => `  ${hint}`),
  ].join("\n");
}

function statusText({ pid, hosts }: LabState, snapshot: LiveSnapshot): string {
  const screen = { columns: 200, rows: 1000, isColored: false };
  const lines = topLines(snapshot, new History(), screen);
  return [
    `process ${pid}`,
    ...(snapshot.httpPort === undefined ? [] : [pageLine(snapshot.httpPort)]),
    ...hostLines(hosts),
    "",
    ...lines,
    ...nameLines(snapshot),
  ]
    .join("\n")
    .trimEnd();
}

/** Names under which resources are found in the lab's DNS. */
function nameLines({ resources }: LiveSnapshot): string[] {
  return resources.flatMap(({ dnsNames }) => dnsNames.map((name) => `  ${name}`));
}

function hostLines(hosts: LabState["hosts"]): string[] {
  const width = Math.max(...hosts.map(({ namespace }) => namespace.length));
  return hosts.map(({ namespace, addresses }) => {
    return `  ${namespace.padEnd(width)}  ${addresses.join(" ")}`;
  });
}
