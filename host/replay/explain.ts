/**
 * Why one packet fared as it did: the capture runs through the engine up to the packet before it,
 * then the engine is asked, and then it decides. Nothing is worked out here that the engine knows;
 * names of the configuration are put in the place of its numbers.
 */

import { addressBytes } from "../address.ts";
import type { FrameSource } from "../capture/source.ts";
import { contains, parseCidr } from "../cidr.ts";
import type { ControlEvent } from "../control/controller.ts";
import type { Endpoint, Flow, LinkKind, Usage, VerdictName } from "../engine/api.ts";
import { EMIT_NAMES, type Engine, VERDICT_NAMES } from "../engine/engine.ts";
import type { FrameExplanation } from "../engine/explain.ts";
import { UsageError } from "../errors.ts";
import type { Scenario } from "../scenario/scenario.ts";
import {
  EMIT_AFTER,
  WORD_CAPTURED,
  WORD_FLOW,
  WORD_PORTS,
  WORD_TIME,
  WORD_VERDICT,
  WORD_WIRE,
  WORDS,
} from "./batch.ts";
import { type Decider, EngineDecider } from "./decider.ts";
import { NetworkDecider, type NetworkReplay } from "./network.ts";
import { engineFor } from "./sizes.ts";
import { type AskedTuple, packetOf } from "./tuple.ts";

export interface Explanation {
  schema: "flowplane.explain/1";
  /** Number in the capture, from 1; 0 for a packet that was only asked about. */
  packet: number;
  /** ms since the capture's first packet. */
  timeMs: number;
  bytes: number;
  port: number;
  link: LinkKind;
  /** VPC and VLAN tags of the frame, as far as they have names. */
  vpc: string;
  /** What the engine knew before. */
  frame: Omit<FrameExplanation, "place" | "service" | "owner"> & {
    place?: { hash: string; group: number; tag: number };
  };
  /** The flow before and after. */
  flowBefore?: Flow;
  flow?: Flow;
  /** Which way the packet goes, and from which side it came. */
  direction?: "from-client" | "from-service";
  side?: "client" | "service";
  /** What took the packet, or would have: service, resource and the rule that led there. */
  service?: { id: string; resource: string; rule: string; securityGroups: string[] };
  /** Ends before and after translation, sender first. */
  translation?: { before: [Endpoint, Endpoint]; after: [Endpoint, Endpoint] };
  /** Counters that changed, and by how much. */
  counters: { name: string; by: number }[];
  /** Frames that the engine made. */
  made: { kind: string; isAfter: boolean; bytes: number; port: number }[];
  verdict: VerdictName;
  portOut: number;
  /** What the control plane did up to then, latest last. */
  events: string[];
}

export interface ExplainOptions {
  scenario: Scenario;
  network?: NetworkReplay;
  /** The capture that runs first; none: the engine is new. */
  open?: (engine: Engine) => Promise<FrameSource>;
  /** Which packet, from 1; default all run before a tuple is asked about. */
  packet?: number;
  /** A packet that begins this, after the capture. */
  tuple?: AskedTuple;
  /** VPC in which the tuple's source stands; default the first one. */
  vpc?: string;
  wasm?: URL | BufferSource | WebAssembly.Module;
}

const BATCH = 256;
/** Port of packets that are only asked about. */
const ASKED_PORT = 4095;
const EVENTS_MAX = 5;

/** @throws {UsageError} when the capture has no such packet, or the network no such VPC */
export async function explain(options: ExplainOptions): Promise<Explanation> {
  const { scenario, network, open, packet, tuple, wasm } = options;
  const engine = await engineFor(scenario, undefined, { warmUp: false, ...(wasm ? { wasm } : {}) });
  const decider = network?.decider(engine) ?? new EngineDecider(engine);
  const asker = new Asker(engine, decider, options);
  const source = await open?.(engine);
  try {
    if (source) {
      const last = packet === undefined ? Number.MAX_SAFE_INTEGER : packet - 1;
      await run(source, decider, last);
      if (packet !== undefined) {
        if ((await source.next(1)) === 0) {
          throw new UsageError(`--packet: ${packet} is not from 1 to ${source.packets}`);
        }
        decider.prepare(source);
        const link = source.interfaces[(engine.descriptors[WORD_PORTS] as number) & 0xffff]?.link;
        return asker.ask(packet, link ?? "ethernet");
      }
    }
    if (!tuple) throw new UsageError("--packet or --tuple: one of them is needed");
    return asker.askTuple(tuple);
  } finally {
    source?.close();
  }
}

async function run(source: FrameSource, decider: Decider, packets: number): Promise<void> {
  while (source.packets < packets) {
    const limit = Math.min(BATCH, decider.batchMax ?? BATCH, packets - source.packets);
    const count = await source.next(limit);
    if (count === 0) return;
    decider.prepare(source);
    decider.process(count);
  }
}

class Asker {
  readonly #engine: Engine;
  readonly #decider: EngineDecider;
  readonly #options: ExplainOptions;

  constructor(engine: Engine, decider: EngineDecider, options: ExplainOptions) {
    this.#engine = engine;
    this.#decider = decider;
    this.#options = options;
  }

  /** Asks about a packet that has not been seen, at the time of the last one. */
  askTuple(tuple: AskedTuple): Explanation {
    const { network, vpc } = this.#options;
    const names = Object.keys(network?.config.vpcs ?? {});
    if (vpc !== undefined && !names.includes(vpc)) {
      const known = names.length > 0 ? `one of ${names.join(", ")}` : "known: there is no network";
      throw new UsageError(`--vpc: "${vpc}" is not ${known}`);
    }
    const rule = network
      ? { vpc: network.numberOf(vpc ?? (names[0] as string)), routed: true }
      : { service: 0 };
    this.#engine.setPort(ASKED_PORT, { ...rule, link: "raw" });
    const { arena, bytes, descriptors } = this.#engine;
    const packet = packetOf(tuple);
    bytes.set(packet, arena.address);
    const words = [arena.address, packet.length, descriptors[WORD_TIME] as number, ASKED_PORT];
    descriptors.set([...words, 0, 0, 0, packet.length]);
    return this.ask(0, "raw");
  }

  /** Asks about the frame of the first descriptor, then lets it be decided. */
  ask(packet: number, link: LinkKind): Explanation {
    const engine = this.#engine;
    const { descriptors } = engine;
    if (this.#decider instanceof NetworkDecider) this.#decider.advance();
    const frame = engine.explain();
    const flowBefore = engine.flow(frame.found?.handle ?? 0);
    const serviceBefore = typeof frame.service === "number" ? frame.service : frame.owner;
    const bytes = descriptors[WORD_WIRE] as number;
    // Which service it is may show only afterwards: of a later fragment, of an answer from IPv4.
    const usages = this.#usages(flowBefore?.madeBy ?? serviceBefore);
    const before = this.#counters();
    this.#decider.process(1);
    const word = descriptors[WORD_VERDICT] as number;
    const flow = engine.flow(descriptors[WORD_FLOW] as number);
    const number = flow?.madeBy ?? flowBefore?.madeBy ?? serviceBefore;
    const after = this.#counters();
    const usage = number === undefined ? undefined : usages.get(number);
    if (number !== undefined && usage) {
      flatten(this.#serviceId(number), usage, before);
      flatten(this.#serviceId(number), engine.usage(number), after);
    }
    const ports = descriptors[WORD_PORTS] as number;
    const side = ((word >> 16) & 0xff) === 0 ? "client" : "service";
    const direction = word >>> 24 === 0 ? "from-client" : "from-service";
    const { place, service: _service, owner: _owner, ...rest } = frame;
    const translation = flow && translationOf(flow, side, direction);
    const service = number === undefined ? undefined : this.#service(number, frame);
    return {
      schema: "flowplane.explain/1",
      packet,
      timeMs: descriptors[WORD_TIME] as number,
      bytes,
      port: ports & 0xffff,
      link,
      vpc: this.#zoneName(frame.key?.zone),
      frame: {
        ...rest,
        ...(place ? { place: { ...place, hash: place.hash.toString(16).padStart(16, "0") } } : {}),
      },
      ...(flowBefore ? { flowBefore } : {}),
      ...(flow ? { flow, side, direction } : {}),
      ...(service ? { service } : {}),
      ...(translation ? { translation } : {}),
      counters: differences(before, after),
      made: this.#made(),
      verdict: VERDICT_NAMES[word & 0xffff] as VerdictName,
      portOut: ports >>> 16,
      events: this.#events(),
    };
  }

  /** What all services of the tables have been used for, and `service`, which they may have no more. */
  #usages(service: number | undefined): Map<number, Usage> {
    const network = this.#decider instanceof NetworkDecider ? this.#decider : undefined;
    const ids = network?.controller.compiled.tables.services.map(({ id }) => id) ?? [];
    const numbers = [service, ...ids.map((id) => this.#engine.serviceNumber(id))];
    const known = numbers.filter((one) => one !== undefined);
    return new Map(known.map((one) => [one, this.#engine.usage(one)]));
  }

  #counters(): Map<string, number> {
    const all = new Map<string, number>();
    const { verdicts, flows, emitted } = this.#engine.counters();
    flatten("verdicts", verdicts, all);
    flatten("flows", flows, all);
    flatten("made", emitted, all);
    return all;
  }

  #serviceId(number: number): string {
    const network = this.#decider instanceof NetworkDecider ? this.#decider : undefined;
    return network?.serviceId(number) ?? `service ${number}`;
  }

  #service(number: number, frame: FrameExplanation): NonNullable<Explanation["service"]> {
    const id = this.#serviceId(number);
    if (!(this.#decider instanceof NetworkDecider)) {
      const found = this.#options.scenario.resources.filter((one) => one.service === number);
      const resource = found.map((one) => one.id).join(" and ") || id;
      const rule = `the scenario ${this.#options.scenario.name}`;
      return { id, resource, rule, securityGroups: [] };
    }
    const { compiled } = this.#decider.controller;
    const { resource = id, service } = this.#decider.ownerOf(id) ?? {};
    const rules = compiled.tables.services.find((one) => one.id === id)?.rules ?? {};
    const groups = Object.entries(rules).map(([where, name]) => `${where}: ${name}`);
    const listener = service?.listener?.replace(":", " ");
    const at = service?.zone === undefined ? "" : ` in ${service.zone}`;
    const rule =
      listener !== undefined
        ? `listener ${listener}${at}`
        : frame.service === "unintended"
          ? `the address${at}, where nothing listens to this`
          : this.#route(id, frame);
    return { id, resource, rule, securityGroups: groups };
  }

  /** The longest route to the destination that leads to a service. */
  #route(id: string, { key }: FrameExplanation): string {
    if (!(this.#decider instanceof NetworkDecider) || key === undefined) return "the flow";
    const { vpc } = this.#engine.zone(key.zone);
    const tables = this.#decider.controller.compiled.tables.vpcs.find((one) => one.vpc === vpc);
    const destination = addressBytes(key.destination.address);
    const routes = (tables?.routeTables ?? []).flat().filter(({ to, service }) => {
      return service === id && contains(parseCidr(to), destination);
    });
    const longest = routes.sort((a, b) => prefixBits(b.to) - prefixBits(a.to))[0];
    return longest ? `route ${longest.to} of the VPC ${this.#vpcName(vpc)}` : "the flow";
  }

  #vpcName(number: number): string {
    return this.#options.network?.nameOf(number) ?? String(number);
  }

  #zoneName(zone: number | undefined): string {
    if (zone === undefined) return "";
    const { vpc, vlans } = this.#engine.zone(zone);
    const tags = vlans.map((id) => `VLAN ${id}`);
    return [`VPC ${this.#vpcName(vpc)}`, ...tags].join(", ");
  }

  #made(): Explanation["made"] {
    const { emits, emitCount } = this.#engine;
    return Array.from({ length: emitCount }, (_, index) => {
      const at = index * WORDS;
      const kind = emits[at + WORD_VERDICT] as number;
      return {
        kind: EMIT_NAMES[kind & 0xffff] as string,
        isAfter: (kind & EMIT_AFTER) !== 0,
        bytes: emits[at + WORD_CAPTURED] as number,
        port: (emits[at + WORD_PORTS] as number) >>> 16,
      };
    });
  }

  #events(): string[] {
    const events = this.#options.network?.events ?? [];
    return events.slice(-EVENTS_MAX).map(eventLine);
  }
}

function eventLine(event: ControlEvent): string {
  const at = `${event.atMs / 1000} s`;
  switch (event.kind) {
    case "target": {
      const { address, port, group, from, to } = event;
      return `${at}: target ${address} port ${port} of ${group}: ${from} to ${to}`;
    }
    case "endpoint":
      return `${at}: endpoint ${event.id}: ${event.from} to ${event.to}`;
    case "nat-address":
      return `${at}: address ${event.address} of ${event.id}: ${event.to}`;
    case "weight": {
      const { group, listener, id, weight } = event;
      return `${at}: ${group} at ${listener} of ${id}: weight ${weight}`;
    }
  }
}

function prefixBits(cidr: string): number {
  return Number(cidr.slice(cidr.indexOf("/") + 1));
}

/** Ends of the packet on the side that it came from and on the other, the sender first. */
function translationOf(
  flow: Flow,
  side: "client" | "service",
  direction: "from-client" | "from-service",
): NonNullable<Explanation["translation"]> {
  const client: [Endpoint, Endpoint] = [flow.client, flow.service];
  const service: [Endpoint, Endpoint] = [flow.translatedClient, flow.translatedService];
  const turn = ([from, to]: [Endpoint, Endpoint]): [Endpoint, Endpoint] => {
    return direction === "from-client" ? [from, to] : [to, from];
  };
  const [before, after] = side === "client" ? [client, service] : [service, client];
  return { before: turn(before), after: turn(after) };
}

function flatten(name: string, values: object, into: Map<string, number>): void {
  for (const [key, value] of Object.entries(values)) {
    if (typeof value === "number") into.set(`${name}.${key}`, value);
    else flatten(`${name}.${key}`, value as object, into);
  }
}

function differences(before: Map<string, number>, after: Map<string, number>) {
  return [...after].flatMap(([name, value]) => {
    const by = value - (before.get(name) ?? 0);
    return by === 0 || name.endsWith("Max") ? [] : [{ name, by }];
  });
}
