/**
 * The engine's network tables over time: which number each service has, which of the two images is
 * in use, and how the next one gets there. An image is copied whole, whatever it holds, in slices of
 * SLICE_BYTES: a reload takes the same time whether it says much or little, and no batch waits long.
 */
import * as abi from "../../assembly/abi.ts";
import type { Region } from "./api.ts";
import { wholeNumber } from "./check.ts";
import { NetworkImage } from "./image.ts";
import type { EngineExports } from "./module.ts";
import type { CapacityChange, CapacityState, NetworkTables } from "./network.ts";
import { packNetwork } from "./pack.ts";
import { putShifts, type ServiceHeaders } from "./proxy.ts";

/** What a step of a load does: packs (the more the tables say, the longer), or clears and copies. */
export type LoadStep = "pack" | "copy";

/** Copied at memory speed in some 20 µs. */
const SLICE_BYTES = 1 << 18;

export interface NetworkMemory {
  exports: EngineExports;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView<ArrayBuffer>;
  /** Address of the usage blocks. */
  usage: number;
  /** Address of the capacities, and of the list of their changes. */
  capacities: number;
  capacityChanges: number;
  /** Both images, one behind the other. */
  region: Region;
  headers: ServiceHeaders;
}

export class Networks {
  readonly #memory: NetworkMemory;
  readonly #numbers = new Map<string, number>();
  readonly #capacities = new Map<string, number>();
  /** Numbers given up for good are used again only when there are no new ones. */
  #next = 0;
  /** Address of the image in use, 0 = none. */
  #current = 0;
  #staging: Uint8Array<ArrayBuffer> | undefined;
  #isLoading = false;
  #made = new Map<string, unknown>();
  #madeBefore = new Map<string, unknown>();

  constructor(memory: NetworkMemory) {
    this.#memory = memory;
  }

  /** The number of a service that tables have named, or undefined. */
  numberOf(id: string): number | undefined {
    return this.#numbers.get(id);
  }

  /** Packs, copies and swaps in: one step at a time. */
  *load(tables: NetworkTables): Generator<LoadStep, void, void> {
    const { region, bytes, exports } = this.#memory;
    const half = region.bytes / 2;
    if (half === 0)
      throw new RangeError("networkBytes: 0, the engine was made without network tables");
    if (this.#isLoading) throw new TypeError("network: other tables are being loaded already");
    this.#isLoading = true;
    this.#madeBefore = this.#made;
    this.#made = new Map();
    try {
      for (const id of tables.numbering ?? []) this.#numberFor(id);
      const address = this.#current === region.address ? region.address + half : region.address;
      this.#staging ??= new Uint8Array(half);
      for (let start = 0; start < half; start += SLICE_BYTES) {
        this.#staging.fill(0, start, start + SLICE_BYTES);
        yield "copy";
      }
      const image = new NetworkImage({ address, bytes: half }, this.#staging);
      yield* packNetwork(image, tables, {
        numberOf: (id) => this.#numberFor(id),
        capacityOf: (name) => this.#capacityFor(name),
        remembered: (key, make) => this.#remembered(key, make),
        leftovers: () => this.#leftovers(tables),
        headers: this.#memory.headers,
      });
      for (let start = 0; start < half; start += SLICE_BYTES) {
        bytes.set(image.bytes.subarray(start, start + SLICE_BYTES), address + start);
        yield "copy";
      }
      for (const { vpc } of tables.vpcs) exports.zoneOf(vpc, 0, 0);
      for (const { vpc } of tables.services) exports.zoneOf(vpc, 0, 0);
      exports.useImage(address);
      this.#police(tables);
      this.#current = address;
      this.#forget(tables);
    } finally {
      this.#isLoading = false;
    }
  }

  /** Whether flows of a service live; there are never as many as the low word cannot hold. */
  #hasFlows(number: number): boolean {
    const { view, usage } = this.#memory;
    return view.getUint32(usage + number * abi.USAGE_BYTES + abi.USAGE_FLOWS_ACTIVE, true) > 0;
  }

  /** Keeps what was made for these tables and the ones before, so that a reload makes little anew. */
  #remembered<T>(key: string, make: () => T): T {
    const made = (this.#made.get(key) ?? this.#madeBefore.get(key) ?? make()) as T;
    this.#made.set(key, made);
    return made;
  }

  #numberFor(id: string): number {
    const known = this.#numbers.get(id);
    if (known !== undefined) return known;
    const number = this.#next < abi.SERVICE_COUNT_MAX ? this.#next++ : this.#freeNumber();
    const { bytes, usage } = this.#memory;
    bytes.fill(0, usage + number * abi.USAGE_BYTES, usage + (number + 1) * abi.USAGE_BYTES);
    this.#memory.headers.forget(number);
    this.#numbers.set(id, number);
    return number;
  }

  #freeNumber(): number {
    const taken = new Set(this.#numbers.values());
    for (let number = 0; number < abi.SERVICE_COUNT_MAX; number++) {
      if (!taken.has(number) && !this.#hasFlows(number)) return number;
    }
    throw new RangeError(`services: ${abi.SERVICE_COUNT_MAX} have been named and have flows`);
  }

  #capacityFor(name: string): number {
    const known = this.#capacities.get(name);
    if (known !== undefined) return known;
    const number = this.#capacities.size + 1;
    wholeNumber("capacities", number, 1, abi.CAPACITY_COUNT_MAX - 1);
    this.#capacities.set(name, number);
    return number;
  }

  /** The record of a capacity that tables have named, by its number. */
  #capacityAt(number: number): number {
    return this.#memory.capacities + number * abi.CAPACITY_BYTES;
  }

  /** Sets the limits of capacities, new ones full and at their least; what they have counted stays. */
  #police({ capacities = {}, services }: NetworkTables): void {
    const { view, usage, headers } = this.#memory;
    for (const [name, { units = 1, unitsMax = units, mode = "report" }] of Object.entries(
      capacities,
    )) {
      const record = this.#capacityAt(this.#capacityFor(name));
      const now = view.getUint32(record + abi.CAPACITY_UNITS, true);
      const put = (field: number, value: number) => view.setUint32(record + field, value, true);
      put(abi.CAPACITY_IS_DROPPING, Number(mode === "drop"));
      put(abi.CAPACITY_UNITS_MIN, units);
      put(abi.CAPACITY_UNITS_MAX, unitsMax);
      put(abi.CAPACITY_UNITS, Math.min(Math.max(now, units), unitsMax));
    }
    for (const { id, capacity } of services) {
      const number = this.#numberFor(id);
      const block = usage + number * abi.USAGE_BYTES;
      view.setUint32(block + abi.USAGE_POLICED, Number(capacity !== undefined), true);
      putShifts(view, block, headers.get(number));
    }
  }

  /** @throws TypeError when no tables have named it */
  capacity(name: string): CapacityState {
    const number = this.#capacities.get(name);
    if (number === undefined) throw new TypeError(`capacity: there is no ${JSON.stringify(name)}`);
    const { view } = this.#memory;
    const record = this.#capacityAt(number);
    const read = (field: number) => Number(view.getBigUint64(record + field, true));
    return {
      units: view.getUint32(record + abi.CAPACITY_UNITS, true),
      over: { packets: read(abi.CAPACITY_OVER_PACKETS), bytes: read(abi.CAPACITY_OVER_OCTETS) },
    };
  }

  /** Changes of units since this was last asked, the oldest first; at most 4,095 are kept. */
  capacityChanges(): CapacityChange[] {
    const { view, capacityChanges: list } = this.#memory;
    const names = new Map([...this.#capacities].map(([name, number]) => [number, name]));
    const count = view.getUint32(list, true);
    view.setUint32(list, 0, true);
    return Array.from({ length: count }, (_, index) => {
      const at = list + (index + 1) * abi.CAPACITY_CHANGE_BYTES;
      return {
        name: names.get(view.getUint16(at + 4, true)) as string,
        timeMs: view.getUint32(at, true),
        units: view.getUint16(at + 6, true),
      };
    });
  }

  /** Records of services that the tables leave out although they still have flows. */
  *#leftovers(tables: NetworkTables): Generator<readonly [number, Uint8Array], void, void> {
    if (this.#current === 0) return;
    const { view, bytes } = this.#memory;
    const kept = new Set(tables.services.map(({ id }) => id));
    const records = view.getUint32(this.#current + abi.IMAGE_SERVICES, true);
    const count = view.getUint32(this.#current + abi.IMAGE_SERVICE_COUNT, true);
    const own = new Set<number>();
    for (const [id, number] of this.#numbers) if (kept.has(id)) own.add(number);
    for (let number = 0; number < count; number++) {
      if (own.has(number) || !this.#hasFlows(number)) continue;
      const start = records + number * abi.SERVICE_BYTES;
      yield [number, bytes.slice(start, start + abi.SERVICE_BYTES)];
    }
  }

  /** Names that are left out are nobody's from here on; their numbers rest. */
  #forget(tables: NetworkTables): void {
    const kept = new Set([...(tables.numbering ?? []), ...tables.services.map(({ id }) => id)]);
    for (const id of this.#numbers.keys()) if (!kept.has(id)) this.#numbers.delete(id);
  }
}
