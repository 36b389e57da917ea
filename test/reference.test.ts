/** The slow twins against published numbers and against the verifier, before they judge. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { concat, hex, u16, writeU16 } from "../fixtures/bytes.ts";
import { eth, type Packet, raw } from "../fixtures/packets.ts";
import { wrongChecksums } from "../fixtures/verify.ts";
import { difference, internetChecksum, updated, updatedUdp } from "./reference/checksum.ts";
import { Twin } from "./reference/engine.ts";
import { maglevTable, permutation } from "./reference/maglev.ts";
import type { Tuple } from "./reference/parse.ts";

describe("checksums", () => {
  test("RFC 1624 section 4: dd2f with 5555 replaced by 3285 becomes 0000, not ffff", () => {
    expect(updated(0xdd2f, difference(u16(0x5555), u16(0x3285)))).toBe(0x0000);
  });

  test("an update agrees with a whole new sum", () => {
    const word = fc.integer({ min: 0, max: 0xffff });
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 2, maxLength: 41 }), word, (bytes, value) => {
        const changed = bytes.slice();
        writeU16(changed, 0, value);
        const before = internetChecksum(hex("0101"), bytes);
        const after = internetChecksum(hex("0101"), changed);
        expect(updated(before, difference(bytes, changed))).toBe(after);
      }),
    );
  });

  test("a UDP checksum of 0 stays, a computed 0 becomes ffff", () => {
    expect(updatedUdp(0, 0x1234)).toBe(0);
    expect(updatedUdp(0xdd2f, difference(u16(0x5555), u16(0x3285)))).toBe(0xffff);
  });
});

describe("Maglev", () => {
  const [b1, b2, b3] = [
    { offset: 3, skip: 4 },
    { offset: 0, skip: 2 },
    { offset: 3, skip: 1 },
  ];

  test("table 1 of the paper: permutations of three backends over seven entries", () => {
    expect(permutation(b1, 7)).toEqual([3, 0, 4, 1, 5, 2, 6]);
    expect(permutation(b2, 7)).toEqual([0, 2, 4, 6, 1, 3, 5]);
    expect(permutation(b3, 7)).toEqual([3, 4, 5, 6, 0, 1, 2]);
  });

  test("table 2 of the paper: before and after the removal of the second", () => {
    expect(maglevTable([b1, b2, b3], 7)).toEqual([1, 0, 1, 0, 2, 2, 0]);
    expect(maglevTable([b1, b3], 7)).toEqual([0, 0, 0, 0, 1, 1, 1]);
  });
});

const NAT = "198.51.100.1";

/** Turns a tuple into one that leaves from NAT (in hexadecimal). */
function fromNat(client: Tuple): Tuple {
  return { ...client, source: "c6336401" };
}

describe("the twin", () => {
  const wrong = { checksumError: 77 };
  const inside = ["10.0.0.1", "192.0.2.1"] as const;
  const outside = [NAT, "192.0.2.1"] as const;
  const cases: [string, (packet: Packet, ends: readonly [string, string]) => Packet][] = [
    [
      "TCP",
      (p, ends) =>
        p
          .ipv4(...ends)
          .tcp(5000, 80, { flags: "S" })
          .payload(33),
    ],
    [
      "UDP",
      (p, ends) =>
        p
          .ipv4(...ends)
          .udp(5000, 53)
          .payload(33),
    ],
    ["UDP without checksum", (p, ends) => p.ipv4(...ends).udp(5000, 53, { checksum: 0 })],
    [
      "a ping",
      (p, ends) =>
        p
          .ipv4(...ends)
          .icmpQuery(8, 99)
          .payload(56),
    ],
    [
      "wrong checksums",
      (p, ends) =>
        p
          .ipv4(...ends, wrong)
          .udp(5000, 53, wrong)
          .payload(7),
    ],
    [
      "DCCP",
      (p, ends) =>
        p
          .ipv4(...ends)
          .dccp(5000, 53)
          .payload(7),
    ],
    ["ESP", (p, ends) => p.ipv4(...ends).protocol(50, hex("0001020304050607"))],
  ];

  test.each(cases)("%s leaves as the builder builds it with the new source", (_, build) => {
    const twin = new Twin(60_000);
    twin.services.push({ sourceAddresses: [NAT] });
    twin.ports.push({ service: 0 });
    const outcome = twin.process(build(eth({ vlan: [3] }), inside).bytes(), 0, 0, fromNat);
    expect(outcome.verdict).toBe("forward");
    expect(outcome.frame).toEqual(build(eth({ vlan: [3] }), outside).bytes());
  });

  test("an ICMP error about a translated packet leaves with all checksums right", () => {
    const twin = new Twin(60_000);
    twin.services.push({ sourceAddresses: [NAT] });
    twin.ports.push({ service: 0, peer: 1 }, { sides: "service", peer: 0 });
    const sent = twin.process(
      eth()
        .ipv4(...inside)
        .udp(5000, 53)
        .bytes(),
      0,
      0,
      fromNat,
    );
    const quote = raw()
      .ipv4(...outside)
      .udp(5000, 53);
    const report = eth().ipv4("203.0.113.9", NAT).icmpError(11, 0, quote);
    const back = twin.process(report.bytes(), 1, 1, fromNat);
    const quoteInside = raw()
      .ipv4(...inside)
      .udp(5000, 53);
    const reportInside = eth().ipv4("203.0.113.9", "10.0.0.1").icmpError(11, 0, quoteInside);
    expect(wrongChecksums(sent.frame)).toEqual([]);
    expect(back.frame).toEqual(reportInside.bytes());
  });

  test("complains when a choice breaks the rules", () => {
    const twin = new Twin(60_000);
    twin.services.push({ sourceAddresses: [NAT] });
    twin.ports.push({ service: 0 });
    const frame = eth()
      .ipv4(...inside)
      .udp(5000, 53)
      .bytes();
    const at = (change: Partial<Tuple>) => () =>
      twin.process(concat(frame), 0, 0, (client) => ({ ...fromNat(client), ...change }));
    expect(at({ source: "01020304" })).toThrow("a source outside the pool");
    expect(at({ destination: "01020304" })).toThrow("a destination that is no target");
    expect(at({ sourcePort: 80 })).toThrow("a port below 1024");
    expect(at({ sourcePort: 6000 })).toThrow("a port with other low bits");
    expect(at({ sourcePort: 5064 })).toThrow("another port although its own was free");
  });
});
