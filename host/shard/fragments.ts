/**
 * Fragments: the sets of t nodes that a shard contains. Two shards overlap in fewer than t nodes if
 * and only if they have no fragment in common, so a packing is a set of fragments that are taken.
 *
 * A fragment is known by its rank among all ascending t-sets, the sum of C(node_i, i + 1).
 */

export class Fragments {
  /** Nodes of a fragment. */
  readonly size: number;
  /** How many there are over all nodes. */
  readonly count: number;
  /** C(node, i + 1) under `node * size + i`. */
  readonly #binomials: Float64Array;

  constructor(nodeCount: number, size: number) {
    this.size = size;
    this.#binomials = new Float64Array(nodeCount * size);
    for (let node = 1; node < nodeCount; node++) {
      for (let index = 0; index < size; index++) {
        const below = (node - 1) * size + index;
        // Pascal's rule; C(node, 1) = node.
        const left = index === 0 ? 1 : (this.#binomials[below - 1] as number);
        this.#binomials[node * size + index] = left + (this.#binomials[below] as number);
      }
    }
    this.count = choose(nodeCount, size);
  }

  /** Rank of the fragment whose nodes stand ascending in `nodes`. */
  rank(nodes: ArrayLike<number>): number {
    let rank = 0;
    for (let index = 0; index < this.size; index++) {
      rank += this.#binomials[(nodes[index] as number) * this.size + index] as number;
    }
    return rank;
  }

  /** Rank of the fragment that `shard` has at the places that `pick` names, both ascending. */
  rankIn(shard: ArrayLike<number>, pick: readonly number[]): number {
    let rank = 0;
    for (let index = 0; index < this.size; index++) {
      const node = shard[pick[index] as number] as number;
      rank += this.#binomials[node * this.size + index] as number;
    }
    return rank;
  }
}

/** C(n, k) as a number: exact below 2^53, good enough for comparing with limits above. */
export function choose(n: number, k: number): number {
  let product = 1;
  for (let index = 0; index < k; index++) product = (product * (n - index)) / (index + 1);
  return Math.round(product);
}

/** All ascending lists of `size` different numbers from 0 to `count - 1`. */
export function* subsets(count: number, size: number): Generator<number[]> {
  const subset = Array.from({ length: size }, (_, index) => index);
  while (size <= count) {
    yield subset.slice();
    let at = size - 1;
    while (at >= 0 && subset[at] === count - size + at) at--;
    if (at < 0) return;
    const next = (subset[at] as number) + 1;
    for (let index = at; index < size; index++) subset[index] = next + index - at;
  }
}
