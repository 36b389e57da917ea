/**
 * Labs under hard conditions, with real programs: loss, paths with a small MTU, idle connections.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { addNamespace, ip, removeNamespace } from "../host/io/namespaces.ts";
import { inside, listening, oneTarget, requireLab, scene, uniqueName } from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));

const LISTENER = "10.0.1.50";

/** Drops one packet in five that comes in; the kernel here has no netem. */
const LOSS = `
table inet loss {
  chain in {
    type filter hook input priority 0
    numgen random mod 100 < 20 drop
  }
}
`;

/**
 * TCP waits twice as long after each loss of the same segment, up to two minutes. Of the hundreds of
 * timeouts that 100 MiB take, one is bound to be the eighth in a row, and a minute is more than the
 * server waits: so through the kernel's router as through the engine. Kernels from 6.15 on can be
 * told to wait a second at the most; a listener keeps for its connections what it found when it was
 * made. Where they cannot, only 4 MiB have a fair chance.
 *
 * By that second they reckon as well how long 15 retransmissions take, 14 s, and give a connection up,
 * without a word to the other end, that has been mending losses for as long, though it gets on.
 */
const RTO_MAX = "/proc/sys/net/ipv4/tcp_rto_max_ms";
const RETRIES = "/proc/sys/net/ipv4/tcp_retries2";
const LOSSY_MIB = existsSync(RTO_MAX) ? 100 : 4;
/** They spend their time waiting, which they can do at the same time. */
const LOSSY_CONNECTIONS = 8;

describe("loss", () => {
  test(`of every fifth packet changes no byte of ${LOSSY_MIB} MiB`, { timeout: 300_000 }, async ({
    skip,
  }) => {
    const nginx = requireTool("nginx", skip);
    const nft = requireTool("nft", skip);
    requireTool("curl", skip);
    await scene(async (s) => {
      const name = uniqueName();
      await s.lab(oneTarget(name));
      const random = seeded(9);
      const words = Uint32Array.from({ length: LOSSY_MIB << 18 }, () => random() * 2 ** 32);
      const body = Buffer.from(words.buffer);
      writeFileSync(join(s.folder, "body"), body);
      writeFileSync(join(s.folder, "loss.nft"), LOSS);
      for (const side of ["c", "s"]) {
        const done = await inside(`${name}-${side}`, [nft, "-f", join(s.folder, "loss.nft")]);
        expect(done).toMatchObject({ status: 0, stderr: "" });
        if (!existsSync(RTO_MAX)) continue;
        const limit = ["sh", "-c", `echo 1000 > ${RTO_MAX} && echo 255 > ${RETRIES}`];
        expect((await inside(`${name}-${side}`, limit)).status).toBe(0);
      }
      const config = join(s.folder, "nginx.conf");
      writeFileSync(
        config,
        `daemon off; pid ${s.folder}/pid; error_log ${s.folder}/error.log; user root;
         events {} http { access_log off; server { listen 80; root ${s.folder}; } }`,
      );
      s.start(`${name}-s`, [nginx, "-c", config]);
      await listening(`${name}-s`, 80);
      const bytes = body.length / LOSSY_CONNECTIONS;
      const parts = Array.from({ length: LOSSY_CONNECTIONS }, (_, part) => ({
        range: `${part * bytes}-${(part + 1) * bytes - 1}`,
        out: join(s.folder, `part${part}`),
      }));
      await Promise.all(
        parts.map(async ({ range, out }) => {
          const words = ["curl", "-sSf", "-r", range, "-o", out, `http://${LISTENER}/body`];
          const got = await inside(`${name}-c`, words, 280_000);
          expect(got).toMatchObject({ status: 0, stderr: "" });
        }),
      );
      const hash = createHash("sha256");
      for (const { out } of parts) hash.update(readFileSync(out));
      expect(hash.digest("hex")).toBe(createHash("sha256").update(body).digest("hex"));
    });
  });
});

describe("a path with a small MTU", () => {
  test("is found by tracepath, through the translation", async ({ skip }) => {
    const tracepath = requireTool("tracepath", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const plan = oneTarget(name);
      const [client, server] = plan.hosts as [(typeof plan.hosts)[0], (typeof plan.hosts)[0]];
      // The target stands behind the server, on a link of its own.
      const hosts = [client, { ...server, addresses: [...server.addresses, "10.0.9.9"] }];
      const services = [{ sourceAddresses: ["10.0.2.5"], targets: [{ address: "10.0.9.9" }] }];
      await s.lab({ ...plan, hosts, services });
      const deep = `${name}-d`;
      await addNamespace(deep);
      try {
        await ip(
          ["-n", server.namespace, "-batch", "-"],
          [
            "addr del 10.0.9.9/32 dev fp0",
            `link add link0 mtu 1280 type veth peer name link0 mtu 1280 netns ${deep}`,
            "addr add 10.0.9.1/24 dev link0",
            "link set link0 up",
            "",
          ].join("\n"),
        );
        await ip(
          ["-n", deep, "-batch", "-"],
          [
            "addr add 10.0.9.9/24 dev link0",
            "link set link0 up",
            "route add default via 10.0.9.1",
            "",
          ].join("\n"),
        );
        await inside(server.namespace, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        const { stdout } = await inside(client.namespace, [tracepath, "-n", "-m", "5", LISTENER]);
        expect(stdout).toContain("pmtu 1280");
        expect(stdout).toMatch(/10\.0\.1\.50 .*reached/);
      } finally {
        await removeNamespace(deep);
      }
    });
  });
});

/** Connects, says nothing for some seconds, then asks for an echo; prints what came of it. */
const QUIET_CLIENT = `
import socket, sys, time
s = socket.create_connection(("${LISTENER}", 7), 5)
if sys.argv[1] == "keepalive":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
time.sleep(5)
try:
    s.sendall(b"still there?")
    print(s.recv(100).decode())
except ConnectionResetError:
    print("reset")
`;

const ECHO_SERVER = `
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            data = self.request.recv(100)
            if not data: return
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", 7), Echo).serve_forever()
`;

describe("idle connections", () => {
  test("are over after their time, and live on with keepalives", async ({ skip }) => {
    const python = requireTool("python3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const plan = oneTarget(name);
      const services = plan.services.map((service) => ({ ...service, resetStrays: true }));
      await s.lab({ ...plan, services, timeouts: { established: 2.5 } });
      s.start(`${name}-s`, [python, "-c", ECHO_SERVER]);
      await listening(`${name}-s`, 7);
      const ask = (how: string) => inside(`${name}-c`, [python, "-c", QUIET_CLIENT, how]);
      const [quiet, kept] = await Promise.all([ask("quiet"), ask("keepalive")]);
      expect(quiet).toMatchObject({ stdout: "reset\n", stderr: "" });
      expect(kept).toMatchObject({ stdout: "still there?\n", stderr: "" });
    });
  });
});
