/**
 * `flowplane explain`: what is said about packets of the stories, word by word, and that it is what
 * the engine then did.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { eth } from "../fixtures/packets.ts";
import { Scene } from "../fixtures/scene.ts";
import { wrongChecksums } from "../fixtures/verify.ts";
import { LINKTYPE, pcapFile } from "../fixtures/write.ts";
import { openBytes } from "../host/capture/memory.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { UsageError } from "../host/errors.ts";
import { type ExplainOptions, explain } from "../host/replay/explain.ts";
import { replay } from "../host/replay/replay.ts";
import { packetOf, parseTuple } from "../host/replay/tuple.ts";
import { explainReport } from "../host/report/explain.ts";
import { networkScenario } from "../host/scenario/network.ts";
import { configuredScenario, defaultScenario } from "../host/scenario/scenario.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url);

function world(name: string, capture = `network-${name}.pcap`) {
  const file = `networks/${name}.yaml`;
  const config = parseConfig(readFileSync(new URL(file, FIXTURES), "utf8"), file);
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  const bytes = readFileSync(new URL(`captures/${capture}`, FIXTURES));
  const open: NonNullable<ExplainOptions["open"]> = (engine) => openBytes(bytes, engine, { name });
  return { ...networkScenario(config, file), open };
}

async function said(name: string, options: Partial<ExplainOptions>): Promise<string[]> {
  return explainReport(await explain({ ...world(name), ...options })).split("\n");
}

describe("an explanation", () => {
  test("of a connection's first packet names listener, target and translation", async () => {
    expect(await said("nlb", { packet: 1 })).toEqual([
      "packet       1, 0.000 s after the first, 66 bytes on port 0 (Ethernet), VPC shop",
      "parse        TCP 10.0.9.10:30000 to 10.0.1.5:80, SYN",
      "key          10.0.1.5:80 | 10.0.9.10:30000 | protocol 6 | zone 1",
      "hash         8a8c99274b48c97c: home group 35,824, tag 0x7c",
      "lookup       miss: no flow has this key",
      "resource     front: listener TCP 80 in use1-az1 (front/use1-az1/tcp:80)",
      "target       ring slot 298 of 1,021 names target 2 of 2: 10.0.1.12:8080",
      "translation  10.0.9.10:30000 to 10.0.1.5:80 becomes 10.0.9.10:30000 to 10.0.1.12:8080",
      "state        none to half-open",
      "counters     verdicts.forward +1; flows.created +1; flows.active +1; flows.tcp +1;",
      "             front/use1-az1/tcp:80.packetsFromClient +1; front/use1-az1/tcp:80.bytesFromClient +66;",
      "             front/use1-az1/tcp:80.bytesToService +66; front/use1-az1/tcp:80.flowsCreated +1;",
      "             front/use1-az1/tcp:80.flowsActive +1; front/use1-az1/tcp:80.tcp.created +1;",
      "             front/use1-az1/tcp:80.tcp.active +1",
      "verdict      forward: leaves on port 0",
    ]);
  });

  test("of an answer names the flow, and translates backwards", async () => {
    const lines = await said("nlb", { packet: 4 });
    expect(lines.find((line) => line.startsWith("parse"))).toContain("10.0.1.5:80 to 10.0.9.10:");
    expect(lines).toContain(
      "lookup       hit on the client side: half-open, 1 packet from the client and 0 from the service so",
    );
    expect(lines.find((line) => line.startsWith("translation"))).toBe(
      "translation  10.0.1.5:80 to 10.0.9.10:30000 becomes 10.0.1.12:8080 to 10.0.9.10:30000",
    );
    expect(lines).toContain("state        half-open to established");
  });

  test("of a stray of a rejected endpoint tells what the control plane did", async () => {
    const lines = await said("privatelink", { packet: 115 });
    expect(lines).toEqual(
      expect.arrayContaining([
        "state        terminated, and the packet is refused",
        "made         rst of 54 bytes after the packet, on port 0",
        "control      8 s: endpoint vpce-0a1b2c3d4e5f60718: available to rejected",
        "verdict      drop.no-flow",
      ]),
    );
    expect(lines.find((line) => line.startsWith("resource"))).toBe(
      "resource     vpce-0a1b2c3d4e5f60718: listener TCP 443 in use1-az1",
    );
  });

  test("of a packet of a connection that was silent for too long says for how long", async () => {
    const text = (await said("nat", { packet: 159 })).join(" ").replace(/ +/g, " ");
    expect(text).toContain(
      "established, 4 packets from the client and 3 from the service so far; over after 352.",
    );
    expect(text).toContain("state established, and the packet is refused");
  });

  test("of a packet that begins a flow anew names the target that it now has", async () => {
    const { open: _open, ...rest } = world("nlb");
    const ask = async (timesMs: number[]) => {
      const scene = new Scene(1);
      for (const timeMs of timesMs) {
        scene.add(timeMs, eth().ip("10.0.9.10", "10.0.1.5").udp(5353, 53).payload(20));
      }
      const bytes = pcapFile(scene.sorted(), { linkType: LINKTYPE.ethernet });
      const open: NonNullable<ExplainOptions["open"]> = (engine) => openBytes(bytes, engine);
      const told = await explain({ ...rest, open, packet: timesMs.length });
      return explainReport(told).replace(/\s+/g, " ");
    };
    const late = await ask([0, 120_001]);
    expect(late).toContain("so far; over after 120.001 s of silence, the packet begins one anew");
    expect(late).toContain("target ring slot");
    const soon = await ask([0, 120_000]);
    expect(soon).not.toContain("silence");
    expect(soon).not.toContain("target ring slot");
  });

  test("of a later fragment counts what it alone does to its service", async () => {
    const told = await explain({ ...world("nat"), packet: 146 });
    expect(told.frame.kind).toBe("later-fragment");
    expect(told.counters).toEqual([
      { name: "verdicts.forward", by: 1 },
      { name: "gateway.packetsFromClient", by: 1 },
      { name: "gateway.bytesFromClient", by: told.bytes },
      { name: "gateway.bytesToService", by: told.bytes },
    ]);
    expect(explainReport(told)).toContain("\nstate        udp\n");
  });

  test("of an ICMP error says nothing of an end: errors are not counted to flows", async () => {
    const bytes = readFileSync(new URL("captures/icmp-errors.pcapng", FIXTURES));
    const open: NonNullable<ExplainOptions["open"]> = (engine) => openBytes(bytes, engine);
    let errors = 0;
    for (let packet = 1; packet <= 30; packet++) {
      const told = await explain({ scenario: defaultScenario("nat"), open, packet });
      if (told.frame.kind !== "error" || told.verdict !== "forward") continue;
      errors++;
      expect(explainReport(told)).toContain("hit on the");
      expect(explainReport(told)).not.toContain("silence");
    }
    expect(errors).toBeGreaterThan(2);
  });

  test("of a blocked packet names the security groups", async () => {
    const { open, ...rest } = world("privatelink");
    const tuple = parseTuple("tcp 10.0.1.200:50000 10.0.1.50:443");
    const blocked = explainReport(await explain({ ...rest, tuple }));
    expect(blocked).toContain("groups       endpoint: allowed-clients in");
    expect(blocked).toContain("verdict      drop.security-group");
    expect(blocked).toContain("blocked.endpoint +1");
    expect(open).toBeDefined();
  });

  test.each([
    ["tcp 10.1.1.1:5000 192.0.2.1:443", "gateway: route 0.0.0.0/0 of the VPC office (gateway)"],
    ["udp 10.1.1.1:5000 10.1.2.2:53", "vpc:office: route 10.1.0.0/16 of the VPC office"],
    ["tcp 10.1.1.1:5000 198.51.100.200:80", "drop.blackhole"],
    ["icmp 10.1.1.1 192.0.2.1", "route 0.0.0.0/0"],
    ["tcp [2001:db8:1::5]:50000 [64:ff9b::c000:201]:80", "becomes [64:ff9b::cb00:71"],
    ["tcp [2001:db8:1::5]:5000 [2001:db8:9::1]:80", "drop.no-route"],
  ])("of %s, which is only asked about, says %s", async (text, expected) => {
    const { open: _open, ...rest } = world("nat");
    const report = explainReport(await explain({ ...rest, tuple: parseTuple(text) }));
    expect(report).toContain("packet       asked about");
    expect(report).toContain(expected);
  });

  test("of a tuple after a capture finds the flow that the capture made", async () => {
    const tuple = parseTuple("tcp 10.0.9.40:40000 10.0.1.5:80");
    const { frame, flow } = await explain({ ...world("nlb"), tuple });
    expect(frame.found?.side).toBe("client");
    expect(flow?.state).toBe("established");
  });

  test("works for scenarios, and for what the parser decides", async () => {
    const bytes = readFileSync(new URL("captures/web.pcap", FIXTURES));
    const open: NonNullable<ExplainOptions["open"]> = (engine) =>
      openBytes(bytes, engine, { name: "web" });
    const scenario = defaultScenario("nat");
    const arp = explainReport(await explain({ scenario, open, packet: 1 }));
    expect(arp).toContain("parse        the parser decides: pass.non-ip");
    const tcp = explainReport(await explain({ scenario, open, packet: 100 }));
    expect(tcp).toContain("resource     nat-1: the scenario nat (service 0)");
  });

  test("of packets with a PROXY header tells its stage, the segment made and what it has absorbed", async () => {
    const bytes = readFileSync(new URL("captures/web.pcap", FIXTURES));
    const open: NonNullable<ExplainOptions["open"]> = (engine) =>
      openBytes(bytes, engine, { name: "web" });
    const late = defaultScenario("privatelink");
    const early = parseConfig(
      'scenario: privatelink\nnlb: { "proxy_protocol_v2.client_to_server.header_placement": on_first_ack }',
      "early.yaml",
    );
    if (isNetwork(early)) throw new TypeError("has no scenario");
    const report = async (scenario: typeof late, packet: number) =>
      explainReport(await explain({ scenario, open, packet })).split("\n");
    const first = await report(late, 8);
    expect(first).toContain("header       not yet caused; then sent, not acknowledged");
    expect(first).toContain("made         pp2 of 154 bytes before the packet, on port 0");
    const later = await report(late, 12);
    expect(later).toContain("header       acknowledged: numbers move by its length");
    const ack = await report(configuredScenario(early), 7);
    expect(ack).toContain("verdict      absorb.header: the header takes its place");
  });

  test("gives every packet of a story the verdict that the replay gives it", async () => {
    const { scenario, network, open } = world("nlb");
    const verdicts = new Map<string, number>();
    for (let packet = 400; packet <= 430; packet++) {
      const { verdict } = await explain({ scenario, network, open, packet });
      verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
    }
    const counts = async (packetsMax: number) => {
      const machine = { cpu: "", cores: 1, node: "", v8: "", flowplane: "" };
      const options = { file: "nlb", scenario, network, machine, packetsMax };
      const { result } = await replay({ ...options, open: (memory) => open(memory as never) });
      return result.verdicts;
    };
    const [all, before] = [await counts(430), await counts(399)];
    for (const [verdict, packets] of verdicts) {
      const name = verdict as keyof typeof all;
      expect([verdict, all[name] - before[name]]).toEqual([verdict, packets]);
    }
  });

  test("is refused for packets, VPCs and tuples that there are not", async () => {
    const { scenario, network, open } = world("nat");
    await expect(explain({ scenario, network, open, packet: 1000 })).rejects.toThrow(
      new UsageError("--packet: 1000 is not from 1 to 159"),
    );
    const tuple = parseTuple("tcp 10.0.0.1:1 10.0.0.2:2");
    await expect(explain({ scenario, network, tuple, vpc: "x" })).rejects.toThrow(
      '--vpc: "x" is not one of office',
    );
    await expect(explain({ scenario })).rejects.toThrow(UsageError);
  });
});

describe("a tuple", () => {
  test.each([
    "tcp 10.0.0.1:5000 10.0.0.2:80",
    "UDP [2001:db8::1]:53 [2001:db8::2]:53",
    "icmp 10.0.0.1 10.0.0.2",
    "icmp 2001:db8::1 2001:db8::2",
  ])("%s is a packet whose checksums are right", (text) => {
    expect(wrongChecksums(packetOf(parseTuple(text)), "raw")).toEqual([]);
  });

  test.each([
    ["sctp 10.0.0.1:1 10.0.0.2:2", "is not such as"],
    ["tcp 10.0.0.1 10.0.0.2:2", '"10.0.0.1" is not an address and a port'],
    ["tcp 10.0.0.1:70000 10.0.0.2:2", "is not an address and a port from 0 to 65535"],
    ["tcp 10.0.0.1:1 [::1]:2", "are not of one family"],
    ["tcp 10.0.0.300:1 10.0.0.2:2", "is not an IP address"],
  ])("%s is refused: %s", (text, message) => {
    expect(() => parseTuple(text)).toThrow(message);
  });
});
