import { describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import {
  configJsonSchema,
  isNetwork,
  networkSchema,
  type ScenarioConfig,
} from "../host/config/schema.ts";
import { ConfigError } from "../host/errors.ts";
import { configuredScenario, DEFAULT_SEED, defaultScenario } from "../host/scenario/scenario.ts";

describe("a configuration", () => {
  test("is YAML, defaults filled in", () => {
    const text = [
      "scenario: nlb",
      "nlb:",
      "  targets:",
      "    - {address: 10.0.0.1, port: 8080, weight: 3}",
      "    - address: 2001:db8::1",
      "timeouts:",
      "  tcp.idle_timeout.seconds: 6000",
    ].join("\n");
    expect(parseConfig(text, "lab.yaml")).toEqual({
      scenario: "nlb",
      adopt: false,
      nlb: {
        targets: [
          { address: "10.0.0.1", port: 8080, weight: 3 },
          { address: "2001:db8::1", weight: 1 },
        ],
      },
      timeouts: {
        tcp_half_open_seconds: 30,
        "tcp.idle_timeout.seconds": 6000,
        tcp_closing_seconds: 60,
        udp_seconds: 120,
        icmp_seconds: 60,
        other_seconds: 350,
      },
    });
  });

  test("is JSON as well", () => {
    const config = parseConfig(
      '{"scenario": "nat", "nat": {"addresses": ["192.0.2.1"]}}',
      "a.json",
    );
    expect(config).toEqual({ scenario: "nat", adopt: false, nat: { addresses: ["192.0.2.1"] } });
  });

  test.each([
    ["", "lab.yaml: the file is empty"],
    ["# only a comment\n", "lab.yaml: the file is empty"],
    ["hello", 'lab.yaml:1: "hello" is not a group of keys'],
    ["adopt: true", "lab.yaml:1: scenario: is missing"],
    ["scenario: natt", 'lab.yaml:1: scenario: "natt" is not one of nat, nlb, privatelink'],
    ["scenario: nat\nadopt: yes", 'lab.yaml:2: adopt: "yes" is not true or false'],
    ["scenario: nat\nscenario: nlb", "lab.yaml:2: Map keys must be unique"],
    [
      "scenario: nlb\nnlb:\n  tagets: []\n",
      "lab.yaml:3: nlb.tagets: is not a key; known here: addresses, targets, " +
        "proxy_protocol_v2.enabled, proxy_protocol_v2.client_to_server.header_placement",
    ],
    [
      "scenario: nlb\nnlb:\n  targets:\n    - {adress: 10.0.0.1}\n",
      "lab.yaml:4: nlb.targets[0].adress: is not a key; known here: address, port, weight",
    ],
    [
      "scenario: nlb\nnlb:\n  targets:\n    - address: 10.0.0.1\n    - address: 10.0.0.999\n",
      'lab.yaml:5: nlb.targets[1].address: "10.0.0.999" is not an IP address',
    ],
    [
      "scenario: nlb\nnlb: {targets: [{address: 10.0.0.1, port: 0}]}",
      "lab.yaml:2: nlb.targets[0].port: 0 is not an integer from 1 to 65535",
    ],
    [
      "scenario: nlb\nnlb: {targets: [{address: 10.0.0.1, weight: 1000}]}",
      "lab.yaml:2: nlb.targets[0].weight: 1000 is not an integer from 0 to 999",
    ],
    [
      "scenario: nlb\nnlb:\n  targets:\n  - {address: 10.0.0.1}\n  - {address: 10.0.0.1}",
      'lab.yaml:5: nlb.targets[1]: {"address":"10.0.0.1"} stands in the list twice',
    ],
    [
      "scenario: nlb\nnlb: {targets: [{address: 10.0.0.1, weight: 0}]}",
      'lab.yaml:2: nlb.targets: [{"address":"10.0.0.1","weight":0}] has no target with a ' +
        "weight above 0",
    ],
    [
      "scenario: nat\nnat: {addresses: []}",
      "lab.yaml:2: nat.addresses: [] is not a list of 1 to 16",
    ],
    [
      "scenario: nat\ntimeouts:\n  tcp.idle_timeout.seconds: 59",
      'lab.yaml:3: timeouts["tcp.idle_timeout.seconds"]: 59 is not an integer from 60 to 6000',
    ],
    [
      "scenario: nat\ntimeouts:\n  tcp.idle_timeout.seconds: 6001",
      'lab.yaml:3: timeouts["tcp.idle_timeout.seconds"]: 6001 is not an integer from 60 to 6000',
    ],
    [
      "scenario: nat\nflow_table: {ipv4_flows: 12.5}",
      "lab.yaml:2: flow_table.ipv4_flows: 12.5 is not an integer from 16 to 60000000",
    ],
    [
      "scenario: nat\nflow_table: {seed: 1234}",
      "lab.yaml:2: flow_table.seed: 1234 is not 32 hexadecimal digits in quotes",
    ],
    ["scenario: nat\n\nnlb: {}", "lab.yaml:3: nlb: has no meaning in the scenario nat"],
    ["scenario: nlb\nnat: {}", "lab.yaml:2: nat: has no meaning in the scenario nlb"],
    [
      "scenario: nlb\nnlb: {addresses: [10.0.0.1]}",
      "lab.yaml:2: nlb.addresses: the scenario nlb keeps the client's address; only privatelink " +
        "replaces it",
    ],
    [
      "scenario: nat\nflow_table: {ipv4_flows: 60000000}",
      "lab.yaml:2: flow_table: 60000000 IPv4 and 262144 IPv6 flows exceed 4 GiB",
    ],
    ["scenario: *x", "lab.yaml: Unresolved alias (the anchor must be set before the alias): x"],
  ])("%j is refused in one line that names place, value and range", (text, message) => {
    expect(() => parseConfig(text, "lab.yaml")).toThrow(new ConfigError(message));
  });

  test("that multiplies aliases without end is refused", () => {
    const levels = Array.from(
      { length: 9 },
      (_, n) => `l${n + 1}: &l${n + 1} [${`*l${n},`.repeat(9)}]`,
    );
    const text = ["l0: &l0 [x]", ...levels].join("\n");
    expect(() => parseConfig(text, "bomb.yaml")).toThrow(ConfigError);
  });

  test("error is an error of the call: exit status 2", () => {
    expect(new ConfigError("x").exitCode).toBe(2);
  });
});

test("the JSON Schema has the same keys and ranges as the checks, for both forms", () => {
  interface Form {
    required: string[];
    additionalProperties: boolean;
    properties: Record<string, { properties: Record<string, object> }>;
  }
  const [scenario, network] = (configJsonSchema() as { anyOf: Form[] }).anyOf;
  expect(scenario?.required).toEqual(["scenario"]);
  expect(network?.required).toEqual(["vpcs"]);
  for (const form of [scenario, network]) {
    expect(form?.additionalProperties).toBe(false);
    expect(form?.properties.timeouts?.properties["tcp.idle_timeout.seconds"]).toMatchObject({
      type: "integer",
      minimum: 60,
      maximum: 6000,
      default: 350,
    });
  }
  expect(Object.keys(network?.properties ?? {})).toEqual(Object.keys(networkSchema.shape));
});

/** The configuration in a text of the form that has a scenario. */
function parseScenario(text: string): ScenarioConfig {
  const config = parseConfig(text, "lab.yaml");
  if (isNetwork(config)) throw new TypeError("has no scenario");
  return config;
}

describe("a scenario", () => {
  test("nat replaces sources by eight addresses of each family, and adopts", () => {
    const { services, resources } = defaultScenario("nat");
    expect(services).toHaveLength(1);
    expect(services[0]?.sourceAddresses).toHaveLength(16);
    expect(services[0]).toMatchObject({ adopt: true });
    expect(services[0]).not.toHaveProperty("targets");
    expect(resources).toEqual([{ id: "nat-1", kind: "nat-gateway", service: 0 }]);
  });

  test("nlb has as many targets of each family as asked for, all different", () => {
    const targets = defaultScenario("nlb", 1000).services[0]?.targets ?? [];
    const addresses = targets.map(({ address }) => address);
    expect(new Set(addresses).size).toBe(2000);
    expect(addresses[0]).toBe("100.64.0.0");
    expect(addresses[999]).toBe("100.126.112.0");
    expect(addresses[1000]).toBe("2001:db8:0:3:0::");
    expect(addresses[1999]).toBe("2001:db8:0:3:3e7::");
    expect(defaultScenario("nlb").services[0]).not.toHaveProperty("sourceAddresses");
  });

  test("privatelink replaces both ends, through two resources, and sends the endpoint's id", () => {
    const { services, resources, engine } = defaultScenario("privatelink", 2);
    expect(services[0]?.sourceAddresses?.length).toBe(16);
    expect(services[0]?.targets?.length).toBe(4);
    expect(resources.map(({ kind }) => kind)).toEqual(["vpc-endpoint", "network-load-balancer"]);
    expect(services[0]?.proxyProtocol).toEqual({ vpce: resources[0]?.id });
    expect(engine.proxyProtocol).toBe(true);
    const placement = "on_first_ack";
    const configured = (nlb: object, scenario = "nlb") =>
      configuredScenario(parseScenario(JSON.stringify({ scenario, nlb }))).services[0]
        ?.proxyProtocol;
    expect(configured({})).toBeUndefined();
    expect(configured({ "proxy_protocol_v2.enabled": true })).toEqual({});
    expect(configured({ "proxy_protocol_v2.enabled": false }, "privatelink")).toBeUndefined();
    const key = "proxy_protocol_v2.client_to_server.header_placement";
    expect(configured({ [key]: placement }, "privatelink")).toEqual({
      vpce: resources[0]?.id,
      placement,
    });
  });

  test("is keyed by a constant unless configured, so that runs are repeatable", () => {
    expect(DEFAULT_SEED.length).toBe(16);
    expect(defaultScenario("nat").engine.seed).toBe(DEFAULT_SEED);
    const seed = "000102030405060708090A0b0c0d0e0f";
    const config = parseScenario(`{"scenario": "nat", "flow_table": {"seed": "${seed}"}}`);
    expect(configuredScenario(config).engine.seed).toEqual(
      Uint8Array.from({ length: 16 }, (_, index) => index),
    );
  });

  test("takes time-outs and table sizes from its configuration and does not adopt", () => {
    const config = parseScenario(
      "scenario: nlb\ntimeouts: {udp_seconds: 7}\nflow_table: {ipv4_flows: 16}\n" +
        "nlb: {targets: [{address: 10.0.0.1}, {address: 10.0.0.2, port: 80}]}",
    );
    const scenario = configuredScenario(config);
    expect(scenario.engine.timeouts).toEqual({
      halfOpen: 30,
      established: 350,
      closing: 60,
      udp: 7,
      icmp: 60,
      other: 350,
    });
    expect(scenario.engine.flowCountMax).toBe(16);
    expect(scenario.services).toEqual([
      {
        targets: [
          { address: "10.0.0.1", weight: 1 },
          { address: "10.0.0.2", port: 80, weight: 1 },
        ],
        listenerBits: 0,
        adopt: false,
      },
    ]);
  });
});
