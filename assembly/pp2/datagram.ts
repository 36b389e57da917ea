/**
 * The header in datagrams (proxy-protocol.txt of 2026, section 2.2): in front of the payload of
 * every UDP datagram of the client, in the same datagram. The answers carry none.
 *
 * The datagram moves to a slot of its own, for it has no room to grow where it lies. One that would
 * be longer than a slot, and one that comes in fragments, is dropped: it can carry no header.
 */
import {
  BATCH_COUNT_MAX,
  CONFIG_PP2,
  CONFIG_PP2_UDP,
  COUNTER_PP2_DATAGRAMS,
  DIRECTION_FROM_CLIENT,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_HEADROOM_BYTES,
  FRAME_WIRE_BYTES,
  PP2_DATAGRAM_BYTES_MAX,
  SERVICE_PP2_SUM,
  SERVICE_PP2_SUM6,
  SERVICE_PP2_TEMPLATE,
  SERVICE_PP2_TEMPLATE6,
  SIDE_CLIENT,
  VERDICT_DROP_FRAGMENT,
  VERDICT_DROP_TOO_LARGE,
  VERDICT_FORWARD,
  VNET_BYTES,
  VNET_GSO_NONE,
  VNET_GSO_TYPE,
} from "../abi";
import { deltaOf, fold, sumOf, updated, updatedUdp } from "../checksum";
import { countUp } from "../counters";
import { copyLines } from "../emit";
import { config, counters, frames, reserve } from "../memory";
import { FRAGMENT_NONE, Packet } from "../packet";
import { addressOf, portsOf } from "../rewrite";
import { IPV4_CHECKSUM, IPV4_TOTAL_LENGTH } from "../wire/ipv4";
import { IPV6_PAYLOAD_LENGTH } from "../wire/ipv6";
import { UDP_CHECKSUM } from "../wire/transport";
import { crc32cOfChange, TUPLE_BYTES, TUPLE6_BYTES } from "./crc32c";
import { FAMILY, HEADER_BYTES_MIN, TLV_HEAD_BYTES } from "./header";
import { headerBytesFor, serviceOf } from "./segment";

const UDP_BYTES: u32 = 8;
const UDP_LENGTH: u32 = 4;
const TOTAL_BYTES_MAX: u32 = 65535;
const SLOT_BYTES: usize = FRAME_HEADROOM_BYTES + PP2_DATAGRAM_BYTES_MAX;

/** A slot for each frame of a batch; none when no service has headers in datagrams. */
let slots: usize = 0;

export function reserveDatagrams(): void {
  slots = 0;
  if ((load<u32>(config, CONFIG_PP2) & CONFIG_PP2_UDP) == 0) return;
  slots = reserve(<u64>BATCH_COUNT_MAX * <u64>SLOT_BYTES);
}

/** Puts the header into a datagram that has been translated. Returns a VERDICT_*. */
export function prependToDatagram(descriptor: usize, packet: Packet, record: usize): u32 {
  assert(slots != 0, "pp2: a datagram gets a header, but the engine has no room for any");
  if (packet.fragment != FRAGMENT_NONE) return VERDICT_DROP_FRAGMENT;
  const headerBytes = headerBytesFor(serviceOf(record), packet.isIpv6);
  const frame = load<u32>(descriptor, FRAME_ADDRESS);
  const captured = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const total = totalOf(packet);
  const isShort = packet.transportBytes < UDP_BYTES;
  if (isShort || captured + headerBytes > PP2_DATAGRAM_BYTES_MAX) return VERDICT_DROP_TOO_LARGE;
  if (total + headerBytes > TOTAL_BYTES_MAX) return VERDICT_DROP_TOO_LARGE;
  // Each datagram of a super-packet would need a header of its own; labs do not ask for any.
  if (packet.partial != 0 && load<u8>(frame - VNET_BYTES, VNET_GSO_TYPE) != VNET_GSO_NONE) {
    return VERDICT_DROP_TOO_LARGE;
  }
  const slot = slots + ((descriptor - frames) / FRAME_BYTES) * SLOT_BYTES + FRAME_HEADROOM_BYTES;
  const front = packet.transport + UDP_BYTES - frame;
  memory.copy(slot, <usize>frame, <usize>front);
  if (packet.partial != 0) memory.copy(slot - VNET_BYTES, <usize>(frame - VNET_BYTES), VNET_BYTES);
  else memory.fill(slot - VNET_BYTES, 0, VNET_BYTES);
  const header = slot + <usize>front;
  const headerSum = writeHeader(header, record, packet.isIpv6);
  memory.copy(header + headerBytes, <usize>(frame + front), <usize>(captured - front));
  const moved = <u32>slot - frame;
  lengthen(packet, moved, headerBytes, headerSum);
  store<u32>(descriptor, <u32>slot, FRAME_ADDRESS);
  store<u32>(descriptor, captured + headerBytes, FRAME_CAPTURED_BYTES);
  const wireBytes = load<u32>(descriptor, FRAME_WIRE_BYTES);
  store<u32>(descriptor, wireBytes + headerBytes, FRAME_WIRE_BYTES);
  countUp(counters + COUNTER_PP2_DATAGRAMS);
  return VERDICT_FORWARD;
}

/** What differs from the template, which is a stream's: the word with the family byte, and the tuple. */
const change: usize = memory.data(40, 16);
const CHANGE_AT: u32 = 12;
const CHANGED_TUPLE: u32 = HEADER_BYTES_MIN - CHANGE_AT;
/** From a stream to a datagram, in the low nibble of the family byte. */
const TRANSPORT_CHANGE: u8 = 1 ^ 2;

/**
 * Writes the header of a datagram at `at`, and up to 15 bytes behind it. Returns the sum of its words, unfolded.
 * As in segment.ts, CRC and sum are the template's and what the change adds to them; those of streams are
 * functions of their own, each with one caller, as they become part of it.
 */
function writeHeader(at: usize, record: usize, isIpv6: u8): u64 {
  const service = serviceOf(record);
  const bytes = headerBytesFor(service, isIpv6);
  const templateAt = isIpv6 ? SERVICE_PP2_TEMPLATE6 : SERVICE_PP2_TEMPLATE;
  const template = <usize>load<u32>(service + <usize>templateAt);
  const tupleBytes = isIpv6 ? TUPLE6_BYTES : TUPLE_BYTES;
  store<u8>(change + <usize>(FAMILY - CHANGE_AT), TRANSPORT_CHANGE);
  storeTuple(change + <usize>CHANGED_TUPLE, record, isIpv6);
  const changeBytes = CHANGED_TUPLE + tupleBytes;
  const remainder = crc32cOfChange(change, changeBytes, bytes - CHANGE_AT - changeBytes);
  const crcAt = <usize>(HEADER_BYTES_MIN + tupleBytes + TLV_HEAD_BYTES);
  const crc = load<u32>(template + crcAt) ^ bswap<u32>(remainder);
  copyLines(at, template, bytes);
  store<u8>(at + <usize>FAMILY, load<u8>(template + <usize>FAMILY) ^ TRANSPORT_CHANGE);
  storeTuple(at + <usize>HEADER_BYTES_MIN, record, isIpv6);
  store<u32>(at + crcAt, crc);
  const sum = <u64>load<u16>(service + <usize>(isIpv6 ? SERVICE_PP2_SUM6 : SERVICE_PP2_SUM));
  const tuple = sumOf(change + <usize>CHANGED_TUPLE, tupleBytes);
  // Transport, which is one higher, and CRC stand on odd bytes.
  return sum + tuple + ((<u64>crc + 1) << 8);
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

/** The packet's length as its IP header counts it, without an IPv6 header. */
function totalOf(packet: Packet): u32 {
  const at = <usize>packet.network + (packet.isIpv6 ? IPV6_PAYLOAD_LENGTH : IPV4_TOTAL_LENGTH);
  return <u32>bswap<u16>(load<u16>(at));
}

/**
 * Adds to the lengths of IP and UDP in the moved packet; a length of 0 stays. The UDP checksum
 * covers its length twice, and the header, whose bytes change places with the payload's if their
 * number is odd: then the payload's sum is swapped as well (RFC 1071 section 2(B)).
 */
function lengthen(packet: Packet, moved: u32, bytes: u32, sum: u64): void {
  const ip = <usize>(packet.network + moved);
  const udp = <usize>(packet.transport + moved);
  const totalAt = ip + (packet.isIpv6 ? IPV6_PAYLOAD_LENGTH : IPV4_TOTAL_LENGTH);
  const total = addTo(totalAt, bytes);
  if (!packet.isIpv6) {
    store<u16>(ip, <u16>updated(load<u16>(ip, IPV4_CHECKSUM), total), IPV4_CHECKSUM);
  }
  const length = <u64>addTo(udp + UDP_LENGTH, bytes);
  if (packet.partial != 0) {
    store<u16>(udp, <u16>fold(<u64>load<u16>(udp, UDP_CHECKSUM) + length), UDP_CHECKSUM);
    return;
  }
  let before: u64 = 0;
  let after = length + length + sum;
  if (bytes & 1) {
    const payload = <usize>packet.transport + UDP_BYTES;
    const payloadBytes = packet.transportBytes - UDP_BYTES;
    before = sumOf(payload, payloadBytes);
    after += sumOf(payload - 1, payloadBytes + 1) - <u64>load<u8>(payload - 1);
  }
  const checksum = updatedUdp(load<u16>(udp, UDP_CHECKSUM), deltaOf(before, after));
  store<u16>(udp, <u16>checksum, UDP_CHECKSUM);
}

/** Adds to a big-endian length that is not 0; returns the delta of the change. */
function addTo(at: usize, bytes: u32): u32 {
  const before = load<u16>(at);
  if (before == 0) return 0;
  const after = bswap<u16>(<u16>(<u32>bswap<u16>(before) + bytes));
  store<u16>(at, after);
  return deltaOf(before, after);
}
