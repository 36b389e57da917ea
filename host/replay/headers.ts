/**
 * Names the conversation that a frame belongs to by its outermost IP header. The engine does this
 * for all frames of flows; here it is done for the few that are in no flow of their own: ICMP
 * errors, which the engine counts to the flow that they quote, and fragments without their first.
 */

import type { LinkKind } from "../engine/api.ts";

export interface NetworkHeader {
  /** IANA number of the first header that is not an extension of IPv6. */
  protocol: number;
  /** 4 or 16 bytes, views of the frame. */
  source: Uint8Array;
  destination: Uint8Array;
  /** VLAN ids, outermost first. */
  vlans: number[];
}

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPES_VLAN = new Set([0x8100, 0x88a8, 0x9100]);
/** Where the EtherType stands and where what it names begins. */
const ETHERTYPE_AT: Partial<Record<LinkKind, [type: number, payload: number]>> = {
  ethernet: [12, 14],
  sll: [14, 16],
  sll2: [0, 20],
};
const NULL_BYTES = 4;

/** Hop-by-hop, routing, fragment, authentication and destination headers (RFC 8200 section 4). */
const EXTENSIONS = new Set([0, 43, 44, 51, 60]);
const FRAGMENT = 44;
const AUTHENTICATION = 51;

/** The header of a frame that begins as `link` says; undefined when it is cut short or not IP. */
export function networkHeader(frame: Uint8Array, link: LinkKind): NetworkHeader | undefined {
  const place = ETHERTYPE_AT[link];
  if (place === undefined) return ipHeader(frame, link === "null" ? NULL_BYTES : 0, []);
  let [typeAt, at] = place;
  const vlans: number[] = [];
  let type = u16(frame, typeAt);
  while (ETHERTYPES_VLAN.has(type)) {
    vlans.push(u16(frame, at) & 0xfff);
    typeAt = at + 2;
    at += 4;
    type = u16(frame, typeAt);
  }
  if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) return undefined;
  return ipHeader(frame, at, vlans);
}

/** Two bytes, the first the higher; beyond the frame they are 0. */
function u16(frame: Uint8Array, at: number): number {
  return ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
}

function ipHeader(frame: Uint8Array, at: number, vlans: number[]): NetworkHeader | undefined {
  const version = (frame[at] ?? 0) >> 4;
  if (version === 4 && frame.length >= at + 20) {
    return {
      protocol: frame[at + 9] as number,
      source: frame.subarray(at + 12, at + 16),
      destination: frame.subarray(at + 16, at + 20),
      vlans,
    };
  }
  if (version !== 6 || frame.length < at + 40) return undefined;
  return {
    protocol: upperProtocol(frame, at + 40, frame[at + 6] as number),
    source: frame.subarray(at + 8, at + 24),
    destination: frame.subarray(at + 24, at + 40),
    vlans,
  };
}

/** Follows extension headers from `at`; the number of one that is cut short stands for itself. */
function upperProtocol(frame: Uint8Array, at: number, first: number): number {
  let protocol = first;
  let next = at;
  while (EXTENSIONS.has(protocol) && next + 8 <= frame.length) {
    const length = frame[next + 1] as number;
    // In a later fragment other headers do not follow.
    const isLater = protocol === FRAGMENT && u16(frame, next + 2) >> 3 !== 0;
    const bytes =
      protocol === FRAGMENT ? 8 : protocol === AUTHENTICATION ? (length + 2) * 4 : (length + 1) * 8;
    protocol = frame[next] as number;
    next += bytes;
    if (isLater) break;
  }
  return protocol;
}
