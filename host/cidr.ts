/**
 * Address ranges in CIDR notation (RFC 4632, RFC 4291 section 2.3). An address is compared as its
 * bytes; ranges of different families never meet.
 */
import { addressBytes, addressText } from "./address.ts";

export interface Cidr {
  /** 4 or 16 bytes; those after the prefix are 0. */
  bytes: Uint8Array;
  /** 0 to 32 or 0 to 128. */
  prefixBits: number;
}

/** What is wrong with a range, as the end of a sentence that begins with it; undefined if nothing. */
export function cidrError(text: string): string | undefined {
  const [, addressPart = "", bits = ""] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const prefixBits = Number(bits);
  let bytes: Uint8Array;
  try {
    bytes = addressBytes(addressPart);
  } catch {
    return "is not a CIDR such as 10.0.0.0/16";
  }
  if (prefixBits > bytes.length * 8) {
    return `is not a CIDR: the prefix of this family has 0 to ${bytes.length * 8} bits`;
  }
  const masked = maskedBytes(bytes, prefixBits);
  if (masked.some((byte, index) => byte !== bytes[index])) {
    return `has bits after its prefix; ${addressText(masked)}/${prefixBits} has none`;
  }
  return undefined;
}

/** @throws TypeError when the text is no range */
export function parseCidr(text: string): Cidr {
  const error = cidrError(text);
  if (error) throw new TypeError(`${JSON.stringify(text)} ${error}`);
  const slash = text.lastIndexOf("/");
  return { bytes: addressBytes(text.slice(0, slash)), prefixBits: Number(text.slice(slash + 1)) };
}

function maskedBytes(bytes: Uint8Array, prefixBits: number): Uint8Array {
  return bytes.map((byte, index) => {
    const bits = Math.min(8, Math.max(0, prefixBits - index * 8));
    return byte & (0xff00 >> bits) & 0xff;
  });
}

/** Whether an address, as its bytes, lies in a range. */
export function contains({ bytes, prefixBits }: Cidr, address: Uint8Array): boolean {
  if (address.length !== bytes.length) return false;
  return maskedBytes(address, prefixBits).every((byte, index) => byte === bytes[index]);
}

/** Whether the first range holds the whole of the second. */
export function holds(outer: Cidr, inner: Cidr): boolean {
  return inner.prefixBits >= outer.prefixBits && contains(outer, inner.bytes);
}

/** Whether two ranges have an address in common: then one of them holds the other. */
export function overlap(one: Cidr, other: Cidr): boolean {
  return holds(one, other) || holds(other, one);
}

/** The address that stands so many places after the first of a range. */
export function addressAt({ bytes }: Cidr, place: number): string {
  const sum = bytes.slice();
  let carry = place;
  for (let index = sum.length - 1; index >= 0 && carry > 0; index--) {
    carry += sum[index] as number;
    sum[index] = carry & 0xff;
    carry = Math.floor(carry / 256);
  }
  return addressText(sum);
}

/**
 * Ranges that no packet comes from. IPv4: this network, loopback, link-local, multicast and what lies above;
 * IPv6: loopback and IPv4 in old forms, IPv4-mapped (RFC 6890), link-local, multicast.
 */
const SOURCELESS = [
  ...["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"],
  ...["::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"],
].map(parseCidr);

/** Whether no packet of another machine can come from some address of a range. */
export function isSourceless(range: Cidr): boolean {
  return SOURCELESS.some((one) => overlap(one, range));
}

/** Places of an IPv4 range that AWS keeps for itself: the first four addresses and the last. */
export function isReserved(range: Cidr, address: Uint8Array): boolean {
  if (range.bytes.length !== 4 || !contains(range, address)) return false;
  const number = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const place = number(address) - number(range.bytes);
  return place < 4 || place === 2 ** (32 - range.prefixBits) - 1;
}
