/**
 * The configuration's schema: keys, ranges and defaults, from which both the checks and the
 * JSON Schema for editors come. Attributes that AWS has carry AWS's names.
 *
 * A file has one of two forms: a `scenario` that finds its addresses in the capture, or a network
 * of VPCs and resources. What they share is `sharedShape`.
 */

import { z } from "zod";
import { lab } from "./lab.ts";
import { networkShape } from "./network.ts";
import { address, integer, list, object, SECONDS_MAX, truth, unique } from "./parts.ts";
import { resourcesShape } from "./resources.ts";
import { timeline } from "./timeline.ts";

const addresses = list(address, 16).check(unique((item: string) => item.toLowerCase()));

const target = object({
  address,
  port: integer(1, 65_535).optional().describe("default: the port that the client used"),
  weight: integer(0, 999).default(1).describe("share of new flows; 0 = none"),
});

const targets = list(target, 1000)
  .check(unique((item: z.output<typeof target>) => `${item.address} ${item.port ?? 0}`))
  .refine((all) => all.some(({ weight }) => weight > 0), {
    error: "has no target with a weight above 0",
  });

const timeouts = object({
  tcp_half_open_seconds: integer(1, SECONDS_MAX).default(30),
  "tcp.idle_timeout.seconds": integer(60, 6000).default(350),
  tcp_closing_seconds: integer(1, SECONDS_MAX).default(60),
  udp_seconds: integer(1, SECONDS_MAX).default(120),
  icmp_seconds: integer(1, SECONDS_MAX).default(60),
  other_seconds: integer(1, SECONDS_MAX).default(350),
});

const flowTable = object({
  ipv4_flows: integer(16, 60_000_000).default(1_048_576).describe("flows that can live at once"),
  ipv6_flows: integer(16, 28_000_000).default(262_144),
  seed: z
    .string({ error: "is not 32 hexadecimal digits in quotes" })
    .regex(/^[0-9a-fA-F]{32}$/, { error: "is not 32 hexadecimal digits in quotes" })
    .optional()
    .describe("16 bytes that key every hash: the same seed and capture give the same output"),
});

const sharedShape = {
  timeouts: timeouts.optional(),
  flow_table: flowTable.optional(),
};

export const scenarioSchema = object({
  scenario: z
    .enum(["nat", "nlb", "privatelink"], { error: "is not one of nat, nlb, privatelink" })
    .describe("what stands between the capture's clients and services"),
  nat: object({ addresses: addresses.optional().describe("flows leave with these") }).optional(),
  nlb: object({
    addresses: addresses.optional().describe("source of flows that come through an endpoint"),
    targets: targets.optional(),
    "proxy_protocol_v2.enabled": truth
      .optional()
      .describe("a PROXY header in every new TCP flow; default: in the scenario privatelink only"),
    "proxy_protocol_v2.client_to_server.header_placement": z
      .enum(["on_first_ack_with_payload", "on_first_ack"], {
        error: "is not one of on_first_ack_with_payload, on_first_ack",
      })
      .optional()
      .describe(
        "before the client's first payload (default), or before the handshake's last packet",
      ),
  }).optional(),
  adopt: truth.default(false).describe("TCP flows may begin in mid-stream"),
  ...sharedShape,
});

export const networkSchema = object({
  ...networkShape,
  ...resourcesShape,
  timeline: timeline.default([]),
  lab: lab.optional(),
  ...sharedShape,
});

export type ScenarioConfig = z.output<typeof scenarioSchema>;
export type NetworkConfig = z.output<typeof networkSchema>;
export type Config = ScenarioConfig | NetworkConfig;
export type TargetConfig = z.output<typeof target>;

/** The schema that a file is measured by: that of a network if it has one of its groups. */
export function schemaFor(root: unknown): typeof scenarioSchema | typeof networkSchema {
  const keys = typeof root === "object" && root !== null ? Object.keys(root) : [];
  const isNetwork = keys.some(
    (key) => Object.hasOwn(networkSchema.shape, key) && !(key in sharedShape),
  );
  return isNetwork && !keys.includes("scenario") ? networkSchema : scenarioSchema;
}

export function isNetwork(config: Config): config is NetworkConfig {
  return "vpcs" in config;
}

/** The schema for editors, JSON Schema 2020-12; what has a default may be left out. */
export function configJsonSchema(): object {
  return z.toJSONSchema(z.union([scenarioSchema, networkSchema]), { io: "input" });
}
