/**
 * Link layers: Ethernet II with up to two VLAN tags (IEEE 802.1Q, 802.1ad), Linux cooked captures
 * (LINKTYPE_LINUX_SLL and SLL2), BSD loopback (LINKTYPE_NULL, LINKTYPE_LOOP) and bare IP.
 * A FabricPath header (EtherType 0x8903) is an Ethernet header in front of the frame's own and is
 * stepped over. Whatever is not IPv4 or IPv6 behind them gets VERDICT_PASS_NON_IP and leaves untouched.
 */
import {
  FRAME_ADDRESS,
  FRAME_CAPTURED_BYTES,
  FRAME_PORT,
  LINK_ETHERNET,
  LINK_NULL,
  LINK_RAW,
  LINK_SLL,
  PORT_BYTES,
  PORT_LINK,
  PORT_PEER,
  PORT_VPC,
  PORT_ZONE,
  VERDICT_DROP_TRUNCATED,
  VERDICT_DROP_ZONE_FULL,
  VERDICT_PASS_NON_IP,
} from "../abi";
import { ports } from "../memory";
import { Packet } from "../packet";
import { ZONE_NONE, zoneOf } from "../zone";
import { parseIpv4 } from "./ipv4";
import { parseIpv6 } from "./ipv6";
import { decide } from "./transport";

const ETHERNET_BYTES: u32 = 14;
const SLL_BYTES: u32 = 16;
const SLL2_BYTES: u32 = 20;
const NULL_BYTES: u32 = 4;
const VLAN_BYTES: u32 = 4;
/** Forwarding tag, then the addresses and the type of the frame's own Ethernet header. */
const FABRIC_PATH_BYTES: u32 = 16;

// EtherTypes as a little-endian load sees them.
const TYPE_IPV4: u32 = 0x0008;
const TYPE_IPV6: u32 = 0xdd86;
const TYPE_VLAN: u32 = 0x0081;
const TYPE_PROVIDER_VLAN: u32 = 0xa888;
const TYPE_FABRIC_PATH: u32 = 0x0389;
const TYPE_OLD_VLAN: u32 = 0x0091;

/** Parses the frame of a descriptor. */
export function parseFrame(descriptor: usize, packet: Packet): void {
  const frame = <usize>load<u32>(descriptor, FRAME_ADDRESS);
  const bytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES);
  const port = ports + <usize>load<u16>(descriptor, FRAME_PORT) * PORT_BYTES;
  const isEthernet = load<u8>(port, PORT_LINK) == LINK_ETHERNET;
  if (i32(isEthernet) & i32(bytes >= ETHERNET_BYTES)) {
    if (load<u16>(frame, 12) == TYPE_IPV4) {
      const ip = frame + ETHERNET_BYTES;
      return parseIpv4(packet, ip, bytes - ETHERNET_BYTES, load<u32>(port, PORT_ZONE));
    }
  }
  parseLink(packet, frame, bytes, port);
}

function parseLink(packet: Packet, frame: usize, bytes: u32, port: usize): void {
  const link = load<u8>(port, PORT_LINK);
  if (link == LINK_RAW) return parseByVersion(packet, frame, bytes, load<u32>(port, PORT_ZONE));
  if (link == LINK_NULL) return parseNull(packet, frame, bytes, load<u32>(port, PORT_ZONE));
  let headerBytes = ETHERNET_BYTES;
  let typeOffset: u32 = 12;
  if (link == LINK_SLL) {
    headerBytes = SLL_BYTES;
    typeOffset = 14;
  } else if (link != LINK_ETHERNET) {
    headerBytes = SLL2_BYTES;
    typeOffset = 0;
  }
  if (bytes < headerBytes) return decide(packet, VERDICT_DROP_TRUNCATED);
  const type = <u32>load<u16>(frame + <usize>typeOffset);
  parseTagged(packet, frame + <usize>headerBytes, bytes - headerBytes, type, port);
}

export function isVlan(type: u32): bool {
  return type == TYPE_VLAN || type == TYPE_PROVIDER_VLAN || type == TYPE_OLD_VLAN;
}

function parseTagged(packet: Packet, start: usize, length: u32, type: u32, port: usize): void {
  let payload = start;
  let bytes = length;
  let protocol = type;
  let outer: u32 = 0;
  let inner: u32 = 0;
  let zone = load<u32>(port, PORT_ZONE);
  if (protocol == TYPE_FABRIC_PATH) {
    if (bytes < FABRIC_PATH_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
    protocol = load<u16>(payload, FABRIC_PATH_BYTES - 2);
    payload += FABRIC_PATH_BYTES;
    bytes -= FABRIC_PATH_BYTES;
  }
  for (let depth = 0; isVlan(protocol); depth++) {
    if (depth == 2) return decide(packet, VERDICT_PASS_NON_IP);
    if (bytes < VLAN_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
    const id = <u32>bswap<u16>(load<u16>(payload)) & 0xfff;
    if (depth == 0) outer = id;
    else inner = id;
    protocol = load<u16>(payload, 2);
    payload += VLAN_BYTES;
    bytes -= VLAN_BYTES;
  }
  if (protocol != TYPE_IPV4 && protocol != TYPE_IPV6) return decide(packet, VERDICT_PASS_NON_IP);
  if (outer | inner) {
    zone = zoneOf(load<u16>(port, PORT_VPC), outer, inner);
    if (zone == ZONE_NONE) return decide(packet, VERDICT_DROP_ZONE_FULL);
    nameZoneBehind(port, outer, inner);
  }
  if (protocol == TYPE_IPV4) parseIpv4(packet, payload, bytes, zone);
  else parseIpv6(packet, payload, bytes, zone);
}

/**
 * Gives the zone on the other side its number now, in the order of frames: hashes depend on it,
 * and a flow that begins later in the batch must not number zones in another order.
 */
function nameZoneBehind(port: usize, outer: u32, inner: u32): void {
  const peer = ports + <usize>load<u16>(port, PORT_PEER) * PORT_BYTES;
  const vpc = <u32>load<u16>(peer, PORT_VPC);
  if (vpc != <u32>load<u16>(port, PORT_VPC)) zoneOf(vpc, outer, inner);
}

function parseByVersion(packet: Packet, ip: usize, bytes: u32, zone: u32): void {
  if (bytes == 0) return decide(packet, VERDICT_DROP_TRUNCATED);
  const version = load<u8>(ip) >> 4;
  if (version == 4) return parseIpv4(packet, ip, bytes, zone);
  if (version == 6) return parseIpv6(packet, ip, bytes, zone);
  decide(packet, VERDICT_PASS_NON_IP);
}

/** Address families of BSD systems and Linux, in the byte order of whatever machine captured. */
function parseNull(packet: Packet, frame: usize, bytes: u32, zone: u32): void {
  if (bytes < NULL_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
  const stored = load<u32>(frame);
  const family = stored > 0xffff ? bswap<u32>(stored) : stored;
  const ip = frame + NULL_BYTES;
  if (family == 2) return parseIpv4(packet, ip, bytes - NULL_BYTES, zone);
  const isIpv6 = family == 24 || family == 28 || family == 30 || family == 10;
  if (isIpv6) return parseIpv6(packet, ip, bytes - NULL_BYTES, zone);
  decide(packet, VERDICT_PASS_NON_IP);
}
