/** IP addresses between text and bytes, beside ipaddr.js and the obvious ways. */
import * as fc from "fast-check";
import ipaddr from "ipaddr.js";
import { expect, test } from "vitest";
import { addressBytes, addressText, ipv4Text, plainIpv4 } from "../host/address.ts";

const SEED = 20_261_126;
const octets = fc.uint8Array({ minLength: 4, maxLength: 4 });

test("every octet at every place is written as ipaddr.js writes it", () => {
  for (let place = 0; place < 4; place++) {
    for (let octet = 0; octet < 256; octet++) {
      const bytes = Uint8Array.of(10, 20, 30, 40);
      bytes[place] = octet;
      expect(ipv4Text(bytes)).toBe(ipaddr.fromByteArray([...bytes]).toString());
    }
  }
});

test("what is written is read back, wherever it lies", () => {
  const behind = fc.tuple(octets, fc.uint8Array({ maxLength: 5 }));
  fc.assert(
    fc.property(behind, ([address, before]) => {
      const text = ipv4Text(Uint8Array.of(...before, ...address), before.length);
      expect(text).toBe([...address].join("."));
      expect(addressText(address)).toBe(text);
      expect(addressBytes(text)).toEqual(address);
    }),
    { seed: SEED, numRuns: 5000 },
  );
});

test("IPv6 in the form of RFC 5952, there and back", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (address) => {
      const text = addressText(address);
      expect(text).toBe(text.toLowerCase());
      expect(addressBytes(text)).toEqual(address);
    }),
    { seed: SEED, numRuns: 2000 },
  );
  expect(addressText(addressBytes("2001:DB8:0:0:1:0:0:1"))).toBe("2001:db8::1:0:0:1");
});

test("the one plain form of IPv4, and nothing else, is read the short way", () => {
  const slow = (text: string) => {
    const parts = text.split(".");
    const isPlain = parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part));
    if (!isPlain || parts.some((part) => Number(part) > 255)) return -1;
    return parts.reduce((value, part) => value * 256 + Number(part), 0);
  };
  const character = fc.constantFrom(..."0123459.: x");
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 16 }), (text) => {
      expect(plainIpv4(text)).toBe(slow(text));
    }),
    { seed: SEED, numRuns: 20_000 },
  );
  for (const text of ["255.255.255.255", "0.0.0.0", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4."]) {
    expect(plainIpv4(text)).toBe(slow(text));
  }
});
