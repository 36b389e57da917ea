/** The browser that page tests run in: Debian's chromium, which the tests' setup installs. */
import { toolPath } from "./setup/tools.ts";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** What playwright-core needs to start it, or why there is none. */
export function chromiumOptions(): { executablePath: string; args: string[] } | string {
  const executablePath = toolPath("chromium");
  if (executablePath === undefined) return "left out: chromium is not installed";
  return { executablePath, args: ARGUMENTS };
}
