/*
 * How flows begin and how a batch goes through: the C twin of assembly/{translate,rewrite,batch}.ts
 * and assembly/flow/lifecycle.ts. Where the engine touches cache lines in a loop, this prefetches.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "table.h"

enum { PORT_COUNT_MAX = 16, CARRIES_CLIENT_SIDE = 1, CARRIES_SERVICE_SIDE = 2 };

struct port {
  uint32_t zone;
  uint16_t service;
  uint16_t peer;
  uint8_t sides; /* CARRIES_*: which tuples its frames carry */
};

static struct port ports[PORT_COUNT_MAX];
static struct frame frames[BATCH_COUNT_MAX];
static struct packet packets[BATCH_COUNT_MAX] __attribute__((aligned(64)));

static inline uint32_t zone_of(const struct tuple *tuple) { return (uint32_t)(tuple->rest >> 40); }

/* ---- service-side tuple of a new flow ---- */

enum { PORT_MIN = 1024, PORT_KEPT_BITS = 6, PORT_PROBES_MAX = 64, POOL_TRIED_MAX = 16 };
enum { PORT_CHOICES = (65536 - PORT_MIN) >> PORT_KEPT_BITS };

/* Primes, none of them a factor of PORT_CHOICES. */
static const uint8_t strides[16] = {101, 109, 127, 131, 137, 149, 157, 163,
                                    173, 181, 193, 199, 211, 223, 233, 241};

/* The tuple under construction, and its two addresses as the sender's packet would carry them. */
struct outside {
  struct tuple tuple;
  addresses_t addresses;
  uint32_t protocol_zone;
};

/* Tuples that were foreseen for packets of the batch, and for which; of IPv6 none is kept. */
static struct tuple foreseen[BATCH_COUNT_MAX];
static bool is_foreseen[BATCH_COUNT_MAX];

static inline uint32_t first_address(const struct service *service, const addresses_t *addresses) {
  return (uint32_t)(hash_source(addresses) >> 32) % service->pool_count;
}

static bool is_unowned(const struct tuple *tuple, uint32_t now_ms) {
  struct flow *owner = find_owner(tuple);
  return owner == NULL || forget_if_over(owner, now_ms);
}

static bool is_tuple_free(struct outside *outside, uint32_t port_pair, uint32_t now_ms) {
  set_tuple(&outside->tuple, &outside->addresses, port_pair, outside->protocol_zone);
  return is_unowned(&outside->tuple, now_ms);
}

static inline uint32_t port_of(uint32_t port_pair) {
  return __builtin_bswap16((uint16_t)port_pair);
}

/* Tries the client's port, then its likes, with the source address already in the tuple. */
static bool allocate_port(struct outside *outside, const struct packet *packet, uint32_t port_pair,
                          uint32_t now_ms) {
  uint32_t port = port_of(port_pair);
  if (port >= PORT_MIN && is_tuple_free(outside, port_pair, now_ms)) return true;
  uint64_t order = hash_word(hash_tuple(packet->tuple.addresses, packet->tuple.rest & 0xffffffffff));
  uint32_t stride = strides[order & 15];
  uint32_t lowest = PORT_MIN | (port & ((1 << PORT_KEPT_BITS) - 1));
  uint32_t choice = (uint32_t)((order >> 32) * PORT_CHOICES >> 32);
  for (int probe = 0; probe < PORT_PROBES_MAX; probe++) {
    uint32_t candidate = __builtin_bswap16((uint16_t)(lowest + (choice << PORT_KEPT_BITS)));
    if (is_tuple_free(outside, (port_pair & 0xffff0000) | candidate, now_ms)) return true;
    choice += stride;
    if (choice >= PORT_CHOICES) choice -= PORT_CHOICES;
  }
  return false;
}

/* Finds a free service-side tuple for the flow that the packet begins. Returns a VERDICT_*. */
static uint8_t translate(struct outside *outside, const struct service *service,
                         const struct packet *packet, uint32_t zone, uint32_t now_ms) {
  uint32_t port_pair = ports_of(packet), count = service->pool_count;
  outside->addresses = addresses_of(packet);
  outside->protocol_zone = packet->protocol | zone << 8;
  const struct tuple *known = &foreseen[packet - packets];
  if (is_foreseen[packet - packets] && known->rest >> 32 == outside->protocol_zone) {
    outside->tuple = *known;
    if (is_unowned(known, now_ms)) return VERDICT_FORWARD;
  }
  if (count == 0) {
    bool is_free = is_tuple_free(outside, port_pair, now_ms);
    return is_free ? VERDICT_FORWARD : VERDICT_DROP_TUPLE_TAKEN;
  }
  uint32_t first = first_address(service, &outside->addresses);
  uint32_t tries = count < POOL_TRIED_MAX ? count : POOL_TRIED_MAX;
  for (uint32_t step = 0; step < tries; step++) {
    uint32_t index = first + step < count ? first + step : first + step - count;
    set_source(&outside->addresses, service->pool[index]);
    if (allocate_port(outside, packet, port_pair, now_ms)) return VERDICT_FORWARD;
  }
  return VERDICT_DROP_PORT_EXHAUSTED;
}

/* ---- how flows begin ---- */

static bool may_begin(const struct service *service, const struct packet *packet) {
  if (packet->protocol != PROTOCOL_TCP || service->adopts) return true;
  return (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

static uint32_t zone_behind(const struct port *port, uint32_t zone) {
  return zone == port->zone ? ports[port->peer].zone : zone;
}

/* First state and empty counters; service and flags stay. */
static void start(struct flow *flow, const struct packet *packet, int direction, uint32_t now_ms) {
  uint64_t state = first_state(packet->protocol, packet->flags, direction);
  uint64_t flags = flow->flags & ~FLAG_RETIRED;
  flow->client_word = state << 48 | flags << 56;
  flow->service_word = (uint64_t)flow->service << 48;
  flow->packets[0] = flow->packets[1] = 0;
  flow->last_seen_ms = now_ms;
}

static void count_active(const struct flow *flow) {
  usages[flow->service].flows_active++;
  if (++counters.active > counters.active_max) counters.active_max = counters.active;
}

static void count_created(const struct flow *flow, const struct packet *packet) {
  usages[flow->service].flows_created++;
  counters.created++;
  if (packet->protocol == PROTOCOL_TCP) counters.tcp++;
  else counters.udp++;
}

static void store_side(struct flow *flow, int side, const struct tuple *tuple) {
  flow->sides[side] = (struct key){tuple->addresses, tuple->rest};
#ifdef TWIN_IPV6
  flow->ends[side][0] = *end_of(tuple, false);
  flow->ends[side][1] = *end_of(tuple, true);
#endif
}

/* Writes both tuples and what follows from them; false when the index has no room. */
static bool fill(struct flow *flow, const struct packet *packet, const struct outside *outside,
                 bool is_indexed) {
  const struct tuple *inner = &packet->tuple, *outer = &outside->tuple;
  store_side(flow, SIDE_CLIENT, inner);
  store_side(flow, SIDE_SERVICE, outer);
  uint8_t flags = flow->flags & FLAG_SPILLED;
  if (flags) counters.spilled++;
  if (inner->swapped) flags |= FLAG_CLIENT_HIGH;
  if (outer->swapped) flags |= FLAG_SERVICE_HIGH;
  flow->flags = flags;
  uint64_t before = sum_addresses(inner), after = sum_addresses(outer);
  flow->network_delta = delta_of(before, after);
  flow->transport_delta = delta_of(before + (uint32_t)inner->rest, after + (uint32_t)outer->rest);
  table.unindexed_count++;
  if (!is_indexed) return true;
  if (!add_to_index(outer->hash, slot_of(flow))) return false;
  flow->flags = flags | FLAG_INDEXED;
  table.unindexed_count--;
  return true;
}

static inline bool is_self(const struct tuple *tuple) {
  uint32_t port_pair = (uint32_t)tuple->rest;
  return is_one_address(tuple) && (port_pair & 0xffff) == port_pair >> 16;
}

/* Makes the flow that the packet, from its client, begins; or NULL and why in `refusal`. */
static struct flow *begin(const struct packet *packet, const struct port *port, uint32_t now_ms,
                          uint8_t *refusal) {
  *refusal = VERDICT_DROP_NO_SERVICE;
  if (port->service == SERVICE_NONE) return NULL;
  const struct service *service = &services[port->service];
  *refusal = VERDICT_DROP_NO_FLOW;
  if (!may_begin(service, packet)) return NULL;
  *refusal = VERDICT_DROP_TABLE_FULL;
  if (!make_room(service, now_ms)) return NULL;
  struct outside outside;
  uint32_t zone = zone_behind(port, zone_of(&packet->tuple));
  uint8_t verdict = translate(&outside, service, packet, zone, now_ms);
  if (verdict != VERDICT_FORWARD) {
    if (verdict == VERDICT_DROP_PORT_EXHAUSTED) usages[port->service].ports_exhausted++;
    *refusal = verdict;
    return NULL;
  }
  bool is_untranslated = outside.tuple.addresses == packet->tuple.addresses &&
                         outside.tuple.rest == packet->tuple.rest;
  if (is_self(&packet->tuple) && !is_untranslated) {
    *refusal = VERDICT_DROP_SAME_ENDPOINT;
    return NULL;
  }
  struct flow *flow = take_slot(packet->tuple.hash);
  if (flow == NULL) return NULL;
  bool needs_index = !is_untranslated || ports[port->peer].sides & CARRIES_SERVICE_SIDE;
  if (!fill(flow, packet, &outside, needs_index)) {
    release_slot(flow);
    return NULL;
  }
  flow->service_word = (uint64_t)port->service << 48;
  start(flow, packet, FROM_CLIENT, now_ms);
  count_active(flow);
  count_created(flow, packet);
  return flow;
}

/* Begins an expired flow again in place; false when the packet may not. */
static bool begin_again(struct flow *flow, const struct packet *packet, int direction,
                        uint32_t now_ms) {
  const struct service *service = &services[flow->service];
  if (!service->adopts && (direction == FROM_SERVICE || !may_begin(service, packet))) return false;
  if (flow->flags & FLAG_RETIRED) count_active(flow);
  else counters.expired++;
  start(flow, packet, direction, now_ms);
  count_created(flow, packet);
  return true;
}

/* ---- rewriting ---- */

static inline uint32_t direction_of(const struct flow *flow, uint32_t side,
                                    const struct packet *packet) {
  return (uint32_t)(flow->flags >> side & 1) ^ packet->tuple.swapped;
}

/* Addresses of the other side, and the header's checksum where there is one. */
static inline void rewrite_addresses(uint8_t *ip, const struct flow *flow, uint32_t side,
                                     uint32_t is_high) {
#ifdef TWIN_IPV6
  address_t *to = (address_t *)(ip + IPV6_SOURCE);
  const address_t *ends = flow->ends[side ^ 1];
  to[is_high] = ends[0];
  to[is_high ^ 1] = ends[1];
#else
  uint64_t addresses = flow->sides[side ^ 1].addresses;
  store64(ip + IPV4_SOURCE, pick(is_high, rotl64(addresses, 32), addresses));
  uint32_t network_delta = delta_on(flow->network_delta, side);
  store16(ip + IPV4_CHECKSUM, updated(load16(ip + IPV4_CHECKSUM), network_delta));
#endif
}

/* The packet gets the tuple of the other side; a cut one as far as its fields are captured. */
static inline void rewrite(const struct packet *packet, const struct flow *flow, uint32_t side,
                           uint32_t direction) {
  uint32_t out = side ^ 1;
  uint32_t is_high = (uint32_t)(flow->flags >> out & 1) ^ direction;
  uint32_t port_pair = (uint32_t)flow->sides[out].rest;
  uint8_t *ip = network_of(packet), *transport = ip + packet->header_bytes;
  rewrite_addresses(ip, flow, side, is_high);
  store32(transport, pick32(is_high, rotl32(port_pair, 16), port_pair));
  bool is_udp = packet->protocol == PROTOCOL_UDP;
  uint32_t offset = pick32(is_udp, UDP_CHECKSUM, TCP_CHECKSUM);
  if (packet->kind != PACKET_FAST && packet->transport_bytes < offset + 2) return;
  uint8_t *at = transport + offset;
  store16(at, updated_transport(load16(at), delta_on(flow->transport_delta, side), is_udp));
}

/* ---- finishing ---- */

static inline void account(const struct frame *frame, struct flow *flow, uint32_t direction,
                           uint32_t state) {
  const uint64_t mask = 0x0000ffffffffffff;
  uint64_t bytes = frame->captured_bytes;
  uint64_t client = flow->client_word, service = flow->service_word;
  uint64_t client_octets = (client + pick(direction == FROM_CLIENT, bytes, 0)) & mask;
  uint64_t service_octets = (service + pick(direction == FROM_CLIENT, 0, bytes)) & mask;
  flow->client_word = client_octets | (uint64_t)state << 48 | client >> 56 << 56;
  flow->service_word = service_octets | (service & ~mask);
  flow->packets[direction]++;
  flow->last_seen_ms = frame->time_ms;
  struct usage *usage = &usages[service >> 48];
  usage->packets[direction]++;
  usage->octets[direction] += bytes;
}

static inline void forward(struct frame *frame, const struct flow *flow, uint32_t side,
                           uint32_t direction) {
  frame->verdict = VERDICT_FORWARD;
  frame->side = (uint8_t)side;
  frame->direction = (uint8_t)direction;
  frame->flow = slot_of(flow) + 1;
  counters.verdicts[VERDICT_FORWARD]++;
}

static void give_verdict(struct frame *frame, uint8_t verdict) {
  frame->verdict = verdict;
  frame->side = frame->direction = 0;
  frame->flow = 0;
  counters.verdicts[verdict]++;
}

/* A packet of an established flow; false when it needs anything more. */
static inline bool finish_fast(struct frame *frame, const struct packet *packet,
                               const struct port *port) {
  struct flow *flow = packet->candidate;
  if (flow == NULL) return false;
  uint32_t is_client_side = port->sides & is_same(flow, SIDE_CLIENT, &packet->tuple);
  uint32_t is_service_side = port->sides >> 1 & is_same(flow, SIDE_SERVICE, &packet->tuple);
  if (!(is_client_side | is_service_side)) return false;
  uint32_t side = is_client_side ^ 1;
  if (is_expired(flow, frame->time_ms)) return false;
  uint32_t direction = direction_of(flow, side, packet);
  uint32_t state = transitions[flow->state][direction][packet->flags];
  if (state == STATE_REOPEN) return false;
  account(frame, flow, direction, state);
  rewrite(packet, flow, side, direction);
  forward(frame, flow, side, direction);
  return true;
}

/* The flow that the packet's tuple names on one of the port's sides. */
static struct flow *find(const struct packet *packet, const struct port *port, uint32_t now_ms,
                         uint32_t *side) {
  if (port->sides & CARRIES_CLIENT_SIDE) {
    *side = SIDE_CLIENT;
    struct flow *flow = find_by_client_side(&packet->tuple);
    if (flow != NULL && !forget_if_gone(flow, now_ms)) return flow;
  }
  if (!(port->sides & CARRIES_SERVICE_SIDE)) return NULL;
  *side = SIDE_SERVICE;
  struct flow *flow = find_by_index(&packet->tuple, SIDE_SERVICE);
  return flow == NULL || forget_if_gone(flow, now_ms) ? NULL : flow;
}

/* Everything but packets of established flows. */
static void finish_slow(struct frame *frame, const struct packet *packet, const struct port *port) {
  if (packet->kind == PACKET_DECIDED) return give_verdict(frame, packet->verdict);
  uint32_t now_ms = frame->time_ms, side = SIDE_CLIENT, direction = FROM_CLIENT;
  uint32_t state;
  struct flow *flow = find(packet, port, now_ms, &side);
  if (flow == NULL) {
    uint8_t refusal = VERDICT_DROP_NO_FLOW;
    if (port->sides & CARRIES_CLIENT_SIDE) flow = begin(packet, port, now_ms, &refusal);
    if (flow == NULL) return give_verdict(frame, refusal);
    side = SIDE_CLIENT;
    state = flow->state;
  } else {
    direction = direction_of(flow, side, packet);
    if (is_expired(flow, now_ms)) {
      if (!begin_again(flow, packet, (int)direction, now_ms)) {
        return give_verdict(frame, VERDICT_DROP_NO_FLOW);
      }
      state = flow->state;
    } else {
      state = transitions[flow->state][direction][packet->flags];
      if (state == STATE_REOPEN) {
        counters.reopened++;
        start(flow, packet, FROM_CLIENT, now_ms);
        state = flow->state;
      }
    }
  }
  account(frame, flow, direction, state);
  rewrite(packet, flow, side, direction);
  forward(frame, flow, side, direction);
}

static inline void finish(struct frame *frame, const struct packet *packet) {
  const struct port *port = &ports[frame->port];
  frame->port_out = port->peer;
  bool is_done = packet->kind == PACKET_FAST && finish_fast(frame, packet, port);
  if (!is_done) finish_slow(frame, packet, port);
}

/* ---- the batch ---- */

/* Packets that wait for a line, and the line: tags of the home group or an index bucket. */
struct wait {
  struct packet *packet;
  const void *line;
};

static struct wait homes[BATCH_COUNT_MAX];
static struct wait indexed[BATCH_COUNT_MAX];

/*
 * Prefetches what a packet needs that probably begins a flow: a free slot and two index lines; keeps
 * the service-side tuple that is tried first. As a call of its own gcc 12 would leave it out, taking a function that only prefetches for a pure one.
 */
__attribute__((always_inline))
static inline void prefetch_beginning(const struct packet *packet, const uint8_t *tags) {
  uint32_t free_slots = tag_matches(tags, 0);
  if (free_slots) {
    prefetch_record(table.records + (tags - table.tags) + __builtin_ctz(free_slots));
  }
  const struct port *port = &ports[frames[packet - packets].port];
  if (port->service == SERVICE_NONE) return;
  const struct service *service = &services[port->service];
  if (!may_begin(service, packet)) return;
  struct outside outside = {.addresses = addresses_of(packet)};
  if (service->pool_count != 0) {
    uint32_t first = first_address(service, &outside.addresses);
    set_source(&outside.addresses, service->pool[first]);
  }
  uint32_t zone = zone_behind(port, zone_of(&packet->tuple));
  uint32_t port_pair = ports_of(packet);
  set_tuple(&outside.tuple, &outside.addresses, port_pair, packet->protocol | zone << 8);
#ifndef TWIN_IPV6
  is_foreseen[packet - packets] = service->pool_count == 0 || port_of(port_pair) >= PORT_MIN;
  foreseen[packet - packets] = outside.tuple;
#endif
  __builtin_prefetch(first_bucket(outside.tuple.hash), 1);
  __builtin_prefetch(second_bucket(outside.tuple.hash), 1);
}

/* Looks at the home groups; returns how many packets wait for the index. */
static uint32_t probe_homes(uint32_t home_count, uint32_t index_count) {
  uint32_t missed = 0;
  for (uint32_t at = 0; at < home_count; at++) {
    struct packet *packet = homes[at].packet;
    const uint8_t *tags = homes[at].line;
    uint32_t hits = tag_matches(tags, tag_of(packet->tuple.hash));
    if (hits) {
      struct flow *group = table.records + (tags - table.tags);
      packet->candidate = group + __builtin_ctz(hits);
      prefetch_record(packet->candidate);
      uint32_t others = hits & (hits - 1);
      if (others) prefetch_record(group + __builtin_ctz(others));
    }
    /* One in twenty that only looks like a packet of another flow begins one. */
    bool is_opening = (packet->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (hits == 0 || is_opening) prefetch_beginning(packet, tags);
    if (hits) continue;
    const uint32_t *spills = &table.spills[(tags - table.tags) / GROUP_SLOTS];
    homes[missed++] = (struct wait){packet, spills};
    __builtin_prefetch(spills);
  }
  for (uint32_t at = 0; at < missed; at++) {
    struct packet *packet = homes[at].packet;
    uint64_t hash = packet->tuple.hash;
    if (!has_spilled(homes[at].line, hash)) continue;
    indexed[index_count] = (struct wait){packet, first_bucket(hash)};
    __builtin_prefetch(indexed[index_count++].line);
  }
  return index_count;
}

/* Looks at one bucket for each; returns how many have found nothing and wait for the second. */
static uint32_t probe_index(uint32_t count, bool is_second) {
  uint32_t staying = 0;
  for (uint32_t at = 0; at < count; at++) {
    struct packet *packet = indexed[at].packet;
    const uint32_t *bucket = indexed[at].line;
    uint32_t hits = probe_bucket(bucket, packet->tuple.hash);
    if (hits) {
      packet->candidate = flow_of_cell(bucket[__builtin_ctz(hits)]);
      prefetch_record(packet->candidate);
      uint32_t others = hits & (hits - 1);
      if (others) prefetch_record(flow_of_cell(bucket[__builtin_ctz(others)]));
    } else if (!is_second) {
      indexed[staying] = (struct wait){packet, second_bucket(packet->tuple.hash)};
      __builtin_prefetch(indexed[staying++].line);
    }
  }
  return staying;
}

/* Translates the first `count` frames in place. */
static void process_staged(uint32_t count) {
  memset(is_foreseen, 0, count);
  uint32_t home_count = 0, index_count = 0;
  for (uint32_t at = 0; at < count; at++) {
    struct packet *packet = &packets[at];
    const struct port *port = &ports[frames[at].port];
    parse_frame(&frames[at], packet, port->zone);
    if (packet->kind == PACKET_DECIDED) continue;
    bool is_home = port->sides & CARRIES_CLIENT_SIDE;
    uint64_t hash = packet->tuple.hash;
    uint64_t tags = (uintptr_t)group_tags(home_group(hash));
    const void *line = (const void *)(uintptr_t)pick(is_home, tags, (uintptr_t)first_bucket(hash));
    __builtin_prefetch(line);
    homes[home_count].packet = indexed[index_count].packet = packet;
    homes[home_count].line = indexed[index_count].line = line;
    home_count += is_home;
    index_count += !is_home;
  }
  index_count = probe_homes(home_count, index_count);
  probe_index(probe_index(index_count, false), true);
  for (uint32_t at = 0; at < count; at++) finish(&frames[at], &packets[at]);
  if (count > 0) sweep(frames[count - 1].time_ms, count);
}

/* The record that a packet probably means, looked up at once. */
static struct flow *candidate_of(const struct packet *packet, const struct port *port) {
  uint64_t hash = packet->tuple.hash;
  if (port->sides & CARRIES_CLIENT_SIDE) {
    uint32_t group = home_group(hash);
    uint32_t hits = tag_matches(group_tags(group), tag_of(hash));
    return hits ? table.records + (size_t)group * GROUP_SLOTS + __builtin_ctz(hits) : NULL;
  }
  const uint32_t *bucket = first_bucket(hash);
  uint32_t hits = probe_bucket(bucket, hash);
  if (hits == 0) {
    bucket = second_bucket(hash);
    hits = probe_bucket(bucket, hash);
  }
  return hits ? flow_of_cell(bucket[__builtin_ctz(hits)]) : NULL;
}

/* The same, one frame after the other: what the stages are worth. */
static void process_single(uint32_t count) {
  memset(is_foreseen, 0, count);
  for (uint32_t at = 0; at < count; at++) {
    struct packet *packet = &packets[at];
    const struct port *port = &ports[frames[at].port];
    parse_frame(&frames[at], packet, port->zone);
    if (packet->kind != PACKET_DECIDED) packet->candidate = candidate_of(packet, port);
    finish(&frames[at], packet);
  }
  if (count > 0) sweep(frames[count - 1].time_ms, count);
}

/* Empty tables and counters; the caller defines ports and services. */
static bool create_engine(uint32_t flow_count_max, const uint8_t seed[16]) {
  memset(services, 0, sizeof services);
  memset(usages, 0, sizeof usages);
  memset(&counters, 0, sizeof counters);
  for (uint16_t port = 0; port < PORT_COUNT_MAX; port++) {
    ports[port] = (struct port){
        .service = SERVICE_NONE, .peer = port, .sides = CARRIES_CLIENT_SIDE};
  }
  seed_hash(seed);
  prepare_states();
  return create_table(flow_count_max);
}

#endif
