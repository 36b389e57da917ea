/** What services count of packets, whatever comes in between and however frames are batched. */
import { describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import { type Arrival, send, smallEngine } from "./harness.ts";

const NATS = ["10.9.0.1", "10.9.0.2", "10.9.0.3"];
const SERVER = "192.0.2.1";
const FLOWS = 40;

/** Ports 0 to 2 are the clients' of three services, 3 to 5 the servers'. */
const SETUP = {
  services: NATS.map((address) => ({ sourceAddresses: [address] })),
  ports: [
    ...NATS.map((_, service) => ({ service, peer: service + 3 })),
    ...NATS.map((_, service) => ({ sides: "service" as const, peer: service })),
  ],
};

describe("packets and bytes of services", () => {
  test.each([1, 7, 64, 256])("in batches of %i", async (batchSize) => {
    const random = seeded(20260722);
    const below = (count: number) => Math.floor(random() * count);
    const engine = await smallEngine(SETUP);
    const counted = NATS.map(() => ({
      packetsFromClient: 0,
      packetsFromService: 0,
      bytesFromClient: 0,
      bytesFromService: 0,
    }));
    const known = NATS.map(() => new Set<number>());
    const arrivals: Arrival[] = [];
    for (let packet = 0; packet < 3000; packet++) {
      // Trains of one service, and services in turns; strangers, which are dropped, among them.
      const service = packet % 300 < 150 ? Math.floor(packet / 300) % 3 : below(3);
      const flow = below(FLOWS);
      const payload = new Uint8Array(below(1200));
      const isReply = below(2) === 1;
      const ends = isReply ? [SERVER, NATS[service]] : [`10.${service}.0.${flow}`, SERVER];
      const ports = isReply ? [53, 2000 + flow] : [2000 + flow, 53];
      const [from = "", to = ""] = ends;
      const [fromPort = 0, toPort = 0] = ports;
      const frame = eth().ipv4(from, to).udp(fromPort, toPort).payload(payload).bytes();
      arrivals.push({ frame, port: isReply ? service + 3 : service });
      const count = counted[service] as (typeof counted)[0];
      if (!isReply) {
        known[service]?.add(flow);
        count.packetsFromClient++;
        count.bytesFromClient += frame.length;
      } else if (known[service]?.has(flow)) {
        count.packetsFromService++;
        count.bytesFromService += frame.length;
      }
    }
    const departures = send(engine, arrivals, batchSize);
    const dropped = departures.filter(({ verdict }) => verdict !== "forward").length;
    expect(dropped).toBeGreaterThan(10);
    for (const [service, count] of counted.entries()) {
      expect(count.packetsFromService).toBeGreaterThan(100);
      expect(engine.usage(service)).toMatchObject(count);
    }
  });

  test("go on when a word of both is full", async () => {
    const engine = await smallEngine(SETUP);
    const frame = eth().ipv4("10.0.0.1", SERVER).udp(2000, 53).payload(new Uint8Array(18)).bytes();
    const { bytes, descriptors, arena } = engine;
    const count = 256;
    // Half a million packets, and some more.
    const rounds = (1 << 11) + 50;
    for (let round = 0; round < rounds; round++) {
      for (let index = 0; index < count; index++) {
        const address = arena.address + index * 64;
        bytes.set(frame, address);
        descriptors.set([address, frame.length, 1000, 0, 0, 0, 0, frame.length], index * 8);
      }
      engine.process(count);
    }
    const packets = rounds * count;
    expect(packets).toBeGreaterThan(1 << 19);
    expect(engine.usage(0)).toMatchObject({
      packetsFromClient: packets,
      bytesFromClient: packets * frame.length,
      packetsFromService: 0,
    });
  });
});
