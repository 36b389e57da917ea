/**
 * Verification of a private DNS name (AWS PrivateLink: "Manage DNS names for VPC endpoint
 * services"): the provider proves with a TXT record that the domain is its own. Consumers may use
 * the name in `verified` only; when it falls back, those who use it already keep it and new
 * requests are denied.
 */

export type VerificationState = "pendingVerification" | "verified" | "failed";

export interface Verification {
  state: VerificationState;
  /** TXT record that has to stand in the domain: `NAME.DOMAIN`. */
  name: string;
  /** Its value, compared exactly, upper and lower case included. */
  value: string;
}

/** How long a verification may take. */
export const VERIFICATION_HOURS_MAX = 48;

/** The name of the record that proves a domain; a wildcard is proved by the domain above it. */
export function recordName(privateDnsName: string, verification: Pick<Verification, "name">) {
  return `${verification.name}.${privateDnsName.replace(/^\*\./, "")}`;
}

/**
 * The state after a look at the domain's TXT records. Nothing found is a failure only when the time
 * is over; a name that was verified falls back to waiting.
 */
export function afterLookup(
  { value }: Verification,
  records: readonly string[],
  hoursSinceStart: number,
): VerificationState {
  if (records.includes(value)) return "verified";
  return hoursSinceStart >= VERIFICATION_HOURS_MAX ? "failed" : "pendingVerification";
}

/** Whether a proof for one domain covers a name: the domain itself and all below it. */
export function covers(domain: string, name: string): boolean {
  const plain = name.replace(/^\*\./, "");
  return plain === domain || plain.endsWith(`.${domain}`);
}

/** Whether a consumer may use the name: `hasIt` tells that it does already. */
export function mayUse(state: VerificationState, hasIt: boolean): boolean {
  return state === "verified" || hasIt;
}

/** Whether a query's name is one that a private name, which may be a wildcard, answers. */
export function answersTo(privateDnsName: string, query: string): boolean {
  if (!privateDnsName.startsWith("*.")) return query === privateDnsName;
  const [, ...rest] = query.split(".");
  return rest.length > 0 && rest.join(".") === privateDnsName.slice(2);
}
