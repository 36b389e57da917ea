/**
 * A network image under construction: the bytes that one half of the engine's network region will
 * hold, written one behind the other, and the directory, which is hashed as assembly/network/directory.ts
 * hashes. Addresses in an image are those that its bytes will have in the engine's memory.
 */
import * as abi from "../../assembly/abi.ts";

const ENTRIES_MIN = 64;
const ENTRY_WORDS = abi.DIRECTORY_BYTES / 4;
/** Words of an entry; those of the directory, and behind them, in what it leaves free, the hash. */
const SPACE = abi.DIRECTORY_SPACE / 4;
const DETAIL = abi.DIRECTORY_DETAIL / 4;
const VALUE = abi.DIRECTORY_VALUE / 4;
const HASH = VALUE + 1;

export class NetworkImage {
  readonly bytes: Uint8Array<ArrayBuffer | SharedArrayBuffer>;
  readonly view: DataView<ArrayBuffer | SharedArrayBuffer>;
  readonly #base: number;
  /** ENTRY_WORDS each. */
  #entries = new Uint32Array(1024 * ENTRY_WORDS);
  #entryCount = 0;
  #used = abi.IMAGE_BYTES;

  /** An empty image for `address` in the engine's memory; `bytes` is all of its room, and zero. */
  constructor(address: number, bytes: Uint8Array<ArrayBuffer | SharedArrayBuffer>) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#base = address;
  }

  /** Bytes that have been taken. */
  get used(): number {
    return this.#used;
  }

  /** Entries that the directory will have. */
  get entryCount(): number {
    return this.#entryCount;
  }

  /** A copy of the service records. */
  services(): Uint8Array<ArrayBuffer> {
    const start = this.view.getUint32(abi.IMAGE_SERVICES, true) - this.#base;
    const count = this.view.getUint32(abi.IMAGE_SERVICE_COUNT, true);
    return new Uint8Array(this.bytes.subarray(start, start + count * abi.SERVICE_BYTES));
  }

  /** Takes `bytes` bytes on a cache line; returns where they begin in the image. */
  take(bytes: number): number {
    const start = (this.#used + 63) & ~63;
    if (start + bytes > this.bytes.length) {
      throw new RangeError(
        `networkBytes: ${this.bytes.length} bytes do not hold these tables, ${start + bytes} and more would`,
      );
    }
    this.#used = start + bytes;
    return start;
  }

  /** Address in the engine's memory of a place in the image. */
  addressOf(place: number): number {
    return this.#base + place;
  }

  put(place: number, value: number): void {
    this.view.setUint32(place, value >>> 0, true);
  }

  add(space: number, number: number, detail: number, address: Uint8Array, value: number): void {
    if ((this.#entryCount + 1) * ENTRY_WORDS > this.#entries.length) {
      const more = new Uint32Array(this.#entries.length * 2);
      more.set(this.#entries);
      this.#entries = more;
    }
    const start = this.#entryCount++ * ENTRY_WORDS;
    const entry = this.#entries.subarray(start, start + ENTRY_WORDS);
    for (let word = 0; word < address.length >> 2; word++) entry[word] = wordOf(address, word * 4);
    entry[SPACE] = (space << 24) | number;
    entry[DETAIL] = detail | (address.length === 16 ? abi.DETAIL_IPV6 : 0);
    entry[VALUE] = value;
    entry[HASH] = hashOf(entry);
  }

  /** Writes the directory, at most half full, and its place into the header. */
  writeDirectory(): void {
    let count = ENTRIES_MIN;
    while (count < this.#entryCount * 2) count *= 2;
    const place = this.take(count * abi.DIRECTORY_BYTES);
    const { buffer, byteOffset } = this.bytes;
    const slots = new Uint32Array(buffer, byteOffset + place, count * ENTRY_WORDS);
    for (let start = 0; start < this.#entryCount * ENTRY_WORDS; start += ENTRY_WORDS) {
      const slot = this.#freeSlot(slots, count - 1, start);
      slots.set(this.#entries.subarray(start, start + HASH), slot * ENTRY_WORDS);
    }
    this.put(abi.IMAGE_DIRECTORY, this.addressOf(place));
    this.put(abi.IMAGE_DIRECTORY_MASK, count - 1);
  }

  #freeSlot(slots: Uint32Array, mask: number, start: number): number {
    const hash = this.#entries[start + HASH] as number;
    for (let probe = 0; probe < abi.DIRECTORY_PROBES_MAX; probe++) {
      const slot = (hash + probe) & mask;
      if (slots[slot * ENTRY_WORDS + SPACE] === 0) return slot;
    }
    const address = this.#entries.subarray(start, start + SPACE);
    throw new RangeError(`network: too many addresses that hash alike, near ${address}`);
  }
}

/** Four bytes of an address as the engine loads them. */
function wordOf(address: Uint8Array, at: number): number {
  const byte = (index: number) => address[at + index] as number;
  return byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24);
}

function mixed(hash: number, word: number): number {
  const turned = Math.imul(hash ^ word, 0x85ebca6b);
  return turned ^ (turned >>> 15);
}

function hashOf(entry: Uint32Array): number {
  const word = (index: number) => entry[index] as number;
  let hash = mixed(mixed(mixed(0, word(SPACE)), word(DETAIL)), word(0));
  if (word(DETAIL) >= abi.DETAIL_IPV6) {
    hash = mixed(mixed(mixed(hash, word(1)), word(2)), word(3));
  }
  return Math.imul(hash, 0xc2b2ae35) >>> 7;
}
