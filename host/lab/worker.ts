/** The thread of one worker of the data plane: makes its engine and runs the loop. */
import { performance } from "node:perf_hooks";
import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { Flow, TerminatedFlows } from "../engine/api.ts";
import { decidedAfter, type SideName } from "../engine/decision.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import type { PackedTables } from "../engine/packer.ts";
import { Transit, transitBytes } from "../engine/transit.ts";
import { hugePages } from "../io/pages.ts";
import { loadSyscalls } from "../io/syscalls.ts";
import { RING_BYTES, Ring } from "../io/uring.ts";
import { Asking } from "./asking.ts";
import { CallCarrier } from "./call-carrier.ts";
import type { Carrier } from "./carrier.ts";
import { Loop } from "./loop.ts";
import type { Message, Request, ThreadApi, WorkerStart } from "./messages.ts";
import { Pace } from "./pace.ts";
import { RING_DEVICES_MAX, RingCarrier } from "./ring-carrier.ts";
import { CAPTURE_BYTES, CaptureTap } from "./tap.ts";

const SCRATCH_BYTES = 64;
/** How much later than asked for the kernel may end a rest; its default is 50 us. */
const TIMER_SLACK_NANOS = 1;
/** Flows that are looked at in one step when all of them are told, and that are read in one. */
const PART_FLOWS = 256;
const STEP_FLOWS = 16;
const SIDES = {
  client: ["client"],
  service: ["service"],
  both: ["client", "service"],
} as const satisfies Record<string, readonly SideName[]>;

const { start, port } = workerData as { start: WorkerStart; port: MessagePort };
const say = (message: Message) => port.postMessage(message);

const system = await loadSyscalls();
/** Of the slots of frames, with one for each device whose next frame a ring waits for. */
const slotBytes = transitBytes(Math.min(start.devices.length, RING_DEVICES_MAX));
const engine = await createEngine({
  prepareMemory: (await hugePages()).prepare,
  // A first touch takes the kernel longer than a thousand packets take the engine.
  touchTables: true,
  flowCountMax: start.flowCountMax,
  flow6CountMax: start.flow6CountMax,
  networkBytes: start.networkBytes,
  proxyProtocol: start.proxyProtocol,
  seed: start.seed,
  timeouts: start.timeouts,
  arenaBytes: slotBytes + SCRATCH_BYTES + RING_BYTES + (start.captureFile ? CAPTURE_BYTES : 0),
});
/** What lies in the arena behind the slots of frames. */
const scratch = engine.arena.address + slotBytes;
const areas = {
  scratch,
  ring: scratch + SCRATCH_BYTES,
  capture: scratch + SCRATCH_BYTES + RING_BYTES,
};
const transit = new Transit(engine);
transit.merges = start.merges;
const beginMs = performance.timeOrigin - start.originMs;
system.setTimerSlack(TIMER_SLACK_NANOS);
// Where it is refused the lab goes on all the same, and says so (`priority`).
if (start.priority === "realtime") system.setRealTime();
const clock = () => beginMs + performance.now();

const tap =
  start.captureFile === undefined
    ? undefined
    : new CaptureTap(engine, start.captureFile, areas.capture, (reason) =>
        say({ id: 0, event: "capture-ended", reason }),
      );
const carrier = carrierOf(start.io);
const loop = new Loop({
  transit,
  carrier,
  devices: start.devices,
  clock,
  onWake: answerAll,
  onGone: ({ name }) => say({ id: 0, event: "gone", device: name }),
  onBatch: (count) => asking?.collect(count),
  pace: new Pace(start),
});
const asking = askingOf(start.undecidedMax);
const api = workerApi(engine, transit, loop);
const walks = walksOf(engine);
/** What an eventfd is written with: one, as eight bytes. */
const COUNT = new Uint8Array(new BigUint64Array([1n]).buffer);
const self = system.window(COUNT);
let walk: Walk | undefined;
start.services.forEach((options, service) => {
  engine.setService(service, options);
});
start.ports.forEach((options, number) => {
  engine.setPort(number, options);
});
for (const { port: number, address, device } of start.addresses) {
  transit.placeAddress(number, address, device);
}
say({ id: 0, event: "ready", network: engine.networkRegion });
loop.run();
carrier.close();
tap?.close();
port.close();

/** What carries the frames: a ring if that is wanted and there is one, or else calls. */
function carrierOf(io: WorkerStart["io"]): Carrier {
  const { devices, wakeFd } = start;
  const options = { transit, devices, wakeFd, scratchAddress: areas.scratch, tap };
  const mayRing = io === "ring" && devices.length <= RING_DEVICES_MAX;
  const device = devices[0]?.fd;
  const ring =
    mayRing && device !== undefined
      ? Ring.open(system, engine.bytes, areas.ring, device)
      : undefined;
  if (ring !== undefined) return new RingCarrier({ ...options, ring });
  return new CallCarrier({ ...options, system, window: system.window(engine.bytes) });
}

/** What lets frames wait for decisions, where this is the worker of a node. */
function askingOf(undecidedMax: number | undefined): Asking | undefined {
  if (undecidedMax === undefined) return undefined;
  return new Asking({
    engine,
    transit,
    queueMax: undecidedMax,
    sidesOf: (number) => SIDES[start.ports[number]?.sides ?? "client"],
    clock,
    ask: (questions, nowMs) => say({ id: 0, event: "ask", questions, nowMs }),
    rerun: (frames) => loop.rerun(frames),
  });
}

/** What looks through a table or fills one, and the request that it came with. */
interface Walk {
  id: number;
  steps: Generator<void, unknown, void>;
}

/** Requests that take longer than packets may wait. */
function walksOf(of: Engine) {
  return {
    loadTables: (packed: PackedTables) => of.loadTables(packed),
    terminate: (flows: TerminatedFlows) => of.terminating(flows),
    *counters() {
      yield* of.expiring(Math.floor(clock()));
      return of.counters();
    },
    *flows(most: number) {
      yield* of.expiring(Math.floor(clock()));
      const flows: Flow[] = [];
      for (const flow of of.flows().take(most)) {
        flows.push(flow);
        if (flows.length % STEP_FLOWS === 0) yield;
      }
      return { flows, total: of.counters().flows.active };
    },
  };
}

/**
 * Takes requests in order. Walks are taken step by step, one for each round of the loop, so that
 * packets never wait longer than a step takes; what comes behind waits until that is done.
 */
function answerAll(): void {
  for (;;) {
    if (walk !== undefined && !isThrough(walk)) return;
    const received = receiveMessageOnPort(port);
    if (received === undefined) return;
    const { id, method, words } = received.message as Request;
    const ask = { ...api, ...walks }[method] as (...words: unknown[]) => unknown;
    if (method in walks) walk = { id, steps: ask(...words) as Walk["steps"] };
    else answer(id, () => ask(...words));
  }
}

/** Takes one step; if there are more, the next round takes the next. */
function isThrough({ id, steps }: Walk): boolean {
  try {
    const { done, value } = steps.next();
    if (!done) {
      self.write(start.wakeFd, 0, COUNT.length);
      return false;
    }
    say({ id, value });
  } catch (error) {
    say({ id, error: (error as Error).message });
  }
  walk = undefined;
  return true;
}

function answer(id: number, run: () => unknown): void {
  try {
    say({ id, value: run() });
  } catch (error) {
    say({ id, error: (error as Error).message });
  }
}

function workerApi(
  of: Engine,
  through: Transit,
  inside: Loop,
): Omit<ThreadApi, keyof typeof walks> {
  return {
    setService: (service, options) => of.setService(service, options),
    setPort: (number, options) => of.setPort(number, options),
    placeAddress: (number, address, device) => through.placeAddress(number, address, device),
    devices: () => inside.counts,
    usage: (service) => of.usage(service),
    usages: (services) => services.map((service) => of.usage(service)),
    living: (services) => services.filter((service) => of.hasFlows(service)),
    cpu() {
      // Node.js before 23.9 knows only the whole process.
      const { user, system: inKernel } = (process.threadCpuUsage ?? process.cpuUsage)();
      return { userMicros: user, systemMicros: inKernel };
    },
    io: () => (carrier instanceof RingCarrier ? "ring" : "calls"),
    priority: () => (system.isRealTime() ? "realtime" : "normal"),
    answer: (answers) => asking?.answered(answers),
    decisions: () => asking?.counters,
    decided: (after) => decidedAfter(of, after, PART_FLOWS),
    end: (flows) => asking?.end(flows),
    stop: () => inside.stop(),
  };
}
