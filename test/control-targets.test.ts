import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { eligible, misses, zonesInDns } from "../host/control/failover.ts";
import { settingsOf, type TargetGroupSettings } from "../host/control/settings.ts";
import { TargetGroup, type TargetRecord } from "../host/control/targets.ts";
import { type Happening, healthAt } from "./reference/health.ts";

/** Settings of a target group whose attributes and health check are given as YAML. */
function settings(attributes = "", more = "", protocol = "TCP"): TargetGroupSettings {
  const text = `
vpcs: { v: { cidrs: [10.0.0.0/16], subnets: { a: { cidr: 10.0.0.0/24, zone: use1-az1 } } } }
target_groups:
  g: { protocol: ${protocol}, port: 80, vpc: v, ${more} attributes: { ${attributes} } }
`;
  const config = parseConfig(text, "group.yaml");
  const group = isNetwork(config) ? config.target_groups.g : undefined;
  if (!group) throw new TypeError("no group");
  return settingsOf(group);
}

const TARGET = { address: "10.0.0.10", port: 80 };

describe("settings of a target group", () => {
  test("depend on protocol and target type where AWS's do", () => {
    expect(settings()).toMatchObject({
      preservesClient: true,
      terminatesDeregistered: false,
      terminatesUnhealthy: true,
      deregistrationDelayMs: 300_000,
      unhealthyDrainingMs: 0,
      healthyCount: 5,
      unhealthyCount: 2,
      isCrossZone: undefined,
      dnsFailover: { count: 1, percentage: 0 },
    });
    expect(settings("", "target_type: ip,").preservesClient).toBe(false);
    expect(settings("", "target_type: ip,", "UDP")).toMatchObject({
      preservesClient: true,
      terminatesDeregistered: true,
      terminatesUnhealthy: false,
    });
  });
});

describe("a target", () => {
  const step = (group: TargetGroup, outcomes: string, fromMs: number) => {
    for (const [index, outcome] of [...outcomes].entries()) {
      group.check(TARGET, outcome === "+" ? "pass" : "Target.Timeout", fromMs + index);
    }
    return group.target(TARGET);
  };

  test("is initial until one check has passed", () => {
    const group = new TargetGroup(settings());
    expect(group.register(TARGET, "use1-az1", 0)).toEqual([
      {
        ...TARGET,
        atMs: 0,
        from: "none",
        to: "initial",
        reason: "Elb.RegistrationInProgress",
        terminates: false,
      },
    ]);
    expect(step(group, "-", 1)).toMatchObject({
      state: "initial",
      reason: "Elb.InitialHealthChecking",
    });
    expect(step(group, "+", 2)).toMatchObject({ state: "healthy", reason: undefined, sinceMs: 2 });
  });

  test("turns unhealthy after two failures in a row and healthy after five passes in a row", () => {
    const group = new TargetGroup(settings());
    group.register(TARGET, "use1-az1", 0, "healthy");
    expect(step(group, "-+-+-", 0)?.state).toBe("healthy");
    const [event] = group.check(TARGET, "Target.ResponseCodeMismatch", 10);
    expect(event).toMatchObject({
      from: "healthy",
      to: "unhealthy",
      reason: "Target.ResponseCodeMismatch",
      terminates: true,
    });
    expect(step(group, "++++-++++", 20)?.state).toBe("unhealthy");
    expect(step(group, "+", 30)?.state).toBe("healthy");
  });

  test("drains for the interval where its flows are not closed", () => {
    const attributes =
      "target_health_state.unhealthy.connection_termination.enabled: false, " +
      "target_health_state.unhealthy.draining_interval_seconds: 60";
    const group = new TargetGroup(settings(attributes));
    group.register(TARGET, "use1-az1", 0, "healthy");
    expect(step(group, "--", 0)?.state).toBe("unhealthy.draining");
    expect(group.nextMs).toBe(60_001);
    expect(group.tick(60_000)).toEqual([]);
    expect(group.tick(60_001)).toMatchObject([{ to: "unhealthy", terminates: false }]);
  });

  test.each([
    ["", false],
    ["deregistration_delay.connection_termination.enabled: true", true],
  ])("deregistered drains 300 s and is gone; %s", (attributes, terminates) => {
    const group = new TargetGroup(settings(attributes));
    group.register(TARGET, "use1-az1", 0, "healthy");
    expect(group.deregister(TARGET, 1000)).toMatchObject([
      { to: "draining", reason: "Target.DeregistrationInProgress", terminates: false },
    ]);
    expect(group.tick(300_999)).toEqual([]);
    expect(group.targets).toHaveLength(1);
    expect(group.tick(400_000)).toMatchObject([
      { atMs: 301_000, from: "draining", to: "none", reason: "Target.NotRegistered", terminates },
    ]);
    expect(group.targets).toEqual([]);
  });

  test("registered again while it drains starts anew", () => {
    const group = new TargetGroup(settings());
    group.register(TARGET, "use1-az1", 0, "healthy");
    group.deregister(TARGET, 10);
    expect(group.register(TARGET, "use1-az1", 20)).toMatchObject([
      { from: "draining", to: "initial" },
    ]);
    expect(group.tick(1e9)).toEqual([]);
  });

  test("of a group that nobody uses is unused, and initial once somebody does", () => {
    const group = new TargetGroup(settings());
    group.setUse((zone) => zone === "use1-az2", 0);
    group.register(TARGET, "use1-az1", 0);
    expect(group.target(TARGET)).toMatchObject({ state: "unused", reason: "Target.NotInUse" });
    expect(group.check(TARGET, "pass", 1)).toEqual([]);
    expect(group.setUse(() => true, 2)).toMatchObject([{ from: "unused", to: "initial" }]);
  });

  test("whose health is not checked is unavailable, and gets flows", () => {
    const group = new TargetGroup(settings("", "health_check: { enabled: false },"));
    group.register(TARGET, "use1-az1", 0);
    expect(group.target(TARGET)).toMatchObject({
      state: "unavailable",
      reason: "Target.HealthCheckDisabled",
    });
    expect(eligible(group.targets, "use1-az1", false, group.settings).targets).toHaveLength(1);
  });

  test("has the health that its whole history gives, whatever it is", () => {
    const happening = fc.record({
      stepMs: fc.integer({ min: 0, max: 400 }),
      what: fc.constantFrom("register", "deregister", "pass", "pass", "fail", "fail"),
    });
    const rules = fc.record({
      healthyCount: fc.integer({ min: 2, max: 4 }),
      unhealthyCount: fc.integer({ min: 2, max: 4 }),
      deregistrationDelayMs: fc.constantFrom(0, 500, 2000),
      unhealthyDrainingMs: fc.constantFrom(0, 700),
      terminatesUnhealthy: fc.boolean(),
    });
    fc.assert(
      fc.property(rules, fc.array(happening, { maxLength: 60 }), (rules, steps) => {
        const group = new TargetGroup({ ...settings(), ...rules });
        const history: Happening[] = [];
        let [nowMs, closures] = [0, 0];
        for (const { stepMs, what } of steps) {
          nowMs += stepMs;
          const events =
            what === "register"
              ? group.register(TARGET, "use1-az1", nowMs)
              : what === "deregister"
                ? group.deregister(TARGET, nowMs)
                : group.check(TARGET, what === "pass" ? "pass" : "Target.Timeout", nowMs);
          closures += events.filter(({ to, terminates }) => to !== "none" && terminates).length;
          if (what === "register" || what === "deregister") history.push({ atMs: nowMs, what });
          else history.push({ atMs: nowMs, what: "check", hasPassed: what === "pass" });
          group.tick(nowMs);
          const state = group.target(TARGET)?.state ?? "none";
          expect({ state, closures }).toEqual(healthAt(history, rules, nowMs));
        }
      }),
      { numRuns: 2000, seed: 11 },
    );
  });
});

describe("failover", () => {
  const zone = (zone: string, healthy: number, unhealthy: number): TargetRecord[] =>
    Array.from({ length: healthy + unhealthy }, (_, n) => ({
      address: `10.0.${zone === "a" ? 1 : 2}.${n + 4}`,
      port: 80,
      zone,
      state: n < healthy ? "healthy" : "unhealthy",
      reason: undefined,
      sinceMs: 0,
    }));
  const half = settings(
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage: 50, " +
      "target_group_health.dns_failover.minimum_healthy_targets.percentage: 50",
  );
  /** The worked example: ten targets in each of two zones, six of those in b fail. */
  const example = [...zone("a", 10, 0), ...zone("b", 4, 6)];

  test("with cross-zone off is each node's own: 4 of 10 is below 50 %", () => {
    expect(eligible(example, "a", false, half)).toMatchObject({ isFailOpen: false });
    const b = eligible(example, "b", false, half);
    expect(b.isFailOpen).toBe(true);
    expect(b.targets).toHaveLength(10);
    const groups = [{ targets: example, isCrossZone: false, settings: half }];
    expect(zonesInDns(["a", "b"], groups)).toEqual(["a"]);
  });

  test("with cross-zone on counts all: 14 of 20 is 70 %, and nothing happens", () => {
    for (const name of ["a", "b"]) {
      const node = eligible(example, name, true, half);
      expect(node.isFailOpen).toBe(false);
      expect(node.targets).toHaveLength(14);
    }
    const groups = [{ targets: example, isCrossZone: true, settings: half }];
    expect(zonesInDns(["a", "b"], groups)).toEqual(["a", "b"]);
  });

  test("happens at either threshold, and at none above them", () => {
    const targets = zone("a", 4, 6);
    expect(misses({ count: 4, percentage: 40 }, targets)).toBe(false);
    expect(misses({ count: 5, percentage: 0 }, targets)).toBe(true);
    expect(misses({ count: 0, percentage: 41 }, targets)).toBe(true);
    expect(misses({ count: 0, percentage: 0 }, zone("a", 0, 3))).toBe(false);
  });

  test("sends to every registered target when all are unhealthy; those that drain stay out", () => {
    const targets = zone("a", 0, 3);
    (targets[0] as TargetRecord).state = "draining";
    expect(eligible(targets, "a", false, settings()).targets).toHaveLength(2);
    expect(eligible([], "a", false, settings())).toEqual({ targets: [], isFailOpen: false });
  });

  test("leaves a zone without targets out of the DNS, and none when all are bad", () => {
    const groups = (targets: TargetRecord[]) => [
      { targets, isCrossZone: false, settings: settings() },
    ];
    expect(zonesInDns(["a", "b"], groups(zone("a", 2, 0)))).toEqual(["a"]);
    expect(zonesInDns(["a", "b"], groups([]))).toEqual(["a", "b"]);
  });
});
