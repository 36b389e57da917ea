/** Puts a lab's snapshot together from what the workers, the control plane and the agents know. */

import type { Compiled } from "../control/compile.ts";
import type { ControlState } from "../control/state.ts";
import type { DnsCounters } from "../dns/server.ts";
import type { Counters, Flow, Usage } from "../engine/api.ts";
import type { CheckResult } from "../health/probe.ts";
import type { Plane } from "../lab/plane.ts";
import type { NodeCounters } from "../nodes/undecided.ts";
import type {
  LiveDns,
  LiveEndpoint,
  LiveResource,
  LiveSnapshot,
  LiveTarget,
  Talk,
} from "./snapshot.ts";
import { balancerNamesOf, endpointNamesOf } from "./zones.ts";

/** Flows that a snapshot looks at for who talks to whom. */
const FLOWS_MAX = 2000;
const TALKS_MAX = 200;

export interface ViewSources {
  lab: string;
  startedMs: number;
  nowMs: number;
  plane: Plane;
  state: ControlState;
  compiled: Compiled;
  /** Latest results of health checks by key. */
  results: ReadonlyMap<string, CheckResult>;
  dns: readonly { vpc: string; address: string; counters: DnsCounters | undefined }[];
  webhooks: LiveSnapshot["webhooks"];
}

export async function snapshotOf(sources: ViewSources): Promise<LiveSnapshot> {
  const { plane, compiled, state } = sources;
  const ids = compiled.tables.services.map(({ id }) => id);
  const [counters, devices, cpus, usages, numbers, flows] = await Promise.all([
    plane.all("counters"),
    plane.all("devices"),
    plane.all("cpu"),
    plane.all("usages", ids),
    plane.all("serviceNumbers", ids),
    plane.all("flows", FLOWS_MAX),
  ]);
  const read = devices.flat();
  const decisions = plane.nodes.length > 0 ? await plane.all("decisions") : [];
  return {
    schema: "flowplane.live/1",
    lab: sources.lab,
    timeMs: sources.nowMs,
    startedMs: sources.startedMs,
    packets: sum(read, ({ readFrames }) => readFrames),
    bytes: sum(read, ({ readBytes }) => readBytes),
    verdicts: sumVerdicts(counters),
    flows: sumFlows(counters),
    ...(plane.nodes.length > 0 && { nodes: [...plane.nodes], decisions: totals(decisions) }),
    cpu: {
      userMicros: sum(cpus, ({ userMicros }) => userMicros),
      systemMicros: sum(cpus, ({ systemMicros }) => systemMicros),
    },
    resources: compiled.resources.map((resource) => {
      const ids = resource.services.map(({ id }) => id);
      const own = usages.flatMap((byService) => ids.flatMap((service) => byService[service] ?? []));
      return resourceOf(state, resource, own);
    }),
    targets: targetsOf(state, sources.results),
    endpoints: endpointsOf(state),
    talks: talksOf(
      flows.map((one, at) => ({ ...one, numbers: numbers[at] ?? {} })),
      sources,
    ),
    dns: sources.dns.map(
      ({ vpc, address, counters: own }): LiveDns => ({
        vpc,
        address,
        queries: own?.queries ?? 0,
        responses: own?.responses ?? 0,
        truncated: own?.truncated ?? 0,
        forwarded: own?.forwarded ?? 0,
        ignored: own?.ignored ?? 0,
      }),
    ),
    webhooks: sources.webhooks,
  };
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

/** Sums of counters by their names. */
function totals(counters: readonly (NodeCounters | undefined)[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const one of counters) {
    for (const [name, count] of Object.entries(one ?? {})) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}

function sumVerdicts(counters: readonly Counters[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const { verdicts } of counters) {
    for (const [name, packets] of Object.entries(verdicts)) {
      total[name] = (total[name] ?? 0) + packets;
    }
  }
  return total;
}

function sumFlows(counters: readonly Counters[]): LiveSnapshot["flows"] {
  const of = (key: keyof LiveSnapshot["flows"]) => sum(counters, ({ flows }) => flows[key]);
  return {
    active: of("active"),
    activeMax: of("activeMax"),
    created: of("created"),
    expired: of("expired"),
    tcp: of("tcp"),
    udp: of("udp"),
    icmp: of("icmp"),
    other: of("other"),
  };
}

function resourceOf(
  state: ControlState,
  { id, kind }: Compiled["resources"][number],
  usages: Usage[],
): LiveResource {
  return {
    id,
    kind,
    vpc: vpcOf(state, id),
    dnsNames: namesOf(state, id),
    packetsFromClient: sum(usages, (usage) => usage.packetsFromClient),
    packetsFromService: sum(usages, (usage) => usage.packetsFromService),
    bytesFromClient: sum(usages, (usage) => usage.bytesFromClient),
    bytesFromService: sum(usages, (usage) => usage.bytesFromService),
    flowsCreated: sum(usages, (usage) => usage.flowsCreated),
    flowsActive: sum(usages, (usage) => usage.flowsActive),
    portsExhausted: sum(usages, (usage) => usage.portsExhausted),
  };
}

function namesOf(state: ControlState, id: string): string[] {
  const names =
    (id in state.config.load_balancers && balancerNamesOf(state, id)) ||
    (id in state.config.endpoints && endpointNamesOf(state, id));
  return names ? [names.regional, ...Object.values(names.zonal)] : [];
}

/** The VPC that clients of a resource are in. */
function vpcOf({ config, directory }: ControlState, id: string): string {
  const subnet = config.nat_gateways[id]?.subnet ?? config.mount_targets[id]?.subnet ?? "";
  return (
    config.load_balancers[id]?.vpc ??
    config.endpoints[id]?.vpc ??
    config.gateway_endpoints[id]?.vpc ??
    directory.subnets.get(subnet)?.vpc ??
    ""
  );
}

function targetsOf(state: ControlState, results: ReadonlyMap<string, CheckResult>): LiveTarget[] {
  return [...state.groups].flatMap(([group, { targets }]) =>
    targets.map(({ address, port, zone, state: now, reason }): LiveTarget => {
      const result = results.get(`${group} ${address} ${port}`);
      return {
        group,
        address,
        port,
        zone,
        state: now,
        ...(reason && { reason }),
        ...(result && { checkMilliseconds: result.milliseconds }),
        ...(result?.isHealthy === false && { description: result.description }),
      };
    }),
  );
}

function endpointsOf(state: ControlState): LiveEndpoint[] {
  return [...state.endpoints].flatMap(([id, { state: now }]) => {
    const config = state.config.endpoints[id];
    if (config === undefined) return [];
    const { regional, zonal } = endpointNamesOf(state, id);
    return [
      {
        id,
        service: config.service,
        vpc: config.vpc,
        state: now,
        addresses: Object.values(config.subnets).map(({ address }) => address),
        dnsNames: [regional, ...Object.values(zonal)],
      },
    ];
  });
}

interface WorkerFlows {
  flows: Flow[];
  numbers: Record<string, number>;
}

/** Flows with the same client, resource and target, added up; the busiest of them. */
function talksOf(workers: readonly WorkerFlows[], { state, compiled }: ViewSources): Talk[] {
  const owners = new Map(
    compiled.resources.flatMap(({ id, services }) => services.map((one) => [one.id, id])),
  );
  const talks = new Map<string, Talk>();
  for (const { flows, numbers } of workers) {
    const ids = new Map(Object.entries(numbers).map(([id, number]) => [number, id]));
    for (const flow of flows) {
      const service = ids.get(flow.madeBy) ?? "";
      const via = owners.get(service) ?? service;
      const { address, port } = flow.translatedService;
      const key = `${via} ${flow.client.address} ${address} ${port}`;
      const talk = talks.get(key) ?? {
        client: flow.client.address,
        clientVpc: vpcOf(state, via) || via.replace(/^vpc:/, ""),
        via,
        service: address,
        servicePort: port,
        flows: 0,
        bytes: 0,
      };
      talk.flows++;
      talk.bytes += flow.bytesFromClient + flow.bytesFromService;
      talks.set(key, talk);
    }
  }
  return [...talks.values()].toSorted((a, b) => b.bytes - a.bytes).slice(0, TALKS_MAX);
}
