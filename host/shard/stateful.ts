/**
 * The stateful sharder: no two tenants share more than `overlapMax` nodes, ever. It makes its
 * packing at the start, as large as it can, and then gives tenants a shard each in an order that
 * the secret shuffles. The same secret and the same calls give the same shards on every machine.
 *
 * When all shards are given away `assign` refuses; a shard that is given back can be given again.
 * What must survive a restart is `assignments()`: pass it to the constructor of the next one.
 */
import { options, wholeNumber } from "../engine/check.ts";
import { FlowplaneError } from "../errors.ts";
import { choose } from "./fragments.ts";
import { keyedShard } from "./keyed.ts";
import { type Lattice, latticeOf, type Shard } from "./lattice.ts";
import { symmetricShards } from "./orbits.ts";
import { shardCountBound } from "./overlap.ts";
import { Packing } from "./packing.ts";
import { KeyedRandom } from "./random.ts";

/** No shard is left for another tenant: all are given away. */
export class NoShardLeft extends FlowplaneError {}

export interface StatefulSharderOptions {
  /** Nodes of the fleet, 1 to 65,536. */
  nodes: number;
  /** Nodes of a shard, 1 to 64 and no more than there are. */
  size: number;
  /** Most nodes that two shards may share, 0 to `size - 1`. */
  overlapMax: number;
  /** Zones of the fleet, from each of which a shard takes the same number; default 1. */
  zones?: number;
  /** Whoever knows it can foresee every shard. */
  secret: string | Uint8Array;
  /** Shards that earlier calls gave away, by tenant; they stay with their tenants. */
  assignments?: Iterable<readonly [tenant: string, shard: Shard]>;
}

const NAMES = { nodes: 0, size: 0, overlapMax: 0, zones: 0, secret: 0, assignments: 0 };
/** Partial shards that filling the packing up looks at: seconds at the most. */
const STEPS_MAX = 1_000_000;
/** Draws for one tenant before a packing that is filled as tenants come counts as full. */
const DRAWS_MAX = 2000;
/** More shards than this are not made beforehand. */
const MADE_MAX = 200_000;

export class StatefulSharder {
  readonly lattice: Lattice;
  readonly overlapMax: number;
  /** Whether nothing could be added to the packing. */
  readonly isMaximal: boolean;
  readonly #packing: Packing;
  readonly #secret: string | Uint8Array;
  readonly #given = new Map<string, Shard>();
  /** Shards of the packing that nobody has, the next one last. */
  readonly #free: Shard[];

  /** @throws RangeError for a value out of range, or assignments that overlap too much */
  constructor(given: StatefulSharderOptions) {
    const { nodes, size, overlapMax, zones, secret, assignments = [] } = options("", given, NAMES);
    this.lattice = latticeOf(nodes, size, zones);
    this.overlapMax = wholeNumber("overlapMax", overlapMax, 0, size - 1);
    if (choose(this.lattice.nodeCount, overlapMax + 1) > Number.MAX_SAFE_INTEGER) {
      throw new RangeError(`overlapMax: ${overlapMax} of ${nodes} nodes has too many fragments`);
    }
    this.#secret = secret;
    this.#packing = new Packing(this.lattice, this.overlapMax);
    for (const [tenant, shard] of assignments) {
      if (this.#given.has(tenant) || !this.#packing.add(shard)) {
        throw new RangeError(`assignments: the shard of "${tenant}" is none that can be had`);
      }
      this.#given.set(tenant, shard);
    }
    const random = new KeyedRandom(secret, "packing");
    for (const shard of symmetricShards(this.lattice, this.overlapMax, random)) {
      this.#packing.add(shard);
    }
    // A packing that is far too large to be made beforehand is filled as tenants come.
    this.isMaximal = this.#isSmall() && this.#packing.complete(random, STEPS_MAX);
    this.#free = this.#packing.shards.slice(this.#given.size);
    random.draw(this.#free, this.#free.length);
  }

  /** Shards in the packing: as many tenants can be served at least. */
  get shardCount(): number {
    return this.#packing.shards.length;
  }

  /** All shards of the packing, given away or not. */
  shards(): readonly Shard[] {
    return this.#packing.shards;
  }

  /** The tenant's shard, the same one every time. @throws {NoShardLeft} */
  assign(tenant: string): Shard {
    const shard = this.#given.get(tenant) ?? this.#free.pop() ?? this.#found(tenant);
    if (!shard) {
      const { nodeCount, shardSize } = this.lattice;
      throw new NoShardLeft(
        `shard: ${this.#given.size} tenants have all shards of ${shardSize} of ${nodeCount} nodes ` +
          `with overlaps of at most ${this.overlapMax}`,
      );
    }
    this.#given.set(tenant, shard);
    return shard;
  }

  /** Takes the tenant's shard back; false when it has none. */
  release(tenant: string): boolean {
    const shard = this.#given.get(tenant);
    if (!shard) return false;
    this.#given.delete(tenant);
    this.#free.push(shard);
    return true;
  }

  /** Who has which shard, in the order in which they were given. */
  assignments(): IterableIterator<[tenant: string, shard: Shard]> {
    return this.#given.entries();
  }

  #isSmall(): boolean {
    const { nodeCount, shardSize } = this.lattice;
    const room = shardCountBound(this.lattice, this.overlapMax);
    return room <= MADE_MAX && nodeCount <= 1024 && shardSize <= 16;
  }

  /** A shard that fits those that are there, drawn for the tenant; undefined after many draws. */
  #found(tenant: string): Shard | undefined {
    if (this.isMaximal) return undefined;
    for (let draw = 0; draw < DRAWS_MAX; draw++) {
      const shard = keyedShard(this.lattice, this.#secret, `${draw}:${tenant}`);
      if (this.#packing.add(shard)) return shard;
    }
    return undefined;
  }
}
