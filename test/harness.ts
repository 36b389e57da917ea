/**
 * Runs frames through an engine and takes them out again, with a canary around every frame, and
 * compares what happened with the slow twin.
 */
import { expect } from "vitest";
import { addressBytes } from "../fixtures/bytes.ts";
import type { Packet } from "../fixtures/packets.ts";
import type {
  EmitName,
  Flow,
  PortOptions,
  ServiceOptions,
  VerdictName,
} from "../host/engine/api.ts";
import { createEngine, EMIT_NAMES, type Engine, VERDICT_NAMES } from "../host/engine/engine.ts";
import type { Direction, Outcome, Side, TwinFlow } from "./reference/engine.ts";
import { Twin } from "./reference/engine.ts";
import { mirror, parseFrame, type Tuple } from "./reference/parse.ts";

export interface Arrival {
  frame: Packet | Uint8Array;
  port?: number;
  timeMs?: number;
}

export interface Departure {
  verdict: VerdictName;
  frame: Uint8Array;
  portOut: number;
  side: Side;
  direction: Direction;
  flow: number;
  /** What the engine made because of the frame. */
  made: Made[];
}

export interface Made {
  kind: EmitName;
  isAfter: boolean;
  frame: Uint8Array;
  portOut: number;
}

export interface Setup {
  services: ServiceOptions[];
  ports: PortOptions[];
}

/** What takes batches: an engine, or the compact one, which makes no frames of its own. */
export type Batched = Pick<Engine, "arena" | "bytes" | "clock" | "descriptors" | "process"> &
  Partial<Pick<Engine, "emits" | "emitCount">>;

const SEED = Uint8Array.from({ length: 16 }, (_, i) => i);
const CANARY = 0xa5;
const CANARY_BYTES = 64;
const HOLD_MS = 60_000;

/** An engine small enough to make by the dozen, always with the same seed. */
export async function smallEngine(setup: Setup, flowCountMax = 4096): Promise<Engine> {
  const engine = await createEngine({
    flowCountMax,
    flow6CountMax: flowCountMax,
    seed: SEED,
    warmUp: false,
  });
  configure(engine, setup);
  return engine;
}

function configure(engine: Engine, setup: Setup): void {
  setup.services.forEach((service, i) => {
    engine.setService(i, service);
  });
  setup.ports.forEach((port, i) => {
    engine.setPort(i, port);
  });
}

export function twinOf(setup: Setup): Twin {
  const twin = new Twin(HOLD_MS);
  twin.services.push(...setup.services);
  twin.ports.push(...setup.ports);
  return twin;
}

export function bytesOf(frame: Packet | Uint8Array): Uint8Array {
  return frame instanceof Uint8Array ? frame : frame.bytes();
}

/** Sends frames through the engine, `batchSize` at a time. */
export function send(engine: Batched, arrivals: readonly Arrival[], batchSize = 256): Departure[] {
  const departures: Departure[] = [];
  for (let start = 0; start < arrivals.length; start += batchSize) {
    departures.push(...sendBatch(engine, arrivals.slice(start, start + batchSize)));
  }
  return departures;
}

function sendBatch(engine: Batched, arrivals: readonly Arrival[]): Departure[] {
  const { arena, bytes, descriptors } = engine;
  const frames = arrivals.map(({ frame }) => bytesOf(frame));
  const room = frames.reduce((sum, frame) => sum + frame.length + CANARY_BYTES, CANARY_BYTES);
  if (room > arena.bytes) throw new Error(`a batch of ${room} bytes does not fit the arena`);
  bytes.fill(CANARY, arena.address, arena.address + room);
  const starts: number[] = [];
  let next = arena.address + CANARY_BYTES;
  frames.forEach((frame, i) => {
    bytes.set(frame, next);
    starts.push(next);
    const port = arrivals[i]?.port ?? 0;
    const timeMs = engine.clock.at(arrivals[i]?.timeMs ?? 0);
    descriptors.set([next, frame.length, timeMs, port, 0, 0, 0, frame.length], i * 8);
    next += frame.length + CANARY_BYTES;
  });
  engine.process(frames.length);
  const departures = frames.map((frame, i) => depart(engine, i, starts[i] ?? 0, frame.length));
  frames.forEach((frame, i) => {
    bytes.fill(CANARY, starts[i], (starts[i] ?? 0) + frame.length);
  });
  const spoilt = bytes.subarray(arena.address, arena.address + room).findIndex((b) => b !== CANARY);
  if (spoilt !== -1) throw new Error(`the engine wrote outside a frame, at arena byte ${spoilt}`);
  return departures;
}

function depart(engine: Batched, index: number, start: number, length: number): Departure {
  const words = engine.descriptors.subarray(index * 8, index * 8 + 8);
  const [, , , ports = 0, verdict = 0, flow = 0] = words;
  const name = VERDICT_NAMES[verdict & 0xffff];
  if (name === undefined)
    throw new Error(`the engine gave a verdict of number ${verdict & 0xffff}`);
  return {
    verdict: name,
    frame: engine.bytes.slice(start, start + length),
    portOut: ports >>> 16,
    side: (verdict >>> 16) & 0xff ? "service" : "client",
    direction: verdict >>> 24 ? "from-service" : "from-client",
    flow,
    made: madeBy(engine, index),
  };
}

/** What frame `index` of the last batch made the engine emit. */
function madeBy(engine: Batched, index: number): Made[] {
  const { bytes, emits = new Uint32Array(0), emitCount = 0 } = engine;
  const all = Array.from({ length: emitCount }, (_, at) => [...emits.subarray(at * 8, at * 8 + 8)]);
  const caused = all.filter((words) => words[6] === index);
  return caused.map(([address = 0, length = 0, , ports = 0, kind = 0]) => ({
    kind: EMIT_NAMES[kind & 0xffff] as EmitName,
    isAfter: ((kind >>> 16) & 0xff) === 1,
    frame: bytes.slice(address, address + length),
    portOut: ports >>> 16,
  }));
}

/** The tuple that the engine gave a frame, for the twin to judge; or why it gave none. */
function choiceOf(twin: Twin, arrival: Arrival, departure: Departure): Tuple | VerdictName {
  if (departure.verdict !== "forward") return departure.verdict;
  const port = twin.port(arrival.port ?? 0);
  const behind = twin.port(port.peer ?? arrival.port ?? 0);
  const parsed = parseFrame(departure.frame, port.link ?? "ethernet", behind.vpc ?? 0);
  if ("verdict" in parsed) throw new Error(`the engine sent out a frame that is ${parsed.verdict}`);
  return parsed.tuple;
}

/** One packet through the twin, told of the engine's choice, and both compared in everything. */
export function expectAsTwin(twin: Twin, arrival: Arrival, departure: Departure): Outcome {
  const frame = bytesOf(arrival.frame);
  const choose = () => choiceOf(twin, arrival, departure);
  const outcome = twin.process(frame, arrival.port ?? 0, arrival.timeMs ?? 0, choose);
  const { verdict, side, direction, portOut, reset } = outcome;
  const resets = reset
    ? [{ kind: "rst", isAfter: true, frame: reset, portOut: arrival.port ?? 0 }]
    : [];
  expect(departure.made).toEqual(resets);
  const told = { verdict: departure.verdict, portOut: departure.portOut };
  if (verdict !== "forward") {
    expect({ ...told, frame: departure.frame }).toEqual({ verdict, portOut, frame });
    return outcome;
  }
  const went = { ...told, side: departure.side, direction: departure.direction };
  expect(went).toEqual({ verdict, portOut, side, direction });
  if (Buffer.compare(departure.frame, outcome.frame) !== 0) {
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
    expect(text(departure.frame)).toBe(text(outcome.frame));
  }
  return outcome;
}

/** A flow as the engine lists it, in the twin's words; zones have other names and are left out. */
function flowLine(flow: Flow): string {
  const end = ({ address, port }: Flow["client"]) =>
    `${Buffer.from(addressBytes(address)).toString("hex")}:${port}`;
  const sides = [flow.client, flow.service, flow.translatedClient, flow.translatedService];
  const { packetsFromClient, packetsFromService, bytesFromClient, bytesFromService } = flow;
  const numbers = [packetsFromClient, packetsFromService, bytesFromClient, bytesFromService];
  return [
    flow.protocol,
    ...sides.map(end),
    flow.state,
    flow.lastSeenMs,
    ...numbers,
    flow.madeBy,
  ].join(" ");
}

const PROTOCOL_NAMES: Record<number, string> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6" };

function twinLine(flow: TwinFlow): string {
  const { client, service, packets, bytes } = flow;
  const protocol = PROTOCOL_NAMES[client.protocol] ?? `${client.protocol}`;
  const ends = [client, mirror(client), service, mirror(service)];
  const sides = ends.map((tuple) => `${tuple.source}:${tuple.sourcePort}`);
  const numbers = [
    packets["from-client"],
    packets["from-service"],
    bytes["from-client"],
    bytes["from-service"],
  ];
  return [protocol, ...sides, flow.state, flow.lastSeenMs, ...numbers, flow.madeBy].join(" ");
}

/** After both have forgotten what is over: the same flows, and the same counts. */
export function expectSameFlows(engine: Engine, twin: Twin, timeMs: number): void {
  engine.expire();
  twin.expire(timeMs);
  expect([...engine.flows()].map(flowLine).toSorted()).toEqual(twin.flows.map(twinLine).toSorted());
  const { verdicts, flows } = engine.counters();
  const { created, expired, reopened, active, tcp, udp, icmp, other } = flows;
  expect({ created, expired, reopened, tcp, udp, icmp, other }).toEqual(twin.counts);
  expect(active).toBe(twin.flows.length);
  expect(verdicts).toEqual(
    Object.fromEntries(VERDICT_NAMES.map((name) => [name, twin.verdicts.get(name) ?? 0])),
  );
}
