/**
 * The data plane of a lab as the main thread sees it: one worker per queue, each with an engine of
 * its own. Requests go to the workers as messages (messages.ts) and are answered between batches.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import type { Region, Usage } from "../engine/api.ts";
import type { NetworkTables } from "../engine/network.ts";
import { createTablePacker, type TablePacker } from "../engine/packer.ts";
import { FlowplaneError } from "../errors.ts";
import { loadSyscalls, type Syscalls, type Window } from "../io/syscalls.ts";
import type { Message, Method, Request, WorkerApi, WorkerStart } from "./messages.ts";

const START_MS_MAX = 30_000;
const STOP_MS_MAX = 5000;

type Result<M extends Method> = ReturnType<WorkerApi[M]>;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

type PlaneEvent = Extract<Message, { event: "gone" | "capture-ended" }>;

/** One worker. */
class PlaneWorker {
  readonly #thread: Worker;
  readonly #port: MessagePort;
  readonly #wake: () => void;
  readonly #waiting = new Map<number, Waiting>();
  /** The network region of its engine, once it runs. */
  readonly ready: Promise<Region>;
  readonly ended: Promise<void>;
  #nextId = 1;
  #failure: Error | undefined;

  constructor(start: WorkerStart, wake: () => void, happened: (event: PlaneEvent) => void) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#wake = wake;
    const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";
    this.#thread = new Worker(new URL(file, import.meta.url), {
      workerData: { start, port: port2 },
      transferList: [port2],
      name: `flowplane ${start.index}`,
      // What the process was started with (--eval, --input-type) is not for its workers.
      execArgv: [],
    });
    const ready = Promise.withResolvers<Region>();
    const ended = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.ended = ended.promise;
    this.ready.catch(() => undefined);
    port1.on("message", (message: Message) => {
      if (message.id !== 0) this.#settle(message as Exclude<Message, { id: 0; event: unknown }>);
      else if (!("event" in message)) return;
      else if (message.event === "ready") ready.resolve(message.network);
      else happened(message);
    });
    this.#thread.on("error", (error: Error) => {
      this.#failure = error;
      ready.reject(error);
    });
    this.#thread.on("exit", () => {
      const failure = this.#failure ?? new FlowplaneError("data plane: the worker has ended");
      for (const { reject } of this.#waiting.values()) reject(failure);
      this.#waiting.clear();
      ready.reject(failure);
      port1.close();
      ended.resolve();
    });
  }

  /** Why the worker ended, when it did so by itself. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  call<M extends Method>(method: M, words: Parameters<WorkerApi[M]>): Promise<Result<M>> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<Result<M>>();
    this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
    this.#port.postMessage({ id, method, words } satisfies Request);
    this.#wake();
    return promise;
  }

  #settle(message: { id: number; value: unknown } | { id: number; error: string }): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if ("error" in message) waiting?.reject(new FlowplaneError(message.error));
    else waiting?.resolve(message.value);
  }

  terminate(): Promise<number> {
    return this.#thread.terminate();
  }
}

export type PlaneStart = Omit<WorkerStart, "index" | "wakeFd" | "devices"> & {
  /** Devices of each worker: its queue of each. */
  queues: WorkerStart["devices"][];
};

export class DataPlane {
  readonly #system: Syscalls;
  readonly #workers: PlaneWorker[] = [];
  readonly #wakeFds: number[] = [];
  readonly #one: Window;
  /** Packs tables once for all workers, whose engines are laid out alike. */
  #packer: TablePacker | undefined;
  /** What changes tables and flows happens in order, one after the other. */
  #changes: Promise<unknown> = Promise.resolve();
  /** Called with the name of a device that has gone away. */
  onGone: (device: string) => void = () => undefined;
  /** Called when a capture could not be written any further; the lab goes on. */
  onCaptureEnded: (reason: string) => void = () => undefined;

  private constructor(system: Syscalls) {
    this.#system = system;
    // An eventfd counts up by the number that is written to it.
    this.#one = system.window(new Uint8Array(new BigUint64Array([1n]).buffer));
  }

  /** Starts the workers and waits until all of them run. @throws FlowplaneError, EngineError */
  static async start(options: PlaneStart): Promise<DataPlane> {
    const { queues, ...rest } = options;
    const plane = new DataPlane(await loadSyscalls());
    for (const [index, devices] of queues.entries()) plane.#add({ ...rest, index, devices });
    const timeout = new Promise<never>((_, reject) => {
      const late = () => reject(new FlowplaneError("data plane: the workers do not start"));
      setTimeout(late, START_MS_MAX).unref();
    });
    try {
      const ready = Promise.all(plane.#workers.map((worker) => worker.ready));
      const [region] = await Promise.race([ready, timeout]);
      if (region !== undefined) plane.#packer = await createTablePacker(region, options);
    } catch (error) {
      await plane.stop();
      throw error;
    }
    return plane;
  }

  #add(start: Omit<WorkerStart, "wakeFd">): void {
    const wakeFd = this.#system.eventfd();
    if (wakeFd < 0) throw new FlowplaneError(`eventfd: error ${-wakeFd}`);
    this.#wakeFds.push(wakeFd);
    const wake = () => {
      this.#one.write(wakeFd, 0, 8);
    };
    const happened = (event: PlaneEvent) => {
      if (event.event === "gone") this.onGone(event.device);
      else this.onCaptureEnded(event.reason);
    };
    this.#workers.push(new PlaneWorker({ ...start, wakeFd }, wake, happened));
  }

  get workerCount(): number {
    return this.#workers.length;
  }

  /** Asks all workers; answers in their order. */
  all<M extends Method>(method: M, ...words: Parameters<WorkerApi[M]>): Promise<Result<M>[]> {
    return Promise.all(this.#workers.map((worker) => worker.call(method, words)));
  }

  /** Loads the tables that routed ports resolve new flows by. @throws TypeError, RangeError */
  setTables(tables: NetworkTables): Promise<void> {
    return this.#inOrder(async (packer) => {
      const living = new Set((await this.all("living", packer.left)).flat());
      await this.all(
        "loadTables",
        packer.pack(tables, (service) => living.has(service)),
      );
    });
  }

  /** Ends flows of a service of the tables, to a target, or both. */
  terminate(flows: { service?: string; address?: string; port?: number }): Promise<void> {
    return this.#inOrder(async (packer) => {
      const { service: id, ...target } = flows;
      if (id === undefined) {
        await this.all("terminate", target);
        return;
      }
      const service = packer.numberOf(id);
      if (service === undefined) throw new TypeError(`service: the tables have no ${id}`);
      await this.all("terminate", { ...target, service });
    });
  }

  /** Usage of services of the tables by their id, for each worker; those that there are not are left out. */
  async usages(ids: readonly string[]): Promise<Record<string, Usage>[]> {
    const numbers = Object.entries(this.serviceNumbers(ids));
    const all = await this.all(
      "usages",
      numbers.map(([, number]) => number),
    );
    return all.map((usages) => {
      return Object.fromEntries(numbers.map(([id], at) => [id, usages[at] as Usage]));
    });
  }

  /** Numbers of services of the tables by their id, as `madeBy` of flows has them. */
  serviceNumbers(ids: readonly string[]): Record<string, number> {
    const numbers: Record<string, number> = {};
    for (const id of ids) {
      const number = this.#packer?.numberOf(id);
      if (number !== undefined) numbers[id] = number;
    }
    return numbers;
  }

  /** Whatever became of the changes before, this one comes after them. */
  #inOrder(change: (packer: TablePacker) => Promise<void>): Promise<void> {
    const next = this.#changes.then(() => change(this.#packer as TablePacker));
    this.#changes = next.catch(() => undefined);
    return next;
  }

  /** Stops all workers after their batch, and ends those by force that do not. */
  async stop(): Promise<void> {
    for (const worker of this.#workers) worker.call("stop", []).catch(() => undefined);
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, STOP_MS_MAX);
    await Promise.race([Promise.all(this.#workers.map(({ ended }) => ended)), late.promise]);
    clearTimeout(timer);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    for (const fd of this.#wakeFds.splice(0)) this.#system.close(fd);
  }

  /** Resolves when a worker has ended by itself, with the reason. */
  get failed(): Promise<Error> {
    const ends = this.#workers.map(async (worker) => {
      await worker.ended;
      return worker.failure ?? new FlowplaneError("data plane: a worker has ended");
    });
    return Promise.race(ends);
  }
}
