import { describe, expect, test } from "vitest";
import { billLine, nlcu, tiered } from "../host/control/billing.ts";
import {
  awsDnsName,
  endpointNames,
  endpointSuffix,
  fileSystemNames,
  loadBalancerDimension,
  loadBalancerNames,
  marketplaceNames,
  serviceDnsName,
  serviceLabel,
  serviceName,
  targetGroupDimension,
} from "../host/control/names.ts";
import { NatAddresses, NatRefusal } from "../host/control/nat-addresses.ts";
import { afterLookup, answersTo, covers, mayUse, recordName } from "../host/control/private-dns.ts";
import { commonZones, zoneName } from "../host/control/zones.ts";

describe("names", () => {
  test("of an endpoint to a service of AWS are those of the talk of 2018", () => {
    const zones = { "use1-az6": "us-east-1c", "use1-az4": "us-east-1b", "use1-az2": "us-east-1a" };
    const label = serviceLabel("vpce-svc-0", "com.amazonaws.us-east-1.kinesis-streams");
    const id = "vpce-04a3c569d0096034d";
    const names = endpointNames(id, label, "us-east-1", zones, "hxkjzkdh");
    expect([names.regional, ...Object.values(names.zonal), awsDnsName(label, "us-east-1")]).toEqual(
      [
        "vpce-04a3c569d0096034d-hxkjzkdh.kinesis.us-east-1.vpce.amazonaws.com",
        "vpce-04a3c569d0096034d-hxkjzkdh-us-east-1c.kinesis.us-east-1.vpce.amazonaws.com",
        "vpce-04a3c569d0096034d-hxkjzkdh-us-east-1b.kinesis.us-east-1.vpce.amazonaws.com",
        "vpce-04a3c569d0096034d-hxkjzkdh-us-east-1a.kinesis.us-east-1.vpce.amazonaws.com",
        "kinesis.us-east-1.amazonaws.com",
      ],
    );
  });

  test("of EC2's endpoint are those of the PrivateLink guide", () => {
    const zones = { "use1-az1": "us-east-1a" };
    const label = serviceLabel("vpce-svc-0", "com.amazonaws.us-east-1.ec2");
    const names = endpointNames("vpce-0fe5b17a0707d6abc", label, "us-east-1", zones, "29p5708s");
    expect(names.zonal["use1-az1"]).toBe(
      "vpce-0fe5b17a0707d6abc-29p5708s-us-east-1a.ec2.us-east-1.vpce.amazonaws.com",
    );
  });

  test("have eight characters that belong to endpoint and service", () => {
    const suffixes = Array.from({ length: 2000 }, (_, n) => endpointSuffix(`vpce-${n}`, "s"));
    for (const suffix of suffixes) expect(suffix).toMatch(/^[a-z0-9]{8}$/);
    expect(new Set(suffixes).size).toBe(2000);
    expect(endpointSuffix("vpce-1", "s")).toBe(endpointSuffix("vpce-1", "s"));
  });

  test("of one's own service, of load balancers, file systems and sellers", () => {
    const service = "vpce-svc-0123456789abcdef0";
    expect(serviceLabel(service, undefined)).toBe(service);
    expect(serviceName(service, "eu-west-1")).toBe(`com.amazonaws.vpce.eu-west-1.${service}`);
    expect(serviceDnsName(service, "eu-west-1")).toBe(`${service}.eu-west-1.vpce.amazonaws.com`);
    const zones = { "use1-az1": "us-east-1a" };
    const balancer = loadBalancerNames("web", "us-east-1", zones);
    expect(balancer.regional).toMatch(/^web-[0-9a-f]{16}\.elb\.us-east-1\.amazonaws\.com$/);
    expect(balancer.zonal["use1-az1"]).toBe(`us-east-1a.${balancer.regional}`);
    expect(loadBalancerDimension("web")).toMatch(/^net\/web\/[0-9a-f]{16}$/);
    expect(targetGroupDimension("web")).toMatch(/^targetgroup\/web\/[0-9a-f]{16}$/);
    expect(balancer.regional).toContain(loadBalancerDimension("web").split("/")[2]);
    expect(fileSystemNames("fs-01234567", "us-east-1", zones).zonal).toEqual({
      "use1-az1": "us-east-1a.fs-01234567.efs.us-east-1.amazonaws.com",
    });
    const seller = marketplaceNames("vpce-0fe5b17a0707d6abc", "example.com", zones);
    expect([seller.regional, seller.zonal["use1-az1"]]).toEqual([
      "vpce0fe5b17a0707d6abc.api.vpce.example.com",
      "us-east-1a-vpce0fe5b17a0707d6abc.api.vpce.example.com",
    ]);
  });
});

describe("zones", () => {
  const accounts = {
    "111111111111": { zone_names: { "use1-az1": "us-east-1a", "use1-az2": "us-east-1b" } },
    "222222222222": { zone_names: { "use1-az1": "us-east-1b", "use1-az2": "us-east-1a" } },
  };

  test("are shared by id and shuffled by name", () => {
    const names = Object.keys(accounts).map((account) => {
      return zoneName(accounts, account, "use1-az1", "us-east-1");
    });
    expect(names).toEqual(["us-east-1a", "us-east-1b"]);
    expect(zoneName(accounts, "333333333333", "use1-az3", "us-east-1")).toBe("us-east-1c");
  });

  test("are offered where both sides have them", () => {
    expect(commonZones(["az1", "az2", "az3"], ["az3", "az1"])).toEqual(["az1", "az3"]);
  });
});

describe("a private DNS name", () => {
  const verification = {
    state: "pendingVerification",
    name: "_aksldja21i1",
    value: "vpce:asjdakjshd78126eu21",
  } as const;

  test("is proved by a TXT record that is equal to the letter", () => {
    expect(recordName("*.example.com", verification)).toBe("_aksldja21i1.example.com");
    expect(afterLookup(verification, ["x", verification.value], 1)).toBe("verified");
    expect(afterLookup(verification, [verification.value.toUpperCase()], 1)).toBe(
      "pendingVerification",
    );
    expect(afterLookup(verification, [], 47.9)).toBe("pendingVerification");
    expect(afterLookup(verification, [], 48)).toBe("failed");
  });

  test("that is proved no longer stays with those who have it and is denied to others", () => {
    expect(mayUse("failed", true)).toBe(true);
    expect(mayUse("failed", false)).toBe(false);
    expect(mayUse("verified", false)).toBe(true);
  });

  test("is covered by its domain and by those above", () => {
    expect(covers("example.com", "a.example.com")).toBe(true);
    expect(covers("example.com", "*.example.com")).toBe(true);
    expect(covers("example.com", "badexample.com")).toBe(false);
  });

  test("with a wildcard answers one label", () => {
    expect(answersTo("*.example.com", "a.example.com")).toBe(true);
    expect(answersTo("*.example.com", "a.b.example.com")).toBe(false);
    expect(answersTo("*.example.com", "example.com")).toBe(false);
    expect(answersTo("api.example.com", "api.example.com")).toBe(true);
  });
});

describe("addresses of a NAT gateway", () => {
  test("drain for 350 s, get no new flows meanwhile, and nothing else may change", () => {
    const nat = new NatAddresses(["192.0.2.1", "192.0.2.2"], 350_000);
    nat.disassociate("192.0.2.2", 1000);
    expect(nat.serving).toEqual(["192.0.2.1"]);
    expect(nat.addresses).toHaveLength(2);
    expect(() => nat.associate("192.0.2.3", 2000)).toThrow(
      new NatRefusal("192.0.2.2 drains; nothing may change meanwhile"),
    );
    expect(nat.nextMs).toBe(351_000);
    expect(nat.tick(350_999)).toEqual([]);
    expect(nat.tick(351_000)).toEqual(["192.0.2.2"]);
    nat.associate("192.0.2.3", 351_000);
    expect(nat.serving).toEqual(["192.0.2.1", "192.0.2.3"]);
  });

  test("are at most eight, and the primary one stays", () => {
    const nat = new NatAddresses(["192.0.2.1"], 350_000);
    for (let n = 2; n <= 8; n++) nat.associate(`192.0.2.${n}`, 0);
    expect(() => nat.associate("192.0.2.9", 0)).toThrow(NatRefusal);
    expect(() => nat.associate("192.0.2.8", 0)).toThrow("associated already");
    expect(() => nat.disassociate("192.0.2.1", 0)).toThrow("primary");
    expect(() => nat.disassociate("192.0.2.77", 0)).toThrow("is not associated");
  });
});

describe("billing", () => {
  const idle = { newFlows: 0, activeSamples: [0], bytes: 0 };

  test.each([
    ["TCP", { ...idle, newFlows: 1600 * 3600 }, 2],
    ["TCP", { ...idle, activeSamples: [50_000, 150_000, 100_000] }, 1],
    ["TCP", { newFlows: 800 * 3600, activeSamples: [300_000], bytes: 2e9 }, 3],
    ["UDP", { ...idle, newFlows: 400 * 3600, activeSamples: [75_000] }, 1.5],
    ["TLS", { ...idle, newFlows: 100 * 3600, bytes: 5e9 }, 5],
    ["UDP", { ...idle, activeSamples: [] }, 0],
  ] as const)("of an hour of %s: %j is %d NLCU", (protocol, hour, units) => {
    expect(nlcu(protocol, hour)).toBeCloseTo(units, 12);
  });

  test("of an endpoint counts begun hours in every zone, and gigabytes", () => {
    const endpoint = { endpointId: "vpce-1", serviceId: "vpce-svc-1", owner: "111111111111" };
    expect(billLine(endpoint, 2, 0, 3_600_001, 2.5e9)).toEqual({
      ...endpoint,
      zoneHours: 4,
      gigabytes: 2.5,
    });
    expect(billLine(endpoint, 3, 5, 5, 0).zoneHours).toBe(0);
  });

  test("goes by tiers", () => {
    const tiers = [
      { upTo: 1000, price: 0.01 },
      { upTo: 5000, price: 0.006 },
      { upTo: Number.POSITIVE_INFINITY, price: 0.004 },
    ];
    expect(tiered(500, tiers)).toBeCloseTo(5, 9);
    expect(tiered(6000, tiers)).toBeCloseTo(10 + 24 + 4, 9);
  });
});
