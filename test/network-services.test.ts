/**
 * What load balancers, NAT gateways and endpoints do packet by packet: choice of targets, time-outs,
 * resets, sizes, fragments, security groups, ports. Each test names the behaviour that AWS documents.
 */
import { beforeEach, describe, expect, test } from "vitest";
import { eth, raw } from "../fixtures/packets.ts";
import type { Engine } from "../host/engine/engine.ts";
import type { NetworkService, NetworkTables } from "../host/engine/network.ts";
import {
  balanced,
  CLIENT,
  gateway,
  NODE,
  networkEngine,
  one,
  TARGETS,
  usageOf,
} from "./network.ts";
import { parseFrame } from "./reference/parse.ts";
import { resetOf } from "./reference/reset.ts";

const syn = (port = 40000, seq = 7, from = CLIENT) =>
  eth().ip(from, NODE).tcp(port, 80, { flags: "S", seq });
const segment = (flags: string, port = 40000) => eth().ip(CLIENT, NODE).tcp(port, 80, { flags });

/** A reset as the twin makes it from the frame that it answers. */
function resetTo(frame: Uint8Array): Uint8Array {
  const parsed = parseFrame(frame, "ethernet", 1);
  if ("verdict" in parsed) throw new Error("no packet to answer");
  const reset = resetOf(frame, parsed, "ethernet");
  if (reset === undefined) throw new Error("nothing to answer");
  return reset;
}

describe("the choice of a target", () => {
  const targetOf = (engine: Engine, flow: number) => engine.flow(flow)?.translatedService.address;

  test("a SYN that is sent again finds the same target, even if nobody remembers the flow", async () => {
    for (let seq = 0; seq < 40; seq++) {
      const engine = await networkEngine(balanced());
      const first = one(engine, syn(40000, seq));
      const target = targetOf(engine, first.flow);
      expect(targetOf(engine, one(engine, syn(40000, seq)).flow)).toBe(target);
      const again = one(engine, syn(40000, seq), 1, 100_000);
      expect(targetOf(engine, again.flow)).toBe(target);
      expect(engine.counters().flows.created).toBe(2);
    }
  });

  test("each of the six numbers of a SYN moves it, as evenly as the ring is", async () => {
    const engine = await networkEngine(balanced());
    const counts = new Map<string, number>();
    let moved = 0;
    for (let port = 2000; port < 4000; port++) {
      const first = targetOf(engine, one(engine, syn(port, 1)).flow) ?? "";
      counts.set(first, (counts.get(first) ?? 0) + 1);
      one(engine, segment("R", port));
      const second = targetOf(engine, one(engine, syn(port, 2)).flow);
      if (second !== first) moved++;
    }
    expect(counts.size).toBe(8);
    for (const count of counts.values()) expect(Math.abs(count - 250)).toBeLessThan(80);
    expect(Math.abs(moved / 2000 - 7 / 8)).toBeLessThan(0.05);
  });

  test("UDP is chosen by the five-tuple: the flow comes back to its target after the timeout", async () => {
    const engine = await networkEngine(balanced());
    const datagram = () => eth().ip(CLIENT, NODE).udp(5000, 80).payload(4);
    const target = targetOf(engine, one(engine, datagram(), 1, 0).flow);
    const late = one(engine, datagram(), 1, 120_001);
    expect(targetOf(engine, late.flow)).toBe(target);
    expect(usageOf(engine, "web").udp.created).toBe(2);
    const without = TARGETS.filter(({ address }) => address !== target);
    engine.setTables(balanced({ targets: without }));
    expect(targetOf(engine, one(engine, datagram(), 1, 120_100).flow)).toBe(target);
    expect(targetOf(engine, one(engine, datagram(), 1, 300_000).flow)).not.toBe(target);
  });

  test("stickiness: a client keeps its target whatever its ports", async () => {
    const engine = await networkEngine(balanced({ isSticky: true }));
    for (const client of ["10.0.1.1", "10.0.1.2", "10.0.1.3"]) {
      const seen = Array.from({ length: 30 }, (_, n) =>
        targetOf(engine, one(engine, syn(5000 + n, n * 77, client)).flow),
      );
      expect(new Set(seen).size).toBe(1);
    }
  });

  test("weights share flows out; a weight of 0 gets none", async () => {
    const weights = [1, 2, 0];
    const targets = weights.map((weight, n) => ({ address: `10.0.2.${n}`, port: 8080, weight }));
    const engine = await networkEngine(balanced({ targets }), 8192);
    const counts = [0, 0, 0];
    for (let port = 1025; port < 4025; port++) {
      const last = Number(targetOf(engine, one(engine, syn(port)).flow)?.split(".")[3]);
      counts[last] = (counts[last] ?? 0) + 1;
    }
    expect(counts[2]).toBe(0);
    expect(Math.abs((counts[0] ?? 0) - 1000)).toBeLessThan(100);
  });

  test("a target that is its own client is never reached", async () => {
    const engine = await networkEngine(balanced({ targets: [{ address: CLIENT, port: 8080 }] }));
    expect(one(engine, syn()).verdict).toBe("drop.same-endpoint");
    engine.setTables(balanced({ targets: [{ address: CLIENT, port: 8080 }], sources: [NODE] }));
    expect(one(engine, syn()).verdict).toBe("forward");
  });

  test("without any target nothing begins", async () => {
    const engine = await networkEngine(balanced({ targets: [] }));
    expect(one(engine, syn()).verdict).toBe("drop.no-target");
    expect(usageOf(engine, "web")).toMatchObject({ flowsRefused: 1, packetsDropped: 1 });
  });

  test("flows to unhealthy targets are counted", async () => {
    const engine = await networkEngine(balanced({ isFailOpen: true }));
    one(engine, syn());
    expect(usageOf(engine, "web").flowsFailOpen).toBe(1);
  });
});

describe("the time of a flow", () => {
  let engine: Engine;
  beforeEach(async () => {
    engine = await networkEngine(balanced({ idleSeconds: 60 }));
  });

  /** Opens a connection at 0 and returns the target's answer as a maker of frames. */
  function open() {
    const { flow } = one(engine, syn(), 1, 0);
    const target = engine.flow(flow)?.translatedService.address ?? "";
    return (flags: string) => eth().ip(target, CLIENT).tcp(8080, 40000, { flags });
  }

  test("an answer within 30 s establishes it, one at 31 s is dropped", () => {
    expect(one(engine, open()("SA"), 1, 30_000).verdict).toBe("forward");
    expect(usageOf(engine, "web").established).toBe(1);
    one(engine, segment("R"), 1, 30_001);
    const answer = open();
    expect(one(engine, answer("SA"), 1, 31_000).verdict).toBe("drop.no-flow");
  });

  test("it passes as long as its service allows; the next packet gets a reset, and no FIN", () => {
    one(engine, open()("SA"), 1, 10);
    expect(one(engine, segment("A"), 1, 60_010).verdict).toBe("forward");
    const frame = segment("PA").bytes();
    const late = one(engine, segment("PA"), 1, 120_011);
    expect(late).toMatchObject({ verdict: "drop.no-flow" });
    expect(late.made).toEqual([{ kind: "rst", isAfter: true, frame: resetTo(frame), portOut: 1 }]);
    expect(usageOf(engine, "web").resets.made).toBe(1);
    engine.expire();
    expect(usageOf(engine, "web").idleTimeouts).toBe(1);
  });

  test("a target's data after that is answered by a reset, and is no neighbour's", async () => {
    const answer = open();
    one(engine, answer("SA"), 1, 10);
    for (const [flags, timeMs, verdict] of [
      ["PA", 200_000, "drop.no-flow"],
      ["FA", 200_001, "drop.no-flow"],
      ["SA", 200_002, "drop.unintended"],
      ["R", 200_003, "drop.unintended"],
    ] as const) {
      const frame = answer(flags);
      const out = one(engine, frame, 1, timeMs);
      expect(out.verdict).toBe(verdict);
      const isTold = verdict === "drop.no-flow";
      const reset = () => ({
        kind: "rst",
        isAfter: true,
        frame: resetTo(frame.bytes()),
        portOut: 1,
      });
      expect(out.made).toEqual(isTold ? [reset()] : []);
    }
    expect(usageOf(engine, "web").resets.made).toBe(2);
    // What it begins itself is its own, and whoever calls it past the load balancer is answered.
    const call = eth().ip("10.0.2.10", CLIENT).tcp(8080, 22, { flags: "S" });
    expect(one(engine, call, 1, 200_010).verdict).toBe("forward");
    const direct = eth().ip(CLIENT, "10.0.2.10").tcp(50_000, 8080, { flags: "S" });
    const { flow } = one(engine, direct, 1, 200_020);
    const reply = eth().ip("10.0.2.10", CLIENT).tcp(8080, 50_000, { flags: "SA" });
    expect(one(engine, reply, 1, 200_030)).toMatchObject({ verdict: "forward", flow });
  });

  test("a target that does not see clients is anybody to others", async () => {
    engine = await networkEngine(balanced({ sources: [NODE] }));
    const data = eth().ip("10.0.2.10", CLIENT).tcp(8080, 40000, { flags: "PA" });
    expect(one(engine, data).verdict).toBe("forward");
  });

  test("a service may never time out, beside others that do", async () => {
    const tables = balanced({ idleSeconds: 0 });
    engine = await networkEngine(tables);
    one(engine, open()("SA"), 1, 10);
    expect(one(engine, segment("A"), 1, 2_000_000_000).verdict).toBe("forward");
  });

  test("a closed connection is nobody's: the next SYN is a new choice", () => {
    const answer = open();
    one(engine, answer("SA"), 1, 10);
    one(engine, answer("R"), 1, 20);
    expect(usageOf(engine, "web").resets.service).toBe(1);
    expect(one(engine, syn(40000, 99), 1, 30).verdict).toBe("forward");
    expect(usageOf(engine, "web").tcp).toEqual({ created: 2, active: 1 });
  });

  test("when a target is terminated, its flows are answered by resets and begin anew", () => {
    const answer = open();
    one(engine, answer("SA"), 1, 10);
    const target = engine.flow(one(engine, segment("A"), 1, 20).flow)?.translatedService.address;
    expect(engine.terminate({ service: "web", address: target as string, port: 8081 })).toBe(0);
    expect(engine.terminate({ service: "web", address: target as string, port: 8080 })).toBe(1);
    const toClient = one(engine, answer("PA"), 1, 30);
    expect(toClient.verdict).toBe("drop.no-flow");
    expect(toClient.made.map(({ kind }) => kind)).toEqual(["rst"]);
    const fromClient = one(engine, segment("A"), 1, 40);
    expect(fromClient.made).toEqual([
      { kind: "rst", isAfter: true, frame: resetTo(segment("A").bytes()), portOut: 1 },
    ]);
    expect(one(engine, syn(40000, 5), 1, 50).verdict).toBe("forward");
  });
});

describe("unintended traffic", () => {
  test("strays get a reset, other ports and pings nothing", async () => {
    const engine = await networkEngine(balanced());
    expect(one(engine, segment("A")).made).toHaveLength(1);
    expect(one(engine, segment("R")).made).toEqual([]);
    const others = [
      eth().ip(CLIENT, NODE).tcp(40000, 81, { flags: "S" }),
      eth().ip(CLIENT, NODE).udp(40000, 81),
      eth().ip(CLIENT, NODE).icmpQuery(8, 1),
      eth().ip(CLIENT, NODE).protocol(50, new Uint8Array(8)),
    ];
    for (const frame of others) {
      expect(one(engine, frame)).toMatchObject({ verdict: "drop.unintended", made: [] });
    }
    expect(usageOf(engine, "web").unintended).toBe(4);
  });

  test("ICMP errors pass if they tell of an unreachable destination", async () => {
    const engine = await networkEngine(
      balanced({ targets: [{ address: "10.0.2.10", port: 8080 }] }),
    );
    one(engine, syn());
    const about = raw().ip(CLIENT, "10.0.2.10").tcp(40000, 8080, { flags: "S", seq: 7 });
    const error = (type: number) =>
      eth().ipv4("10.0.2.10", CLIENT).icmpError(type, 1, about, { quotedBytes: 28 });
    expect(one(engine, error(11)).verdict).toBe("drop.unintended");
    const out = one(engine, error(3));
    const expected = eth()
      .ipv4(NODE, CLIENT)
      .icmpError(3, 1, raw().ip(CLIENT, NODE).tcp(40000, 80, { flags: "S", seq: 7 }), {
        quotedBytes: 28,
      });
    expect(out.verdict).toBe("forward");
    const addressesOf = (frame: Uint8Array) => [...frame.subarray(26, 34)];
    expect(addressesOf(out.frame)).toEqual(addressesOf(expected.bytes()));
  });

  test("fragments pass if they are of UDP", async () => {
    const engine = await networkEngine(balanced());
    const piece = (protocol: number, first: boolean) => {
      const network = eth().ipv4(CLIENT, NODE, {
        protocol,
        id: 5,
        fragmentOffset: first ? 0 : 64,
        moreFragments: first,
      });
      if (!first) return network.payload(40);
      return protocol === 17
        ? network.udp(5000, 80).payload(56)
        : network.tcp(5000, 80, { flags: "S" }).payload(44);
    };
    expect(one(engine, piece(17, true)).verdict).toBe("forward");
    expect(one(engine, piece(17, false)).verdict).toBe("forward");
    expect(one(engine, piece(6, true)).verdict).toBe("drop.fragment");
    expect(one(engine, piece(6, false)).verdict).toBe("drop.fragment");
  });
});

describe("a NAT gateway", () => {
  const SERVER = "192.0.2.80";

  test("takes what goes out and what answers it, and nothing that nobody asked for", async () => {
    const engine = await networkEngine(gateway());
    const out = one(engine, eth().ip(CLIENT, SERVER).udp(5353, 53));
    expect(out).toMatchObject({ verdict: "forward", portOut: 9 });
    const port = engine.flow(out.flow)?.translatedClient.port ?? 0;
    expect(port).toBeGreaterThanOrEqual(1024);
    const back = one(engine, eth().ip(SERVER, "203.0.113.1").udp(53, port), 9);
    expect(back).toMatchObject({ verdict: "forward", portOut: 1, flow: out.flow });
    const unasked = [
      eth()
        .ip(SERVER, "203.0.113.1")
        .udp(53, port + 1),
      eth().ip(SERVER, "203.0.113.1").tcp(80, 5000, { flags: "S" }),
      eth().ip(SERVER, "203.0.113.1").tcp(80, 5000, { flags: "A" }),
      eth().ip(SERVER, "203.0.113.1").icmpQuery(8, 1),
    ];
    for (const frame of unasked) {
      expect(one(engine, frame, 9)).toMatchObject({ verdict: "drop.unintended", made: [] });
    }
  });

  test("answers a late packet from inside by a reset, and nothing from outside", async () => {
    const engine = await networkEngine(gateway());
    const out = one(engine, eth().ip(CLIENT, SERVER).tcp(50000, 80, { flags: "S" }), 1, 0);
    one(engine, eth().ip(SERVER, "203.0.113.1").tcp(80, 50000, { flags: "SA" }), 9, 5);
    const inside = () => eth().ip(CLIENT, SERVER).tcp(50000, 80, { flags: "PA" });
    expect(out.verdict).toBe("forward");
    expect(one(engine, inside(), 1, 350_005).verdict).toBe("forward");
    const late = one(engine, inside(), 1, 700_006);
    expect(late.made).toEqual([
      { kind: "rst", isAfter: true, frame: resetTo(inside().bytes()), portOut: 1 },
    ]);
    const outside = eth().ip(SERVER, "203.0.113.1").tcp(80, 50000, { flags: "PA" });
    expect(one(engine, outside, 9, 700_006).made).toEqual([]);
  });

  test.each([
    ["IPv4 that must not be fragmented", true, 1],
    ["IPv4 that may be", false, 0],
  ])("is too small for %s: %#", async (_, doNotFragment, told) => {
    const engine = await networkEngine(gateway());
    const fits = eth().ipv4(CLIENT, SERVER, { df: doNotFragment }).udp(5353, 53).payload(8472);
    expect(one(engine, fits).verdict).toBe("forward");
    const large = eth().ipv4(CLIENT, SERVER, { df: doNotFragment }).udp(5353, 53).payload(8473);
    const out = one(engine, large);
    expect(out.verdict).toBe("drop.too-large");
    expect(out.made.map(({ kind }) => kind)).toEqual(Array(told).fill("icmp"));
    if (told === 0) return;
    const quoted = raw().ipv4(CLIENT, SERVER, { df: doNotFragment }).udp(5353, 53).payload(8473);
    const error = eth()
      .ipv4(SERVER, CLIENT)
      .icmpError(3, 4, quoted, { quotedBytes: 548, rest: 8500 });
    const made = out.made[0]?.frame ?? new Uint8Array();
    expect([...made.subarray(34)]).toEqual([...error.bytes().subarray(34)]);
  });

  test("lowers the segment size of every SYN, and nothing else", async () => {
    const engine = await networkEngine(gateway());
    const size = (frame: Uint8Array) => ((frame[56] ?? 0) << 8) | (frame[57] ?? 0);
    const options = (mss: number) => ({
      flags: "S",
      options: Uint8Array.of(2, 4, mss >> 8, mss & 255),
    });
    const large = one(engine, eth().ip(CLIENT, SERVER).tcp(50000, 80, options(8960)));
    expect(size(large.frame)).toBe(8460);
    const expected = eth().ip("203.0.113.1", SERVER).tcp(50000, 80, options(8460)).bytes();
    expect([...large.frame]).toEqual([...expected]);
    const answer = eth()
      .ip(SERVER, "203.0.113.1")
      .tcp(80, 50000, { ...options(9000), flags: "SA" });
    expect(size(one(engine, answer, 9).frame)).toBe(8460);
    const small = one(engine, eth().ip(CLIENT, SERVER).tcp(50001, 80, options(1460)));
    expect(size(small.frame)).toBe(1460);
  });

  test("takes TCP, UDP and pings, no fragments of TCP and ICMP", async () => {
    const engine = await networkEngine(gateway());
    const to = () => eth().ip(CLIENT, SERVER);
    expect(one(engine, to().icmpQuery(8, 20000)).verdict).toBe("forward");
    expect(one(engine, to().protocol(50, new Uint8Array(8))).verdict).toBe("drop.no-flow");
    const ping = eth()
      .ipv4(CLIENT, SERVER, { protocol: 1, id: 1, moreFragments: true })
      .icmpQuery(8, 20001)
      .payload(32);
    expect(one(engine, ping).verdict).toBe("drop.fragment");
  });
});

describe("security groups", () => {
  const rules = {
    web: [
      { protocol: "tcp" as const, ports: [80, 80] as const, cidr: "10.0.1.0/24" },
      { protocol: "udp" as const, ports: [1, 100] as const, cidr: "10.0.0.0/8" },
      { cidr: "192.0.2.1/32" },
    ],
    out: [{ protocol: "tcp" as const, ports: [8080, 8080] as const, cidr: "10.0.2.10/32" }],
    none: [],
  };
  const guarded = (names: NetworkService["rules"], options: Partial<NetworkService> = {}) => ({
    ...balanced({ rules: names as NonNullable<NetworkService["rules"]>, ...options }),
    rules,
  });

  test.each([
    ["10.0.1.7", "tcp", "forward"],
    ["10.0.3.7", "tcp", "drop.security-group"],
    ["10.9.3.7", "udp", "forward"],
    ["192.0.2.1", "tcp", "forward"],
    ["192.0.2.2", "udp", "drop.security-group"],
  ])("inbound, %s with %s: %s", async (from, protocol, verdict) => {
    const engine = await networkEngine(guarded({ inbound: "web" }));
    const way = eth().ip(from, NODE);
    const frame = protocol === "tcp" ? way.tcp(4000, 80, { flags: "S" }) : way.udp(4000, 80);
    expect(one(engine, frame).verdict).toBe(verdict);
    const { blocked } = usageOf(engine, "web");
    const counted = protocol === "tcp" ? blocked.inbound.tcp : blocked.inbound.udp;
    expect(counted).toBe(verdict === "forward" ? 0 : 1);
  });

  test("outbound is asked about the target, endpoint groups are counted apart", async () => {
    const only = (address: string) => [{ address, port: 8080 }];
    const engine = await networkEngine(
      guarded({ outbound: "out" }, { targets: only("10.0.2.10") }),
    );
    expect(one(engine, syn(1)).verdict).toBe("forward");
    engine.setTables(guarded({ outbound: "out" }, { targets: only("10.0.2.11") }));
    expect(one(engine, syn(2)).verdict).toBe("drop.security-group");
    engine.setTables(guarded({ endpoint: "none", inbound: "web" }));
    expect(one(engine, syn(3)).verdict).toBe("drop.security-group");
    expect(usageOf(engine, "web").blocked).toEqual({
      inbound: { tcp: 0, udp: 0, other: 0 },
      outbound: { tcp: 1, udp: 0, other: 0 },
      endpoint: 1,
    });
  });

  test("a flow that exists is not asked again", async () => {
    const engine = await networkEngine(guarded({ inbound: "web" }));
    const out = one(engine, syn());
    engine.setTables(guarded({ inbound: "none" }));
    expect(one(engine, segment("A")).flow).toBe(out.flow);
    expect(one(engine, syn(41000)).verdict).toBe("drop.security-group");
  });
});

describe("an interface endpoint", () => {
  const tables: NetworkTables = {
    vpcs: [
      {
        vpc: 1,
        port: 1,
        addresses: [
          {
            address: "10.0.1.50",
            service: "endpoint",
            listeners: [{ protocol: "tcp", port: 443, service: "endpoint" }],
          },
        ],
      },
      { vpc: 2, port: 2, addresses: [{ address: "10.0.1.5", service: "endpoint" }] },
    ],
    services: [
      {
        id: "endpoint",
        kind: "load-balancer",
        vpc: 2,
        sources: ["10.0.1.5"],
        targets: [{ address: "10.0.1.7", port: 8443 }],
        mtuBytes: 8500,
      },
    ],
  };

  test("brings a client to a target of the same address in another VPC, from the node's address", async () => {
    const engine = await networkEngine(tables);
    const out = one(engine, eth().ip(CLIENT, "10.0.1.50").tcp(50000, 443, { flags: "S", seq: 3 }));
    expect(out).toMatchObject({ verdict: "forward", portOut: 2 });
    const seen = eth().ip("10.0.1.5", "10.0.1.7").tcp(50000, 8443, { flags: "S", seq: 3 });
    expect([...out.frame]).toEqual([...seen.bytes()]);
    const back = one(engine, eth().ip("10.0.1.7", "10.0.1.5").tcp(8443, 50000, { flags: "SA" }), 2);
    expect(back).toMatchObject({ verdict: "forward", portOut: 1 });
    const answer = eth().ip("10.0.1.50", CLIENT).tcp(443, 50000, { flags: "SA" });
    expect([...back.frame]).toEqual([...answer.bytes()]);
  });

  test("drops what is too large without a word, and never lets the service call", async () => {
    const engine = await networkEngine(tables);
    one(engine, eth().ip(CLIENT, "10.0.1.50").tcp(50000, 443, { flags: "S" }));
    const large = eth().ip(CLIENT, "10.0.1.50").tcp(50000, 443, { flags: "A" }).payload(8461);
    expect(one(engine, large)).toMatchObject({ verdict: "drop.too-large", made: [] });
    const fits = eth().ip(CLIENT, "10.0.1.50").tcp(50000, 443, { flags: "A" }).payload(8460);
    expect(one(engine, fits).verdict).toBe("forward");
    const call = eth().ip("10.0.1.7", "10.0.1.5").tcp(8443, 50001, { flags: "S" });
    expect(one(engine, call, 2).verdict).toBe("drop.unintended");
  });
});
