/**
 * The plan of a lab: everything that `up` makes, as plain data. A host is a network namespace with
 * one TUN device whose other end is the engine; the engine's port says which VPC it stands in.
 * Equal addresses in different VPCs are different hosts.
 */
import type { PortOptions, ServiceOptions, Timeouts } from "../engine/api.ts";
import type { TableRoom } from "../engine/room.ts";
import type { Offload } from "../io/tun.ts";
import type { RedisStoreOptions } from "../nodes/redis-store.ts";

export interface HostPlan {
  /** The namespace's name. */
  namespace: string;
  /** Port of the engine, and with it the VPC, that the host stands behind. */
  port: number;
  /** IPv4 and IPv6 addresses that the host has. */
  addresses: string[];
  mtu: number;
}

/** Against the machine's other threads: "realtime" goes before all ordinary ones. */
export type Priority = "realtime" | "normal";

/** How frames are read and written: many by one system call (io_uring), or each by one of its own. */
export type Io = "ring" | "calls";

export interface LabPlan {
  /** Letters, digits, - and _; tells labs apart. */
  name: string;
  hosts: HostPlan[];
  ports: PortOptions[];
  services: ServiceOptions[];
  /** The best that devices are asked for. */
  offload: Offload;
  /** "ring" only where the kernel has it. */
  io: Io;
  /** Datagrams of one flow may leave as one super-packet; needs the offload "udp". */
  mergesDatagrams: boolean;
  workers: number;
  /** What workers ask for; "realtime" only where there is a core more than there are workers. */
  priority: Priority;
  /** Processes that carry the lab's packets together; default: this process alone. */
  nodes?: NodesPlan;
  /** Workers stay awake that long after a packet while traffic is sparse. */
  spinMs: number;
  /** Workers stay awake that long after a packet in any case. */
  busyPollMs: number;
  /** pcapng that all packets are written to, before the engine and after it. */
  captureFile?: string;
  flowCountMax: number;
  flow6CountMax: number;
  /** Room for network tables in bytes; 0: none are used. */
  networkBytes: number;
  /** What network tables may hold: reloads take as long whatever they do hold. Default: what fits. */
  room?: TableRoom;
  /** Whether the engine puts PROXY headers into TCP streams, and with "udp" into datagrams. */
  proxyProtocol: boolean | "udp";
  /** Idle timeouts that differ from the engine's own, in seconds. */
  timeouts: Partial<Timeouts>;
}

export interface NodesPlan {
  /** 2 to 64; `workers` is 1 then. */
  count: number;
  /** Nodes of each resource. */
  perResource: number;
  /** How long a decision lives that nobody refreshes; default as `StoreTimes`. */
  ttlMs?: number;
  /** Servers that keep the decisions; default: the lab's own process. */
  redis?: RedisStoreOptions;
}

/** What a lab has unless it is told otherwise. */
export const PLAN_DEFAULTS = {
  offload: "udp",
  io: "ring",
  mergesDatagrams: true,
  workers: 1,
  priority: "normal",
  spinMs: 0.05,
  busyPollMs: 0,
  flowCountMax: 262_144,
  flow6CountMax: 65_536,
  networkBytes: 0,
  proxyProtocol: false,
  timeouts: {},
} as const satisfies Partial<LabPlan>;
