/**
 * What real receivers read out of streams that the engine rewrote: HAProxy (strict), nginx
 * (lenient), aiosmtpd (reads the endpoint's TLV) on loopback sockets, tshark on a replayed capture.
 *
 * The streams are those of the gauntlet: a client's bytes through the engine over a link that loses,
 * repeats and reorders. What the target's TCP handed over is written to the receiver's socket, the
 * header by itself, as it arrives.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { requireTool } from "./setup/tools.ts";
import { Channel } from "./tcp-channel.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const FOLDER = mkdtempSync(join(tmpdir(), "flowplane-judges-"));
const VPCE = "vpce-0123456789abcdef0";
const HEADER_BYTES = 100;
const START_MS_MAX = 20_000;
const children: ChildProcess[] = [];

afterAll(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  rmSync(FOLDER, { recursive: true });
});

/** Bytes that a target receives of a client that sends `payload`, header first. */
async function delivered(payload: string, isIpv6: boolean, vpce = VPCE): Promise<Uint8Array> {
  const channel = await Channel.create(isIpv6 ? 6 : 4, { vpce });
  const end = {
    isn: 2 ** 32 - 20,
    mss: 536,
    scale: 2,
    hasSack: true,
    hasTimestamps: true,
    window: 65_535,
    superSegments: 1,
    acksAtOnce: false,
    optionShift: 2,
    sendsAfter: 0,
  };
  const connection = channel.open(
    {
      client: end,
      server: end,
      toServer: Buffer.from(payload),
      toClient: new Uint8Array(0),
      link: { loss: 0.2, duplication: 0.1, delayMsMax: 9 },
      isIpv6,
      headerBytes: HEADER_BYTES,
    },
    1,
  );
  await channel.run();
  expect(connection.headerCount).toBeGreaterThan(0);
  return connection.server.received;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return address.port;
}

/** Starts a program that listens on `port` and waits until it does. */
async function start(program: string, words: string[], port: number): Promise<() => string> {
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (part: Buffer) => {
      printed += part.toString();
    });
  }
  const endMs = Date.now() + START_MS_MAX;
  while (!(await isOpen(port))) {
    if (Date.now() > endMs || child.exitCode !== null) {
      throw new Error(`${program} does not listen on ${port}: ${printed}`);
    }
    await pause(50);
  }
  return () => printed;
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Writes the header, then the rest; returns what comes back until the receiver closes. */
function deliver(port: number, bytes: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    let answer = "";
    socket.setTimeout(10_000, () => socket.destroy(new Error(`no answer but ${answer}`)));
    socket.on("data", (part) => {
      answer += part.toString();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
    socket.write(bytes.subarray(0, HEADER_BYTES), () => {
      setTimeout(() => socket.write(bytes.subarray(HEADER_BYTES)), 20);
    });
  });
}

const CASES = [
  ["IPv4", false, "10.0.0.9 1024 192.0.2.80 443"],
  ["IPv6", true, "2001:db8::9 1024 2001:db8:f::80 443"],
] as const;
const BODY = "a body of many bytes, ".repeat(200);
const HASH = createHash("sha256").update(BODY).digest("hex");
const REQUEST =
  `POST /${"long-path/".repeat(60)} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n` +
  `Content-Length: ${BODY.length}\r\n\r\n${BODY}`;

describe("HAProxy", () => {
  test.for(CASES)("%s", async ([, isIpv6, ends], { skip }) => {
    const haproxy = requireTool("haproxy", skip);
    const port = await freePort();
    const seen = "%[src] %[src_port] %[dst] %[dst_port] %[req.body,sha2(256),hex,lower]";
    const file = join(FOLDER, `haproxy-${port}.cfg`);
    writeFileSync(
      file,
      `defaults
  mode http
  timeout client 9s
  timeout server 9s
  timeout connect 9s
frontend judge
  bind 127.0.0.1:${port} accept-proxy
  option http-buffer-request
  http-request return status 200 content-type text/plain lf-string "${seen}"
`,
    );
    await start(haproxy, ["-db", "-f", file], port);
    const answer = await deliver(port, await delivered(REQUEST, isIpv6));
    expect(answer).toMatch(/^HTTP\/1.1 200 /);
    expect(answer.split("\r\n\r\n")[1]).toBe(`${ends} ${HASH}`);
    const wrong = await delivered(REQUEST, isIpv6);
    wrong[20] = (wrong[20] ?? 0) ^ 1;
    expect(await deliver(port, wrong).catch(() => "")).toBe("");
  });
});

describe("nginx", () => {
  test.for(CASES)("%s", async ([, isIpv6, ends], { skip }) => {
    const nginx = requireTool("nginx", skip);
    const port = await freePort();
    const file = join(FOLDER, `nginx-${port}.conf`);
    const seen =
      "$proxy_protocol_addr $proxy_protocol_port " +
      "$proxy_protocol_server_addr $proxy_protocol_server_port $request_uri";
    writeFileSync(
      file,
      `daemon off; master_process off; pid ${FOLDER}/nginx-${port}.pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path ${FOLDER}/body-${port};
  proxy_temp_path ${FOLDER}/proxy-${port};
  fastcgi_temp_path ${FOLDER}/fast-${port}; uwsgi_temp_path ${FOLDER}/uwsgi-${port};
  scgi_temp_path ${FOLDER}/scgi-${port};
  server { listen 127.0.0.1:${port} proxy_protocol; location / { return 200 "${seen}"; } }
}
`,
    );
    await start(nginx, ["-c", file, "-e", "stderr"], port);
    const answer = await deliver(port, await delivered(REQUEST, isIpv6));
    expect(answer).toMatch(/^HTTP\/1.1 200 /);
    expect(answer.split("\r\n\r\n")[1]).toBe(`${ends} /${"long-path/".repeat(60)}`);
  });
});

/** Prints what it learns of each connection and of each mail; needs no package but its own. */
const SMTP_JUDGE = `
import asyncio, hashlib, sys
from aiosmtpd.smtp import SMTP
class Judge:
    async def handle_PROXY(self, server, session, envelope, proxy_data):
        tlv = proxy_data.tlv
        print("seen", proxy_data.src_addr, proxy_data.src_port, proxy_data.dst_addr,
              proxy_data.dst_port, bytes(tlv["xEA"]).hex(), flush=True)
        return True
    async def handle_DATA(self, server, session, envelope):
        print("mail", hashlib.sha256(envelope.content).hexdigest(), flush=True)
        return "250 ok"
async def main():
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Judge(), proxy_protocol_timeout=9, hostname="judge", enable_SMTPUTF8=True)
    server = await loop.create_server(make, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
`;

describe("aiosmtpd", () => {
  test("knows two tenants by their endpoints, and takes their mail whole", async ({ skip }) => {
    const program = requireTool("aiosmtpd", skip);
    const python = program.replace(/[^/]*$/, "python3");
    const port = await freePort();
    const printed = await start(python, ["-c", SMTP_JUDGE, `${port}`], port);
    const mail = `Subject: many lines\r\n\r\n${"a line of a mail\r\n".repeat(300)}`;
    const words =
      "EHLO a.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n" +
      `DATA\r\n${mail}.\r\nQUIT\r\n`;
    const hash = createHash("sha256").update(mail).digest("hex");
    const expected: string[] = [];
    for (const [, isIpv6, ends] of CASES) {
      for (const vpce of [VPCE, "vpce-0fedcba9876543210"]) {
        const answer = await deliver(port, await delivered(words, isIpv6, vpce));
        expect(answer).toMatch(/\r\n250 ok\r\n221 /);
        const [from, fromPort, to, toPort] = ends.split(" ");
        const id = `01${Buffer.from(vpce).toString("hex")}`;
        expected.push(`seen ${from} ${fromPort} ${to} ${toPort} ${id}`, `mail ${hash}`);
      }
    }
    expect(
      printed()
        .trim()
        .split("\n")
        .filter((one) => /^(seen|mail) /.test(one)),
    ).toEqual(expected);
  });
});

test("tshark finds one whole header in each stream of a replay, and every checksum right", ({
  skip,
}) => {
  const tshark = requireTool("tshark", skip);
  const out = join(FOLDER, "out.pcap");
  const words = ["host/cli/main.ts", "replay", "fixtures/captures/web.pcap", "--json"];
  const replayed = execFileSync(
    process.execPath,
    [...words, "--scenario", "privatelink", "--write", out],
    { cwd: ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
  );
  const { output } = JSON.parse(replayed) as { output: { inserted: { pp2: number } } };
  const names = [
    "tcp.stream",
    "tcp.seq",
    "proxy.v2.length",
    "proxy.src.ipv4",
    "proxy.v2.tlv.type",
    "proxy.v2.tlv.value",
  ];
  const fields = names.flatMap((name) => ["-e", name]);
  const settings = ["tcp.try_heuristic_first", "tcp.check_checksum", "ip.check_checksum"];
  const options = settings.flatMap((name) => ["-o", `${name}:TRUE`]);
  const list = (filter: string) => {
    const run = [
      "-r",
      out,
      "-Y",
      filter,
      "-T",
      "fields",
      "-E",
      "separator=|",
      ...options,
      ...fields,
    ];
    return execFileSync(tshark, run, { encoding: "utf8" }).split("\n").filter(Boolean);
  };
  const headers = list("proxy").map((line) => line.split("|"));
  expect(headers).toHaveLength(output.inserted.pp2);
  expect(new Set(headers.map(([stream]) => stream)).size).toBe(headers.length);
  const id = `01${Buffer.from("vpce-00000000000000001").toString("hex")}`;
  for (const [, seq, length, , types, values] of headers) {
    expect([seq, length]).toEqual(["1", "84"]);
    // It shows no NOOP.
    expect(types?.split(",").map(Number).slice(0, 2)).toEqual([3, 0xea]);
    expect(values?.replaceAll(":", "")).toContain(id);
  }
  expect(list("ip.checksum.status == 0")).toEqual([]);
  const before = list("tcp.checksum.status == 0 || _ws.malformed").length;
  const original = execFileSync(
    tshark,
    ["-r", "fixtures/captures/web.pcap", "-Y", "tcp.checksum.status == 0", ...options],
    { cwd: ROOT, encoding: "utf8" },
  );
  expect(before).toBe(original.split("\n").filter(Boolean).length);
});
