/**
 * The browser that page tests run in: Debian's chromium, which test/setup/tools.ts installs.
 * Where there is none the tests say that they were left out, and in CI they fail.
 */

import { existsSync } from "node:fs";

const PATH = "/usr/bin/chromium";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** What playwright-core needs to start it, or why there is none. */
export function chromiumOptions(): { executablePath: string; args: string[] } | string {
  if (!existsSync(PATH)) return leftOut(`there is no ${PATH}`);
  return { executablePath: PATH, args: ARGUMENTS };
}

function leftOut(reason: string): string {
  if (process.env.CI) throw new Error(reason);
  return `left out: ${reason}`;
}
