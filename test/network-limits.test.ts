/**
 * The limits of resources: units of capacity over packet time, and flows per address and destination.
 */
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import type { Engine } from "../host/engine/engine.ts";
import type { NetworkCapacity } from "../host/engine/network.ts";
import { send } from "./harness.ts";
import { balanced, CLIENT, gateway, NODE, networkEngine, one, usageOf } from "./network.ts";

describe("capacity", () => {
  const with1 = (capacity: NetworkCapacity) => ({
    ...balanced({ capacity: "lb" }),
    capacities: { lb: capacity },
  });

  /** Offers packets of one size at a rate for some ms of the clock; returns the share that passed. */
  function offer(engine: Engine, bytes: number, gbps: number, durationMs: number, fromMs: number) {
    const frame = eth()
      .ip(CLIENT, NODE)
      .udp(5000, 80)
      .payload(bytes - 42)
      .bytes();
    const perMs = Math.round((gbps * 1e6) / 8 / bytes);
    const before = engine.counters().verdicts.forward;
    for (let ms = 0; ms < durationMs; ms++) {
      for (let left = perMs; left > 0; left -= 256) {
        fill(engine, frame, Math.min(left, 256), fromMs + ms);
      }
    }
    return (engine.counters().verdicts.forward - before) / (perMs * durationMs);
  }

  /** A batch of one frame, many times; it stays as it is, for nothing is read again. */
  function fill(engine: Engine, frame: Uint8Array, count: number, timeMs: number) {
    const { arena, bytes, descriptors } = engine;
    for (let index = 0; index < count; index++) {
      const address = arena.address + index * 1536;
      bytes.set(frame, address);
      descriptors.set([address, frame.length, timeMs, 1, 0, 0, 0, frame.length], index * 8);
    }
    engine.process(count);
  }

  test.each([
    [64, 2, 0.256],
    [625, 10, 0.5],
    [1500, 10, 0.5],
    [1500, 4, 1],
  ])("one unit drops what is over: %i bytes at %i Gbit/s", async (bytes, gbps, share) => {
    const engine = await networkEngine(with1({ mode: "drop" }));
    expect(offer(engine, bytes, gbps, 500, 1000) / share).toBeCloseTo(1, 1.7);
    const { over, units } = engine.capacity("lb");
    expect(units).toBe(1);
    expect(over.packets).toBe(engine.counters().verdicts["drop.capacity"]);
    expect(usageOf(engine, "web").packetsDropped).toBe(over.packets);
  });

  test("a report counts the same, and lets everything pass", async () => {
    const dropped = await networkEngine(with1({ mode: "drop" }));
    const reported = await networkEngine(with1({ mode: "report" }));
    offer(dropped, 1500, 10, 100, 0);
    expect(offer(reported, 1500, 10, 100, 0)).toBe(1);
    expect(reported.capacity("lb")).toEqual(dropped.capacity("lb"));
  });

  test("a resource grows by a unit a second, and shrinks when it is quiet", async () => {
    const engine = await networkEngine(with1({ unitsMax: 3 }));
    offer(engine, 1500, 4.5, 3500, 0);
    expect(engine.capacity("lb").units).toBe(2);
    offer(engine, 1500, 30, 1500, 3500);
    expect(engine.capacityChanges()).toEqual([
      { name: "lb", timeMs: 1000, units: 2 },
      { name: "lb", timeMs: 4000, units: 3 },
    ]);
    offer(engine, 1500, 0.1, 1, 400_000);
    expect(engine.capacityChanges().map(({ units }) => units)).toEqual([2, 1]);
    expect(engine.capacityChanges()).toEqual([]);
  });

  test("is refused where it makes no sense", async () => {
    const engine = await networkEngine(balanced());
    const wrong: [NetworkCapacity, RegExp][] = [
      [{ units: 0 }, /capacities\.lb\.units: 0 is not a whole number from 1 to 1000/],
      [{ units: 5, unitsMax: 4 }, /capacities\.lb\.unitsMax: 4 .* from 5 to 1000/],
      [{ mode: "lose" as "drop" }, /capacities\.lb\.mode: "lose" is not one of report, drop/],
    ];
    for (const [capacity, message] of wrong) {
      expect(() => engine.setTables(with1(capacity))).toThrow(message);
    }
    expect(() => engine.capacity("lb")).toThrow(/capacity: there is no "lb"/);
  });
});

describe("55,000 flows per address and destination", { timeout: 300_000 }, () => {
  const SERVER = "192.0.2.80";
  const open = (engine: Engine, count: number, clients: number, server = SERVER) => {
    const arrivals = Array.from({ length: count }, (_, n) => ({
      frame: eth()
        .ip(`10.1.${(n % clients) >> 8}.${(n % clients) & 255}`, server)
        .tcp(1024 + Math.floor(n / clients), 80, { flags: "S" }),
      port: 1,
      timeMs: 0,
    }));
    return send(engine, arrivals).map(({ verdict }) => verdict);
  };

  test.each([1, 55_000])("from %i clients, exactly", async (clients) => {
    const engine = await networkEngine(gateway(), 200_000);
    const verdicts = open(engine, 55_000, clients);
    expect(verdicts.filter((verdict) => verdict !== "forward")).toEqual([]);
    const more = eth().ip("10.2.0.1", SERVER);
    expect(one(engine, more.tcp(7, 80, { flags: "S" }), 1, 0).verdict).toBe("drop.port-exhausted");
    expect(usageOf(engine, "nat").portsExhausted).toBe(1);
    // Another port, protocol or server, and another address, have their own.
    expect(one(engine, more.tcp(7, 81, { flags: "S" }), 1, 0).verdict).toBe("forward");
    expect(one(engine, more.udp(7, 80), 1, 0).verdict).toBe("forward");
    engine.setTables(gateway({ sources: ["203.0.113.1", "203.0.113.2"] }));
    expect(one(engine, more.tcp(8, 80, { flags: "S" }), 1, 0).verdict).toBe("forward");
    // An address that drains takes no new flows, and its old ones go on.
    engine.setTables(gateway({ sources: ["203.0.113.2"] }));
    const old = eth().ip("10.1.0.0", SERVER).tcp(1024, 80, { flags: "S" });
    expect(one(engine, old, 1, 1).verdict).toBe("forward");
  });

  test("a flow that is over makes room, to the millisecond", async () => {
    const engine = await networkEngine(gateway(), 60_000);
    open(engine, 55_000, 55_000);
    const more = (port: number) => eth().ip("10.2.0.1", SERVER).tcp(port, 80, { flags: "S" });
    for (const timeMs of [1, 30_000, 60_000]) {
      expect(one(engine, more(7), 1, timeMs).verdict).toBe("drop.port-exhausted");
    }
    expect(one(engine, more(7), 1, 60_001).verdict).toBe("forward");
  });
});
