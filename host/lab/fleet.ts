/**
 * The nodes of a lab: processes with an engine each, which together carry its flows. The kernel is
 * the front (host/io/spreading.ts): every device has a queue for each node, and whoever dies has its
 * share of the flows handed to the others by one write a resource. They find the decisions in the
 * store and go on.
 *
 * This process carries no packet. It opens the queues, which therefore outlive their nodes and keep
 * their numbers; it directs all nodes alike, as `DataPlane` directs workers; it keeps the store,
 * unless that is Redis; and it starts nodes anew that have died, or that do not answer any more,
 * after it has ended those for certain.
 */
import { type ChildProcess, fork } from "node:child_process";
import { FlowplaneError } from "../errors.ts";
import { type HugePages, hugePages } from "../io/pages.ts";
import { Spreading } from "../io/spreading.ts";
import { BUCKET_COUNT } from "../io/steering.ts";
import { loadSyscalls } from "../io/syscalls.ts";
import { renew } from "../nodes/agreement.ts";
import type { RedisStoreOptions } from "../nodes/redis-store.ts";
import { SharedStore } from "../nodes/shared-store.ts";
import { TTL_MS } from "../nodes/store.ts";
import { decide, type Questions } from "../nodes/undecided.ts";
import type { LoopDevice } from "./carrier.ts";
import { Channel, ChannelGone } from "./channel.ts";
import type { Method, WorkerApi } from "./messages.ts";
import type { NodeStart } from "./node.ts";
import { type DevicePlace, Placement } from "./placement.ts";
import type { NodeState, Plane, PlaneStart, Result } from "./plane.ts";

/** Frames of a node that wait until their flow is decided. */
const UNDECIDED_MAX = 4096;
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 5000;
/** A node is asked for a sign of life that often, and is dead when it gives none for so long. */
const LIFE_MS = 500;
const LIFE_MS_MAX = 10_000;
/** A node that has died comes back after this, and after twice as long each time it dies early. */
const RESTART_MS = 1000;
const RESTART_MS_MAX = 60_000;
/** Entries of the store for each flow that a node has room for: two, and some that rest. */
const ENTRIES_PER_FLOW = 4;
const ENTRIES_MAX = 4_000_000;

export interface FleetOptions {
  /** Nodes of each resource. */
  perResource: number;
  /** How long decisions live; default as `StoreTimes`. */
  ttlMs?: number | undefined;
  /** Where decisions are kept; default: in this process. */
  redis?: RedisStoreOptions | undefined;
  /** VPC and addresses of each device, by number. */
  places: readonly DevicePlace[];
}

interface FleetNode {
  readonly number: number;
  readonly devices: LoopDevice[];
  process: ChildProcess | undefined;
  channel: Channel | undefined;
  isUp: boolean;
  restarts: number;
  startedMs: number;
  delayMs: number;
  timer: NodeJS.Timeout | undefined;
}

export class Fleet implements Plane {
  readonly #options: PlaneStart & FleetOptions;
  readonly #nodes: FleetNode[];
  readonly #placement: Placement;
  readonly #store: SharedStore;
  /** Never: nodes that die come back. */
  readonly failed = new Promise<Error>(() => undefined);
  /** Ids of services in the order of their numbers, which all nodes share. */
  readonly #numbering: string[] = [];
  #tables: Parameters<WorkerApi["setTables"]>[0] | undefined;
  #life: NodeJS.Timeout | undefined;
  #isStopping = false;
  onGone: (device: string) => void = () => undefined;
  onCaptureEnded: (reason: string) => void = () => undefined;
  onNode: (node: NodeState) => void = () => undefined;

  private constructor(
    options: PlaneStart & FleetOptions,
    spreading: Spreading,
    prepareMemory: HugePages["prepare"],
  ) {
    this.#options = options;
    this.#nodes = options.queues.map((devices, number) => ({
      number,
      devices,
      process: undefined,
      channel: undefined,
      isUp: false,
      restarts: 0,
      startedMs: 0,
      delayMs: RESTART_MS,
      timer: undefined,
    }));
    const { perResource, places, seed, flowCountMax, flow6CountMax, ttlMs = TTL_MS } = options;
    this.#placement = new Placement(
      spreading,
      { nodes: options.queues.length, perResource, buckets: BUCKET_COUNT, secret: seed },
      places,
    );
    const entries = Math.min(ENTRIES_MAX, ENTRIES_PER_FLOW * (flowCountMax + flow6CountMax));
    this.#store = new SharedStore({
      entries: options.redis ? 128 : entries,
      ttlMs,
      prepareMemory,
    });
  }

  /** Starts all nodes and waits until they run. @throws FlowplaneError */
  static async start(options: PlaneStart & FleetOptions): Promise<Fleet> {
    const spreading = new Spreading(await loadSyscalls());
    const fleet = new Fleet(options, spreading, (await hugePages()).prepare);
    try {
      for (const [number, device] of (options.queues[0] ?? []).entries()) {
        spreading.steer(device, options.places[number]?.vpc ?? 0, number);
      }
      const begun = Promise.all(fleet.#nodes.map((node) => fleet.#begin(node)));
      // While the nodes' processes start.
      fleet.#store.touch();
      await begun;
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    fleet.#life = setInterval(() => fleet.#look(), LIFE_MS);
    return fleet;
  }

  get workerCount(): number {
    return this.#nodes.length;
  }

  get nodes(): NodeState[] {
    return this.#nodes.map((node) => this.#stateOf(node));
  }

  /** Asks the nodes that are up, in their order; one that dies meanwhile is left out. */
  async all<M extends Method>(method: M, ...words: Parameters<WorkerApi[M]>): Promise<Result<M>[]> {
    if (method === "setTables") {
      this.#keep(words[0] as Parameters<WorkerApi["setTables"]>[0]);
      return this.#each(method, [this.#tables]);
    }
    return this.#each(method, words);
  }

  async #each<M extends Method>(method: M, words: unknown[]): Promise<Result<M>[]> {
    const asked = this.#nodes.filter(({ isUp }) => isUp);
    const answers = await Promise.allSettled(
      asked.map(({ channel }) => channel?.call("call", method, words)),
    );
    for (const one of answers) {
      if (one.status === "rejected" && !(one.reason instanceof ChannelGone)) throw one.reason;
    }
    return answers.flatMap((one) => (one.status === "fulfilled" ? [one.value as Result<M>] : []));
  }

  /** Remembers tables for nodes that start later, and gives every service its number for good. */
  #keep(tables: Parameters<WorkerApi["setTables"]>[0]): void {
    const known = new Set(this.#numbering);
    for (const { id } of tables.services) if (!known.has(id)) this.#numbering.push(id);
    this.#tables = { ...tables, numbering: [...this.#numbering] };
    this.#placement.place(tables);
  }

  /** Starts a node's process. @throws FlowplaneError when it does not come up */
  async #begin(node: FleetNode): Promise<void> {
    const file = import.meta.url.endsWith(".ts") ? "./node.ts" : "./node.js";
    const child = fork(new URL(file, import.meta.url), [], {
      // What the process was started with (--eval, --input-type) is not for its nodes.
      execArgv: [],
      serialization: "advanced",
      stdio: ["ignore", "inherit", "inherit", "ipc", ...node.devices.map(({ fd }) => fd)],
    });
    const channel = new Channel(child, {
      decide: (questions: Questions, nowMs: number) => decide(this.#store, questions, nowMs),
      renew: (decisions: Uint8Array[], nowMs: number) => renew(this.#store, decisions, nowMs),
      gone: (device: string) => this.onGone(device),
      captureEnded: (reason: string) => this.onCaptureEnded(reason),
    });
    Object.assign(node, { process: child, channel, startedMs: Date.now() });
    child.once("exit", () => this.#lose(node, child));
    child.once("error", () => this.#lose(node, child));
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
    try {
      await channel.call("start", this.#startOf(node));
      await this.#teach(channel);
    } catch (error) {
      child.kill("SIGKILL");
      throw new FlowplaneError(`node ${node.number}: ${(error as Error).message}`);
    } finally {
      clearTimeout(timer);
    }
    node.isUp = true;
    this.#tell(node);
  }

  /** Gives a node that has just started the tables, until it has the latest ones. */
  async #teach(channel: Channel): Promise<void> {
    for (let known: unknown; known !== this.#tables; ) {
      known = this.#tables;
      await channel.call("call", "setTables", [known]);
    }
  }

  #startOf({ devices }: FleetNode): NodeStart {
    const { perResource: _, places: __, queues: ___, ttlMs = TTL_MS, ...rest } = this.#options;
    const { redis, ...plane } = rest;
    // Descriptors as the child has them: behind its standard streams and the channel.
    const own = devices.map((device, index) => ({ ...device, fd: FIRST_FD + index }));
    return {
      plane: { ...plane, undecidedMax: UNDECIDED_MAX, queues: [own] },
      ttlMs,
      redis: redis && { ...redis, ttlMs },
    };
  }

  /** Hands a dead node's flows to the others, and starts it anew after a while. */
  #lose(node: FleetNode, child: ChildProcess): void {
    if (node.process !== child) return;
    const wasUp = node.isUp;
    Object.assign(node, { process: undefined, channel: undefined, isUp: false });
    if (this.#isStopping) return;
    if (wasUp) this.#tell(node);
    if (this.#life === undefined) return;
    const hasLivedLong = Date.now() - node.startedMs > RESTART_MS_MAX;
    if (hasLivedLong) node.delayMs = RESTART_MS;
    node.timer = setTimeout(() => {
      node.restarts++;
      this.#begin(node).catch(() => undefined);
    }, node.delayMs);
    node.delayMs = Math.min(2 * node.delayMs, RESTART_MS_MAX);
  }

  #tell(node: FleetNode): void {
    this.#placement.setUp(this.#nodes.map(({ isUp }) => isUp));
    this.onNode(this.#stateOf(node));
  }

  #stateOf({ number, process: child, isUp, restarts }: FleetNode): NodeState {
    const placed = Object.entries(this.#placement.shards);
    const resources = placed.filter(([, shard]) => shard.includes(number)).map(([name]) => name);
    return { node: number, pid: child?.pid ?? 0, isUp, restarts, resources };
  }

  /** Ends nodes that give no sign of life: one that only sleeps must not wake up as a second one. */
  #look(): void {
    for (const { isUp, channel, process: child } of this.#nodes) {
      if (!isUp || !channel || !child) continue;
      const timer = setTimeout(() => child.kill("SIGKILL"), LIFE_MS_MAX);
      const done = () => clearTimeout(timer);
      channel.call("call", "cpu", []).then(done, done);
    }
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    clearInterval(this.#life);
    for (const { timer } of this.#nodes) clearTimeout(timer);
    const ends = this.#nodes.map(async ({ process: child, channel }) => {
      if (!child || child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((end) => child.once("exit", end));
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
      await channel?.call("stop").catch(() => undefined);
      child.kill("SIGKILL");
      await ended;
      clearTimeout(timer);
    });
    await Promise.all(ends);
    this.#placement.close();
  }
}

/** Of a child's devices: 0 to 2 are its streams, 3 its channel. */
const FIRST_FD = 4;
