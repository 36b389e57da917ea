/**
 * The same work in good TypeScript: typed arrays, Math.imul, open addressing, no allocation, one
 * pass over each packet. Source NAT to one address for IPv4 TCP and UDP, as the benchmark's traffic
 * needs it: parse with checks, look up, keep the state, rewrite, update both checksums, count.
 *
 * Every flow stands in the index twice, as the client and as the service sees it, both from the
 * client's point of view. A cell is two words: hash and flow number << 1 | side, plus 2.
 */
import { PAGES } from "./traffic.ts";

const TYPED_WORDS = 16;
/** A parsed packet: source, destination, ports, then these. */
export const PARSED_WORDS = 8;
export const PARSED_PROTOCOL = 3;
const PARSED_FLAGS = 4;
const NOBODY = -1;
const SOURCE = 0;
const DESTINATION = 1;
const PORTS = 2;
const PROTOCOL = 3;
const SOURCE_OUT = 4;
const DESTINATION_OUT = 5;
const PORTS_OUT = 6;
const DELTAS = 7;
const PACKETS = 8;
const LAST_SEEN = 10;
const STATE = 11;
/** Of the view of float64: bytes from the client; from the service comes next. */
const OCTETS = 6;

const HALF_OPEN = 0;
const ESTABLISHED = 1;
const CLOSING = 2;
const UDP = 3;
const TIMEOUTS_MS = [30_000, 350_000, 60_000, 120_000];

const VERDICT_FORWARD = 0;
const VERDICT_PASS = 1;
const VERDICT_TRUNCATED = 2;
const VERDICT_MALFORMED = 3;
const VERDICT_NO_FLOW = 5;
const VERDICT_FULL = 9;

/** Seeded mix of a tuple's four words; side goes into the seed. */
export function hashWords(a: number, b: number, c: number, d: number): number {
  let hash = Math.imul(a ^ 0x2c1b3c6d, 0x85ebca6b);
  hash = Math.imul((hash ^ (hash >>> 15) ^ b) | 0, 0xc2b2ae35);
  hash = Math.imul((hash ^ (hash >>> 13) ^ c) | 0, 0x27d4eb2f);
  hash = Math.imul((hash ^ (hash >>> 16) ^ d) | 0, 0x165667b1);
  return hash ^ (hash >>> 15);
}

/** Folds a sum of 16-bit words, each at most 17 bits too many. */
function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** RFC 1624 equation 3. */
export function updatedSum(checksum: number, delta: number): number {
  return ~fold((~checksum & 0xffff) + delta) & 0xffff;
}

/** One's complement delta of replacing `before` by `after`, both sums of 16-bit words. */
function deltaOf(before: number, after: number): number {
  const delta = fold((~fold(before) & 0xffff) + fold(after));
  return delta === 0xffff ? 0 : delta;
}

function opposite(delta: number): number {
  return delta === 0 ? 0 : delta ^ 0xffff;
}

function wordsOf(value: number): number {
  return (value & 0xffff) + (value >>> 16);
}

export class TypedTwin {
  readonly #bytes: Uint8Array;
  readonly #words: Uint16Array;
  readonly #descriptors: Uint32Array;
  readonly #natAddress: number;
  readonly #flows: Int32Array;
  readonly #octets: Float64Array;
  readonly #cells: Int32Array;
  readonly #mask: number;
  readonly #flowCountMax: number;
  #flowCount = 0;

  /** `natAddress` as a little-endian word, as it is loaded from a packet. */
  constructor(
    bytes: Uint8Array<ArrayBuffer>,
    descriptors: Uint32Array,
    natAddress: number,
    flowCountMax: number,
  ) {
    const records = new ArrayBuffer(flowCountMax * TYPED_WORDS * 4);
    this.#bytes = bytes;
    this.#words = new Uint16Array(bytes.buffer);
    this.#descriptors = descriptors;
    this.#natAddress = natAddress | 0;
    this.#flows = new Int32Array(records);
    this.#octets = new Float64Array(records);
    // Two cells a flow at a load of a half at most.
    const cellCount = 2 ** Math.ceil(Math.log2(flowCountMax * 4));
    this.#cells = new Int32Array(cellCount * 2);
    // As the engine's memory.
    for (const array of [records, this.#cells.buffer]) PAGES.advise(array);
    this.#mask = cellCount - 1;
    this.#flowCountMax = flowCountMax;
  }

  process(count: number): void {
    for (let index = 0; index < count; index++) {
      const verdict = this.#packet(index * 8);
      if (verdict !== VERDICT_FORWARD) this.#descriptors[index * 8 + 4] = verdict;
    }
  }

  #packet(at: number): number {
    const descriptors = this.#descriptors;
    const bytes = this.#bytes;
    const words = this.#words;
    const frame = descriptors[at] as number;
    const captured = descriptors[at + 1] as number;
    const half = frame >>> 1;
    if (captured < 34 || words[half + 6] !== 0x0008) return VERDICT_PASS;
    if (bytes[frame + 14] !== 0x45) return VERDICT_MALFORMED;
    const totalBytes = ((bytes[frame + 16] as number) << 8) | (bytes[frame + 17] as number);
    if (totalBytes + 14 > captured || totalBytes < 28) return VERDICT_TRUNCATED;
    if (((words[half + 10] as number) & 0xff3f) !== 0) return VERDICT_MALFORMED;
    const protocol = bytes[frame + 23] as number;
    if (protocol !== 6 && protocol !== 17) return VERDICT_PASS;
    const source = (words[half + 13] as number) | ((words[half + 14] as number) << 16);
    const destination = (words[half + 15] as number) | ((words[half + 16] as number) << 16);
    const ports = (words[half + 17] as number) | ((words[half + 18] as number) << 16);
    const flags = protocol === 6 ? (bytes[frame + 47] as number) : 0;
    const side = (descriptors[at + 3] as number) & 1;
    const nowMs = descriptors[at + 2] as number;
    const swapped = (ports << 16) | (ports >>> 16);
    let record: number;
    if (side === 0) {
      record = this.#find(source, destination, ports, protocol, 0);
      if (record < 0) record = this.#begin(source, destination, ports, protocol, nowMs);
      if (record < 0) return VERDICT_FULL;
    } else {
      record = this.#find(destination, source, swapped, protocol, 1);
      if (record < 0) return VERDICT_NO_FLOW;
    }
    const flow = record * TYPED_WORDS;
    if (!this.#account(flow, side, flags, captured, nowMs)) return VERDICT_NO_FLOW;
    this.rewrite(half, record, side, side, protocol);
    descriptors[at + 4] = VERDICT_FORWARD | (side << 16) | (side << 24);
    descriptors[at + 5] = record + 1;
    return VERDICT_FORWARD;
  }

  /** The parsing of a packet alone: leaves the tuple of descriptor word `at` in `parsed`, from `to` on. */
  parse(at: number, parsed: Int32Array, to: number): number {
    const bytes = this.#bytes;
    const words = this.#words;
    const frame = this.#descriptors[at] as number;
    const captured = this.#descriptors[at + 1] as number;
    const half = frame >>> 1;
    if (captured < 34 || words[half + 6] !== 0x0008) return VERDICT_PASS;
    if (bytes[frame + 14] !== 0x45) return VERDICT_MALFORMED;
    const totalBytes = ((bytes[frame + 16] as number) << 8) | (bytes[frame + 17] as number);
    if (totalBytes + 14 > captured || totalBytes < 28) return VERDICT_TRUNCATED;
    if (((words[half + 10] as number) & 0xff3f) !== 0) return VERDICT_MALFORMED;
    const protocol = bytes[frame + 23] as number;
    if (protocol !== 6 && protocol !== 17) return VERDICT_PASS;
    parsed[to] = (words[half + 13] as number) | ((words[half + 14] as number) << 16);
    parsed[to + 1] = (words[half + 15] as number) | ((words[half + 16] as number) << 16);
    parsed[to + 2] = (words[half + 17] as number) | ((words[half + 18] as number) << 16);
    parsed[to + PARSED_PROTOCOL] = protocol;
    parsed[to + PARSED_FLAGS] = protocol === 6 ? (bytes[frame + 47] as number) : 0;
    return VERDICT_FORWARD;
  }

  /** The lookup alone: number of the parsed packet's flow, or NOBODY. */
  lookUp(parsed: Int32Array, from: number, side: number): number {
    const source = parsed[from] as number;
    const destination = parsed[from + 1] as number;
    const ports = parsed[from + 2] as number;
    const protocol = parsed[from + PARSED_PROTOCOL] as number;
    if (side === 0) return this.#find(source, destination, ports, protocol, 0);
    return this.#find(destination, source, (ports << 16) | (ports >>> 16), protocol, 1);
  }

  /** Flow with this tuple of `side`, from the client's point of view, or NOBODY. */
  #find(a: number, b: number, ports: number, protocol: number, side: number): number {
    const cells = this.#cells;
    const flows = this.#flows;
    const hash = hashWords(a, b, ports, protocol | (side << 8));
    for (let cell = hash & this.#mask; ; cell = (cell + 1) & this.#mask) {
      const value = cells[cell * 2 + 1] as number;
      if (value === 0) return NOBODY;
      if (cells[cell * 2] !== hash || (value & 1) !== side) continue;
      const flow = (value - 2) >> 1;
      const key = flow * TYPED_WORDS + (side === 0 ? SOURCE : SOURCE_OUT);
      if (flows[key] !== a || flows[key + 1] !== b || flows[key + 2] !== ports) continue;
      if (flows[flow * TYPED_WORDS + PROTOCOL] === protocol) return flow;
    }
  }

  #add(flow: number, a: number, b: number, ports: number, protocol: number, side: number): void {
    const cells = this.#cells;
    const hash = hashWords(a, b, ports, protocol | (side << 8));
    let cell = hash & this.#mask;
    while (cells[cell * 2 + 1] !== 0) cell = (cell + 1) & this.#mask;
    cells[cell * 2] = hash;
    cells[cell * 2 + 1] = ((flow << 1) | side) + 2;
  }

  /** Makes a flow whose source port stays when it is free, else the next one that is; or -1. */
  #begin(a: number, b: number, ports: number, protocol: number, nowMs: number): number {
    if (this.#flowCount >= this.#flowCountMax) return -1;
    let portsOut = ports;
    let tries = 0;
    while (this.#find(this.#natAddress, b, portsOut, protocol, 1) >= 0) {
      if (++tries === 64512) return -1;
      const port = ((portsOut & 0xff) << 8) | ((portsOut >>> 8) & 0xff);
      const next = port === 65535 ? 1024 : port + 1;
      portsOut = (portsOut & 0xffff0000) | (next >>> 8) | ((next & 0xff) << 8);
    }
    const record = this.#flowCount++;
    const flow = record * TYPED_WORDS;
    const flows = this.#flows;
    flows[flow + SOURCE] = a;
    flows[flow + DESTINATION] = b;
    flows[flow + PORTS] = ports;
    flows[flow + PROTOCOL] = protocol;
    flows[flow + SOURCE_OUT] = this.#natAddress;
    flows[flow + DESTINATION_OUT] = b;
    flows[flow + PORTS_OUT] = portsOut;
    const network = deltaOf(wordsOf(a), wordsOf(this.#natAddress));
    const transport = fold(network + deltaOf(wordsOf(ports), wordsOf(portsOut)));
    flows[flow + DELTAS] = network | ((transport === 0xffff ? 0 : transport) << 16);
    flows[flow + LAST_SEEN] = nowMs;
    flows[flow + STATE] = protocol === 17 ? UDP : HALF_OPEN;
    this.#add(record, a, b, ports, protocol, 0);
    this.#add(record, this.#natAddress, b, portsOut, protocol, 1);
    return record;
  }

  /** Counts the packet and moves state and clock; false when the flow is over. */
  #account(flow: number, direction: number, flags: number, bytes: number, nowMs: number): boolean {
    const flows = this.#flows;
    const state = flows[flow + STATE] as number;
    if (nowMs - (flows[flow + LAST_SEEN] as number) > (TIMEOUTS_MS[state] as number)) return false;
    if (flags & 5) flows[flow + STATE] = CLOSING;
    else if (state === HALF_OPEN && direction === 1) flows[flow + STATE] = ESTABLISHED;
    flows[flow + LAST_SEEN] = nowMs;
    flows[flow + PACKETS + direction] = (flows[flow + PACKETS + direction] as number) + 1;
    const octets = (flow >> 1) + OCTETS + direction;
    this.#octets[octets] = (this.#octets[octets] as number) + bytes;
    return true;
  }

  /** Gives the frame at half-word `half`, that carries `side`'s tuple, that of the other side. */
  rewrite(half: number, record: number, side: number, direction: number, protocol: number): void {
    const flow = record * TYPED_WORDS;
    const flows = this.#flows;
    const words = this.#words;
    const out = flow + (side === 0 ? SOURCE_OUT : SOURCE);
    const near = flows[out] as number;
    const far = flows[out + 1] as number;
    const ports = flows[out + 2] as number;
    const nearAt = half + (direction === 0 ? 13 : 15);
    const farAt = half + (direction === 0 ? 15 : 13);
    words[nearAt] = near;
    words[nearAt + 1] = near >>> 16;
    words[farAt] = far;
    words[farAt + 1] = far >>> 16;
    words[half + (direction === 0 ? 17 : 18)] = ports;
    words[half + (direction === 0 ? 18 : 17)] = ports >>> 16;
    const deltas = flows[flow + DELTAS] as number;
    const network = side === 0 ? deltas & 0xffff : opposite(deltas & 0xffff);
    const transport = side === 0 ? deltas >>> 16 : opposite(deltas >>> 16);
    words[half + 12] = updatedSum(words[half + 12] as number, network);
    if (protocol === 6) {
      words[half + 25] = updatedSum(words[half + 25] as number, transport);
      return;
    }
    const before = words[half + 20] as number;
    if (before !== 0) words[half + 20] = updatedSum(before, transport) || 0xffff;
  }
}
