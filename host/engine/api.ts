/**
 * The types of the engine's interface: what a program configures, feeds in and reads back.
 * Everything here is plain data; `Engine` in engine.ts gives it meaning.
 */

/** Idle timeouts in seconds by flow state; 0 means never. Defaults in behaviour of each state. */
export interface Timeouts {
  /** TCP, SYN seen but no answer: 30. */
  halfOpen: number;
  /** TCP, established or half-closed: 350. */
  established: number;
  /** TCP, both FINs or a RST seen: 60. */
  closing: number;
  /** UDP: 120. */
  udp: number;
  /** ICMP queries: 60. */
  icmp: number;
  /** Any other protocol: 350. */
  other: number;
}

export interface EngineOptions {
  /** IPv4 flows that can live at once, 16 to 60,000,000; default 1,048,576. */
  flowCountMax?: number;
  /** IPv6 flows that can live at once, 16 to 28,000,000; default 262,144. */
  flow6CountMax?: number;
  /** Size of the frames region in bytes; default 4 MiB. */
  arenaBytes?: number;
  /** Size of the region for rings, targets and address pools in bytes; default 4 MiB. */
  tablesBytes?: number;
  /** Largest size that network tables (`setTables`) may have in bytes; default 0, none are used. */
  networkBytes?: number;
  /** 16 bytes that key every hash; default random. The same seed and input give the same output. */
  seed?: Uint8Array;
  timeouts?: Partial<Timeouts>;
  /**
   * Whether services may have PROXY headers; "udp": in datagrams as well, for which 2.5 MiB are taken.
   * Default false.
   */
  proxyProtocol?: boolean | "udp";
  /** The compiled engine, where the default (beside the package) cannot be read. */
  wasm?: URL | BufferSource | WebAssembly.Module;
  /** Runs synthetic batches first so that the first real one is as fast as the rest; default true. */
  warmUp?: boolean;
  /**
   * Called once with the engine's memory, before it grows to its size: the place to ask for huge
   * pages (`hugePages` of "flowplane/node").
   */
  prepareMemory?: ((memory: WebAssembly.Memory) => void) | undefined;
  /**
   * Touches the flow tables now, whatever their size, so that packets never wait for the system to
   * find a page; default false: tables of up to 32 MiB are, larger ones come page by page with the flows.
   */
  touchTables?: boolean;
}

/** How frames of a port begin. */
export type LinkKind = "ethernet" | "raw" | "null" | "sll" | "sll2";

export interface PortOptions {
  link?: LinkKind; // default "ethernet"
  /** Number of the VPC, 0 to 65535; default 0. Equal addresses in different VPCs never meet. */
  vpc?: number;
  /** Which tuples frames of this port carry: as clients see them, as services do, or both. */
  sides?: "client" | "service" | "both"; // default "client"
  /** Index of the service that makes flows from this port; default none. */
  service?: number;
  /** Port on which frames leave; default the port itself. */
  peer?: number;
  /**
   * New flows are resolved by the network tables instead of a service, and frames leave on the port
   * of the VPC that they are bound for; default false.
   */
  routed?: boolean;
  /** A virtio_net_hdr of 12 bytes stands right before each frame, and 116 free bytes before that for
   *  frames that grow; default false. */
  vnetHeader?: boolean;
}

export interface Target {
  /** IPv4 or IPv6 address in text form. */
  address: string;
  /** 1 to 65535; 0 or absent keeps the destination port. */
  port?: number;
  /** 0 to 999; default 1. */
  weight?: number;
}

export interface ServiceOptions {
  /** Source NAT: addresses (IPv4 and IPv6) that flows leave with; none keeps the source. */
  sourceAddresses?: string[];
  /** Destination NAT: targets by family, chosen over a Maglev ring; none keeps the destination. */
  targets?: Target[];
  /**
   * Gives every listener (destination address and port) targets of its own: that many low bits of
   * a target's address, 0 to 24 and 0 in the address as given, come from the listener. Default 0.
   */
  listenerBits?: number;
  /** TCP flows may begin in mid-stream, as captures do; default false. */
  adopt?: boolean;
  /**
   * TCP segments that belong to no flow and may not begin one are answered with a reset, which goes
   * back to their sender (RFC 9293 section 3.10.7.1); default false.
   */
  resetStrays?: boolean;
  /**
   * A PROXY protocol v2 header in the stream of every new TCP flow; default none. The engine needs
   * `proxyProtocol`. What changes holds for new flows.
   */
  proxyProtocol?: ProxyProtocolOptions;
}

/** Where a PROXY header goes in a TCP stream; AWS's names. */
export type HeaderPlacement = "on_first_ack_with_payload" | "on_first_ack";

/** PROXY protocol v2 towards the targets of a service. */
export interface ProxyProtocolOptions {
  /**
   * Before the client's first payload (default), or before the last packet of the handshake: then
   * servers that speak first work, too.
   */
  placement?: HeaderPlacement;
  /** Endpoint id of AWS PrivateLink, `vpce-…`. */
  vpce?: string;
  /** Further TLVs. CRC32C and padding come by themselves. */
  tlvs?: readonly { type: number; value: Uint8Array }[];
  /** Length to pad headers to; default 100, as AWS. It stays as it was while the service lives. */
  padTo?: number;
  /** UDP as well: a header in every datagram of the client; default false. */
  udp?: boolean;
}

/** Names of verdicts as they appear in reports, by VERDICT_* value. */
export type VerdictName =
  | "forward"
  | "pass.non-ip"
  | "drop.truncated"
  | "drop.malformed"
  | "drop.no-service"
  | "drop.no-flow"
  | "drop.fragment"
  | "drop.port-exhausted"
  | "drop.tuple-taken"
  | "drop.table-full"
  | "drop.zone-full"
  | "drop.same-endpoint"
  | "drop.no-route"
  | "drop.blackhole"
  | "drop.unintended"
  | "drop.security-group"
  | "drop.no-target"
  | "drop.too-large"
  | "drop.capacity"
  /** Only where `askFirst` is on: the frame waits for what other nodes have decided. */
  | "hold.undecided"
  /** An acknowledgement alone: the PROXY header that it causes takes its place. */
  | "absorb.header";

/** Frames that the engine makes itself: PROXY headers, TCP resets, ICMP errors. */
export type EmitName = "pp2" | "rst" | "icmp";

export interface Counters {
  /** Packets by verdict; the sum is the number of packets processed. */
  verdicts: Record<VerdictName, number>;
  proxyProtocol: {
    /** TCP headers that were sent again, because the client repeated its first bytes. */
    repeated: number;
    /** Acknowledgements that fell inside a header. */
    clamped: number;
    /** Flows that were met in mid-stream and have no header. */
    adopted: number;
    /** SYNs that lost their data or their Fast Open option. */
    cut: number;
    /** Datagrams that got a header. */
    datagrams: number;
  };
  flows: {
    created: number;
    expired: number;
    reopened: number;
    active: number;
    activeMax: number;
    spilled: number;
    tcp: number;
    udp: number;
    icmp: number;
    other: number;
  };
  /** Forwarded frames whose destination no device has. */
  unreachable: number;
  /** Frames that the engine made and sent. */
  emitted: Record<EmitName, number>;
}

/** What passed through one service. Frame bytes as captured. */
export interface Usage {
  packetsFromClient: number;
  packetsFromService: number;
  /** Bytes of frames as they came in. */
  bytesFromClient: number;
  bytesFromService: number;
  /** The same frames as they left: other numbers where they cross between IPv6 and IPv4. */
  bytesToService: number;
  bytesToClient: number;
  flowsCreated: number;
  flowsActive: number;
  /** Flows refused for want of a source port. */
  portsExhausted: number;
  /** Flows created, and those that live, by protocol. */
  tcp: { created: number; active: number };
  udp: { created: number; active: number };
  /** TCP flows that the service has answered. */
  established: number;
  /** Flows that ended by silence; counted when the engine notices (`Engine.expire`). */
  idleTimeouts: number;
  /** Flows that a RST of the client or of the service has ended, and RSTs that the engine made. */
  resets: { client: number; service: number; made: number };
  /** Flows refused for want of room in the table, of a target or of a free tuple. */
  flowsRefused: number;
  /** Flows to targets that are all unhealthy. */
  flowsFailOpen: number;
  /** Packets to one of its addresses that no listener takes. */
  unintended: number;
  /** Flows that security groups have blocked. */
  blocked: { inbound: Blocked; outbound: Blocked; endpoint: number };
  /** Packets dropped for whatever reason, flows refused among them. */
  packetsDropped: number;
}

/** Flows by protocol; `other` is ICMP in the main. */
export interface Blocked {
  tcp: number;
  udp: number;
  other: number;
}

export interface Endpoint {
  address: string;
  port: number;
}

/** One live flow, as a copy. */
export interface Flow {
  handle: number;
  /** "tcp", "udp", "icmp", "icmpv6" or the IANA number in decimal. */
  protocol: string;
  zone: number;
  /** The client and the service as the client side sees them. */
  client: Endpoint;
  service: Endpoint;
  /** The same two endpoints as the service side sees them. */
  translatedClient: Endpoint;
  translatedService: Endpoint;
  state:
    | "half-open"
    | "established"
    | "fin-client"
    | "fin-service"
    | "closing"
    | "udp"
    | "icmp"
    | "other"
    | "terminated"
    | "proposed";
  /**
   * How far the PROXY header of a stream is: not yet caused, sent but not acknowledged, acknowledged; or
   * that each datagram gets one. Absent in flows without.
   */
  header?: "due" | "sent" | "acknowledged" | "in-datagrams";
  packetsFromClient: number;
  packetsFromService: number;
  bytesFromClient: number;
  bytesFromService: number;
  lastSeenMs: number;
  /** Index of the service that made it. */
  madeBy: number;
}

/** An address range in the engine's memory. */
export interface Region {
  address: number;
  bytes: number;
}

/** Which worker asks for its frames, of how many; see `Engine.select`. */
export interface Selection {
  worker: number;
  /** 1 to 64. */
  workers: number;
  isSpread?: boolean;
  number?: number;
}

/** Flows of a service, by its id or number, to a target, or both. */
export interface TerminatedFlows {
  service?: string | number;
  address?: string;
  /** Of the target; default any. */
  port?: number;
}
