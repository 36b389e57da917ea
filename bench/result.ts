/** What a run of the benchmark found out. Plain data: `--json` prints it, report.ts words it. */
import type { Pages } from "./machine.ts";
import type { Sample } from "./measure.ts";

export type Mode = "smoke" | "canonical" | "full";

/** A goal; never a failing test. `value` is absent when it was not measured, `reason` says why. */
export interface Goal {
  name: string;
  goal: number;
  is: "atMost" | "atLeast";
  unit: string;
  value?: number;
  met?: boolean;
  reason?: string;
}

/** Established flows, random flow and direction, 64-byte frames, batch of 128. ns per packet. */
export interface FlowsRow {
  flows: number;
  wasm: Sample;
  /** The same packets, one per batch. */
  single: number;
  /** Creating the flows, from the first into an untouched table. ns per flow. */
  fillNs: number;
  /** Creating flows beside those that live, in a table with room for twice as many. ns per flow. */
  fresh: Sample;
  /** The same in a table with room for a quarter more. ns per flow. */
  freshFull: Sample;
  /** The prototype of bench/assembly/prototype.ts. */
  prototype?: Sample;
  twin?: TwinFlows;
  /** The engine's time over the other's, in the middle of turns. */
  over: { prototype?: number; twin?: number };
  typed?: TwinCost;
  idiomatic?: TwinCost;
  /** The engines' memory at the end, and how much of it the system had put into huge pages. */
  pages?: Pages;
  /** One dependent load from as much memory as the table takes, ns. */
  chaseNs?: number;
  /** One of many independent loads from it, ns. */
  loadNs?: number;
  digest: string;
}

/** The C twin, as it reports itself. */
export interface TwinFlows {
  min: number;
  median: number;
  newNs: number;
  digest: string;
}

export interface TwinCost {
  min: number;
  median: number;
  newNs: number;
  digest: string;
}

/** One kind of traffic at a given number of flows. ns per packet. */
export interface TrafficRow {
  name: string;
  flows: number;
  wasm: Sample;
  gbps: number;
  twin?: TwinFlows;
}

export interface CapacityRow {
  name: string;
  flows: number;
  bytesPerFlow: number;
  fillSeconds: number;
  /** Packets whose translation was checked, both directions. */
  verified: number;
}

/** One step alone. ns per operation. */
export interface PieceRow {
  name: string;
  unit: string;
  wasmNs: number;
  typescriptNs?: number;
}

export interface FileRow {
  name: string;
  seconds: number;
  nsPerPacket: number;
  gbps: number;
  /** The others over the same file, in seconds. */
  others: Record<string, number>;
  /** Their time over ours, in the middle of rounds. */
  over: Record<string, number>;
}

export interface HostFigures {
  /** JavaScript to WebAssembly and back, ns per packet at a batch of 128. */
  crossingNs: number;
  /** Growth of the JavaScript heap while `packets` go through, bytes. */
  heapGrowthBytes: number;
  heapPackets: number;
  /** ns per packet of the first batches of a fresh process, of later ones, and of later ones that find empty caches. */
  firstNs: number;
  laterNs: number;
  emptiedNs: number;
  coldFirstNs: number;
}

export interface Machine {
  cpu: string;
  cores: number;
  memoryBytes: number;
  system: string;
  node: string;
  v8: string;
  flowplane: string;
  assemblyscript: string;
  gcc: string;
  tcprewrite: string;
  hugePages: string;
  /** Programs that wanted to run, a minute's mean, before and after the run; 1 is this one. */
  load: [number, number];
}

/** Latencies in microseconds. */
export interface Distribution {
  count: number;
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
  /** Percentile and latency, for the curve. */
  curve: [number, number][];
}

/** Packets that arrive by the clock at a share of the peak, in batches of what is there. */
export interface LoadRow extends Distribution {
  /** Most packets of a batch. */
  batch: number;
  load: number;
  peakMpps: number;
  /** Collections of garbage while it ran. */
  collections: number;
}

export interface LatencyResult {
  flows: number;
  /** Absent in records of earlier versions, as are `machine` and `prototype` below. */
  goals?: Goal[];
  /**
   * Whole batches, back to back; in turns with them, a loop that does nothing for as long, and batches
   * of the prototype, as far as it takes such.
   */
  batches: (Distribution & {
    batch: number;
    collections: number;
    machine?: Distribution;
    prototype?: Distribution | undefined;
  })[];
  loads: LoadRow[];
  /** At a share of the peak, packets being told of by another thread. */
  handed: (Distribution & { how: "spinning" | "sleeping"; load: number })[];
  /** A word to another thread and back. */
  echoes: (Distribution & { how: "spinning" | "sleeping" })[];
}

export interface ScalingCurve {
  name: string;
  frameBytes: number;
  points: { workers: number; mpps: number; gbps: number; speedup: number }[];
  /** The share of Amdahl's law, over rounds. */
  serial: { low: number; median: number; high: number };
  /** Cores by that law; absent where no number of cores of one machine does it. */
  targets: {
    gbps: number;
    cores: number | undefined;
    coresLow: number | undefined;
    coresHigh: number | undefined;
  }[];
}

export interface ScalingResult {
  /** Absent in records of earlier versions. */
  goals?: Goal[];
  cores: number;
  curves: ScalingCurve[];
}

/** Hundreds of millions of flows; times of the slowest engine. */
export interface LargeRow {
  family: "IPv4" | "IPv6" | "IPv4 compact";
  engines: number;
  flows: number;
  tableBytes: number;
  residentBytes: number;
  createMs: number;
  /** To write to every page of the tables, before the first flow. */
  touchSeconds: number;
  /** To make the flows in tables that were touched, the generator included. */
  fillSeconds: number;
  /** All engines together: flows by fillSeconds. */
  flowsPerSecond: number;
  /** A packet of a flow at random, either direction, on each core. */
  lookNs: number;
  lookMedianNs: number;
  /** Packets whose translation was checked, both directions. */
  verified: number;
}

/** One engine's tables in pages of one kind. */
export interface PagesCost {
  touchSeconds: number;
  /** Of a flow, generator included. */
  fillNs: number;
  lookNs: number;
}

export interface LargeResult {
  goals: Goal[];
  rows: LargeRow[];
  /** The same flows in two engines that take turns; absent where there are no huge pages. */
  pages?: { flows: number; plain: PagesCost; huge: PagesCost };
  /** Cost of a packet with all flows over that with 1 M in each engine. */
  lookRatio: number;
  /** A GiB of fresh memory in plain pages; and in pages as the engines have them. */
  touch: {
    growMs: number;
    firstSecondsPerGib: number;
    againSecondsPerGib: number;
    enginesFirstSecondsPerGib: number;
  };
}

/** Parts of the benchmark that are asked for by name. */
export interface PartsResult {
  scaling?: ScalingResult;
  latency?: LatencyResult;
  large?: LargeResult;
  /** The same of the compact table. */
  compact?: LargeResult;
}

export interface BenchResult extends PartsResult {
  schema: "flowplane.bench/1";
  mode: Mode;
  machine: Machine;
  goals: Goal[];
  flows: FlowsRow[];
  traffic: TrafficRow[];
  capacity: CapacityRow[];
  pieces: PieceRow[];
  host: HostFigures;
  capture: { bytes: number; packets: number; digest: string } | undefined;
  files: FileRow[];
  /** What was left out, and why. */
  skipped: string[];
  seconds: number;
}
