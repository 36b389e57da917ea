/**
 * Load balancers of two families: IPv6 clients of IPv4 targets, byte by byte. Packets of the other
 * family are built, not translated.
 */
import { describe, expect, test } from "vitest";
import { eth, type Packet } from "../fixtures/packets.ts";
import { type Engine, VERDICT_NAMES } from "../host/engine/engine.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { balanced, CLIENT, NODE, networkEngine, usageOf } from "./network.ts";

const CLIENT6 = "2001:db8::7";
const NODE6 = "2001:db8::100";
const TARGET = "10.0.2.10";
const inNat64 = (address: string) => `64:ff9b::${address}`;

/** A load balancer with both addresses and one IPv4 target, which sees IPv4 clients as they are. */
function dualstack(rules: NetworkTables["rules"] = {}): NetworkTables {
  const listeners = [{ protocol: "tcp" as const, port: 80, service: "web" }];
  const tables = balanced({
    sources: [inNat64(NODE)],
    targets: [TARGET, inNat64(TARGET)].map((address) => ({ address, port: 8080 })),
    ...(rules.out && { rules: { outbound: "out" } }),
  });
  const addresses = [NODE, NODE6].map((address) => ({ address, service: "web", listeners }));
  return { ...tables, vpcs: [{ vpc: 1, port: 1, addresses }], rules };
}

/** Sends a frame; the engine may leave it somewhere else. */
function through(engine: Engine, frame: Packet, timeMs = 1000) {
  const { arena, bytes, descriptors } = engine;
  const sent = frame.bytes();
  bytes.set(sent, arena.address + 64);
  descriptors.set([arena.address + 64, sent.length, timeMs, 1, 0, 0, 0, sent.length]);
  engine.process(1);
  const [address = 0, length = 0, , , verdict = 0, flow = 0] = descriptors;
  return {
    verdict: VERDICT_NAMES[verdict & 0xffff],
    flow,
    frame: [...bytes.subarray(address, address + length)],
    emitted: engine.emitCount,
  };
}

const from6 = (flags: string, port = 40000) =>
  eth().ipv6(CLIENT6, NODE6).tcp(port, 80, { flags, seq: 1 });
const reply = (flags: string, port = 40000) =>
  eth().ipv4(TARGET, NODE).tcp(8080, port, { flags, seq: 2 });

describe("an IPv6 client of an IPv4 target", () => {
  test("comes from the load balancer's IPv4 address, and sees its IPv6 address", async () => {
    const engine = await networkEngine(dualstack());
    const out = through(engine, from6("S"));
    expect(out.verdict).toBe("forward");
    const expected = eth().ipv4(NODE, TARGET, { id: 1 });
    expect(out.frame).toEqual([...expected.tcp(40000, 8080, { flags: "S", seq: 1 }).bytes()]);
    const back = through(engine, reply("SA"));
    expect(back).toMatchObject({ verdict: "forward", flow: out.flow });
    const received = eth().ipv6(NODE6, CLIENT6).tcp(80, 40000, { flags: "SA", seq: 2 });
    expect(back.frame).toEqual([...received.bytes()]);
    expect(usageOf(engine, "web")).toMatchObject({ packetsFromClient: 1, packetsFromService: 1 });
  });

  test("meets no IPv4 client that the target sees as itself", async () => {
    const engine = await networkEngine(dualstack());
    const out = through(engine, eth().ipv4(CLIENT, NODE).tcp(40000, 80, { flags: "S", seq: 1 }));
    const expected = eth().ipv4(CLIENT, TARGET).tcp(40000, 8080, { flags: "S", seq: 1 });
    expect(out.frame).toEqual([...expected.bytes()]);
    through(engine, from6("S"));
    const answer = eth().ipv4(TARGET, CLIENT).tcp(8080, 40000, { flags: "SA", seq: 2 });
    expect(through(engine, answer).flow).toBe(out.flow);
  });

  test("is held against rules about the target's IPv4 address", async () => {
    const range = (cidr: string) => ({ out: [{ cidr }] });
    for (const [cidr, verdict] of [
      ["10.0.2.0/24", "forward"],
      ["10.0.3.0/24", "drop.security-group"],
      ["::/0", "drop.security-group"],
    ] as const) {
      const engine = await networkEngine(dualstack(range(cidr)));
      expect(through(engine, from6("S")).verdict).toBe(verdict);
    }
  });

  test("loses its connection with the target, and gets a reset", async () => {
    const engine = await networkEngine(dualstack());
    through(engine, from6("S"));
    through(engine, reply("SA"));
    expect(engine.terminate({ service: "web", address: "10.0.2.11" })).toBe(0);
    expect(engine.terminate({ service: "web", address: TARGET, port: 8080 })).toBe(1);
    expect(through(engine, from6("A"))).toMatchObject({ verdict: "drop.no-flow", emitted: 1 });
  });
});
