/*
 * The least that a program between two TUN devices can do, for bench/live.ts: it reads what one device
 * has and writes it to the other, and looks at nothing. What is slower than a kernel's NAT here is so by the two
 * copies of each byte and the thread that has to be woken, whoever does more.
 *
 *   copies DEVICE NAMESPACE NAMESPACE     devices of that name, one in each; says "ready"
 *
 * As a worker of a lab it takes frames of 64 KiB with partial checksums (IFF_VNET_HDR, TUNSETOFFLOAD) and reads up to
 * 21 of a device before it writes them. It goes before ordinary threads, as workers may (lab.priority).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BATCH = 21, SLOT_BYTES = 66048 };

static char slots[BATCH][SLOT_BYTES] __attribute__((aligned(4096)));
static ssize_t bytes[BATCH];

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
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &request) < 0) die("TUNSETIFF");
  int header = 12;
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) die("TUNSETVNETHDRSZ");
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) die("TUNSETOFFLOAD");
  return fd;
}

static void carry(int from, int to) {
  int count = 0;
  while (count < BATCH && (bytes[count] = read(from, slots[count], SLOT_BYTES)) > 0) count++;
  for (int one = 0; one < count; one++) {
    /* What does not fit is lost, as with any device. */
    if (write(to, slots[one], bytes[one]) < 0) continue;
  }
}

int main(int count, char **words) {
  if (count != 4) return 2;
  struct pollfd set[2];
  for (int one = 0; one < 2; one++) {
    set[one] = (struct pollfd){.fd = open_device(words[1], words[2 + one]), .events = POLLIN};
  }
  struct sched_param first = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first);
  puts("ready");
  fflush(stdout);
  for (;;) {
    if (poll(set, 2, -1) < 0) die("poll");
    if (set[0].revents) carry(set[0].fd, set[1].fd);
    if (set[1].revents) carry(set[1].fd, set[0].fd);
  }
}
