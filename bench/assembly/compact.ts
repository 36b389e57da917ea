/**
 * Traffic for the compact table: the flows of generator.ts, whose translated ports are the table's to
 * choose. So answers are made for a sample of flows whose translation was noted when their packets
 * left; as the sample is drawn at random from all flows, its records lie all over the table.
 */
import { FRAME_BYTES, FRAME_PORT } from "../../assembly/abi";
import { processCompact } from "../../assembly/compact/batch";
import { frames } from "../../assembly/memory";
import { describeFrame, random, writeFrame } from "./generator";

const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
const SAMPLE_COUNT: u32 = 1 << 20;
/** Flow, then the gateway's address and port as the frame carries them. */
const SAMPLE_BYTES: usize = 16;
const samples: usize = memory.data(16 << 20, 64);
let sampled: u32 = 0;
let next: u32 = 0;

/**
 * Fills `count` descriptors and frames of 64 bytes. `mode`: 0 a random flow from `first` on and,
 * where there is a sample, half of them answers; 1 new flows in order from `first`; 2 as 0, no answers.
 */
export function generateCompact(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  first: u32,
  flowCount: u32,
): void {
  for (let index: u32 = 0; index < count; index++) {
    const frame = arena + <usize>(index * stride);
    const draw = random();
    const isAnswer = mode == 0 && sampled > 0 && (draw & 0x80) != 0;
    let flow = first + <u32>(((draw >> 32) * <u64>flowCount) >> 32);
    if (mode == 1) flow = first + index;
    const sample = samples + <usize>next * SAMPLE_BYTES;
    if (isAnswer) flow = load<u32>(sample);
    writeFrame(frame, flow, u32(isAnswer), mode == 1 ? SYN : ACK, 64);
    if (isAnswer) {
      store<u32>(frame, load<u32>(sample, 4), 30);
      store<u16>(frame, load<u16>(sample, 8), 36);
      next = next + 1 == sampled ? 0 : next + 1;
    }
    describeFrame(index, frame, 64, u32(isAnswer));
  }
}

/** Generates and processes batches; `isProcessed` 0 measures the generator alone. */
export function compactBatches(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  first: u32,
  flowCount: u32,
  batches: u32,
  isProcessed: u32,
): void {
  let at = first;
  for (let batch: u32 = 0; batch < batches; batch++) {
    generateCompact(arena, stride, count, mode, at, flowCount);
    if (isProcessed) processCompact(count);
    if (mode == 1) at += count;
  }
}

/** Notes the translation of flows at random until there are `SAMPLE_COUNT`. */
export function sampleCompact(
  arena: usize,
  stride: u32,
  count: u32,
  first: u32,
  flowCount: u32,
): void {
  sampled = 0;
  next = 0;
  for (let noted: u32 = 0; noted + count <= SAMPLE_COUNT; noted += count) {
    generateCompact(arena, stride, count, 2, first, flowCount);
    for (let index: u32 = 0; index < count; index++) {
      const frame = arena + <usize>(index * stride);
      store<u32>(samples + <usize>(noted + index) * SAMPLE_BYTES, flowOf(frame));
    }
    processCompact(count);
    for (let index: u32 = 0; index < count; index++) {
      const frame = arena + <usize>(index * stride);
      const sample = samples + <usize>(noted + index) * SAMPLE_BYTES;
      assert(load<u16>(frames + <usize>(index * FRAME_BYTES), FRAME_PORT) == 0, "not of a client");
      store<u32>(sample, load<u32>(frame, 26), 4);
      store<u16>(sample, load<u16>(frame, 34), 8);
    }
  }
  sampled = SAMPLE_COUNT - (SAMPLE_COUNT % count);
}

/** The flow that a frame of its client belongs to: its server and port say which. */
function flowOf(frame: usize): u32 {
  const server = bswap<u32>(load<u32>(frame, 30)) - 0x08000000;
  return server * 60000 + <u32>bswap<u16>(load<u16>(frame, 34)) - 1024;
}
