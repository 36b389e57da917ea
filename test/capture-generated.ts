/** Captures made for tests: every format, byte order and clock, with the frames they hold. */
import {
  buildBlock,
  buildInterface,
  buildPacket,
  buildPcapHeader,
  buildPcapRecord,
  buildSection,
  buildSimplePacket,
} from "../host/capture/build.ts";

const START_NS = 1_700_000_000_123_456_789n;
const STEP_NS = 1_500_750_250n;

/** Frames of 0 to 400 bytes whose content tells their number. */
export function makeFrames(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => new Uint8Array((i * 37) % 401).fill(i + 1));
}

export const makeTimeNs = (i: number) => START_NS + BigInt(i) * STEP_NS;

export interface PcapVariant {
  bigEndian: boolean;
  nanoseconds: boolean;
  minor: number;
}

export const PCAP_VARIANTS: PcapVariant[] = [false, true].flatMap((bigEndian) =>
  [false, true].flatMap((nanoseconds) =>
    [0, 2, 3, 4, 5].map((minor) => ({ bigEndian, nanoseconds, minor })),
  ),
);

/** A pcap of `count` frames; every third was cut: its wire length is 100 more. */
export function makePcap(variant: PcapVariant, count: number, linkType = 1): Uint8Array {
  const layout = { ...variant, lengthsSwapped: variant.minor < 3 };
  const records = makeFrames(count).map((bytes, i) => {
    const wireBytes = bytes.length + (i % 3 === 0 ? 100 : 0);
    // 2.3 has both orders in the wild.
    const lengthsSwapped = layout.lengthsSwapped || (variant.minor === 3 && i % 2 === 1);
    return buildPcapRecord(
      { ...layout, lengthsSwapped },
      { timeNs: makeTimeNs(i), bytes, wireBytes },
    );
  });
  return Buffer.concat([buildPcapHeader(layout, linkType, 65535, variant.minor), ...records]);
}

/** if_tsresol values: from seconds to far below a nanosecond, decimal and binary. */
export const RESOLUTIONS = [0, 3, 6, 9, 12, 18, 28, 29, 127, 0x80, 0x8a, 0x9e, 0xa0, 0xbf, 0xff];

function unitsAt(resolution: number, ns: bigint): bigint {
  const exponent = BigInt(resolution & 127);
  const scale = resolution & 128 ? 1n << exponent : 10n ** exponent;
  return BigInt.asUintN(64, (ns * scale) / 1_000_000_000n);
}

const CUSTOM = 0x0bad;
const STATISTICS = 5;

/**
 * A pcapng of two sections with every kind of packet block, blocks to step over between them, and
 * in the first section interfaces with all RESOLUTIONS.
 */
export function makePcapng(bigEndian: boolean, count: number): Uint8Array {
  const other = (bytes: number) => buildBlock(bigEndian, CUSTOM, new Uint8Array(bytes).fill(0xee));
  const parts = [buildSection(bigEndian, [[4, new TextEncoder().encode("a test")]])];
  for (const [i, resolution] of RESOLUTIONS.entries()) {
    const offsetSeconds = i % 2 ? -3600n : 7n;
    const linkType = i === 1 ? 276 : 1;
    const taken = { linkType, snapBytes: i === 0 ? 100 : 0, name: `if${i}`, resolution };
    parts.push(buildInterface(bigEndian, i % 3 ? taken : { ...taken, offsetSeconds }));
  }
  for (const [i, bytes] of makeFrames(count).entries()) {
    const index = i % RESOLUTIONS.length;
    const units = unitsAt(RESOLUTIONS[index] as number, makeTimeNs(i));
    const packet = { interface: index, units, bytes, wireBytes: bytes.length + (i % 3) };
    if (i % 7 === 5) parts.push(buildSimplePacket(bigEndian, bytes.subarray(0, 100), 400));
    else if (i % 7 === 6) parts.push(buildPacket(bigEndian, packet, true));
    else parts.push(buildPacket(bigEndian, i % 2 ? packet : { ...packet, comment: `no. ${i}` }));
    if (i % 5 === 0) parts.push(other(i * 3));
  }
  // The second section has the other byte order and an interface number that the first had.
  parts.push(buildSection(!bigEndian), buildInterface(!bigEndian, { linkType: 113 }));
  for (const [i, bytes] of makeFrames(3).entries()) {
    const units = makeTimeNs(i) / 1000n;
    parts.push(buildPacket(!bigEndian, { interface: 0, units, bytes }));
  }
  parts.push(buildBlock(!bigEndian, STATISTICS, new Uint8Array(12)));
  return Buffer.concat(parts);
}
