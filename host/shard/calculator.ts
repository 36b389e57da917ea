/** The sharding calculator: from the numbers of a fleet to everything that `flowplane shard` shows. */
import { wholeNumber } from "../engine/check.ts";
import { type BlastRadius, blastRadius, plainShards } from "./blast.ts";
import { deckTables } from "./deck.ts";
import { percent } from "./exact.ts";
import { infimaShard, singleCell } from "./infima.ts";
import { keyedShard } from "./keyed.ts";
import { type Lattice, latticeOf, overlapOf, type Shard } from "./lattice.ts";
import { overlapTable, shardCountBound } from "./overlap.ts";
import { KeyedRandom } from "./random.ts";
import type { PackingResult, ShardResult } from "./result.ts";
import { StatefulSharder } from "./stateful.ts";

export interface ShardQuestion {
  nodes: number;
  size: number;
  zones: number;
  /** Asks for the stateful sharder. */
  overlapMax?: number | undefined;
  /** Asks for Infima's shards. */
  infimaSeed?: bigint | undefined;
  secret: string;
  /** Tenants whose nodes are asked for. */
  tenants: readonly string[];
  /** Tenants of the simulated attack, 2 to 1,000,000. */
  tenantCount: number;
  /** Adds the deck's tables. */
  wantsDeck?: boolean | undefined;
}

const TENANT_COUNT_MAX = 1_000_000;
const ATTACKS = 200;
const PAIRS_MAX = 500_000;

/** @throws RangeError that names the value and its range */
export function calculate(question: ShardQuestion): ShardResult {
  const { nodes, size, zones, secret, overlapMax, infimaSeed } = question;
  const lattice = latticeOf(nodes, size, zones);
  wholeNumber("tenantCount", question.tenantCount, 2, TENANT_COUNT_MAX);
  if (infimaSeed !== undefined && zones > 1) {
    throw new RangeError(`zones: ${zones} is not 1, all that Infima's shards have here`);
  }
  const { shardCount, ways } = overlapTable(lattice);
  const stateful =
    overlapMax === undefined
      ? undefined
      : new StatefulSharder({ nodes, size, zones, overlapMax, secret });
  const shardOf = sharder(lattice, question, stateful);
  return {
    schema: "flowplane.shard/1",
    nodes,
    size,
    zones,
    shardCount: shardCount.toString(),
    overlap: ways.map((count, overlap) => ({
      overlap,
      ways: count.toString(),
      percent: percent(count, shardCount),
    })),
    ...(stateful && { packing: packingResult(stateful, secret) }),
    sharder: stateful ? "stateful" : infimaSeed === undefined ? "stateless" : "infima",
    assignments: question.tenants.map((tenant) => ({ tenant, nodes: [...shardOf(tenant)] })),
    blast: blasts(lattice, question, stateful),
    ...(question.wantsDeck && { deck: deckTables() }),
  };
}

function sharder(
  lattice: Lattice,
  { infimaSeed, secret }: ShardQuestion,
  stateful: StatefulSharder | undefined,
): (tenant: string) => Shard {
  if (stateful) return (tenant) => stateful.assign(tenant);
  if (infimaSeed === undefined) return (tenant) => keyedShard(lattice, secret, tenant);
  // Infima's order is part of its answer.
  const cell = singleCell(Array.from({ length: lattice.nodeCount }, (_, node) => String(node)));
  return (tenant) => infimaShard(cell, infimaSeed, tenant, lattice.shardSize).map(Number);
}

function packingResult(stateful: StatefulSharder, secret: string): PackingResult {
  const shards = stateful.shards();
  const { nodeCount, shardSize } = stateful.lattice;
  const load = new Uint32Array(nodeCount);
  for (const shard of shards) for (const node of shard) load[node] = (load[node] as number) + 1;
  const pairsByOverlap = new Array<number>(shardSize + 1).fill(0);
  let pairs = 0;
  for (const [one, other] of pairsOf(shards, new KeyedRandom(secret, "pairs"))) {
    const overlap = overlapOf(one, other);
    pairsByOverlap[overlap] = (pairsByOverlap[overlap] as number) + 1;
    pairs++;
  }
  return {
    overlapMax: stateful.overlapMax,
    shards: shards.length,
    bound: shardCountBound(stateful.lattice, stateful.overlapMax).toString(),
    isMaximal: stateful.isMaximal,
    loadMin: Math.min(...load),
    loadMax: Math.max(...load),
    pairs,
    pairsByOverlap,
  };
}

/** All pairs of different shards, or a sample of them where they are many. */
function* pairsOf(shards: readonly Shard[], random: KeyedRandom): Generator<[Shard, Shard]> {
  const count = shards.length;
  if ((count * (count - 1)) / 2 <= PAIRS_MAX) {
    for (const [at, one] of shards.entries()) {
      for (let other = 0; other < at; other++) yield [one, shards[other] as Shard];
    }
    return;
  }
  for (let pair = 0; pair < PAIRS_MAX; pair++) {
    const one = random.below(count);
    const other = (one + 1 + random.below(count - 1)) % count;
    yield [shards[one] as Shard, shards[other] as Shard];
  }
}

/** Every placement under the same attack; the stateful one with as many tenants as it can have. */
function blasts(
  lattice: Lattice,
  { secret, tenantCount }: ShardQuestion,
  stateful: StatefulSharder | undefined,
): BlastRadius[] {
  const random = new KeyedRandom(secret, "blast");
  const attacks = Math.min(ATTACKS, tenantCount);
  const keyed = Array.from({ length: tenantCount }, (_, tenant) =>
    keyedShard(lattice, secret, `tenant-${tenant}`),
  );
  const plain = plainShards(lattice, tenantCount, random);
  const found = [
    blastRadius("plain", plain, attacks, random),
    blastRadius("shuffled", keyed, attacks, random),
  ];
  if (stateful) {
    const some = stateful.shards().slice(0, tenantCount);
    found.push(blastRadius("stateful", some, Math.min(attacks, some.length), random));
  }
  return found;
}
