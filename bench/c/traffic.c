/*
 * Traffic for bench/live.ts: datagrams as fast as they go, one small TCP message back and
 * forth, connections.
 *
 *   traffic udp-receive PORT SECONDS          prints datagrams received until 0.3 s after the last
 *   traffic udp-send ADDRESS PORT SECONDS     64-byte datagrams, 64 a call; prints how many were sent
 *   traffic echo PORT                         answers 64-byte TCP messages, one connection at a time
 *   traffic stream-receive PORT               takes one TCP stream; prints MiB/s between its first byte
 *                                             and its last, and 1 when it began with a PROXY header
 *   traffic stream-send ADDRESS PORT SECONDS  sends one as fast as it goes
 *   traffic ask ADDRESS PORT SECONDS          prints round trips: count, p50 and p99 in microseconds
 *   traffic connect ADDRESS PORT SECONDS      the same of new connections, one after the other, each
 *                                             ended by a reset
 *
 * The receiver sleeps and drains: one that is woken for every datagram would measure wake-ups.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, BYTES = 64, SAMPLES_MAX = 4 << 20 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in to(const char *address, const char *port) {
  struct sockaddr_in end = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (inet_pton(AF_INET, address, &end.sin_addr) != 1) die(address);
  return end;
}

static void batch_of(struct mmsghdr *messages, struct iovec *parts, char *bytes) {
  memset(messages, 0, BATCH * sizeof *messages);
  for (int i = 0; i < BATCH; i++) {
    parts[i] = (struct iovec){bytes + i * 2048, BYTES};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
}

static char bytes[BATCH * 2048];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];

static int udp_receive(const char *port, double seconds) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 32 << 20, one = 1;
  struct sockaddr_in here = to("0.0.0.0", port);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&here, sizeof here)) die("bind");
  batch_of(messages, parts, bytes);
  printf("ready\n");
  fflush(stdout);
  long count = 0;
  double end = now() + seconds, last = end;
  while (now() < (count ? last + 0.3 : end)) {
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (got > 0) {
      count += got;
      last = now();
    } else usleep(200);
  }
  printf("%ld\n", count);
  return 0;
}

static int udp_send(const char *address, const char *port, double seconds) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
  struct sockaddr_in there = to(address, port);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  if (connect(fd, (struct sockaddr *)&there, sizeof there)) die("connect");
  batch_of(messages, parts, bytes);
  long count = 0;
  for (double end = now() + seconds; now() < end;) {
    int sent = sendmmsg(fd, messages, BATCH, 0);
    if (sent > 0) count += sent;
  }
  printf("%ld\n", count);
  return 0;
}

static int whole(int fd, char *message) {
  for (int done = 0; done < BYTES;) {
    int got = read(fd, message + done, BYTES - done);
    if (got <= 0) return 0;
    done += got;
  }
  return 1;
}

static void echo(const char *port) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in here = to("0.0.0.0", port);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) die("listen");
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (whole(fd, bytes) && write(fd, bytes, BYTES) == BYTES);
    close(fd);
  }
}

enum { CHUNK = 128 << 10 };
static char chunk[CHUNK];

static int stream_receive(const char *port) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in here = to("0.0.0.0", port);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 8)) die("listen");
  printf("ready\n");
  fflush(stdout);
  int fd = accept(listener, NULL, NULL);
  if (fd < 0) die("accept");
  long got = read(fd, chunk, CHUNK), count = got;
  int is_proxied = got >= 12 && !memcmp(chunk, "\r\n\r\n\0\r\nQUIT\n", 12);
  double start = now();
  while ((got = read(fd, chunk, CHUNK)) > 0) count += got;
  printf("%.2f %d\n", count / (now() - start) / (1 << 20), is_proxied);
  return 0;
}

static int stream_send(const char *address, const char *port, double seconds) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in there = to(address, port);
  if (connect(fd, (struct sockaddr *)&there, sizeof there)) die("connect");
  for (double end = now() + seconds; now() < end;) {
    if (write(fd, chunk, CHUNK) < 0) die("write");
  }
  return close(fd);
}

static int by_size(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Prints how many times there are, in microseconds, and two of their quantiles. */
static int say_times(float *times, long count) {
  if (count == 0) return 1;
  qsort(times, count, sizeof *times, by_size);
  printf("%ld %.1f %.1f\n", count, times[count / 2], times[count * 99 / 100]);
  return 0;
}

/* No more than leave ports for the next ones, through a gateway that has one address. */
enum { CONNECTIONS_MAX = 3000, FIRST_CONNECTIONS = 20 };

static int connect_often(const char *address, const char *port, double seconds) {
  struct sockaddr_in there = to(address, port);
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  static float times[CONNECTIONS_MAX];
  long count = 0, warm = FIRST_CONNECTIONS;
  for (double end = now() + seconds; now() < end && count < CONNECTIONS_MAX;) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    double start = now();
    if (connect(fd, (struct sockaddr *)&there, sizeof there)) die("connect");
    if (warm > 0) warm--;
    else times[count++] = (now() - start) * 1e6;
    close(fd);
  }
  return say_times(times, count);
}

static int ask(const char *address, const char *port, double seconds) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in there = to(address, port);
  if (connect(fd, (struct sockaddr *)&there, sizeof there)) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  float *times = malloc(SAMPLES_MAX * sizeof *times);
  long count = 0, warm = 200;
  for (double end = now() + seconds; now() < end && count < SAMPLES_MAX;) {
    double start = now();
    if (write(fd, bytes, BYTES) != BYTES || !whole(fd, bytes)) die("round trip");
    if (warm > 0) warm--;
    else times[count++] = (now() - start) * 1e6;
  }
  return say_times(times, count);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (!strcmp(mode, "udp-receive") && argc == 4) return udp_receive(argv[2], atof(argv[3]));
  if (!strcmp(mode, "udp-send") && argc == 5) return udp_send(argv[2], argv[3], atof(argv[4]));
  if (!strcmp(mode, "echo") && argc == 3) echo(argv[2]);
  if (!strcmp(mode, "ask") && argc == 5) return ask(argv[2], argv[3], atof(argv[4]));
  if (!strcmp(mode, "connect") && argc == 5) return connect_often(argv[2], argv[3], atof(argv[4]));
  if (!strcmp(mode, "stream-receive") && argc == 3) return stream_receive(argv[2]);
  if (!strcmp(mode, "stream-send") && argc == 5) return stream_send(argv[2], argv[3], atof(argv[4]));
  fprintf(stderr, "traffic: udp-receive PORT S | udp-send ADDRESS PORT S | echo PORT | ask ADDRESS PORT S |\n"
                  "  connect ADDRESS PORT S | stream-receive PORT | stream-send ADDRESS PORT S\n");
  return 2;
}
