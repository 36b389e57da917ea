/**
 * What the control socket of a lab understands, beyond looking: the actions of a timeline, each
 * under its own name and with the same checks as in a file, and names in the lab's own DNS zones.
 */

import type { z } from "zod";
import { parseConfig } from "../config/config.ts";
import { dnsRecord, domain } from "../config/lab.ts";
import { pathName, shortValue, valueAt } from "../config/path.ts";
import type { Config, NetworkConfig } from "../config/schema.ts";
import { TIMELINE_ACTIONS, type TimelineAction, timeline } from "../config/timeline.ts";
import type { ControlAction } from "../control/controller.ts";
import type { DnsName } from "../dns/view.ts";
import { ConfigError } from "../errors.ts";

export const ACTIONS: readonly TimelineAction[] = TIMELINE_ACTIONS;

/** An action by its name with what a request gave. @throws ConfigError naming place and range */
export function actionOf(name: TimelineAction, given: unknown): ControlAction {
  const event = { at_seconds: 0, [name]: given };
  const parsed = timeline.safeParse([event]);
  if (!parsed.success) throw problem(parsed.error.issues, [event], 1);
  return parsed.data[0] as ControlAction;
}

/**
 * The configuration with one more endpoint, checked as a whole; endpoints of `gone` are not there
 * any more, so their addresses may be had again.
 * @throws ConfigError naming place, value and range
 */
export function withEndpoint(
  config: NetworkConfig,
  id: string,
  given: object,
  gone: readonly string[],
): NetworkConfig {
  const state = "deleted";
  const others = Object.entries(config.endpoints).filter(([other]) => !gone.includes(other));
  const endpoints = { ...Object.fromEntries(others), [id]: { ...given, state } };
  // What the timeline says of endpoints was checked with the file.
  const text = JSON.stringify({ ...config, endpoints, timeline: [] });
  return parsedAgain(text) as NetworkConfig;
}

/** Nobody knows the text that is read, so no message names a line of it. */
function parsedAgain(text: string): Config {
  try {
    return parseConfig(text, "");
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(error.message.replace(/^:\d+: /, ""));
  }
}

const ownName = dnsRecord.extend({ zone: domain });

/** A name for the lab's own zones. @throws ConfigError */
export function ownNameOf(given: unknown): { zone: string; entry: DnsName } {
  const parsed = ownName.safeParse(given);
  if (!parsed.success) throw problem(parsed.error.issues, given);
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

/** Words the first issue; `skipped` steps of its place are not the sender's. */
function problem(issues: readonly z.core.$ZodIssue[], root: unknown, skipped = 0): ConfigError {
  const [issue] = issues;
  const path = issue?.path ?? [];
  const place = pathName(path.slice(skipped)) || "arguments";
  if (issue?.code === "unrecognized_keys") {
    return new ConfigError(`${place}: has no key ${issue.keys.join(", ")}`);
  }
  const value = valueAt(root, path);
  if (value === undefined) return new ConfigError(`${place}: is missing`);
  return new ConfigError(`${place}: ${shortValue(value)} ${issue?.message}`);
}
