/**
 * What the engine keeps of packets, case by case: flows with their states and timeouts, what may
 * begin one, zones, and the counters. Times are in milliseconds of the packets' clock.
 */
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import type { Flow } from "../host/engine/api.ts";
import { CLIENT, NAT, nat, natAdopting, play, SERVER, type Step } from "./cases.ts";
import { type Arrival, type Setup, send, smallEngine } from "./harness.ts";

/** A TCP packet of the one connection that these tests talk about. */
function fromClient(flags: string, timeMs = 0, verdict: Step["verdict"] = "forward"): Step {
  const packet = (source: string) => eth().ipv4(source, SERVER).tcp(5000, 80, { flags });
  const out = verdict === "forward" ? { out: packet(NAT) } : {};
  return { frame: packet(CLIENT), timeMs, verdict, ...out };
}

function fromService(flags: string, timeMs = 0, verdict: Step["verdict"] = "forward"): Step {
  const packet = (to: string) => eth().ipv4(SERVER, to).tcp(80, 5000, { flags });
  const out = verdict === "forward" ? { out: packet(CLIENT) } : {};
  return { frame: packet(NAT), port: 1, timeMs, verdict, ...out };
}

const OPENED = [fromClient("S"), fromService("SA", 1), fromClient("A", 2)];

describe("TCP states", () => {
  const cases: [string, Step[], Flow["state"]][] = [
    ["a SYN opens half", [fromClient("S")], "half-open"],
    ["the client alone cannot establish", [fromClient("S"), fromClient("A", 1)], "half-open"],
    ["an answer establishes", [fromClient("S"), fromService("SA", 1)], "established"],
    ["any answer but a RST does", [fromClient("S"), fromService("A", 1)], "established"],
    ["a refusal closes", [fromClient("S"), fromService("RA", 1)], "closing"],
    ["a FIN of the client", [...OPENED, fromClient("FA", 3)], "fin-client"],
    ["a FIN of the service", [...OPENED, fromService("FA", 3)], "fin-service"],
    ["one FIN twice", [...OPENED, fromClient("FA", 3), fromClient("FA", 4)], "fin-client"],
    ["both FINs", [...OPENED, fromClient("FA", 3), fromService("FA", 4)], "closing"],
    ["both the other way", [...OPENED, fromService("FA", 3), fromClient("FA", 4)], "closing"],
    ["a RST of the client", [...OPENED, fromClient("R", 3)], "closing"],
    ["an answer after the end", [...OPENED, fromClient("R", 3), fromService("A", 4)], "closing"],
  ];

  test.each(cases)("%s", async (_, steps, state) => {
    const { flows } = await play(nat(), steps);
    expect(flows.map((flow) => flow.state)).toEqual([state]);
  });

  test("a SYN of the client on a closed connection begins again on the same tuple", async () => {
    const steps = [...OPENED, fromClient("R", 3), fromClient("S", 4), fromService("SA", 5)];
    const { counters, flows } = await play(nat(), steps);
    expect(counters.flows).toMatchObject({ created: 1, reopened: 1, expired: 0, active: 1 });
    expect(flows).toMatchObject([
      { state: "established", packetsFromClient: 1, packetsFromService: 1 },
    ]);
  });

  test("a SYN of the service on a closed connection does not", async () => {
    const { counters } = await play(nat(), [...OPENED, fromClient("R", 3), fromService("S", 4)]);
    expect(counters.flows.reopened).toBe(0);
  });
});

describe("what may begin a flow", () => {
  const none = "drop.no-flow" as const;

  test.each(["A", "SA", "SR", "R", "FA", ""])("not TCP with flags '%s'", async (flags) => {
    const { counters } = await play(nat(), [fromClient(flags, 0, none)]);
    expect(counters.flows.created).toBe(0);
  });

  const adopted: [string, Flow["state"]][] = [
    ["A", "established"],
    ["SA", "established"],
    ["S", "half-open"],
    ["FA", "fin-client"],
    ["RA", "closing"],
  ];
  test.each(adopted)("but with flags '%s' where flows are adopted: %s", async (flags, state) => {
    const { flows } = await play(natAdopting(), [fromClient(flags)]);
    expect(flows.map((flow) => flow.state)).toEqual([state]);
  });

  test("nothing on a port that carries only the service's side", async () => {
    await play(natAdopting(), [
      fromService("SA", 0, none),
      { frame: eth().ipv4(SERVER, NAT).udp(53, 5000), port: 1, verdict: none },
    ]);
  });

  test("nothing without a service", async () => {
    const setup: Setup = { services: [], ports: [{}] };
    const { counters } = await play(setup, [fromClient("S", 0, "drop.no-service")]);
    expect(counters.verdicts["drop.no-service"]).toBe(1);
  });

  test("not a service-side tuple on a client-side port", async () => {
    const stray = eth().ipv4(SERVER, NAT).tcp(80, 5000, { flags: "SA" });
    await play(nat(), [...OPENED, { frame: stray, verdict: none }]);
  });
});

describe("timeouts", () => {
  const udp = (timeMs: number): Step => ({
    frame: eth().ipv4(CLIENT, SERVER).udp(5000, 53),
    out: eth().ipv4(NAT, SERVER).udp(5000, 53),
    timeMs,
  });
  const other = (timeMs: number): Step => ({
    frame: eth().ipv4(CLIENT, SERVER).protocol(50, new Uint8Array(8)),
    out: eth().ipv4(NAT, SERVER).protocol(50, new Uint8Array(8)),
    timeMs,
  });
  const ping = (timeMs: number): Step => ({
    frame: eth().ipv4(CLIENT, SERVER).icmpQuery(8, 5),
    out: eth().ipv4(NAT, SERVER).icmpQuery(8, 5),
    timeMs,
  });
  const syn = (timeMs: number) => fromClient("S", timeMs);
  const kinds: [string, number, (timeMs: number) => Step][] = [
    ["UDP", 120_000, udp],
    ["ICMP", 60_000, ping],
    ["another protocol", 350_000, other],
    ["half-open TCP", 30_000, syn],
  ];

  test.each(kinds)("%s lives exactly %i ms after its last packet", async (_, timeoutMs, packet) => {
    const alive = await play(nat(), [packet(1000), packet(1000 + timeoutMs)]);
    expect(alive.counters.flows).toMatchObject({ created: 1, expired: 0, active: 1 });
    const over = await play(nat(), [packet(1000), packet(1001 + timeoutMs)]);
    expect(over.counters.flows).toMatchObject({ created: 2, expired: 1, active: 1 });
    expect(over.flows).toMatchObject([{ packetsFromClient: 1 }]);
  });

  test("an established connection lives 350 s, a closing one 60 s", async () => {
    const dead = "drop.no-flow" as const;
    await play(nat(), [...OPENED, fromService("A", 350_002), fromClient("A", 700_003, dead)]);
    const closed = [...OPENED, fromClient("R", 3)];
    await play(nat(), [...closed, fromService("A", 60_003), fromService("A", 120_003)]);
    await play(nat(), [...closed, fromService("A", 60_004, dead)]);
  });

  test("an answer does not revive a flow, nor does an ICMP error keep one alive", async () => {
    const answer = { frame: eth().ipv4(SERVER, NAT).udp(53, 5000), port: 1 };
    const quoted = eth().ipv4(NAT, SERVER).udp(5000, 53).bytes().subarray(14);
    const outer = eth().ipv4("203.0.113.9", NAT).icmpQuery(11, 0, 0).payload(quoted);
    const engine = await smallEngine(nat());
    const verdicts = send(engine, [
      udp(0),
      { frame: outer, port: 1, timeMs: 119_000 },
      { ...answer, timeMs: 120_001 },
    ]).map((departure) => departure.verdict);
    expect(verdicts).toEqual(["forward", "forward", "drop.no-flow"]);
  });

  test("time that steps back expires nothing", async () => {
    const { counters } = await play(nat(), [udp(500_000), udp(100_000), udp(150_000)]);
    expect(counters.flows).toMatchObject({ created: 1, expired: 0 });
  });

  test("timeouts are what the options say, and 0 is never", async () => {
    const { createEngine } = await import("../host/engine/engine.ts");
    const engine = await createEngine({ timeouts: { udp: 5, icmp: 0 }, warmUp: false });
    engine.setService(0, { sourceAddresses: [NAT] });
    engine.setPort(0, { service: 0 });
    send(engine, [udp(0), ping(0), udp(5001), ping(2_000_000_000)]);
    // The long pause makes the engine look at all flows: the UDP flow is over as well.
    expect(engine.counters().flows).toMatchObject({ created: 3, expired: 2, active: 1 });
  });

  test("expire() forgets what is over at the last packet's clock and nothing else", async () => {
    const engine = await smallEngine(nat());
    send(engine, [udp(0), ping(0), other(0), ping(100_000)]);
    expect(engine.expire()).toBe(0);
    send(engine, [{ frame: eth().arp("10.0.0.1", "10.0.0.2"), timeMs: 121_000 }]);
    expect(engine.expire()).toBe(1);
    expect([...engine.flows()].map((flow) => flow.protocol).toSorted()).toEqual(["50", "icmp"]);
  });

  test("expiring() does the same in steps, between which others pass", async () => {
    const [whole, stepped] = await Promise.all([1, 2].map(() => smallEngine(nat(), 40_000)));
    if (!whole || !stepped) return expect.unreachable();
    const ports = Array.from({ length: 500 }, (_, at) => 2000 + at);
    const from = (port: number, timeMs: number): Arrival => {
      return { frame: eth().ipv4(CLIENT, SERVER).udp(port, 53), timeMs };
    };
    for (const engine of [whole, stepped]) {
      const again = ports.filter((port) => port % 5 === 0);
      send(engine, [
        ...ports.map((port) => from(port, 0)),
        ...again.map((port) => from(port, 99_000)),
      ]);
    }
    expect(whole.expire(130_000)).toBe(400);
    const steps = stepped.expiring(130_000);
    for (let count = 1; ; count++) {
      const { done, value } = steps.next();
      if (done) {
        expect(value).toBe(400);
        expect(count).toBeGreaterThan(5);
        break;
      }
      send(stepped, [from(10_000 + count, 130_000 + count)]);
    }
    const clients = (engine: typeof whole) => [...engine.flows()].map(({ client }) => client.port);
    const old = clients(stepped).filter((port) => port < 10_000);
    expect(old.toSorted()).toEqual(clients(whole).toSorted());
  });
});

describe("zones", () => {
  const syn = (vlan: number[]) => eth({ vlan }).ipv4(CLIENT, SERVER).tcp(5000, 80, { flags: "S" });
  const out = (vlan: number[]) => eth({ vlan }).ipv4(NAT, SERVER).tcp(5000, 80, { flags: "S" });

  test("the same tuple in several VLANs is several flows, each with its port", async () => {
    const vlans = [[], [5], [6], [5, 6], [6, 5]];
    const steps = vlans.map((vlan) => ({ frame: syn(vlan), out: out(vlan) }));
    const { flows } = await play(nat(), steps);
    expect(flows).toHaveLength(5);
    expect(new Set(flows.map((flow) => flow.zone)).size).toBe(5);
  });

  test("priority tags are no VLAN, and of a tag only the number counts", async () => {
    const tagged = (tag: number) => ({ frame: syn([tag]), out: out([tag]) });
    const { counters } = await play(nat(), [tagged(0), tagged(0xe000), tagged(5), tagged(0x6005)]);
    expect(counters.flows.created).toBe(2);
  });

  test("the same tuple in two VPCs is two flows that share nothing", async () => {
    const setup: Setup = {
      services: [{ sourceAddresses: [NAT] }],
      ports: [
        { service: 0, vpc: 1, peer: 2 },
        { service: 0, vpc: 2, peer: 3 },
        { sides: "service", vpc: 1, peer: 0 },
        { sides: "service", vpc: 2, peer: 1 },
      ],
    };
    const answer = eth().ipv4(SERVER, NAT).tcp(80, 5000, { flags: "SA" });
    const inside = eth().ipv4(SERVER, CLIENT).tcp(80, 5000, { flags: "SA" });
    const { flows } = await play(setup, [
      { frame: syn([]), out: out([]), port: 0, portOut: 2 },
      { frame: answer, port: 3, verdict: "drop.no-flow" },
      { frame: syn([]), out: out([]), port: 1, portOut: 3 },
      { frame: answer, out: inside, port: 3, portOut: 1 },
    ]);
    expect(flows.map((flow) => flow.packetsFromService).toSorted()).toEqual([0, 1]);
  });

  test("more VLANs than there are zones are refused, and known ones go on", async () => {
    const engine = await smallEngine({ services: [{}], ports: [{ service: 0 }] }, 80_000);
    const arrivals: Arrival[] = [];
    for (let i = 0; i < 65_600; i++) {
      arrivals.push({
        frame: eth({ vlan: [1 + (i >> 12), i & 0xfff] })
          .ipv4(CLIENT, SERVER)
          .udp(1, 2),
      });
    }
    send(engine, [...arrivals, ...arrivals.slice(0, 1)]);
    const { verdicts } = engine.counters();
    // One zone is the untagged one of the ports, and one number is kept for "no zone".
    expect(verdicts["drop.zone-full"]).toBe(65_600 - 65_534);
    expect(verdicts.forward).toBe(65_534 + 1);
  });
});

describe("counters", () => {
  test("count every packet once, and flow bytes as captured in each direction", async () => {
    const small = eth().ipv4(CLIENT, SERVER).udp(5000, 53).payload(10);
    const large = eth().ipv4(SERVER, NAT).udp(53, 5000).payload(500);
    const engine = await smallEngine(nat());
    send(engine, [
      { frame: small },
      { frame: small, timeMs: 5 },
      { frame: large, port: 1, timeMs: 9 },
      { frame: eth().arp(CLIENT, SERVER) },
      { frame: eth().ipv4(SERVER, NAT).udp(1, 2), port: 1 },
    ]);
    const { verdicts, flows } = engine.counters();
    expect(verdicts).toMatchObject({ forward: 3, "pass.non-ip": 1, "drop.no-flow": 1 });
    expect(Object.values(verdicts).reduce((sum, n) => sum + n)).toBe(5);
    expect(flows).toMatchObject({ created: 1, udp: 1, tcp: 0, icmp: 0, other: 0, active: 1 });
    expect([...engine.flows()]).toMatchObject([
      {
        protocol: "udp",
        client: { address: CLIENT, port: 5000 },
        service: { address: SERVER, port: 53 },
        translatedClient: { address: NAT, port: 5000 },
        translatedService: { address: SERVER, port: 53 },
        packetsFromClient: 2,
        packetsFromService: 1,
        bytesFromClient: 2 * 52,
        bytesFromService: 542,
        lastSeenMs: 9,
      },
    ]);
    expect(engine.usage(0)).toMatchObject({
      packetsFromClient: 2,
      packetsFromService: 1,
      bytesFromClient: 104,
      bytesFromService: 542,
    });
  });
});
