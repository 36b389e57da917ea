/*
 * The engine's hot path in C, to tell how much of its speed is the algorithm and how much is
 * WebAssembly. Same hash, tables, staging, states, ageing and port allocation as in assembly/, so
 * it gives the same frames, verdicts and flow records; test/bench-twin.test.ts compares them.
 *
 *   gcc -O3 -march=native [-DTWIN_IPV6] [-DHUGE_PAGES] -o twin bench/c/twin.c
 *   twin memory FLOWS BATCH PASSES [established|new|constant] [staged|single] [64|imix|1514] [turns]
 *   twin file IN [OUT]
 *
 * `memory` generates frames as bench/assembly/generator.ts does and times windows of 131072 packets
 * with and without processing. With `turns` it does so anew for every line of its input, and answers
 * each with its best cost and its median one, until the input ends. `file` replays a pcap (classic, little-endian, us, Ethernet) through
 * source NAT as `flowplane replay` does with its default scenario.
 *
 * Compiled for IPv6 it has the records, digests and lookups of IPv6, and `memory` alone.
 *
 * Left out: ICMP, other protocols, fragments, VLANs and other links, the family that it is not
 * compiled for, extension headers (all pass untouched),
 * destination NAT, zones but the first. What is there has all of its checks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void fail(const char *what) {
  fprintf(stderr, "twin: %s\n", what);
  exit(1);
}

static void print_counters(void) {
  printf("\"verdicts\":[");
  for (int verdict = 0; verdict < VERDICT_COUNT; verdict++) {
    printf("%s%llu", verdict ? "," : "", (unsigned long long)counters.verdicts[verdict]);
  }
  const uint64_t flows[] = {counters.created, counters.expired,  counters.reopened,
                            counters.active,  counters.active_max, counters.spilled,
                            counters.tcp,     counters.udp};
  const char *names[] = {"created", "expired", "reopened", "active",
                         "activeMax", "spilled", "tcp", "udp"};
  printf("],\"flows\":{");
  for (int at = 0; at < 8; at++) {
    printf("%s\"%s\":%llu", at ? "," : "", names[at], (unsigned long long)flows[at]);
  }
  uint64_t bytes = (uint64_t)slot_count() * sizeof(struct flow);
  uint64_t digest = xxh64((const uint8_t *)table.records, bytes, 0);
  printf("},\"records\":\"%016llx\"", (unsigned long long)digest);
}

/* ---- generated traffic: bench/assembly/generator.ts ---- */

enum { STRIDE_BYTES = 192, STRIDE_LARGE_BYTES = 1600, WINDOW_PACKETS = 131072 };
enum { MODE_ESTABLISHED, MODE_NEW, MODE_CONSTANT, MODE_ANSWER };

static uint8_t arena[BATCH_COUNT_MAX * STRIDE_LARGE_BYTES] __attribute__((aligned(64)));
static uint64_t random_state;
static uint32_t clock_ms, since_ms;
/* Of generated frames; 0 = IMIX. */
static uint32_t captured_bytes = 64;

static void generator_seed(uint32_t seed) {
  random_state = ((uint64_t)seed + 1) * 0x9e3779b97f4a7c15;
}

static inline uint64_t random_word(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/* Length of a frame drawn from IMIX: 7 of 64, 4 of 594, 1 of 1518 bytes in twelve. */
static inline uint32_t imix_bytes(uint64_t draw) {
  const uint32_t kinds = 0x104844; /* two bits each */
  uint32_t kind = kinds >> ((((uint32_t)draw & 0xffff) * 12 >> 16) << 1) & 3;
  return kind == 0 ? 64 : kind == 1 ? 594 : 1518;
}

/* What follows the ports. */
static inline void write_transport(uint8_t *transport, bool is_udp, uint32_t flags,
                                   uint32_t bytes) {
  uint64_t udp = 0x0000000077770000 | __builtin_bswap16((uint16_t)bytes);
  store64(transport + 4, pick(is_udp, udp, 0x0000000100000001));
  store32(transport + 12, 0x00040050 | flags << 8);
  store32(transport + 16, 0x00004321);
}

#ifndef TWIN_IPV6
enum { FRAME_BYTES_MIN = 64 };

static inline void write_frame(uint8_t *frame, uint32_t flow, bool is_reply, uint32_t flags,
                               uint32_t bytes) {
  const uint32_t nat_be = 0x017100cb;
  uint32_t server = flow / 60000;
  uint32_t port_be = __builtin_bswap16((uint16_t)(1024 + (flow - server * 60000)));
  uint32_t client_be = __builtin_bswap32(0x0a000000 + (flow & 0xffffff));
  uint32_t server_be = __builtin_bswap32(0x08000000 + server);
  bool is_udp = (flow & 7) == 7;
  store64(frame, 0x0202020202020202);
  store64(frame + 8, 0x0045000802020202);
  store64(frame + 16, 0x0040004000000000 | __builtin_bswap16((uint16_t)(bytes - 14)));
  store16(frame + 22, (uint16_t)pick32(is_udp, 0x1140, 0x0640));
  store16(frame + 24, 0x1234);
  uint64_t onward = client_be | (uint64_t)server_be << 32;
  uint64_t reply = server_be | (uint64_t)nat_be << 32;
  store64(frame + 26, pick(is_reply, reply, onward));
  uint32_t port_pair = port_be | 0xbb01u << 16;
  store32(frame + 34, pick32(is_reply, rotl32(port_pair, 16), port_pair));
  write_transport(frame + 34, is_udp, flags, bytes - 34);
}
#else
static const uint64_t NAT6_PREFIX = 0x0000ffffb80d0120;
enum { FRAME_BYTES_MIN = 74 };

/* Clients are fd00::flow, servers 2001:db8::server. */
static inline void write_frame(uint8_t *frame, uint32_t flow, bool is_reply, uint32_t flags,
                               uint32_t bytes) {
  const uint64_t client_prefix = 0xfd, server_prefix = 0xb80d0120;
  uint32_t server = flow / 60000;
  uint32_t port_be = __builtin_bswap16((uint16_t)(1024 + (flow - server * 60000)));
  bool is_udp = (flow & 7) == 7;
  store64(frame, 0x0202020202020202);
  store64(frame + 8, 0x0060dd8602020202);
  store32(frame + 16, (uint32_t)__builtin_bswap16((uint16_t)(bytes - 54)) << 16);
  store16(frame + 20, (uint16_t)pick32(is_udp, 0x4011, 0x4006));
  uint8_t *near = frame + pick32(is_reply, 38, 22), *far = frame + pick32(is_reply, 22, 38);
  store64(near, pick(is_reply, NAT6_PREFIX, client_prefix));
  store64(near + 8, __builtin_bswap64(pick(is_reply, 1, flow)));
  store64(far, server_prefix);
  store64(far + 8, __builtin_bswap64(server));
  uint32_t port_pair = port_be | 0xbb01u << 16;
  store32(frame + 54, pick32(is_reply, rotl32(port_pair, 16), port_pair));
  write_transport(frame + 54, is_udp, flags, bytes - 54);
}
#endif

static void generate(uint32_t count, int mode, uint32_t first, uint32_t flow_count) {
  uint32_t stride = captured_bytes == 64 ? STRIDE_BYTES : STRIDE_LARGE_BYTES;
  for (uint32_t index = 0; index < count; index++) {
    uint8_t *frame = arena + index * stride;
    uint64_t draw = random_word();
    bool is_new = mode == MODE_NEW, is_answer = mode == MODE_ANSWER;
    uint32_t flow = (uint32_t)((draw >> 32) * flow_count >> 32);
    if (is_new || is_answer) flow = first + index;
    else if (mode == MODE_CONSTANT) flow = first;
    bool is_reply = is_answer || (!is_new && (draw >> 7 & 1));
    uint32_t bytes = captured_bytes == 0 ? imix_bytes(draw >> 12) : captured_bytes;
    if (bytes < FRAME_BYTES_MIN) bytes = FRAME_BYTES_MIN;
    write_frame(frame, flow, is_reply, is_new ? 0x02 : 0x10, bytes);
    if (++since_ms == 30000) {
      since_ms = 0;
      clock_ms++;
    }
    describe(&frames[index], frame, bytes, bytes, clock_ms, is_reply);
  }
}

typedef void process_function(uint32_t count);

/* Generates `batches` batches and processes them, if `process` is given; returns ns. */
static double run(process_function *process, uint32_t batch, int mode, uint32_t flow_count,
                  uint32_t batches) {
  double begin_ns = now_ns();
  for (uint32_t at = 0; at < batches; at++) {
    bool in_order = mode == MODE_NEW || mode == MODE_ANSWER;
    generate(batch, mode, in_order ? at * batch : 0, flow_count);
    if (process != NULL) process(batch);
  }
  return now_ns() - begin_ns;
}

static void create_gateway(uint32_t flow_count) {
  static const uint8_t seed[16] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
  uint32_t capacity = (uint32_t)(((uint64_t)flow_count * 5 + 3) / 4);
  if (capacity < 1024) capacity = 1024;
  if (!create_engine(capacity, seed)) fail("FLOWS: too many for the memory");
#ifdef TWIN_IPV6
  const address_t nat = {NAT6_PREFIX, __builtin_bswap64(1)};
#else
  const address_t nat = 0x017100cb;
#endif
  services[0] = (struct service){.pool_count = 1, .pool = {nat}};
  ports[0] = (struct port){.service = 0, .peer = 1, .sides = CARRIES_CLIENT_SIDE};
  ports[1] = (struct port){.service = SERVICE_NONE, .peer = 0, .sides = CARRIES_SERVICE_SIDE};
}

static int ascending(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

struct times {
  double min, median, generator;
};

static struct times times_of(double *values, uint32_t count) {
  qsort(values, count, sizeof *values, ascending);
  return (struct times){.min = values[0], .median = values[count / 2]};
}

/* What windows of traffic are measured with. */
struct work {
  process_function *process;
  int mode;
  uint32_t flow_count, batch, batches;
};

/* Costs of `passes` windows, ns per packet, the generator's best taken off. */
static struct times measure(const struct work *work, double *full, double *alone, uint32_t passes) {
  double packets = (double)work->batches * work->batch;
  for (uint32_t pass = 0; pass < passes; pass++) {
    if (work->mode == MODE_NEW) create_gateway(work->flow_count);
    full[pass] = run(work->process, work->batch, work->mode, work->flow_count, work->batches) / packets;
    alone[pass] = run(NULL, work->batch, work->mode, work->flow_count, work->batches) / packets;
  }
  struct times with = times_of(full, passes);
  double without = times_of(alone, passes).min;
  return (struct times){with.min - without, with.median - without, without};
}

static void run_memory(struct work work, uint32_t passes, bool in_turns) {
  uint32_t flow_count = work.flow_count, batch = work.batch;
  uint32_t creating = (flow_count + batch - 1) / batch;
  double *full = calloc(passes, sizeof *full), *alone = calloc(passes, sizeof *alone);
  if (full == NULL || alone == NULL) fail("PASSES: too many for the memory");
  create_gateway(flow_count);
  generator_seed(1);
  double creating_ns = run(work.process, batch, MODE_NEW, flow_count, creating) / flow_count;
  if (work.mode == MODE_NEW) {
    work.batches = creating;
  } else {
    run(work.process, batch, MODE_ANSWER, flow_count, creating);
    run(work.process, batch, work.mode, flow_count, work.batches * 4);
  }
  struct times cost = {0};
  if (!in_turns) cost = measure(&work, full, alone, passes);
  for (char line[8]; in_turns && fgets(line, sizeof line, stdin) != NULL;) {
    run(work.process, batch, work.mode, flow_count, work.batches);
    struct times turn = measure(&work, full, alone, passes);
    printf("%.2f %.2f\n", turn.min, turn.median);
    fflush(stdout);
    if (cost.min == 0 || turn.min < cost.min) cost = turn;
  }
  generator_seed(2);
  uint64_t digest = 0;
  for (int at = 0; at < 1024; at++) {
    generate(batch, work.mode == MODE_CONSTANT ? work.mode : MODE_ESTABLISHED, 0, flow_count);
    work.process(batch);
    digest = digest_frames(frames, batch, digest);
  }
  printf("{\"flows\":%u,\"batch\":%u,", flow_count, batch);
  printf("\"nsPerPacketMin\":%.1f,\"nsPerPacketMedian\":%.1f,", cost.min, cost.median);
  printf("\"newNsPerFlow\":%.1f,\"digest\":\"%016llx\",", creating_ns - cost.generator,
         (unsigned long long)digest);
  print_counters();
  printf("}\n");
  free(full);
  free(alone);
}

#ifndef TWIN_IPV6
/* ---- captures ---- */

enum { CHUNK_BYTES = 256 * 1024, RECORD_HEADER_BYTES = 16, RECORD_BYTES_MAX = 262144 + 16 };
enum { FILE_BATCH = 128 };

struct replay {
  int input, output; /* output -1 = none */
  uint8_t *buffer;
  uint8_t *kept_from; /* bytes from here on are undecided */
  uint8_t *kept_to;   /* bytes that go out end here */
  bool is_timed;
  int64_t base_us;
  uint64_t packets, bytes, digest;
  double engine_ns;
};

static size_t read_some(int input, uint8_t *to, size_t bytes) {
  for (;;) {
    ssize_t done = read(input, to, bytes);
    if (done >= 0) return (size_t)done;
    if (errno != EINTR) fail("IN: cannot be read");
  }
}

static void write_all(int output, const uint8_t *from, size_t bytes) {
  while (bytes > 0) {
    ssize_t done = write(output, from, bytes);
    if (done < 0 && errno != EINTR) fail("OUT: cannot be written");
    if (done < 0) continue;
    from += done;
    bytes -= (size_t)done;
  }
}

/* Moves the undecided bytes before `end` to those that go out. */
static void keep(struct replay *replay, uint8_t *end) {
  size_t bytes = (size_t)(end - replay->kept_from);
  if (replay->kept_from != replay->kept_to) memmove(replay->kept_to, replay->kept_from, bytes);
  replay->kept_to += bytes;
  replay->kept_from = end;
}

/* Describes up to FILE_BATCH records of [record, end); returns where it stopped. */
static uint8_t *walk(struct replay *replay, uint8_t *record, const uint8_t *end, uint32_t *count) {
  uint32_t described = 0;
  while (described < FILE_BATCH && end - record >= RECORD_HEADER_BYTES) {
    uint32_t captured = load32(record + 8);
    if (captured > RECORD_BYTES_MAX - RECORD_HEADER_BYTES) fail("IN: a record is too long");
    if (end - record < RECORD_HEADER_BYTES + (ptrdiff_t)captured) break;
    int64_t time_us = (int64_t)load32(record) * 1000000 + load32(record + 4);
    if (!replay->is_timed) replay->base_us = time_us;
    replay->is_timed = true;
    int64_t elapsed_us = time_us > replay->base_us ? time_us - replay->base_us : 0;
    describe(&frames[described++], record + RECORD_HEADER_BYTES, captured, load32(record + 12),
             (uint32_t)(elapsed_us / 1000), 0);
    replay->bytes += captured;
    record += RECORD_HEADER_BYTES + captured;
  }
  *count = described;
  replay->packets += described;
  return record;
}

static void process_and_keep(struct replay *replay, uint32_t count) {
  double begin_ns = now_ns();
  process_staged(count);
  replay->engine_ns += now_ns() - begin_ns;
  replay->digest = digest_frames(frames, count, replay->digest);
  if (replay->output < 0) return;
  for (uint32_t at = 0; at < count; at++) {
    if (frames[at].verdict <= VERDICT_PASS) continue;
    keep(replay, frames[at].bytes - RECORD_HEADER_BYTES);
    replay->kept_from = frames[at].bytes + frames[at].captured_bytes;
  }
}

static void replay_records(struct replay *replay) {
  size_t left = 0;
  for (;;) {
    size_t got = read_some(replay->input, replay->buffer + left, CHUNK_BYTES);
    if (got == 0) break;
    uint8_t *record = replay->buffer, *end = record + left + got;
    replay->kept_from = replay->kept_to = record;
    for (uint32_t count = 1; count > 0;) {
      record = walk(replay, record, end, &count);
      if (count > 0) process_and_keep(replay, count);
    }
    if (replay->output >= 0) {
      keep(replay, record);
      write_all(replay->output, replay->buffer, (size_t)(replay->kept_to - replay->buffer));
    }
    left = (size_t)(end - record);
    memmove(replay->buffer, record, left);
  }
  if (left > 0) fail("IN: ends within a record");
}

/* As `flowplane replay` sizes its tables: one flow in 256 bytes of capture, unless the caller knows. */
static void create_replay(int64_t file_bytes, uint32_t given) {
  int64_t flows = (file_bytes + 255) / 256;
  if (flows < 8192) flows = 8192;
  if (flows > 1 << 16) flows = 1 << 16;
  if (!create_engine(given != 0 ? given : (uint32_t)flows, (const uint8_t *)"flowplane replay")) fail("no memory");
  services[0] = (struct service){.adopts = true, .pool_count = 8};
  for (uint32_t at = 0; at < 8; at++) services[0].pool[at] = 0x007100cb | (at + 1) << 24;
  ports[0] = (struct port){.service = 0, .peer = 0, .sides = CARRIES_CLIENT_SIDE};
}

static void run_file(const char *in, const char *out, uint32_t flows) {
  struct replay replay = {.input = open(in, O_RDONLY), .output = -1};
  if (replay.input < 0) fail("IN: cannot be opened");
  create_replay(lseek(replay.input, 0, SEEK_END), flows);
  lseek(replay.input, 0, SEEK_SET);
  replay.buffer = malloc(RECORD_BYTES_MAX + CHUNK_BYTES);
  if (replay.buffer == NULL) fail("no memory");
  if (out != NULL) replay.output = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (out != NULL && replay.output < 0) fail("OUT: cannot be opened");
  double begin_ns = now_ns();
  uint8_t header[24];
  bool is_pcap = read_some(replay.input, header, sizeof header) == sizeof header &&
                 load32(header) == 0xa1b2c3d4 && load32(header + 4) == 0x00040002 &&
                 load32(header + 20) == 1;
  if (!is_pcap) fail("IN: is no pcap 2.4, little-endian, of microseconds and Ethernet");
  if (replay.output >= 0) write_all(replay.output, header, sizeof header);
  replay_records(&replay);
  if (replay.output >= 0 && close(replay.output) != 0) fail("OUT: cannot be written");
  double seconds = (now_ns() - begin_ns) / 1e9;
  printf("{\"packets\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"engineSeconds\":%.6f,",
         (unsigned long long)replay.packets, (unsigned long long)replay.bytes, seconds,
         replay.engine_ns / 1e9);
  printf("\"digest\":\"%016llx\",", (unsigned long long)replay.digest);
  print_counters();
  printf("}\n");
  free(replay.buffer);
  close(replay.input);
}
#endif

/* ---- command line ---- */

static void usage_error(void) {
  fprintf(stderr, "twin memory FLOWS BATCH PASSES [established|new|constant] [staged|single] "
                  "[64|imix|1514] [turns]\n"
                  "twin file IN [OUT|- [FLOWS]]\n");
  exit(2);
}

/* A whole number from 1 to `max`. */
static uint32_t number(const char *text, unsigned long max) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != 0 || value < 1 || value > max) usage_error();
  return (uint32_t)value;
}

static int choice(const char *text, const char *const names[]) {
  for (int at = 0; names[at] != NULL; at++) {
    if (strcmp(text, names[at]) == 0) return at;
  }
  usage_error();
  return 0;
}

int main(int count, char **values) {
  static const char *const modes[] = {"established", "new", "constant", NULL};
  static const char *const ways[] = {"staged", "single", NULL};
  static const char *const turns[] = {"turns", NULL};
  static const char *const lengths[] = {"imix", "64", "1514", NULL};
  static const uint32_t length_bytes[] = {0, 64, 1514};
  if (count < 3) usage_error();
#ifndef TWIN_IPV6
  if (strcmp(values[1], "file") == 0 && count <= 5) {
    bool has_out = count >= 4 && strcmp(values[3], "-") != 0;
    run_file(values[2], has_out ? values[3] : NULL, count == 5 ? number(values[4], 48000000) : 0);
    return 0;
  }
#endif
  if (strcmp(values[1], "memory") != 0 || count < 5 || count > 9) usage_error();
  bool is_single = count > 6 && choice(values[6], ways) == 1;
  if (count > 7) captured_bytes = length_bytes[choice(values[7], lengths)];
  bool in_turns = count > 8 && choice(values[8], turns) == 0;
  struct work work = {
      .process = is_single ? process_single : process_staged,
      .mode = count > 5 ? choice(values[5], modes) : MODE_ESTABLISHED,
      .flow_count = number(values[2], 48000000),
      .batch = number(values[3], BATCH_COUNT_MAX),
  };
  work.batches = (WINDOW_PACKETS + work.batch - 1) / work.batch;
  run_memory(work, number(values[4], 10000), in_turns);
  return 0;
}
