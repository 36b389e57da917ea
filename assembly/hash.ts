/**
 * Keyed hash of a canonical tuple: NH (Black et al., UMAC, CRYPTO '99) over 32-bit words, then a
 * finalizer that spreads the result over all 64 bits.
 *
 * NH is almost universal: whoever does not know the key finds two tuples that collide on all 64
 * bits with a probability of at most 2^-32, so nobody can aim flows at one bucket. Its products
 * do not depend on each other, which makes it faster than a chain of multiplications.
 */
import { CONFIG_SEED } from "./abi";
import { config } from "./memory";

const KEY_WORDS: u32 = 12;
const keys: usize = memory.data(48, 64);

/** Expands the 16 bytes of the configured seed to the key words (splitmix64). */
export function seedHash(): void {
  let state = load<u64>(config, CONFIG_SEED);
  const increment = load<u64>(config, CONFIG_SEED + 8) | 1;
  for (let word: u32 = 0; word < KEY_WORDS; word++) {
    state += increment + 0x9e3779b97f4a7c14;
    let mixed = state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    store<u32>(keys + <usize>(word << 2), <u32>(mixed ^ (mixed >> 31)));
  }
}

function product(low: u32, high: u32): u64 {
  return <u64>low * <u64>high;
}

/** NH of two words at a time under the key words `at` and `at + 1` (byte offset). */
function pair(word: u64, at: usize): u64 {
  return product(<u32>word + load<u32>(keys + at), <u32>(word >> 32) + load<u32>(keys + at, 4));
}

function finalized(sum: u64): u64 {
  let hash = sum ^ (sum >> 32);
  hash *= 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 29);
}

/** Hash of an IPv4 tuple: both addresses, then ports, protocol and zone. */
export function hashTuple(addresses: u64, rest: u64): u64 {
  return finalized(pair(addresses, 0) + pair(rest, 8));
}

/** Keyed 64-bit digest of two IPv6 addresses, used in place of IPv4's pair of addresses. */
export function digestAddresses(low: usize, high: usize): u64 {
  const first = pair(load<u64>(low), 16) + pair(load<u64>(low, 8), 24);
  return first + pair(load<u64>(high), 32) + pair(load<u64>(high, 8), 40);
}

/** Hash of an IPv6 tuple from the digest of its addresses. */
export function hashDigest(addresses: u64, rest: u64): u64 {
  return finalized(addresses + pair(rest, 8));
}

/** Keyed hash of anything else that fits in 64 bits: fragments, zones, port probes. */
export function hashWord(word: u64): u64 {
  return finalized(pair(word, 24) + (word ^ (word >> 31)));
}
