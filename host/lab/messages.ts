/**
 * What the main thread and a worker of the data plane say to each other. The worker sits in its loop
 * and has no event loop: it takes requests between batches, when the eventfd has woken it. So what a
 * request changes takes effect between two batches, at once.
 */
import type { Counters, Flow, PortOptions, Region, ServiceOptions, Usage } from "../engine/api.ts";
import type { DecidedFlow } from "../engine/decision.ts";
import type { NetworkTables } from "../engine/network.ts";
import type { PackedTables } from "../engine/packer.ts";
import type { Answers, NodeCounters, Questions } from "../nodes/undecided.ts";
import type { DeviceCounts, LoopDevice } from "./carrier.ts";
import type { Io, Priority } from "./plan.ts";

/** What a plane can be asked for each of its workers; each method answers with its result. */
export interface WorkerApi {
  setService(service: number, options: ServiceOptions): void;
  setPort(port: number, options: PortOptions): void;
  /** Says which device has an address behind a port. */
  placeAddress(port: number, address: string, device: number): void;
  counters(): Counters;
  devices(): DeviceCounts[];
  usage(service: number): Usage;
  /** Loads the tables that routed ports resolve new flows by. */
  setTables(tables: NetworkTables): void;
  /** Ends flows of a service, to a target, or both; returns how many there were. */
  terminate(flows: { service?: string; address?: string; port?: number }): number;
  /** Usage of services of the tables by their id; those that there are not are left out. */
  usages(ids: string[]): Record<string, Usage>;
  /** Numbers of services of the tables by their id, as `madeBy` of flows has them. */
  serviceNumbers(ids: string[]): Record<string, number>;
  /** Live flows, as many as `most`, and how many there are. */
  flows(most: number): { flows: Flow[]; total: number };
  /** Time that the worker's thread has spent, in microseconds. */
  cpu(): { userMicros: number; systemMicros: number };
  /** How frames are carried. */
  io(): Io;
  /** What the kernel has granted. */
  priority(): Priority;
  /** What was found out about the frames that wait; nothing when nobody could be asked. */
  answer(answers: Answers | undefined): void;
  /** What became of frames that had to wait; nothing where flows begin without asking. */
  decisions(): NodeCounters | undefined;
  /** Some of the decided flows, and the handle to go on behind; see `decidedAfter`. */
  decided(after: number): { flows: DecidedFlow[]; last: number };
  /** Ends those of the flows that are still the same. */
  end(flows: readonly DecidedFlow[]): void;
  stop(): void;
}

export type Method = keyof WorkerApi;

/** What has to do with tables, by names: the main thread packs them, and knows the numbers. */
export type NamedMethod = "setTables" | "terminate" | "usages" | "serviceNumbers";

/** What the thread of a worker takes. */
export interface ThreadApi extends Omit<WorkerApi, NamedMethod> {
  loadTables(packed: PackedTables): void;
  terminate(flows: { service?: number; address?: string; port?: number }): number;
  /** In the order of the services. */
  usages(services: number[]): Usage[];
  /** Those of some services that have flows. */
  living(services: number[]): number[];
}

export interface Request {
  id: number;
  method: keyof ThreadApi;
  words: unknown[];
}

/** An answer to a request, or, with id 0, something that happened. */
export type Message =
  | { id: number; value: unknown }
  | { id: number; error: string }
  | { id: 0; event: "ready"; network: Region }
  | { id: 0; event: "gone"; device: string }
  | { id: 0; event: "capture-ended"; reason: string }
  | { id: 0; event: "ask"; questions: Questions; nowMs: number };

/** What a worker starts with. */
export interface WorkerStart {
  index: number;
  devices: LoopDevice[];
  wakeFd: number;
  /** Instant of the clock's begin, ms since 1970. */
  originMs: number;
  flowCountMax: number;
  flow6CountMax: number;
  /** Room for network tables in bytes; 0: none are used. */
  networkBytes: number;
  proxyProtocol: boolean | "udp";
  seed: Uint8Array;
  timeouts: Record<string, number>;
  ports: PortOptions[];
  services: ServiceOptions[];
  addresses: { port: number; address: string; device: number }[];
  merges: boolean;
  io: Io;
  priority: Priority;
  spinMs: number;
  busyPollMs: number;
  /** Frames that may wait until their flow is decided; undefined: flows begin without asking. */
  undecidedMax?: number | undefined;
  /** pcapng that everything is written to, begun already. */
  captureFile: string | undefined;
}
