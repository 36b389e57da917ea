/**
 * Packs network tables for engines, on any thread: the one that moves packets only has to copy what
 * comes out. The packer keeps what outlives a set of tables: the number of each service, the PROXY
 * headers that flows may have, and services that are left out but may still have flows.
 *
 * One packer serves any number of engines that were made with the same options: their memory is laid
 * out alike. They have to load what it packs, all of it and in order, for images alternate between
 * the two halves of an engine's network region.
 */
import * as abi from "../../assembly/abi.ts";
import { HeaderCodec } from "../pp2/codec.ts";
import type { EngineOptions, Region } from "./api.ts";
import { oneOf, wholeNumber } from "./check.ts";
import { proxyProtocolOf } from "./configure.ts";
import { NetworkImage } from "./image.ts";
import { loadEngine } from "./module.ts";
import type { NetworkTables } from "./network.ts";
import { packNetwork } from "./pack.ts";
import { type HeaderTemplates, ServiceHeaders } from "./proxy.ts";
import { checkRoom, Filler, type TableRoom, Work } from "./room.ts";

const UNITS_MAX = 1000;

/** Network tables as an engine takes them. Plain data that may be sent to other threads. */
export interface PackedTables {
  /** The image, and the address in the engine's memory that it is for. */
  image: Uint8Array<ArrayBuffer | SharedArrayBuffer>;
  address: number;
  /** Numbers of VPCs, so that zones are there for them. */
  vpcs: Uint16Array;
  /** Numbers of services that nobody had before: they begin to count at zero. */
  fresh: Uint16Array;
  /** Numbers of services whose packets are held against a capacity, and of those that are not. */
  policed: Uint16Array;
  unpoliced: Uint16Array;
  /** Numbers of services with PROXY headers | bytes of those of IPv4 << 16. */
  headers: Uint32Array;
  /** Four words a capacity: its number, units at least and at most, 1 if what is over is dropped. */
  capacities: Uint32Array;
}

/** A service that tables have left out. */
interface Leftover {
  record: Uint8Array;
  headers: HeaderTemplates | undefined;
  /** Tables may still be in use that have it: flows of it may begin until others are loaded. */
  isRecent: boolean;
}

/** Made by `createTablePacker`; every engine has one of its own for `setTables`. */
export class TablePacker {
  /** Both halves of the engine's network region. */
  readonly #region: Region;
  readonly #headers: ServiceHeaders;
  readonly #isShared: boolean;
  readonly #room: TableRoom | undefined;
  readonly #filler: Filler | undefined;
  #bytes: Uint8Array<ArrayBuffer | SharedArrayBuffer> | undefined;
  /** How much of them the last image has written. */
  #used = 0;
  /** Records of the services of the last tables, by number. */
  #records = new Uint8Array(0);
  readonly #numbers = new Map<string, number>();
  /** Those of the last tables. */
  #current = new Map<string, number>();
  readonly #capacities = new Map<string, number>();
  readonly #leftovers = new Map<number, Leftover>();
  readonly #fresh = new Set<number>();
  /** Numbers given up for good are used again only when there are no new ones. */
  #next = 0;
  #spare: number[] = [];
  /** The half that the next image is for. */
  #half = 0;
  #made = new Map<string, unknown>();
  #madeBefore = new Map<string, unknown>();

  /** @internal For engines whose network region is `region`; images lie in shared memory if `isShared`. */
  constructor(region: Region, headers: ServiceHeaders, isShared: boolean, room?: TableRoom) {
    this.#region = region;
    this.#headers = headers;
    this.#isShared = isShared;
    this.#room = room;
    this.#filler = room && new Filler(room);
  }

  /** The number of a service that the tables have named, or undefined. */
  numberOf(id: string): number | undefined {
    return this.#numbers.get(id);
  }

  /** The number of a capacity that tables have named, or undefined. */
  capacityOf(name: string): number | undefined {
    return this.#capacities.get(name);
  }

  /** Names of capacities by number. */
  capacityNames(): Map<number, string> {
    return new Map([...this.#capacities].map(([name, number]) => [number, name]));
  }

  /** Numbers of services that were left out before: the next image has those that still have flows. */
  get left(): number[] {
    return [...this.#leftovers.keys()];
  }

  /**
   * Packs tables, over what came out the last time: all engines have to have that by now. `hasFlows`
   * says of the services in `left` which ones still have flows.
   * @throws TypeError, RangeError naming path, value and range; nothing has changed then
   */
  pack(tables: NetworkTables, hasFlows: (service: number) => boolean): PackedTables {
    const bytes = this.#region.bytes / 2;
    if (bytes === 0) {
      throw new RangeError("networkBytes: 0, the engine was made without network tables");
    }
    const address = this.#region.address + this.#half * bytes;
    this.#bytes ??= new Uint8Array(
      this.#isShared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes),
    );
    this.#bytes.fill(0, 0, this.#used);
    this.#used = bytes;
    const capacities = this.#capacityWords(tables);
    const image = new NetworkImage(address, this.#bytes);
    for (const [number, { isRecent }] of this.#leftovers) {
      if (!isRecent && !hasFlows(number)) this.#leftovers.delete(number);
    }
    for (const id of tables.numbering ?? []) this.#numberFor(id);
    const leaving = this.#leaving(tables);
    const kept = new Map([...this.#leftovers, ...leaving]);
    for (const { id } of tables.services) kept.delete(this.#numbers.get(id) ?? -1);
    this.#madeBefore = this.#made;
    this.#made = new Map();
    packNetwork(image, tables, {
      numberOf: (id) => this.#numberFor(id),
      capacityOf: (name) => this.#capacityFor(name),
      remembered: (key, make) => this.#remembered(key, make),
      leftovers: kept,
      headers: this.#headers,
      work: new Work(this.#room),
      filler: this.#filler,
    });
    this.#used = image.used;
    this.#records = image.services();
    this.#settle(tables, kept, leaving);
    return { image: this.#bytes, address, capacities, ...this.#lists(tables) };
  }

  #lists(tables: NetworkTables) {
    const policed: number[] = [];
    const unpoliced: number[] = [];
    const headers: number[] = [];
    const vpcs = new Set(tables.vpcs.map(({ vpc }) => vpc));
    for (const { id, vpc, capacity } of tables.services) {
      const number = this.#numberFor(id);
      (capacity === undefined ? unpoliced : policed).push(number);
      const bytes = this.#headers.get(number)?.v4.length;
      if (bytes !== undefined) headers.push(number | (bytes << 16));
      vpcs.add(vpc);
    }
    const fresh = Uint16Array.from(this.#fresh);
    this.#fresh.clear();
    return {
      vpcs: Uint16Array.from(vpcs),
      fresh,
      policed: Uint16Array.from(policed),
      unpoliced: Uint16Array.from(unpoliced),
      headers: Uint32Array.from(headers),
    };
  }

  /** Services of the tables before that these leave out. */
  #leaving(tables: NetworkTables): Map<number, Leftover> {
    const kept = new Set(tables.services.map(({ id }) => id));
    const leaving = new Map<number, Leftover>();
    for (const [id, number] of this.#current) {
      if (kept.has(id)) continue;
      const start = number * abi.SERVICE_BYTES;
      const record = this.#records.slice(start, start + abi.SERVICE_BYTES);
      leaving.set(number, { record, headers: this.#headers.get(number), isRecent: true });
    }
    return leaving;
  }

  /** These tables are the ones before from here on. */
  #settle(
    tables: NetworkTables,
    kept: ReadonlyMap<number, Leftover>,
    leaving: ReadonlyMap<number, Leftover>,
  ): void {
    for (const number of this.#leftovers.keys())
      if (!kept.has(number)) this.#leftovers.delete(number);
    for (const leftover of this.#leftovers.values()) leftover.isRecent = false;
    for (const [number, leftover] of leaving) this.#leftovers.set(number, leftover);
    this.#current = new Map(tables.services.map(({ id }) => [id, this.#numberFor(id)]));
    const named = new Set([...(tables.numbering ?? []), ...this.#current.keys()]);
    for (const [id, number] of this.#numbers) {
      if (named.has(id)) continue;
      this.#numbers.delete(id);
      this.#fresh.delete(number);
    }
    this.#half = 1 - this.#half;
  }

  /**
   * Keeps what was made for these tables and the ones before, so that a reload makes little anew; all of
   * it where the work is to be constant.
   */
  #remembered<T>(key: string, make: () => T): T {
    if (this.#room !== undefined) return make();
    const made = (this.#made.get(key) ?? this.#madeBefore.get(key) ?? make()) as T;
    this.#made.set(key, made);
    return made;
  }

  #numberFor(id: string): number {
    const known = this.#numbers.get(id);
    if (known !== undefined) return known;
    const number = this.#next < abi.SERVICE_COUNT_MAX ? this.#next++ : this.#freeNumber();
    this.#headers.forget(number);
    this.#numbers.set(id, number);
    this.#fresh.add(number);
    return number;
  }

  #freeNumber(): number {
    if (this.#spare.length === 0) this.#spare = this.#freeNumbers();
    const number = this.#spare.pop();
    if (number !== undefined) return number;
    throw new RangeError(`services: ${abi.SERVICE_COUNT_MAX} have been named and have flows`);
  }

  /** All that nobody has, the lowest last. */
  #freeNumbers(): number[] {
    const taken = new Set([...this.#numbers.values(), ...this.#leftovers.keys()]);
    const all = Array.from({ length: abi.SERVICE_COUNT_MAX }, (_, index) => index);
    return all.filter((number) => !taken.has(number)).reverse();
  }

  #capacityFor(name: string): number {
    const known = this.#capacities.get(name);
    if (known !== undefined) return known;
    const number = this.#capacities.size + 1;
    wholeNumber("capacities", number, 1, abi.CAPACITY_COUNT_MAX - 1);
    this.#capacities.set(name, number);
    return number;
  }

  #capacityWords({ capacities = {} }: NetworkTables): Uint32Array {
    const words: number[] = [];
    for (const [name, capacity] of Object.entries(capacities)) {
      const path = `capacities.${name}`;
      const units = wholeNumber(`${path}.units`, capacity.units ?? 1, 1, UNITS_MAX);
      const most = wholeNumber(`${path}.unitsMax`, capacity.unitsMax ?? units, units, UNITS_MAX);
      const drops = oneOf(`${path}.mode`, capacity.mode ?? "report", { report: 0, drop: 1 });
      words.push(this.#capacityFor(name), units, most, drops);
    }
    return Uint32Array.from(words);
  }
}

export interface TablePackerOptions extends Pick<EngineOptions, "proxyProtocol" | "wasm"> {
  /**
   * What tables may hold: packing then takes the same time whatever they hold, and fails when they hold
   * more. Default: the memory is the limit, and time follows from what tables hold and what of it is new.
   */
  room?: TableRoom;
}

/**
 * Makes a packer for engines of other threads: their network region, and the options that they were
 * made with. Images lie in shared memory.
 * @throws EngineError when the module cannot be loaded; TypeError, RangeError on a wrong room
 */
export async function createTablePacker(
  region: Region,
  options: TablePackerOptions = {},
): Promise<TablePacker> {
  const { proxyProtocol = false, wasm } = options;
  const room = options.room && checkRoom("room", options.room);
  const codec = new HeaderCodec(await loadEngine(wasm));
  const headers = new ServiceHeaders(codec, proxyProtocolOf(proxyProtocol));
  return new TablePacker(region, headers, true, room);
}
