/**
 * The MTU of a service. TCP's maximum segment size option (RFC 9293 section 3.7.1) of SYN segments
 * is lowered so that segments fit, and the sender of a packet that is too large may be told:
 * "fragmentation needed" (RFC 1191, where the packet must not be fragmented) or "packet too big"
 * (RFC 4443 section 3.2). Fragmentation on the way is not done: a large packet without the DF bit is
 * dropped without a word.
 */
import {
  EMIT_ICMP,
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  SERVICE_MTU_BYTES,
} from "../abi";
import { deltaOf, fold, sumOf, updated } from "../checksum";
import { copyLink, emit, emitSlot } from "../emit";
import {
  FRAGMENT_LATER,
  Packet,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  sumAddresses,
} from "../packet";
import {
  IPV4_BYTES_MIN,
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
} from "../wire/ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "../wire/ipv6";
import { ICMP_CHECKSUM, ICMP_QUOTE, TCP_CHECKSUM } from "../wire/transport";

const TCP_BYTES_MIN: u32 = 20;
const OPTION_END: u32 = 0;
const OPTION_NOTHING: u32 = 1;
const OPTION_SEGMENT_SIZE: u32 = 2;
const DO_NOT_FRAGMENT_BE: u16 = 0x0040;
const HOP_LIMIT: u8 = 64;
/** RFC 1812 section 4.3.2.3: as much as fits 576 bytes; RFC 4443 section 2.4: as fits 1,280. */
const ERROR_BYTES_MAX: u32 = 576;
const ERROR6_BYTES_MAX: u32 = 1280;

/** Lowers the maximum segment size of a SYN segment to what the service's MTU leaves. */
export function clampSegments(packet: Packet, service: usize): void {
  const mtu = <u32>load<u16>(service, SERVICE_MTU_BYTES);
  if (mtu == 0 || packet.protocol != PROTOCOL_TCP || packet.fragment == FRAGMENT_LATER) return;
  if (packet.transportBytes < TCP_BYTES_MIN) return;
  const segment = <usize>packet.transport;
  const headerBytes = (<u32>(load<u8>(segment, 12) >> 4)) << 2;
  const end = min<u32>(headerBytes, packet.transportBytes);
  const most = mtu - (packet.isIpv6 ? IPV6_BYTES : IPV4_BYTES_MIN) - TCP_BYTES_MIN;
  let offset = TCP_BYTES_MIN;
  while (offset + 4 <= end) {
    const kind = <u32>load<u8>(segment + <usize>offset);
    if (kind == OPTION_END) return;
    if (kind == OPTION_NOTHING) {
      offset++;
      continue;
    }
    const bytes = <u32>load<u8>(segment + <usize>offset, 1);
    if (bytes < 2) return;
    if (kind == OPTION_SEGMENT_SIZE && bytes == 4) return lower(packet, offset + 2, most);
    offset += bytes;
  }
}

/** Lowers the word at `offset`, the checksum with it; at an odd offset its bytes are swapped there. */
function lower(packet: Packet, offset: u32, most: u32): void {
  const segment = <usize>packet.transport;
  const before = <u32>load<u16>(segment + <usize>offset);
  if (<u32>bswap<u16>(<u16>before) <= most) return;
  const after = <u32>bswap<u16>(<u16>most);
  store<u16>(segment + <usize>offset, <u16>after);
  // A checksum that is left to the device does not cover options yet.
  if (packet.partial) return;
  const isOdd = (offset & 1) != 0;
  const delta = isOdd
    ? deltaOf(<u64>bswap<u16>(<u16>before), <u64>most)
    : deltaOf(<u64>before, <u64>after);
  store<u16>(segment, <u16>updated(load<u16>(segment, TCP_CHECKSUM), delta), TCP_CHECKSUM);
}

/** Tells the sender of a packet that it is larger than `mtu`; IPv4 only if it forbids fragments. */
export function tellMtu(descriptor: usize, packet: Packet, mtu: u32): void {
  if (!packet.isIpv6) {
    const flags = load<u16>(packet.network, IPV4_FRAGMENT);
    if ((flags & DO_NOT_FRAGMENT_BE) == 0) return;
  }
  const frame = emitSlot();
  const linkBytes = copyLink(frame, descriptor, packet, true);
  const network = frame + <usize>linkBytes;
  const ipBytes = packet.isIpv6
    ? writeTooBig(network, descriptor, packet, mtu)
    : writeNeeded(network, descriptor, packet, mtu);
  emit(EMIT_ICMP, descriptor, true, linkBytes + ipBytes, load<u16>(descriptor, FRAME_PORT), 0);
}

/** Copies as much of the packet as fits; returns how much. */
function quote(to: usize, descriptor: usize, packet: Packet, room: u32): u32 {
  const frameEnd =
    load<u32>(descriptor, FRAME_ADDRESS) + load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const bytes = min<u32>(room, frameEnd - packet.network);
  memory.copy(to, packet.network, bytes);
  return bytes;
}

/** Destination unreachable, fragmentation needed and DF set (type 3, code 4), from the destination. */
function writeNeeded(at: usize, descriptor: usize, packet: Packet, mtu: u32): u32 {
  const icmp = at + <usize>IPV4_BYTES_MIN;
  const head = IPV4_BYTES_MIN + ICMP_QUOTE;
  memory.fill(at, 0, head);
  const quoted = quote(icmp + <usize>ICMP_QUOTE, descriptor, packet, ERROR_BYTES_MAX - head);
  const bytes = head + quoted;
  store<u8>(at, 0x45);
  store<u16>(at, bswap<u16>(<u16>bytes), IPV4_TOTAL_LENGTH);
  store<u8>(at, HOP_LIMIT, 8);
  store<u8>(at, PROTOCOL_ICMP, 9);
  store<u32>(at, load<u32>(packet.destinationAddress), IPV4_SOURCE);
  store<u32>(at, load<u32>(packet.sourceAddress), IPV4_SOURCE + 4);
  store<u16>(at, <u16>(~fold(sumOf(at, IPV4_BYTES_MIN)) & 0xffff), IPV4_CHECKSUM);
  store<u16>(icmp, 0x0403);
  store<u16>(icmp, bswap<u16>(<u16>mtu), 6);
  const sum = sumOf(icmp, ICMP_QUOTE + quoted);
  store<u16>(icmp, <u16>(~fold(sum) & 0xffff), ICMP_CHECKSUM);
  return bytes;
}

/** Packet too big (type 2, code 0), from the destination. */
function writeTooBig(at: usize, descriptor: usize, packet: Packet, mtu: u32): u32 {
  const icmp = at + <usize>IPV6_BYTES;
  const head = IPV6_BYTES + ICMP_QUOTE;
  memory.fill(at, 0, head);
  const quoted = quote(icmp + <usize>ICMP_QUOTE, descriptor, packet, ERROR6_BYTES_MAX - head);
  const messageBytes = ICMP_QUOTE + quoted;
  store<u8>(at, 0x60);
  store<u16>(at, bswap<u16>(<u16>messageBytes), IPV6_PAYLOAD_LENGTH);
  store<u8>(at, PROTOCOL_ICMPV6, 6);
  store<u8>(at, HOP_LIMIT, 7);
  v128.store(at, v128.load(packet.destinationAddress), IPV6_SOURCE);
  v128.store(at, v128.load(packet.sourceAddress), IPV6_SOURCE + 16);
  store<u8>(icmp, 2);
  store<u32>(icmp, bswap<u32>(mtu), 4);
  const pseudo =
    sumAddresses(packet) + <u64>((<u32>PROTOCOL_ICMPV6) << 8) + <u64>bswap<u16>(<u16>messageBytes);
  const sum = pseudo + sumOf(icmp, messageBytes);
  store<u16>(icmp, <u16>(~fold(sum) & 0xffff), ICMP_CHECKSUM);
  return IPV6_BYTES + messageBytes;
}
