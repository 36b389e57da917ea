/** Packets behind a virtio_net_hdr through an engine, as a device hands them over and gets them back. */
import type { Engine } from "../host/engine/engine.ts";
import type { Transit } from "../host/engine/transit.ts";
import { headerBytesOf, headerOf, type VnetHeader } from "./reference/vnet.ts";

export const VNET_BYTES = 12;

export interface Handed {
  packet: Uint8Array;
  /** What the sender leaves to the device: where the checksum is, if it does. */
  header: VnetHeader;
}

export interface Left extends Handed {
  device: number;
}

/** Runs packets through as one batch. */
export function passThrough(
  { engine, transit }: { engine: Engine; transit: Transit },
  sent: readonly (Handed & { port: number })[],
): Left[] {
  for (const { packet, header, port } of sent) {
    const address = transit.slotAddress(transit.count);
    engine.bytes.set(headerBytesOf(header), address);
    engine.bytes.set(packet, address + VNET_BYTES);
    transit.take(address, VNET_BYTES + packet.length, port, 1000);
  }
  return Array.from({ length: transit.process() }, (_, index) => {
    const start = transit.addressOf(index);
    const bytes = engine.bytes.slice(start, start + transit.bytesOf(index));
    const header = headerOf(bytes);
    return { device: transit.deviceOf(index), header, packet: bytes.slice(VNET_BYTES) };
  });
}
