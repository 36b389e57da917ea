/**
 * The lookup table of Maglev (Eisenbud et al., NSDI 2016, section 3.4), straight from the paper:
 * every backend has a permutation of the table's entries, `(offset + j * skip) mod M`, and the
 * backends take turns to claim their next entry that is still free.
 */

/** What the paper derives from a backend's name with two hash functions. */
export interface Preference {
  /** 0 to M - 1. */
  offset: number;
  /** 1 to M - 1. */
  skip: number;
}

/** All entries of a table of `size` (a prime) in the order in which a backend wishes for them. */
export function permutation({ offset, skip }: Preference, size: number): number[] {
  return Array.from({ length: size }, (_, j) => (offset + j * skip) % size);
}

/**
 * Table of `size` backend indices. With weights, a backend claims in a round only when its share of
 * rounds, its weight over the largest, has come to one.
 */
export function maglevTable(
  preferences: readonly Preference[],
  size: number,
  weights: readonly number[] = preferences.map(() => 1),
): number[] {
  const wishes = preferences.map((preference) => permutation(preference, size));
  const table: number[] = new Array(size).fill(-1);
  const turns = weights.map(() => 0);
  const weightMax = Math.max(...weights);
  for (let filled = 0; preferences.length > 0; ) {
    for (const [backend, list] of wishes.entries()) {
      turns[backend] = (turns[backend] as number) + (weights[backend] as number) / weightMax;
      if ((turns[backend] as number) < 1) continue;
      turns[backend] = (turns[backend] as number) - 1;
      let entry = list.shift();
      while (entry !== undefined && table[entry] !== -1) entry = list.shift();
      if (entry === undefined) return table;
      table[entry] = backend;
      if (++filled === size) return table;
    }
  }
  return table;
}
