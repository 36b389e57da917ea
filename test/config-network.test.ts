import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork, type NetworkConfig } from "../host/config/schema.ts";
import { TIMELINE_ACTIONS } from "../host/config/timeline.ts";
import { ConfigError } from "../host/errors.ts";

const NETWORK = readFileSync(new URL("network.yaml", import.meta.url), "utf8");

function parse(text: string): NetworkConfig {
  const config = parseConfig(text, "net.yaml");
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  return config;
}

/** The sample with one piece of its text replaced; the piece stands there exactly once. */
function changed(before: string, after: string): string {
  expect(NETWORK.split(before), `"${before}" stands once in the sample`).toHaveLength(2);
  return NETWORK.replace(before, after);
}

describe("a network", () => {
  const config = parse(NETWORK);

  test("has AWS's defaults where the file says nothing", () => {
    expect(config.vpcs.provider).toMatchObject({ account: "111111111111", route_tables: {} });
    expect(config.target_groups["web-new"]?.attributes).toEqual({
      "deregistration_delay.timeout_seconds": 300,
      "proxy_protocol_v2.enabled": true,
      "proxy_protocol_v2.client_to_server.header_placement": "on_first_ack_with_payload",
      "stickiness.enabled": false,
      "stickiness.type": "source_ip",
      "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
      "target_health_state.unhealthy.draining_interval_seconds": 0,
      "target_group_health.dns_failover.minimum_healthy_targets.count": 1,
      "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
      "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": 1,
      "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
    });
    expect(config.target_groups.web?.health_check).toEqual({
      enabled: true,
      protocol: "HTTP",
      port: "traffic-port",
      path: "/ready",
      interval_seconds: 10,
      healthy_threshold_count: 5,
      unhealthy_threshold_count: 2,
    });
    expect(config.nat_gateways["nat-1"]).toMatchObject({
      connectivity: "public",
      max_drain_duration_seconds: 350,
      capacity: { units: "auto" },
    });
    expect(config.load_balancers["nlb-1"]).toMatchObject({
      scheme: "internal",
      enforce_security_group_inbound_rules_on_private_link_traffic: "on",
    });
  });

  test("may be written as JSON", () => {
    const json = JSON.stringify({ vpcs: { one: { cidrs: ["10.0.0.0/16"] } } });
    expect(Object.keys(parse(json).vpcs)).toEqual(["one"]);
  });

  test("whose VPCs use the same addresses is right: that is what it is for", () => {
    expect(config.vpcs.consumer?.cidrs[0]).toBe(config.vpcs.provider?.cidrs[0]);
  });
});

/** Records of a zone of one's own. */
const WRONG_NAMES: [records: string, message: string][] = [
  ["{ name: a..b, addresses: [10.0.0.1] }", '[0].name: "a..b" is not a name in lower case, * or @'],
  ["{ name: A, addresses: [10.0.0.1] }", '[0].name: "A" is not a name in lower case, * or @'],
  [`{ name: ${"a".repeat(64)}, texts: [x] }`, '[0].name: "aaaa'],
  [`{ name: ${Array(4).fill("a".repeat(60)).join(".")}, texts: [x] }`, '[0].name: "aaaa'],
  ["{ name: a, texts: [x] }, { name: a, texts: [y] }", "[1]: "],
  ["{ name: '@', cname: example.org }", "[0].cname: is not possible for a zone itself"],
  ["{ name: a, cname: '*.org' }", '[0].cname: "*.org" is not a domain name in lower case'],
  [`{ name: a, texts: ["${"é".repeat(128)}"] }`, '[0].texts[0]: "éé'],
  ["{ name: a }", "[0]: has not either a cname or addresses and texts"],
];

/** Each row changes one thing; what the message must say is all of it behind the file's name. */
const WRONG: [before: string, after: string, message: string][] = [
  ["region: us-east-1", "region: east", '2: region: "east" is not the name of a region'],
  ["vpc: other }", "vpc: elsewhere }", '6: ports[2].vpc: "elsewhere" is not the name of a VPC'],
  ["vlan: 20, ", "", "6: ports[2]: means the same frames as ports[0]"],
  ["vlan: 20,", "vlan: 4095,", "6: ports[2].vlan: 4095 is not an integer from 1 to 4094"],
  [
    '"222222222222": {',
    '"2222": {',
    '8: accounts.2222: "2222" is not an account of 12 digits in quotes',
  ],
  [
    'account: "222222222222"',
    "account: 222222222222",
    "11: vpcs.consumer.account: 222222222222 is not an account of 12 digits in quotes",
  ],
  [
    "cidrs: [10.0.0.0/16, ",
    "cidrs: [10.0.0.1/16, ",
    '12: vpcs.consumer.cidrs[0]: "10.0.0.1/16" has bits after its prefix; 10.0.0.0/16 has none',
  ],
  [
    "cidrs: [10.0.0.0/16, ",
    "cidrs: [10.0.0.0/8, ",
    '12: vpcs.consumer.cidrs[0]: "10.0.0.0/8" has a prefix that is not from /16 to /28',
  ],
  [
    "cidrs: [10.0.0.0/16, ",
    "cidrs: [10.0.0.0/16, 10.0.128.0/17, ",
    '12: vpcs.consumer.cidrs[1]: "10.0.128.0/17" overlaps "10.0.0.0/16"',
  ],
  [
    "consumer-a: { cidr: 10.0.1.0/24",
    "consumer-a: { cidr: 10.7.1.0/24",
    '14: vpcs.consumer.subnets.consumer-a.cidr: "10.7.1.0/24" lies outside 10.0.0.0/16, fd00:1::/64',
  ],
  [
    "consumer-b: { cidr: 10.0.2.0/24",
    "consumer-b: { cidr: 10.0.1.128/25",
    '15: vpcs.consumer.subnets.consumer-b.cidr: "10.0.1.128/25" overlaps "10.0.1.0/24"',
  ],
  [
    "provider-a: { cidr",
    "consumer-a: { cidr",
    "26: vpcs.provider.subnets.consumer-a: is also a subnet of consumer; names of subnets hold " +
      "for the whole file",
  ],
  [
    "zone: use1-az3",
    "zone: us-east-1c",
    '16: vpcs.consumer.subnets.consumer-c.zone: "us-east-1c" is not the id of an availability ' +
      "zone such as use1-az1",
  ],
  [
    "to: 0.0.0.0/0, via: nat-1",
    "to: 0.0.0.0/0, via: nat-2",
    '19: vpcs.consumer.route_tables.main[0].via: "nat-2" is not a NAT gateway, a VPC, internet, ' +
      "blackhole or local",
  ],
  [
    "to: 64:ff9b::/96",
    "to: ::/0",
    '20: vpcs.consumer.route_tables.main[1].to: "::/0" is not for a NAT gateway, which takes IPv4 ' +
      "and 64:ff9b::/96",
  ],
  [
    "to: 198.51.100.0/24, via: blackhole",
    "to: pl-s3, via: vpce-gw",
    '22: vpcs.consumer.route_tables.main[3].via: "vpce-gw" adds its routes itself, where its ' +
      "route_tables say so",
  ],
  [
    "{ protocol: icmp, from",
    "{ protocol: icmp, ports: 3, from",
    "36: security_groups.sg-web.ingress[2].ports: have no meaning for icmp",
  ],
  [
    "ports: 8000-8099",
    "ports: 8099-8000",
    '35: security_groups.sg-web.ingress[1].ports: "8099-8000" is not a range from 0 to 65535',
  ],
  [
    "from: sg-web",
    "from: sg-wbe",
    '35: security_groups.sg-web.ingress[1].from: "sg-wbe" is not a CIDR, a security group or a ' +
      "prefix list",
  ],
  [
    "prefix_lists: { pl-s3:",
    "prefix_lists: { sg-web: [], pl-s3:",
    "39: prefix_lists.sg-web: is already a name in security_groups",
  ],
  [
    "{ address: 10.0.2.10 }\n      - {",
    "{ address: 192.0.2.1 }\n      - {",
    '47: target_groups.web.targets[0].address: "192.0.2.1" is neither in provider nor a private ' +
      "address",
  ],
  [
    "10.0.3.10, port",
    "fd00::1, port",
    '48: target_groups.web.targets[1].address: "fd00::1" is not of the group\'s type, ipv4',
  ],
  [
    "interval_seconds: 10",
    "interval_seconds: 4",
    "49: target_groups.web.health_check.interval_seconds: 4 is not an integer from 5 to 300",
  ],
  [
    "protocol: HTTP, path",
    "protocol: TCP, path",
    "49: target_groups.web.health_check.path: has no meaning for TCP",
  ],
  [
    "proxy_protocol_v2.enabled: true",
    "proxy_protocol_v2.enable: true",
    '52: target_groups.web.attributes["proxy_protocol_v2.enable"]: is not a key; known here: ' +
      "deregistration_delay.timeout_seconds",
  ],
  [
    "proxy_protocol_v2.enabled: true",
    "deregistration_delay.timeout_seconds: 3601",
    '52: target_groups.web.attributes["deregistration_delay.timeout_seconds"]: 3601 is not an ' +
      "integer from 0 to 3600",
  ],
  [
    "proxy_protocol_v2.enabled: true",
    "target_health_state.unhealthy.draining_interval_seconds: 5",
    '52: target_groups.web.attributes["target_health_state.unhealthy.draining_interval_seconds"]: ' +
      "5 needs target_health_state.unhealthy.connection_termination.enabled false",
  ],
  [
    "proxy_protocol_v2.enabled: true",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count: 2",
    '50: target_groups.web.attributes["target_group_health.dns_failover.minimum_healthy_targets.' +
      'count"]: 1 is below target_group_health.unhealthy_state_routing.minimum_healthy_targets.' +
      "count, 2",
  ],
  [
    "dns: { protocol: UDP",
    "dns: { attributes: { preserve_client_ip.enabled: false }, protocol: UDP",
    '54: target_groups.dns.attributes["preserve_client_ip.enabled"]: false is not possible for ' +
      "UDP: the client's address always stays",
  ],
  [
    "provider-b: { address: 10.0.3.5",
    "provider-b: { address: 10.0.2.6",
    '61: load_balancers.nlb-1.subnets.provider-b.address: "10.0.2.6" lies outside the subnet ' +
      "provider-b",
  ],
  [
    "provider-b: { address: 10.0.3.5",
    "consumer-b: { address: 10.0.3.5",
    "61: load_balancers.nlb-1.subnets.consumer-b: is not a subnet of provider",
  ],
  [
    "secondary_addresses: [10.0.3.6]",
    "secondary_addresses: [10.0.3.5]",
    '61: load_balancers.nlb-1.subnets.provider-b.secondary_addresses[0]: "10.0.3.5" is also at ' +
      "load_balancers.nlb-1.subnets.provider-b.address",
  ],
  [
    "provider-a: { address: 10.0.2.5 }",
    "provider-a: { address: 10.0.2.2 }",
    '60: load_balancers.nlb-1.subnets.provider-a.address: "10.0.2.2" is one of the five addresses ' +
      "of provider-a that are reserved",
  ],
  [
    "security_groups: [sg-web]",
    "security_groups: [sg-client]",
    '62: load_balancers.nlb-1.security_groups[0]: "sg-client" is not a security group of provider',
  ],
  [
    "target_group: web, weight: 3",
    "target_group: web, weight: 1000",
    "65: load_balancers.nlb-1.listeners[0].forward[0].weight: 1000 is not an integer from 0 to 999",
  ],
  [
    "target_group: web, weight: 3",
    "target_groop: web",
    "65: load_balancers.nlb-1.listeners[0].forward[0].target_groop: is not a key; known here: " +
      "target_group, weight",
  ],
  [
    "{ target_group: web-new }",
    "{ target_group: dns }",
    '65: load_balancers.nlb-1.listeners[0].forward[1].target_group: "dns" has the protocol UDP, ' +
      "not TCP or TCP_UDP",
  ],
  [
    "tcp.idle_timeout.seconds: 400",
    "tcp.idle_timeout.seconds: 6001",
    '65: load_balancers.nlb-1.listeners[0].attributes["tcp.idle_timeout.seconds"]: 6001 is not an ' +
      "integer from 60 to 6000",
  ],
  [
    "proxy_protocol_v2.enabled:  true",
    "proxy_protocol_v2.enabled: false",
    "65: load_balancers.nlb-1.listeners[0].forward: has target groups that differ in " +
      "proxy_protocol_v2.enabled",
  ],
  [
    "{ protocol: UDP, port: 53, forward: dns }",
    "{ protocol: TCP, port: 80, forward: web }",
    "66: load_balancers.nlb-1.listeners[1]: TCP 80 is taken by listeners[0]",
  ],
  [
    "forward: dns }",
    "forward: dsn }",
    '66: load_balancers.nlb-1.listeners[1].forward: "dsn" is not the name of a target group',
  ],
  [
    "vpce-svc-0123456789abcdef0:\n",
    "vpce-svc-1:\n",
    '68: endpoint_services.vpce-svc-1: "vpce-svc-1" is not the id of an endpoint service: ' +
      "vpce-svc- and 17 hexadecimal digits",
  ],
  [
    'allowed_principals: ["*"]',
    'allowed_principals: ["arn:aws:iam::333333333333:root"]',
    "74: endpoints.vpce-0a1b2c3d4e5f60718: arn:aws:iam::222222222222:root is not among the " +
      "allowed_principals of vpce-svc-0123456789abcdef0",
  ],
  [
    "private_dns_name: api.example.com",
    "private_dns_name: API.example.com",
    '72: endpoint_services.vpce-svc-0123456789abcdef0.private_dns_name: "API.example.com" is not ' +
      "a domain name in lower case",
  ],
  [
    "consumer-b: { address: 10.0.2.50 }",
    "consumer-c: { address: 10.0.3.50 }",
    "77: endpoints.vpce-0a1b2c3d4e5f60718.subnets.consumer-c: lies in use1-az3; " +
      "vpce-svc-0123456789abcdef0 is offered in use1-az1, use1-az2",
  ],
  [
    "private_dns_enabled: true",
    'policy: { Statement: { Effect: Allow, Action: "*", Resource: "*" } }',
    "79: endpoints.vpce-0a1b2c3d4e5f60718.policy: Statement[0] has no Principal",
  ],
  [
    "route_tables: [main]",
    "route_tables: [main, side]",
    '81: gateway_endpoints.vpce-gw.route_tables[1]: "side" is not a route table of consumer',
  ],
  [
    "addresses: [203.0.113.1, 203.0.113.2]",
    "addresses: [1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9]",
    '83: nat_gateways.nat-1.addresses: ["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4","1.1.1.5","1.1.1... ' +
      "is not a list of 1 to 8",
  ],
  [
    "address: 10.0.1.60",
    "address: 10.0.1.50",
    '85: mount_targets.fsmt-1.address: "10.0.1.50" is also at ' +
      "endpoints.vpce-0a1b2c3d4e5f60718.subnets.consumer-a.address",
  ],
  [
    "forward: files",
    "forward: dns",
    '85: mount_targets.fsmt-1.forward: "dns" is not the name of a target group of TCP',
  ],
  [
    "at_seconds: 3,",
    "at_seconds: 2,",
    "88: timeline[1].at_seconds: 2 comes before the event above it, at 2.5",
  ],
  [
    "{ at_seconds: 2.5, deregister: { target_group: web, target: 10.0.2.10 } }",
    "{ at_seconds: 2.5 }",
    "87: timeline[0]: " +
      `{"at_seconds":2.5} has 0 actions instead of one of ${TIMELINE_ACTIONS.join(", ")}`,
  ],
  [
    "port: 80, target_group: web, weight: 0",
    "port: 81, target_group: web, weight: 0",
    "88: timeline[1].weight: nlb-1 has no listener TCP 81 with web",
  ],
  [
    "nat-1, address: 203.0.113.2",
    "nat-1, address: 203.0.113.1",
    '90: timeline[3].disassociate.address: "203.0.113.1" is the primary address, which stays',
  ],
  [
    "reject: { endpoint: vpce-0a1b2c3d4e5f60718 }",
    "policy: { endpoint: vpce-none }",
    '89: timeline[2].policy.endpoint: "vpce-none" is not a name in endpoints',
  ],
  [
    "reject: { endpoint: vpce-0a1b2c3d4e5f60718 }",
    "policy: { endpoint: vpce-0a1b2c3d4e5f60718, document: { Version: 2012-10-17 } }",
    "89: timeline[2].policy.document: has no Statement",
  ],
  [
    "lab: { name: sample }",
    "lab: { name: sample, workers: 2 }",
    "65: load_balancers.nlb-1.listeners[0].port: 80 and the target port 8081 of web differ modulo 64",
  ],
  [
    "lab: { name: sample }",
    "lab: { name: sample, hosts: { one: { vpc: internet, addresses: [203.0.113.2] } } }",
    'lab.hosts.one.addresses[0]: "203.0.113.2" is also at nat_gateways.nat-1.addresses.1',
  ],
  [
    "lab: { name: sample }",
    "lab: { name: sample, nodes: { count: 3, per_resource: 4 } }",
    "lab.nodes.per_resource: 4 is more than the 3 nodes",
  ],
  [
    "lab: { name: sample }",
    "lab: { name: sample, nodes: { count: 1 } }",
    "lab.nodes.count: 1 is not an integer from 2 to 64",
  ],
  [
    "lab: { name: sample }",
    "lab: { name: sample, nodes: { count: 2, redis: { servers: [somewhere] } } }",
    'lab.nodes.redis.servers[0]: "somewhere" is not host:port or the path of a socket',
  ],
  ...WRONG_NAMES.map(([records, message]): [string, string, string] => [
    "lab: { name: sample }",
    `lab: { name: sample, dns: { zones: { example.com: [${records}] } } }`,
    `lab.dns.zones["example.com"]${message}`,
  ]),
  [
    "lab: { name: sample }",
    "lab: { name: sample, dns: { zones: { Example.com: [] } } }",
    'lab.dns.zones["Example.com"]: "Example.com" is not a domain name in lower case',
  ],
  [
    "load_balancers:\n",
    `load_balancers:\n  ${"n".repeat(47)}: { vpc: provider, subnets: { provider-a: { address: 10.0.2.7 } } }\n`,
    `load_balancers.${"n".repeat(47)}: makes no DNS name; in a lab it is 1 to 46 letters, digits`,
  ],
  [
    "use1-az2: us-east-1a }",
    "use1-az2: us-east-1c }",
    "endpoints.vpce-0a1b2c3d4e5f60718.subnets.consumer-b: lies in use1-az2, which the account calls",
  ],
];

describe("a network that is right", () => {
  // What the control socket takes is checked together with all that there is.
  const labs = ["fleet", "nat", "nlb", "privatelink"].map((name) => `labs/${name}`);
  const networks = ["draining", "nat", "nlb", "overlap", "privatelink"];
  test.each([...labs, ...networks.map((name) => `networks/${name}`)])(
    "can be read again as it was understood: %s",
    (name) => {
      const file = new URL(`../fixtures/${name}.yaml`, import.meta.url);
      const config = parse(readFileSync(file, "utf8"));
      expect(parse(JSON.stringify(config))).toEqual(config);
    },
  );

  test("and so does one that has everything", () => {
    const config = parse(NETWORK);
    expect(parse(JSON.stringify(config))).toEqual(config);
  });
});

describe("a network that is wrong", () => {
  test.each(WRONG)("%j written %j: %s", (before, after, message) => {
    let thrown: unknown;
    try {
      parse(changed(before, after));
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ConfigError);
    expect((thrown as ConfigError).message.slice("net.yaml:".length)).toContain(message);
    expect((thrown as ConfigError).message).not.toContain("\n");
  });

  test("has at most 50 listeners, the first of too many being no error yet", () => {
    const listeners = (count: number) => {
      const all = Array.from({ length: count }, (_, n) => {
        return `      - { protocol: TCP, port: ${1000 + n}, forward: web }\n`;
      });
      return changed("    listeners:\n", `    listeners:\n${all.join("")}`);
    };
    expect(parse(listeners(48)).load_balancers["nlb-1"]?.listeners).toHaveLength(50);
    expect(() => parse(listeners(49))).toThrow("is not a list of 0 to 50");
  });

  test("a target group serves one load balancer", () => {
    const second =
      "load_balancers:\n  nlb-2: { vpc: provider, subnets: { provider-a: { address: 10.0.2.7 } }, " +
      "listeners: [{ protocol: UDP, port: 53, forward: dns }] }\n";
    const text = changed("load_balancers:\n", second);
    expect(() => parse(text)).toThrow("target_groups.dns: is used by nlb-2 and nlb-1");
  });
});
