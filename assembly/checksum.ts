/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * Sums are kept in the byte order in which words are loaded: RFC 1071 section 2(B) shows that the
 * result only has to be stored back in the same order. No function here swaps.
 *
 * A *delta* is the folded one's complement sum of all (~before + after) of a change. It is what
 * RFC 1624 equation 3 adds to ~HC; the delta of the opposite change is its complement.
 */

/**
 * Folds a sum of 16-bit words to 16 bits, carries wrapped around: the upper half of a number and itself
 * with its halves exchanged is the sum of both halves, and the carry of the lower ones.
 */
export function fold(sum: u64): u32 {
  const half = <u32>((sum + rotl<u64>(sum, 32)) >> 32);
  return (half + rotl<u32>(half, 16)) >> 16;
}

/** Sum of `bytes` bytes at `start`, unfolded; an odd last byte is padded with zero. */
export function sumOf(start: usize, bytes: u32): u64 {
  let sum: u64 = 0;
  let position = start;
  const last = start + <usize>(bytes & ~3);
  while (position < last) {
    sum += load<u32>(position);
    position += 4;
  }
  if (bytes & 2) {
    sum += load<u16>(position);
    position += 2;
  }
  if (bytes & 1) sum += load<u8>(position);
  return sum;
}

/** Sum of a 16-byte address, unfolded. */
export function sumOf16(start: usize): u64 {
  return (
    <u64>load<u32>(start) +
    <u64>load<u32>(start, 4) +
    <u64>load<u32>(start, 8) +
    <u64>load<u32>(start, 12)
  );
}

/** A multiple of 0xffff, which is nothing to a one's complement sum, above all sums of 64 KiB. */
const NOTHING: u64 = 0xffff << 40;

/** Delta of a change from words summing to `before` to words summing to `after`; never 0xffff. */
export function deltaOf(before: u64, after: u64): u32 {
  const delta = fold(after + (NOTHING - before));
  return select<u32>(0, delta, delta == 0xffff);
}

/** Delta of the opposite change. */
export function inverse(delta: u32): u32 {
  return select<u32>(0, delta ^ 0xffff, delta == 0);
}

/** The checksum after a change: HC' = ~(~HC + delta) (RFC 1624 equation 3). */
export function updated(checksum: u32, delta: u32): u32 {
  const sum = (~checksum & 0xffff) + delta;
  return ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
}

/**
 * The UDP checksum after a change: zero means "none" and stays, and a computed zero is sent as
 * all ones (RFC 768).
 */
export function updatedUdp(checksum: u32, delta: u32): u32 {
  const after = updated(checksum, delta);
  return select<u32>(0, select<u32>(0xffff, after, after == 0), checksum == 0);
}
