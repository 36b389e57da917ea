/**
 * The slow twin of the engine: the same semantics with Maps of strings, whole copies and no
 * thought of speed. Where the engine is free to choose (a pool address, a port, a target, by keyed
 * hashes), the twin is told the choice and judges it against the rules in choice.ts.
 *
 * Time is in milliseconds and may step back. One packet at a time.
 */

import type { PortOptions, ServiceOptions, VerdictName } from "../../host/engine/api.ts";
import { type Choose, refuseOrCheck } from "./choice.ts";
import { translateError } from "./error.ts";
import { keyOf, mirror, type Parsed, parseFrame, type Tuple } from "./parse.ts";
import { resetOf } from "./reset.ts";
import { writeTuple } from "./rewrite.ts";
import { beginState, nextState, type State, TIMEOUTS_MS } from "./state.ts";

export type Side = "client" | "service";
export type Direction = "from-client" | "from-service";

export interface TwinFlow {
  /** Both in the direction from the client. */
  client: Tuple;
  service: Tuple;
  state: State;
  lastSeenMs: number;
  madeBy: number;
  packets: Record<Direction, number>;
  bytes: Record<Direction, number>;
  /** Answered in another zone. */
  asymmetric?: boolean;
}

export interface Outcome {
  verdict: VerdictName;
  /** The frame as it leaves; the input when it is not rewritten. */
  frame: Uint8Array;
  portOut: number;
  /** The reset with which a stray is answered; it leaves where the stray came from. */
  reset?: Uint8Array;
  flow?: TwinFlow;
  side?: Side;
  direction?: Direction;
}

export interface Found {
  flow: TwinFlow;
  side: Side;
  direction: Direction;
}

const FRAGMENT_LIFETIME_MS = 30_000;

export class Twin {
  readonly ports: PortOptions[] = [];
  readonly services: ServiceOptions[] = [];
  readonly verdicts = new Map<VerdictName, number>();
  readonly counts = { created: 0, expired: 0, reopened: 0, tcp: 0, udp: 0, icmp: 0, other: 0 };
  /** The low bits of the targets of each listener, as met. */
  readonly listeners = new Map<string, number>();
  /** Flows by the key of either side's tuple, in the direction from the client. */
  private readonly byClient = new Map<string, TwinFlow>();
  private readonly byService = new Map<string, TwinFlow>();
  private readonly datagrams = new Map<string, Found & { seenMs: number }>();
  private readonly holdMs: number;
  /** Zones in the order in which they are first met. */
  private readonly zones: string[] = [];

  constructor(holdMs: number) {
    this.holdMs = holdMs;
  }

  get flows(): TwinFlow[] {
    return [...this.byClient.values()];
  }

  /** Takes one frame and says what becomes of it. */
  process(frame: Uint8Array, portIndex: number, timeMs: number, choose: Choose): Outcome {
    const outcome = this.decide(frame, portIndex, timeMs, choose);
    this.verdicts.set(outcome.verdict, (this.verdicts.get(outcome.verdict) ?? 0) + 1);
    return outcome;
  }

  private decide(frame: Uint8Array, portIndex: number, timeMs: number, choose: Choose): Outcome {
    const port = this.port(portIndex);
    const portOut = port.peer ?? portIndex;
    const stop = (verdict: VerdictName): Outcome => ({ verdict, frame, portOut });
    const parsed = parseFrame(frame, port.link ?? "ethernet", port.vpc ?? 0);
    this.ports.forEach(({ vpc }) => {
      this.nameZone(`${vpc ?? 0}`);
    });
    if (parsed.zone !== undefined) {
      this.nameZone(parsed.zone);
      this.nameZone(this.zoneBehind(parsed.zone, port));
    }
    if ("verdict" in parsed) return stop(parsed.verdict);
    if (parsed.namedBy === "later") {
      const outcome = this.laterFragment(frame, parsed, timeMs);
      return outcome === undefined ? stop("drop.fragment") : { ...outcome, portOut };
    }
    if (parsed.namedBy === "error") {
      const outcome = translateError(this, frame, parsed, port, timeMs);
      return typeof outcome === "string" ? stop(outcome) : { ...outcome, portOut };
    }
    const found =
      this.find(parsed.tuple, port, timeMs) ?? this.findInOtherZones(parsed, port, timeMs);
    const settled = found
      ? this.meet(found, parsed, timeMs)
      : this.begin(parsed, port, timeMs, choose);
    if (typeof settled === "string") {
      const answering = found ? this.services[found.flow.madeBy] : this.serviceOf(port);
      const isAnswered = settled === "drop.no-flow" && answering?.resetStrays === true;
      const reset = isAnswered ? resetOf(frame, parsed, port.link ?? "ethernet") : undefined;
      return reset === undefined ? stop(settled) : { ...stop(settled), reset };
    }
    return { ...this.forward(frame, parsed, settled, timeMs), portOut };
  }

  /** The service that makes flows of a port's packets. */
  private serviceOf(port: PortOptions): ServiceOptions | undefined {
    if (port.sides === "service" || port.service === undefined) return undefined;
    return this.services[port.service];
  }

  port(index: number): PortOptions {
    const port = this.ports[index];
    if (port === undefined) throw new Error(`the twin has no port ${index}`);
    return port;
  }

  /**
   * The flow that has this tuple on a side which the port carries. Flows long over are gone,
   * unless their service adopts flows: those keep their translation while there is room.
   */
  find(tuple: Tuple, port: PortOptions, timeMs: number): Found | undefined {
    const sides = port.sides ?? "client";
    for (const side of ["client", "service"] as const) {
      if (sides !== side && sides !== "both") continue;
      const flows = side === "client" ? this.byClient : this.byService;
      for (const direction of ["from-client", "from-service"] as const) {
        const flow = flows.get(keyOf(direction === "from-client" ? tuple : mirror(tuple)));
        if (flow === undefined) continue;
        const isKept = this.services[flow.madeBy]?.adopt === true;
        if (isKept || !this.isForgettable(flow, timeMs)) return { flow, side, direction };
        this.forget(flow);
      }
    }
    return undefined;
  }

  private nameZone(zone: string): void {
    if (!this.zones.includes(zone)) this.zones.push(zone);
  }

  /** An adopted flow that nobody has answered in its own zone may be answered in another. */
  private findInOtherZones(parsed: Parsed, port: PortOptions, timeMs: number): Found | undefined {
    if (port.sides === "service" || !this.services[port.service ?? -1]?.adopt) return undefined;
    // From an endpoint to itself everything is the client's.
    if (keyOf(parsed.tuple) === keyOf(mirror(parsed.tuple))) return undefined;
    for (const zone of this.zones.slice(0, 16)) {
      const isOther = zone !== parsed.zone && zone.split(" ")[0] === parsed.zone.split(" ")[0];
      const flow = this.byClient.get(keyOf(mirror({ ...parsed.tuple, zone })));
      if (!isOther || flow === undefined || this.isExpired(flow, timeMs)) continue;
      if (flow.packets["from-service"] > 0 && !flow.asymmetric) continue;
      flow.asymmetric = true;
      return { flow, side: "client", direction: "from-service" };
    }
    return undefined;
  }

  isExpired(flow: TwinFlow, timeMs: number): boolean {
    return timeMs - flow.lastSeenMs > TIMEOUTS_MS[flow.state];
  }

  /** Expired, and for so long that its tuple may be given to somebody else. */
  isForgettable(flow: TwinFlow, timeMs: number): boolean {
    const hold = Math.max(TIMEOUTS_MS[flow.state], this.holdMs);
    return timeMs - flow.lastSeenMs > hold;
  }

  /** Does a flow use this service-side tuple, in either direction? */
  isTaken(tuple: Tuple, timeMs: number): boolean {
    return [tuple, mirror(tuple)].some((t) => {
      const owner = this.byService.get(keyOf(t));
      return owner !== undefined && !this.isForgettable(owner, timeMs);
    });
  }

  /** A packet finds its flow. */
  private meet(found: Found, parsed: Parsed, timeMs: number): Found | VerdictName {
    const { flow, direction } = found;
    if (!this.isExpired(flow, timeMs)) {
      const next = nextState(flow.state, direction, parsed);
      if (next === "reopen") {
        this.counts.reopened++;
        this.start(flow, parsed, "from-client");
      } else {
        flow.state = next;
      }
      return found;
    }
    const service = this.services[flow.madeBy] ?? {};
    const stranger = direction === "from-service" || !this.mayBegin(service, parsed);
    if (stranger && !service.adopt) return "drop.no-flow";
    this.counts.expired++;
    this.start(flow, parsed, direction);
    this.countCreated(flow);
    return found;
  }

  private mayBegin(service: ServiceOptions, parsed: Parsed): boolean {
    const fresh = parsed.syn && !parsed.ack && !parsed.rst;
    return parsed.protocol !== 6 || service.adopt === true || fresh;
  }

  /** A packet that belongs to no flow may begin one. */
  private begin(
    parsed: Parsed,
    port: PortOptions,
    timeMs: number,
    choose: Choose,
  ): Found | VerdictName {
    if ((port.sides ?? "client") === "service") return "drop.no-flow";
    const service = port.service === undefined ? undefined : this.services[port.service];
    if (service === undefined || port.service === undefined) return "drop.no-service";
    if (!this.mayBegin(service, parsed)) return "drop.no-flow";
    const zoneOut = this.zoneBehind(parsed.zone, port);
    const chosen = choose(parsed.tuple);
    const request = { client: parsed.tuple, parsed, service, zoneOut, timeMs };
    const verdict = refuseOrCheck(this, request, chosen);
    if (verdict !== undefined) return verdict;
    const tuple = chosen as Tuple;
    for (const t of [tuple, mirror(tuple)]) this.forget(this.byService.get(keyOf(t)));
    const flow: TwinFlow = {
      client: parsed.tuple,
      service: tuple,
      state: beginState(parsed, "from-client"),
      lastSeenMs: timeMs,
      madeBy: port.service,
      packets: { "from-client": 0, "from-service": 0 },
      bytes: { "from-client": 0, "from-service": 0 },
    };
    this.byClient.set(keyOf(flow.client), flow);
    this.byService.set(keyOf(flow.service), flow);
    this.countCreated(flow);
    return { flow, side: "client", direction: "from-client" };
  }

  /** The VPC of the port behind, with the VLAN tags that the packet has. */
  private zoneBehind(zone: string, port: PortOptions): string {
    const peer = port.peer === undefined ? port : this.port(port.peer);
    return [`${peer.vpc ?? 0}`, ...zone.split(" ").slice(1)].join(" ");
  }

  private start(flow: TwinFlow, parsed: Parsed, direction: Direction): void {
    flow.state = beginState(parsed, direction);
    flow.packets = { "from-client": 0, "from-service": 0 };
    flow.bytes = { "from-client": 0, "from-service": 0 };
  }

  private countCreated(flow: TwinFlow): void {
    this.counts.created++;
    const kinds = { udp: "udp", icmp: "icmp", other: "other" } as const;
    const state = flow.state;
    const kind = state === "udp" || state === "icmp" || state === "other" ? kinds[state] : "tcp";
    this.counts[kind]++;
  }

  private forget(flow: TwinFlow | undefined): void {
    if (flow === undefined) return;
    this.byClient.delete(keyOf(flow.client));
    this.byService.delete(keyOf(flow.service));
    this.counts.expired++;
  }

  /** Forgets every expired flow. */
  expire(timeMs: number): void {
    for (const flow of this.flows) if (this.isExpired(flow, timeMs)) this.forget(flow);
  }

  /** The tuple with which a packet of the flow leaves. */
  tupleOut({ flow, side, direction }: Found): Tuple {
    const out = side === "client" ? flow.service : flow.client;
    return direction === "from-client" ? out : mirror(out);
  }

  private forward(frame: Uint8Array, parsed: Parsed, found: Found, timeMs: number): Outcome {
    const { flow, direction } = found;
    flow.lastSeenMs = timeMs;
    flow.packets[direction]++;
    flow.bytes[direction] += frame.length;
    if (parsed.fragment === "first") {
      this.datagrams.set(this.datagramKey(parsed), { ...found, seenMs: timeMs });
    }
    const out = frame.slice();
    writeTuple(out, parsed, this.tupleOut(found));
    return { verdict: "forward", frame: out, portOut: -1, ...found };
  }

  private datagramKey(parsed: Parsed): string {
    const { tuple, fragmentId } = parsed;
    return `${keyOf({ ...tuple, sourcePort: 0, destinationPort: 0 })} ${fragmentId}`;
  }

  private laterFragment(frame: Uint8Array, parsed: Parsed, timeMs: number): Outcome | undefined {
    const found = this.datagrams.get(this.datagramKey(parsed));
    if (found === undefined || timeMs - found.seenMs > FRAGMENT_LIFETIME_MS) return undefined;
    const alive = this.byClient.get(keyOf(found.flow.client)) === found.flow;
    if (!alive || this.isExpired(found.flow, timeMs)) return undefined;
    const { flow, side, direction } = found;
    return this.forward(frame, parsed, { flow, side, direction }, timeMs);
  }
}
