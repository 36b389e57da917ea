/**
 * The frames that nearly all frames are: Ethernet II, IPv4 without options or fragments, TCP or
 * UDP, captured whole. `parsePlain` either leaves the packet exactly as `parseFrame` would, or
 * says no and leaves the frame to it; so it may refuse what it likes, but never decide.
 *
 * Early returns are cheap where frames agree, for the branch is predicted. TCP and UDP alternate,
 * therefore nothing here branches on the protocol.
 */
import { FRAME_ADDRESS, FRAME_CAPTURED_BYTES, LINK_ETHERNET, PORT_LINK, PORT_ZONE } from "../abi";
import { plainBytesMax } from "../memory";
import { PACKET_FAST, Packet, PROTOCOL_TCP, PROTOCOL_UDP } from "../packet";
import { setTuple4 } from "./transport";

const ETHERNET_BYTES: u32 = 14;
const IP_BYTES: u32 = 20;
const TCP_BYTES_MIN: u32 = 20;
const UDP_BYTES: u32 = 8;
const BYTES_MIN: u32 = ETHERNET_BYTES + IP_BYTES + UDP_BYTES;

// Of the 32 bits from the EtherType on: type IPv4, version 4, header length 5.
const TYPE_AND_VERSION: u32 = 0x00450008;
const TYPE_AND_VERSION_MASK: u32 = 0x00ffffff;
// Of the 32 bits from the fragment field on, as a little-endian load sees them.
const FRAGMENT_MASK: u32 = 0x0000ff3f;
/** Bit per protocol number that has ports. */
const PORTED: u32 = (1 << (<u32>PROTOCOL_TCP)) | (1 << (<u32>PROTOCOL_UDP));

/** Parses the frame of a descriptor if it is plain; false when it is not. */
export function parsePlain(descriptor: usize, packet: Packet, port: usize): bool {
  const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const bytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  if (load<u8>(port, PORT_LINK) != LINK_ETHERNET || bytes < BYTES_MIN) return false;
  if ((load<u32>(frame, 12) & TYPE_AND_VERSION_MASK) != TYPE_AND_VERSION) return false;
  const fragmentAndProtocol = load<u32>(frame, 20);
  const protocol = fragmentAndProtocol >> 24;
  if ((fragmentAndProtocol & FRAGMENT_MASK) != 0) return false;
  if (protocol > PROTOCOL_UDP || ((PORTED >> protocol) & 1) == 0) return false;
  const totalBytes = <u32>bswap<u16>(load<u16>(frame, 16));
  const bytesMax = min<u32>(bytes - ETHERNET_BYTES, plainBytesMax);
  if (totalBytes > bytesMax || totalBytes < IP_BYTES + UDP_BYTES) return false;

  // Data offset and flags of TCP; of UDP whatever stands there, and it is not used.
  const offsetAndFlags = <u32>load<u16>(frame, 46);
  const isTcp = protocol == PROTOCOL_TCP;
  const headerBytes = select<u32>((offsetAndFlags >> 2) & 0x3c, UDP_BYTES, isTcp);
  const headerBytesMin = select<u32>(TCP_BYTES_MIN, UDP_BYTES, isTcp);
  const present = totalBytes - IP_BYTES;
  if (headerBytes < headerBytesMin || headerBytes > present) return false;
  const flags = ((offsetAndFlags >> 8) & 7) | ((offsetAndFlags >> 9) & 8);

  const ip = <u32>frame + ETHERNET_BYTES;
  const head = <u32>PACKET_FAST | (protocol << 16) | (select<u32>(flags, 0, isTcp) << 24);
  store<u32>(changetype<usize>(packet), head, offsetof<Packet>("kind"));
  packet.transportBytes = present;
  packet.network = ip;
  packet.transport = ip + IP_BYTES;
  packet.sourceAddress = ip + 12;
  packet.destinationAddress = ip + 16;
  packet.candidate = 0;
  store<u32>(changetype<usize>(packet), 0, offsetof<Packet>("fragment"));
  const protocolZone = protocol | (load<u32>(port, PORT_ZONE) << 8);
  setTuple4(packet, load<u64>(frame, 26), load<u32>(frame, 34), protocolZone);
  return true;
}
