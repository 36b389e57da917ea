/**
 * The programs that judge the engine from outside come from Debian's packages. Vitest runs this
 * once before all tests: as root on Debian it installs what is missing, elsewhere it names what is
 * left out. In CI nothing may be missing.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Program and the package that has it. */
const TOOLS = {
  tshark: "tshark",
  python3: "python3",
  chromium: "chromium",
  gcc: "gcc",
  tcprewrite: "tcpreplay",
} as const;

export type Tool = keyof typeof TOOLS;

const FOLDERS = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];

export function hasTool(tool: Tool): boolean {
  const folders = [...(process.env.PATH ?? "").split(":"), ...FOLDERS];
  return folders.some((folder) => existsSync(`${folder}/${tool}`));
}

function missingTools(): Tool[] {
  return (Object.keys(TOOLS) as Tool[]).filter((tool) => !hasTool(tool));
}

function install(tools: readonly Tool[]): void {
  const options = {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    stdio: ["ignore", "ignore", "inherit"] as ["ignore", "ignore", "inherit"],
    timeout: 600_000,
  };
  const packages = tools.map((tool) => TOOLS[tool]);
  execFileSync("apt-get", ["-q", "update"], options);
  execFileSync("apt-get", ["-q", "install", "-y", "--no-install-recommends", ...packages], options);
}

export default function setup(): void {
  const wanted = missingTools();
  if (wanted.length === 0) return;
  if (process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    process.stderr.write(`installing for the tests: ${wanted.join(", ")}\n`);
    try {
      install(wanted);
    } catch (error) {
      process.stderr.write(`could not install: ${(error as Error).message}\n`);
    }
  }
  const missing = missingTools();
  if (missing.length === 0) return;
  if (process.env.CI) throw new Error(`in CI no tool may be missing: ${missing.join(", ")}`);
  process.stderr.write(`left out, for want of the program: tests with ${missing.join(", ")}\n`);
}
