/*
 * What IPv6 makes different, under the names of ipv4.h. A keyed digest stands for the addresses in
 * tuples, which the whole addresses confirm; every packet takes the long way, as in the engine.
 * Extension headers are left out: such packets pass untouched.
 */
#ifndef IPV6_H
#define IPV6_H

enum { TYPE_IP = 0xdd86 /* as loaded */ };
enum { IPV6_BYTES = 40, IPV6_PAYLOAD_LENGTH = 4, IPV6_NEXT_HEADER = 6, IPV6_SOURCE = 8 };

/* Stands in packets at any address, among bytes. */
typedef struct __attribute__((packed, may_alias)) {
  uint64_t upper, lower; /* as loaded */
} address_t;

/* As in a packet. */
struct __attribute__((packed, may_alias)) address_pair {
  address_t source, destination;
};
typedef struct address_pair addresses_t;

static inline uint8_t *network_of(const struct packet *packet) {
  return (uint8_t *)packet->tuple.ends - IPV6_SOURCE;
}

static inline addresses_t addresses_of(const struct packet *packet) { return *packet->tuple.ends; }

static inline void set_source(addresses_t *addresses, address_t source) {
  addresses->source = source;
}

static inline uint64_t hash_source(const addresses_t *addresses) {
  return hash_word(hash_word(addresses->source.upper) ^ addresses->source.lower);
}

/* `digest` is that of the addresses. */
static inline uint64_t hash_tuple(uint64_t digest, uint64_t rest) {
  return hash_final(digest + hash_pair(rest, 2));
}

static inline bool is_address(const address_t *left, const address_t *right) {
  return ((left->upper ^ right->upper) | (left->lower ^ right->lower)) == 0;
}

static inline bool is_one_address(const struct tuple *tuple) {
  return is_address(&tuple->ends->source, &tuple->ends->destination);
}

static inline uint64_t sum_address(const address_t *address) {
  return (address->upper & 0xffffffff) + (address->upper >> 32) +
         (address->lower & 0xffffffff) + (address->lower >> 32);
}

/* Sum of both addresses, unfolded. */
static inline uint64_t sum_addresses(const struct tuple *tuple) {
  return sum_address(&tuple->ends->source) + sum_address(&tuple->ends->destination);
}

/* The address of the smaller endpoint, or of the larger one. */
static inline const address_t *end_of(const struct tuple *tuple, bool is_high) {
  return is_high == tuple->swapped ? &tuple->ends->source : &tuple->ends->destination;
}

static inline bool is_larger(const address_t *left, const address_t *right) {
  return left->upper != right->upper ? left->upper > right->upper : left->lower > right->lower;
}

/* `ports` is source | destination << 16, as loaded; `ends` must outlive the tuple. */
static inline void set_tuple(struct tuple *tuple, const addresses_t *ends, uint32_t ports,
                             uint32_t protocol_zone) {
  bool is_port_larger = (ports & 0xffff) > ports >> 16;
  bool is_one = is_address(&ends->source, &ends->destination);
  tuple->ends = ends;
  tuple->swapped = is_one ? is_port_larger : is_larger(&ends->source, &ends->destination);
  const address_t *low = end_of(tuple, false), *high = end_of(tuple, true);
  tuple->addresses = hash_pair(low->upper, 4) + hash_pair(low->lower, 6) +
                     hash_pair(high->upper, 8) + hash_pair(high->lower, 10);
  tuple->rest = pick32(tuple->swapped, rotl32(ports, 16), ports) | (uint64_t)protocol_zone << 32;
  tuple->hash = hash_tuple(tuple->addresses, tuple->rest);
}

static inline void parse_ip(struct packet *packet, uint8_t *ip, uint32_t bytes, uint32_t zone) {
  packet->flags = 0;
  packet->candidate = NULL;
  if (bytes < IPV6_BYTES) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (ip[0] >> 4 != 6) return decide(packet, VERDICT_DROP_MALFORMED);
  uint32_t payload_bytes = __builtin_bswap16(load16(ip + IPV6_PAYLOAD_LENGTH));
  uint32_t total = payload_bytes == 0 ? bytes - IPV6_BYTES : payload_bytes;
  uint32_t present = bytes - IPV6_BYTES < total ? bytes - IPV6_BYTES : total;
  uint8_t protocol = ip[IPV6_NEXT_HEADER];
  bool is_tcp = protocol == PROTOCOL_TCP;
  if (!is_tcp & (protocol != PROTOCOL_UDP)) return decide(packet, VERDICT_PASS);
  const uint8_t *transport = ip + IPV6_BYTES;
  if (total < (is_tcp ? 20u : 8u)) return decide(packet, VERDICT_DROP_MALFORMED);
  if (present < 4) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (is_tcp && present > TCP_DATA_OFFSET && !is_tcp_header_sound(transport, total)) {
    return decide(packet, VERDICT_DROP_MALFORMED);
  }
  if (is_tcp && present > TCP_FLAGS) packet->flags = tcp_flags(transport);
  packet->kind = PACKET_FLOW;
  packet->header_bytes = IPV6_BYTES;
  packet->protocol = protocol;
  packet->transport_bytes = present;
  set_tuple(&packet->tuple, (const addresses_t *)(ip + IPV6_SOURCE), load32(transport),
            protocol | zone << 8);
}

#endif
