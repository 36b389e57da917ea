/**
 * CRC32C (Castagnoli; RFC 3720 appendix B.4): reflected polynomial 0x82f63b78, begins and ends
 * inverted. Eight bytes a step through eight tables of 1 KiB ("slicing by 8"), which are made on
 * first use.
 *
 * But for the two inversions the CRC is linear: that of bytes of which a few are changed is the one
 * before, exclusive or the remainder of the change, carried over the zeros behind it. That is how a
 * header's CRC follows from its template's (segment.ts). To carry a remainder over 2^k bytes of
 * zeros takes eight lookups in tables of its nibbles.
 */

const POLYNOMIAL: u32 = 0x82f63b78;
const TABLE_BYTES: usize = 1024;
const tables: usize = memory.data(8 * 1024, 64);
/** For each k: what 2^k bytes of zeros make of each value of each nibble. */
const powers: usize = memory.data(10 * 512, 64);
const POWER_COUNT: u32 = 10;
const POWER_BYTES: usize = 512;
let isMade: bool = false;

/** Table 0 advances a byte; table n a byte that n zero bytes follow. */
function makeTables(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let sum = byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >> 1) ^ (sum & 1 ? POLYNOMIAL : 0);
    store<u32>(tables + ((<usize>byte) << 2), sum);
  }
  for (let at = tables; at < tables + 7 * TABLE_BYTES; at += 4) {
    const sum = load<u32>(at);
    store<u32>(at + TABLE_BYTES, (sum >> 8) ^ entry(0, sum));
  }
  for (let power: u32 = 0; power < POWER_COUNT; power++) {
    for (let index: u32 = 0; index < 128; index++) {
      const value = (index & 15) << ((index >> 4) << 2);
      const before = power == 0 ? (value >> 8) ^ entry(0, value) : carried(power - 1, value);
      const after = power == 0 ? before : carried(power - 1, before);
      store<u32>(powers + <usize>power * POWER_BYTES + ((<usize>index) << 2), after);
    }
  }
  isMade = true;
}

/** A remainder after 2^power bytes of zeros. */
function carried(power: u32, sum: u32): u32 {
  return mapped(powers + <usize>power * POWER_BYTES, sum);
}

/** What a linear map, of which the table has every value of every nibble, makes of a word. */
function mapped(table: usize, word: u32): u32 {
  return (
    nibble(table, 0, word) ^
    nibble(table, 1, word) ^
    nibble(table, 2, word) ^
    nibble(table, 3, word) ^
    nibble(table, 4, word) ^
    nibble(table, 5, word) ^
    nibble(table, 6, word) ^
    nibble(table, 7, word)
  );
}

function nibble(table: usize, index: u32, word: u32): u32 {
  const value = (word >> (index << 2)) & 15;
  return load<u32>(table + ((<usize>((index << 4) | value)) << 2));
}

/** Entry of a table for the low byte of `index`. */
function entry(table: usize, index: u32): u32 {
  return load<u32>(tables + table * TABLE_BYTES + ((<usize>(index & 0xff)) << 2));
}

/** CRC32C of `bytes` bytes at `start`. */
export function crc32c(start: usize, bytes: u32): u32 {
  return ~remainder(0xffffffff, start, bytes);
}

/**
 * How the CRC32C of a longer text changes when `bytes` of its bytes, which `zeros` more follow, change
 * by exclusive or with those at `start`.
 */
export function crc32cOfChange(start: usize, bytes: u32, zeros: u32): u32 {
  assert(zeros >> POWER_COUNT == 0, "crc32c: a change lies further from the end than tables reach");
  let sum = remainder(0, start, bytes);
  for (let left = zeros; left != 0; left &= left - 1) sum = carried(ctz(left), sum);
  return sum;
}

/** Addresses and ports of a family. */
export const TUPLE_BYTES: u32 = 12;
export const TUPLE6_BYTES: u32 = 36;
/** For each byte of a tuple and each of its values, what it adds; the first few distances get tables. */
const PLACES: u32 = 4;
const tuples: usize = memory.data(4 * 12 * 1024, 64);
const tuples6: usize = memory.data(4 * 36 * 1024, 64);
/** The distances that have a place, 0 for none. */
const owners: usize = memory.data(16, 16);
const owners6: usize = memory.data(16, 16);
const word: usize = memory.data(36, 4);

/** `crc32cOfChange` of addresses and ports of IPv4, as loaded; `zeros` is not 0. */
export function crc32cOfTuple(source: u32, destination: u32, ports: u32, zeros: u32): u32 {
  const table = tablesOf(tuples, owners, TUPLE_BYTES, zeros);
  if (table == 0) {
    store<u32>(word, source);
    store<u32>(word, destination, 4);
    store<u32>(word, ports, 8);
    return crc32cOfChange(word, TUPLE_BYTES, zeros);
  }
  const ofSource = ofWord(table, source);
  const ofDestination = ofWord(table + 4 * TABLE_BYTES, destination);
  return ofSource ^ ofDestination ^ ofWord(table + 8 * TABLE_BYTES, ports);
}

/** The same of IPv6, whose addresses stand at `source` and `destination`. */
export function crc32cOfTuple6(source: usize, destination: usize, ports: u32, zeros: u32): u32 {
  const table = tablesOf(tuples6, owners6, TUPLE6_BYTES, zeros);
  if (table == 0) {
    v128.store(word, v128.load(source));
    v128.store(word, v128.load(destination), 16);
    store<u32>(word, ports, 32);
    return crc32cOfChange(word, TUPLE6_BYTES, zeros);
  }
  const ofSource = ofAddress(table, source);
  const ofDestination = ofAddress(table + 16 * TABLE_BYTES, destination);
  return ofSource ^ ofDestination ^ ofWord(table + 32 * TABLE_BYTES, ports);
}

function ofAddress(table: usize, at: usize): u32 {
  return (
    ofWord(table, load<u32>(at)) ^
    ofWord(table + 4 * TABLE_BYTES, load<u32>(at, 4)) ^
    ofWord(table + 8 * TABLE_BYTES, load<u32>(at, 8)) ^
    ofWord(table + 12 * TABLE_BYTES, load<u32>(at, 12))
  );
}

function ofWord(table: usize, word: u32): u32 {
  return (
    load<u32>(table + ((<usize>(word & 0xff)) << 2)) ^
    load<u32>(table + ((<usize>((word >> 8) & 0xff)) << 2), TABLE_BYTES) ^
    load<u32>(table + ((<usize>((word >> 16) & 0xff)) << 2), 2 * TABLE_BYTES) ^
    load<u32>(table + ((<usize>(word >> 24)) << 2), 3 * TABLE_BYTES)
  );
}

/** The tables of a family's tuples that `zeros` bytes follow; 0 when another distance has their place. */
function tablesOf(all: usize, owners: usize, tupleBytes: u32, zeros: u32): usize {
  const place = <usize>(zeros & (PLACES - 1));
  const owner = owners + (place << 2);
  const first = all + place * <usize>tupleBytes * TABLE_BYTES;
  if (load<u32>(owner) == zeros) return first;
  if (load<u32>(owner) != 0) return 0;
  makeTuple(first, tupleBytes, zeros);
  store<u32>(owner, zeros);
  return first;
}

/** Makes a table for each byte, each value from one with a bit less. */
function makeTuple(first: usize, tupleBytes: u32, zeros: u32): void {
  for (let byte: u32 = 0; byte < tupleBytes; byte++) {
    const table = first + <usize>byte * TABLE_BYTES;
    for (let value: u32 = 1; value < 256; value++) {
      const least = value & (0 - value);
      if (value == least) {
        store<u8>(word, <u8>value);
        const sum = crc32cOfChange(word, 1, zeros + tupleBytes - byte - 1);
        store<u32>(table + ((<usize>value) << 2), sum);
      } else {
        const others = load<u32>(table + ((<usize>(value ^ least)) << 2));
        const sum = others ^ load<u32>(table + ((<usize>least) << 2));
        store<u32>(table + ((<usize>value) << 2), sum);
      }
    }
  }
}

/** Takes `bytes` bytes at `start` into a remainder. */
function remainder(before: u32, start: usize, bytes: u32): u32 {
  if (!isMade) makeTables();
  let sum = before;
  let at = start;
  const last = start + <usize>(bytes & ~7);
  for (; at < last; at += 8) {
    const low = load<u32>(at) ^ sum;
    const high = load<u32>(at, 4);
    sum =
      entry(7, low) ^
      entry(6, low >> 8) ^
      entry(5, low >> 16) ^
      entry(4, low >> 24) ^
      entry(3, high) ^
      entry(2, high >> 8) ^
      entry(1, high >> 16) ^
      entry(0, high >> 24);
  }
  for (const end = start + <usize>bytes; at < end; at++) {
    sum = (sum >> 8) ^ entry(0, sum ^ load<u8>(at));
  }
  return sum;
}
