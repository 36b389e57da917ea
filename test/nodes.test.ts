/**
 * Decisions that nodes share: the store against a map, the agreement under races, and a fleet of
 * engines that must translate as one engine does.
 */
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { type Packet, raw } from "../fixtures/packets.ts";
import type { Flow } from "../host/engine/api.ts";
import {
  adoptDecision,
  DECISION_BYTES,
  decidedAfter,
  readDecision,
  sideOf,
} from "../host/engine/decision.ts";
import { Frames } from "../host/engine/frames.ts";
import { agree, lookUp, renew } from "../host/nodes/agreement.ts";
import { FleetNode, type NodeOptions } from "../host/nodes/node.ts";
import { CLAIM_EARLIER, CLAIM_OWN, SharedStore } from "../host/nodes/shared-store.ts";
import { isSameDecision } from "../host/nodes/store.ts";
import { CLIENT, CLIENT6, NAT, NAT6, nat, SERVER, SERVER6 } from "./cases.ts";
import { type Arrival, bytesOf, type Setup, smallEngine } from "./harness.ts";
import { readCapture } from "./reference/capture.ts";
import { MapStore } from "./reference/store.ts";

const WEB = new URL("../fixtures/captures/web.pcap", import.meta.url);

/** A decision that says: client number so and so, service-side tuple number so and so. */
function decisionOf(client: number, service: number, state = 1, begins = 0): Uint8Array {
  const decision = new Uint8Array(DECISION_BYTES);
  const view = new DataView(decision.buffer);
  view.setUint32(0, client);
  view.setUint32(48, service);
  decision[97] = state;
  decision[101] = begins;
  return decision;
}

const operation = fc.record({
  kind: fc.constantFrom("claim", "find", "refresh"),
  side: fc.constantFrom("client", "service"),
  client: fc.nat(5),
  service: fc.nat(5),
  state: fc.nat(3),
  begins: fc.nat(1),
  afterMs: fc.nat(400),
});

describe("the shared store", () => {
  property.prop([fc.array(operation, { maxLength: 200 })], { numRuns: 300 })(
    "does what a map does",
    async (operations) => {
      const times = { ttlMs: 500, holdMs: 200 };
      const store = new SharedStore({ entries: 128, ...times });
      const twin = new MapStore(times);
      // Close to where the clock wraps around.
      let nowMs = 2 ** 32 - 5000;
      for (const { kind, side, client, service, state, begins, afterMs } of operations) {
        nowMs += afterMs;
        const asked = decisionOf(client, service, state, begins);
        const batch = kind === "find" ? [sideOf(asked, side).slice()] : [asked];
        expect(await store[kind](side, batch, nowMs)).toEqual(await twin[kind](side, batch, nowMs));
      }
    },
  );

  property.prop([fc.array(fc.tuple(fc.nat(60), fc.nat(60)), { minLength: 1, maxLength: 200 })], {
    numRuns: 200,
  })("does the same with packed batches, where a flow may be several times", async (wanted) => {
    const times = { ttlMs: 1000, holdMs: 0 };
    const store = new SharedStore({ entries: 256, ...times });
    const twin = new MapStore(times);
    for (const refreshes of [false, true]) {
      const side = refreshes ? "client" : "service";
      const batch = wanted.map(([client, service]) => decisionOf(client, service));
      const bytes = new Uint8Array(batch.length * DECISION_BYTES);
      for (const [at, decision] of batch.entries()) bytes.set(decision, at * DECISION_BYTES);
      const outcomes = new Uint8Array(batch.length);
      store.claimPacked(side, bytes, 7, outcomes, refreshes);
      const expected = await twin[refreshes ? "refresh" : "claim"](side, batch, 7);
      for (const [at, found] of expected.entries()) {
        const start = at * DECISION_BYTES;
        expect(bytes.slice(start, start + DECISION_BYTES)).toEqual(found);
        const isOwn = isSameDecision(found as Uint8Array, batch[at] as Uint8Array);
        expect(outcomes[at]).toBe(isOwn ? CLAIM_OWN : CLAIM_EARLIER);
      }
    }
  });

  test("refuses when it is full, and has room again when time is over", async () => {
    const store = new SharedStore({ entries: 128, ttlMs: 1000, holdMs: 0 });
    const all = Array.from({ length: 400 }, (_, n) => decisionOf(n, n));
    const first = await store.claim("client", all, 0);
    // As many as it was made for, and of its slots, twice as many, most.
    expect(first.slice(0, 128)).toEqual(all.slice(0, 128));
    const held = all.filter((_, at) => first[at] !== undefined);
    expect(held.length).toBeGreaterThan(200);
    expect(held.length).toBeLessThanOrEqual(256);
    expect(await store.claim("client", held, 500)).toEqual(held);
    // Again and again: what is over is room, however often.
    for (let round = 1; round < 50; round++) {
      const later = all.map((_, at) => decisionOf(1000 * round + at, at)).slice(0, 128);
      expect(await store.claim("client", later, 1001 * round)).toEqual(later);
    }
  });

  test("lies in memory as a whole once it is touched, and is the same as before", async () => {
    const untouchedBytes = process.memoryUsage().rss;
    const store = new SharedStore({ entries: 400_000 });
    // Few, as each may touch pages of 2 MiB.
    const flows = [decisionOf(1, 1), decisionOf(2, 2)];
    await store.claim("client", flows, 0);
    const tableBytes = store.memory.buffer.byteLength;
    expect(process.memoryUsage().rss - untouchedBytes).toBeLessThan(tableBytes / 2);
    store.touch();
    expect(process.memoryUsage().rss - untouchedBytes).toBeGreaterThan(tableBytes * 0.9);
    expect(await store.find("client", flows, 1)).toEqual(flows);
  });

  test("lets exactly one of two threads win each decision", { timeout: 60_000 }, async () => {
    const store = new SharedStore({ entries: 40_000 });
    const count = 20_000;
    const path = new URL("../host/nodes/shared-store.ts", import.meta.url).href;
    const source = `
      import { workerData, parentPort } from "node:worker_threads";
      const { memory, name, count, path, bytes } = workerData;
      const { SharedStore } = await import(path);
      const store = new SharedStore({}, memory);
      const views = new Uint32Array(count);
      const decision = new Uint8Array(bytes);
      const view = new DataView(decision.buffer);
      parentPort.once("message", () => {
        for (let step = 0; step < count; step++) {
          const client = name ? count - 1 - step : step;
          view.setUint32(0, client);
          view.setUint32(48, name * count + step);
          const found = store.claimOne("client", decision, 0);
          views[client] = new DataView(found.buffer, found.byteOffset).getUint32(48);
        }
        parentPort.postMessage(views);
      });
      parentPort.postMessage("ready");`;
    const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
    const workers = [0, 1].map((name) => {
      const workerData = { memory: store.memory, name, count, path, bytes: DECISION_BYTES };
      return new Worker(url, { workerData });
    });
    const next = (worker: Worker) =>
      new Promise<unknown>((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
      });
    await Promise.all(workers.map(next));
    const results = workers.map(next);
    for (const worker of workers) worker.postMessage("go");
    const [one, other] = (await Promise.all(results)) as [Uint32Array, Uint32Array];
    await Promise.all(workers.map((worker) => worker.terminate()));
    expect(one).toEqual(other);
    const wins = one.filter((service) => service >= count).length;
    expect(wins).toBeGreaterThan(0);
    expect(wins).toBeLessThan(count);
  });

  test("refuses sizes that it cannot have, and memory that is none of its own", () => {
    expect(() => new SharedStore({ entries: 5 })).toThrow("entries: 5 is not a whole number");
    const memory = new WebAssembly.Memory({ initial: 9, maximum: 9, shared: true });
    expect(() => new SharedStore({}, memory)).toThrow("memory: 589824 bytes are no shared store");
    const store = new SharedStore({ entries: 128 });
    for (let view = 1; view < 64; view++) new SharedStore({}, store.memory);
    expect(() => new SharedStore({}, store.memory)).toThrow("memory: has 64 views already");
  });

  test("lets its maker prepare the memory, once and before anything is in it", () => {
    const prepared: WebAssembly.Memory[] = [];
    const options = {
      entries: 128,
      prepareMemory: (memory: WebAssembly.Memory) => void prepared.push(memory),
    };
    const store = new SharedStore(options);
    new SharedStore(options, store.memory);
    expect(prepared).toEqual([store.memory]);
    expect(store.claimOne("client", new Uint8Array(DECISION_BYTES).fill(1), 0)).toBeDefined();
  });
});

describe("the agreement", () => {
  const scripts = fc.array(
    fc.record({ client: fc.nat(3), service: fc.nat(4), stepsLeft: fc.nat(9) }),
    { minLength: 1, maxLength: 60 },
  );

  property.prop([scripts, fc.scheduler()], { numRuns: 500 })(
    "whatever overtakes what: one decision a flow, one flow a tuple",
    async (script, scheduler) => {
      const store = new MapStore({ ttlMs: 1e9, holdMs: 0 });
      // Every step takes effect at once, its answer comes when the scheduler lets it, or never.
      const slow = (stepsLeft: number): MapStore => {
        let left = stepsLeft;
        const late =
          <Words extends unknown[], Answer>(step: (...words: Words) => Promise<Answer>) =>
          async (...words: Words) => {
            await scheduler.schedule(Promise.resolve());
            const found = await step.apply(store, words);
            await scheduler.schedule(Promise.resolve());
            if (left-- === 0) throw new Error("cut off");
            return found;
          };
        const steps = { find: late(store.find), refresh: late(store.refresh) };
        return Object.assign(Object.create(store), steps);
      };
      const seen = new Map<number, Set<number>>();
      const all = script.map(async ({ client: asked, service, stepsLeft }) => {
        const proposal = decisionOf(asked, service);
        const [agreement] = await agree(slow(stepsLeft), [proposal], 0).catch(() => []);
        if (agreement?.outcome !== "decided" && agreement?.outcome !== "taken") return;
        const view = new DataView(agreement.decision.buffer, agreement.decision.byteOffset);
        const client = view.getUint32(0);
        expect(client === asked).toBe(agreement.outcome === "decided");
        const services = seen.get(client) ?? new Set();
        seen.set(client, services.add(view.getUint32(48)));
      });
      await scheduler.waitFor(Promise.all(all));
      const used = [...seen.values()].map((services) => [...services]);
      expect(used.every((services) => services.length === 1)).toBe(true);
      expect(new Set(used.flat()).size).toBe(used.length);
      for (const [client, [service = -1]] of [...seen].map(([c, s]) => [c, [...s]] as const)) {
        const tuple = sideOf(decisionOf(client, service), "service").slice();
        const [found] = await lookUp(store, "service", [tuple], 0);
        expect(found && new DataView(found.buffer, found.byteOffset).getUint32(0)).toBe(client);
      }
    },
  );

  test("a tuple that lost is known by nobody, and what was lost cannot be renewed", async () => {
    const store = new SharedStore({ ttlMs: 1000, holdMs: 500 });
    const [won, lost] = [decisionOf(1, 10), decisionOf(1, 11)];
    expect(await agree(store, [won], 0)).toEqual([{ outcome: "decided", decision: won }]);
    expect((await agree(store, [lost], 0))[0]).toEqual({ outcome: "decided", decision: won });
    expect(await lookUp(store, "service", [sideOf(lost, "service")], 0)).toEqual([undefined]);
    expect(await lookUp(store, "service", [sideOf(won, "service")], 0)).toEqual([won]);
    expect(await renew(store, [won, lost], 900)).toEqual([true, false]);
    expect(await lookUp(store, "client", [sideOf(won, "client")], 1800)).toEqual([won]);
    // What was looked up lives on from then.
    expect(await lookUp(store, "client", [sideOf(won, "client")], 2801)).toEqual([undefined]);
  });
});

/** Nodes with the same services, one seed and one store. */
async function fleet(setup: Setup, count: number, options: Partial<NodeOptions> = {}) {
  const store = options.store ?? new SharedStore({ entries: 8192 });
  const sides = setup.ports.map(({ sides }) => (sides === "service" ? "service" : "client"));
  const sideOf = (port: number) => sides[port] ?? "client";
  const nodes: FleetNode[] = [];
  for (let node = 0; node < count; node++) {
    nodes.push(new FleetNode({ sideOf, store, ...options, engine: await smallEngine(setup) }));
  }
  return nodes;
}

/** One frame through a node, decided before the next one comes: what leaves, or the verdict. */
async function through(node: FleetNode, { frame, port = 0, timeMs = 0 }: Arrival) {
  node.add(bytesOf(frame), timeMs, port);
  const leaving = node.process();
  for (let round = 0; round < 10 && node.waiting > 0; round++) {
    leaving.push(...(await node.settle(timeMs)));
  }
  return leaving.map(({ verdict, frame }) => ({ verdict, frame: Buffer.from(frame) }));
}

/** What a node has decided, or proposes, of its only flow. */
function onlyDecision({ engine }: FleetNode): Uint8Array {
  const [flow] = [...engine.flows()] as [Flow];
  return readDecision(engine, flow.handle) as Uint8Array;
}

const syn = (from: string, port: number, to = SERVER): Packet =>
  raw().ip(from, to).tcp(port, 80, { flags: "S" });

describe("a fleet", () => {
  test("translates a capture as one engine does, whichever node a packet meets", async () => {
    const setup = nat();
    const service = { sourceAddresses: [NAT, NAT6], adopt: true };
    const ports = [
      { service: 0, peer: 1 },
      { sides: "service" as const, peer: 0 },
    ];
    const all = { ...setup, services: [service], ports };
    const alone = new Frames(await smallEngine(all));
    const nodes = await fleet(all, 5);
    const random = seeded(7);
    const captured = readCapture(readFileSync(WEB)).slice(0, 1200);
    const startNs = captured[0]?.timeNs ?? 0n;
    for (const { bytes, timeNs } of captured) {
      const timeMs = Number((timeNs - startNs) / 1_000_000n);
      alone.add(bytes, timeMs);
      const expected = alone.process().map((one) => ({
        verdict: one.verdict,
        frame: Buffer.from(one.frame),
      }));
      const node = nodes[Math.floor(random() * 5)] as FleetNode;
      expect(await through(node, { frame: bytes, timeMs })).toEqual(expected);
    }
    const made = nodes.reduce((sum, { counters }) => sum + counters.made, 0);
    const adopted = nodes.reduce((sum, { counters }) => sum + counters.adopted, 0);
    expect(made).toBeGreaterThan(50);
    expect(adopted).toBeGreaterThan(100);
  });

  test.each([
    ["IPv4 TCP", CLIENT, SERVER, "tcp"],
    ["IPv4 UDP", CLIENT, SERVER, "udp"],
    ["IPv6 TCP", CLIENT6, SERVER6, "tcp"],
    ["IPv6 UDP", CLIENT6, SERVER6, "udp"],
  ] as const)("%s: any node goes on with a flow, from either side", async (_, from, to, kind) => {
    const nodes = await fleet(nat({ link: "raw" }), 3);
    const [first, second, third] = nodes as [FleetNode, FleetNode, FleetNode];
    const begins = kind === "tcp" ? { flags: "S" } : {};
    const goesOn = kind === "tcp" ? { flags: "A" } : {};
    const request = raw().ip(from, to)[kind](4000, 80, begins);
    const [opened] = await through(first, { frame: request });
    expect(opened?.verdict).toBe("forward");
    const flow = [...first.engine.flows()][0] as Flow;
    const { translatedClient } = flow;
    const answer = raw().ip(to, translatedClient.address);
    const reply = answer[kind](80, translatedClient.port, goesOn);
    const back = raw().ip(to, from)[kind](80, 4000, goesOn);
    expect(await through(second, { frame: reply, port: 1 })).toEqual([
      { verdict: "forward", frame: Buffer.from(back.bytes()) },
    ]);
    const more = raw().ip(from, to)[kind](4000, 80, goesOn);
    const expected = raw()
      .ip(translatedClient.address, to)
      [kind](translatedClient.port, 80, goesOn);
    expect(await through(third, { frame: more, timeMs: 100 })).toEqual([
      { verdict: "forward", frame: Buffer.from(expected.bytes()) },
    ]);
    const states = nodes.map(({ engine }) => [...engine.flows()].map(({ state }) => state));
    const taken = kind === "tcp" ? ["established"] : ["udp"];
    expect(states).toEqual([kind === "tcp" ? ["half-open"] : ["udp"], taken, taken]);
    // Nobody is asked about it any more.
    third.add(more.bytes(), 200, 0);
    expect(third.process().map(({ verdict }) => verdict)).toEqual(["forward"]);
  });

  test("a flow that has lived long is taken over as one that lives", async () => {
    const store = new SharedStore({ entries: 1024 });
    const [one, other] = (await fleet(nat({ link: "raw" }), 2, { store })) as [
      FleetNode,
      FleetNode,
    ];
    await through(one, { frame: syn(CLIENT, 4000) });
    const more = raw().ip(CLIENT, SERVER).tcp(4000, 80, { flags: "A" });
    for (let timeMs = 20_000; timeMs <= 1_000_000; timeMs += 20_000) {
      await through(one, { frame: more, timeMs });
      await one.refresh(timeMs);
    }
    expect((await through(other, { frame: more, timeMs: 1_000_100 }))[0]?.verdict).toBe("forward");
  });

  test("all decided flows are told in parts, of both families", async () => {
    const [node] = (await fleet(nat({ link: "raw" }), 1)) as [FleetNode];
    for (let port = 1; port <= 7; port++) {
      await through(node, { frame: syn(CLIENT, 4000 + port) });
      if (port > 3) continue;
      await through(node, {
        frame: raw()
          .ip(CLIENT6, SERVER6)
          .udp(4000 + port, 80, {}),
      });
    }
    // Proposed only.
    node.add(syn(CLIENT, 5000).bytes(), 0);
    node.process();
    const told: number[] = [];
    let after = 0;
    do {
      const { flows, last } = decidedAfter(node.engine, after, 3);
      expect(flows.length).toBeLessThanOrEqual(3);
      told.push(...flows.map(({ handle }) => handle));
      after = last;
    } while (after !== 0);
    const all = [...node.engine.flows()].filter(({ state }) => state !== "proposed");
    expect(told).toEqual(all.map(({ handle }) => handle));
    expect(told).toHaveLength(10);
  });

  test("two nodes that meet a flow at once send it the same way", async () => {
    const [one, other] = (await fleet(nat({ link: "raw" }), 2)) as [FleetNode, FleetNode];
    for (const node of [one, other]) {
      node.add(syn(CLIENT, 4000).bytes(), 0);
      expect(node.process()).toEqual([]);
    }
    const [left, right] = await Promise.all([one.settle(0), other.settle(0)]);
    expect(left?.map(({ frame }) => Buffer.from(frame))).toEqual(
      right?.map(({ frame }) => Buffer.from(frame)),
    );
    // With one seed both propose the same, and are told so.
    expect([one.counters.made, other.counters.made, left?.length]).toEqual([1, 1, 1]);
  });

  test("two clients never leave with one tuple, whichever nodes they meet", async () => {
    const nodes = await fleet(nat({ link: "raw" }), 4);
    const random = seeded(3);
    const seen = new Set<string>();
    for (let client = 0; client < 200; client++) {
      const node = nodes[Math.floor(random() * 4)] as FleetNode;
      // All with one source port towards one destination: only the port chosen tells them apart.
      const frame = syn(`10.0.${client >> 4}.${client & 15}`, 5000);
      const [{ verdict, frame: out } = { verdict: "", frame: Buffer.alloc(0) }] = await through(
        node,
        { frame },
      );
      expect(verdict).toBe("forward");
      seen.add(out.subarray(12, 22).toString("hex"));
    }
    expect(seen.size).toBe(200);
    expect(nodes.reduce((sum, { counters }) => sum + counters.conflicts, 0)).toBeGreaterThan(10);
  });

  test("a claim that a node left behind decides nothing, and takes no more than its tuple", async () => {
    const store = new SharedStore({ entries: 1024 });
    const setup = nat({ link: "raw" });
    const nodes = await fleet(setup, 3, { store });
    const [dead, one, other] = nodes as [FleetNode, FleetNode, FleetNode];
    const ack = (from: string) => raw().ip(from, SERVER).tcp(5000, 80, { flags: "A" });
    const portOf = async (node: FleetNode, frame: Packet, timeMs: number) => {
      const [leaving] = await through(node, { frame, timeMs });
      return leaving && leaving.verdict === "forward" ? leaving.frame.readUInt16BE(20) : undefined;
    };
    // One node dies between its two claims for a client, which another one sends another way.
    dead.add(syn(CLIENT, 5000).bytes(), 0);
    dead.process();
    const left = onlyDecision(dead);
    expect(await store.claim("service", [left], 0)).toEqual([left]);
    const [elsewhere] = (await fleet(setup, 1)) as [FleetNode];
    await through(elsewhere, { frame: syn("10.0.0.9", 5000) });
    const inTheWay = adoptDecision(one.engine, onlyDecision(elsewhere), 0);
    const decided = await portOf(one, syn(CLIENT, 5000), 1);
    one.engine.exports.forgetFlow(inTheWay);
    // Clients that would get the tuple get another one, of the node that has the flow as well.
    const ports = [
      decided,
      await portOf(one, syn("10.0.0.7", 5000), 2),
      await portOf(other, syn("10.0.0.8", 5000), 2),
    ];
    expect(ports).not.toContain(undefined);
    expect(ports).not.toContain(5000);
    expect(new Set(ports).size).toBe(3);
    // The flow goes on as it was decided, whichever node its packets meet.
    for (const node of [other, one]) expect(await portOf(node, ack(CLIENT), 3)).toBe(decided);
    const answer = raw().ip(SERVER, NAT).tcp(80, 5000, { flags: "A" });
    const verdicts = await through(other, { frame: answer, port: 1, timeMs: 4 });
    expect(verdicts.map(({ verdict }) => verdict)).toEqual(["drop.no-flow"]);
  });

  test("what nobody knows is a stray, and no more frames wait than may", async () => {
    const [node] = (await fleet(nat({ link: "raw" }), 1, { queueMax: 2 })) as [FleetNode];
    const stray = raw().ip(CLIENT, SERVER).tcp(4000, 80, { flags: "A" });
    expect((await through(node, { frame: stray })).map(({ verdict }) => verdict)).toEqual([
      "drop.no-flow",
    ]);
    const answer = raw().ip(SERVER, NAT).tcp(80, 4000, { flags: "A" });
    expect((await through(node, { frame: answer, port: 1 }))[0]?.verdict).toBe("drop.no-flow");
    for (let port = 1; port <= 5; port++) node.add(syn(CLIENT, 4000 + port).bytes(), 0);
    node.process();
    expect([node.waiting, node.counters.dropped]).toEqual([2, 3]);
    expect((await node.settle(0)).length).toBe(2);
    const [strict] = (await fleet(nat({ link: "raw" }), 1, { queueMax: 0 })) as [FleetNode];
    expect(await through(strict, { frame: syn(CLIENT, 4000) })).toEqual([]);
    expect(strict.counters.dropped).toBe(1);
    // Held frames count as dropped only once they are.
    expect(node.engine.usage(0).packetsDropped).toBe(1);
  });

  test("without a store established flows go on, new ones do not begin", async () => {
    const store = new SharedStore({ entries: 1024, ttlMs: 400_000 });
    let isDown = false;
    const fragile = new Proxy(store, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return isDown ? () => Promise.reject(new Error("down")) : value.bind(target);
      },
    });
    const [node] = (await fleet(nat({ link: "raw" }), 1, { store: fragile, ttlMs: 400_000 })) as [
      FleetNode,
    ];
    expect((await through(node, { frame: syn(CLIENT, 4000) })).length).toBe(1);
    await node.refresh(10);
    isDown = true;
    const more = raw().ip(CLIENT, SERVER).tcp(4000, 80, { flags: "A" });
    expect((await through(node, { frame: more, timeMs: 20 }))[0]?.verdict).toBe("forward");
    expect(await through(node, { frame: syn(CLIENT, 4001), timeMs: 20 })).toEqual([]);
    expect(node.counters.undecided).toBe(1);
    isDown = false;
    expect((await through(node, { frame: syn(CLIENT, 4001), timeMs: 30 })).length).toBe(1);
    isDown = true;
    await expect(node.refresh(300_000)).rejects.toThrow("down");
    expect([...node.engine.flows()].length).toBe(2);
    // Another node may have its tuples from now on.
    await expect(node.refresh(400_010)).rejects.toThrow("down");
    expect([[...node.engine.flows()].length, node.counters.lost]).toEqual([0, 2]);
  });

  test("a flow whose decision went to another flow ends at the next refresh", async () => {
    const times = { entries: 1024, ttlMs: 1000, holdMs: 0 };
    const store = new SharedStore(times);
    const [late, node] = (await fleet(nat({ link: "raw" }), 2, { store, ttlMs: 100_000 })) as [
      FleetNode,
      FleetNode,
    ];
    await through(late, { frame: syn(CLIENT, 4000) });
    await through(node, { frame: syn("10.0.0.2", 4000), timeMs: 2000 });
    const flowsOf = ({ engine }: FleetNode) =>
      [...engine.flows()].map(({ client }) => client.address);
    expect([flowsOf(late), flowsOf(node)]).toEqual([[CLIENT], ["10.0.0.2"]]);
    await late.refresh(2001);
    await node.refresh(2001);
    expect([flowsOf(late), flowsOf(node)]).toEqual([[], ["10.0.0.2"]]);
    expect(late.counters.lost).toBe(1);
  });
});
