/**
 * What a running lab looks like at one moment, as plain data: the one source of the metrics, the
 * page, the terminal view and `status`. Counters count from the lab's begin; bytes are frame bytes.
 */

export interface LiveResource {
  id: string;
  /** Such as "load-balancer", "nat-gateway", "endpoint". */
  kind: string;
  vpc: string;
  /** Regional name first; none for what has no names. */
  dnsNames: string[];
  packetsFromClient: number;
  packetsFromService: number;
  bytesFromClient: number;
  bytesFromService: number;
  flowsCreated: number;
  flowsActive: number;
  portsExhausted: number;
}

export interface LiveTarget {
  group: string;
  address: string;
  port: number;
  zone: string;
  /** As in TargetHealth of the Elastic Load Balancing API. */
  state: string;
  reason?: string;
  description?: string;
  /** How long the latest health check took. */
  checkMilliseconds?: number;
}

export interface LiveEndpoint {
  id: string;
  service: string;
  vpc: string;
  state: string;
  addresses: string[];
  dnsNames: string[];
}

/** Flows with the same client, resource and service address, added up. */
export interface Talk {
  client: string;
  clientVpc: string;
  /** Id of the resource that made the flows. */
  via: string;
  service: string;
  servicePort: number;
  flows: number;
  bytes: number;
}

export interface LiveDns {
  vpc: string;
  address: string;
  queries: number;
  responses: number;
  truncated: number;
  forwarded: number;
  ignored: number;
}

export interface LiveNode {
  node: number;
  /** 0 while it is down. */
  pid: number;
  isUp: boolean;
  restarts: number;
  /** Names of the resources that it serves. */
  resources: string[];
}

export interface LiveSnapshot {
  schema: "flowplane.live/1";
  lab: string;
  /** Milliseconds since 1970. */
  timeMs: number;
  startedMs: number;
  /** Port of the page and the metrics on 127.0.0.1, where there is one. */
  httpPort?: number;
  packets: number;
  bytes: number;
  verdicts: Record<string, number>;
  flows: {
    active: number;
    activeMax: number;
    created: number;
    expired: number;
    tcp: number;
    udp: number;
    icmp: number;
    other: number;
  };
  /** Processes that share the lab's packets; nothing where there is only the lab's own. */
  nodes?: LiveNode[];
  /** What became of flows that nodes have asked about, and of frames that had to wait for that. */
  decisions?: Record<string, number>;
  /** Time that the workers' threads have spent. */
  cpu: { userMicros: number; systemMicros: number };
  resources: LiveResource[];
  targets: LiveTarget[];
  endpoints: LiveEndpoint[];
  talks: Talk[];
  dns: LiveDns[];
  webhooks: { url: string; delivered: number; retried: number; failed: number; dropped: number }[];
}

/** What the charts draw of one second. */
export interface Sample {
  timeMs: number;
  packetsPerSecond: number;
  bitsPerSecond: number;
  dropsPerSecond: number;
  flowsActive: number;
  flowsPerSecond: number;
  /** Median and longest of the targets' latest health checks, in milliseconds. */
  checkMedianMs: number | null;
  checkMostMs: number | null;
  /** Percent of one core. */
  cpuPercent: number;
}

const SAMPLES_MAX = 300;

/** The samples of the last five minutes. */
export class History {
  readonly samples: Sample[] = [];
  #last: LiveSnapshot | undefined;

  /** Adds what happened since the snapshot before; the first one only starts the counting. */
  add(snapshot: LiveSnapshot): void {
    const last = this.#last;
    this.#last = snapshot;
    if (last === undefined || snapshot.timeMs <= last.timeMs) return;
    this.samples.push(sampleOf(last, snapshot));
    if (this.samples.length > SAMPLES_MAX) this.samples.shift();
  }
}

function sampleOf(last: LiveSnapshot, now: LiveSnapshot): Sample {
  const seconds = (now.timeMs - last.timeMs) / 1000;
  const rate = (of: (snapshot: LiveSnapshot) => number) =>
    Math.max(0, (of(now) - of(last)) / seconds);
  const checks = now.targets
    .map(({ checkMilliseconds }) => checkMilliseconds)
    .filter((ms) => ms !== undefined)
    .toSorted((a, b) => a - b);
  return {
    timeMs: now.timeMs,
    packetsPerSecond: rate(({ packets }) => packets),
    bitsPerSecond: rate(({ bytes }) => 8 * bytes),
    dropsPerSecond: rate(dropped),
    flowsActive: now.flows.active,
    flowsPerSecond: rate(({ flows }) => flows.created),
    checkMedianMs: checks[checks.length >> 1] ?? null,
    checkMostMs: checks.at(-1) ?? null,
    cpuPercent: rate(({ cpu }) => cpu.userMicros + cpu.systemMicros) / 10_000,
  };
}

/** Packets of a snapshot that did not go on. */
export function dropped({ verdicts }: LiveSnapshot): number {
  const drops = Object.entries(verdicts).filter(([name]) => name.startsWith("drop."));
  return drops.reduce((sum, [, packets]) => sum + packets, 0);
}
