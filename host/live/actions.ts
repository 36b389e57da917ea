/**
 * What the control socket of a lab understands, beyond looking: the actions of a timeline, each
 * under its own name and with the same checks as in a file, and names in the lab's own DNS zones.
 */

import { z } from "zod";
import { parseConfig } from "../config/config.ts";
import { lab } from "../config/lab.ts";
import { pathName } from "../config/path.ts";
import { isNetwork, type NetworkConfig } from "../config/schema.ts";
import { TIMELINE_ACTIONS, type TimelineAction, timeline } from "../config/timeline.ts";
import type { ControlAction } from "../control/controller.ts";
import type { DnsName } from "../dns/view.ts";
import { ConfigError } from "../errors.ts";

export const ACTIONS: readonly TimelineAction[] = TIMELINE_ACTIONS;

/** An action by its name with what a request gave. @throws ConfigError naming place and range */
export function actionOf(name: TimelineAction, given: unknown): ControlAction {
  const parsed = timeline.safeParse([{ at_seconds: 0, [name]: given }]);
  if (!parsed.success) throw problem(parsed.error.issues, 1);
  const [event] = parsed.data;
  return event as ControlAction;
}

/**
 * The configuration with one more endpoint, checked as a whole.
 * @throws ConfigError naming place, value and range
 */
export function withEndpoint(config: NetworkConfig, id: string, given: object): NetworkConfig {
  const state = "deleted";
  const endpoints = { ...config.endpoints, [id]: { ...given, state } };
  const checked = parseConfig(JSON.stringify({ ...config, endpoints }), "create");
  if (!isNetwork(checked)) throw new ConfigError("create: has no VPCs");
  return checked;
}

const ownName = z.strictObject({
  zone: lab.shape.dns.unwrap().shape.zones.unwrap().keyType,
  name: z.string({ error: "is missing" }),
  cname: z.string().optional(),
  addresses: z.array(z.union([z.ipv4(), z.ipv6()])).optional(),
  texts: z.array(z.string().max(255)).optional(),
});

/** A name for the lab's own zones. @throws ConfigError */
export function ownNameOf(given: unknown): { zone: string; entry: DnsName } {
  const parsed = ownName.safeParse(given);
  if (!parsed.success) throw problem(parsed.error.issues, 0);
  const { zone, name, ...record } = parsed.data;
  return { zone, entry: recordOf(zone, name, record) };
}

/** A record as the file and the control socket write it: `@` is the zone itself. */
export function recordOf(
  zone: string,
  name: string,
  {
    addresses,
    cname,
    texts,
  }: {
    addresses?: readonly string[] | undefined;
    cname?: string | undefined;
    texts?: readonly string[] | undefined;
  },
): DnsName {
  return {
    name: name === "@" ? zone : `${name}.${zone}`,
    ...(addresses && { addresses: addresses.map((address) => ({ address })) }),
    ...(cname !== undefined && { cname }),
    ...(texts && { texts }),
  };
}

function problem(issues: readonly z.core.$ZodIssue[], skipped: number): ConfigError {
  const [issue] = issues;
  const path = pathName(issue?.path.slice(skipped) ?? []);
  const keys = issue?.code === "unrecognized_keys" ? `: ${issue.keys.join(", ")}` : "";
  return new ConfigError(`${path || "arguments"}: ${issue?.message ?? "is wrong"}${keys}`);
}
