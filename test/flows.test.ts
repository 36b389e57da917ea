import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { eth, type Packet, raw } from "../fixtures/packets.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { openBytes } from "../host/capture/memory.ts";
import { type Conversation, conversations, type FlowsResult } from "../host/replay/flows.ts";
import { endpointText, flowsReport } from "../host/report/flows.ts";
import { readCapture } from "./reference/capture.ts";
import { twinConversations } from "./reference/conversations.ts";

const CAPTURES = new URL("../fixtures/captures/", import.meta.url);

function tableOf(file: Uint8Array, packetsMax?: number) {
  return conversations({
    file: "test",
    fileBytes: file.length,
    open: (engine) => openBytes(file, engine, { name: "test" }),
    isRepeatable: true,
    packetsMax,
  });
}

/** A row in the words of the twin. */
function rowText(row: Conversation): string {
  const ends = [row.source, row.destination].map(({ address, port }) => `${address} ${port}`);
  const source = ends[0];
  const key = [row.protocol, ...ends.sort(), [row.vpc, ...row.vlans].join(".")].join(" ");
  const { packets, bytes, packetsFromSource, firstSeen, lastSeen } = row;
  return [key, source, packets, bytes, packetsFromSource, firstSeen, lastSeen].join();
}

function secondsOf(ns: bigint): number {
  return Number(ns / 1_000_000_000n) + Number(ns % 1_000_000_000n) / 1e9;
}

describe("the conversation table", () => {
  const captures = readdirSync(CAPTURES).filter((name) => name !== "live.pcapng");
  test.each([...captures, "live.pcapng"])("of %s is that of its slow twin", async (name) => {
    const file = readFileSync(new URL(name, CAPTURES));
    const { result, failure } = await tableOf(file);
    const twin = twinConversations(readCapture(file));
    expect(failure).toBeUndefined();
    expect(result.unassigned).toEqual(twin.unassigned);
    expect(result.flows.map(rowText).sort()).toEqual(
      twin.rows
        .map(({ key, source, packets, bytes, packetsFromSource, firstNs, lastNs }) =>
          [
            key,
            source,
            packets,
            bytes,
            packetsFromSource,
            secondsOf(firstNs),
            secondsOf(lastNs),
          ].join(),
        )
        .sort(),
    );
    const packets = result.flows.reduce((sum, row) => sum + row.packets, 0);
    const others = Object.values(result.unassigned).reduce((sum, count) => sum + count, 0);
    expect(packets + others).toBe(result.capture.packets);
  });

  test("has one row for a connection that is opened again on the same ports", async () => {
    const there = (flags: string) => raw().ipv4("10.0.0.1", "192.0.2.1").tcp(40000, 80, { flags });
    const back = (flags: string) => raw().ipv4("192.0.2.1", "10.0.0.1").tcp(80, 40000, { flags });
    const story = ["S", "A", "FA"].flatMap((flags) => [
      there(flags),
      back(flags === "S" ? "SA" : flags),
    ]);
    const { result } = await tableOf(captureOf([...story, ...story]));
    expect(result.flows).toHaveLength(1);
    expect(result.flows[0]).toMatchObject({ packets: 12, packetsFromSource: 6, state: "closing" });
  });

  test("puts echoes of different identifiers and errors in the row of their addresses", async () => {
    const ping = (id: number) => raw().ipv4("10.0.0.1", "192.0.2.1").echo(4, "request", id);
    const udp = raw().ipv4("10.0.0.1", "192.0.2.1").udp(5000, 53);
    const error = raw().ipv4("192.0.2.1", "10.0.0.1").icmpError(3, 3, udp);
    const { result } = await tableOf(captureOf([ping(1), ping(2), udp, error]));
    expect(result.flows.map(({ protocol, packets }) => [protocol, packets])).toEqual([
      ["icmp", 3],
      ["udp", 1],
    ]);
    expect(result.flows[0]).toMatchObject({
      source: { address: "10.0.0.1", port: 0 },
      packetsFromSource: 2,
      state: null,
    });
  });

  test("keeps VLANs apart even where a mirror port tags one direction only", async () => {
    const there = eth({ vlan: [7] })
      .ipv4("10.0.0.1", "192.0.2.1")
      .tcp(40000, 80, { flags: "S" });
    const back = eth().ipv4("192.0.2.1", "10.0.0.1").tcp(80, 40000, { flags: "SA" });
    const { result } = await tableOf(captureOf([there, back, there], LINKTYPE.ethernet));
    const rows = result.flows.map(({ vlan, source, packets, packetsFromSource }) => [
      vlan,
      source.address,
      packets,
      packetsFromSource,
    ]);
    expect(rows).toEqual([
      [7, "10.0.0.1", 2, 2],
      [null, "192.0.2.1", 1, 1],
    ]);
  });

  test("grows with the capture, so that it is never full", async () => {
    const packets = Array.from({ length: 9000 }, (_, index) =>
      raw()
        .ipv4("10.0.0.1", "192.0.2.1")
        .udp(1000 + index, 53),
    );
    const { result } = await conversations({
      file: "test",
      fileBytes: 1,
      open: (engine) => openBytes(captureOf(packets), engine),
      isRepeatable: true,
    });
    expect(result.flows).toHaveLength(9000);
    expect(result.notes).toEqual([]);
  });

  test("ends at the limit and at a broken record, with what came before", async () => {
    const file = readFileSync(new URL("web.pcap", CAPTURES));
    expect((await tableOf(file, 10)).result.capture.packets).toBe(10);
    const { result, failure } = await tableOf(file.subarray(0, file.length - 5));
    expect(failure?.message).toMatch(/^test: record 2229 at byte \d+: the file ends after/);
    expect(result.capture.packets).toBe(2228);
  });
});

function captureOf(packets: Packet[], linkType: number = LINKTYPE.raw): Uint8Array {
  const records = packets.map((packet, index) => ({
    timeNs: 1_700_000_000_000_000_000n + BigInt(index) * 1_000_000n,
    bytes: packet.bytes(),
  }));
  return pcapFile(records, { linkType });
}

describe("the table as text", () => {
  const flow: Conversation = {
    protocol: "tcp",
    source: { address: "2001:db8::1", port: 40000 },
    destination: { address: "2001:db8::2", port: 80 },
    vlan: 10,
    vlans: [10, 20],
    vpc: 0,
    packets: 1200,
    bytes: 1_000_000,
    packetsFromSource: 600,
    bytesFromSource: 60_000,
    firstSeen: 1_700_000_000.25,
    lastSeen: 1_700_000_012.75,
    state: "established",
  };
  const result: FlowsResult = {
    schema: "flowplane.flows/1",
    capture: {
      file: "x",
      format: "pcap",
      linkTypes: ["ETHERNET"],
      packets: 1202,
      bytes: 1_000_084,
    },
    flows: [flow],
    unassigned: { "pass.non-ip": 2 },
    notes: [],
  };

  test("is this", () => {
    expect(flowsReport(result)).toBe(SAMPLE);
  });

  test("has no VLAN column where no frame has a tag", () => {
    expect(flowsReport({ ...result, flows: [{ ...flow, vlan: null, vlans: [] }] })).not.toContain(
      "VLAN",
    );
  });

  test("writes an address alone where there is no port", () => {
    expect(endpointText({ address: "10.0.0.1", port: 0 })).toBe("10.0.0.1");
    expect(endpointText({ address: "10.0.0.1", port: 1 })).toBe("10.0.0.1:1");
    expect(endpointText({ address: "::1", port: 1 })).toBe("[::1]:1");
  });
});

const SHARED = new URL("../../shared/captures/", import.meta.url);

test("every packet of the captures at hand is in one row or counted beside them", async ({
  skip,
}) => {
  if (!existsSync(fileURLToPath(SHARED)))
    return skip("left out: the study's captures are not here");
  for (const name of readdirSync(SHARED).filter((file) => /pcap|cap$/.test(file))) {
    const file = readFileSync(new URL(name, SHARED));
    const run = await tableOf(file).catch((error: Error) => error);
    if (run instanceof Error) {
      expect.soft(run.message, name).toMatch(/^test: (link type|pcap version)/);
      continue;
    }
    const { flows, unassigned, capture } = run.result;
    const others = Object.values(unassigned).reduce((sum, count) => sum + count, 0);
    expect
      .soft(
        flows.reduce((sum, row) => sum + row.packets, others),
        name,
      )
      .toBe(capture.packets);
    expect.soft(new Set(flows.map(rowText)).size, name).toBe(flows.length);
  }
}, 60_000);

const SAMPLE = `\
protocol  source               destination       VLAN   packets     data  first s  lasted  state
tcp       [2001:db8::1]:40000  [2001:db8::2]:80  10.20    1,200  1.00 MB    0.000  12.5 s  established

1 conversation, 1,202 packets, 1.00 MB; began 2023-11-14T22:13:20.250Z
2 packets in none (pass.non-ip)`;
