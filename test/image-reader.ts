/**
 * Reads a packed network image back into plain words, by its layout alone, and says what it should hold:
 * the slow twin of the packer. Rings come from the table of the paper, with turns by weight.
 */
import * as abi from "../assembly/abi.ts";
import { permutationOf } from "../host/control/maglev.ts";
import type { NetworkService, NetworkTables } from "../host/engine/network.ts";
import { maglevTable } from "./reference/maglev.ts";

/** A list of targets and the ring over them. */
export interface ReadTargets {
  targets: string[];
  ring: number[];
}

export interface ReadService {
  vpc: number;
  sources: string[];
  v4: ReadTargets;
  v6: ReadTargets;
  /** Sets of rules by their words, in the order endpoint, inbound, outbound. */
  rules: (string | undefined)[];
}

const text = (bytes: Uint8Array) => Array.from(bytes).join(".");

export class ImageReader {
  readonly #view: DataView;
  readonly #address: number;

  constructor(image: Uint8Array, address: number) {
    this.#view = new DataView(image.buffer, image.byteOffset, image.length);
    this.#address = address;
  }

  #word(place: number): number {
    return this.#view.getUint32(place, true);
  }

  #bytes(place: number, length: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + place, length);
  }

  /** Where in the image the address at `place` leads. */
  #at(place: number): number {
    return this.#word(place) - this.#address;
  }

  service(number: number): ReadService {
    const record = this.#at(abi.IMAGE_SERVICES) + number * abi.SERVICE_BYTES;
    const pool = (field: number, count: number, width: number) =>
      Array.from({ length: this.#word(record + count) }, (_, n) =>
        text(this.#bytes(this.#at(record + field) + n * width, width)),
      );
    const size = this.#word(record + abi.SERVICE_RING_SIZE);
    const { SERVICE_RULES_ENDPOINT, SERVICE_RULES_INBOUND, SERVICE_RULES_OUTBOUND } = abi;
    return {
      vpc: this.#view.getUint16(record + abi.SERVICE_VPC, true),
      sources: [
        ...pool(abi.SERVICE_POOL, abi.SERVICE_POOL_COUNT, 4),
        ...pool(abi.SERVICE_POOL6, abi.SERVICE_POOL6_COUNT, 16),
      ],
      v4: this.#targets(record + abi.SERVICE_TARGETS, record + abi.SERVICE_RING, 4, size, record),
      v6: this.#targets(
        record + abi.SERVICE_TARGETS6,
        record + abi.SERVICE_RING6,
        16,
        size,
        record,
      ),
      rules: [SERVICE_RULES_ENDPOINT, SERVICE_RULES_INBOUND, SERVICE_RULES_OUTBOUND].map((field) =>
        this.#rules(record + field),
      ),
    };
  }

  #targets(list: number, ring: number, width: number, size: number, record: number): ReadTargets {
    const isIpv6 = width === 16;
    const stride = isIpv6 ? abi.TARGET6_BYTES : abi.TARGET_BYTES;
    const count = isIpv6 ? abi.SERVICE_TARGET6_COUNT : abi.SERVICE_TARGET_COUNT;
    const length = this.#word(record + count);
    const targets = Array.from({ length }, (_, n) => {
      const at = this.#at(list) + n * stride;
      return `${text(this.#bytes(at, width))}:${this.#view.getUint16(at + width)}`;
    });
    if (length === 0) return { targets, ring: [] };
    const entries = Array.from({ length: size }, (_, n) =>
      this.#view.getUint16(this.#at(ring) + n * 2, true),
    );
    return { targets, ring: entries };
  }

  /** Address, mask and keys of each rule; lanes that match nothing are left out. */
  #rules(field: number): string | undefined {
    if (this.#word(field) === 0) return undefined;
    const start = this.#at(field);
    const blocks = this.#word(start + abi.RULES_COUNT);
    const lines: string[] = [];
    const line = (at: number, lane: number, width: number) => {
      const low = this.#view.getInt32(at + abi.RULE_BLOCK_LOW + lane, true) + 1;
      const high = this.#view.getInt32(at + abi.RULE_BLOCK_HIGH + lane, true) - 1;
      const address = text(this.#bytes(at + abi.RULE_BLOCK_ADDRESS + lane, width));
      const mask = text(this.#bytes(at + abi.RULE_BLOCK_MASK + lane, width));
      if (low <= high) lines.push(`${address}/${mask} ${low}-${high}`);
    };
    const first = start + abi.RULES_BLOCKS;
    for (let lane = 0; lane < blocks * 4; lane++) {
      line(first + (lane >> 2) * abi.RULE_BLOCK_BYTES, (lane & 3) * 4, 4);
    }
    for (let rule = 0; rule < this.#word(start + abi.RULES_COUNT6); rule++) {
      line(first + (blocks + rule) * abi.RULE_BLOCK_BYTES, 0, 16);
    }
    return lines.join("\n");
  }

  /** Entries of the directory as `space number detail address`, each once; and their values. */
  directory(): Map<string, number> {
    const entries = new Map<string, number>();
    const start = this.#at(abi.IMAGE_DIRECTORY);
    for (let slot = 0; slot <= this.#word(abi.IMAGE_DIRECTORY_MASK); slot++) {
      const at = start + slot * abi.DIRECTORY_BYTES;
      const space = this.#word(at + abi.DIRECTORY_SPACE);
      if (space === 0) continue;
      const detail = this.#word(at + abi.DIRECTORY_DETAIL);
      const width = detail >= abi.DETAIL_IPV6 ? 16 : 4;
      const address = text(this.#bytes(at + abi.DIRECTORY_ADDRESS, width));
      const key = `${space >>> 24} ${space & 0xffffff} ${detail} ${address}`;
      if (entries.has(key)) throw new Error(`${key} is there twice`);
      entries.set(key, this.#word(at + abi.DIRECTORY_VALUE));
    }
    return entries;
  }
}

/** The ring that a service should have of a family, by name and weight of each target. */
export function ringOf({ targets = [] }: NetworkService, isIpv6: boolean): number[] {
  const all = targets.map(({ address, port = 0, weight = 1 }) => {
    return { name: `${address} ${port}`, isIpv6: address.includes(":"), weight };
  });
  const families = [false, true].map((own) =>
    all.filter((target) => target.isIpv6 === own && target.weight > 0),
  );
  const sizes = families.map((list) => {
    const weights = list.map(({ weight }) => weight);
    const wanted = (100 * weights.reduce((sum, weight) => sum + weight, 0)) / Math.min(...weights);
    return [1021, 4093, 16381, 65537].find((one) => one >= wanted || list.length === 0) ?? 65537;
  });
  const list = families[isIpv6 ? 1 : 0] ?? [];
  if (list.length === 0) return [];
  const size = Math.max(...sizes);
  const preferences = list.map(({ name }) => permutationOf(name, size));
  return maglevTable(
    preferences,
    size,
    list.map(({ weight }) => weight),
  );
}

/** Numbers of listeners, addresses and VPCs that the directory should have. */
export function directoryCounts({ vpcs }: NetworkTables) {
  const addresses = vpcs.flatMap((vpc) => vpc.addresses ?? []);
  return {
    vpcs: vpcs.length,
    listeners: addresses.flatMap(({ listeners = [] }) => listeners).length,
    addresses: addresses.length,
    prefixes: vpcs.reduce((sum, { routeTables = [], subnets = [] }) => {
      return sum + routeTables.flat().length + subnets.length;
    }, 0),
  };
}
