/** Errors keep their class, and with it the exit status of a command, when they come from another thread. */
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import {
  CaptureError,
  ConfigError,
  EngineError,
  HeaderError,
  revived,
  UsageError,
} from "../host/errors.ts";

const ERRORS = new URL("../host/errors.ts", import.meta.url).href;

/** What the starter of a thread hears that throws `expression`. */
function thrown(expression: string): Promise<unknown> {
  const code = `import * as errors from ${JSON.stringify(ERRORS)}; throw ${expression};`;
  const thread = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
  return new Promise((resolve, reject) => {
    thread.on("error", resolve);
    thread.on("exit", () => reject(new Error("the thread has thrown nothing")));
  });
}

test.each([
  ["CaptureError", CaptureError, 1],
  ["UsageError", UsageError, 2],
  ["ConfigError", ConfigError, 2],
  ["EngineError", EngineError, 1],
])("%s", async (name, kind, exitCode) => {
  const error = await thrown(`new errors.${name}("lab.name: is missing")`);
  expect(error).not.toBeInstanceOf(kind);
  expect(revived(error)).toBeInstanceOf(kind);
  expect(revived(error)).toMatchObject({ name, message: "lab.name: is missing", exitCode });
});

test("HeaderError says at which byte", async () => {
  const error = revived(await thrown(`new errors.HeaderError(12, "a reason", { needed: 7 })`));
  expect(error).toBeInstanceOf(HeaderError);
  expect(error).toMatchObject({ message: "byte 12: a reason", byte: 12, needed: 7 });
});

test("others stay what they are", async () => {
  const error = await thrown(`new RangeError("flows: 3")`);
  expect(revived(error)).toBe(error);
  expect(Object.getPrototypeOf(error)).toBe(RangeError.prototype);
  expect(revived("a text")).toBe("a text");
});
