/**
 * Synthetic traffic, made in the engine's own memory so that it costs little and adds no copies.
 * Compiled together with the engine to build/bench.wasm; never part of the product.
 *
 * Connection i goes from 10.0.0.0/8 to a server of 8.0.0.0/8 with a source port that is free
 * towards that server, so source NAT over one address keeps it and the service-side tuple of every
 * connection is known here: both directions can be generated without asking the engine. In IPv6
 * the clients are fd00::i, the servers 2001:db8::i and the NAT address is 2001:db8:ffff::1.
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
import { processBatch } from "../../assembly/batch";
import { digestFrames } from "../../assembly/digest";
import { frames } from "../../assembly/memory";

const PORTS_PER_SERVER: u32 = 60000;
const SERVER_PORT_BE: u32 = 0xbb01;
const NAT_ADDRESS_BE: u32 = 0x017100cb;
const CLIENT6_PREFIX: u64 = 0x00000000000000fd;
const SERVER6_PREFIX: u64 = 0x00000000b80d0120;
const NAT6_PREFIX: u64 = 0x0000ffffb80d0120;
const FRAME6_BYTES_MIN: u32 = 74;

/** IMIX, twelve frames: 7 of 64, 4 of 594 and 1 of 1518 bytes; two bits say which. */
const IMIX_KINDS: u32 = 0b00_01_00_00_01_00_10_00_01_00_01_00;

let isIpv6: bool = false;
let state: u64 = 0x9e3779b97f4a7c15;
let nowMs: u32 = 0;
let sinceMs: u32 = 0;

/** Starts the random sequence anew. */
export function generatorSeed(seed: u32): void {
  state = (<u64>seed + 1) * 0x9e3779b97f4a7c15;
}

/** Makes IPv4 (0) or IPv6 frames from now on. */
export function generatorFamily(isNext6: u32): void {
  isIpv6 = isNext6 != 0;
}

/** Length of a frame drawn from IMIX. */
function imixBytes(draw: u32): u32 {
  const kind = (IMIX_KINDS >> ((((draw & 0xffff) * 12) >> 16) << 1)) & 3;
  return kind == 0 ? 64 : kind == 1 ? 594 : 1518;
}

export function random(): u64 {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/** The headers of a frame of connection `flow`; `isReply` sends it from the server's side. */
export function writeFrame(frame: usize, flow: u32, isReply: u32, flags: u32, bytes: u32): void {
  const server = flow / PORTS_PER_SERVER;
  const port = 1024 + (flow - server * PORTS_PER_SERVER);
  const portBe = <u32>bswap<u16>(<u16>port);
  const clientBe = bswap<u32>(0x0a000000 + (flow & 0xffffff));
  const serverBe = bswap<u32>(0x08000000 + server);
  const isUdp = (flow & 7) == 7;
  store<u64>(frame, 0x0202020202020202);
  store<u64>(frame, 0x0045000802020202, 8);
  store<u64>(frame, 0x0040004000000000, 16);
  store<u16>(frame, bswap<u16>(<u16>(bytes - 14)), 16);
  store<u16>(frame, isUdp ? 0x1140 : 0x0640, 22);
  store<u16>(frame, 0x1234, 24);
  const forward = <u64>clientBe | ((<u64>serverBe) << 32);
  const reply = <u64>serverBe | ((<u64>NAT_ADDRESS_BE) << 32);
  store<u64>(frame, select<u64>(reply, forward, isReply), 26);
  const ports = portBe | (SERVER_PORT_BE << 16);
  store<u32>(frame, select<u32>(rotl<u32>(ports, 16), ports, isReply), 34);
  writeTransport(frame + 34, isUdp, flags, bytes - 34);
}

/** What follows the ports. */
function writeTransport(transport: usize, isUdp: bool, flags: u32, bytes: u32): void {
  const udp = 0x0000000077770000 | <u64>bswap<u16>(<u16>bytes);
  store<u64>(transport, isUdp ? udp : 0x0000000100000001, 4);
  store<u32>(transport, 0x00040050 | (flags << 8), 12);
  store<u32>(transport, 0x00004321, 16);
}

function writeFrame6(frame: usize, flow: u32, isReply: u32, flags: u32, bytes: u32): void {
  const server = flow / PORTS_PER_SERVER;
  const portBe = <u32>bswap<u16>(<u16>(1024 + (flow - server * PORTS_PER_SERVER)));
  const isUdp = (flow & 7) == 7;
  store<u64>(frame, 0x0202020202020202);
  store<u64>(frame, 0x0060dd8602020202, 8);
  store<u32>(frame, 0, 16);
  store<u16>(frame, bswap<u16>(<u16>(bytes - 54)), 18);
  store<u16>(frame, isUdp ? 0x4011 : 0x4006, 20);
  const near = frame + (isReply ? 38 : 22);
  const far = frame + (isReply ? 22 : 38);
  store<u64>(near, isReply ? NAT6_PREFIX : CLIENT6_PREFIX);
  store<u64>(near, bswap<u64>(isReply ? 1 : <u64>flow), 8);
  store<u64>(far, SERVER6_PREFIX);
  store<u64>(far, bswap<u64>(<u64>server), 8);
  const ports = portBe | (SERVER_PORT_BE << 16);
  store<u32>(frame, select<u32>(rotl<u32>(ports, 16), ports, isReply), 54);
  writeTransport(frame + 54, isUdp, flags, bytes - 54);
}

/** Describes frame `index`; the clock goes on by 1 ms each 30,000 frames. */
export function describeFrame(index: u32, frame: usize, bytes: u32, port: u32): void {
  const descriptor = frames + <usize>(index * FRAME_BYTES);
  if (++sinceMs == 30000) {
    sinceMs = 0;
    nowMs++;
  }
  store<u32>(descriptor, <u32>frame, FRAME_ADDRESS);
  store<u32>(descriptor, bytes, FRAME_CAPTURED_BYTES);
  store<u32>(descriptor, bytes, FRAME_WIRE_BYTES);
  store<u32>(descriptor, nowMs, FRAME_TIME_MS);
  store<u32>(descriptor, port, FRAME_PORT);
  store<u32>(descriptor, 0xffff, FRAME_VERDICT);
  store<u32>(descriptor, 0, FRAME_FLOW);
}

/**
 * Fills `count` descriptors and frames. `mode`: 0 established, random flow from `first` on and
 * direction; 1 new flows in order from `first`, SYN; 2 one constant flow; 3 the answers of flows in
 * order. Frames have `captured` bytes, 0 = IMIX: headers are written, what follows them is whatever
 * lies there.
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
    const isAnswer = mode == 3;
    let flow = <u32>(((draw >> 32) * <u64>flowCount) >> 32);
    flow = isNew || isAnswer ? first + index : mode == 2 ? first : first + flow;
    const isReply = isNew ? 0 : isAnswer ? 1 : <u32>(draw >> 7) & 1;
    let bytes = captured == 0 ? imixBytes(<u32>(draw >> 12)) : captured;
    if (isIpv6) {
      bytes = max(bytes, FRAME6_BYTES_MIN);
      writeFrame6(frame, flow, isReply, isNew ? 0x02 : 0x10, bytes);
    } else {
      writeFrame(frame, flow, isReply, isNew ? 0x02 : 0x10, bytes);
    }
    describeFrame(index, frame, bytes, isReply);
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
    if (mode == 1 || mode == 3) at += count;
  }
  return at;
}

/** Generates, processes and digests `batches` batches of established flows. */
export function digestBatches(
  arena: usize,
  stride: u32,
  count: u32,
  flowCount: u32,
  captured: u32,
  batches: u32,
): u64 {
  let digest: u64 = 0;
  for (let batch: u32 = 0; batch < batches; batch++) {
    generate(arena, stride, count, 0, 0, flowCount, captured);
    processBatch(count);
    digest = digestFrames(count, digest);
  }
  return digest;
}

/** Processes the first frames of the batch again and again, as a host would that crosses nothing. */
export function processAgain(count: u32, times: u32): void {
  for (let time: u32 = 0; time < times; time++) processBatch(count);
}
