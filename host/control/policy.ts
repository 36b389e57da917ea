/**
 * Endpoint policies: an IAM document of at most 20,480 characters in which every statement names a
 * principal (AWS PrivateLink, "Control access using endpoint policies"). An engine of layer 4 sees
 * no actions: it keeps the policy, checks its form and offers it to a hook (`onPolicy` of the controller).
 */

export const POLICY_CHARACTERS_MAX = 20_480;

export interface PolicyStatement {
  Sid?: string;
  Effect: "Allow" | "Deny";
  Principal: unknown;
  Action?: unknown;
  NotAction?: unknown;
  Resource?: unknown;
  NotResource?: unknown;
  Condition?: unknown;
}

export interface Policy {
  Version?: string;
  Id?: string;
  Statement: PolicyStatement[];
}

/** What a hook is told of the policy of an endpoint, `removed` with the endpoint itself. */
export interface PolicyChange {
  atMs: number;
  id: string;
  change: "attached" | "replaced" | "removed";
  /** The document that is in force, or was until now. */
  policy: Policy;
}

/** What an endpoint has that was given none: everything is allowed. */
export const POLICY_DEFAULT: Policy = {
  Statement: [{ Action: "*", Effect: "Allow", Principal: "*", Resource: "*" }],
};

const STATEMENT_KEYS = [
  "Sid",
  "Effect",
  "Principal",
  "Action",
  "NotAction",
  "Resource",
  "NotResource",
  "Condition",
];

/** What is wrong with a policy, given as JSON text or as its object; undefined if nothing. */
export function policyError(policy: unknown): string | undefined {
  const text = typeof policy === "string" ? policy : JSON.stringify(policy);
  if (text.length > POLICY_CHARACTERS_MAX) {
    return `${text.length} characters are more than ${POLICY_CHARACTERS_MAX}`;
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return "is not JSON";
  }
  if (!isObject(document)) return "is not a JSON object";
  for (const key of Object.keys(document)) {
    if (!["Version", "Id", "Statement"].includes(key)) return `has the unknown element ${key}`;
  }
  const version = document.Version;
  if (version !== undefined && version !== "2012-10-17" && version !== "2008-10-17") {
    return `Version ${JSON.stringify(version)} is not 2012-10-17 or 2008-10-17`;
  }
  const statements = statementsOf(document.Statement);
  if (statements.length === 0) return "has no Statement";
  for (const [index, statement] of statements.entries()) {
    const wrong = statementError(statement);
    if (wrong) return `Statement[${index}] ${wrong}`;
  }
  return undefined;
}

/** The policy as an object. @throws TypeError when it is none */
export function parsePolicy(policy: unknown): Policy {
  const error = policyError(policy);
  if (error) throw new TypeError(`policy: ${error}`);
  const document = typeof policy === "string" ? JSON.parse(policy) : structuredClone(policy);
  return { ...document, Statement: statementsOf(document.Statement) };
}

/** AWS takes one statement for a list of one. */
function statementsOf(value: unknown): unknown[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}

function statementError(statement: unknown): string | undefined {
  if (!isObject(statement)) return "is not an object";
  const unknown = Object.keys(statement).find((key) => !STATEMENT_KEYS.includes(key));
  if (unknown !== undefined) return `has the unknown element ${unknown}`;
  if (statement.Effect !== "Allow" && statement.Effect !== "Deny") {
    return `Effect ${JSON.stringify(statement.Effect)} is not Allow or Deny`;
  }
  if (statement.Principal === undefined) return "has no Principal";
  if ((statement.Action === undefined) === (statement.NotAction === undefined)) {
    return "has not exactly one of Action and NotAction";
  }
  if ((statement.Resource === undefined) === (statement.NotResource === undefined)) {
    return "has not exactly one of Resource and NotResource";
  }
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
