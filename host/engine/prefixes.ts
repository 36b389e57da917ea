/**
 * Prefix sets of a network image: route tables, and the subnets that have their own. A set is a
 * number, the lengths that it has, and an entry of the directory for every prefix.
 */
import ipaddr from "ipaddr.js";
import * as abi from "../../assembly/abi.ts";
import { plainIpv4 } from "../address.ts";
import { shown } from "./check.ts";
import type { NetworkImage } from "./image.ts";

export interface Prefix {
  address: Uint8Array;
  mask: Uint8Array;
  length: number;
}

/** An address range. @throws TypeError when it is none, or has bits beyond its prefix */
export function prefixOf(path: string, text: string): Prefix {
  const plain = typeof text === "string" ? plainPrefix(text) : undefined;
  if (plain !== undefined) return plain;
  const isText = typeof text === "string" && ipaddr.isValidCIDR(text);
  if (!isText)
    throw new TypeError(`${path}: ${shown(text)} is not an address range like 10.0.0.0/8`);
  const [parsed, length] = ipaddr.parseCIDR(text);
  const address = Uint8Array.from(parsed.toByteArray());
  const mask = address.map(
    (_, index) => (0xff00 >> Math.min(8, Math.max(0, length - index * 8))) & 0xff,
  );
  if (address.some((byte, index) => (byte & ~(mask[index] as number)) !== 0)) {
    throw new TypeError(`${path}: ${text} has bits beyond its prefix of ${length}`);
  }
  return { address, mask, length };
}

/** The IPv4 range that `text` is in the form that nearly all have; `prefixOf` knows the others. */
function plainPrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const digits = text.slice(slash + 1);
  const value = slash < 0 ? -1 : plainIpv4(text.slice(0, slash));
  const length = /^(0|[1-9]\d?)$/.test(digits) ? Number(digits) : 33;
  if (value < 0 || length > 32) return undefined;
  const bits = length === 0 ? 0 : -1 << (32 - length);
  if (value & ~bits) return undefined;
  const bytesOf = (word: number) => Uint8Array.of(word >>> 24, word >>> 16, word >>> 8, word);
  return { address: bytesOf(value), mask: bytesOf(bits), length };
}

export class PrefixSets {
  readonly #image: NetworkImage;
  #count = 0;

  constructor(image: NetworkImage) {
    this.#image = image;
  }

  /** Writes a set; returns its address in the engine's memory. @throws TypeError on a prefix twice */
  write(prefixes: readonly (Prefix & { path: string; value: number })[]): number {
    const image = this.#image;
    const place = image.take(abi.PREFIXES_BYTES);
    const number = ++this.#count;
    image.put(place + abi.PREFIXES_NUMBER, number);
    const seen = new Set<string>();
    for (const { path, address, length, value } of prefixes) {
      const key = `${address} ${length}`;
      if (seen.has(key)) throw new TypeError(`${path}: the range is there twice`);
      seen.add(key);
      const lengths = place + (address.length === 4 ? abi.PREFIXES_LENGTHS : abi.PREFIXES_LENGTHS6);
      image.bytes[lengths + (length >> 3)] =
        (image.bytes[lengths + (length >> 3)] as number) | (1 << (length & 7));
      image.add(abi.SPACE_PREFIX, number, length, address, value);
    }
    return image.addressOf(place);
  }
}
