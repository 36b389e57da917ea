/**
 * An IMIX capture (7 of 64, 4 of 594, 1 of 1518 bytes in twelve) of 10,000 TCP and UDP flows, both
 * directions as the client's side sees them, all checksums valid. Written fast, the same each time.
 */
import fs from "node:fs";
import { buildPcapHeader } from "../host/capture/build.ts";

export const IMIX_FLOWS = 10_000;
const LENGTHS = [64, 594, 64, 64, 594, 64, 1518, 594, 64, 64, 594, 64];
const LAYOUT = { bigEndian: false, nanoseconds: false, lengthsSwapped: false };
const BLOCK_BYTES = 4 << 20;
const RECORD_BYTES = 16;
const CLIENTS = 0x0a000000;
const SERVERS = 0xc6336400;
const SERVER_PORT = 443;
const MICROSECONDS_APART = 5;

/** Sum of the 16-bit words of a 32-bit number. */
function wordsOf(value: number): number {
  return (value >>> 16) + (value & 0xffff);
}

function checksumOf(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return ~((once & 0xffff) + (once >>> 16)) & 0xffff;
}

/** Writes packets until the file has at least `bytes` bytes; returns how many packets. */
export function writeImix(file: string, bytes: number): number {
  const descriptor = fs.openSync(file, "w");
  try {
    fs.writeSync(descriptor, buildPcapHeader(LAYOUT, 1));
    const block = Buffer.alloc(BLOCK_BYTES);
    const view = new DataView(block.buffer, block.byteOffset, block.length);
    let packets = 0;
    let written = 24;
    while (written < bytes) {
      block.fill(0);
      let at = 0;
      while (at + RECORD_BYTES + 1518 <= BLOCK_BYTES && written + at < bytes) {
        at += writeRecord(view, at, packets++);
      }
      fs.writeSync(descriptor, block, 0, at);
      written += at;
    }
    return packets;
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Record number `packet` at `at`, into zeros; returns its bytes. */
function writeRecord(view: DataView, at: number, packet: number): number {
  const bytes = LENGTHS[packet % LENGTHS.length] as number;
  const micros = packet * MICROSECONDS_APART;
  view.setUint32(at, 1_700_000_000 + Math.floor(micros / 1e6), true);
  view.setUint32(at + 4, micros % 1e6, true);
  view.setUint32(at + 8, bytes, true);
  view.setUint32(at + 12, bytes, true);
  // Each flow begins with a packet of its client; later on flows come in no order.
  const isFirst = packet < IMIX_FLOWS;
  const draw = Math.imul(packet, 0x9e3779b1) >>> 0;
  const mixed = Math.imul(draw ^ (draw >>> 15), 0x85ebca6b) >>> 0;
  const flow = isFirst ? packet : mixed % IMIX_FLOWS;
  const isReply = !isFirst && ((mixed >>> 16) & 1) === 1;
  writeFrame(view, at + RECORD_BYTES, bytes, flow, isReply, isFirst);
  return RECORD_BYTES + bytes;
}

function writeFrame(
  view: DataView,
  at: number,
  bytes: number,
  flow: number,
  isReply: boolean,
  isFirst: boolean,
): void {
  const client = CLIENTS + 1 + flow * 37;
  const server = SERVERS + 1 + (flow % 200);
  const clientPort = 1024 + ((flow * 53) % 60000);
  const isUdp = flow % 8 === 7;
  const protocol = isUdp ? 17 : 6;
  const ipBytes = bytes - 14;
  view.setUint32(at, 0x02000000);
  view.setUint16(at + 4, 1);
  view.setUint32(at + 6, 0x02000000);
  view.setUint16(at + 10, 2);
  view.setUint16(at + 12, 0x0800);
  view.setUint16(at + 14, 0x4500);
  view.setUint16(at + 16, ipBytes);
  view.setUint16(at + 20, 0x4000);
  view.setUint16(at + 22, (64 << 8) | protocol);
  view.setUint32(at + 26, isReply ? server : client);
  view.setUint32(at + 30, isReply ? client : server);
  const addresses = wordsOf(client) + wordsOf(server);
  view.setUint16(at + 24, checksumOf(0x4500 + ipBytes + 0x4000 + 0x4000 + protocol + addresses));
  view.setUint16(at + 34, isReply ? SERVER_PORT : clientPort);
  view.setUint16(at + 36, isReply ? clientPort : SERVER_PORT);
  const pseudo = addresses + protocol + (ipBytes - 20) + SERVER_PORT + clientPort;
  if (isUdp) {
    view.setUint16(at + 38, ipBytes - 20);
    view.setUint16(at + 40, checksumOf(pseudo + ipBytes - 20) || 0xffff);
    return;
  }
  const flags = 0x5000 | (isFirst ? 0x02 : 0x10);
  view.setUint32(at + 38, 1);
  view.setUint16(at + 46, flags);
  view.setUint16(at + 48, 0xffff);
  view.setUint16(at + 50, checksumOf(pseudo + 1 + flags + 0xffff));
}
