/**
 * Which node of a fleet gets a packet: the kernel is the front. Every device has a queue for each
 * node, and a program (eBPF, socket filter) that chooses the queue in two steps:
 *
 *   places   (VPC, address) -> row       the resource that has the packet's destination, else its source
 *   rows     row -> a node for each bucket   the nodes of the resource; the bucket is steering.ts's
 *
 * Packets that no resource has the address of go by the row of their device. Queues are nodes, by
 * number, for as long as the fleet lives: when a node dies its share of each row goes to others by
 * one write a row, and nothing else moves.
 */
import { addressBytes } from "../address.ts";
import { FlowplaneError } from "../errors.ts";
import {
  ADD,
  AND_IMMEDIATE,
  BUCKET,
  BUCKET_COUNT,
  EXIT,
  JUMP,
  JUMP_IF_EQUAL,
  JUMP_UNLESS_EQUAL,
  type Line,
  LOAD_BYTE,
  loadSteering,
  MOVE,
  MOVE_IMMEDIATE,
  SHIFT_RIGHT,
} from "./steering.ts";
import type { Syscalls } from "./syscalls.ts";
import { steer } from "./tun.ts";

export const PLACE_COUNT_MAX = 16_384;
export const ROW_COUNT_MAX = 4096;

const MAP_TYPE_HASH = 1;
const MAP_TYPE_ARRAY = 2;
const KEY_BYTES = 20;
const ROW_BYTES = 4;
/** In a key, where a VPC's number stands for addresses, a device's number stands behind this. */
const DEVICE_SPACE = 0x10000;
/** What stands before an IPv4 address in its mapped form. */
const MAPPED = 0xffff;

const LOAD_WORD = 0x20; //           r0 = packet[imm], in the order of this machine
const LOAD_MAP = 0x18; //            dst = the map with descriptor imm; two instructions long
const FROM_DESCRIPTOR = 1;
const LOAD_FROM = 0x61; //           dst = word at source + offset
const LOAD_BYTE_FROM = 0x71;
const STORE_IMMEDIATE = 0x62; //     word at dst + offset = imm
const STORE = 0x63;
const ADD_TO_POINTER = 0x07;
const CALL = 0x85;
const MAP_LOOKUP = 1;
const FRAME_POINTER = 10;

/** The key lies at the end of the stack: space, then the address as four words. */
const KEY_AT = -KEY_BYTES;
const WORD_AT = (index: number) => KEY_AT + 4 * (index + 1);

/** Looks up what the key names, and goes to the label when it is there. */
function lookUp(map: number, at: number): Line[] {
  return [
    { code: LOAD_MAP, to: 1, from: FROM_DESCRIPTOR, value: map },
    { code: 0 },
    { code: MOVE, to: 2, from: FRAME_POINTER },
    { code: ADD_TO_POINTER, to: 2, value: at },
    { code: CALL, value: MAP_LOOKUP },
  ];
}

/** Puts `count` words of the packet at the end of the key, and looks it up. */
function lookUpAddress(places: number, offset: number, count: number): Line[] {
  const words = Array.from({ length: count }, (_, word): Line[] => [
    { code: LOAD_WORD, value: offset + 4 * word },
    { code: STORE, to: FRAME_POINTER, from: 0, offset: WORD_AT(4 - count + word) },
  ]);
  return [
    ...words.flat(),
    ...lookUp(places, KEY_AT),
    { code: JUMP_UNLESS_EQUAL, to: 0, value: 0, label: "found" },
  ];
}

const storeWord = (offset: number, value: number): Line => {
  return { code: STORE_IMMEDIATE, to: FRAME_POINTER, offset, value };
};

/** The program of one device. Register 7 holds the bucket. */
function programOf(maps: SpreadMaps, vpc: number, device: number): Line[] {
  const { places, rows } = maps;
  return [
    ...BUCKET,
    { code: MOVE, to: 7, from: 0 },
    storeWord(KEY_AT, vpc),
    { code: LOAD_BYTE, value: 0 },
    { code: SHIFT_RIGHT, to: 0, value: 4 },
    { code: JUMP_IF_EQUAL, to: 0, value: 6, label: "addresses 6" },
    storeWord(WORD_AT(0), 0),
    storeWord(WORD_AT(1), 0),
    storeWord(WORD_AT(2), MAPPED),
    ...lookUpAddress(places, 16, 1),
    ...lookUpAddress(places, 12, 1),
    { code: JUMP, label: "device" },
    "addresses 6",
    ...lookUpAddress(places, 24, 4),
    ...lookUpAddress(places, 8, 4),
    "device",
    storeWord(KEY_AT, DEVICE_SPACE + device),
    ...[0, 1, 2, 3].map((word) => storeWord(WORD_AT(word), 0)),
    ...lookUp(places, KEY_AT),
    { code: JUMP_UNLESS_EQUAL, to: 0, value: 0, label: "found" },
    storeWord(-ROW_BYTES, 0),
    { code: JUMP, label: "row" },
    "found",
    { code: LOAD_FROM, to: 1, from: 0, offset: 0 },
    { code: STORE, to: FRAME_POINTER, from: 1, offset: -ROW_BYTES },
    "row",
    ...lookUp(rows, -ROW_BYTES),
    { code: JUMP_IF_EQUAL, to: 0, value: 0, label: "no row" },
    { code: AND_IMMEDIATE, to: 7, value: BUCKET_COUNT - 1 },
    { code: ADD, to: 0, from: 7 },
    { code: LOAD_BYTE_FROM, to: 0, from: 0, offset: 0 },
    { code: EXIT },
    "no row",
    { code: MOVE_IMMEDIATE, to: 0, value: 0 },
    { code: EXIT },
  ];
}

interface SpreadMaps {
  places: number;
  rows: number;
}

/** Where packets go: a VPC's address, or all else that comes from a device. */
export type Place = { vpc: number; address: string } | { device: number };

/** The maps of a fleet and the programs of its devices. */
export class Spreading {
  readonly #system: Syscalls;
  readonly #maps: SpreadMaps;

  /** @throws FlowplaneError when the kernel gives no maps */
  constructor(system: Syscalls) {
    this.#system = system;
    this.#maps = {
      places: madeMap(system.createMap(MAP_TYPE_HASH, KEY_BYTES, ROW_BYTES, PLACE_COUNT_MAX)),
      rows: madeMap(system.createMap(MAP_TYPE_ARRAY, ROW_BYTES, BUCKET_COUNT, ROW_COUNT_MAX)),
    };
  }

  /** Gives a device, by one of its queues, the program. @throws FlowplaneError naming the device */
  steer(device: { name: string; fd: number }, vpc: number, number: number): void {
    const program = loadSteering(this.#system, programOf(this.#maps, vpc, number));
    try {
      const done = steer(this.#system, device.fd, program);
      if (done < 0) throw new FlowplaneError(`${device.name}: cannot be steered (error ${-done})`);
    } finally {
      this.#system.close(program);
    }
  }

  /** Sets the node of each bucket of a row. @throws FlowplaneError */
  setRow(row: number, nodes: readonly number[]): void {
    this.#set(this.#maps.rows, words([row]), Uint8Array.from(nodes));
  }

  /** @throws FlowplaneError, also when there are more than PLACE_COUNT_MAX places */
  setPlace(place: Place, row: number): void {
    this.#set(this.#maps.places, keyOf(place), words([row]));
  }

  removePlace(place: Place): void {
    this.#system.removeEntry(this.#maps.places, keyOf(place));
  }

  close(): void {
    this.#system.close(this.#maps.places);
    this.#system.close(this.#maps.rows);
  }

  #set(map: number, key: Uint8Array, value: Uint8Array): void {
    const done = this.#system.setEntry(map, key, value);
    if (done < 0) throw new FlowplaneError(`nodes: the kernel takes no more (error ${-done})`);
  }
}

function madeMap(descriptor: number): number {
  if (descriptor >= 0) return descriptor;
  throw new FlowplaneError(`nodes: the kernel refuses a map (error ${-descriptor})`);
}

function words(numbers: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(numbers).buffer);
}

/** Addresses stand in keys as the program loads them: words in the order of this machine. */
function keyOf(place: Place): Uint8Array {
  if ("device" in place) return words([DEVICE_SPACE + place.device, 0, 0, 0, 0]);
  const bytes = addressBytes(place.address);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length === 4) return words([place.vpc, 0, 0, MAPPED, view.getUint32(0)]);
  return words([place.vpc, ...[0, 4, 8, 12].map((at) => view.getUint32(at))]);
}
