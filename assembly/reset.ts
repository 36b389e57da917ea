/**
 * TCP resets: the answer to a segment that belongs to no flow, as RFC 9293 section 3.10.7.1 has it
 * for a closed connection. It goes back to the sender of the segment and to nobody else.
 *
 *   segment with ACK      <SEQ=SEG.ACK><CTL=RST>
 *   segment without ACK   <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
 *   segment with RST      none
 *
 * A header that the capture has cut off is answered by nothing: the numbers are not known.
 */
import { EMIT_RST, FRAME_PORT } from "./abi";
import { fold, sumOf } from "./checksum";
import { copyLink, emit, emitSlot } from "./emit";
import {
  FRAGMENT_NONE,
  Packet,
  PROTOCOL_TCP,
  sumAddresses,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from "./packet";
import { IPV4_BYTES_MIN, IPV4_CHECKSUM, IPV4_SOURCE, IPV4_TOTAL_LENGTH } from "./wire/ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "./wire/ipv6";
import { payloadBytesOf } from "./wire/segment";
import { TCP_CHECKSUM } from "./wire/transport";

const TCP_BYTES: u32 = 20;
const HOP_LIMIT: u8 = 64;
const DO_NOT_FRAGMENT_BE: u16 = 0x0040;
const FLAG_RST: u8 = 0x04;
const FLAG_RST_ACK: u8 = 0x14;

/**
 * Answers a TCP segment with a reset, unless it is one itself or its header is not all there. True
 * when it has.
 */
export function resetStray(descriptor: usize, packet: Packet): bool {
  if (packet.protocol != PROTOCOL_TCP || packet.transportBytes < TCP_BYTES) return false;
  if (packet.flags & TCP_RST || packet.fragment != FRAGMENT_NONE) return false;
  const frame = emitSlot();
  const linkBytes = copyLink(frame, descriptor, packet, true);
  const network = frame + <usize>linkBytes;
  const ipBytes = packet.isIpv6 ? writeIpv6(network, packet) : writeIpv4(network, packet);
  writeTcp(network + <usize>ipBytes, packet);
  const bytes = linkBytes + ipBytes + TCP_BYTES;
  emit(EMIT_RST, descriptor, true, bytes, load<u16>(descriptor, FRAME_PORT), 0);
  return true;
}

/** An IPv4 header (RFC 791) from the packet's destination to its source, for a TCP header alone. */
function writeIpv4(at: usize, packet: Packet): u32 {
  memory.fill(at, 0, IPV4_BYTES_MIN);
  store<u8>(at, 0x45);
  store<u16>(at, bswap<u16>(<u16>(IPV4_BYTES_MIN + TCP_BYTES)), IPV4_TOTAL_LENGTH);
  store<u16>(at, DO_NOT_FRAGMENT_BE, 6);
  store<u8>(at, HOP_LIMIT, 8);
  store<u8>(at, PROTOCOL_TCP, 9);
  store<u32>(at, load<u32>(packet.destinationAddress), IPV4_SOURCE);
  store<u32>(at, load<u32>(packet.sourceAddress), IPV4_SOURCE + 4);
  store<u16>(at, <u16>(~fold(sumOf(at, IPV4_BYTES_MIN)) & 0xffff), IPV4_CHECKSUM);
  return IPV4_BYTES_MIN;
}

/** The same for IPv6 (RFC 8200). */
function writeIpv6(at: usize, packet: Packet): u32 {
  memory.fill(at, 0, IPV6_BYTES);
  store<u8>(at, 0x60);
  store<u16>(at, bswap<u16>(<u16>TCP_BYTES), IPV6_PAYLOAD_LENGTH);
  store<u8>(at, PROTOCOL_TCP, 6);
  store<u8>(at, HOP_LIMIT, 7);
  v128.store(at, v128.load(packet.destinationAddress), IPV6_SOURCE);
  v128.store(at, v128.load(packet.sourceAddress), IPV6_SOURCE + 16);
  return IPV6_BYTES;
}

function writeTcp(at: usize, packet: Packet): void {
  const segment = <usize>packet.transport;
  const hasAck = (packet.flags & TCP_ACK) != 0;
  memory.fill(at, 0, TCP_BYTES);
  store<u32>(at, rotl<u32>(load<u32>(segment), 16));
  if (hasAck) store<u32>(at, load<u32>(segment, 8), 4);
  else store<u32>(at, bswap<u32>(bswap<u32>(load<u32>(segment, 4)) + sequenceBytes(packet)), 8);
  store<u8>(at, <u8>((TCP_BYTES >> 2) << 4), 12);
  store<u8>(at, hasAck ? FLAG_RST : FLAG_RST_ACK, 13);
  const pseudo =
    sumAddresses(packet) + <u64>bswap<u16>(PROTOCOL_TCP) + <u64>bswap<u16>(<u16>TCP_BYTES);
  store<u16>(at, <u16>(~fold(pseudo + sumOf(at, TCP_BYTES)) & 0xffff), TCP_CHECKSUM);
}

/** SEG.LEN: the sequence numbers that a segment takes. */
function sequenceBytes(packet: Packet): u32 {
  const controls = u32((packet.flags & TCP_SYN) != 0) + u32((packet.flags & TCP_FIN) != 0);
  return payloadBytesOf(packet) + controls;
}
