/**
 * Packing: shards of which no two share more than `overlapMax` nodes. What a new shard may not
 * contain is remembered by fragments (sets of overlapMax + 1 nodes), so that adding one costs the
 * same whether there are ten others or ten thousand.
 *
 * Every shard has its full size and takes its full number of nodes from every zone, or is not added.
 */
import { Fragments, subsets } from "./fragments.ts";
import { type Lattice, type Shard, zoneStarts } from "./lattice.ts";
import type { KeyedRandom } from "./random.ts";

/** Above this, fragments are remembered in a set that grows with the shards, not in a bit each. */
const BITMAP_COUNT_MAX = 2 ** 27;

export class Packing {
  readonly lattice: Lattice;
  readonly overlapMax: number;
  readonly shards: Shard[] = [];
  readonly #fragments: Fragments;
  readonly #picks: readonly number[][];
  readonly #bits: Uint8Array | undefined;
  readonly #set = new Set<number>();
  /** Zone of each node. */
  readonly #zones: Uint16Array;

  constructor(lattice: Lattice, overlapMax: number) {
    this.lattice = lattice;
    this.overlapMax = overlapMax;
    const size = overlapMax + 1;
    this.#fragments = new Fragments(lattice.nodeCount, size);
    this.#picks = [...subsets(lattice.shardSize, size)];
    const { count } = this.#fragments;
    if (count <= BITMAP_COUNT_MAX) this.#bits = new Uint8Array((count >> 3) + 1);
    this.#zones = new Uint16Array(lattice.nodeCount);
    for (const [zone, start] of zoneStarts(lattice).entries()) this.#zones.fill(zone, start);
  }

  /** Adds a shard, its nodes ascending, unless it shares too many nodes with one that is there. */
  add(shard: Shard): boolean {
    const ranks = this.#picks.map((pick) => this.#fragments.rankIn(shard, pick));
    if (!this.#isWhole(shard) || ranks.some((rank) => this.#isTaken(rank))) return false;
    for (const rank of ranks) this.#take(rank);
    this.shards.push(shard);
    return true;
  }

  /**
   * Adds shards until none fits any more, in an order that `random` gives, looking at `stepsMax`
   * partial shards at the most. Returns whether it came to the end: then the packing is maximal.
   */
  complete(random: KeyedRandom, stepsMax: number): boolean {
    const { nodeCount } = this.lattice;
    const order = random.draw(
      Array.from({ length: nodeCount }, (_, node) => node),
      nodeCount,
    );
    const search = { order, chosen: [], perZone: new Uint16Array(nodeCount), steps: stepsMax };
    this.#extend(search, 0);
    return search.steps > 0;
  }

  /** Tries every node from `from` on as the next of the chosen; true when a shard was added. */
  #extend(search: Search, from: number): boolean {
    const { order, chosen, perZone } = search;
    if (chosen.length === this.lattice.shardSize) {
      return this.add(chosen.toSorted((a, b) => a - b));
    }
    let hasAdded = false;
    for (let at = from; at < order.length && search.steps > 0; at++) {
      const node = order[at] as number;
      const zone = this.#zones[node] as number;
      if ((perZone[zone] as number) === this.lattice.perZone || !this.#fits(chosen, node)) continue;
      search.steps--;
      chosen.push(node);
      perZone[zone] = (perZone[zone] as number) + 1;
      hasAdded = this.#extend(search, at + 1) || hasAdded;
      perZone[zone] = (perZone[zone] as number) - 1;
      chosen.pop();
      // What is chosen stands in the new shard now: nothing else may contain it.
      if (hasAdded && chosen.length >= this.#fragments.size) return true;
    }
    return hasAdded;
  }

  /** Whether all fragments that `node` would make with those chosen are free. */
  #fits(chosen: readonly number[], node: number): boolean {
    const others = this.#fragments.size - 1;
    if (chosen.length < others) return true;
    for (const pick of picksOf(chosen.length, others)) {
      const fragment = [node];
      for (const index of pick) fragment.push(chosen[index] as number);
      if (this.#isTaken(this.#fragments.rank(fragment.sort((a, b) => a - b)))) return false;
    }
    return true;
  }

  #isWhole(shard: Shard): boolean {
    const { shardSize, zoneSizes, perZone } = this.lattice;
    const isAscending = shard.every((node, at) => at === 0 || node > (shard[at - 1] as number));
    const counts = new Uint16Array(zoneSizes.length);
    for (const node of shard) {
      const zone = this.#zones[node] as number;
      counts[zone] = (counts[zone] as number) + 1;
    }
    return shard.length === shardSize && isAscending && counts.every((count) => count === perZone);
  }

  #isTaken(rank: number): boolean {
    if (!this.#bits) return this.#set.has(rank);
    return ((this.#bits[Math.floor(rank / 8)] as number) & (1 << (rank % 8))) !== 0;
  }

  #take(rank: number): void {
    if (!this.#bits) this.#set.add(rank);
    else
      this.#bits[Math.floor(rank / 8)] =
        (this.#bits[Math.floor(rank / 8)] as number) | (1 << (rank % 8));
  }
}

interface Search {
  /** All nodes, in the order in which they are tried. */
  order: readonly number[];
  chosen: number[];
  /** Nodes chosen by zone. */
  perZone: Uint16Array;
  /** Partial shards that may still be looked at. */
  steps: number;
}

const picks = new Map<number, readonly number[][]>();

/** All ways to pick `size` of `count` places, made once. */
function picksOf(count: number, size: number): readonly number[][] {
  const key = count * 128 + size;
  const known = picks.get(key) ?? [...subsets(count, size)];
  picks.set(key, known);
  return known;
}
