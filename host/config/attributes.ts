/**
 * Attributes that AWS has, under AWS's names and with AWS's defaults and ranges (Elastic Load
 * Balancing API: LoadBalancerAttribute, TargetGroupAttribute, ListenerAttribute). What depends on
 * another value, such as the defaults of a UDP target group, is left out here and settled where
 * the configuration is compiled.
 */

import type { z } from "zod";
import { integer, integerOrOff, object, oneOf, text, truth } from "./parts.ts";

const HEALTHY_COUNT_MAX = 1000;

export const targetGroupAttributes = object({
  "deregistration_delay.timeout_seconds": integer(0, 3600).default(300),
  "deregistration_delay.connection_termination.enabled": truth
    .optional()
    .describe("default: true for UDP and TCP_UDP, else false"),
  "preserve_client_ip.enabled": truth
    .optional()
    .describe("default: false for ip targets of TCP, else true"),
  "proxy_protocol_v2.enabled": truth.default(false),
  "proxy_protocol_v2.client_to_server.header_placement": oneOf(
    "on_first_ack_with_payload",
    "on_first_ack",
  ).default("on_first_ack_with_payload"),
  "stickiness.enabled": truth.default(false),
  "stickiness.type": oneOf("source_ip").default("source_ip"),
  "load_balancing.cross_zone.enabled": oneOf("true", "false", "use_load_balancer_configuration")
    .or(truth)
    .default("use_load_balancer_configuration"),
  "target_health_state.unhealthy.connection_termination.enabled": truth
    .optional()
    .describe("default: true for TCP; UDP and TCP_UDP have none"),
  "target_health_state.unhealthy.draining_interval_seconds": integer(0, 360_000).default(0),
  "target_group_health.dns_failover.minimum_healthy_targets.count": integerOrOff(
    1,
    HEALTHY_COUNT_MAX,
  ).default(1),
  "target_group_health.dns_failover.minimum_healthy_targets.percentage": integerOrOff(
    1,
    100,
  ).default("off"),
  "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": integer(
    1,
    HEALTHY_COUNT_MAX,
  ).default(1),
  "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": integerOrOff(
    1,
    100,
  ).default("off"),
});

export const loadBalancerAttributes = object({
  "load_balancing.cross_zone.enabled": truth.default(false),
  "dns_record.client_routing_policy": oneOf(
    "any_availability_zone",
    "availability_zone_affinity",
    "partial_availability_zone_affinity",
  ).default("any_availability_zone"),
  "secondary_ips.auto_assigned.per_subnet": integer(0, 7).default(0),
});

export const listenerAttributes = object({
  "tcp.idle_timeout.seconds": integer(60, 6000)
    .optional()
    .describe("default 350; TCP and TCP_UDP listeners only"),
});

export const healthCheck = object({
  enabled: truth.default(true),
  protocol: oneOf("TCP", "HTTP", "HTTPS").default("TCP"),
  port: integer(1, 65_535).or(oneOf("traffic-port")).default("traffic-port"),
  path: text(/^\/[\x21-\x7e]{0,1023}$/, "a path of 1 to 1024 characters").optional(),
  interval_seconds: integer(5, 300).default(30),
  timeout_seconds: integer(2, 120).optional().describe("default: 10, for HTTP 6"),
  healthy_threshold_count: integer(2, 10).default(5),
  unhealthy_threshold_count: integer(2, 10).default(2),
  matcher: text(
    /^[2-5]\d\d(-[2-5]\d\d)?(,[2-5]\d\d(-[2-5]\d\d)?)*$/,
    "a list of status codes and ranges from 200 to 599",
  )
    .optional()
    .describe("default 200-399; HTTP and HTTPS only"),
});

export type TargetGroupAttributes = z.output<typeof targetGroupAttributes>;
export type LoadBalancerAttributes = z.output<typeof loadBalancerAttributes>;
export type HealthCheckConfig = z.output<typeof healthCheck>;
