/**
 * A network image under construction: the bytes that one half of the engine's network region will
 * hold, written one behind the other, and the directory, which is hashed as assembly/network/directory.ts
 * hashes. Addresses in an image are those that its bytes will have in the engine's memory.
 */
import * as abi from "../../assembly/abi.ts";

/** An entry of the directory: a key and its value (DIRECTORY_*). */
interface Entry {
  space: number;
  detail: number;
  /** 0, 4 or 16 bytes. */
  address: Uint8Array;
  value: number;
}

const ENTRIES_MIN = 64;

export class NetworkImage {
  readonly bytes: Uint8Array<ArrayBuffer | SharedArrayBuffer>;
  readonly view: DataView<ArrayBuffer | SharedArrayBuffer>;
  readonly #base: number;
  readonly #entries: Entry[] = [];
  #used = abi.IMAGE_BYTES;

  /** An empty image for `address` in the engine's memory; `bytes` is all of its room, and zero. */
  constructor(address: number, bytes: Uint8Array<ArrayBuffer | SharedArrayBuffer>) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#base = address;
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
    const family = address.length === 16 ? abi.DETAIL_IPV6 : 0;
    const key = ((space << 24) | number) >>> 0;
    this.#entries.push({ space: key, detail: (detail | family) >>> 0, address, value });
  }

  /** Writes the directory, at most half full, and its place into the header. */
  writeDirectory(): void {
    let count = ENTRIES_MIN;
    while (count < this.#entries.length * 2) count *= 2;
    const place = this.take(count * abi.DIRECTORY_BYTES);
    for (const entry of this.#entries) this.#insert(place, count - 1, entry);
    this.put(abi.IMAGE_DIRECTORY, this.addressOf(place));
    this.put(abi.IMAGE_DIRECTORY_MASK, count - 1);
  }

  #insert(place: number, mask: number, entry: Entry): void {
    const words = wordsOf(entry.address);
    let slot = (hashOf(entry, words) & mask) >>> 0;
    for (let probe = 0; probe < abi.DIRECTORY_PROBES_MAX; probe++) {
      const at = place + slot * abi.DIRECTORY_BYTES;
      if (this.view.getUint32(at + abi.DIRECTORY_SPACE, true) === 0) {
        for (const [index, word] of words.entries()) {
          this.put(at + abi.DIRECTORY_ADDRESS + index * 4, word);
        }
        this.put(at + abi.DIRECTORY_SPACE, entry.space);
        this.put(at + abi.DIRECTORY_DETAIL, entry.detail);
        this.put(at + abi.DIRECTORY_VALUE, entry.value);
        return;
      }
      slot = (slot + 1) & mask;
    }
    throw new RangeError(`network: too many addresses that hash alike, near ${entry.address}`);
  }
}

/** An address as the engine loads it: four little-endian words. */
function wordsOf(address: Uint8Array): number[] {
  const words = [0, 0, 0, 0];
  for (const [index, byte] of address.entries()) {
    words[index >> 2] = ((words[index >> 2] as number) | (byte << ((index & 3) * 8))) >>> 0;
  }
  return words;
}

function mixed(hash: number, word: number): number {
  const turned = Math.imul(hash ^ word, 0x85ebca6b);
  return turned ^ (turned >>> 15);
}

function hashOf({ space, detail, address }: Entry, words: readonly number[]): number {
  let hash = mixed(mixed(mixed(0, space), detail), words[0] as number);
  if (address.length === 16) for (const word of words.slice(1)) hash = mixed(hash, word);
  return Math.imul(hash, 0xc2b2ae35) >>> 7;
}
