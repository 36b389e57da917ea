/**
 * What services of networks do to packets of devices: super-packets are as long as what they are cut
 * into, and what changes in a TCP header leaves a checksum alone that the device will complete.
 */
import { describe, expect, test } from "vitest";
import { hex, pattern } from "../fixtures/bytes.ts";
import { type Packet, raw } from "../fixtures/packets.ts";
import { createEngine } from "../host/engine/engine.ts";
import { Frames } from "../host/engine/frames.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { TRANSIT_BYTES, Transit } from "../host/engine/transit.ts";
import { completed, type VnetHeader, withPartial } from "./reference/vnet.ts";
import { type Left, passThrough } from "./transit.ts";

const MTU_BYTES = 1400;
const MSS_1460 = hex("020405b4");

const TABLES: NetworkTables = {
  vpcs: [
    { vpc: 1, port: 0, routeTables: [[{ to: "0.0.0.0/0", service: "nat" }]] },
    { vpc: 2, port: 1 },
  ],
  services: [
    { id: "nat", kind: "nat-gateway", vpc: 2, sources: ["203.0.113.1"], mtuBytes: MTU_BYTES },
  ],
};

async function gateway(vnetHeader: boolean, tables = TABLES) {
  const engine = await createEngine({
    flowCountMax: 4096,
    flow6CountMax: 4096,
    arenaBytes: TRANSIT_BYTES,
    networkBytes: 1 << 20,
    seed: new Uint8Array(16),
    warmUp: false,
  });
  engine.setTables(tables);
  engine.setPort(0, { vpc: 1, sides: "both", routed: true, link: "raw", vnetHeader });
  engine.setPort(1, { vpc: 2, sides: "both", routed: true, link: "raw", vnetHeader });
  const transit = new Transit(engine);
  transit.placeAddress(1, "192.0.2.1", 4);
  const pass = (packet: Uint8Array, header: VnetHeader): Uint8Array | undefined => {
    const [left] = passThrough({ engine, transit }, [{ packet, header, port: 0 }]);
    return left && completed(left.packet, left.header);
  };
  return { engine, pass };
}

const client = raw().ip("10.0.0.1", "192.0.2.1", { df: true });
const syn = client.tcp(5000, 80, { flags: "S", options: MSS_1460 });
const PARTIAL: VnetHeader = { isPartial: true, checksumStart: 20, checksumOffset: 16 };
const NONE: VnetHeader = { isPartial: false, checksumStart: 0, checksumOffset: 0 };

describe("packets of devices in networks", () => {
  test("a lowered segment size leaves a partial checksum right", async () => {
    const device = await gateway(true);
    const plain = await gateway(false);
    const left = device.pass(withPartial(syn.bytes(), 20, 16), PARTIAL);
    expect(left).toBeDefined();
    expect(left).toEqual(plain.pass(syn.bytes(), NONE));
    expect(left?.slice(40, 44)).toEqual(hex("02040550"));
  });

  test("a super-packet is as long as its segments, held against the MTU", async () => {
    const { engine, pass } = await gateway(true);
    pass(withPartial(syn.bytes(), 20, 16), PARTIAL);
    const large = client.tcp(5000, 80, { flags: "A" }).payload(pattern(20_000));
    const partial = withPartial(large.bytes(), 20, 16);
    for (const [segmentBytes, verdict] of [
      [1360, "forward"],
      [1361, "drop.too-large"],
    ] as const) {
      const before = engine.counters().verdicts[verdict];
      pass(partial, { ...PARTIAL, gsoType: 1, headerBytes: 40, segmentBytes });
      expect(engine.counters().verdicts[verdict]).toBe(before + 1);
    }
  });

  test("and so is one of datagrams", async () => {
    const { engine, pass } = await gateway(true);
    const large = client.udp(5000, 53).payload(pattern(20_000));
    const partial = withPartial(large.bytes(), 20, 6);
    const header = { ...PARTIAL, checksumOffset: 6, gsoType: 5, headerBytes: 28 };
    expect(pass(partial, { ...header, segmentBytes: 1372 })).toBeDefined();
    expect(pass(partial, { ...header, segmentBytes: 1373 })).toBeUndefined();
    expect(engine.counters().verdicts["drop.too-large"]).toBe(1);
  });
});

describe("packets of devices with wrong checksums", () => {
  const routes = ["0.0.0.0/0", "64:ff9b::/96"].map((to) => ({ to, service: "nat" }));
  const telling: NetworkTables = {
    vpcs: [
      { vpc: 1, port: 0, routeTables: [routes] },
      { vpc: 2, port: 1 },
    ],
    services: TABLES.services?.map((service) => ({ ...service, isMtuTold: true })) ?? [],
  };
  const stray = { flags: "PA", seq: 7, ack: 9 };
  const from = (checksumError: number) =>
    raw().ipv4("10.0.0.1", "192.0.2.1", { df: true, checksumError });
  const tcp = (wrong: number) => from(0).tcp(5000, 80, { ...stray, checksumError: wrong });
  const tcp6 = (wrong: number) =>
    raw()
      .ipv6("2001:db8::7", "64:ff9b::c000:201")
      .tcp(5000, 80, { ...stray, checksumError: wrong });

  test.each([
    ["a stray", tcp(0).payload(pattern(9)).bytes(), NONE, true, 1],
    ["a stray with a wrong checksum", tcp(1).payload(pattern(9)).bytes(), NONE, true, 0],
    ["a stray with a wrong IPv4 header", from(1).tcp(5000, 80, stray).bytes(), NONE, true, 0],
    ["a stray that the device completes", withPartial(tcp(0).bytes(), 20, 16), PARTIAL, true, 1],
    ["a stray that was verified", tcp(1).bytes(), { ...NONE, isValid: true }, true, 1],
    ["a stray of IPv6", tcp6(0).bytes(), NONE, true, 1],
    ["a stray of IPv6 with a wrong checksum", tcp6(1).bytes(), NONE, true, 0],
    // Captures have what a network card was to complete.
    ["a wrong stray of a port without headers", tcp(1).bytes(), NONE, false, 1],
    ["a large packet", from(0).udp(5000, 53).payload(1500).bytes(), NONE, true, 1],
    ["a large one, header wrong", from(1).udp(5000, 53).payload(1500).bytes(), NONE, true, 0],
    ["a wrong large one of such a port", from(1).udp(5, 53).payload(1500).bytes(), NONE, false, 1],
  ])("%s", async (_, packet, header, vnetHeader, answers) => {
    const { engine, pass } = await gateway(vnetHeader, telling);
    pass(packet, header);
    expect(engine.counters().emitted.rst + engine.counters().emitted.icmp).toBe(answers);
  });
});

describe("packets of devices between the families", () => {
  const CLIENT6 = "2001:db8::7";
  const [SERVER, SERVER6] = ["192.0.2.1", "64:ff9b::c000:201"];
  const sizes = { gsoType: 0, headerBytes: 0, segmentBytes: 0 };

  /** Sends packets of devices; returns the headers that leave, and the packets with whole checksums. */
  async function crossing() {
    const engine = await createEngine({
      flowCountMax: 64,
      flow6CountMax: 64,
      arenaBytes: TRANSIT_BYTES,
      networkBytes: 1 << 20,
      seed: new Uint8Array(16),
      warmUp: false,
    });
    const [inside, outside] = TABLES.vpcs;
    const routeTables = [[{ to: "64:ff9b::/96", service: "nat" }]];
    const vpcs = [{ vpc: 1, ...inside, routeTables }, outside as NonNullable<typeof outside>];
    engine.setTables({ ...TABLES, vpcs });
    const options = { sides: "both", routed: true, link: "raw", vnetHeader: true } as const;
    engine.setPort(0, { vpc: 1, ...options });
    engine.setPort(1, { vpc: 2, ...options });
    const transit = new Transit(engine);
    transit.merges = false;
    transit.placeAddress(1, SERVER, 4);
    transit.placeAddress(0, CLIENT6, 3);
    return (port: number, packet: Packet, header: VnetHeader) => {
      const { checksumStart, checksumOffset, isPartial } = header;
      const bytes = packet.bytes();
      const sent = isPartial ? withPartial(bytes, checksumStart, checksumOffset) : bytes;
      const left = passThrough({ engine, transit }, [{ packet: sent, header, port }]);
      expect(left).toHaveLength(1);
      const [one] = left as [Left];
      return { header: one.header, packet: completed(one.packet, one.header) };
    };
  }

  test("super-packets of TCP change family with their headers", async () => {
    const pass = await crossing();
    const segment = { flags: "A", seq: 7 };
    const upper = (packet: Packet) => packet.tcp(50000, 80, segment).payload(pattern(20_000));
    pass(0, raw().ipv6(CLIENT6, SERVER6).tcp(50000, 80, { flags: "S", seq: 6 }), NONE);
    const out = pass(0, upper(raw().ipv6(CLIENT6, SERVER6)), {
      ...{ isPartial: true, checksumStart: 40, checksumOffset: 16 },
      ...{ gsoType: 4, headerBytes: 60, segmentBytes: 1300 },
    });
    expect(out.packet).toEqual(upper(raw().ipv4("203.0.113.1", SERVER, { df: true })).bytes());
    expect(out.header).toMatchObject({ gsoType: 1, headerBytes: 40, segmentBytes: 1300 });
    expect(out.header).toMatchObject({ isPartial: true, checksumStart: 20, checksumOffset: 16 });
    const lower = (packet: Packet) => packet.tcp(80, 50000, segment).payload(pattern(30_000));
    const back = pass(1, lower(raw().ipv4(SERVER, "203.0.113.1")), {
      ...{ isPartial: true, checksumStart: 20, checksumOffset: 16 },
      ...{ gsoType: 1, headerBytes: 40, segmentBytes: 1300 },
    });
    expect(back.packet).toEqual(lower(raw().ipv6(SERVER6, CLIENT6)).bytes());
    expect(back.header).toMatchObject({ gsoType: 4, headerBytes: 60, checksumStart: 40 });
  });

  test("ICMP errors as well", async () => {
    const pass = await crossing();
    const sent = { id: 1 };
    pass(0, raw().ipv6(CLIENT6, SERVER6).udp(50000, 53).payload("question"), NONE);
    const asked4 = raw().ipv4("203.0.113.1", SERVER, sent).udp(50000, 53).payload("question");
    const asked6 = raw().ipv6(CLIENT6, SERVER6).udp(50000, 53).payload("question");
    const error = raw().ipv4("198.51.100.9", "203.0.113.1").icmpError(3, 3, asked4);
    const expected = raw().ipv6("64:ff9b::c633:6409", CLIENT6).icmp6Error(1, 4, asked6);
    const back = pass(1, error, NONE);
    expect(back.packet).toEqual(expected.bytes());
    expect(back.header).toMatchObject({ ...sizes, isPartial: false });
  });
});

describe("PROXY headers in packets of devices", () => {
  const services = {
    targets: [{ address: "172.16.0.1", port: 8080 }],
    proxyProtocol: { udp: true },
  };

  async function proxied(vnetHeader: boolean) {
    const engine = await createEngine({
      flowCountMax: 4096,
      flow6CountMax: 4096,
      arenaBytes: TRANSIT_BYTES,
      proxyProtocol: "udp",
      seed: new Uint8Array(16),
      warmUp: false,
    });
    engine.setService(0, services);
    engine.setPort(0, { service: 0, peer: 1, link: "raw", vnetHeader });
    engine.setPort(1, { sides: "service", peer: 0, link: "raw", vnetHeader });
    const transit = new Transit(engine);
    transit.merges = false;
    transit.placeAddress(1, "172.16.0.1", 1);
    transit.placeAddress(0, "10.0.0.1", 0);
    return (packet: Uint8Array, header: VnetHeader, port: number): Uint8Array[] => {
      const left = passThrough({ engine, transit }, [{ packet, header, port }]);
      return left.map((one) => completed(one.packet, one.header));
    };
  }

  test("come out as in whole packets, checksums and all", async () => {
    const device = await proxied(true);
    const plain = await proxied(false);
    const up = raw().ip("10.0.0.1", "192.0.2.1", { df: true });
    const down = raw().ip("172.16.0.1", "10.0.0.1", { df: true });
    const fastOpen = hex("2202");
    const sack = hex("0101050a000008fc00000960");
    const story: [Packet, number, number][] = [
      [up.tcp(5000, 80, { flags: "S", seq: 100, options: fastOpen }).payload(pattern(9)), 0, 16],
      [down.tcp(8080, 5000, { flags: "SA", seq: 900, ack: 101 }), 1, 16],
      [up.tcp(5000, 80, { flags: "A", seq: 101, ack: 901 }), 0, 16],
      [up.tcp(5000, 80, { flags: "PA", seq: 101, ack: 901 }).payload(pattern(333)), 0, 16],
      [down.tcp(8080, 5000, { flags: "A", seq: 901, ack: 150, options: sack }), 1, 16],
      [down.tcp(8080, 5000, { flags: "A", seq: 901, ack: 900 }).payload(pattern(50)), 1, 16],
      [up.tcp(5000, 80, { flags: "A", seq: 434, ack: 951 }).payload(pattern(3000)), 0, 16],
      [up.udp(5000, 53).payload(pattern(77)), 0, 6],
    ];
    let headers = 0;
    for (const [packet, port, checksumOffset] of story) {
      const whole = packet.bytes();
      const header = { ...PARTIAL, checksumOffset };
      const left = device(withPartial(whole, 20, checksumOffset), header, port);
      expect(left.length).toBeGreaterThan(0);
      expect(left).toEqual(plain(whole, NONE, port));
      headers += left.length - 1;
    }
    expect(headers).toBe(1);
  });

  test("leave on the port of the VPC that the flow is bound for", async () => {
    const engine = await createEngine({
      flowCountMax: 64,
      flow6CountMax: 64,
      proxyProtocol: true,
      networkBytes: 1 << 20,
      warmUp: false,
    });
    const listeners = [{ protocol: "tcp" as const, port: 80, service: "nlb" }];
    engine.setTables({
      vpcs: [
        { vpc: 1, port: 1, addresses: [{ address: "192.0.2.1", service: "nlb", listeners }] },
        { vpc: 2, port: 2 },
      ],
      services: [
        {
          id: "nlb",
          kind: "load-balancer",
          vpc: 2,
          targets: [{ address: "172.16.0.1", port: 8080 }],
          proxyProtocol: { vpce: "vpce-0a1b2c3d4e5f60718" },
        },
      ],
    });
    for (const port of [1, 2])
      engine.setPort(port, { vpc: port, sides: "both", routed: true, link: "raw" });
    const frames = new Frames(engine);
    const up = raw().ip("10.0.0.1", "192.0.2.1", { df: true });
    const down = raw().ip("172.16.0.1", "10.0.0.1", { df: true });
    frames.add(up.tcp(5000, 80, { flags: "S", seq: 100 }).bytes(), 1000, 1);
    frames.add(down.tcp(8080, 5000, { flags: "SA", seq: 900, ack: 101 }).bytes(), 1000, 2);
    frames.add(
      up.tcp(5000, 80, { flags: "PA", seq: 101, ack: 901 }).payload(pattern(9)).bytes(),
      1000,
      1,
    );
    const left = frames.process().map(({ made, port }) => ({ made, port }));
    expect(left).toEqual([{ port: 2 }, { port: 1 }, { made: "pp2", port: 2 }, { port: 2 }]);
  });
});
