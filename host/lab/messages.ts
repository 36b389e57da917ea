/**
 * What the main thread and a worker of the data plane say to each other. The worker sits in its loop
 * and has no event loop: it takes requests between batches, when the eventfd has woken it. So what a
 * request changes takes effect between two batches, at once.
 */
import type { Counters, Flow, PortOptions, Region, ServiceOptions, Usage } from "../engine/api.ts";
import type { PackedTables } from "../engine/packer.ts";
import type { DeviceCounts, LoopDevice } from "./loop.ts";

/** What a worker can be asked; each method answers with its result. */
export interface WorkerApi {
  setService(service: number, options: ServiceOptions): void;
  setPort(port: number, options: PortOptions): void;
  /** Says which device has an address behind a port. */
  placeAddress(port: number, address: string, device: number): void;
  counters(): Counters;
  devices(): DeviceCounts[];
  usage(service: number): Usage;
  /** Loads the tables that routed ports resolve new flows by. */
  loadTables(packed: PackedTables): void;
  /** Ends flows of a service, to a target, or both; returns how many there were. */
  terminate(flows: { service?: number; address?: string; port?: number }): number;
  /** Usage of services, in the order of their numbers here. */
  usages(services: number[]): Usage[];
  /** Those of some services that have flows. */
  living(services: number[]): number[];
  /** Live flows, as many as `most`, and how many there are. */
  flows(most: number): { flows: Flow[]; total: number };
  /** Time that the worker's thread has spent, in microseconds. */
  cpu(): { userMicros: number; systemMicros: number };
  stop(): void;
}

export type Method = keyof WorkerApi;

export interface Request {
  id: number;
  method: Method;
  words: unknown[];
}

/** An answer to a request, or, with id 0, something that happened. */
export type Message =
  | { id: number; value: unknown }
  | { id: number; error: string }
  | { id: 0; event: "ready"; network: Region }
  | { id: 0; event: "gone"; device: string }
  | { id: 0; event: "capture-ended"; reason: string };

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
  spinMs: number;
  busyPollMs: number;
  /** pcapng that everything is written to, begun already. */
  captureFile: string | undefined;
}
