/** The engine's checksum arithmetic, function by function, against the obvious way. */
import { readFileSync } from "node:fs";
import { instantiate } from "@assemblyscript/loader";
import fc from "fast-check";
import { expect, test } from "vitest";
import { onesSum } from "../fixtures/bytes.ts";
import * as slow from "./reference/checksum.ts";

interface Internals extends Record<string, unknown> {
  memory: WebAssembly.Memory;
  scratch: WebAssembly.Global;
  fold(sum: bigint): number;
  sumOf(start: number, bytes: number): bigint;
  deltaOf(before: bigint, after: bigint): number;
  inverse(delta: number): number;
  updated(checksum: number, delta: number): number;
  updatedUdp(checksum: number, delta: number): number;
}

const module = readFileSync(new URL("../build/internals.wasm", import.meta.url));
const { exports: engine } = await instantiate<Internals>(module);
const scratch = engine.scratch.value as number;
const memory = new Uint8Array(engine.memory.buffer);
const SCRATCH_BYTES = 16384;
const JUMBO_BYTES = 9002;
/** Sums are kept in the order of little-endian loads; the obvious way reads the other order. */
const swap = (word: number) => ((word & 0xff) << 8) | (word >>> 8);
const word = fc.integer({ min: 0, max: 0xffff });
const folded = fc.integer({ min: 0, max: 0xfffe });

test("a sum agrees with the obvious way for every length up to a jumbo frame", () => {
  const bytes = memory.subarray(scratch, scratch + SCRATCH_BYTES);
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  for (let length = 0; length <= JUMBO_BYTES; length++) {
    const start = length % 5;
    const sum = swap(engine.fold(engine.sumOf(scratch + start, length)));
    const expected = onesSum(bytes.subarray(start, start + length));
    if (sum !== expected) expect({ length, sum }).toEqual({ length, sum: expected });
  }
});

test("folding wraps every carry around, also those of the widest sum", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: (1n << 50n) - 1n }), (sum) => {
      const remainder = Number(sum % 0xffffn);
      const expected = remainder === 0 && sum > 0n ? 0xffff : remainder;
      expect(engine.fold(sum)).toBe(expected);
    }),
  );
});

test("a delta is the difference of two sums, and its inverse undoes it", () => {
  fc.assert(
    fc.property(word, word, folded, (before, after, checksum) => {
      const delta = engine.deltaOf(BigInt(before), BigInt(after));
      expect(delta).toBeLessThan(0xffff);
      const there = engine.updated(checksum, delta);
      const back = engine.updated(there, engine.inverse(delta));
      // 0 and ffff are the same number in one's complement.
      expect(back % 0xffff).toBe(checksum % 0xffff);
    }),
  );
});

test("an update is equation 3 of RFC 1624, and UDP keeps its zero", () => {
  fc.assert(
    fc.property(word, folded, (checksum, delta) => {
      expect(engine.updated(checksum, delta)).toBe(slow.updated(checksum, delta));
      expect(engine.updatedUdp(checksum, delta)).toBe(slow.updatedUdp(checksum, delta));
    }),
  );
  expect(engine.updatedUdp(0, 0x1234)).toBe(0);
});
