/** The packet builder and the checksum verifier, against each other and against known packets. */
import { describe, expect, test } from "vitest";
import { hex, internetChecksum } from "../fixtures/bytes.ts";
import { eth, fragments4, fragments6, type Packet, raw, snap } from "../fixtures/packets.ts";
import { verifyFrame, wrongChecksums } from "../fixtures/verify.ts";

const A = "10.0.0.1";
const B = "192.0.2.1";
const A6 = "2001:db8::1";
const B6 = "2001:db8::2";
const C6 = "2001:db8::3";

/** Each packet with the checksums that the verifier must find in it and find right. */
const PACKETS: [string, Packet, string[]][] = [
  ["TCP", eth().ipv4(A, B).tcp(1, 2).payload("odd"), ["ipv4", "tcp"]],
  [
    "TCP with options",
    eth()
      .ipv4(A, B)
      .tcp(1, 2, { options: hex("020405b4") }),
    ["ipv4", "tcp"],
  ],
  [
    "IPv4 options",
    eth()
      .ipv4(A, B, { options: hex("94040000") })
      .udp(1, 2),
    ["ipv4", "udp"],
  ],
  [
    "two VLANs",
    eth({ vlan: [1, 2] })
      .ipv4(A, B)
      .udp(1, 2)
      .payload(9),
    ["ipv4", "udp"],
  ],
  ["an echo", eth().ipv4(A, B).icmpQuery(8, 7).payload(56), ["ipv4", "icmp"]],
  ["TCP over IPv6", eth().ipv6(A6, B6).tcp(1, 2).payload(1), ["tcp"]],
  ["an ICMPv6 echo", eth().ipv6(A6, B6).icmp6Query(128, 7).payload(3), ["icmpv6"]],
  ["DCCP", eth().ipv4(A, B).dccp(1, 2).payload(4), ["ipv4", "dccp"]],
  ["UDP-Lite", eth().ipv6(A6, B6).udpLite(1, 2).payload(5), ["udp-lite"]],
  [
    "an error that quotes a packet",
    eth().ipv4(B, A).icmpError(3, 3, raw().ipv4(A, B).udp(1, 2).payload(5)),
    ["ipv4", "icmp", "quoted ipv4", "quoted udp"],
  ],
  [
    "an ICMPv6 error",
    eth().ipv6(B6, A6).icmp6Error(2, 0, raw().ipv6(A6, B6).tcp(1, 2), { rest: 1280 }),
    ["icmpv6", "quoted tcp"],
  ],
  [
    "a home address and a routing header",
    eth()
      .ipv6(A6, B6, {
        extensions: [
          { kind: "hop-by-hop" },
          { kind: "home-address", address: C6 },
          { kind: "routing", type: 0, segmentsLeft: 1, addresses: [A6, C6] },
          { kind: "authentication" },
        ],
      })
      .udp(1, 2),
    ["udp"],
  ],
];

describe("the builder", () => {
  test.each(PACKETS)("%s: the verifier finds every checksum, and right", (_, packet, wanted) => {
    const reports = verifyFrame(packet.bytes());
    expect(reports.map((report) => (report.quoted ? `quoted ${report.of}` : report.of))).toEqual(
      wanted,
    );
    expect(reports.every((report) => report.state === "right")).toBe(true);
  });

  test("the IPv4 header that textbooks show comes out byte for byte", () => {
    const packet = raw().ipv4("192.168.0.1", "192.168.0.199", { df: true, totalLength: 0x73 });
    const header = hex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7");
    expect(packet.udp(1, 2).bytes().subarray(0, 20)).toEqual(header);
  });

  test("the header example of RFC 1071 has the sum of the RFC", () => {
    expect(internetChecksum(hex("0001 f203 f4f5 f6f7"))).toBe(0x220d);
  });

  test("fragments put together again are the datagram", () => {
    const build = (packet: Packet) => packet.udp(1, 2).payload(3000);
    const parts = fragments4(raw(), A, B, { id: 7, protocol: 17 }, build, 1480);
    const bodies = parts.flatMap((part) => [...part.bytes().subarray(20)]);
    expect(parts).toHaveLength(3);
    expect(Uint8Array.from(bodies)).toEqual(build(raw().ipv4(A, B)).bytes().subarray(20));
    const parts6 = fragments6(raw(), A6, B6, { id: 7, protocol: 17 }, build, 1448);
    const bodies6 = parts6.flatMap((part) => [...part.bytes().subarray(48)]);
    expect(Uint8Array.from(bodies6)).toEqual(build(raw().ipv6(A6, B6)).bytes().subarray(40));
  });
});

describe("the verifier", () => {
  test("names exactly the checksum that was made wrong", () => {
    const wrong = { checksumError: 1 };
    expect(wrongChecksums(eth().ipv4(A, B, wrong).tcp(1, 2).bytes())).toEqual(["ipv4"]);
    expect(wrongChecksums(eth().ipv4(A, B).tcp(1, 2, wrong).bytes())).toEqual(["tcp"]);
    expect(wrongChecksums(eth().ipv6(A6, B6).udp(1, 2, wrong).bytes())).toEqual(["udp"]);
    const quoted = raw().ipv4(A, B).tcp(1, 2, wrong);
    expect(wrongChecksums(eth().ipv4(B, A).icmpError(11, 0, quoted).bytes())).toEqual([
      "quoted tcp",
    ]);
  });

  test("any flipped bit of a packet is seen", () => {
    const frame = eth().ipv4(A, B).tcp(1, 2).payload(10).bytes();
    for (let bit = 14 * 8; bit < frame.length * 8; bit++) {
      const broken = frame.slice();
      broken[bit >> 3] = (broken[bit >> 3] ?? 0) ^ (128 >> (bit & 7));
      const reports = verifyFrame(broken);
      const fine = reports.length === 2 && reports.every((report) => report.state === "right");
      expect(fine, `bit ${bit}`).toBe(false);
    }
  });

  test("says unknown of what was not captured and none of a UDP checksum of 0", () => {
    const short = verifyFrame(snap(eth().ipv4(A, B).tcp(1, 2).payload(100), 60));
    expect(short.map((report) => report.state)).toEqual(["right", "unknown"]);
    const none = verifyFrame(eth().ipv4(A, B).udp(1, 2, { checksum: 0 }).bytes());
    expect(none.map((report) => report.state)).toEqual(["right", "none"]);
  });
});
