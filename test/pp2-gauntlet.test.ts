/**
 * The gauntlet: two TCP ends and the engine between them, which puts a PROXY header into a stream
 * that it does not terminate, over links that do what networks do. The target must receive exactly
 * one header and then the client's bytes, the client exactly the target's bytes. Addresses, ports and the
 * endpoint's id are others in each block.
 *
 * FLOWPLANE_GAUNTLET=N runs N blocks of 60 connections for each placement and length; default 4.
 */
import { describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import type { HeaderPlacement, ProxyProtocolOptions } from "../host/engine/api.ts";
import { createHeaderCodec } from "../host/pp2/codec.ts";
import { tlvText } from "../host/pp2/tlv.ts";
import { connectionOptions } from "./pp2-gauntlet-options.ts";
import { Channel, type Connection } from "./tcp-channel.ts";
import { type World, worldOf } from "./tcp-world.ts";

const codec = await createHeaderCodec();
const ROUNDS = Number(process.env.FLOWPLANE_GAUNTLET ?? 4);
const CONNECTIONS = 60;
const TIMEOUT_MS = 60_000 + ROUNDS * 2000;

function vpceOf(random: () => number): string {
  const digits = Array.from({ length: 17 }, () => Math.floor(random() * 16).toString(16));
  return `vpce-${digits.join("")}`;
}

function expectIntact(connection: Connection, world: World, vpce: string): void {
  const { options, from, to, server, client, headers } = connection;
  const received = server.received;
  const header = codec.decode(received.slice());
  expect(header).toMatchObject({
    command: "proxy",
    transport: "tcp",
    source: from,
    destination: to,
    bytes: options.headerBytes,
  });
  expect(tlvText(header.tlvs[1] as never)).toBe(vpce);
  expect(headers.size).toBe(1);
  const [digits] = headers;
  expect(Buffer.from(received.subarray(0, header.bytes)).toString("hex")).toBe(digits);
  const payload = received.subarray(header.bytes);
  expect(Buffer.compare(payload, options.toServer)).toBe(0);
  expect(Buffer.compare(client.received, options.toClient)).toBe(0);
  expect([client.refused, server.refused]).toEqual([0, 0]);
  const { nodes, targets, targetPort } = world;
  expect(targets).toContain(connection.target?.address);
  expect(connection.target?.port).toBe(targetPort);
  if (nodes.length === 0) expect(connection.node).toEqual(from);
  else expect(nodes).toContain(connection.node?.address);
}

const PLACEMENTS: HeaderPlacement[] = ["on_first_ack_with_payload", "on_first_ack"];

describe.each(PLACEMENTS)("%s", (placement) => {
  test.each([100, 135, 524])(
    "headers of %i bytes survive whatever happens",
    { timeout: TIMEOUT_MS },
    async (padTo) => {
      let [packets, clamped] = [0, 0];
      for (let round = 0; round < ROUNDS; round++) {
        const seed = round * 1000 + padTo + (placement === "on_first_ack" ? 500 : 0);
        const random = seeded(seed);
        const vpce = vpceOf(random);
        const options: ProxyProtocolOptions = { placement, vpce, padTo };
        const world = worldOf(random);
        const channel = await Channel.create(seed, options, world);
        for (let index = 0; index < CONNECTIONS; index++) {
          channel.open(connectionOptions(random, options, padTo), 1 + Math.floor(random() * 2000));
        }
        try {
          await channel.run();
          for (const connection of channel.connections) expectIntact(connection, world, vpce);
        } catch (error) {
          throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
        }
        packets += channel.tally.packets;
        const { emitted, proxyProtocol } = channel.engine.counters();
        expect(emitted.pp2).toBe(channel.tally.made);
        expect(proxyProtocol.repeated).toBe(channel.tally.made - CONNECTIONS);
        expect(proxyProtocol.repeated).toBeGreaterThan(0);
        clamped += proxyProtocol.clamped;
      }
      expect(packets).toBeGreaterThan(ROUNDS * CONNECTIONS * 20);
      expect(clamped).toBeGreaterThan(0);
      process.stderr.write(`gauntlet: ${placement}, ${padTo} bytes: ${packets} packets\n`);
    },
  );
});
