/**
 * Transit: batches between devices and the engine. A fixed row of slots in the arena, each with
 * room for a virtio_net_hdr and a packet of 64 KiB; after `process`, the list of what leaves.
 *
 * Devices are known by number: where a frame goes is the device of its port out, or else the one
 * that has its destination address.
 */
import * as abi from "../../assembly/abi.ts";
import { addressBytes } from "../address.ts";
import { readTuple } from "./decision.ts";
import type { Engine } from "./engine.ts";

/** Room for a header that is not there, a virtio_net_hdr, 65,535 bytes and the read's slack. */
const SLOT_BYTES = 66_048;
/** Slots that a batch is read to, and most frames of one. */
export const SLOT_COUNT = 64;
/** Slots behind those, for frames that were held; most of them in a batch. */
export const HELD_COUNT = 16;
/** Arena that an engine needs for the first of these. */
export const TRANSIT_BYTES = SLOT_BYTES * SLOT_COUNT;
const HEADER_AT = abi.FRAME_HEADROOM_BYTES - abi.VNET_BYTES;
/** The most that a read into a slot may bring: header and packet. */
export const READ_BYTES_MAX = abi.VNET_BYTES + 65_535;

/** Arena for all of them and `more` that have a use of their own, behind these. */
export function transitBytes(more: number): number {
  return SLOT_BYTES * (SLOT_COUNT + HELD_COUNT + more);
}

const WORDS = abi.FRAME_BYTES / 4;
const DEPARTURE_WORDS = abi.DEPARTURE_BYTES / 4;

/** A frame that has not been decided yet, as it came. */
export interface HeldFrame {
  /** A copy, with its virtio_net_hdr. */
  frame: Uint8Array;
  timeMs: number;
  port: number;
  /** The flow that the engine has proposed for it, or 0. */
  flow: number;
  /** The tuple that it carries, where there is no proposal. */
  tuple: Uint8Array | undefined;
  /** How often it has run before. */
  tries: number;
}

export class Transit {
  readonly #engine: Engine;
  readonly #descriptors: Uint32Array;
  readonly #departures: Uint32Array;
  readonly #scratch: number;
  /** Whether datagrams of a flow may leave as one super-packet; default true. */
  merges = true;
  #count = 0;
  #bytes = 0;
  #departureCount = 0;
  /** Runs of frames of the batch that were held before. */
  #tries: number[] = [];

  /** @throws RangeError when the engine's arena is smaller than TRANSIT_BYTES */
  constructor(engine: Engine) {
    if (engine.arena.bytes < TRANSIT_BYTES) {
      throw new RangeError(`arenaBytes: ${engine.arena.bytes} are less than ${TRANSIT_BYTES}`);
    }
    this.#engine = engine;
    this.#descriptors = engine.descriptors;
    const address = engine.departuresAddress;
    const words = 3 * abi.BATCH_COUNT_MAX * DEPARTURE_WORDS;
    this.#departures = new Uint32Array(engine.memory.buffer as ArrayBuffer, address, words);
    this.#scratch = engine.arena.address;
  }

  /** Frames taken since the last batch. */
  get count(): number {
    return this.#count;
  }

  /** Their bytes, without virtio_net_hdr. */
  get bytes(): number {
    return this.#bytes;
  }

  get isFull(): boolean {
    return this.#count === SLOT_COUNT;
  }

  /** Where in the engine's memory a slot's frame has its virtio_net_hdr. */
  slotAddress(slot: number): number {
    return this.#engine.arena.address + slot * SLOT_BYTES + HEADER_AT;
  }

  /**
   * Takes what was read to a slot's `address`: `bytes` with the header, on `port`, at `timeMs`. Slots may be
   * left out and come in any order.
   */
  take(address: number, bytes: number, port: number, timeMs: number): void {
    const at = this.#count * WORDS;
    const descriptors = this.#descriptors;
    const length = bytes - abi.VNET_BYTES;
    descriptors[at] = address + abi.VNET_BYTES;
    descriptors[at + 1] = length;
    descriptors[at + 2] = this.#engine.clock.at(timeMs);
    descriptors[at + 3] = port;
    descriptors[at + 6] = 0;
    descriptors[at + 7] = length;
    this.#count++;
    this.#bytes += length;
  }

  /** Takes a frame that was held once more; HELD_COUNT at most, and no others with them. */
  takeHeld({ frame, port, timeMs, tries }: HeldFrame): void {
    this.#tries[this.#count] = tries;
    const address = this.slotAddress(SLOT_COUNT + this.#count);
    this.#engine.bytes.set(frame, address);
    this.take(address, frame.length, port, timeMs);
  }

  /** Frames of the last batch, of `count` frames, that wait for a decision; to be asked once. */
  held(count: number): HeldFrame[] {
    const held: HeldFrame[] = [];
    for (let index = 0; index < count; index++) {
      const [address = 0, length = 0, timeMs = 0, ports = 0, verdict = 0, flow = 0] =
        this.#descriptors.subarray(index * WORDS, index * WORDS + 6);
      if ((verdict & 0xffff) !== abi.VERDICT_HOLD_UNDECIDED) continue;
      held.push({
        frame: this.#engine.bytes.slice(address - abi.VNET_BYTES, address + length),
        timeMs,
        port: ports & 0xffff,
        flow,
        tuple: flow === 0 ? readTuple(this.#engine, index) : undefined,
        tries: this.#tries[index] ?? 0,
      });
    }
    this.#tries = [];
    return held;
  }

  /** Runs the batch; returns how many departures there are. @throws as Engine.process does */
  process(): number {
    const count = this.#count;
    this.#count = 0;
    this.#bytes = 0;
    this.#engine.process(count);
    const flags = this.merges ? abi.DEPARTURE_FLAG_MERGE : 0;
    this.#departureCount = this.#engine.exports.listDepartures(count, flags);
    return this.#departureCount;
  }

  /** Where a departure's virtio_net_hdr begins in the engine's memory. */
  addressOf(departure: number): number {
    return this.#departures[departure * DEPARTURE_WORDS] as number;
  }

  /** Bytes of a departure with its header. */
  bytesOf(departure: number): number {
    return this.#departures[departure * DEPARTURE_WORDS + 1] as number;
  }

  deviceOf(departure: number): number {
    return this.#departures[departure * DEPARTURE_WORDS + 2] as number;
  }

  /**
   * Says that `device` has the address among those behind `port`.
   * @throws RangeError when there are more than 4096 addresses
   */
  placeAddress(port: number, address: string, device: number): void {
    const bytes = addressBytes(address);
    const mapped = new Uint8Array(16);
    if (bytes.length === 4) mapped.set([0xff, 0xff], 10);
    mapped.set(bytes, 16 - bytes.length);
    this.#engine.bytes.set(mapped, this.#scratch);
    if (this.#engine.exports.placeAddress(port, this.#scratch, device) === 0) {
      const most = abi.DEVICE_ADDRESS_COUNT_MAX;
      throw new RangeError(`addresses: ${address} is one more than the ${most} there is room for`);
    }
  }
}
