/**
 * The store of decisions in shared memory: a module of its own (build/store.wasm), which every thread
 * instantiates over one memory. `host/nodes/shared-store.ts` is its host.
 *
 * A key's home is a region of 32 buckets of 8 slots under one lock, a word that is taken by
 * compare-and-exchange and held for a few dozen instructions. Its decision stands in one of two buckets,
 * the one that was emptier; a slot whose time is over is free. So nobody ever looks at more than two
 * buckets, however long the store has been in use. What takes time is memory, not work: a batch
 * hashes all its keys and touches their lines, all at once, and then decides one after the other.
 *
 * Layout (STORE_* of abi.ts): a line of control; for each thread a place for its batch; a lock per
 * region, each in a cache line of its own; the buckets, a line each: hashes (0 = never used) and ends
 * of life in ms mod 2^32; the decisions, two lines each.
 *
 * Invariants: only a region's lock holder reads or writes its slots, touching apart; a key has one live
 * slot at most; nothing lies in static data, which all threads would share.
 */
import {
  DECIDED_BEGINS,
  DECIDED_BYTES,
  DECIDED_SIDE_BYTES,
  STORE_BATCH_GUESSES,
  STORE_BATCH_HASHES,
  STORE_BATCH_OUTCOMES,
  STORE_BATCH_SEEN,
  STORE_BUCKET_BYTES,
  STORE_BUCKET_SLOTS,
  STORE_CLAIM_EARLIER,
  STORE_CLAIM_NO_ROOM,
  STORE_CLAIM_OWN,
  STORE_LOCK_BYTES,
  STORE_LOCKS,
  STORE_REGION_BUCKETS,
} from "../abi";

/** Ends of life in a bucket, behind the hashes. */
const ENDS: usize = 4 * <usize>STORE_BUCKET_SLOTS;
const BUCKET_MASK: u32 = STORE_REGION_BUCKETS - 1;
const SIDES_BYTES: usize = 2 * <usize>DECIDED_SIDE_BYTES;
/** Spins after which a lock counts as left behind by a thread that died. */
const SPINS_MAX: u32 = 1 << 28;
/** No slot. */
const NONE: u32 = 0xffffffff;

function product(word: u64, first: u32, second: u32): u64 {
  return <u64>(<u32>word + first) * <u64>(<u32>(word >> 32) + second);
}

/** Hash of the tuple at `tuple`, never 0: NH over its words, as hash.ts has it, and a finalizer. */
function hashOf(tuple: usize, key: u32): u32 {
  let sum: u64 = <u64>key * 0x9e3779b97f4a7c15;
  sum += product(load<u64>(tuple), 0x9e3779b1, 0x85ebca77);
  sum += product(load<u64>(tuple, 8), 0xc2b2ae3d, 0x27d4eb2f);
  sum += product(load<u64>(tuple, 16), 0x165667b1, 0xd3a2646c);
  sum += product(load<u64>(tuple, 24), 0xfd7046c5, 0xb55a4f09);
  sum += product(load<u64>(tuple, 32), 0x2c1b3c6d, 0x297a2d39);
  sum += product(load<u64>(tuple, 40), 0x7feb352d, 0x846ca68b);
  sum ^= sum >> 32;
  sum *= 0x9e3779b97f4a7c15;
  return <u32>(sum >> 32) | 1;
}

function regionOf(hash: u32, regionCount: u32): u32 {
  return <u32>((<u64>hash * <u64>regionCount) >> 32);
}

/** Numbers of the two buckets that a hash may stand in. */
function firstBucket(hash: u32, region: u32): u32 {
  return region * STORE_REGION_BUCKETS + ((hash >> 1) & BUCKET_MASK);
}

function secondBucket(hash: u32, region: u32): u32 {
  const other = (hash >> 6) & BUCKET_MASK;
  const isSame = other == ((hash >> 1) & BUCKET_MASK);
  return region * STORE_REGION_BUCKETS + (other ^ u32(isSame));
}

function bucketAt(bucket: u32, regionCount: u32): usize {
  const buckets = <usize>STORE_LOCKS + <usize>(regionCount * STORE_LOCK_BYTES);
  return buckets + <usize>bucket * STORE_BUCKET_BYTES;
}

/** Where a slot's decision stands; slots count through all buckets. */
function decisionAt(slot: u32, regionCount: u32): usize {
  const decisions = bucketAt(regionCount * STORE_REGION_BUCKETS, regionCount);
  return decisions + <usize>slot * DECIDED_BYTES;
}

/** Bit per slot of a bucket whose hash is `hash`. */
function withHash(bucketAt: usize, hash: u32): u32 {
  const wanted = i32x4.splat(<i32>hash);
  const low = i32x4.bitmask(i32x4.eq(v128.load(bucketAt), wanted));
  return low | (i32x4.bitmask(i32x4.eq(v128.load(bucketAt, 16), wanted)) << 4);
}

/** Bit per slot of a bucket whose time is over, or that was never used. */
function freeSlots(bucketAt: usize, nowMs: u32): u32 {
  const now = i32x4.splat(<i32>nowMs);
  const low = i32x4.bitmask(i32x4.sub(v128.load(bucketAt + ENDS), now));
  const high = i32x4.bitmask(i32x4.sub(v128.load(bucketAt + ENDS, 16), now));
  return low | (high << 4) | withHash(bucketAt, 0);
}

/** False when the lock's holder has died. */
function lock(region: u32): bool {
  const at = <usize>STORE_LOCKS + <usize>(region * STORE_LOCK_BYTES);
  for (let spin: u32 = 0; atomic.cmpxchg<u32>(at, 0, 1) != 0; spin++) {
    if (spin == SPINS_MAX) return false;
  }
  return true;
}

function unlock(region: u32): void {
  atomic.store<u32>(<usize>STORE_LOCKS + <usize>(region * STORE_LOCK_BYTES), 0);
}

/** Whether `bytes` bytes, a multiple of 16, are the same in both places. */
function isSame(one: usize, other: usize, bytes: usize): bool {
  let differs = i32x4.splat(0);
  for (let at: usize = 0; at < bytes; at += 16) {
    differs = v128.or(differs, v128.xor(v128.load(one + at), v128.load(other + at)));
  }
  return !v128.any_true(differs);
}

/** Live slot of a bucket that has the tuple at `tuple` under the key offset, else NONE. */
function searchIn(
  bucket: u32,
  tuple: usize,
  key: u32,
  hash: u32,
  regionCount: u32,
  nowMs: u32,
): u32 {
  const at = bucketAt(bucket, regionCount);
  let hits = withHash(at, hash) & ~freeSlots(at, nowMs);
  while (hits) {
    const slot = bucket * STORE_BUCKET_SLOTS + ctz(hits);
    const there = decisionAt(slot, regionCount) + <usize>key;
    if (isSame(there, tuple, DECIDED_SIDE_BYTES)) return slot;
    hits &= hits - 1;
  }
  return NONE;
}

function search(tuple: usize, key: u32, hash: u32, regionCount: u32, nowMs: u32): u32 {
  const region = regionOf(hash, regionCount);
  const slot = searchIn(firstBucket(hash, region), tuple, key, hash, regionCount, nowMs);
  if (slot != NONE) return slot;
  return searchIn(secondBucket(hash, region), tuple, key, hash, regionCount, nowMs);
}

/** A free slot for a hash in the emptier of its buckets, else NONE. */
function freeSlot(hash: u32, regionCount: u32, nowMs: u32): u32 {
  const region = regionOf(hash, regionCount);
  const first = firstBucket(hash, region);
  const second = secondBucket(hash, region);
  const free = freeSlots(bucketAt(first, regionCount), nowMs);
  const others = freeSlots(bucketAt(second, regionCount), nowMs);
  if ((free | others) == 0) return NONE;
  if (popcnt(free) >= popcnt(others)) return first * STORE_BUCKET_SLOTS + ctz(free);
  return second * STORE_BUCKET_SLOTS + ctz(others);
}

/** Writes the head of a slot. */
function setHead(slot: u32, hash: u32, endMs: u32, regionCount: u32): void {
  const at = bucketAt(slot / STORE_BUCKET_SLOTS, regionCount);
  const word = at + <usize>((slot % STORE_BUCKET_SLOTS) << 2);
  store<u32>(word, hash);
  store<u32>(word + ENDS, endMs);
}

/** Copies a decision. */
function copy(to: usize, from: usize): void {
  for (let at: usize = 0; at < <usize>DECIDED_BYTES; at += 16) {
    v128.store(to + at, v128.load(from + at));
  }
}

/** Hashes the batch's tuples, each `key` bytes behind its decision. */
function hashAll(batch: usize, count: u32, key: u32): void {
  for (let index: u32 = 0; index < count; index++) {
    const hash = hashOf(batch + <usize>(index * DECIDED_BYTES + key), key);
    store<u32>(batch + <usize>(index << 2), hash, STORE_BATCH_HASHES);
  }
}

/** Touches the buckets of all tuples. */
function touchBuckets(batch: usize, count: u32, regionCount: u32): void {
  let seen: u32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    const hash = load<u32>(batch + <usize>(index << 2), STORE_BATCH_HASHES);
    const region = regionOf(hash, regionCount);
    seen += load<u32>(bucketAt(firstBucket(hash, region), regionCount));
    seen += load<u32>(bucketAt(secondBucket(hash, region), regionCount));
  }
  store<u32>(batch, seen, STORE_BATCH_SEEN);
}

/** Notes where each tuple's decision probably is, or goes. */
function guessAll(batch: usize, count: u32, regionCount: u32, nowMs: u32): void {
  for (let index: u32 = 0; index < count; index++) {
    const hash = load<u32>(batch + <usize>(index << 2), STORE_BATCH_HASHES);
    const bucket = firstBucket(hash, regionOf(hash, regionCount));
    const hits = withHash(bucketAt(bucket, regionCount), hash);
    let slot = bucket * STORE_BUCKET_SLOTS + ctz(hits);
    if (hits == 0) slot = freeSlot(hash, regionCount, nowMs);
    if (slot == NONE) slot = bucket * STORE_BUCKET_SLOTS;
    store<u32>(
      batch + <usize>(index << 2),
      <u32>decisionAt(slot, regionCount),
      STORE_BATCH_GUESSES,
    );
  }
}

/** Touches those places. */
function touchDecisions(batch: usize, count: u32): void {
  let seen: u32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    const decision = <usize>load<u32>(batch + <usize>(index << 2), STORE_BATCH_GUESSES);
    seen += load<u32>(decision) + load<u32>(decision, 64);
  }
  store<u32>(batch, seen, STORE_BATCH_SEEN);
}

/**
 * Brings what the batch needs into the cache. Each loop does one thing only: so as many of its loads
 * as a core can have under way are under way at once.
 */
function stage(batch: usize, count: u32, key: u32, regionCount: u32, nowMs: u32): void {
  hashAll(batch, count, key);
  touchBuckets(batch, count, regionCount);
  guessAll(batch, count, regionCount, nowMs);
  touchDecisions(batch, count);
}

/** What becomes of a claim whose tuple stands in `slot`, or nowhere (NONE); its region is locked. */
function decide(
  decision: usize,
  slot: u32,
  hash: u32,
  regionCount: u32,
  nowMs: u32,
  endMs: u32,
  refreshes: u32,
): u32 {
  if (slot == NONE) {
    const free = freeSlot(hash, regionCount, nowMs);
    if (free == NONE) return STORE_CLAIM_NO_ROOM;
    setHead(free, hash, endMs, regionCount);
    copy(decisionAt(free, regionCount), decision);
    return STORE_CLAIM_OWN;
  }
  const there = decisionAt(slot, regionCount);
  // What was decided stays as it was written.
  if (!isSame(there, decision, SIDES_BYTES)) {
    copy(decision, there);
    return STORE_CLAIM_EARLIER;
  }
  if (refreshes) {
    setHead(slot, hash, endMs, regionCount);
    // Told by the first packet of a stream: what was known of an earlier one on its tuples is over.
    if (load<u8>(decision, DECIDED_BEGINS) != 0) copy(there, decision);
  }
  return STORE_CLAIM_OWN;
}

/**
 * Claims `count` decisions of the batch under their tuples at `key`; with `refreshes` what is there
 * lives on where it is the decision given. Each gets its outcome, STORE_CLAIM_*; an earlier decision
 * takes the place of what was given. Returns false when a lock was left behind.
 */
export function claim(
  batch: usize,
  count: u32,
  key: u32,
  regionCount: u32,
  nowMs: u32,
  endMs: u32,
  refreshes: u32,
): bool {
  stage(batch, count, key, regionCount, nowMs);
  for (let index: u32 = 0; index < count; index++) {
    const decision = batch + <usize>(index * DECIDED_BYTES);
    const hash = load<u32>(batch + <usize>(index << 2), STORE_BATCH_HASHES);
    const region = regionOf(hash, regionCount);
    if (!lock(region)) return false;
    const slot = search(decision + <usize>key, key, hash, regionCount, nowMs);
    const outcome = decide(decision, slot, hash, regionCount, nowMs, endMs, refreshes);
    unlock(region);
    store<u8>(batch + <usize>index, <u8>outcome, STORE_BATCH_OUTCOMES);
  }
  return true;
}

/**
 * Looks `count` tuples up, each `key` bytes behind the place of its decision, which takes what is
 * there. Outcomes: STORE_CLAIM_EARLIER, or STORE_CLAIM_NO_ROOM when there is nothing.
 */
export function find(batch: usize, count: u32, key: u32, regionCount: u32, nowMs: u32): bool {
  stage(batch, count, key, regionCount, nowMs);
  for (let index: u32 = 0; index < count; index++) {
    const decision = batch + <usize>(index * DECIDED_BYTES);
    const hash = load<u32>(batch + <usize>(index << 2), STORE_BATCH_HASHES);
    const region = regionOf(hash, regionCount);
    if (!lock(region)) return false;
    const slot = search(decision + <usize>key, key, hash, regionCount, nowMs);
    if (slot != NONE) copy(decision, decisionAt(slot, regionCount));
    unlock(region);
    const outcome = slot == NONE ? STORE_CLAIM_NO_ROOM : STORE_CLAIM_EARLIER;
    store<u8>(batch + <usize>index, <u8>outcome, STORE_BATCH_OUTCOMES);
  }
  return true;
}
