/**
 * The interfaces of a pcapng, section by section: the host's half of what the record walk needs.
 *
 * Invariants: the walk's table holds the interfaces of the current section only, by their number
 * in it; ports count over the whole file, and an interface that a later section describes again in
 * the same words keeps its port.
 */
import * as abi from "../../assembly/abi.ts";
import {
  checkSectionHeader,
  INTERFACE_DESCRIPTION_BYTES_MIN,
  type InterfaceClock,
  readInterface,
  readSectionStart,
  SECTION_HEADER_BYTES_MIN,
} from "./format.ts";
import type { CaptureInterface, RecordLayout } from "./source.ts";

const CLOCKS: Readonly<Record<InterfaceClock["clock"], number>> = {
  multiply: abi.INTERFACE_CLOCK_MULTIPLY,
  divide: abi.INTERFACE_CLOCK_DIVIDE,
  binary: abi.INTERFACE_CLOCK_BINARY,
};

export class Sections {
  readonly interfaces: CaptureInterface[] = [];
  readonly #ports = new Map<string, number>();
  readonly #view: DataView;
  readonly #state: number;
  readonly #layout: RecordLayout;
  #count = 0;

  /** `state` is the address of the walk's state in `memory`, its table included. */
  constructor(memory: DataView, state: number, layout: RecordLayout) {
    this.#view = memory;
    this.#state = state;
    this.#layout = layout;
  }

  /**
   * Begins a section at its header, the first of `bytes`. Returns the header's length, or what is
   * wrong with it; a length beyond `bytes` asks for more of them.
   */
  begin(bytes: Uint8Array, lengthMax: number): number | string {
    if (bytes.length < SECTION_HEADER_BYTES_MIN) return SECTION_HEADER_BYTES_MIN;
    const start = readSectionStart(bytes);
    if (typeof start === "string") return start;
    const { bigEndian, length } = start;
    if (length < SECTION_HEADER_BYTES_MIN || length % 4 !== 0 || length > lengthMax) {
      const range = `${SECTION_HEADER_BYTES_MIN} to ${lengthMax}`;
      return `section header of ${length} bytes is not a multiple of 4 from ${range}`;
    }
    if (bytes.length < length) return length;
    const fault = checkSectionHeader(bytes.subarray(0, length), bigEndian);
    if (fault) return fault;
    this.#layout.bigEndian = bigEndian;
    this.#count = 0;
    const timed = this.#view.getUint32(this.#state + abi.WALK_FLAGS, true) & abi.WALK_FLAG_TIMED;
    const order = bigEndian ? abi.WALK_FLAG_SWAPPED : 0;
    this.#set(this.#state + abi.WALK_FLAGS, abi.WALK_FLAG_PCAPNG | order | timed);
    this.#set(this.#state + abi.WALK_INTERFACE_COUNT, 0);
    return length;
  }

  /** Adds the interface that a whole block describes; returns what is wrong with it. */
  add(block: Uint8Array): string | undefined {
    if (block.length < INTERFACE_DESCRIPTION_BYTES_MIN) {
      return `interface description of ${block.length} bytes`;
    }
    const taken = readInterface(block, this.#layout.bigEndian);
    if (typeof taken === "string") return taken;
    const port = this.#portOf(taken);
    if (this.#count === abi.PORT_COUNT_MAX || port === abi.PORT_COUNT_MAX) {
      return `more than ${abi.PORT_COUNT_MAX} interfaces`;
    }
    const table = this.#view.getUint32(this.#state + abi.WALK_INTERFACES, true);
    const entry = table + this.#count * abi.INTERFACE_BYTES;
    this.#view.setBigUint64(entry + abi.INTERFACE_SCALE, taken.scale, true);
    this.#view.setBigInt64(entry + abi.INTERFACE_OFFSET_NS, taken.offsetNs, true);
    this.#set(entry + abi.INTERFACE_CLOCK, CLOCKS[taken.clock]);
    this.#set(entry + abi.INTERFACE_SNAP_BYTES, taken.snapBytes);
    this.#view.setUint16(entry + abi.INTERFACE_PORT, port, true);
    this.#view.setUint8(entry + abi.INTERFACE_REFUSED, taken.link ? 0 : 1);
    this.#count++;
    this.#set(this.#state + abi.WALK_INTERFACE_COUNT, this.#count);
    return undefined;
  }

  /** The interface at a number of the current section. */
  at(index: number): CaptureInterface {
    const table = this.#view.getUint32(this.#state + abi.WALK_INTERFACES, true);
    const entry = table + index * abi.INTERFACE_BYTES;
    const port = this.#view.getUint16(entry + abi.INTERFACE_PORT, true);
    return this.interfaces[port] as CaptureInterface;
  }

  #portOf(taken: CaptureInterface & InterfaceClock): number {
    const { linkType, linkName, link, name, snapBytes } = taken;
    const key = [this.#count, linkType, snapBytes, name].join(" ");
    const known = this.#ports.get(key);
    if (known !== undefined) return known;
    const port = this.interfaces.length;
    if (port === abi.PORT_COUNT_MAX) return port;
    this.interfaces.push({ linkType, linkName, link, name, snapBytes });
    this.#ports.set(key, port);
    return port;
  }

  #set(address: number, value: number): void {
    this.#view.setUint32(address, value, true);
  }
}
