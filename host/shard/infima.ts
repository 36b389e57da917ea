/**
 * Shards as Infima gives them (github.com/awslabs/route53-infima, SimpleSignatureShuffleSharder),
 * for fleets that have to agree with it: MD5 of the seed in decimal and of the tenant's name, its
 * first 8 bytes little-endian as the seed of java.util.Random, with which Collections.shuffle
 * shuffles first the values of every dimension and then the endpoints of every chosen cell.
 *
 * With one dimension (zones) every cell gives endpoints; with more, as many cells as the smallest
 * dimension has values, on a diagonal, so that no value is used twice. Infima keeps the values of a
 * dimension in a hash set of Java, whose order is nobody's promise; here they stand as given.
 */
import { createHash } from "node:crypto";
import { listOf, shown } from "../engine/check.ts";

/** Endpoints by cell; a cell is one value for each dimension, joined by "/". */
export interface InfimaLattice {
  /** Values of each dimension. */
  dimensions: readonly (readonly string[])[];
  cells: ReadonlyMap<string, readonly string[]>;
}

/** A lattice of one cell. */
export function singleCell(endpoints: readonly string[]): InfimaLattice {
  return { dimensions: [["cell"]], cells: new Map([["cell", endpoints]]) };
}

/**
 * The tenant's endpoints in the order in which Infima gives them.
 * @throws RangeError when a chosen cell has fewer endpoints than `perCell`, TypeError when the lattice
 * or the seed is none
 */
export function infimaShard(
  lattice: InfimaLattice,
  seed: bigint,
  tenant: string,
  perCell: number,
): string[] {
  const cells: unknown = lattice?.cells;
  if (!(cells instanceof Map)) throw new TypeError(`lattice.cells: ${shown(cells)} is not a Map`);
  listOf("lattice.dimensions", lattice.dimensions);
  if (typeof seed !== "bigint") throw new TypeError(`seed: ${shown(seed)} is not a bigint`);
  const digest = createHash("md5").update(seed.toString()).update(tenant, "utf8").digest();
  const random = new JavaRandom(digest.readBigInt64LE());
  const values = lattice.dimensions.map((names) => random.shuffle(names.slice()));
  const cellCount = Math.min(...values.map((names) => names.length));
  const shard: string[] = [];
  for (let at = 0; at < cellCount; at++) {
    const cell = values.map((names) => names[at]).join("/");
    const endpoints = lattice.cells.get(cell) ?? [];
    if (endpoints.length < perCell) {
      throw new RangeError(`cell ${cell}: ${endpoints.length} endpoints are fewer than ${perCell}`);
    }
    shard.push(...random.shuffle(endpoints.slice()).slice(0, perCell));
  }
  return shard;
}

/** java.util.Random as its documentation defines it: a linear congruence modulo 2^48. */
export class JavaRandom {
  #state: bigint;

  constructor(seed: bigint) {
    this.#state = BigInt.asUintN(48, seed ^ 0x5deece66dn);
  }

  /** Collections.shuffle: from the end, each with one that is not behind it. */
  shuffle<T>(items: T[]): T[] {
    for (let count = items.length; count > 1; count--) {
      const other = this.nextInt(count);
      const item = items[count - 1] as T;
      items[count - 1] = items[other] as T;
      items[other] = item;
    }
    return items;
  }

  /** From 0 to `bound - 1`. */
  nextInt(bound: number): number {
    if ((bound & -bound) === bound) return Number((BigInt(bound) * BigInt(this.#next31())) >> 31n);
    for (;;) {
      const bits = this.#next31();
      const value = bits % bound;
      // In 32-bit arithmetic the sum overflows for the last, incomplete stretch of values.
      if (bits - value + (bound - 1) < 2 ** 31) return value;
    }
  }

  #next31(): number {
    this.#state = BigInt.asUintN(48, this.#state * 0x5deece66dn + 0xbn);
    return Number(this.#state >> 17n);
  }
}
