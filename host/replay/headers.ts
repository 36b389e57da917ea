/**
 * What a frame's outermost IP header says. The engine names flows by more than that; here it is
 * read for conversations of protocols without ports, which are named by their addresses alone.
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
  /** An ICMP message about another packet (RFC 792, RFC 4443): unreachable, too big, redirect... */
  isError: boolean;
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
const ICMP = 1;
const ICMPV6 = 58;
/** Unreachable, source quench, redirect, time exceeded, parameter problem. */
const ICMP_ERRORS = new Set([3, 4, 5, 11, 12]);
/** ICMPv6 types below this one are errors. */
const ICMPV6_INFORMATIONAL = 128;
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
    // VLAN 0 is a priority tag, not a VLAN.
    const id = u16(frame, at) & 0xfff;
    if (id !== 0) vlans.push(id);
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
    const protocol = frame[at + 9] as number;
    const isLater = (u16(frame, at + 6) & 0x1fff) !== 0;
    const type = frame[at + ((frame[at] as number) & 15) * 4];
    return {
      protocol,
      source: frame.subarray(at + 12, at + 16),
      destination: frame.subarray(at + 16, at + 20),
      vlans,
      isError: protocol === ICMP && !isLater && ICMP_ERRORS.has(type ?? 0),
    };
  }
  if (version !== 6 || frame.length < at + 40) return undefined;
  const upper = upperHeader(frame, at + 40, frame[at + 6] as number);
  const type = upper.isLater ? undefined : frame[upper.at];
  return {
    protocol: upper.protocol,
    source: frame.subarray(at + 8, at + 24),
    destination: frame.subarray(at + 24, at + 40),
    vlans,
    isError: upper.protocol === ICMPV6 && (type ?? ICMPV6_INFORMATIONAL) < ICMPV6_INFORMATIONAL,
  };
}

interface UpperHeader {
  protocol: number;
  at: number;
  /** A later fragment: what follows is not the header but something behind it. */
  isLater: boolean;
}

/** Follows extension headers from `at`; one that is cut short stands for itself. */
function upperHeader(frame: Uint8Array, at: number, first: number): UpperHeader {
  let protocol = first;
  let next = at;
  let isLater = false;
  while (EXTENSIONS.has(protocol) && next + 8 <= frame.length && !isLater) {
    const length = frame[next + 1] as number;
    isLater = protocol === FRAGMENT && u16(frame, next + 2) >> 3 !== 0;
    const bytes =
      protocol === FRAGMENT ? 8 : protocol === AUTHENTICATION ? (length + 2) * 4 : (length + 1) * 8;
    protocol = frame[next] as number;
    next += bytes;
  }
  return { protocol, at: next, isLater };
}
