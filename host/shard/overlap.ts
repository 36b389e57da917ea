/**
 * How many nodes the shards of two tenants share, when both are drawn at random: the
 * hypergeometric distribution P(o) = C(k, o) C(n - k, k - o) / C(n, k), zone by zone. Exact.
 *
 * Also the most shards that there can be with a maximum overlap of t - 1. A set of t nodes may then
 * stand in one shard only, and so the Johnson bound limits them (S. M. Johnson, 1962):
 * floor(n / k * floor((n - 1) / (k - 1) * ... floor((n - t + 1) / (k - t + 1)))).
 */
import { choose } from "./exact.ts";
import { checkedLattice, type Lattice } from "./lattice.ts";

export interface OverlapTable {
  /** Ways to choose a shard; the denominator of every probability. */
  shardCount: bigint;
  /** By overlap, 0 to the shard's size: how many shards share exactly so many nodes with a given one. */
  ways: bigint[];
}

/** @throws TypeError or RangeError that names what is no lattice */
export function overlapTable(lattice: Lattice): OverlapTable {
  const { zoneSizes, perZone } = checkedLattice(lattice);
  let ways = [1n];
  let shardCount = 1n;
  for (const size of zoneSizes) {
    shardCount *= choose(size, perZone);
    const next = new Array<bigint>(ways.length + perZone).fill(0n);
    for (const [already, count] of ways.entries()) {
      for (let more = 0; more <= perZone; more++) {
        const factor = choose(perZone, more) * choose(size - perZone, perZone - more);
        next[already + more] = (next[already + more] as bigint) + count * factor;
      }
    }
    ways = next;
  }
  return { shardCount, ways };
}

/** The table once overlaps above `overlapMax` are forbidden: what is left, over what is left. */
export function conditioned(table: OverlapTable, overlapMax: number): OverlapTable {
  const ways = table.ways.map((count, overlap) => (overlap > overlapMax ? 0n : count));
  return { ways, shardCount: ways.reduce((sum, count) => sum + count, 0n) };
}

/**
 * No more shards than this can have pairwise overlaps of at most `overlapMax`. Without zones it is
 * the Johnson bound; with zones the scarcest kind of fragment limits, kind by kind.
 * @throws TypeError or RangeError that names what is no lattice
 */
export function shardCountBound(lattice: Lattice, overlapMax: number): bigint {
  const { zoneSizes, perZone, nodeCount, shardSize } = checkedLattice(lattice);
  const fragmentSize = overlapMax + 1;
  if (fragmentSize > shardSize) return overlapTable(lattice).shardCount;
  if (zoneSizes.length === 1) {
    let bound = 1n;
    for (let step = fragmentSize - 1; step >= 0; step--) {
      bound = (bound * BigInt(nodeCount - step)) / BigInt(shardSize - step);
    }
    return bound;
  }
  // A kind says how many nodes of a fragment lie in each zone.
  let kinds = [{ left: fragmentSize, there: 1n, taken: 1n }];
  for (const size of zoneSizes) {
    kinds = kinds.flatMap(({ left, there, taken }) =>
      Array.from({ length: Math.min(left, perZone) + 1 }, (_, part) => ({
        left: left - part,
        there: there * choose(size, part),
        taken: taken * choose(perZone, part),
      })),
    );
  }
  const bounds = kinds.filter(({ left }) => left === 0).map(({ there, taken }) => there / taken);
  return bounds.reduce((least, bound) => (bound < least ? bound : least));
}
