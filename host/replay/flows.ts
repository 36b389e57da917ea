/**
 * The conversation table: one row per bidirectional tuple, VLAN and VPC over a whole capture.
 *
 * The engine keeps the flows: its service translates nothing, adopts TCP in mid-stream and never
 * forgets, so that a flow's handle stands for one tuple from the first packet to the last. Packets,
 * bytes and instants are counted here, because the engine's own counts of a flow begin again when
 * a connection is opened again on the same ports.
 *
 * Protocols without ports have one row for each pair of addresses: echo identifiers, which tell
 * the engine's flows apart, are no ports. An ICMP error belongs to the row of its own addresses.
 */

import { addressText } from "../address.ts";
import type { FrameSource } from "../capture/source.ts";
import type { Endpoint, Flow, VerdictName } from "../engine/api.ts";
import { createEngine, type Engine, VERDICT_NAMES } from "../engine/engine.ts";
import { FlowplaneError } from "../errors.ts";
import {
  VERDICT_OUT_MAX,
  WORD_ADDRESS,
  WORD_CAPTURED,
  WORD_FLOW,
  WORD_PORTS,
  WORD_VERDICT,
  WORDS,
} from "./batch.ts";
import { networkHeader } from "./headers.ts";

/** One conversation; the source is who sent its first packet. */
export interface Conversation {
  /** "tcp", "udp", "icmp", "icmpv6" or the IANA number in decimal. */
  protocol: string;
  /** Port 0 where the protocol has none. */
  source: Endpoint;
  destination: Endpoint;
  /** The outer VLAN id, null without one; `vlans` has all of them. */
  vlan: number | null;
  vlans: number[];
  vpc: number;
  /** Both directions; bytes of frames as captured. */
  packets: number;
  bytes: number;
  packetsFromSource: number;
  bytesFromSource: number;
  /** Seconds since 1970-01-01 UTC. */
  firstSeen: number;
  lastSeen: number;
  /** Of TCP, at the end of the capture; null for others. */
  state: Flow["state"] | null;
}

export interface FlowsResult {
  schema: "flowplane.flows/1";
  capture: { file: string; format: string; linkTypes: string[]; packets: number; bytes: number };
  /** In the order of their first packets. */
  flows: Conversation[];
  /** Packets in no conversation, by the engine's verdict. */
  unassigned: Partial<Record<VerdictName, number>>;
  notes: string[];
}

export interface FlowsOptions {
  file: string;
  /** Size of the capture where it is known and plain, to size the flow table by. */
  fileBytes?: number | undefined;
  /** Opens the capture; again if the table was too small and `isRepeatable`. */
  open(engine: Engine): Promise<FrameSource>;
  isRepeatable: boolean;
  packetsMax?: number | undefined;
  wasm?: URL | BufferSource | WebAssembly.Module;
}

export interface FlowsRun {
  result: FlowsResult;
  /** Why the capture could not be read to its end. */
  failure: FlowplaneError | undefined;
}

/** The least that a flow's first packet takes in a capture: record header and IP header. */
const FLOW_BYTES_MIN = 36;
const FLOW_COUNT_MIN = 1 << 12;
const FLOW_COUNT_MAX = 1 << 24;
const FLOW6_COUNT_MAX = 1 << 22;
const FLOW_COUNT_GUESS = 1 << 20;
const SEED = new TextEncoder().encode("flowplane flows.");
const PROTOCOLS: Record<number, string> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6" };
const NEVER = { halfOpen: 0, established: 0, closing: 0, udp: 0, icmp: 0, other: 0 };

/** @throws FlowplaneError when the capture cannot be opened */
export async function conversations(options: FlowsOptions): Promise<FlowsRun> {
  const guess = options.fileBytes ? options.fileBytes / FLOW_BYTES_MIN : FLOW_COUNT_GUESS;
  let flowCount = FLOW_COUNT_MIN;
  while (flowCount < guess && flowCount < FLOW_COUNT_GUESS) flowCount *= 2;
  for (;;) {
    const counted = await countOnce(options, flowCount);
    const refused = counted.result.unassigned["drop.table-full"] ?? 0;
    if (refused === 0) return counted;
    if (!options.isRepeatable || flowCount >= FLOW_COUNT_MAX) {
      counted.result.notes.push(
        `${refused} packets began conversations that found the table of ${flowCount} full`,
      );
      return counted;
    }
    flowCount *= 4;
  }
}

async function countOnce(options: FlowsOptions, flowCount: number): Promise<FlowsRun> {
  const { file, wasm, packetsMax = Number.POSITIVE_INFINITY } = options;
  const engine = await createEngine({
    flowCountMax: Math.min(flowCount, FLOW_COUNT_MAX),
    flow6CountMax: Math.min(flowCount, FLOW6_COUNT_MAX),
    seed: SEED,
    timeouts: NEVER,
    warmUp: false,
    ...(wasm ? { wasm } : {}),
  });
  engine.setService(0, { adopt: true });
  const source = await options.open(engine);
  const table = new ConversationTable(engine, source);
  let failure: FlowplaneError | undefined;
  try {
    for (;;) {
      const limit = Math.min(256, packetsMax - source.packets);
      const count = limit > 0 ? await source.next(limit) : 0;
      if (count === 0) break;
      table.take(count);
    }
  } catch (error) {
    if (!(error instanceof FlowplaneError)) throw error;
    failure = error;
  } finally {
    source.close();
  }
  const { layout, interfaces, packets, capturedBytes } = source;
  const linkTypes = [...new Set(interfaces.map(({ linkName }) => linkName))];
  const capture = { file, format: layout.format, linkTypes, packets, bytes: capturedBytes };
  const { flows, unassigned } = table.rows();
  const result = { schema: "flowplane.flows/1", capture, flows, unassigned, notes: [] } as const;
  return { result: { ...result, notes: [] }, failure };
}

/** What is counted of a flow or a pair of addresses while the capture runs. */
interface Count {
  packets: number;
  bytes: number;
  /** Of both, what came from the flow's client or from the lower address. */
  packetsForth: number;
  bytesForth: number;
  firstNs: bigint;
  lastNs: bigint;
}

interface FlowCount extends Count {
  flow: Flow;
}

/** Frames that are in no flow of their own, by addresses; `source` sent the first of them. */
interface PairCount extends Count {
  protocol: string;
  source: string;
  destination: string;
  vlans: number[];
}

class ConversationTable {
  readonly #engine: Engine;
  readonly #source: FrameSource;
  readonly #flows = new Map<number, FlowCount>();
  readonly #pairs = new Map<string, PairCount>();
  readonly #unassigned = new Map<VerdictName, number>();
  #portCount = 0;

  constructor(engine: Engine, source: FrameSource) {
    this.#engine = engine;
    this.#source = source;
  }

  /** Passes `count` described frames through the engine and counts them. */
  take(count: number): void {
    const { interfaces } = this.#source;
    for (; this.#portCount < interfaces.length; this.#portCount++) {
      const link = interfaces[this.#portCount]?.link;
      if (link) this.#engine.setPort(this.#portCount, { link, service: 0 });
    }
    this.#engine.process(count);
    for (let index = 0; index < count; index++) this.#count(index);
  }

  #count(index: number): void {
    const { descriptors, bytes } = this.#engine;
    const at = index * WORDS;
    const captured = descriptors[at + WORD_CAPTURED] as number;
    const address = descriptors[at + WORD_ADDRESS] as number;
    const verdictWord = descriptors[at + WORD_VERDICT] as number;
    const frame = bytes.subarray(address, address + captured);
    const link = this.#source.interfaces[(descriptors[at + WORD_PORTS] as number) & 0xffff]?.link;
    const header = link && networkHeader(frame, link);
    const verdict = VERDICT_NAMES[verdictWord & 0xffff] as VerdictName;
    const handle = descriptors[at + WORD_FLOW] as number;
    const timeNs = this.#source.timeNs(index);
    if ((verdictWord & 0xffff) <= VERDICT_OUT_MAX && handle !== 0) {
      const row = this.#flowRow(handle, timeNs);
      // An ICMP error carries the handle of the flow that it quotes.
      if (row && (header === undefined || protocolName(header.protocol) === row.flow.protocol)) {
        addTo(row, verdictWord >>> 24 === 0, captured, timeNs);
        return;
      }
    }
    const isNameable =
      verdict === "forward" || verdict === "drop.no-flow" || verdict === "drop.fragment";
    if (header && isNameable) {
      const pair = this.#pairRow(header, timeNs);
      addTo(pair, pair.source === addressText(header.source), captured, timeNs);
      return;
    }
    this.#unassigned.set(verdict, (this.#unassigned.get(verdict) ?? 0) + 1);
  }

  #flowRow(handle: number, timeNs: bigint): FlowCount | undefined {
    const known = this.#flows.get(handle);
    if (known) return known;
    const flow = this.#engine.flow(handle);
    if (flow === undefined) return undefined;
    const row = { ...newCount(timeNs), flow };
    this.#flows.set(handle, row);
    return row;
  }

  #pairRow(header: NonNullable<ReturnType<typeof networkHeader>>, timeNs: bigint): PairCount {
    const protocol = protocolName(header.protocol);
    const source = addressText(header.source);
    const destination = addressText(header.destination);
    const { vlans } = header;
    const key = rowKey(
      protocol,
      { address: source, port: 0 },
      { address: destination, port: 0 },
      vlans,
    );
    const row = this.#pairs.get(key);
    if (row) return row;
    const made = { ...newCount(timeNs), protocol, source, destination, vlans };
    this.#pairs.set(key, made);
    return made;
  }

  /** The rows as they are now, in the order of their first packets. */
  rows(): Pick<FlowsResult, "flows" | "unassigned"> {
    const rows = new Map<string, { row: Conversation; firstNs: bigint; lastNs: bigint }>();
    const join = (conversation: Conversation, { firstNs, lastNs }: Count) => {
      const { protocol, source, destination, vlans } = conversation;
      const key = rowKey(protocol, source, destination, vlans);
      const other = rows.get(key);
      if (other === undefined) {
        rows.set(key, { row: conversation, firstNs, lastNs });
        return;
      }
      const isEarlier = firstNs < other.firstNs;
      const [earlier, later] = isEarlier ? [conversation, other.row] : [other.row, conversation];
      rows.set(key, {
        row: joined(earlier, later),
        firstNs: isEarlier ? firstNs : other.firstNs,
        lastNs: lastNs > other.lastNs ? lastNs : other.lastNs,
      });
    };
    for (const [handle, count] of this.#flows) {
      const flow = this.#engine.flow(handle) ?? count.flow;
      join(flowConversation(flow, count, this.#engine.zone(flow.zone)), count);
    }
    for (const count of this.#pairs.values()) join(pairConversation(count), count);
    const sorted = [...rows.values()].sort((a, b) =>
      a.firstNs < b.firstNs ? -1 : a.firstNs > b.firstNs ? 1 : 0,
    );
    return {
      flows: sorted.map(({ row }) => row),
      unassigned: Object.fromEntries(this.#unassigned),
    };
  }
}

function protocolName(protocol: number): string {
  return PROTOCOLS[protocol] ?? String(protocol);
}

function newCount(timeNs: bigint): Count {
  return { packets: 0, bytes: 0, packetsForth: 0, bytesForth: 0, firstNs: timeNs, lastNs: timeNs };
}

function addTo(count: Count, isForth: boolean, bytes: number, timeNs: bigint): void {
  count.packets += 1;
  count.bytes += bytes;
  if (isForth) {
    count.packetsForth += 1;
    count.bytesForth += bytes;
  }
  if (timeNs < count.firstNs) count.firstNs = timeNs;
  if (timeNs > count.lastNs) count.lastNs = timeNs;
}

/** The same for both directions of a conversation. */
function rowKey(protocol: string, a: Endpoint, b: Endpoint, vlans: number[]): string {
  const ends = [`${a.address} ${a.port}`, `${b.address} ${b.port}`].sort();
  return [protocol, ...ends, ...vlans].join(" ");
}

function flowConversation(
  flow: Flow,
  count: Count,
  { vpc, vlans }: { vpc: number; vlans: number[] },
): Conversation {
  const hasPorts = flow.protocol === "tcp" || flow.protocol === "udp";
  const endpoint = ({ address, port }: Endpoint) => ({ address, port: hasPorts ? port : 0 });
  return {
    protocol: flow.protocol,
    source: endpoint(flow.client),
    destination: endpoint(flow.service),
    vlan: vlans[0] ?? null,
    vlans,
    vpc,
    ...counts(count),
    state: flow.protocol === "tcp" ? flow.state : null,
  };
}

function pairConversation(count: PairCount): Conversation {
  const { protocol, source, destination, vlans } = count;
  return {
    protocol,
    source: { address: source, port: 0 },
    destination: { address: destination, port: 0 },
    vlan: vlans[0] ?? null,
    vlans,
    vpc: 0,
    ...counts(count),
    state: null,
  };
}

function counts({ packets, bytes, packetsForth, bytesForth, firstNs, lastNs }: Count) {
  return {
    packets,
    bytes,
    packetsFromSource: packetsForth,
    bytesFromSource: bytesForth,
    firstSeen: seconds(firstNs),
    lastSeen: seconds(lastNs),
  };
}

/** Seconds from ns, as exact as a number can be: whole seconds and fraction apart. */
function seconds(ns: bigint): number {
  return Number(`${ns / 1_000_000_000n}`) + Number(ns % 1_000_000_000n) / 1e9;
}

/** One row of two about the same endpoints; the source is that of the earlier. */
function joined(earlier: Conversation, later: Conversation): Conversation {
  const isSameWay = earlier.source.address === later.source.address;
  const forth = (part: "packets" | "bytes") =>
    isSameWay ? later[`${part}FromSource`] : later[part] - later[`${part}FromSource`];
  return {
    ...earlier,
    packets: earlier.packets + later.packets,
    bytes: earlier.bytes + later.bytes,
    packetsFromSource: earlier.packetsFromSource + forth("packets"),
    bytesFromSource: earlier.bytesFromSource + forth("bytes"),
    lastSeen: Math.max(earlier.lastSeen, later.lastSeen),
  };
}
