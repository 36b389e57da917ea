/*
 * Frames, packets, the keyed hash, checksums, rewriting and the digest: the C twin of
 * assembly/{packet,hash,checksum,rewrite,digest}.ts and assembly/wire/; ipv4.h or ipv6.h has what
 * the family makes different. Little-endian machines.
 */
#ifndef PACKET_H
#define PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { BATCH_COUNT_MAX = 256 };

enum {
  VERDICT_FORWARD,
  VERDICT_PASS,
  VERDICT_DROP_TRUNCATED,
  VERDICT_DROP_MALFORMED,
  VERDICT_DROP_NO_SERVICE,
  VERDICT_DROP_NO_FLOW,
  VERDICT_DROP_FRAGMENT,
  VERDICT_DROP_PORT_EXHAUSTED,
  VERDICT_DROP_TUPLE_TAKEN,
  VERDICT_DROP_TABLE_FULL,
  VERDICT_DROP_ZONE_FULL,
  VERDICT_DROP_SAME_ENDPOINT,
  VERDICT_COUNT,
  VERDICT_NONE = 0xffff
};

enum { SIDE_CLIENT, SIDE_SERVICE };
enum { FROM_CLIENT, FROM_SERVICE };
enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 8 };

/* One frame of a batch; the engine fills in the second half. */
struct frame {
  uint8_t *bytes;
  uint32_t captured_bytes;
  uint32_t time_ms;
  uint16_t port;
  uint16_t port_out;
  uint16_t verdict;
  uint8_t side;
  uint8_t direction;
  uint32_t flow; /* slot of the flow plus one, 0 = none */
  uint32_t wire_bytes;
};

/* Field by field: a whole struct would be put together on the stack and copied. */
static inline void describe(struct frame *frame, uint8_t *bytes, uint32_t captured_bytes,
                            uint32_t wire_bytes, uint32_t time_ms, uint16_t port) {
  frame->bytes = bytes;
  frame->captured_bytes = captured_bytes;
  frame->time_ms = time_ms;
  frame->port = port;
  frame->verdict = VERDICT_NONE;
  frame->flow = 0;
  frame->wire_bytes = wire_bytes;
}

/* A tuple in canonical order: the smaller endpoint first, whoever sent. */
struct tuple {
  uint64_t addresses; /* IPv6: a keyed digest of them */
  uint64_t rest; /* low port, high port, protocol, zone */
  uint64_t hash;
#ifdef TWIN_IPV6
  const struct address_pair *ends; /* the addresses: in the packet, or those under construction */
#endif
  uint8_t swapped; /* 1 when the source is the larger endpoint */
};

enum { PACKET_DECIDED, PACKET_FAST, PACKET_FLOW };

struct flow;

/* What the parser found out about a frame; one cache line. */
struct packet {
  struct tuple tuple;
  struct flow *candidate; /* probably holds the flow; NULL = none seen */
#ifndef TWIN_IPV6
  uint8_t *network;
#endif
  uint32_t transport_bytes; /* present */
  uint8_t header_bytes;     /* from the network header to the transport header */
  uint8_t kind;
  uint8_t protocol;
  uint8_t flags;
  uint8_t verdict; /* of PACKET_DECIDED */
};
_Static_assert(sizeof(struct packet) == 64, "a packet is one cache line");

static inline uint16_t load16(const void *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint32_t load32(const void *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t load64(const void *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline void store16(void *at, uint16_t value) { memcpy(at, &value, sizeof value); }
static inline void store32(void *at, uint32_t value) { memcpy(at, &value, sizeof value); }
static inline void store64(void *at, uint64_t value) { memcpy(at, &value, sizeof value); }

static inline uint32_t rotl32(uint32_t value, int by) { return value << by | value >> (32 - by); }
static inline uint64_t rotl64(uint64_t value, int by) { return value << by | value >> (64 - by); }

/*
 * One of two without a branch, for it is as random as traffic is which one; `condition` is 0 or 1.
 * The empty statement keeps the compiler from making a branch of it again.
 */
static inline uint64_t pick(uint32_t condition, uint64_t yes, uint64_t no) {
  uint64_t mask = -(uint64_t)condition;
  __asm__("" : "+r"(mask));
  return no ^ ((yes ^ no) & mask);
}

static inline uint32_t pick32(uint32_t condition, uint32_t yes, uint32_t no) {
  return (uint32_t)pick(condition, yes, no);
}

/* ---- keyed hash: NH over 32-bit words, then a finalizer ---- */

static uint32_t hash_keys[12];

static void seed_hash(const uint8_t seed[16]) {
  uint64_t state = load64(seed);
  uint64_t increment = load64(seed + 8) | 1;
  for (int word = 0; word < 12; word++) {
    state += increment + 0x9e3779b97f4a7c14;
    uint64_t mixed = state;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    hash_keys[word] = (uint32_t)(mixed ^ mixed >> 31);
  }
}

static inline uint64_t hash_pair(uint64_t word, int key) {
  uint32_t low = (uint32_t)word + hash_keys[key];
  uint32_t high = (uint32_t)(word >> 32) + hash_keys[key + 1];
  return (uint64_t)low * high;
}

static inline uint64_t hash_final(uint64_t sum) {
  uint64_t hash = sum ^ sum >> 32;
  hash *= 0x9e3779b97f4a7c15;
  return hash ^ hash >> 29;
}

static inline uint64_t hash_word(uint64_t word) {
  return hash_final(hash_pair(word, 6) + (word ^ word >> 31));
}

/* ---- checksums: RFC 1071 sums, RFC 1624 updates ---- */

static inline uint32_t fold(uint64_t sum) {
  uint64_t total = (sum & 0xffffffff) + (sum >> 32);
  total = (total & 0xffff) + (total >> 16);
  total = (total & 0xffff) + (total >> 16);
  return (uint32_t)((total & 0xffff) + (total >> 16));
}

static inline uint16_t delta_of(uint64_t before, uint64_t after) {
  uint32_t delta = fold((uint64_t)(~fold(before) & 0xffff) + fold(after));
  return delta == 0xffff ? 0 : (uint16_t)delta;
}

/* The delta for a packet that arrived on `side`: that of the record or its inverse. */
static inline uint32_t delta_on(uint32_t delta, uint32_t side) {
  uint32_t inverse = pick32(delta != 0, delta ^ 0xffff, 0);
  return pick32(side, inverse, delta);
}

static inline uint16_t updated(uint32_t checksum, uint32_t delta) {
  uint32_t sum = (~checksum & 0xffff) + delta;
  return (uint16_t)~((sum & 0xffff) + (sum >> 16));
}

/* The same; in UDP zero means "none" and stays, a computed zero is sent as all ones (RFC 768). */
static inline uint16_t updated_transport(uint32_t checksum, uint32_t delta, bool is_udp) {
  uint32_t after = updated(checksum, delta);
  after = pick32(is_udp & (after == 0), 0xffff, after);
  return (uint16_t)pick32(is_udp & (checksum == 0), 0, after);
}

/* ---- parsing ---- */

enum { ETHERNET_BYTES = 14 };
enum { TCP_DATA_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16, UDP_CHECKSUM = 6 };

static inline void decide(struct packet *packet, uint8_t verdict) {
  packet->kind = PACKET_DECIDED;
  packet->verdict = verdict;
}

/* The ports as the packet carries them. */
static inline uint32_t ports_of(const struct packet *packet) {
  uint32_t canonical = (uint32_t)packet->tuple.rest;
  return pick32(packet->tuple.swapped, rotl32(canonical, 16), canonical);
}

static inline bool is_tcp_header_sound(const uint8_t *transport, uint32_t total) {
  uint32_t header_bytes = transport[TCP_DATA_OFFSET] >> 4 << 2;
  return header_bytes >= 20 && header_bytes <= total;
}

static inline uint8_t tcp_flags(const uint8_t *transport) {
  uint8_t bits = transport[TCP_FLAGS];
  return (bits & 7) | (bits >> 1 & 8);
}

#ifdef TWIN_IPV6
#include "ipv6.h"
#else
#include "ipv4.h"
#endif

static inline void parse_frame(const struct frame *frame, struct packet *packet, uint32_t zone) {
  uint32_t bytes = frame->captured_bytes;
  if (bytes < ETHERNET_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (load16(frame->bytes + 12) != TYPE_IP) return decide(packet, VERDICT_PASS);
  parse_ip(packet, frame->bytes + ETHERNET_BYTES, bytes - ETHERNET_BYTES, zone);
}

/* ---- digest: XXH64 of every frame that goes out, the hashes chained ---- */

static const uint64_t P1 = 0x9e3779b185ebca87, P2 = 0xc2b2ae3d27d4eb4f, P3 = 0x165667b19e3779f9,
                      P4 = 0x85ebca77c2b2ae63, P5 = 0x27d4eb2f165667c5;

static inline uint64_t xxh_round(uint64_t lane, uint64_t input) {
  return rotl64(lane + input * P2, 31) * P1;
}

static inline uint64_t xxh_merge(uint64_t hash, uint64_t lane) {
  return (hash ^ xxh_round(0, lane)) * P1 + P4;
}

static uint64_t xxh64(const uint8_t *at, uint64_t bytes, uint64_t seed) {
  const uint8_t *end = at + bytes;
  uint64_t hash = seed + P5;
  if (bytes >= 32) {
    uint64_t lane1 = seed + P1 + P2, lane2 = seed + P2, lane3 = seed, lane4 = seed - P1;
    for (; end - at >= 32; at += 32) {
      lane1 = xxh_round(lane1, load64(at));
      lane2 = xxh_round(lane2, load64(at + 8));
      lane3 = xxh_round(lane3, load64(at + 16));
      lane4 = xxh_round(lane4, load64(at + 24));
    }
    hash = rotl64(lane1, 1) + rotl64(lane2, 7) + rotl64(lane3, 12) + rotl64(lane4, 18);
    hash = xxh_merge(xxh_merge(xxh_merge(xxh_merge(hash, lane1), lane2), lane3), lane4);
  }
  hash += bytes;
  for (; end - at >= 8; at += 8) hash = rotl64(hash ^ xxh_round(0, load64(at)), 27) * P1 + P4;
  if (end - at >= 4) {
    hash = rotl64(hash ^ load32(at) * P1, 23) * P2 + P3;
    at += 4;
  }
  for (; at < end; at++) hash = rotl64(hash ^ *at * P5, 11) * P1;
  hash = (hash ^ hash >> 33) * P2;
  hash = (hash ^ hash >> 29) * P3;
  return hash ^ hash >> 32;
}

static uint64_t digest_frames(const struct frame *frames, uint32_t count, uint64_t digest) {
  for (uint32_t index = 0; index < count; index++) {
    if (frames[index].verdict > VERDICT_PASS) continue;
    uint64_t hash = xxh64(frames[index].bytes, frames[index].captured_bytes, 0);
    digest = xxh64((const uint8_t *)&hash, sizeof hash, digest);
  }
  return digest;
}

#endif
