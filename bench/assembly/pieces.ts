/**
 * The steps of a packet's way, each alone and over many inputs per call, so that the call costs
 * nothing. Inputs are the frames of the current batch, parsed once by `piecesPrepare`.
 */
import { FRAME_BYTES, FRAME_PORT, PORT_BYTES, SIDE_CLIENT, SIDE_SERVICE } from "../../assembly/abi";
import { fold, sumOf, updated } from "../../assembly/checksum";
import { findByClientSide, findByIndex, flowTable } from "../../assembly/flow/table";
import { hashTuple } from "../../assembly/hash";
import { frames, ports } from "../../assembly/memory";
import { Packet, packetAt } from "../../assembly/packet";
import { directionOf, rewriteFast } from "../../assembly/rewrite";
import { parseFrame } from "../../assembly/wire/link";
import { parsePlain } from "../../assembly/wire/plain";

function descriptorAt(index: u32): usize {
  return frames + <usize>(index * FRAME_BYTES);
}

function sideOf(index: u32): u32 {
  return load<u16>(descriptorAt(index), FRAME_PORT) == 0 ? SIDE_CLIENT : SIDE_SERVICE;
}

function lookUp(packet: Packet, side: u32): usize {
  const table = flowTable(packet.isIpv6);
  if (side == SIDE_CLIENT) return findByClientSide(table, packet);
  return findByIndex(table, packet, SIDE_SERVICE);
}

/** Parses and looks up the first `count` frames; returns how many belong to flows. */
export function piecesPrepare(count: u32): u32 {
  let found: u32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    const packet = packetAt(index);
    parseFrame(descriptorAt(index), packet);
    packet.candidate = <u32>lookUp(packet, sideOf(index));
    found += u32(packet.candidate != 0);
  }
  return found;
}

export function piecesParse(count: u32, rounds: u32): void {
  for (let round: u32 = 0; round < rounds; round++) {
    for (let index: u32 = 0; index < count; index++) {
      const packet = packetAt(index);
      const candidate = packet.candidate;
      const descriptor = descriptorAt(index);
      const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
      if (!parsePlain(descriptor, packet, port)) parseFrame(descriptor, packet);
      packet.candidate = candidate;
    }
  }
}

export function piecesHash(count: u32, rounds: u32): u64 {
  let sum: u64 = 0;
  for (let round: u32 = 0; round < rounds; round++) {
    for (let index: u32 = 0; index < count; index++) {
      const packet = packetAt(index);
      sum += hashTuple(packet.addresses + round, packet.rest);
    }
  }
  return sum;
}

export function piecesLookup(count: u32, rounds: u32): u64 {
  let sum: u64 = 0;
  for (let round: u32 = 0; round < rounds; round++) {
    for (let index: u32 = 0; index < count; index++) sum += lookUp(packetAt(index), sideOf(index));
  }
  return sum;
}

/** Rewrites every frame to the other side and back: two rewrites a round, frames as before. */
export function piecesRewrite(count: u32, rounds: u32): void {
  for (let round: u32 = 0; round < rounds; round++) {
    for (let index: u32 = 0; index < count; index++) {
      const packet = packetAt(index);
      const record = <usize>packet.candidate;
      const side = sideOf(index);
      const direction = directionOf(record, side, packet);
      rewriteFast(packet, record, side, direction);
      rewriteFast(packet, record, side ^ 1, direction);
    }
  }
}

/** Folded sums of `rounds` regions of `bytes` bytes, each a little further on. */
export function piecesChecksum(start: usize, bytes: u32, rounds: u32): u32 {
  let sum: u32 = 0;
  for (let round: u32 = 0; round < rounds; round++) {
    sum += fold(sumOf(start + <usize>((round & 15) << 1), bytes));
  }
  return sum;
}

/** A chain of incremental updates, each of the checksum before. */
export function piecesUpdate(count: u32, rounds: u32): u32 {
  let sum: u32 = 0x1234;
  for (let round: u32 = 0; round < rounds; round++) {
    for (let index: u32 = 0; index < count; index++) sum = updated(sum, (index + round) & 0xffff);
  }
  return sum;
}
