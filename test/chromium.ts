/**
 * The browser that page tests run in: Debian's chromium. It is installed when it is missing and
 * may be; otherwise the tests say that they were left out, and in CI they fail.
 */

import { execFileSync } from "node:child_process";
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
  if (!existsSync(PATH) && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    try {
      execFileSync("apt-get", ["install", "-y", "--no-install-recommends", "chromium"], {
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
        stdio: "ignore",
        timeout: 300_000,
      });
    } catch (error) {
      return leftOut(`chromium could not be installed: ${(error as Error).message}`);
    }
  }
  if (!existsSync(PATH)) return leftOut(`there is no ${PATH} and it cannot be installed here`);
  return { executablePath: PATH, args: ARGUMENTS };
}

function leftOut(reason: string): string {
  if (process.env.CI) throw new Error(reason);
  return `left out: ${reason}`;
}
