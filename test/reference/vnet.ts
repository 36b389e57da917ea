/**
 * The twin of what devices do to packets behind a virtio_net_hdr (virtio 1.2 section 5.1.6): they
 * complete partial checksums and cut super-packets of datagrams into segments. Written the obvious
 * way, word by word and datagram by datagram.
 */
import {
  addOnes,
  concat,
  internetChecksum,
  onesSum,
  readU16,
  u16,
  writeU16,
} from "../../fixtures/bytes.ts";

export interface VnetHeader {
  isPartial: boolean;
  isValid?: boolean;
  gsoType?: number;
  headerBytes?: number;
  segmentBytes?: number;
  checksumStart: number;
  checksumOffset: number;
}

const le16 = (value: number) => u16(value).reverse();

export function headerBytesOf(header: VnetHeader): Uint8Array {
  return concat(
    Uint8Array.of((header.isPartial ? 1 : 0) | (header.isValid ? 2 : 0), header.gsoType ?? 0),
    le16(header.headerBytes ?? 0),
    le16(header.segmentBytes ?? 0),
    le16(header.checksumStart),
    le16(header.checksumOffset),
    u16(0),
  );
}

export function headerOf(bytes: Uint8Array): VnetHeader {
  const word = (at: number) => (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
  return {
    isPartial: ((bytes[0] ?? 0) & 1) !== 0,
    isValid: ((bytes[0] ?? 0) & 2) !== 0,
    gsoType: bytes[1] ?? 0,
    headerBytes: word(2),
    segmentBytes: word(4),
    checksumStart: word(6),
    checksumOffset: word(8),
  };
}

/** The packet as a sender leaves it to the device: the field holds the pseudo-header's sum. */
export function withPartial(packet: Uint8Array, start: number, offset: number): Uint8Array {
  const left = packet.slice();
  const complete = readU16(packet, start + offset);
  writeU16(left, start + offset, 0);
  const covered = onesSum(left.subarray(start));
  writeU16(left, start + offset, addOnes(0xffff - complete, 0xffff - covered) || 0xffff);
  return left;
}

/** The packet as a device sends it: the checksum over everything from its start on. */
export function completed(packet: Uint8Array, header: VnetHeader): Uint8Array {
  if (!header.isPartial) return packet;
  const { checksumStart: start, checksumOffset: offset } = header;
  const whole = packet.slice();
  const checksum = internetChecksum(packet.subarray(start));
  // All ones is the other zero, and means "a checksum" to UDP (RFC 768).
  const isUdp = offset === 6;
  writeU16(whole, start + offset, isUdp ? checksum || 0xffff : checksum);
  return whole;
}

/**
 * The datagrams of a UDP super-packet, complete; any other packet is completed and stays one. The
 * identification of IPv4, which the kernel makes up, is left at zero.
 */
export function datagramsOf(packet: Uint8Array, header: VnetHeader): Uint8Array[] {
  if (header.gsoType !== 5) return [withoutId(completed(packet, header))];
  const { segmentBytes = 0 } = header;
  const ipBytes = (packet[0] ?? 0) >> 4 === 4 ? 20 : 40;
  const head = packet.subarray(0, ipBytes + 8);
  const payload = packet.subarray(ipBytes + 8);
  const datagrams: Uint8Array[] = [];
  for (let at = 0; at < payload.length; at += segmentBytes) {
    const datagram = concat(head, payload.subarray(at, at + segmentBytes));
    setLengths(datagram, ipBytes);
    datagrams.push(withoutId(datagram));
  }
  return datagrams;
}

function setLengths(datagram: Uint8Array, ipBytes: number): void {
  const length = datagram.length - ipBytes;
  writeU16(datagram, ipBytes + 4, length);
  writeU16(datagram, ipBytes + 6, 0);
  const isIpv4 = ipBytes === 20;
  writeU16(datagram, isIpv4 ? 2 : 4, isIpv4 ? datagram.length : length);
  const ends = datagram.subarray(isIpv4 ? 12 : 8, ipBytes);
  const pseudo = concat(ends, u16(17), u16(length));
  const checksum = internetChecksum(pseudo, datagram.subarray(ipBytes));
  writeU16(datagram, ipBytes + 6, checksum || 0xffff);
}

function withoutId(packet: Uint8Array): Uint8Array {
  if ((packet[0] ?? 0) >> 4 !== 4) return packet;
  const copy = packet.slice();
  const headerBytes = ((copy[0] ?? 0) & 15) * 4;
  writeU16(copy, 4, 0);
  writeU16(copy, 10, 0);
  writeU16(copy, 10, internetChecksum(copy.subarray(0, headerBytes)));
  return copy;
}
