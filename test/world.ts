/**
 * A small world full of collisions for the model test: few addresses, few ports, all protocols,
 * and one random number per packet, so that a failing sequence shrinks to the packets that matter.
 */

import { addressText, hex, seeded } from "../fixtures/bytes.ts";
import type { Extension, Ipv4Options, Ipv6Options } from "../fixtures/layers.ts";
import { type Packet, raw } from "../fixtures/packets.ts";
import type { PortOptions } from "../host/engine/api.ts";
import type { Arrival, Setup } from "./harness.ts";
import type { TwinFlow } from "./reference/engine.ts";
import { mirror, type Tuple } from "./reference/parse.ts";

const CLIENTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const SERVERS = ["192.0.2.1", "192.0.2.2", "172.16.0.1"];
const CLIENTS6 = ["2001:db8::1", "2001:db8::2"];
const SERVERS6 = ["2001:db8:f::1", "2001:db8:f::2"];
const POOL = ["198.51.100.1", "198.51.100.2", "2001:db8:a::1"];
const TARGETS = [
  { address: "172.16.0.1", port: 8080 },
  { address: "172.16.0.2" },
  { address: "172.16.0.3", port: 80 },
  { address: "2001:db8:b::1", port: 8080 },
  { address: "2001:db8:b::2" },
];

const OUTSIDE: PortOptions = { sides: "service", peer: 0 };

/** The arrangements that the model is run in. */
export const SETUPS: Record<string, Setup> = {
  "source NAT between two ports": {
    services: [{ sourceAddresses: POOL, resetStrays: true }],
    ports: [{ service: 0, peer: 1 }, OUTSIDE],
  },
  "source NAT that adopts flows, replayed on one port": {
    services: [{ sourceAddresses: POOL, adopt: true }],
    ports: [{ service: 0 }],
  },
  "targets between two ports": {
    services: [{ targets: TARGETS, resetStrays: true }],
    ports: [{ service: 0, peer: 1 }, OUTSIDE],
  },
  "targets that adopt flows, replayed on one port": {
    services: [{ targets: TARGETS, adopt: true }],
    ports: [{ service: 0 }],
  },
  "targets of each listener's own, replayed on one port": {
    services: [
      {
        targets: ["100.64.0.0", "100.64.16.0", "2001:db8:c::"].map((address) => ({ address })),
        listenerBits: 12,
        adopt: true,
      },
    ],
    ports: [{ service: 0 }],
  },
  "targets and source NAT that adopt flows, two VPCs": {
    services: [{ targets: TARGETS, sourceAddresses: POOL, adopt: true }, { adopt: true }],
    ports: [
      { service: 0, vpc: 1, peer: 1 },
      { sides: "service", vpc: 2, peer: 0 },
      { service: 1, vpc: 1, peer: 1 },
      { vpc: 3 },
    ],
  },
  "one port that carries both sides, and bare IP": {
    services: [{ targets: TARGETS.slice(0, 1), adopt: true }],
    ports: [
      { service: 0, sides: "both" },
      { service: 0, sides: "both", link: "raw" },
      { service: 0, link: "sll2", peer: 0 },
      { service: 0, link: "null", sides: "both" },
    ],
  },
};

interface Dice {
  /** One chance in `n`. */
  oneIn(n: number): boolean;
  below(n: number): number;
  of<T>(items: readonly T[]): T;
}

function dice(seed: number): Dice {
  const random = seeded(seed);
  const below = (n: number) => Math.floor(random() * n);
  return {
    below,
    oneIn: (n) => below(n) === 0,
    of: (items) => items[below(items.length)] as never,
  };
}

/** How far the clock goes before a packet: mostly not far. */
export function stepMs(d: Dice): number {
  if (d.oneIn(400)) return -2000;
  if (d.oneIn(150)) return d.of([29_000, 31_000, 61_000, 121_000, 351_000, 500_000]);
  return d.oneIn(10) ? d.below(3000) : d.below(20);
}

/** The packet that a random number stands for, in a world where these flows exist. */
export function arrivalOf(
  seed: number,
  setup: Setup,
  flows: readonly TwinFlow[],
  nowMs: number,
): Arrival {
  const d = dice(seed);
  const timeMs = Math.max(0, nowMs + stepMs(d));
  const port = d.below(setup.ports.length);
  const options = setup.ports[port] ?? {};
  const head = linkHead(d, options);
  const known = d.of(flows.length > 0 ? flows : [undefined]);
  const side = options.sides === "both" ? d.of(["client", "service"] as const) : options.sides;
  const stranger = known === undefined || d.oneIn(3);
  const tuple = stranger ? randomTuple(d) : turned(d, known[side ?? "client"]);
  const onWay = stranger ? head : vlanHead(head, options, tuple);
  const packet = packetOf(d, onWay, tuple, d.below(24));
  const whole = packet.bytes();
  const cut = d.oneIn(25) ? d.below(whole.length) : whole.length;
  return { frame: whole.subarray(0, cut), port, timeMs };
}

function turned(d: Dice, tuple: Tuple): Tuple {
  return d.oneIn(2) ? tuple : mirror(tuple);
}

function linkHead(d: Dice, port: PortOptions): Packet {
  const vlan = d.oneIn(4) ? d.of([[5], [6], [5, 6], [0], [1, 2, 3]]) : [];
  switch (port.link) {
    case "raw":
      return raw();
    case "null":
      return raw().loop({ bigEndian: d.oneIn(2) });
    case "sll2":
      return raw().sll2({ vlan });
    default:
      return raw().eth({ vlan });
  }
}

/** A head with the tags of a known flow's zone. */
function vlanHead(head: Packet, port: PortOptions, tuple: Tuple): Packet {
  const tags = tuple.zone.split(" ").slice(1).map(Number);
  const vlan = tags[1] === 0 ? tags.slice(0, 1) : tags;
  if (port.link === "raw" || port.link === "null") return head;
  return port.link === "sll2" ? raw().sll2({ vlan }) : raw().eth({ vlan });
}

const PROTOCOLS = [6, 6, 6, 6, 17, 17, 17, 1, 1, 50, 33, 136];

/** A tuple made of the world's few names; its addresses are hexadecimal like the twin's. */
function randomTuple(d: Dice): Tuple {
  const six = d.oneIn(3);
  const address = (text: string) => Buffer.from(addressBytesOf(text)).toString("hex");
  const client = address(d.of(six ? CLIENTS6 : CLIENTS));
  const server = address(d.of(six ? SERVERS6 : SERVERS));
  const protocol = d.of(PROTOCOLS);
  const tuple: Tuple = {
    protocol: six && protocol === 1 ? 58 : protocol,
    zone: "",
    source: client,
    sourcePort: d.of([1, 80, 1023, 1024, 5000, 5001]),
    destination: server,
    destinationPort: d.of([53, 80, 8080]),
  };
  return d.oneIn(4) ? mirror(tuple) : tuple;
}

const CACHE = new Map<string, Uint8Array>();

function addressBytesOf(text: string): Uint8Array {
  const known = CACHE.get(text);
  if (known) return known;
  const packet = raw().ip(text, text).bytes();
  const bytes = text.includes(":") ? packet.slice(8, 24) : packet.slice(12, 16);
  CACHE.set(text, bytes);
  return bytes;
}

const FLAGS = ["S", "S", "S", "SA", "A", "A", "PA", "FA", "FA", "R", "RA", "SF", "SR", ""];

/** Bad IPv4 headers. */
const MALFORMED: Ipv4Options[] = [{ version: 5 }, { headerWords: 4 }, { totalLength: 8 }];
const LENGTHS: Ipv4Options[] = [
  { totalLength: 0 },
  { options: hex("94040000") },
  { ttl: 1, tos: 8 },
];

const EXTENSIONS: Extension[][] = [
  [{ kind: "hop-by-hop" }],
  [{ kind: "destination", body: new Uint8Array(14) }],
  [{ kind: "home-address", address: "2001:db8::9" }],
  [{ kind: "routing", type: 0, segmentsLeft: 1, addresses: ["2001:db8:f::2", "2001:db8:f::1"] }],
  [{ kind: "routing", type: 2, segmentsLeft: 0, addresses: ["2001:db8:f::2"] }],
  [{ kind: "authentication" }, { kind: "mobility" }],
  [{ kind: "fragment", id: 1 }],
  Array.from({ length: 8 }, () => ({ kind: "destination" }) as const),
  Array.from({ length: 9 }, () => ({ kind: "destination" }) as const),
];

/** A packet with this tuple; `kind` makes some of them special. */
function packetOf(d: Dice, head: Packet, tuple: Tuple, kind: number): Packet {
  const source = textOf(tuple.source);
  const destination = textOf(tuple.destination);
  const six = source.includes(":");
  if (kind === 0) return errorAbout(d, head, tuple);
  if (kind === 1) return fragmentOf(d, head, tuple);
  if (kind === 2) return oddity(d, head, source, destination);
  const error = kind === 3 ? { checksumError: 1 + d.below(0xfffe) } : {};
  const four: Ipv4Options = { id: d.below(9), ...error };
  if (kind === 4 && d.oneIn(3)) Object.assign(four, d.of(MALFORMED));
  if (kind === 5) Object.assign(four, d.of(LENGTHS));
  const options: Ipv6Options = kind === 6 ? { extensions: d.of(EXTENSIONS) } : {};
  const network = six
    ? head.ipv6(source, destination, options)
    : head.ipv4(source, destination, four);
  return transportOf(d, network, tuple, error).payload(d.below(30));
}

function textOf(digits: string): string {
  return addressText(hex(digits));
}

function transportOf(
  d: Dice,
  network: Packet,
  tuple: Tuple,
  error: { checksumError?: number },
): Packet {
  const { protocol, sourcePort, destinationPort } = tuple;
  if (protocol === 6)
    return network.tcp(sourcePort, destinationPort, { flags: d.of(FLAGS), ...error });
  if (protocol === 17) {
    const none = d.oneIn(5) ? { checksum: 0 } : error;
    return network.udp(sourcePort, destinationPort, none);
  }
  if (protocol === 33) return network.dccp(sourcePort, destinationPort);
  if (protocol === 136) return network.udpLite(sourcePort, destinationPort);
  if (protocol !== 1 && protocol !== 58) return network.protocol(protocol, hex("0000100100000001"));
  const family = protocol === 1 ? 4 : 6;
  // The identifier is the port of whoever asks.
  const asks = sourcePort !== 0;
  const id = asks ? sourcePort : destinationPort;
  if (family === 6) return network.icmp6Query(asks ? 128 : 129, id, 1, error);
  const types = asks ? [8, 8, 13, 15, 17] : [0, 0, 14, 16, 18];
  return network.icmpQuery(d.of(types), id, 1, error);
}

/** An ICMP error about a packet with this tuple, from an end of it or from elsewhere. */
function errorAbout(d: Dice, head: Packet, tuple: Tuple): Packet {
  const source = textOf(tuple.source);
  const destination = textOf(tuple.destination);
  const six = source.includes(":");
  const error = d.oneIn(6) ? { checksumError: 9 } : {};
  const options = d.oneIn(5) && six ? { extensions: d.of(EXTENSIONS) } : {};
  const quoted = transportOf(d, raw().ip(source, destination, options), tuple, error).payload(
    d.below(40),
  );
  const quotedBytes = d.of([8, 20, 28, 48, 200, 200, 200]);
  const from = d.of([destination, six ? "2001:db8:9::9" : "203.0.113.9"]);
  const to = d.oneIn(8) ? (six ? "2001:db8:9::8" : "203.0.113.8") : source;
  if (six)
    return head.ipv6(from, to).icmp6Error(d.of([1, 2, 3, 4]), 0, quoted, { quotedBytes, ...error });
  return head
    .ipv4(from, to)
    .icmpError(d.of([3, 4, 5, 11, 12]), 0, quoted, { quotedBytes, ...error });
}

/** A first, middle or last piece of one of few datagrams. */
function fragmentOf(d: Dice, head: Packet, tuple: Tuple): Packet {
  const source = textOf(tuple.source);
  const destination = textOf(tuple.destination);
  const id = d.below(3);
  const first = d.oneIn(2);
  const offset = first ? 0 : 8 * (1 + d.below(3));
  const more = first || d.oneIn(2);
  const { protocol } = tuple;
  const network = source.includes(":")
    ? head.ipv6(source, destination, {
        protocol,
        extensions: [{ kind: "fragment", id, offset, more }],
      })
    : head.ipv4(source, destination, { protocol, id, fragmentOffset: offset, moreFragments: more });
  if (!first) return network.payload(40);
  return transportOf(d, network, tuple, {}).payload(40);
}

/** What is no ordinary packet. */
function oddity(d: Dice, head: Packet, source: string, destination: string): Packet {
  const six = source.includes(":");
  const network = head.ip(source, destination);
  switch (d.below(7)) {
    case 0:
      return head.arp("10.0.0.1", "10.0.0.2");
    case 1:
      return network.protocol(47, hex("00000800")).payload(20);
    case 2:
      return network.sctp(5000, 80).payload(16);
    case 3: // the other family's ICMP: just a protocol
      return six ? network.icmpQuery(8, 7).payload(4) : network.icmp6Query(128, 7).payload(4);
    case 4: // neither query nor error
      return six ? network.icmp6Query(135, 0).payload(16) : network.icmpQuery(10, 0);
    case 5: // an error about an error
      return six
        ? network.icmp6Error(1, 0, raw().ip(source, destination).icmp6Error(1, 0, raw()))
        : network.icmpError(3, 0, raw().ip(source, destination).icmpError(3, 0, raw()));
    default: // to itself
      return head.ip(source, source).udp(7, 7);
  }
}
