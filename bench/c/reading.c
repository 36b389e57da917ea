/*
 * What two threads on two cores spend on the frames of one pcap in the page cache, of which each
 * decides its half: `reading FILE each|turns|mapped`.
 *
 *   each    each reads and walks all of it into memory of its own
 *   turns   they read parts of it in turns into one memory, and decide there
 *   mapped  each walks the file where it is mapped, and copies its frames out
 *
 * To decide a frame stands for: read what its header says, and write addresses, ports and checksums.
 * Prints JSON: medians in ns, of parts of 256 KiB. Waiting is not counted.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PART = 256 << 10, PARTS = 16, RECORD = 16, BATCH = 128, FRAMES_MAX = 8192, SAMPLES = 1 << 14 };

typedef struct { uint32_t at, bytes; } Frame;
typedef struct { double ns[SAMPLES]; int count; } Samples;
typedef struct { Samples read, walk, own, other; uint64_t sum; } Thread;

static const char *path;
static char *region;                          /* PARTS parts, of turns */
static Frame lists[PARTS][2][FRAMES_MAX];
static uint32_t counts[PARTS][2];
static atomic_long published, passed[2], is_over;
static off_t next_offset = 24;                /* of whoever reads next */
static Thread threads[2];

static double now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void note(Samples *samples, double ns, double count) {
  if (samples->count < SAMPLES && count > 0) samples->ns[samples->count++] = ns / count;
}

/* Which thread a frame belongs to: as assembly/capture/select.ts. */
static uint32_t owner_of(const char *frame) {
  uint32_t ports;
  memcpy(&ports, frame + 34, 4);
  return ((((ports ^ (ports >> 16)) >> 8) * 37) >> 5) & 1;
}

/* Lists the whole records of a part by owner; returns their bytes. */
static uint32_t walk(const char *part, uint32_t bytes, Frame list[2][FRAMES_MAX], uint32_t count[2]) {
  uint32_t at = 0;
  count[0] = count[1] = 0;
  while (at + RECORD <= bytes) {
    uint32_t length;
    memcpy(&length, part + at + 8, 4);
    if (at + RECORD + length > bytes) break;
    uint32_t owner = owner_of(part + at + RECORD);
    list[owner][count[owner]++] = (Frame){at + RECORD, length};
    at += RECORD + length;
  }
  return at;
}

/* A batch: first all headers are read, as the engine's stages do, then all are written. */
static uint64_t decide(char *part, const Frame *list, uint32_t count) {
  uint64_t hashes[BATCH], sum = 0;
  for (uint32_t i = 0; i < count; i++) {
    const char *frame = part + list[i].at;
    uint64_t a, b, c;
    memcpy(&a, frame + 12, 8);
    memcpy(&b, frame + 26, 8);
    memcpy(&c, frame + 34, 8);
    hashes[i] = (a * 0x9e3779b97f4a7c15u) ^ (b * 0xc2b2ae3d27d4eb4fu) ^ c;
  }
  for (uint32_t i = 0; i < count; i++) {
    char *frame = part + list[i].at;
    memcpy(frame + 24, &hashes[i], 2);
    memcpy(frame + 26, &hashes[i], 8);
    memcpy(frame + 36, &hashes[i], 2);
    memcpy(frame + 50, &hashes[i], 2);
    sum += hashes[i];
  }
  return sum;
}

static void decide_all(Thread *thread, char *part, const Frame *list, uint32_t count, Samples *samples) {
  double start = now_ns();
  for (uint32_t i = 0; i < count; i += BATCH) {
    thread->sum += decide(part, list + i, count - i < BATCH ? count - i : BATCH);
  }
  note(samples, now_ns() - start, count);
}

static void each(Thread *thread, int me, int file, off_t size) {
  static Frame list[2][2][FRAMES_MAX];
  char *part = aligned_alloc(4096, PART);
  memset(part, 0, PART);
  for (off_t offset = 24; offset + PART <= size;) {
    uint32_t count[2];
    double start = now_ns();
    if (pread(file, part, PART, offset) != PART) exit(1);
    double read = now_ns();
    offset += walk(part, PART, list[me], count);
    note(&thread->walk, now_ns() - read, count[0] + count[1]);
    note(&thread->read, read - start, count[0] + count[1]);
    decide_all(thread, part, list[me][me], count[me], &thread->own);
  }
}

static void turns(Thread *thread, int me, int file, off_t size) {
  for (;;) {
    long there = atomic_load(&published), mine = atomic_load(&passed[me]);
    if (mine < there) {
      long slot = mine % PARTS;
      Samples *samples = (mine & 1) == me ? &thread->own : &thread->other;
      decide_all(thread, region + slot * PART, lists[slot][me], counts[slot][me], samples);
      atomic_fetch_add(&passed[me], 1);
    }
    if ((there & 1) == me && there - atomic_load(&passed[0]) < PARTS && there - atomic_load(&passed[1]) < PARTS) {
      if (next_offset + PART > size) {
        atomic_store(&is_over, 1);
        if (atomic_load(&passed[me]) == there) break;
        continue;
      }
      long slot = there % PARTS;
      double start = now_ns();
      if (pread(file, region + slot * PART, PART, next_offset) != PART) exit(1);
      double read = now_ns();
      next_offset += walk(region + slot * PART, PART, lists[slot], counts[slot]);
      double packets = counts[slot][0] + counts[slot][1];
      note(&thread->walk, now_ns() - read, packets);
      note(&thread->read, read - start, packets);
      atomic_fetch_add(&published, 1);
    } else if (mine == there) {
      if (atomic_load(&is_over) && atomic_load(&published) == mine) break;
      sched_yield();
    }
  }
}

static void mapped(Thread *thread, int me, int file, off_t size) {
  static Frame list[2][2][FRAMES_MAX];
  char *copy = aligned_alloc(4096, PART);
  memset(copy, 0, PART);
  for (off_t offset = 24; offset + PART <= size;) {
    uint32_t count[2], to = 0;
    double start = now_ns();
    off_t base = offset & ~4095l;
    size_t window = (size_t)(size - base < PART + 4096 ? size - base : PART + 4096);
    char *map = mmap(NULL, window, PROT_READ, MAP_SHARED | MAP_POPULATE, file, base);
    if (map == MAP_FAILED) exit(1);
    double read = now_ns();
    uint32_t walked = walk(map + (offset - base), PART, list[me], count);
    double done = now_ns();
    for (uint32_t i = 0; i < count[me]; i++) {
      Frame *frame = &list[me][me][i];
      memcpy(copy + to, map + (offset - base) + frame->at, frame->bytes);
      frame->at = to;
      to += frame->bytes;
    }
    munmap(map, window);
    note(&thread->walk, done - read, count[0] + count[1]);
    note(&thread->read, read - start + now_ns() - done, count[0] + count[1]);
    decide_all(thread, copy, list[me][me], count[me], &thread->own);
    offset += walked;
  }
}

static int way;

static void *run(void *argument) {
  int me = (int)(long)argument, file = open(path, O_RDONLY);
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(me, &core);
  sched_setaffinity(0, sizeof core, &core);
  off_t size = lseek(file, 0, SEEK_END);
  (way == 'e' ? each : way == 't' ? turns : mapped)(&threads[me], me, file, size);
  return NULL;
}

static int ascending(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

static double median(Samples *first, Samples *second) {
  static double all[2 * SAMPLES];
  int count = first->count + second->count;
  memcpy(all, first->ns, sizeof(double) * (size_t)first->count);
  memcpy(all + first->count, second->ns, sizeof(double) * (size_t)second->count);
  qsort(all, (size_t)count, sizeof(double), ascending);
  return count > 0 ? all[count / 2] : 0;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  path = argv[1];
  way = argv[2][0];
  int file = memfd_create("reading", 0);
  if (ftruncate(file, (off_t)PART * PARTS) != 0) return 1;
  region = mmap(NULL, (size_t)PART * PARTS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
  pthread_t thread[2];
  for (long i = 0; i < 2; i++) pthread_create(&thread[i], NULL, run, (void *)i);
  for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
  Thread *a = &threads[0], *b = &threads[1];
  printf("{\"readNs\":%.2f,\"walkNs\":%.2f,\"ownNs\":%.2f,\"otherNs\":%.2f,\"sum\":\"%llx\"}\n",
         median(&a->read, &b->read), median(&a->walk, &b->walk), median(&a->own, &b->own),
         median(&a->other, &b->other), (unsigned long long)(a->sum ^ b->sum));
  return 0;
}
