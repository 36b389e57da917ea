/**
 * Compiles services into the engine's tables: address pools, targets and Maglev rings. The data
 * plane only indexes what is built here.
 *
 * Each service owns a piece of the tables region. Its entry is written last and between batches,
 * so a batch sees either the old service or the new one.
 */
import * as abi from "../../assembly/abi.ts";
import { addressBytes } from "../address.ts";
import { buildRing, RING_SIZE } from "../control/maglev.ts";
import type { Region, ServiceOptions, Target } from "./api.ts";
import {
  options as checkOptions,
  listOf,
  type OptionNames,
  shown,
  truth,
  wholeNumber,
} from "./check.ts";
import {
  type HeaderTemplates,
  headerFields,
  headerFlags,
  putShift,
  type ServiceHeaders,
} from "./proxy.ts";

const WEIGHT_MAX = 999;
const POOL_COUNT_MAX = 1024;
const TARGET_COUNT_MAX = 10_000;
const LISTENER_BITS_MAX = 24;

const SERVICE_OPTIONS: OptionNames<ServiceOptions> = {
  sourceAddresses: true,
  targets: true,
  adopt: true,
  resetStrays: true,
  listenerBits: true,
  proxyProtocol: true,
};
const TARGET_OPTIONS: OptionNames<Target> = { address: true, port: true, weight: true };

interface CheckedTarget {
  bytes: Uint8Array;
  port: number;
  weight: number;
  name: string;
}

function checkTarget(target: Target, index: number): CheckedTarget {
  const path = `targets[${index}]`;
  checkOptions(path, target, TARGET_OPTIONS);
  const port = wholeNumber(`${path}.port`, target.port ?? 0, 0, 65535);
  const weight = wholeNumber(`${path}.weight`, target.weight ?? 1, 0, WEIGHT_MAX);
  return {
    bytes: named(`${path}.address`, target.address),
    port,
    weight,
    name: `${target.address} ${port}`,
  };
}

function named(option: string, text: string): Uint8Array {
  if (typeof text !== "string") throw new TypeError(`${option}: ${shown(text)} is not text`);
  try {
    return addressBytes(text);
  } catch (error) {
    throw new TypeError(`${option}: ${(error as Error).message}`);
  }
}

/** Owner of the tables region. */
export class ServiceTables {
  readonly #view: DataView<ArrayBuffer>;
  readonly #services: number;
  readonly #traits: number;
  readonly #region: Region;
  readonly #headers: ServiceHeaders;
  /** Pieces in use by service. */
  readonly #pieces = new Map<number, Region>();

  constructor(
    view: DataView<ArrayBuffer>,
    services: number,
    traits: number,
    region: Region,
    headers: ServiceHeaders,
  ) {
    this.#view = view;
    this.#services = services;
    this.#traits = traits;
    this.#region = region;
    this.#headers = headers;
  }

  /** Builds and installs a service. @throws TypeError, RangeError */
  set(index: number, options: ServiceOptions): void {
    checkOptions("", options, SERVICE_OPTIONS);
    const flags =
      (truth("adopt", options.adopt ?? false) ? abi.SERVICE_FLAG_ADOPT : 0) |
      (truth("resetStrays", options.resetStrays ?? false) ? abi.SERVICE_FLAG_RESET_STRAYS : 0) |
      headerFlags(options.proxyProtocol);
    const sources = listOf("sourceAddresses", options.sourceAddresses ?? []).map((text, at) =>
      named(`sourceAddresses[${at}]`, text),
    );
    const targets = listOf("targets", options.targets ?? []).map(checkTarget);
    const bitsMax = LISTENER_BITS_MAX;
    const listenerBits = wholeNumber("listenerBits", options.listenerBits ?? 0, 0, bitsMax);
    if (sources.length > POOL_COUNT_MAX) {
      throw new RangeError(`sourceAddresses: ${sources.length} are more than ${POOL_COUNT_MAX}`);
    }
    if (targets.length > TARGET_COUNT_MAX) {
      throw new RangeError(`targets: ${targets.length} are more than ${TARGET_COUNT_MAX}`);
    }
    const parts = [4, 16].map((bytes) => ({
      pool: sources.filter((address) => address.length === bytes),
      targets: targets.filter((target) => target.bytes.length === bytes && target.weight > 0),
    }));
    const [v4, v6] = parts as [(typeof parts)[0], (typeof parts)[0]];
    const templates = this.#headers.check(index, options.proxyProtocol);
    const writer = this.#reserve(index, v4, v6, templates);
    this.#headers.keep(index, templates);
    const pool = writer.addresses(v4.pool);
    const pool6 = writer.addresses(v6.pool);
    const [ring, list] = writer.targets(v4.targets, abi.TARGET_BYTES, abi.TARGET_PORT_BE);
    const [ring6, list6] = writer.targets(v6.targets, abi.TARGET6_BYTES, abi.TARGET6_PORT_BE);
    const entry = this.#services + index * abi.SERVICE_BYTES;
    const put = (field: number, value: number) => this.#view.setUint32(entry + field, value, true);
    put(abi.SERVICE_FLAGS, flags);
    put(abi.SERVICE_POOL, pool);
    put(abi.SERVICE_POOL_COUNT, v4.pool.length);
    put(abi.SERVICE_POOL6, pool6);
    put(abi.SERVICE_POOL6_COUNT, v6.pool.length);
    put(abi.SERVICE_RING_SIZE, RING_SIZE);
    put(abi.SERVICE_RING, ring);
    put(abi.SERVICE_TARGETS, list);
    put(abi.SERVICE_TARGET_COUNT, ring === 0 ? 0 : v4.targets.length);
    put(abi.SERVICE_RING6, ring6);
    put(abi.SERVICE_TARGETS6, list6);
    put(abi.SERVICE_TARGET6_COUNT, ring6 === 0 ? 0 : v6.targets.length);
    put(abi.SERVICE_LISTENER_BITS, listenerBits);
    const [address, address6] = [writer.bytes(templates?.v4), writer.bytes(templates?.v6)];
    for (const [field, value] of headerFields(templates, address, address6)) put(field, value);
    putShift(this.#view, this.#traits + index * abi.TRAITS_BYTES, templates?.v4.length ?? 0);
  }

  /** Finds room for a service's tables, its old piece being free again. */
  #reserve(
    index: number,
    v4: { pool: unknown[]; targets: unknown[] },
    v6: { pool: unknown[]; targets: unknown[] },
    templates: HeaderTemplates | undefined,
  ): TableWriter {
    const ringBytes = (list: unknown[]) => (list.length === 0 ? 0 : RING_SIZE * 2 + 64);
    const bytes =
      v4.pool.length * 4 +
      v6.pool.length * 16 +
      8 * 64 +
      (templates ? templates.v4.length + templates.v6.length : 0) +
      v4.targets.length * abi.TARGET_BYTES +
      v6.targets.length * abi.TARGET6_BYTES +
      ringBytes(v4.targets) +
      ringBytes(v6.targets);
    const others = [...this.#pieces].filter(([owner]) => owner !== index).map(([, piece]) => piece);
    let address = this.#region.address;
    for (const piece of others.sort((a, b) => a.address - b.address)) {
      if (address + bytes <= piece.address) break;
      address = piece.address + piece.bytes;
    }
    if (address + bytes > this.#region.address + this.#region.bytes) {
      throw new RangeError(
        `tablesBytes: ${this.#region.bytes} bytes do not hold service ${index} beside the others`,
      );
    }
    this.#pieces.set(index, { address, bytes });
    return new TableWriter(this.#view, address);
  }
}

/** Writes tables one behind the other, each on a cache line. */
class TableWriter {
  readonly #view: DataView<ArrayBuffer>;
  #next: number;

  constructor(view: DataView<ArrayBuffer>, address: number) {
    this.#view = view;
    this.#next = address;
  }

  #place(bytes: number): { address: number; bytes: Uint8Array<ArrayBuffer> } {
    const address = (this.#next + 63) & ~63;
    this.#next = address + bytes;
    return {
      address: address >>> 0,
      bytes: new Uint8Array(this.#view.buffer, address >>> 0, bytes),
    };
  }

  /** Returns the address of a copy, 0 without bytes. */
  bytes(bytes: Uint8Array | undefined): number {
    if (bytes === undefined) return 0;
    const place = this.#place(bytes.length);
    place.bytes.set(bytes);
    return place.address;
  }

  addresses(list: readonly Uint8Array[]): number {
    if (list.length === 0) return 0;
    const size = (list[0] as Uint8Array).length;
    const place = this.#place(list.length * size);
    for (const [index, address] of list.entries()) place.bytes.set(address, index * size);
    return place.address;
  }

  /** Returns the addresses of ring and list; ring 0 when no target takes traffic. */
  targets(list: readonly CheckedTarget[], stride: number, portOffset: number): [number, number] {
    const ring = buildRing(list);
    if (ring.length === 0) return [0, 0];
    const ringPlace = this.#place(ring.byteLength);
    ringPlace.bytes.set(new Uint8Array(ring.buffer, ring.byteOffset, ring.byteLength));
    const place = this.#place(list.length * stride);
    place.bytes.fill(0);
    for (const [index, target] of list.entries()) {
      place.bytes.set(target.bytes, index * stride);
      place.bytes[index * stride + portOffset] = target.port >> 8;
      place.bytes[index * stride + portOffset + 1] = target.port & 0xff;
    }
    return [ringPlace.address, place.address];
  }
}
