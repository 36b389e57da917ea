/** The Go parser of PROXY headers (bench/go/parser.go), compiled when the benchmark runs. */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("go/parser.go", import.meta.url));
/** Where Debian's golang-github-pires-go-proxyproto-dev puts its source. */
const PACKAGES = "/usr/share/gocode";
const PACKAGE = "src/github.com/pires/go-proxyproto";

export class GoTwin {
  readonly #program: string;

  /** Compiles it into `folder`; what stands in the way is returned as one line. */
  static compile(folder: string): GoTwin | string {
    if (!fs.existsSync(path.join(PACKAGES, PACKAGE))) {
      return "Go parser: skipped, golang-github-pires-go-proxyproto-dev is not there";
    }
    const program = path.join(folder, "parser");
    const env = {
      ...process.env,
      GO111MODULE: "off",
      GOPATH: PACKAGES,
      GOCACHE: path.join(folder, "cache"),
    };
    const built = spawnSync("go", ["build", "-o", program, SOURCE], { encoding: "utf8", env });
    if (built.error) return "Go parser: skipped, there is no go (Debian: golang-go)";
    if (built.status !== 0)
      return `Go parser: skipped, go refuses it: ${built.stderr.slice(0, 200)}`;
    return new GoTwin(program);
  }

  private constructor(program: string) {
    this.#program = program;
  }

  /** ns that a header takes. @throws Error with what the program said when it did not end well */
  run(header: Uint8Array, calls: number, task: "read" | "write"): number {
    const words = [Buffer.from(header).toString("hex"), `${calls}`, task];
    const run = spawnSync(this.#program, words, { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`go parser: ${run.stderr || run.signal}`);
    return Number(run.stdout);
  }
}
