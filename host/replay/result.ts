/**
 * What a replay found out, as plain data: the document that `flowplane replay --json` prints
 * (schema `flowplane.replay/1`), and the course of the capture over time for the charts. Reports
 * are made from these and from nothing else.
 */

import type { VerdictName } from "../engine/api.ts";

/** A managed resource that the replay ran traffic through. */
export interface ResourceResult {
  id: string;
  kind:
    | "nat-gateway"
    | "network-load-balancer"
    | "vpc-endpoint"
    | "gateway-endpoint"
    | "mount-target"
    | "endpoint-service";
  /** Both directions, frame bytes as captured. */
  packets: number;
  bytes: number;
  /** Flows alive at the end of the first pass, and flows that it created. */
  activeFlows: number;
  newFlows: number;
  /** Packets dropped because no source port was free. */
  portsExhausted: number;
  /** The busiest second of the capture's clock. */
  peakGbps: number;
  /** Capacity units, of 5 Gbit/s and 1 million packets a second, that the busiest second takes. */
  units: number;
  /** Networks: from which second of the capture on how many units are taken; at most 1,000 changes. */
  unitsOverTime?: { second: number; units: number }[];
  /** Networks: CloudWatch metrics under AWS's names, sums and states at the end of the first pass. */
  metrics?: {
    namespace: string;
    dimensions: Record<string, string>;
    metrics: Record<string, number>;
  }[];
  /** Endpoints: what their owner is billed for. */
  bill?: { zoneHours: number; gigabytes: number };
}

export interface CapacityTarget {
  gbps: number;
  /** Cores that the target takes at the rate that a core reached in this run, workers side by side. */
  cores: number;
  /** Whether the workers of this run together reached it, in engine time. */
  met: boolean;
}

/** What one worker did; all passes together, rates of the warm ones. */
export interface WorkerResult {
  /** Of each pass: those of its lanes. */
  packets: number;
  /** Reading, walking and selecting: every worker reads the whole capture. */
  readSeconds: number;
  engineSeconds: number;
  /** Engine time alone, of its own packets. */
  nsPerPacket: number;
  mpps: number;
}

export interface ReplayResult {
  schema: "flowplane.replay/1";
  capture: {
    file: string;
    format: string;
    linkTypes: string[];
    packets: number;
    bytes: number;
    durationSeconds: number;
  };
  /** How it was run; verdicts, flows, output, resources and digest are those of the first pass. */
  run: { scenario: string; passes: number; workers: number };
  flows: {
    created: number;
    expired: number;
    activeMax: number;
    tcp: number;
    udp: number;
    icmp: number;
    other: number;
  };
  /** Every input packet in exactly one; the sum is `capture.packets`. */
  verdicts: Record<VerdictName, number>;
  output: {
    packets: number;
    bytes: number;
    inserted: { pp2: number; rst: number; icmp: number };
  };
  /** All passes together; read and engine of several workers: those of the slowest in each pass. */
  time: { wallSeconds: number; readSeconds: number; engineSeconds: number; writeSeconds: number };
  /**
   * Engine time alone: median of the warm passes (of the only pass if there is one). Several workers
   * take as long as the slowest of them.
   */
  engine: { nsPerPacket: number; coldNsPerPacket: number; mpps: number; gbps: number };
  /** Reading, engine and writing together: all packets of all passes over the wall clock. */
  endToEnd: { mpps: number; gbps: number };
  workers: WorkerResult[];
  /** How busy the workers were while the slowest of them was; 1 when they shared evenly. */
  balance: number;
  capacity: { unitGbps: 5; unitsPerCore: number; targets: CapacityTarget[] };
  resources: ResourceResult[];
  /** 16 hex digits: hash of all output frames of the first pass, in order. */
  digest: string;
  machine: { cpu: string; cores: number; node: string; v8: string; flowplane: string };
  /** What a reader has to know to read the numbers right. */
  notes: string[];
}

/** Lower ends of the frame-size classes, in bytes on the wire; those of RMON (RFC 2819). */
export const SIZE_CLASS_BYTES: readonly number[] = [0, 65, 128, 256, 512, 1024, 1519];

/** The course of the capture's clock in slices of equal length; arrays run in parallel. */
export interface Timeline {
  sliceSeconds: number;
  packets: number[];
  bytes: number[];
  /** Flows in the table: the most in each slice. */
  flowsActive: number[];
  flowsCreated: number[];
  /** Frames by size class, SIZE_CLASS_BYTES. */
  sizes: number[];
}
