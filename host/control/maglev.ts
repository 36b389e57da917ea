/**
 * Maglev consistent hashing (Eisenbud et al., NSDI '16, section 3.4): a lookup table in which every
 * target holds nearly the same number of entries, and in which few entries change when targets do.
 *
 * Targets take turns; each takes the next free entry of its own permutation of the table, which its
 * name gives. A target of weight w gets w turns for every turn of a target of weight 1.
 */

/** Default table size: a prime at least 100 times the number of targets keeps shares within 1 %. */
export const RING_SIZE = 65537;

/** An entry that nobody has taken. */
const FREE = 0xffff;

/** What decides a target's permutation: its first entry and the step to the next. */
export interface Permutation {
  offset: number;
  skip: number;
}

export interface RingTarget {
  /** Stable identity, such as "10.0.0.1:80"; equal names get equal permutations. */
  name: string;
  /** 0 to 999; 0 takes no entries. */
  weight: number;
}

/** The permutation of a target name in a table of `size` entries (a prime). */
export function permutationOf(name: string, size: number): Permutation {
  return {
    offset: hashName(name, 0x2545f491) % size,
    skip: (hashName(name, 0x9e3779b9) % (size - 1)) + 1,
  };
}

/**
 * Builds the table: entry -> index of a target. Empty when no target has a weight.
 * @throws RangeError when there are more targets than entries or than 65,535.
 */
export function buildRing(targets: readonly RingTarget[], size = RING_SIZE): Uint16Array {
  const permutations = targets.map((target) => permutationOf(target.name, size));
  return fillRing(
    permutations,
    targets.map((target) => target.weight),
    size,
  );
}

/** Fills a table from given permutations and weights. */
export function fillRing(
  permutations: readonly Permutation[],
  weights: readonly number[],
  size: number,
): Uint16Array {
  const weightMax = Math.max(0, ...weights);
  if (weightMax === 0) return new Uint16Array(0);
  const count = permutations.length;
  if (count > size || count > FREE) {
    throw new RangeError(`maglev: ${count} targets do not fit a table of ${size} entries`);
  }
  const ring = new Uint16Array(size).fill(FREE);
  const entries = Int32Array.from(permutations, ({ offset }) => offset);
  const steps = Int32Array.from(permutations, ({ skip }) => skip - size);
  const shares = Float64Array.from(weights, (weight) => weight / weightMax);
  const turns = new Float64Array(count);
  let filled = 0;
  while (filled < size) {
    for (let target = 0; target < count && filled < size; target++) {
      const turn = (turns[target] as number) + (shares[target] as number);
      turns[target] = turn < 1 ? turn : turn - 1;
      if (turn < 1) continue;
      const step = steps[target] as number;
      let entry = entries[target] as number;
      // The remainder without a division, and without a branch to mispredict.
      while (ring[entry] !== FREE) {
        entry = (entry + step) | 0;
        entry = (entry + ((entry >> 31) & size)) | 0;
      }
      ring[entry] = target;
      entries[target] = entry;
      filled++;
    }
  }
  return ring;
}

/** 32-bit hash of a name (FNV-1a, then the finalizer of MurmurHash3), the same on every machine. */
function hashName(name: string, seed: number): number {
  let hash = seed | 0;
  for (let index = 0; index < name.length; index++) {
    hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
