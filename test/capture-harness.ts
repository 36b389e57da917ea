/** Shared by the capture tests: runs a source to its end and gathers what it described. */
import fs from "node:fs";
import * as abi from "../assembly/abi.ts";
import { MemoryOutput } from "../host/capture/memory.ts";
import type { FrameSource } from "../host/capture/source.ts";
import { CaptureWriter } from "../host/capture/writer.ts";
import { CaptureError } from "../host/errors.ts";

export const SHARED = new URL("../../shared/", import.meta.url);
export const CAPTURES = new URL("captures/", SHARED);
export const hasCaptures = fs.existsSync(CAPTURES);

export interface Described {
  data: Uint8Array;
  wire: number;
  timeMs: number;
  ns: bigint;
  port: number;
}

export interface Reading {
  packets: Described[];
  /** What was written when nothing was changed, except by `onBatch`. */
  written: Uint8Array;
  error: string | undefined;
  source: FrameSource;
  sink: CaptureWriter;
}

const WORDS = abi.FRAME_BYTES / 4;

/** What descriptor `index` says, with a copy of the frame. */
export function describeFrame(source: FrameSource, index: number): Described {
  const { bytes, descriptors } = source.memory;
  const word = (offset: number) => descriptors[index * WORDS + offset / 4] as number;
  const address = word(abi.FRAME_ADDRESS);
  return {
    data: bytes.slice(address, address + word(abi.FRAME_CAPTURED_BYTES)),
    wire: word(abi.FRAME_WIRE_BYTES),
    timeMs: word(abi.FRAME_TIME_MS),
    ns: source.timeNs(index),
    port: word(abi.FRAME_PORT) & 0xffff,
  };
}

export interface RunOptions {
  limit?: number;
  /** Instead of sink.take(count). */
  onBatch?: (sink: CaptureWriter, count: number, first: number) => void;
}

/** Reads to the end or the first error, writing everything back. */
export async function run(
  open: Promise<FrameSource>,
  { limit, onBatch }: RunOptions = {},
): Promise<Reading> {
  const output = new MemoryOutput();
  const source = await open;
  const sink = new CaptureWriter(source, output);
  const packets: Described[] = [];
  let error: string | undefined;
  try {
    for (;;) {
      const count = await source.next(limit);
      if (count === 0) break;
      for (let i = 0; i < count; i++) packets.push(describeFrame(source, i));
      if (onBatch) onBatch(sink, count, packets.length - count);
      else sink.take(count);
    }
  } catch (caught) {
    if (!(caught instanceof CaptureError)) throw caught;
    error = caught.message;
  }
  await sink.close();
  source.close();
  return { packets, written: output.toBytes(), error, source, sink };
}

/** The same, where the file header may be refused: then there is only the error. */
export async function runOrRefuse(
  open: () => Promise<FrameSource>,
  options?: RunOptions,
): Promise<Reading | { error: string; packets: [] }> {
  const opening = open();
  try {
    await opening;
  } catch (caught) {
    if (!(caught instanceof CaptureError)) throw caught;
    return { error: caught.message, packets: [] };
  }
  return run(opening, options);
}
