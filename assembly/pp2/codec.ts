/**
 * The codec for the host: one header at a time in a buffer of the module's own. The host writes
 * addresses and values where these functions say that they belong; everything else about a header
 * is decided here.
 */
import { PP2_BUFFER_BYTES, PP2_HEADER_BYTES_MAX, PP2_RESULT_BYTES } from "../abi";
import { appendTlv, beginHeader, decodeHeader, finishHeader, seal } from "./header";

const buffer: usize = memory.data(<i32>PP2_BUFFER_BYTES, 64);
const outcome: usize = memory.data(<i32>PP2_RESULT_BYTES, 64);
const TYPE_CRC32C: u32 = 3;
let length: u32 = 0;
let crcAt: u32 = 0;

/** Where a header to read belongs, and where a written one begins. */
export function pp2Buffer(): usize {
  return buffer;
}

/** Where `pp2Decode` leaves what it has read (PP2_*). */
export function pp2Result(): usize {
  return outcome;
}

/** Begins a header whose `addressBytes` bytes of addresses and ports belong at byte 16. */
export function pp2Begin(isProxy: u32, family: u32, addressBytes: u32, hasCrc: u32): void {
  length = beginHeader(buffer, isProxy != 0, family, addressBytes);
  crcAt = 0;
  if (hasCrc == 0) return;
  crcAt = length + 3;
  length = appendTlv(buffer, length, TYPE_CRC32C, 4);
}

/** Adds a TLV; returns the address of its `bytes` bytes of value, or 0 when there is no room. */
export function pp2Append(type: u32, bytes: u32): usize {
  const after = appendTlv(buffer, length, type, bytes);
  if (after == 0) return 0;
  length = after;
  return buffer + <usize>(after - bytes);
}

/** Pads the header to `padTo` bytes, writes length and CRC32C; returns the header's bytes. */
export function pp2Finish(padTo: u32): u32 {
  length = finishHeader(buffer, length, padTo);
  if (crcAt != 0) seal(buffer, length, crcAt);
  return length;
}

/** Writes the CRC32C of the header of `bytes` bytes in the buffer, whose value lies at byte `at`. */
export function pp2Seal(bytes: u32, at: u32): void {
  assert(bytes <= PP2_HEADER_BYTES_MAX && at + 4 <= bytes, "pp2: a CRC32C outside its header");
  seal(buffer, bytes, at);
}

/** Reads the header in the first `bytes` bytes of the buffer. Returns PP2_STATUS_*. */
export function pp2Decode(bytes: u32): u32 {
  assert(bytes <= PP2_BUFFER_BYTES, "pp2: more bytes than the buffer holds");
  return decodeHeader(buffer, bytes, outcome);
}
