/**
 * The configuration's schema: keys, ranges and defaults, from which both the checks and the
 * JSON Schema for editors come. Attributes that AWS has carry AWS's names. Every object is
 * strict: a key that is not known is an error, because it is most often a misspelt one.
 *
 * An error message is the end of the sentence that begins with the value: `"x" is not an IP
 * address`. Messages about a range give both ends of it.
 */

import { z } from "zod";

const SECONDS_MAX = 86_400;

function integer(min: number, max: number) {
  const error = `is not an integer from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

function list<Item extends z.ZodType>(item: Item, max: number) {
  const error = `is not a list of 1 to ${max}`;
  return z.array(item, { error }).min(1, { error }).max(max, { error });
}

function object<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    // Unknown keys are worded where their place in the file is known.
    error: (issue) => (issue.code === "invalid_type" ? "is not a group of keys" : undefined),
  });
}

const address = z
  .union([z.ipv4(), z.ipv6()], { error: "is not an IP address" })
  .describe("IPv4 or IPv6 address");

/** Refuses a second item that means the same as an earlier one. */
function unique<Item>(meaning: (item: Item) => string) {
  return (context: z.core.ParsePayload<Item[]>) => {
    const seen = new Set<string>();
    context.value.forEach((item, index) => {
      const name = meaning(item);
      if (seen.has(name)) {
        context.issues.push({
          code: "custom",
          input: item,
          path: [index],
          message: "stands in the list twice",
        });
      }
      seen.add(name);
    });
  };
}

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

export const configSchema = object({
  scenario: z
    .enum(["nat", "nlb", "privatelink"], { error: "is not one of nat, nlb, privatelink" })
    .describe("what stands between the capture's clients and services"),
  nat: object({ addresses: addresses.optional().describe("flows leave with these") }).optional(),
  nlb: object({
    addresses: addresses.optional().describe("source of flows that come through an endpoint"),
    targets: targets.optional(),
  }).optional(),
  adopt: z
    .boolean({ error: "is not true or false" })
    .default(false)
    .describe("TCP flows may begin in mid-stream"),
  timeouts: timeouts.optional(),
  flow_table: flowTable.optional(),
});

export type Config = z.output<typeof configSchema>;
export type TargetConfig = z.output<typeof target>;

/** The schema for editors, JSON Schema 2020-12; what has a default may be left out. */
export function configJsonSchema(): object {
  return z.toJSONSchema(configSchema, { io: "input" });
}
