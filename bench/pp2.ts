/**
 * PROXY protocol v2: what headers cost, side by side in one run with npm's proxy-protocol-js, which
 * builds no TLVs and reads none (it hands them over as payload), and with go-proxyproto where Debian's
 * package and compiler are there, which reads TLVs but checks no CRC32C.
 *
 *     node bench/pp2.ts
 *     node bench/pp2.ts --smoke     a few calls of each; a part of `npm test`
 *
 * All take turns, and a ratio is the median over rounds: a slow moment of the machine is one of all.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { V2ProxyProtocol } from "proxy-protocol-js";
import { createHeaderCodec, type HeaderOptions } from "../host/pp2/codec.ts";
import { table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { alternate, ratioOf, sampleOf } from "./measure.ts";
import { GoTwin } from "./twin-go.ts";

const ROUNDS = 60;
const SMOKE_ROUNDS = 1;
const CALLS = 5000;
const OPTIONS: HeaderOptions = {
  source: { address: "172.31.7.113", port: 51442 },
  destination: { address: "172.31.10.31", port: 80 },
  vpce: "vpce-08d2bf15fac5001c9",
};

function repeat(action: () => unknown): () => void {
  return () => {
    for (let call = 0; call < CALLS; call++) action();
  };
}

/**
 * By task: ns per header in each round. Those of Go only with its twin.
 * @throws Error when a peer reads something else
 */
export async function measureHeaders(
  rounds = ROUNDS,
  go?: GoTwin,
): Promise<Record<string, number[]>> {
  const codec = await createHeaderCodec();
  const header = codec.encode(OPTIONS);
  const { source, destination, ...rest } = OPTIONS as Required<HeaderOptions>;
  const encoder = codec.encoder(rest);
  const place = new Uint8Array(header.length);
  const peer = V2ProxyProtocol.parse(header);
  const ours = codec.decode(header);
  const theirs = peer?.proxyAddress as unknown as { srcAddr?: unknown } | undefined;
  if (!peer || !theirs) throw new Error("bench: proxy-protocol-js reads no addresses");
  if (ours.tlvs.length !== 3) throw new Error(`bench: ${ours.tlvs.length} TLVs were read, not 3`);
  const told: Record<string, number[]> = go ? { "go read": [], "go write": [] } : {};
  const byGo = (task: "read" | "write") => () => {
    if (go) told[`go ${task}`]?.push(go.run(header, CALLS, task));
  };
  const times = alternate(
    {
      decode: repeat(() => codec.decode(header)),
      "npm parse": repeat(() => V2ProxyProtocol.parse(header)),
      "go read": byGo("read"),
      encode: repeat(() => codec.encode(OPTIONS)),
      "encode, prepared": repeat(() => encoder.encode(source, destination)),
      "encode, prepared, in place": repeat(() => encoder.encodeInto(place, 0, source, destination)),
      "npm build, no TLVs": repeat(() => peer.build()),
      "go write": byGo("write"),
    },
    rounds,
  );
  const all = Object.entries(times).filter(([name]) => go || !name.startsWith("go "));
  return Object.fromEntries(
    all.map(([name, ms]) => [name, told[name] ?? ms.map((one) => (one * 1e6) / CALLS)]),
  );
}

/** What is compared: how long the first takes over the second, which is ours. */
const RIVALS = [
  ["npm parse", "decode"],
  ["go read", "decode"],
  ["npm build, no TLVs", "encode, prepared, in place"],
  ["go write", "encode, prepared, in place"],
] as const;

function print(times: Record<string, number[]>): void {
  const right = (title: string) => ({ title, align: "right" }) as const;
  const left = (title: string) => ({ title, align: "left" }) as const;
  const costs = Object.entries(times).map(([name, ns]) => {
    const { min, median } = sampleOf(ns);
    return [name, significant(min), significant(median)];
  });
  const ratios = RIVALS.flatMap(([rival, own]) => {
    if (!times[rival]) return [];
    const { middle, range } = ratioOf(times[rival].map((ns, at) => ns / (times[own]?.[at] ?? ns)));
    return [[`${rival} / ${own}`, middle.toFixed(2), range, middle > 1 ? "yes" : "no"]];
  });
  const lines = [
    ...table([left("ns per header"), right("best"), right("median")], costs),
    "",
    ...table([left("time"), right("ratio"), right("half of rounds"), right("above 1")], ratios),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

if (import.meta.main) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-go-"));
  let times: Record<string, number[]>;
  let missing = "";
  try {
    const go = GoTwin.compile(folder);
    if (typeof go === "string") missing = `${go}\n`;
    const rounds = process.argv.includes("--smoke") ? SMOKE_ROUNDS : ROUNDS;
    times = await measureHeaders(rounds, typeof go === "string" ? undefined : go);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
  print(times);
  process.stdout.write(missing);
}
