/**
 * The compact table: every packet against its slow twin, whatever the batches; slots and translated
 * ports name each other; and what happens when ports run out.
 */
import { test as property } from "@fast-check/vitest";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import type { Flow } from "../host/engine/api.ts";
import {
  COMPACT_FLOWS_PER_ADDRESS,
  type CompactEngine,
  createCompactEngine,
} from "../host/engine/compact.ts";
import { type Arrival, bytesOf, send } from "./harness.ts";
import { CompactTwin, type CompactTwinFlow } from "./reference/compact.ts";
import type { TwinFlow } from "./reference/engine.ts";
import type { Tuple } from "./reference/parse.ts";
import { arrivalOf, SETUPS } from "./world.ts";

const SEED = Uint8Array.from({ length: 16 }, (_, index) => index);
const FIRST = "198.51.100.1";
const FIRST_NUMBER = 0xc6336401;
const HOLD_MS = 60_000;
const WORLD = SETUPS["source NAT between two ports"] as (typeof SETUPS)[string];

async function gateway(addressCount: number): Promise<CompactEngine> {
  const engine = await createCompactEngine({ firstAddress: FIRST, addressCount, seed: SEED });
  engine.setPort(0, { side: "client", peer: 1 });
  engine.setPort(1, { side: "service", peer: 0 });
  return engine;
}

/** A frame of TCP or UDP from one endpoint to another. */
function frame(source: string, destination: string, how: { syn?: boolean; udp?: boolean } = {}) {
  const [src = "", sport] = source.split(":");
  const [dst = "", dport] = destination.split(":");
  const packet = eth().ipv4(src, dst);
  const [from, to] = [Number(sport), Number(dport)];
  return how.udp ? packet.udp(from, to) : packet.tcp(from, to, { flags: how.syn ? "S" : "A" });
}

function shown({ source, sourcePort, destination, destinationPort }: Tuple): string {
  const dotted = (digits: string) => Buffer.from(digits, "hex").join(".");
  return `${dotted(source)}:${sourcePort} ${dotted(destination)}:${destinationPort}`;
}

/** A flow of either kind as one line. */
function lineOf(flow: Flow | CompactTwinFlow): string {
  if ("handle" in flow) {
    const { client, service, translatedClient: outer, translatedService: far } = flow;
    const ends = [client, service, outer, far].map(({ address, port }) => `${address}:${port}`);
    const { packetsFromClient, packetsFromService, bytesFromClient, bytesFromService } = flow;
    const counts = [packetsFromClient, packetsFromService, bytesFromClient, bytesFromService];
    return [...ends, flow.protocol, flow.state, flow.lastSeenMs, ...counts].join(" ");
  }
  const { client, service, state, lastSeenMs, packets, bytes } = flow;
  const protocol = client.protocol === 17 ? "udp" : "tcp";
  const counts = [...packets, ...bytes].join(" ");
  return `${shown(client)} ${shown(service)} ${protocol} ${state} ${lastSeenMs} ${counts}`;
}

describe("the compact table", () => {
  property.prop([fc.array(fc.nat(2 ** 31 - 1), { minLength: 1, maxLength: 300 })], {
    numRuns: 150,
  })("does with every packet what its twin does", async (seeds) => {
    const engine = await gateway(2);
    const twin = new CompactTwin(FIRST_NUMBER, 2, HOLD_MS);
    let nowMs = 0;
    for (const [index, seed] of seeds.entries()) {
      const flows = [...twin.flows.values()] as unknown as TwinFlow[];
      const arrival = arrivalOf(seed, WORLD, flows, nowMs);
      nowMs = arrival.timeMs ?? 0;
      const [got] = send(engine, [arrival]);
      const leaving = got?.verdict === "forward" ? got.frame : undefined;
      const bytes = bytesOf(arrival.frame);
      const wanted = twin.process(bytes, arrival.port === 0, nowMs, leaving);
      const verdicts: (string | undefined)[] = [wanted.verdict];
      if (wanted.quotes) verdicts.push("drop.truncated", "drop.malformed");
      expect(verdicts, `packet ${index}`).toContain(got?.verdict);
      expect(got?.frame).toEqual(wanted.frame);
      expect(got?.portOut).toBe(1 - (arrival.port ?? 0));
    }
    const live = [...engine.flows()];
    const wanted = [...twin.flows.values()];
    const kept = wanted.filter((flow) => !twin.isForgettable(flow, nowMs));
    expect(wanted.map(lineOf)).toEqual(expect.arrayContaining(live.map(lineOf)));
    expect(live.map(lineOf)).toEqual(expect.arrayContaining(kept.map(lineOf)));
    expect(engine.counters().flows.active).toBe(live.length);
    for (const flow of live) expect(engine.flow(flow.handle)).toEqual(flow);
  });

  test("knows a pause of any length from a short one", async () => {
    const engine = await gateway(1);
    const out = frame("10.0.0.1:2000", "192.0.2.1:53", { udp: true });
    const days = 86_400_000;
    let timeMs = 5;
    for (const pause of [
      30_000,
      7 * days,
      20 * days,
      25 * days,
      30 * days,
      49.71 * days,
      400 * days,
    ]) {
      const [sent] = send(engine, [{ frame: out, timeMs }]);
      const port = (engine.flow(sent?.flow ?? 0) as Flow).translatedClient.port;
      timeMs += pause;
      const answer = frame("192.0.2.1:53", `${FIRST}:${port}`, { udp: true });
      const [back] = send(engine, [{ frame: answer, port: 1, timeMs }]);
      expect(back?.verdict, `${pause} ms`).toBe(pause < 120_000 ? "forward" : "drop.no-flow");
    }
  });

  test("gives the same whatever the batches", async () => {
    const arrivals: Arrival[] = [];
    for (let index = 0, nowMs = 0; index < 2000; index++) {
      const arrival = arrivalOf(index * 7919, WORLD, [], nowMs);
      nowMs = arrival.timeMs ?? 0;
      arrivals.push(arrival);
    }
    const outcomes = [];
    for (const batch of [1, 7, 256]) {
      const engine = await gateway(1);
      outcomes.push({ left: send(engine, arrivals, batch), counters: engine.counters().verdicts });
    }
    expect(outcomes[1]).toEqual(outcomes[0]);
    expect(outcomes[2]).toEqual(outcomes[0]);
  });

  test("brings answers home, and keeps the low six bits of ports", async () => {
    const engine = await gateway(3);
    const clients = Array.from({ length: 2000 }, (_, index) => {
      return { address: `10.0.${index >> 8}.${index & 255}`, port: 1 + ((index * 769) % 65535) };
    });
    const outward = clients.map(({ address, port }) => ({
      frame: frame(`${address}:${port}`, "192.0.2.1:53", { udp: true }),
    }));
    const left = send(engine, outward);
    const places = new Set<string>();
    const answers = left.map(({ verdict, flow }, index) => {
      expect(verdict).toBe("forward");
      const { translatedClient } = engine.flow(flow) as Flow;
      const { address, port } = translatedClient;
      expect(port & 63).toBe((clients[index]?.port ?? 0) & 63);
      places.add(`${address}:${port}`);
      return { frame: frame("192.0.2.1:53", `${address}:${port}`, { udp: true }), port: 1 };
    });
    expect(places.size).toBe(clients.length);
    for (const [index, { verdict, flow }] of send(engine, answers).entries()) {
      expect(verdict).toBe("forward");
      expect(engine.flow(flow)?.client).toEqual(clients[index]);
    }
    // The same port asked by anybody else is nobody's.
    const [stranger] = send(engine, [
      { frame: frame("192.0.2.9:53", bytesText(left[0]?.frame), { udp: true }), port: 1 },
    ]);
    expect(stranger?.verdict).toBe("drop.no-flow");
  });

  test("fills six sevenths of its slots, then refuses, and gives ports back", async () => {
    const engine = await gateway(1);
    expect(engine.slotCount).toBe(COMPACT_FLOWS_PER_ADDRESS);
    const syn = frame("10.0.0.0:1024", "192.0.2.1:443", { syn: true }).bytes();
    const many = (timeMs: number, net: number) =>
      Array.from({ length: 62_000 }, (_, index) => {
        const bytes = syn.slice();
        new DataView(bytes.buffer).setUint32(26, ((10 << 24) | (net << 16)) + index);
        new DataView(bytes.buffer).setUint16(34, 1024 + (index % 60_000));
        return { frame: bytes, timeMs };
      });
    const first = send(engine, many(0, 0));
    const refused = first.findIndex(({ verdict }) => verdict !== "forward");
    expect(first[refused]?.verdict).toBe("drop.port-exhausted");
    expect(refused).toBeGreaterThan(COMPACT_FLOWS_PER_ADDRESS * 0.85);
    const { active, created } = engine.counters().flows;
    expect(active).toBe(created);
    expect(engine.usage().portsExhausted).toBe(62_000 - created);
    expect([...engine.flows()]).toHaveLength(active);
    // Half-open flows are over after 30 s, but their ports rest for 60 s.
    const again = (timeMs: number) => send(engine, [many(timeMs, 0)[refused] as Arrival])[0];
    expect(again(59_000)?.verdict).toBe("drop.port-exhausted");
    expect(again(60_001)?.verdict).toBe("forward");
    const later = send(engine, many(61_000, 16));
    expect(later.findIndex(({ verdict }) => verdict !== "forward")).toBeGreaterThan(
      COMPACT_FLOWS_PER_ADDRESS * 0.85,
    );
    const { active: last } = engine.counters().flows;
    expect(engine.expire(10_000_000)).toBe(last);
    expect([...engine.flows()]).toHaveLength(0);
  });

  test("refuses what it cannot be", async () => {
    const make = (options: object) =>
      createCompactEngine({ firstAddress: FIRST, addressCount: 1, ...options });
    await expect(make({ addressCount: 0 })).rejects.toThrow(/^addressCount: 0 is not/);
    await expect(make({ addressCount: 1951 })).rejects.toThrow(/^addressCount: 1951 is not/);
    await expect(make({ firstAddress: "::1" })).rejects.toThrow(/^firstAddress: "::1" is not/);
    await expect(make({ firstAddress: "x" })).rejects.toThrow(/^firstAddress: "x" is not/);
    await expect(make({ firstAddress: "255.255.255.255", addressCount: 2 })).rejects.toThrow(
      /^firstAddress: 2 addresses/,
    );
    await expect(make({ flowCountMax: 5 })).rejects.toThrow(/^flowCountMax: no such option/);
    const engine = await make({});
    expect(() => engine.setPort(0, { side: "both" as "client", peer: 1 })).toThrow(/^side: "both"/);
    expect(() => engine.process(257)).toThrow(/^count: 257/);
    engine.descriptors.set([16, 64, 0, 0], 0);
    expect(() => engine.process(1)).toThrow(/^descriptor 0: 64 bytes at 16 are not in the arena/);
  });
});

/** Source address and port of a frame. */
function bytesText(bytes: Uint8Array | undefined): string {
  const view = new DataView(bytes?.buffer ?? new ArrayBuffer(64), bytes?.byteOffset);
  const address = [26, 27, 28, 29].map((at) => view.getUint8(at)).join(".");
  return `${address}:${view.getUint16(34)}`;
}
