/**
 * The ports of a NAT gateway in a lab: 60,000 flows want to go to one destination, 55,000 can.
 */
import { beforeEach, describe, expect, test } from "vitest";
import type { Lab } from "../host/lab/lab.ts";
import {
  inside,
  listening,
  requireLab,
  type Scene,
  scene,
  uniqueName,
  until,
} from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));

const SERVER = "198.51.100.1";
const FLOWS_MAX = 55_000;

/** A private host, a gateway with one address, and a server on the internet. */
async function gateway(s: Scene, name: string): Promise<Lab> {
  const lab = await s.lab({
    hosts: [
      { namespace: `${name}-c`, port: 0, addresses: ["10.0.1.10"], mtu: 1500 },
      { namespace: `${name}-s`, port: 1, addresses: [SERVER], mtu: 1500 },
    ],
    ports: [
      { vpc: 1, sides: "both", routed: true },
      { vpc: 0, sides: "both", routed: true },
    ],
    services: [],
    networkBytes: 1 << 20,
    timeouts: { udp: 600, halfOpen: 120 },
  });
  await lab.plane.all("setTables", {
    vpcs: [
      { vpc: 1, port: 0, routeTables: [[{ to: "0.0.0.0/0", service: "nat" }]] },
      { vpc: 0, port: 1 },
    ],
    services: [{ id: "nat", kind: "nat-gateway", vpc: 0, sources: ["203.0.113.1"] }],
  });
  return lab;
}

/**
 * Datagrams from 60,000 ports, 200 at a time, until 55,000 were answered or three rounds are over;
 * prints how many were.
 */
const MANY_CLIENTS = `
import select, socket, sys
answered, ports = 0, list(range(1024, 61024))
for rounds in range(3):
    left = []
    for first in range(0, len(ports), 200):
        poll, waiting = select.poll(), {}
        for port in ports[first:first + 200]:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(("0.0.0.0", port))
            s.connect((sys.argv[1], 80))
            waiting[s.fileno()] = (s, port)
            poll.register(s, select.POLLIN)
            s.send(b"?")
        while waiting:
            ready = poll.poll(300)
            if not ready: break
            for fd, event in ready:
                poll.unregister(fd)
                waiting.pop(fd)[0].close()
                answered += 1
        for s, port in waiting.values():
            s.close()
            left.append(port)
    ports = left
    if answered >= 55000: break
print(answered)
`;

const MANY_SERVER = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind(("0.0.0.0", 80))
while True:
    data, sender = s.recvfrom(100)
    s.sendto(data, sender)
`;

/**
 * Connections from 60,000 ports, all of them open at once, until none has come up for some seconds;
 * then each asks once. Four processes share them, as 20,000 open files are the most that many
 * systems let one have. Prints how many came up and how many were answered.
 */
const MANY_CONNECTIONS = `
import multiprocessing, select, socket, sys, time
PARTS = 4
barrier, results = multiprocessing.Barrier(PARTS), multiprocessing.Queue()

def run(part):
    poll, pending, up = select.epoll(), {}, []
    def look(seconds):
        for fd, event in poll.poll(seconds):
            s = pending.pop(fd)
            poll.unregister(fd)
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0: up.append(s)
    for index, port in enumerate(range(1024 + part, 61024, PARTS)):
        s = socket.socket()
        s.setblocking(False)
        s.bind(("0.0.0.0", port))
        s.connect_ex((sys.argv[1], 80))
        pending[s.fileno()] = s
        poll.register(s, select.EPOLLOUT)
        # Some wait for ports that there are not, so nobody waits for all.
        if index % 50 == 49: look(0.1)
    count, since = len(up), time.time()
    while time.time() < since + 8:
        look(0.5)
        if len(up) > count: count, since = len(up), time.time()
    barrier.wait()
    answered, asked = 0, select.epoll()
    for first in range(0, len(up), 500):
        some = {s.fileno(): s for s in up[first:first + 500]}
        for s in some.values():
            s.send(b"?")
            asked.register(s, select.EPOLLIN)
        while some:
            ready = asked.poll(40)
            if not ready: break
            for fd, event in ready:
                asked.unregister(fd)
                try: answered += some.pop(fd).recv(9) == b"?"
                except ConnectionResetError: pass
    results.put((len(up), answered))
    barrier.wait()

parts = [multiprocessing.Process(target=run, args=(part,)) for part in range(PARTS)]
for part in parts: part.start()
got = [results.get() for part in parts]
for part in parts: part.join()
print(sum(up for up, answered in got), sum(answered for up, answered in got))
`;

/** Four processes that the kernel shares connections out to; each sends back what comes. */
const ECHO_SERVER = `
import os, select, socket
def serve(listener):
    listener.setblocking(False)
    poll, clients = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, event in poll.poll():
            if fd == listener.fileno():
                try:
                    while True:
                        s, sender = listener.accept()
                        clients[s.fileno()] = s
                        poll.register(s, select.EPOLLIN)
                except BlockingIOError: pass
                continue
            data = clients[fd].recv(100)
            if data: clients[fd].send(data)
            else:
                poll.unregister(fd)
                clients.pop(fd).close()
listeners = [socket.create_server(("0.0.0.0", 80), backlog=32768, reuse_port=True) for n in range(4)]
for listener in listeners[1:]:
    if os.fork() == 0: serve(listener)
serve(listeners[0])
`;

describe("the ports of a NAT gateway", { timeout: 300_000 }, () => {
  test("carry 55,000 TCP connections to one destination, all of them alive at once", async ({
    skip,
  }) => {
    const python = requireTool("python3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await gateway(s, name);
      // The server takes whatever comes: what it refused would say nothing about the gateway.
      const queues = ["core.somaxconn=32768", "ipv4.tcp_max_syn_backlog=32768"];
      for (const one of [...queues, "ipv4.tcp_syncookies=0"]) {
        const done = await inside(`${name}-s`, ["sysctl", "-qw", `net.${one}`]);
        expect(done).toMatchObject({ status: 0, stderr: "" });
      }
      s.start(`${name}-s`, [python, "-c", ECHO_SERVER]);
      await listening(`${name}-s`, 80);
      const words = [python, "-c", MANY_CONNECTIONS, SERVER];
      const { stdout, stderr } = await inside(`${name}-c`, words, 250_000);
      const [usage] = await lab.plane.all("usages", ["nat"]);
      expect(stderr).toBe("");
      expect(stdout).toBe(`${FLOWS_MAX} ${FLOWS_MAX}\n`);
      expect(usage?.nat?.flowsCreated).toBe(FLOWS_MAX);
      expect(usage?.nat?.portsExhausted).toBeGreaterThanOrEqual(60_000 - FLOWS_MAX);
    });
  });

  test("carry 55,000 flows of UDP, and the others are refused and counted", async ({ skip }) => {
    const python = requireTool("python3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await gateway(s, name);
      s.start(`${name}-s`, [python, "-c", MANY_SERVER]);
      await until("the server listens", async () => {
        return (await inside(`${name}-s`, ["ss", "-Hlun", "sport = :80"])).stdout.trim() !== "";
      });
      const words = [python, "-c", MANY_CLIENTS, SERVER];
      const { stdout } = await inside(`${name}-c`, words, 280_000);
      const [usage] = await lab.plane.all("usages", ["nat"]);
      // Answers may be lost on a machine with other work; none too many comes through.
      expect(Number(stdout)).toBeLessThanOrEqual(FLOWS_MAX);
      expect(Number(stdout)).toBeGreaterThan(50_000);
      expect(usage?.nat).toMatchObject({ flowsCreated: FLOWS_MAX, flowsActive: FLOWS_MAX });
      expect(usage?.nat?.portsExhausted).toBeGreaterThan(0);
    });
  });
});
