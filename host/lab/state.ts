/**
 * What a lab leaves behind while it is up: one file that names its process and its namespaces. It is
 * written before anything is made, so whatever happens to the process, `down`, `status` and the next
 * `up` know what there is to remove. Its creation is the lock against a second `up`.
 *
 * A process is known by its number and its start time, so a number that was given away again is
 * never taken for it.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FlowplaneError } from "../errors.ts";

export const STATE_FOLDER = "/run/flowplane";
const SCHEMA = "flowplane.lab-state/1";

export interface LabState {
  schema: typeof SCHEMA;
  name: string;
  /** Configuration file as it was given, absolute. */
  file: string;
  pid: number;
  /** Start of the process, in clock ticks since boot. */
  startTicks: string;
  startedAt: string;
  namespaces: string[];
  hosts: { namespace: string; addresses: string[] }[];
  /** What the user may type next. */
  hints: string[];
}

function stateFile(folder: string, name: string): string {
  return join(folder, `${name}.json`);
}

export function logFile(folder: string, name: string): string {
  return join(folder, `${name}.log`);
}

/** Start time of a process, or undefined when there is none. */
export function startTicksOf(pid: number): string | undefined {
  try {
    // The second field is the command in parentheses, which may hold anything; 22 is the start.
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export function isRunning({ pid, startTicks }: LabState): boolean {
  return startTicksOf(pid) === startTicks;
}

export function readState(name: string, folder = STATE_FOLDER): LabState | undefined {
  try {
    const state = JSON.parse(readFileSync(stateFile(folder, name), "utf8")) as LabState;
    return state.schema === SCHEMA ? state : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    if (error instanceof SyntaxError) return undefined;
    throw new FlowplaneError(`${stateFile(folder, name)}: ${(error as Error).message}`);
  }
}

/** All labs that are up, or were and have left something. */
export function allStates(folder = STATE_FOLDER): LabState[] {
  let names: string[] = [];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const labs = names.filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
  return labs.map((name) => readState(name, folder)).filter((state) => state !== undefined);
}

/** Claims the lab's name for this process. @throws FlowplaneError when another has it */
export function claimState(state: Omit<LabState, "schema">, folder = STATE_FOLDER): void {
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const text = `${JSON.stringify({ schema: SCHEMA, ...state }, undefined, 2)}\n`;
  try {
    writeFileSync(stateFile(folder, state.name), text, { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new FlowplaneError(`lab ${state.name}: is being started by another process`);
  }
}

export function removeState(name: string, folder = STATE_FOLDER): void {
  rmSync(stateFile(folder, name), { force: true });
}
