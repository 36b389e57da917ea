/**
 * PROXY protocol v2 the obvious way: a header is put together from lists of bytes, and read field
 * by field as the specification's text goes. Bit by bit CRC32C. Slow, and shares nothing with the
 * engine.
 */

export interface SlowTlv {
  type: number;
  value: number[];
}

export const SIGNATURE = [...Buffer.from("0d0a0d0a000d0a515549540a", "hex")];
const ADDRESS_BYTES = [0, 12, 36, 216];
const EXPECTED = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32];

/** RFC 3720 appendix B.4, one bit at a time. */
export function crc32c(bytes: readonly number[]): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
  }
  return ~sum >>> 0;
}

const be16 = (value: number) => [value >> 8, value & 0xff];
const be32 = (value: number) => [...be16(value >>> 16), ...be16(value & 0xffff)];

/** A header with these address bytes and TLVs; the CRC32C comes first, the padding last. */
export function write(
  versionCommand: number,
  family: number,
  addresses: readonly number[],
  tlvs: readonly SlowTlv[],
  padTo: number,
  hasCrc: boolean,
): number[] {
  const all = [...(hasCrc ? [{ type: 3, value: [0, 0, 0, 0] }] : []), ...tlvs];
  const parts = all.flatMap(({ type, value }) => [type, ...be16(value.length), ...value]);
  const missing = padTo - 16 - addresses.length - parts.length;
  if (missing >= 3) parts.push(4, ...be16(missing - 3), ...Array(missing - 3).fill(0));
  const length = addresses.length + parts.length;
  const header = [...SIGNATURE, versionCommand, family, ...be16(length), ...addresses, ...parts];
  if (hasCrc) header.splice(16 + addresses.length + 3, 4, ...be32(crc32c(header)));
  return header;
}

export type SlowHeader =
  | { bytes: number; command: number; family: number; tlvs: SlowTlv[]; crc?: number }
  | { wrongAt: number };

/** A TLV chain, or the byte at which it is none. */
type Chain = { tlvs: SlowTlv[]; crc?: number } | { wrongAt: number; isCrc?: boolean };

export function read(given: readonly number[]): SlowHeader {
  const differs = SIGNATURE.findIndex((byte, i) => i < given.length && given[i] !== byte);
  if (differs >= 0) return { wrongAt: differs };
  if (given.length < 16) return { wrongAt: given.length };
  const [versionCommand = 0, family = 0, high = 0, low = 0] = given.slice(12);
  if (versionCommand >> 4 !== 2) return { wrongAt: 12 };
  const command = versionCommand & 15;
  if (command > 1) return { wrongAt: 12 };
  const bytes = 16 + high * 256 + low;
  if (given.length < bytes) return { wrongAt: given.length };
  const header = given.slice(0, bytes);
  if (command === 0) return readLocal(header, family);
  if (!EXPECTED.includes(family)) return { wrongAt: 13 };
  const start = 16 + (ADDRESS_BYTES[family >> 4] ?? 0);
  if (start > bytes) return { wrongAt: 14 };
  const chain = chainOf(header, start);
  return "wrongAt" in chain ? { wrongAt: chain.wrongAt } : { bytes, command, family, ...chain };
}

function readLocal(header: readonly number[], family: number): SlowHeader {
  const facts = { bytes: header.length, command: 0, family };
  const atOnce = chainOf(header, 16);
  if ("isCrc" in atOnce && atOnce.isCrc) return { wrongAt: atOnce.wrongAt };
  if ("tlvs" in atOnce && atOnce.crc !== undefined) return { ...facts, ...atOnce };
  const start = 16 + (ADDRESS_BYTES[(family >> 4) & 3] ?? 0);
  if (start > 16 && start <= header.length) {
    const behind = chainOf(header, start);
    if ("isCrc" in behind && behind.isCrc) return { wrongAt: behind.wrongAt };
    if ("tlvs" in behind) return { ...facts, ...behind };
  }
  return { ...facts, tlvs: "tlvs" in atOnce ? atOnce.tlvs : [] };
}

function chainOf(header: readonly number[], start: number): Chain {
  const tlvs: SlowTlv[] = [];
  let crcAt: number | undefined;
  for (let at = start; at < header.length; ) {
    const [type = 0, high = 0, low = 0] = header.slice(at);
    const length = high * 256 + low;
    if (at + 3 > header.length || at + 3 + length > header.length) return { wrongAt: at };
    const value = header.slice(at + 3, at + 3 + length);
    if (type === 3 && (length !== 4 || crcAt !== undefined)) return { wrongAt: at };
    if (type === 3) crcAt = at + 3;
    if (type === 2 && length > 255) return { wrongAt: at };
    if (type === 5 && length > 128) return { wrongAt: at };
    if (type === 0x20) {
      if (length < 5) return { wrongAt: at };
      const inner = subChainError(value);
      if (inner !== undefined) return { wrongAt: at + 3 + inner };
    }
    tlvs.push({ type, value });
    at += 3 + length;
  }
  if (crcAt === undefined) return { tlvs };
  const blank = [...header];
  blank.splice(crcAt, 4, 0, 0, 0, 0);
  const computed = crc32c(blank);
  if (be32(computed).join() !== header.slice(crcAt, crcAt + 4).join()) {
    return { wrongAt: crcAt, isCrc: true };
  }
  return { tlvs, crc: computed };
}

/** Byte of an SSL value at which its sub-TLVs are none. */
function subChainError(value: readonly number[]): number | undefined {
  for (let at = 5; at < value.length; ) {
    const next = at + 3 + (value[at + 1] ?? 0) * 256 + (value[at + 2] ?? 0);
    if (at + 3 > value.length || next > value.length) return at;
    at = next;
  }
  return undefined;
}
