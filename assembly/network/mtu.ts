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
import { FRAGMENT_LATER, Packet, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP } from "../packet";
import { replyBytesOf, replyChecksum, writeReply } from "../reply";
import { IPV4_BYTES_MIN, IPV4_FRAGMENT } from "../wire/ipv4";
import { IPV6_BYTES } from "../wire/ipv6";
import { ICMP_CHECKSUM, ICMP_QUOTE, TCP_CHECKSUM } from "../wire/transport";

const TCP_BYTES_MIN: u32 = 20;
const OPTION_END: u32 = 0;
const OPTION_NOTHING: u32 = 1;
const OPTION_SEGMENT_SIZE: u32 = 2;
const DO_NOT_FRAGMENT_BE: u16 = 0x0040;
/** Type and code as they are stored: destination unreachable, fragmentation needed; packet too big. */
const UNREACHABLE_NEEDED: u16 = 0x0403;
const TOO_BIG6: u8 = 2;
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
  const ipBytes = replyBytesOf(packet);
  const icmp = network + <usize>ipBytes;
  const most = packet.isIpv6 ? ERROR6_BYTES_MAX : ERROR_BYTES_MAX;
  const icmpBytes = writeTooLarge(icmp, descriptor, packet, mtu, most - ipBytes);
  const protocol = packet.isIpv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP;
  writeReply(network, packet, protocol, icmpBytes, false);
  const bytes = linkBytes + ipBytes + icmpBytes;
  emit(EMIT_ICMP, descriptor, true, bytes, load<u16>(descriptor, FRAME_PORT), 0);
}

/** Copies as much of the packet as fits; returns how much. */
function quote(to: usize, descriptor: usize, packet: Packet, room: u32): u32 {
  const frameEnd =
    load<u32>(descriptor, FRAME_ADDRESS) + load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const bytes = min<u32>(room, frameEnd - packet.network);
  memory.copy(to, packet.network, bytes);
  return bytes;
}

/** Writes the message, with as much of the packet as fits `room`; returns its length. */
function writeTooLarge(icmp: usize, descriptor: usize, packet: Packet, mtu: u32, room: u32): u32 {
  memory.fill(icmp, 0, ICMP_QUOTE);
  const bytes = ICMP_QUOTE + quote(icmp + <usize>ICMP_QUOTE, descriptor, packet, room - ICMP_QUOTE);
  if (packet.isIpv6) {
    store<u8>(icmp, TOO_BIG6);
    store<u32>(icmp, bswap<u32>(mtu), 4);
    store<u16>(icmp, replyChecksum(icmp, packet, PROTOCOL_ICMPV6, bytes), ICMP_CHECKSUM);
  } else {
    store<u16>(icmp, UNREACHABLE_NEEDED);
    store<u16>(icmp, bswap<u16>(<u16>mtu), 6);
    store<u16>(icmp, <u16>(~fold(sumOf(icmp, bytes)) & 0xffff), ICMP_CHECKSUM);
  }
  return bytes;
}
