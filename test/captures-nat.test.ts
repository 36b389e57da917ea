/**
 * Whole captures through the engine, the way scenarios run them, and judged from outside: every
 * checksum that was right stays right, tuples are mapped one to one and stay with their flows.
 *
 * The shipped captures are judged by the verifier here. The larger collection that may lie beside
 * the checkout is judged by its own tool, which needs tshark and Python 3.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { verifyFrame } from "../fixtures/verify.ts";
import { createCapture, openCapture } from "../host/capture/file.ts";
import type { LinkKind, ServiceOptions } from "../host/engine/api.ts";
import { createEngine, type Engine, VERDICT_NAMES } from "../host/engine/engine.ts";
import { CaptureError } from "../host/errors.ts";
import { defaultScenario } from "../host/scenario/scenario.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/captures/", import.meta.url));
const SHARED = fileURLToPath(new URL("../../shared/", import.meta.url));
const JUDGE = `${SHARED}tools/natcheck.py`;

/** The endpoint's translation alone: headers in a stream move its numbers, and have judges of their own. */
const { proxyProtocol: _, ...endpoint } = defaultScenario("privatelink").services[0] ?? {};

/** What the scenarios of the command line put between clients and services. */
const SETUPS: Record<string, ServiceOptions> = {
  nat: defaultScenario("nat").services[0] ?? {},
  nlb: defaultScenario("nlb").services[0] ?? {},
  privatelink: endpoint,
};

interface Passage {
  link: LinkKind;
  before: Uint8Array;
  after: Uint8Array;
  verdict: string;
}

interface Replay {
  passages: Passage[];
  /** Why reading ended early, if it did. */
  error: string;
}

let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(`${tmpdir()}/flowplane-`);
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Runs a capture through a service; writes what leaves to `out` and the record map beside it. */
async function replay(path: string, service: ServiceOptions, out: string): Promise<Replay> {
  const engine = await createEngine({ warmUp: false, seed: new Uint8Array(16) });
  engine.setService(0, service);
  const source = await openCapture(path, engine);
  const sink = createCapture(out, source);
  const passages: Passage[] = [];
  let ports = 0;
  let error = "";
  try {
    for (;;) {
      const count = await source.next();
      if (count === 0) break;
      for (; ports < source.interfaces.length; ports++) {
        engine.setPort(ports, { link: source.interfaces[ports]?.link ?? "ethernet", service: 0 });
      }
      const before = Array.from({ length: count }, (_, i) => frameAt(engine, i));
      engine.process(count);
      before.forEach((frame, i) => {
        const [, , , port = 0, word = 0] = engine.descriptors.subarray(i * 8, i * 8 + 8);
        const link = source.interfaces[port & 0xffff]?.link ?? "ethernet";
        const verdict = VERDICT_NAMES[word & 0xffff] ?? "none";
        passages.push({ link, before: frame, after: frameAt(engine, i), verdict });
      });
      sink.take(count);
    }
  } catch (caught) {
    if (!(caught instanceof CaptureError)) throw caught;
    error = caught.message;
  }
  await sink.close();
  let output = 0;
  const lines = passages.map(
    ({ verdict }, i) => `${i + 1}\t${verdict.startsWith("drop") ? 0 : ++output}`,
  );
  await writeFile(`${out}.map`, lines.map((line) => `${line}\n`).join(""));
  return { passages, error };
}

function frameAt(engine: Engine, index: number): Uint8Array {
  const [address = 0, bytes = 0] = engine.descriptors.subarray(index * 8, index * 8 + 2);
  return engine.bytes.slice(address, address + bytes);
}

const shipped = await readdir(FIXTURES);

describe.each(Object.entries(SETUPS))("shipped captures through %s", (name, service) => {
  test.each(shipped)("%s keeps the state of every checksum", async (file) => {
    const { passages } = await replay(`${FIXTURES}${file}`, service, `${folder}/${name}-${file}`);
    let changed = 0;
    for (const { link, before, after, verdict } of passages) {
      const state = (frame: Uint8Array) => verifyFrame(frame, link);
      if (verdict !== "forward") expect(after).toEqual(before);
      else expect(state(after)).toEqual(state(before));
      if (Buffer.compare(before, after) !== 0) changed++;
    }
    expect(changed).toBeGreaterThan(passages.length / 3);
  });
});

const isJudgeable = existsSync(JUDGE);
const collection = isJudgeable ? await readdir(`${SHARED}captures`) : [];
const captures = collection.filter((file) => !file.endsWith(".tsv"));

/** What the judge says of one capture; empty when it has nothing to say against it. */
async function judge(file: string, name: string, service: ServiceOptions): Promise<string> {
  const input = `${SHARED}captures/${file}`;
  const out = `${folder}/${name}-${file}`;
  try {
    await replay(input, service, out);
  } catch (caught) {
    // A capture that is refused as a whole has no output to judge.
    if (caught instanceof CaptureError) return "";
    throw caught;
  }
  const args = [JUDGE, input, out, "--match", `${out}.map`];
  const told = await promisify(execFile)("python3", args).catch((failed) => failed);
  const lines = `${told.stdout}`.trim().split("\n");
  if (lines.at(-1)?.startsWith("ok ")) return "";
  // What the judge's own tshark refuses to open, nobody can judge.
  if (lines[0]?.startsWith(`ERROR cannot read ${input}`)) return "";
  return `${lines.slice(0, 8).join("\n")}${told.stderr}`;
}

describe.skipIf(!isJudgeable)("the collection beside the checkout", () => {
  test.each(Object.entries(SETUPS))(
    "through %s: no checksum spoilt, no flow mixed up",
    { timeout: 600_000 },
    async (name, service) => {
      const complaints: string[] = [];
      expect(captures.length).toBeGreaterThan(50);
      const left = [...captures];
      const work = async () => {
        for (let file = left.shift(); file !== undefined; file = left.shift()) {
          const complaint = await judge(file, name, service);
          if (complaint !== "") complaints.push(`${file}: ${complaint}`);
        }
      };
      await Promise.all([work(), work()]);
      expect(complaints).toEqual([]);
    },
  );
});

test.runIf(!isJudgeable)("the collection is absent: only shipped captures were judged", () => {
  expect(captures).toEqual([]);
  process.stderr.write(
    "captures-nat: no collection beside the checkout, judged shipped ones only\n",
  );
});
