/**
 * Fleets behind network tables: ports carry both sides of flows, and most packets that begin none are
 * refused for other reasons than a missing flow. Whichever nodes its packets meet, a fleet must do what
 * one engine does.
 */
import { fc, test as property } from "@fast-check/vitest";
import { afterAll, describe, expect, test } from "vitest";
import { type Packet, raw } from "../fixtures/packets.ts";
import type { Flow } from "../host/engine/api.ts";
import type { Engine } from "../host/engine/engine.ts";
import { type Departure, Frames } from "../host/engine/frames.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { FleetNode } from "../host/nodes/node.ts";
import { SharedStore } from "../host/nodes/shared-store.ts";
import { balanced, gateway, NODE, networkEngine } from "./network.ts";

const NODES = 3;

async function rawEngine(tables: NetworkTables): Promise<Engine> {
  const engine = await networkEngine(tables, 256);
  for (const { vpc, port } of tables.vpcs) {
    if (port !== undefined) engine.setPort(port, { vpc, sides: "both", routed: true, link: "raw" });
  }
  return engine;
}

async function fleetOf(tables: NetworkTables): Promise<FleetNode[]> {
  const store = new SharedStore({ entries: 4096 });
  const nodes: FleetNode[] = [];
  while (nodes.length < NODES) {
    nodes.push(new FleetNode({ engine: await rawEngine(tables), store, sideOf: () => "both" }));
  }
  return nodes;
}

async function through(node: FleetNode, frame: Uint8Array, port: number): Promise<string[]> {
  node.add(frame, 1000, port);
  const leaving = node.process().map(textOf);
  for (let round = 0; round < 10 && node.waiting > 0; round++) {
    leaving.push(...(await node.settle(1000)).map(textOf));
  }
  return leaving;
}

function textOf({ verdict, made, port, frame }: Departure): string {
  return `${made ?? verdict} ${port} ${Buffer.from(frame).toString("hex")}`;
}

/** What the other end sends back to a packet of bare IPv4: addresses and ports change places. */
function answerTo(frame: Uint8Array, flags: string): Packet {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const address = (at: number) => [...frame.subarray(at, at + 4)].join(".");
  const ip = raw().ip(address(16), address(12));
  const [source, destination] = [view.getUint16(22), view.getUint16(20)];
  if (frame[9] === 17) return ip.udp(source, destination, {});
  return ip.tcp(source, destination, { flags });
}

interface World {
  tables: NetworkTables;
  /** Where clients send to. */
  destinations: string[];
  /** Port of clients, and that of what answers. */
  ports: [clients: number, others: number];
}

const WORLDS: Record<string, World> = {
  "a load balancer that keeps its clients' addresses": {
    tables: balanced(),
    destinations: [NODE, "10.0.2.200"],
    ports: [1, 1],
  },
  "a load balancer with addresses of its own": {
    tables: balanced({ sources: [NODE] }),
    destinations: [NODE, "10.0.2.200"],
    ports: [1, 1],
  },
  "a NAT gateway": { tables: gateway(), destinations: ["8.8.8.8", "8.8.4.4"], ports: [1, 9] },
};

const step = fc.record({
  node: fc.nat(NODES - 1),
  kind: fc.constantFrom("begin", "go on", "answer", "answer", "stray"),
  protocol: fc.constantFrom("tcp", "udp"),
  client: fc.nat(3),
  sourcePort: fc.constantFrom(5000, 5064, 5001),
  destination: fc.nat(1),
  destinationPort: fc.constantFrom(80, 80, 80, 81),
  which: fc.nat(1000),
});

/** Flows that nodes had from others, over all runs. */
let adopted = 0;
afterAll(() => expect(adopted).toBeGreaterThan(100));

describe.each(Object.entries(WORLDS))("%s", (_, { tables, destinations, ports }) => {
  property.prop([fc.array(step, { minLength: 40, maxLength: 80 })], {
    numRuns: 25,
    endOnFailure: true,
  })("is the same in a fleet as in one engine", async (steps) => {
    const frames = new Frames(await rawEngine(tables));
    const nodes = await fleetOf(tables);
    const sent: Uint8Array[] = [];
    for (const one of steps) {
      const { kind, protocol, client, sourcePort, destination, destinationPort, which } = one;
      const from = `10.0.1.${client + 10}`;
      // Nobody but the load balancer itself sends from its address.
      const to = destinations[kind === "stray" ? 1 : destination] as string;
      const ip = raw().ip(from, to);
      const flags = kind === "begin" ? "S" : "A";
      let packet = ip[protocol](sourcePort, destinationPort, protocol === "tcp" ? { flags } : {});
      const asked = sent[which % Math.max(1, sent.length)];
      const answers = kind === "answer" && asked !== undefined;
      if (answers) packet = answerTo(asked, which % 2 ? "A" : "SA");
      else if (kind === "stray") packet = answerTo(packet.bytes(), "A");
      const port = kind === "answer" || kind === "stray" ? ports[1] : ports[0];
      frames.add(packet.bytes(), 1000, port);
      const expected = frames.process();
      const texts = expected.map(textOf);
      for (const { verdict, frame, made } of expected) {
        if (verdict === "forward" && made === undefined) sent.push(frame.slice());
      }
      expect(await through(nodes[one.node] as FleetNode, packet.bytes(), port)).toEqual(texts);
    }
    for (const { counters } of nodes) adopted += counters.adopted + counters.conflicts;
  });
});

describe("a client whose answers go through another node", () => {
  test("has an established flow once it acknowledges one", async () => {
    const nodes = await fleetOf(gateway());
    const [inside, outside] = nodes as [FleetNode, FleetNode];
    const segment = (flags: string) => raw().ip("10.0.1.10", "8.8.8.8").tcp(5000, 80, { flags });
    await through(inside, segment("S").bytes(), 1);
    const [{ translatedClient }] = [...inside.engine.flows()] as [Flow];
    const { address, port } = translatedClient;
    const answer = raw().ip("8.8.8.8", address).tcp(80, port, { flags: "SA" });
    expect((await through(outside, answer.bytes(), 9))[0]).toMatch(/^forward 1 /);
    const stateOf = ({ engine }: FleetNode) => [...engine.flows()].map(({ state }) => state);
    expect([stateOf(inside), stateOf(outside)]).toEqual([["half-open"], ["established"]]);
    await through(inside, segment("A").bytes(), 1);
    expect(stateOf(inside)).toEqual(["established"]);
  });
});
