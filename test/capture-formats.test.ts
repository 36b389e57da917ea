/** Generated captures: every format in every variant, whole and broken, read, written and changed. */
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { constants, deflateRawSync, gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import * as abi from "../assembly/abi.ts";
import { buildBlock, buildPcapHeader, buildPcapRecord } from "../host/capture/build.ts";
import { createCapture, openCapture } from "../host/capture/file.ts";
import { MemoryInput, MemoryOutput, openBytes, StreamInput } from "../host/capture/memory.ts";
import { createOutput } from "../host/capture/output.ts";
import { CaptureReader } from "../host/capture/reader.ts";
import type { FrameMemory, FrameSource } from "../host/capture/source.ts";
import { openStream } from "../host/capture/stream.ts";
import { PcapngWriter } from "../host/capture/writer.ts";
import {
  makeFrames,
  makePcap,
  makePcapng,
  makeTimeNs,
  PCAP_VARIANTS,
  RESOLUTIONS,
} from "./capture-generated.ts";
import { type RunOptions, run, runOrRefuse } from "./capture-harness.ts";
import { readTwin } from "./capture-twin.ts";
import { createWalkMemory } from "./walk-memory.ts";

const memory = await createWalkMemory();
const SMALL = await createWalkMemory(2 << 20);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-test-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

const CAPTURES: [string, Uint8Array][] = [
  ...PCAP_VARIANTS.map((variant): [string, Uint8Array] => [
    `pcap 2.${variant.minor} ${variant.bigEndian ? "big" : "little"}-endian, ${
      variant.nanoseconds ? "ns" : "us"
    }`,
    makePcap(variant, 50),
  ]),
  ["pcapng, little-endian first", makePcapng(false, 60)],
  ["pcapng, big-endian first", makePcapng(true, 60)],
];

/** Everything that a reading says must be what the twin says. */
async function expectTwin(bytes: Uint8Array, open: () => Promise<FrameSource>): Promise<void> {
  const twin = readTwin(bytes);
  const reading = await runOrRefuse(open);
  expect(reading.packets.length).toBe(twin.packets.length);
  const place = reading.error?.match(/at byte (\d+)/)?.[1];
  if (twin.brokenAt === undefined) expect(reading.error).toBeUndefined();
  else if (twin.brokenAt < 0) expect(reading.error).toMatch(/^capture: /);
  else expect([reading.error, Number(place)]).toEqual([reading.error, twin.brokenAt]);
  if (!("source" in reading)) return;
  const base = twin.packets.find(({ ns }) => ns !== undefined)?.ns ?? 0n;
  for (const [i, packet] of reading.packets.entries()) {
    const other = twin.packets[i];
    if (!other) throw new Error("the twin has fewer packets");
    const data = bytes.subarray(other.dataAt, other.dataAt + other.captured);
    expect(Buffer.compare(packet.data, data)).toBe(0);
    expect(packet.wire).toBe(other.wire);
    expect(reading.source.interfaces[packet.port]?.linkType).toBe(other.linkType);
    if (other.ns === undefined) continue;
    expect(packet.ns).toBe(other.ns);
    const ms = BigInt.asIntN(64, other.ns - base) / 1_000_000n;
    expect(packet.timeMs).toBe(Number(BigInt.asUintN(32, ms < 0n ? 0n : ms)));
  }
  const end = twin.brokenAt ?? bytes.length;
  expect(Buffer.compare(reading.written, bytes.subarray(0, end))).toBe(0);
}

describe.each(CAPTURES)("%s", (_name, bytes) => {
  test("is read like its twin and written back byte for byte", () =>
    expectTwin(bytes, () => openBytes(bytes, memory)));

  test("is the same in pieces of 1, 7 and 1000 bytes, and from a stream", async () => {
    for (const piece of [1, 7, 1000]) {
      await expectTwin(bytes, () =>
        new CaptureReader("capture", new MemoryInput(bytes, piece), memory).open(),
      );
    }
    async function* chunks() {
      for (let at = 0; at < bytes.length; at += 777) yield bytes.subarray(at, at + 777);
    }
    await expectTwin(bytes, () => openBytes(chunks(), memory));
  });

  test("is the same in batches of 1 and 3", async () => {
    const whole = await run(openBytes(bytes, memory));
    for (const limit of [1, 3]) {
      const reading = await run(openBytes(bytes, memory), { limit });
      expect(reading.packets).toEqual(whole.packets);
      expect(Buffer.compare(reading.written, bytes)).toBe(0);
    }
  });

  test("cut anywhere, it ends with an error at the record that was cut", async () => {
    const isPcapng = bytes[0] === 0x0a;
    for (let end = 0; end < (isPcapng ? 2500 : 700); end++) {
      const cut = bytes.subarray(0, end);
      await expectTwin(cut, () => openBytes(cut, memory));
    }
  });

  test("with some frames dropped, the rest is written", async () => {
    const isDropped = (i: number) => i % 3 === 1 || (i > 20 && i < 30);
    const onBatch: RunOptions["onBatch"] = (sink, count, first) => {
      for (let i = 0; i < count; i++) {
        const verdict = isDropped(first + i) ? abi.VERDICT_DROP_NO_FLOW : abi.VERDICT_FORWARD;
        memory.descriptors[i * 8 + 4] = verdict;
      }
      sink.take(count);
    };
    for (const limit of [2, 256]) {
      const all = await run(openBytes(bytes, memory));
      const some = await run(openBytes(bytes, memory), { limit, onBatch });
      const again = await run(openBytes(some.written, memory));
      const kept = all.packets.filter((_, i) => !isDropped(i));
      // A simple packet block takes its time from the one before it, which may be gone.
      const plain = ({ data, wire, port }: (typeof kept)[number]) => ({ data, wire, port });
      expect(again.error).toBeUndefined();
      expect(again.packets.map(plain)).toEqual(kept.map(plain));
      expect(some.sink.packets).toBe(kept.length);
      expect(some.sink.bytes).toBe(kept.reduce((sum, { data }) => sum + data.length, 0));
    }
  });

  test("frames may be put in between, and may have left their place", async () => {
    const extra = new Uint8Array(33).fill(0xaa);
    const timeNs = 1_800_000_000_000_000_000n;
    const spare = memory.arena.address + memory.arena.bytes - 2048;
    const onBatch: RunOptions["onBatch"] = (sink, count) => {
      const longer = (memory.descriptors[1] as number) + 5;
      memory.bytes.fill(0xbb, spare, spare + longer);
      memory.descriptors.set([spare, longer], 0);
      memory.descriptors[7] = longer + 1000;
      const middle = Math.min(2, count);
      sink.insert(0, extra, { timeNs });
      sink.take(middle);
      sink.insert(middle, extra, { timeNs, wireBytes: 99 });
      sink.take(count, middle);
    };
    const all = await run(openBytes(bytes, memory), { limit: 4 });
    const more = await run(openBytes(bytes, memory), { limit: 4, onBatch });
    const again = await run(openBytes(more.written, memory));
    expect(again.error).toBeUndefined();
    expect(again.packets.length).toBe(more.sink.packets);
    expect(more.sink.packets).toBeGreaterThan(all.packets.length + 20);
    const inserted = again.packets.filter(({ data }) => data[0] === 0xaa);
    expect(inserted.length).toBe(more.sink.packets - all.packets.length);
    expect(inserted[1]?.wire).toBe(99);
    const moved = again.packets[1];
    expect(moved?.data.every((byte) => byte === 0xbb)).toBe(true);
    expect(moved?.data.length).toBe((all.packets[0]?.data.length ?? 0) + 5);
    expect(moved?.ns).toBe(all.packets[0]?.ns);
  });
});

test("inserted frames get the time they were given, in every clock that can say it", async () => {
  const timeNs = 1_800_000_000_000_000_000n;
  for (const [index, resolution] of RESOLUTIONS.entries()) {
    // Clocks that count too few or too many units for 64 bits cannot.
    const exponent = resolution & 127;
    if (resolution & 128 ? exponent > 33 : exponent > 9) continue;
    let isInserted = false;
    const insert: RunOptions["onBatch"] = (sink, count) => {
      // Interfaces of later sections have other ports.
      if (!isInserted) sink.insert(count, Uint8Array.of(0xaa), { timeNs, port: index });
      isInserted = true;
    };
    const { written } = await run(openBytes(makePcapng(false, 0), memory));
    expect(written.length).toBeGreaterThan(0);
    const changed = await run(openBytes(makePcapng(false, 1), memory), {
      limit: 1,
      onBatch: insert,
    });
    const again = await runOrRefuse(() => openBytes(changed.written, memory));
    if (again.error) expect(again.error).toContain("was not described");
    expect(again.packets[1]?.ns).toBe(timeNs);
  }
});

describe("gzip, files and pipes", () => {
  const plain = makePcap({ bigEndian: false, nanoseconds: true, minor: 4 }, 3000);
  const zipped = gzipSync(plain);
  const half = Math.floor(zipped.length / 2);

  test("gzip is read as it is, from bytes, a stream and a file", async () => {
    const file = path.join(folder, "zipped.pcap");
    fs.writeFileSync(file, zipped);
    async function* chunks() {
      for (let at = 0; at < zipped.length; at += 99) yield zipped.subarray(at, at + 99);
    }
    const opens = [
      () => openBytes(zipped, memory),
      () => openBytes(chunks(), memory),
      () => openCapture(file, memory),
    ];
    for (const open of opens) {
      const reading = await run(open());
      expect(reading.error).toBeUndefined();
      expect(Buffer.compare(reading.written, plain)).toBe(0);
    }
  });

  test("two gzip members one after the other are one capture", async () => {
    const file = path.join(folder, "members.pcap.gz");
    fs.writeFileSync(
      file,
      Buffer.concat([gzipSync(plain.subarray(0, 500)), gzipSync(plain.subarray(500))]),
    );
    expect(Buffer.compare((await run(openCapture(file, memory))).written, plain)).toBe(0);
  });

  test("gzip that was cut is an error after what could be read", async () => {
    const file = path.join(folder, "cut.pcap.gz");
    fs.writeFileSync(file, zipped.subarray(0, half));
    const reading = await run(openCapture(file, memory));
    expect(reading.packets.length).toBeGreaterThan(100);
    const [, at] =
      reading.error?.match(/: read at byte (\d+): gzip: unexpected end of file$/) ?? [];
    // In the bytes that gzip holds, as the places of records are: the last record is not whole.
    expect(Number(at)).toBeGreaterThanOrEqual(reading.written.length);
    expect(Number(at)).toBeLessThan(reading.written.length + 16 + 65535);
    const again = await run(openBytes(reading.written, memory));
    expect(again.error).toBeUndefined();
    expect(again.packets).toEqual(reading.packets);
  });

  test("gzip that is damaged is an error after every record before the damage", async () => {
    const file = path.join(folder, "damaged.pcap.gz");
    const header = zipped.subarray(0, 10);
    const begin = deflateRawSync(plain, { finishFlush: constants.Z_SYNC_FLUSH });
    // A block of the type that there is not.
    fs.writeFileSync(file, Buffer.concat([header, begin, Buffer.alloc(5000, 0xff)]));
    const reading = await run(openCapture(file, memory));
    expect(reading.packets.length).toBe(3000);
    expect(Buffer.compare(reading.written, plain)).toBe(0);
    const place = `${file}: read at byte ${plain.length}`;
    expect(reading.error).toBe(`${place}: gzip: invalid block type`);
  });

  test("a file is written beside the reading, and is the same", async () => {
    const from = path.join(folder, "in.pcap");
    const to = path.join(folder, "out.pcap");
    const large = makePcap({ bigEndian: true, nanoseconds: false, minor: 4 }, 20_000);
    fs.writeFileSync(from, large);
    const source = await openCapture(from, memory);
    const sink = createCapture(to, source);
    for (let count = await source.next(); count; count = await source.next()) sink.take(count);
    await sink.close();
    source.close();
    expect(sink.packets).toBe(20_000);
    expect(Buffer.compare(fs.readFileSync(to), large)).toBe(0);
  });

  test("a pipe takes the output at its own pace", { timeout: 60_000 }, async () => {
    const pipe = path.join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    const child = spawn("sh", ["-c", `sleep 0.2; cat ${pipe}`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const parts: Buffer[] = [];
    child.stdout.on("data", (part: Buffer) => parts.push(part));
    const large = makePcap({ bigEndian: false, nanoseconds: false, minor: 4 }, 20_000);
    const source = await openBytes(large, memory);
    const sink = createCapture(pipe, source);
    for (let count = await source.next(); count; count = await source.next()) sink.take(count);
    await sink.close();
    source.close();
    await new Promise((resolve) => child.on("close", resolve));
    expect(Buffer.compare(Buffer.concat(parts), large)).toBe(0);
  });

  test("the capture that is being read is never overwritten", async () => {
    const file = path.join(folder, "self.pcap");
    fs.writeFileSync(file, plain);
    const source = await openCapture(file, memory);
    expect(() => createCapture(file, source)).toThrow("cannot be the capture that is being read");
    source.close();
    expect(fs.readFileSync(file).length).toBe(plain.length);
  });

  test.runIf(fs.existsSync("/dev/full"))(
    "a full disk is an error that names the file",
    async () => {
      const source = await openBytes(plain, memory);
      const sink = createCapture("/dev/full", source);
      const copy = async () => {
        for (let count = await source.next(); count; count = await source.next()) sink.take(count);
        await sink.close();
      };
      await expect(copy()).rejects.toThrow(/^\/dev\/full: write at byte 0: ENOSPC/);
    },
  );

  test("a file that may not grow ends with a whole record", { timeout: 60_000 }, async () => {
    const url = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
    const script = path.join(folder, "limited.ts");
    const from = path.join(folder, "limited-in.pcap");
    const to = path.join(folder, "limited-out.pcap");
    const large = makePcap({ bigEndian: false, nanoseconds: false, minor: 4 }, 4000);
    fs.writeFileSync(from, large);
    fs.writeFileSync(
      script,
      `import { createWalkMemory } from ${url("walk-memory.ts")};
       import { createCapture, openCapture } from ${url("../host/capture/file.ts")};
       const source = await openCapture(${JSON.stringify(from)}, await createWalkMemory());
       const sink = createCapture(${JSON.stringify(to)}, source);
       try {
         for (let count = await source.next(); count; count = await source.next()) sink.take(count);
       } catch (error) {
         console.log(error.message);
       }`,
    );
    const limited = `ulimit -f 800; exec "${process.execPath}" "${script}"`;
    const text = execFileSync("sh", ["-c", limited], { encoding: "utf8" });
    expect(text).toMatch(/limited-out\.pcap: write at byte \d+: EFBIG: file too large/);
    const reading = await run(openCapture(to, memory));
    expect(reading.error).toBeUndefined();
    expect(reading.packets.length).toBeGreaterThan(500);
    expect(Buffer.compare(large.subarray(0, reading.written.length), reading.written)).toBe(0);
  });

  test("standard input is `-`, slow or fast, plain or gzip", { timeout: 120_000 }, async () => {
    const script = path.join(folder, "stdin.ts");
    const url = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
    fs.writeFileSync(
      script,
      `import { createWalkMemory } from ${url("walk-memory.ts")};
       import { openCapture } from ${url("../host/capture/file.ts")};
       const source = await openCapture("-", await createWalkMemory());
       while (await source.next());
       console.log(source.packets);`,
    );
    for (const bytes of [plain, zipped]) {
      const child = spawn(process.execPath, [script], { stdio: ["pipe", "pipe", "inherit"] });
      let text = "";
      child.stdout.on("data", (chunk) => {
        text += chunk;
      });
      child.stdin.write(bytes.subarray(0, 1));
      await new Promise((resolve) => setTimeout(resolve, 50));
      child.stdin.end(bytes.subarray(1));
      await new Promise((resolve) => child.on("close", resolve));
      expect(text.trim()).toBe("3000");
    }
    const file = path.join(folder, "stdin.pcap");
    fs.writeFileSync(file, plain);
    const input = fs.openSync(file, "r");
    const text = execFileSync(process.execPath, [script], { stdio: [input, "pipe", "inherit"] });
    fs.closeSync(input);
    expect(text.toString().trim()).toBe("3000");
  });

  test.each([
    [
      "a file that is not there",
      "missing.pcap",
      /missing\.pcap: ENOENT: no such file or directory$/,
    ],
    ["a folder", "", /EISDIR: it is a directory$/],
  ])("%s is one line", async (_what, name, message) => {
    await expect(openCapture(path.join(folder, name), memory)).rejects.toThrow(message);
  });
});

test("captures of any size take the same memory", { timeout: 60_000 }, async () => {
  const variant = { bigEndian: false, nanoseconds: false, minor: 4 };
  const records = makePcap(variant, 2000).subarray(24);
  const passes = 300;
  let held = 0;
  async function* chunks() {
    yield makePcap(variant, 0);
    for (let i = 0; i < passes; i++) {
      yield records;
      held = Math.max(held, process.memoryUsage().arrayBuffers);
    }
  }
  const before = process.memoryUsage().arrayBuffers;
  const source = await openBytes(chunks(), SMALL);
  for (let count = await source.next(); count; count = await source.next());
  expect(source.packets).toBe(2000 * passes);
  expect(source.capturedBytes).toBeGreaterThan(100e6);
  expect(held - before).toBeLessThan(4e6);
  expect(() => openBytes(records, { ...SMALL, arena: { address: 0, bytes: 1000 } })).toThrow(
    "less than 2 slots",
  );
});

describe("what is refused or broken", () => {
  const layout = { bigEndian: false, nanoseconds: false, lengthsSwapped: false };
  const record = (bytes: number) =>
    buildPcapRecord(layout, { timeNs: 0n, bytes: new Uint8Array(bytes) });
  const errorOf = async (bytes: Uint8Array, from: FrameMemory = memory) =>
    (await runOrRefuse(() => openBytes(bytes, from, { name: "web.pcap" }))).error;

  test("a captured length above the file's names record, byte and both values", async () => {
    const bad = record(40);
    new DataView(bad.buffer).setUint32(8, 70000, true);
    const bytes = Buffer.concat([
      buildPcapHeader(layout, 1, 65535),
      ...Array.from({ length: 16 }, () => record(48)),
      bad,
    ]);
    expect(await errorOf(bytes)).toBe(
      "web.pcap: record 17 at byte 1048: captured length 70000 exceeds the file's 65535",
    );
    const larger = Buffer.concat([bytes, new Uint8Array(200_000).fill(0xee)]);
    expect(await errorOf(larger)).toContain("record 17 at byte 1048: captured length 70000");
  });

  test("a longer record is taken if it is whole and the file goes on behind it", async () => {
    const head = buildPcapHeader(layout, 1, 96);
    const bytes = Buffer.concat([head, record(70_000), record(96), record(262_144)]);
    const reading = await run(openBytes(bytes, memory));
    expect(reading.error).toBeUndefined();
    expect(reading.packets.map(({ data }) => data.length)).toEqual([70_000, 96, 262_144]);
    const over = Buffer.concat([head, record(262_145)]);
    expect(await errorOf(over)).toBe(
      "web.pcap: record 1 at byte 24: captured length 262145 exceeds the file's 96",
    );
  });

  test("snapshot length 0 means no limit", async () => {
    const bytes = Buffer.concat([buildPcapHeader(layout, 1, 0), record(100_000)]);
    expect((await run(openBytes(bytes, memory))).packets.length).toBe(1);
  });

  test.each([
    ["nothing", new Uint8Array(0), "web.pcap: the file is empty"],
    [
      "text",
      new TextEncoder().encode("hello"),
      "web.pcap: neither pcap nor pcapng: begins with 68 65 6c 6c",
    ],
    [
      "a link type with a name",
      buildPcapHeader(layout, 105),
      "web.pcap: link type IEEE802_11 (105) is not supported",
    ],
    [
      "a link type without one",
      buildPcapHeader(layout, 9999),
      "web.pcap: link type 9999 is not supported",
    ],
  ])("%s is refused", async (_what, bytes, message) => {
    expect(await errorOf(bytes)).toBe(message);
  });

  test("blocks larger than memory pass through, before and after packets", async () => {
    const large = buildBlock(false, 0xbad, new Uint8Array(3 << 20).fill(7));
    const base = makePcapng(false, 40);
    const sectionBytes = new DataView(base.buffer, base.byteOffset).getUint32(4, true);
    const bytes = Buffer.concat([
      base.subarray(0, sectionBytes),
      large,
      base.subarray(sectionBytes),
    ]);
    const reading = await run(openBytes(bytes, SMALL));
    expect(reading.error).toBeUndefined();
    expect(Buffer.compare(reading.written, bytes)).toBe(0);
    const cut = bytes.subarray(0, sectionBytes + large.length - 5);
    const error = `web.pcap: block at byte ${sectionBytes}: the file ends after`;
    expect(await errorOf(cut, SMALL)).toContain(error);
  });

  test("sections that repeat their interfaces share ports", async () => {
    const section = makePcapng(false, 20);
    const bytes = Buffer.concat(Array.from({ length: 400 }, () => section));
    const { source, packets, written } = await run(openBytes(bytes, memory));
    expect(packets.length).toBe(400 * 23);
    expect(source.interfaces.length).toBe(RESOLUTIONS.length + 1);
    expect(Buffer.compare(written, bytes)).toBe(0);
  });
});

test("pcap-parser reads generated microsecond files like the fast reader", async () => {
  for (const variant of PCAP_VARIANTS) {
    const bytes = makePcap(variant, 2000);
    const ours = await run(openBytes(bytes, memory));
    async function* chunks() {
      for (let at = 0; at < bytes.length; at += 5000) yield bytes.subarray(at, at + 5000);
    }
    const theirs = await runOrRefuse(() => openStream("capture", chunks(), memory));
    if (variant.nanoseconds) expect(theirs.error).toContain("pcap-parser: unknown magic number");
    else if (variant.minor < 4) expect(theirs.error).toContain("does not read cut frames");
    else {
      expect(theirs.packets).toEqual(ours.packets);
      expect("written" in theirs && Buffer.compare(theirs.written, bytes)).toBe(0);
    }
  }
});

test("a stream that breaks off is an error after what it gave", async () => {
  const bytes = makePcap({ bigEndian: false, nanoseconds: false, minor: 4 }, 10);
  async function* chunks() {
    yield bytes;
    throw new Error("connection reset");
  }
  const reader = new CaptureReader("socket", new StreamInput(chunks()), memory);
  for (const [open, place] of [
    [() => openStream("socket", chunks(), memory), ""],
    [() => reader.open(), `read at byte ${bytes.length}: `],
  ] as const) {
    const reading = await run(open());
    expect(reading.packets.length).toBe(10);
    expect(reading.error).toBe(`socket: ${place}connection reset`);
  }
});

test("a pcapng made from nothing holds frames, exact times and comments", async () => {
  const output = new MemoryOutput();
  const writer = new PcapngWriter(output);
  // Whatever ends the program from now on, the file is one.
  expect(await run(openBytes(output.toBytes(), memory))).toMatchObject({ packets: [] });
  expect((await run(openBytes(output.toBytes(), memory))).error).toBeUndefined();
  const frames = makeFrames(500);
  const ports = [1, 276].map((linkType) =>
    writer.interface({ linkType, name: `link ${linkType}` }),
  );
  for (const [i, frame] of frames.entries()) {
    const options = { interface: ports[i % 2] as number, timeNs: makeTimeNs(i), wireBytes: 999 };
    writer.packet(frame, { ...options, comment: "drop.no-flow" });
  }
  await writer.close();
  const { packets, error, source } = await run(openBytes(output.toBytes(), memory));
  expect(error).toBeUndefined();
  expect(source.interfaces.map(({ name }) => name)).toEqual(["link 1", "link 276"]);
  expect(packets.map(({ data }) => data)).toEqual(frames);
  expect(packets.map(({ ns }) => ns)).toEqual(frames.map((_, i) => makeTimeNs(i)));
  expect(packets.every(({ wire, port }, i) => wire === 999 && port === i % 2)).toBe(true);
  expect(source.latestNs - source.earliestNs).toBe(makeTimeNs(499) - makeTimeNs(0));
});

test("a file output can be opened where nothing was, and not in a folder that is missing", () => {
  expect(() => createOutput(path.join(folder, "no", "out.pcap"))).toThrow(/out\.pcap: ENOENT/);
});
