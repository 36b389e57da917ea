/**
 * Programs that only tests need. Before the first test the missing ones are installed, where that
 * can be done: as root on Debian. What stays missing is named once; tests that need it are left
 * out and say so. In CI (environment variable CI) nothing may be left out.
 */
import { execFileSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Program and the Debian package that has it. */
const PACKAGES = {
  aiosmtpd: "python3-aiosmtpd",
  chromium: "chromium",
  curl: "curl",
  dig: "dnsutils",
  gcc: "gcc",
  haproxy: "haproxy",
  ip: "iproute2",
  iperf3: "iperf3",
  nft: "nftables",
  nginx: "nginx",
  openssl: "openssl",
  ping: "iputils-ping",
  python3: "python3",
  "redis-server": "redis-server",
  tcprewrite: "tcpreplay",
  tracepath: "iputils-tracepath",
  tshark: "tshark",
} as const;

export type Tool = keyof typeof PACKAGES;

const APT_GET = "/usr/bin/apt-get";
const INSTALL_MS_MAX = 600_000;

/** Where a program is, or undefined. */
export function toolPath(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/bin", "/usr/sbin"];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** For a test that needs a program: its path, or the test is left out with the reason. */
export function requireTool(name: Tool, skip: (note: string) => never): string {
  return toolPath(name) ?? skip(`left out: ${name} is not installed`);
}

function missingTools(): Tool[] {
  return (Object.keys(PACKAGES) as Tool[]).filter((name) => toolPath(name) === undefined);
}

function aptGet(...words: string[]): void {
  execFileSync(APT_GET, words, {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    stdio: ["ignore", "ignore", "inherit"],
    timeout: INSTALL_MS_MAX,
  });
}

function install(tools: readonly Tool[]): void {
  const packages = tools.map((name) => PACKAGES[name]);
  process.stderr.write(`installing for the tests: ${packages.join(" ")}\n`);
  try {
    aptGet("update");
    aptGet("install", "-y", "--no-install-recommends", ...packages);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
  }
}

/** Runs once before all tests. @throws in CI, when a program cannot be had */
export default function setup(): void {
  const isInstallable = process.getuid?.() === 0 && isExecutable(APT_GET);
  if (isInstallable && missingTools().length > 0) install(missingTools());
  const missing = missingTools();
  if (missing.length === 0) return;
  const reason = `not installed: ${missing.join(", ")}`;
  if (process.env.CI) throw new Error(`${reason}; in CI no test may be left out`);
  process.stderr.write(`${reason}; tests that need them are left out\n`);
}
