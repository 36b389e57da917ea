/** Parts of the engine that tests look at one by one: compiled with it to build/internals.wasm. */
export { deltaOf, fold, inverse, sumOf, updated, updatedUdp } from "../../assembly/checksum";
export { hashTuple, seedHash } from "../../assembly/hash";
export { crc32c, crc32cOfChange, crc32cOfTuple } from "../../assembly/pp2/crc32c";

/** Bytes that tests write to. */
export const scratch: usize = memory.data(16384, 64);
