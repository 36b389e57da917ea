/**
 * The obvious health of one target: its whole history is gone through anew for every question, as
 * the documentation tells it, with the outcomes since the last change kept as a list.
 */

export type Happening =
  | { atMs: number; what: "register" }
  | { atMs: number; what: "deregister" }
  | { atMs: number; what: "check"; hasPassed: boolean };

export interface HealthRules {
  healthyCount: number;
  unhealthyCount: number;
  deregistrationDelayMs: number;
  unhealthyDrainingMs: number;
  terminatesUnhealthy: boolean;
}

export interface Health {
  state: string;
  /** How often flows of the target had to be closed for being unhealthy. */
  closures: number;
}

/** The state at an instant; "none" when the target is not registered. */
export function healthAt(history: Happening[], rules: HealthRules, nowMs: number): Health {
  let state = "none";
  let sinceMs = 0;
  let outcomes: boolean[] = [];
  let closures = 0;
  const change = (to: string, atMs: number) => {
    state = to;
    sinceMs = atMs;
    outcomes = [];
  };
  const pass = (atMs: number) => {
    const endOfDrain = sinceMs + rules.deregistrationDelayMs;
    if (state === "draining" && atMs >= endOfDrain) change("none", endOfDrain);
    const endOfInterval = sinceMs + rules.unhealthyDrainingMs;
    if (state === "unhealthy.draining" && atMs >= endOfInterval) change("unhealthy", endOfInterval);
  };
  for (const one of history) {
    pass(one.atMs);
    if (one.what === "register") {
      if (state === "none" || state === "draining") change("initial", one.atMs);
    } else if (one.what === "deregister") {
      if (state !== "none" && state !== "draining") change("draining", one.atMs);
      pass(one.atMs);
    } else {
      outcomes.push(one.hasPassed);
      const last = (count: number, outcome: boolean) => {
        const end = outcomes.slice(-count);
        return end.length === count && end.every((passed) => passed === outcome);
      };
      if (state === "initial" && one.hasPassed) change("healthy", one.atMs);
      else if (state.startsWith("unhealthy") && last(rules.healthyCount, true)) {
        change("healthy", one.atMs);
      } else if (state === "initial" && last(rules.unhealthyCount, false)) {
        change("unhealthy", one.atMs);
      } else if (state === "healthy" && last(rules.unhealthyCount, false)) {
        if (rules.terminatesUnhealthy) closures++;
        const drains = !rules.terminatesUnhealthy && rules.unhealthyDrainingMs > 0;
        change(drains ? "unhealthy.draining" : "unhealthy", one.atMs);
      }
    }
  }
  pass(nowMs);
  return { state, closures };
}
