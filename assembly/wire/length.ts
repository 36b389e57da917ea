/**
 * Length of IP packets as their headers give it, not as far as they are captured. Headers of
 * super-packets give none: then what is present counts.
 */
import { Packet } from "../packet";
import { IPV4_TOTAL_LENGTH } from "./ipv4";
import { IPV6_BYTES, IPV6_PAYLOAD_LENGTH } from "./ipv6";

/** Bytes of the whole IP packet. */
export function ipBytesOf(packet: Packet): u32 {
  const network = <usize>packet.network;
  const present = packet.transport - packet.network + packet.transportBytes;
  if (packet.isIpv6) {
    const payload = <u32>bswap<u16>(load<u16>(network, IPV6_PAYLOAD_LENGTH));
    return payload == 0 ? present : payload + IPV6_BYTES;
  }
  const total = <u32>bswap<u16>(load<u16>(network, IPV4_TOTAL_LENGTH));
  return total == 0 ? present : total;
}
