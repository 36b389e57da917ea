/**
 * What gets no answer from a service of network tables although others do: late packets from outside a
 * NAT gateway, packets that go from or to more than one host (RFC 1122 section 3.2.2), later fragments.
 */
import { describe, expect, test } from "vitest";
import { eth, type Packet } from "../fixtures/packets.ts";
import type { NetworkVpc } from "../host/engine/network.ts";
import { balanced, CLIENT, gateway, NODE, networkEngine, one, usageOf } from "./network.ts";

const SERVER = "192.0.2.80";
const OUTSIDE = "203.0.113.1";

describe("a NAT gateway's connection that was never answered", () => {
  const late = async (answer: Packet, isInside: boolean) => {
    const engine = await networkEngine(gateway());
    one(engine, eth().ip(CLIENT, SERVER).tcp(50000, 80, { flags: "S" }), 1, 0);
    return { engine, departure: one(engine, answer, isInside ? 1 : 9, 31_000) };
  };

  test.each(["SA", "A", "FA"])("gives %s from outside no reset after 30 s", async (flags) => {
    const answer = eth().ip(SERVER, OUTSIDE).tcp(80, 50000, { flags });
    const { engine, departure } = await late(answer, false);
    expect(departure).toMatchObject({ verdict: "drop.no-flow", made: [] });
    expect(usageOf(engine, "nat").packetsDropped).toBe(1);
    expect(usageOf(engine, "nat").resets.made).toBe(0);
  });

  test("gives what comes from inside one", async () => {
    const segment = eth().ip(CLIENT, SERVER).tcp(50000, 80, { flags: "A" });
    const { departure } = await late(segment, true);
    expect(departure).toMatchObject({
      verdict: "drop.no-flow",
      made: [{ kind: "rst", portOut: 1 }],
    });
  });
});

describe("packets between more than two hosts", () => {
  test.each(["255.255.255.255", "224.0.0.5", "240.0.0.1", "0.0.0.0"])(
    "a stray from %s gets no reset",
    async (address) => {
      const engine = await networkEngine(balanced());
      const stray = (from: string) => eth().ip(from, NODE).tcp(5000, 80, { flags: "PA" });
      expect(one(engine, stray(address))).toMatchObject({ verdict: "drop.no-flow", made: [] });
      expect(one(engine, stray(CLIENT)).made).toHaveLength(1);
    },
  );

  test.each([
    [CLIENT, "224.0.0.5", 0],
    [CLIENT, "255.255.255.255", 0],
    ["239.1.2.3", SERVER, 0],
    ["0.0.0.0", SERVER, 0],
    [CLIENT, SERVER, 1],
  ])("from %s to %s too large: %i ICMP errors", async (from, to, told) => {
    const engine = await networkEngine(gateway());
    const large = eth().ipv4(from, to, { df: true }).udp(5000, 53).payload(8473);
    const out = one(engine, large);
    expect(out.verdict).toBe("drop.too-large");
    expect(out.made).toHaveLength(told);
  });

  test.each([
    ["2001:db8::1", "64:ff9b::c000:250", 1],
    ["ff02::1", "64:ff9b::c000:250", 0],
    ["::", "64:ff9b::c000:250", 0],
  ])("from %s to %s too large: %i ICMP errors", async (from, to, told) => {
    const [inside, outside] = gateway().vpcs as [NetworkVpc, NetworkVpc];
    const routeTables = [[{ to: "64:ff9b::/96", service: "nat" }]];
    const vpcs = [{ ...inside, routeTables }, outside];
    const engine = await networkEngine({ ...gateway(), vpcs });
    const out = one(engine, eth().ip(from, to).udp(5000, 53).payload(8473));
    expect(out.verdict).toBe("drop.too-large");
    expect(out.made).toHaveLength(told);
  });
});

test("a later fragment is held against the MTU as its first one is, and nobody is told", async () => {
  const engine = await networkEngine(gateway());
  const piece = (fragmentOffset: number, df = false) =>
    eth().ipv4(CLIENT, SERVER, {
      protocol: 17,
      id: 7,
      fragmentOffset,
      moreFragments: fragmentOffset < 2000,
      df,
    });
  expect(one(engine, piece(0).udp(5353, 53).payload(992)).verdict).toBe("forward");
  expect(one(engine, piece(1000).payload(8480)).verdict).toBe("forward");
  for (const df of [false, true]) {
    const out = one(engine, piece(2000, df).payload(8488));
    expect(out).toMatchObject({ verdict: "drop.too-large", made: [] });
  }
  expect(usageOf(engine, "nat").packetsDropped).toBe(2);
});
