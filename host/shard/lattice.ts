/**
 * Lattice: the nodes of a fleet, zone by zone. A shard takes the same number of nodes from every
 * zone, so that the loss of a zone costs each tenant the same share of its nodes. A fleet without
 * zones is one zone.
 *
 * Nodes are numbered through, zone after zone; a shard is a list of numbers, ascending.
 */
import { listOf, shown, wholeNumber } from "../engine/check.ts";

export const NODE_COUNT_MAX = 65_536;
export const SHARD_SIZE_MAX = 64;

export interface Lattice {
  /** Nodes in each zone. */
  readonly zoneSizes: readonly number[];
  /** Nodes that a shard takes from each zone. */
  readonly perZone: number;
  /** Nodes in all. */
  readonly nodeCount: number;
  /** Nodes of a shard. */
  readonly shardSize: number;
}

/** Nodes of one shard by number, ascending. */
export type Shard = readonly number[];

/**
 * A fleet of `nodes` nodes in `zones` zones, as equal as may be: the first zones have one more.
 * @throws RangeError that names the value and its range
 */
export function latticeOf(nodes: number, size: number, zones = 1): Lattice {
  const nodeCount = wholeNumber("nodes", nodes, 1, NODE_COUNT_MAX);
  const shardSize = wholeNumber("size", size, 1, Math.min(nodeCount, SHARD_SIZE_MAX));
  const zoneCount = wholeNumber("zones", zones, 1, shardSize);
  if (shardSize % zoneCount !== 0) {
    throw new RangeError(`size: ${shardSize} is not a multiple of the ${zoneCount} zones`);
  }
  const zoneSizes = Array.from({ length: zoneCount }, (_, zone) =>
    Math.floor((nodeCount + zoneCount - 1 - zone) / zoneCount),
  );
  const perZone = shardSize / zoneCount;
  const least = zoneSizes.at(-1) as number;
  if (least < perZone) {
    throw new RangeError(`size: ${perZone} nodes from each zone, but one has only ${least}`);
  }
  return { zoneSizes, perZone, nodeCount, shardSize };
}

/** `lattice` as it is, which need not come from latticeOf. @throws TypeError or RangeError */
export function checkedLattice(lattice: Lattice): Lattice {
  if (typeof lattice !== "object" || lattice === null) {
    throw new TypeError(`lattice: ${shown(lattice)} is not one as of latticeOf`);
  }
  const { zoneSizes, perZone, nodeCount, shardSize } = lattice;
  wholeNumber("lattice.perZone", perZone, 1, SHARD_SIZE_MAX);
  for (const [zone, size] of listOf("lattice.zoneSizes", zoneSizes).entries()) {
    wholeNumber(`lattice.zoneSizes[${zone}]`, size, perZone, NODE_COUNT_MAX);
  }
  wholeNumber("lattice.nodeCount", nodeCount, 1, NODE_COUNT_MAX);
  wholeNumber("lattice.shardSize", shardSize, 1, SHARD_SIZE_MAX);
  return lattice;
}

/** Number of the first node of every zone. */
export function zoneStarts({ zoneSizes }: Lattice): number[] {
  let start = 0;
  return zoneSizes.map((size) => {
    start += size;
    return start - size;
  });
}

/** How many nodes two shards share. */
export function overlapOf(one: Shard, other: Shard): number {
  let shared = 0;
  let at = 0;
  for (const node of one) {
    while (at < other.length && (other[at] as number) < node) at++;
    if (other[at] === node) shared++;
  }
  return shared;
}
