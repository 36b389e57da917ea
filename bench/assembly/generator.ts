/**
 * Synthetic traffic, made in the engine's own memory so that it costs little and adds no copies.
 * Compiled together with the engine to build/bench.wasm; never part of the product.
 *
 * Connection i goes from 10.0.0.0/8 to a server of 8.0.0.0/8 with a source port that is free
 * towards that server, so source NAT over one address keeps it and the service-side tuple of every
 * connection is known here: both directions can be generated without asking the engine.
 */
import {
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_PORT,
  FRAME_TIME_MS,
  FRAME_VERDICT,
  FRAME_WIRE_BYTES,
} from "../../assembly/abi";
import { frames } from "../../assembly/memory";

const PORTS_PER_SERVER: u32 = 60000;
const SERVER_PORT_BE: u32 = 0xbb01;
const NAT_ADDRESS_BE: u32 = 0x017100cb;

let state: u64 = 0x9e3779b97f4a7c15;
let nowMs: u32 = 0;
let sinceMs: u32 = 0;

/** Starts the random sequence anew. */
export function generatorSeed(seed: u32): void {
  state = (<u64>seed + 1) * 0x9e3779b97f4a7c15;
}

function random(): u64 {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/** Writes a 64-byte frame of connection `flow`; `isReply` sends it from the server's side. */
function writeFrame(frame: usize, flow: u32, isReply: u32, flags: u32): void {
  const server = flow / PORTS_PER_SERVER;
  const port = 1024 + (flow - server * PORTS_PER_SERVER);
  const portBe = <u32>bswap<u16>(<u16>port);
  const clientBe = bswap<u32>(0x0a000000 + (flow & 0xffffff));
  const serverBe = bswap<u32>(0x08000000 + server);
  const isUdp = (flow & 7) == 7;
  store<u64>(frame, 0x0202020202020202);
  store<u64>(frame, 0x0045000802020202, 8);
  store<u64>(frame, 0x0040004000003200, 16);
  store<u16>(frame, isUdp ? 0x1140 : 0x0640, 22);
  store<u16>(frame, 0x1234, 24);
  const forward = <u64>clientBe | ((<u64>serverBe) << 32);
  const reply = <u64>serverBe | ((<u64>NAT_ADDRESS_BE) << 32);
  store<u64>(frame, select<u64>(reply, forward, isReply), 26);
  const ports = portBe | (SERVER_PORT_BE << 16);
  store<u32>(frame, select<u32>(rotl<u32>(ports, 16), ports, isReply), 34);
  store<u64>(frame, isUdp ? 0x0000000077771e00 : 0x0000000100000001, 38);
  store<u32>(frame, 0x00040050 | (flags << 8), 46);
  store<u32>(frame, 0x00004321, 50);
}

/**
 * Fills `count` descriptors and frames. `mode`: 0 established, random flow and direction; 1 new
 * flows in order from `first`, SYN; 2 one constant flow. `captured` bytes are claimed per frame.
 */
export function generate(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  first: u32,
  flowCount: u32,
  captured: u32,
): void {
  for (let index: u32 = 0; index < count; index++) {
    const frame = arena + <usize>(index * stride);
    const draw = random();
    const isNew = mode == 1;
    let flow = <u32>(((draw >> 32) * <u64>flowCount) >> 32);
    flow = isNew ? first + index : mode == 2 ? first : flow;
    const isReply = isNew ? 0 : <u32>(draw >> 7) & 1;
    writeFrame(frame, flow, isReply, isNew ? 0x02 : 0x10);
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    if (++sinceMs == 30000) {
      sinceMs = 0;
      nowMs++;
    }
    store<u32>(descriptor, <u32>frame, FRAME_ADDRESS);
    store<u32>(descriptor, captured, FRAME_CAPTURED_BYTES);
    store<u32>(descriptor, captured, FRAME_WIRE_BYTES);
    store<u32>(descriptor, nowMs, FRAME_TIME_MS);
    store<u32>(descriptor, isReply, FRAME_PORT);
    store<u32>(descriptor, 0xffff, FRAME_VERDICT);
    store<u32>(descriptor, 0, FRAME_FLOW);
  }
}

/** Generates and processes `batches` batches; `isProcessed` 0 measures the generator alone. */
export function runBatches(
  arena: usize,
  stride: u32,
  count: u32,
  mode: u32,
  first: u32,
  flowCount: u32,
  captured: u32,
  batches: u32,
  isProcessed: u32,
): u32 {
  let at = first;
  for (let batch: u32 = 0; batch < batches; batch++) {
    generate(arena, stride, count, mode, at, flowCount, captured);
    if (isProcessed) processBatch(count);
    if (mode == 1) at += count;
  }
  return at;
}

import { processBatch } from "../../assembly/batch";
