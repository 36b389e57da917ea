/**
 * Flows that begin the fast way (assembly/fresh.ts) against the long way: the same packets leave, and not
 * a byte of the flow tables, of what services count and of the counters is another.
 */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as abi from "../assembly/abi.ts";
import { seeded } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import type { ProxyProtocolOptions } from "../host/engine/api.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { type Arrival, type Batched, type Setup, send } from "./harness.ts";
import { balanced, gateway } from "./network.ts";
import { SETUPS } from "./world.ts";

const RUNS = 40 * Number(process.env.MODEL_RUNS ?? 1);
const wasm = new WebAssembly.Module(
  readFileSync(new URL("../build/internals.wasm", import.meta.url)),
);

type Configure = (engine: Engine) => void;

const ofSetup =
  ({ services, ports }: Setup): Configure =>
  (engine) => {
    for (const [i, service] of services.entries()) engine.setService(i, service);
    for (const [i, port] of ports.entries()) engine.setPort(i, port);
  };

const ofTables =
  (tables: NetworkTables): Configure =>
  (engine) => {
    engine.setTables(tables);
    for (const { vpc, port } of tables.vpcs) {
      if (port !== undefined) engine.setPort(port, { vpc, sides: "both", routed: true });
    }
  };

/** The arrangement with PROXY headers of every service. */
const withHeaders = (setup: Setup, proxyProtocol: ProxyProtocolOptions): Configure =>
  ofSetup({
    ...setup,
    services: setup.services.map((service) => ({ ...service, proxyProtocol })),
  });

const HEADERS: Record<string, ProxyProtocolOptions> = {
  "with PROXY headers": {},
  "with PROXY headers on the first ACK": { placement: "on_first_ack", padTo: 256 },
  "with PROXY headers in datagrams, too": { udp: true },
};

const rules = { all: [{ cidr: "0.0.0.0/0" }] };
const WORLDS: Record<string, Configure> = {
  ...Object.fromEntries(Object.entries(SETUPS).map(([name, setup]) => [name, ofSetup(setup)])),
  ...Object.fromEntries(
    ["targets between two ports", "targets that adopt flows, replayed on one port"].flatMap(
      (name) =>
        Object.entries(HEADERS).map(([more, headers]) => [
          `${name}, ${more}`,
          withHeaders(SETUPS[name] as Setup, headers),
        ]),
    ),
  ),
  "a load balancer of network tables": ofTables(balanced()),
  "one with an MTU": ofTables(balanced({ mtuBytes: 1300, isMtuTold: true })),
  "one with a security group": ofTables({
    ...balanced({ rules: { inbound: "all" } }),
    rules,
  } as NetworkTables),
  "a NAT gateway": ofTables(gateway()),
};

async function make(configure: Configure, flowCountMax: number): Promise<Engine> {
  const seed = new Uint8Array(16).fill(3);
  const options = { flowCountMax, flow6CountMax: 64, seed, warmUp: false, networkBytes: 1 << 16 };
  const engine = await createEngine({ wasm, proxyProtocol: "udp", ...options });
  configure(engine);
  return engine;
}

const TALLY_SHIFT = BigInt(abi.TALLY_PACKETS_SHIFT);

/** Adds what packets have counted for their services to what is counted there already. */
function addTallies(usage: Buffer, tallies: DataView): Buffer {
  const add = (at: number, more: bigint) =>
    usage.writeBigUInt64LE(usage.readBigUInt64LE(at) + more, at);
  for (let service = 0; service * abi.TALLY_BYTES < tallies.byteLength; service++) {
    for (const lane of [0, 8]) {
      const both = tallies.getBigUint64(service * abi.TALLY_BYTES + lane, true);
      const used = service * abi.USAGE_BYTES + lane;
      add(used + abi.USAGE_PACKETS_CLIENT, both >> TALLY_SHIFT);
      add(used + abi.USAGE_OCTETS_CLIENT, both & ((1n << TALLY_SHIFT) - 1n));
    }
  }
  return usage;
}

/** Everything that outlives a batch: what services count, the counters, the flow tables. */
function lastingBytes({ bytes, exports }: Engine): Buffer {
  const view = new DataView(bytes.buffer);
  const layout = (field: number) => view.getUint32((exports.layoutAddress() >>> 0) + field, true);
  const part = (start: number, length: number) => bytes.subarray(start, start + length);
  const network = layout(abi.LAYOUT_NETWORK);
  const usage = Buffer.from(part(layout(abi.LAYOUT_USAGE), abi.USAGE_BYTES * 16));
  const tallies = new DataView(bytes.buffer, layout(abi.LAYOUT_TALLIES), abi.TALLY_BYTES * 16);
  return Buffer.concat([
    addTallies(usage, tallies),
    part(layout(abi.LAYOUT_COUNTERS), abi.COUNTERS_BYTES),
    part(network, layout(abi.LAYOUT_TOTAL_BYTES) - network),
  ]);
}

/** The same engine by its long way. */
function slowly(engine: Engine): Batched {
  const { arena, bytes, descriptors, clock, emits, exports } = engine;
  const { processSlowly } = exports as unknown as { processSlowly(count: number): void };
  return {
    ...{ arena, bytes, descriptors, clock, emits, process: processSlowly },
    get emitCount() {
      return exports.emitCount();
    },
  };
}

const ADDRESSES = ["10.0.1.7", "10.0.1.8", "10.0.2.10", "10.0.1.100", "192.0.2.1", "198.51.100.9"];

/** A packet between few addresses and ports: some begin flows, some are of flows, some collide. */
function arrivalOf(seed: number, timeMs: number): Arrival {
  const random = seeded(seed);
  const of = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)] as T;
  const ip = eth().ipv4(of(ADDRESSES), of(ADDRESSES));
  const from = of([80, 1025, 4096, 5000, 5001, 40_000]);
  const to = of([80, 80, 443, 5000]);
  const flags = of(["S", "S", "S", "SA", "A", "FA", "R"]);
  const options = of([[], [2, 4, 0x05, 0x78], [1, 2, 4, 0x05, 0x78], [1, 1, 34, 2]]);
  const [seq, ack] = [of([1000, 1001, 1001, 1002]), of([1000, 1001, 1101, 1102, 1257])];
  const tcp = () => ip.tcp(from, to, { flags, seq, ack, options: Uint8Array.from(options) });
  const frame = of([tcp, tcp, () => ip.udp(from, to)])().payload(of(["x", "x", ""]));
  return { frame, port: of([0, 0, 1, 1, 9]), timeMs };
}

describe("flows begin the fast way as they do the long way", () => {
  test.each(Object.entries(WORLDS))("%s", async (_, configure) => {
    let begun = 0;
    const seeds = fc.array(fc.integer(), { minLength: 1, maxLength: 600, size: "max" });
    const steps = fc.constantFrom(0, 10, 20_000);
    await fc.assert(
      fc.asyncProperty(seeds, steps, fc.constantFrom(24, 1024), async (all, step, room) => {
        const [fast, slow] = [await make(configure, room), await make(configure, room)];
        const arrivals = all.map((seed, index) => arrivalOf(seed, index * step));
        const departures = send(fast, arrivals, 100);
        expect(send(slowly(slow), arrivals, 100)).toEqual(departures);
        expect(Buffer.compare(lastingBytes(fast), lastingBytes(slow))).toBe(0);
        begun += fast.counters().flows.created;
      }),
      { numRuns: RUNS, seed: 20260727 },
    );
    expect(begun).toBeGreaterThan(RUNS * 10);
  });
});
