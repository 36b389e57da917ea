/**
 * Traffic for the prototype: that of generator.ts, but replies go where the slot of their flow says.
 */
import { FRAME_ADDRESS, FRAME_BYTES, FRAME_FLOW, FRAME_PORT } from "../../assembly/abi";
import { frames } from "../../assembly/memory";
import { generate } from "./generator";
import { createPrototype, natOf, prototypeBatch } from "./prototype";

const SERVER_BASE: u32 = 0x08000000;
const PORTS_PER_SERVER: u32 = 60000;
/** Slot of each flow. */
let slotsAt: usize = 0;

/** Lays table and slots of `flowCount` flows out at `start`; returns where they end. */
export function prototypeCreate(start: usize, flowCount: u32): usize {
  slotsAt = createPrototype(start, flowCount);
  return slotsAt + <usize>flowCount * 4;
}

/** Sends the generator's replies where the flows' slots say. */
function redirect(count: u32): void {
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
    const isReply = load<u8>(descriptor, FRAME_PORT);
    const server = bswap<u32>(load<u32>(frame, 26)) - SERVER_BASE;
    const port = <u32>bswap<u16>(load<u16>(frame, 36)) - 1024;
    const flow = select<u32>(server * PORTS_PER_SERVER + port, 0, isReply);
    const nat = natOf(load<u32>(slotsAt + ((<usize>flow) << 2)));
    store<u32>(frame, select<u32>(<u32>nat, load<u32>(frame, 30), isReply), 30);
    store<u16>(frame, <u16>select<u32>(<u32>(nat >> 32), load<u16>(frame, 36), isReply), 36);
  }
}

/** As `generate`, for the prototype: modes 0 (established) and 1 (new flows in order). */
export function prototypeGenerate(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  first: u32,
  flowCount: u32,
): void {
  generate(arena, stride, count, mode, first, flowCount, 64);
  redirect(count);
}

/** Generates and processes `batches` batches; `isProcessed` 0 measures the generator alone. */
export function prototypeRun(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  flowCount: u32,
  batches: u32,
  isProcessed: u32,
): void {
  for (let batch: u32 = 0; batch < batches; batch++) {
    const first = mode == 1 ? batch * count : 0;
    prototypeGenerate(arena, stride, count, mode, first, flowCount);
    if (isProcessed) prototypeBatch(count);
    if (mode != 1) continue;
    for (let index: u32 = 0; index < count && first + index < flowCount; index++) {
      const handle = load<u32>(frames + <usize>(index * FRAME_BYTES), FRAME_FLOW);
      store<u32>(slotsAt + ((<usize>(first + index)) << 2), handle - 1);
    }
  }
}
