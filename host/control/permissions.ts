/**
 * Who may create endpoints to a service (AWS PrivateLink, ModifyVpcEndpointServicePermissions).
 * Nobody may at first. `*` lets everyone in; the root of an account lets in all of that account.
 */

const PRINCIPAL = /^arn:aws:iam::(\d{12}):(root|user\/.+|role\/.+)$/;

/** Whether a service with these permissions lets a principal in. */
export function isAllowed(allowed: readonly string[], principal: string): boolean {
  const [, account, kind] = PRINCIPAL.exec(principal) ?? [];
  if (account === undefined || kind === undefined) return false;
  return allowed.some((one) => {
    if (one === "*" || one === principal) return true;
    return one === `arn:aws:iam::${account}:root`;
  });
}
