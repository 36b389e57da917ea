/**
 * Packets that cause a PROXY header and are no plain segments: super-packets of 64 KiB behind a
 * virtio_net_hdr, with the checksum left to the device, and packets with IPv6 extension headers before TCP.
 * What leaves is what the packet builder makes of the same words: the header in a segment of its own, complete
 * and without extension headers; the cause as it was, but for addresses and number.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressBytes, concat, hex, pattern, u16, u32 } from "../fixtures/bytes.ts";
import type { Extension, Ipv4Options, Ipv6Options } from "../fixtures/layers.ts";
import { type Packet, raw } from "../fixtures/packets.ts";
import type { ProxyProtocolOptions } from "../host/engine/api.ts";
import { createEngine } from "../host/engine/engine.ts";
import { Frames } from "../host/engine/frames.ts";
import { TRANSIT_BYTES, Transit } from "../host/engine/transit.ts";
import { write } from "./reference/pp2.ts";
import { completed, type VnetHeader, withPartial } from "./reference/vnet.ts";
import { type Handed, passThrough } from "./transit.ts";

const H = 100;
/** The longest packet that a read from a device brings, and that an IPv4 header can count. */
const PACKET_BYTES_MAX = 65_535;
const CLIENT_ISN = 2 ** 32 - 30;
const SERVER_ISN = 70_000;
const ENDS = {
  4: { client: "10.0.0.1", listener: "192.0.2.1", nat: "198.51.100.200", target: "172.16.0.201" },
  6: {
    client: "2001:db8::1",
    listener: "2001:db8:f::1",
    nat: "2001:db8:a::fffe",
    target: "2001:db8:b::ffff",
  },
} as const;
type Family = 4 | 6;
type IpOptions = Ipv4Options & Ipv6Options;

const EMPTY: VnetHeader = {
  isPartial: false,
  isValid: false,
  gsoType: 0,
  headerBytes: 0,
  segmentBytes: 0,
  checksumStart: 0,
  checksumOffset: 0,
};

const up = (family: Family, o: IpOptions = {}) =>
  raw().ip(ENDS[family].client, ENDS[family].listener, { df: true, ...o });
const upOut = (family: Family, o: IpOptions = {}) =>
  raw().ip(ENDS[family].nat, ENDS[family].target, { df: true, ...o });
const down = (family: Family, o: IpOptions = {}) =>
  raw().ip(ENDS[family].target, ENDS[family].nat, { df: true, ...o });
const downOut = (family: Family, o: IpOptions = {}) =>
  raw().ip(ENDS[family].listener, ENDS[family].client, { df: true, ...o });

/** Numbers relative to the initial ones, and a segment of either end. */
const clientSeq = (n: number) => (CLIENT_ISN + n) >>> 0;
const serverSeq = (n: number) => (SERVER_ISN + n) >>> 0;
const fromClient = (head: Packet, seq: number, flags: string, more = {}) =>
  head.tcp(5000, 443, {
    flags,
    seq: clientSeq(seq),
    ...(flags.includes("A") && { ack: serverSeq(1) }),
    ...more,
  });
const toTarget = (head: Packet, seq: number, flags: string, more = {}) =>
  head.tcp(5000, 8080, { flags, seq: clientSeq(seq), ack: serverSeq(1), ...more });
const fromTarget = (head: Packet, seq: number, ack: number, flags: string, more = {}) =>
  head.tcp(8080, 5000, { flags, seq: serverSeq(seq), ack: clientSeq(ack), ...more });
const toClient = (head: Packet, seq: number, ack: number, flags: string, more = {}) =>
  head.tcp(443, 5000, { flags, seq: serverSeq(seq), ack: clientSeq(ack), ...more });

function headerOfFlow(family: Family): Uint8Array {
  const { client, listener } = ENDS[family];
  const tuple = concat(addressBytes(client), addressBytes(listener), u16(5000), u16(443));
  return Uint8Array.from(write(0x21, family === 4 ? 0x11 : 0x21, [...tuple], [], H, true));
}

async function engineOf(proxyProtocol: ProxyProtocolOptions, vnetHeader: boolean) {
  const engine = await createEngine({
    flowCountMax: 64,
    flow6CountMax: 64,
    arenaBytes: TRANSIT_BYTES,
    proxyProtocol: true,
    seed: new Uint8Array(16),
    warmUp: false,
  });
  engine.setService(0, {
    sourceAddresses: [ENDS[4].nat, ENDS[6].nat],
    targets: [ENDS[4].target, ENDS[6].target].map((address) => ({ address, port: 8080 })),
    proxyProtocol,
  });
  engine.setPort(0, { service: 0, peer: 1, link: "raw", vnetHeader });
  engine.setPort(1, { sides: "service", peer: 0, link: "raw", vnetHeader });
  return engine;
}

/** Packets behind a virtio_net_hdr, a batch at a time. */
async function device(proxyProtocol: ProxyProtocolOptions) {
  const engine = await engineOf(proxyProtocol, true);
  const transit = new Transit(engine);
  for (const { client, target } of Object.values(ENDS)) {
    transit.placeAddress(0, client, 0);
    transit.placeAddress(1, target, 1);
  }
  return (port: number, ...sent: Handed[]): Handed[] => {
    const left = passThrough(
      { engine, transit },
      sent.map((one) => ({ ...one, port })),
    );
    return left.map(({ header, packet }) => ({ header, packet }));
  };
}

const plainly = (packet: Packet): Handed => ({ header: EMPTY, packet: packet.bytes() });

/** A super-packet as a kernel hands it to a device: `start` bytes of IP, a TCP header of 20. */
function superPacket(packet: Packet, gsoType: number, start: number): Handed {
  const header = {
    isPartial: true,
    isValid: false,
    gsoType,
    headerBytes: start + 20,
    segmentBytes: 1400,
    checksumStart: start,
    checksumOffset: 16,
  };
  return { header, packet: withPartial(packet.bytes(), start, 16) };
}

const equal = (bytes: Uint8Array | undefined, packet: Packet) =>
  expect(Buffer.compare(bytes ?? new Uint8Array(), packet.bytes())).toBe(0);

describe.each([
  ["IPv4", 4, 20, {}],
  ["IPv4 behind options", 4, 28, { options: hex("0707040000000001") }],
  ["IPv6", 6, 40, {}],
  ["IPv6 behind options", 6, 56, { extensions: [{ kind: "destination", body: pattern(10) }] }],
] as [string, Family, number, IpOptions][])("a super-packet of 65,535 bytes, %s", (...world) => {
  const [, family, start, ip] = world;
  const gsoType = family === 4 ? 1 : 4;
  const body = pattern(PACKET_BYTES_MAX - start - 20, 3);
  const segment = (seq: number) =>
    superPacket(fromClient(up(family, ip), seq, "PA").payload(body), gsoType, start);
  const opened = (run: Awaited<ReturnType<typeof device>>) => {
    run(0, plainly(fromClient(up(family), 0, "S")));
    run(1, plainly(fromTarget(down(family), 0, 1, "SA")));
  };
  const expectSuper = (left: Handed | undefined, seq: number) => {
    expect(left?.header).toEqual(segment(0).header);
    expect(left?.packet.length).toBe(PACKET_BYTES_MAX);
    const whole = completed(left?.packet ?? pattern(1), left?.header ?? EMPTY);
    equal(whole, toTarget(upOut(family, ip), seq, "PA").payload(body));
  };
  const expectHeader = (left: Handed | undefined, flags: string) => {
    expect(left?.header).toEqual(EMPTY);
    const id = family === 4 ? { id: 0x8000 } : {};
    equal(left?.packet, toTarget(upOut(family, id), 1, flags).payload(headerOfFlow(family)));
  };

  test.each(["on_first_ack_with_payload", "on_first_ack"] as const)(
    "first of its client, %s",
    async (placement) => {
      const run = await device({ placement });
      opened(run);
      // A batch of two: what stands behind a header must be untouched by it.
      const left = run(0, segment(1), segment(1 + body.length));
      expect(left.length).toBe(3);
      expectHeader(left[0], "PA");
      expectSuper(left[1], 1 + H);
      expectSuper(left[2], 1 + H + body.length);
      // Repeated, until it is acknowledged.
      const again = run(0, segment(1));
      expect(again.length).toBe(2);
      expectHeader(again[0], "PA");
      expectSuper(again[1], 1 + H);
      const end = 1 + 2 * body.length;
      const [answer] = run(1, plainly(fromTarget(down(family), 1, end + H, "A")));
      equal(answer?.packet, toClient(downOut(family), 1, end, "A"));
      expect(run(0, segment(1)).length).toBe(1);
    },
  );

  test("after the handshake's ACK that the header has absorbed", async () => {
    const run = await device({ placement: "on_first_ack" });
    opened(run);
    const absorbed = run(0, plainly(fromClient(up(family), 1, "A")));
    expect(absorbed.length).toBe(1);
    expectHeader(absorbed[0], "PA");
    const left = run(0, segment(1));
    expect(left.length).toBe(1);
    expectSuper(left[0], 1 + H);
  });
});

const extension: fc.Arbitrary<Extension> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("hop-by-hop" as const, "destination" as const),
    body: fc
      .integer({ min: 0, max: 30 })
      .map((bytes) => concat(Uint8Array.of(1, bytes), new Uint8Array(bytes))),
  }),
  fc.constant<Extension>({ kind: "fragment", id: 7 }),
  fc.constant<Extension>({ kind: "routing", type: 0, segmentsLeft: 0, addresses: ["2001:db8::7"] }),
);
/** At most one of each kind, in the order in which senders put them (RFC 8200 section 4.1). */
const ORDER = ["hop-by-hop", "destination", "routing", "fragment"];
const extensions = fc
  .uniqueArray(extension, { maxLength: 4, selector: ({ kind }) => kind })
  .map((list) => list.toSorted((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind)));

test("IPv6 extension headers before TCP stay where they are, and out of the header's segment", async () => {
  const sackOf = (...edges: number[]) =>
    concat(hex("0101050a"), ...edges.map((edge) => u32(clientSeq(edge))));
  let made = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(extensions, { minLength: 6, maxLength: 6 }),
      fc.boolean(),
      async ([a, b, c, d, e, f], isEarly) => {
        const placement = isEarly ? "on_first_ack" : "on_first_ack_with_payload";
        const engine = await engineOf({ placement }, false);
        const frames = new Frames(engine);
        const run = (packet: Packet, port: number): Uint8Array[] => {
          frames.add(packet.bytes(), 1000, port);
          const left = frames.process().filter(({ verdict }) => verdict === "forward");
          made += left.filter((one) => one.made === "pp2").length;
          return left.map(({ frame }) => frame.slice());
        };
        const header = toTarget(upOut(6), 1, "PA").payload(headerOfFlow(6));
        const ip = (list: Extension[] | undefined) => ({ extensions: list ?? [] });
        const check = (left: Uint8Array[], ...expected: Packet[]) => {
          expect(left.length).toBe(expected.length);
          for (const [i, packet] of expected.entries()) equal(left[i], packet);
        };
        const data = pattern(20);
        const syn = fromClient(up(6, ip(a)), 0, "S");
        check(run(syn, 0), toTarget(upOut(6, ip(a)), 0, "S", { ack: 0 }));
        const synAck = fromTarget(down(6, ip(b)), 0, 1, "SA");
        check(run(synAck, 1), toClient(downOut(6, ip(b)), 0, 1, "SA"));
        if (isEarly) check(run(fromClient(up(6, ip(c)), 1, "A"), 0), header);
        const first = fromClient(up(6, ip(d)), 1, "PA").payload(data);
        const firstOut = toTarget(upOut(6, ip(d)), 1 + H, "PA").payload(data);
        if (isEarly) check(run(first, 0), firstOut);
        check(run(first, 0), header, firstOut);
        // The header is lost: of what stands behind it the client hears nothing yet.
        const lost = fromTarget(down(6, ip(e)), 1, 1, "A", { options: sackOf(1 + H, 21 + H) });
        const nothing = toClient(downOut(6, ip(e)), 1, 1, "A", {
          options: new Uint8Array(12).fill(1),
        });
        check(run(lost, 1), nothing);
        check(run(first, 0), header, firstOut);
        const done = fromTarget(down(6, ip(f)), 1, 21 + H, "A", {
          options: sackOf(41 + H, 61 + H),
        });
        check(run(done, 1), toClient(downOut(6, ip(f)), 1, 21, "A", { options: sackOf(41, 61) }));
        const later = fromClient(up(6, ip(c)), 21, "PA").payload(data);
        check(run(later, 0), toTarget(upOut(6, ip(c)), 21 + H, "PA").payload(data));
      },
    ),
    { numRuns: 60, seed: 20261126 },
  );
  expect(made).toBeGreaterThan(100);
});

/** A segment of either end, mostly one that an opening has. */
const anySegment = fc.record({
  isClient: fc.boolean(),
  flags: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom("S", "SA", "A", "PA", "FA", "R", "RA") },
    { weight: 1, arbitrary: fc.subarray([..."FSRPAU"]).map((letters) => letters.join("")) },
  ),
  seq: fc.oneof(fc.constantFrom(0, 1, 11, 1 + H, 11 + H), fc.integer({ min: -300, max: 300 })),
  ack: fc.oneof(fc.constantFrom(1, 11, 1 + H, 11 + H), fc.integer({ min: -300, max: 300 })),
  bytes: fc.oneof(fc.constantFrom(0, 10), fc.nat(300)),
  options: fc.constantFrom("", "0101080a0000000100000002", "0101050a0000004600000050"),
});

test.each([
  ["on_first_ack_with_payload", 4],
  ["on_first_ack_with_payload", 6],
  ["on_first_ack", 4],
  ["on_first_ack", 6],
] as const)("the short ways do what the long one does, %s, IPv%i", async (placement, family) => {
  const start = family === 4 ? 20 : 40;
  let made = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(anySegment, { minLength: 1, maxLength: 40, size: "max" }),
      async (all) => {
        const run = await device({ placement });
        // Nine of ten openings begin as they should.
        const begin = [
          { isClient: true, flags: "S", seq: 0, ack: 0, bytes: 0, options: "" },
          { isClient: false, flags: "SA", seq: 0, ack: 1, bytes: 0, options: "" },
        ];
        const short = await device({ placement });
        for (const one of all.length % 10 === 0 ? all : [...begin, ...all]) {
          const { isClient, flags, seq, ack, bytes, options } = one;
          const more = options === "" ? {} : { options: hex(options) };
          const packet = isClient
            ? fromClient(up(family), seq, flags, more).payload(pattern(bytes))
            : fromTarget(down(family), seq, ack, flags, more).payload(pattern(bytes));
          const port = isClient ? 0 : 1;
          const header = {
            ...superPacket(packet, 0, start).header,
            headerBytes: 0,
            segmentBytes: 0,
          };
          const partial = { header, packet: withPartial(packet.bytes(), start, 16) };
          const long = run(port, partial).map((left) => completed(left.packet, left.header));
          const left = short(port, plainly(packet)).map((one) => one.packet);
          expect(left.length).toBe(long.length);
          for (const [i, bytes] of left.entries())
            expect(Buffer.compare(bytes, long[i] ?? hex(""))).toBe(0);
          made += Math.max(0, left.length - 1);
        }
      },
    ),
    { numRuns: 100, seed: 20261126 },
  );
  expect(made).toBeGreaterThan(50);
});
