/**
 * PROXY protocol version 2 headers (HAProxy's proxy-protocol.txt, revision 2026/04/27): written as
 * AWS lays them out, read as the specification tells receivers to.
 *
 *   0   signature, 12 bytes
 *   12  version and command, family and transport, length u16 of what follows
 *   16  source address, destination address, source port, destination port
 *   ..  TLVs: type u8, length u16, value; CRC32C first, NOOP last (padding)
 *
 * Integers are big-endian. The CRC32C is that of the whole header with its own four bytes zero.
 *
 * Writing: `beginHeader`, then `appendTlv` for each TLV, then `finishHeader`. A header is below
 * 1 KiB, because receivers exist that read no more, and so that it fits one segment.
 *
 * Reading: `decodeHeader` reads no byte beyond those it is given, writes none but those of the CRC
 * (and puts them back), and says at which byte a header is wrong.
 */
import {
  PP2_BYTE,
  PP2_CRC,
  PP2_DETAIL,
  PP2_HEADER_BYTES,
  PP2_HEADER_BYTES_MAX,
  PP2_STATUS_ADDRESSES,
  PP2_STATUS_COMMAND,
  PP2_STATUS_CRC,
  PP2_STATUS_CRC_BYTES,
  PP2_STATUS_CRC_TWICE,
  PP2_STATUS_FAMILY,
  PP2_STATUS_INCOMPLETE,
  PP2_STATUS_OK,
  PP2_STATUS_SIGNATURE,
  PP2_STATUS_TLV_LONG,
  PP2_STATUS_TLV_OVERRUN,
  PP2_STATUS_TLV_SHORT,
  PP2_STATUS_TLV_STRAY,
  PP2_STATUS_VERSION,
  PP2_TLVS,
} from "../abi";
import { crc32c } from "./crc32c";

export const HEADER_BYTES_MIN: u32 = 16;
export const VERSION_AND_COMMAND: u32 = 12;
export const FAMILY: u32 = 13;
const LENGTH: u32 = 14;
const SIGNATURE_BYTES: u32 = 12;
export const TLV_HEAD_BYTES: u32 = 3;

const VERSION: u32 = 2;
const COMMAND_LOCAL: u32 = 0;
const COMMAND_PROXY: u32 = 1;

const TYPE_AUTHORITY: u32 = 0x02;
const TYPE_CRC32C: u32 = 0x03;
const TYPE_NOOP: u32 = 0x04;
const TYPE_UNIQUE_ID: u32 = 0x05;
const TYPE_SSL: u32 = 0x20;
const CRC_BYTES: u32 = 4;
/** The longest name of DNS, and what HAProxy accepts. */
const AUTHORITY_BYTES_MAX: u32 = 255;
const UNIQUE_ID_BYTES_MAX: u32 = 128;
/** Client flags and verification result, in front of the sub-TLVs. */
const SSL_HEAD_BYTES: u32 = 5;

const signature: usize = memory.data<u8>([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]);

/** Bytes of the address block of a family byte, by its high nibble: unspecified, v4, v6, UNIX. */
const addressBytesByFamily: usize = memory.data<u8>([0, 12, 36, 216]);

function addressBytesOf(family: u32): u32 {
  return load<u8>(addressBytesByFamily + <usize>((family >> 4) & 3));
}

function loadBe16(at: usize): u32 {
  return <u32>bswap<u16>(load<u16>(at));
}

function storeBe16(at: usize, value: u32): void {
  store<u16>(at, bswap<u16>(<u16>value));
}

/** Starts a header at `at` with an address block of zeros; returns its length so far. */
export function beginHeader(at: usize, isProxy: bool, family: u32, addressBytes: u32): u32 {
  memory.copy(at, signature, SIGNATURE_BYTES);
  store<u8>(at, <u8>((VERSION << 4) | (isProxy ? COMMAND_PROXY : COMMAND_LOCAL)), 12);
  store<u8>(at, <u8>family, 13);
  memory.fill(at + HEADER_BYTES_MIN, 0, addressBytes);
  return HEADER_BYTES_MIN + addressBytes;
}

/**
 * Adds the head of a TLV at the end of a header of `length` bytes, and zeros for its value, which
 * belongs behind the head. Returns the new length, or 0 when the header would be too long.
 */
export function appendTlv(at: usize, length: u32, type: u32, bytes: u32): u32 {
  const after = length + TLV_HEAD_BYTES + bytes;
  if (bytes > PP2_HEADER_BYTES_MAX || after > PP2_HEADER_BYTES_MAX) return 0;
  const tlv = at + <usize>length;
  store<u8>(tlv, <u8>type);
  storeBe16(tlv + 1, bytes);
  memory.fill(tlv + TLV_HEAD_BYTES, 0, bytes);
  return after;
}

/**
 * Pads a header to `padTo` bytes with a NOOP (not if fewer than the 3 bytes of one are missing),
 * and writes its length. Returns it; the CRC is for `seal`.
 */
export function finishHeader(at: usize, length: u32, padTo: u32): u32 {
  let total = length;
  if (length + TLV_HEAD_BYTES <= padTo) {
    total = appendTlv(at, length, TYPE_NOOP, padTo - length - TLV_HEAD_BYTES);
    assert(total == padTo, "pp2: a header was padded beyond its room");
  }
  storeBe16(at + LENGTH, total - HEADER_BYTES_MIN);
  return total;
}

/** Writes the CRC32C of a header of `bytes` bytes whose value lies `crcAt` bytes from its begin. */
export function seal(at: usize, bytes: u32, crcAt: u32): void {
  const crc = at + <usize>crcAt;
  store<u32>(crc, 0);
  store<u32>(crc, bswap<u32>(crc32c(at, bytes)));
}

let result: usize = 0;

function fail(status: u32, at: u32, detail: u32): u32 {
  store<u32>(result, at, PP2_BYTE);
  store<u32>(result, detail, PP2_DETAIL);
  return status;
}

/**
 * Reads the header at `start`, of which `bytes` bytes are there; more than the header may be. What
 * it is goes to `into` (PP2_*). Returns PP2_STATUS_*.
 */
export function decodeHeader(start: usize, bytes: u32, into: usize): u32 {
  result = into;
  store<u32>(into, 0, PP2_TLVS);
  store<u32>(into, 0, PP2_CRC);
  const known = min<u32>(bytes, SIGNATURE_BYTES);
  for (let at: u32 = 0; at < known; at++) {
    const byte = load<u8>(start + <usize>at);
    if (byte != load<u8>(signature + <usize>at)) return fail(PP2_STATUS_SIGNATURE, at, byte);
  }
  if (bytes < HEADER_BYTES_MIN) return fail(PP2_STATUS_INCOMPLETE, bytes, HEADER_BYTES_MIN);
  const versionAndCommand = <u32>load<u8>(start, VERSION_AND_COMMAND);
  const command = versionAndCommand & 15;
  const family = <u32>load<u8>(start, FAMILY);
  const total = HEADER_BYTES_MIN + loadBe16(start + LENGTH);
  if (versionAndCommand >> 4 != VERSION) {
    return fail(PP2_STATUS_VERSION, VERSION_AND_COMMAND, versionAndCommand >> 4);
  }
  if (command > COMMAND_PROXY) return fail(PP2_STATUS_COMMAND, VERSION_AND_COMMAND, command);
  if (bytes < total) return fail(PP2_STATUS_INCOMPLETE, bytes, total);
  store<u32>(into, total, PP2_HEADER_BYTES);
  if (command == COMMAND_LOCAL) return decodeLocal(start, total, family);
  if (!isFamilyExpected(family)) return fail(PP2_STATUS_FAMILY, FAMILY, family);
  const tlvs = HEADER_BYTES_MIN + addressBytesOf(family);
  if (total < tlvs) return fail(PP2_STATUS_ADDRESSES, LENGTH, tlvs - HEADER_BYTES_MIN);
  return decodeTlvs(start, tlvs, total);
}

/** The seven bytes that a sender may put there: unspecified, and stream or datagram of each family. */
function isFamilyExpected(family: u32): bool {
  if (family == 0) return true;
  const network = family >> 4;
  const transport = family & 15;
  return network >= 1 && network <= 3 && transport >= 1 && transport <= 2;
}

/**
 * LOCAL: receivers skip what follows, whatever its family says. AWS's health checks carry TLVs and
 * no addresses there, others addresses and no TLVs. A CRC32C is checked wherever the bytes can be
 * read as TLVs; bytes that cannot are skipped.
 */
function decodeLocal(start: usize, total: u32, family: u32): u32 {
  const atOnce = decodeTlvs(start, HEADER_BYTES_MIN, total);
  if (load<u32>(result, PP2_CRC) != 0) {
    if (atOnce == PP2_STATUS_OK || atOnce == PP2_STATUS_CRC) return atOnce;
  }
  const isRead = atOnce == PP2_STATUS_OK;
  const behind = HEADER_BYTES_MIN + addressBytesOf(family);
  if (behind != HEADER_BYTES_MIN && behind <= total) {
    const status = decodeTlvs(start, behind, total);
    if (status == PP2_STATUS_OK || status == PP2_STATUS_CRC) return status;
  }
  store<u32>(result, 0, PP2_CRC);
  store<u32>(result, isRead ? HEADER_BYTES_MIN : total, PP2_TLVS);
  return PP2_STATUS_OK;
}

/** Checks the TLVs from `first` to `end`, and the CRC32C among them. Offsets are the header's. */
function decodeTlvs(start: usize, first: u32, end: u32): u32 {
  store<u32>(result, first, PP2_TLVS);
  let crcAt: u32 = 0;
  let at = first;
  while (at < end) {
    if (end - at < TLV_HEAD_BYTES) return fail(PP2_STATUS_TLV_STRAY, at, end - at);
    const type = <u32>load<u8>(start + <usize>at);
    const bytes = loadBe16(start + <usize>at + 1);
    const value = at + TLV_HEAD_BYTES;
    if (bytes > end - value) return fail(PP2_STATUS_TLV_OVERRUN, at, bytes);
    if (type == TYPE_CRC32C) {
      if (bytes != CRC_BYTES) return fail(PP2_STATUS_CRC_BYTES, at, bytes);
      if (crcAt != 0) return fail(PP2_STATUS_CRC_TWICE, at, crcAt - TLV_HEAD_BYTES);
      crcAt = value;
    } else if (type == TYPE_SSL) {
      const status = checkSsl(start, value, value + bytes);
      if (status != PP2_STATUS_OK) return status;
    } else if (isTooLong(type, bytes)) return fail(PP2_STATUS_TLV_LONG, at, bytes);
    at = value + bytes;
  }
  store<u32>(result, crcAt, PP2_CRC);
  return crcAt == 0 ? PP2_STATUS_OK : checkCrc(start, end, crcAt);
}

function isTooLong(type: u32, bytes: u32): bool {
  const isAuthority = type == TYPE_AUTHORITY && bytes > AUTHORITY_BYTES_MAX;
  return isAuthority || (type == TYPE_UNIQUE_ID && bytes > UNIQUE_ID_BYTES_MAX);
}

function checkSsl(start: usize, value: u32, end: u32): u32 {
  if (end - value < SSL_HEAD_BYTES) {
    return fail(PP2_STATUS_TLV_SHORT, value - TLV_HEAD_BYTES, end - value);
  }
  let at = value + SSL_HEAD_BYTES;
  while (at < end) {
    if (end - at < TLV_HEAD_BYTES) return fail(PP2_STATUS_TLV_STRAY, at, end - at);
    const bytes = loadBe16(start + <usize>at + 1);
    if (bytes > end - at - TLV_HEAD_BYTES) return fail(PP2_STATUS_TLV_OVERRUN, at, bytes);
    at += TLV_HEAD_BYTES + bytes;
  }
  return PP2_STATUS_OK;
}

function checkCrc(start: usize, total: u32, crcAt: u32): u32 {
  const at = start + <usize>crcAt;
  const stored = load<u32>(at);
  store<u32>(at, 0);
  const computed = crc32c(start, total);
  store<u32>(at, stored);
  if (bswap<u32>(stored) == computed) return PP2_STATUS_OK;
  return fail(PP2_STATUS_CRC, crcAt, computed);
}
