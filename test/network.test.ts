/**
 * Which service takes a packet: listeners, addresses, subnets, routes, and VPCs that use the same
 * addresses; and how tables follow each other while flows go on.
 */
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { createEngine } from "../host/engine/engine.ts";
import type { NetworkService, NetworkTables, NetworkVpc } from "../host/engine/network.ts";
import { createTablePacker } from "../host/engine/packer.ts";
import { networkEngine, one, usageOf } from "./network.ts";

const LISTENER = "10.0.0.100";

/** A VPC of the same addresses as every other, with a target of its own outside. */
function twinVpc(vpc: number): NetworkVpc {
  return {
    vpc,
    port: vpc,
    addresses: [
      {
        address: LISTENER,
        service: `web-${vpc}`,
        listeners: [{ protocol: "tcp", port: 80, service: `web-${vpc}` }],
      },
    ],
  };
}

const OVERLAPPING: NetworkTables = {
  vpcs: [1, 2, 3].map(twinVpc),
  services: [1, 2, 3].map((vpc) => ({
    id: `web-${vpc}`,
    kind: "load-balancer",
    vpc,
    targets: [{ address: "10.0.0.200", port: 8000 + vpc }],
  })),
};

describe("VPCs of the same addresses", () => {
  test("one five-tuple in three VPCs is three flows, and nothing leaks", async () => {
    const engine = await networkEngine(OVERLAPPING);
    const way = () => eth().ip("10.0.0.1", LISTENER);
    const back = (port: number) =>
      eth().ip("10.0.0.200", "10.0.0.1").tcp(port, 40000, { flags: "SA" });
    const handles = [1, 2, 3].map((vpc) => {
      const out = one(engine, way().tcp(40000, 80, { flags: "S", seq: 9 }), vpc);
      expect(out).toMatchObject({ verdict: "forward", portOut: vpc });
      expect(engine.flow(out.flow)?.translatedService.port).toBe(8000 + vpc);
      return out.flow;
    });
    expect(new Set(handles).size).toBe(3);
    for (const vpc of [1, 2, 3]) {
      for (let times = 0; times < vpc; times++) {
        const answer = one(engine, back(8000 + vpc), vpc);
        expect(answer).toMatchObject({ verdict: "forward", portOut: vpc, flow: handles[vpc - 1] });
      }
      // Another VPC's target has no flow here.
      expect(one(engine, back(8000 + (vpc % 3) + 1), vpc).verdict).toBe("drop.no-route");
    }
    const counts = [1, 2, 3].map((vpc) => usageOf(engine, `web-${vpc}`));
    expect(counts.map((usage) => usage.packetsFromClient)).toEqual([1, 1, 1]);
    expect(counts.map((usage) => usage.packetsFromService)).toEqual([1, 2, 3]);
  });
});

test("VPCs that share a cable are told apart by their tags, and frames leave with the right one", async () => {
  const engine = await networkEngine({
    vpcs: [
      { vpc: 1, routeTables: [[{ to: "10.0.0.0/8", service: "over" }]] },
      { vpc: 2, routeTables: [[]] },
    ],
    services: [{ id: "over", kind: "route", vpc: 2 }],
  });
  engine.setVlan(9, 10, 1);
  engine.setVlan(9, 20, 2);
  engine.setPort(0, { vpc: 9, routed: true, sides: "both" });
  const way = (vlan: number) =>
    eth({ vlan: [vlan] })
      .ip("10.0.0.1", "10.0.0.2")
      .udp(5000, 80)
      .payload(8);
  const out = one(engine, way(10), 0);
  expect(out.verdict).toBe("forward");
  expect([...out.frame]).toEqual([...way(20).bytes()]);
  const answer = (vlan: number) =>
    eth({ vlan: [vlan] })
      .ip("10.0.0.2", "10.0.0.1")
      .udp(80, 5000)
      .payload(8);
  const back = one(engine, answer(20), 0);
  expect(back.flow).toBe(out.flow);
  expect([...back.frame]).toEqual([...answer(10).bytes()]);
  expect(one(engine, way(30), 0).verdict).toBe("drop.no-route");
});

const ROUTED: NetworkTables = {
  vpcs: [
    {
      vpc: 1,
      port: 1,
      routeTables: [
        [
          { to: "10.0.0.0/16", service: "local" },
          { to: "0.0.0.0/0", service: "away" },
          { to: "10.0.9.0/24" },
          { to: "10.0.8.128/25" },
          { to: "::/0", service: "away" },
          { to: "2001:db8:1::/64", service: "local" },
          { to: "2001:db8:1::5/128" },
        ],
        [{ to: "10.0.0.0/16", service: "local" }],
      ],
      subnets: [{ cidr: "10.0.5.0/24", routeTable: 1 }],
    },
    { vpc: 2, port: 2, routeTables: [[{ to: "10.0.0.0/16", service: "home" }]] },
  ],
  services: [
    { id: "local", kind: "route", vpc: 1 },
    { id: "home", kind: "route", vpc: 1 },
    { id: "away", kind: "route", vpc: 2 },
  ],
};

describe("routes", () => {
  test.each([
    ["10.0.1.1", "10.0.2.2", "forward", 1],
    ["10.0.1.1", "192.0.2.1", "forward", 2],
    ["10.0.1.1", "10.0.9.7", "drop.blackhole", 1],
    ["10.0.1.1", "10.0.8.127", "forward", 1],
    ["10.0.1.1", "10.0.8.200", "drop.blackhole", 1],
    ["10.0.5.1", "192.0.2.1", "drop.no-route", 1],
    ["10.0.5.1", "10.0.9.7", "forward", 1],
    ["2001:db8:1::1", "2001:db8:1::2", "forward", 1],
    ["2001:db8:1::1", "2001:db8:1::5", "drop.blackhole", 1],
    ["2001:db8:1::1", "2001:db8:2::5", "forward", 2],
  ])("from %s to %s: %s on port %i", async (from, to, verdict, portOut) => {
    const engine = await networkEngine(ROUTED);
    const out = one(engine, eth().ip(from, to).udp(5000, 5001).payload(9));
    expect(out).toMatchObject({ verdict, portOut });
    const frame = eth().ip(from, to).udp(5000, 5001).payload(9).bytes();
    expect([...out.frame]).toEqual([...frame]);
  });

  test("an answer comes home over the flow, whatever its own routes say", async () => {
    const engine = await networkEngine(ROUTED);
    const out = one(engine, eth().ip("10.0.1.1", "192.0.2.1").udp(5000, 53));
    const back = one(engine, eth().ip("192.0.2.1", "10.0.1.1").udp(53, 5000), 2);
    expect(back).toMatchObject({ verdict: "forward", portOut: 1, flow: out.flow });
  });

  test("a packet of TCP may begin a routed flow anywhere in a connection", async () => {
    const engine = await networkEngine(ROUTED);
    const out = one(engine, eth().ip("10.0.1.1", "10.0.2.2").tcp(5000, 80, { flags: "A" }));
    expect(out.verdict).toBe("forward");
  });
});

describe("tables that follow each other", () => {
  test("flows and counters go on, new flows see the new tables", async () => {
    const engine = await networkEngine(OVERLAPPING);
    const syn = (port: number) => eth().ip("10.0.0.1", LISTENER).tcp(port, 80, { flags: "S" });
    const first = one(engine, syn(1));
    const number = engine.serviceNumber("web-1");
    const moved = structuredClone(OVERLAPPING) as {
      services: { targets: unknown }[];
    } & NetworkTables;
    (moved.services[0] as { targets: unknown }).targets = [{ address: "10.0.0.201", port: 9000 }];
    engine.setTables(moved);
    expect(engine.serviceNumber("web-1")).toBe(number);
    const second = one(engine, syn(2));
    expect(engine.flow(first.flow)?.translatedService.address).toBe("10.0.0.200");
    expect(engine.flow(second.flow)?.translatedService.address).toBe("10.0.0.201");
    expect(one(engine, syn(1)).flow).toBe(first.flow);
    expect(usageOf(engine, "web-1").flowsCreated).toBe(2);
  });

  test("a service that is left out takes no new flows, but its old ones go on", async () => {
    const engine = await networkEngine(OVERLAPPING);
    const syn = (port: number) => eth().ip("10.0.0.1", LISTENER).tcp(port, 80, { flags: "S" });
    const first = one(engine, syn(1));
    const { vpcs, services } = OVERLAPPING;
    for (let again = 0; again < 3; again++) {
      engine.setTables({ vpcs: vpcs.slice(1), services: services.slice(1) });
      const answer = eth().ip("10.0.0.200", "10.0.0.1").tcp(8001, 1, { flags: "SA" });
      expect(one(engine, answer).flow).toBe(first.flow);
      expect(one(engine, syn(2)).verdict).toBe("drop.no-route");
    }
    expect(engine.serviceNumber("web-1")).toBeUndefined();
  });

  test("bad tables change nothing and say where they are bad", async () => {
    const engine = await networkEngine(OVERLAPPING);
    const { vpcs, services } = OVERLAPPING;
    const wrong: [Partial<NetworkTables>, RegExp][] = [
      [{ vpcs: [{ vpc: 70000 }] }, /vpcs\[0\]\.vpc: 70000 is not a whole number from 0 to 65535/],
      [
        { vpcs: [{ vpc: 1, routeTables: [[{ to: "10.0.0.1/8" }]] }] },
        /routeTables\[0\]\[0\]\.to.*8/,
      ],
      [{ services: [...services, ...services] }, /services\[3\]\.id: web-1 is there twice/],
      [{ services: services.slice(1) }, /addresses\[0\]\.service: there is no service "web-1"/],
      [{ vpcs: [...vpcs, ...vpcs] }, /vpcs\[3\]\.vpc: 1 is there twice/],
      [
        { services: services.map((one) => ({ ...one, rules: { inbound: "sg" } })) },
        /services\[0\]\.rules\.inbound: there are no rules "sg"/,
      ],
    ];
    for (const [part, message] of wrong) {
      expect(() => engine.setTables({ ...OVERLAPPING, ...part })).toThrow(message);
    }
    const syn = eth().ip("10.0.0.1", LISTENER).tcp(9, 80, { flags: "S" });
    expect(one(engine, syn).verdict).toBe("forward");
  });
});

test("flows are ended in steps, between which others pass, and none is left out", async () => {
  const { vpcs, services } = OVERLAPPING;
  const ids = services.map(({ id }) => id);
  const engines = await Promise.all([1, 2].map(() => networkEngine({ vpcs, services }, 40_000)));
  const syn = (port: number) => eth().ip("10.0.0.1", LISTENER).tcp(port, 80, { flags: "S" });
  const ended = engines.map((engine, at) => {
    for (let port = 1; port <= 300; port++) one(engine, syn(port), 1 + (port % 3));
    const flows = { service: ids[1] as string };
    if (at === 0) return engine.terminate(flows);
    const steps = engine.terminating(flows);
    for (let count = 1; ; count++) {
      const { done, value } = steps.next();
      if (done) {
        expect(count).toBeGreaterThan(5);
        return value;
      }
      expect(one(engine, syn(1000 + count), 1).verdict).toBe("forward");
    }
  });
  expect(ended).toEqual([100, 100]);
  const left = engines.map((engine) => {
    const states = [...engine.flows()].filter(({ client }) => client.port <= 300);
    return states.map(({ client, state }) => `${client.port} ${state}`).toSorted();
  });
  expect(left[1]).toEqual(left[0]);
});

describe("tables that are packed elsewhere", () => {
  const { vpcs, services } = OVERLAPPING;
  const WITHOUT_FIRST: NetworkTables = { vpcs: vpcs.slice(1), services: services.slice(1) };
  const NOBODY = () => false;

  /** An engine that has the tables of its packer, with ports as `networkEngine` sets them. */
  async function packedEngine(tables: NetworkTables) {
    const options = { flowCountMax: 4096, warmUp: false, networkBytes: 1 << 20 };
    const engine = await createEngine(options);
    const packer = await createTablePacker(engine.networkRegion);
    for (const _ of engine.loadTables(packer.pack(tables, NOBODY)));
    for (const vpc of [1, 2, 3]) engine.setPort(vpc, { vpc, sides: "both", routed: true });
    return { engine, packer };
  }

  const syn = (port: number) => eth().ip("10.0.0.1", LISTENER).tcp(port, 80, { flags: "S" });

  test("are of no effect until the last step, and everything then", async () => {
    const { engine, packer } = await packedEngine(OVERLAPPING);
    let steps = 0;
    let verdict = "forward";
    for (const _ of engine.loadTables(packer.pack(WITHOUT_FIRST, NOBODY))) {
      const { verdict: now } = one(engine, syn(100 + steps++));
      // Once the new tables hold, they hold.
      expect(verdict === "forward" || now === verdict).toBe(true);
      verdict = now;
    }
    expect(steps).toBeGreaterThan(4);
    expect(verdict).toBe("drop.no-route");
    expect(packer.numberOf("web-1")).toBeUndefined();
  });

  test("take as many steps when they say nothing", async () => {
    const { engine, packer } = await packedEngine(OVERLAPPING);
    const stepsOf = (tables: NetworkTables) =>
      [...engine.loadTables(packer.pack(tables, NOBODY))].length;
    expect(stepsOf({ vpcs: [], services: [] })).toBe(stepsOf(OVERLAPPING));
  });

  test("have a flow's service even if it begins while they are loaded without", async () => {
    const [first, ...others] = services;
    const hasty = { ...(first as NetworkService), idleSeconds: 60 };
    const { engine, packer } = await packedEngine({ vpcs, services: [hasty, ...others] });
    for (const _ of engine.loadTables(packer.pack(WITHOUT_FIRST, NOBODY))) one(engine, syn(7));
    const answer = eth().ip("10.0.0.200", "10.0.0.1").tcp(8001, 7, { flags: "SA" });
    expect(one(engine, answer, 1, 2000).verdict).toBe("forward");
    expect(packer.left).toHaveLength(1);
    const [number = -1] = packer.left;
    for (const _ of [1, 2]) {
      const packed = packer.pack(WITHOUT_FIRST, (service) => engine.hasFlows(service));
      for (const _ of engine.loadTables(packed));
      expect(packer.left).toEqual([number]);
    }
    const late = eth().ip("10.0.0.1", LISTENER).tcp(7, 80, { flags: "A" });
    // Its own timeout, not the engine's: the flow is gone.
    expect(one(engine, late, 1, 62_001).verdict).toBe("drop.no-route");
    packer.pack(WITHOUT_FIRST, (service) => engine.hasFlows(service));
    expect(packer.left).toEqual([]);
  });

  test("are refused by engines that they are not for, and out of turn", async () => {
    const { engine, packer } = await packedEngine(OVERLAPPING);
    const other = await createEngine({ flowCountMax: 64, warmUp: false, networkBytes: 1 << 16 });
    const packed = { ...packer.pack(OVERLAPPING, NOBODY) };
    expect(() => [...other.loadTables(packed)]).toThrow(/for an engine with other options/);
    expect(() => [...engine.loadTables(packer.pack(OVERLAPPING, NOBODY))]).toThrow(
      /were left out that were packed before/,
    );
    const steps = engine.loadTables(packed);
    steps.next();
    expect(() => engine.loadTables(packed).next()).toThrow(/other tables are being loaded/);
  });
});
