/** The library as programs use it: bad calls, traps, repeatability, tables that change, examples. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { LAYOUT_SERVICES, SERVICE_RING } from "../assembly/abi.ts";
import { eth } from "../fixtures/packets.ts";
import {
  createEngine,
  type Departure,
  type Engine,
  EngineError,
  type EngineOptions,
  Frames,
  openBytes,
  type PortOptions,
  type ServiceOptions,
  type Target,
} from "../host/index.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const SEED = new Uint8Array(16);
const SMALL = { flowCountMax: 4096, flow6CountMax: 16, warmUp: false, seed: SEED };

const small = (options: EngineOptions = {}) => createEngine({ ...SMALL, ...options });

/** All of the memory that a program can configure or read, to see that a call changed none of it. */
function hashOf(engine: Engine): bigint {
  return engine.exports.xxh64(0, engine.arena.address, 0n);
}

/** A wrong call: what it says, and what is wrong in the options (any JavaScript value). */
type Wrong = [message: string, options: object];

const WRONG_ENGINES: Wrong[] = [
  ["flowCountMax: 15 is not a whole number from 16 to 60000000", { flowCountMax: 15 }],
  ['flowCountMax: "9" is not a whole number from 16 to 60000000', { flowCountMax: "9" }],
  ["flow6CountMax: 1.5 is not a whole number from 16 to 28000000", { flow6CountMax: 1.5 }],
  ["arenaBytes: -1 is not a whole number from 65536 to 1073741824", { arenaBytes: -1 }],
  ["tablesBytes: NaN is not a whole number from 65536 to 1073741824", { tablesBytes: Number.NaN }],
  ["seed: 15 bytes are not 16", { seed: new Uint8Array(15) }],
  ["seed: a list is not a Uint8Array", { seed: [1, 2] }],
  ["timeouts: 5 is not an object with options", { timeouts: 5 }],
  ["timeouts.udp: -1 is not from 0 to 536870 seconds", { timeouts: { udp: -1 } }],
  ["timeouts.upd: no such option; there are halfOpen", { timeouts: { upd: 1 } }],
  ['warmUp: "no" is not true or false', { warmUp: "no" }],
  ['wasm: "engine.wasm" is not a URL, bytes or a WebAssembly.Module', { wasm: "engine.wasm" }],
  ["wasm: is no WebAssembly module for the engine", { wasm: new Uint8Array(8) }],
  ["flowCount: no such option; there are flowCountMax", { flowCount: 5 }],
  ["nowhere.wasm: cannot be read", { wasm: new URL("nowhere.wasm", import.meta.url) }],
];

const WRONG_PORTS: Wrong[] = [
  ['link: "token-ring" is not one of ethernet, raw, null, sll, sll2', { link: "token-ring" }],
  ['link: "constructor" is not one of ethernet', { link: "constructor" }],
  ["vpc: 65536 is not a whole number from 0 to 65535", { vpc: 65536 }],
  ['sides: "left" is not one of client, service, both', { sides: "left" }],
  ["service: 16384 is not a whole number from 0 to 16383", { service: 16384 }],
  ["service: 65535 is not a whole number from 0 to 16383", { service: 65535 }],
  ["peer: -1 is not a whole number from 0 to 4095", { peer: -1 }],
  ["pier: no such option; there are link", { pier: 1 }],
];

const WRONG_SERVICES: Wrong[] = [
  ['sourceAddresses: "192.0.2.1" is not a list', { sourceAddresses: "192.0.2.1" }],
  ['sourceAddresses[1]: "192.0.2" is not an IP address', { sourceAddresses: ["::1", "192.0.2"] }],
  ["sourceAddresses[0]: 7 is not text", { sourceAddresses: [7] }],
  ["sourceAddresses: 1025 are more than 1024", { sourceAddresses: Array(1025).fill("10.0.0.1") }],
  ["targets: an object of class Object is not a list", { targets: {} }],
  ["targets[0]: null is not an object with options", { targets: [null] }],
  ['targets[0].address: "localhost" is not an IP', { targets: [{ address: "localhost" }] }],
  ["targets[0].port: 65536 is not", { targets: [{ address: "10.0.0.1", port: 65536 }] }],
  ["targets[0].weight: 1000 is not", { targets: [{ address: "10.0.0.1", weight: 1000 }] }],
  ["targets[0].zone: no such option", { targets: [{ address: "10.0.0.1", zone: "a" }] }],
  ["targets: 10001 are more than 10000", { targets: Array(10_001).fill({ address: "10.0.0.1" }) }],
  ["adopt: 1 is not true or false", { adopt: 1 }],
];

describe("a wrong call is an error that names the option, its value and its range", () => {
  test.each(WRONG_ENGINES)("createEngine: %s", async (message, options) => {
    const error = await createEngine({ warmUp: false, ...options } as EngineOptions).catch(
      (caught) => caught,
    );
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toContain(message);
    expect([TypeError, RangeError, EngineError]).toContain(error.constructor);
  });

  test.each([undefined, {}, 5, "web.pcap"])("openBytes: %s", async (capture) => {
    const engine = await small();
    expect(() => openBytes(capture as never, engine)).toThrow(
      /^capture: .+ is neither a Uint8Array nor a stream of them$/,
    );
  });

  test.each(WRONG_PORTS)("setPort: %s", async (message, options) => {
    const engine = await small();
    engine.setPort(3, { service: 1 });
    const before = hashOf(engine);
    expect(() => engine.setPort(3, options as PortOptions)).toThrow(message);
    expect(hashOf(engine)).toBe(before);
  });

  test.each(WRONG_SERVICES)("setService: %s", async (message, options) => {
    const engine = await small();
    engine.setService(3, { targets: [{ address: "10.0.0.1" }] });
    const before = hashOf(engine);
    expect(() => engine.setService(3, options as ServiceOptions)).toThrow(message);
    expect(hashOf(engine)).toBe(before);
  });

  test("an index that there is not is refused everywhere", async () => {
    const engine = await small();
    for (const wrong of [-1, 16384, 0.5, Number.NaN, "1" as unknown as number]) {
      expect(() => engine.setPort(wrong, {})).toThrow(/^port: .* from 0 to 4095/);
      expect(() => engine.setService(wrong, {})).toThrow(/^service: .* from 0 to 16383/);
      expect(() => engine.usage(wrong)).toThrow(/^service: .* from 0 to 16383/);
    }
    for (const wrong of [-1, 257, 0.5, Number.NaN]) {
      expect(() => engine.process(wrong)).toThrow(/^count: .* from 0 to 256/);
    }
    // A clock that had once been told NaN would have stood still from then on.
    for (const wrong of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => engine.expire(wrong)).toThrow(/^nowMs: .* from 0 to 9007199254740991/);
    }
    expect(engine.flow(0)).toBeUndefined();
    expect(engine.flow(0xffffffff)).toBeUndefined();
  });

  test("tables that do not fit are refused, and the service keeps those it had", async () => {
    const engine = await small({ tablesBytes: 1 << 20 });
    engine.setPort(0, { service: 0 });
    const list = (count: number): Target[] =>
      Array.from({ length: count }, (_, i) => ({ address: `10.1.${i >> 8}.${i & 255}` }));
    let next = 0;
    expect(() => {
      for (; next < 4096; next++) engine.setService(next, { targets: list(1) });
    }).toThrow(/^tablesBytes: 1048576 bytes do not hold service \d+ beside the others$/);
    expect(() => engine.setService(0, { targets: list(10_000) })).toThrow("tablesBytes");
    // Had the piece of service 0 been given away, this would have overwritten its targets.
    expect(() => engine.setService(next, { targets: list(1) })).toThrow("tablesBytes");
    expect(run(engine, [syn(1)])[0]?.frame.subarray(30, 34)).toEqual(Buffer.of(10, 1, 0, 0));
  });
});

/** A SYN of a client, told apart by its number, to 192.0.2.80 port 80. */
function syn(client: number, flags = "S"): Uint8Array {
  const address = `10.0.${client >> 8}.${client & 255}`;
  return eth().ipv4(address, "192.0.2.80").tcp(40_000, 80, { flags }).bytes();
}

function run(engine: Engine, list: readonly Uint8Array[], timeMs = 0): Departure[] {
  const frames = new Frames(engine);
  const departures: Departure[] = [];
  for (let start = 0; start < list.length; start += 256) {
    for (const frame of list.slice(start, start + 256)) frames.add(frame, timeMs);
    departures.push(...frames.process().map((one) => ({ ...one, frame: Buffer.from(one.frame) })));
  }
  return departures;
}

describe("a descriptor outside the arena is refused before anything is touched", () => {
  const cases: [string, (arena: Engine["arena"]) => [address: number, bytes: number]][] = [
    ["before the arena", ({ address }) => [address - 1, 60]],
    ["at the begin of memory", () => [0, 60]],
    ["behind the arena", ({ address, bytes }) => [address + bytes, 1]],
    ["ending behind the arena", ({ address, bytes }) => [address + bytes - 59, 60]],
    ["of 4 GiB", ({ address }) => [address, 0xffffffff]],
    ["that wraps around", ({ address }) => [address + 0x7fffffff, 0x7fffffff]],
    ["at the end of the address space", () => [0xffffffff, 0xffffffff]],
  ];
  test.each(cases)("a frame %s", async (_, place) => {
    const engine = await small();
    const frames = new Frames(engine);
    for (let i = 0; i < 9; i++) frames.add(syn(i), 0);
    engine.descriptors.set(place(engine.arena), 7 * 8);
    const before = hashOf(engine);
    expect(() => engine.process(9)).toThrow(/^descriptor 7: \d+ bytes at \d+ are not in the arena/);
    expect(hashOf(engine)).toBe(before);
    engine.process(7);
    expect(engine.counters().verdicts["drop.no-service"]).toBe(7);
  });

  test("a port above the last one", async () => {
    const engine = await small();
    new Frames(engine).add(syn(1), 0);
    engine.descriptors[3] = 4096;
    expect(() => engine.process(1)).toThrow("descriptor 0: 4096 is not a port from 0 to 4095");
    engine.descriptors[3] = 4095 | (0xffff << 16);
    engine.process(1);
    expect(engine.descriptors[3]).toBe(4095 | (4095 << 16));
  });

  test("frames fill the arena to its last byte", async () => {
    const engine = await small();
    const frame = syn(1);
    const address = engine.arena.address + engine.arena.bytes - frame.length;
    engine.bytes.set(frame, address);
    engine.descriptors.set([address, frame.length, 0, 0], 0);
    engine.process(1);
    expect(engine.counters().verdicts["drop.no-service"]).toBe(1);
    const frames = new Frames(engine);
    expect(() => frames.add(new Uint8Array(engine.arena.bytes + 1), 0)).toThrow("are left");
    frames.add(new Uint8Array(engine.arena.bytes), 0);
    expect(() => frames.add(new Uint8Array(1), 0)).toThrow("frame: 1 bytes, 0 are left");
  });

  test("a batch holds 256 frames and no more", async () => {
    const engine = await small();
    const frames = new Frames(engine);
    for (let i = 0; i < 256; i++) frames.add(syn(i), 0);
    expect(() => frames.add(syn(1), 0)).toThrow("frame: the batch has 256 already");
    expect(frames.process()).toHaveLength(256);
    expect(frames.process()).toHaveLength(0);
  });
});

test("a trap inside the engine is one clear error, and the end of it", async () => {
  const engine = await small();
  engine.setPort(0, { service: 0 });
  engine.setService(0, { targets: [{ address: "10.0.0.1" }] });
  const view = new DataView(engine.memory.buffer);
  const services = view.getUint32((engine.exports.layoutAddress() >>> 0) + LAYOUT_SERVICES, true);
  view.setUint32(services + SERVICE_RING, 0xfff00000, true);
  expect(() => run(engine, [syn(1)])).toThrow(EngineError);
  const refusal = /^the engine has stopped and cannot go on: memory access out of bounds$/;
  expect(() => engine.process(0)).toThrow(refusal);
  expect(() => engine.process(1)).toThrow(refusal);
  expect(() => engine.setPort(0, {})).toThrow(refusal);
  expect(() => engine.setService(0, {})).toThrow(refusal);
  expect(() => engine.expire()).toThrow(refusal);
  expect(() => engine.digest()).toThrow(refusal);
  expect(() => engine.flow(1)).toThrow(refusal);
  expect(() => [...engine.flows()]).toThrow(refusal);
});

describe("a run can be repeated", () => {
  const crowd = Array.from({ length: 600 }, (_, i) => syn(i));
  const digestOf = async (seed: Uint8Array, warmUp = false) => {
    const engine = await small({ seed, warmUp });
    // Two clients share a port each, so that source ports are allocated.
    engine.setService(0, { sourceAddresses: ["203.0.113.1"] });
    engine.setPort(0, { service: 0 });
    let digest = 0n;
    for (let start = 0; start < crowd.length; start += 200) {
      run(engine, crowd.slice(start, start + 200));
      digest = engine.digest(digest);
    }
    expect(engine.counters().verdicts.forward).toBe(600);
    return digest;
  };

  test("the same seed gives the same digest", async () => {
    expect(await digestOf(SEED)).toBe(await digestOf(new Uint8Array(16)));
  });

  test("another seed gives another digest where ports are allocated", async () => {
    expect(await digestOf(SEED)).not.toBe(await digestOf(new Uint8Array(16).fill(1)));
  });

  test("without a seed every engine has its own", async () => {
    const make = () => createEngine({ flowCountMax: 16, flow6CountMax: 16, warmUp: false });
    const [one, other] = [await make(), await make()];
    expect(hashOf(one)).not.toBe(hashOf(other));
  });

  test("warming up leaves nothing behind", async () => {
    expect(await digestOf(SEED, true)).toBe(await digestOf(SEED));
    expect((await small({ warmUp: true })).counters()).toEqual((await small()).counters());
  });
});

test("tables that are swapped between batches move no established flow", async () => {
  const engine = await small();
  engine.setPort(0, { service: 0 });
  const names = Array.from({ length: 9 }, (_, i) => `10.1.0.${i + 1}`);
  const clients = Array.from({ length: 1000 }, (_, i) => i);
  const targetOf = ({ frame }: Departure) => frame.subarray(30, 34).join(".");
  engine.setService(0, { targets: names.map((address) => ({ address })) });
  const first = run(
    engine,
    clients.map((client) => syn(client)),
  ).map(targetOf);
  for (const kept of [names.slice(0, 1), names.slice(3), ["10.9.9.9"], names]) {
    engine.setService(0, { targets: kept.map((address) => ({ address })) });
    const frames = clients.map((client) => syn(client, "A"));
    expect(run(engine, frames, 100).map(targetOf)).toEqual(first);
  }
  engine.setService(0, { targets: [{ address: "10.9.9.9" }] });
  expect(run(engine, [syn(5000)], 100).map(targetOf)).toEqual(["10.9.9.9"]);
});

/** What each example prints; a new example needs a line here. */
const EXAMPLES: Record<string, string[]> = {
  "balance.ts": [
    "weights 3 and 1: 75 % go to 10.1.0.1",
    "after the change, old flows stay: true",
    "new ones go to 10.1.0.1",
  ],
  "capture.ts": ["2229 packets, 185 flows", "forward: 2217", "pass.non-ip: 12"],
  "embed.ts": [
    "request leaves on port 1, from 203.0.113.7",
    "answer leaves on port 0, to 10.0.0.7",
    "1 packet out, 1 back",
  ],
  "tenants.ts": [
    'blue: "hello" from 10.0.0.7:40000',
    'green: "hello" from 10.0.0.7:40000',
    "vpce-0bad0000000000003: cut off",
  ],
};

/** Examples that need a lab, and the tests that run them in one. */
const LIVE_EXAMPLES: Record<string, string> = { "wildcard.ts": "test/live-lab.test.ts" };

test.each(readdirSync(`${ROOT}fixtures/examples`))("the example %s runs", (name) => {
  const live = LIVE_EXAMPLES[name];
  if (live) {
    expect(readFileSync(`${ROOT}${live}`, "utf8")).toContain(`fixtures/examples/${name}`);
    return;
  }
  const text = readFileSync(`${ROOT}fixtures/examples/${name}`, "utf8");
  expect(text.split("\n").length).toBeLessThanOrEqual(61);
  const printed = execFileSync(process.execPath, [`fixtures/examples/${name}`], {
    cwd: ROOT,
    encoding: "utf8",
  });
  expect(EXAMPLES[name]).toBeDefined();
  for (const line of EXAMPLES[name] ?? []) expect(printed.split("\n")).toContain(line);
});
