/**
 * The twin's rewriting: a copy of the frame in which a packet has another tuple, with every
 * checksum that is captured updated by RFC 1624.
 */
import { readU16, writeU16 } from "../../fixtures/bytes.ts";
import { difference, updated, updatedUdp } from "./checksum.ts";
import { icmpRole, isIcmp, type Parsed, type Tuple } from "./parse.ts";

function bytesOfHex(digits: string): Uint8Array {
  return Uint8Array.from(Buffer.from(digits, "hex"));
}

/** Writes the tuple into the packet, in place. */
export function writeTuple(frame: Uint8Array, parsed: Parsed, tuple: Tuple): void {
  const ends = (t: Tuple) => bytesOfHex(t.source + t.destination);
  const before = parsed.tuple;
  const addressDelta = difference(ends(before), ends(tuple));
  frame.set(bytesOfHex(tuple.source), parsed.sourceAt);
  frame.set(bytesOfHex(tuple.destination), parsed.destinationAt);
  if (parsed.family === 4) update(frame, parsed.network + 10, addressDelta);
  if (parsed.fragment === "later") return;
  const portDelta = writePorts(frame, parsed, tuple);
  const delta = difference(
    bytesOfHex("0000"),
    Uint8Array.of(addressDelta >> 8, addressDelta, portDelta >> 8, portDelta),
  );
  const has = (offset: number) => parsed.transport + offset + 2 <= parsed.capturedEnd;
  const at = (offset: number) => parsed.transport + offset;
  if (parsed.protocol === 6 && has(16)) update(frame, at(16), delta);
  if (parsed.protocol === 17 && has(6)) {
    writeU16(frame, at(6), updatedUdp(readU16(frame, at(6)), delta));
  }
  if ((parsed.protocol === 33 || parsed.protocol === 136) && has(6)) update(frame, at(6), delta);
  if (isIcmp(parsed) && has(2)) update(frame, at(2), parsed.family === 6 ? delta : portDelta);
}

function update(frame: Uint8Array, at: number, delta: number): void {
  writeU16(frame, at, updated(readU16(frame, at), delta));
}

/** Ports, or the identifier of an ICMP query; returns how the sum over them changes. */
function writePorts(frame: Uint8Array, parsed: Parsed, tuple: Tuple): number {
  const at = parsed.transport;
  if (parsed.protocol === 6 || parsed.protocol === 17) {
    const before = frame.slice(at, at + 4);
    writeU16(frame, at, tuple.sourcePort);
    writeU16(frame, at + 2, tuple.destinationPort);
    return difference(before, frame.subarray(at, at + 4));
  }
  if (!isIcmp(parsed)) return 0;
  const role = icmpRole(parsed.family, frame[at] ?? 0);
  if (role !== "request" && role !== "reply") return 0;
  const before = frame.slice(at + 4, at + 6);
  writeU16(frame, at + 4, role === "request" ? tuple.sourcePort : tuple.destinationPort);
  return difference(before, frame.subarray(at + 4, at + 6));
}

/** Writes one outer address of an ICMP error; returns nothing, sums are taken by the caller. */
export function writeAddress(frame: Uint8Array, at: number, digits: string): void {
  frame.set(bytesOfHex(digits), at);
}

/** Updates the checksums of an ICMP error whose quote and outer addresses have changed. */
export function updateError(before: Uint8Array, after: Uint8Array, outer: Parsed): void {
  const width = outer.family === 4 ? 4 : 16;
  const ends = (frame: Uint8Array) =>
    Uint8Array.of(
      ...frame.subarray(outer.sourceAt, outer.sourceAt + width),
      ...frame.subarray(outer.destinationAt, outer.destinationAt + width),
    );
  const quote = (frame: Uint8Array) => frame.subarray(outer.transport + 8, outer.capturedEnd);
  const message = (frame: Uint8Array) =>
    outer.family === 4 ? quote(frame) : Uint8Array.of(...ends(frame), ...quote(frame));
  if (outer.family === 4) update(after, outer.network + 10, difference(ends(before), ends(after)));
  update(after, outer.transport + 2, difference(message(before), message(after)));
}
