/*
 * Flow table, flow states and ageing: the C twin of assembly/flow/{table,state,expiry}.ts. Records
 * and all decisions are the same, down to the bytes of the records and the slots they stand in.
 */
#ifndef TABLE_H
#define TABLE_H

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "packet.h"

enum {
  STATE_HALF_OPEN,
  STATE_ESTABLISHED,
  STATE_FIN_CLIENT,
  STATE_FIN_SERVICE,
  STATE_CLOSING,
  STATE_UDP,
  STATE_ICMP,
  STATE_OTHER,
  STATE_COUNT,
  STATE_REOPEN = 0xff
};

enum {
  FLAG_CLIENT_HIGH = 1,
  FLAG_SERVICE_HIGH = 2,
  FLAG_SPILLED = 4,
  FLAG_INDEXED = 8,
  FLAG_RETIRED = 32
};

struct key {
  uint64_t addresses;
  uint64_t rest;
};

/* One cache line. A word of octets holds 48 bits of them and two or one other fields above. */
struct flow {
  struct key sides[2];
  uint32_t last_seen_ms;
  uint16_t network_delta;
  uint16_t transport_delta;
  uint32_t packets[2];
  union {
    uint64_t client_word;
    struct {
      uint8_t client_octets[6];
      uint8_t state;
      uint8_t flags;
    };
  };
  union {
    uint64_t service_word;
    struct {
      uint16_t service_octets[3];
      uint16_t service;
    };
  };
#ifdef TWIN_IPV6
  address_t ends[2][2]; /* of each side: the smaller endpoint's, then the larger one's */
#endif
};
#ifdef TWIN_IPV6
_Static_assert(sizeof(struct flow) == 128, "a flow is two cache lines");
#else
_Static_assert(sizeof(struct flow) == 64, "a flow is one cache line");
#endif

/* Asks for the lines of a record; it is going to be written. */
__attribute__((always_inline))
static inline void prefetch_record(const struct flow *flow) {
  __builtin_prefetch(flow, 1);
#ifdef TWIN_IPV6
  __builtin_prefetch((const char *)flow + 64, 1);
#endif
}

enum { GROUP_SLOTS = 16, BUCKET_CELLS = 16, FIRST_BUCKET_RESERVE = 6 };
enum { SPILL_GROUPS_MAX = 64, SPILL_COUNT_MAX = 255, SPILL_BITS = 24, SLOT_COUNT_MAX = (1 << 26) - 1 };

struct table {
  uint8_t *tags;
  uint32_t *cells;
  uint32_t *spills; /* how many flows of a group have spilled, and above that bits of their hashes */
  struct flow *records;
  uint32_t group_count;
  uint32_t bucket_count;
  uint32_t slot_bits;
  uint32_t flow_count;
  uint32_t flow_count_max;
  uint32_t unindexed_count;
  uint32_t spill_cursor;
  uint32_t sweep_cursor;
  uint32_t room_cursor;
  uint32_t swept_ms;
  void *memory;
};

static struct table table;

struct usage {
  uint64_t packets[2];
  uint64_t octets[2];
  uint64_t flows_created, flows_active, ports_exhausted;
  uint64_t reserved;
};

enum { SERVICE_COUNT_MAX = 16, POOL_COUNT_MAX = 64, SERVICE_NONE = 0xffff };

struct service {
  bool adopts; /* TCP flows may begin in mid-stream */
  uint32_t pool_count;
  address_t pool[POOL_COUNT_MAX];
};

static struct service services[SERVICE_COUNT_MAX];
static struct usage usages[SERVICE_COUNT_MAX];

static struct {
  uint64_t verdicts[VERDICT_COUNT];
  uint64_t created, expired, active, active_max, tcp, udp, spilled, reopened;
} counters;

/* ---- memory ---- */

static size_t line(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static uint32_t slot_count(void) { return table.group_count * GROUP_SLOTS; }

/* Lays the table out, empty; false when there is no memory for it. */
static bool create_table(uint32_t flow_count_max) {
  uint64_t slots = (uint64_t)flow_count_max + flow_count_max / 100 + GROUP_SLOTS;
  uint64_t cells = flow_count_max + (uint64_t)flow_count_max * 41 / 100 + 2 * BUCKET_CELLS;
  free(table.memory);
  memset(&table, 0, sizeof table);
  table.flow_count_max = flow_count_max;
  table.group_count = (uint32_t)((slots + GROUP_SLOTS - 1) / GROUP_SLOTS);
  table.bucket_count = (uint32_t)((cells + BUCKET_CELLS - 1) / BUCKET_CELLS);
  uint64_t count = (uint64_t)table.group_count * GROUP_SLOTS;
  if (count > SLOT_COUNT_MAX) return false;
  table.slot_bits = 32 - __builtin_clz((uint32_t)count);
  size_t tag_bytes = line(count), cell_bytes = (size_t)table.bucket_count * 64;
  size_t spill_bytes = line(table.group_count * 4), record_bytes = count * sizeof(struct flow);
  size_t bytes = tag_bytes + cell_bytes + spill_bytes + record_bytes;
  table.memory = calloc(bytes + 64, 1);
  if (table.memory == NULL) return false;
  uint8_t *base = (uint8_t *)line((size_t)table.memory);
#ifdef HUGE_PAGES
  /* As the engine's memory; a heap's own pages are too few to matter. */
  size_t pages = ((size_t)base + 4095) & ~(size_t)4095;
  if (bytes >= 2 << 20) madvise((void *)pages, (size_t)base + bytes - pages, MADV_HUGEPAGE);
#endif
  /* As the engine: the pages of a small table are touched before the first packet. */
  if (bytes <= 32 << 20) memset(base, 0, bytes);
  table.tags = base;
  table.cells = (uint32_t *)(base + tag_bytes);
  table.spills = (uint32_t *)(base + tag_bytes + cell_bytes);
  table.records = (struct flow *)(base + tag_bytes + cell_bytes + spill_bytes);
  return true;
}

/* ---- places of a hash ---- */

static inline uint32_t home_group(uint64_t hash) {
  return (uint32_t)((hash >> 32) * table.group_count >> 32);
}

static inline uint8_t *group_tags(uint32_t group) {
  return table.tags + (size_t)group * GROUP_SLOTS;
}

static inline uint8_t tag_of(uint64_t hash) { return (uint8_t)hash == 0 ? 1 : (uint8_t)hash; }

static inline uint32_t slot_of(const struct flow *flow) { return (uint32_t)(flow - table.records); }

static inline uint32_t *first_bucket(uint64_t hash) {
  return table.cells + ((hash & 0xffffffff) * table.bucket_count >> 32) * BUCKET_CELLS;
}

static inline uint32_t *second_bucket(uint64_t hash) {
  uint64_t other = hash * 0xff51afd7ed558ccd >> 32;
  return table.cells + (other * table.bucket_count >> 32) * BUCKET_CELLS;
}

static inline uint32_t cell_tag(uint64_t hash) {
  uint32_t tag = (uint32_t)(hash >> 32) >> table.slot_bits;
  return tag == 0 ? 1 : tag;
}

static inline struct flow *flow_of_cell(uint32_t cell) {
  return table.records + ((cell & ((1u << table.slot_bits) - 1)) - 1);
}

/* Bit per slot of a group whose tag is `tag`. */
static inline uint32_t tag_matches(const uint8_t *tags, uint8_t tag) {
#if defined(__SSE2__)
  __m128i group = _mm_load_si128((const __m128i *)tags);
  return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8((char)tag)));
#else
  uint32_t hits = 0;
  for (int slot = 0; slot < GROUP_SLOTS; slot++) hits |= (uint32_t)(tags[slot] == tag) << slot;
  return hits;
#endif
}

/* Bit per cell of a bucket whose bits above `bits` are `tag`. */
static inline uint32_t cell_matches(const uint32_t *bucket, uint32_t bits, uint32_t tag) {
#if defined(__AVX512F__)
  __m512i cells = _mm512_srl_epi32(_mm512_load_si512(bucket), _mm_cvtsi32_si128((int)bits));
  return _mm512_cmpeq_epi32_mask(cells, _mm512_set1_epi32((int)tag));
#elif defined(__SSE2__)
  const __m128i *quarter = (const __m128i *)bucket;
  __m128i shift = _mm_cvtsi32_si128((int)bits), wanted = _mm_set1_epi32((int)tag);
  __m128i first = _mm_cmpeq_epi32(_mm_srl_epi32(_mm_load_si128(quarter), shift), wanted);
  __m128i second = _mm_cmpeq_epi32(_mm_srl_epi32(_mm_load_si128(quarter + 1), shift), wanted);
  __m128i third = _mm_cmpeq_epi32(_mm_srl_epi32(_mm_load_si128(quarter + 2), shift), wanted);
  __m128i fourth = _mm_cmpeq_epi32(_mm_srl_epi32(_mm_load_si128(quarter + 3), shift), wanted);
  __m128i low = _mm_packs_epi32(first, second), high = _mm_packs_epi32(third, fourth);
  return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
#else
  uint32_t hits = 0;
  for (int at = 0; at < BUCKET_CELLS; at++) hits |= (uint32_t)(bucket[at] >> bits == tag) << at;
  return hits;
#endif
}

static inline uint32_t probe_bucket(const uint32_t *bucket, uint64_t hash) {
  return cell_matches(bucket, table.slot_bits, cell_tag(hash));
}

/* ---- lookup ---- */

/* True when the tuple is the flow's tuple of `side`. */
static inline bool is_same(const struct flow *flow, int side, const struct tuple *tuple) {
  const struct key *key = &flow->sides[side];
  bool is_same = ((key->addresses ^ tuple->addresses) | (key->rest ^ tuple->rest)) == 0;
#ifdef TWIN_IPV6
  if (!is_same) return false;
  return is_address(&flow->ends[side][0], end_of(tuple, false)) &&
         is_address(&flow->ends[side][1], end_of(tuple, true));
#else
  return is_same;
#endif
}

static struct flow *search_bucket(const uint32_t *bucket, const struct tuple *tuple, int side) {
  for (uint32_t hits = probe_bucket(bucket, tuple->hash); hits; hits &= hits - 1) {
    struct flow *flow = flow_of_cell(bucket[__builtin_ctz(hits)]);
    if (is_same(flow, side, tuple)) return flow;
  }
  return NULL;
}

static struct flow *find_by_index(const struct tuple *tuple, int side) {
  struct flow *flow = search_bucket(first_bucket(tuple->hash), tuple, side);
  return flow ? flow : search_bucket(second_bucket(tuple->hash), tuple, side);
}

/* The bit of a hash beside the spill count. */
static inline uint32_t spill_bit(uint64_t hash) {
  return (uint32_t)1 << (8 + ((hash >> 8 & 0xffff) * SPILL_BITS >> 16));
}

/* False when no flow with this client-side hash has spilled from the group whose word it is. */
static inline bool has_spilled(const uint32_t *spills, uint64_t hash) {
  return (*spills & spill_bit(hash)) != 0;
}

static struct flow *find_by_client_side(const struct tuple *tuple) {
  uint32_t group = home_group(tuple->hash);
  uint32_t hits = tag_matches(group_tags(group), tag_of(tuple->hash));
  for (; hits; hits &= hits - 1) {
    struct flow *flow = table.records + (size_t)group * GROUP_SLOTS + __builtin_ctz(hits);
    if (is_same(flow, SIDE_CLIENT, tuple)) return flow;
  }
  return has_spilled(&table.spills[group], tuple->hash) ? find_by_index(tuple, SIDE_CLIENT) : NULL;
}

/* Flow whose service-side tuple is this one, indexed or not. */
static struct flow *find_owner(const struct tuple *tuple) {
  struct flow *owner = find_by_index(tuple, SIDE_SERVICE);
  if (owner != NULL || table.unindexed_count == 0) return owner;
  struct flow *untranslated = find_by_client_side(tuple);
  if (untranslated == NULL) return NULL;
  return untranslated->flags & FLAG_INDEXED ? NULL : untranslated;
}

/* ---- slots and index cells ---- */

static uint32_t cell_of(uint64_t hash, uint32_t slot) {
  return cell_tag(hash) << table.slot_bits | (slot + 1);
}

static bool add_to_index(uint64_t hash, uint32_t slot) {
  uint32_t *first = first_bucket(hash), *second = second_bucket(hash);
  uint32_t first_free = cell_matches(first, 0, 0), second_free = cell_matches(second, 0, 0);
  int first_count = __builtin_popcount(first_free);
  bool is_second = (first_count < FIRST_BUCKET_RESERVE) & (__builtin_popcount(second_free) > first_count);
  uint32_t *bucket = is_second ? second : first;
  uint32_t free_cells = is_second ? second_free : first_free;
  if (free_cells == 0) return false;
  bucket[__builtin_ctz(free_cells)] = cell_of(hash, slot);
  return true;
}

static void remove_from_index(uint64_t hash, uint32_t slot) {
  uint32_t cell = cell_of(hash, slot);
  uint32_t *bucket = first_bucket(hash);
  uint32_t hits = cell_matches(bucket, 0, cell);
  if (hits == 0) {
    bucket = second_bucket(hash);
    hits = cell_matches(bucket, 0, cell);
  }
  assert(hits != 0 && "an indexed flow has no index cell");
  bucket[__builtin_ctz(hits)] = 0;
}

static struct flow *take_spilled_slot(uint64_t hash, uint32_t home) {
  if ((table.spills[home] & SPILL_COUNT_MAX) == SPILL_COUNT_MAX) return NULL;
  uint32_t group = table.spill_cursor;
  for (int step = 0; step < SPILL_GROUPS_MAX; step++) {
    if (group >= table.group_count) group = 0;
    uint32_t free_slots = tag_matches(group_tags(group), 0);
    if (free_slots) {
      table.spill_cursor = group;
      uint32_t slot = group * GROUP_SLOTS + (uint32_t)__builtin_ctz(free_slots);
      if (!add_to_index(hash, slot)) return NULL;
      table.tags[slot] = tag_of(hash);
      table.spills[home] = (table.spills[home] | spill_bit(hash)) + 1;
      table.records[slot].flags = FLAG_SPILLED;
      table.flow_count++;
      return &table.records[slot];
    }
    group++;
  }
  table.spill_cursor = group;
  return NULL;
}

/* Takes a slot for a flow with this client-side hash; NULL when there is none. */
static struct flow *take_slot(uint64_t hash) {
  uint32_t group = home_group(hash);
  uint32_t free_slots = tag_matches(group_tags(group), 0);
  if (free_slots == 0) return take_spilled_slot(hash, group);
  uint32_t slot = group * GROUP_SLOTS + (uint32_t)__builtin_ctz(free_slots);
  table.tags[slot] = tag_of(hash);
  table.records[slot].flags = 0;
  table.flow_count++;
  return &table.records[slot];
}

static uint64_t hash_of_side(const struct flow *flow, int side) {
  return hash_tuple(flow->sides[side].addresses, flow->sides[side].rest);
}

static void release_slot(struct flow *flow) {
  uint32_t slot = slot_of(flow);
  assert(table.tags[slot] != 0 && "a free slot was released");
  if (flow->flags & FLAG_INDEXED) remove_from_index(hash_of_side(flow, SIDE_SERVICE), slot);
  else table.unindexed_count--;
  if (flow->flags & FLAG_SPILLED) {
    uint64_t hash = hash_of_side(flow, SIDE_CLIENT);
    remove_from_index(hash, slot);
    uint32_t *spills = &table.spills[home_group(hash)];
    *spills = (*spills & SPILL_COUNT_MAX) == 1 ? 0 : *spills - 1;
  }
  table.tags[slot] = 0;
  /* A packet of the same batch may still hold this flow as its candidate: now nothing matches. */
  flow->sides[SIDE_CLIENT].rest = UINT64_MAX;
  flow->sides[SIDE_SERVICE].rest = UINT64_MAX;
  table.flow_count--;
}

/* ---- states ---- */

static uint8_t transitions[STATE_COUNT][2][16];
static int32_t timeouts_ms[STATE_COUNT];
static int32_t holds_ms[STATE_COUNT];
enum { TUPLE_HOLD_MS = 60000 };

static uint8_t transition(int state, int direction, int flags) {
  if (state > STATE_CLOSING) return (uint8_t)state;
  bool from_client = direction == FROM_CLIENT;
  if (state == STATE_CLOSING) {
    bool begins = from_client && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
    return begins ? STATE_REOPEN : STATE_CLOSING;
  }
  if (flags & TCP_RST) return STATE_CLOSING;
  bool fin = flags & TCP_FIN;
  if (state == STATE_HALF_OPEN) {
    if (from_client) return STATE_HALF_OPEN;
    return fin ? STATE_FIN_SERVICE : STATE_ESTABLISHED;
  }
  if (!fin) return (uint8_t)state;
  int own = from_client ? STATE_FIN_CLIENT : STATE_FIN_SERVICE;
  return (uint8_t)(state == STATE_ESTABLISHED || state == own ? own : STATE_CLOSING);
}

static void prepare_states(void) {
  static const int32_t seconds[STATE_COUNT] = {30, 350, 350, 350, 60, 120, 60, 350};
  for (int state = 0; state < STATE_COUNT; state++) {
    for (int column = 0; column < 32; column++) {
      transitions[state][column >> 4][column & 15] = transition(state, column >> 4, column & 15);
    }
    int32_t timeout = seconds[state] * 1000;
    timeouts_ms[state] = timeout;
    holds_ms[state] = timeout > TUPLE_HOLD_MS ? timeout : TUPLE_HOLD_MS;
  }
}

/* State of a flow that begins with this packet. */
static uint8_t first_state(uint8_t protocol, uint8_t flags, int direction) {
  if (protocol == PROTOCOL_UDP) return STATE_UDP;
  bool from_client = direction == FROM_CLIENT;
  if (flags & TCP_RST) return STATE_CLOSING;
  if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && from_client) return STATE_HALF_OPEN;
  if (flags & TCP_FIN) return from_client ? STATE_FIN_CLIENT : STATE_FIN_SERVICE;
  return STATE_ESTABLISHED;
}

static inline bool is_expired(const struct flow *flow, uint32_t now_ms) {
  return (int32_t)(now_ms - flow->last_seen_ms) > timeouts_ms[flow->state];
}

static inline bool is_forgettable(const struct flow *flow, uint32_t now_ms) {
  return (int32_t)(now_ms - flow->last_seen_ms) > holds_ms[flow->state];
}

/* ---- ageing ---- */

enum { SWEEP_ROUND_MS = 10000, SWEEP_SLOTS_PER_PACKET = 2 };

static void retire(struct flow *flow) {
  assert(counters.active > 0 && usages[flow->service].flows_active > 0);
  counters.active--;
  counters.expired++;
  usages[flow->service].flows_active--;
  flow->flags |= FLAG_RETIRED;
}

static void forget(struct flow *flow) {
  if (!(flow->flags & FLAG_RETIRED)) retire(flow);
  release_slot(flow);
}

static bool forget_if_over(struct flow *flow, uint32_t now_ms) {
  if (!is_forgettable(flow, now_ms)) return false;
  forget(flow);
  return true;
}

/* Flows of services that adopt are kept while there is room. */
static bool forget_if_gone(struct flow *flow, uint32_t now_ms) {
  return !services[flow->service].adopts && forget_if_over(flow, now_ms);
}

static bool is_crowded(void) {
  return table.flow_count > table.flow_count_max - (table.flow_count_max >> 2);
}

static void sweep_groups(uint32_t now_ms, uint32_t count) {
  uint32_t group = table.sweep_cursor;
  for (uint32_t step = 0; step < count; step++) {
    if (group >= table.group_count) group = 0;
    uint32_t live = ~tag_matches(group_tags(group), 0) & 0xffff;
    for (; live; live &= live - 1) {
      struct flow *flow = table.records + (size_t)group * GROUP_SLOTS + __builtin_ctz(live);
      if (!is_forgettable(flow, now_ms)) continue;
      if (!services[flow->service].adopts) forget(flow);
      else if (!(flow->flags & FLAG_RETIRED)) retire(flow);
    }
    group++;
  }
  table.sweep_cursor = group;
}

/* Forgets what may be forgotten in `count` groups from where the last flow that began stopped. */
static void forget_in(uint32_t now_ms, uint32_t count) {
  uint32_t group = table.room_cursor;
  for (uint32_t step = 0; step < count; step++) {
    if (group >= table.group_count) group = 0;
    uint32_t live = ~tag_matches(group_tags(group), 0) & 0xffff;
    for (; live; live &= live - 1) {
      forget_if_over(table.records + (size_t)group * GROUP_SLOTS + __builtin_ctz(live), now_ms);
    }
    group++;
  }
  table.room_cursor = group;
}

/* Makes room for a flow; false when the table is full. */
static bool make_room(const struct service *service, uint32_t now_ms) {
  enum { ROOM_GROUPS = 1, RESCUE_GROUPS = 16 };
  if (service->adopts && is_crowded()) forget_in(now_ms, ROOM_GROUPS);
  if (table.flow_count < table.flow_count_max) return true;
  forget_in(now_ms, RESCUE_GROUPS);
  return table.flow_count < table.flow_count_max;
}

/* Looks at the slots that are due at `now_ms`, at most 2 a packet of the batch. */
static void sweep(uint32_t now_ms, uint32_t packet_count) {
  if (table.flow_count == 0) {
    table.swept_ms = now_ms;
    return;
  }
  int32_t elapsed_ms = (int32_t)(now_ms - table.swept_ms);
  if (elapsed_ms <= 0) return;
  uint64_t due = (uint64_t)table.group_count * (uint32_t)elapsed_ms / SWEEP_ROUND_MS;
  if (due == 0) return;
  table.swept_ms = now_ms;
  uint32_t groups_max = packet_count * SWEEP_SLOTS_PER_PACKET / GROUP_SLOTS;
  if (groups_max == 0) groups_max = 1;
  sweep_groups(now_ms, due < groups_max ? (uint32_t)due : groups_max);
}

#endif
