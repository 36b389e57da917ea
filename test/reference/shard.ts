/**
 * Shuffle sharding the slow and obvious way: every shard that there is, pair by pair; Infima's
 * sharder after the documentation of java.util.Random, in halves of 24 bits instead of big integers.
 */
import { createHash } from "node:crypto";

/** Every shard of a fleet whose zones have these sizes, `perZone` nodes from each. */
export function allShards(zoneSizes: readonly number[], perZone: number): number[][] {
  let shards: number[][] = [[]];
  let start = 0;
  for (const size of zoneSizes) {
    const ways: number[][] = [];
    for (let mask = 0; mask < 2 ** size; mask++) {
      const nodes = Array.from({ length: size }, (_, node) => node).filter((n) => mask & (1 << n));
      if (nodes.length === perZone) ways.push(nodes.map((node) => node + start));
    }
    shards = shards.flatMap((shard) => ways.map((way) => [...shard, ...way]));
    start += size;
  }
  return shards;
}

export function sharedNodes(one: readonly number[], other: readonly number[]): number {
  return one.filter((node) => other.includes(node)).length;
}

/** How many of all shards share 0, 1, … nodes with the first one. */
export function overlapsByCounting(zoneSizes: readonly number[], perZone: number): number[] {
  const shards = allShards(zoneSizes, perZone);
  const counts = new Array<number>(zoneSizes.length * perZone + 1).fill(0);
  for (const shard of shards) {
    const overlap = sharedNodes(shards[0] as number[], shard);
    counts[overlap] = (counts[overlap] as number) + 1;
  }
  return counts;
}

const HALF = 2 ** 24;
const MULTIPLIER = { high: 0x5de, low: 0xece66d };

/** A linear congruential generator on 48 bits, kept as two halves. */
class Congruence {
  high: number;
  low: number;

  /** `seed` as two signed 32-bit words, the way a long lies in memory. */
  constructor(lowWord: number, highWord: number) {
    this.low = (lowWord & 0xffffff) ^ MULTIPLIER.low;
    const upper = (lowWord >>> 24) + ((highWord & 0xffff) << 8);
    this.high = (upper ^ MULTIPLIER.high) & 0xffffff;
  }

  next31(): number {
    const low = this.low * MULTIPLIER.low + 0xb;
    const high = this.high * MULTIPLIER.low + this.low * MULTIPLIER.high + Math.floor(low / HALF);
    this.low = low % HALF;
    this.high = high % HALF;
    return this.high * 128 + Math.floor(this.low / 2 ** 17);
  }

  below(bound: number): number {
    if (Number.isInteger(Math.log2(bound))) return Math.floor(this.next31() / (2 ** 31 / bound));
    const whole = 2 ** 31 - (2 ** 31 % bound);
    let bits = this.next31();
    while (bits >= whole) bits = this.next31();
    return bits % bound;
  }
}

export function infimaByHand(
  endpoints: readonly string[],
  seed: string,
  tenant: string,
  size: number,
) {
  const digest = createHash("md5").update(`${seed}${tenant}`).digest();
  const random = new Congruence(digest.readInt32LE(0), digest.readInt32LE(4));
  const left = [...endpoints];
  for (let last = left.length - 1; last > 0; last--) {
    const other = random.below(last + 1);
    [left[last], left[other]] = [left[other] as string, left[last] as string];
  }
  return left.slice(0, size);
}
