/**
 * Whole captures through the engine, the way scenarios run them, and judged from outside: every
 * checksum that was right stays right, tuples are mapped one to one and stay with their flows.
 *
 * The shipped captures are judged by the verifier here. The larger collection that may lie beside
 * the checkout is judged by its own tool, which needs tshark and Python 3.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
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
const JUDGE_MANY = fileURLToPath(new URL("judge-many.py", import.meta.url));

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

/** A capture and what a setup made of it, for the judge. */
interface Pair {
  file: string;
  judge: string[];
  /** Packets of either, or null where reading ended early. */
  packets: Record<string, number | null>;
}

async function pairOf(file: string, setup: string, service: ServiceOptions): Promise<Pair[]> {
  const input = `${SHARED}captures/${file}`;
  const out = `${folder}/${setup}-${file}`;
  try {
    const { passages, error } = await replay(input, service, out);
    const left = passages.filter(({ verdict }) => !verdict.startsWith("drop"));
    const packets =
      error === ""
        ? { [input]: passages.length, [out]: left.length }
        : { [input]: null, [out]: null };
    return [{ file, judge: [input, out, "--match", `${out}.map`], packets }];
  } catch (caught) {
    // A capture that is refused as a whole has no output to judge.
    if (caught instanceof CaptureError) return [];
    throw caught;
  }
}

/** What the judge has to say against each pair; nothing when all is well. */
async function complaintsOf(pairs: readonly Pair[]): Promise<string[]> {
  const asked = promisify(execFile)("python3", [JUDGE_MANY, JUDGE], { maxBuffer: 1 << 26 });
  asked.child.stdin?.end(JSON.stringify(pairs));
  const told: string[] = JSON.parse((await asked).stdout);
  expect(told).toHaveLength(pairs.length);
  return told.flatMap((text, index) => {
    const { file, judge } = pairs[index] as Pair;
    const lines = text.trim().split("\n");
    if (lines.at(-1)?.startsWith("ok ")) return [];
    // What the judge's own tshark refuses to open, nobody can judge.
    if (lines[0]?.startsWith(`ERROR cannot read ${judge[0]}`)) return [];
    return [`${file}: ${lines.slice(0, 8).join("\n")}`];
  });
}

describe.skipIf(!isJudgeable)("the collection beside the checkout", () => {
  test.each(Object.entries(SETUPS))(
    "through %s: no checksum spoilt, no flow mixed up",
    { timeout: 600_000 },
    async (name, service) => {
      expect(captures.length).toBeGreaterThan(50);
      const pairs: Pair[] = [];
      for (const file of captures) pairs.push(...(await pairOf(file, name, service)));
      expect(pairs.length).toBeGreaterThan(captures.length - 10);
      expect(await complaintsOf(pairs)).toEqual([]);
    },
  );

  test("a spoilt byte is complained of, and by its capture alone", async () => {
    const [file, other] = ["eth-mixed__ndpi__ftp.pcap", "big-endian__ndpi__nfsv2.pcap"];
    const service = SETUPS.nat as ServiceOptions;
    const [pair] = (await pairOf(file, "spoilt", service)) as [Pair];
    const [well] = (await pairOf(other, "well", service)) as [Pair];
    const out = await readFile(pair.judge[1] as string);
    out[out.length - 1] = ~(out.at(-1) as number);
    await writeFile(pair.judge[1] as string, out);
    const complaints = await complaintsOf([well, pair, well]);
    expect(complaints).toEqual([
      expect.stringMatching(/^eth-mixed__ndpi__ftp\.pcap: C1: frame 209: tcp.checksum.status Good/),
    ]);
  });
});

test.runIf(!isJudgeable)("the collection is absent: only shipped captures were judged", () => {
  expect(captures).toEqual([]);
  process.stderr.write(
    "captures-nat: no collection beside the checkout, judged shipped ones only\n",
  );
});
