/**
 * The life of a lab: `raise` makes namespaces, devices and the data plane of a plan, `stop` and
 * `remove` take everything away again. Whatever fails half-way leaves nothing behind, and what a
 * killed lab has left is removed by the next one of its name.
 *
 * A lab touches only namespaces that it made itself: no route, rule, address or interface of the
 * machine's own network.
 */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { FlowplaneError } from "../errors.ts";
import {
  addNamespace,
  namespaceExists,
  namespaceFile,
  removeNamespace,
  setUpInterface,
} from "../io/namespaces.ts";
import { steerAll } from "../io/steering.ts";
import { loadSyscalls, type Syscalls } from "../io/syscalls.ts";
import { type Offload, openTun } from "../io/tun.ts";
import type { LoopDevice } from "./carrier.ts";
import { Fleet } from "./fleet.ts";
import type { LabPlan } from "./plan.ts";
import { DataPlane, type Plane, type PlaneStart } from "./plane.ts";
import {
  claimState,
  isRunning,
  type LabState,
  readState,
  removeState,
  STATE_FOLDER,
  startTicksOf,
} from "./state.ts";
import { beginCapture } from "./tap.ts";

/** Name of the interface inside each host's namespace. */
const DEVICE = "fp0";

export interface Lab {
  plan: LabPlan;
  plane: Plane;
  /** What the devices were granted. */
  offload: Offload;
  state: LabState;
  /** Stops the data plane and removes everything. May be called more than once. */
  stop(): Promise<void>;
}

export interface RaiseOptions {
  /** Configuration file, for the state. */
  file?: string;
  hints?: string[];
  stateFolder?: string;
}

/** @throws FlowplaneError saying why a lab cannot be made here; nothing has been made then */
export async function checkMachine(): Promise<Syscalls> {
  const system = await loadSyscalls();
  if (process.getuid?.() !== 0) {
    throw new FlowplaneError("lab: needs root, for network namespaces and TUN devices");
  }
  if (!existsSync("/dev/net/tun")) {
    throw new FlowplaneError("lab: /dev/net/tun is missing (modprobe tun makes it)");
  }
  return system;
}

/** Makes a lab and starts it. @throws FlowplaneError; everything made is removed again then */
export async function raise(plan: LabPlan, options: RaiseOptions = {}): Promise<Lab> {
  const { file = "", hints = [], stateFolder = STATE_FOLDER } = options;
  const system = await checkMachine();
  await clearAway(plan.name, stateFolder);
  const namespaces = plan.hosts.map(({ namespace }) => namespace);
  const taken = namespaces.find(namespaceExists);
  if (taken !== undefined) {
    const advice = "another lab or program has it; lab.prefix gives this lab names of its own";
    throw new FlowplaneError(`lab ${plan.name}: namespace ${taken} exists: ${advice}`);
  }
  const state = {
    name: plan.name,
    file,
    pid: process.pid,
    startTicks: startTicksOf(process.pid) ?? "",
    startedAt: new Date().toISOString(),
    namespaces,
    hosts: plan.hosts.map(({ namespace, addresses }) => ({ namespace, addresses })),
    hints,
  };
  claimState(state, stateFolder);
  try {
    return await make(plan, system, readState(plan.name, stateFolder) as LabState, stateFolder);
  } catch (error) {
    await removeLeftovers(state.name, namespaces, stateFolder);
    throw error;
  }
}

async function make(
  plan: LabPlan,
  system: Syscalls,
  state: LabState,
  stateFolder: string,
): Promise<Lab> {
  const queueCount = plan.nodes?.count ?? plan.workers;
  const queues: LoopDevice[][] = Array.from({ length: queueCount }, () => []);
  const close = () => {
    for (const { fd } of queues.flat()) system.close(fd);
    for (const queue of queues) queue.length = 0;
  };
  let plane: Plane | undefined;
  try {
    await Promise.all(plan.hosts.map(({ namespace }) => addNamespace(namespace)));
    const offload = openDevices(plan, system, queues);
    await Promise.all(
      plan.hosts.map(({ namespace, addresses, mtu }) =>
        setUpInterface(namespace, { device: DEVICE, addresses, mtu }),
      ),
    );
    plane = await startPlane(plan, queues, offload);
    const running = plane;
    let stopped: Promise<void> | undefined;
    const stop = async () => {
      await running.stop();
      close();
      await removeLeftovers(state.name, state.namespaces, stateFolder);
    };
    return { plan, plane, offload, state, stop: () => (stopped ??= stop()) };
  } catch (error) {
    await plane?.stop();
    close();
    throw error;
  }
}

/** Opens every host's device, one queue for each worker or node; returns what all of them were granted. */
function openDevices(plan: LabPlan, system: Syscalls, queues: LoopDevice[][]): Offload {
  let offload = plan.offload;
  for (const { namespace, port } of plan.hosts) {
    for (const queue of queues) {
      const tun = openTun(system, {
        name: DEVICE,
        namespace: namespaceFile(namespace),
        offload,
        isMultiQueue: queues.length > 1,
      });
      offload = tun.offload;
      queue.push({ name: `${namespace}/${DEVICE}`, fd: tun.fd, port });
    }
  }
  if (plan.workers > 1) steerAll(system, queues[0] ?? []);
  return offload;
}

function startPlane(plan: LabPlan, queues: LoopDevice[][], offload: Offload): Promise<Plane> {
  if (plan.captureFile !== undefined) {
    beginCapture(plan.captureFile, queues[0]?.map(({ name }) => name) ?? []);
  }
  const addresses = plan.hosts.flatMap(({ port, addresses: own }, device) =>
    own.map((address) => ({ port, address, device })),
  );
  const options: PlaneStart = {
    queues,
    originMs: Date.now() - 1000,
    flowCountMax: plan.flowCountMax,
    flow6CountMax: plan.flow6CountMax,
    networkBytes: plan.networkBytes,
    ...(plan.room && { room: plan.room }),
    proxyProtocol: plan.proxyProtocol,
    seed: crypto.getRandomValues(new Uint8Array(16)),
    timeouts: plan.timeouts as Record<string, number>,
    ports: plan.ports.map((port) => ({ ...port, link: "raw", vnetHeader: true })),
    services: plan.services,
    addresses,
    io: plan.io,
    priority: queues.length < availableParallelism() ? plan.priority : "normal",
    merges: plan.mergesDatagrams && offload === "udp",
    spinMs: plan.spinMs,
    busyPollMs: plan.busyPollMs,
    captureFile: plan.captureFile,
  };
  if (plan.nodes === undefined) return DataPlane.start(options);
  const { perResource, ttlMs, redis } = plan.nodes;
  const places = plan.hosts.map(({ port, addresses: own }) => {
    return { vpc: plan.ports[port]?.vpc ?? 0, addresses: own };
  });
  // Decisions of an earlier lab of this name are of no use: its clock was another.
  const prefix = `flowplane:${plan.name}:${options.originMs}:`;
  return Fleet.start({
    ...options,
    perResource,
    ttlMs,
    redis: redis && { prefix, ...redis },
    places,
  });
}

/** Removes what a killed lab of this name has left. @throws FlowplaneError when it is up */
async function clearAway(name: string, stateFolder: string): Promise<void> {
  const state = readState(name, stateFolder);
  if (state === undefined) return;
  if (isRunning(state)) {
    throw new FlowplaneError(`lab ${name}: is up already (process ${state.pid}); lab down ends it`);
  }
  await removeLeftovers(name, state.namespaces, stateFolder);
}

/** Removes a lab's namespaces, then its state, which names them. */
async function removeLeftovers(
  name: string,
  namespaces: readonly string[],
  stateFolder: string,
): Promise<void> {
  const removed = await Promise.allSettled(namespaces.map(removeNamespace));
  const failure = removed.find((one) => one.status === "rejected");
  if (failure) throw failure.reason;
  removeState(name, stateFolder);
}

const STOP_MS_MAX = 10_000;
const STOP_STEP_MS = 20;

/**
 * Ends a lab that another process runs, and removes whatever is left of it.
 * @returns false when there was none
 */
export async function takeDown(name: string, stateFolder = STATE_FOLDER): Promise<boolean> {
  const state = readState(name, stateFolder);
  if (state === undefined) return false;
  if (isRunning(state)) process.kill(state.pid, "SIGTERM");
  for (let waitedMs = 0; isRunning(state); waitedMs += STOP_STEP_MS) {
    if (waitedMs >= STOP_MS_MAX) process.kill(state.pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, STOP_STEP_MS));
  }
  await removeLeftovers(name, state.namespaces, stateFolder);
  return true;
}
