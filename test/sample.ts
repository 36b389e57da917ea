/** A replay's result and timeline as they could be, for tests of reports. */

import type { VerdictName } from "../host/engine/api.ts";
import { VERDICT_NAMES } from "../host/engine/engine.ts";
import type { ReplayResult, Timeline } from "../host/replay/result.ts";

const NO_VERDICTS = Object.fromEntries(VERDICT_NAMES.map((name) => [name, 0])) as Record<
  VerdictName,
  number
>;
const TARGETS_GBPS = [5, 10, 25, 50, 100, 1000];

export function sampleResult(): ReplayResult {
  return {
    schema: "flowplane.replay/1",
    capture: {
      file: "web.pcap",
      format: "pcap",
      linkTypes: ["Ethernet"],
      packets: 45_123,
      bytes: 31_200_000,
      durationSeconds: 12.3,
    },
    run: { scenario: "nat", passes: 5, workers: 1 },
    flows: { created: 1234, expired: 3, activeMax: 980, tcp: 1100, udp: 130, icmp: 4, other: 0 },
    verdicts: { ...NO_VERDICTS, forward: 45_000, "pass.non-ip": 100, "drop.truncated": 23 },
    output: { packets: 45_100, bytes: 31_190_000, inserted: { pp2: 0, rst: 0, icmp: 0 } },
    time: { wallSeconds: 0.0712, readSeconds: 0.0312, engineSeconds: 0.00912, writeSeconds: 0 },
    engine: { nsPerPacket: 39.5, coldNsPerPacket: 120.3, mpps: 25.3, gbps: 140 },
    endToEnd: { mpps: 3.17, gbps: 17.5 },
    workers: [
      {
        packets: 45_123,
        readSeconds: 0.0312,
        engineSeconds: 0.00912,
        nsPerPacket: 39.5,
        mpps: 25.3,
      },
    ],
    balance: 1,
    capacity: {
      unitGbps: 5,
      unitsPerCore: 28,
      targets: TARGETS_GBPS.map((gbps) => ({ gbps, cores: gbps / 140, met: gbps <= 140 })),
    },
    resources: [
      {
        id: "nat-1",
        kind: "nat-gateway",
        packets: 45_000,
        bytes: 31_100_000,
        activeFlows: 120,
        newFlows: 1234,
        portsExhausted: 0,
        peakGbps: 0.0412,
        units: 1,
      },
    ],
    digest: "0123456789abcdef",
    machine: {
      cpu: "Example CPU",
      cores: 2,
      node: "26.10.0",
      v8: "14.6.202.34",
      flowplane: "0.1.0",
    },
    notes: [],
  };
}

/** Two minutes of waves, so that a picture of the charts shows whether they are drawn right. */
export function sampleTimeline(): Timeline {
  const slices = (value: (slice: number) => number) =>
    Array.from({ length: 123 }, (_, n) => value(n));
  return {
    sliceSeconds: 0.1,
    packets: slices((slice) => 300 + Math.round(200 * Math.sin(slice / 9))),
    bytes: slices((slice) => 250_000 + Math.round(200_000 * Math.sin(slice / 7))),
    flowsActive: slices((slice) => slice * 8),
    flowsCreated: slices((slice) => 10 + Math.round(5 * Math.cos(slice / 5))),
    sizes: [12_000, 8_000, 500, 300, 2_000, 22_300, 23],
  };
}
