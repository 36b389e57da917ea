/** IP addresses between text and bytes; ipaddr.js knows the notations (RFC 4291, RFC 5952). */
import ipaddr from "ipaddr.js";

/** What nearly all IPv4 addresses look like; ipaddr.js takes ten times as long to read them. */
const PLAIN_IPV4 = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;

/** The 4 or 16 bytes of an address in network order. @throws TypeError when it is none. */
export function addressBytes(text: string): Uint8Array {
  const plain = PLAIN_IPV4.exec(text);
  if (plain) {
    const [a, b, c, d] = [
      +(plain[1] ?? ""),
      +(plain[2] ?? ""),
      +(plain[3] ?? ""),
      +(plain[4] ?? ""),
    ];
    if (a < 256 && b < 256 && c < 256 && d < 256) return Uint8Array.of(a, b, c, d);
  }
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
