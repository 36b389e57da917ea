/**
 * The data plane of a lab as the main thread sees it: one worker per queue, each with an engine of
 * its own. Requests go to the workers as messages (messages.ts) and are answered between batches.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import type { Region } from "../engine/api.ts";
import { createTablePacker } from "../engine/packer.ts";
import type { TableRoom } from "../engine/room.ts";
import { FlowplaneError, revived } from "../errors.ts";
import { loadSyscalls, type Syscalls, type Window } from "../io/syscalls.ts";
import type { Answers, Questions } from "../nodes/undecided.ts";
import type {
  Message,
  Method,
  NamedMethod,
  Request,
  ThreadApi,
  WorkerApi,
  WorkerStart,
} from "./messages.ts";
import { type AskThreads, Naming } from "./naming.ts";

const START_MS_MAX = 30_000;
const STOP_MS_MAX = 5000;

export type Result<M extends Method> = ReturnType<WorkerApi[M]>;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

type PlaneEvent = Extract<Message, { id: 0 }>;

export interface NodeState {
  node: number;
  /** 0 while it is down. */
  pid: number;
  isUp: boolean;
  /** How often it has been started anew. */
  restarts: number;
  /** Names of the resources that it serves. */
  resources: string[];
}

/** What moves a lab's packets, as whoever directs it sees it. */
export interface Plane {
  readonly workerCount: number;
  /** Processes that share the work; none where this one does it all. */
  readonly nodes: readonly NodeState[];
  /** Called when a node has come up or has gone down. */
  onNode: (node: NodeState) => void;
  /** Called with the name of a device that has gone away. */
  onGone: (device: string) => void;
  /** Called when a capture could not be written any further; the lab goes on. */
  onCaptureEnded: (reason: string) => void;
  /** Asks all workers; answers in their order. */
  all<M extends Method>(method: M, ...words: Parameters<WorkerApi[M]>): Promise<Result<M>[]>;
  /** Stops all workers after their batch, and ends those by force that do not. */
  stop(): Promise<void>;
  /** Resolves when packets are moved no longer although nobody has stopped it, with the reason. */
  readonly failed: Promise<Error>;
}

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
    this.#thread.on("error", (error) => {
      this.#failure = revived(error) as Error;
      ready.reject(this.#failure);
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

  call<M extends keyof ThreadApi>(
    method: M,
    words: Parameters<ThreadApi[M]>,
  ): Promise<ReturnType<ThreadApi[M]>> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<ReturnType<ThreadApi[M]>>();
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
  /** What tables may hold (`createTablePacker`). */
  room?: TableRoom;
};

export class DataPlane implements Plane {
  readonly #system: Syscalls;
  readonly #workers: PlaneWorker[] = [];
  readonly #wakeFds: number[] = [];
  readonly #one: Window;
  #naming: Naming | undefined;
  readonly nodes = [];
  onNode: (node: NodeState) => void = () => undefined;
  onGone: (device: string) => void = () => undefined;
  onCaptureEnded: (reason: string) => void = () => undefined;
  /** Answers what a worker asks about frames that wait; nothing when nobody can be asked. */
  onAsk: (questions: Questions, nowMs: number) => Promise<Answers | undefined> = async () =>
    undefined;

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
      await plane.#packFor(region as Region, options);
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
      else if (event.event === "capture-ended") this.onCaptureEnded(event.reason);
      else if (event.event === "ask") void this.#ask(worker, event.questions, event.nowMs);
    };
    const worker = new PlaneWorker({ ...start, wakeFd }, wake, happened);
    this.#workers.push(worker);
  }

  async #ask(worker: PlaneWorker, questions: Questions, nowMs: number): Promise<void> {
    const answers = await this.onAsk(questions, nowMs).catch(() => undefined);
    await worker.call("answer", [answers]).catch(() => undefined);
  }

  get workerCount(): number {
    return this.#workers.length;
  }

  all<M extends Method>(method: M, ...words: Parameters<WorkerApi[M]>): Promise<Result<M>[]> {
    const naming = this.#naming as Naming;
    const offered = method in naming ? naming : undefined;
    const ask = offered?.[method as NamedMethod] as ((...words: unknown[]) => unknown) | undefined;
    if (ask) return ask.apply(naming, words) as Promise<Result<M>[]>;
    return this.#threads(method as keyof ThreadApi, ...(words as never)) as Promise<Result<M>[]>;
  }

  #threads: AskThreads = (method, ...words) => {
    return Promise.all(this.#workers.map((worker) => worker.call(method, words)));
  };

  /** Packs tables for all workers, whose engines are laid out alike. */
  async #packFor(region: Region, { proxyProtocol, room }: PlaneStart): Promise<void> {
    const packer = await createTablePacker(region, { proxyProtocol, ...(room && { room }) });
    this.#naming = new Naming(packer, this.#workers.length, this.#threads);
  }

  async stop(): Promise<void> {
    for (const worker of this.#workers) worker.call("stop", []).catch(() => undefined);
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, STOP_MS_MAX);
    await Promise.race([Promise.all(this.#workers.map(({ ended }) => ended)), late.promise]);
    clearTimeout(timer);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    for (const fd of this.#wakeFds.splice(0)) this.#system.close(fd);
  }

  /** As soon as one worker has ended by itself. */
  get failed(): Promise<Error> {
    const ends = this.#workers.map(async (worker) => {
      await worker.ended;
      return worker.failure ?? new FlowplaneError("data plane: a worker has ended");
    });
    return Promise.race(ends);
  }
}
