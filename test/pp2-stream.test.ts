/**
 * A PROXY header in a TCP stream, case by case: the traps in which other engines were caught by
 * name, and every point of a connection's life. Numbers are relative to both initial ones.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressBytes, concat, internetChecksum, pattern, u16, u32 } from "../fixtures/bytes.ts";
import type { ServiceOptions } from "../host/engine/api.ts";
import { createHeaderCodec } from "../host/pp2/codec.ts";
import {
  BYTES,
  CLIENT_ISN,
  CLIENT_PORT,
  data,
  H,
  line,
  type Out,
  SERVER_ISN,
  scene,
  V4,
  V6,
} from "./pp2-scene.ts";
import { ACK, build, FIN, PSH, RST, read, type Segment, SYN, URG } from "./tcp-segment.ts";

const codec = await createHeaderCodec();
const ABSORBED = "absorb.header";

describe.each([
  ["IPv4", V4],
  ["IPv6", V6],
])("%s", (_, addresses) => {
  test("a connection from its SYN to its end", async () => {
    const { client, server, engine } = await scene({}, addresses);
    expect(line(client(0, 0, SYN))).toBe("0 0 +0");
    expect(line(server(0, 1, SYN | ACK))).toBe("0 1 +0");
    expect(line(client(1, 1, ACK))).toBe("1 1 +0");
    const first = client(1, 1, ACK | PSH, data);
    expect(line(first)).toBe("H 1 1 +100, 101 1 +10");
    expect(line(client(11, 1, ACK | PSH, data))).toBe("111 1 +10");
    // The header alone is acknowledged, then everything.
    expect(line(server(1, 101, ACK))).toBe("1 1 +0");
    expect(line(server(1, 121, ACK | PSH, data))).toBe("1 21 +10");
    expect(line(client(21, 11, ACK | FIN))).toBe("121 11 +0");
    expect(line(server(11, 122, ACK | FIN))).toBe("11 22 +0");
    expect(line(client(22, 12, ACK))).toBe("122 12 +0");
    const header = codec.decode(first[0]?.segment.payload ?? new Uint8Array());
    expect(header).toMatchObject({
      source: { address: addresses.client, port: CLIENT_PORT },
      destination: { address: addresses.listener, port: 443 },
    });
    const { emitted, proxyProtocol } = engine.counters();
    expect(emitted.pp2).toBe(1);
    expect(proxyProtocol).toEqual({ repeated: 0, clamped: 0, adopted: 0, cut: 0, datagrams: 0 });
  });

  test("an ICMP error about a segment with the header in front tells of the client's number", async () => {
    const { client, server, raw, handshake } = await scene({}, addresses);
    handshake();
    const [, sent] = client(1, 1, ACK | PSH, data);
    server(1, 111, ACK);
    const [later] = client(11, 1, ACK | PSH, data);
    for (const [out, seq] of [
      [sent, 1],
      [later, 11],
    ] as const) {
      const departure = raw(icmpAbout(out?.bytes ?? new Uint8Array()), 1)[0];
      const quoted = (departure?.frame ?? new Uint8Array()).subarray(addresses === V4 ? 28 : 48);
      const view = new DataView(quoted.buffer, quoted.byteOffset, quoted.length);
      const at = addresses === V4 ? 20 : 40;
      expect((view.getUint32(at + 4) - CLIENT_ISN) | 0).toBe(seq);
      expect(view.getUint16(at)).toBe(CLIENT_PORT);
    }
  });
});

test("numbers move by the header whatever they are, and checksums with them", async () => {
  const isFrom = (turn: number, client: boolean) => (client ? turn : -turn);
  const edges = [0, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];
  const number = fc.oneof(
    fc.nat(0xffff_ffff),
    fc
      .tuple(fc.nat(0xffff), fc.constantFrom(...edges), fc.integer({ min: -1100, max: 1100 }))
      .map(([high, edge, by]) => (high * 0x10000 + edge + by) >>> 0),
  );
  for (const padTo of [100, 255, 256, 511, 1023]) {
    const { client, server, handshake } = await scene({ proxyProtocol: { padTo } });
    handshake();
    client(1, 1, ACK | PSH, data);
    server(1, 1 + padTo, ACK);
    fc.assert(
      fc.property(number, fc.boolean(), fc.boolean(), (absolute, isClient, isStamped) => {
        const relative = (absolute - CLIENT_ISN) | 0;
        const options = isStamped ? { timestamps: [1, 2] as [number, number] } : {};
        const [out] = isClient
          ? client(relative, 1, ACK, { options })
          : server(1, relative, ACK, { options });
        const moved = isClient ? out?.segment.seq : out?.segment.ack;
        expect(moved).toBe((relative + isFrom(padTo, isClient)) | 0);
      }),
      { numRuns: 2000 },
    );
  }
});

/** "Fragmentation needed" or "packet too big" from a router behind the engine. */
function icmpAbout(packet: Uint8Array): Uint8Array {
  if ((packet[0] ?? 0) >> 4 === 4) {
    const icmp = concat(Uint8Array.of(3, 4, 0, 0), u16(0), u16(576), packet.subarray(0, 28));
    icmp.set(u16(internetChecksum(icmp)), 2);
    const [router, source] = [addressBytes("100.64.9.9"), packet.subarray(12, 16)];
    const ip = concat(
      u16(0x4500),
      u16(20 + icmp.length),
      u32(0),
      u16(0x4001),
      u16(0),
      router,
      source,
    );
    ip.set(u16(internetChecksum(ip)), 10);
    return concat(ip, icmp);
  }
  const [router, source] = [addressBytes("2001:db8:9::9"), packet.subarray(8, 24)];
  const icmp = concat(Uint8Array.of(2, 0, 0, 0), u32(1280), packet.subarray(0, 60));
  const pseudo = concat(router, source, u32(icmp.length), u32(58));
  icmp.set(u16(internetChecksum(pseudo, icmp)), 2);
  return concat(u32(0x60000000), u16(icmp.length), Uint8Array.of(58, 64), router, source, icmp);
}

describe("traps of other engines", () => {
  test("a pure ACK never carries the header, whatever its number", async () => {
    const { client, handshake } = await scene();
    handshake();
    expect(line(client(1, 1, ACK))).toBe("1 1 +0");
    // A keepalive, and one after data that was lost on its way here.
    expect(line(client(0, 1, ACK))).toBe("0 1 +0");
    expect(line(client(500, 1, ACK))).toBe("500 1 +0");
    expect(line(client(0, 1, ACK, { payload: pattern(1) }))).toBe("0 1 +1");
  });

  test("a full segment is no longer than it was: the header goes by itself", async () => {
    const { client, handshake } = await scene();
    handshake();
    const out = client(1, 1, ACK, { payload: pattern(1460) });
    expect(out.map(({ bytes }) => bytes.length)).toEqual([20 + 20 + H, 1500]);
  });

  test("with timestamps the header carries the cause's, without them no options at all", async () => {
    for (const timestamps of [undefined, [7, 9] as [number, number]]) {
      const { client, handshake } = await scene();
      handshake();
      const options = timestamps ? { timestamps, shift: 1 } : {};
      const [header] = client(1, 1, ACK, { ...data, options });
      expect(header?.segment.options).toEqual(timestamps ? { timestamps } : {});
      expect(header?.bytes.length).toBe(20 + 20 + H + (timestamps ? 12 : 0));
    }
  });

  test("a super-packet of 60 kB leaves whole, with a long TLV in the header before it", async () => {
    const tlvs = [{ type: 2, value: pattern(250, 97).map((byte) => 97 + (byte % 26)) }];
    const { client, handshake } = await scene({ proxyProtocol: { tlvs } });
    handshake();
    const out = client(1, 1, ACK, { payload: pattern(60_000) });
    expect(line(out)).toBe("H 1 1 +288, 289 1 +60000");
    expect(Buffer.compare(out[1]?.segment.payload ?? BYTES, pattern(60_000))).toBe(0);
  });

  test("a super-packet without a length in its IP header is no pure ACK", async () => {
    const { client, raw, handshake } = await scene();
    handshake();
    const [, whole] = client(1, 1, ACK, { payload: pattern(1000) });
    expect(whole?.segment.payload.length).toBe(1000);
    const other = await scene();
    other.handshake();
    const bytes = clientSegment({ seq: CLIENT_ISN + 1, payload: pattern(1000) });
    bytes.set(u16(0), 2);
    bytes.set(u16(internetChecksum(bytes.subarray(0, 10), u16(0), bytes.subarray(12, 20))), 10);
    const out = other.raw(bytes, 0);
    expect(out.map(({ made }) => made)).toEqual(["pp2", undefined]);
    expect(raw(bytes, 0)[0]?.verdict).toBe("forward");
  });

  test.each([0x0000, 0x1234, 0xffff])(
    "a checksum that is wrong (%i) stays as wrong",
    async (wrong) => {
      const { raw, handshake } = await scene();
      handshake();
      const bytes = clientSegment({ seq: CLIENT_ISN + 1, payload: BYTES });
      const right = new DataView(bytes.buffer).getUint16(36);
      bytes.set(u16(wrong), 36);
      const [header, packet] = raw(bytes, 0);
      // The engine's own segment is complete, whatever caused it.
      read(header?.frame ?? bytes);
      const out = packet?.frame ?? bytes;
      const found = new DataView(out.buffer, out.byteOffset).getUint16(36);
      out.set(u16(0), 36);
      const pseudo = concat(out.subarray(12, 20), u32(out.length - 20), u32(6));
      const rightOut = internetChecksum(pseudo, out.subarray(20));
      const error = (a: number, b: number) => (((a - b) % 0xffff) + 0xffff) % 0xffff;
      expect(error(found, rightOut)).toBe(error(wrong, right));
    },
  );

  test("the first bytes again bring the same header again, and nothing else does", async () => {
    const { client, server, handshake, engine } = await scene();
    handshake();
    const [first] = client(1, 1, ACK, data);
    expect(line(client(11, 1, ACK, data))).toBe("111 1 +10");
    const [again] = client(1, 1, ACK, { payload: pattern(20) });
    expect(again?.made).toBe(true);
    expect(Buffer.compare(again?.segment.payload ?? BYTES, first?.segment.payload ?? BYTES)).toBe(
      0,
    );
    server(1, 101, ACK);
    expect(line(client(1, 1, ACK, data))).toBe("101 1 +10");
    expect(engine.counters().proxyProtocol.repeated).toBe(1);
  });

  test("the second segment overtakes the first: the header stands before both", async () => {
    const { client, handshake } = await scene();
    handshake();
    expect(line(client(11, 1, ACK, data))).toBe("H 1 1 +100, 111 1 +10");
    expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
  });

  test("a header of the client's own stays behind ours", async () => {
    const { client, handshake } = await scene();
    handshake();
    const own = codec.encode({
      source: { address: "203.0.113.5", port: 1 },
      destination: { address: "203.0.113.6", port: 2 },
    });
    const [header, packet] = client(1, 1, ACK, { payload: own });
    expect(codec.decode(header?.segment.payload ?? BYTES).source?.address).toBe(V4.client);
    expect(Buffer.compare(packet?.segment.payload ?? BYTES, own)).toBe(0);
  });
});

/** A segment of the IPv4 client with numbers as they are. */
function clientSegment(more: Partial<Segment>): Uint8Array {
  return build({
    source: addressBytes(V4.client),
    destination: addressBytes(V4.listener),
    sourcePort: CLIENT_PORT,
    destinationPort: 443,
    seq: 0,
    ack: (SERVER_ISN + 1) >>> 0,
    flags: ACK,
    window: 1000,
    urgent: 0,
    options: {},
    payload: new Uint8Array(0),
    ...more,
  });
}

describe("what comes back", () => {
  test("an acknowledgement inside the header is one of nothing", async () => {
    const { client, server, handshake, engine } = await scene();
    handshake();
    client(1, 1, ACK, data);
    for (const ack of [1, 2, 50, 100]) expect(line(server(1, ack, ACK))).toBe("1 1 +0");
    expect(engine.counters().proxyProtocol.clamped).toBe(3);
    expect(line(server(1, 101, ACK))).toBe("1 1 +0");
    expect(line(server(1, 111, ACK))).toBe("1 11 +0");
    expect(engine.counters().proxyProtocol.clamped).toBe(3);
  });

  test.each([0, 1, 2, 3])(
    "SACK blocks move with it, %i bytes off their alignment",
    async (shift) => {
      const { client, server, handshake } = await scene();
      handshake();
      client(1, 1, ACK, data);
      const sack: [number, number][] = [
        [131, 141],
        [161, 171],
      ];
      const wire = sack.map((block) => block.map((edge) => (CLIENT_ISN + edge) >>> 0));
      const options = { shift, sack: wire as [number, number][], timestamps: undefined };
      for (const ack of [111, 121]) {
        const [out] = server(1, ack, ACK, { options: { shift, sack: options.sack } });
        expect(out?.segment.ack).toBe(ack - H);
        expect(out?.segment.options.sack).toEqual(sack.map((block) => block.map((e) => e - H)));
      }
    },
  );

  test("before the header is acknowledged no block begins where it is missing", async () => {
    const { client, server, handshake } = await scene();
    handshake();
    client(1, 1, ACK, data);
    const at = (...edges: number[]) =>
      edges.map((edge) => (CLIENT_ISN + edge) >>> 0) as [number, number];
    const blocks = (sack: [number, number][], ack = 1) =>
      server(1, ack, ACK, { options: { shift: 1, sack } })[0]?.segment.options.sack;
    // The data arrived, the header did not; twice; only the header twice (D-SACK).
    expect(blocks([at(101, 111)])).toBeUndefined();
    expect(blocks([at(101, 111), at(131, 141)])).toEqual([[31, 41]]);
    expect(blocks([at(1, 101)], 111)).toBeUndefined();
  });

  test("a segment without ACK keeps its field, and one from before the header its number", async () => {
    const { client, server, handshake } = await scene();
    handshake();
    client(1, 1, ACK, data);
    server(1, 111, ACK);
    expect(server(1, 0, RST)[0]?.segment).toMatchObject({ flags: RST, ack: 0 });
    const again = await scene();
    again.handshake();
    again.client(1, 1, ACK, data);
    expect(line(again.server(0, 1, SYN | ACK))).toBe("0 1 +0");
    again.server(1, 111, ACK);
    expect(line(again.server(0, 1, SYN | ACK))).toBe("0 1 +0");
    expect(line(again.client(0, 0, SYN))).toBe("0 0 +0");
  });
});

describe("every point of a connection", () => {
  test("urgent data, and the segment after it", async () => {
    const { client, handshake } = await scene();
    handshake();
    const [header, packet] = client(1, 1, ACK | URG, { ...data, urgent: 5 });
    expect(header?.segment).toMatchObject({ urgent: 0, flags: ACK | PSH });
    expect(packet?.segment).toMatchObject({ urgent: 5, flags: ACK | URG, seq: 101 });
  });

  test("a FIN without data: the header goes before it", async () => {
    const { client, server, handshake } = await scene();
    handshake();
    expect(line(client(1, 1, ACK | FIN))).toBe("H 1 1 +100, 101 1 +0");
    expect(line(server(1, 102, ACK | FIN))).toBe("1 2 +0");
  });

  test("a reset before, during and after the header", async () => {
    const silent = await scene();
    silent.handshake();
    expect(line(silent.client(1, 1, ACK | RST))).toBe("1 1 +0");
    const sent = await scene();
    sent.handshake();
    sent.client(1, 1, ACK, data);
    // In sequence only behind the header, which may be lost.
    expect(line(sent.client(11, 1, ACK | RST))).toBe("H 1 1 +100, 111 1 +0");
    expect(line(sent.client(11, 0, RST))).toBe("111 0 +0");
    const done = await scene();
    done.handshake();
    done.client(1, 1, ACK, data);
    done.server(1, 111, ACK);
    expect(line(done.client(11, 1, ACK | RST))).toBe("111 1 +0");
    const refused = await scene();
    refused.client(0, 0, SYN);
    expect(line(refused.server(0, 1, ACK | RST))).toBe("0 1 +0");
  });

  test("the tuple used again begins anew at its own number", async () => {
    const { client, server, handshake } = await scene();
    handshake();
    client(1, 1, ACK, data);
    server(1, 111, ACK | RST);
    expect(line(client(7000, 0, SYN))).toBe("7000 0 +0");
    expect(line(server(9000, 7001, SYN | ACK))).toBe("9000 7001 +0");
    expect(line(client(7001, 9001, ACK, data))).toBe("H 7001 9001 +100, 7101 9001 +10");
  });

  test("another SYN before the answer, and the answer that counts", async () => {
    const { client, server } = await scene();
    client(0, 0, SYN);
    client(300, 0, SYN);
    server(0, 301, SYN | ACK);
    // A duplicate of the first one arrives late.
    client(0, 0, SYN);
    expect(line(client(301, 1, ACK, data))).toBe("H 301 1 +100, 401 1 +10");
  });

  test("strays before the SYN-ACK cause nothing", async () => {
    const { client, server } = await scene();
    client(0, 0, SYN);
    expect(line(client(1, 77, ACK, data))).toBe("1 77 +10");
    server(0, 1, SYN | ACK);
    expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
  });

  test("both ends open at once", async () => {
    const { client, server } = await scene();
    client(0, 0, SYN);
    expect(line(server(0, 0, SYN))).toBe("0 0 +0");
    expect(line(client(0, 1, SYN | ACK))).toBe("0 1 +0");
    expect(line(server(1, 1, ACK))).toBe("1 1 +0");
    expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
  });

  test("data on the SYN and Fast Open are taken off", async () => {
    const { client, server, engine } = await scene();
    const [syn] = client(0, 0, SYN, {
      ...data,
      options: { mss: 1460, fastOpen: pattern(8), shift: 1 },
    });
    expect(syn?.segment).toMatchObject({ seq: 0, payload: new Uint8Array(0), flags: SYN });
    expect(syn?.segment.options).toEqual({ mss: 1460 });
    server(0, 1, SYN | ACK);
    expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
    expect(engine.counters().proxyProtocol.cut).toBe(1);
  });

  test("a flow that is met in mid-stream has no header and keeps its numbers", async () => {
    const { client, server, engine } = await scene({ adopt: true });
    expect(line(client(500, 1, ACK, data))).toBe("500 1 +10");
    expect(line(server(1, 510, ACK))).toBe("1 510 +0");
    expect(engine.counters().proxyProtocol.adopted).toBe(1);
    expect(engine.counters().emitted.pp2).toBe(0);
  });

  test("a service that has no headers any more leaves those that flows have", async () => {
    const { client, server, handshake, engine } = await scene();
    handshake();
    client(1, 1, ACK, data);
    server(1, 111, ACK);
    const targets = [{ address: V4.target, port: 8080 }];
    engine.setService(0, { sourceAddresses: [V4.nat], targets });
    expect(line(client(11, 1, ACK, data))).toBe("111 1 +10");
    const longer = { sourceAddresses: [V4.nat], targets, proxyProtocol: { padTo: 120 } };
    expect(() => engine.setService(0, longer)).toThrow("headers of 120 bytes");
    expect(() => engine.setService(1, { proxyProtocol: { vpce: "a_b" } })).toThrow(
      'proxyProtocol.vpce: "a_b" is not',
    );
  });
});

describe("before the last packet of the handshake", () => {
  const early: ServiceOptions = { proxyProtocol: { placement: "on_first_ack" } };

  test("the header takes the place of the first ACK, and data brings none", async () => {
    const { client, server, handshake, engine } = await scene(early);
    handshake();
    const [header, ack] = client(1, 1, ACK, { window: 77 });
    expect(line([header as Out])).toBe("H 1 1 +100");
    expect(header?.segment.window).toBe(77);
    expect([ack?.verdict, engine.counters().verdicts["absorb.header"]]).toEqual([ABSORBED, 1]);
    expect(line(client(1, 1, ACK, data))).toBe("101 1 +10");
    expect(line(server(1, 101, ACK, data))).toBe("1 1 +10");
    expect(line(client(11, 11, ACK))).toBe("111 11 +0");
  });

  test("it comes again with whatever the client says before anybody has acknowledged it", async () => {
    const { client, handshake } = await scene(early);
    handshake();
    client(1, 1, ACK);
    for (const seq of [1, 0]) {
      const [header, ack] = client(seq, 1, ACK);
      expect([line([header as Out]), ack?.verdict]).toEqual(["H 1 1 +100", ABSORBED]);
    }
    client(1, 1, ACK, data);
    expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
  });

  test("a lost header comes again with the answer to the SYN-ACK that the target repeats", async () => {
    const { client, server, handshake } = await scene(early);
    handshake();
    client(1, 1, ACK);
    expect(line(server(0, 1, SYN | ACK))).toBe("0 1 +0");
    const [header, ack] = client(1, 1, ACK);
    expect([line([header as Out]), ack?.verdict]).toEqual(["H 1 1 +100", ABSORBED]);
    // The target greets first.
    expect(line(server(1, 101, ACK, data))).toBe("1 1 +10");
    expect(line(client(1, 11, ACK))).toBe("101 11 +0");
  });
});

test("a replay maps what comes back up: it is what the target would have sent", async () => {
  const { client, raw, handshake, engine } = await scene({ adopt: true }, V4, {}, { peer: 0 });
  handshake();
  const back = (
    seq: number,
    ack: number,
    flags: number,
    payload: Uint8Array = new Uint8Array(0),
  ) => {
    const segment = {
      source: addressBytes(V4.listener),
      destination: addressBytes(V4.client),
      sourcePort: 443,
      destinationPort: CLIENT_PORT,
      seq: (SERVER_ISN + seq) >>> 0,
      ack: (CLIENT_ISN + ack) >>> 0,
      window: 9,
      urgent: 0,
      options: {},
    };
    const [out] = raw(build({ ...segment, flags, payload }), 0);
    const got = read(out?.frame ?? BYTES);
    return [(got.seq - SERVER_ISN) | 0, (got.ack - CLIENT_ISN) | 0];
  };
  expect(back(0, 1, SYN | ACK)).toEqual([0, 1]);
  expect(back(1, 1, ACK)).toEqual([1, 1]);
  expect(line(client(1, 1, ACK, data))).toBe("H 1 1 +100, 101 1 +10");
  expect(back(1, 1, ACK, BYTES)).toEqual([1, 101]);
  expect(back(11, 11, ACK)).toEqual([11, 111]);
  expect(back(0, 1, SYN | ACK)).toEqual([0, 1]);
  expect(engine.counters().emitted.pp2).toBe(1);
});

describe("datagrams", () => {
  const udp = (size: number, isIpv6 = false, hasChecksum = true) => {
    const [source, destination] = isIpv6
      ? [addressBytes(V6.client), addressBytes(V6.listener)]
      : [addressBytes(V4.client), addressBytes(V4.listener)];
    const datagram = concat(u16(CLIENT_PORT), u16(443), u16(8 + size), u16(0), pattern(size, 3));
    const pseudo = concat(source, destination, u32(datagram.length), u32(17));
    if (hasChecksum) datagram.set(u16(internetChecksum(pseudo, datagram) || 0xffff), 6);
    if (isIpv6) {
      return concat(
        u32(0x60000000),
        u16(8 + size),
        Uint8Array.of(17, 64),
        source,
        destination,
        datagram,
      );
    }
    const ip = concat(
      u16(0x4500),
      u16(28 + size),
      u32(0),
      u16(0x4011),
      u16(0),
      source,
      destination,
    );
    ip.set(u16(internetChecksum(ip)), 10);
    return concat(ip, datagram);
  };
  const withUdp = (padTo = 100) =>
    scene({ proxyProtocol: { udp: true, padTo } }, V4, { proxyProtocol: "udp" });

  test.each([
    [0, false, 100],
    [1, false, 100],
    [11, false, 101],
    [12, true, 101],
    [1400, true, 100],
    [9000, false, 133],
  ])("of %i bytes, IPv6 %s, header of %i", async (size, isIpv6, padTo) => {
    const { raw, engine } = await withUdp(padTo);
    for (let round = 1; round <= 3; round++) {
      const [out] = raw(udp(size, isIpv6), 0);
      expect(out?.verdict).toBe("forward");
      const packet = out?.frame ?? BYTES;
      const ipBytes = isIpv6 ? 40 : 20;
      const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
      expect(isIpv6 ? 40 + view.getUint16(4) : view.getUint16(2)).toBe(packet.length);
      expect(view.getUint16(ipBytes + 4)).toBe(8 + padTo + size);
      if (!isIpv6) expect(internetChecksum(packet.subarray(0, 20))).toBe(0);
      const addresses = packet.subarray(isIpv6 ? 8 : 12, ipBytes);
      const body = packet.subarray(ipBytes);
      expect(internetChecksum(concat(addresses, u32(body.length), u32(17)), body)).toBe(0);
      const header = codec.decode(body.subarray(8));
      expect(header).toMatchObject({ transport: "udp", bytes: padTo });
      expect(header.source).toEqual({ address: isIpv6 ? V6.client : V4.client, port: CLIENT_PORT });
      expect(Buffer.compare(body.subarray(8 + padTo), pattern(size, 3))).toBe(0);
      expect(engine.counters().proxyProtocol.datagrams).toBe(round);
    }
  });

  test("no checksum stays none; what grows too long is dropped; off, nothing changes", async () => {
    const { raw } = await withUdp();
    const [plain] = raw(udp(10, false, false), 0);
    expect(new DataView(plain?.frame.buffer ?? new ArrayBuffer(0)).getUint16(26)).toBe(0);
    expect(raw(udp(10_200), 0)[0]?.verdict).toBe("drop.too-large");
    const off = await scene();
    expect(off.raw(udp(10), 0)[0]?.frame.length).toBe(38);
    await expect(scene({ proxyProtocol: { udp: true } })).rejects.toThrow("proxyProtocol.udp");
    await expect(scene({}, V4, { proxyProtocol: false })).rejects.toThrow("without room");
  });

  test("the first fragment of a datagram cannot carry it", async () => {
    const { raw } = await withUdp();
    raw(udp(10), 0);
    const first = udp(64);
    first.set(u16(0x2000), 6);
    first.set(u16(0), 10);
    first.set(u16(internetChecksum(first.subarray(0, 20))), 10);
    expect(raw(first, 0)[0]?.verdict).toBe("drop.fragment");
  });
});
