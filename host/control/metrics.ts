/**
 * CloudWatch metrics of resources under AWS's names and dimensions: `AWS/NetworkELB`,
 * `AWS/NATGateway`, `AWS/PrivateLinkEndpoints`, `AWS/PrivateLinkServices`. Values are sums or states
 * since the engine began, not by minute: whoever samples them makes minutes of them.
 *
 * Bytes are those of frames as they passed, link headers included. What a service counts once counts
 * for every resource that it works for: a flow through an endpoint is one of the endpoint, of the
 * endpoint service and of the load balancer.
 */
import type { Usage } from "../engine/api.ts";
import { type HourOfUse, nlcu } from "./billing.ts";
import type { CompiledResource, CompiledService } from "./compile.ts";
import { inScope, misses } from "./failover.ts";
import { loadBalancerDimension, serviceName, targetGroupDimension } from "./names.ts";
import type { ControlState } from "./state.ts";
import { isServing } from "./targets.ts";

export interface MetricSet {
  namespace: string;
  dimensions: Record<string, string>;
  metrics: Record<string, number>;
}

/** What has passed through a service of the tables; undefined when nothing has. */
export type UsageOf = (service: string) => Usage | undefined;

export interface MetricsInput {
  state: ControlState;
  resources: readonly CompiledResource[];
  usage: UsageOf;
}

/** Every metric of every resource, by the resource's id. */
export function metricsOf(input: MetricsInput): Map<string, MetricSet[]> {
  const all = new Map<string, MetricSet[]>();
  for (const resource of input.resources) {
    const { id, kind } = resource;
    if (kind === "network-load-balancer") all.set(id, balancerMetrics(input, id));
    if (kind === "nat-gateway") all.set(id, [natMetrics(input, id)]);
    if (kind === "vpc-endpoint") all.set(id, endpointMetrics(input, resource));
  }
  for (const id of Object.keys(input.state.config.endpoint_services)) {
    all.set(id, serviceMetrics(input, id));
  }
  return all;
}

/** Sums the numbers that `pick` takes from usages. */
function total(usages: readonly Usage[], pick: (usage: Usage) => number): number {
  return usages.reduce((sum, usage) => sum + pick(usage), 0);
}

const bytesOf = (usage: Usage) => usage.bytesFromClient + usage.bytesFromService;
const packetsOf = (usage: Usage) => usage.packetsFromClient + usage.packetsFromService;

function usagesOf({ usage }: MetricsInput, services: readonly CompiledService[]): Usage[] {
  return services.flatMap(({ id }) => usage(id) ?? []);
}

/** All services that work for a load balancer: its own nodes' and those of endpoints before it. */
function servicesOf({ state, resources }: MetricsInput, loadBalancer: string): CompiledService[] {
  const { endpoints, endpoint_services } = state.config;
  return resources.flatMap(({ id, kind, services }) => {
    if (kind === "network-load-balancer") return id === loadBalancer ? services : [];
    const service = kind === "vpc-endpoint" ? endpoints[id]?.service : undefined;
    return endpoint_services[service ?? ""]?.load_balancer === loadBalancer ? services : [];
  });
}

function balancerMetrics(input: MetricsInput, id: string): MetricSet[] {
  const { state } = input;
  const services = servicesOf(input, id);
  const zones = state.directory.zonesOf(id);
  const balancer = { LoadBalancer: loadBalancerDimension(id) };
  const set = (dimensions: Record<string, string>, metrics: Record<string, number>) => ({
    namespace: "AWS/NetworkELB",
    dimensions,
    metrics,
  });
  const groups = new Set(services.flatMap((service) => service.groups));
  return [
    set(balancer, flowMetrics(input, services)),
    ...zones.map((zone) =>
      set(
        { ...balancer, AvailabilityZone: zone },
        {
          ...flowMetrics(
            input,
            services.filter((one) => one.zone === zone),
          ),
          ZonalHealthStatus: [...groups].every((name) => isZoneHealthy(state, name, zone)) ? 1 : 0,
        },
      ),
    ),
    ...[...groups].map((name) => {
      const dimensions = { ...balancer, TargetGroup: targetGroupDimension(name) };
      return set(dimensions, hostMetrics(state, name));
    }),
  ];
}

function flowMetrics(
  input: MetricsInput,
  services: readonly CompiledService[],
): Record<string, number> {
  const usages = usagesOf(input, services);
  const sum = (pick: (usage: Usage) => number) => total(usages, pick);
  const by = (protocol: "TCP" | "UDP") =>
    usagesOf(
      input,
      services.filter((one) => one.listener?.startsWith(protocol)),
    );
  const units = { TCP: 0, UDP: 0 };
  for (const protocol of ["TCP", "UDP"] as const) {
    const lower = protocol === "TCP" ? "tcp" : "udp";
    const hour: HourOfUse = {
      newFlows: sum((usage) => usage[lower].created),
      activeSamples: [sum((usage) => usage[lower].active)],
      bytes: total(by(protocol), bytesOf),
    };
    units[protocol] = nlcu(protocol, hour);
  }
  return {
    ActiveFlowCount: sum((usage) => usage.flowsActive),
    ActiveFlowCount_TCP: sum((usage) => usage.tcp.active),
    ActiveFlowCount_UDP: sum((usage) => usage.udp.active),
    NewFlowCount: sum((usage) => usage.flowsCreated),
    NewFlowCount_TCP: sum((usage) => usage.tcp.created),
    NewFlowCount_UDP: sum((usage) => usage.udp.created),
    ProcessedBytes: sum(bytesOf),
    ProcessedBytes_TCP: total(by("TCP"), bytesOf),
    ProcessedBytes_UDP: total(by("UDP"), bytesOf),
    ProcessedPackets: sum(packetsOf),
    ConsumedLCUs: units.TCP + units.UDP,
    ConsumedLCUs_TCP: units.TCP,
    ConsumedLCUs_UDP: units.UDP,
    PortAllocationErrorCount: sum((usage) => usage.portsExhausted),
    RejectedFlowCount: sum((usage) => usage.flowsRefused),
    RejectedFlowCount_TCP: total(by("TCP"), (usage) => usage.flowsRefused),
    TCP_Client_Reset_Count: sum((usage) => usage.resets.client),
    TCP_ELB_Reset_Count: sum((usage) => usage.resets.made),
    TCP_Target_Reset_Count: sum((usage) => usage.resets.service),
    UnhealthyRoutingFlowCount: sum((usage) => usage.flowsFailOpen),
    SecurityGroupBlockedFlowCount_Inbound_TCP: sum((usage) => usage.blocked.inbound.tcp),
    SecurityGroupBlockedFlowCount_Inbound_UDP: sum((usage) => usage.blocked.inbound.udp),
    SecurityGroupBlockedFlowCount_Inbound_ICMP: sum((usage) => usage.blocked.inbound.other),
    SecurityGroupBlockedFlowCount_Outbound_TCP: sum((usage) => usage.blocked.outbound.tcp),
    SecurityGroupBlockedFlowCount_Outbound_UDP: sum((usage) => usage.blocked.outbound.udp),
    SecurityGroupBlockedFlowCount_Outbound_ICMP: sum((usage) => usage.blocked.outbound.other),
  };
}

function isZoneHealthy(state: ControlState, name: string, zone: string): boolean {
  const group = state.groups.get(name);
  if (!group) return false;
  const { targets, settings } = group;
  const scope = inScope(targets, zone, state.isCrossZone(name));
  return !misses(settings.dnsFailover, scope);
}

function hostMetrics(state: ControlState, name: string): Record<string, number> {
  const targets = state.groups.get(name)?.targets ?? [];
  const count = (isCounted: (target: (typeof targets)[number]) => boolean) =>
    targets.filter(isCounted).length;
  return {
    HealthyHostCount: count(isServing),
    UnHealthyHostCount: count(({ state: one }) => one.startsWith("unhealthy")),
  };
}

function natMetrics(input: MetricsInput, id: string): MetricSet {
  const usage = input.usage(id);
  const read = (pick: (usage: Usage) => number) => (usage ? pick(usage) : 0);
  return {
    namespace: "AWS/NATGateway",
    dimensions: { NatGatewayId: id },
    metrics: {
      ActiveConnectionCount: read((one) => one.tcp.active),
      BytesInFromDestination: read((one) => one.bytesFromService),
      BytesInFromSource: read((one) => one.bytesFromClient),
      BytesOutToDestination: read((one) => one.bytesToService),
      BytesOutToSource: read((one) => one.bytesToClient),
      ConnectionAttemptCount: read((one) => one.tcp.created),
      ConnectionEstablishedCount: read((one) => one.established),
      ErrorPortAllocation: read((one) => one.portsExhausted),
      IdleTimeoutCount: read((one) => one.idleTimeouts),
      PacketsDropCount: read((one) => one.packetsDropped),
      PacketsInFromDestination: read((one) => one.packetsFromService),
      PacketsInFromSource: read((one) => one.packetsFromClient),
      PacketsOutToDestination: read((one) => one.packetsFromClient),
      PacketsOutToSource: read((one) => one.packetsFromService),
    },
  };
}

function endpointMetrics(input: MetricsInput, { id, services }: CompiledResource): MetricSet[] {
  const { config, directory } = input.state;
  const endpoint = config.endpoints[id];
  if (!endpoint) return [];
  const service = config.endpoint_services[endpoint.service];
  return Object.keys(endpoint.subnets).map((subnet) => {
    const zone = directory.subnets.get(subnet)?.zone;
    const usages = usagesOf(
      input,
      services.filter((one) => one.zone === zone),
    );
    const sum = (pick: (usage: Usage) => number) => total(usages, pick);
    return {
      namespace: "AWS/PrivateLinkEndpoints",
      dimensions: {
        "VPC Id": endpoint.vpc,
        "VPC Endpoint Id": id,
        "Endpoint Type": "Interface",
        "Subnet Id": subnet,
        "Service Name": service?.service_name ?? serviceName(endpoint.service, config.region),
      },
      metrics: {
        ActiveConnections: sum((usage) => usage.flowsActive),
        BytesProcessed: sum(bytesOf),
        NewConnections: sum((usage) => usage.flowsCreated),
        PacketsDropped: sum((usage) => usage.packetsDropped),
        RstPacketsReceived: sum((usage) => usage.resets.service),
      },
    };
  });
}

function serviceMetrics(input: MetricsInput, id: string): MetricSet[] {
  const { config, directory, endpoints } = input.state;
  const balancer = config.endpoint_services[id]?.load_balancer ?? "";
  const attached = input.resources.filter((resource) => {
    return resource.kind === "vpc-endpoint" && config.endpoints[resource.id]?.service === id;
  });
  const count = attached.filter((one) => endpoints.get(one.id)?.state === "available").length;
  const set = (dimensions: Record<string, string>, services: CompiledService[]): MetricSet => {
    const usages = usagesOf(input, services);
    const sum = (pick: (usage: Usage) => number) => total(usages, pick);
    return {
      namespace: "AWS/PrivateLinkServices",
      dimensions: { "Service Id": id, ...dimensions },
      metrics: {
        ActiveConnections: sum((usage) => usage.flowsActive),
        BytesProcessed: sum(bytesOf),
        EndpointsCount: count,
        NewConnections: sum((usage) => usage.flowsCreated),
        RstPacketsSent: sum((usage) => usage.resets.service + usage.resets.made),
      },
    };
  };
  const all = attached.flatMap(({ services }) => services);
  const arn = `loadbalancer/${loadBalancerDimension(balancer)}`;
  return [
    set({ "Load Balancer Arn": arn }, all),
    ...directory.zonesOf(balancer).map((zone) =>
      set(
        { Az: zone, "Load Balancer Arn": arn },
        all.filter((one) => one.zone === zone),
      ),
    ),
    ...attached.map((one) => set({ "VPC Endpoint Id": one.id }, one.services)),
  ];
}
