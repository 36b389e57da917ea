/**
 * Captures as other tools made them: 95 of them beside the checkout, where it has such a folder;
 * without it only the generated ones of capture-formats.test.ts are tested.
 */
import fs from "node:fs";
import { parse } from "pcap-parser";
import { describe, expect, test } from "vitest";
import { openCapture } from "../host/capture/file.ts";
import { openStream } from "../host/capture/stream.ts";
import { CAPTURES, hasCaptures, runOrRefuse } from "./capture-harness.ts";
import { readTwin } from "./capture-twin.ts";
import { createWalkMemory } from "./walk-memory.ts";

/** Where our count is not tshark's: [ours, why]. */
const DIFFERENT: Readonly<Record<string, [number, string]>> = {
  "corrupt__scapy__bad_rsn_parsing_overrides_ssid.pcap": [0, "link type 802.11 radiotap"],
  "corrupt__suricata__bug-6875-01_fuzz.pcap": [1, "tshark guesses a variant with longer headers"],
  "icmp-errors__tcpdump__icmp-rfc5837.pcap": [0, "link type PPP"],
  "mpls__tcpdump__mpls-traceroute.pcap": [0, "link type PPP"],
  "pcapng__gopacket__le_test102.pcapng": [5, "tshark counts 3 blocks without a packet"],
};

/** Captures that end with an error, and the error. */
const BROKEN: Readonly<Record<string, string>> = {
  "corrupt__libpcap__pcap-invalid-version-1.pcap": "pcap version 1.4 is not 2.x",
  "corrupt__libpcap__shb-option-too-long.pcapng":
    "block at byte 0: block of 52 bytes ends with length 808464432",
  "corrupt__ndpi__fuzz-2021-10-13.pcap": "record 2 at byte 237: the file ends after 2 of 16 bytes",
  "corrupt__scapy__bad_rsn_parsing_overrides_ssid.pcap":
    "link type IEEE802_11_RADIOTAP (127) is not supported",
  "corrupt__suricata__bug-1450-04_tls_DER-incomplete-header.pcap":
    "record 7 at byte 5035: captured length 4325376 exceeds the file's 262144",
  "corrupt__suricata__bug-6875-01_fuzz.pcap":
    "record 2 at byte 228: captured length 1409179648 exceeds the file's 65535",
  "icmp-errors__tcpdump__icmp-rfc5837.pcap": "link type PPP (9) is not supported",
  "mpls__tcpdump__mpls-traceroute.pcap": "link type PPP (9) is not supported",
};

interface Facts {
  name: string;
  tsharkStatus: number;
  packets: number;
}

function readFacts(): Facts[] {
  const text = fs.readFileSync(new URL("FACTS.tsv", CAPTURES), "utf8");
  const rows = text.trimEnd().split("\n").slice(1);
  return rows.map((row) => {
    const [name = "", status, packets] = row.split("\t");
    return { name, tsharkStatus: Number(status), packets: Number(packets) };
  });
}

describe.runIf(hasCaptures)("captures that other tools made", async () => {
  const facts = hasCaptures ? readFacts() : [];
  const memory = await createWalkMemory();
  const pathOf = (name: string) => new URL(name, CAPTURES).pathname;

  test.each(facts)("$name: as many packets as tshark, same bytes back", async (fact) => {
    const path = pathOf(fact.name);
    const original = fs.readFileSync(path);
    const reading = await runOrRefuse(() => openCapture(path, memory));
    expect(reading.packets.length).toBe(DIFFERENT[fact.name]?.[0] ?? fact.packets);
    const error = BROKEN[fact.name];
    expect(reading.error).toBe(error && `${path}: ${error}`);
    if (fact.tsharkStatus !== 0) expect(reading.error).toBeDefined();
    if (!("sink" in reading)) return;
    const { written, sink } = reading;
    expect(Buffer.compare(original.subarray(0, written.length), written)).toBe(0);
    if (!error) expect(written.length).toBe(original.length);
    expect(sink.packets).toBe(reading.packets.length);
    expect(sink.bytes).toBe(reading.source.capturedBytes);
  });

  test.each(facts)("$name: frames, lengths and times of the slow twin", async ({ name }) => {
    const original = fs.readFileSync(pathOf(name));
    const twin = readTwin(original);
    const reading = await runOrRefuse(() => openCapture(pathOf(name), memory));
    expect(reading.packets.length).toBe(twin.packets.length);
    expect(reading.error === undefined).toBe(twin.brokenAt === undefined);
    for (const [i, packet] of reading.packets.entries()) {
      const other = twin.packets[i];
      if (!other) throw new Error(`the twin has no packet ${i}`);
      const data = original.subarray(other.dataAt, other.dataAt + other.captured);
      expect(Buffer.compare(packet.data, data)).toBe(0);
      expect(packet.wire).toBe(other.wire);
      if (other.ns !== undefined) expect(packet.ns).toBe(other.ns);
    }
  });

  test("pcap-parser agrees on every classic microsecond file", async () => {
    let agreed = 0;
    let refused = 0;
    for (const { name } of facts) {
      const path = pathOf(name);
      const magic = fs.readFileSync(path).readUInt32BE(0);
      if (magic !== 0xa1b2c3d4 && magic !== 0xd4c3b2a1) continue;
      const ours = await runOrRefuse(() => openCapture(path, memory));
      const open = () => openStream(path, fs.createReadStream(path), memory);
      const theirs = await runOrRefuse(open);
      expect(theirs.packets, name).toEqual(ours.packets);
      expect(theirs.error === undefined, name).toBe(ours.error === undefined);
      if ("written" in theirs && "written" in ours) {
        expect(Buffer.compare(theirs.written, ours.written), name).toBe(0);
        const parsed = await parseAlone(path);
        expect(parsed.map((p) => p.length).slice(0, ours.packets.length), name).toEqual(
          ours.packets.map((p) => p.data.length),
        );
        agreed++;
      } else refused++;
    }
    expect({ agreed, refused }).toEqual({ agreed: 75, refused: 4 });
  });
});

/** pcap-parser without our adapter. */
function parseAlone(path: string): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const packets: Buffer[] = [];
    parse(fs.createReadStream(path))
      .on("packetData", (data: Buffer) => packets.push(data))
      .on("error", reject)
      .on("end", () => resolve(packets));
  });
}
