/**
 * Live labs for tests: namespaces with names of their own, programs inside them, everything bounded
 * in time and removed whatever happens. What an earlier run that was killed has left is removed
 * before the first lab.
 *
 * Needs root, /dev/net/tun and koffi. Without them a test is left out and says so; in CI (environment
 * variable CI) it fails.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkMachine, type Lab, raise, takeDown } from "../host/lab/lab.ts";
import { type LabPlan, PLAN_DEFAULTS } from "../host/lab/plan.ts";
import { allStates, isRunning, type LabState, startTicksOf } from "../host/lab/state.ts";

const PREFIX = "fpt";
const COMMAND_MS_MAX = 30_000;
let serial = 0;

/** A name that no other process uses. */
export function uniqueName(): string {
  return `${PREFIX}${process.pid}-${++serial}`;
}

/** Leaves a test out where labs cannot be made. @throws in CI */
export async function requireLab(skip: (note: string) => never): Promise<void> {
  try {
    await checkMachine();
  } catch (error) {
    if (process.env.CI) throw error;
    skip(`left out: ${(error as Error).message}`);
  }
  for (const state of allStates()) if (isLeft(state)) await takeDown(state.name);
}

/** Whether a test has left this lab, and is over: another file's tests may run beside this one's. */
function isLeft(state: LabState): boolean {
  if (!state.name.startsWith(PREFIX) || isRunning(state)) return false;
  const owner = Number.parseInt(state.name.slice(PREFIX.length), 10);
  return owner === process.pid || startTicksOf(owner) === undefined;
}

export interface Ran {
  stdout: string;
  stderr: string;
  status: number;
}

/** Runs a program inside a namespace to its end. @throws when it takes longer than `msMax` */
export function inside(
  namespace: string,
  words: readonly string[],
  msMax = COMMAND_MS_MAX,
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const all = ["netns", "exec", namespace, ...words];
    const options = { timeout: msMax, killSignal: "SIGKILL", maxBuffer: 1 << 26 } as const;
    execFile("ip", all, options, (error, stdout, stderr) => {
      if (error?.killed) {
        return reject(new Error(`${words.join(" ")}: not done in ${msMax} ms; ${stdout}${stderr}`));
      }
      resolve({ stdout, stderr, status: typeof error?.code === "number" ? error.code : 0 });
    });
  });
}

/** What a scene may use: a folder, a lab, and programs that end with the scene. */
export class Scene {
  readonly folder = mkdtempSync(join(tmpdir(), "flowplane-lab-"));
  readonly #programs: ChildProcess[] = [];
  readonly #labs: Lab[] = [];

  /** A lab of this plan; its namespaces get the name's prefix. */
  async lab(plan: Partial<LabPlan> & Pick<LabPlan, "hosts" | "ports" | "services">): Promise<Lab> {
    const lab = await raise({ ...PLAN_DEFAULTS, name: uniqueName(), ...plan });
    this.#labs.push(lab);
    return lab;
  }

  /** Starts a program inside a namespace that runs until the scene ends. */
  start(namespace: string, words: readonly string[]): ChildProcess {
    const all = ["netns", "exec", namespace, ...words];
    const child = spawn("ip", all, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    this.#programs.push(child);
    return child;
  }

  async end(): Promise<void> {
    for (const { pid } of this.#programs) endGroup(pid);
    await Promise.all(this.#labs.map((lab) => lab.stop()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Ends a program that this process started as a group of its own, with its children. */
function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Runs a part with a scene and ends the scene whatever happens. */
export async function scene(part: (scene: Scene) => Promise<void>): Promise<void> {
  const one = new Scene();
  try {
    await part(one);
  } finally {
    await one.end();
  }
}

/** Repeats a look until it is true. @throws after `msMax` */
export async function until(
  what: string,
  look: () => Promise<boolean> | boolean,
  msMax = 10_000,
): Promise<void> {
  const endMs = Date.now() + msMax;
  while (!(await look())) {
    if (Date.now() > endMs) throw new Error(`${what}: not so within ${msMax} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until something listens on a TCP port inside a namespace. */
export function listening(namespace: string, port: number): Promise<void> {
  return until(`port ${port} in ${namespace}`, async () => {
    const { stdout } = await inside(namespace, ["ss", "-Hltn", `sport = :${port}`]);
    return stdout.trim() !== "";
  });
}

/** A load balancer with one target behind an endpoint: a client, a server, two VPCs. */
export function oneTarget(name: string): Pick<LabPlan, "hosts" | "ports" | "services"> {
  const targets = [{ address: "10.0.2.10" }, { address: "fd00:2::10" }];
  return {
    hosts: [
      { namespace: `${name}-c`, port: 0, addresses: ["10.0.1.10", "fd00:1::10"], mtu: 1500 },
      { namespace: `${name}-s`, port: 1, addresses: ["10.0.2.10", "fd00:2::10"], mtu: 1500 },
    ],
    ports: [
      { service: 0, peer: 1, vpc: 1 },
      { sides: "service", peer: 0, vpc: 2 },
    ],
    services: [{ sourceAddresses: ["10.0.2.5", "fd00:2::5"], targets }],
  };
}
