/**
 * A target group's attributes with the defaults that depend on its protocol and target type
 * filled in (Elastic Load Balancing: "Edit target group attributes for your Network Load
 * Balancer"). Times are in milliseconds.
 */
import type { TargetGroupConfig } from "../config/resources.ts";

/** A minimum of healthy targets as a number of them, as a share in per cent, or both. */
export interface Threshold {
  /** Healthy targets below this number are too few; 0 = off. */
  count: number;
  /** Healthy targets below this share of the registered ones are too few; 0 = off. */
  percentage: number;
}

export interface TargetGroupSettings {
  /** How long a target that is deregistered keeps its flows. */
  deregistrationDelayMs: number;
  /** Whether flows that are left when the delay ends are closed. */
  terminatesDeregistered: boolean;
  /** Whether flows of a target that turns unhealthy are closed. */
  terminatesUnhealthy: boolean;
  /** How long such a target drains instead, where they are not. */
  unhealthyDrainingMs: number;
  /** Consecutive checks that turn a target healthy, unhealthy. */
  healthyCount: number;
  unhealthyCount: number;
  checksHealth: boolean;
  /** Whether the targets see the client's address. */
  preservesClient: boolean;
  isSticky: boolean;
  hasProxyHeader: boolean;
  headerPlacement: "on_first_ack_with_payload" | "on_first_ack";
  /** Whether targets of every zone serve every node; undefined: as the load balancer says. */
  isCrossZone: boolean | undefined;
  dnsFailover: Threshold;
  routingFailover: Threshold;
}

export function settingsOf(group: TargetGroupConfig): TargetGroupSettings {
  const { attributes, health_check: check, protocol, target_type } = group;
  const isTcp = protocol === "TCP";
  const crossZone = attributes["load_balancing.cross_zone.enabled"];
  const number = (value: number | "off") => (value === "off" ? 0 : value);
  const threshold = (kind: "dns_failover" | "unhealthy_state_routing"): Threshold => ({
    count: number(attributes[`target_group_health.${kind}.minimum_healthy_targets.count`]),
    percentage: number(
      attributes[`target_group_health.${kind}.minimum_healthy_targets.percentage`],
    ),
  });
  return {
    deregistrationDelayMs: attributes["deregistration_delay.timeout_seconds"] * 1000,
    terminatesDeregistered:
      attributes["deregistration_delay.connection_termination.enabled"] ?? !isTcp,
    terminatesUnhealthy:
      attributes["target_health_state.unhealthy.connection_termination.enabled"] ?? isTcp,
    unhealthyDrainingMs:
      attributes["target_health_state.unhealthy.draining_interval_seconds"] * 1000,
    healthyCount: check.healthy_threshold_count,
    unhealthyCount: check.unhealthy_threshold_count,
    checksHealth: check.enabled,
    preservesClient:
      attributes["preserve_client_ip.enabled"] ?? (target_type === "instance" || !isTcp),
    isSticky: attributes["stickiness.enabled"],
    hasProxyHeader: attributes["proxy_protocol_v2.enabled"],
    headerPlacement: attributes["proxy_protocol_v2.client_to_server.header_placement"],
    isCrossZone:
      crossZone === "use_load_balancer_configuration" ? undefined : String(crossZone) === "true",
    dnsFailover: threshold("dns_failover"),
    routingFailover: threshold("unhealthy_state_routing"),
  };
}

/** What an engine needs for the PROXY headers that target groups ask for. */
export function proxyProtocolOf(groups: Iterable<TargetGroupConfig>): boolean | "udp" {
  const asking = [...groups].filter((group) => settingsOf(group).hasProxyHeader);
  if (asking.some(({ protocol }) => protocol !== "TCP")) return "udp";
  return asking.length > 0;
}
