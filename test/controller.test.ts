import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { type ControlEvent, Controller, ControlRefusal } from "../host/control/controller.ts";
import { POLICY_DEFAULT, type PolicyChange } from "../host/control/policy.ts";
import type { NetworkTables } from "../host/engine/network.ts";

const NETWORK = readFileSync(new URL("network.yaml", import.meta.url), "utf8");
const ENDPOINT = "vpce-0a1b2c3d4e5f60718";
/** The sample without its timeline. */
const STILL = NETWORK.replace(/^timeline:\n( {2}- .*\n)+/m, "");

/** A controller whose sink keeps what it is told. */
function controlled(text = STILL) {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  const loads: NetworkTables[] = [];
  const ended: object[] = [];
  const events: ControlEvent[] = [];
  const policies: PolicyChange[] = [];
  const controller = new Controller(config, {
    nowMs: 0,
    capacityMode: "drop",
    onEvent: (event) => events.push(event),
    onPolicy: (change) => policies.push(change),
    sink: {
      setTables: (tables) => loads.push(tables),
      terminate: (flows) => ended.push(flows),
    },
  });
  const addresses = (id = "nlb-1/use1-az1/tcp:80") =>
    loads
      .at(-1)
      ?.services.find((one) => one.id === id)
      ?.targets?.map(({ address }) => address);
  return { controller, loads, ended, events, policies, addresses };
}

/** Addresses of the consumer's endpoints and mount targets. */
function interfacesOf(tables: NetworkTables | undefined) {
  const all = tables?.vpcs[1]?.addresses ?? [];
  return all.filter(({ service }) => service !== "nat-1").map(({ address }) => address);
}

const WEB = { target_group: "web", target: "10.0.2.10" };
const WEIGHT = {
  load_balancer: "nlb-1",
  protocol: "TCP",
  port: 80,
  target_group: "web-new",
  weight: 5,
} as const;
const ALL = ["10.0.2.10", "10.0.3.10", "10.0.2.20"];

describe("a controller", () => {
  test("loads the tables once at first, and again when something has changed", () => {
    const { controller, loads, addresses } = controlled();
    expect(loads).toHaveLength(1);
    expect(addresses()).toEqual(ALL);
    controller.tick(1e9);
    expect(loads).toHaveLength(1);
  });

  test("lets a target that is taken out drain for its delay, and gives it no new flows", () => {
    const { controller, loads, ended, events, addresses } = controlled();
    controller.act({ deregister: WEB }, 1000);
    expect(addresses()).toEqual(["10.0.3.10", "10.0.2.20"]);
    expect(controller.nextMs).toBe(301_000);
    controller.tick(301_000);
    expect(ended).toEqual([]);
    expect(loads).toHaveLength(3);
    expect(events.map((one) => one.kind === "target" && [one.atMs, one.to])).toEqual([
      [1000, "draining"],
      [301_000, "none"],
    ]);
  });

  test("ends what is left after the delay where the group wants it", () => {
    const { controller, ended } = controlled();
    controller.act({ deregister: { target_group: "dns", target: "10.0.2.10" } }, 0);
    controller.tick(299_999);
    expect(ended).toEqual([]);
    controller.tick(300_000);
    expect(ended).toEqual(
      ["nlb-1/use1-az1", "nlb-1/use1-az2", `${ENDPOINT}/use1-az1`, `${ENDPOINT}/use1-az2`].map(
        (node) => ({ service: `${node}/udp:53`, address: "10.0.2.10", port: 53 }),
      ),
    );
  });

  test("ends flows of a target that turns unhealthy, by checks or by word", () => {
    const { controller, ended, addresses } = controlled();
    const key = { address: "10.0.2.10", port: 8080 };
    controller.check("web", key, "Target.Timeout", 0);
    expect(ended).toEqual([]);
    controller.check("web", key, "Target.Timeout", 10);
    expect(ended).toHaveLength(4);
    expect(ended[0]).toEqual({ service: "nlb-1/use1-az1/tcp:80", ...key });
    expect(addresses()).toEqual(["10.0.3.10", "10.0.2.20"]);
    controller.act({ health: { ...WEB, state: "healthy" } }, 20);
    expect(addresses()).toEqual(ALL);
  });

  test("lets flows go on when the last healthy target fails: the group fails open", () => {
    const { controller, ended, loads, addresses } = controlled();
    controller.act({ health: { ...WEB, state: "unhealthy" } }, 0);
    expect(ended).toHaveLength(4);
    const other = { target_group: "web", target: "10.0.3.10", port: 8081 };
    controller.act({ health: { ...other, state: "unhealthy" } }, 1);
    expect(ended).toHaveLength(4);
    expect(addresses()).toEqual(ALL);
    const services = loads.at(-1)?.services ?? [];
    expect(services.find(({ id }) => id === "nlb-1/use1-az1/tcp:80")?.isFailOpen).toBe(true);
  });

  test("gives a group that is weighed out no flows, and ends those that it has", () => {
    const { controller, ended, loads } = controlled();
    controller.act({ weight: { ...WEIGHT, weight: 0 } }, 0);
    expect(ended).toHaveLength(4);
    const found = loads.at(-1)?.services.find(({ id }) => id === "nlb-1/use1-az2/tcp:80");
    expect(found?.targets?.map(({ weight }) => weight)).toEqual([1.5, 1.5, 0]);
  });

  test("rejects an endpoint: its flows end, its address stays without listeners", () => {
    const { controller, ended, loads, events } = controlled();
    controller.act({ reject: { endpoint: ENDPOINT } }, 5);
    expect(ended.length).toBe(6);
    expect(loads.at(-1)?.services.some(({ id }) => id.startsWith(`${ENDPOINT}/use1-az1/`))).toBe(
      false,
    );
    expect(events).toEqual([
      {
        kind: "endpoint",
        atMs: 5,
        id: ENDPOINT,
        from: "available",
        to: "rejected",
        event: "Reject",
      },
    ]);
    controller.act({ accept: { endpoint: ENDPOINT } }, 6);
    expect(controller.state.endpoints.get(ENDPOINT)?.state).toBe("available");
    controller.act({ delete: { endpoint: ENDPOINT } }, 7);
    expect(interfacesOf(loads.at(-1))).toEqual(["10.0.1.60"]);
  });

  test("refuses what state or names do not allow, and changes nothing", () => {
    const { controller, loads, events } = controlled();
    const refused: [Parameters<Controller["act"]>[0], string][] = [
      [{ accept: { endpoint: ENDPOINT } }, "accept is not possible in the state available"],
      [{ accept: { endpoint: "vpce-00000000" } }, "there is no vpce-00000000"],
      [{ create: { endpoint: ENDPOINT } }, "exists, in the state available"],
      [{ deregister: { ...WEB, port: 1 } }, "web has no 10.0.2.10 port 1"],
      [{ register: { target_group: "wbe", target: "10.0.0.1" } }, "there is no wbe"],
      [{ register: { ...WEB, target: "fd00::1" } }, "fd00::1 is not of the group's type, ipv4"],
      [{ register: { ...WEB, target: "8.8.8.8" } }, "8.8.8.8 is neither in provider nor a private"],
      [
        { weight: { ...WEIGHT, load_balancer: "none" } },
        "none has no listener TCP 80 with web-new",
      ],
      [{ weight: { ...WEIGHT, port: 81 } }, "nlb-1 has no listener TCP 81 with web-new"],
      [{ weight: { ...WEIGHT, target_group: "none" } }, "nlb-1 has no listener TCP 80 with none"],
      [
        { disassociate: { nat_gateway: "nat-1", address: "203.0.113.1" } },
        "nat-1: 203.0.113.1 is the primary address",
      ],
      [
        { associate: { nat_gateway: "nat-1", address: "224.0.0.1" } },
        "nat-1: 224.0.0.1 is no address that packets come from",
      ],
    ];
    for (const [action, message] of refused) {
      expect(() => controller.act(action, 0)).toThrow(ControlRefusal);
      expect(() => controller.act(action, 0)).toThrow(message);
    }
    expect(() => controller.endpoint(ENDPOINT, "delete", 0, "provider")).toThrow(ControlRefusal);
    expect(loads).toHaveLength(1);
    expect(events).toEqual([]);
  });

  test("gives a NAT gateway no address that somebody else has, or that its subnet has not", () => {
    const { controller, events } = controlled(
      STILL.replace(
        "nat_gateways:\n",
        "nat_gateways:\n" +
          "  nat-2: { subnet: consumer-a, addresses: [203.0.113.8, 203.0.113.9] }\n" +
          "  nat-3: { subnet: consumer-a, connectivity: private, addresses: [10.0.1.200] }\n" +
          "  nat-4: { subnet: consumer-a, connectivity: private, addresses: [10.0.1.201] }\n",
      ).replace(
        "lab: { name: sample }",
        "lab: { name: sample, hosts: { server: { vpc: internet, addresses: [198.51.100.10] }, " +
          "client: { vpc: consumer, addresses: [10.0.1.210] } } }",
      ),
    );
    const associate = (nat_gateway: string, address: string) => {
      controller.act({ associate: { nat_gateway, address } }, 0);
    };
    for (const [gateway, address, message] of [
      ["nat-1", "203.0.113.8", "belongs to nat-2"],
      ["nat-1", "203.0.113.9", "belongs to nat-2"],
      ["nat-1", "198.51.100.10", "is also at lab.hosts.server"],
      ["nat-3", "10.0.1.201", "belongs to nat-4"],
      ["nat-3", "10.0.1.210", "is also at lab.hosts.client"],
      ["nat-3", "10.9.0.1", "lies outside the subnet consumer-a"],
      ["nat-3", "10.0.1.2", "is one of the five addresses of consumer-a that are reserved"],
    ] as const) {
      const wrong = `${gateway}: ${address} ${message}`;
      expect(() => associate(gateway, address), wrong).toThrow(wrong);
    }
    expect(events).toEqual([]);
    // What is private to a VPC is nothing to the internet, and what drains is still its owner's.
    associate("nat-1", "10.0.1.201");
    controller.act({ disassociate: { nat_gateway: "nat-2", address: "203.0.113.9" } }, 0);
    expect(() => associate("nat-1", "203.0.113.9")).toThrow("belongs to nat-2");
    controller.tick(350_000);
    controller.act({ associate: { nat_gateway: "nat-1", address: "203.0.113.9" } }, 350_000);
  });

  test("drains an address of a NAT gateway, then releases it", () => {
    const { controller, loads, events } = controlled();
    const sources = () => loads.at(-1)?.services.find(({ id }) => id === "nat-1")?.sources;
    controller.act({ disassociate: { nat_gateway: "nat-1", address: "203.0.113.2" } }, 0);
    expect(sources()).toEqual(["203.0.113.1"]);
    const owned = () => loads.at(-1)?.vpcs[1]?.addresses?.map(({ address }) => address);
    expect(owned()).toContain("203.0.113.2");
    controller.tick(350_000);
    expect(owned()).not.toContain("203.0.113.2");
    expect(events.at(-1)).toMatchObject({ to: "released", atMs: 350_000 });
    controller.act({ associate: { nat_gateway: "nat-1", address: "203.0.113.9" } }, 350_000);
    expect(sources()).toEqual(["203.0.113.1", "203.0.113.9"]);
  });

  test("runs a timeline at its times, in order, however far the clock jumps", () => {
    const step = controlled(NETWORK);
    for (let nowMs = 0; nowMs <= 6000; nowMs += 100) step.controller.tick(nowMs);
    const jump = controlled(NETWORK);
    jump.controller.tick(6000);
    expect(jump.events).toEqual(step.events);
    expect(jump.events.map(({ atMs }) => atMs)).toEqual([2500, 3000, 4000, 5000]);
    expect(jump.loads.at(-1)).toEqual(step.loads.at(-1));
    expect(jump.ended).toEqual(step.ended);
    expect(step.controller.nextMs).toBe(302_500);
  });

  test("begins without the endpoints that its timeline creates", () => {
    const text = NETWORK.replace("reject: { endpoint:", "create: { endpoint:");
    const { controller, loads, events } = controlled(text);
    expect(interfacesOf(loads[0])).toEqual(["10.0.1.60"]);
    controller.tick(4000);
    expect(events.filter(({ kind }) => kind === "endpoint")).toMatchObject([
      { from: "none", to: "pending", event: "Connect" },
      { from: "pending", to: "available" },
    ]);
    expect(interfacesOf(loads.at(-1))).toHaveLength(3);
  });
});

describe("a controller's hook for policies", () => {
  const own = (Effect: "Allow" | "Deny") => ({
    Version: "2012-10-17",
    Statement: [{ Effect, Principal: "*", Action: "s3:GetObject", Resource: "*" }],
  });
  const written = STILL.replace(
    "route_tables: [main] }",
    `route_tables: [main], policy: '${JSON.stringify(own("Deny"))}' }`,
  );

  test("gets the policies that there are at first, of endpoints of both kinds", () => {
    expect(controlled(written).policies).toEqual([
      { atMs: 0, id: ENDPOINT, change: "attached", policy: POLICY_DEFAULT },
      { atMs: 0, id: "vpce-gw", change: "attached", policy: own("Deny") },
    ]);
  });

  test("follows an endpoint's policy until the endpoint is deleted, and after that anew", () => {
    const { controller, policies, loads } = controlled();
    policies.length = 0;
    controller.setPolicy(ENDPOINT, own("Deny"), 5);
    controller.setPolicy(ENDPOINT, JSON.stringify(own("Allow")), 6);
    controller.setPolicy(ENDPOINT, undefined, 7);
    expect(loads).toHaveLength(1);
    controller.act({ reject: { endpoint: ENDPOINT } }, 8);
    expect(policies).toHaveLength(3);
    controller.act({ delete: { endpoint: ENDPOINT } }, 9);
    controller.act({ create: { endpoint: ENDPOINT } }, 10);
    expect(policies).toEqual([
      { atMs: 5, id: ENDPOINT, change: "replaced", policy: own("Deny") },
      { atMs: 6, id: ENDPOINT, change: "replaced", policy: own("Allow") },
      { atMs: 7, id: ENDPOINT, change: "replaced", policy: POLICY_DEFAULT },
      { atMs: 9, id: ENDPOINT, change: "removed", policy: POLICY_DEFAULT },
      { atMs: 10, id: ENDPOINT, change: "attached", policy: POLICY_DEFAULT },
    ]);
  });

  test("hears of policies that an action replaces, and of the one that allows everything", () => {
    const { controller, policies } = controlled();
    policies.length = 0;
    controller.act({ policy: { endpoint: ENDPOINT, document: own("Deny") } }, 5);
    controller.act({ policy: { endpoint: "vpce-gw" } }, 6);
    expect(policies).toEqual([
      { atMs: 5, id: ENDPOINT, change: "replaced", policy: own("Deny") },
      { atMs: 6, id: "vpce-gw", change: "replaced", policy: POLICY_DEFAULT },
    ]);
    const wrong = () => controller.act({ policy: { endpoint: ENDPOINT, document: "no" } }, 7);
    expect(wrong).toThrow(ControlRefusal);
  });

  test("hears nothing of what is refused, and cannot change what is kept", () => {
    const { controller, policies } = controlled(written);
    policies.length = 0;
    const refused = () => controller.setPolicy(ENDPOINT, { Statement: [] }, 1);
    expect(refused).toThrow(ControlRefusal);
    expect(refused).toThrow(`${ENDPOINT}: policy: has no Statement`);
    expect(() => controller.setPolicy("vpce-00000000", own("Deny"), 1)).toThrow(ControlRefusal);
    expect(policies).toEqual([]);
    controller.setPolicy("vpce-gw", own("Allow"), 2);
    policies[0]?.policy.Statement.pop();
    expect(controller.state.policies.get("vpce-gw")).toEqual(own("Allow"));
  });
});

describe("an endpoint that waits for its acceptance", () => {
  const DAY_MS = 86_400_000;
  const waiting = STILL.replace("acceptance_required: false", "acceptance_required: true");
  const quick = waiting.replace(
    "acceptance_required: true",
    "acceptance_required: true\n    acceptance_timeout_seconds: 60",
  );
  const stateOf = ({ controller }: ReturnType<typeof controlled>) =>
    controller.state.endpoints.get(ENDPOINT)?.state;

  test("expires after seven days, to the millisecond, and can only be deleted then", () => {
    const world = controlled(waiting);
    const { controller, events, ended } = world;
    expect(controller.nextMs).toBe(7 * DAY_MS);
    controller.tick(7 * DAY_MS - 1);
    expect(stateOf(world)).toBe("pendingAcceptance");
    controller.tick(8 * DAY_MS);
    expect(events).toEqual([
      {
        kind: "endpoint",
        atMs: 7 * DAY_MS,
        id: ENDPOINT,
        from: "pendingAcceptance",
        to: "expired",
        event: undefined,
      },
    ]);
    expect(ended).toEqual([]);
    expect(controller.nextMs).toBe(Number.POSITIVE_INFINITY);
    expect(() => controller.act({ accept: { endpoint: ENDPOINT } }, 8 * DAY_MS)).toThrow(
      "accept is not possible in the state expired",
    );
    controller.act({ delete: { endpoint: ENDPOINT } }, 8 * DAY_MS);
    expect(stateOf(world)).toBe("deleted");
  });

  test("has the time that its service gives, counted from when it was created", () => {
    const world = controlled(quick);
    const { controller } = world;
    controller.act({ delete: { endpoint: ENDPOINT } }, 30_000);
    controller.act({ create: { endpoint: ENDPOINT } }, 50_000);
    expect(controller.nextMs).toBe(110_000);
    controller.tick(109_999);
    expect(stateOf(world)).toBe("pendingAcceptance");
    controller.tick(110_000);
    expect(stateOf(world)).toBe("expired");
  });

  test.each([
    ["accept", "available"],
    ["reject", "rejected"],
  ] as const)("does not expire after its provider's %s", (action, state) => {
    const world = controlled(quick);
    world.controller.act({ [action]: { endpoint: ENDPOINT } }, 59_999);
    expect(world.controller.nextMs).toBe(Number.POSITIVE_INFINITY);
    world.controller.tick(DAY_MS);
    expect(stateOf(world)).toBe(state);
  });

  test("is too late for an acceptance at the very millisecond of its end", () => {
    const accept = "timeline:\n  - { at_seconds: 60, accept: { endpoint: ";
    const { controller } = controlled(`${quick}\n${accept}${ENDPOINT} } }\n`);
    expect(() => controller.tick(60_000)).toThrow(
      `timeline[0]: ${ENDPOINT}: accept is not possible in the state expired`,
    );
  });

  test.each([0, 31_536_001, 1.5])("cannot have %d seconds", (seconds) => {
    expect(() => controlled(quick.replace("_seconds: 60", `_seconds: ${seconds}`))).toThrow(
      "endpoint_services.vpce-svc-0123456789abcdef0.acceptance_timeout_seconds: ",
    );
  });
});
