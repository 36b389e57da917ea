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
  FLOW_SERVICE,
  FLOW6_CLIENT_LOW,
  FRAME_PORT_OUT,
  SERVICE_BYTES,
  SERVICE_PP2_BYTES,
  SERVICE_PP2_BYTES6,
  SERVICE_PP2_SUM,
  SERVICE_PP2_SUM6,
  SERVICE_PP2_TEMPLATE,
  SERVICE_PP2_TEMPLATE6,
  SIDE_CLIENT,
} from "../abi";
import { fold, sumOf16 } from "../checksum";
import { copyLines, copyLink, emit, emitSlot } from "../emit";
import { services } from "../memory";
import { Packet, PROTOCOL_TCP, sumAddresses } from "../packet";
import { portsOf, sourceIsHigh } from "../rewrite";
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
import { crc32cOfTuple, crc32cOfTuple6, TUPLE_BYTES, TUPLE6_BYTES } from "./crc32c";
import { HEADER_BYTES_MIN, TLV_HEAD_BYTES } from "./header";
import { findTimestamps, TIMESTAMPS_ALONE, TIMESTAMPS_BYTES } from "./options";

const IPV4_SERVICE: u32 = 1;
const IPV4_ID: u32 = 4;
/** Hop limit and protocol, with the checksum behind them. */
const IPV4_HOP_LIMIT: u32 = 8;
// As words are loaded.
const DO_NOT_FRAGMENT: u32 = 0x0040;
const ID_REPEATED: u32 = 0x0080;
const FLAGS_PSH_ACK: u32 = 0x18;

/** Where a header's CRC32C stands, behind the tuple. */
const CRC_AT: usize = <usize>(HEADER_BYTES_MIN + TUPLE_BYTES + TLV_HEAD_BYTES);
const CRC6_AT: usize = <usize>(HEADER_BYTES_MIN + TUPLE6_BYTES + TLV_HEAD_BYTES);

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
  const isHigh = sourceIsHigh(record, SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  const addresses = load<u64>(record, FLOW_CLIENT_SIDE);
  const ends = select<u64>(rotl<u64>(addresses, 32), addresses, isHigh);
  const ports = portsOf(record, SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  const source = <u32>ends;
  const destination = <u32>(ends >> 32);
  const zeros = bytes - HEADER_BYTES_MIN - TUPLE_BYTES;
  const remainder = crc32cOfTuple(source, destination, ports, zeros);
  const crc = load<u32>(template, CRC_AT) ^ bswap<u32>(remainder);
  copyLines(at, template, bytes);
  store<u64>(at, ends, HEADER_BYTES_MIN);
  store<u32>(at, ports, HEADER_BYTES_MIN + 8);
  store<u32>(at, crc, CRC_AT);
  // The CRC stands on an odd byte.
  const tuple = <u64>source + <u64>destination + <u64>ports;
  return <u64>load<u16>(service, SERVICE_PP2_SUM) + tuple + ((<u64>crc) << 8);
}

/** The same of IPv6. */
function writeHeader6(at: usize, record: usize): u64 {
  const service = serviceOf(record);
  const bytes = load<u16>(service, SERVICE_PP2_BYTES6);
  const template = <usize>load<u32>(service, SERVICE_PP2_TEMPLATE6);
  const high = (<usize>sourceIsHigh(record, SIDE_CLIENT, DIRECTION_FROM_CLIENT)) << 4;
  const source = record + FLOW6_CLIENT_LOW + high;
  const destination = record + FLOW6_CLIENT_LOW + (high ^ 16);
  const ports = portsOf(record, SIDE_CLIENT, DIRECTION_FROM_CLIENT);
  const zeros = bytes - HEADER_BYTES_MIN - TUPLE6_BYTES;
  const remainder = crc32cOfTuple6(source, destination, ports, zeros);
  const crc = load<u32>(template, CRC6_AT) ^ bswap<u32>(remainder);
  copyLines(at, template, bytes);
  v128.store(at, v128.load(source), HEADER_BYTES_MIN);
  v128.store(at, v128.load(destination), HEADER_BYTES_MIN + 16);
  store<u32>(at, ports, HEADER_BYTES_MIN + 32);
  store<u32>(at, crc, CRC6_AT);
  const tuple = sumOf16(source) + sumOf16(destination) + <u64>ports;
  return <u64>load<u16>(service, SERVICE_PP2_SUM6) + tuple + ((<u64>crc) << 8);
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
  sum += packet.isIpv6 ? writeHeader6(header, record) : writeHeader4(header, record);
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
