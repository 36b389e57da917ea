/**
 * The state of the record walk (WALK_*), which lies at the begin of the arena, and what the sources
 * that share it have in common: totals, and the bytes that the sink has not been handed yet.
 *
 * Invariant: totals stay readable after close(), when another source may use the memory.
 */
import * as abi from "../../assembly/abi.ts";
import type { PcapHeader } from "./format.ts";
import type { FrameMemory, LeaveHook } from "./source.ts";

export class WalkState {
  readonly address: number;
  readonly view: DataView;
  onLeave: LeaveHook | undefined;
  /** Bytes from here on have not been handed to the sink. */
  unsettled = 0;
  readonly #memory: FrameMemory;
  /** The state at the close. */
  #final: DataView | undefined;

  constructor(memory: FrameMemory) {
    const { bytes, arena } = memory;
    this.#memory = memory;
    this.address = arena.address;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    bytes.fill(0, this.address, this.address + abi.WALK_BYTES);
    this.set(abi.WALK_LENGTH_MAX, abi.WALK_CAPTURED_BYTES_MAX);
  }

  get(field: number): number {
    return this.view.getUint32(this.address + field, true);
  }

  set(field: number, value: number): void {
    this.view.setUint32(this.address + field, value, true);
  }

  get packets(): number {
    return Number(this.#total(abi.WALK_PACKETS));
  }

  get capturedBytes(): number {
    return Number(this.#total(abi.WALK_OCTETS));
  }

  get earliestNs(): bigint {
    return this.packets ? this.#total(abi.WALK_EARLIEST_NS) : 0n;
  }

  get latestNs(): bigint {
    return this.packets ? this.#total(abi.WALK_LATEST_NS) : 0n;
  }

  timeNs(index: number): bigint {
    const { descriptors, exports } = this.#memory;
    return exports.walkTimeNs(this.address, descriptors.byteOffset + index * abi.FRAME_BYTES);
  }

  /** Hands what lies before `end` to the sink; returns what to wait for before it is overwritten. */
  settle(end: number): Promise<void> | undefined {
    const from = this.unsettled;
    const busy = end > from ? this.onLeave?.(from, end) : undefined;
    this.settleFrom(end);
    return busy;
  }

  /** A slot begins: nothing before `address` concerns the sink. */
  settleFrom(address: number): void {
    this.unsettled = address;
    this.set(abi.WALK_KEPT_FROM, address);
    this.set(abi.WALK_KEPT_TO, address);
  }

  /** Makes the walk read records as a pcap's header says. */
  beginPcap(header: Pick<PcapHeader, "bigEndian" | "nanoseconds" | "minor" | "snapBytes">): void {
    const { bigEndian, nanoseconds, minor, snapBytes } = header;
    this.set(
      abi.WALK_FLAGS,
      (bigEndian ? abi.WALK_FLAG_SWAPPED : 0) |
        (nanoseconds ? abi.WALK_FLAG_NANOSECONDS : 0) |
        (minor < 3 ? abi.WALK_FLAG_LENGTHS_SWAPPED : 0) |
        (minor === 3 ? abi.WALK_FLAG_LENGTHS_EITHER : 0),
    );
    const isUsual = snapBytes > 0 && snapBytes < abi.WALK_CAPTURED_BYTES_MAX;
    this.set(abi.WALK_LENGTH_MAX, isUsual ? snapBytes : abi.WALK_CAPTURED_BYTES_MAX);
  }

  close(): void {
    const { address } = this;
    const copy = () => this.#memory.bytes.slice(address, address + abi.WALK_BYTES);
    this.#final ??= new DataView(copy().buffer);
  }

  #total(field: number): bigint {
    if (this.#final) return this.#final.getBigInt64(field, true);
    return this.view.getBigInt64(this.address + field, true);
  }
}
