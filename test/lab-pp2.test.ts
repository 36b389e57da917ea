/**
 * PROXY headers in a lab: a server learns the endpoint and the client behind it, from two tenants
 * with the same addresses, and long streams in both directions keep every byte under offloads.
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { pattern } from "../fixtures/bytes.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { LiveLab } from "../host/live/lab.ts";
import { inside, listening, requireLab, scene, uniqueName, until } from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));

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
