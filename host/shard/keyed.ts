/**
 * The stateless sharder: a tenant's shard is a function of a secret and of the tenant's name. No
 * table to keep, no order to respect; overlaps are as the hypergeometric distribution has them, and
 * nobody who does not know the secret can choose a name that meets another tenant's nodes.
 */
import { checkedLattice, type Lattice, type Shard, zoneStarts } from "./lattice.ts";
import { KeyedRandom } from "./random.ts";

/**
 * The tenant's nodes, ascending: in every zone each choice is equally likely.
 * @throws TypeError or RangeError that names what is no lattice, or no secret
 */
export function keyedShard(lattice: Lattice, secret: string | Uint8Array, tenant: string): Shard {
  const starts = zoneStarts(checkedLattice(lattice));
  const random = new KeyedRandom(secret, `shard:${tenant}`);
  const shard = lattice.zoneSizes.flatMap((size, zone) =>
    distinctBelow(random, size, lattice.perZone).map((node) => node + (starts[zone] as number)),
  );
  return shard.sort((a, b) => a - b);
}

/** So many different numbers below `bound`, every set equally likely (Floyd's algorithm). */
function distinctBelow(random: KeyedRandom, bound: number, count: number): number[] {
  const chosen = new Set<number>();
  for (let top = bound - count; top < bound; top++) {
    const drawn = random.below(top + 1);
    chosen.add(chosen.has(drawn) ? top : drawn);
  }
  return [...chosen];
}
