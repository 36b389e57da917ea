/**
 * The stories of fixtures/networks: each configuration with its capture, what comes out packet by
 * packet, and what is counted.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LARGE } from "../fixtures/generate.ts";
import { CONNECTIONS_MAX } from "../fixtures/network-stories.ts";
import { wrongChecksums } from "../fixtures/verify.ts";
import { MemoryOutput, openBytes } from "../host/capture/memory.ts";
import type { CaptureReader } from "../host/capture/reader.ts";
import { CaptureWriter } from "../host/capture/writer.ts";
import { parseConfig } from "../host/config/config.ts";
import { isNetwork } from "../host/config/schema.ts";
import { MapRecorder, WriteRecorder } from "../host/replay/recorders.ts";
import { replay } from "../host/replay/replay.ts";
import { networkScenario } from "../host/scenario/network.ts";
import { lineOf } from "./frames.ts";
import { readCapture } from "./reference/capture.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url);
const MACHINE = { cpu: "test", cores: 1, node: "0", v8: "0", flowplane: "0" };

/** A frame that came in, and what became of it. */
interface Passed {
  line: ReturnType<typeof lineOf>;
  verdict: string;
  out: ReturnType<typeof lineOf> | undefined;
  frame: Uint8Array | undefined;
}

async function story(name: string, capture?: Uint8Array) {
  const file = `networks/${name}.yaml`;
  const config = parseConfig(readFileSync(new URL(file, FIXTURES), "utf8"), file);
  if (!isNetwork(config)) throw new TypeError("has a scenario");
  const { scenario, network } = networkScenario(config, file);
  const bytes = capture ?? readFileSync(new URL(`captures/network-${name}.pcap`, FIXTURES));
  const before = readCapture(bytes).map((record) => record.bytes.slice());
  const [written, map] = [new MemoryOutput(), new MemoryOutput()];
  const { result } = await replay({
    file: name,
    scenario,
    network,
    open: (engine) => openBytes(bytes, engine, { name }),
    recorders: [
      (batch) => new MapRecorder(batch, map),
      (batch, source) => {
        return new WriteRecorder(
          batch,
          source,
          new CaptureWriter(source as CaptureReader, written),
        );
      },
    ],
    machine: MACHINE,
  });
  const after = readCapture(written.toBytes()).map((record) => record.bytes);
  const rows = new TextDecoder().decode(map.toBytes()).trim().split("\n");
  const passed: Passed[] = [];
  const made: { kind: string; line: ReturnType<typeof lineOf>; frame: Uint8Array }[] = [];
  for (const [input = 0, output = 0, verdict] of rows.map((row) => {
    const [a, b, c = ""] = row.split("\t");
    return [Number(a), Number(b), c] as const;
  })) {
    const frame = output === 0 ? undefined : after[output - 1];
    const out = frame && lineOf(frame);
    if (input === 0) made.push({ kind: verdict, line: out as never, frame: frame as never });
    else passed.push({ line: lineOf(before[input - 1] as Uint8Array), verdict, out, frame });
  }
  const verdicts = Object.entries(result.verdicts).filter(([, packets]) => packets > 0);
  const resource = (id: string) => result.resources.find((one) => one.id === id);
  const metrics = (id: string, at = 0) => resource(id)?.metrics?.[at]?.metrics ?? {};
  const events = network.events.map((event) => ({ ...event }));
  return {
    result,
    passed,
    made,
    after,
    events,
    verdicts: Object.fromEntries(verdicts),
    resource,
    metrics,
  };
}

/** The outputs of frames whose source or destination is given. */
function outputsOf(passed: readonly Passed[], end: string): string[] {
  return passed
    .filter(({ line }) => line.source === end || line.destination === end)
    .map(({ out }) => out?.text ?? "nothing");
}

function rightChecksums(after: readonly Uint8Array[]): void {
  for (const frame of after) expect(wrongChecksums(frame)).toEqual([]);
}

describe("the load balancer", async () => {
  const { passed, made, after, verdicts, metrics, resource } = await story("nlb");

  test("forwards what is meant for a listener, and nothing else", () => {
    expect(verdicts).toEqual({
      forward: 425,
      "drop.no-flow": 2,
      "drop.fragment": 1,
      "drop.unintended": 2,
    });
    rightChecksums(after);
  });

  test("sends each connection to one target of the node's zone, from the client's address", () => {
    for (let i = 0; i < 40; i++) {
      const client = `10.0.9.${10 + (i % 20)}:${30_000 + i * 37}`;
      const mine = passed.filter(({ line }) => line.source === client);
      const targets = new Set(mine.map(({ out }) => out?.destination));
      expect(mine.length).toBeGreaterThan(3);
      expect(targets.size).toBe(1);
      expect([...targets][0]).toMatch(i % 2 === 0 ? /^10\.0\.1\.1[12]:8080$/ : /^10\.0\.2\.1[12]:/);
      expect(new Set(mine.map(({ out }) => out?.source))).toEqual(new Set([client]));
      const answers = passed.filter(({ line }) => line.destination === client);
      for (const { out } of answers) expect(out?.source).toBe([...targets][0]);
    }
  });

  test("gives a SYN that is sent again the same target, and one flow", () => {
    const outs = outputsOf(passed, "10.0.9.40:40000");
    const [target] = (outs[0] ?? "").split(" > ")[1]?.split(" ") ?? [];
    expect(outs).toEqual([
      ...Array(3).fill(`10.0.9.40:40000 > ${target} S`),
      `${target} > 10.0.9.40:40000 SA`,
      `10.0.9.40:40000 > ${target} A`,
    ]);
  });

  test("answers data of no connection by a RST, and nothing else by anything", () => {
    expect(made.map(({ kind, line }) => [kind, line.text])).toEqual([
      ["made.rst", "10.0.1.5:80 > 10.0.9.40:40001 R"],
    ]);
    const view = new DataView(made[0]?.frame.slice().buffer as ArrayBuffer);
    expect(view.getUint32(14 + 20 + 4)).toBe(77);
  });

  test("counts under AWS's names", () => {
    const blocked = ["Inbound", "Outbound"].flatMap((way) =>
      ["TCP", "UDP", "ICMP"].map((kind) => [`SecurityGroupBlockedFlowCount_${way}_${kind}`, 0]),
    );
    expect(metrics("front")).toEqual({
      ActiveFlowCount: 51,
      ActiveFlowCount_TCP: 41,
      ActiveFlowCount_UDP: 10,
      NewFlowCount: 51,
      NewFlowCount_TCP: 41,
      NewFlowCount_UDP: 10,
      ProcessedBytes: 81_756,
      ProcessedBytes_TCP: 80_096,
      ProcessedBytes_UDP: 1660,
      ProcessedPackets: 425,
      // 41 connections at once of 100,000, and 10 flows of UDP of 50,000.
      ConsumedLCUs: 0.00061,
      ConsumedLCUs_TCP: 0.00041,
      ConsumedLCUs_UDP: 0.0002,
      PortAllocationErrorCount: 0,
      RejectedFlowCount: 0,
      RejectedFlowCount_TCP: 0,
      TCP_Client_Reset_Count: 0,
      TCP_ELB_Reset_Count: 1,
      TCP_Target_Reset_Count: 0,
      UnhealthyRoutingFlowCount: 0,
      ...Object.fromEntries(blocked),
      PeakBytesPerSecond: 8175.6,
      PeakPacketsPerSecond: 42.5,
    });
    const all = metrics("front");
    const [a, b] = [metrics("front", 1), metrics("front", 2)];
    expect(Number(a.NewFlowCount) + Number(b.NewFlowCount)).toBe(51);
    expect(all.ProcessedBytes).toBe(resource("front")?.bytes);
    expect(Number(all.ProcessedBytes_TCP) + Number(all.ProcessedBytes_UDP)).toBe(
      all.ProcessedBytes,
    );
    const sets = resource("front")?.metrics ?? [];
    expect(sets.map(({ dimensions }) => Object.keys(dimensions))).toEqual([
      ["LoadBalancer"],
      ["LoadBalancer", "AvailabilityZone"],
      ["LoadBalancer", "AvailabilityZone"],
      ["LoadBalancer", "TargetGroup"],
      ["LoadBalancer", "TargetGroup"],
    ]);
    expect(metrics("front", 3)).toEqual({ HealthyHostCount: 4, UnHealthyHostCount: 0 });
    expect(a.ZonalHealthStatus).toBe(1);
  });
});

describe("the NAT gateway", async () => {
  const { passed, made, after, verdicts, metrics } = await story("nat");

  test("forwards TCP, UDP and ICMP, and refuses what AWS's refuses", () => {
    expect(verdicts).toEqual({
      forward: 151,
      "drop.no-flow": 3,
      "drop.fragment": 3,
      "drop.blackhole": 1,
      "drop.too-large": 1,
    });
    rightChecksums(after);
  });

  test("lets a client leave with one address, and keeps those of its ports that are high", () => {
    const sent = passed.filter(({ line, out }) => out && line.source.startsWith("10.1.1."));
    const addresses = new Map<string, Set<string>>();
    for (const { line, out } of sent) {
      const [inside = "", port] = line.source.split(":");
      const [outside = "", portOut] = out?.source.split(":") ?? [];
      expect(outside).toMatch(/^203\.0\.113\.[12]$/);
      // 55,000 ports an address and destination are assigned: those from 10,536 on.
      if (port !== undefined && Number(port) < 10_536)
        expect(Number(portOut)).toBeGreaterThan(10_535);
      else expect(portOut).toBe(port);
      addresses.set(inside, (addresses.get(inside) ?? new Set()).add(outside));
    }
    expect([...addresses.values()].map((one) => one.size)).toEqual(Array(addresses.size).fill(1));
    expect(new Set([...addresses.values()].flatMap((one) => [...one])).size).toBe(2);
  });

  test("forwards fragments of UDP, and drops those of TCP and ICMP", () => {
    const pieces = passed.filter(({ line }) => line.source.startsWith("10.1.1.20"));
    expect(pieces.map(({ line, verdict }) => [line.text.split(" ").at(-1), verdict])).toEqual([
      ["8/0", "drop.fragment"],
      ["fragment", "drop.fragment"],
      ["PA", "drop.no-flow"],
      ["fragment", "drop.fragment"],
      ["udp", "forward"],
      ["fragment", "forward"],
    ]);
  });

  test("clamps segment sizes, tells of packets that are too large, and resets idle flows", () => {
    expect(made.map(({ kind, line }) => [kind, line.text])).toEqual([
      ["made.icmp", expect.stringMatching(/> 10\.1\.1\.13 icmp 3\/4$/)],
      ["made.rst", "198.51.100.10:80 > 10.1.1.14:46000 R"],
    ]);
    const told = made[0]?.frame.slice() as Uint8Array;
    expect(new DataView(told.buffer).getUint16(14 + 20 + 6)).toBe(8500);
    const syn = passed.find(({ line }) => line.source === "10.1.1.10:45001");
    expect([...(syn?.frame ?? []).slice(54, 58)]).toEqual([2, 4, 8460 >> 8, 8460 & 0xff]);
  });

  test("counts under AWS's names", () => {
    expect(metrics("gateway")).toEqual({
      ActiveConnectionCount: 0,
      BytesInFromDestination: 28_161,
      BytesInFromSource: 10_485,
      BytesOutToDestination: 10_485,
      BytesOutToSource: 28_161,
      ConnectionAttemptCount: 15,
      ConnectionEstablishedCount: 14,
      ErrorPortAllocation: 0,
      IdleTimeoutCount: 5,
      // ESP, a ping's and a TCP segment's first fragment, one that is too large, an idle flow's. Not
      // the later fragments, which name no flow, and not the blackhole's: no gateway sees them.
      PacketsDropCount: 5,
      PacketsInFromDestination: 67,
      PacketsInFromSource: 84,
      PacketsOutToDestination: 84,
      PacketsOutToSource: 67,
      PeakBytesPerSecond: 3864.6,
      PeakPacketsPerSecond: 15.1,
    });
    expect(67 + 84).toBe(verdicts.forward);
  });
});

describe("PrivateLink", async () => {
  const { passed, made, after, verdicts, events, metrics, resource } = await story("privatelink");
  const endpoint = "vpce-0a1b2c3d4e5f60718";

  test("shows the service the load balancer's address, always", () => {
    rightChecksums(after);
    const requests = passed.filter(({ line, out }) => out && line.destination === "10.0.1.50:443");
    expect(requests.length).toBeGreaterThan(40);
    for (const { out } of requests) {
      expect(out?.source).toMatch(/^10\.0\.2\.5:/);
      expect(out?.destination).toMatch(/^10\.0\.2\.1[01]:8443$/);
    }
  });

  test("lets security groups see the client, and drops large packets in silence", () => {
    expect(verdicts).toMatchObject({ "drop.security-group": 1, "drop.too-large": 1 });
    const blocked = passed.find(({ verdict }) => verdict === "drop.security-group");
    expect(blocked?.line.source).toBe("10.0.1.200:50100");
    const syn = passed.find(({ line }) => line.source === "10.0.1.92:50400");
    expect([...(syn?.frame ?? []).slice(54, 58)]).toEqual([2, 4, 8460 >> 8, 8460 & 0xff]);
  });

  test("names the endpoint and the client to the service, before the client's first data", () => {
    const headers = made.filter(({ kind }) => kind === "made.pp2");
    expect(headers).toHaveLength(9);
    for (const { line, frame } of headers) {
      expect(line.destination).toMatch(/^10\.0\.2\.1[01]:8443$/);
      const text = new TextDecoder("latin1").decode(frame);
      const [, addresses = ""] = text.split("QUIT\n\x21\x11");
      expect(text).toContain(`\x01${endpoint}`);
      expect([...addresses.slice(2, 10)].map((one) => one.charCodeAt(0)).join(".")).toMatch(
        /^10\.0\.1\.\d+\.10\.0\.1\.50$/,
      );
    }
  });

  test("ends flows of an endpoint that is rejected, and lets nobody in after that", () => {
    expect(events).toEqual([
      {
        kind: "endpoint",
        atMs: 8000,
        id: endpoint,
        from: "available",
        to: "rejected",
        event: "Reject",
      },
    ]);
    expect(made.filter(({ kind }) => kind === "made.rst").map(({ line }) => line.text)).toEqual([
      "10.0.1.50:443 > 10.0.1.90:50200 R",
    ]);
    expect(passed.at(-1)).toMatchObject({ verdict: "drop.unintended" });
  });

  test("counts for endpoint, service and load balancer, and bills the endpoint", () => {
    expect(metrics(endpoint)).toEqual({
      ActiveConnections: 10,
      BytesProcessed: 32_570,
      NewConnections: 10,
      // Blocked by a security group, too large, and two after the rejection: of an old flow, and a new.
      PacketsDropped: 4,
      RstPacketsReceived: 0,
    });
    expect(resource(endpoint)?.metrics?.[0]?.dimensions).toEqual({
      "VPC Id": "consumer",
      "VPC Endpoint Id": endpoint,
      "Endpoint Type": "Interface",
      "Subnet Id": "consumer-a",
      "Service Name": "com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0",
    });
    const service = metrics("vpce-svc-0123456789abcdef0");
    expect(service).toEqual({
      ActiveConnections: 10,
      BytesProcessed: 32_570,
      EndpointsCount: 0,
      NewConnections: 10,
      RstPacketsSent: 1,
    });
    expect(metrics("api-front").NewFlowCount).toBe(10);
    expect(service.BytesProcessed).toBe(resource(endpoint)?.bytes);
    expect(resource(endpoint)?.bill).toEqual({
      zoneHours: 1,
      gigabytes: (resource(endpoint)?.bytes ?? 0) / 1e9,
    });
  });
});

describe("VPCs of the same addresses", async () => {
  const { passed, after, verdicts, resource } = await story("overlap");

  test("keep one five-tuple apart", () => {
    expect(verdicts).toEqual({ forward: 30 });
    rightChecksums(after);
    const targets = new Map<number | undefined, Set<string>>();
    for (const { line, out } of passed) {
      expect(out?.vlan).toBe(line.vlan);
      if (!line.source.startsWith("10.0.0.5:")) continue;
      const known = targets.get(line.vlan) ?? new Set();
      targets.set(line.vlan, known.add(out?.destination ?? "nothing"));
    }
    expect([...targets].map(([vlan, found]) => [vlan, ...found])).toEqual([
      [undefined, "10.0.0.200:8000"],
      [10, "10.0.0.200:8010"],
      [20, "10.0.0.200:8020"],
    ]);
    for (const name of ["front-plain", "front-ten", "front-twenty"]) {
      expect(resource(name)).toMatchObject({ newFlows: 1, packets: 10 });
    }
  });
});

describe("a target that is taken out", async () => {
  const { passed, made, after, verdicts, events } = await story("draining");
  const first = (port: number) => passed.find(({ line }) => line.source.endsWith(`:${port}`));

  test("keeps its connections for the delay, gets no new ones, then loses them", () => {
    rightChecksums(after);
    const old = Array.from({ length: 16 }, (_, i) => 41_000 + i);
    const drained = old.filter((port) => first(port)?.out?.destination === "10.0.1.11:8080");
    expect(drained.length).toBeGreaterThan(3);
    expect(drained.length).toBeLessThan(13);
    for (const port of old) {
      const mine = passed.filter(({ line }) => line.source.endsWith(`:${port}`));
      const [atFive, atFourteen] = mine.slice(-2);
      expect(atFive?.out?.destination).toBe(first(port)?.out?.destination);
      expect(atFourteen?.verdict).toBe(drained.includes(port) ? "drop.no-flow" : "forward");
    }
    for (let i = 0; i < 16; i++) {
      expect(first(42_000 + i)?.out?.destination).toBe("10.0.1.12:8080");
    }
    expect(verdicts).toEqual({ forward: 304 - drained.length, "drop.no-flow": drained.length });
    expect(made.map(({ line }) => line.text)).toEqual(
      drained.map((port) => `10.0.1.5:80 > 10.0.1.100:${port} R`),
    );
    expect(events).toMatchObject([
      { atMs: 2500, from: "healthy", to: "draining" },
      { atMs: 12_500, from: "draining", to: "none", terminates: true },
    ]);
  });
});

test("an address of a NAT gateway has 55,000 connections to one destination", async () => {
  const make = LARGE["network-exhaustion.pcap"] as () => Uint8Array;
  const { passed, verdicts, metrics } = await story("exhaustion", make());
  expect(verdicts).toEqual({ forward: CONNECTIONS_MAX + 1, "drop.port-exhausted": 1 });
  expect(passed.at(-2)?.verdict).toBe("drop.port-exhausted");
  expect(passed.at(-1)?.out?.destination).toBe("198.51.100.11:443");
  const sources = passed.slice(0, CONNECTIONS_MAX).map(({ out }) => out?.source);
  expect(new Set(sources).size).toBe(CONNECTIONS_MAX);
  expect(metrics("gateway")).toMatchObject({
    ConnectionAttemptCount: CONNECTIONS_MAX + 1,
    ErrorPortAllocation: 1,
  });
}, 300_000);
