/**
 * What the engine does when something is used up (ports, tuples, slots), and how it shares flows
 * between targets.
 */
import { describe, expect, test } from "vitest";
import { eth, type Packet } from "../fixtures/packets.ts";
import { CLIENT, NAT, nat, nlb, play, SERVER, TARGET } from "./cases.ts";
import { send, smallEngine } from "./harness.ts";

describe("when there is no room", () => {
  const udpFrom = (i: number, port = 5000): Packet =>
    eth()
      .ipv4(`10.${i >> 16}.${(i >> 8) & 0xff}.${i & 0xff}`, SERVER)
      .udp(port, 53);
  const pingFrom = (i: number, identifier: number): Packet =>
    eth()
      .ipv4(`10.${i >> 16}.${(i >> 8) & 0xff}.${i & 0xff}`, SERVER)
      .icmpQuery(8, identifier);

  test("a protocol without ports has one flow per NAT address and server", async () => {
    const gre = (from: string) => eth().ipv4(from, SERVER).protocol(47, new Uint8Array(8));
    const { counters } = await play(nat(), [
      { frame: gre(CLIENT), out: gre(NAT) },
      { frame: gre("10.0.0.2"), verdict: "drop.port-exhausted" },
    ]);
    expect(counters.verdicts["drop.port-exhausted"]).toBe(1);
  });

  test("a second pool address helps it, and usage tells what was refused", async () => {
    const setup = nat();
    setup.services[0] = { sourceAddresses: [NAT, "198.51.100.2"] };
    const engine = await smallEngine(setup);
    const gre = (i: number) => eth().ipv4(`10.0.0.${i}`, SERVER).protocol(47, new Uint8Array(8));
    const out = send(
      engine,
      [1, 2, 3].map((i) => ({ frame: gre(i) })),
    );
    const verdicts = out.map((departure) => departure.verdict);
    expect(verdicts).toEqual(["forward", "forward", "drop.port-exhausted"]);
    expect(engine.usage(0)).toMatchObject({ flowsCreated: 2, flowsActive: 2, portsExhausted: 1 });
  });

  test("most of 64,512 ports towards one server can be had before any is refused", async () => {
    const engine = await smallEngine(nat(), 70_000);
    const out = send(
      engine,
      Array.from({ length: 64_600 }, (_, i) => ({ frame: udpFrom(i, 5000 + (i % 64)) })),
    );
    const first = out.findIndex((departure) => departure.verdict !== "forward");
    expect(first).toBeGreaterThan(50_000);
    expect(out.at(first)?.verdict).toBe("drop.port-exhausted");
    const ports = [...engine.flows()].map((flow) => flow.translatedClient.port);
    expect(new Set(ports).size).toBe(ports.length);
    expect(Math.min(...ports)).toBeGreaterThanOrEqual(1024);
  });

  test.each([
    ["a UDP port", 5000, udpFrom],
    ["a UDP port below 1024", 123, udpFrom],
    ["an ICMP identifier", 77, pingFrom],
  ] as const)("%s is changed to one with the same low six bits", async (_, own, from) => {
    const engine = await smallEngine(nat(), 5_000);
    const out = send(
      engine,
      Array.from({ length: 1_100 }, (_, i) => ({ frame: from(i, own) })),
    );
    const first = out.findIndex((departure) => departure.verdict !== "forward");
    expect(first).toBeGreaterThan(800);
    expect(out.at(first)?.verdict).toBe("drop.port-exhausted");
    const ports = [...engine.flows()].map((flow) => flow.translatedClient.port);
    expect(new Set(ports).size).toBe(ports.length);
    expect(new Set(ports.map((port) => port % 64))).toEqual(new Set([own % 64]));
    expect(ports.filter((port) => port < 1024)).toEqual(own === 77 ? [77] : []);
    const [other] = send(engine, [{ frame: from(0, own + 1) }]);
    expect(other?.verdict).toBe("forward");
  });

  test("two listeners with one target cannot both have one client's tuple", async () => {
    const udp = (to: string) => eth().ipv4(CLIENT, to).udp(5000, 53);
    await play(nlb(), [
      { frame: udp(SERVER), out: udp(TARGET) },
      { frame: udp("192.0.2.2"), verdict: "drop.tuple-taken" },
      { frame: udp(SERVER), out: udp(TARGET), timeMs: 1 },
      { frame: udp("192.0.2.2"), out: udp(TARGET), timeMs: 120_002 },
    ]);
  });

  test("a tuple that was given on has its new owner, even when time steps back in a batch", async () => {
    const udp = (to: string) => eth().ipv4(CLIENT, to).udp(5000, 53);
    const engine = await smallEngine(nlb());
    send(engine, [{ frame: udp(SERVER) }]);
    const verdicts = send(engine, [
      { frame: udp("192.0.2.2"), timeMs: 500_000 },
      { frame: udp(SERVER), timeMs: 100 },
    ]).map((departure) => departure.verdict);
    expect(verdicts).toEqual(["forward", "drop.tuple-taken"]);
    expect([...engine.flows()].map((flow) => flow.service.address)).toEqual(["192.0.2.2"]);
  });

  test("a full table refuses new flows, serves the old and takes new ones again later", async () => {
    const engine = await smallEngine(nat(), 100);
    const arrivals = Array.from({ length: 150 }, (_, i) => ({ frame: udpFrom(i) }));
    const verdicts = send(engine, arrivals).map((departure) => departure.verdict);
    expect(verdicts.slice(0, 100).every((verdict) => verdict === "forward")).toBe(true);
    expect(verdicts.slice(100).every((verdict) => verdict === "drop.table-full")).toBe(true);
    expect(engine.counters().flows).toMatchObject({ created: 100, active: 100, activeMax: 100 });
    expect(send(engine, arrivals.slice(0, 1)).map(({ verdict }) => verdict)).toEqual(["forward"]);
    const later = arrivals.slice(100).map(({ frame }) => ({ frame, timeMs: 121_000 }));
    expect(send(engine, later).every(({ verdict }) => verdict === "forward")).toBe(true);
  });
});

test("whom a crowded table forgets does not depend on batches", async () => {
  const udp = (i: number) =>
    eth()
      .ipv4(`10.0.${i >> 8}.${i & 0xff}`, SERVER)
      .udp(5000, 53);
  const before = Array.from({ length: 380 }, (_, i) => ({ frame: udp(i) }));
  // Long after: a newcomer, then somebody of old, whose port tells whether it was forgotten.
  const after = Array.from({ length: 500 }, (_, i) => ({
    frame: udp(i % 2 === 0 ? 1000 + i : i),
    timeMs: 400_000 + i,
  }));
  const setup = nat();
  setup.services[0] = { sourceAddresses: [NAT], adopt: true };
  const outputs = [];
  for (const batchSize of [1, 10, 64, 256]) {
    const engine = await smallEngine(setup, 400);
    const out = send(engine, [...before, ...after], batchSize);
    const told = out.map(
      ({ verdict, frame }) => `${verdict} ${Buffer.from(frame).toString("hex")}`,
    );
    outputs.push(told);
  }
  expect(new Set(outputs[0]).size).toBeGreaterThan(600);
  for (const output of outputs) expect(output).toEqual(outputs[0]);
});

describe("targets", () => {
  const three = ["172.16.0.1", "172.16.0.2", "172.16.0.3"].map((address) => ({ address }));
  const clients = Array.from({ length: 3000 }, (_, i) => ({
    frame: eth()
      .ipv4(`10.0.${i >> 8}.${i & 0xff}`, SERVER)
      .udp(5000, 53),
  }));

  async function targetsOf(targets: { address: string; weight?: number }[]) {
    const engine = await smallEngine({ services: [{ targets }], ports: [{ service: 0 }] });
    send(engine, clients);
    const flows = [...engine.flows()].map((flow) => [
      flow.client.address,
      flow.translatedService.address,
    ]);
    return new Map(flows as [string, string][]);
  }

  test("share flows evenly, and each flow keeps the target that its tuple has", async () => {
    const chosen = await targetsOf(three);
    for (const { address } of three) {
      const share = [...chosen.values()].filter((target) => target === address).length;
      expect(share).toBeGreaterThan(850);
      expect(share).toBeLessThan(1150);
    }
    expect(await targetsOf(three)).toEqual(chosen);
  });

  test("when one goes, few flows of the others move", async () => {
    const before = await targetsOf(three);
    const after = await targetsOf(three.slice(0, 2));
    const stayers = [...before].filter(([, target]) => target !== "172.16.0.3");
    const moved = stayers.filter(([client, target]) => after.get(client) !== target);
    expect(moved.length).toBeLessThan(stayers.length * 0.05);
  });

  test("of weight 0 get nothing, and a family without targets stays as it is", async () => {
    const chosen = await targetsOf([...three.slice(0, 1), { address: "172.16.0.2", weight: 0 }]);
    expect(new Set(chosen.values())).toEqual(new Set(["172.16.0.1"]));
    const six = eth().ipv6("2001:db8::1", "2001:db8::2").udp(5000, 53);
    await play({ services: [{ targets: three }], ports: [{ service: 0 }] }, [
      { frame: six, out: six },
    ]);
  });
});
