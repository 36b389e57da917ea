/**
 * The segment that the engine makes for a PROXY header, byte for byte: it is the packet that the
 * builder of fixtures makes of the same words, whatever addresses, options and cause.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressBytes, addressText, concat, pattern, u16 } from "../fixtures/bytes.ts";
import { eth, type Packet, raw } from "../fixtures/packets.ts";
import { wrongChecksums } from "../fixtures/verify.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { type Departure, Frames } from "../host/engine/frames.ts";
import { write } from "./reference/pp2.ts";

const LISTENERS = { 4: "192.0.2.80", 6: "2001:db8:f::80" } as const;
type Family = 4 | 6;

interface World {
  family: Family;
  target: string;
  nat: string;
  padTo: number;
}

async function engineOf({ target, nat, padTo }: World, more = {}): Promise<Engine> {
  const engine = await createEngine({
    flowCountMax: 256,
    flow6CountMax: 256,
    seed: new Uint8Array(16),
    warmUp: false,
    proxyProtocol: true,
    ...more,
  });
  const targets = [{ address: target, port: 8080 }];
  engine.setService(0, { sourceAddresses: [nat], targets, proxyProtocol: { padTo } });
  return engine;
}

/** The header's bytes by the slow encoder. */
function headerFor(client: string, port: number, { family, padTo }: World): Uint8Array {
  const ends = [client, LISTENERS[family]].map(addressBytes);
  const tuple = concat(...ends, u16(port), u16(443));
  const bytes = write(0x21, family === 4 ? 0x11 : 0x21, [...tuple], [], padTo, true);
  return Uint8Array.from(bytes);
}

/** What a cause hands on to its header's segment. */
interface Cause {
  client: string;
  port: number;
  seq: number;
  ack: number;
  window: number;
  /** DSCP and ECN, or traffic class. */
  service: number;
  hops: number;
  id: number;
  df: boolean;
  flowLabel: number;
  timestamps: Uint8Array | undefined;
  /** How the timestamps stand among the options. */
  shift: number;
  payloadBytes: number;
}

const address = (family: Family) =>
  fc
    .uint8Array({ minLength: family === 4 ? 4 : 16, maxLength: family === 4 ? 4 : 16 })
    .map((bytes) => addressText(Uint8Array.from(bytes)));

const causeOf = (family: Family): fc.Arbitrary<Cause> =>
  fc.record({
    client: address(family),
    port: fc.integer({ min: 1, max: 0xffff }),
    seq: fc.nat(0xffffffff),
    ack: fc.nat(0xffffffff),
    window: fc.nat(0xffff),
    service: fc.nat(0xff),
    hops: fc.integer({ min: 1, max: 255 }),
    id: fc.nat(0xffff),
    df: fc.boolean(),
    flowLabel: fc.nat(0xfffff),
    timestamps: fc.option(fc.uint8Array({ minLength: 8, maxLength: 8 }), { nil: undefined }),
    shift: fc.integer({ min: 0, max: 3 }),
    payloadBytes: fc.integer({ min: 1, max: 1400 }),
  });

const worldOf = (family: Family): fc.Arbitrary<World> =>
  fc.record({
    family: fc.constant(family),
    target: address(family),
    nat: address(family),
    padTo: fc.oneof(fc.constant(100), fc.integer({ min: 100, max: 1023 })),
  });

const HEADS = { raw: raw(), ethernet: eth(), vlan: eth({ vlan: [7] }) };
type Head = keyof typeof HEADS;

function ipOf(head: Head, from: string, to: string, cause: Cause, id: number): Packet {
  const { service, hops, df, flowLabel } = cause;
  return HEADS[head].ip(from, to, {
    tos: service,
    trafficClass: service,
    ttl: hops,
    hopLimit: hops,
    id,
    df,
    flowLabel,
  });
}

const stamps = (timestamps: Uint8Array, shift: number) =>
  concat(new Uint8Array(shift).fill(1), Uint8Array.of(8, 10), timestamps);

describe.each([4, 6] as const)("IPv%i", (family) => {
  test.each(["raw", "ethernet", "vlan"] as const)(
    "the segment is the builder's, %s",
    async (head) => {
      const link = head === "raw" ? "raw" : "ethernet";
      let made = 0;
      const causes = fc.uniqueArray(causeOf(family), {
        minLength: 1,
        maxLength: 24,
        size: "max",
        selector: ({ client, port }) => `${client} ${port % 64}`,
      });
      await fc.assert(
        fc.asyncProperty(worldOf(family), causes, async (world, all) => {
          const engine = await engineOf(world);
          engine.setPort(0, { service: 0, peer: 1, link });
          engine.setPort(1, { sides: "service", peer: 0, link });
          const frames = new Frames(engine);
          const run = (packets: Packet[], port: number): Departure[] => {
            for (const packet of packets) frames.add(packet.bytes(), 1000, port);
            return frames.process().map((one) => ({ ...one, frame: one.frame.slice() }));
          };
          const listener = LISTENERS[family];
          const up = (cause: Cause) => ipOf(head, cause.client, listener, cause, cause.id);
          const opened = run(
            all.map((cause) =>
              up(cause).tcp(cause.port, 443, { flags: "S", seq: (cause.seq - 1) >>> 0 }),
            ),
            0,
          );
          const flows = all.flatMap((cause, i) => {
            const { verdict = "", flow = 0 } = opened[i] ?? {};
            if (verdict !== "forward") return [];
            return [{ cause, natPort: engine.flow(flow)?.translatedClient.port ?? 0 }];
          });
          run(
            flows.map(({ cause, natPort }) =>
              ipOf(head, world.target, world.nat, cause, 1).tcp(8080, natPort, {
                flags: "SA",
                seq: (cause.ack - 1) >>> 0,
                ack: cause.seq,
              }),
            ),
            1,
          );
          const left = run(
            flows.map(({ cause }) => {
              const { seq, ack, window, timestamps, shift } = cause;
              const options = timestamps && stamps(timestamps, shift);
              const tcp = { flags: "A", seq, ack, window, ...(options && { options }) };
              return up(cause).tcp(cause.port, 443, tcp).payload(pattern(cause.payloadBytes));
            }),
            0,
          );
          expect(left.map(({ made }) => made)).toEqual(flows.flatMap(() => ["pp2", undefined]));
          for (const [i, { cause, natPort }] of flows.entries()) {
            const { seq, ack, window, timestamps } = cause;
            const id = cause.id ^ 0x8000;
            const options = timestamps && stamps(timestamps, 2);
            const tcp = { flags: "PA", seq, ack, window, ...(options && { options }) };
            const expected = ipOf(head, world.nat, world.target, cause, id)
              .tcp(natPort, 8080, tcp)
              .payload(headerFor(cause.client, cause.port, world));
            expect(Buffer.from(left[2 * i]?.frame ?? [])).toEqual(Buffer.from(expected.bytes()));
            expect(wrongChecksums(left[2 * i + 1]?.frame ?? pattern(1), link)).toEqual([]);
            made++;
          }
        }),
        { numRuns: 30, seed: 20261126 },
      );
      expect(made).toBeGreaterThan(200);
    },
  );
});
