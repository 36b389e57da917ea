/*
 * The least that a program between two TUN devices can do, for bench/live.ts: it reads what one device
 * has and writes it to the other, and looks at nothing. What is slower than a kernel's NAT here is so by the two
 * copies of each byte and the thread that has to be woken, whoever does more.
 *
 *   copies DEVICE NAMESPACE NAMESPACE     devices of that name, one in each; says "ready"
 *
 * As a worker of a lab (host/lab/ring-carrier.ts) it takes frames of 64 KiB with partial checksums, hands the writes of
 * a batch and the next reads to the kernel by one call of io_uring and waits in it: a patient read of each device, and
 * behind it as many that do not wait as came last, or twice as many. It goes before ordinary threads, as workers may.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A device's slots: that of its patient read, then those of the others. */
enum { DEVICES = 2, MORE_MAX = 20, SLOTS = MORE_MAX + 1, SLOT_BYTES = 66048, REQUESTS = 128 };
enum { IS_WRITE = 1 << 30, NOWAIT = 8, SINGLE_ISSUER = 1 << 12, DEFER_TASKRUN = 1 << 13 };

static char slots[DEVICES][SLOTS][SLOT_BYTES] __attribute__((aligned(4096)));
static int devices[DEVICES], waiting[DEVICES], more[DEVICES], asked[DEVICES], came[DEVICES];
static int ring;
static unsigned *request_tail, *result_head, *result_tail, request_mask, result_mask, queued;
static struct io_uring_sqe *requests;
static struct io_uring_cqe *results;

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* A device lives in the namespace that its maker was in. */
static int open_device(const char *name, const char *space) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", space);
  int in = open(path, O_RDONLY | O_CLOEXEC);
  if (in < 0 || setns(in, CLONE_NEWNET) < 0) die(path);
  close(in);
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &request) < 0) die("TUNSETIFF");
  int header = 12;
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) die("TUNSETVNETHDRSZ");
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) die("TUNSETOFFLOAD");
  return fd;
}

static void *mapped(size_t bytes, off_t at) {
  void *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, at);
  if (memory == MAP_FAILED) die("mmap");
  return memory;
}

static void open_ring(void) {
  struct io_uring_params with = {.flags = SINGLE_ISSUER | DEFER_TASKRUN};
  ring = syscall(SYS_io_uring_setup, REQUESTS, &with);
  if (ring < 0) die("io_uring_setup");
  size_t bytes = with.cq_off.cqes + with.cq_entries * sizeof *results;
  char *queues = mapped(bytes, IORING_OFF_SQ_RING);
  requests = mapped(with.sq_entries * sizeof *requests, IORING_OFF_SQES);
  results = (struct io_uring_cqe *)(queues + with.cq_off.cqes);
  request_tail = (unsigned *)(queues + with.sq_off.tail);
  request_mask = *(unsigned *)(queues + with.sq_off.ring_mask);
  result_head = (unsigned *)(queues + with.cq_off.head);
  result_tail = (unsigned *)(queues + with.cq_off.tail);
  result_mask = *(unsigned *)(queues + with.cq_off.ring_mask);
  unsigned *order = (unsigned *)(queues + with.sq_off.array);
  for (unsigned one = 0; one < with.sq_entries; one++) order[one] = one;
}

/* Tags are device * SLOTS + slot of what is read. */
static void ask(int operation, int device, char *at, unsigned bytes, unsigned tag, int flags) {
  unsigned tail = *request_tail;
  requests[tail & request_mask] = (struct io_uring_sqe){
      .opcode = operation,
      .fd = devices[device],
      .addr = (unsigned long)at,
      .len = bytes,
      .rw_flags = flags,
      .user_data = tag,
  };
  __atomic_store_n(request_tail, tail + 1, __ATOMIC_RELEASE);
  queued++;
}

/* Asks all devices for frames; waits until the writes before are done and one has some. */
static void wait_for_frames(void) {
  int patient = 0;
  for (int device = 0; device < DEVICES; device++) {
    if (waiting[device]) continue;
    unsigned tag = device * SLOTS;
    ask(IORING_OP_READ, device, slots[device][0], SLOT_BYTES, tag, 0);
    for (int one = 1; one <= more[device]; one++) {
      ask(IORING_OP_READ, device, slots[device][one], SLOT_BYTES, tag + one, NOWAIT);
    }
    asked[device] = more[device] + 1;
    waiting[device] = 1;
    patient++;
  }
  unsigned least = queued - patient + 1;
  if (syscall(SYS_io_uring_enter, ring, queued, least, IORING_ENTER_GETEVENTS, 0, 0) < 0) die("enter");
  queued = 0;
}

/* Has what came written to the other device. */
static void carry(void) {
  unsigned tail = __atomic_load_n(result_tail, __ATOMIC_ACQUIRE);
  for (unsigned head = *result_head; head != tail; head++) {
    struct io_uring_cqe *one = &results[head & result_mask];
    /* What does not fit is lost, as with any device. */
    if (one->user_data & IS_WRITE) continue;
    int device = one->user_data / SLOTS, slot = one->user_data % SLOTS;
    if (slot == 0) waiting[device] = 0;
    if (one->res <= 0) continue;
    came[device]++;
    ask(IORING_OP_WRITE, 1 - device, slots[device][slot], one->res, IS_WRITE, NOWAIT);
  }
  __atomic_store_n(result_head, tail, __ATOMIC_RELEASE);
  for (int device = 0; device < DEVICES; device++) {
    int next = came[device] == asked[device] ? 2 * asked[device] : came[device];
    if (asked[device] > 0) more[device] = next < 1 ? 0 : next - 1 > MORE_MAX ? MORE_MAX : next - 1;
    asked[device] = came[device] = 0;
  }
}

int main(int count, char **words) {
  if (count != 4) return 2;
  for (int one = 0; one < DEVICES; one++) devices[one] = open_device(words[1], words[2 + one]);
  open_ring();
  struct sched_param first = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first);
  puts("ready");
  fflush(stdout);
  for (;;) {
    wait_for_frames();
    carry();
  }
}
