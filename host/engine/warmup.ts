/**
 * Warm-up: V8 compiles WebAssembly twice, quickly at first and well after some thousand calls of a
 * function. Flows that begin, live and end over a tiny table make the second compiler finish before
 * the first real frame, so speed is steady from there on. The tables are laid out anew afterwards:
 * nothing of the warm-up remains.
 */
import type { EngineOptions } from "./api.ts";
import type { Engine } from "./engine.ts";
import type { EngineExports } from "./module.ts";

const BATCH = 128;
const ROUNDS = 400;
/** Of each round: the first batch makes flows, the others belong to them. */
const ROUND_BATCHES = 4;
const FRAME_STRIDE = 192;
/** Where the flags of TCP stand in a frame, and what they are. */
const FLAGS = 47;
const SYN = 2;
const ACK = 16;
/** Later than any flow lives. */
const FOREVER_MS = 0x40000000;

/** Ethernet and IP headers of a frame with the given protocol and flow number. */
function writeFrame(frame: Uint8Array, isIpv6: boolean, protocol: number, flow: number): void {
  frame.fill(0);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  view.setUint16(12, isIpv6 ? 0x86dd : 0x0800);
  view.setUint8(14, isIpv6 ? 0x60 : 0x45);
  if (isIpv6) {
    view.setUint16(18, 40);
    view.setUint8(20, protocol);
    view.setUint16(36, flow);
    view.setUint16(52, 1);
  } else {
    view.setUint16(16, 60);
    view.setUint8(23, protocol);
    view.setUint32(26, 0x0a000000 + flow);
    view.setUint32(30, 0x0a800001);
  }
  const transport = isIpv6 ? 54 : 34;
  view.setUint16(transport, 1024 + flow);
  view.setUint16(transport + 2, 443);
  // The header of TCP has twenty bytes; to UDP it is payload.
  view.setUint8(transport + 12, 0x50);
}

/** Runs the batches; `makeEngine` lays a small engine out over the same exports. */
export function warmUp(
  exports: EngineExports,
  makeEngine: (options: EngineOptions) => Engine,
): void {
  const engine = makeEngine({
    flowCountMax: 256,
    flow6CountMax: 256,
    arenaBytes: 1 << 16,
    tablesBytes: 1 << 20,
    seed: new Uint8Array(16),
  });
  const targets = [{ address: "10.1.0.1" }, { address: "fd00::1" }];
  engine.setService(0, { sourceAddresses: ["10.2.0.1", "fd00::2"], targets, adopt: true });
  engine.setPort(0, { service: 0, peer: 1 });
  engine.setPort(1, { sides: "service", peer: 0 });
  const arena = engine.bytes.subarray(
    engine.arena.address,
    engine.arena.address + BATCH * FRAME_STRIDE,
  );
  for (let index = 0; index < BATCH; index++) {
    const start = index * FRAME_STRIDE;
    const protocol = index % 4 === 3 ? 17 : 6;
    writeFrame(arena.subarray(start, start + 128), index % 8 === 7, protocol, index);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (let batch = 0; batch < ROUND_BATCHES; batch++) {
      // Every other round flows begin in mid-stream, as in captures.
      const flags = batch === 0 && round % 2 === 0 ? SYN : ACK;
      for (let index = 0; index < BATCH; index++) {
        const word = index * 8;
        if (index % 4 !== 3) arena[index * FRAME_STRIDE + FLAGS] = flags;
        engine.descriptors[word] = engine.arena.address + index * FRAME_STRIDE;
        engine.descriptors[word + 1] = 94;
        engine.descriptors[word + 2] = round;
        // After an odd number of passes the frames carry service-side tuples.
        engine.descriptors[word + 3] = batch % 2;
      }
      engine.process(BATCH);
    }
    exports.expire(FOREVER_MS, 0, exports.groupCount());
  }
  const { forward } = engine.counters().verdicts;
  const asked = ROUNDS * ROUND_BATCHES * BATCH;
  if (forward !== asked) throw new Error(`warm-up: ${asked - forward} frames did not pass`);
}
