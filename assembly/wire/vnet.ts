/**
 * The header that a TUN device opened with IFF_VNET_HDR puts in front of each packet: struct
 * virtio_net_hdr (virtio 1.2 section 5.1.6). It says which checksum the sender has left to the
 * device, and how a super-packet of up to 64 KiB is to be cut into segments.
 *
 * Translation within a family changes no lengths, so the header itself passes through; between the
 * families network/nat64.ts moves it. What translation changes is how the transport checksum has to
 * follow: see addToPartial in rewrite.ts.
 */
import {
  FRAME_ADDRESS,
  VNET_BYTES,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAG_PARTIAL,
  VNET_FLAGS,
} from "../abi";
import { PACKET_FAST, PACKET_FLOW, Packet } from "../packet";

/**
 * Notes in the packet where its transport checksum is partial. Such a packet takes the long way. A
 * partial checksum anywhere else, as tunnels have inside, is payload to us.
 */
export function notePartial(descriptor: usize, packet: Packet): void {
  const frame = load<u32>(descriptor, FRAME_ADDRESS);
  const header = <usize>(frame - VNET_BYTES);
  if ((load<u8>(header, VNET_FLAGS) & VNET_FLAG_PARTIAL) == 0) return;
  if (packet.kind != PACKET_FAST && packet.kind != PACKET_FLOW) return;
  const offset = <u32>load<u16>(header, VNET_CHECKSUM_OFFSET);
  const isTransport = frame + load<u16>(header, VNET_CHECKSUM_START) == packet.transport;
  if (!isTransport || offset > 0xff || offset + 2 > packet.transportBytes) return;
  packet.partial = <u8>offset;
  packet.kind = PACKET_FLOW;
}
