/**
 * The compact engine: a NAT gateway for IPv4, TCP and UDP, whose flows take 33 bytes each instead of
 * 71. It owns its addresses: each flow has an address and a port of its own, and where a flow stands
 * in the table says which (assembly/compact/table.ts). So one memory of 4 GiB holds 120 million flows.
 *
 * What it does not do: fragments, ICMP, IPv6, VLANs, targets, PROXY headers, VPCs (`drop.unintended`).
 * It cannot use one port towards several destinations: 64,512 flows an address, wherever they go.
 * Per flow it counts packets modulo 2^28 and bytes modulo 2^32.
 *
 * Batches go in and come out as with `Engine`.
 */
import * as abi from "../../assembly/abi.ts";
import { addressBytes, addressText } from "../address.ts";
import { Clock } from "../clock.ts";
import { EngineError } from "../errors.ts";
import type { Counters, EngineOptions, Flow, LinkKind, Region, Usage } from "./api.ts";
import { options as checkOptions, type OptionNames, oneOf, wholeNumber } from "./check.ts";
import { configure, requireMemory, type Settings, settingsOf } from "./configure.ts";
import { refusedBatch } from "./descriptors.ts";
import { type EngineExports, loadEngine } from "./module.ts";
import { LINKS } from "./names.ts";
import { readCounters, readUsage, STATES } from "./records.ts";

/** Flows that an address has room for; a table takes six sevenths of that before it refuses one. */
export const COMPACT_FLOWS_PER_ADDRESS = 64_512;
/** Addresses that 4 GiB have room for, with 128 MiB for all else. */
const ADDRESS_COUNT_MAX = 1_950;

/** Options of `createCompactEngine`; those that `EngineOptions` has, too, mean the same. */
export interface CompactOptions
  extends Pick<
    EngineOptions,
    "arenaBytes" | "seed" | "timeouts" | "wasm" | "prepareMemory" | "touchTables"
  > {
  /** First IPv4 address of the gateway. */
  firstAddress: string;
  /** How many addresses follow each other, 1 to 1,950. */
  addressCount: number;
}

/** A port of a compact engine. */
export interface CompactPortOptions {
  /** Whether its frames come from clients or from outside. */
  side: "client" | "service";
  /** Port on which they leave. */
  peer: number;
  link?: LinkKind; // default "ethernet"
}

const OPTIONS: OptionNames<CompactOptions> = {
  firstAddress: true,
  addressCount: true,
  arenaBytes: true,
  seed: true,
  timeouts: true,
  wasm: true,
  prepareMemory: true,
  touchTables: true,
};
const PORT_OPTIONS: OptionNames<CompactPortOptions> = { side: true, peer: true, link: true };
const SIDES = { client: abi.PORT_SIDE_CLIENT, service: abi.PORT_SIDE_SERVICE } as const;

/** A NAT gateway over a compact table. Made by `createCompactEngine`. */
export class CompactEngine {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Region for frames; sources fill it. */
  readonly arena: Region;
  /** Descriptors of the batch, as `Engine.descriptors`. */
  readonly descriptors: Uint32Array<ArrayBuffer>;
  readonly exports: EngineExports;
  /** Makes times of descriptors of those of the host. */
  readonly clock: Clock = new Clock();
  /** Flows that the table has slots for. */
  readonly slotCount: number;
  /** Memory of the table in bytes. */
  readonly tableBytes: number;
  readonly #view: DataView<ArrayBuffer>;
  readonly #layout: (field: number) => number;
  readonly #firstAddress: number;
  #failure: EngineError | undefined;

  /** @internal */
  constructor(exports: EngineExports, settings: Settings & Required<Pick<Settings, "gateway">>) {
    this.exports = exports;
    configure(exports.memory, exports.configAddress() >>> 0, settings);
    if (exports.create() !== 0) {
      throw new RangeError("addressCount and arenaBytes: more memory than 4 GiB, or than there is");
    }
    const buffer = exports.memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    const layout = exports.layoutAddress() >>> 0;
    this.#layout = (field) => this.#view.getUint32(layout + field, true);
    const words = (abi.BATCH_COUNT_MAX * abi.FRAME_BYTES) / 4;
    this.descriptors = new Uint32Array(buffer, this.#layout(abi.LAYOUT_FRAMES), words);
    this.arena = { address: this.#layout(abi.LAYOUT_ARENA), bytes: settings.arenaBytes };
    this.slotCount = settings.gateway.count * COMPACT_FLOWS_PER_ADDRESS;
    this.tableBytes = this.#layout(abi.LAYOUT_COMPACT_TABLE_BYTES);
    this.#firstAddress = settings.gateway.address;
  }

  /**
   * Translates the first `count` frames of the descriptors in place and writes their verdicts.
   * @throws as `Engine.process`
   */
  process(count: number): void {
    if (this.#failure) throw this.#failure;
    wholeNumber("count", count, 0, abi.BATCH_COUNT_MAX);
    let isDone: number;
    try {
      isDone = this.exports.processCompact(count);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#failure = new EngineError(`the engine has stopped and cannot go on: ${reason}`);
      throw this.#failure;
    }
    if (isDone === 0) throw refusedBatch(this.arena, this.descriptors, count);
  }

  /**
   * Says what frames of a port are. Takes effect with the next batch.
   * @throws TypeError or RangeError naming the option, its value and its range
   */
  setPort(port: number, options: CompactPortOptions): void {
    wholeNumber("port", port, 0, abi.PORT_COUNT_MAX - 1);
    checkOptions("", options, PORT_OPTIONS);
    const side = oneOf("side", options.side, SIDES);
    const peer = wholeNumber("peer", options.peer, 0, abi.PORT_COUNT_MAX - 1);
    const link = oneOf("link", options.link ?? "ethernet", LINKS);
    const address = this.#layout(abi.LAYOUT_PORTS) + port * abi.PORT_BYTES;
    this.#view.setUint32(address + abi.PORT_ZONE, this.exports.zoneOf(0, 0, 0), true);
    this.#view.setUint8(address + abi.PORT_SIDES, side);
    this.#view.setUint8(address + abi.PORT_LINK, link);
    this.#view.setUint16(address + abi.PORT_PEER, peer, true);
  }

  counters(): Counters {
    return readCounters(this.#view, this.#layout(abi.LAYOUT_COUNTERS));
  }

  /** What has passed through the gateway. */
  usage(): Usage {
    const tally = this.#layout(abi.LAYOUT_TALLIES);
    return readUsage(this.#view, this.#layout(abi.LAYOUT_USAGE), tally);
  }

  /** All live flows, each as a copy. */
  *flows(): Generator<Flow, void, void> {
    for (let handle = 0; ; ) {
      handle = this.exports.compactAfter(handle) >>> 0;
      const flow = this.flow(handle);
      if (!flow) return;
      yield flow;
    }
  }

  /** The flow that a descriptor's handle names, if it still lives. */
  flow(handle: number): Flow | undefined {
    const record = this.exports.compactRecord(handle) >>> 0;
    return handle === 0 || record === 0 ? undefined : this.#read(handle, record);
  }

  /** Forgets every flow whose port nobody may miss at `nowMs`; returns how many. */
  expire(nowMs: number): number {
    wholeNumber("nowMs", nowMs, 0, Number.MAX_SAFE_INTEGER);
    return this.exports.expireCompact(this.clock.at(nowMs)) >>> 0;
  }

  #read(handle: number, record: number): Flow {
    const view = this.#view;
    const endpoint = (address: number, port: number) => ({
      address: addressText(this.bytes.subarray(record + address, record + address + 4)),
      port: view.getUint16(record + port),
    });
    const service = endpoint(abi.COMPACT_SERVER_ADDRESS_BE, abi.COMPACT_SERVER_PORT_BE);
    const state = STATES[view.getUint8(record + abi.COMPACT_STATE) - 1] as Flow["state"];
    const packets = view.getBigUint64(record + abi.COMPACT_STATE, true);
    const count = (shift: number) => Number((packets >> BigInt(shift)) & 0xfffffffn);
    return {
      handle,
      protocol: state === "udp" ? "udp" : "tcp",
      zone: this.exports.zoneOf(0, 0, 0),
      client: endpoint(abi.COMPACT_CLIENT_ADDRESS_BE, abi.COMPACT_CLIENT_PORT_BE),
      service,
      translatedClient: this.#translated(handle - 1),
      translatedService: service,
      state,
      packetsFromClient: count(abi.COMPACT_PACKETS_CLIENT_SHIFT),
      packetsFromService: count(abi.COMPACT_PACKETS_SERVICE_SHIFT),
      bytesFromClient: view.getUint32(record + abi.COMPACT_OCTETS_CLIENT, true),
      bytesFromService: view.getUint32(record + abi.COMPACT_OCTETS_SERVICE, true),
      lastSeenMs: view.getUint32(record + abi.COMPACT_LAST_SEEN_MS, true),
      madeBy: 0,
    };
  }

  /** What a slot means (assembly/compact/table.ts). */
  #translated(slot: number): Flow["client"] {
    const block = slot >>> 10;
    const place = (block % abi.COMPACT_BLOCKS_PER_ADDRESS) * 16 + (slot & 15);
    const bytes = new Uint8Array(4);
    const address = this.#firstAddress + Math.floor(block / abi.COMPACT_BLOCKS_PER_ADDRESS);
    new DataView(bytes.buffer).setUint32(0, address);
    return { address: addressText(bytes), port: 1024 + 64 * place + ((slot >>> 4) & 63) };
  }
}

/**
 * Makes a compact engine.
 * @throws TypeError or RangeError naming the option and its range, or when the memory is not there;
 * EngineError when the module cannot be loaded
 */
export async function createCompactEngine(options: CompactOptions): Promise<CompactEngine> {
  checkOptions("", options, OPTIONS);
  const { firstAddress, addressCount, wasm, ...shared } = options;
  const count = wholeNumber("addressCount", addressCount, 1, ADDRESS_COUNT_MAX);
  const address = numberOf(firstAddress);
  if (address + count > 2 ** 32) {
    throw new RangeError(`firstAddress: ${count} addresses from ${firstAddress} on are too many`);
  }
  const small = { flowCountMax: 16, flow6CountMax: 16, tablesBytes: 1 << 16 };
  const settings = { ...settingsOf({ ...shared, ...small }), gateway: { address, count } };
  requireMemory("addressCount", count * COMPACT_FLOWS_PER_ADDRESS * (abi.COMPACT_BYTES + 1));
  const engine = new CompactEngine(await loadEngine(wasm, settings.prepareMemory), settings);
  if (settings.touchTables) engine.exports.touchTables();
  return engine;
}

function numberOf(address: string): number {
  let bytes = new Uint8Array(0);
  try {
    bytes = Uint8Array.from(addressBytes(address));
  } catch {}
  if (bytes.length !== 4) throw new TypeError(`firstAddress: "${address}" is not an IPv4 address`);
  return new DataView(bytes.buffer).getUint32(0);
}
