/** IP addresses between text and bytes; ipaddr.js knows the notations (RFC 4291, RFC 5952). */
import ipaddr from "ipaddr.js";

/** The 4 or 16 bytes of an address in network order. @throws TypeError when it is none. */
export function addressBytes(text: string): Uint8Array {
  if (!ipaddr.isValid(text) || (!text.includes(":") && !ipaddr.IPv4.isValidFourPartDecimal(text))) {
    throw new TypeError(`${JSON.stringify(text)} is not an IP address`);
  }
  return Uint8Array.from(ipaddr.parse(text).toByteArray());
}

/** Text form of 4 or 16 bytes in network order. */
export function addressText(bytes: Uint8Array): string {
  const address = ipaddr.fromByteArray(Array.from(bytes));
  return address.kind() === "ipv6"
    ? (address as ipaddr.IPv6).toRFC5952String()
    : address.toString();
}
