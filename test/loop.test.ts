/**
 * The loop of a lab's worker with a call for each frame, against devices that exist in this test
 * alone: what it asks the kernel and when, where traffic is dense.
 */
import { describe, expect, test } from "vitest";
import { raw } from "../fixtures/packets.ts";
import { createEngine } from "../host/engine/engine.ts";
import { TRANSIT_BYTES, Transit } from "../host/engine/transit.ts";
import { EAGAIN, POLLIN, type Syscalls, type Window } from "../host/io/syscalls.ts";
import { CallCarrier } from "../host/lab/call-carrier.ts";
import { Loop } from "../host/lab/loop.ts";
import { Pace } from "../host/lab/pace.ts";

const WAKE_FD = 3;
const FIRST_FD = 10;
const VNET_BYTES = 12;
const FRAME = raw().ipv4("10.0.0.1", "192.0.2.1").udp(5000, 53).payload(100).bytes();
/** So often that traffic is dense with one frame a look. */
const LOOK_MS = 0.02;

/** A kernel with `count` devices, each of which has one frame whenever the loop has waited. */
async function world(count: number) {
  const engine = await createEngine({
    flowCountMax: 64,
    flow6CountMax: 64,
    arenaBytes: TRANSIT_BYTES + 64,
    warmUp: false,
  });
  engine.setService(0, { sourceAddresses: ["203.0.113.1"] });
  engine.setPort(0, { service: 0, link: "raw", vnetHeader: true });
  const calls: string[] = [];
  const left = Array.from({ length: count }, () => 0);
  const state = { nowMs: 0, isWoken: false, gone: -1 };
  const refill = () => {
    state.nowMs += LOOK_MS;
    left.fill(1);
  };
  const system = {
    usleep() {
      calls.push("rest");
      refill();
      return 0;
    },
    poll(set: Int32Array) {
      calls.push("poll");
      refill();
      set[1] = POLLIN | (state.isWoken ? POLLIN << 16 : 0);
      for (let entry = 2; entry < set.length; entry += 2) {
        const isWatched = (set[entry] as number) >= 0;
        set[entry + 1] = POLLIN | (isWatched ? POLLIN << 16 : 0);
      }
      return 1;
    },
  } as unknown as Syscalls;
  const window: Window = {
    read(fd, address) {
      if (fd === WAKE_FD) {
        state.isWoken = false;
        return 8;
      }
      const device = fd - FIRST_FD;
      calls.push(`read ${device}`);
      if (device === state.gone) return -77;
      if (left[device] === 0) return -EAGAIN;
      (left[device] as number)--;
      engine.bytes.fill(0, address, address + VNET_BYTES);
      engine.bytes.set(FRAME, address + VNET_BYTES);
      return FRAME.length + VNET_BYTES;
    },
    write: (_fd, _offset, bytes) => bytes,
  };
  return { engine, calls, state, system, window };
}

type World = Awaited<ReturnType<typeof world>>;

/** A loop over a world; `look` is told of every batch. */
function loopOver({ engine, state, system, window }: World, count: number, look: () => void) {
  const transit = new Transit(engine);
  const devices = Array.from({ length: count }, (_, device) => {
    return { name: `tun${device}`, fd: FIRST_FD + device, port: 0 };
  });
  const waking = { wakeFd: WAKE_FD, scratchAddress: 0 };
  const loop: Loop = new Loop({
    transit,
    devices,
    carrier: new CallCarrier({ transit, devices, ...waking, system, window }),
    clock: () => state.nowMs,
    onWake: () => loop.stop(),
    onGone: () => {},
    onBatch: look,
    pace: new Pace({ spinMs: 0.05, busyPollMs: 0 }),
  });
  return loop;
}

const countOf = (calls: readonly string[], name: string) => {
  return calls.filter((call) => call === name).length;
};

describe("dense traffic", () => {
  test("is read without being asked for, and what wakes the loop is seen all the same", async () => {
    const kernel = await world(2);
    let batches = 0;
    let restsWhenWoken = 0;
    const loop = loopOver(kernel, 2, () => {
      batches += 1;
      if (batches !== 500) return;
      kernel.state.isWoken = true;
      restsWhenWoken = countOf(kernel.calls, "rest");
    });
    loop.run();
    const rests = countOf(kernel.calls, "rest");
    expect(rests).toBeGreaterThan(400);
    expect(countOf(kernel.calls, "poll")).toBeLessThan(rests / 10);
    expect(rests - restsWhenWoken).toBeLessThanOrEqual(16);
    expect(loop.counts.map(({ readFrames }) => readFrames >= 500)).toEqual([true, true]);
  });

  test("of a device that is gone nothing is read any more", async () => {
    const kernel = await world(2);
    let batches = 0;
    const loop = loopOver(kernel, 2, () => {
      batches += 1;
      if (batches === 100) kernel.state.gone = 1;
      if (batches === 300) kernel.state.isWoken = true;
    });
    loop.run();
    expect(loop.counts.map(({ isGone }) => isGone)).toEqual([false, true]);
    const reads = kernel.calls.filter((call) => call.startsWith("read"));
    const last = reads.lastIndexOf("read 1");
    expect(reads.slice(last).filter((call) => call === "read 0").length).toBeGreaterThan(300);
  });

  test("of many devices is asked for after each rest", async () => {
    const kernel = await world(5);
    let batches = 0;
    const loop = loopOver(kernel, 5, () => {
      batches += 1;
      if (batches === 100) kernel.state.isWoken = true;
    });
    loop.run();
    const rests = countOf(kernel.calls, "rest");
    expect(rests).toBeGreaterThan(80);
    expect(countOf(kernel.calls, "poll")).toBeGreaterThanOrEqual(rests);
  });
});
