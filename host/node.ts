/**
 * What the library has for Node alone: captures in files, on standard input and from streams of
 * Node. Everything else is in "flowplane".
 *
 * @packageDocumentation
 */
export { createCapture, openCapture } from "./capture/file.ts";
export { createOutput } from "./capture/output.ts";
export { openStream, type StreamSource } from "./capture/stream.ts";
export type { SideName } from "./engine/decision.ts";
export { UsageError } from "./errors.ts";
export { HugePages, hugePages } from "./io/pages.ts";
export { FleetNode, type NodeOptions } from "./nodes/node.ts";
export { openRedisStore, type RedisStoreOptions } from "./nodes/redis-store.ts";
export { SharedStore, type SharedStoreOptions } from "./nodes/shared-store.ts";
export type { FlowStore, Found, StoreTimes } from "./nodes/store.ts";
export type { NodeCounters } from "./nodes/undecided.ts";
export { type BlastRadius, blastRadius, plainShards } from "./shard/blast.ts";
export { type InfimaLattice, infimaShard, singleCell } from "./shard/infima.ts";
export { keyedShard } from "./shard/keyed.ts";
export { type Lattice, latticeOf, overlapOf, type Shard } from "./shard/lattice.ts";
export { type OverlapTable, overlapTable, shardCountBound } from "./shard/overlap.ts";
export { KeyedRandom } from "./shard/random.ts";
export { NoShardLeft, StatefulSharder, type StatefulSharderOptions } from "./shard/stateful.ts";
