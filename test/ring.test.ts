/**
 * Rings: against the kernel with eventfds, and what a lab's carrier does with one against a kernel that
 * exists in this test alone, where frames come while it waits and in between.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createEngine } from "../host/engine/engine.ts";
import { SLOT_COUNT, Transit, transitBytes } from "../host/engine/transit.ts";
import { EAGAIN, loadSyscalls, O_RDWR } from "../host/io/syscalls.ts";
import { RING_BYTES, RING_COUNT, Ring } from "../host/io/uring.ts";
import { EVENT_BYTES } from "../host/lab/carrier.ts";
import { RingCarrier } from "../host/lab/ring-carrier.ts";

const WAKE_FD = 3;
const FIRST_FD = 10;
const VNET_BYTES = 12;

describe("a ring of the kernel", () => {
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 2 }).buffer);
  const ROOM = 4000;
  const [FROM, TO, LATE] = [100, 108, 116];

  test("carries requests out in their order, and a patient read once there is something", async ({
    skip,
  }) => {
    const system = await loadSyscalls();
    const [now, late] = [system.eventfd(), system.eventfd()];
    const ring = Ring.open(system, memory, ROOM, now);
    if (ring === undefined) return skip("this kernel has no such ring");
    const told: [number, number][] = [];
    const tell = (tag: number, result: number) => told.push([tag, result]);
    const numberAt = (at: number) => new DataView(memory.buffer).getBigUint64(at, true);
    const put = (at: number, value: bigint) => {
      new DataView(memory.buffer).setBigUint64(at, value, true);
    };
    put(FROM, 7n);
    ring.read(late, LATE, EVENT_BYTES, 1, true);
    ring.read(now, TO, EVENT_BYTES, 2, false);
    ring.write(now, FROM, EVENT_BYTES, 3);
    // Where the write before it has written from.
    ring.read(now, FROM, EVENT_BYTES, 4, false);
    ring.submit(3, tell);
    expect(told).toEqual([
      [2, -EAGAIN],
      [3, 8],
      [4, 8],
    ]);
    expect(numberAt(FROM)).toBe(7n);
    told.length = 0;
    put(FROM, 9n);
    ring.write(late, FROM, EVENT_BYTES, 5);
    ring.submit(2, tell);
    expect(told).toEqual([
      [5, 8],
      [1, 8],
    ]);
    expect(numberAt(LATE)).toBe(9n);
    for (const fd of [now, late]) system.close(fd);
    ring.close();
  });

  test("is not there for what cannot be told not to wait", async () => {
    const system = await loadSyscalls();
    const fd = system.open("/proc/self/comm", O_RDWR);
    expect(fd).toBeGreaterThan(0);
    expect(Ring.open(system, memory, ROOM, fd)).toBeUndefined();
    system.close(fd);
  });

  test("refuses what is not within its memory, and more than it has room for", async ({ skip }) => {
    const system = await loadSyscalls();
    const fd = system.eventfd();
    const ring = Ring.open(system, memory, ROOM, fd);
    if (ring === undefined) return skip("this kernel has no such ring");
    const { length } = memory;
    for (const [offset, bytes] of [
      [-1, 8],
      [length - 7, 8],
      [0, length + 1],
      [Number.NaN, 8],
    ] as const) {
      expect(() => ring.read(fd, offset, bytes, 0, false)).toThrow(RangeError);
      expect(() => ring.write(fd, offset, bytes, 0)).toThrow(RangeError);
    }
    for (let count = 0; count < RING_COUNT; count++) ring.read(fd, TO, EVENT_BYTES, 0, false);
    expect(() => ring.read(fd, TO, EVENT_BYTES, 0, false)).toThrow("no room for more than 128");
    let told = 0;
    ring.submit(RING_COUNT, (_, result) => {
      expect(result).toBe(-EAGAIN);
      told++;
    });
    expect(told).toBe(RING_COUNT);
    expect(RING_BYTES).toBeLessThan(length - ROOM);
    system.close(fd);
    ring.close();
  });
});

interface Request {
  kind: "read" | "write";
  device: number;
  at: number;
  tag: number;
  isPatient: boolean;
}

/** A kernel whose devices have numbered frames; what is written is what stands in memory at that moment. */
class World {
  readonly bytes: Uint8Array;
  readonly waiting: number[][];
  readonly written: number[][];
  readonly #queue: Request[] = [];
  readonly #patient: Request[] = [];
  #next: number[];
  gone = -1;
  isWoken = false;
  /** How many frames come to each device while a wait lasts that finds none. */
  late: number[] = [];

  constructor(bytes: Uint8Array, devices: number) {
    this.bytes = bytes;
    this.waiting = Array.from({ length: devices }, () => []);
    this.written = Array.from({ length: devices }, () => []);
    this.#next = Array.from({ length: devices }, () => 0);
  }

  arrive(device: number, count: number): void {
    for (let left = count; left > 0; left--) {
      const number = (this.#next[device] as number)++;
      this.waiting[device]?.push(device * 1_000_000 + number);
    }
  }

  get count(): number {
    return this.#queue.length;
  }
  get isFull(): boolean {
    return this.count === RING_COUNT;
  }
  read(fd: number, at: number, _bytes: number, tag: number, isPatient: boolean): void {
    expect(this.isFull).toBe(false);
    this.#queue.push({ kind: "read", device: fd - FIRST_FD, at, tag, isPatient });
  }
  write(fd: number, at: number, _bytes: number, tag: number): void {
    expect(this.isFull).toBe(false);
    this.#queue.push({ kind: "write", device: fd - FIRST_FD, at, tag, isPatient: false });
  }

  submit(least: number, tell: (tag: number, result: number) => void): void {
    const told: [number, number][] = [];
    for (const request of this.#queue.splice(0)) {
      const result = this.#carryOut(request);
      if (result === undefined) this.#patient.push(request);
      else told.push([request.tag, result]);
    }
    if (told.length < least) {
      this.late.forEach((count, device) => {
        this.arrive(device, count);
      });
      this.late = [];
      if (!this.#patient.some((one) => this.#isReady(one))) this.isWoken = true;
    }
    for (const request of this.#patient.splice(0)) {
      const result = this.#isReady(request) ? this.#carryOut(request) : undefined;
      if (result === undefined) this.#patient.push(request);
      else told.push([request.tag, result]);
    }
    expect(told.length).toBeGreaterThanOrEqual(least);
    for (const one of told) tell(...one);
  }

  #isReady({ device }: Request): boolean {
    if (device === WAKE_FD - FIRST_FD) return this.isWoken;
    return device === this.gone || (this.waiting[device]?.length ?? 0) > 0;
  }

  /** Undefined: a patient read of nothing. */
  #carryOut({ kind, device, at, isPatient }: Request): number | undefined {
    const words = new DataView(this.bytes.buffer);
    if (device === WAKE_FD - FIRST_FD) {
      if (!this.isWoken) return undefined;
      this.isWoken = false;
      return EVENT_BYTES;
    }
    if (device === this.gone) return -77;
    if (kind === "write") {
      this.written[device]?.push(words.getUint32(at + VNET_BYTES, true));
      return VNET_BYTES + 4;
    }
    const frame = this.waiting[device]?.shift();
    if (frame === undefined) return isPatient ? undefined : -EAGAIN;
    words.setUint32(at + VNET_BYTES, frame, true);
    return VNET_BYTES + 4;
  }
}

/** A carrier over such a kernel; what it takes leaves through the next device, unchanged. */
async function carrierOver(count: number) {
  const engine = await createEngine({
    flowCountMax: 64,
    flow6CountMax: 64,
    arenaBytes: transitBytes(count),
    warmUp: false,
  });
  const real = new Transit(engine);
  const taken: { device: number; address: number }[] = [];
  const transit = {
    slotAddress: (slot: number) => real.slotAddress(slot),
    take: (address: number, _bytes: number, port: number) => {
      taken.push({ device: port, address });
    },
    deviceOf: (index: number) => ((taken[index]?.device as number) + 1) % count,
    addressOf: (index: number) => taken[index]?.address as number,
    bytesOf: () => VNET_BYTES + 4,
  } as unknown as Transit;
  const devices = Array.from({ length: count }, (_, device) => {
    return { name: `tun${device}`, fd: FIRST_FD + device, port: device };
  });
  const world = new World(engine.bytes, count);
  const carrier = new RingCarrier({
    transit,
    devices,
    wakeFd: WAKE_FD,
    scratchAddress: 0,
    ring: world as unknown as Ring,
  });
  return { world, carrier, taken };
}

const arrivals = fc.array(fc.nat({ max: 40 }), { minLength: 3, maxLength: 3 });
const rounds = fc.array(fc.record({ before: arrivals, during: arrivals, looks: fc.boolean() }), {
  minLength: 1,
  maxLength: 30,
});

describe("a carrier with a ring", () => {
  test("brings every frame once and in its order, whenever it comes, and no slot twice", async () => {
    await fc.assert(
      fc.asyncProperty(rounds, async (all) => {
        const { world, carrier, taken } = await carrierOver(3);
        const came: number[][] = [[], [], []];
        let wakes = 0;
        const round = (pause: "look" | "sleep") => {
          if (carrier.wait(pause)) wakes++;
          carrier.take(1);
          expect(taken.length).toBeLessThanOrEqual(SLOT_COUNT);
          expect(new Set(taken.map(({ address }) => address)).size).toBe(taken.length);
          const words = new DataView(world.bytes.buffer);
          for (const { device, address } of taken) {
            came[device]?.push(words.getUint32(address + VNET_BYTES, true));
          }
          carrier.write(taken.length);
          taken.length = 0;
        };
        for (const { before, during, looks } of all) {
          before.forEach((count, device) => {
            world.arrive(device, count);
          });
          world.late = during;
          round(looks ? "look" : "sleep");
        }
        world.late = [];
        const isLeft = () => world.waiting.some(({ length }) => length > 0);
        for (let most = 1000; most > 0 && isLeft(); most--) round("sleep");
        expect(isLeft()).toBe(false);
        const wakesBefore = wakes;
        round("sleep");
        expect(wakes).toBe(wakesBefore + 1);
        carrier.flush();
        for (const [device, numbers] of came.entries()) {
          expect(numbers).toEqual(numbers.map((_, number) => device * 1_000_000 + number));
          expect(world.written[(device + 1) % 3]).toEqual(numbers);
          expect(carrier.counts[device]?.readFrames).toBe(numbers.length);
          expect(carrier.counts[(device + 1) % 3]?.writtenFrames).toBe(numbers.length);
        }
      }),
      { seed: 7, numRuns: 60 },
    );
  });

  test("does not wait for what came while it only wrote", async () => {
    const { world, carrier, taken } = await carrierOver(2);
    carrier.wait("look");
    carrier.take(1);
    world.arrive(0, 1);
    taken.push({ device: 1, address: 0 });
    carrier.write(1);
    taken.length = 0;
    carrier.flush();
    expect(carrier.wait("sleep")).toBe(false);
    carrier.take(1);
    expect(carrier.counts[0]?.readFrames).toBe(1);
    expect(world.isWoken).toBe(false);
  });

  test("gives a device up that is gone, and says so once", async () => {
    const { world, carrier } = await carrierOver(2);
    const gone: number[] = [];
    carrier.onGone = (device) => gone.push(device);
    world.gone = 1;
    world.arrive(0, 5);
    for (let round = 0; round < 4; round++) {
      carrier.wait("look");
      carrier.take(1);
    }
    expect(gone).toEqual([1]);
    expect(carrier.counts.map(({ isGone }) => isGone)).toEqual([false, true]);
    expect(carrier.counts[0]?.readFrames).toBe(5);
  });
});
