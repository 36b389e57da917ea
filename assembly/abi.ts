/**
 * The contract between the TypeScript host and the WebAssembly engine: every number that both
 * sides must agree on. This file is compiled twice, by `asc` (as AssemblyScript) and by `tsc`
 * and Node (as TypeScript), so it holds only typed integer constants: no enums, no decorators,
 * no functions, no imports.
 *
 * Names: `THING_FIELD` is a byte offset in a record, `THING_BYTES` its stride, `THING_KIND` an
 * enum value, `THING_COUNT_MAX` a limit. Integers are little-endian unless the name ends in
 * `_BE`. Addresses are byte offsets in the engine's memory.
 */

/** Bumped on any change of this file; checked by the host at load. */
export const ABI_VERSION: u32 = 16;

// Descriptor: one frame of a batch. The host or the record walk fills the first part, the
// engine the second. Frames stay where they are and are rewritten in place.
//
//                                           offset   size  meaning
export const FRAME_ADDRESS: u32 = 0; //           4  address of the first captured byte
export const FRAME_CAPTURED_BYTES: u32 = 4; //    4  bytes present in memory
export const FRAME_TIME_MS: u32 = 8; //           4  virtual clock, ms since its start, mod 2^32
export const FRAME_PORT: u32 = 12; //             2  ingress port
export const FRAME_PORT_OUT: u32 = 14; //         2  egress port (engine)
export const FRAME_VERDICT: u32 = 16; //          2  VERDICT_* (engine)
export const FRAME_SIDE: u32 = 18; //             1  SIDE_* that the tuple was found on (engine)
export const FRAME_DIRECTION: u32 = 19; //        1  DIRECTION_* (engine)
export const FRAME_FLOW: u32 = 20; //             4  flow handle, 0 = none (engine)
export const FRAME_RECORD: u32 = 24; //           4  address of the capture record, 0 = none
export const FRAME_WIRE_BYTES: u32 = 28; //       4  length on the wire
export const FRAME_BYTES: u32 = 32;
export const BATCH_COUNT_MAX: u32 = 256;

// Emitted frames: those that the engine makes itself. Descriptors of the same layout in a list of
// their own, in the order in which they leave, each tied to the frame of the batch that caused it:
// VERDICT holds EMIT_*, SIDE is 1 when it leaves after the cause (0: before), RECORD is the index
// of the cause in the batch, PORT the cause's.
export const EMIT_PP2: u32 = 0; //   PROXY protocol header
export const EMIT_RST: u32 = 1; //   TCP reset
export const EMIT_ICMP: u32 = 2; //  ICMP error
export const EMIT_COUNT: u32 = 3;
/** Most frames that one frame of a batch may cause. */
export const EMIT_PER_FRAME_MAX: u32 = 2;
export const EMIT_BYTES_MAX: u32 = 1920; //  longest emitted frame, link header included
export const EMIT_HEADROOM_BYTES: u32 = 16; // free bytes before each

/** Free bytes that a source leaves before a frame where it can, so that it may grow in place. */
export const FRAME_HEADROOM_BYTES: u32 = 128;

// Verdicts: what the engine did with a frame. Every frame gets exactly one.
export const VERDICT_FORWARD: u32 = 0; //               translated, goes out
export const VERDICT_PASS_NON_IP: u32 = 1; //           not IP: goes out untouched
export const VERDICT_DROP_TRUNCATED: u32 = 2; //        captured bytes end before the flow can be named
export const VERDICT_DROP_MALFORMED: u32 = 3; //        header lengths contradict each other
export const VERDICT_DROP_NO_SERVICE: u32 = 4; //       no service stands behind this port
export const VERDICT_DROP_NO_FLOW: u32 = 5; //          belongs to no flow and may not begin one
export const VERDICT_DROP_FRAGMENT: u32 = 6; //         later fragment whose first was not seen
export const VERDICT_DROP_PORT_EXHAUSTED: u32 = 7; //   no free source port towards this destination
export const VERDICT_DROP_TUPLE_TAKEN: u32 = 8; //      every target already has this client's tuple
export const VERDICT_DROP_TABLE_FULL: u32 = 9; //       flow table full
export const VERDICT_DROP_ZONE_FULL: u32 = 10; //       more VLANs than zones
export const VERDICT_DROP_SAME_ENDPOINT: u32 = 11; // both ends are one: replies could not be told apart
export const VERDICT_DROP_NO_ROUTE: u32 = 12; //       the VPC's route table knows no way there
export const VERDICT_DROP_BLACKHOLE: u32 = 13; //      the route leads nowhere on purpose
export const VERDICT_DROP_UNINTENDED: u32 = 14; //     nothing that a resource with this address takes
export const VERDICT_DROP_SECURITY_GROUP: u32 = 15; // no rule of a security group lets the flow begin
export const VERDICT_DROP_NO_TARGET: u32 = 16; //      the listener has no target
export const VERDICT_DROP_TOO_LARGE: u32 = 17; //      larger than the MTU of its service
export const VERDICT_DROP_CAPACITY: u32 = 18; //       beyond what its resource may carry
export const VERDICT_HOLD_UNDECIDED: u32 = 19; //     waits for what other nodes have decided
export const VERDICT_ABSORB_HEADER: u32 = 20; //      an ACK alone: leaves with the PROXY header that it causes
export const VERDICT_COUNT: u32 = 21;

// A flow has two sides. The client side is the tuple as the client sees it, the service side the
// tuple as the target or the remote server sees it. A frame arrives on one and leaves on the other.
export const SIDE_CLIENT: u32 = 0;
export const SIDE_SERVICE: u32 = 1;
export const DIRECTION_FROM_CLIENT: u32 = 0;
export const DIRECTION_FROM_SERVICE: u32 = 1;

// IPv4 flow record: one cache line. Both tuples are stored in canonical order (the smaller
// endpoint first), so that both directions of a side are the same 16 bytes.
//
//                                           offset   size  meaning
export const FLOW_CLIENT_SIDE: u32 = 0; //       16  KEY_*: the tuple of the client side
export const FLOW_SERVICE_SIDE: u32 = 16; //     16  KEY_*: the tuple of the service side
export const FLOW_LAST_SEEN_MS: u32 = 32; //      4  virtual clock of the last packet
export const FLOW_NETWORK_DELTA: u32 = 36; //     2  one's complement sum, client to service side, IPv4 header
export const FLOW_TRANSPORT_DELTA: u32 = 38; //   2  the same for a checksum with pseudo-header and ports; what
//                                                  a PROXY header that is done adds to it is in it (IPv4)
export const FLOW_FIRST_NUMBER: u32 = 36; //      4  in place of both while a header may yet be caused: ISN + 1
export const FLOW_PACKETS_CLIENT: u32 = 40; //    4  packets from the client, mod 2^32
export const FLOW_PACKETS_SERVICE: u32 = 44; //   4  packets from the service, mod 2^32
export const FLOW_OCTETS_CLIENT: u32 = 48; //     6  frame bytes from the client, mod 2^48
export const FLOW_STATE: u32 = 54; //             1  FLOW_STATE_*
export const FLOW_FLAGS: u32 = 55; //             1  FLOW_FLAG_*
export const FLOW_OCTETS_SERVICE: u32 = 56; //    6  frame bytes from the service, mod 2^48
export const FLOW_SERVICE: u32 = 62; //           2  index of the service that made the flow
export const FLOW_BYTES: u32 = 64;

// The IPv6 record is the IPv4 record with keyed hashes in place of the addresses, then the addresses.
export const FLOW6_CLIENT_LOW: u32 = 64; //      16  client side, smaller endpoint's address
export const FLOW6_CLIENT_HIGH: u32 = 80; //     16
export const FLOW6_SERVICE_LOW: u32 = 96; //     16  service side
export const FLOW6_SERVICE_HIGH: u32 = 112; //   16
export const FLOW6_BYTES: u32 = 128;

// Key: one side's tuple, canonical.
export const KEY_LOW_ADDRESS_BE: u32 = 0; //      4
export const KEY_HIGH_ADDRESS_BE: u32 = 4; //     4
export const KEY_LOW_PORT_BE: u32 = 8; //         2  ICMP queries: identifier of the sender, else 0
export const KEY_HIGH_PORT_BE: u32 = 10; //       2
export const KEY_PROTOCOL: u32 = 12; //           1  IANA protocol number
export const KEY_ZONE: u32 = 13; //               3  zone: VPC and VLAN tags
export const KEY_BYTES: u32 = 16;

export const FLOW_FLAG_CLIENT_HIGH: u32 = 1; //   on the client side the client is the larger endpoint
export const FLOW_FLAG_SERVICE_HIGH: u32 = 2; //  on the service side the client is the larger endpoint
export const FLOW_FLAG_SPILLED: u32 = 4; //       stands outside its home group, found by the index
export const FLOW_FLAG_INDEXED: u32 = 8; //       the service side has an index entry
export const FLOW_FLAG_ASYMMETRIC: u32 = 16; //   answered in another zone (adopted flows only)
export const FLOW_FLAG_RETIRED: u32 = 32; //      over and counted as expired, kept while there is room
export const FLOW_FLAG_HEADER: u32 = 64; //       a PROXY header stands in the client's stream
export const FLOW_FLAG_OPEN: u32 = 128; //        the header is not sent or not acknowledged; UDP: one each

export const FLOW_STATE_HALF_OPEN: u32 = 0; //    TCP: SYN seen, no answer from the service yet
export const FLOW_STATE_ESTABLISHED: u32 = 1; //  TCP
export const FLOW_STATE_FIN_CLIENT: u32 = 2; //   TCP: the client has sent FIN
export const FLOW_STATE_FIN_SERVICE: u32 = 3; //  TCP: the service has sent FIN
export const FLOW_STATE_CLOSING: u32 = 4; //      TCP: both FINs, or RST
export const FLOW_STATE_UDP: u32 = 5;
export const FLOW_STATE_ICMP: u32 = 6;
export const FLOW_STATE_OTHER: u32 = 7;
export const FLOW_STATE_TERMINATED: u32 = 8; //   ended by the control plane: its next packet is a stray
export const FLOW_STATE_PROPOSED: u32 = 9; //     not yet decided: its packets wait (flow/decision.ts)
export const FLOW_STATE_COUNT: u32 = 10;
export const FLOW_TIMEOUT_COUNT: u32 = 8; //      those before it have a configured timeout
export const TIMEOUT_SECONDS_MAX: u32 = 536870; // longest timeout but "never": below CLOCK_WINDOW_MS

// The clock counts ms in 32 bits and is compared by signed difference (assembly/clock.ts).
export const CLOCK_WINDOW_MS: u32 = 0x20000000; // 6.2 days: ages are brought into range once in that
export const CLOCK_STEP_MS_MAX: u32 = 0x40000000; // 12.4 days: the longest step, and the greatest age

// Compact record: half a cache line. The translation is not in it, the slot is the translation
// (compact/table.ts). Addresses and ports as the packet of the client carries them.
export const COMPACT_CLIENT_ADDRESS_BE: u32 = 0; // 4
export const COMPACT_SERVER_ADDRESS_BE: u32 = 4; // 4
export const COMPACT_CLIENT_PORT_BE: u32 = 8; //    2
export const COMPACT_SERVER_PORT_BE: u32 = 10; //   2
export const COMPACT_LAST_SEEN_MS: u32 = 12; //     4
export const COMPACT_OCTETS_CLIENT: u32 = 16; //    4  frame bytes from the client, mod 2^32
export const COMPACT_OCTETS_SERVICE: u32 = 20; //   4
export const COMPACT_STATE: u32 = 24; //            1  FLOW_STATE_* plus one, 0 = free; the low bits of
//                                                  8  a word that holds both counts of packets, mod 2^28
export const COMPACT_PACKETS_CLIENT_SHIFT: u32 = 8;
export const COMPACT_PACKETS_SERVICE_SHIFT: u32 = 36;
export const COMPACT_BYTES: u32 = 32;
/** Groups of 16 ports by 64 that an address has from port 1024 on. */
export const COMPACT_BLOCKS_PER_ADDRESS: u32 = 63;

// Decided flow: what nodes tell each other of a flow. Nothing in it depends on the node: zones are spelt
// out, hashes left out. Two sides, each in canonical order.
export const DECIDED_CLIENT_SIDE: u32 = 0; //      48  DECIDED_SIDE_*
export const DECIDED_SERVICE_SIDE: u32 = 48; //    48
export const DECIDED_FLAGS: u32 = 96; //            1  FLOW_FLAG_CLIENT_HIGH and _SERVICE_HIGH
export const DECIDED_STATE: u32 = 97; //            1  FLOW_STATE_*
export const DECIDED_SERVICE: u32 = 98; //          2  the service's number, the same on all nodes
export const DECIDED_STREAM: u32 = 100; //           1  whether there is a PROXY header: 0 = none, else DECIDED_STREAM_*
export const DECIDED_BEGINS: u32 = 101; //           1  1 = by a stream's first packet: replaces what was known
export const DECIDED_FIRST: u32 = 104; //            4  where the header begins: the client's ISN + 1
export const DECIDED_BYTES: u32 = 128;
export const DECIDED_STREAM_HEADER: u32 = 1; //      once in a TCP stream, or in each datagram
export const DECIDED_STREAM_DONE: u32 = 2; //        in a TCP stream, and acknowledged
export const DECIDED_SIDE_LOW: u32 = 0; //         16  address, network order; IPv4 in the first four
export const DECIDED_SIDE_HIGH: u32 = 16; //       16
export const DECIDED_SIDE_PORTS: u32 = 32; //       4  low and high port, network order
export const DECIDED_SIDE_PROTOCOL: u32 = 36; //    1
export const DECIDED_SIDE_IS_IPV6: u32 = 37; //     1
export const DECIDED_SIDE_VPC: u32 = 38; //         2
export const DECIDED_SIDE_OUTER: u32 = 40; //       2  VLAN ids, 0 = no tag
export const DECIDED_SIDE_INNER: u32 = 42; //       2
export const DECIDED_SIDE_BYTES: u32 = 48;

// Store of decisions in shared memory (store/index.ts), from address 0. Every thread has a place for
// its batch: decisions, their outcomes, their hashes and a word.
export const STORE_THREADS: u32 = 0; //          4  how many threads have a place
export const STORE_BATCHES: u32 = 64; //            places of STORE_BATCH_BYTES
export const STORE_THREAD_COUNT_MAX: u32 = 64;
export const STORE_BATCH_COUNT_MAX: u32 = 64;
export const STORE_BATCH_OUTCOMES: u32 = 8192; //  1 each, STORE_CLAIM_*
export const STORE_BATCH_HASHES: u32 = 8256; //    4 each
export const STORE_BATCH_GUESSES: u32 = 8512; //   4 each, addresses of decisions
export const STORE_BATCH_SEEN: u32 = 8768; //      4  what touching has read, so that it is not left out
export const STORE_BATCH_BYTES: u32 = 8832;
export const STORE_LOCKS: u32 = 565312; //          a lock per region
export const STORE_LOCK_BYTES: u32 = 64;
export const STORE_REGION_BUCKETS: u32 = 32;
export const STORE_BUCKET_SLOTS: u32 = 8;
export const STORE_BUCKET_BYTES: u32 = 64; //       hashes, then ends of life
export const STORE_CLAIM_OWN: u32 = 0; //           the decision given is there now
export const STORE_CLAIM_EARLIER: u32 = 1; //       an earlier one is
export const STORE_CLAIM_NO_ROOM: u32 = 2; //       nothing is, there is no room

/** Set in the handle of an IPv6 flow; the rest is the slot's index plus one. */
export const HANDLE_IPV6: u32 = 0x80000000;

// Port: where frames enter and leave.
export const PORT_ZONE: u32 = 0; //               4  zone of untagged frames
export const PORT_VPC: u32 = 4; //                2
export const PORT_SIDES: u32 = 6; //              1  PORT_SIDE_*: which tuples its frames carry
export const PORT_LINK: u32 = 7; //               1  LINK_*
export const PORT_SERVICE: u32 = 8; //            2  service behind the port, 0xffff = none
export const PORT_PEER: u32 = 10; //              2  port on the other side
export const PORT_FLAGS: u32 = 12; //             1  PORT_FLAG_*
export const PORT_DEVICE: u32 = 14; //            2  device on which frames leave, plus one; 0 = told by address
export const PORT_BYTES: u32 = 16;
export const PORT_COUNT_MAX: u32 = 4096;
export const PORT_SIDE_CLIENT: u32 = 1;
export const PORT_SIDE_SERVICE: u32 = 2;
export const PORT_SIDE_ROUTED: u32 = 4; //        network tables resolve its new flows

export const PORT_FLAG_VNET: u32 = 1; //          a virtio_net_hdr stands in front of each frame

// virtio_net_hdr (virtio 1.2 section 5.1.6), little-endian, right before a frame's first byte.
export const VNET_FLAGS: u32 = 0; //              1  VNET_FLAG_*
export const VNET_GSO_TYPE: u32 = 1; //           1  VNET_GSO_*
export const VNET_HEADER_BYTES: u32 = 2; //       2  headers of a super-packet
export const VNET_SEGMENT_BYTES: u32 = 4; //      2  payload of each segment of a super-packet
export const VNET_CHECKSUM_START: u32 = 6; //     2  from the frame's first byte
export const VNET_CHECKSUM_OFFSET: u32 = 8; //    2  of the field, from the start
export const VNET_BYTES: u32 = 12;
export const VNET_FLAG_PARTIAL: u32 = 1; //       NEEDS_CSUM: the field holds the pseudo-header's sum
export const VNET_FLAG_VALID: u32 = 2; //         DATA_VALID: the checksum was verified
export const VNET_GSO_NONE: u32 = 0;
export const VNET_GSO_TCP4: u32 = 1;
export const VNET_GSO_TCP6: u32 = 4;
export const VNET_GSO_UDP: u32 = 5; //            UDP_L4: each segment a datagram

// Departure: a frame with its virtio_net_hdr, ready to be written to a device.
export const DEPARTURE_ADDRESS: u32 = 0; //       4  where the virtio_net_hdr begins
export const DEPARTURE_LENGTH: u32 = 4; //        4  bytes from there on
export const DEPARTURE_DEVICE: u32 = 8; //        4
export const DEPARTURE_DATAGRAMS: u32 = 12; //    4  frames of the batch that it carries
export const DEPARTURE_BYTES: u32 = 16;
export const DEPARTURE_FLAG_MERGE: u32 = 1; //    datagrams of one flow may leave as one super-packet
export const DEVICE_ADDRESS_COUNT_MAX: u32 = 4096;

export const LINK_ETHERNET: u32 = 0;
export const LINK_RAW: u32 = 1; //   the IP version nibble tells
export const LINK_NULL: u32 = 2; //  BSD loopback: 4 bytes address family, either byte order
export const LINK_SLL: u32 = 3; //   Linux cooked v1
export const LINK_SLL2: u32 = 4; //  Linux cooked v2

// Service: what makes flows. Addresses of tables point into the tables region.
export const SERVICE_FLAGS: u32 = 0; //           4  SERVICE_FLAG_*
export const SERVICE_POOL: u32 = 4; //            4  address of POOL entries: source addresses, IPv4
export const SERVICE_POOL_COUNT: u32 = 8; //      4  0 = the source stays
export const SERVICE_POOL6: u32 = 12; //          4  the same, IPv6
export const SERVICE_POOL6_COUNT: u32 = 16; //    4
export const SERVICE_RING_SIZE: u32 = 20; //      4  entries of each ring; 0 = the destination stays
export const SERVICE_RING: u32 = 24; //           4  address of u16 target indices (Maglev), IPv4
export const SERVICE_TARGETS: u32 = 28; //        4  address of TARGET entries
export const SERVICE_TARGET_COUNT: u32 = 32; //   4  0 = the destination stays
export const SERVICE_RING6: u32 = 36; //          4  the same three, IPv6
export const SERVICE_TARGETS6: u32 = 40; //       4
export const SERVICE_TARGET6_COUNT: u32 = 44; //  4
export const SERVICE_LISTENER_BITS: u32 = 48; //  4  low bits of target addresses that the listener gives
export const SERVICE_PP2_TEMPLATE: u32 = 52; //   4  address of the PROXY header without tuple and CRC, IPv4
export const SERVICE_PP2_TEMPLATE6: u32 = 56; //  4  the same, IPv6
export const SERVICE_PP2_BYTES: u32 = 60; //      2  its length; stays as long as flows may have it
export const SERVICE_PP2_BYTES6: u32 = 62; //     2
// From 64 on: services of network tables. Zero: as `setService` makes them.
export const SERVICE_TRAITS: u32 = 64; //         4  TRAIT_*
export const SERVICE_VPC: u32 = 68; //            2  VPC that its packets leave to
export const SERVICE_MTU_BYTES: u32 = 70; //      2  largest IP packet, 0 = any
export const SERVICE_IDLE_MS: u32 = 72; //        4  TCP idle timeout, 0 = the engine's
export const SERVICE_PORT_MIN: u32 = 76; //       2  lowest source port that it assigns, 0 = 1024
export const SERVICE_CAPACITY: u32 = 78; //       2  number of its CAPACITY record, 0 = unlimited
export const SERVICE_RULES_ENDPOINT: u32 = 80; // 4  address of RULES, 0 = everything passes
export const SERVICE_RULES_INBOUND: u32 = 84; //  4
export const SERVICE_RULES_OUTBOUND: u32 = 88; // 4
export const SERVICE_PP2_SUM: u32 = 92; //        2  folded sum of the template's words, its CRC taken as zero
export const SERVICE_PP2_SUM6: u32 = 94; //       2
export const SERVICE_BYTES: u32 = 128;
export const SERVICE_COUNT_MAX: u32 = 16384;
export const SERVICE_NONE: u32 = 0xffff;
export const SERVICE_FLAG_ADOPT: u32 = 1; //      TCP flows may begin in mid-stream
export const SERVICE_FLAG_RESET_STRAYS: u32 = 2; // TCP segments of no flow are answered with RST
export const SERVICE_FLAG_PP2: u32 = 0x10000; //  new TCP flows get a PROXY header
export const SERVICE_FLAG_PP2_FIRST_ACK: u32 = 0x20000; // before the handshake's ACK, not the first data
export const SERVICE_FLAG_PP2_UDP: u32 = 0x40000; // every datagram of new UDP flows gets one
export const TRAIT_NETWORK: u32 = 1; //           of network tables: leaves to SERVICE_VPC, begins anew when over
export const TRAIT_TARGETED: u32 = 2; //          takes no flow without a target
export const TRAIT_SEQUENCE: u32 = 4; //          targets are chosen by the SYN's sequence number, too
export const TRAIT_STICKY: u32 = 8; //            targets are chosen by the client's address alone
export const TRAIT_UDP_FRAGMENTS: u32 = 16; //    fragments pass only if they are of UDP
export const TRAIT_UNREACHABLE: u32 = 32; //      ICMP errors pass only if they say "unreachable"
export const TRAIT_NAT: u32 = 64; //             TCP, UDP and ICMP queries only
export const TRAIT_MTU_TOLD: u32 = 128; //        ICMP tells of packets that are too large
export const TRAIT_NAT64: u32 = 512; //           IPv6 packets go to 64:ff9b::/96 only, and leave as IPv4
export const TRAIT_FAIL_OPEN: u32 = 256; //       all its targets are unhealthy
// Network image: header, then whatever it points to. The host packs it, the engine reads it.
export const IMAGE_SERVICES: u32 = 0; //          4  address of SERVICE records
export const IMAGE_DIRECTORY: u32 = 4; //         4  address of DIRECTORY entries
export const IMAGE_DIRECTORY_MASK: u32 = 8; //    4  their number less one; a power of two less one
export const IMAGE_IDLE_MS_MIN: u32 = 12; //      4  shortest SERVICE_IDLE_MS, 0 = none has one
export const IMAGE_SERVICE_COUNT: u32 = 16; //    4
export const IMAGE_CROSSES: u32 = 24; //          4  1 = some service has TRAIT_NAT64
export const IMAGE_MTU_MIN: u32 = 20; //          4  smallest SERVICE_MTU_BYTES, 0 = none has one
export const IMAGE_BYTES: u32 = 64;
// Directory: open addressing, one entry for every listener, address, VPC and prefix.
export const DIRECTORY_ADDRESS: u32 = 0; //      16  network order; IPv4 in the first four bytes
export const DIRECTORY_SPACE: u32 = 16; //        4  SPACE_* << 24 | number of the VPC or prefix set; 0 = free
export const DIRECTORY_DETAIL: u32 = 20; //       4  see SPACE_*
export const DIRECTORY_VALUE: u32 = 24; //        4
export const DIRECTORY_BYTES: u32 = 32;
export const SPACE_VPC: u32 = 1; //               value: address of the VPC record
export const SPACE_LISTENER: u32 = 2; //          detail: DETAIL_IPV6 | protocol << 16 | port; value: service
export const SPACE_ADDRESS: u32 = 3; //           detail: DETAIL_IPV6; value: service
export const SPACE_PREFIX: u32 = 4; //            detail: DETAIL_IPV6 | length; value: as the set's kind says
export const SPACE_TARGET: u32 = 5; //            a target that sees clients' addresses; detail, value: as LISTENER
export const DETAIL_IPV6: u32 = 0x80000000;
export const DIRECTORY_PROBES_MAX: u32 = 32; //   entries looked at for one key, at most
export const VPC_PORT: u32 = 0; //                4  port on which frames leave to it, PORT_NONE = the ingress port
export const VPC_MAIN: u32 = 4; //                4  address of the PREFIXES of its main route table, 0 = none
export const VPC_SUBNETS: u32 = 8; //             4  address of PREFIXES: subnets with other route tables, 0 = none
export const VPC_BYTES: u32 = 16;
export const PORT_NONE: u32 = 0xffff;
// Prefix set: which lengths there are. Values: a service (or ROUTE_BLACKHOLE), or a route table's address.
export const PREFIXES_NUMBER: u32 = 0; //         4
export const PREFIXES_LENGTHS: u32 = 8; //        8  bit per length, IPv4
export const PREFIXES_LENGTHS6: u32 = 16; //     24  bit per length, IPv6
export const PREFIXES_BYTES: u32 = 40;
export const ROUTE_BLACKHOLE: u32 = 0xfffe;
// Rules of a security group: a count of blocks by family, then the blocks, one cache line each.
export const RULES_COUNT: u32 = 0; //             4  blocks of four IPv4 rules, an even number
export const RULES_COUNT6: u32 = 4; //            4  IPv6 rules
export const RULES_BLOCKS: u32 = 64; //           the IPv4 blocks, then the IPv6 rules
export const RULE_BLOCK_ADDRESS: u32 = 0; //     16  IPv4: four addresses; IPv6: one
export const RULE_BLOCK_MASK: u32 = 16; //       16
export const RULE_BLOCK_LOW: u32 = 32; //        16  protocol << 16 | first port, less 1, four times
export const RULE_BLOCK_HIGH: u32 = 48; //       16  protocol << 16 | last port, plus 1
export const RULE_BLOCK_BYTES: u32 = 64;
export const POOL_BYTES: u32 = 4; //              IPv4 address, network order
export const POOL6_BYTES: u32 = 16;
export const TARGET_ADDRESS_BE: u32 = 0; //       4
export const TARGET_PORT_BE: u32 = 4; //          2  0 = the destination port stays
export const TARGET_BYTES: u32 = 8;
export const TARGET6_ADDRESS: u32 = 0; //        16
export const TARGET6_PORT_BE: u32 = 16; //        2
export const TARGET6_BYTES: u32 = 32;
// Counters, all u64.
export const COUNTER_VERDICTS: u32 = 0; //        8 * VERDICT_COUNT (room for 32)
export const COUNTER_FLOWS_CREATED: u32 = 256;
export const COUNTER_FLOWS_EXPIRED: u32 = 264;
export const COUNTER_FLOWS_ACTIVE: u32 = 272;
export const COUNTER_FLOWS_ACTIVE_MAX: u32 = 280;
export const COUNTER_FLOWS_TCP: u32 = 288; //     created, by protocol
export const COUNTER_FLOWS_UDP: u32 = 296;
export const COUNTER_FLOWS_ICMP: u32 = 304;
export const COUNTER_FLOWS_OTHER: u32 = 312;
export const COUNTER_FLOWS_SPILLED: u32 = 320; // stood outside their home group at creation
export const COUNTER_FLOWS_REOPENED: u32 = 328; // begun again on the tuple of an ended flow
export const COUNTER_UNREACHABLE: u32 = 384; //   forwarded to an address that no device has
export const COUNTER_EMITTED: u32 = 336; //       8 * EMIT_COUNT: frames that the engine made
export const COUNTER_PP2_REPEATED: u32 = 464; //  PROXY headers emitted again for a flow
export const COUNTER_PP2_CLAMPED: u32 = 472; //   acknowledgements inside a header
export const COUNTER_PP2_ADOPTED: u32 = 480; //   flows met in mid-stream, without a header
export const COUNTER_PP2_CUT: u32 = 488; //       SYNs that lost their data or Fast Open
export const COUNTER_PP2_DATAGRAMS: u32 = 496; // datagrams that got a header
export const COUNTERS_BYTES: u32 = 512;
// Per-service counters, all u64, one block per service.
export const USAGE_PACKETS_CLIENT: u32 = 0;
export const USAGE_PACKETS_SERVICE: u32 = 8;
export const USAGE_OCTETS_CLIENT: u32 = 16;
export const USAGE_OCTETS_SERVICE: u32 = 24;
export const USAGE_FLOWS_CREATED: u32 = 32;
export const USAGE_FLOWS_ACTIVE: u32 = 40;
// The first line is what packets touch; the rest is what flows touch.
export const USAGE_FLOWS_TCP: u32 = 64; //        created
export const USAGE_FLOWS_UDP: u32 = 72;
export const USAGE_ACTIVE_TCP: u32 = 80;
export const USAGE_ACTIVE_UDP: u32 = 88;
export const USAGE_ESTABLISHED: u32 = 96; //      TCP flows that the service has answered
export const USAGE_IDLE_TIMEOUTS: u32 = 104; //   flows that ended by silence, not closed
export const USAGE_RESETS_CLIENT: u32 = 112; //   flows that a RST of the client has ended
export const USAGE_RESETS_SERVICE: u32 = 120;
export const USAGE_RESETS_MADE: u32 = 128; //     RSTs that the engine has made
export const USAGE_REFUSED: u32 = 136; //         flows refused for want of room, and of a free tuple
export const USAGE_FAIL_OPEN: u32 = 144; //       flows to unhealthy targets
export const USAGE_UNINTENDED: u32 = 152; //      packets that no listener takes
export const USAGE_BLOCKED: u32 = 160; //         six cells: security groups, inbound then outbound; TCP, UDP, other
export const USAGE_BLOCKED_ENDPOINT: u32 = 208; // flows that the endpoint's security group has blocked
export const USAGE_DROPPED: u32 = 216; //         packets dropped for any reason that names the service
export const USAGE_PORTS_EXHAUSTED: u32 = 224; // flows refused for want of a source port
export const USAGE_CROSSED_CLIENT: u32 = 232; //  bytes that frames from the client lose on their way to IPv4
export const USAGE_CROSSED_SERVICE: u32 = 240; // bytes that frames from the service have gained from IPv4
export const USAGE_BYTES: u32 = 320; //           an odd number of lines: hot ones spread over the cache
// A service's tally, moved to its usage in time: a u64 for each direction, packets above octets.
export const TALLY_BYTES: u32 = 16; //            so that those of thousands stay in the caches
export const TALLY_PACKETS_SHIFT: u32 = 44; //    moved when a direction has 2^19 packets, of up to 32 MiB each
// What a packet of an established flow asks about its service, in one word.
export const TRAIT_POLICED: u32 = 0; //           2  1 = every packet is held against a capacity
export const TRAIT_SHIFT: u32 = 2; //             2  bytes of the PROXY header of IPv4, in network byte order
export const TRAITS_BYTES: u32 = 4;
// Capacity of a resource, shared by its services. Record 0 is nobody's.
export const CAPACITY_IS_DROPPING: u32 = 0; //    4  1 = what is over is dropped
export const CAPACITY_UNITS: u32 = 4; //          4  as they are now
export const CAPACITY_UNITS_MIN: u32 = 8; //      4
export const CAPACITY_UNITS_MAX: u32 = 12; //     4
export const CAPACITY_TOKENS_OCTETS: u32 = 16; // 8
export const CAPACITY_TOKENS_PACKETS: u32 = 24; // 8
export const CAPACITY_LAST_MS: u32 = 32; //       4  clock up to which tokens have been added
export const CAPACITY_WINDOW_MS: u32 = 36; //     4  begin of the window
export const CAPACITY_WINDOW_OCTETS: u32 = 40; // 8  what it has been offered
export const CAPACITY_WINDOW_PACKETS: u32 = 48; // 8
export const CAPACITY_QUIET: u32 = 56; //         4  windows in a row that needed less
export const CAPACITY_OVER_PACKETS: u32 = 64; //  8  beyond the units, in all
export const CAPACITY_OVER_OCTETS: u32 = 72; //   8
export const CAPACITY_BYTES: u32 = 128;
export const CAPACITY_COUNT_MAX: u32 = 4096;
export const CAPACITY_CHANGE_BYTES: u32 = 8; //   first entry: a count; then clock (4), capacity (2), units (2)
export const CAPACITIES_CHANGES_MAX: u32 = 4095;

// Configuration block: written by the host before `create()`.
export const CONFIG_FLOW_COUNT_MAX: u32 = 0; //   4  IPv4 flows
export const CONFIG_FLOW6_COUNT_MAX: u32 = 4; //  4  IPv6 flows
export const CONFIG_ARENA_BYTES: u32 = 8; //      4  frames region, for sources
export const CONFIG_TABLES_BYTES: u32 = 12; //    4  rings, targets, pools
export const CONFIG_SEED: u32 = 16; //           16  keys every hash
export const CONFIG_TIMEOUTS_MS: u32 = 32; //     4 * FLOW_TIMEOUT_COUNT; 0 = never
export const CONFIG_TUPLE_HOLD_MS: u32 = 64; //   4  an ended flow's service-side tuple rests this long
export const CONFIG_COMPACT_ADDRESS: u32 = 68; //   4  first address of a compact table's gateway, host order
export const CONFIG_COMPACT_ADDRESS_COUNT: u32 = 72; // 4  how many; 0 = no compact table
export const CONFIG_PP2: u32 = 100; //            4  CONFIG_PP2_*: PROXY headers that services may have; 0 = none
export const CONFIG_NETWORK_BYTES: u32 = 76; //   4  size of each of the two network images
export const CONFIG_BYTES: u32 = 128;
export const CONFIG_PP2_TCP: u32 = 1;
export const CONFIG_PP2_UDP: u32 = 2;

// Layout block: written by `create()`, read by the host.
export const LAYOUT_FRAMES: u32 = 0; //           descriptors, FRAME_BYTES * BATCH_COUNT_MAX
export const LAYOUT_PORTS: u32 = 4;
export const LAYOUT_SERVICES: u32 = 8;
export const LAYOUT_USAGE: u32 = 12;
export const LAYOUT_COUNTERS: u32 = 16;
export const LAYOUT_TABLES: u32 = 20;
export const LAYOUT_ARENA: u32 = 24;
export const LAYOUT_FLOW_RECORDS: u32 = 28;
export const LAYOUT_FLOW6_RECORDS: u32 = 32;
export const LAYOUT_FLOW_TABLE_BYTES: u32 = 36; //   whole IPv4 flow table: tags, records, index
export const LAYOUT_FLOW6_TABLE_BYTES: u32 = 40;
export const LAYOUT_TOTAL_BYTES: u32 = 44;
export const LAYOUT_DEPARTURES: u32 = 60; //      entries of DEPARTURE_BYTES
export const LAYOUT_EMITS: u32 = 48; //           descriptors of emitted frames
export const LAYOUT_NETWORK: u32 = 52; //         two images of CONFIG_NETWORK_BYTES each
export const LAYOUT_CAPACITIES: u32 = 64;
export const LAYOUT_CAPACITY_CHANGES: u32 = 68;
export const LAYOUT_COMPACT_TABLE_BYTES: u32 = 72;
export const LAYOUT_TALLIES: u32 = 76; //         TALLY_BYTES * SERVICE_COUNT_MAX
export const LAYOUT_TRAITS: u32 = 80; //          TRAITS_BYTES * SERVICE_COUNT_MAX
export const LAYOUT_BYTES: u32 = 128;

export const ZONE_COUNT_MAX: u32 = 65536;
export const FRAGMENT_COUNT_MAX: u32 = 4096;

// Walk: state of a capture's record walk. The host writes what follows from file headers (flags,
// limits, interfaces), the walk keeps the rest. Instants are i64 ns since 1970-01-01 UTC.
export const WALK_NEXT: u32 = 0; //               4  address at which the walk stands
export const WALK_REASON: u32 = 4; //             4  WALK_STOP_*: why it stopped there
export const WALK_DETAIL: u32 = 8; //             4  the number that the reason is about
export const WALK_FLAGS: u32 = 12; //             4  WALK_FLAG_*
export const WALK_LENGTH_MAX: u32 = 16; //        4  longest captured length accepted
export const WALK_INTERFACES: u32 = 20; //        4  address of the section's INTERFACE entries
export const WALK_INTERFACE_COUNT: u32 = 24; //   4
export const WALK_KEPT_FROM: u32 = 28; //         4  compaction: bytes from here on are undecided
export const WALK_KEPT_TO: u32 = 32; //           4  compaction: kept bytes end here
export const WALK_PACKETS: u32 = 40; //           8  records walked
export const WALK_OCTETS: u32 = 48; //            8  their captured bytes
export const WALK_KEPT_PACKETS: u32 = 56; //      8  compaction: records kept in place
export const WALK_KEPT_OCTETS: u32 = 64; //       8  their captured bytes
export const WALK_BASE_NS: u32 = 72; //           8  instant of the first record: timeMs 0
export const WALK_EARLIEST_NS: u32 = 80; //       8
export const WALK_LATEST_NS: u32 = 88; //         8
export const WALK_LAST_NS: u32 = 96; //           8  instant of the last record walked
export const WALK_ELAPSED_MS: u32 = 104; //       8  ms from the first record to the last one walked
export const WALK_CLOCK_MS: u32 = 112; //         4  virtual clock of the last record walked
export const WALK_BYTES: u32 = 128;

export const WALK_STOP_FULL: u32 = 0; //          as many descriptors as asked for
export const WALK_STOP_SHORT: u32 = 1; //         bytes end before a record of DETAIL bytes
export const WALK_STOP_BLOCK: u32 = 2; //         a block for the host: section or interface
export const WALK_STOP_LONG: u32 = 3; //          captured length DETAIL above LENGTH_MAX
export const WALK_STOP_BLOCK_LENGTH: u32 = 4; //  block length DETAIL impossible
export const WALK_STOP_TRAILER: u32 = 5; //       block ends with length DETAIL, not its own
export const WALK_STOP_OVERRUN: u32 = 6; //       captured length DETAIL exceeds its block
export const WALK_STOP_INTERFACE: u32 = 7; //     interface DETAIL was never described
export const WALK_STOP_REFUSED: u32 = 8; //       interface DETAIL has a link type that is refused

export const WALK_FLAG_SWAPPED: u32 = 1; //       the file's byte order is big-endian
export const WALK_FLAG_NANOSECONDS: u32 = 2; //   pcap: fractions count ns, else us
export const WALK_FLAG_LENGTHS_SWAPPED: u32 = 4; // pcap before 2.3: wire length comes first
export const WALK_FLAG_LENGTHS_EITHER: u32 = 8; // pcap 2.3: the smaller one is the captured length
export const WALK_FLAG_PCAPNG: u32 = 16;
export const WALK_FLAG_TIMED: u32 = 32; //        BASE_NS is set
export const WALK_CAPTURED_BYTES_MAX: u32 = 262144; // longest record that any reader accepts
export const WALK_BLOCK_BYTES_MAX: u32 = 16777216; //  longest pcapng block

// Interface of a pcapng section: how its timestamps count.
export const INTERFACE_SCALE: u32 = 0; //         8  by CLOCK: ns per unit, units per ns, or the exponent
export const INTERFACE_OFFSET_NS: u32 = 8; //     8  added to every instant
export const INTERFACE_CLOCK: u32 = 16; //        4  INTERFACE_CLOCK_*
export const INTERFACE_SNAP_BYTES: u32 = 20; //   4  0 = no limit
export const INTERFACE_PORT: u32 = 24; //         2  ingress port of its frames
export const INTERFACE_REFUSED: u32 = 26; //      1  its link type is refused
export const INTERFACE_BYTES: u32 = 32;
export const INTERFACE_CLOCK_MULTIPLY: u32 = 0;
export const INTERFACE_CLOCK_DIVIDE: u32 = 1;
export const INTERFACE_CLOCK_BINARY: u32 = 2; //  units of 2^-exponent s

// Workers that share a capture: each decides the frames of its lanes (capture/select).
export const LANE_BITS: u32 = 6;
export const WORKER_COUNT_MAX: u32 = 64;

// Decision: what became of a frame, as a worker tells it. In the order of leaving.
export const DECISION_RECORD: u32 = 0; //         4  number of the record that the frame came from
export const DECISION_VERDICT: u32 = 4; //        4  as in the descriptor: verdict, side, direction
export const DECISION_FLOW: u32 = 8; //           4  flow handle of the worker, 0 = none
export const DECISION_ACTIVE: u32 = 12; //        4  flows active in the worker after the batch
export const DECISION_BYTES: u32 = 16; //         4  bytes of the frame as it leaves
export const DECISION_CREATED: u32 = 20; //       4  flows that the worker has created
export const DECISION_HASH: u32 = 24; //          8  XXH64 of the frame as it leaves; dropped: 0
export const DECISION_SIZE: u32 = 32;
export const DECISION_EMITTED: u32 = 0x80000000; // in the verdict word: EMIT_* and whether it is after
export const DECISION_LAST: u32 = 0x40000000; //    the last one of its record

/** Longest frame with a PROXY header in its datagram. */
export const PP2_DATAGRAM_BYTES_MAX: u32 = 10240;

// PROXY protocol v2: what the codec read. Offsets count from the begin of the header.
export const PP2_BYTE: u32 = 0; //                4  offset at which the header is wrong
export const PP2_DETAIL: u32 = 4; //              4  the number that the status is about
export const PP2_HEADER_BYTES: u32 = 8; //        4  all of the header
export const PP2_TLVS: u32 = 12; //               4  offset of the first TLV; HEADER_BYTES = none
export const PP2_CRC: u32 = 16; //                4  offset of the CRC32C, 0 = none
export const PP2_RESULT_BYTES: u32 = 32;
/** The longest header that there can be. */
export const PP2_BUFFER_BYTES: u32 = 65552;
/** The longest header that is written: below 1 KiB. */
export const PP2_HEADER_BYTES_MAX: u32 = 1023;

export const PP2_STATUS_OK: u32 = 0;
export const PP2_STATUS_INCOMPLETE: u32 = 1; //   DETAIL bytes are needed
export const PP2_STATUS_SIGNATURE: u32 = 2;
export const PP2_STATUS_VERSION: u32 = 3;
export const PP2_STATUS_COMMAND: u32 = 4;
export const PP2_STATUS_FAMILY: u32 = 5;
export const PP2_STATUS_ADDRESSES: u32 = 6; //    the addresses take DETAIL bytes, more than there are
export const PP2_STATUS_TLV_STRAY: u32 = 7; //    DETAIL bytes where a TLV takes three
export const PP2_STATUS_TLV_OVERRUN: u32 = 8; //  a value of DETAIL bytes ends behind the header
export const PP2_STATUS_TLV_LONG: u32 = 9; //     a value of DETAIL bytes is longer than its type may be
export const PP2_STATUS_TLV_SHORT: u32 = 10;
export const PP2_STATUS_CRC_BYTES: u32 = 11; //   a CRC32C of DETAIL bytes
export const PP2_STATUS_CRC_TWICE: u32 = 12; //   the other one is at DETAIL
export const PP2_STATUS_CRC: u32 = 13; //         the header's CRC32C is DETAIL

// Explanation: what the engine knows about the first frame of a batch before it is processed.
export const EXPLAIN_KIND: u32 = 0; //            1  EXPLAIN_KIND_*
export const EXPLAIN_VERDICT: u32 = 1; //         1  of a frame that the parser decides
export const EXPLAIN_PROTOCOL: u32 = 2; //        1  IANA number, of the tuple below
export const EXPLAIN_TCP_FLAGS: u32 = 3; //       1  FIN 1, SYN 2, RST 4, ACK 8
export const EXPLAIN_IPV6: u32 = 4; //            1
export const EXPLAIN_SWAPPED: u32 = 5; //         1  the source is the larger endpoint of the key
export const EXPLAIN_TAG: u32 = 6; //             1  of the record, in its home group
export const EXPLAIN_FOUND_SIDE: u32 = 7; //      1  SIDE_* that the flow was found on
export const EXPLAIN_SOURCE_PORT_BE: u32 = 8; //  2
export const EXPLAIN_DESTINATION_PORT_BE: u32 = 10; // 2
export const EXPLAIN_ZONE: u32 = 12; //           4
export const EXPLAIN_HASH: u32 = 16; //           8
export const EXPLAIN_GROUP: u32 = 24; //          4  home group of 16 slots
export const EXPLAIN_FOUND: u32 = 28; //          4  handle of the flow, 0 = none
export const EXPLAIN_SERVICE: u32 = 32; //        4  service of a new flow, or EXPLAIN_SERVICE_*
export const EXPLAIN_OWNER: u32 = 36; //          4  service that owns the destination without listening
export const EXPLAIN_RING_SIZE: u32 = 40; //      4  0 = the service chooses no target
export const EXPLAIN_RING_SLOT: u32 = 44; //      4
export const EXPLAIN_TARGET: u32 = 48; //         4  index of the target in that slot
export const EXPLAIN_TARGET_COUNT: u32 = 52; //   4
export const EXPLAIN_SOURCE: u32 = 64; //        16  addresses, 4 or 16 bytes; of the quoted packet in
export const EXPLAIN_DESTINATION: u32 = 80; //   16  an ICMP error
export const EXPLAIN_BYTES: u32 = 96;

export const EXPLAIN_KIND_DECIDED: u32 = 0; //    the parser gives the verdict
export const EXPLAIN_KIND_FAST: u32 = 1; //       IPv4, TCP or UDP, whole
export const EXPLAIN_KIND_FLOW: u32 = 2; //       anything else that its own tuple names
export const EXPLAIN_KIND_ERROR: u32 = 3; //      ICMP error
export const EXPLAIN_KIND_LATER: u32 = 4; //      later fragment
export const EXPLAIN_SERVICE_UNOWNED: u32 = 0xffff; // none stands behind the port
export const EXPLAIN_SERVICE_BLACKHOLE: u32 = 0xfffe;
export const EXPLAIN_SERVICE_NO_ROUTE: u32 = 0xfffd;
export const EXPLAIN_SERVICE_UNINTENDED: u32 = 0xfffc; // OWNER has the address, nothing listens
