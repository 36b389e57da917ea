/**
 * NAT64 behind a NAT gateway: packets as RFC 7915 translates them, addresses as RFC 6052 embeds them,
 * byte by byte against packets that are built for the other family.
 */
import { describe, expect, test } from "vitest";
import { eth, fragments4, fragments6, type Packet, raw } from "../fixtures/packets.ts";
import { type Engine, VERDICT_NAMES } from "../host/engine/engine.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { gateway, networkEngine, one, usageOf } from "./network.ts";

const CLIENT6 = "2001:db8::7";
const SERVER = "192.0.2.80";
const SERVER6 = "64:ff9b::c000:250";
const GATEWAY = "203.0.113.1";

/** The gateway of VPC 1, with a route for NAT64 and one for all other IPv6. */
function crossing(): NetworkTables {
  const tables = gateway();
  const [inside, outside] = tables.vpcs;
  const routes = [
    { to: "0.0.0.0/0", service: "nat" },
    { to: "::/0", service: "nat" },
    { to: "64:ff9b::/96", service: "nat" },
  ];
  return {
    ...tables,
    vpcs: [{ ...inside, vpc: 1, routeTables: [routes] }, outside as NonNullable<typeof outside>],
  };
}

/** Sends a frame; returns what left, wherever in memory it is. */
function through(engine: Engine, frame: Packet, port = 1, timeMs = 1000) {
  const { arena, bytes, descriptors } = engine;
  const sent = frame.bytes();
  bytes.set(sent, arena.address + 64);
  descriptors.set([arena.address + 64, sent.length, timeMs, port, 0, 0, 0, sent.length]);
  engine.process(1);
  const [address = 0, length = 0, , ports = 0, verdict = 0, flow = 0, , wire] = descriptors;
  expect(wire).toBe(length);
  return {
    verdict: VERDICT_NAMES[verdict & 0xffff],
    portOut: ports >>> 16,
    flow,
    frame: [...bytes.subarray(address, address + length)],
  };
}

const OUT = { id: 1 };
const out4 = () => eth().ipv4(GATEWAY, SERVER, OUT);
const in6 = () => eth().ipv6(CLIENT6, SERVER6);
const back4 = () => eth().ipv4(SERVER, GATEWAY);
const back6 = () => eth().ipv6(SERVER6, CLIENT6);

describe("IPv6 to an IPv4 server, and back", () => {
  test.each<[string, Packet, Packet, Packet, Packet]>([
    [
      "UDP",
      in6().udp(20000, 53).payload("question"),
      out4().udp(20000, 53).payload("question"),
      back4().udp(53, 20000).payload("answer"),
      back6().udp(53, 20000).payload("answer"),
    ],
    [
      "TCP",
      in6().tcp(20000, 80, { flags: "S", seq: 5 }),
      out4().tcp(20000, 80, { flags: "S", seq: 5 }),
      back4().tcp(80, 20000, { flags: "SA", seq: 9 }),
      back6().tcp(80, 20000, { flags: "SA", seq: 9 }),
    ],
    [
      "a ping",
      in6().icmp6Query(128, 20000).payload("odd"),
      out4().icmpQuery(8, 20000).payload("odd"),
      back4().icmpQuery(0, 20000).payload("odd"),
      back6().icmp6Query(129, 20000).payload("odd"),
    ],
  ])("%s", async (_, sent, expected, answer, received) => {
    const engine = await networkEngine(crossing());
    const out = through(engine, sent);
    expect(out).toMatchObject({ verdict: "forward", portOut: 9 });
    expect(out.frame).toEqual([...expected.bytes()]);
    const back = through(engine, answer, 9);
    expect(back).toMatchObject({ verdict: "forward", portOut: 1, flow: out.flow });
    expect(back.frame).toEqual([...received.bytes()]);
    expect(usageOf(engine, "nat")).toMatchObject({
      ...{ packetsFromClient: 1, bytesFromClient: sent.bytes().length },
      ...{ packetsFromService: 1, bytesFromService: answer.bytes().length },
      ...{ bytesToService: out.frame.length, bytesToClient: back.frame.length },
    });
  });

  test("an extension header is left behind, tags and classes are kept, larger packets stay whole", async () => {
    const engine = await networkEngine(crossing());
    const head = (network: (packet: Packet) => Packet) => network(eth({ vlan: [7] }));
    const sent = head((packet) =>
      packet.ipv6(CLIENT6, SERVER6, {
        hopLimit: 9,
        trafficClass: 0x2e,
        extensions: [{ kind: "destination", body: new Uint8Array(14) }],
      }),
    );
    const expected = head((packet) =>
      packet.ipv4(GATEWAY, SERVER, { ttl: 9, tos: 0x2e, df: true }),
    );
    const out = through(engine, sent.udp(20000, 53).payload(1300));
    expect(out.frame).toEqual([...expected.udp(20000, 53).payload(1300).bytes()]);
  });

  test("answers that a replay has on the client's side count what they are on each", async () => {
    const engine = await networkEngine(crossing());
    const asked = in6().udp(20000, 53).payload(10);
    const answer = back6().udp(53, 20000).payload(100);
    through(engine, asked);
    for (let count = 0; count < 10; count++) through(engine, answer);
    expect(usageOf(engine, "nat")).toMatchObject({
      bytesFromClient: asked.bytes().length,
      bytesToService: asked.bytes().length - 20,
      bytesFromService: 10 * (answer.bytes().length - 20),
      bytesToClient: 10 * answer.bytes().length,
    });
  });

  test("a datagram without a checksum gets one", async () => {
    const engine = await networkEngine(crossing());
    through(engine, in6().udp(20000, 53));
    const back = through(engine, back4().udp(53, 20000, { checksum: 0 }).payload("odd"), 9);
    expect(back.frame).toEqual([...back6().udp(53, 20000).payload("odd").bytes()]);
  });

  test("both families share the ports of an address", async () => {
    const engine = await networkEngine(crossing());
    through(engine, in6().udp(20000, 53));
    const four = one(engine, eth().ip("10.0.1.7", SERVER).udp(20000, 53));
    const port = engine.flow(four.flow)?.translatedClient.port;
    expect(port).not.toBe(20000);
    one(engine, eth().ip("10.0.1.7", SERVER).udp(30000, 53));
    const six = through(engine, in6().udp(30000, 53));
    expect(engine.flow(six.flow)?.translatedClient.port).not.toBe(30000);
  });

  test("other IPv6 does not pass, nor fragments of TCP and pings", async () => {
    const engine = await networkEngine(crossing());
    expect(one(engine, eth().ipv6(CLIENT6, "2001:db8::9").udp(1, 2)).verdict).toBe(
      "drop.unintended",
    );
    const piece = eth().ipv6(CLIENT6, SERVER6, {
      extensions: [{ kind: "fragment", id: 1, more: true }],
    });
    expect(one(engine, piece.tcp(20000, 80, { flags: "S" })).verdict).toBe("drop.fragment");
    expect(one(engine, piece.icmp6Query(128, 20000).payload(24)).verdict).toBe("drop.fragment");
  });
});

describe("fragments of UDP", () => {
  const PROTOCOL = 17;
  const body = (from: number, to: number) => (packet: Packet) => packet.udp(from, to).payload(4000);
  const pieces6 = (from: string, to: string, upper: (packet: Packet) => Packet, id: number) =>
    fragments6(eth(), from, to, { id, protocol: PROTOCOL }, upper, 1400);
  const pieces4 = (from: string, to: string, upper: (packet: Packet) => Packet, id: number) =>
    fragments4(eth(), from, to, { id, protocol: PROTOCOL }, upper, 1400);

  test("cross with identification, flags and offset, both ways", async () => {
    const engine = await networkEngine(crossing());
    const expected = pieces4(GATEWAY, SERVER, body(20000, 53), 0xbeef);
    for (const [at, piece] of pieces6(CLIENT6, SERVER6, body(20000, 53), 0xdeadbeef).entries()) {
      const out = through(engine, piece);
      expect(out).toMatchObject({ verdict: "forward", portOut: 9 });
      expect(out.frame).toEqual([...(expected[at] as Packet).bytes()]);
    }
    const received = pieces6(SERVER6, CLIENT6, body(53, 20000), 0xbeef);
    for (const [at, piece] of pieces4(SERVER, GATEWAY, body(53, 20000), 0xbeef).entries()) {
      const back = through(engine, piece, 9);
      expect(back).toMatchObject({ verdict: "forward", portOut: 1 });
      expect(back.frame).toEqual([...(received[at] as Packet).bytes()]);
    }
    const bytes = (pieces: Packet[]) => pieces.reduce((sum, one) => sum + one.bytes().length, 0);
    expect(usageOf(engine, "nat")).toMatchObject({
      ...{ packetsFromClient: 3, packetsFromService: 3 },
      ...{ bytesToService: bytes(expected), bytesToClient: bytes(received) },
      bytesFromService: bytes(expected),
    });
  });

  test("cross whatever stands before the fragment header", async () => {
    const engine = await networkEngine(crossing());
    const extensions = [
      { kind: "hop-by-hop" as const, body: new Uint8Array(14) },
      { kind: "authentication" as const },
      { kind: "fragment" as const, id: 5, more: true },
    ];
    const out = through(engine, eth().ipv6(CLIENT6, SERVER6, { extensions }).udp(20000, 53));
    const expected = eth().ipv4(GATEWAY, SERVER, { id: 5, moreFragments: true });
    expect(out.frame).toEqual([...expected.udp(20000, 53).bytes()]);
  });

  test("do not come in before the first, nor without a checksum, nor for nobody", async () => {
    const engine = await networkEngine(crossing());
    through(engine, in6().udp(20000, 53));
    const [first, second] = pieces4(SERVER, GATEWAY, body(53, 20000), 7) as [Packet, Packet];
    expect(through(engine, second, 9).verdict).toBe("drop.fragment");
    const bare = (packet: Packet) => packet.udp(53, 20000, { checksum: 0 }).payload(4000);
    const [unsummed] = pieces4(SERVER, GATEWAY, bare, 8) as [Packet];
    expect(through(engine, unsummed, 9).verdict).toMatch(/^drop/);
    const [stranger] = pieces4(SERVER, GATEWAY, body(53, 20001), 9) as [Packet];
    expect(through(engine, stranger, 9).verdict).toMatch(/^drop/);
    expect(through(engine, first, 9).verdict).toBe("forward");
    expect(through(engine, second, 9).verdict).toBe("forward");
  });
});

describe("ICMP errors", () => {
  const ROUTER = "198.51.100.9";
  const ROUTER6 = "64:ff9b::c633:6409";
  const sent4 = (bytes = 100) => raw().ipv4(GATEWAY, SERVER, OUT).udp(20000, 53).payload(bytes);
  const sent6 = (bytes = 100) => raw().ipv6(CLIENT6, SERVER6).udp(20000, 53).payload(bytes);
  const answered4 = () => raw().ipv4(SERVER, GATEWAY, { id: 0 }).udp(53, 20000).payload(60);
  const answered6 = () => raw().ipv6(SERVER6, CLIENT6).udp(53, 20000).payload(60);

  /** An engine with a flow, through which both sides have sent. */
  async function talking(): Promise<Engine> {
    const engine = await networkEngine(crossing());
    through(engine, in6().udp(20000, 53));
    through(engine, back4().udp(53, 20000), 9);
    return engine;
  }

  // RFC 7915 section 4.2: type and code, and the word behind the checksum.
  const INWARD: [number, number, number, [number, number, number] | undefined][] = [
    ...[0, 1, 5, 6, 7, 8, 11, 12].map((code): (typeof INWARD)[0] => [3, code, 0, [1, 0, 0]]),
    ...[9, 10, 13, 15].map((code): (typeof INWARD)[0] => [3, code, 0, [1, 1, 0]]),
    [3, 2, 0, [4, 1, 6]],
    [3, 3, 0, [1, 4, 0]],
    [3, 4, 1400, [2, 0, 1420]],
    [3, 4, 1000, [2, 0, 1280]],
    [3, 14, 0, undefined],
    [11, 0, 0, [3, 0, 0]],
    [11, 1, 0, [3, 1, 0]],
    [12, 0, 0x08000000, [4, 0, 7]],
    [12, 2, 0x0c000000, [4, 0, 8]],
    [12, 0, 0x13000000, [4, 0, 24]],
    [12, 0, 0x04000000, undefined],
    [12, 0, 0x14000000, undefined],
    [12, 1, 0, undefined],
    [4, 0, 0, undefined],
    [5, 1, 0, undefined],
  ];
  test.each(INWARD)("type %d, code %d, %d from a router outside", async (type, code, rest, to) => {
    const engine = await talking();
    const error = eth().ipv4(ROUTER, GATEWAY, { ttl: 60, tos: 0xc0 });
    const back = through(engine, error.icmpError(type, code, sent4(), { rest }), 9);
    if (to === undefined) {
      expect(back.verdict).toMatch(/^drop/);
      return;
    }
    const head = eth().ipv6(ROUTER6, CLIENT6, { hopLimit: 60, trafficClass: 0xc0 });
    expect(back).toMatchObject({ verdict: "forward", portOut: 1 });
    const [type6, code6, rest6] = to;
    const expected = head.icmp6Error(type6, code6, sent6(), { rest: rest6 });
    expect(back.frame).toEqual([...expected.bytes()]);
    const { bytesFromService, bytesToClient } = usageOf(engine, "nat");
    expect(bytesToClient - bytesFromService).toBe(20 + 40);
  });

  test("a router that tells no MTU gets the next smaller plateau", async () => {
    const engine = await talking();
    const error = (bytes: number) =>
      eth().ipv4(ROUTER, GATEWAY).icmpError(3, 4, sent4(bytes), { rest: 0, quotedBytes: 28 });
    for (const [bytes, mtu] of [
      [1472, 1492 + 20],
      [1464, 1280],
      [4500, 4352 + 20],
      [40, 1280],
    ] as const) {
      const back = through(engine, error(bytes), 9);
      const expected = eth()
        .ipv6(ROUTER6, CLIENT6)
        .icmp6Error(2, 0, sent6(bytes), { rest: mtu, quotedBytes: 48 });
      expect(back.frame).toEqual([...expected.bytes()]);
    }
  });

  // RFC 7915 section 5.2.
  const OUTWARD: [number, number, number, [number, number, number] | undefined][] = [
    [1, 0, 0, [3, 1, 0]],
    [1, 1, 0, [3, 10, 0]],
    [1, 2, 0, [3, 1, 0]],
    [1, 3, 0, [3, 1, 0]],
    [1, 4, 0, [3, 3, 0]],
    [1, 5, 0, undefined],
    [2, 0, 1400, [3, 4, 1380]],
    [2, 0, 19, [3, 4, 68]],
    [2, 0, 0xffffffff, [3, 4, 65535]],
    [3, 0, 0, [11, 0, 0]],
    [3, 1, 0, [11, 1, 0]],
    [4, 0, 7, [12, 0, 0x08000000]],
    [4, 0, 4, [12, 0, 0x02000000]],
    [4, 0, 23, [12, 0, 0x0c000000]],
    [4, 0, 24, [12, 0, 0x10000000]],
    [4, 0, 2, undefined],
    [4, 0, 40, undefined],
    [4, 1, 0, [3, 2, 0]],
    [4, 2, 0, undefined],
  ];
  test.each(OUTWARD)("type %d, code %d, %d from inside", async (type, code, rest, to) => {
    const engine = await talking();
    const error = eth().ipv6(CLIENT6, SERVER6).icmp6Error(type, code, answered6(), { rest });
    const out = through(engine, error);
    if (to === undefined) {
      expect(out.verdict).toBe("drop.unintended");
      return;
    }
    expect(out).toMatchObject({ verdict: "forward", portOut: 9 });
    const [type4, code4, rest4] = to;
    const expected = out4().icmpError(type4, code4, answered4(), { rest: rest4 });
    expect(out.frame).toEqual([...expected.bytes()]);
  });

  test("about pings, and cut off behind the quoted header", async () => {
    const engine = await networkEngine(crossing());
    through(engine, in6().icmp6Query(128, 20000).payload("odd"));
    through(engine, back4().icmpQuery(0, 20000).payload("odd"), 9);
    const asked4 = raw().ipv4(GATEWAY, SERVER, OUT).icmpQuery(8, 20000).payload("odd");
    const asked6 = raw().ipv6(CLIENT6, SERVER6).icmp6Query(128, 20000).payload("odd");
    for (const [quotedBytes, quotedBytes6] of [
      [31, 51],
      [28, 48],
    ] as const) {
      const error = eth().ipv4(ROUTER, GATEWAY).icmpError(3, 1, asked4, { quotedBytes });
      const expected = eth()
        .ipv6(ROUTER6, CLIENT6)
        .icmp6Error(1, 0, asked6, { quotedBytes: quotedBytes6 });
      expect(through(engine, error, 9).frame).toEqual([...expected.bytes()]);
    }
    const told6 = raw().ipv6(SERVER6, CLIENT6).icmp6Query(129, 20000).payload("odd");
    const told4 = raw().ipv4(SERVER, GATEWAY, { id: 0 }).icmpQuery(0, 20000).payload("odd");
    const error = eth().ipv6(CLIENT6, SERVER6).icmp6Error(3, 0, told6);
    expect(through(engine, error).frame).toEqual([...out4().icmpError(11, 0, told4).bytes()]);
  });

  test("a wrong checksum stays exactly as wrong", async () => {
    const engine = await talking();
    const broken = (packet: Packet, at: number) => {
      const bytes = packet.bytes();
      bytes[at] = (bytes[at] ?? 0) ^ 0x10;
      return { bytes: () => bytes } as Packet;
    };
    const error = eth().ipv4(ROUTER, GATEWAY).icmpError(3, 1, sent4());
    const good = through(engine, error, 9).frame;
    const bad = through(engine, broken(error, 14 + 20 + 2), 9).frame;
    const differing = good.flatMap((byte, at) => (byte === bad[at] ? [] : [at]));
    expect(differing).toEqual([14 + 40 + 2]);
  });

  test("about nobody's packets do not come in, nor about those that the client has sent go out", async () => {
    const engine = await talking();
    const other = raw().ipv4(GATEWAY, SERVER).udp(20001, 53).payload(9);
    const error = eth().ipv4(ROUTER, GATEWAY).icmpError(3, 1, other);
    expect(through(engine, error, 9).verdict).toBe("drop.no-flow");
    const odd = eth().ipv6("2001:db8::1", CLIENT6).icmp6Error(1, 0, sent6());
    expect(through(engine, odd).verdict).toBe("drop.unintended");
  });
});
