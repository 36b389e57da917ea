/**
 * The slow twin of the compact table: a NAT gateway that owns its addresses, with a Map of strings.
 * Which address and port a new flow gets is the engine's choice: the twin is told, and judges it.
 */
import type { VerdictName } from "../../host/engine/api.ts";
import { keyOf, mirror, type Parsed, parseFrame, type Tuple } from "./parse.ts";
import { writeTuple } from "./rewrite.ts";
import { beginState, nextState, type State, TIMEOUTS_MS } from "./state.ts";

export interface CompactTwinFlow {
  /** As the client sends. */
  client: Tuple;
  /** As it leaves. */
  service: Tuple;
  state: State;
  lastSeenMs: number;
  packets: [number, number];
  bytes: [number, number];
}

export interface CompactOutcome {
  verdict: VerdictName;
  /** An ICMP error: what it quotes may be cut or broken, and is not looked at here. */
  quotes?: boolean;
  frame: Uint8Array;
}

export class CompactTwin {
  readonly flows = new Map<string, CompactTwinFlow>();
  readonly #byService = new Map<string, CompactTwinFlow>();
  readonly #first: number;
  readonly #count: number;
  readonly #holdMs: number;

  constructor(first: number, count: number, holdMs: number) {
    this.#first = first;
    this.#count = count;
    this.#holdMs = holdMs;
  }

  /** `leaving` is the frame as the engine let it out, undefined when it was dropped. */
  process(
    frame: Uint8Array,
    fromClient: boolean,
    nowMs: number,
    leaving: Uint8Array | undefined,
  ): CompactOutcome {
    const parsed = parseFrame(frame, "ethernet", 0);
    if ("verdict" in parsed) return { verdict: parsed.verdict, frame };
    if (!isCarried(parsed)) {
      return { verdict: "drop.unintended", frame, quotes: parsed.namedBy === "error" };
    }
    return fromClient
      ? this.#fromClient(frame, parsed, nowMs, leaving)
      : this.#fromService(frame, parsed, nowMs);
  }

  /** Whether nobody may miss a flow's port any more: then it may be given to another. */
  isForgettable({ lastSeenMs, state }: CompactTwinFlow, nowMs: number): boolean {
    return nowMs - lastSeenMs > Math.max(TIMEOUTS_MS[state], this.#holdMs);
  }

  #fromClient(
    frame: Uint8Array,
    parsed: Parsed,
    nowMs: number,
    leaving: Uint8Array | undefined,
  ): CompactOutcome {
    const key = keyOf(parsed.tuple);
    const known = this.flows.get(key);
    const isOver = known && nowMs - known.lastSeenMs > TIMEOUTS_MS[known.state];
    const next = known && !isOver && nextState(known.state, "from-client", parsed);
    if (known && next && next !== "reopen") {
      known.state = next;
      return this.#leave(known, 0, frame, parsed, nowMs);
    }
    const begins = parsed.protocol === 17 || (parsed.syn && !parsed.ack && !parsed.rst);
    if (!begins) return { verdict: "drop.no-flow", frame };
    if (!leaving) return { verdict: "drop.port-exhausted", frame };
    const after = parseFrame(leaving, "ethernet", 0) as Parsed;
    const isKept = known && !this.isForgettable(known, nowMs);
    const service = isKept ? known.service : this.#judged(parsed.tuple, after.tuple, nowMs);
    const flow: CompactTwinFlow = {
      client: parsed.tuple,
      service,
      state: beginState(parsed, "from-client"),
      lastSeenMs: nowMs,
      packets: [0, 0],
      bytes: [0, 0],
    };
    if (known) this.#byService.delete(placeOf(known.service));
    this.flows.set(key, flow);
    this.#byService.set(placeOf(service), flow);
    return this.#leave(flow, 0, frame, parsed, nowMs);
  }

  /** The tuple that the engine chose, once it is one that it may choose. */
  #judged(before: Tuple, after: Tuple, nowMs: number): Tuple {
    const address = Number.parseInt(after.source, 16) - this.#first;
    if (!(address >= 0 && address < this.#count)) throw new Error(`${after.source}: not its own`);
    if (after.sourcePort < 1024) throw new Error(`port ${after.sourcePort} is too low`);
    if ((after.sourcePort & 63) !== (before.sourcePort & 63)) {
      throw new Error(`port ${after.sourcePort} has not the low six bits of ${before.sourcePort}`);
    }
    const place = placeOf(after);
    const owner = this.#byService.get(place);
    if (owner && !this.isForgettable(owner, nowMs)) throw new Error(`${place} is in use`);
    if (owner) this.flows.delete(keyOf(owner.client));
    return { ...before, source: after.source, sourcePort: after.sourcePort };
  }

  #fromService(frame: Uint8Array, parsed: Parsed, nowMs: number): CompactOutcome {
    const { tuple } = parsed;
    const address = Number.parseInt(tuple.destination, 16) - this.#first;
    const isOwn = address >= 0 && address < this.#count && tuple.destinationPort >= 1024;
    if (!isOwn) return { verdict: "drop.unintended", frame };
    const flow = this.#byService.get(placeOf(mirror(tuple)));
    const isAnswer =
      flow &&
      keyOf(mirror(tuple)) === keyOf(flow.service) &&
      nowMs - flow.lastSeenMs <= TIMEOUTS_MS[flow.state];
    if (!isAnswer) return { verdict: "drop.no-flow", frame };
    flow.state = nextState(flow.state, "from-service", parsed) as State;
    return this.#leave(flow, 1, frame, parsed, nowMs);
  }

  #leave(
    flow: CompactTwinFlow,
    direction: 0 | 1,
    frame: Uint8Array,
    parsed: Parsed,
    nowMs: number,
  ): CompactOutcome {
    flow.lastSeenMs = nowMs;
    flow.packets[direction] += 1;
    flow.bytes[direction] += frame.length;
    const copy = frame.slice();
    writeTuple(copy, parsed, direction === 0 ? flow.service : mirror(flow.client));
    return { verdict: "forward", frame: copy };
  }
}

/** Whole untagged IPv4 packets of TCP and UDP, captured as far as their checksum. */
function isCarried(parsed: Parsed): boolean {
  const { family, protocol, fragment, namedBy, transport, capturedEnd, zone } = parsed;
  const isPorted = protocol === 6 || protocol === 17;
  if (family !== 4 || !isPorted || fragment !== "none" || namedBy !== "own") return false;
  return zone === "0" && capturedEnd - transport >= (protocol === 6 ? 20 : 8);
}

/** The address and port that belong to one flow alone. */
function placeOf({ source, sourcePort }: Tuple): string {
  return `${source}:${sourcePort}`;
}
