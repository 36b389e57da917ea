/** Files of the command line: what they are and whether they can be, with errors in one line. */

import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { CaptureError, ConfigError, reasonOf, UsageError } from "../errors.ts";

const GZIP_MAGIC = 0x1f8b;

/** Refuses a path that cannot be written, before there is anything to write. @throws {CaptureError} */
export function checkWritable(path: string): void {
  attempt(path, () => {
    const status = statusOf(path);
    if (status?.isDirectory()) throw new Error("EISDIR: it is a directory");
    accessSync(status ? path : dirname(path), constants.W_OK);
  });
}

/** Writes a whole file. @throws {CaptureError} */
export function writeText(path: string, text: string): void {
  attempt(path, () => writeFileSync(path, text));
}

/** Reads a whole file, or standard input (`-`) for as long as it takes. @throws {CaptureError} */
export async function readWhole(path: string): Promise<Buffer> {
  if (path !== "-") return attempt(path, () => readFileSync(path));
  // Standard input is non-blocking as soon as anything has looked at it, which imports do.
  const parts: Buffer[] = [];
  try {
    for await (const part of process.stdin) parts.push(part);
  } catch (error) {
    throw new CaptureError(`standard input: ${reasonOf(error)}`);
  }
  return Buffer.concat(parts);
}

/** Reads a configuration. @throws {ConfigError} */
export function readConfig(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(`${path}: ${reasonOf(error)}`);
  }
}

/** What a path leads to; undefined where that cannot be told, for opening it says why. */
export function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** Size of a plain file in bytes; undefined for pipes and whatever cannot be looked at. */
export function plainSize(path: string): number | undefined {
  if (path === "-") return undefined;
  const status = statusOf(path);
  return status?.isFile() ? status.size : undefined;
}

/** Whether a path is a pipe or a terminal: what has gone there has gone, and what came from there is read. */
export function isStream(path: string | undefined): boolean {
  const status = path === undefined ? undefined : statusOf(path);
  return status !== undefined && (status.isFIFO() || status.isCharacterDevice());
}

/** Size of a plain file that is not compressed. */
export function uncompressedSize(path: string): number | undefined {
  const size = plainSize(path);
  if (size === undefined) return undefined;
  const head = Buffer.alloc(2);
  const descriptor = attempt(path, () => openSync(path, "r"));
  try {
    attempt(path, () => readSync(descriptor, head, 0, 2, 0));
  } finally {
    closeSync(descriptor);
  }
  return head.readUInt16BE() === GZIP_MAGIC ? undefined : size;
}

/**
 * Refuses outputs that would overwrite the capture, the configuration or each other.
 * @throws {UsageError}
 */
export function checkOutputs(
  inputs: Record<string, string | undefined>,
  outputs: Record<string, string | undefined>,
): void {
  const taken = new Map<string, string>();
  for (const [role, path] of Object.entries({ ...inputs, ...outputs })) {
    if (path === undefined) continue;
    // As an unset variable of a script leaves it.
    if (path === "") throw new UsageError(`${role}: the name of the file is empty`);
    if (path === "-" && role in outputs) {
      throw new UsageError(`${role}: standard output carries the report; name a file`);
    }
    const identity = identityOf(path);
    const other = taken.get(identity);
    if (other && role in outputs) {
      throw new UsageError(`${role}: ${path} is also ${other}`);
    }
    taken.set(identity, role);
  }
}

/** The same for two names of one file. Devices such as /dev/null may be named more than once. */
function identityOf(path: string): string {
  const status = path === "-" ? undefined : statusOf(path);
  if (status?.isFile()) return `${status.dev}:${status.ino}`;
  return status ? Symbol(path).toString() + Math.random() : resolve(path);
}

function attempt<Result>(path: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    throw new CaptureError(`${path}: ${reasonOf(error)}`);
  }
}
