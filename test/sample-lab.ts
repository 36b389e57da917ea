/** A lab that is not there: a snapshot whose counters grow with every look. */
import type { LiveSnapshot } from "../host/live/snapshot.ts";

const TARGETS: LiveSnapshot["targets"] = [
  {
    group: "web",
    address: "10.0.2.10",
    port: 8080,
    zone: "use1-az1",
    state: "healthy",
    checkMilliseconds: 1.25,
  },
  {
    group: "web",
    address: "fd00::11",
    port: 8080,
    zone: "use1-az2",
    state: "unhealthy",
    reason: "Target.Timeout",
    description: "Request timed out <script>",
    checkMilliseconds: 6000,
  },
];

const ENDPOINTS: LiveSnapshot["endpoints"] = [
  {
    id: "vpce-0a1b2c3d4e5f60718",
    service: "vpce-svc-0123456789abcdef0",
    vpc: "consumer",
    state: "available",
    addresses: ["10.0.1.50"],
    dnsNames: ["vpce-0a1b2c3d4e5f60718-abcdefgh.vpce-svc.us-east-1.vpce.amazonaws.com"],
  },
];

const TALKS: LiveSnapshot["talks"] = [
  {
    client: "10.0.1.10",
    clientVpc: "consumer",
    via: "vpce-0a1b2c3d4e5f60718",
    service: "10.0.2.10",
    servicePort: 8080,
    flows: 21,
    bytes: 1_000_000,
  },
  {
    client: "10.0.2.20",
    clientVpc: "provider",
    via: "nlb-1",
    service: "10.0.2.10",
    servicePort: 8080,
    flows: 3,
    bytes: 10_000,
  },
];

const DNS: LiveSnapshot["dns"] = [
  {
    vpc: "consumer",
    address: "10.0.0.2",
    queries: 9,
    responses: 8,
    truncated: 1,
    forwarded: 2,
    ignored: 1,
  },
];

const WEBHOOKS: LiveSnapshot["webhooks"] = [
  { url: "http://127.0.0.1:9/hook", delivered: 3, retried: 1, failed: 0, dropped: 0 },
];

/** The snapshot after so many seconds of steady traffic. */
export function labSnapshot(seconds: number, startedMs = 1_750_000_000_000): LiveSnapshot {
  const usage = (share: number) => ({
    packetsFromClient: 1000 * seconds * share,
    packetsFromService: 900 * seconds * share,
    bytesFromClient: 100_000 * seconds * share,
    bytesFromService: 1_000_000 * seconds * share,
    flowsCreated: 10 * seconds * share,
    flowsActive: 42 * share,
    portsExhausted: 0,
  });
  return {
    schema: "flowplane.live/1",
    lab: "demo",
    startedMs,
    timeMs: startedMs + 1000 * seconds,
    packets: 2000 * seconds,
    bytes: 1_250_000 * seconds,
    verdicts: { forward: 1990 * seconds, "drop.no-service": 10 * seconds, "drop.malformed": 0 },
    flows: {
      active: 84,
      activeMax: 90,
      created: 20 * seconds,
      expired: 3 * seconds,
      tcp: 15 * seconds,
      udp: 5 * seconds,
      icmp: 0,
      other: 0,
    },
    nodes: [
      { node: 0, pid: 4711, isUp: true, restarts: 0, resources: ["nlb-1"] },
      { node: 1, pid: 0, isUp: false, restarts: 2, resources: ["nlb-1"] },
    ],
    decisions: { made: 20 * seconds, adopted: 7, conflicts: 0, dropped: 0, undecided: 0, lost: 0 },
    cpu: { userMicros: 40_000 * seconds, systemMicros: 60_000 * seconds },
    resources: [
      { id: "nlb-1", kind: "load-balancer", vpc: "provider", dnsNames: [], ...usage(1) },
      {
        id: "vpce-0a1b2c3d4e5f60718",
        kind: "endpoint",
        vpc: "consumer",
        dnsNames: [],
        ...usage(0.5),
      },
    ],
    targets: TARGETS,
    endpoints: ENDPOINTS,
    talks: TALKS,
    dns: DNS,
    webhooks: WEBHOOKS,
  };
}
