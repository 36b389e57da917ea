/**
 * Exact counting: binomial coefficients and shares as integers, and their decimal form. Floating
 * point would do for a picture, but a table that others compare with theirs must be right to the
 * last digit.
 */

/** C(n, k): how many k-subsets n things have; 0 when k is negative or above n. */
export function choose(n: number, k: number): bigint {
  if (k < 0 || k > n) return 0n;
  let product = 1n;
  const small = Math.min(k, n - k);
  for (let index = 1; index <= small; index++) {
    product = (product * BigInt(n - small + index)) / BigInt(index);
  }
  return product;
}

/**
 * `part / whole` in percent with so many significant digits, rounded half up from the exact value,
 * never with an exponent: 26.786, 0.0000013282. Trailing zeros stay; 0 and 100 stand alone.
 */
export function percent(part: bigint, whole: bigint, digits = 5): string {
  if (part === 0n) return "0";
  if (part === whole) return "100";
  // Whole digits before the point, or zeros behind it that do not count.
  let decimals = digits;
  while (decimals > 0 && part * 100n >= whole * 10n ** BigInt(digits - decimals)) decimals--;
  while (part * 100n * 10n ** BigInt(decimals) < whole * 10n ** BigInt(digits - 1)) decimals++;
  const scaled = (part * 200n * 10n ** BigInt(decimals) + whole) / (2n * whole);
  const text = scaled.toString().padStart(decimals + 1, "0");
  if (decimals === 0) return text;
  return `${text.slice(0, -decimals)}.${text.slice(-decimals)}`;
}

/** `part / whole` as the nearest number; good where a picture or a comparison is wanted. */
export function ratio(part: bigint, whole: bigint): number {
  if (part === 0n) return 0;
  // Both are cut to 60 significant bits above their difference in length, which a double can hold.
  const excess = BigInt(Math.max(0, bits(whole) - bits(part) + 60));
  return Number((part << excess) / whole) / 2 ** Number(excess);
}

function bits(value: bigint): number {
  return value.toString(2).length;
}
