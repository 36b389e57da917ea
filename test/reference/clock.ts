/**
 * The engine's clock as it is defined: it goes as the host's does, a pause of more than 12.4 days (2^30
 * ms) counts as one of that length, either way, and 32 bits of it are shown.
 */
export function clockWords(instantsMs: readonly number[]): number[] {
  const longest = 1n << 30n;
  let before: bigint | undefined;
  let clock = 0n;
  return instantsMs.map((ms) => {
    const now = BigInt(ms);
    const step = now - (before ?? 0n);
    if (before === undefined) clock = now;
    else if (step > longest) clock += longest;
    else if (step < -longest) clock -= longest;
    else clock += step;
    before = now;
    return Number(BigInt.asUintN(32, clock));
  });
}
