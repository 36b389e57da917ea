/**
 * Metrics for Prometheus. Nothing is counted twice: every value is read from the lab's snapshot
 * at the moment of a scrape. prom-client, an optional dependency, writes the text format.
 */

import type { Registry } from "prom-client";
import { FlowplaneError } from "../errors.ts";
import type { EventLog } from "./events.ts";
import type { LiveSnapshot } from "./snapshot.ts";

type Labels = Record<string, string>;
type Row = [labels: Labels, value: number];

interface Metric {
  name: string;
  help: string;
  kind: "counter" | "gauge";
  labels: string[];
  rows: (snapshot: LiveSnapshot) => Row[];
}

const MICROS = 1e-6;
const MILLIS = 1e-3;

const METRICS: Metric[] = [
  {
    name: "flowplane_up_seconds",
    help: "Time since the lab came up.",
    kind: "gauge",
    labels: [],
    rows: ({ timeMs, startedMs }) => [[{}, (timeMs - startedMs) * MILLIS]],
  },
  {
    name: "flowplane_packets_total",
    help: "Packets by verdict.",
    kind: "counter",
    labels: ["verdict"],
    rows: ({ verdicts }) => Object.entries(verdicts).map(([verdict, n]) => [{ verdict }, n]),
  },
  {
    name: "flowplane_bytes_total",
    help: "Bytes of all packets that came in.",
    kind: "counter",
    labels: [],
    rows: ({ bytes }) => [[{}, bytes]],
  },
  {
    name: "flowplane_flows_active",
    help: "Flows in the table.",
    kind: "gauge",
    labels: [],
    rows: ({ flows }) => [[{}, flows.active]],
  },
  {
    name: "flowplane_flows_created_total",
    help: "Flows by protocol.",
    kind: "counter",
    labels: ["protocol"],
    rows: ({ flows }) =>
      (["tcp", "udp", "icmp", "other"] as const).map((protocol) => [{ protocol }, flows[protocol]]),
  },
  {
    name: "flowplane_flows_expired_total",
    help: "Flows that ended by their idle timeout.",
    kind: "counter",
    labels: [],
    rows: ({ flows }) => [[{}, flows.expired]],
  },
  {
    name: "flowplane_worker_cpu_seconds_total",
    help: "Time that the data plane's threads have spent.",
    kind: "counter",
    labels: ["mode"],
    rows: ({ cpu }) => [
      [{ mode: "user" }, cpu.userMicros * MICROS],
      [{ mode: "system" }, cpu.systemMicros * MICROS],
    ],
  },
  {
    name: "flowplane_node_up",
    help: "1 for a node that carries packets, else 0.",
    kind: "gauge",
    labels: ["node"],
    rows: ({ nodes = [] }) => nodes.map(({ node, isUp }) => [{ node: `${node}` }, isUp ? 1 : 0]),
  },
  {
    name: "flowplane_node_restarts_total",
    help: "How often a node has been started anew.",
    kind: "counter",
    labels: ["node"],
    rows: ({ nodes = [] }) => nodes.map(({ node, restarts }) => [{ node: `${node}` }, restarts]),
  },
  {
    name: "flowplane_decisions_total",
    help: "Flows and waiting frames of nodes by what was decided.",
    kind: "counter",
    labels: ["outcome"],
    rows: ({ decisions = {} }) => Object.entries(decisions).map(([outcome, n]) => [{ outcome }, n]),
  },
  ...resourceMetrics(),
  {
    name: "flowplane_targets",
    help: "Targets of a group by state.",
    kind: "gauge",
    labels: ["group", "state"],
    rows: ({ targets }) => counted(targets.map(({ group, state }) => ({ group, state }))),
  },
  {
    name: "flowplane_target_healthy",
    help: "1 for a target that is healthy, else 0.",
    kind: "gauge",
    labels: ["group", "target", "zone"],
    rows: ({ targets }) =>
      targets.map(({ group, address, port, zone, state }) => [
        { group, target: hostPort(address, port), zone },
        state === "healthy" ? 1 : 0,
      ]),
  },
  {
    name: "flowplane_target_check_seconds",
    help: "How long the latest health check of a target took.",
    kind: "gauge",
    labels: ["group", "target"],
    rows: ({ targets }) =>
      targets.flatMap(({ group, address, port, checkMilliseconds }): Row[] =>
        checkMilliseconds === undefined
          ? []
          : [[{ group, target: hostPort(address, port) }, checkMilliseconds * MILLIS]],
      ),
  },
  {
    name: "flowplane_endpoints",
    help: "Endpoints of a service by state.",
    kind: "gauge",
    labels: ["service", "state"],
    rows: ({ endpoints }) => counted(endpoints.map(({ service, state }) => ({ service, state }))),
  },
  {
    name: "flowplane_dns_queries_total",
    help: "DNS queries by what became of them.",
    kind: "counter",
    labels: ["vpc", "outcome"],
    rows: ({ dns }) =>
      dns.flatMap(({ vpc, responses, truncated, forwarded, ignored }): Row[] =>
        Object.entries({ responses, truncated, forwarded, ignored }).map(([outcome, n]) => [
          { vpc, outcome },
          n,
        ]),
      ),
  },
  {
    name: "flowplane_webhook_events_total",
    help: "Events for webhooks by what became of them.",
    kind: "counter",
    labels: ["url", "outcome"],
    rows: ({ webhooks }) =>
      webhooks.flatMap(({ url, ...outcomes }): Row[] =>
        Object.entries(outcomes).map(([outcome, n]) => [{ url, outcome }, n]),
      ),
  },
];

/** What every load balancer, gateway and endpoint has. */
function resourceMetrics(): Metric[] {
  const labels = ["resource", "kind", "vpc"];
  const both = (what: "packets" | "bytes"): Metric => ({
    name: `flowplane_resource_${what}_total`,
    help: `${what === "bytes" ? "Bytes" : "Packets"} through a resource, by who sent them.`,
    kind: "counter",
    labels: [...labels, "from"],
    rows: ({ resources }) =>
      resources.flatMap(({ id: resource, kind, vpc, ...usage }): Row[] => [
        [{ resource, kind, vpc, from: "client" }, usage[`${what}FromClient`]],
        [{ resource, kind, vpc, from: "service" }, usage[`${what}FromService`]],
      ]),
  });
  const one = (name: string, help: string, kind: Metric["kind"], key: UsageKey): Metric => ({
    name,
    help,
    kind,
    labels,
    rows: ({ resources }) =>
      resources.map(({ id: resource, kind, vpc, [key]: value }) => [
        { resource, kind, vpc },
        value,
      ]),
  });
  return [
    both("packets"),
    both("bytes"),
    one("flowplane_resource_flows_active", "Flows of a resource.", "gauge", "flowsActive"),
    one(
      "flowplane_resource_flows_created_total",
      "Flows that a resource has made.",
      "counter",
      "flowsCreated",
    ),
    one(
      "flowplane_resource_ports_exhausted_total",
      "Flows refused because no source port was left.",
      "counter",
      "portsExhausted",
    ),
  ];
}

type UsageKey = "flowsActive" | "flowsCreated" | "portsExhausted";

/** How often each combination of labels occurs. */
function counted(all: Labels[]): Row[] {
  const rows = new Map<string, Row>();
  for (const labels of all) {
    const key = JSON.stringify(labels);
    const row = rows.get(key) ?? [labels, 0];
    row[1]++;
    rows.set(key, row);
  }
  return [...rows.values()];
}

export function hostPort(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Text for a scrape, and its content type. */
export interface Scrape {
  contentType: string;
  text: string;
}

/**
 * Makes the metrics of a lab. `snapshot` is asked once for each scrape.
 * @throws FlowplaneError when prom-client is not installed
 */
export async function labMetrics(
  snapshot: () => Promise<LiveSnapshot>,
  events: EventLog,
): Promise<() => Promise<Scrape>> {
  const client = await loadClient();
  const registry: Registry = new client.Registry();
  let current: LiveSnapshot;
  for (const { name, help, kind, labels, rows } of METRICS) {
    const common = { name, help, labelNames: labels, registers: [registry] };
    const collected = (set: (labels: Labels, value: number) => void, reset: () => void) => {
      reset();
      for (const [values, value] of rows(current)) set(values, value);
    };
    if (kind === "gauge") {
      new client.Gauge({
        ...common,
        collect() {
          collected(
            (values, value) => this.set(values, value),
            () => this.reset(),
          );
        },
      });
    } else {
      new client.Counter({
        ...common,
        collect() {
          collected(
            (values, value) => this.inc(values, value),
            () => this.reset(),
          );
        },
      });
    }
  }
  const happened = new client.Counter({
    name: "flowplane_events_total",
    help: "Events by kind.",
    labelNames: ["kind"],
    registers: [registry],
  });
  events.follow(({ kind }) => happened.inc({ kind }));
  return async () => {
    current = await snapshot();
    return { contentType: registry.contentType, text: await registry.metrics() };
  };
}

async function loadClient(): Promise<typeof import("prom-client")> {
  try {
    // CommonJS: everything hangs on the default export.
    const loaded = (await import("prom-client")) as unknown as {
      default: typeof import("prom-client");
    };
    return loaded.default;
  } catch (error) {
    const message = "metrics need the package prom-client: npm install prom-client";
    throw new FlowplaneError(message, { cause: error });
  }
}
