/**
 * Ways to services that are no load balancer's: gateway endpoints, mount targets, and a port from on
 * premises; each from the words of a file over the tables to frames.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { Controller } from "../host/control/controller.ts";
import { createEngine } from "../host/engine/engine.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { imageBytes, NetworkReplay } from "../host/replay/network.ts";
import { lineOf } from "./frames.ts";
import { type Departure, send } from "./harness.ts";
import { one, usageOf } from "./network.ts";

const [CONSUMER, PROVIDER, ON_PREMISES, INTERNET, STORE, WIDE] = [0, 1, 2, 3, 4, 5] as const;
const CLIENT = "10.0.1.7";
const OFFICE = "192.168.5.5";

/** The sample without its timeline; from on premises come frames of interface 2. */
const SAMPLE = readFileSync(new URL("network.yaml", import.meta.url), "utf8")
  .replace(/^timeline:\n( {2}- .*\n)+/m, "")
  .replace(
    "{ interface: 0, vlan: 20, vpc: other }",
    "{ interface: 2, vpc: consumer, access: direct_connect }",
  )
  .replace("    security_groups: [sg-web]\n", "")
  .replace(
    "ingress: [{ protocol: all, from: 10.0.0.0/16 }]",
    "ingress: [{ protocol: all, from: 0.0.0.0/0 }]",
  );

/** An engine with the tables of a file, and a port for each VPC that frames come from or go to. */
async function world(text = SAMPLE) {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  const network = new NetworkReplay(config);
  const vpcs = [
    ...[CONSUMER, PROVIDER, ON_PREMISES].map((port) => network.port(port).vpc ?? 0),
    ...["internet", "gateway:vpce-gw", "gateway:vpce-wide"].map((name) => network.numberOf(name)),
  ];
  const controller = new Controller(config, { nowMs: 0, capacityMode: "drop" });
  const engine = await createEngine({
    flowCountMax: 1024,
    flow6CountMax: 16,
    seed: Uint8Array.from({ length: 16 }, (_, i) => i),
    warmUp: false,
    networkBytes: imageBytes(controller.compiled.tables),
  });
  const placed = (tables: NetworkTables): NetworkTables => {
    const known = new Map(tables.vpcs.map((one) => [one.vpc, one]));
    const more = vpcs.filter((vpc) => vpc !== 0xffff && !known.has(vpc)).map((vpc) => ({ vpc }));
    return {
      ...tables,
      vpcs: [...tables.vpcs, ...more].map((one) => {
        const port = vpcs.indexOf(one.vpc);
        return port < 0 ? one : { ...one, port };
      }),
    };
  };
  controller.attach({
    setTables: (tables) => engine.setTables(placed(tables)),
    terminate: (flows) => engine.terminate(flows),
  });
  for (const [port, vpc] of vpcs.entries()) {
    engine.setPort(port, { vpc, sides: "both", routed: true });
  }
  return engine;
}

const tcp = (from: string, to: string, flags: string) => {
  const [[source = "", sourcePort], [target = "", targetPort]] = [from.split(":"), to.split(":")];
  return eth().ip(source, target).tcp(Number(sourcePort), Number(targetPort), { flags });
};
/** Verdict, or where a frame went and as what. */
const fate = ({ verdict, frame, portOut }: Departure) =>
  verdict === "forward" ? [portOut, lineOf(frame).text] : verdict;

describe("a gateway endpoint", async () => {
  const text = SAMPLE.replace(
    "prefix_lists: {",
    "prefix_lists: { pl-wide: [54.122.0.0/16, 54.123.0.0/16],",
  )
    .replace(
      "gateway_endpoints:\n",
      "gateway_endpoints:\n  vpce-wide: { vpc: consumer, prefix_list: pl-wide, route_tables: [main] }\n",
    )
    .replace(
      "      main:\n",
      [
        "      main:",
        "        - { to: 54.123.165.128/25, via: nat-1 }",
        "        - { to: 54.123.165.192/26, via: blackhole }",
        "        - { to: 54.122.0.0/16, via: nat-1 }\n",
      ].join("\n"),
    )
    .replace(
      "    route_tables:\n",
      "    route_tables:\n      own: [{ to: 0.0.0.0/0, via: nat-1 }]\n",
    )
    .replace(
      "cidr: 10.0.2.0/24, zone: use1-az2 }",
      "cidr: 10.0.2.0/24, zone: use1-az2, route_table: own }",
    );
  const engine = await world(text);
  const outside = /^203\.0\.113\.[12]:/;

  test.each<[string, number, string]>([
    ["54.123.165.9", STORE, "its prefix list"],
    ["54.123.165.127", STORE, "the last address before a longer static route"],
    ["54.123.9.9", WIDE, "the wider of two lists"],
    ["54.123.164.255", WIDE, "the wider one up to the longer"],
  ])("takes %s to port %d, untranslated, and back: %s", (to, port) => {
    const out = one(engine, tcp(`${CLIENT}:40000`, `${to}:443`, "S"), CONSUMER);
    expect(fate(out)).toEqual([port, `${CLIENT}:40000 > ${to}:443 S`]);
    const back = one(engine, tcp(`${to}:443`, `${CLIENT}:40000`, "SA"), port);
    expect(fate(back)).toEqual([CONSUMER, `${to}:443 > ${CLIENT}:40000 SA`]);
    expect(back.flow).toBe(out.flow);
  });

  test.each([
    ["54.123.165.128", "a static route that is longer than its list"],
    ["54.122.0.1", "a static route that equals an entry of its list"],
    ["54.124.0.1", "an address of no list"],
  ])("leaves %s to the NAT gateway: %s", (to) => {
    const out = one(engine, tcp(`${CLIENT}:40001`, `${to}:443`, "S"), CONSUMER);
    expect([out.verdict, out.portOut]).toEqual(["forward", INTERNET]);
    expect(lineOf(out.frame).source).toMatch(outside);
  });

  test("leaves what a longer static route drops, and subnets of other route tables", () => {
    const lost = one(engine, tcp(`${CLIENT}:40002`, "54.123.165.192:443", "S"), CONSUMER);
    expect(lost.verdict).toBe("drop.blackhole");
    const other = one(engine, tcp("10.0.2.7:40002", "54.123.165.9:443", "S"), CONSUMER);
    expect(other.portOut).toBe(INTERNET);
    expect(lineOf(other.frame).source).toMatch(outside);
  });

  test("lets nobody call into the VPC, and counts what went through it", () => {
    const call = one(engine, tcp("54.123.165.9:443", `${CLIENT}:50000`, "S"), STORE);
    expect(call.verdict).toBe("drop.no-route");
    expect(usageOf(engine, "vpce-gw").flowsCreated).toBe(2);
    expect(usageOf(engine, "vpce-wide").flowsCreated).toBe(2);
  });
});

describe("a mount target", () => {
  const FILES = "10.0.1.60:2049";
  const DAY_MS = 86_400_000;
  const shake = (engine: Awaited<ReturnType<typeof world>>, to: string, timeMs: number) => {
    const out = one(engine, tcp(`${CLIENT}:700`, to, "S"), CONSUMER, timeMs);
    const { source, destination } = lineOf(out.frame);
    const answer = one(engine, tcp(destination, source, "SA"), out.portOut, timeMs + 1);
    const last = one(engine, tcp(`${CLIENT}:700`, to, "A"), CONSUMER, timeMs + 2);
    return { out, answer, last };
  };

  test("takes TCP 2049 to a file server, from its own address, and nothing else", async () => {
    const engine = await world();
    const { out, answer, last } = shake(engine, FILES, 1000);
    const server = /^10\.0\.1\.60:\d+ > 10\.0\.1\.80:2049/;
    expect([out.portOut, last.portOut]).toEqual([CONSUMER, CONSUMER]);
    expect(lineOf(out.frame).text).toMatch(server);
    expect(lineOf(last.frame).text).toMatch(server);
    expect(fate(answer)).toEqual([CONSUMER, `${FILES} > ${CLIENT}:700 SA`]);
    const others = [
      tcp(`${CLIENT}:701`, "10.0.1.60:2050", "S"),
      eth().ip(CLIENT, "10.0.1.60").udp(701, 2049),
    ];
    for (const frame of others)
      expect(one(engine, frame, CONSUMER).verdict).toBe("drop.unintended");
  });

  test("keeps a connection over years of silence, where an endpoint's is lost after 400 s", async () => {
    const engine = await world();
    const { out } = shake(engine, FILES, 1000);
    const other = shake(engine, "10.0.1.50:80", 1000);
    expect(other.last.verdict).toBe("forward");
    const idle = one(engine, tcp(`${CLIENT}:700`, "10.0.1.50:80", "A"), CONSUMER, 401_003);
    expect([idle.verdict, idle.made.map(({ kind }) => kind)]).toEqual(["drop.no-flow", ["rst"]]);
    let timeMs = 1002;
    for (let twentyDays = 1; twentyDays <= 60; twentyDays++) {
      timeMs += 20 * DAY_MS;
      // Other traffic, so that the sweep has been everywhere before the connection speaks again.
      const noise = Array.from({ length: 1200 }, () => ({
        frame: eth().ip(CLIENT, "10.0.1.8").udp(5000, 5001),
        port: CONSUMER,
        timeMs,
      }));
      for (const { verdict } of send(engine, noise)) expect(verdict).toBe("forward");
      const packet = one(engine, tcp(`${CLIENT}:700`, FILES, "A"), CONSUMER, timeMs);
      expect([packet.verdict, packet.flow]).toEqual(["forward", out.flow]);
      expect(lineOf(packet.frame).destination).toBe("10.0.1.80:2049");
    }
    expect(usageOf(engine, "fsmt-1/tcp:2049")).toMatchObject({ flowsCreated: 1, flowsActive: 1 });
  });
});

describe("a port from on premises", async () => {
  const engine = await world();

  test("reaches an endpoint, and gets its answers", () => {
    const out = one(engine, tcp(`${OFFICE}:40000`, "10.0.1.50:80", "S"), ON_PREMISES);
    expect([out.verdict, out.portOut]).toEqual(["forward", PROVIDER]);
    const { source, destination } = lineOf(out.frame);
    expect(source).toMatch(/^10\.0\.2\.5:/);
    const answer = one(engine, tcp(destination, source, "SA"), PROVIDER);
    expect(fate(answer)).toEqual([ON_PREMISES, `10.0.1.50:80 > ${OFFICE}:40000 SA`]);
  });

  test("reaches the VPC and a mount target", () => {
    const inside = one(engine, tcp(`${OFFICE}:40001`, `${CLIENT}:22`, "S"), ON_PREMISES);
    expect(fate(inside)).toEqual([CONSUMER, `${OFFICE}:40001 > ${CLIENT}:22 S`]);
    const mount = one(engine, tcp(`${OFFICE}:40001`, "10.0.1.60:2049", "S"), ON_PREMISES);
    expect([mount.portOut, lineOf(mount.frame).destination]).toEqual([CONSUMER, "10.0.1.80:2049"]);
  });

  test.each([
    ["54.123.165.9", "a gateway endpoint"],
    ["8.8.8.8", "a NAT gateway"],
    ["10.9.0.1", "a peered VPC"],
  ])("does not reach %s behind %s, which the VPC itself does", (to) => {
    const refused = one(engine, tcp(`${OFFICE}:40002`, `${to}:443`, "S"), ON_PREMISES);
    expect(refused.verdict).toBe("drop.no-route");
    expect(one(engine, tcp(`${CLIENT}:40002`, `${to}:443`, "S"), CONSUMER).verdict).toBe("forward");
  });
});
