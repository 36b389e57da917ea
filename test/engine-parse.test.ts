/**
 * What the engine reads, case by case: link layers, VLAN tags, IPv6 extension headers, and frames
 * that are cut off or contradict themselves. Frames that leave are compared byte for byte.
 */
import { describe, expect, test } from "vitest";
import { hex } from "../fixtures/bytes.ts";
import { eth, type Packet, raw, snap } from "../fixtures/packets.ts";
import type { LinkKind, VerdictName } from "../host/engine/api.ts";
import { CLIENT, CLIENT6, NAT, NAT6, nat, nlb, play, SERVER, SERVER6, TARGET6 } from "./cases.ts";

const SYN = { flags: "S" };

describe("IPv6 extension headers", () => {
  const HOME = "2001:db8:d::1";
  const chains: [string, Parameters<Packet["ipv6"]>[2], Parameters<Packet["ipv6"]>[2]][] = [
    ["hop-by-hop options", { extensions: [{ kind: "hop-by-hop" }] }, undefined],
    ["destination options", { extensions: [{ kind: "destination" }] }, undefined],
    ["an authentication header", { extensions: [{ kind: "authentication" }] }, undefined],
    [
      "a fragment header that cuts nothing",
      { extensions: [{ kind: "fragment", id: 3 }] },
      undefined,
    ],
    [
      "a routing header at its end",
      { extensions: [{ kind: "routing", type: 0, segmentsLeft: 0, addresses: [HOME] }] },
      undefined,
    ],
  ];

  test.each(chains)("%s: the transport header behind is found", async (_, options) => {
    await play(nat(), [
      {
        frame: eth().ipv6(CLIENT6, SERVER6, options).udp(5000, 53).payload(7),
        out: eth().ipv6(NAT6, SERVER6, options).udp(5000, 53).payload(7),
      },
    ]);
  });

  test.each([0, 2])("routing type %i: its last address is the destination", async (type) => {
    const via = (last: string) => ({
      extensions: [{ kind: "routing", type, segmentsLeft: 1, addresses: [last] } as const],
    });
    await play(nlb(), [
      {
        frame: eth().ipv6(CLIENT6, "2001:db8:e::5", via(SERVER6)).udp(5000, 53),
        out: eth().ipv6(CLIENT6, "2001:db8:e::5", via(TARGET6)).udp(5000, 53),
      },
    ]);
  });

  test("a home address is the source", async () => {
    const home = (address: string) => ({
      extensions: [{ kind: "home-address", address } as const],
    });
    await play(nat(), [
      {
        frame: eth().ipv6(CLIENT6, SERVER6, home(HOME)).udp(5000, 53),
        out: eth().ipv6(CLIENT6, SERVER6, home(NAT6)).udp(5000, 53),
      },
    ]);
  });

  test("eight are walked, nine are too many, a cut chain is truncated", async () => {
    const chain = (n: number) => ({
      extensions: Array.from({ length: n }, () => ({ kind: "destination" }) as const),
    });
    const packet = (n: number, from = CLIENT6) => eth().ipv6(from, SERVER6, chain(n)).udp(5000, 53);
    await play(nat(), [
      { frame: packet(8), out: packet(8, NAT6) },
      { frame: packet(9), verdict: "drop.malformed" },
      { frame: snap(packet(8), 80), verdict: "drop.truncated" },
    ]);
  });

  test("a jumbogram counts as long as it is captured", async () => {
    const jumbo = { payloadLength: 0, extensions: [{ kind: "jumbo", length: 70_000 } as const] };
    const packet = (from: string) => eth().ipv6(from, SERVER6, jumbo).udp(5000, 53).payload(100);
    await play(nat(), [{ frame: packet(CLIENT6), out: packet(NAT6) }]);
  });
});

describe("link layers", () => {
  const links: [string, LinkKind, Packet][] = [
    ["Ethernet", "ethernet", eth()],
    ["one VLAN", "ethernet", eth({ vlan: [7] })],
    ["two VLANs", "ethernet", eth({ vlan: [7, 8] })],
    ["an old tag type", "ethernet", eth({ vlan: [7], tpid: [0x9100] })],
    ["cooked", "sll", raw().sll()],
    ["cooked with a VLAN", "sll", raw().sll({ vlan: [7] })],
    ["cooked, version 2", "sll2", raw().sll2()],
    ["loopback", "null", raw().loop()],
    ["loopback of the other byte order", "null", raw().loop({ bigEndian: true })],
    ["bare IP", "raw", raw()],
  ];

  test.each(links)("%s: both families", async (_, link, head) => {
    await play(nat({ link }), [
      { frame: head.ipv4(CLIENT, SERVER).udp(5000, 53), out: head.ipv4(NAT, SERVER).udp(5000, 53) },
      {
        frame: head.ipv6(CLIENT6, SERVER6).udp(5000, 53),
        out: head.ipv6(NAT6, SERVER6).udp(5000, 53),
      },
    ]);
  });

  test.each([10, 24, 28, 30])("loopback family %i is IPv6", async (family) => {
    const head = raw().loop({ family });
    await play(nat({ link: "null" }), [
      {
        frame: head.ipv6(CLIENT6, SERVER6).udp(5000, 53),
        out: head.ipv6(NAT6, SERVER6).udp(5000, 53),
      },
    ]);
  });

  test("what is not IP passes untouched", async () => {
    const pass = "pass.non-ip" as const;
    await play(nat(), [
      { frame: eth().arp("10.0.0.1", "10.0.0.2"), verdict: pass, portOut: 1 },
      { frame: eth({ etherType: 0x8847 }).payload(40), verdict: pass },
      { frame: eth({ etherType: 0x8864 }).payload(40), verdict: pass },
      { frame: eth({ etherType: 60 }).payload(60), verdict: pass },
      {
        frame: eth({ vlan: [1, 2, 3] })
          .ipv4(CLIENT, SERVER)
          .udp(5000, 53),
        verdict: pass,
      },
    ]);
    await play(nat({ link: "raw" }), [{ frame: hex("00112233"), verdict: pass }]);
    await play(nat({ link: "null" }), [{ frame: hex("0700000000000000"), verdict: pass }]);
  });

  test("Ethernet padding stays what it is", async () => {
    const padded = (from: string) => eth({ padTo: 60 }).ipv4(from, SERVER).udp(5000, 53).payload(3);
    await play(nat(), [{ frame: padded(CLIENT), out: padded(NAT) }]);
  });
});

describe("what cannot be read", () => {
  const whole = eth().ipv4(CLIENT, SERVER).tcp(5000, 80, SYN).payload(50);
  const cases: [string, VerdictName, Packet | Uint8Array][] = [
    ["an Ethernet header cut off", "drop.truncated", snap(whole, 13)],
    ["an IPv4 header cut off", "drop.truncated", snap(whole, 33)],
    ["ports cut off", "drop.truncated", snap(whole, 37)],
    ["an IPv6 header cut off", "drop.truncated", snap(eth().ipv6(CLIENT6, SERVER6).udp(1, 2), 53)],
    ["a VLAN tag cut off", "drop.truncated", snap(eth({ vlan: [1] }).ipv4(CLIENT, SERVER), 16)],
    [
      "an identifier cut off",
      "drop.truncated",
      snap(eth().ipv4(CLIENT, SERVER).icmpQuery(8, 1), 39),
    ],
    ["version 5", "drop.malformed", eth().ipv4(CLIENT, SERVER, { version: 5 }).udp(1, 2)],
    [
      "a header of 16 bytes",
      "drop.malformed",
      eth().ipv4(CLIENT, SERVER, { headerWords: 4 }).udp(1, 2),
    ],
    [
      "a total length below it",
      "drop.malformed",
      eth().ipv4(CLIENT, SERVER, { totalLength: 19 }).udp(1, 2),
    ],
    [
      "half a TCP header",
      "drop.malformed",
      eth().ipv4(CLIENT, SERVER, { totalLength: 30 }).tcp(1, 2),
    ],
    [
      "an extension header beyond the payload",
      "drop.malformed",
      eth()
        .ipv6(CLIENT6, SERVER6, { payloadLength: 4, extensions: [{ kind: "hop-by-hop" }] })
        .udp(1, 2),
    ],
  ];

  test.each(cases)("%s", async (_, verdict, frame) => {
    const { counters } = await play(nat(), [{ frame, verdict }]);
    expect(counters.verdicts[verdict]).toBe(1);
    expect(counters.flows.created).toBe(0);
  });

  test("a total length of 0 is an offloaded packet: the captured length counts", async () => {
    const packet = (from: string) =>
      eth().ipv4(from, SERVER, { totalLength: 0 }).udp(5000, 53).payload(9);
    await play(nat(), [{ frame: packet(CLIENT), out: packet(NAT) }]);
  });

  test.each([38, 42, 47, 50, 52, 60])(
    "of %i captured bytes those present are translated",
    async (n) => {
      const packet = (from: string) => eth().ipv4(from, SERVER).tcp(5000, 80, SYN).payload(50);
      const verdict = n < 48 ? ("drop.no-flow" as const) : ("forward" as const);
      const out = n < 48 ? {} : { out: snap(packet(NAT), n) };
      // Without its flags nobody knows that it is a SYN.
      await play(nat(), [{ frame: snap(packet(CLIENT), n), verdict, ...out }]);
    },
  );

  test("a protocol of the other family's ICMP is carried like any other", async () => {
    const odd = (p: Packet) => p.icmp6Query(128, 9).payload(3);
    const bytes = (from: string, carrier: Packet) => {
      const body = odd(raw().ipv6(CLIENT6, SERVER6)).bytes().subarray(40);
      return carrier.ipv4(from, SERVER, { protocol: 58 }).payload(body);
    };
    await play(nat(), [{ frame: bytes(CLIENT, eth()), out: bytes(NAT, eth()) }]);
  });

  test("later fragments of DCCP carry payload where others have a checksum", async () => {
    const later = (from: string) =>
      eth().ipv4(from, SERVER, { protocol: 33, fragmentOffset: 80 }).payload(24);
    await play(nat(), [{ frame: later(CLIENT), out: later(NAT) }]);
  });
});
