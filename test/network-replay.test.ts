/** What a replay through a network adds to one through a scenario. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { compile } from "../host/control/compile.ts";
import { ControlState } from "../host/control/state.ts";
import { createEngine } from "../host/engine/engine.ts";
import { ConfigError } from "../host/errors.ts";
import { imageBytes, NetworkReplay } from "../host/replay/network.ts";
import { ResourceCourse, unitsFor } from "../host/replay/resource-meter.ts";
import { networkScenario } from "../host/scenario/network.ts";
import { networkEngine, one } from "./network.ts";

const NETWORK = readFileSync(new URL("network.yaml", import.meta.url), "utf8");

function parse(text: string) {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  return config;
}

describe("a network scenario", () => {
  test("is refused when nobody knows where frames come in", () => {
    const text = NETWORK.replace(/^ports:\n( {2}- .*\n)+/m, "");
    expect(() => networkScenario(parse(text), "net.yaml")).toThrow(
      new ConfigError(
        "net.yaml: ports: is missing; with several VPCs a replay has to know where frames come in",
      ),
    );
  });

  test("is refused when its timeline asks for what the state then does not allow", () => {
    const text = NETWORK.replace("reject: { endpoint:", "accept: { endpoint:");
    expect(() => networkScenario(parse(text), "net.yaml")).toThrow(
      "net.yaml: timeline[2]: vpce-0a1b2c3d4e5f60718: accept is not possible in the state available",
    );
  });

  test("is refused when it has more services than an engine numbers", () => {
    const listeners = Array.from({ length: 48 }, (_, n) => ({
      protocol: "TCP",
      port: 1000 + n,
      forward: "web",
      attributes: {},
    }));
    const config = parse(NETWORK);
    const balancer = config.load_balancers["nlb-1"];
    balancer?.listeners.push(...(listeners as never[]));
    for (let n = 0; n < 60; n++) {
      const id = `vpce-${String(n).padStart(17, "0")}`;
      config.endpoints[id] = config.endpoints["vpce-0a1b2c3d4e5f60718"] as never;
    }
    expect(() => networkScenario(config, "net.yaml")).toThrow("services are more than 4096");
  });

  test("reserves memory that its tables fit into, with room", async () => {
    const config = parse(NETWORK);
    const { tables } = compile(new ControlState(config, 0), { capacityMode: "report" });
    const networkBytes = imageBytes(tables);
    expect(networkBytes).toBeLessThan(4 << 20);
    const engine = await createEngine({
      networkBytes,
      flowCountMax: 16,
      flow6CountMax: 16,
      proxyProtocol: true,
    });
    expect(() => engine.setTables(tables)).not.toThrow();
  });
});

describe("ports of a network", () => {
  const replay = new NetworkReplay(parse(NETWORK));

  test("say which VPC an interface and a tag belong to", () => {
    expect(replay.port(0)).toEqual({ vpc: 1, routed: true });
    expect(replay.port(1)).toEqual({ vpc: 2, routed: true });
    expect(replay.port(2)).toEqual({ vpc: 0xffff, routed: true });
    expect(replay.vlans(0)).toEqual([{ vlan: 20, vpc: 3 }]);
    expect(replay.vlans(1)).toEqual([]);
  });

  test("may be a way in from on premises", () => {
    const text = NETWORK.replace(
      "{ interface: 1, vpc: provider }",
      "{ interface: 1, vpc: provider, access: direct_connect }",
    );
    expect(new NetworkReplay(parse(text)).port(1)).toEqual({ vpc: 6, routed: true });
  });

  test("of a network with one VPC need not be named", () => {
    const only = new NetworkReplay(parse("vpcs: { one: { cidrs: [10.0.0.0/16] } }"));
    expect(only.port(7)).toEqual({ vpc: 1, routed: true });
  });
});

test.each([
  ["public", "203.0.113.1", "203.0.113.1"],
  ["public", "203.0.113.1, 203.0.113.2", "203.0.113.2"],
  ["public", "203.0.113.1", "64:ff9b::cb00:7101"],
  ["private", "10.0.1.70", "10.0.1.70"],
])("a %s NAT gateway that has %s takes nothing to %s", async (kind, addresses, to) => {
  const text = NETWORK.replace(
    "addresses: [203.0.113.1, 203.0.113.2]",
    `connectivity: ${kind}, addresses: [${addresses}]`,
  ).replace(/^ {2}- .* disassociate: .*\n/m, "");
  const { tables } = compile(new ControlState(parse(text), 0), { capacityMode: "report" });
  const engine = await networkEngine(tables);
  engine.setPort(1, { vpc: 1, sides: "both", routed: true });
  const from = to.includes(":") ? "fd00:1::9" : "10.0.1.9";
  const out = one(engine, eth().ip(from, to).udp(5000, 53));
  expect(out).toMatchObject({ verdict: "drop.unintended", made: [] });
});

test("a tag that stands for a VPC is that VPC: its flows are one with those of its own port", async () => {
  const engine = await networkEngine({
    vpcs: [
      { vpc: 1, port: 1 },
      { vpc: 2, port: 2, routeTables: [[{ to: "10.0.0.0/8", service: "local" }]] },
    ],
    services: [{ id: "local", kind: "route", vpc: 2 }],
  });
  engine.setVlan(1, 20, 2);
  engine.setVlan(1, 20, 2);
  expect(() => engine.setVlan(1, 20, 1)).toThrow("vlan: 20 of the VPC 1 has a zone already");
  expect(() => engine.setVlan(1, 4095, 1)).toThrow(RangeError);
  const way = (vlan: number[] | undefined) =>
    eth(vlan ? { vlan } : {})
      .ip("10.0.0.1", "10.0.0.2")
      .udp(4000, 5000);
  const tagged = one(engine, way([20]), 1);
  expect(tagged.verdict).toBe("forward");
  expect(one(engine, way(undefined), 2).flow).toBe(tagged.flow);
  expect(one(engine, way([21]), 1).verdict).toBe("drop.no-route");
  expect(one(engine, way([20, 5]), 1).verdict).toBe("drop.no-route");
  expect(engine.madeBy(tagged.flow)).toBe(engine.serviceNumber("local"));
  expect(engine.madeBy(0)).toBeUndefined();
});

describe("the course of a resource", () => {
  test.each([
    [625_000_000, 1000, 1],
    [625_000_001, 1000, 2],
    [1000, 1_000_000, 1],
    [1000, 1_000_001, 2],
    [6_250_000_000, 1, 10],
    [0, 0, 0],
  ])("a second of %d bytes and %d packets takes %d units", (bytes, packets, units) => {
    expect(unitsFor(bytes, packets)).toBe(units);
  });

  test("notes when the units change, and the busiest second and ten seconds", () => {
    const course = new ResourceCourse();
    const second = (at: number, bytes: number, packets: number) => {
      for (let n = 0; n < packets; n++) course.add(at, bytes / packets);
    };
    second(0, 1000, 2);
    second(1, 700_000_000, 4);
    second(2, 700_000_000, 4);
    second(7, 10, 1);
    second(25, 5, 1);
    course.close();
    expect(course.units).toEqual([
      { second: 0, units: 1 },
      { second: 1, units: 2 },
      { second: 3, units: 0 },
      { second: 7, units: 1 },
      { second: 8, units: 0 },
      { second: 25, units: 1 },
      { second: 26, units: 0 },
    ]);
    expect(course.peakBytes).toBe(700_000_000);
    expect(course.peakPackets).toBe(4);
    expect(course.peakBytesPerSecond).toBeCloseTo(140_000_101, 0);
    expect(course.peakPacketsPerSecond).toBe(1.1);
  });
});
