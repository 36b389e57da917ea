/** IP addresses between text and bytes; ipaddr.js knows the notations (RFC 4291, RFC 5952). */
import ipaddr from "ipaddr.js";

/**
 * The 32 bits of an IPv4 address in the one form that nearly all have, or -1. ipaddr.js takes forty
 * times as long.
 */
export function plainIpv4(text: string): number {
  let value = 0;
  let octet = -1;
  let dots = 0;
  for (let at = 0; at < text.length; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit >= 0 && digit <= 9) {
      // No leading zeros: some read them as octal.
      if (octet === 0) return -1;
      octet = octet < 0 ? digit : octet * 10 + digit;
      if (octet > 255) return -1;
    } else {
      if (digit !== -2 || octet < 0 || dots === 3) return -1;
      value = value * 256 + octet;
      octet = -1;
      dots++;
    }
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : -1;
}

/** The 4 or 16 bytes of an address in network order. @throws TypeError when it is none. */
export function addressBytes(text: string): Uint8Array {
  const plain = plainIpv4(text);
  if (plain >= 0) return Uint8Array.of(plain >>> 24, plain >>> 16, plain >>> 8, plain);
  if (!ipaddr.isValid(text) || (!text.includes(":") && !ipaddr.IPv4.isValidFourPartDecimal(text))) {
    throw new TypeError(`${JSON.stringify(text)} is not an IP address`);
  }
  return Uint8Array.from(ipaddr.parse(text).toByteArray());
}

/** Octets as text, alone and with the dot that follows all but the last. */
const octets = Array.from({ length: 256 }, (_, octet) => `${octet}`);
const dotted = octets.map((octet) => `${octet}.`);

/** The dotted form of four bytes at `at`; from tables, for whoever reads millions of them. */
export function ipv4Text(bytes: Uint8Array, at = 0): string {
  const [a = 0, b = 0, c = 0, d = 0] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  return `${dotted[a]}${dotted[b]}${dotted[c]}${octets[d]}`;
}

/** Text form of 4 or 16 bytes in network order. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return ipv4Text(bytes);
  return (ipaddr.fromByteArray(Array.from(bytes)) as ipaddr.IPv6).toRFC5952String();
}

/** Where IPv6 hosts see those of IPv4 (RFC 6052 section 2.1). */
export const NAT64_PREFIX = "64:ff9b::/96";

/** An IPv4 address as IPv6 hosts see it. */
export function inNat64(address: string): string {
  return `64:ff9b::${address}`;
}
