/**
 * CRC32C (Castagnoli; RFC 3720 appendix B.4): reflected polynomial 0x82f63b78, begins and ends
 * inverted. Eight bytes a step through eight tables of 1 KiB ("slicing by 8"), which are made on
 * first use.
 */

const POLYNOMIAL: u32 = 0x82f63b78;
const TABLE_BYTES: usize = 1024;
const tables: usize = memory.data(8 * 1024, 64);
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
  isMade = true;
}

/** Entry of a table for the low byte of `index`. */
function entry(table: usize, index: u32): u32 {
  return load<u32>(tables + table * TABLE_BYTES + ((<usize>(index & 0xff)) << 2));
}

/** CRC32C of `bytes` bytes at `start`. */
export function crc32c(start: usize, bytes: u32): u32 {
  if (!isMade) makeTables();
  let sum: u32 = 0xffffffff;
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
  return ~sum;
}
