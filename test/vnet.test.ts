/**
 * Packets behind a virtio_net_hdr. Whatever checksum a sender left to the device, after translation
 * and completion the packet is the one that a port without the header gives for the whole packet;
 * and datagrams that leave merged are, cut again, the datagrams that leave one by one.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { concat, pattern, readU16, seeded } from "../fixtures/bytes.ts";
import { type Packet, raw } from "../fixtures/packets.ts";
import { buildBlock } from "../host/capture/build.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { TRANSIT_BYTES, Transit } from "../host/engine/transit.ts";
import {
  completed,
  datagramsOf,
  headerBytesOf,
  type VnetHeader,
  withPartial,
} from "./reference/vnet.ts";
import { type Handed, type Left, passThrough, VNET_BYTES } from "./transit.ts";

const RUNS = 80;
const NO_OFFLOAD: VnetHeader = { isPartial: false, checksumStart: 0, checksumOffset: 0 };

interface Sent extends Handed {
  port: number;
}

async function transitOf(vnetHeader: boolean): Promise<{ engine: Engine; transit: Transit }> {
  const engine = await createEngine({
    flowCountMax: 4096,
    flow6CountMax: 4096,
    arenaBytes: TRANSIT_BYTES,
    seed: Uint8Array.from({ length: 16 }, (_, i) => i),
    warmUp: false,
  });
  const sourceAddresses = ["198.51.100.1", "2001:db8:a::1"];
  const targets = [{ address: "172.16.0.1", port: 8080 }, { address: "2001:db8:b::1" }];
  engine.setService(0, { sourceAddresses, targets });
  engine.setPort(0, { service: 0, peer: 1, vpc: 1, link: "raw", vnetHeader });
  engine.setPort(1, { sides: "service", peer: 0, vpc: 2, link: "raw", vnetHeader });
  const transit = new Transit(engine);
  for (const address of ["10.0.0.1", "10.0.0.2", "2001:db8::1"])
    transit.placeAddress(0, address, 3);
  for (const address of ["172.16.0.1", "2001:db8:b::1"]) transit.placeAddress(1, address, 5);
  return { engine, transit };
}

const whole = (sent: Sent): Sent => ({
  ...sent,
  packet: completed(sent.packet, sent.header),
  header: NO_OFFLOAD,
});

const CLIENTS = ["10.0.0.1", "10.0.0.2"];

/** A packet for a random number: often with its checksum left to the device. */
function sentOf(seed: number): Sent {
  const random = seeded(seed);
  const below = (n: number) => Math.floor(random() * n);
  const six = below(3) === 0;
  const ends: [string, string] = six
    ? ["2001:db8::1", "2001:db8:f::1"]
    : [CLIENTS[below(2)] as string, "192.0.2.1"];
  const head = raw().ip(...ends, { tos: below(2), df: below(2) === 0, id: below(9) });
  const ports: [number, number] = [5000 + below(3), 80 + below(2)];
  const isUdp = below(2) === 0;
  const checksumError = below(4) === 0 ? 1 + below(0xfffe) : 0;
  const flags = below(2) === 0 ? "S" : "A";
  const body = pattern(below(200), below(256));
  const packet = isUdp
    ? head
        .udp(...ports, { checksumError })
        .payload(body)
        .bytes()
    : head
        .tcp(...ports, { flags, checksumError })
        .payload(body)
        .bytes();
  return leftToDevice(packet, isUdp ? 6 : 16, below(4));
}

function leftToDevice(packet: Uint8Array, checksumOffset: number, kind: number): Sent {
  const checksumStart = (packet[0] ?? 0) >> 4 === 4 ? 20 : 40;
  if (kind === 0) return { packet, header: NO_OFFLOAD, port: 0 };
  if (kind === 1) {
    // Inside the payload, as a tunnel would have it: not the device's to complete here.
    const start = checksumStart + 24;
    if (packet.length < start + 8) return { packet, header: NO_OFFLOAD, port: 0 };
    const header = { isPartial: true, checksumStart: start, checksumOffset: 2 };
    return { packet, header, port: 0 };
  }
  const header = { isPartial: true, checksumStart, checksumOffset };
  return { packet: withPartial(packet, checksumStart, checksumOffset), header, port: 0 };
}

/** The answer to what left, from the service's side. */
function answerTo(left: Left): Sent {
  const packet = left.packet.slice();
  const isIpv4 = (packet[0] ?? 0) >> 4 === 4;
  const [at, width] = isIpv4 ? [12, 4] : [8, 16];
  const source = left.packet.subarray(at, at + width);
  packet.set(left.packet.subarray(at + width, at + 2 * width), at);
  packet.set(source, at + width);
  const ports = isIpv4 ? 20 : 40;
  packet.set(left.packet.subarray(ports, ports + 2), ports + 2);
  packet.set(left.packet.subarray(ports + 2, ports + 4), ports);
  return { packet, header: left.header, port: 1 };
}

const seeds = fc.array(fc.integer({ min: 0, max: 0xffffffff }), {
  minLength: 1,
  maxLength: 64,
  size: "max",
});

describe("checksums left to the device", () => {
  test("come out as those of whole packets, in both directions", async () => {
    let partial = 0;
    await fc.assert(
      fc.asyncProperty(seeds, async (numbers) => {
        const through = await transitOf(true);
        const plain = await transitOf(false);
        through.transit.merges = false;
        plain.transit.merges = false;
        const sent = numbers.map(sentOf);
        const left = passThrough(through, sent);
        const expected = passThrough(plain, sent.map(whole));
        const finished = left.map((one) => ({ ...one, packet: completed(one.packet, one.header) }));
        const same = (list: Left[]) => list.map(({ device, packet }) => ({ device, packet }));
        expect(same(finished)).toEqual(same(expected));
        const answers = left.map(answerTo);
        const back = passThrough(through, answers).map((one) => completed(one.packet, one.header));
        expect(back).toEqual(passThrough(plain, answers.map(whole)).map(({ packet }) => packet));
        partial += left.filter(({ header }) => header.isPartial).length;
      }),
      { numRuns: RUNS, seed: 20261125 },
    );
    expect(partial).toBeGreaterThan(RUNS * 5);
  });

  test("the header passes through, segment sizes and all", async () => {
    const through = await transitOf(true);
    const packet = raw().ip("10.0.0.1", "192.0.2.1").tcp(5000, 80, { flags: "S" }).bytes();
    const header = {
      isPartial: true,
      isValid: false,
      gsoType: 1,
      headerBytes: 40,
      segmentBytes: 1448,
      checksumStart: 20,
      checksumOffset: 16,
    };
    const sent = { packet: withPartial(packet, 20, 16), header, port: 0 };
    expect(passThrough(through, [sent])[0]?.header).toEqual(header);
  });
});

/** Datagrams, mostly of few flows and equal sizes. */
function datagramOf(seed: number): Sent {
  const random = seeded(seed);
  const below = (n: number) => Math.floor(random() * n);
  const six = below(8) === 0;
  const ends: [string, string] = six ? ["2001:db8::1", "2001:db8:f::1"] : ["10.0.0.1", "192.0.2.1"];
  const odd = below(12);
  const options = { tos: odd === 0 ? 4 : 0, ttl: odd === 1 ? 3 : 64, df: odd !== 2, id: below(99) };
  const head = raw().ip(...ends, six ? { hopLimit: options.ttl } : options);
  const bytes = odd === 3 ? below(40) : 32;
  const udp = odd === 4 ? { checksum: 0 } : {};
  const packet = head
    .udp(below(10) === 0 ? 5001 : 5000, 53, udp)
    .payload(pattern(bytes, below(256)));
  if (odd === 4 || odd === 5) return { packet: packet.bytes(), header: NO_OFFLOAD, port: 0 };
  if (odd === 6) {
    return { packet: packet.bytes(), header: { ...NO_OFFLOAD, isValid: true }, port: 0 };
  }
  return leftToDevice(packet.bytes(), 6, 2);
}

describe("datagrams that leave as one super-packet", () => {
  test("are, cut again, the datagrams that leave one by one", async () => {
    let merged = 0;
    await fc.assert(
      fc.asyncProperty(seeds, async (numbers) => {
        const sent = numbers.map(datagramOf);
        const through = await transitOf(true);
        const single = await transitOf(true);
        single.transit.merges = false;
        const left = passThrough(through, sent);
        const cut = left.flatMap(({ packet, header }) => datagramsOf(packet, header));
        const expected = passThrough(single, sent).flatMap(({ packet, header }) =>
          datagramsOf(packet, header),
        );
        expect(cut).toEqual(expected);
        expect(expected.length).toBe(sent.length);
        merged += sent.length - left.length;
      }),
      { numRuns: RUNS, seed: 20261126 },
    );
    expect(merged).toBeGreaterThan(RUNS * 5);
  });

  test("hold 64 datagrams, headers and lengths as the kernel wants them", async () => {
    const through = await transitOf(true);
    const one = (first: number): Packet =>
      raw().ip("10.0.0.1", "192.0.2.1", { df: true }).udp(5000, 53).payload(pattern(1000, first));
    const sent = Array.from({ length: 64 }, (_, i) => leftToDevice(one(i).bytes(), 6, 2));
    const left = passThrough(through, sent);
    const { header, packet } = left[0] as Left;
    expect(left.length).toBe(1);
    expect(packet.length).toBe(28 + 64_000);
    expect(readU16(packet, 2)).toBe(packet.length);
    expect(header).toMatchObject({
      isPartial: true,
      gsoType: 5,
      headerBytes: 28,
      segmentBytes: 1000,
    });
  });

  test("stop where a packet of 65,535 bytes is full", async () => {
    const through = await transitOf(true);
    const one = raw()
      .ip("10.0.0.1", "192.0.2.1", { df: true })
      .udp(5000, 53)
      .payload(pattern(1400));
    const sent = Array.from({ length: 60 }, () => leftToDevice(one.bytes(), 6, 2));
    expect(passThrough(through, sent).map(({ packet }) => packet.length)).toEqual([
      28 + 46 * 1400,
      28 + 14 * 1400,
    ]);
  });
});

describe("devices", () => {
  test("an address that no device has is counted, and its frame stays", async () => {
    const { engine, transit } = await transitOf(true);
    const packet = raw().ip("10.0.0.9", "192.0.2.1").udp(5000, 53).bytes();
    const left = passThrough({ engine, transit }, [{ packet, header: NO_OFFLOAD, port: 0 }]);
    expect(left.length).toBe(1);
    expect(passThrough({ engine, transit }, [answerTo(left[0] as Left)])).toEqual([]);
    expect(engine.counters().unreachable).toBe(1);
  });

  test("take frames that the engine makes, complete and with an empty header", async () => {
    const { engine, transit } = await transitOf(true);
    engine.setService(0, { targets: [{ address: "172.16.0.1" }], resetStrays: true });
    const stray = raw()
      .ip("10.0.0.1", "192.0.2.1")
      .tcp(5000, 80, { flags: "A" })
      .payload(pattern(8));
    const known = raw().ip("10.0.0.2", "192.0.2.1").udp(5000, 53).payload(pattern(8));
    const sent = [stray, known].map((packet, i) => leftToDevice(packet.bytes(), i ? 6 : 16, 2));
    const [reset, other] = passThrough({ engine, transit }, sent);
    const answer = raw().ip("192.0.2.1", "10.0.0.1", { df: true });
    const expected = answer.tcp(80, 5000, { flags: "R", seq: 2000, ack: 0, window: 0 }).bytes();
    expect(reset).toMatchObject({ device: 3, header: { isPartial: false, gsoType: 0 } });
    expect(reset?.packet).toEqual(expected);
    expect(other).toMatchObject({ device: 5, header: { isPartial: true } });
  });

  test("hold 4096 addresses, and say so when there is one more", async () => {
    const { transit } = await transitOf(true);
    const place = (n: number) => transit.placeAddress(7, `10.9.${n >> 8}.${n & 255}`, 1);
    for (let n = 0; n < 4096 - 5; n++) place(n);
    expect(() => place(4096)).toThrow("addresses: 10.9.16.0 is one more than the 4096");
    expect(() => place(1)).not.toThrow();
  });
});

describe("frames as records of a capture", () => {
  test("have the checksum that the device completes, whatever their length", async () => {
    const { engine } = await transitOf(true);
    const header = engine.arena.address + 128;
    const to = engine.arena.address + 4 * 66_048;
    await fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 1 << 30 }),
        fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 60_000 })),
        fc.integer({ min: 0, max: 4 }),
        (seed, bytes, kind) => {
          const isUdp = seed % 2 === 0;
          const ip = raw().ip("10.0.0.1", "192.0.2.1");
          const payload = pattern(bytes, seed & 255);
          const packet = (isUdp ? ip.udp(5000, 53) : ip.tcp(5000, 80)).payload(payload).bytes();
          const sent = leftToDevice(packet, isUdp ? 6 : 16, kind);
          engine.bytes.fill(0xa5, to, to + packet.length + 64);
          engine.bytes.set(headerBytesOf(sent.header), header);
          engine.bytes.set(sent.packet, header + VNET_BYTES);
          const length = sent.packet.length + VNET_BYTES;
          const now = 1_764_115_200_123_456_789n;
          const blockBytes = engine.exports.writeRecord(to, header, length, 3, 2, now);
          const block = engine.bytes.slice(to, to + blockBytes);
          const frame = completed(sent.packet, sent.header);
          const time = [Number(now >> 32n), Number(now & 0xffffffffn)];
          const numbers = Uint32Array.from([3, ...time, frame.length, frame.length]);
          const head = concat(new Uint8Array(numbers.buffer), frame);
          const expected = buildBlock(false, 6, head, [[2, Uint8Array.of(2, 0, 0, 0)]]);
          expect(Buffer.compare(block, expected)).toBe(0);
          expect(engine.bytes[to + blockBytes]).toBe(0xa5);
        },
      ),
      { numRuns: 300, seed: 20261127 },
    );
  });
});
