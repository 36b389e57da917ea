/** Descriptors that the engine refuses before it has processed anything: which one, and why. */
import * as abi from "../../assembly/abi.ts";
import type { Region } from "./api.ts";

/** What is wrong with the first `count` descriptors (FRAME_*), of which at least one is. */
export function refusedBatch(arena: Region, words: Uint32Array, count: number): RangeError {
  const { address, bytes } = arena;
  const word = (index: number, field: number) =>
    words[(index * abi.FRAME_BYTES + field) / 4] as number;
  for (let index = 0; index < count; index++) {
    const frame = word(index, abi.FRAME_ADDRESS);
    const length = word(index, abi.FRAME_CAPTURED_BYTES);
    const port = word(index, abi.FRAME_PORT) & 0xffff;
    if (frame < address || frame + length > address + bytes) {
      const range = `${address} to ${address + bytes}`;
      return new RangeError(
        `descriptor ${index}: ${length} bytes at ${frame} are not in the arena, ${range}`,
      );
    }
    if (port >= abi.PORT_COUNT_MAX) {
      const range = `a port from 0 to ${abi.PORT_COUNT_MAX - 1}`;
      return new RangeError(`descriptor ${index}: ${port} is not ${range}`);
    }
  }
  return new RangeError(`descriptors: the first ${count} reach beyond the arena`);
}
