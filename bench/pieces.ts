/** The steps of a packet's way, each alone (tinybench): in WebAssembly, and in TypeScript beside. */
import { Bench } from "tinybench";
import type { PieceRow } from "./result.ts";
import { Traffic } from "./traffic.ts";
import { hashWords, PARSED_PROTOCOL, PARSED_WORDS, TypedTwin, updatedSum } from "./twin-typed.ts";

const FLOWS = 1000;
const PACKETS = 256;
const CHECKSUM_BYTES = 1460;
const BATCH = 128;
/** The pool's address as the typed twin loads it. */
const NAT_WORD = 0x017100cb;

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
  const typed = typedSteps(traffic);
  const before = framesOf(traffic);
  const pieces = piecesOf(traffic, typed, rounds);
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

interface TypedSteps {
  parse(rounds: number): number;
  lookUp(rounds: number): number;
  rewrite(rounds: number): void;
}

/** The steps of the typed twin over the same frames and as many flows. */
function typedSteps(traffic: Traffic): TypedSteps {
  const { engine } = traffic;
  const twin = new TypedTwin(engine.bytes, engine.descriptors, NAT_WORD, FLOWS * 2);
  const kept = engine.bytes.slice(engine.arena.address, engine.arena.address + 192 * PACKETS);
  const descriptors = engine.descriptors.slice();
  for (let first = 0; first < FLOWS; first += BATCH) {
    traffic.generateNew(BATCH, first);
    twin.process(BATCH);
  }
  engine.bytes.set(kept, engine.arena.address);
  engine.descriptors.set(descriptors);
  const parsed = new Int32Array(PACKETS * PARSED_WORDS);
  const records = new Int32Array(PACKETS);
  const each = (rounds: number, step: (index: number) => number) => {
    let sum = 0;
    for (let round = 0; round < rounds; round++) {
      for (let index = 0; index < PACKETS; index++) sum += step(index);
    }
    return sum;
  };
  const sideOf = (index: number) => (engine.descriptors[index * 8 + 3] as number) & 1;
  const parse = (index: number) => twin.parse(index * 8, parsed, index * PARSED_WORDS);
  const lookUp = (index: number) => twin.lookUp(parsed, index * PARSED_WORDS, sideOf(index));
  const rewrite = (index: number) => {
    const half = (engine.descriptors[index * 8] as number) >>> 1;
    const protocol = parsed[index * PARSED_WORDS + PARSED_PROTOCOL] as number;
    const record = records[index] as number;
    const side = sideOf(index);
    twin.rewrite(half, record, side, side, protocol);
    twin.rewrite(half, record, side ^ 1, side, protocol);
    return 0;
  };
  if (each(1, parse) !== 0) throw new Error("bench: the typed twin cannot parse a frame");
  for (let index = 0; index < PACKETS; index++) records[index] = lookUp(index);
  if (records.some((record) => record < 0)) throw new Error("bench: the typed twin misses a flow");
  return {
    parse: (rounds) => each(rounds, parse),
    lookUp: (rounds) => each(rounds, lookUp),
    rewrite: (rounds) => void each(rounds, rewrite),
  };
}

function piecesOf({ bench, engine }: Traffic, typed: TypedSteps, rounds: number): Piece[] {
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
      typescript: () => typed.parse(rounds),
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
      typescript: () => typed.lookUp(rounds),
    },
    {
      name: "rewrite",
      unit: "packet",
      operations: operations * 2,
      wasm: () => bench.piecesRewrite(PACKETS, rounds),
      typescript: () => typed.rewrite(rounds),
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
