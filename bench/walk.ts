/** The record walk and pcap-parser over the same capture in memory; both only count packets. */
import { EventEmitter } from "node:events";
import { parse } from "pcap-parser";
import { openBytes } from "../host/capture/memory.ts";
import type { FrameMemory } from "../host/capture/source.ts";

const CHUNK_BYTES = 256 * 1024;

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
