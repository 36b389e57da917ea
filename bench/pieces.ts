/** The steps of a packet's way, each alone (tinybench): in WebAssembly, and in TypeScript beside. */
import { Bench } from "tinybench";
import type { PieceRow } from "./result.ts";
import { Traffic } from "./traffic.ts";
import { hashWords, updatedSum } from "./twin-typed.ts";

const FLOWS = 1000;
const PACKETS = 256;
const CHECKSUM_BYTES = 1460;

interface Piece {
  name: string;
  unit: string;
  operations: number;
  wasm: () => unknown;
  typescript?: () => unknown;
}

/** @throws Error when the frames that the rewrite has turned there and back are not as before. */
export async function measurePieces(millis: number, rounds: number): Promise<PieceRow[]> {
  const traffic = await Traffic.create({ flows: FLOWS });
  traffic.create();
  traffic.generate(PACKETS);
  const found = traffic.bench.piecesPrepare(PACKETS);
  if (found !== PACKETS) throw new Error(`bench: ${found} of ${PACKETS} packets have flows`);
  const before = framesOf(traffic);
  const pieces = piecesOf(traffic, rounds);
  const bench = new Bench({ time: millis, warmupTime: Math.min(50, millis), throws: true });
  for (const { name, wasm, typescript } of pieces) {
    bench.add(name, () => void wasm());
    if (typescript) bench.add(`${name} in TypeScript`, () => void typescript());
  }
  await bench.run();
  if (framesOf(traffic) !== before) throw new Error("bench: rewriting there and back loses bytes");
  const nsOf = (name: string, operations: number) => {
    const result = bench.getTask(name)?.result;
    if (result?.state !== "completed") throw new Error(`bench: ${name} did not run`);
    return (result.latency.min * 1e6) / operations;
  };
  return pieces.map(({ name, unit, operations, typescript }) => {
    const row: PieceRow = { name, unit, wasmNs: nsOf(name, operations) };
    if (typescript) row.typescriptNs = nsOf(`${name} in TypeScript`, operations);
    return row;
  });
}

function framesOf({ engine }: Traffic): string {
  const { address } = engine.arena;
  return Buffer.from(engine.bytes.subarray(address, address + 192 * PACKETS)).toString("base64");
}

function piecesOf({ bench, engine }: Traffic, rounds: number): Piece[] {
  const operations = PACKETS * rounds;
  const { address } = engine.arena;
  const words = new Int32Array(PACKETS * 4).map((_, index) => Math.imul(index + 1, 0x9e3779b1));
  const halves = new Uint16Array(engine.bytes.buffer, address, 1024);
  return [
    {
      name: "parse",
      unit: "packet",
      operations,
      wasm: () => bench.piecesParse(PACKETS, rounds),
    },
    {
      name: "hash",
      unit: "tuple",
      operations,
      wasm: () => bench.piecesHash(PACKETS, rounds),
      typescript: () => hashAll(words, rounds),
    },
    {
      name: "lookup",
      unit: "packet",
      operations,
      wasm: () => bench.piecesLookup(PACKETS, rounds),
    },
    {
      name: "rewrite",
      unit: "packet",
      operations: operations * 2,
      wasm: () => bench.piecesRewrite(PACKETS, rounds),
    },
    {
      name: "checksum update",
      unit: "update",
      operations,
      wasm: () => bench.piecesUpdate(PACKETS, rounds),
      typescript: () => updateAll(rounds),
    },
    {
      name: "checksum, 1460 bytes",
      unit: "segment",
      operations: rounds,
      wasm: () => bench.piecesChecksum(address, CHECKSUM_BYTES, rounds),
      typescript: () => sumAll(halves, rounds),
    },
  ];
}

function hashAll(words: Int32Array, rounds: number): number {
  let sum = 0;
  for (let round = 0; round < rounds; round++) {
    for (let at = 0; at < words.length; at += 4) {
      const [a, b] = [(words[at] as number) + round, words[at + 1] as number];
      sum = (sum + hashWords(a, b, words[at + 2] as number, words[at + 3] as number)) | 0;
    }
  }
  return sum;
}

function updateAll(rounds: number): number {
  let sum = 0x1234;
  for (let round = 0; round < rounds; round++) {
    for (let index = 0; index < PACKETS; index++) sum = updatedSum(sum, index + round);
  }
  return sum;
}

function sumAll(halves: Uint16Array, rounds: number): number {
  let total = 0;
  for (let round = 0; round < rounds; round++) {
    const start = round & 15;
    let sum = 0;
    for (let at = start; at < start + CHECKSUM_BYTES / 2; at++) sum += halves[at] as number;
    sum = (sum & 0xffff) + (sum >>> 16);
    total += (sum & 0xffff) + (sum >>> 16);
  }
  return total;
}
