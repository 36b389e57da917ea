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

/**
 * What a worker's frames show, and the capture's clock at them without bounds: from one of its own
 * frames to the next the worker's clock moves by what the capture's has, and 12.4 days at most.
 */
export function workerClocks(words: readonly number[], isOwn: readonly boolean[]) {
  const longest = 2 ** 30;
  let captureMs = 0;
  let clock = 0n;
  let ownMs = 0;
  return words.flatMap((word, i) => {
    captureMs += (word - (words[i - 1] ?? 0)) | 0;
    if (!isOwn[i]) return [];
    clock += BigInt(Math.min(Math.max(captureMs - ownMs, -longest), longest));
    ownMs = captureMs;
    return [{ timeMs: Number(BigInt.asUintN(32, clock)), captureMs }];
  });
}
