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
  FRAME_PORT,
  PORT_BYTES,
  PORT_FLAG_VNET,
  PORT_FLAGS,
  VNET_BYTES,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAG_PARTIAL,
  VNET_FLAG_VALID,
  VNET_FLAGS,
} from "../abi";
import { ports } from "../memory";
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

/** Whether a virtio_net_hdr stands before the frame, and room to grow before that. */
export function isOfDevice(descriptor: usize): bool {
  const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
  return (load<u8>(port, PORT_FLAGS) & PORT_FLAG_VNET) != 0;
}

/** Whether the transport checksum of a device's frame is neither left to the device nor verified. */
export function isUnverified(descriptor: usize): bool {
  const header = <usize>(load<u32>(descriptor, FRAME_ADDRESS) - VNET_BYTES);
  return (load<u8>(header, VNET_FLAGS) & (VNET_FLAG_PARTIAL | VNET_FLAG_VALID)) == 0;
}
