/**
 * Reads a configuration, YAML or JSON (which YAML contains), and checks it against the schema.
 * The first thing wrong is the error, in one line: file, line, path, value and what it may be.
 */

import { isMap, isNode, isScalar, LineCounter, type ParsedNode, parseDocument } from "yaml";
import type { z } from "zod";
import { ConfigError } from "../errors.ts";
import { networkConfigProblems } from "./checks/all.ts";
import { type Path, type Problem, pathName, shortValue, valueAt } from "./path.ts";
import { type Config, isNetwork, type ScenarioConfig, schemaFor } from "./schema.ts";

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
  if (syntaxError) fail(syntaxError.pos[0], syntaxMessage(syntaxError));
  if (document.contents === null) fail(undefined, "the file is empty");
  const root = document.contents as ParsedNode;
  const value = plainValue(document, fail);
  const schema = schemaFor(value);
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const [issue] = inFileOrder(parsed.error.issues.map(precise), root, value);
    if (issue) fail(offsetOf(root, issuePath(issue)), worded(issue, value, schema));
    throw parsed.error;
  }
  const problem = problemIn(parsed.data);
  if (problem) fail(offsetOf(root, problem.path), `${pathName(problem.path)}: ${problem.message}`);
  return parsed.data;
}

function syntaxMessage({ code, message }: { code: string; message: string }): string {
  if (code === "MULTIPLE_DOCS") return "a second document begins; a configuration is one";
  return firstLine(message);
}

/** The document as plain values; aliases may not multiply without end, nor name what they are part of. */
function plainValue(
  document: { toJS(options: { maxAliasCount: number }): unknown },
  fail: (offset: undefined, message: string) => never,
): unknown {
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return fail(undefined, firstLine((error as Error).message));
  }
  if (isPartOfItself(value)) fail(undefined, "an alias is part of what its anchor names");
  return value;
}

/** Whether a value lies inside itself; `around` are those that it lies in, `done` those that end. */
function isPartOfItself(
  value: unknown,
  around: ReadonlySet<unknown> = new Set(),
  done = new Set<unknown>(),
): boolean {
  if (typeof value !== "object" || value === null || done.has(value)) return false;
  if (around.has(value)) return true;
  const inner = new Set(around).add(value);
  const found = Object.values(value).some((part) => isPartOfItself(part, inner, done));
  done.add(value);
  return found;
}

/** What each key alone cannot say. */
function problemIn(config: Config): Problem | undefined {
  const [first] = isNetwork(config) ? networkConfigProblems(config) : scenarioProblems(config);
  return first ?? tooLarge(config);
}

function* scenarioProblems(config: ScenarioConfig): Generator<Problem> {
  const { scenario } = config;
  if (config.nlb && scenario === "nat") {
    yield { path: ["nlb"], message: "has no meaning in the scenario nat" };
  }
  if (config.nat && scenario !== "nat") {
    yield { path: ["nat"], message: `has no meaning in the scenario ${scenario}` };
  }
  if (config.nlb?.addresses && scenario === "nlb") {
    const message = "the scenario nlb keeps the client's address; only privatelink replaces it";
    yield { path: ["nlb", "addresses"], message };
  }
}

/** What the engine's memory, of 4 GiB at the most, holds: bytes of a flow with its tags and index. */
const FLOW_BYTES = 71.6;
const FLOW6_BYTES = 136.1;
const TABLE_BYTES_MAX = 2 ** 32 - 2 ** 25;

function tooLarge({ flow_table: table }: Config): Problem | undefined {
  if (!table) return undefined;
  const { ipv4_flows, ipv6_flows } = table;
  if (ipv4_flows * FLOW_BYTES + ipv6_flows * FLOW6_BYTES <= TABLE_BYTES_MAX) return undefined;
  const message = `${ipv4_flows} IPv4 and ${ipv6_flows} IPv6 flows exceed 4 GiB`;
  return { path: ["flow_table"], message };
}

/**
 * Says of a value that may be one of several kinds what is wrong inside it, where that is plain:
 * by the kind that came farthest. Of a key that is no name it says why.
 */
function precise(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code === "invalid_key") {
    const message = issue.issues[0]?.message ?? issue.message;
    return { code: "custom", path: issue.path, message, params: { isKey: true } };
  }
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.flat().filter(({ path }) => path.length > 0);
  // A key that is missing is often one that is misspelt.
  const unknown = inner.find(({ code }) => code === "unrecognized_keys");
  const deepest = unknown ?? inner.sort((a, b) => b.path.length - a.path.length)[0];
  return deepest ? precise({ ...deepest, path: [...issue.path, ...deepest.path] }) : issue;
}

/** The path of what is wrong: for unknown keys the first of them, not the group around it. */
function issuePath(issue: z.core.$ZodIssue): Path {
  if (issue.code === "unrecognized_keys") return [...issue.path, issue.keys[0] ?? ""];
  return issue.path;
}

function worded(issue: z.core.$ZodIssue, root: unknown, schema: z.ZodType): string {
  const path = issuePath(issue);
  const name = pathName(path);
  if (issue.code === "unrecognized_keys") {
    return `${name}: is not a key; known here: ${knownKeys(issue.path, schema).join(", ")}`;
  }
  if (issue.code === "custom" && issue.params?.isKey) {
    return `${name}: ${JSON.stringify(path.at(-1))} ${issue.message}`;
  }
  const value = valueAt(root, path);
  if (value === undefined) return `${name}: is missing`;
  const lead = name === "" ? "" : `${name}: `;
  return `${lead}${shortValue(value)} ${issue.message}`;
}

/** Keys that the schema has at a path; indices of lists and names are passed through. */
function knownKeys(path: Path, root: z.ZodType): string[] {
  // biome-ignore lint/suspicious/noExplicitAny: walks zod's definitions, of any kind
  let schema: any = root;
  for (const step of [...path, undefined]) {
    schema = plainSchema(schema, step);
    if (step === undefined) break;
    schema = schema.def.element ?? schema.def.valueType ?? schema.def.shape[step];
  }
  return Object.keys(schema.def.shape);
}

/** What stands inside defaults and options; of several kinds, the one that has parts. */
// biome-ignore lint/suspicious/noExplicitAny: walks zod's definitions, of any kind
function plainSchema(schema: any, step: PropertyKey | undefined): any {
  if (schema.def.innerType) return plainSchema(schema.def.innerType, step);
  if (!schema.def.options) return schema;
  // biome-ignore lint/suspicious/noExplicitAny: the same
  const kinds: any[] = schema.def.options.map((one: any) => plainSchema(one, step));
  return kinds.find(({ def }) => (typeof step === "number" ? def.element : def.shape)) ?? kinds[0];
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
