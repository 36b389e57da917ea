/**
 * The schema of control events on a clock: what a person or a health check would do while packets
 * pass. In a replay the clock is the capture's, and second 0 is its first packet.
 */

import { z } from "zod";
import { address, address4, integer, list, name, object, oneOf, policy } from "./parts.ts";

const AT_SECONDS_MAX = 4_000_000;

const oneTarget = {
  target_group: name,
  target: address,
  port: integer(1, 65_535).optional().describe("default: the port of the group"),
};

const event = object({
  at_seconds: z
    .number({ error: `is not a number from 0 to ${AT_SECONDS_MAX}` })
    .min(0, { error: `is not a number from 0 to ${AT_SECONDS_MAX}` })
    .max(AT_SECONDS_MAX, { error: `is not a number from 0 to ${AT_SECONDS_MAX}` }),
  register: object({ ...oneTarget, state: oneOf("healthy", "unhealthy").optional() })
    .optional()
    .describe("without a state, health checks decide"),
  deregister: object(oneTarget).optional(),
  health: object({ ...oneTarget, state: oneOf("healthy", "unhealthy") }).optional(),
  weight: object({
    load_balancer: name,
    port: integer(1, 65_535),
    protocol: oneOf("TCP", "UDP", "TCP_UDP"),
    target_group: name,
    weight: integer(0, 999),
  }).optional(),
  create: object({ endpoint: name }).optional(),
  accept: object({ endpoint: name }).optional(),
  reject: object({ endpoint: name }).optional(),
  delete: object({ endpoint: name }).optional(),
  policy: object({ endpoint: name, document: policy.optional() })
    .optional()
    .describe("of an endpoint of either kind; without a document, the one that allows everything"),
  associate: object({ nat_gateway: name, address: address4 }).optional(),
  disassociate: object({ nat_gateway: name, address: address4 }).optional(),
});

export type TimelineEvent = z.output<typeof event>;
export type TimelineAction = Exclude<keyof TimelineEvent, "at_seconds">;

export const TIMELINE_ACTIONS = Object.keys(event.shape).filter(
  (key) => key !== "at_seconds",
) as TimelineAction[];

export const timeline = list(event, 10_000, 0).check((context) => {
  for (const [index, item] of context.value.entries()) {
    const actions = TIMELINE_ACTIONS.filter((action) => item[action] !== undefined);
    if (actions.length === 1) continue;
    const message = `has ${actions.length} actions instead of one of ${TIMELINE_ACTIONS.join(", ")}`;
    context.issues.push({ code: "custom", input: item, path: [index], message });
  }
});
