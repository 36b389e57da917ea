/**
 * What the texts of a configuration may be: names that every object of JavaScript has, one address in
 * several spellings, anchors around their own aliases, and values that make no sense together.
 */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork, type NetworkConfig } from "../host/config/schema.ts";
import { Controller, ControlRefusal } from "../host/control/controller.ts";
import { ConfigError } from "../host/errors.ts";

const NETWORK = readFileSync(new URL("network.yaml", import.meta.url), "utf8");

interface Sample {
  endpoint_services: object;
  endpoints: object;
  nat_gateways: object;
  timeline: unknown[];
}

/** The sample after a change to its plain values. */
function changed(change: (config: Sample) => void): string {
  const config = parse(NETWORK);
  change(config);
  return stringify(config);
}

function network(text: string): NetworkConfig {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  return config;
}

/** Sets what lies at a path, which may be new at its end. */
function put(path: string, value: unknown) {
  return changed((config) => {
    const steps = path.split("/");
    const last = steps.pop() as string;
    const group = steps.reduce<object>((at, step) => at[step as never], config);
    Object.assign(group, { [last]: value });
  });
}

const V6 = {
  protocol: "TCP",
  port: 80,
  vpc: "consumer",
  target_type: "ip",
  ip_address_type: "ipv6",
  targets: [{ address: "2001:db8::10" }, { address: "2001:0DB8:0::10" }],
};

const SERVICE = "vpce-svc-0123456789abcdef0";
const OTHER_SERVICE = "vpce-svc-00000000000000002";
const ENDPOINT = "vpce-0a1b2c3d4e5f60718";
const OTHER_ENDPOINT = "vpce-00000000000000002";
const PROVIDER_A = { "provider-a": { address: "10.0.2.51" } };
const ALL = { acceptance_required: false, allowed_principals: ["*"] };

/** The sample with a second endpoint whose private name is `name`. */
function named(name: string, options: object = {}, event?: object): string {
  return changed((config) => {
    const second = { ...ALL, load_balancer: "nlb-1", private_dns_name: name };
    Object.assign(config.endpoint_services, { [OTHER_SERVICE]: second });
    const [service, subnets] = [OTHER_SERVICE, { "consumer-a": { address: "10.0.1.51" } }];
    const endpoint = { service, subnets, vpc: "consumer", private_dns_enabled: true, ...options };
    Object.assign(config.endpoints, { [OTHER_ENDPOINT]: endpoint });
    if (event) config.timeline.push({ at_seconds: 6, ...event });
  });
}

const WRONG: [what: string, text: string, message: string][] = [
  [
    "an event about a load balancer that only every object has",
    put("timeline/1/weight/load_balancer", "constructor"),
    'timeline[1].weight.load_balancer: "constructor" is not a name in load_balancers',
  ],
  [
    "an event about such a target group",
    put("timeline/0/deregister/target_group", "toString"),
    'timeline[0].deregister.target_group: "toString" is not a name in target_groups',
  ],
  ["a key that every object has", put("constructor", 1), "constructor: is not a key; known here"],
  ["a list in itself", "vpcs: &a [*a]", "net.yaml: an alias is part of what its anchor names"],
  [
    "a policy in itself",
    "vpcs: { v: { cidrs: [10.0.0.0/16] } }\nendpoints: { vpce-11111111: { policy: &p { a: *p } } }",
    "net.yaml: an alias is part of what its anchor names",
  ],
  [
    "a second document",
    `${NETWORK}\n---\n${NETWORK}`,
    "a second document begins; a configuration is one",
  ],
  [
    "one route in two spellings",
    put("vpcs/consumer/route_tables/main", [
      { to: "2001:db8:9::/48", via: "blackhole" },
      { to: "2001:DB8:9:0::/48", via: "local" },
    ]),
    'vpcs.consumer.route_tables.main[1]: {"to":"2001:DB8:9:0::/48","via":"local"} stands in the list twice',
  ],
  [
    "one target in two spellings",
    put("target_groups/six", V6),
    'target_groups.six.targets[1]: {"address":"2001:0DB8:0::10"} stands in the list twice',
  ],
  [
    "a target without its port and with it",
    put("target_groups/web/targets", [
      { address: "10.0.2.10" },
      { address: "10.0.2.10", port: 8080 },
    ]),
    'target_groups.web.targets[1]: "10.0.2.10" with port 8080 is targets[0] as well',
  ],
  [
    "a gateway's address that nothing comes from",
    put("nat_gateways/nat-1/addresses", ["203.0.113.1", "224.0.0.1"]),
    'nat_gateways.nat-1.addresses[1]: "224.0.0.1" is no address that packets come from',
  ],
  [
    "the same in an event",
    put("timeline/3", {
      at_seconds: 5,
      associate: { nat_gateway: "nat-1", address: "127.0.0.1" },
    }),
    'timeline[3].associate.address: "127.0.0.1" is no address that packets come from',
  ],
  [
    "a private gateway's new address outside its subnet",
    changed((config) => {
      Object.assign(config.nat_gateways, {
        inner: { subnet: "consumer-a", connectivity: "private", addresses: ["10.0.1.99"] },
      });
      const event = {
        at_seconds: 5,
        associate: { nat_gateway: "inner", address: "10.9.9.9" },
      };
      config.timeline[3] = event;
    }),
    'timeline[3].associate.address: "10.9.9.9" lies outside the subnet consumer-a',
  ],
  [
    "a VPC of addresses that nothing comes from",
    put("vpcs/provider/cidrs", ["10.0.0.0/16", "127.0.0.0/16"]),
    'vpcs.provider.cidrs[1]: "127.0.0.0/16" has addresses that no packet comes from',
  ],
  ...["::/96", "::ffff:0:0/96", "fe80::/64", "ff02::/64"].map((range): [string, string, string] => [
    `a VPC that has ${range}`,
    put("vpcs/provider/cidrs", ["10.0.0.0/16", range]),
    `vpcs.provider.cidrs[1]: "${range}" has addresses that no packet comes from`,
  ]),
  ...["64:ff9b::/96", "64:ff9b::/64", "64:ff9b::a00:0/112"].map(
    (range): [string, string, string] => [
      `a VPC that has ${range}`,
      put("vpcs/provider/cidrs", ["10.0.0.0/16", range]),
      `vpcs.provider.cidrs[1]: "${range}" overlaps 64:ff9b::/96, where IPv6 finds IPv4`,
    ],
  ),
  [
    "a name of another endpoint service",
    changed((config) => {
      const service_name = "com.amazonaws.us-east-1.kinesis";
      const service = { ...ALL, load_balancer: "nlb-1", service_name };
      Object.assign(config.endpoint_services, { [OTHER_SERVICE]: service, [SERVICE]: service });
    }),
    `endpoint_services.${OTHER_SERVICE}.service_name: "com.amazonaws.us-east-1.kinesis" is the ` +
      `name of ${SERVICE} as well`,
  ],
  [
    "the name that another endpoint service has without one",
    changed((config) => {
      const service_name = `com.amazonaws.vpce.us-east-1.${SERVICE}`;
      const service = { ...ALL, load_balancer: "nlb-1", service_name };
      Object.assign(config.endpoint_services, { [OTHER_SERVICE]: service });
    }),
    `endpoint_services.${OTHER_SERVICE}.service_name: "com.amazonaws.vpce.us-east-1.${SERVICE}" ` +
      `is the name of ${SERVICE} as well`,
  ],
  ...["api.example.com", "*.api.example.com"].map((name): [string, string, string] => [
    `${name} beside api.example.com in one VPC`,
    named(name),
    `endpoints.${OTHER_ENDPOINT}.private_dns_enabled: true gives consumer a second ` +
      `api.example.com beside that of ${ENDPOINT}`,
  ]),
  [
    "codes from high to low",
    put("target_groups/web/health_check/matcher", "200,399-300"),
    'target_groups.web.health_check.matcher: "399-300" ends before it begins',
  ],
];

test.each(WRONG)("%s is refused", (_, text, message) => {
  expect(() => parseConfig(text, "net.yaml")).toThrow(ConfigError);
  expect(() => parseConfig(text, "net.yaml")).toThrow(message);
});

test("an IPv6 range is known by any spelling: that of NAT64 may lead to a NAT gateway", () => {
  const text = put("vpcs/consumer/route_tables/main", [{ to: "0064:FF9B:0::/96", via: "nat-1" }]);
  expect(network(text).vpcs.consumer?.route_tables.main).toEqual([
    { to: "64:ff9b::/96", via: "nat-1" },
  ]);
});

test.each([
  ["in another zone", named("www.example.com")],
  ["in another VPC", named("api.example.com", { vpc: "provider", subnets: PROVIDER_A })],
  ["that is not there any more", named("api.example.com", { state: "deleted" })],
  ["that comes later", named("api.example.com", {}, { create: { endpoint: OTHER_ENDPOINT } })],
  ["after one that goes", named("api.example.com", {}, { delete: { endpoint: ENDPOINT } })],
])("a private name %s may be that of another endpoint", (_, text) => {
  expect(network(text).endpoints[OTHER_ENDPOINT]?.private_dns_enabled).toBe(true);
});

test("a name that every object has may be given", () => {
  const text = put("prefix_lists/constructor", ["198.51.100.0/24"]);
  expect(network(text).prefix_lists.constructor).toEqual(["198.51.100.0/24"]);
  expect(network(NETWORK).prefix_lists.constructor).toBeUndefined();
});

test("an address of one NAT gateway is not associated with another while that has it", () => {
  const gateway = { subnet: "consumer-a", addresses: ["203.0.113.77"] };
  const config = network(put("nat_gateways/nat-2", gateway));
  const sink = { setTables: () => undefined, terminate: () => undefined };
  const controller = new Controller(config, { nowMs: 0, capacityMode: "drop", sink });
  const take = { associate: { nat_gateway: "nat-2", address: "203.0.113.1" } };
  expect(() => controller.act(take, 0)).toThrow(ControlRefusal);
  expect(() => controller.act(take, 0)).toThrow("nat-2: 203.0.113.1 belongs to nat-1");
});
