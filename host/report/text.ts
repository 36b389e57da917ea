/**
 * The replay's report for a person at a terminal: one screen of at most 40 lines by 100 columns,
 * in units people use, ending with what the measured rate means for 5 Gbit/s to 1 Tbit/s.
 * Pure: the result goes in, the text comes out.
 */

import type { ReplayResult } from "../replay/result.ts";
import { table, wrapped } from "./table.ts";
import {
  bitRate,
  count,
  counted,
  dataSize,
  duration,
  packetRate,
  share,
  significant,
} from "./units.ts";

const WIDTH = 100;
const INDENT = 12;
const VERDICTS_MAX = 10;
/** Resources that are shown, the busiest. */
const RESOURCES_MAX = 10;

const KIND_NAMES = {
  "nat-gateway": "NAT gateway",
  "network-load-balancer": "network load balancer",
  "vpc-endpoint": "VPC endpoint",
  "gateway-endpoint": "gateway endpoint",
  "mount-target": "mount target",
  "endpoint-service": "endpoint service",
};

const SCENARIOS: Record<string, string> = {
  nat: "NAT gateway: whoever sends a flow's first packet is inside",
  nlb: "network load balancer: what receives a flow's first packet is a listener",
  privatelink:
    "endpoint and network load balancer: what receives a flow's first packet is a listener",
  network: "the network of the configuration",
};

/** The report, without a newline at its end. */
export function textReport(result: ReplayResult): string {
  return [
    ...head(result),
    "",
    ...verdicts(result),
    "",
    ...speed(result),
    ...workers(result),
    "",
    ...resources(result),
    "",
    ...capacity(result),
  ].join("\n");
}

/** One labelled paragraph. */
function entry(label: string, text: string): string[] {
  return wrapped(text, WIDTH - INDENT).map(
    (line, index) => (index === 0 ? label : "").padEnd(INDENT) + line,
  );
}

function head(result: ReplayResult): string[] {
  const { capture, run, flows, output, machine } = result;
  const links = capture.linkTypes.length === 0 ? "no interface" : capture.linkTypes.join(", ");
  const rate =
    capture.durationSeconds > 0
      ? `, ${bitRate((8 * capture.bytes) / capture.durationSeconds / 1e9)} on average`
      : "";
  const inserted = Object.entries(output.inserted).filter(([, packets]) => packets > 0);
  return [
    ...entry("capture", `${capture.file} (${capture.format}, ${links})`),
    ...entry(
      "",
      `${counted(capture.packets, "packet")}, ${dataSize(capture.bytes)} in ` +
        `${duration(capture.durationSeconds)}${rate}`,
    ),
    ...entry(
      "scenario",
      `${SCENARIOS[run.scenario] ?? run.scenario}; ` +
        `${counted(run.passes, "pass", "passes")}, ${counted(run.workers, "worker")}`,
    ),
    ...entry(
      "flows",
      `${count(flows.created)} created (${count(flows.tcp)} TCP, ${count(flows.udp)} UDP, ` +
        `${count(flows.icmp)} ICMP, ${count(flows.other)} other), at most ` +
        `${count(flows.activeMax)} at once, ${count(flows.expired)} expired`,
    ),
    ...entry(
      "output",
      `${counted(output.packets, "packet")}, ${dataSize(output.bytes)}` +
        inserted.map(([what, packets]) => `, ${count(packets)} ${what} made`).join("") +
        `; digest ${result.digest}`,
    ),
    ...entry(
      "machine",
      `${machine.cpu} (${counted(machine.cores, "core")}), Node ${machine.node}, ` +
        `Flowplane ${machine.flowplane}`,
    ),
    ...result.notes.flatMap((note) => entry("note", note)),
  ];
}

function verdicts(result: ReplayResult): string[] {
  const all = Object.entries(result.verdicts).filter(([, packets]) => packets > 0);
  // One screen: where there are more, the rarest share a line.
  const byNumber = all.toSorted(([, a], [, b]) => b - a).map(([name]) => name);
  const shown = new Set(all.length > VERDICTS_MAX ? byNumber.slice(0, VERDICTS_MAX - 1) : byNumber);
  const rows = all.filter(([name]) => shown.has(name));
  const others = all.filter(([name]) => !shown.has(name));
  if (others.length > 0) {
    const packets = others.reduce((sum, [, packets]) => sum + packets, 0);
    rows.push([`${count(others.length)} others`, packets]);
  }
  return table(
    [
      { title: "verdict", align: "left" },
      { title: "packets", align: "right" },
      { title: "share", align: "right" },
    ],
    rows.map(([name, packets]) => [name, count(packets), share(packets, result.capture.packets)]),
  );
}

function speed(result: ReplayResult): string[] {
  const { engine, endToEnd, time, run } = result;
  const warm =
    run.passes === 1
      ? "cold: the only pass, flows are created in it"
      : `median of ${counted(run.passes - 1, "warm pass", "warm passes")}; ` +
        `first pass ${significant(engine.coldNsPerPacket)} ns`;
  const writing = time.writeSeconds > 0 ? `, write ${duration(time.writeSeconds)}` : "";
  const split = `${duration(time.wallSeconds)}: read ${duration(time.readSeconds)}${writing}`;
  return table(
    [
      { title: "speed", align: "left" },
      { title: "ns/packet", align: "right" },
      { title: "packets", align: "right" },
      { title: "frames", align: "right" },
      { title: "", align: "left" },
    ],
    [
      [
        "engine",
        significant(engine.nsPerPacket),
        packetRate(engine.mpps),
        bitRate(engine.gbps),
        warm,
      ],
      [
        "end to end",
        endToEnd.mpps > 0 ? significant(1e3 / endToEnd.mpps) : "n/a",
        packetRate(endToEnd.mpps),
        bitRate(endToEnd.gbps),
        split,
      ],
    ],
  );
}

/** How several workers shared the work; nothing of a single one. */
function workers({ workers, balance, capture }: ReplayResult): string[] {
  if (workers.length < 2) return [];
  const rates = workers.map(({ packets, mpps }) => {
    return `${share(packets, capture.packets)} at ${packetRate(mpps)}`;
  });
  const shown = rates.length > 8 ? [...rates.slice(0, 7), `${rates.length - 7} more`] : rates;
  const busy = `${significant(100 * balance)} % as busy as the busiest`;
  return ["", ...entry("workers", `${shown.join(", ")}; on average ${busy}`)];
}

function resources(result: ReplayResult): string[] {
  const busiest = result.resources.toSorted((a, b) => b.packets - a.packets);
  const shown = result.resources.filter((one) => busiest.indexOf(one) < RESOURCES_MAX);
  const left = result.resources.length - shown.length;
  const lines = table(
    [
      { title: "resource", align: "left" },
      { title: "", align: "left" },
      { title: "packets", align: "right" },
      { title: "data", align: "right" },
      { title: "new flows", align: "right" },
      { title: "active", align: "right" },
      { title: "peak", align: "right" },
      { title: "units", align: "right" },
    ],
    shown.map((resource) => [
      resource.id,
      KIND_NAMES[resource.kind],
      count(resource.packets),
      dataSize(resource.bytes),
      count(resource.newFlows),
      count(resource.activeFlows),
      bitRate(resource.peakGbps),
      count(resource.units),
    ]),
  );
  return left > 0 ? [...lines, `and ${counted(left, "resource")} that carried less`] : lines;
}

/** "5 Gbit/s", "1 Tbit/s": targets are round numbers and printed as such. */
export function targetName(gbps: number): string {
  return gbps >= 1000 ? `${count(gbps / 1000)} Tbit/s` : `${count(gbps)} Gbit/s`;
}

/** Packets below which one cannot tell a rate from the start of the process. */
const MEASURED_MIN = 10_000;

function caution({ capture, run }: ReplayResult): string[] {
  const packets = capture.packets * run.passes;
  if (packets === 0 || packets >= MEASURED_MIN) return [];
  const passes = 10 ** Math.ceil(Math.log10(MEASURED_MIN / capture.packets));
  return [`a guess from ${counted(packets, "packet")}: --repeat ${passes} measures it`];
}

function capacity(result: ReplayResult): string[] {
  const { capacity, capture, run } = result;
  const title =
    capture.packets > 0
      ? `capacity: with this capture's ${count(capture.bytes / capture.packets)} bytes a frame, ` +
        `one core carries ${significant(capacity.unitsPerCore)} units of 5 Gbit/s`
      : "capacity: the capture has no packets, nothing was measured";
  return [
    title,
    ...caution(result),
    ...table(
      [
        { title: "  target", align: "right" },
        { title: "cores", align: "right" },
        { title: `reached by ${counted(run.workers, "worker")}`, align: "right" },
      ],
      capacity.targets.map(({ gbps, cores, met }) => [
        `  ${targetName(gbps)}`,
        cores > 0 ? significant(cores) : "n/a",
        met ? "yes" : "no",
      ]),
    ),
  ];
}
