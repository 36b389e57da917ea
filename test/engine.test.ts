/**
 * What the engine does to packets, case by case: parsing, translation and checksums. Every frame
 * that leaves is compared byte for byte with one that the builder made for the other side.
 */
import { describe, expect, test } from "vitest";
import { hex } from "../fixtures/bytes.ts";
import { eth, fragments4, fragments6, type Packet, raw } from "../fixtures/packets.ts";
import {
  CLIENT,
  CLIENT6,
  ip,
  NAT,
  NAT6,
  nat,
  nlb,
  play,
  ROUTER,
  ROUTER6,
  SERVER,
  SERVER6,
  TARGET,
  TARGET6,
} from "./cases.ts";
import { send, smallEngine } from "./harness.ts";

/** The four ends of a source-NATed packet from the client, by family. */
type Ends = [source: string, destination: string];

const NATTED: Record<"IPv4" | "IPv6", { from: Ends; to: Ends }> = {
  IPv4: { from: [CLIENT, SERVER], to: [NAT, SERVER] },
  IPv6: { from: [CLIENT6, SERVER6], to: [NAT6, SERVER6] },
};
const AIMED: Record<"IPv4" | "IPv6", { from: Ends; to: Ends }> = {
  IPv4: { from: [CLIENT, SERVER], to: [CLIENT, TARGET] },
  IPv6: { from: [CLIENT6, SERVER6], to: [CLIENT6, TARGET6] },
};

type Upper = (packet: Packet) => Packet;
const SYN = { flags: "S" };

/** Transport layers that must come out as they went in, under the new addresses. */
const UPPERS: [string, Upper][] = [
  ["a TCP SYN", (p) => p.tcp(5000, 80, { ...SYN, options: hex("020405b4") })],
  ["a UDP datagram", (p) => p.udp(5000, 53).payload(33)],
  ["a UDP datagram without checksum", (p) => p.udp(5000, 53, { checksum: 0 }).payload(8)],
  ["a wrong TCP checksum, exactly as wrong", (p) => p.tcp(5000, 80, { ...SYN, checksumError: 5 })],
  ["a wrong UDP checksum, exactly as wrong", (p) => p.udp(5000, 53, { checksumError: 0xff00 })],
  ["ESP", (p) => p.protocol(50, hex("0000100100000001")).payload(40)],
  ["GRE", (p) => p.protocol(47, hex("00000800")).payload(40)],
  ["SCTP, whose CRC covers no addresses", (p) => p.sctp(5000, 80).payload(16)],
  ["DCCP, whose checksum covers addresses", (p) => p.dccp(5000, 80).payload(16)],
  ["UDP-Lite", (p) => p.udpLite(5000, 80).payload(16)],
];

describe.each(["IPv4", "IPv6"] as const)("%s", (family) => {
  const six = family === "IPv6" ? 6 : 4;

  test.each(UPPERS)("source NAT and back: %s", async (_, upper) => {
    const { from, to } = NATTED[family];
    await play(nat(), [
      { frame: upper(eth().ip(...from)), out: upper(eth().ip(...to)), portOut: 1 },
    ]);
  });

  test.each(UPPERS)("destination NAT: %s", async (_, upper) => {
    const { from, to } = AIMED[family];
    await play(nlb(), [{ frame: upper(eth().ip(...from)), out: upper(eth().ip(...to)) }]);
  });

  test("answers come back on the other port with the client's address", async () => {
    const { from, to } = NATTED[family];
    const back = (ends: Ends) => eth().ip(ends[1], ends[0]).udp(53, 5000);
    await play(nat(), [
      {
        frame: eth()
          .ip(...from)
          .udp(5000, 53),
        out: eth()
          .ip(...to)
          .udp(5000, 53),
        portOut: 1,
      },
      { frame: back(to).payload(99), out: back(from).payload(99), port: 1, portOut: 0 },
    ]);
  });

  test("a target's port replaces the listener's, and comes back as the listener's", async () => {
    const { from, to } = AIMED[family];
    await play(nlb(8080), [
      {
        frame: eth()
          .ip(...from)
          .tcp(5000, 80, SYN),
        out: eth()
          .ip(...to)
          .tcp(5000, 8080, SYN),
      },
      {
        frame: eth().ip(to[1], to[0]).tcp(8080, 5000, { flags: "SA" }),
        out: eth().ip(from[1], from[0]).tcp(80, 5000, { flags: "SA" }),
        port: 1,
      },
    ]);
  });

  test("a ping keeps its identifier, and the reply finds the client", async () => {
    const { from, to } = NATTED[family];
    await play(nat(), [
      {
        frame: eth()
          .ip(...from)
          .echo(six, "request", 7),
        out: eth()
          .ip(...to)
          .echo(six, "request", 7),
      },
      {
        frame: eth().ip(to[1], to[0]).echo(six, "reply", 7),
        out: eth().ip(from[1], from[0]).echo(six, "reply", 7),
        port: 1,
      },
    ]);
  });

  test("two clients with one port towards one server leave with two ports", async () => {
    const { to } = NATTED[family];
    const other = six === 6 ? "2001:db8::2" : "10.0.0.2";
    const engine = await smallEngine(nat());
    const first = NATTED[family].from;
    const [kept, moved] = send(engine, [
      {
        frame: eth()
          .ip(...first)
          .udp(5000, 53),
      },
      { frame: eth().ip(other, first[1]).udp(5000, 53) },
    ]);
    expect(kept?.frame).toEqual(
      eth()
        .ip(...to)
        .udp(5000, 53)
        .bytes(),
    );
    const port = [...engine.flows()].find(({ client }) => client.address === other)
      ?.translatedClient.port;
    expect(port).toBeGreaterThanOrEqual(1024);
    expect(port).not.toBe(5000);
    expect(moved?.frame).toEqual(
      eth()
        .ip(...to)
        .udp(port ?? 0, 53)
        .bytes(),
    );
  });

  test("one port serves two clients that talk to different servers", async () => {
    const { from, to } = NATTED[family];
    const [other, another] =
      six === 6 ? ["2001:db8::2", "2001:db8:f::2"] : ["10.0.0.2", "192.0.2.2"];
    await play(nat(), [
      {
        frame: eth()
          .ip(...from)
          .udp(5000, 53),
        out: eth()
          .ip(...to)
          .udp(5000, 53),
      },
      {
        frame: eth().ip(other, another).udp(5000, 53),
        out: eth().ip(to[0], another).udp(5000, 53),
      },
    ]);
  });

  test("a datagram in fragments: all pieces get the addresses, the first the checksum", async () => {
    const { from, to } = NATTED[family];
    const upper: Upper = (p) => p.udp(5000, 53).payload(2000);
    const pieces = ([a, b]: Ends) =>
      six === 6
        ? fragments6(eth(), a, b, { id: 9, protocol: 17 }, upper, 800)
        : fragments4(eth(), a, b, { id: 9, protocol: 17 }, upper, 800);
    const out = pieces(to);
    const steps = pieces(from).map((frame, i) => ({ frame, out: out[i] as Packet }));
    const lone = steps[1] as (typeof steps)[0];
    const early = { frame: lone.frame, verdict: "drop.fragment" } as const;
    const late = { ...early, timeMs: 31_000 };
    await play(nat(), [early, ...steps, late]);
  });
});

describe("ICMP errors", () => {
  const sent = (p: Packet) => p.udp(5000, 53).payload(20);

  test("from a router on the way: the quote and the receiver become the client's again", async () => {
    await play(nat(), [
      { frame: sent(eth().ipv4(CLIENT, SERVER)), out: sent(eth().ipv4(NAT, SERVER)) },
      {
        frame: eth()
          .ipv4(ROUTER, NAT)
          .icmpError(11, 0, sent(ip(NAT, SERVER))),
        out: eth()
          .ipv4(ROUTER, CLIENT)
          .icmpError(11, 0, sent(ip(CLIENT, SERVER))),
        port: 1,
      },
    ]);
  });

  test("from a router on the way, IPv6: the pseudo-header's change is in the checksum", async () => {
    await play(nat(), [
      { frame: sent(eth().ipv6(CLIENT6, SERVER6)), out: sent(eth().ipv6(NAT6, SERVER6)) },
      {
        frame: eth()
          .ipv6(ROUTER6, NAT6)
          .icmp6Error(2, 0, sent(ip(NAT6, SERVER6)), { rest: 1280 }),
        out: eth()
          .ipv6(ROUTER6, CLIENT6)
          .icmp6Error(2, 0, sent(ip(CLIENT6, SERVER6)), { rest: 1280 }),
        port: 1,
      },
    ]);
  });

  test("from inside about an answer: the inner router hides behind the NAT address", async () => {
    const answer = (from: string, to: string) => ip(from, to).udp(53, 5000).payload(20);
    await play(nat(), [
      { frame: sent(eth().ipv4(CLIENT, SERVER)), out: sent(eth().ipv4(NAT, SERVER)) },
      {
        frame: eth().ipv4("10.9.9.9", SERVER).icmpError(3, 1, answer(SERVER, CLIENT)),
        out: eth().ipv4(NAT, SERVER).icmpError(3, 1, answer(SERVER, NAT)),
      },
    ]);
  });

  test("from the target: it speaks with the listener's address", async () => {
    const tcp = (p: Packet, port: number) => p.tcp(5000, port, SYN);
    await play(nlb(8080), [
      { frame: tcp(eth().ipv4(CLIENT, SERVER), 80), out: tcp(eth().ipv4(CLIENT, TARGET), 8080) },
      {
        frame: eth()
          .ipv4(TARGET, CLIENT)
          .icmpError(3, 3, tcp(ip(CLIENT, TARGET), 8080)),
        out: eth()
          .ipv4(SERVER, CLIENT)
          .icmpError(3, 3, tcp(ip(CLIENT, SERVER), 80)),
        port: 1,
      },
    ]);
  });

  test("about a ping: the quoted identifier and its checksum follow", async () => {
    const ping = (p: Packet) => p.icmpQuery(8, 77).payload(9);
    await play(nat(), [
      { frame: ping(eth().ipv4(CLIENT, SERVER)), out: ping(eth().ipv4(NAT, SERVER)) },
      {
        frame: eth()
          .ipv4(ROUTER, NAT)
          .icmpError(11, 0, ping(ip(NAT, SERVER))),
        out: eth()
          .ipv4(ROUTER, CLIENT)
          .icmpError(11, 0, ping(ip(CLIENT, SERVER))),
        port: 1,
      },
    ]);
  });

  test("with eight quoted transport bytes, two errors in a row", async () => {
    const tcp = (p: Packet) => p.tcp(5000, 80, SYN);
    const short = { quotedBytes: 28 };
    const report = (p: Packet, quoted: Packet) => p.icmpError(3, 4, quoted, short);
    const steps = [1, 2].map(() => ({
      frame: report(eth().ipv4(ROUTER, NAT), tcp(ip(NAT, SERVER))),
      out: report(eth().ipv4(ROUTER, CLIENT), tcp(ip(CLIENT, SERVER))),
      port: 1,
    }));
    const opened = { frame: tcp(eth().ipv4(CLIENT, SERVER)), out: tcp(eth().ipv4(NAT, SERVER)) };
    await play(nat(), [opened, ...steps]);
  });

  test("about no flow, about an error, and about a later fragment are dropped", async () => {
    const later = raw().ipv4(NAT, SERVER, { fragmentOffset: 8, protocol: 17 }).payload(20);
    const about = (quoted: Packet) => eth().ipv4(ROUTER, NAT).icmpError(11, 0, quoted);
    await play(nat(), [
      { frame: about(sent(ip(NAT, SERVER))), port: 1, verdict: "drop.no-flow" },
      { frame: about(later), port: 1, verdict: "drop.no-flow" },
      {
        frame: about(ip(NAT, SERVER).icmpError(3, 3, sent(ip(NAT, SERVER)))),
        port: 1,
        verdict: "drop.malformed",
      },
    ]);
  });
});
