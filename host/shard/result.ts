/** What the sharding calculator finds, as plain data: what `flowplane shard --json` prints. */
import type { BlastRadius } from "./blast.ts";
import type { DeckTable } from "./deck.ts";

export interface ShardResult {
  schema: "flowplane.shard/1";
  nodes: number;
  size: number;
  zones: number;
  /** Ways to choose a shard, in decimal: it may be larger than a number holds. */
  shardCount: string;
  /** Shares of a random shard with another one, by overlap. */
  overlap: { overlap: number; ways: string; percent: string }[];
  /** The packing of the stateful sharder; absent without a maximum overlap. */
  packing?: PackingResult;
  /** How tenants were given their nodes. */
  sharder: "stateless" | "stateful" | "infima";
  assignments: { tenant: string; nodes: number[] }[];
  blast: BlastRadius[];
  /** The tables of the deck, where they were asked for. */
  deck?: DeckTable[];
}

export interface PackingResult {
  overlapMax: number;
  /** Shards that there are, and no more than which there can be. */
  shards: number;
  bound: string;
  /** Whether no other shard fits. */
  isMaximal: boolean;
  /** Shards that the fullest and the emptiest node stand in. */
  loadMin: number;
  loadMax: number;
  /** Pairs of its shards by overlap: all of them, or a sample drawn at random. */
  pairs: number;
  pairsByOverlap: number[];
}
