/** The record walk over a pcap in parts as they are read, and beside pcap-parser over one in memory. */
import { EventEmitter } from "node:events";
import fs from "node:fs";
import { parse } from "pcap-parser";
import {
  BATCH_COUNT_MAX,
  WALK_BYTES,
  WALK_LENGTH_MAX,
  WALK_NEXT,
  WALK_PACKETS,
  WALK_REASON,
  WALK_STOP_FULL,
} from "../assembly/abi.ts";
import { openBytes } from "../host/capture/memory.ts";
import type { FrameMemory } from "../host/capture/source.ts";

const CHUNK_BYTES = 256 * 1024;
const HEADER_BYTES = 24;

/** A pcap of little-endian records up to its last record that ends within `bytes`. */
export function wholeRecords(capture: Buffer, bytes: number): Buffer {
  for (let at = HEADER_BYTES; ; ) {
    const isHeaderWithin = at + 16 <= Math.min(bytes, capture.length);
    const next = isHeaderWithin ? at + 16 + capture.readUInt32LE(at + 8) : Number.POSITIVE_INFINITY;
    if (next > Math.min(bytes, capture.length)) return capture.subarray(0, at);
    at = next;
  }
}

/** The walk's state, at the begin of a little-endian pcap. */
function beginWalk({ arena, bytes }: FrameMemory): Uint32Array {
  bytes.fill(0, arena.address, arena.address + WALK_BYTES);
  const state = new Uint32Array(bytes.buffer, arena.address, WALK_BYTES / 4);
  state[WALK_LENGTH_MAX / 4] = 65535;
  return state;
}

/** The walk without reading or copying: one chunk of records, over and over. */
export async function walkAlone(
  capture: Buffer,
  memory: FrameMemory,
  packets: number,
): Promise<number> {
  const { arena, bytes, descriptors, exports } = memory;
  const records = wholeRecords(capture, CHUNK_BYTES).subarray(HEADER_BYTES);
  const start = arena.address + (arena.bytes >> 1);
  const end = start + records.length;
  bytes.set(records, start);
  const state = beginWalk(memory);
  for (let left = packets; left > 0; ) {
    for (let at = start; at < end && left > 0; at = state[WALK_NEXT / 4] as number) {
      const limit = Math.min(left, BATCH_COUNT_MAX);
      left -= exports.walkPcap(arena.address, at, end, descriptors.byteOffset, limit);
    }
  }
  return state[WALK_PACKETS / 4] as number;
}

/**
 * What a record of a pcap takes in the walk, in ns, of each part of the file right after that was read,
 * and how many records there were. `memory` may keep a worker's frames alone.
 */
export function walkParts(file: string, memory: FrameMemory): { ns: number[]; packets: number } {
  const { arena, bytes, descriptors, exports } = memory;
  const start = arena.address + (arena.bytes >> 1);
  const part = bytes.subarray(start, start + CHUNK_BYTES);
  const state = beginWalk(memory);
  const packets = () => state[WALK_PACKETS / 4] as number;
  const descriptor = fs.openSync(file, "r");
  const ns: number[] = [];
  try {
    for (let offset = HEADER_BYTES; ; ) {
      const end = start + fs.readSync(descriptor, part, 0, CHUNK_BYTES, offset);
      const before = packets();
      const startMs = performance.now();
      let at = start;
      do {
        exports.walkPcap(arena.address, at, end, descriptors.byteOffset, BATCH_COUNT_MAX);
        at = state[WALK_NEXT / 4] as number;
      } while (state[WALK_REASON / 4] === WALK_STOP_FULL);
      const count = packets() - before;
      if (count === 0) return { ns, packets: before };
      ns.push(((performance.now() - startMs) * 1e6) / count);
      offset += at - start;
    }
  } finally {
    fs.closeSync(descriptor);
  }
}

export async function walkBytes(capture: Uint8Array, memory: FrameMemory): Promise<number> {
  const source = await openBytes(capture, memory);
  while (source.next());
  return source.packets;
}

export function parseBytes(capture: Uint8Array): Promise<number> {
  return new Promise((resolve) => {
    let count = 0;
    const feed = Object.assign(new EventEmitter(), { pause() {}, resume() {} });
    parse(feed as EventEmitter).on("packet", () => count++);
    for (let at = 0; at < capture.length; at += CHUNK_BYTES) {
      feed.emit(
        "data",
        Buffer.from(
          capture.buffer,
          capture.byteOffset + at,
          Math.min(CHUNK_BYTES, capture.length - at),
        ),
      );
    }
    resolve(count);
  });
}
