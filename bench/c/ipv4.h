/*
 * What IPv4 makes different: its tuple, its header, its addresses. ipv6.h has the same names.
 */
#ifndef IPV4_H
#define IPV4_H

enum { TYPE_IP = 0x0008 /* as loaded */ };
enum { IPV4_FRAGMENT = 6, IPV4_PROTOCOL = 9, IPV4_CHECKSUM = 10, IPV4_SOURCE = 12 };
enum { FRAGMENT_MASK = 0xff3f /* more fragments and offset, as loaded */ };

/* As loaded: source | destination << 32. */
typedef uint64_t addresses_t;
typedef uint32_t address_t;

static inline uint8_t *network_of(const struct packet *packet) { return packet->network; }

static inline addresses_t addresses_of(const struct packet *packet) {
  return load64(packet->network + IPV4_SOURCE);
}

static inline void set_source(addresses_t *addresses, address_t source) {
  *addresses = (*addresses & ~0xffffffffull) | source;
}

static inline uint64_t hash_source(const addresses_t *addresses) {
  return hash_word((uint32_t)*addresses);
}

static inline uint64_t hash_tuple(uint64_t addresses, uint64_t rest) {
  return hash_final(hash_pair(addresses, 0) + hash_pair(rest, 2));
}

static inline bool is_one_address(const struct tuple *tuple) {
  return (uint32_t)tuple->addresses == tuple->addresses >> 32;
}

/* Sum of both addresses, unfolded. */
static inline uint64_t sum_addresses(const struct tuple *tuple) {
  return (tuple->addresses & 0xffffffff) + (tuple->addresses >> 32);
}

/* `ports` is source | destination << 16, as loaded. */
static inline void set_tuple(struct tuple *tuple, const addresses_t *from, uint32_t ports,
                             uint32_t protocol_zone) {
  uint64_t addresses = *from;
  uint64_t source = (addresses & 0xffffffff) << 16 | (ports & 0xffff);
  uint64_t destination = addresses >> 32 << 16 | ports >> 16;
  bool swapped = source > destination;
  tuple->swapped = swapped;
  tuple->addresses = pick(swapped, rotl64(addresses, 32), addresses);
  tuple->rest = pick32(swapped, rotl32(ports, 16), ports) | (uint64_t)protocol_zone << 32;
  tuple->hash = hash_tuple(tuple->addresses, tuple->rest);
}

/* A TCP or UDP header that is not captured whole. */
static void parse_cut(struct packet *packet, uint32_t present, uint32_t total, uint32_t zone) {
  const uint8_t *transport = packet->network + packet->header_bytes;
  bool is_tcp = packet->protocol == PROTOCOL_TCP;
  packet->kind = PACKET_FLOW;
  packet->transport_bytes = present;
  if (total < (is_tcp ? 20u : 8u)) return decide(packet, VERDICT_DROP_MALFORMED);
  if (present < 4) return decide(packet, VERDICT_DROP_TRUNCATED);
  if (is_tcp && present > TCP_DATA_OFFSET && !is_tcp_header_sound(transport, total)) {
    return decide(packet, VERDICT_DROP_MALFORMED);
  }
  if (is_tcp && present > TCP_FLAGS) packet->flags = tcp_flags(transport);
  addresses_t addresses = addresses_of(packet);
  set_tuple(&packet->tuple, &addresses, load32(transport), packet->protocol | zone << 8);
}

static inline void parse_ip(struct packet *packet, uint8_t *ip, uint32_t bytes, uint32_t zone) {
  packet->flags = 0;
  packet->candidate = NULL;
  if (bytes < 20) return decide(packet, VERDICT_DROP_TRUNCATED);
  uint32_t header_bytes = (ip[0] & 15) << 2;
  uint32_t total_bytes = __builtin_bswap16(load16(ip + 2));
  if (total_bytes == 0) total_bytes = bytes;
  if (ip[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes) {
    return decide(packet, VERDICT_DROP_MALFORMED);
  }
  if (bytes < header_bytes) return decide(packet, VERDICT_DROP_TRUNCATED);
  uint8_t protocol = ip[IPV4_PROTOCOL];
  bool is_tcp = protocol == PROTOCOL_TCP;
  if (load16(ip + IPV4_FRAGMENT) & FRAGMENT_MASK) return decide(packet, VERDICT_PASS);
  if (!is_tcp & (protocol != PROTOCOL_UDP)) return decide(packet, VERDICT_PASS);
  const uint8_t *transport = ip + header_bytes;
  packet->network = ip;
  packet->header_bytes = (uint8_t)header_bytes;
  packet->protocol = protocol;
  uint32_t total = total_bytes - header_bytes;
  uint32_t present = (bytes < total_bytes ? bytes : total_bytes) - header_bytes;
  if (present < pick32(is_tcp, 20, 8)) return parse_cut(packet, present, total, zone);
  /* A UDP packet takes the same way over bytes of its own, which mean nothing. */
  const uint8_t *tcp = transport - pick32(is_tcp, 0, 20);
  if (is_tcp & !is_tcp_header_sound(tcp, total)) return decide(packet, VERDICT_DROP_MALFORMED);
  packet->kind = PACKET_FAST;
  packet->transport_bytes = present;
  packet->flags = (uint8_t)pick32(is_tcp, tcp_flags(tcp), 0);
  addresses_t addresses = addresses_of(packet);
  set_tuple(&packet->tuple, &addresses, load32(transport), protocol | zone << 8);
}

#endif
