/**
 * Reads the captures that tests use: little-endian or big-endian pcap, and pcapng whose packets
 * stand in enhanced packet blocks. The obvious slow way, independent of host/capture; what it does not
 * know it refuses by throwing. A record that is cut off ends the reading.
 */
import type { Link } from "../../fixtures/verify.ts";

export interface CapturedFrame {
  link: Link;
  timeNs: bigint;
  wireBytes: number;
  bytes: Uint8Array;
}

const LINKS = new Map<number, Link>([
  [0, "null"],
  [1, "ethernet"],
  [12, "raw"],
  [101, "raw"],
  [108, "null"],
  [113, "sll"],
  [228, "raw"],
  [229, "raw"],
  [276, "sll2"],
]);

function linkOf(linkType: number): Link {
  const link = LINKS.get(linkType);
  if (link === undefined) throw new Error(`link type ${linkType} is not one that tests read`);
  return link;
}

export function readCapture(file: Uint8Array): CapturedFrame[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const magic = view.getUint32(0);
  if (magic === 0x0a0d0d0a) return readPcapng(view);
  const little = magic === 0xd4c3b2a1 || magic === 0x4d3cb2a1;
  const big = magic === 0xa1b2c3d4 || magic === 0xa1b23c4d;
  if (!little && !big) throw new Error(`magic number ${magic.toString(16)} is no capture's`);
  const unitNs = magic === 0x4d3cb2a1 || magic === 0xa1b23c4d ? 1n : 1000n;
  return readPcap(view, little, unitNs);
}

function slice(view: DataView, offset: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + offset, length);
}

function readPcap(view: DataView, little: boolean, unitNs: bigint): CapturedFrame[] {
  const link = linkOf(view.getUint32(20, little) & 0xffff);
  const frames: CapturedFrame[] = [];
  for (let offset = 24; offset + 16 <= view.byteLength; ) {
    const seconds = BigInt(view.getUint32(offset, little));
    const timeNs = seconds * 1_000_000_000n + BigInt(view.getUint32(offset + 4, little)) * unitNs;
    const captured = view.getUint32(offset + 8, little);
    const wireBytes = view.getUint32(offset + 12, little);
    if (offset + 16 + captured > view.byteLength) break;
    frames.push({ link, timeNs, wireBytes, bytes: slice(view, offset + 16, captured) });
    offset += 16 + captured;
  }
  return frames;
}

interface Interface {
  link: Link;
  unitNs: bigint;
}

function readInterface(view: DataView, offset: number, length: number, little: boolean): Interface {
  let unitNs = 1000n;
  for (let at = offset + 16; at + 4 <= offset + length - 4; ) {
    const code = view.getUint16(at, little);
    const size = view.getUint16(at + 2, little);
    if (code === 9) {
      const resolution = view.getUint8(at + 4);
      if (resolution !== 6 && resolution !== 9) throw new Error(`resolution ${resolution}`);
      unitNs = resolution === 9 ? 1n : 1000n;
    }
    at += 4 + Math.ceil(size / 4) * 4;
  }
  return { link: linkOf(view.getUint16(offset + 8, little)), unitNs };
}

function readPcapng(view: DataView): CapturedFrame[] {
  const frames: CapturedFrame[] = [];
  let interfaces: Interface[] = [];
  let little = true;
  for (let offset = 0; offset + 12 <= view.byteLength; ) {
    if (view.getUint32(offset) === 0x0a0d0d0a) {
      little = view.getUint32(offset + 8) === 0x4d3c2b1a;
      interfaces = [];
    }
    const type = view.getUint32(offset, little);
    const length = view.getUint32(offset + 4, little);
    if (length < 12 || offset + length > view.byteLength) break;
    if (type === 1) interfaces.push(readInterface(view, offset, length, little));
    if (type === 6) {
      const from = interfaces[view.getUint32(offset + 8, little)];
      if (from === undefined) throw new Error(`packet at ${offset} names no interface`);
      const high = BigInt(view.getUint32(offset + 12, little));
      const timeNs = ((high << 32n) | BigInt(view.getUint32(offset + 16, little))) * from.unitNs;
      const captured = view.getUint32(offset + 20, little);
      const wireBytes = view.getUint32(offset + 24, little);
      const bytes = slice(view, offset + 28, captured);
      frames.push({ link: from.link, timeNs, wireBytes, bytes });
    }
    offset += length;
  }
  return frames;
}
