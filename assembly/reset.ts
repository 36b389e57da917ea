/**
 * TCP resets: the answer to a segment that belongs to no flow, as RFC 9293 section 3.10.7.1 has it
 * for a closed connection. It goes back to the sender of the segment and to nobody else.
 *
 *   segment with ACK      <SEQ=SEG.ACK><CTL=RST>
 *   segment without ACK   <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
 *   segment with RST      none
 *
 * A header that the capture has cut off gets no answer: the numbers are not known. Neither does a segment
 * whose checksum is wrong (RFC 9293 section 3.1, MUST-3): nobody knows whose it is.
 */
import { EMIT_RST, FRAME_PORT } from "./abi";
import { copyLink, emit, emitSlot } from "./emit";
import { FRAGMENT_NONE, Packet, PROTOCOL_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "./packet";
import { isCorrupt, replyBytesOf, replyChecksum, writeReply } from "./reply";
import { payloadBytesOf } from "./wire/segment";
import { TCP_CHECKSUM } from "./wire/transport";

const TCP_BYTES: u32 = 20;
const FLAG_RST: u8 = 0x04;
const FLAG_RST_ACK: u8 = 0x14;

/**
 * Answers a TCP segment with a reset, unless it is one itself, is corrupt or its header is not all there.
 * True when it has.
 */
export function resetStray(descriptor: usize, packet: Packet): bool {
  if (packet.protocol != PROTOCOL_TCP || packet.transportBytes < TCP_BYTES) return false;
  if (packet.flags & TCP_RST || packet.fragment != FRAGMENT_NONE) return false;
  if (isCorrupt(descriptor, packet)) return false;
  const frame = emitSlot();
  const linkBytes = copyLink(frame, descriptor, packet, true);
  const network = frame + <usize>linkBytes;
  const ipBytes = replyBytesOf(packet);
  writeReply(network, packet, PROTOCOL_TCP, TCP_BYTES, true);
  writeTcp(network + <usize>ipBytes, packet);
  const bytes = linkBytes + ipBytes + TCP_BYTES;
  emit(EMIT_RST, descriptor, true, bytes, load<u16>(descriptor, FRAME_PORT), 0);
  return true;
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
  store<u16>(at, replyChecksum(at, packet, PROTOCOL_TCP, TCP_BYTES), TCP_CHECKSUM);
}

/** SEG.LEN: the sequence numbers that a segment takes. */
function sequenceBytes(packet: Packet): u32 {
  const controls = u32((packet.flags & TCP_SYN) != 0) + u32((packet.flags & TCP_FIN) != 0);
  return payloadBytesOf(packet) + controls;
}
