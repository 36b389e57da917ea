/**
 * What the first bytes of a capture say: format, byte order, clock, link types.
 *
 * Standards: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, the LINKTYPE_ registry
 * (draft-ietf-opsawg-pcaplinktype). Everything here is pure: bytes in, values or a reason out.
 */
import { WALK_CAPTURED_BYTES_MAX } from "../../assembly/abi.ts";
import type { LinkKind } from "../engine/api.ts";
import type { CaptureInterface } from "./source.ts";

export const PCAP_FILE_HEADER_BYTES = 24;
export const PCAP_RECORD_HEADER_BYTES = 16;
export const SECTION_HEADER = 0x0a0d0d0a;
export const INTERFACE_DESCRIPTION = 1;
export const OBSOLETE_PACKET = 2;
export const SIMPLE_PACKET = 3;
export const ENHANCED_PACKET = 6;
export const SECTION_HEADER_BYTES_MIN = 28;
export const INTERFACE_DESCRIPTION_BYTES_MIN = 20;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
/** The upper six bits of the link type tell about frame check sequences. */
const LINK_TYPE_MASK = 0x03ffffff;

const LINKS: ReadonlyMap<number, LinkKind> = new Map([
  [0, "null"],
  [1, "ethernet"],
  [12, "raw"], // DLT_RAW where captures were written with the system's own number
  [14, "raw"], // the same on OpenBSD
  [101, "raw"],
  [108, "null"],
  [113, "sll"],
  [228, "raw"],
  [229, "raw"],
  [276, "sll2"],
]);

/** Well-known LINKTYPE_ names, for messages and reports. */
const LINK_NAMES: Readonly<Record<number, string>> = {
  0: "NULL",
  1: "ETHERNET",
  3: "AX25",
  6: "IEEE802_5",
  7: "ARCNET_BSD",
  8: "SLIP",
  9: "PPP",
  10: "FDDI",
  12: "RAW",
  14: "RAW",
  50: "PPP_HDLC",
  51: "PPP_ETHER",
  100: "ATM_RFC1483",
  101: "RAW",
  104: "C_HDLC",
  105: "IEEE802_11",
  107: "FRELAY",
  108: "LOOP",
  113: "LINUX_SLL",
  114: "LTALK",
  117: "PFLOG",
  119: "IEEE802_11_PRISM",
  122: "IP_OVER_FC",
  127: "IEEE802_11_RADIOTAP",
  129: "ARCNET_LINUX",
  138: "APPLE_IP_OVER_IEEE1394",
  139: "MTP2_WITH_PHDR",
  140: "MTP2",
  141: "MTP3",
  142: "SCCP",
  143: "DOCSIS",
  144: "LINUX_IRDA",
  147: "USER0",
  163: "IEEE802_11_AVS",
  166: "PPP_PPPD",
  169: "GPRS_LLC",
  177: "LINUX_LAPD",
  187: "BLUETOOTH_HCI_H4",
  189: "USB_LINUX",
  192: "PPI",
  195: "IEEE802_15_4_WITHFCS",
  201: "BLUETOOTH_HCI_H4_WITH_PHDR",
  204: "PPP_WITH_DIR",
  220: "USB_LINUX_MMAPPED",
  224: "FC_2",
  227: "CAN_SOCKETCAN",
  228: "IPV4",
  229: "IPV6",
  230: "IEEE802_15_4_NOFCS",
  231: "DBUS",
  239: "NFLOG",
  247: "INFINIBAND",
  248: "SCTP",
  249: "USBPCAP",
  251: "BLUETOOTH_LE_LL",
  252: "WIRESHARK_UPPER_PDU",
  253: "NETLINK",
  254: "BLUETOOTH_LINUX_MONITOR",
  256: "BLUETOOTH_LE_LL_WITH_PHDR",
  258: "PKTAP",
  266: "USB_DARWIN",
  271: "VSOCK",
  272: "NORDIC_BLE",
  276: "LINUX_SLL2",
  283: "IEEE802_15_4_TAP",
};

/** The interface that frames of a link type belong to. */
export function describeInterface(
  linkType: number,
  snapBytes: number,
  name = "",
): CaptureInterface {
  const linkName = LINK_NAMES[linkType] ?? String(linkType);
  return { linkType, linkName, link: LINKS.get(linkType), name, snapBytes };
}

/** `PPP (9)`, or the number alone where it has no name. */
export function linkTypeText({ linkName, linkType }: CaptureInterface): string {
  return linkName === String(linkType) ? linkName : `${linkName} (${linkType})`;
}

/** What is wrong with a captured length above what a file with this snapshot length may hold. */
export function tooLongText(capturedBytes: number, snapBytes: number): string {
  const isUsual = snapBytes > 0 && snapBytes <= WALK_CAPTURED_BYTES_MAX;
  const limit = isUsual ? `the file's ${snapBytes}` : `the ${WALK_CAPTURED_BYTES_MAX} of any file`;
  return `captured length ${capturedBytes} exceeds ${limit}`;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** By content: the first four bytes (two for gzip). */
export function detectFormat(bytes: Uint8Array): "gzip" | "pcap" | "pcapng" | undefined {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return "gzip";
  if (bytes.length < 4) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0) === SECTION_HEADER) return "pcapng";
  for (const little of [true, false]) {
    const magic = view.getUint32(0, little);
    if (magic === MAGIC_MICROSECONDS || magic === MAGIC_NANOSECONDS) return "pcap";
  }
  return undefined;
}

export interface PcapHeader {
  bigEndian: boolean;
  nanoseconds: boolean;
  major: number;
  minor: number;
  snapBytes: number;
  linkType: number;
}

/** Reads the 24 bytes at the begin of a pcap; their magic has been checked. */
export function readPcapHeader(bytes: Uint8Array): PcapHeader {
  const view = viewOf(bytes);
  const first = view.getUint32(0);
  const bigEndian = first === MAGIC_MICROSECONDS || first === MAGIC_NANOSECONDS;
  return {
    bigEndian,
    nanoseconds: view.getUint32(0, !bigEndian) === MAGIC_NANOSECONDS,
    major: view.getUint16(4, !bigEndian),
    minor: view.getUint16(6, !bigEndian),
    snapBytes: view.getUint32(16, !bigEndian),
    linkType: (view.getUint32(20, !bigEndian) & LINK_TYPE_MASK) >>> 0,
  };
}

/** A pcapng option: code and value. */
type Option = [code: number, value: DataView];

/** Options of [at, end) of a block; a string says what is wrong with them. */
function readOptions(view: DataView, at: number, end: number, little: boolean): Option[] | string {
  const options: Option[] = [];
  let next = at;
  while (next + 4 <= end) {
    const code = view.getUint16(next, little);
    const bytes = view.getUint16(next + 2, little);
    if (code === 0) break;
    if (bytes > end - next - 4) {
      return `option of ${bytes} bytes where ${end - next - 4} are left`;
    }
    options.push([code, new DataView(view.buffer, view.byteOffset + next + 4, bytes)]);
    next += 4 + ((bytes + 3) & ~3);
  }
  return options;
}

/** The byte order and length of a section header; a string says what is wrong with it. */
export function readSectionStart(
  bytes: Uint8Array,
): { bigEndian: boolean; length: number } | string {
  const view = viewOf(bytes);
  const magic = view.getUint32(8);
  const bigEndian = magic === BYTE_ORDER_MAGIC;
  if (!bigEndian && view.getUint32(8, true) !== BYTE_ORDER_MAGIC) {
    return `byte-order magic ${magic.toString(16).padStart(8, "0")} is not 1a2b3c4d`;
  }
  return { bigEndian, length: view.getUint32(4, !bigEndian) };
}

/** Checks a whole section header; returns what is wrong with it. */
export function checkSectionHeader(block: Uint8Array, bigEndian: boolean): string | undefined {
  const view = viewOf(block);
  const trailer = view.getUint32(block.length - 4, !bigEndian);
  if (trailer !== block.length) return `block of ${block.length} bytes ends with length ${trailer}`;
  const major = view.getUint16(12, !bigEndian);
  const minor = view.getUint16(14, !bigEndian);
  if (major !== 1) return `pcapng version ${major}.${minor} is not 1.x`;
  const options = readOptions(view, 24, block.length - 4, !bigEndian);
  return typeof options === "string" ? options : undefined;
}

/** How an interface's timestamps count: `scale` by `clock`, then `offsetNs` added. */
export interface InterfaceClock {
  clock: "multiply" | "divide" | "binary";
  scale: bigint;
  offsetNs: bigint;
}

/** if_tsresol: a power of ten, or of two with the upper bit set. Exponents past 64 bits: time 0. */
function readResolution(value: number): { clock: InterfaceClock["clock"]; scale: bigint } {
  const exponent = value & 0x7f;
  if (value & 0x80) {
    return exponent < 64
      ? { clock: "binary", scale: BigInt(exponent) }
      : { clock: "multiply", scale: 0n };
  }
  if (exponent <= 9) return { clock: "multiply", scale: 10n ** BigInt(9 - exponent) };
  return exponent <= 28
    ? { clock: "divide", scale: 10n ** BigInt(exponent - 9) }
    : { clock: "multiply", scale: 0n };
}

/** Reads a whole interface description; a string says what is wrong with it. */
export function readInterface(
  block: Uint8Array,
  bigEndian: boolean,
): (CaptureInterface & InterfaceClock) | string {
  const view = viewOf(block);
  const options = readOptions(view, 16, block.length - 4, !bigEndian);
  if (typeof options === "string") return options;
  let name = "";
  let resolution = readResolution(6);
  let offsetNs = 0n;
  for (const [code, value] of options) {
    if (code === 2) name = new TextDecoder().decode(value);
    if (code === 9 && value.byteLength >= 1) resolution = readResolution(value.getUint8(0));
    if (code === 14 && value.byteLength >= 8) {
      offsetNs = BigInt.asIntN(64, value.getBigInt64(0, !bigEndian) * 1_000_000_000n);
    }
  }
  const linkType = view.getUint16(8, !bigEndian);
  const snapBytes = view.getUint32(12, !bigEndian);
  return { ...describeInterface(linkType, snapBytes, name), ...resolution, offsetNs };
}
