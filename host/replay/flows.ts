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
  definePorts,
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
const PROTOCOLS_WITH_PORTS = new Set([6, 17]);
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
  return {
    result: { schema: "flowplane.flows/1", capture, flows, unassigned, notes: [] },
    failure,
  };
}

/** A conversation while the capture runs; `handle` is the flow of TCP, whose state is asked for. */
interface Row {
  protocol: string;
  source: Endpoint;
  destination: Endpoint;
  vlans: number[];
  vpc: number;
  handle: number;
  packets: number;
  bytes: number;
  packetsFromSource: number;
  bytesFromSource: number;
  firstNs: bigint;
  lastNs: bigint;
}

/** The row of an engine's flow, and whether the flow's client is the row's source. */
interface FlowRow {
  row: Row;
  isSameWay: boolean;
}

class ConversationTable {
  readonly #engine: Engine;
  readonly #source: FrameSource;
  readonly #rows: Row[] = [];
  /** By handle, and for tagged frames by handle and VLANs. */
  readonly #byHandle = new Map<number | string, FlowRow>();
  /** Rows of protocols without ports. */
  readonly #byAddresses = new Map<string, Row>();
  readonly #unassigned = new Map<VerdictName, number>();
  #portCount = 0;

  constructor(engine: Engine, source: FrameSource) {
    this.#engine = engine;
    this.#source = source;
  }

  /** Passes `count` described frames through the engine and counts them. */
  take(count: number): void {
    this.#portCount = definePorts(this.#engine, this.#source, this.#portCount);
    this.#engine.process(count);
    for (let index = 0; index < count; index++) this.#count(index);
  }

  #count(index: number): void {
    const { descriptors, bytes } = this.#engine;
    const at = index * WORDS;
    const captured = descriptors[at + WORD_CAPTURED] as number;
    const address = descriptors[at + WORD_ADDRESS] as number;
    const verdictWord = descriptors[at + WORD_VERDICT] as number;
    const verdict = VERDICT_NAMES[verdictWord & 0xffff] as VerdictName;
    const link = this.#source.interfaces[(descriptors[at + WORD_PORTS] as number) & 0xffff]?.link;
    const header = link && networkHeader(bytes.subarray(address, address + captured), link);
    const timeNs = this.#source.timeNs(index);
    // The handle of an ICMP error is that of the flow that it quotes: not its own conversation.
    if (verdict === "forward" && header?.isError === false) {
      const isFromClient = verdictWord >>> 24 === 0;
      const handle = descriptors[at + WORD_FLOW] as number;
      const { row, isSameWay } = this.#flowRow(handle, header.vlans, isFromClient);
      addTo(row, isFromClient === isSameWay, captured, timeNs);
    } else if (header && isNamedByAddresses(verdict, header.protocol)) {
      const source = addressText(header.source);
      const protocol = PROTOCOLS[header.protocol] ?? String(header.protocol);
      const destination = addressText(header.destination);
      const row = this.#addressRow(protocol, source, destination, { vpc: 0, vlans: header.vlans });
      addTo(row, row.source.address === source, captured, timeNs);
    } else {
      this.#unassigned.set(verdict, (this.#unassigned.get(verdict) ?? 0) + 1);
    }
  }

  /** The row of a flow as far as it runs in the frame's VLAN: the engine may join two of them. */
  #flowRow(handle: number, vlans: number[], isFromClient: boolean): FlowRow {
    const key = vlans.length === 0 ? handle : `${handle} ${vlans.join(".")}`;
    const known = this.#byHandle.get(key);
    if (known) return known;
    const flow = this.#engine.flow(handle);
    if (flow === undefined) throw new Error(`a forwarded frame names flow ${handle}, which is not`);
    const { protocol, client, service } = flow;
    const { vpc } = this.#engine.zone(flow.zone);
    const [source, destination] = isFromClient ? [client, service] : [service, client];
    const hasPorts = protocol === "tcp" || protocol === "udp";
    const row = hasPorts
      ? this.#newRow({ protocol, source, destination, vpc, vlans, handle })
      : this.#addressRow(protocol, source.address, destination.address, { vpc, vlans });
    const isSameWay = (row.source.address === source.address) === isFromClient;
    const made = { row, isSameWay: hasPorts ? isFromClient : isSameWay };
    this.#byHandle.set(key, made);
    return made;
  }

  #addressRow(protocol: string, source: string, destination: string, zone: Zone): Row {
    const key = [protocol, ...[source, destination].sort(), ...zone.vlans].join(" ");
    const known = this.#byAddresses.get(key);
    if (known) return known;
    const row = this.#newRow({
      protocol,
      source: { address: source, port: 0 },
      destination: { address: destination, port: 0 },
      ...zone,
      handle: 0,
    });
    this.#byAddresses.set(key, row);
    return row;
  }

  #newRow(names: Pick<Row, "protocol" | "source" | "destination" | "handle"> & Zone): Row {
    const counts = { packets: 0, bytes: 0, packetsFromSource: 0, bytesFromSource: 0 };
    const row = { ...names, ...counts, firstNs: 0n, lastNs: 0n };
    this.#rows.push(row);
    return row;
  }

  /** The rows as they are now, in the order of their first packets. */
  rows(): Pick<FlowsResult, "flows" | "unassigned"> {
    const sorted = this.#rows.toSorted((a, b) => Number(a.firstNs - b.firstNs));
    return {
      flows: sorted.map((row) => this.#conversation(row)),
      unassigned: Object.fromEntries(this.#unassigned),
    };
  }

  #conversation({ handle, firstNs, lastNs, vlans, ...row }: Row): Conversation {
    const isTcp = row.protocol === "tcp" && handle !== 0;
    return {
      ...row,
      vlan: vlans[0] ?? null,
      vlans,
      firstSeen: seconds(firstNs),
      lastSeen: seconds(lastNs),
      state: (isTcp ? this.#engine.flow(handle)?.state : undefined) ?? null,
    };
  }
}

interface Zone {
  vpc: number;
  vlans: number[];
}

/** Whether addresses and protocol say all there is to say of a frame that has no flow of its own. */
function isNamedByAddresses(verdict: VerdictName, protocol: number): boolean {
  if (verdict === "drop.truncated") return !PROTOCOLS_WITH_PORTS.has(protocol);
  return verdict === "forward" || verdict === "drop.no-flow" || verdict === "drop.fragment";
}

function addTo(row: Row, isFromSource: boolean, bytes: number, timeNs: bigint): void {
  if (row.packets === 0 || timeNs < row.firstNs) row.firstNs = timeNs;
  if (row.packets === 0 || timeNs > row.lastNs) row.lastNs = timeNs;
  row.packets += 1;
  row.bytes += bytes;
  if (!isFromSource) return;
  row.packetsFromSource += 1;
  row.bytesFromSource += bytes;
}

/** Seconds from ns, as exact as a number can be: whole seconds and fraction apart. */
function seconds(ns: bigint): number {
  return Number(ns / 1_000_000_000n) + Number(ns % 1_000_000_000n) / 1e9;
}
