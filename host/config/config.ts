/**
 * Reads a configuration, YAML or JSON (which YAML contains), and checks it against the schema.
 * The first thing wrong is the error, in one line: file, line, path, value and what it may be.
 */

import { isMap, isNode, isScalar, LineCounter, type ParsedNode, parseDocument } from "yaml";
import type { z } from "zod";
import { ConfigError } from "../errors.ts";
import { type Config, configSchema } from "./schema.ts";

type Path = readonly PropertyKey[];

/**
 * The configuration in `text`; `file` is the name for messages.
 * @throws {ConfigError} at a syntax error, an unknown key, a value out of range or a contradiction
 */
export function parseConfig(text: string, file: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const fail = (offset: number | undefined, message: string): never => {
    const line = offset === undefined ? "" : `:${lines.linePos(offset).line}`;
    throw new ConfigError(`${file}${line}: ${message}`);
  };
  const [syntaxError] = document.errors;
  if (syntaxError) fail(syntaxError.pos[0], firstLine(syntaxError.message));
  if (document.contents === null) fail(undefined, "the file is empty");
  const root = document.contents as ParsedNode;
  const value = plainValue(document, fail);
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = inFileOrder(parsed.error.issues, root, value);
    if (issue) fail(offsetOf(root, issuePath(issue)), worded(issue, value));
    throw parsed.error;
  }
  const contradiction = contradictionIn(parsed.data);
  if (contradiction) fail(offsetOf(root, contradiction.path), contradiction.message);
  return parsed.data;
}

/** The document as plain values; aliases may not multiply without end. */
function plainValue(
  document: { toJS(options: { maxAliasCount: number }): unknown },
  fail: (offset: undefined, message: string) => never,
): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return fail(undefined, firstLine((error as Error).message));
  }
}

/** What each key alone cannot say. */
function contradictionIn(config: Config): { path: Path; message: string } | undefined {
  const { scenario } = config;
  if (config.nlb && scenario === "nat") {
    return { path: ["nlb"], message: "nlb: has no meaning in the scenario nat" };
  }
  if (config.nat && scenario !== "nat") {
    return { path: ["nat"], message: `nat: has no meaning in the scenario ${scenario}` };
  }
  if (config.nlb?.addresses && scenario === "nlb") {
    const reason = "the scenario nlb keeps the client's address; only privatelink replaces it";
    return { path: ["nlb", "addresses"], message: `nlb.addresses: ${reason}` };
  }
  return tooLarge(config);
}

/** What the engine's memory, of 4 GiB at the most, holds: bytes of a flow with its tags and index. */
const FLOW_BYTES = 71.4;
const FLOW6_BYTES = 136.1;
const TABLE_BYTES_MAX = 2 ** 32 - 2 ** 25;

function tooLarge({ flow_table: table }: Config): { path: Path; message: string } | undefined {
  if (!table) return undefined;
  const { ipv4_flows, ipv6_flows } = table;
  if (ipv4_flows * FLOW_BYTES + ipv6_flows * FLOW6_BYTES <= TABLE_BYTES_MAX) return undefined;
  const message = `flow_table: ${ipv4_flows} IPv4 and ${ipv6_flows} IPv6 flows exceed 4 GiB`;
  return { path: ["flow_table"], message };
}

/** The path of what is wrong: for unknown keys the first of them, not the group around it. */
function issuePath(issue: z.core.$ZodIssue): Path {
  if (issue.code === "unrecognized_keys") return [...issue.path, issue.keys[0] ?? ""];
  return issue.path;
}

function worded(issue: z.core.$ZodIssue, root: unknown): string {
  const path = issuePath(issue);
  const name = pathName(path);
  if (issue.code === "unrecognized_keys") {
    return `${name}: is not a key; known here: ${knownKeys(issue.path).join(", ")}`;
  }
  const value = valueAt(root, path);
  if (value === undefined) return `${name}: is missing`;
  const lead = name === "" ? "" : `${name}: `;
  return `${lead}${shortValue(value)} ${issue.message}`;
}

/** Keys that the schema has at a path; indices of lists are passed through. */
function knownKeys(path: Path): string[] {
  // biome-ignore lint/suspicious/noExplicitAny: walks zod's definitions, of any kind
  let schema: any = configSchema;
  for (const step of [...path, undefined]) {
    while (schema.def.innerType) schema = schema.def.innerType;
    if (step === undefined) break;
    schema = typeof step === "number" ? schema.def.element : schema.def.shape[step];
  }
  return Object.keys(schema.def.shape);
}

/** nlb.targets[0].address; a key that has dots of its own stands in brackets and quotes. */
function pathName(path: Path): string {
  return path
    .map((step) => {
      if (typeof step === "number") return `[${step}]`;
      const key = String(step);
      return key.includes(".") ? `["${key}"]` : `.${key}`;
    })
    .join("")
    .replace(/^\./, "");
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const step of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[step];
  return value;
}

function shortValue(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function firstLine(message: string): string {
  return message.split("\n")[0] ?? message;
}

/** Where the node at a path begins in the text: the key itself where the path ends in a key. */
function offsetOf(root: ParsedNode, path: Path): number | undefined {
  let node: unknown = root;
  let offset = root.range?.[0];
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === step);
      if (pair === undefined) return offset;
      offset = (isNode(pair.key) ? pair.key.range?.[0] : undefined) ?? offset;
      node = pair.value;
    } else {
      node = (node as { items?: unknown[] } | undefined)?.items?.[step as number];
      offset = (isNode(node) ? node.range?.[0] : undefined) ?? offset;
    }
  }
  return offset;
}

/** The issues from the top of the file to its end; what is missing comes last, as the reason
 * for it is often a misspelt key. */
function inFileOrder(issues: readonly z.core.$ZodIssue[], root: ParsedNode, value: unknown) {
  const place = (issue: z.core.$ZodIssue) => {
    const path = issuePath(issue);
    const isMissing = issue.code !== "unrecognized_keys" && valueAt(value, path) === undefined;
    return isMissing ? Number.POSITIVE_INFINITY : (offsetOf(root, path) ?? 0);
  };
  return [...issues].sort((a, b) => (place(a) < place(b) ? -1 : 1));
}
