/**
 * Blast radius: what becomes of the other tenants when one of them takes all its nodes with it, as
 * a poisonous request or a flood does. Compared over the same fleet:
 * fixed groups of nodes (plain sharding), and shuffle sharding.
 */
import { listOf } from "../engine/check.ts";
import { checkedLattice, type Lattice, overlapOf, type Shard } from "./lattice.ts";
import type { KeyedRandom } from "./random.ts";

export interface BlastRadius {
  placement: "plain" | "shuffled" | "stateful";
  /** Tenants that poisoned their nodes, one after the other. */
  attacks: number;
  /** Other tenants by how many of their nodes were lost, 0 to the shard's size, over all attacks. */
  tenantsByLoss: number[];
  /** Share of the other tenants that lost all nodes: mean over the attacks, and the worst attack. */
  deadMean: number;
  deadMax: number;
}

/** Lets `attacks` tenants, drawn at random, poison their nodes; every shard has the same size. */
export function blastRadius(
  placement: BlastRadius["placement"],
  shards: readonly Shard[],
  attacks: number,
  random: KeyedRandom,
): BlastRadius {
  const size = listOf("shards", shards)[0]?.length ?? 0;
  const tenantsByLoss = new Array<number>(size + 1).fill(0);
  const order = shards.map((_, tenant) => tenant);
  const attackers = random.draw(order, Math.min(attacks, shards.length));
  let dead = 0;
  let deadMax = 0;
  for (const attacker of attackers) {
    let deadHere = 0;
    for (const [tenant, shard] of shards.entries()) {
      if (tenant === attacker) continue;
      const lost = overlapOf(shards[attacker] as Shard, shard);
      tenantsByLoss[lost] = (tenantsByLoss[lost] as number) + 1;
      if (lost === size) deadHere++;
    }
    dead += deadHere;
    deadMax = Math.max(deadMax, deadHere);
  }
  const others = Math.max(1, shards.length - 1);
  return {
    placement,
    attacks: attackers.length,
    tenantsByLoss,
    deadMean: dead / (others * Math.max(1, attackers.length)),
    deadMax: deadMax / others,
  };
}

/** Plain sharding: the fleet cut into groups of a shard's size, each tenant in one of them. */
export function plainShards(lattice: Lattice, tenantCount: number, random: KeyedRandom): Shard[] {
  const { nodeCount, shardSize } = checkedLattice(lattice);
  const groupCount = Math.floor(nodeCount / shardSize);
  return Array.from({ length: tenantCount }, () => {
    const first = random.below(groupCount) * shardSize;
    return Array.from({ length: shardSize }, (_, node) => first + node);
  });
}
