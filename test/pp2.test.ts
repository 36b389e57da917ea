/** PROXY protocol v2 headers: bytes that AWS sent, what receivers must refuse, and very many others. */
import { readFileSync } from "node:fs";
import { instantiate } from "@assemblyscript/loader";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressBytes, hex } from "../fixtures/bytes.ts";
import vectors from "../fixtures/pp2.json" with { type: "json" };
import { HeaderError } from "../host/errors.ts";
import { createHeaderCodec, type HeaderOptions, type ProxyHeader } from "../host/pp2/codec.ts";
import {
  awsEndpoint,
  azureLink,
  gcpConnection,
  sslState,
  sslTlv,
  TLV_TYPES,
  tlvName,
  tlvText,
} from "../host/pp2/tlv.ts";
import * as slow from "./reference/pp2.ts";

const codec = await createHeaderCodec();
const text = (bytes: Iterable<number>) => Buffer.from([...bytes]).toString("hex");
const ENDS = {
  source: { address: "192.0.2.1", port: 4000 },
  destination: { address: "198.51.100.2", port: 443 },
};

interface Internals extends Record<string, unknown> {
  memory: WebAssembly.Memory;
  scratch: WebAssembly.Global;
  crc32c(start: number, bytes: number): number;
  crc32cOfChange(start: number, bytes: number, zeros: number): number;
  crc32cOfTuple(source: number, destination: number, ports: number, zeros: number): number;
  crc32cOfTuple6(source: number, destination: number, ports: number, zeros: number): number;
}

describe("CRC32C", async () => {
  const module = readFileSync(new URL("../build/internals.wasm", import.meta.url));
  const { exports: engine } = await instantiate<Internals>(module);
  const scratch = engine.scratch.value as number;
  const sum = (bytes: readonly number[], shift = 0) => {
    new Uint8Array(engine.memory.buffer).set(bytes, scratch + shift);
    return engine.crc32c(scratch + shift, bytes.length) >>> 0;
  };

  // RFC 3720 appendix B.4, and the check value of the catalogues.
  test.each([
    ["32 zeros", Array(32).fill(0), 0x8a9136aa],
    ["32 ones", Array(32).fill(255), 0x62a8ab43],
    ["counting up", Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["counting down", Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ["123456789", [...Buffer.from("123456789")], 0xe3069283],
    ["nothing", [], 0],
  ])("of %s", (_, bytes, expected) => {
    expect(sum(bytes)).toBe(expected);
    expect(slow.crc32c(bytes)).toBe(expected);
  });

  test("agrees with the obvious way for every length and alignment", () => {
    const bytes = Array.from({ length: 300 }, (_, i) => (i * 167 + (i >> 3)) & 0xff);
    for (let length = 0; length <= bytes.length; length++) {
      const part = bytes.slice(0, length);
      expect(sum(part, length % 8)).toBe(slow.crc32c(part));
    }
  });
});

describe("CRC32C of changed bytes", async () => {
  const module = readFileSync(new URL("../build/internals.wasm", import.meta.url));
  const { exports: engine } = await instantiate<Internals>(module);
  const scratch = engine.scratch.value as number;

  test("follows from the one before and the change, wherever that lies", () => {
    const memory = new Uint8Array(engine.memory.buffer);
    fc.assert(
      fc.property(
        fc.array(fc.nat(255), { minLength: 1, maxLength: 1023 }),
        fc.array(fc.nat(255), { minLength: 1, maxLength: 48 }),
        fc.nat(1023),
        (text, change, place) => {
          const at = place % text.length;
          const part = change.slice(0, text.length - at);
          const after = text.map((byte, index) => byte ^ (part[index - at] ?? 0));
          const zeros = text.length - at - part.length;
          memory.set(part, scratch);
          const changed = engine.crc32cOfChange(scratch, part.length, zeros);
          expect((slow.crc32c(text) ^ changed) >>> 0).toBe(slow.crc32c(after));
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe("CRC32C of a changed tuple is the same by tables, whatever lengths had them first", async () => {
  const module = readFileSync(new URL("../build/internals.wasm", import.meta.url));
  const { exports: engine } = await instantiate<Internals>(module);
  const scratch = engine.scratch.value as number;
  const memory = new Uint8Array(engine.memory.buffer);

  test.each([
    ["IPv4", 12],
    ["IPv6", 36],
  ])("%s", (family, length) => {
    const tuple = fc.uint8Array({ minLength: length, maxLength: length });
    // What follows the tuple of a header.
    const behind = fc.integer({ min: 1, max: 1023 - 16 - length });
    const byTables = (bytes: Uint8Array, zeros: number) => {
      const words = new Uint32Array(bytes.slice().buffer);
      const ports = words.at(-1) ?? 0;
      if (family === "IPv6") return engine.crc32cOfTuple6(scratch, scratch + 16, ports, zeros);
      return engine.crc32cOfTuple(words[0] ?? 0, words[1] ?? 0, ports, zeros);
    };
    fc.assert(
      fc.property(tuple, behind, (bytes, zeros) => {
        memory.set(bytes, scratch);
        expect(byTables(bytes, zeros)).toBe(engine.crc32cOfChange(scratch, length, zeros));
      }),
      { numRuns: 3000 },
    );
  });
});

describe("the header as AWS sends it, byte for byte", () => {
  test.each(vectors)("$name", ({ options, crc32c, hex: digits }) => {
    const header = codec.encode(options as HeaderOptions);
    expect(header).toHaveLength(100);
    if (digits) expect(text(header)).toBe(digits);
    const read = codec.decode(header);
    expect(read.crc32c).toBe(Number.parseInt(crc32c, 16));
    expect(read.command).toBe(options.local ? "local" : "proxy");
    expect([read.source, read.destination]).toEqual([options.source, options.destination]);
    const types = read.tlvs.map(({ type }) => type);
    expect(types).toEqual(options.vpce ? [3, 0xea, 4] : [3, 4]);
    if (options.vpce) expect(tlvText(read.tlvs[1] ?? fail())).toBe(options.vpce);
  });

  test("four of them were seen in captures of AWS", () => {
    expect(vectors.filter(({ name }) => name.startsWith("AWS:"))).toHaveLength(4);
  });
});

function fail(): never {
  throw new Error("there is no such TLV");
}

const byte = fc.nat({ max: 255 });
const port = fc.nat({ max: 65535 });
const v4 = fc.ipV4();
const v6 = fc.ipV6();
const ends = fc.oneof(
  fc.record({ from: v4, to: v4, a: port, b: port }),
  fc.record({ from: v6, to: v6, a: port, b: port }),
);
/** Types with limits or rules of their own come often. */
const tlvType = fc.oneof(byte, fc.constantFrom(1, 2, 5, 0x20, 0x30, 0xe0, 0xea, 0xee));
const isFree = ({ type }: slow.SlowTlv) => type !== 3 && type !== 4 && type !== 0x20;
const tlv = fc.record({ type: tlvType, value: fc.array(byte, { maxLength: 120 }) }).filter(isFree);

describe("writing", () => {
  test("agrees with the obvious way, and is read back as it was meant", () => {
    const tlvs = fc.array(tlv, { maxLength: 6 });
    const padTo = fc.nat({ max: 300 });
    fc.assert(
      fc.property(ends, tlvs, padTo, fc.boolean(), fc.boolean(), (end, list, pad, udp, crc) => {
        const options: HeaderOptions = {
          source: { address: end.from, port: end.a },
          destination: { address: end.to, port: end.b },
          transport: udp ? "udp" : "tcp",
          tlvs: list.map(({ type, value }) => ({ type, value: Uint8Array.from(value) })),
          padTo: pad,
          crc32c: crc,
        };
        const [source, destination] = [addressBytes(end.from), addressBytes(end.to)];
        const ports = [end.a >> 8, end.a & 255, end.b >> 8, end.b & 255];
        const family = (source.length === 4 ? 0x10 : 0x20) | (udp ? 2 : 1);
        const addresses = [...source, ...destination, ...ports];
        const header = codec.encode(options);
        const expected = slow.write(0x21, family, addresses, list, pad, crc);
        expect(text(header)).toBe(text(expected));
        const read = codec.decode(Uint8Array.of(...header, 1, 2, 3));
        expect(read).toMatchObject({ command: "proxy", transport: udp ? "udp" : "tcp" });
        expect(read.bytes).toBe(header.length);
        expect([...addressBytes(read.source?.address ?? "")]).toEqual([...source]);
        expect(read.destination?.port).toBe(end.b);
      }),
      { numRuns: 3000 },
    );
  });

  test("an encoder for one listener writes what the codec writes, whatever the ends", () => {
    const port = fc.nat(0xffff);
    const ends = fc.oneof(
      fc.tuple(fc.ipV4(), fc.ipV4(), port, port),
      fc.tuple(fc.ipV6(), fc.ipV6(), port, port),
    );
    for (const header of [
      { vpce: "vpce-08d2bf15fac5001c9" },
      { transport: "udp" as const, padTo: 0, tlvs: [azureLink(7)] },
      { crc32c: false, padTo: 33 },
    ]) {
      const encoder = codec.encoder(header);
      fc.assert(
        fc.property(ends, ([from, to, sourcePort, destinationPort]) => {
          const source = { address: from, port: sourcePort };
          const destination = { address: to, port: destinationPort };
          const expected = codec.encode({ ...header, source, destination });
          expect(text(encoder.encode(source, destination))).toBe(text(expected));
          const into = new Uint8Array(expected.length + 2);
          expect(encoder.encodeInto(into, 1, source, destination)).toBe(expected.length);
          expect(text(into)).toBe(`00${text(expected)}00`);
        }),
        { numRuns: 500 },
      );
    }
  });

  test("and refuses ends that are none", () => {
    const encoder = codec.encoder();
    const { source, destination } = ENDS;
    const six = { address: "2001:db8::1", port: 1 };
    expect(() => encoder.encode(source, six)).toThrow(
      "destination.address: 2001:db8::1 is not of the IP version of 192.0.2.1",
    );
    expect(() => encoder.encodeInto(new Uint8Array(100), 1, source, destination)).toThrow(
      "at: 1, the header of 100 bytes does not fit",
    );
    expect(() => encoder.encode({ address: "x", port: 1 }, destination)).toThrow(
      'source.address: "x" is not an IP address',
    );
    expect(() => encoder.encode(source, { ...destination, port: 65_536 })).toThrow(
      "destination.port: 65536 is not a whole number from 0 to 65535",
    );
  });

  test("a header is padded exactly, unless one or two bytes are missing", () => {
    const lengths = [0, 34, 35, 36, 37, 38, 39, 100, 1023].map((padTo) => {
      return codec.encode({ ...ENDS, padTo }).length;
    });
    expect(lengths).toEqual([35, 35, 35, 35, 35, 38, 39, 100, 1023]);
  });

  const WRONG: [string, unknown][] = [
    ["source: is missing", { destination: ENDS.destination }],
    ["destination: is missing", { source: ENDS.source }],
    ["source.port: 65536 is not", { ...ENDS, source: { address: "10.0.0.1", port: 65536 } }],
    ['source.address: "10.0.0" is not an IP', { ...ENDS, source: { address: "10.0.0", port: 1 } }],
    [
      "destination.address: ::1 is not of the IP version",
      { ...ENDS, destination: { address: "::1", port: 1 } },
    ],
    ["local: such a header carries no", { ...ENDS, local: true }],
    ['transport: "unspecified" is for local', { ...ENDS, transport: "unspecified" }],
    ['transport: "sctp" is not one of', { ...ENDS, transport: "sctp" }],
    ['vpce: "vpce_1" is not 1 to 255', { ...ENDS, vpce: "vpce_1" }],
    ["padTo: 1024 is not a whole number from 0 to 1023", { ...ENDS, padTo: 1024 }],
    ["tlvs[0].type: 256 is not", { ...ENDS, tlvs: [{ type: 256, value: new Uint8Array() }] }],
    [
      "tlvs[0].type: 3 is the codec's own",
      { ...ENDS, tlvs: [{ type: 3, value: new Uint8Array(4) }] },
    ],
    ["tlvs[0].value: a list is not", { ...ENDS, tlvs: [{ type: 1, value: [1] }] }],
    [
      "tlvs[0].value.length: 129 is not",
      { ...ENDS, tlvs: [{ type: 5, value: new Uint8Array(129) }] },
    ],
    [
      "the header would be longer than 1023",
      { ...ENDS, tlvs: [{ type: 0xe0, value: new Uint8Array(986) }] },
    ],
    ["tlv: no such option", { ...ENDS, tlv: [] }],
  ];
  test.each(WRONG)("%s", (message, options) => {
    expect(() => codec.encode(options as HeaderOptions)).toThrow(message);
  });

  test("the longest header is 1023 bytes", () => {
    const longest = { ...ENDS, tlvs: [{ type: 0xe0, value: new Uint8Array(985) }] };
    expect(codec.encode(longest)).toHaveLength(1023);
    expect(codec.decode(codec.encode(longest)).bytes).toBe(1023);
  });
});

/** What `decode` makes of bytes, in the twin's words. */
function outcome(bytes: Uint8Array): unknown {
  let header: ProxyHeader;
  try {
    header = codec.decode(bytes);
  } catch (error) {
    if (!(error instanceof HeaderError)) throw error;
    return { wrongAt: error.byte };
  }
  const tlvs = header.tlvs.map(({ type, value }) => ({ type, value: [...value] }));
  const { crc32c } = header;
  const command = header.command === "proxy" ? 1 : 0;
  return { bytes: header.bytes, command, tlvs, ...(crc32c !== undefined && { crc: crc32c }) };
}

function expected(bytes: readonly number[]): unknown {
  const { family: _, ...facts } = slow.read(bytes) as { family?: number };
  return facts;
}

/** A header that is nearly right: some of its bytes are changed, some cut off. */
const nearly = fc
  .record({
    versionCommand: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0x20, 0x21) }, byte),
    family: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0, 0x11, 0x12, 0x21, 0x31) }, byte),
    addresses: fc.constantFrom(0, 12, 36, 216),
    tlvs: fc.array(fc.record({ type: tlvType, value: fc.array(byte, { maxLength: 20 }) }), {
      maxLength: 5,
    }),
    padTo: fc.nat({ max: 120 }),
    hasCrc: fc.boolean(),
    edits: fc.array(fc.tuple(fc.nat(), byte), { maxLength: 2 }),
    cut: fc.oneof({ weight: 9, arbitrary: fc.constant(1 << 20) }, fc.nat({ max: 120 })),
    behind: fc.array(byte, { maxLength: 9 }),
  })
  .map((one) => {
    const { versionCommand, family, addresses, tlvs, padTo, hasCrc, edits, cut, behind } = one;
    const block = Array.from({ length: addresses }, (_, i) => (i * 31) & 0xff);
    const header = slow.write(versionCommand, family, block, tlvs, padTo, hasCrc);
    // An edit of a length or type matters more than one of the padding.
    for (const [at, value] of edits) header[12 + (at % (header.length - 12))] = value;
    return [...header, ...behind].slice(0, cut);
  });

describe("reading", () => {
  test("agrees with the obvious way on headers that are nearly right", () => {
    fc.assert(
      fc.property(nearly, (bytes) => {
        expect(outcome(Uint8Array.from(bytes))).toEqual(expected(bytes));
      }),
      { numRuns: 20_000 },
    );
  });

  test("agrees on any bytes behind the signature, and on any bytes at all", () => {
    const noise = fc.array(byte, { maxLength: 80 });
    fc.assert(
      fc.property(noise, fc.boolean(), (bytes, isSigned) => {
        const given = isSigned ? [...slow.SIGNATURE, 0x21, ...bytes] : bytes;
        expect(outcome(Uint8Array.from(given))).toEqual(expected(given));
      }),
      { numRuns: 5000 },
    );
  });

  test("looks at no byte beyond those it is given, and leaves those as they were", () => {
    fc.assert(
      fc.property(nearly, byte, (bytes, filler) => {
        const given = Uint8Array.from(bytes);
        // The buffer still holds what was read before: it must make no difference.
        outcomeOf(() => codec.decode(new Uint8Array(2000).fill(filler)));
        const first = outcome(given);
        outcomeOf(() => codec.decode(new Uint8Array(2000).fill(~filler & 0xff)));
        expect(outcome(given)).toEqual(first);
        expect([...given]).toEqual(bytes);
      }),
      { numRuns: 3000 },
    );
  });

  test("every single flipped bit of a header is noticed that leaves its CRC32C a CRC32C", () => {
    const header = codec.encode({ ...ENDS, vpce: "vpce-0123456789abcdef0" });
    for (let bit = 0; bit < header.length * 8; bit++) {
      const flipped = Uint8Array.from(header);
      if (bit >> 3 === 28) continue;
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => codec.decode(flipped), `bit ${bit}`).toThrow(HeaderError);
    }
  });

  test("the longest header that there can be is read", () => {
    const value = Array(65_535 - 12 - 3).fill(7);
    const header = slow.write(0x21, 0x11, Array(12).fill(1), [{ type: 0xe5, value }], 0, false);
    expect(header).toHaveLength(65_551);
    expect(codec.decode(Uint8Array.from([...header, 9, 9])).tlvs[0]?.value).toHaveLength(65_520);
  });
});

function outcomeOf(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof HeaderError)) throw error;
  }
}

/** Cases of proxy-protocol.txt that two receivers were tried with; HAProxy is the strict one. */
describe("a receiver", () => {
  const addresses = Array.from({ length: 12 }, (_, i) => i + 1);
  const header = (versionCommand: number, family: number, body: number[], padTo = 0, crc = false) =>
    Uint8Array.from(slow.write(versionCommand, family, body, [], padTo, crc));
  const withTlv = (type: number, length: number) => {
    const value = Array(length).fill(65);
    return Uint8Array.from(slow.write(0x21, 0x11, addresses, [{ type, value }], 0, false));
  };
  const flipped = header(0x21, 0x11, addresses, 100, true);
  flipped[20] = 99;

  test.each<[string, Uint8Array]>([
    ["LOCAL of length 0", header(0x20, 0, [])],
    ["LOCAL with addresses", header(0x20, 0x11, addresses)],
    ["LOCAL that says TCP over IPv4 and has no addresses", header(0x20, 0x11, [])],
    ["LOCAL of a family that there is not", header(0x20, 0x41, [1, 2, 3])],
    ["LOCAL with bytes that are nothing", header(0x20, 0, [9, 0xff, 0xff, 1])],
    ["PROXY of an unspecified family", header(0x21, 0, [])],
    ["PROXY over UDP", header(0x21, 0x12, addresses)],
    ["PROXY over UNIX sockets", header(0x21, 0x31, Array(216).fill(47))],
    ["AUTHORITY of 255 bytes", withTlv(2, 255)],
    ["UNIQUE_ID of 128 bytes", withTlv(5, 128)],
    ["a type that nobody knows", withTlv(0xf3, 9)],
    ["a header of 4096 bytes", header(0x21, 0x11, addresses, 4096)],
  ])("takes %s", (_, bytes) => {
    expect(codec.decode(bytes).bytes).toBe(bytes.length);
  });

  test.each<[string, Uint8Array, string]>([
    ["a flipped bit", flipped, "byte 31: CRC32C "],
    ["version 1", header(0x11, 0x11, addresses), "byte 12: version 1 is not 2"],
    ["command 2", header(0x22, 0x11, addresses), "byte 12: command 2 is neither"],
    ["transport 3", header(0x21, 0x13, addresses), "byte 13: family and transport 0x13 are none"],
    ["family 4", header(0x21, 0x41, addresses), "byte 13: family and transport 0x41 are none"],
    ["half a family", header(0x21, 0x10, addresses), "byte 13: family and transport 0x10"],
    [
      "addresses cut short",
      header(0x21, 0x11, [1, 2, 3, 4, 5, 6, 7, 8]),
      "byte 14: the length leaves no",
    ],
    [
      "a TLV that overruns",
      header(0x21, 0x11, [...addresses, 5, 0, 9, 1]),
      "byte 28: TLV 0x05 has 9 bytes",
    ],
    ["stray bytes", header(0x21, 0x11, [...addresses, 4, 0]), "byte 28: 2 bytes left"],
    ["a CRC32C of 3 bytes", withTlv(3, 3), "byte 28: a CRC32C of 3 bytes, it takes 4"],
    [
      "a second CRC32C",
      header(0x21, 0x11, [...addresses, 3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]),
      "byte 35: a second CRC32C, the first is at byte 28",
    ],
    ["AUTHORITY of 256 bytes", withTlv(2, 256), "byte 28: 256 bytes of AUTHORITY"],
    ["UNIQUE_ID of 129 bytes", withTlv(5, 129), "byte 28: 129 bytes of UNIQUE_ID"],
    ["an SSL TLV of 4 bytes", withTlv(0x20, 4), "byte 28: an SSL TLV of 4 bytes"],
    [
      "version 1 of the protocol",
      Buffer.from("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
      "byte 0: 0x50 is",
    ],
  ])("refuses %s", (_, bytes, message) => {
    expect(() => codec.decode(bytes)).toThrow(message);
  });

  test("is told how many bytes are missing", () => {
    const whole = codec.encode(ENDS);
    for (let length = 0; length < whole.length; length++) {
      const error = (() => {
        try {
          codec.decode(whole.subarray(0, length));
        } catch (caught) {
          return caught as HeaderError;
        }
        throw new Error(`${length} bytes were taken for a header`);
      })();
      expect([error.byte, error.needed]).toEqual([length, length < 16 ? 16 : 100]);
    }
  });
});

describe("TLVs of the clouds", () => {
  test("Azure counts little-endian, Google big-endian", () => {
    expect(text(azureLink(0x01020304).value)).toBe("0104030201");
    expect(text(gcpConnection(0x0102030405060708n).value)).toBe("0102030405060708");
    expect(text(awsEndpoint("vpce-1").value)).toBe(`01${Buffer.from("vpce-1").toString("hex")}`);
    const all = [azureLink(77), gcpConnection(12345678901234567n), awsEndpoint("vpce-9")];
    const read = codec.decode(codec.encode({ ...ENDS, tlvs: all })).tlvs.slice(1, 4);
    expect(read.map(tlvText)).toEqual(["77", "12345678901234567", "vpce-9"]);
    expect(read.map(({ type }) => tlvName(type))).toEqual(["AZURE", "GCP", "AWS"]);
    expect(() => azureLink(2 ** 32)).toThrow("linkId: 4294967296 is not");
    expect(() => gcpConnection(-1n)).toThrow("connectionId: -1 is not");
  });

  test("an SSL TLV carries TLVs of its own", () => {
    const cn = { type: TLV_TYPES.SSL_CN, value: Buffer.from("client.example") };
    const version = { type: TLV_TYPES.SSL_VERSION, value: Buffer.from("TLSv1.3") };
    const state = {
      isTls: true,
      hasCertificate: true,
      hasSessionCertificate: false,
      isVerified: true,
      tlvs: [version, cn],
    };
    const [, read] = codec.decode(codec.encode({ ...ENDS, tlvs: [sslTlv(state)] })).tlvs;
    const parsed = sslState(read ?? fail());
    expect(parsed).toMatchObject({ isTls: true, hasCertificate: true, isVerified: true });
    expect(tlvText(read ?? fail())).toBe(
      "TLS, certificate, verified, VERSION=TLSv1.3, CN=client.example",
    );
  });

  test("text that would move a terminal's cursor is shown as hex digits", () => {
    expect(tlvText({ type: 2, value: hex("1b5b324a") })).toBe("1b5b324a");
    expect(tlvText({ type: 2, value: Buffer.from("a.example") })).toBe("a.example");
    expect(tlvText({ type: 0xea, value: hex("01ff") })).toBe("01ff");
  });
});
