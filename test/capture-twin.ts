/**
 * The slow twin of the record walk: reads a whole capture with a DataView, record by record, and
 * says at which byte and why it would have stopped. Written from the formats' drafts alone.
 */

export interface TwinPacket {
  recordAt: number;
  dataAt: number;
  captured: number;
  wire: number;
  /** undefined: the format has no time for it. */
  ns: bigint | undefined;
  linkType: number;
}

export interface Twin {
  packets: TwinPacket[];
  /** Byte of the record or block that ended the reading; -1 if the file header did. */
  brokenAt: number | undefined;
}

const LINK_TYPES = new Set([0, 1, 12, 14, 101, 108, 113, 228, 229, 276]);
const MAX = 262144;

export function readTwin(bytes: Uint8Array): Twin {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 4) return { packets: [], brokenAt: -1 };
  if (view.getUint32(0) === 0x0a0d0d0a) return readPcapng(view);
  return readPcap(view);
}

function readPcap(view: DataView): Twin {
  const size = view.byteLength;
  const magics = [0xa1b2c3d4, 0xa1b23c4d];
  const little = magics.includes(view.getUint32(0, true));
  if ((!little && !magics.includes(view.getUint32(0))) || size < 24) {
    return { packets: [], brokenAt: -1 };
  }
  const nano = view.getUint32(0, little) === 0xa1b23c4d;
  const major = view.getUint16(4, little);
  const minor = view.getUint16(6, little);
  let snap = view.getUint32(16, little);
  if (snap === 0 || snap > MAX) snap = MAX;
  const linkType = view.getUint32(20, little) & 0x3ffffff;
  if (major !== 2 || !LINK_TYPES.has(linkType)) return { packets: [], brokenAt: -1 };
  const packets: TwinPacket[] = [];
  const lengths = (at: number): [number, number] => {
    const a = view.getUint32(at + 8, little);
    const b = view.getUint32(at + 12, little);
    if (minor < 3) return [b, a];
    return minor === 3 ? [Math.min(a, b), Math.max(a, b)] : [a, b];
  };
  const looksLikeRecord = (at: number) =>
    at + 16 > size ||
    (Math.min(view.getUint32(at + 8, little), view.getUint32(at + 12, little)) <= MAX &&
      view.getUint32(at + 4, little) < (nano ? 1e9 : 1e6));
  for (let at = 24; at < size; ) {
    if (at + 16 > size) return { packets, brokenAt: at };
    const [captured, wire] = lengths(at);
    const end = at + 16 + captured;
    if (captured > MAX || end > size) return { packets, brokenAt: at };
    if (captured > snap) {
      if (!looksLikeRecord(end)) return { packets, brokenAt: at };
      snap = MAX;
    }
    const seconds = BigInt(view.getUint32(at, little));
    const fraction = BigInt(view.getUint32(at + 4, little));
    const ns = seconds * 1_000_000_000n + fraction * (nano ? 1n : 1000n);
    packets.push({ recordAt: at, dataAt: at + 16, captured, wire, ns, linkType });
    at = end;
  }
  return { packets, brokenAt: undefined };
}

interface Clock {
  linkType: number;
  snap: number;
  toNs(units: bigint): bigint;
}

function readPcapng(view: DataView): Twin {
  const size = view.byteLength;
  const packets: TwinPacket[] = [];
  let little = false;
  let clocks: Clock[] = [];
  for (let at = 0; at < size; ) {
    const broken = { packets, brokenAt: at };
    if (at + 12 > size) return broken;
    const isSection = view.getUint32(at) === 0x0a0d0d0a;
    if (isSection) {
      little = view.getUint32(at + 8, true) === 0x1a2b3c4d;
      if (!little && view.getUint32(at + 8) !== 0x1a2b3c4d) return broken;
      clocks = [];
    }
    const type = view.getUint32(at, little);
    const length = view.getUint32(at + 4, little);
    const end = at + length;
    const isBad = length < 12 || length % 4 !== 0 || length > 1 << 24 || end > size;
    if (isBad || view.getUint32(end - 4, little) !== length) return broken;
    if (isSection) {
      if (length < 28 || view.getUint16(at + 12, little) !== 1) return broken;
      if (!readOptions(view, at + 24, end - 4, little)) return broken;
    } else if (type === 1) {
      const clock = readClock(view, at, end, little);
      if (!clock) return broken;
      clocks.push(clock);
    } else if (type === 2 || type === 3 || type === 6) {
      const packet = readPacket(view, at, type, little, clocks);
      if (!packet) return broken;
      packets.push(packet);
    }
    at = end;
  }
  return { packets, brokenAt: undefined };
}

function readOptions(view: DataView, at: number, end: number, little: boolean) {
  const options = new Map<number, number>();
  for (let next = at; next + 4 <= end; ) {
    const code = view.getUint16(next, little);
    const bytes = view.getUint16(next + 2, little);
    if (code === 0) break;
    if (next + 4 + bytes > end) return undefined;
    if ((code === 9 && bytes >= 1) || (code === 14 && bytes >= 8)) options.set(code, next + 4);
    next += 4 + Math.ceil(bytes / 4) * 4;
  }
  return options;
}

function readClock(view: DataView, at: number, end: number, little: boolean): Clock | undefined {
  if (end - at < 20) return undefined;
  const options = readOptions(view, at + 16, end - 4, little);
  if (!options) return undefined;
  const resolutionAt = options.get(9);
  const offsetAt = options.get(14);
  const resolution = resolutionAt === undefined ? 6 : view.getUint8(resolutionAt);
  const offset = offsetAt === undefined ? 0n : view.getBigInt64(offsetAt, little);
  const exponent = BigInt(resolution & 127);
  const toNs = (units: bigint) => {
    let ns = 0n;
    if (resolution & 128) {
      if (exponent < 64n) ns = (units * 1_000_000_000n) >> exponent;
    } else if (exponent <= 28n) ns = (units * 1_000_000_000n) / 10n ** exponent;
    return BigInt.asIntN(64, ns + offset * 1_000_000_000n);
  };
  return { linkType: view.getUint16(at + 8, little), snap: view.getUint32(at + 12, little), toNs };
}

function readPacket(
  view: DataView,
  at: number,
  type: number,
  little: boolean,
  clocks: Clock[],
): TwinPacket | undefined {
  const length = view.getUint32(at + 4, little);
  if (length < (type === 3 ? 16 : 32)) return undefined;
  let index = 0;
  if (type === 6) index = view.getUint32(at + 8, little);
  if (type === 2) index = view.getUint16(at + 8, little);
  const clock = clocks[index];
  if (!clock || !LINK_TYPES.has(clock.linkType)) return undefined;
  const { linkType } = clock;
  if (type === 3) {
    const wire = view.getUint32(at + 8, little);
    const captured = Math.min(wire, length - 16, clock.snap || Number.POSITIVE_INFINITY);
    if (captured > MAX) return undefined;
    return { recordAt: at, dataAt: at + 12, captured, wire, ns: undefined, linkType };
  }
  const high = BigInt(view.getUint32(at + 12, little));
  const ns = clock.toNs((high << 32n) | BigInt(view.getUint32(at + 16, little)));
  const captured = view.getUint32(at + 20, little);
  const wire = view.getUint32(at + 24, little);
  if (captured > length - 32 || captured > MAX) return undefined;
  return { recordAt: at, dataAt: at + 28, captured, wire, ns, linkType };
}
