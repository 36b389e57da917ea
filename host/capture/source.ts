/**
 * The interfaces of capture input and output: where frames come from and go to, and the bytes
 * beneath. Frames lie in memory that the engine shares; a source describes them in batches, a sink
 * takes whole batches back. Neither sees a single packet as a JavaScript object.
 *
 * Invariant: what next() described stays where it is until the following next().
 */
import type { LinkKind, Region } from "../engine/api.ts";

/** The record walk's exports, a part of the engine's. Addresses and counts; see assembly/capture. */
export interface WalkExports {
  walkPcap(state: number, start: number, end: number, descriptors: number, limit: number): number;
  walkPcapng(state: number, start: number, end: number, descriptors: number, limit: number): number;
  walkTimeNs(state: number, descriptor: number): bigint;
  walkKeep(state: number, end: number): void;
  walkCompact(state: number, descriptors: number, first: number, count: number): number;
}

/** The engine's memory as captures see it; every `Engine` is one. */
export interface FrameMemory {
  /** The whole memory, which never grows while a source uses it. */
  readonly bytes: Uint8Array;
  /** The part for frames: from 1 MiB, 4 MiB is plenty. */
  readonly arena: Region;
  /** FRAME_* descriptors, a view of the same memory. */
  readonly descriptors: Uint32Array;
  readonly exports: WalkExports;
}

/** Where frames of a capture were taken; its index is the ingress port in descriptors. */
export interface CaptureInterface {
  /** LINKTYPE_ number of the file. */
  linkType: number;
  /** LINKTYPE_ name without its prefix, or the number. */
  linkName: string;
  /** How its frames begin; undefined if frames of it are refused. */
  link: LinkKind | undefined;
  /** if_name, else empty. */
  name: string;
  snapBytes: number;
}

export type CaptureFormat = "pcap" | "pcapng";

/** How records of the current file or section are laid out. */
export interface RecordLayout {
  format: CaptureFormat;
  bigEndian: boolean;
  /** pcap: fractions of a second count nanoseconds. */
  nanoseconds: boolean;
  /** pcap before 2.3: the wire length precedes the captured length. */
  lengthsSwapped: boolean;
}

/** Told when a source leaves bytes: those of [start, end) are settled and may be written out. */
export type LeaveHook = (start: number, end: number) => Promise<void> | undefined;

export interface FrameSource {
  /** The name that errors begin with. */
  readonly name: string;
  readonly layout: RecordLayout;
  /** Grows while a pcapng is read: look at its length after every next(). */
  readonly interfaces: readonly CaptureInterface[];
  /** Records and captured bytes described so far. */
  readonly packets: number;
  readonly capturedBytes: number;
  /** Instants of the earliest and latest record so far in ns since 1970-01-01 UTC; 0 without any. */
  readonly earliestNs: bigint;
  readonly latestNs: bigint;
  /** Address of the walk's state, WALK_*. */
  readonly state: number;
  readonly memory: FrameMemory;
  /** Frames that the last next() described. */
  readonly count: number;
  /** Address behind the last described record. */
  readonly position: number;
  /** Address from which on no bytes have been handed to the sink. */
  readonly unsettled: number;
  /** Set by the one sink that writes this source's records; called before bytes are overwritten. */
  set onLeave(hook: LeaveHook | undefined);
  /** Set by the sink as well: a block too large for memory, to be written as it is. */
  onBlock?: ((block: Uint8Array) => void) | undefined;
  /** Told when an interface has shown up, before frames of it are described. */
  onInterface?: (() => void) | undefined;
  /**
   * Describes the next frames, at most `limit` (BATCH_COUNT_MAX); 0 at the end. Throws CaptureError
   * at a broken record, after everything before it has been described.
   */
  next(limit?: number): number | Promise<number>;
  /** Hands everything described so far to the sink, as before overwriting it. */
  settle(): Promise<void> | undefined;
  /** Exact instant of a described frame in ns since 1970-01-01 UTC. */
  timeNs(index: number): bigint;
  close(): void;
}

/** Bytes of a capture, in order. */
export interface ByteInput {
  /** Reads up to `target.length` bytes (at least one unless at the end); returns how many. */
  read(target: Uint8Array): number | Promise<number>;
  close(): void;
  /** The same input uncompressed, `prefix` having been read already. */
  gunzip?(prefix: Uint8Array): ByteInput;
}

/** Takes bytes in order. */
export interface ByteOutput {
  /** Until a returned promise resolves the bytes must stay as they are. */
  write(bytes: Uint8Array): Promise<void> | undefined;
  close(): Promise<void> | undefined;
}

export interface InsertOptions {
  /** In ns since 1970-01-01 UTC. */
  timeNs: bigint;
  /** Ingress port whose interface the frame is written under; default the section's first. */
  port?: number;
  /** Default: all of it was captured. */
  wireBytes?: number;
}

export interface FrameSink {
  /** Frames written, and their captured bytes. */
  readonly packets: number;
  readonly bytes: number;
  /**
   * Takes descriptors [first, count) of the current batch after the engine: forwarded frames are
   * kept, dropped ones left out. Their memory is the sink's from then on. Records that are never
   * taken are kept as they are.
   */
  take(count: number, first?: number): void;
  /**
   * Writes a frame of one's own in front of descriptor `index` of the batch, or behind the last if
   * there is none; take() has had exactly those before it. The frame's bytes are copied.
   */
  insert(index: number, frame: Uint8Array, options: InsertOptions): void;
  /** Writes what has been taken and ends the file. */
  close(): Promise<void>;
}
