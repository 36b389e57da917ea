/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624), the obvious way: one
 * 16-bit word after the other, most significant byte first, every carry brought back at once.
 */
import { addOnes, onesSum } from "../../fixtures/bytes.ts";

export { internetChecksum, onesSum } from "../../fixtures/bytes.ts";

/** The one's complement difference `after - before` of sums, 0 rather than 0xffff. */
export function difference(before: Uint8Array, after: Uint8Array): number {
  const sum = addOnes(0xffff - onesSum(before), onesSum(after));
  return sum === 0xffff ? 0 : sum;
}

/** HC' = ~(~HC + delta), RFC 1624 equation 3 with ~m + m' in `delta`. */
export function updated(checksum: number, delta: number): number {
  return 0xffff - addOnes(0xffff - checksum, delta);
}

/** The same for UDP: 0 is "no checksum" and stays, a computed 0 is written as 0xffff (RFC 768). */
export function updatedUdp(checksum: number, delta: number): number {
  if (checksum === 0) return 0;
  return updated(checksum, delta) || 0xffff;
}
