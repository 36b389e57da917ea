/**
 * How fast captures are read and written: the record walk against pcap-parser in one process, and
 * the whole path from file to file. Run: node bench/capture.ts [MB]
 *
 * The input is generated (IMIX: 7 of 64, 4 of 570, 1 of 1514 bytes) in the system's temporary
 * folder and removed again. Times are the best of several passes over a file in the page cache.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parse } from "pcap-parser";
import { buildPcapHeader, buildPcapRecord } from "../host/capture/build.ts";
import { createCapture, openCapture } from "../host/capture/file.ts";
import { openStream } from "../host/capture/stream.ts";
import { createWalkMemory } from "../test/walk-memory.ts";
import { parseBytes, walkAlone, walkBytes } from "./walk.ts";

const IMIX = [64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1514];
const LAYOUT = { bigEndian: false, nanoseconds: false, lengthsSwapped: false };
const PASSES = 5;

function generate(file: string, bytes: number): number {
  const records = IMIX.map((length, i) =>
    buildPcapRecord(LAYOUT, { timeNs: BigInt(i) * 1_000_000n, bytes: new Uint8Array(length) }),
  );
  const cycle = Buffer.concat(records);
  const block = Buffer.concat(Array.from({ length: 64 }, () => cycle));
  const blocks = Math.ceil(bytes / block.length);
  const descriptor = fs.openSync(file, "w");
  fs.writeSync(descriptor, buildPcapHeader(LAYOUT, 1));
  for (let i = 0; i < blocks; i++) fs.writeSync(descriptor, block);
  fs.closeSync(descriptor);
  return blocks * 64 * IMIX.length;
}

async function best(passes: number, run: () => Promise<number>, packets: number): Promise<number> {
  let seconds = Number.POSITIVE_INFINITY;
  for (let i = 0; i < passes; i++) {
    const begin = performance.now();
    const count = await run();
    seconds = Math.min(seconds, (performance.now() - begin) / 1000);
    if (count !== packets) throw new Error(`${count} of ${packets} packets`);
  }
  return seconds;
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "flowplane-"));
try {
  const file = path.join(folder, "imix.pcap");
  const packets = generate(file, Number(process.argv[2] ?? 100) * 1e6);
  const { size } = fs.statSync(file);
  const memory = await createWalkMemory();

  const walk = async () => {
    const source = await openCapture(file, memory);
    for (;;) {
      const count = source.next();
      if ((typeof count === "number" ? count : await count) === 0) break;
    }
    source.close();
    return source.packets;
  };
  const copy = async () => {
    const source = await openCapture(file, memory);
    const sink = createCapture(path.join(folder, "out.pcap"), source);
    for (;;) {
      const next = source.next();
      const count = typeof next === "number" ? next : await next;
      if (count === 0) break;
      sink.take(count);
    }
    await sink.close();
    source.close();
    return sink.packets;
  };
  const adapter = async () => {
    const source = await openStream("imix", fs.createReadStream(file), memory);
    while (await source.next());
    source.close();
    return source.packets;
  };
  const parser = (highWaterMark: number) => () =>
    new Promise<number>((resolve, reject) => {
      let count = 0;
      parse(fs.createReadStream(file, { highWaterMark }))
        .on("packet", () => count++)
        .on("error", reject)
        .on("end", () => resolve(count));
    });

  const rows: Record<string, { "ns/packet": number; Mpps: number; "Gbit/s": number }> = {};
  const measure = async (name: string, passes: number, run: () => Promise<number>) => {
    const seconds = await best(passes, run, packets);
    rows[name] = {
      "ns/packet": Number(((seconds / packets) * 1e9).toFixed(1)),
      Mpps: Number((packets / seconds / 1e6).toFixed(2)),
      "Gbit/s": Number(((size * 8) / seconds / 1e9).toFixed(1)),
    };
    return seconds;
  };
  const capture = fs.readFileSync(file);
  const alone = await measure("record walk alone", 2 * PASSES, () =>
    walkAlone(capture, memory, packets),
  );
  await measure("copy and walk, capture in memory", PASSES, () => walkBytes(capture, memory));
  const theirs = await measure("pcap-parser, capture in memory", 3, () => parseBytes(capture));
  const ours = await measure("read and walk", PASSES, walk);
  await measure("read, walk and write", PASSES, copy);
  const slow = await measure("pcap-parser, 1 MiB chunks", 2, parser(1 << 20));
  await measure("pcap-parser, 64 KiB chunks", 2, parser(1 << 16));
  await measure("pcap-parser behind openStream", 2, adapter);
  console.log(`IMIX pcap, ${(size / 1e6).toFixed(0)} MB, ${packets} packets`);
  console.table(rows);
  const times = (a: number, b: number) => `${(a / b).toFixed(1)} times`;
  console.log(`In memory the walk is ${times(theirs, alone)} as fast as pcap-parser.`);
  console.log(`From a file the reader is ${times(slow, ours)} as fast as pcap-parser.`);
} finally {
  fs.rmSync(folder, { recursive: true });
}
