/** The resolver: answers against RFC texts and a slow twin, then dig and libc as judges. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { fc, test as property } from "@fast-check/vitest";
import packet, { type Packet } from "dns-packet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { type Asked, answer, EDNS_BYTES_MAX, type Reply } from "../host/dns/answer.ts";
import { forwarder } from "../host/dns/forward.ts";
import { DnsServer } from "../host/dns/server.ts";
import { DnsView, type DnsZone } from "../host/dns/view.ts";
import { lookUp } from "./reference/dns.ts";
import { requireTool, toolPath } from "./setup/tools.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const run = promisify(execFile);
const ENDPOINT = "vpce-0fe5b17a0707d6abc-29p5708s";
const SERVICE = "vpce-svc-0123456789abcdef0.us-east-1.vpce.amazonaws.com";

const ZONES: DnsZone[] = [
  {
    apex: "us-east-1.vpce.amazonaws.com",
    names: [
      {
        name: `${ENDPOINT}.${SERVICE}`,
        addresses: [
          { address: "10.0.1.50", zone: "use1-az1" },
          { address: "10.0.2.50", zone: "use1-az2" },
          { address: "fd00::50", zone: "use1-az1" },
        ],
      },
      { name: `${ENDPOINT}-us-east-1a.${SERVICE}`, addresses: [{ address: "10.0.1.50" }] },
    ],
  },
  { apex: "kinesis.us-east-1.amazonaws.com", names: [] },
  {
    apex: "example.com",
    names: [
      { name: "example.com", texts: ["vpce:asjdakjshd78126eu21"] },
      { name: "*.example.com", addresses: [{ address: "10.0.1.51" }] },
      { name: "alias.example.com", cname: `${ENDPOINT}.${SERVICE}` },
      { name: "away.example.com", cname: "elsewhere.test" },
      { name: "ring-a.example.com", cname: "ring-b.example.com" },
      { name: "ring-b.example.com", cname: "ring-a.example.com" },
      { name: "host.deep.example.com", addresses: [{ address: "10.0.1.52" }] },
      {
        name: "big.example.com",
        addresses: Array.from({ length: 90 }, (_, at) => ({ address: `10.9.0.${at}` })),
      },
    ],
  },
];
const VIEW = new DnsView(ZONES);

function asked(more: Partial<Asked> = {}): Asked {
  return { view: VIEW, transport: "udp", isForwarding: false, random: () => 0, ...more };
}

function query(name: string, type = "A", more: Packet = {}): Uint8Array {
  const questions = [{ name, type } as packet.Question];
  return packet.encode({ type: "query", id: 7, flags: 0x0100, questions, ...more });
}

function ask(message: Uint8Array, more: Partial<Asked> = {}) {
  const reply = answer(packet, message, asked(more));
  expect(reply.kind).toBe("response");
  const { bytes } = reply as Extract<Reply, { kind: "response" }>;
  const response = packet.decode(Buffer.from(bytes)) as packet.DecodedPacket;
  const data = response.answers?.map((one) => ("data" in one ? one.data : undefined));
  return { response, data, bytes, code: (response as { rcode?: string }).rcode };
}

describe("answers", () => {
  test("addresses of a name by family, for 60 seconds, with authority", () => {
    const { response, data, code } = ask(query(`${ENDPOINT}.${SERVICE}`));
    expect(code).toBe("NOERROR");
    expect(data?.toSorted()).toEqual(["10.0.1.50", "10.0.2.50"]);
    expect(response.answers?.every((one) => "ttl" in one && one.ttl === 60)).toBe(true);
    expect(response.flag_aa).toBe(true);
    expect(response.flag_ra).toBe(false);
    expect(response.id).toBe(7);
    expect(ask(query(`${ENDPOINT}.${SERVICE}`, "AAAA")).data).toEqual(["fd00::50"]);
  });

  test("a name that is there without such a record, and one that is not", () => {
    const absent = ask(query(`${ENDPOINT}-us-east-1a.${SERVICE}`, "AAAA"));
    expect([absent.code, absent.data]).toEqual(["NOERROR", []]);
    expect(absent.response.authorities?.[0]?.type).toBe("SOA");
    const missing = ask(query(`vpce-0.${SERVICE}`));
    expect(missing.code).toBe("NXDOMAIN");
    expect(missing.response.authorities?.[0]).toMatchObject({
      name: "us-east-1.vpce.amazonaws.com",
      ttl: 60,
      data: { minimum: 60 },
    });
    const emptyInside = ask(query(SERVICE));
    expect([emptyInside.code, emptyInside.data]).toEqual(["NOERROR", []]);
  });

  test("a zone inside another one hides what lies under it", () => {
    expect(ask(query("kinesis.us-east-1.amazonaws.com")).code).toBe("NOERROR");
    expect(ask(query("x.kinesis.us-east-1.amazonaws.com")).code).toBe("NXDOMAIN");
    expect(ask(query("sqs.us-east-1.amazonaws.com")).code).toBe("REFUSED");
  });

  test("a wildcard answers below its closest encloser only, in the spelling asked for", () => {
    const { response, data } = ask(query("CoLm.Example.com"));
    expect(data).toEqual(["10.0.1.51"]);
    expect(response.questions?.[0]?.name).toBe("CoLm.Example.com");
    expect(response.answers?.[0]?.name).toBe("CoLm.Example.com");
    expect(ask(query("a.b.example.com")).data).toEqual(["10.0.1.51"]);
    expect(ask(query("other.deep.example.com")).code).toBe("NXDOMAIN");
    expect(ask(query("deep.example.com")).data).toEqual([]);
  });

  test("aliases are followed, inside and out, and rings end", () => {
    const { response } = ask(query("alias.example.com", "AAAA"));
    expect(response.answers?.map(({ type }) => type)).toEqual(["CNAME", "AAAA"]);
    expect(ask(query("alias.example.com", "CNAME")).response.answers).toHaveLength(1);
    expect(ask(query("ring-a.example.com")).response.answers).toHaveLength(9);
    const away = ask(query("away.example.com"));
    expect([away.code, away.data]).toEqual(["NOERROR", ["elsewhere.test"]]);
    const forwarded = answer(packet, query("away.example.com"), asked({ isForwarding: true }));
    expect(forwarded).toMatchObject({ kind: "complete", question: { name: "elsewhere.test" } });
    expect(answer(packet, query("x.test"), asked({ isForwarding: true })).kind).toBe("forward");
  });

  test("texts, start of authority, and ANY as RFC 8482 has it", () => {
    const text = ask(query("example.com", "TXT")).response.answers?.[0];
    expect(String((text as packet.TxtAnswer).data)).toBe("vpce:asjdakjshd78126eu21");
    expect(ask(query("example.com", "SOA")).response.answers?.[0]?.type).toBe("SOA");
    expect(ask(query("a.example.com", "SOA")).response.answers).toEqual([]);
    expect(ask(query("example.com", "ANY")).response.answers?.[0]?.type).toBe("HINFO");
  });

  test("a response too large for the transport is cut off and says so", () => {
    const plain = ask(query("big.example.com"));
    expect(plain.response.flag_tc).toBe(true);
    expect(plain.response.answers).toEqual([]);
    expect(plain.bytes.length).toBeLessThan(512);
    expect(ask(query("big.example.com"), { transport: "tcp" }).data).toHaveLength(90);
    const opt = { type: "OPT", name: ".", udpPayloadSize: 65_000, flags: 0, options: [] };
    const large = ask(query("big.example.com", "A", { additionals: [opt as never] }));
    expect(large.response.flag_tc).toBe(true);
    expect(large.response.additionals?.[0]).toMatchObject({ udpPayloadSize: EDNS_BYTES_MAX });
  });

  test("an unknown version of EDNS is refused as such", () => {
    const opt = { type: "OPT", name: ".", ednsVersion: 1, flags: 0, options: [] };
    const { response } = ask(query("example.com", "A", { additionals: [opt as never] }));
    expect(response.additionals?.[0]).toMatchObject({ extendedRcode: 1, ednsVersion: 0 });
    expect(response.answers).toEqual([]);
  });

  test("what is no plain query is refused by its kind, or ignored", () => {
    const codeOf = (message: Uint8Array) => {
      const reply = answer(packet, message, asked());
      return reply.kind === "response" ? (reply.bytes[3] ?? 0) & 0xf : reply.kind;
    };
    const good = query("example.com");
    expect(codeOf(good.subarray(0, 11))).toBe("silence");
    expect(codeOf(packet.encode({ type: "response", id: 1, questions: [] }))).toBe("silence");
    expect(codeOf(good.subarray(0, good.length - 2))).toBe(1);
    const update = Buffer.from(good);
    update[2] = 0x28;
    expect(codeOf(update)).toBe(4);
    const twice = packet.encode({
      type: "query",
      questions: ["a", "b"].map((name) => ({ name, type: "A" })) as never,
    });
    expect(codeOf(twice)).toBe(1);
    const chaos = {
      type: "query",
      questions: [{ name: "version.bind", type: "TXT", class: "CH" }],
    };
    expect(codeOf(packet.encode(chaos as never))).toBe(5);
    expect(codeOf(query("example.com", "AXFR"))).toBe(5);
  });
});

describe("routing policies", () => {
  const shares = (policy: "any" | "partial" | "own", clientZone: string | undefined) => {
    const draw = seeded(11);
    const names = { any: "any_availability_zone", partial: "partial_availability_zone_affinity" };
    const view = new DnsView([
      {
        apex: "elb.test",
        names: [
          {
            name: "lb.elb.test",
            policy: (policy === "own" ? "availability_zone_affinity" : names[policy]) as never,
            addresses: [1, 2, 3].map((at) => ({ address: `10.0.${at}.5`, zone: `az${at}` })),
          },
        ],
      },
    ]);
    const count = { own: 0, all: 0, ownFirst: 0 };
    for (let round = 0; round < 4000; round++) {
      const { data } = ask(query("lb.elb.test"), { view, clientZone, random: draw });
      if (data?.length === 1) count.own++;
      if (data?.length === 3) count.all++;
      if (data?.[0] === "10.0.2.5") count.ownFirst++;
    }
    expect(count.own + count.all).toBe(4000);
    return { own: count.own / 4000, ownFirst: count.ownFirst / 4000 };
  };

  test("100, 85 and 0 percent of the answers hold the client's own zone alone", () => {
    expect(shares("own", "az2").own).toBe(1);
    expect(shares("partial", "az2").own).toBeCloseTo(0.85, 1);
    const any = shares("any", "az2");
    expect(any.own).toBe(0);
    expect(any.ownFirst).toBeCloseTo(1 / 3, 1);
  });

  test("a client of a zone without an address gets all of them", () => {
    expect(shares("own", "az9").own).toBe(0);
    expect(shares("own", undefined).own).toBe(0);
  });
});

const label = fc.constantFrom("a", "b", "c", "d");
const names = fc.array(label, { minLength: 1, maxLength: 4 }).map((path) => path.join("."));
const zones = fc.array(fc.record({ apex: names, below: fc.array(fc.tuple(fc.boolean(), names)) }), {
  maxLength: 4,
});

property.prop([zones, fc.array(names, { minLength: 1, maxLength: 30 })], { numRuns: 3000 })(
  "look-ups agree with the slow twin",
  (raw, questions) => {
    const seen = new Set<string>();
    const built = raw.map(({ apex, below }) => ({
      apex,
      names: below
        .map(([isStar, name]) => ({ name: `${isStar ? "*." : ""}${name}.${apex}` }))
        .filter(({ name }) => !seen.has(`${apex} ${name}`) && seen.add(`${apex} ${name}`)),
    }));
    const view = new DnsView(built);
    const sources = built.flatMap((zone) => zone.names);
    for (const question of [...questions, ...sources.map(({ name }) => name)]) {
      const found = view.find(question);
      const expected = lookUp(built, question);
      const isEntry = found.kind === "name" && sources.some(({ name }) => name === expected);
      const got = found.kind === "name" ? (isEntry ? expected : "") : found.kind;
      expect([question, got]).toEqual([question, expected]);
    }
  },
);

describe("garbage", () => {
  const bytes = fc.uint8Array({ maxLength: 600 });
  property.prop([bytes], { numRuns: 5000 })("never throws, never grows", (message) => {
    const reply = answer(packet, message, asked());
    if (reply.kind === "response") {
      expect(reply.bytes.subarray(0, 2)).toEqual(message.subarray(0, 2));
      expect(reply.bytes.length).toBeLessThanOrEqual(EDNS_BYTES_MAX);
    }
  });

  const spoilt = fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { minLength: 1, maxLength: 4 });
  property.prop([spoilt], { numRuns: 5000 })("spoilt queries get a response or none", (spots) => {
    const message = Buffer.from(query("alias.example.com"));
    for (const [at, value] of spots) message[at % message.length] = value;
    const { kind } = answer(packet, message, asked());
    expect(["response", "silence"]).toContain(kind);
  });
});

test("names that cannot be are refused with the reason", () => {
  const zone = (name: string, more = {}) =>
    new DnsView([{ apex: "x.test", names: [{ name, ...more }] }]);
  expect(() => zone("y.other")).toThrow('dns: "y.other" is not inside its zone x.test');
  expect(() => zone(`${"a".repeat(64)}.x.test`)).toThrow("labels of 1 to 63");
  expect(() => zone("a.*.x.test")).toThrow("is not a name");
  expect(() => zone("x.test", { cname: "y.test" })).toThrow("apex");
  expect(() => zone("a.x.test", { cname: "y.test", texts: ["t"] })).toThrow("RFC 1034");
});

describe("on sockets", () => {
  let upstream: DnsServer;
  let server: DnsServer;
  beforeAll(async () => {
    const elsewhere = [{ name: "elsewhere.test", addresses: [{ address: "192.0.2.9" }] }];
    const many = Array.from({ length: 60 }, (_, at) => ({ address: `192.0.2.${at}` }));
    const view = new DnsView([
      { apex: "test", names: [...elsewhere, { name: "many.test", addresses: many }] },
    ]);
    const address = "127.0.0.1";
    upstream = await DnsServer.listen({ address, port: 0, view });
    const forward = forwarder([{ address, port: upstream.port }]);
    server = await DnsServer.listen({ address, port: 0, view: VIEW, forward });
  });
  afterAll(() => Promise.all([server.close(), upstream.close()]));

  async function dig(path: string, ...words: string[]): Promise<string[]> {
    const common = ["@127.0.0.1", "-p", `${server.port}`, "+time=2", "+tries=1"];
    const { stdout } = await run(path, [...common, ...words], { encoding: "utf8" });
    return stdout.trim().split("\n");
  }

  test("dig reads the answers, over UDP, over TCP, and turns to TCP by itself", async ({
    skip,
  }) => {
    const path = requireTool("dig", skip);
    const name = `${ENDPOINT}.${SERVICE}`;
    expect((await dig(path, "+short", name)).toSorted()).toEqual(["10.0.1.50", "10.0.2.50"]);
    expect(await dig(path, "+short", "+tcp", name, "AAAA")).toEqual(["fd00::50"]);
    const many = (await dig(path, "big.example.com")).join("\n");
    expect(many).toContain("Truncated, retrying in TCP mode");
    expect(many).toContain("ANSWER: 90");
    expect(many).not.toContain("WARNING: Message parser reports malformed");
    const status = async (...words: string[]) => (await dig(path, ...words)).join("\n");
    expect(await status("nothing.deep.example.com")).toContain("status: NXDOMAIN");
    expect(await status("example.com", "MX")).toMatch(/status: NOERROR[\s\S]*ANSWER: 0/);
    expect(await status("example.com", "TYPE65")).toContain("status: NOERROR");
  });

  test("dig gets what the other resolver has, cut-off answers and aliases too", async ({
    skip,
  }) => {
    const path = requireTool("dig", skip);
    expect(await dig(path, "+short", "elsewhere.test")).toEqual(["192.0.2.9"]);
    expect(await dig(path, "+short", "many.test")).toHaveLength(60);
    expect(await dig(path, "+short", "away.example.com")).toEqual(["elsewhere.test.", "192.0.2.9"]);
    expect(server.counters.forwarded).toBeGreaterThanOrEqual(3);
  });

  test("a view that is replaced answers the next question", async ({ skip }) => {
    const path = requireTool("dig", skip);
    const names = [{ name: "colm.example.com", cname: `${ENDPOINT}.${SERVICE}` }];
    server.view = new DnsView([...ZONES, { apex: "example.com", names }]);
    expect(await dig(path, "+short", "colm.example.com", "CNAME")).toEqual([
      `${ENDPOINT}.${SERVICE}.`,
    ]);
    server.view = VIEW;
  });
});

test("libc resolves through it", ({ skip }) => {
  if (process.getuid?.() !== 0) return skip("left out: needs root for a namespace");
  requireTool("dig", skip);
  const unshare = toolPath("unshare");
  if (unshare === undefined) return skip("left out: unshare is not installed");
  const folder = mkdtempSync(join(tmpdir(), "flowplane-dns-"));
  try {
    writeFileSync(join(folder, "resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1\n");
    writeFileSync(join(folder, "nsswitch.conf"), "hosts: dns\n");
    writeFileSync(
      join(folder, "serve.ts"),
      `import { DnsServer } from "${ROOT}host/dns/server.ts";
       import { DnsView } from "${ROOT}host/dns/view.ts";
       import { execFileSync } from "node:child_process";
       const view = new DnsView(${JSON.stringify(ZONES)});
       await DnsServer.listen({ address: "127.0.0.1", view });
       const { execFile } = await import("node:child_process");
       execFile("getent", ["ahosts", "alias.example.com"], { timeout: 8000 }, (error, out) => {
         process.stdout.write(error ? String(error) : out);
         process.exit(0);
       });`,
    );
    const script = `ip link set lo up
      mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
      mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
      exec "$2" "$1/serve.ts"`;
    const words = ["-n", "-m", "sh", "-ec", script, "sh", folder, process.execPath];
    const { stdout, stderr } = spawnSync(unshare, words, { encoding: "utf8", timeout: 20_000 });
    expect(stderr).toBe("");
    const found = stdout.match(/^\S+(?= +STREAM)/gm)?.toSorted();
    expect(found).toEqual(["10.0.1.50", "10.0.2.50", "fd00::50"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
