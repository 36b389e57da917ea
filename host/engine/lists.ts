/**
 * Lists of a network image that services point to: source addresses, targets, rings. Services whose
 * lists agree share one.
 */
import * as abi from "../../assembly/abi.ts";
import { buildRing, type RingTarget } from "../control/maglev.ts";
import type { Target } from "./api.ts";
import { addressOf, shown, wholeNumber } from "./check.ts";
import type { NetworkImage } from "./image.ts";
import type { Work } from "./room.ts";

const TARGET_COUNT_MAX = 20_000;
const POOL_COUNT_MAX = 1024;
/** Primes; a target has a hundred entries of its ring or more, up to the largest. */
const RING_SIZES = [1021, 4093, 16381, 65537];
const RING_SHARE = 100;
const NO_RING = new Uint16Array(0);
/** 64:ff9b::/96 (RFC 6052). */
const CROSSED = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/** Writes a word of a service record. */
export type Put = (field: number, value: number) => void;

/** What `make` made under this key when tables were packed before, or makes now. */
export type Remembered = <T>(key: string, make: () => T) => T;

export class ServiceLists {
  readonly #image: NetworkImage;
  readonly #remembered: Remembered;
  readonly #work: Work;
  /** Fields of a record that point to a list, by what it says. */
  readonly #pieces = new Map<string, readonly (readonly [field: number, value: number])[]>();

  constructor(image: NetworkImage, remembered: Remembered, work: Work) {
    this.#image = image;
    this.#remembered = remembered;
    this.#work = work;
  }

  sources(path: string, sources: readonly string[], put: Put): void {
    wholeNumber(`${path}.sources.length`, sources.length, 0, POOL_COUNT_MAX);
    this.#share(`sources ${sources}`, put, (note) => {
      const all = sources.map((text, at) => addressOf(`${path}.sources[${at}]`, text));
      for (const width of [4, 16]) {
        const addresses = all.filter((bytes) => bytes.length === width);
        if (addresses.length === 0) continue;
        const place = this.#image.take(addresses.length * width);
        for (const [index, bytes] of addresses.entries()) {
          this.#image.bytes.set(bytes, place + index * width);
        }
        note(width === 4 ? abi.SERVICE_POOL : abi.SERVICE_POOL6, this.#image.addressOf(place));
        note(width === 4 ? abi.SERVICE_POOL_COUNT : abi.SERVICE_POOL6_COUNT, addresses.length);
      }
    });
  }

  /** Puts the fields that `make` notes; those of an equal piece are made once. */
  #share(key: string, put: Put, make: (note: Put) => void): void {
    let fields = this.#pieces.get(key);
    if (fields === undefined) {
      const noted: (readonly [number, number])[] = [];
      make((field, value) => noted.push([field, value]));
      this.#pieces.set(key, noted);
      fields = noted;
    }
    for (const [field, value] of fields) put(field, value);
  }

  targets(path: string, targets: readonly Target[], put: Put): void {
    wholeNumber(`${path}.targets.length`, targets.length, 0, TARGET_COUNT_MAX);
    this.#work.done.targets += targets.length;
    const key = keyOf(targets);
    this.#share(key, put, (note) => {
      const { families, size, isCrossed } = this.#remembered(key, () => this.#made(path, targets));
      if (isCrossed) this.#image.put(abi.IMAGE_CROSSES, 1);
      note(abi.SERVICE_RING_SIZE, size);
      for (const { list, ring, isIpv6 } of families) {
        if (list.length === 0) continue;
        note(isIpv6 ? abi.SERVICE_RING6 : abi.SERVICE_RING, this.#ring(ring));
        note(isIpv6 ? abi.SERVICE_TARGETS6 : abi.SERVICE_TARGETS, this.#list(list, isIpv6));
        note(isIpv6 ? abi.SERVICE_TARGET6_COUNT : abi.SERVICE_TARGET_COUNT, list.length);
      }
    });
  }

  #made(path: string, targets: readonly Target[]) {
    const all = targets.map((target, at) => checkTarget(`${path}.targets[${at}]`, target));
    const lists = [4, 16].map((width) =>
      all.filter(({ bytes, weight }) => bytes.length === width && weight > 0),
    );
    const size = Math.max(...lists.map(ringSizeFor));
    const families = lists.map((list, at) => {
      const ring = list.length === 0 ? NO_RING : buildRing(list, size);
      this.#work.done.ringEntries += ring.length;
      return { list, ring, isIpv6: at === 1 };
    });
    return { families, size, isCrossed: all.some(({ bytes }) => isCrossed(bytes)) };
  }

  #ring(ring: Uint16Array): number {
    const place = this.#image.take(ring.byteLength);
    this.#image.bytes.set(new Uint8Array(ring.buffer, ring.byteOffset, ring.byteLength), place);
    return this.#image.addressOf(place);
  }

  #list(list: readonly CheckedTarget[], isIpv6: boolean): number {
    const stride = isIpv6 ? abi.TARGET6_BYTES : abi.TARGET_BYTES;
    const portAt = isIpv6 ? abi.TARGET6_PORT_BE : abi.TARGET_PORT_BE;
    const place = this.#image.take(list.length * stride);
    for (const [index, { bytes, port }] of list.entries()) {
      this.#image.bytes.set(bytes, place + index * stride);
      this.#image.view.setUint16(place + index * stride + portAt, port);
    }
    return this.#image.addressOf(place);
  }
}

/** What a list says, as text. */
function keyOf(targets: readonly Target[]): string {
  let key = "targets";
  for (const { address, port, weight } of targets) key += ` ${address} ${port} ${weight}`;
  return key;
}

/** Whether the address is an IPv4 one that IPv6 clients reach. */
function isCrossed(bytes: Uint8Array): boolean {
  return bytes.length === 16 && CROSSED.every((byte, at) => bytes[at] === byte);
}

interface CheckedTarget extends RingTarget {
  bytes: Uint8Array;
  port: number;
}

function checkTarget(path: string, target: Target): CheckedTarget {
  const port = wholeNumber(`${path}.port`, target.port ?? 0, 0, 65535);
  const weight = target.weight ?? 1;
  if (!(Number.isFinite(weight) && weight >= 0)) {
    throw new RangeError(`${path}.weight: ${shown(weight)} is not a number from 0`);
  }
  const bytes = addressOf(`${path}.address`, target.address);
  return { bytes, port, weight, name: `${target.address} ${port}` };
}

/** A ring in which every target has its share to about a hundredth. */
function ringSizeFor(targets: readonly RingTarget[]): number {
  const weights = targets.map(({ weight }) => weight);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const wanted = targets.length === 0 ? 0 : (RING_SHARE * sum) / Math.min(...weights);
  return RING_SIZES.find((size) => size >= wanted) ?? (RING_SIZES.at(-1) as number);
}
