/**
 * NAT64 behind a NAT gateway: packets as RFC 7915 translates them, addresses as RFC 6052 embeds them,
 * byte by byte against packets that are built for the other family.
 */
import { describe, expect, test } from "vitest";
import { eth, type Packet, raw } from "../fixtures/packets.ts";
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
    expect(usageOf(engine, "nat")).toMatchObject({ packetsFromClient: 1, packetsFromService: 1 });
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

  test("other IPv6 and fragments do not pass", async () => {
    const engine = await networkEngine(crossing());
    expect(one(engine, eth().ipv6(CLIENT6, "2001:db8::9").udp(1, 2)).verdict).toBe(
      "drop.unintended",
    );
    const piece = eth().ipv6(CLIENT6, SERVER6, {
      extensions: [{ kind: "fragment", id: 1, more: true }],
    });
    expect(one(engine, piece.udp(20000, 53).payload(24)).verdict).toBe("drop.fragment");
    expect(raw().bytes()).toHaveLength(0);
  });
});
