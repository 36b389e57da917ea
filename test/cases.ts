/**
 * Tables of cases for the engine: packets in, verdicts and packets out, one sentence each.
 */
import { expect } from "vitest";
import { type Packet, raw } from "../fixtures/packets.ts";
import type {
  Counters,
  Flow,
  PortOptions,
  ServiceOptions,
  VerdictName,
} from "../host/engine/api.ts";
import { type Arrival, bytesOf, type Setup, send, smallEngine } from "./harness.ts";

export const CLIENT = "10.0.0.1";
export const SERVER = "192.0.2.1";
export const NAT = "198.51.100.1";
export const TARGET = "172.16.0.9";
export const ROUTER = "203.0.113.9";
export const CLIENT6 = "2001:db8::1";
export const SERVER6 = "2001:db8:f::1";
export const NAT6 = "2001:db8:a::1";
export const TARGET6 = "2001:db8:b::9";
export const ROUTER6 = "2001:db8:9::9";

/** Client side on port 0, service side on port 1. */
function split(service: ServiceOptions, port: PortOptions = {}): Setup {
  const outside: PortOptions = { sides: "service", peer: 0 };
  if (port.link) outside.link = port.link;
  return { services: [service], ports: [{ ...port, service: 0, peer: 1 }, outside] };
}

export const nat = (port: PortOptions = {}) => split({ sourceAddresses: [NAT, NAT6] }, port);
export const natAdopting = () => split({ sourceAddresses: [NAT, NAT6], adopt: true });
export const nlb = (port?: number) => {
  const more = port === undefined ? {} : { port };
  return split({ targets: [TARGET, TARGET6].map((address) => ({ address, ...more })) });
};

/** One packet and its fate; without `out` the frame must stay as it was. */
export interface Step extends Arrival {
  verdict?: VerdictName;
  out?: Packet | Uint8Array;
  /** Port on which it leaves. */
  portOut?: number;
}

export interface Result {
  counters: Counters;
  flows: Flow[];
}

/** Plays the steps one batch each, and once more in one batch; both must go as the table says. */
export async function play(setup: Setup, steps: readonly Step[]): Promise<Result> {
  const all = await smallEngine(setup);
  send(all, steps).forEach((departure, i) => {
    expectStep(steps[i] as Step, departure, `step ${i + 1}, in one batch`);
  });
  const engine = await smallEngine(setup);
  send(engine, steps, 1).forEach((departure, i) => {
    expectStep(steps[i] as Step, departure, `step ${i + 1}`);
  });
  return { counters: engine.counters(), flows: [...engine.flows()] };
}

function expectStep(
  step: Step,
  departure: { verdict: VerdictName; frame: Uint8Array; portOut: number },
  where: string,
): void {
  const text = (frame: Packet | Uint8Array) => Buffer.from(bytesOf(frame)).toString("hex");
  const verdict = step.verdict ?? "forward";
  const told = { verdict: departure.verdict, frame: text(departure.frame) };
  expect(told, where).toEqual({ verdict, frame: text(step.out ?? step.frame) });
  if (step.portOut !== undefined) expect(departure.portOut, where).toBe(step.portOut);
}

/** An IP packet without link layer, for what ICMP errors quote. */
export const ip = (from: string, to: string) => raw().ip(from, to, { ttl: 7, hopLimit: 7 });
