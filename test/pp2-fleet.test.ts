/**
 * The gauntlet through a fleet: every packet of a connection with a PROXY header meets another node,
 * or the nodes change now and then, and the target must still receive one header and the client's
 * bytes. Links lose, delay, reorder and repeat packets. FLOWPLANE_GAUNTLET=N runs N times as many.
 */
import { describe, expect, test } from "vitest";
import { addressBytes, seeded } from "../fixtures/bytes.ts";
import type { HeaderPlacement, ProxyProtocolOptions } from "../host/engine/api.ts";
import type { Departure } from "../host/engine/frames.ts";
import { FleetNode } from "../host/nodes/node.ts";
import { SharedStore } from "../host/nodes/shared-store.ts";
import { connectionOptions } from "./pp2-gauntlet-options.ts";
import { Channel, channelEngine } from "./tcp-channel.ts";
import { ACK, build, RST, read, type Segment, SYN } from "./tcp-segment.ts";

const CONNECTIONS = 30;
const NODES = 3;
const ROUNDS = Number(process.env.FLOWPLANE_GAUNTLET ?? 1);
const VPCE = "vpce-0123456789abcdef0";

async function fleetOf(options: ProxyProtocolOptions): Promise<FleetNode[]> {
  const store = new SharedStore({ entries: 4096 });
  const sideOf = (port: number) => (port === 0 ? "client" : "service");
  const nodes: FleetNode[] = [];
  while (nodes.length < NODES) {
    nodes.push(new FleetNode({ engine: await channelEngine(options), store, sideOf }));
  }
  return nodes;
}

async function through(node: FleetNode, packet: Uint8Array, port: number, nowMs: number) {
  node.add(packet, nowMs, port);
  const leaving: Departure[] = node.process().map((one) => ({ ...one, frame: one.frame.slice() }));
  for (let round = 0; round < 10 && node.waiting > 0; round++) {
    leaving.push(...(await node.settle(nowMs)));
  }
  return leaving;
}

/** Segments of one client through nodes of one's choice. */
async function conversation(options: ProxyProtocolOptions) {
  const nodes = await fleetOf(options);
  let nowMs = 0;
  const send =
    (isn: number) =>
    async (node: number, seq: number, flags: number, bytes = 0) => {
      const segment: Segment = {
        source: addressBytes("10.0.0.9"),
        destination: addressBytes("192.0.2.80"),
        sourcePort: 4000,
        destinationPort: 443,
        seq: (isn + seq) >>> 0,
        ack: flags & ACK ? 1 : 0,
        flags,
        window: 1000,
        urgent: 0,
        options: {},
        payload: new Uint8Array(bytes),
      };
      const left = await through(nodes[node] as FleetNode, build(segment), 0, ++nowMs);
      return left.map(({ frame, made }) => {
        const { seq: number, payload } = read(frame);
        return `${made ? "H " : ""}${(number - isn) >>> 0} +${payload.length}`;
      });
    };
  return { send, nodes };
}

const HEADER = 100;

describe("a stream that is taken over", () => {
  test("has its header where its own SYN says, whatever the tuple carried before", async () => {
    const { send } = await conversation({});
    const old = send(1000);
    expect(await old(0, 0, SYN)).toEqual(["0 +0"]);
    expect(await old(0, 1, ACK, 10)).toEqual([`H 1 +${HEADER}`, `${HEADER + 1} +10`]);
    expect(await old(0, 11, RST | ACK)).toEqual([`H 1 +${HEADER}`, `${HEADER + 11} +0`]);
    const next = send(500_000_000);
    expect(await next(0, 0, SYN)).toEqual(["0 +0"]);
    expect(await next(1, 1, ACK)).toEqual(["1 +0"]);
    expect(await next(1, 1, ACK, 5)).toEqual([`H 1 +${HEADER}`, `${HEADER + 1} +5`]);
    // A client that gives up a SYN, and begins with another number.
    const last = send(4_000_000_000);
    expect(await next(1, 6, RST | ACK)).toHaveLength(2);
    expect(await last(1, 0, SYN)).toEqual(["0 +0"]);
    const other = send(77);
    expect(await other(1, 0, SYN)).toEqual(["0 +0"]);
    expect(await other(2, 1, ACK, 3)).toEqual([`H 1 +${HEADER}`, `${HEADER + 1} +3`]);
  });

  test("goes on anywhere in its 4 GiB", async () => {
    for (const at of [5000, 2 ** 31 - 1, 2 ** 31 + 1, 3_000_000_000, 2 ** 32 - 70_000]) {
      const { send } = await conversation({});
      const one = send(123);
      await one(0, 0, SYN);
      expect(await one(1, at, ACK, 7)).toEqual([`${(at + HEADER) % 2 ** 32} +7`]);
    }
  });
});

const PLACEMENTS: HeaderPlacement[] = ["on_first_ack_with_payload", "on_first_ack"];

describe.each(PLACEMENTS)("%s", (placement) => {
  test.each([
    ["every packet", 1],
    ["every tenth", 0.1],
    ["now and then", 0.02],
  ])("streams survive a change of nodes: %s", { timeout: 120_000 }, async (_, share) => {
    for (let round = 0; round < ROUNDS; round++) await run(placement, share, round);
  });
});

async function run(placement: HeaderPlacement, share: number, round: number): Promise<void> {
  const seed = placement.length * 100 + share * 1000 + 10_000 * round;
  const random = seeded(seed);
  const options: ProxyProtocolOptions = { placement, vpce: VPCE };
  const channel = await Channel.create(seed, options);
  const nodes = await fleetOf(options);
  let node = nodes[0] as FleetNode;
  channel.pass = (packet, port, nowMs) => {
    if (random() < share) node = nodes[Math.floor(random() * NODES)] as FleetNode;
    return through(node, packet, port, nowMs);
  };
  for (let index = 0; index < CONNECTIONS; index++) {
    channel.open(connectionOptions(random, options, 100), 1 + Math.floor(random() * 2000));
  }
  await channel.run();
  for (const { server, client, options: own, headers } of channel.connections) {
    expect(headers.size).toBe(1);
    const [digits] = headers;
    const expected = Buffer.concat([Buffer.from(digits ?? "", "hex"), own.toServer]);
    expect(Buffer.compare(server.received, expected)).toBe(0);
    expect(Buffer.compare(client.received, own.toClient)).toBe(0);
  }
  const counters = nodes.map(({ counters }) => counters);
  expect(counters.reduce((sum, { made }) => sum + made, 0)).toBeGreaterThanOrEqual(CONNECTIONS);
  expect(counters.reduce((sum, { adopted }) => sum + adopted, 0)).toBeGreaterThan(0);
}
