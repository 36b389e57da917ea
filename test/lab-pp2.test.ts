/**
 * PROXY headers in a lab: a server learns the endpoint and the client behind it, from two tenants
 * with the same addresses, and long streams in both directions keep every byte under offloads.
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { pattern } from "../fixtures/bytes.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { LiveLab } from "../host/live/lab.ts";
import {
  inside,
  listening,
  oneTarget,
  requireLab,
  scene,
  uniqueName,
  until,
} from "./lab-harness.ts";
import { endWorlds, World } from "./live-world.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));
afterEach(endWorlds);

const LAB = readFileSync(new URL("../fixtures/labs/privatelink.yaml", import.meta.url), "utf8");
const UPLOAD_BYTES = 8 << 20;

/** Reads the header by hand, answers with endpoint, client and the digest of what was sent. */
const SERVER = `
import hashlib, socketserver, struct
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        head = self.rfile.read(16)
        if head[:12] != SIGNATURE: return
        rest = self.rfile.read(struct.unpack("!H", head[14:])[0])
        client, endpoint = "local", "none"
        if head[12] == 0x21:
            client = ".".join(str(b) for b in rest[:4])
            at = 12
            while at < len(rest):
                kind, size = struct.unpack("!BH", rest[at:at + 3])
                if kind == 0xEA: endpoint = rest[at + 4:at + 3 + size].decode()
                at += 3 + size
        length = 0
        while True:
            line = self.rfile.readline().strip().lower()
            if not line: break
            if line.startswith(b"content-length:"): length = int(line[15:])
        body = self.rfile.read(length)
        answer = f"{endpoint} {client} {hashlib.sha256(body).hexdigest()}".encode() + b"\\n" + body
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(answer) + answer)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64
Server(("0.0.0.0", 8080), Handler).serve_forever()
`;

test("a server names the endpoint and the client, and streams keep every byte", async ({
  skip,
}) => {
  const python = requireTool("python3", skip);
  requireTool("curl", skip);
  const name = uniqueName();
  const text = LAB.replace("name: privatelink", `name: ${name}`)
    .replace("prefix: pl-", `prefix: ${name}-`)
    .replace("acceptance_required: true", "acceptance_required: false")
    .replace("interval_seconds: 5", "interval_seconds: 5, timeout_seconds: 2");
  const config = parseConfig(text, "lab.yaml");
  if (!isNetwork(config)) throw new Error("is no network");
  await scene(async (s) => {
    const live = await LiveLab.start(config);
    try {
      for (const host of ["api-1", "api-2"]) s.start(`${name}-${host}`, [python, "-c", SERVER]);
      for (const host of ["api-1", "api-2"]) await listening(`${name}-${host}`, 8080);
      const body = pattern(UPLOAD_BYTES, 3);
      const file = join(s.folder, "body");
      writeFileSync(file, body);
      const ask = async (tenant: string, ...words: string[]) => {
        const url = "http://10.0.1.50/";
        return inside(`${name}-${tenant}`, ["curl", "-sS", "-m", "20", ...words, url]);
      };
      await until("an answer comes", async () => (await ask("blue")).status === 0, 30_000);
      const none = createHash("sha256").digest("hex");
      const told = [(await ask("blue")).stdout, (await ask("green")).stdout];
      expect(told).toEqual([
        `vpce-0b10e000000000001 10.0.1.10 ${none}\n`,
        `vpce-09ee0000000000002 10.0.1.10 ${none}\n`,
      ]);
      const out = join(s.folder, "out");
      const words = ["-H", "Expect:", "--data-binary", `@${file}`, "-o", out];
      expect(await ask("blue", ...words)).toMatchObject({ status: 0, stderr: "" });
      const digest = createHash("sha256").update(body).digest("hex");
      const first = `vpce-0b10e000000000001 10.0.1.10 ${digest}\n`;
      expect(Buffer.compare(readFileSync(out), Buffer.concat([Buffer.from(first), body]))).toBe(0);
    } finally {
      await live.stop();
    }
  });
}, 120_000);

/** Greets as SSH, SMTP and MySQL do: on port 22 at once, on port 2222 when it has read the header. */
const GREETER = `
import socket, struct, threading
def header(stream):
    head = stream.read(16)
    rest = stream.read(struct.unpack("!H", head[14:])[0])
    return ".".join(str(b) for b in rest[:4])
def serve(s, waits):
    stream = s.makefile("rb")
    client = header(stream) if waits else None
    s.sendall(b"greetings\\n")
    client = client or header(stream)
    s.sendall(f"{client} said {stream.readline().decode()}".encode())
def listen(port, waits):
    listener = socket.create_server(("0.0.0.0", port))
    while True: threading.Thread(target=serve, args=(listener.accept()[0], waits)).start()
threading.Thread(target=listen, args=(22, False)).start()
listen(2222, True)
`;

/** Says something only when it was greeted; prints all that it hears. */
const POLITE_CLIENT = `
import socket, sys
s = socket.create_connection(("10.0.1.50", int(sys.argv[1])), 5)
s.settimeout(3)
stream = s.makefile("rb")
try:
    print(stream.readline().decode().strip())
    s.sendall(b"thanks\\n")
    print(stream.readline().decode().strip())
except TimeoutError: print("silence")
`;

/** Drops the first segment of more than 100 bytes, which is one header of 152. */
const FIRST_HEADER_LOST = `
table ip loss {
  chain input {
    type filter hook input priority 0
    tcp dport 2222 meta length > 100 quota until 200 bytes counter drop
  }
}
`;

describe("a server that speaks first", () => {
  const talk = "greetings\n10.0.1.10 said thanks\n";
  test.for([
    // The header waits for the client's first bytes, which wait for a server that waits for it.
    ["on_first_ack_with_payload", talk, "silence\n"],
    ["on_first_ack", talk, talk],
  ] as const)("with the header %s", async ([placement, atOnce, afterHeader], { skip }) => {
    const python = requireTool("python3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const plan = oneTarget(name);
      const services = plan.services.map((one) => ({ ...one, proxyProtocol: { placement } }));
      await s.lab({ ...plan, services, proxyProtocol: true });
      s.start(`${name}-s`, [python, "-c", GREETER]);
      await Promise.all([listening(`${name}-s`, 22), listening(`${name}-s`, 2222)]);
      const heard = await Promise.all(
        ["22", "2222"].map((port) => inside(`${name}-c`, [python, "-c", POLITE_CLIENT, port])),
      );
      expect(heard.map(({ stderr }) => stderr)).toEqual(["", ""]);
      expect(heard.map(({ stdout }) => stdout)).toEqual([atOnce, afterHeader]);
    });
  });

  test("hears of its client even if the header is lost that both ends wait for", async ({
    skip,
  }) => {
    const [python, nft] = [requireTool("python3", skip), requireTool("nft", skip)];
    await scene(async (s) => {
      const name = uniqueName();
      const plan = oneTarget(name);
      const proxyProtocol = { placement: "on_first_ack" } as const;
      const services = plan.services.map((one) => ({ ...one, proxyProtocol }));
      await s.lab({ ...plan, services, proxyProtocol: true });
      s.start(`${name}-s`, [python, "-c", GREETER]);
      await listening(`${name}-s`, 2222);
      const rules = join(s.folder, "loss.nft");
      writeFileSync(rules, FIRST_HEADER_LOST);
      const inServer = (...words: string[]) => inside(`${name}-s`, [nft, ...words]);
      expect(await inServer("-f", rules)).toMatchObject({ status: 0, stderr: "" });
      const heard = await inside(`${name}-c`, [python, "-c", POLITE_CLIENT, "2222"]);
      expect(heard).toMatchObject({ stdout: talk, stderr: "" });
      expect((await inServer("list", "table", "ip", "loss")).stdout).toContain("packets 1 ");
    });
  });
});

/** Ten datagrams in one send, which the kernel is to cut (UDP_SEGMENT); prints what came back. */
const SEGMENTING_CLIENT = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("10.0.1.5", 5300))
s.setsockopt(socket.IPPROTO_UDP, 103, 100)
s.send(b"".join(bytes([48 + n]) * 100 for n in range(10)))
print(" ".join(sorted(s.recv(100).decode() for n in range(10))))
`;

/** Answers with the client of the header, and the first byte and the length of what follows it. */
const DATAGRAM_SERVER = `
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 5300))
while True:
    data, sender = s.recvfrom(65535)
    if data[:12] != bytes.fromhex("0d0a0d0a000d0a515549540a") or data[12:14] != b"\\x21\\x12":
        s.sendto(b"none", sender)
        continue
    rest = data[16:]
    size = struct.unpack("!H", data[14:16])[0]
    client = ".".join(str(b) for b in rest[:4])
    s.sendto(f"{client}/{chr(rest[size])}/{len(rest) - size}".encode(), sender)
`;

test("datagrams that are sent as one super-packet get a header each", async ({ skip }) => {
  const python = requireTool("python3", skip);
  const w = await World.up("nlb", [
    ["    protocol: TCP\n    port: 8080\n", "    protocol: UDP\n    port: 5300\n"],
    [
      "health_check: { protocol: HTTP, path: /, interval",
      "health_check: { protocol: TCP, port: 8080, interval",
    ],
    ["preserve_client_ip.enabled: true", "proxy_protocol_v2.enabled: true"],
    ["protocol: tcp, ports: 80,", "protocol: udp, ports: 5300,"],
    ["{ protocol: TCP, port: 80, forward: web }", "{ protocol: UDP, port: 5300, forward: web }"],
  ]);
  await scene(async (s) => {
    for (const host of ["web-1", "web-2", "web-3"]) {
      s.start(w.space(host), [python, "-c", DATAGRAM_SERVER]);
      await until("the server listens", async () => {
        const ss = await inside(w.space(host), ["ss", "-Hlun", "sport = :5300"]);
        return ss.stdout.trim() !== "";
      });
    }
    const { stdout, stderr } = await inside(w.space("client"), [python, "-c", SEGMENTING_CLIENT]);
    expect(stderr).toBe("");
    const expected = Array.from({ length: 10 }, (_, n) => `10.0.1.20/${n}/100`);
    expect(stdout.trim().split(" ")).toEqual(expected);
  });
}, 60_000);
