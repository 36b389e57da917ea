/**
 * PROXY protocol v2: what headers cost, side by side with npm's proxy-protocol-js in one run. It
 * builds no TLVs and reads none (it hands them over as payload), so it does less.
 *
 *     node bench/pp2.ts
 */
import { V2ProxyProtocol } from "proxy-protocol-js";
import { createHeaderCodec, type HeaderOptions } from "../host/pp2/codec.ts";
import { table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { alternate, sampleOf } from "./measure.ts";

const ROUNDS = 15;
const CALLS = 50_000;
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

/** ns per header of each task: best round and median. @throws Error when a peer reads something else */
export async function measureHeaders(rounds = ROUNDS): Promise<Record<string, number[]>> {
  const codec = await createHeaderCodec();
  const header = codec.encode(OPTIONS);
  const peer = V2ProxyProtocol.parse(header);
  const ours = codec.decode(header);
  const theirs = peer?.proxyAddress as unknown as { srcAddr?: unknown } | undefined;
  if (!peer || !theirs) throw new Error("bench: proxy-protocol-js reads no addresses");
  if (ours.tlvs.length !== 3) throw new Error(`bench: ${ours.tlvs.length} TLVs were read, not 3`);
  const times = alternate(
    {
      decode: repeat(() => codec.decode(header)),
      "peer parse": repeat(() => V2ProxyProtocol.parse(header)),
      encode: repeat(() => codec.encode(OPTIONS)),
      "peer build": repeat(() => peer.build()),
    },
    rounds,
  );
  return Object.fromEntries(
    Object.entries(times).map(([name, ms]) => {
      const { min, median } = sampleOf(ms);
      return [name, [(min * 1e6) / CALLS, (median * 1e6) / CALLS]];
    }),
  );
}

if (import.meta.main) {
  const figures = await measureHeaders();
  const rows = Object.entries(figures).map(([name, [min = 0, median = 0]]) => {
    return [name, significant(min), significant(median)];
  });
  const lines = table(
    [
      { title: "ns per header", align: "left" },
      { title: "best", align: "right" },
      { title: "median", align: "right" },
    ],
    rows,
  );
  const ratio = (a: string, b: string) =>
    significant((figures[a]?.[0] ?? 0) / (figures[b]?.[0] ?? 1));
  process.stdout.write(
    `${lines.join("\n")}\n\n` +
      `proxy-protocol-js takes ${ratio("peer parse", "decode")} times as long to read a header ` +
      `(without TLVs and CRC32C) and ${ratio("peer build", "encode")} times to build one\n`,
  );
}
