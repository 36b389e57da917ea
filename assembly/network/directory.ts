/**
 * The directory of a network image: exact lookups by (space, address, detail), and the longest
 * prefix of a set that holds an address. The host packs it (host/engine/image.ts) and hashes alike.
 *
 * Only the configuration adds entries, so the hash needs no key: whoever sends packets can choose
 * what is looked up, but not what is there, and no lookup takes more than DIRECTORY_PROBES_MAX.
 */
import {
  DETAIL_IPV6,
  DIRECTORY_ADDRESS,
  DIRECTORY_BYTES,
  DIRECTORY_DETAIL,
  DIRECTORY_PROBES_MAX,
  DIRECTORY_SPACE,
  DIRECTORY_VALUE,
  IMAGE_DIRECTORY,
  IMAGE_DIRECTORY_MASK,
  PREFIXES_LENGTHS,
  PREFIXES_LENGTHS6,
  PREFIXES_NUMBER,
  SPACE_PREFIX,
} from "../abi";
import { image } from "../memory";

/** No entry: no service has this number, no record this address. */
export const NOTHING: u32 = 0xffffffff;

/** One round of the hash: MurmurHash3's way with a word, without its keys. */
function mixed(hash: u32, word: u32): u32 {
  const turned = (hash ^ word) * 0x85ebca6b;
  return turned ^ (turned >> 15);
}

function hashOf(space: u32, detail: u32, first: u64, last: u64): u32 {
  let hash = mixed(mixed(0, space), detail);
  hash = mixed(hash, <u32>first);
  if (detail & DETAIL_IPV6) {
    hash = mixed(hash, <u32>(first >> 32));
    hash = mixed(hash, <u32>last);
    hash = mixed(hash, <u32>(last >> 32));
  }
  return (hash * 0xc2b2ae35) >> 7;
}

/** The value under a key, or NOTHING. `first` and `last` are the address as loaded. */
export function lookUp(space: u32, detail: u32, first: u64, last: u64): u32 {
  const entries = <usize>load<u32>(image, IMAGE_DIRECTORY);
  const mask = load<u32>(image, IMAGE_DIRECTORY_MASK);
  const key = <u64>space | ((<u64>detail) << 32);
  let slot = hashOf(space, detail, first, last) & mask;
  for (let probe: u32 = 0; probe < DIRECTORY_PROBES_MAX; probe++) {
    const entry = entries + <usize>(slot * DIRECTORY_BYTES);
    const found = load<u64>(entry, DIRECTORY_SPACE);
    if (<u32>found == 0) return NOTHING;
    const isSame =
      i32(found == key) &
      i32(load<u64>(entry, DIRECTORY_ADDRESS) == first) &
      i32(load<u64>(entry, DIRECTORY_ADDRESS + 8) == last);
    if (isSame) return load<u32>(entry, DIRECTORY_VALUE);
    slot = (slot + 1) & mask;
  }
  return NOTHING;
}
if (DIRECTORY_DETAIL != DIRECTORY_SPACE + 4) ERROR("space and detail are not one word");

/** Where a lookup of `lookUpAddress` begins. */
export function firstLineOf(space: u32, detail: u32, address: usize, isIpv6: u32): usize {
  const hash = isIpv6
    ? hashOf(space, detail | DETAIL_IPV6, load<u64>(address), load<u64>(address, 8))
    : hashOf(space, detail, load<u32>(address), 0);
  const slot = hash & load<u32>(image, IMAGE_DIRECTORY_MASK);
  return <usize>load<u32>(image, IMAGE_DIRECTORY) + <usize>(slot * DIRECTORY_BYTES);
}

/** The value under a key that has the 4 or 16 bytes at `address`. */
export function lookUpAddress(space: u32, detail: u32, address: usize, isIpv6: u32): u32 {
  if (!isIpv6) return lookUp(space, detail, load<u32>(address), 0);
  return lookUp(space, detail | DETAIL_IPV6, load<u64>(address), load<u64>(address, 8));
}

/** The value of the longest prefix in a set that holds the address, or NOTHING. */
export function longestPrefix(set: usize, address: usize, isIpv6: u32): u32 {
  const space = (SPACE_PREFIX << 24) | load<u32>(set, PREFIXES_NUMBER);
  if (isIpv6) return longestPrefix6(set, space, load<u64>(address), load<u64>(address, 8));
  const word = load<u32>(address);
  let lengths = load<u64>(set, PREFIXES_LENGTHS);
  while (lengths) {
    const length = <u32>(63 - clz(lengths));
    const masked: u32 = length == 0 ? 0 : word & bswap<u32>((<u32>-1) << (32 - length));
    const value = lookUp(space, length, masked, 0);
    if (value != NOTHING) return value;
    lengths &= ~((<u64>1) << length);
  }
  return NOTHING;
}

/** Bits of half an address that a prefix of `length` (at most 64) of its bits keeps. */
function halfMask(length: u32): u64 {
  return length == 0 ? 0 : bswap<u64>((<u64>-1) << (64 - length));
}

function longestPrefix6(set: usize, space: u32, first: u64, last: u64): u32 {
  for (let word: i32 = 2; word >= 0; word--) {
    let lengths = load<u64>(set + ((<usize>word) << 3), PREFIXES_LENGTHS6);
    while (lengths) {
      const bit = <u32>(63 - clz(lengths));
      const length = ((<u32>word) << 6) + bit;
      const high = first & halfMask(min<u32>(length, 64));
      const low = last & halfMask(length > 64 ? length - 64 : 0);
      const value = lookUp(space, length | DETAIL_IPV6, high, low);
      if (value != NOTHING) return value;
      lengths &= ~((<u64>1) << bit);
    }
  }
  return NOTHING;
}
