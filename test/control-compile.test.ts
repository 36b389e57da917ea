import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork, type NetworkConfig } from "../host/config/schema.ts";
import { compile } from "../host/control/compile.ts";
import { vpcNumbers } from "../host/control/routes.ts";
import { inboundRules, outboundRules, permitsTcp } from "../host/control/rules.ts";
import { ControlState } from "../host/control/state.ts";
import type { NetworkService, NetworkTables } from "../host/engine/network.ts";

const NETWORK = readFileSync(new URL("network.yaml", import.meta.url), "utf8");
const ENDPOINT = "vpce-0a1b2c3d4e5f60718";

function parse(text: string): NetworkConfig {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  return config;
}

function tablesOf(text = NETWORK): NetworkTables {
  return compile(new ControlState(parse(text), 0), {
    capacityMode: "report",
    hasProxyHeaders: true,
  }).tables;
}

function service(tables: NetworkTables, id: string): NetworkService {
  const found = tables.services.find((one) => one.id === id);
  if (!found) throw new TypeError(`no service ${id}`);
  return found;
}

const tables = tablesOf();
const numbers = vpcNumbers(parse(NETWORK));

describe("the tables of a network", () => {
  test("number VPCs, the internet first, gateways' networks and on-premises sides behind", () => {
    expect([...numbers]).toEqual([
      ["internet", 0],
      ["consumer", 1],
      ["provider", 2],
      ["other", 3],
      ["gateway:vpce-gw", 4],
      ["direct-connect:consumer", 5],
      ["direct-connect:provider", 6],
      ["direct-connect:other", 7],
    ]);
    expect(tables.vpcs.map(({ vpc }) => vpc)).toEqual([0, 1, 2, 3, 5, 6, 7]);
  });

  test("have a service for every listener in every zone, and one for the node itself", () => {
    expect(tables.services.map(({ id }) => id)).toEqual([
      "vpc:consumer",
      "vpc:provider",
      "vpc:other",
      "internet",
      "nlb-1/use1-az1",
      "nlb-1/use1-az1/tcp:80",
      "nlb-1/use1-az1/udp:53",
      "nlb-1/use1-az2",
      "nlb-1/use1-az2/tcp:80",
      "nlb-1/use1-az2/udp:53",
      `${ENDPOINT}/use1-az1`,
      `${ENDPOINT}/use1-az1/tcp:80`,
      `${ENDPOINT}/use1-az1/udp:53`,
      `${ENDPOINT}/use1-az2`,
      `${ENDPOINT}/use1-az2/tcp:80`,
      `${ENDPOINT}/use1-az2/udp:53`,
      "fsmt-1",
      "fsmt-1/tcp:2049",
      "nat-1",
      "vpce-gw",
    ]);
  });

  test("give a listener the targets of all its groups, each group's weight shared evenly", () => {
    expect(service(tables, "nlb-1/use1-az1/tcp:80")).toEqual({
      id: "nlb-1/use1-az1/tcp:80",
      kind: "load-balancer",
      vpc: 2,
      targets: [
        { address: "10.0.2.10", port: 8080, weight: 1.5 },
        { address: "10.0.3.10", port: 8081, weight: 1.5 },
        { address: "10.0.2.20", port: 8080, weight: 1 },
      ],
      capacity: "nlb-1",
      idleSeconds: 400,
      isSticky: false,
      isFailOpen: false,
      proxyProtocol: { placement: "on_first_ack_with_payload", udp: false },
      sources: ["10.0.2.5"],
      rules: { inbound: "sg-web in", outbound: "sg-web out" },
    });
  });

  test("without cross-zone give a node the targets of its own zone", () => {
    const off = tablesOf(
      NETWORK.replace("load_balancing.cross_zone.enabled: true", 'zone: "x"').replace(
        'attributes: { zone: "x" }',
        "attributes: {}",
      ),
    );
    const addresses = (zone: string) =>
      service(off, `nlb-1/${zone}/tcp:80`).targets?.map(({ address }) => address);
    expect(addresses("use1-az1")).toEqual(["10.0.2.10", "10.0.2.20"]);
    expect(addresses("use1-az2")).toEqual(["10.0.3.10"]);
  });

  test("bring IPv6 clients of a dualstack load balancer to IPv4 targets, over TCP", () => {
    const dualstack = NETWORK.replace(
      "  provider:\n    cidrs: [10.0.0.0/16]\n",
      '  provider:\n    cidrs: [10.0.0.0/16, "fd00:2::/64"]\n',
    )
      .replace(
        "provider-a: { cidr: 10.0.2.0/24, zone: use1-az1 }",
        'provider-a: { cidr: 10.0.2.0/24, zone: use1-az1, ipv6_cidr: "fd00:2::/80" }',
      )
      .replace(
        "    subnets:\n      provider-a: { address: 10.0.2.5 }",
        [
          "    ip_address_type: dualstack",
          "    subnets:",
          '      provider-a: { address: 10.0.2.5, ipv6_address: "fd00:2::5" }',
        ].join("\n"),
      );
    const id = "nlb-1/use1-az1/tcp:80";
    // A PROXY header would have to say addresses of the other family.
    expect(service(tablesOf(dualstack), id).sources).toEqual(["10.0.2.5", "fd00:2::5"]);
    const bare = dualstack.replaceAll(
      /proxy_protocol_v2.enabled: +true/g,
      "stickiness.enabled: false",
    );
    const before = service(tables, id).targets ?? [];
    const { sources, targets } = service(tablesOf(bare), id);
    expect(sources).toEqual(["10.0.2.5", "64:ff9b::10.0.2.5"]);
    const seen = before.map((one) => ({ ...one, address: `64:ff9b::${one.address}` }));
    expect(targets).toEqual([...before, ...seen]);
    const kept = bare
      .replace("preserve_client_ip.enabled: false", "preserve_client_ip.enabled: true")
      .replace(
        "attributes: { stickiness.enabled: false }",
        "attributes: { preserve_client_ip.enabled: true }",
      );
    expect(service(tablesOf(kept), id).sources).toEqual(["64:ff9b::10.0.2.5"]);
    // No IPv6 client comes to the other zone, and none over UDP.
    expect(service(tablesOf(bare), "nlb-1/use1-az2/tcp:80").sources).toEqual([
      "10.0.3.5",
      "10.0.3.6",
    ]);
    expect(service(tablesOf(bare), "nlb-1/use1-az1/udp:53")).not.toHaveProperty("sources");
  });

  test("keep the client's address for UDP, and never through an endpoint", () => {
    expect(service(tables, "nlb-1/use1-az2/udp:53")).not.toHaveProperty("sources");
    expect(service(tables, "nlb-1/use1-az2/tcp:80").sources).toEqual(["10.0.3.5", "10.0.3.6"]);
    const through = service(tables, `${ENDPOINT}/use1-az2/udp:53`);
    expect(through).toMatchObject({
      vpc: 2,
      sources: ["10.0.3.5", "10.0.3.6"],
      mtuBytes: 8500,
      capacity: `${ENDPOINT}/use1-az2`,
      rules: { endpoint: "sg-client in", inbound: "sg-web in", outbound: "sg-web out" },
    });
    expect(through).not.toHaveProperty("isMtuTold");
  });

  test("put the endpoint's id into PROXY headers, where target groups want those", () => {
    const tcp = service(tables, `${ENDPOINT}/use1-az2/tcp:80`);
    expect(tcp.proxyProtocol).toEqual({
      placement: "on_first_ack_with_payload",
      udp: false,
      vpce: ENDPOINT,
    });
    expect(service(tables, "nlb-1/use1-az2/udp:53")).not.toHaveProperty("proxyProtocol");
  });

  test("leave the load balancer's inbound rules out of PrivateLink where they are off", () => {
    const text = NETWORK.replace(
      "    security_groups: [sg-web]\n",
      "    security_groups: [sg-web]\n" +
        '    enforce_security_group_inbound_rules_on_private_link_traffic: "off"\n',
    );
    const off = tablesOf(text);
    expect(service(off, `${ENDPOINT}/use1-az1/tcp:80`).rules).not.toHaveProperty("inbound");
    expect(service(off, "nlb-1/use1-az1/tcp:80").rules).toHaveProperty("inbound");
  });

  test("say of a NAT gateway that it has its addresses, 350 s and an MTU that it tells", () => {
    expect(service(tables, "nat-1")).toEqual({
      id: "nat-1",
      kind: "nat-gateway",
      vpc: 0,
      sources: ["203.0.113.1", "203.0.113.2"],
      idleSeconds: 350,
      mtuBytes: 8500,
      isMtuTold: true,
      capacity: "nat-1",
    });
    expect(tables.capacities?.["nat-1"]).toEqual({ units: 1, unitsMax: 20, mode: "report" });
  });

  test("let nobody talk to a NAT gateway: its addresses are its own where routes lead to it", () => {
    const owned = (text: string, vpc: number) => {
      const all = tablesOf(text).vpcs[vpc]?.addresses ?? [];
      return all.filter((one) => one.service === "nat-1").map(({ address }) => address);
    };
    const nat64 = (address: string) => `64:ff9b::${address}`;
    const both = ["203.0.113.1", "203.0.113.2"];
    const all = both.flatMap((address) => [address, nat64(address)]);
    expect(owned(NETWORK, 1)).toEqual(all);
    expect(owned(NETWORK, 2)).toEqual([]);
    const inside = NETWORK.replace('fd00:1::/64"]', 'fd00:1::/64", 203.0.0.0/16]');
    expect(owned(inside, 1)).toEqual(both.map(nat64));
    const away = NETWORK.replace(
      "  other:\n    cidrs: [10.9.0.0/16]\n",
      "  other: { cidrs: [10.9.0.0/16], route_tables: { side: [{ to: 0.0.0.0/0, via: nat-1 }] } }\n",
    );
    expect(owned(away, 3)).toEqual(all);
    const hidden = NETWORK.replace(
      "addresses: [203.0.113.1, 203.0.113.2]",
      "connectivity: private, addresses: [10.0.1.70]",
    ).replace(/^ {2}- .* disassociate: .*\n/m, "");
    expect(owned(hidden, 1)).toEqual(["10.0.1.70", nat64("10.0.1.70")]);
  });

  test("let mount targets' connections live for ever", () => {
    expect(service(tables, "fsmt-1/tcp:2049")).toMatchObject({
      idleSeconds: 0,
      sources: ["10.0.1.60"],
      targets: [{ address: "10.0.1.80", port: 2049 }],
    });
  });

  test("put addresses into the VPC in which clients see them", () => {
    const at = (vpc: string) =>
      tables.vpcs.find((one) => one.vpc === numbers.get(vpc))?.addresses ?? [];
    expect(at("consumer").map(({ address }) => address)).toEqual([
      "10.0.1.50",
      "10.0.2.50",
      "10.0.1.60",
      "203.0.113.1",
      "64:ff9b::203.0.113.1",
      "203.0.113.2",
      "64:ff9b::203.0.113.2",
    ]);
    expect(at("provider").map(({ address }) => address)).toEqual([
      "10.0.2.5",
      "10.0.3.5",
      "10.0.3.6",
    ]);
    expect(at("consumer")[0]).toEqual({
      address: "10.0.1.50",
      service: `${ENDPOINT}/use1-az1`,
      listeners: [
        { protocol: "tcp", port: 80, service: `${ENDPOINT}/use1-az1/tcp:80` },
        { protocol: "udp", port: 53, service: `${ENDPOINT}/use1-az1/udp:53` },
      ],
    });
  });

  test("hold the routes of a table: own ranges, prefix lists, and what the file says", () => {
    const consumer = tables.vpcs.find(({ vpc }) => vpc === 1);
    expect(consumer?.routeTables).toEqual([
      [
        { to: "10.0.0.0/16", service: "vpc:consumer" },
        { to: "fd00:1::/64", service: "vpc:consumer" },
        { to: "54.123.165.0/24", service: "vpce-gw" },
        { to: "0.0.0.0/0", service: "nat-1" },
        { to: "64:ff9b::/96", service: "nat-1" },
        { to: "10.9.0.0/16", service: "vpc:other" },
        { to: "198.51.100.0/24" },
      ],
    ]);
  });

  test("let an equal static route win over a gateway endpoint's", () => {
    const text = NETWORK.replace(
      "{ to: 198.51.100.0/24, via: blackhole }",
      "{ to: 54.123.165.0/24, via: nat-1 }",
    );
    const routes = tablesOf(text).vpcs[1]?.routeTables?.[0] ?? [];
    const equal = routes.filter(({ to }) => to === "54.123.165.0/24");
    expect(equal).toEqual([{ to: "54.123.165.0/24", service: "nat-1" }]);
  });

  test("lead from on premises to endpoints, and to no gateway", () => {
    const side = tables.vpcs.find(({ vpc }) => vpc === numbers.get("direct-connect:consumer"));
    expect(side?.addresses?.map(({ address }) => address)).toContain("10.0.1.50");
    expect(side?.routeTables?.flat().map(({ service }) => service)).toEqual([
      "vpc:consumer",
      "vpc:consumer",
    ]);
  });

  test("name subnets that have a route table of their own", () => {
    const text = NETWORK.replace(
      "zone: use1-az2 }\n      consumer-c",
      "zone: use1-az2, route_table: side }\n      consumer-c",
    ).replace("    route_tables:\n", "    route_tables:\n      side: []\n");
    const consumer = tablesOf(text).vpcs[1];
    expect(consumer?.subnets).toEqual([{ cidr: "10.0.2.0/24", routeTable: 1 }]);
    expect(consumer?.routeTables?.[1]).toEqual([
      { to: "10.0.0.0/16", service: "vpc:consumer" },
      { to: "fd00:1::/64", service: "vpc:consumer" },
    ]);
  });

  test.each(["pendingAcceptance", "rejected", "expired", "failed", "deleting"])(
    "let nothing through an endpoint that is %s, though its address stays",
    (state) => {
      const text = NETWORK.replace("private_dns_enabled: true", `state: ${state}`);
      const changed = tablesOf(text);
      const address = changed.vpcs[1]?.addresses?.find((one) => one.address === "10.0.1.50");
      expect(address).toEqual({
        address: "10.0.1.50",
        service: `${ENDPOINT}/use1-az1`,
        listeners: [],
      });
      expect(changed.services.map(({ id }) => id)).not.toContain(`${ENDPOINT}/use1-az1/tcp:80`);
    },
  );

  test("give the addresses of a peered VPC's load balancers to those whose routes lead there", () => {
    const text = NETWORK.replace(
      "  other:\n    cidrs: [10.9.0.0/16]\n",
      "  other:\n    cidrs: [10.9.0.0/16]\n    route_tables: " +
        "{ main: [{ to: 10.0.2.0/24, via: provider }] }\n",
    );
    const addresses = tablesOf(text).vpcs[3]?.addresses?.map(({ address }) => address);
    expect(addresses).toEqual(["10.0.2.5"]);
  });
});

describe("security groups", () => {
  const config = parse(NETWORK);

  test("name ranges, ports, the carriers of other groups and prefix lists", () => {
    expect(inboundRules(config, ["sg-web"])).toEqual([
      { protocol: "tcp", ports: [80, 80], cidr: "10.0.0.0/16" },
      { protocol: "tcp", ports: [8000, 8099], cidr: "10.0.2.5/32" },
      { protocol: "tcp", ports: [8000, 8099], cidr: "10.0.3.5/32" },
      { protocol: "tcp", ports: [8000, 8099], cidr: "10.0.3.6/32" },
      { protocol: "icmp", cidr: "0.0.0.0/0" },
    ]);
    expect(outboundRules(config, ["sg-web"])).toEqual([{ cidr: "54.123.165.0/24" }]);
  });

  test("permit a TCP connection by range, port and protocol", () => {
    const rules = inboundRules(config, ["sg-web"]);
    const permitted = [
      ["10.0.77.1", 80, true],
      ["10.0.77.1", 81, false],
      ["10.1.0.1", 80, false],
      ["10.0.2.5", 8000, true],
      ["10.0.2.5", 8099, true],
      ["10.0.2.5", 8100, false],
      ["fd00::1", 80, false],
    ] as const;
    for (const [address, port, is] of permitted) {
      expect(permitsTcp(rules, address, port), `${address} ${port}`).toBe(is);
    }
    expect(permitsTcp([{ protocol: "udp", cidr: "0.0.0.0/0" }], "10.0.0.1", 80)).toBe(false);
    expect(permitsTcp([{ protocol: 6, cidr: "::/0" }], "fd00::1", 80)).toBe(true);
    expect(permitsTcp([], "10.0.0.1", 80)).toBe(false);
  });

  test("let everything out by default, and add up", () => {
    expect(outboundRules(config, ["sg-client"])).toEqual([{ cidr: "0.0.0.0/0" }, { cidr: "::/0" }]);
    expect(inboundRules(config, ["sg-web", "sg-client"])).toHaveLength(6);
  });
});

test("a listener's targets are those that the groups give, whatever they are", () => {
  const target = fc.record({ zone: fc.constantFrom("a", "b"), healthy: fc.boolean() });
  const group = fc.record({
    weight: fc.integer({ min: 0, max: 999 }),
    targets: fc.array(target, { maxLength: 6 }),
  });
  const groups = fc.array(group, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(groups, fc.boolean(), (groups, isCrossZone) => {
      const address = (g: number, t: number, zone: string) =>
        `10.0.${zone === "a" ? 0 : 1}.${10 + g * 20 + t}`;
      const config = parse(
        JSON.stringify({
          vpcs: {
            v: {
              cidrs: ["10.0.0.0/16"],
              subnets: {
                "s-a": { cidr: "10.0.0.0/24", zone: "use1-az1" },
                "s-b": { cidr: "10.0.1.0/24", zone: "use1-az2" },
              },
            },
          },
          target_groups: Object.fromEntries(
            groups.map(({ targets }, g) => [
              `g${g}`,
              {
                protocol: "TCP",
                port: 80,
                vpc: "v",
                targets: targets.map(({ zone, healthy }, t) => ({
                  address: address(g, t, zone),
                  state: healthy ? "healthy" : "unhealthy",
                })),
              },
            ]),
          ),
          load_balancers: {
            lb: {
              vpc: "v",
              subnets: { "s-a": { address: "10.0.0.5" }, "s-b": { address: "10.0.1.5" } },
              attributes: { "load_balancing.cross_zone.enabled": isCrossZone },
              listeners: [
                {
                  protocol: "TCP",
                  port: 80,
                  forward: groups.map(({ weight }, g) => ({ target_group: `g${g}`, weight })),
                },
              ],
            },
          },
        }),
      );
      const made = compile(new ControlState(config, 0), { capacityMode: "drop" }).tables;
      for (const [zone, id] of [
        ["a", "use1-az1"],
        ["b", "use1-az2"],
      ] as const) {
        const found = service(made, `lb/${id}/tcp:80`).targets ?? [];
        const expected = groups.flatMap(({ weight, targets }, g) => {
          const here = targets
            .map((one, t) => ({ ...one, address: address(g, t, one.zone) }))
            .filter((one) => isCrossZone || one.zone === zone);
          const healthy = here.filter((one) => one.healthy);
          const chosen = healthy.length > 0 ? healthy : here;
          return chosen.map((one) => ({
            address: one.address,
            port: 80,
            weight: weight / chosen.length,
          }));
        });
        expect(found).toEqual(expected);
      }
    }),
    { numRuns: 300, seed: 13 },
  );
});
