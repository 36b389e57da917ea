/**
 * The gauntlet: two TCP ends and the engine between them, which puts a PROXY header into a stream
 * that it does not terminate, over links that do what networks do. The target must receive exactly
 * one header and then the client's bytes, the client exactly the target's bytes.
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

const codec = await createHeaderCodec();
const ROUNDS = Number(process.env.FLOWPLANE_GAUNTLET ?? 4);
const CONNECTIONS = 60;
const VPCE = "vpce-0123456789abcdef0";
function expectIntact(connection: Connection): void {
  const { options, port, server, client, headers } = connection;
  const received = server.received;
  const header = codec.decode(received.slice());
  expect(header).toMatchObject({
    command: "proxy",
    transport: "tcp",
    source: { address: options.isIpv6 ? "2001:db8::9" : "10.0.0.9", port },
    destination: { address: options.isIpv6 ? "2001:db8:f::80" : "192.0.2.80", port: 443 },
    bytes: options.headerBytes,
  });
  expect(tlvText(header.tlvs[1] as never)).toBe(VPCE);
  expect(headers.size).toBe(1);
  const [digits] = headers;
  expect(Buffer.from(received.subarray(0, header.bytes)).toString("hex")).toBe(digits);
  const payload = received.subarray(header.bytes);
  expect(Buffer.compare(payload, options.toServer)).toBe(0);
  expect(Buffer.compare(client.received, options.toClient)).toBe(0);
  expect([client.refused, server.refused]).toEqual([0, 0]);
}

const PLACEMENTS: HeaderPlacement[] = ["on_first_ack_with_payload", "on_first_ack"];

describe.each(PLACEMENTS)("%s", (placement) => {
  test.each([100, 135, 524])("headers of %i bytes survive whatever happens", async (padTo) => {
    let packets = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const seed = round * 1000 + padTo + (placement === "on_first_ack" ? 500 : 0);
      const random = seeded(seed);
      const options: ProxyProtocolOptions = { placement, vpce: VPCE, padTo };
      const channel = await Channel.create(seed, options);
      for (let index = 0; index < CONNECTIONS; index++) {
        channel.open(connectionOptions(random, options, padTo), 1 + Math.floor(random() * 2000));
      }
      try {
        await channel.run();
        for (const connection of channel.connections) expectIntact(connection);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
      packets += channel.tally.packets;
      const { emitted, proxyProtocol } = channel.engine.counters();
      expect(emitted.pp2).toBe(channel.tally.made);
      expect(proxyProtocol.repeated).toBe(channel.tally.made - CONNECTIONS);
      expect(proxyProtocol.repeated).toBeGreaterThan(0);
    }
    expect(packets).toBeGreaterThan(ROUNDS * CONNECTIONS * 20);
    process.stderr.write(`gauntlet: ${placement}, ${padTo} bytes: ${packets} packets\n`);
  });
});
