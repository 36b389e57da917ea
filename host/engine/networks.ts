/**
 * Puts packed network tables to use in an engine: an image is copied whole, whatever it holds, in
 * slices of SLICE_BYTES, and then swapped in. So a load takes the same time whether tables say much
 * or little, makes no garbage, and no batch waits for it longer than a slice takes.
 */
import * as abi from "../../assembly/abi.ts";
import type { Region } from "./api.ts";
import type { EngineExports } from "./module.ts";
import type { CapacityChange, CapacityState } from "./network.ts";
import type { PackedTables } from "./packer.ts";
import { putShift } from "./proxy.ts";

/** Copied at memory speed in some 20 us. */
const SLICE_BYTES = 1 << 18;
/** VPCs, and services, looked at in one step. */
const CHUNK = 1024;
const VPC_COUNT_MAX = 1 << 16;

export interface NetworkMemory {
  exports: EngineExports;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView<ArrayBuffer>;
  /** Addresses of the usage blocks, of what is tallied for them, and of their traits. */
  usage: number;
  tallies: number;
  traits: number;
  /** Address of the capacities, and of the list of their changes. */
  capacities: number;
  capacityChanges: number;
  /** Both images, one behind the other. */
  region: Region;
}

export class Networks {
  readonly #memory: NetworkMemory;
  /** Address of the image in use, 0 = none. */
  #current = 0;
  #isLoading = false;

  constructor(memory: NetworkMemory) {
    this.#memory = memory;
  }

  /** Copies and swaps in, one step at a time. @throws TypeError when it is not this engine's turn */
  *load(packed: PackedTables): Generator<void, void, void> {
    const { region, bytes } = this.#memory;
    const { image, address } = packed;
    const isOwn = address === region.address || address === region.address + region.bytes / 2;
    if (!isOwn || image.length !== region.bytes / 2) {
      throw new TypeError("network: the tables were packed for an engine with other options");
    }
    if (address === this.#current) {
      throw new TypeError("network: tables were left out that were packed before these");
    }
    if (this.#isLoading) throw new TypeError("network: other tables are being loaded already");
    this.#isLoading = true;
    try {
      for (let start = 0; start < image.length; start += SLICE_BYTES) {
        bytes.set(image.subarray(start, start + SLICE_BYTES), address + start);
        yield;
      }
      // What has to be there before the image is: zones, counters, marks.
      for (let first = 0; first < VPC_COUNT_MAX; first += CHUNK) {
        this.#prepare(packed, first, first + CHUNK);
        yield;
      }
      this.#setCapacities(packed.capacities);
      this.#memory.exports.useImage(address);
      this.#current = address;
      for (let first = 0; first < abi.SERVICE_COUNT_MAX; first += CHUNK) {
        yield;
        this.#mark(packed.unpoliced.subarray(first, first + CHUNK), 0);
      }
    } finally {
      this.#isLoading = false;
    }
  }

  #prepare(packed: PackedTables, first: number, end: number): void {
    const { exports, bytes, view, usage, tallies, traits } = this.#memory;
    const { vpcs, fresh, policed, headers } = packed;
    for (const vpc of vpcs.subarray(first, end)) exports.zoneOf(vpc, 0, 0);
    for (const number of fresh.subarray(first, end)) {
      const block = usage + number * abi.USAGE_BYTES;
      bytes.fill(0, block, block + abi.USAGE_BYTES);
      const tally = tallies + number * abi.TALLY_BYTES;
      bytes.fill(0, tally, tally + abi.TALLY_BYTES);
      putShift(view, traits + number * abi.TRAITS_BYTES, 0);
    }
    for (const word of headers.subarray(first, end)) {
      putShift(view, traits + (word & 0xffff) * abi.TRAITS_BYTES, word >>> 16);
    }
    this.#mark(policed.subarray(first, end), 1);
  }

  /** Who is marked is only asked further, so marks may be early but never late. */
  #mark(services: Uint16Array, isPoliced: number): void {
    const { view, traits } = this.#memory;
    for (const number of services) {
      view.setUint16(traits + number * abi.TRAITS_BYTES + abi.TRAIT_POLICED, isPoliced, true);
    }
  }

  /** Whether flows of a service live; there are never as many as the low word cannot hold. */
  hasFlows(number: number): boolean {
    const { view, usage } = this.#memory;
    return view.getUint32(usage + number * abi.USAGE_BYTES + abi.USAGE_FLOWS_ACTIVE, true) > 0;
  }

  /** The record of a capacity that tables have named, by its number. */
  #capacityAt(number: number): number {
    return this.#memory.capacities + number * abi.CAPACITY_BYTES;
  }

  /** Sets the limits of capacities, new ones full and at their least; what they have counted stays. */
  #setCapacities(words: Uint32Array): void {
    const { view } = this.#memory;
    for (let at = 0; at < words.length; at += 4) {
      const [number = 0, units = 0, unitsMax = 0, isDropping = 0] = words.subarray(at, at + 4);
      const record = this.#capacityAt(number);
      const now = view.getUint32(record + abi.CAPACITY_UNITS, true);
      const put = (field: number, value: number) => view.setUint32(record + field, value, true);
      put(abi.CAPACITY_IS_DROPPING, isDropping);
      put(abi.CAPACITY_UNITS_MIN, units);
      put(abi.CAPACITY_UNITS_MAX, unitsMax);
      put(abi.CAPACITY_UNITS, Math.min(Math.max(now, units), unitsMax));
    }
  }

  capacity(number: number): CapacityState {
    const { view } = this.#memory;
    const record = this.#capacityAt(number);
    const read = (field: number) => Number(view.getBigUint64(record + field, true));
    return {
      units: view.getUint32(record + abi.CAPACITY_UNITS, true),
      over: { packets: read(abi.CAPACITY_OVER_PACKETS), bytes: read(abi.CAPACITY_OVER_OCTETS) },
    };
  }

  /** Changes of units since this was last asked, the oldest first; at most 4,095 are kept. */
  capacityChanges(names: ReadonlyMap<number, string>): CapacityChange[] {
    const { view, capacityChanges: list } = this.#memory;
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
}
