/**
 * The header as a segment of its own, just before the client's segment that causes it: never more
 * than an MSS in one segment, whatever that carries (super-packets, partial checksums), and never
 * split, which receivers refuse.
 *
 *   link     the cause's
 *   IP       the cause's addresses, DSCP, hop limit and DF; no options, no extension headers
 *   TCP      SEQ = ISN + 1, ACK and window the cause's, PSH and ACK, timestamps as the cause has
 *            them (RFC 7323 section 3.2: a segment without them may be dropped on such a connection)
 *   payload  the service's template with the client-side tuple of the flow, and the CRC32C that follows
 *
 * So it is the same bytes each time, whatever it repeats. Its checksums are complete.
 */
import {
  DIRECTION_FROM_CLIENT,
  EMIT_PP2,
  FLOW_CLIENT_SIDE,
  FLOW_FLAG_CLIENT_HIGH,
  FLOW_FLAGS,
  FLOW_SERVICE,
  FRAME_PORT_OUT,
  KEY_LOW_PORT_BE,
  SERVICE_BYTES,
  SERVICE_PP2_BYTES,
  SERVICE_PP2_BYTES6,
  SERVICE_PP2_SUM,
  SERVICE_PP2_SUM6,
  SERVICE_PP2_TEMPLATE,
  SERVICE_PP2_TEMPLATE6,
  SIDE_CLIENT,
} from "../abi";
import { fold, sumOf } from "../checksum";
import { copyLines, copyLink, emit, emitSlot } from "../emit";
import { services } from "../memory";
import { Packet, PROTOCOL_TCP, sumAddresses } from "../packet";
import { addressOf, portsOf } from "../rewrite";
import { IPV4_BYTES_MIN, IPV4_SOURCE } from "../wire/ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "../wire/ipv6";
import {
  TCP_ACKNOWLEDGEMENT,
  TCP_BYTES_MIN,
  TCP_DATA_OFFSET,
  TCP_SEQUENCE,
  TCP_WINDOW,
} from "../wire/segment";
import { TCP_CHECKSUM } from "../wire/transport";
import { crc32cOfChange, crc32cOfTuple } from "./crc32c";
import { FAMILY, HEADER_BYTES_MIN } from "./header";
import { findTimestamps, TIMESTAMPS_ALONE, TIMESTAMPS_BYTES } from "./options";

const IPV4_SERVICE: u32 = 1;
const IPV4_ID: u32 = 4;
/** Hop limit and protocol, with the checksum behind them. */
const IPV4_HOP_LIMIT: u32 = 8;
// As words are loaded.
const DO_NOT_FRAGMENT: u32 = 0x0040;
const ID_REPEATED: u32 = 0x0080;
const FLAGS_PSH_ACK: u32 = 0x18;
const TLV_HEAD_BYTES: u32 = 3;
/** Addresses and ports of IPv4. */
const TUPLE_BYTES: u32 = 12;

/** Low nibble of the family byte. */
export const TRANSPORT_STREAM: u8 = 1;
export const TRANSPORT_DATAGRAM: u8 = 2;

export function serviceOf(record: usize): usize {
  return services + <usize>load<u16>(record, FLOW_SERVICE) * SERVICE_BYTES;
}

/** Length of the header in flows of this service and family, 0 when it has none. */
export function headerBytesFor(service: usize, isIpv6: u32): u32 {
  return load<u16>(service + <usize>(isIpv6 ? SERVICE_PP2_BYTES6 : SERVICE_PP2_BYTES));
}

/**
 * Writes the header of an IPv4 stream at `at`, and up to 15 bytes behind it. Returns the sum of its words,
 * unfolded. CRC and sum are the template's and what the tuple adds to them, for both are linear.
 */
function writeHeader4(at: usize, record: usize): u64 {
  const service = serviceOf(record);
  const bytes = load<u16>(service, SERVICE_PP2_BYTES);
  const template = <usize>load<u32>(service, SERVICE_PP2_TEMPLATE);
  const isHigh = <u32>load<u8>(record, FLOW_FLAGS) & FLOW_FLAG_CLIENT_HIGH;
  const addresses = load<u64>(record, FLOW_CLIENT_SIDE);
  const portPair = load<u32>(record, FLOW_CLIENT_SIDE + KEY_LOW_PORT_BE);
  const ends = select<u64>(rotl<u64>(addresses, 32), addresses, isHigh);
  const ports = select<u32>(rotl<u32>(portPair, 16), portPair, isHigh);
  const source = <u32>ends;
  const destination = <u32>(ends >> 32);
  const crcAt = <usize>(HEADER_BYTES_MIN + TUPLE_BYTES + TLV_HEAD_BYTES);
  const zeros = bytes - HEADER_BYTES_MIN - TUPLE_BYTES;
  const remainder = crc32cOfTuple(source, destination, ports, zeros);
  const crc = load<u32>(template + crcAt) ^ bswap<u32>(remainder);
  copyLines(at, template, bytes);
  store<u64>(at, ends, HEADER_BYTES_MIN);
  store<u32>(at, ports, HEADER_BYTES_MIN + 8);
  store<u32>(at + crcAt, crc);
  // The CRC stands on an odd byte.
  const tuple = <u64>source + <u64>destination + <u64>ports;
  return <u64>load<u16>(service, SERVICE_PP2_SUM) + tuple + ((<u64>crc) << 8);
}

/** What differs from the template, from the family byte's word to the ports. */
const change: usize = memory.data(40, 16);
const CHANGE_AT: u32 = 12;
const CHANGED_FAMILY: usize = 1;
const CHANGED_ADDRESSES: usize = 4;

/** The same for either family; `transport` is 1 for streams, 2 for datagrams. */
export function writeHeader(at: usize, record: usize, isIpv6: u8, transport: u8): u64 {
  const service = serviceOf(record);
  const bytes = headerBytesFor(service, isIpv6);
  const templateAt = isIpv6 ? SERVICE_PP2_TEMPLATE6 : SERVICE_PP2_TEMPLATE;
  const template = <usize>load<u32>(service + <usize>templateAt);
  const tupleBytes: u32 = isIpv6 ? 36 : TUPLE_BYTES;
  // The template is a stream's.
  const familyChange = transport ^ TRANSPORT_STREAM;
  store<u8>(change, familyChange, CHANGED_FAMILY);
  storeTuple(change + CHANGED_ADDRESSES, record, isIpv6);
  const changeBytes = <u32>CHANGED_ADDRESSES + tupleBytes;
  const remainder = crc32cOfChange(change, changeBytes, bytes - CHANGE_AT - changeBytes);
  const crcAt = <usize>(HEADER_BYTES_MIN + tupleBytes + TLV_HEAD_BYTES);
  const crc = load<u32>(template + crcAt) ^ bswap<u32>(remainder);
  copyLines(at, template, bytes);
  store<u8>(at + <usize>FAMILY, load<u8>(template + <usize>FAMILY) ^ familyChange);
  storeTuple(at + <usize>HEADER_BYTES_MIN, record, isIpv6);
  store<u32>(at + crcAt, crc);
  const sum = <u64>load<u16>(service + <usize>(isIpv6 ? SERVICE_PP2_SUM6 : SERVICE_PP2_SUM));
  const tuple = sumOf(change + CHANGED_ADDRESSES, tupleBytes);
  // Transport and CRC stand on odd bytes.
  return sum + tuple + ((<u64>crc) << 8) + ((<u64>(transport - TRANSPORT_STREAM)) << 8);
}

/** Addresses and ports of the client side, as a header has them. */
function storeTuple(at: usize, record: usize, isIpv6: u8): void {
  const source = addressOf(record, isIpv6, SIDE_CLIENT, true);
  const destination = addressOf(record, isIpv6, SIDE_CLIENT, false);
  const ports = portsOf(record, SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  if (isIpv6) {
    v128.store(at, v128.load(source));
    v128.store(at, v128.load(destination), 16);
    store<u32>(at, ports, 32);
  } else {
    store<u32>(at, load<u32>(source));
    store<u32>(at, load<u32>(destination), 4);
    store<u32>(at, ports, 8);
  }
}

/**
 * Emits the header segment of a flow before `packet`, a TCP segment of its client that has been
 * translated. `sequence` is the number of the header's first byte.
 */
export function emitHeader(
  descriptor: usize,
  packet: Packet,
  record: usize,
  sequence: u32,
  handle: u32,
): void {
  const frame = emitSlot();
  const linkBytes = copyLink(frame, descriptor, packet, false);
  const network = frame + <usize>linkBytes;
  const ipBytes = packet.isIpv6 ? IPV6_BYTES : IPV4_BYTES_MIN;
  const segment = network + <usize>ipBytes;
  const timestamps = findTimestamps(packet);
  const headBytes = timestamps == 0 ? TCP_BYTES_MIN : TCP_BYTES_MIN + 2 + TIMESTAMPS_BYTES;
  const segmentBytes = headBytes + headerBytesFor(serviceOf(record), packet.isIpv6);
  let sum = sumAddresses(packet);
  sum += <u64>bswap<u16>(PROTOCOL_TCP) + <u64>bswap<u16>(<u16>segmentBytes);
  sum += writeHead(segment, packet, sequence, timestamps);
  const header = segment + <usize>headBytes;
  sum += packet.isIpv6
    ? writeHeader(header, record, 1, TRANSPORT_STREAM)
    : writeHeader4(header, record);
  store<u32>(segment, ~fold(sum) & 0xffff, TCP_CHECKSUM);
  if (packet.isIpv6) writeIpv6(network, packet, segmentBytes);
  else writeIpv4(network, packet, segmentBytes);
  const portOut = load<u16>(descriptor, FRAME_PORT_OUT);
  emit(EMIT_PP2, descriptor, false, linkBytes + ipBytes + segmentBytes, portOut, handle);
}

/**
 * The TCP header but for its checksum and the urgent pointer; `timestamps` is the option's address, 0
 * for none. Returns the sum of what it has written. Words are made whole and summed as they are
 * stored: to load what lies in several stores would wait for all of them.
 */
function writeHead(at: usize, packet: Packet, sequence: u32, timestamps: usize): u64 {
  const cause = <usize>packet.transport;
  const ports = load<u32>(cause);
  const number = bswap<u32>(sequence);
  const acknowledged = load<u32>(cause, TCP_ACKNOWLEDGEMENT);
  const offset: u32 = timestamps == 0 ? 0x50 : 0x80;
  const window = <u32>load<u16>(cause, TCP_WINDOW);
  const flags = offset | (FLAGS_PSH_ACK << 8) | (window << 16);
  store<u32>(at, ports);
  store<u32>(at, number, TCP_SEQUENCE);
  store<u32>(at, acknowledged, TCP_ACKNOWLEDGEMENT);
  store<u32>(at, flags, TCP_DATA_OFFSET);
  const sum = <u64>ports + <u64>number + <u64>acknowledged + <u64>flags;
  if (timestamps == 0) return sum;
  const stamps = load<u64>(timestamps, 2);
  store<u32>(at, TIMESTAMPS_ALONE, TCP_BYTES_MIN);
  store<u64>(at, stamps, TCP_BYTES_MIN + 4);
  return sum + <u64>TIMESTAMPS_ALONE + (stamps & 0xffffffff) + (stamps >> 32);
}

function writeIpv4(at: usize, packet: Packet, payloadBytes: u32): void {
  const cause = <usize>packet.network;
  const service = <u32>load<u8>(cause, IPV4_SERVICE);
  const total = <u32>bswap<u16>(<u16>(IPV4_BYTES_MIN + payloadBytes));
  // Of the type u32: an i32 would be signed in the sum, which then is wrong by one where it runs over.
  const first: u32 = 0x45 | (service << 8) | (total << 16);
  // Where it may be fragmented, it must not share the cause's identification.
  const second = (load<u32>(cause, IPV4_ID) ^ ID_REPEATED) & (0xffff | (DO_NOT_FRAGMENT << 16));
  const third = <u32>load<u16>(cause, IPV4_HOP_LIMIT);
  const source = load<u32>(packet.sourceAddress);
  const destination = load<u32>(packet.destinationAddress);
  const sum = <u64>first + <u64>second + <u64>third + <u64>source + <u64>destination;
  store<u32>(at, first);
  store<u32>(at, second, IPV4_ID);
  store<u32>(at, third | ((~fold(sum) & 0xffff) << 16), IPV4_HOP_LIMIT);
  store<u32>(at, source, IPV4_SOURCE);
  store<u32>(at, destination, IPV4_SOURCE + 4);
}

function writeIpv6(at: usize, packet: Packet, payloadBytes: u32): void {
  v128.store(at, v128.load(packet.network));
  store<u16>(at, bswap<u16>(<u16>payloadBytes), IPV6_PAYLOAD_LENGTH);
  store<u8>(at, PROTOCOL_TCP, 6);
  v128.store(at, v128.load(packet.sourceAddress), IPV6_SOURCE);
  v128.store(at, v128.load(packet.destinationAddress), IPV6_SOURCE + 16);
}
