/**
 * Targets of a group and their health (Elastic Load Balancing API: TargetHealth).
 *
 * | state | meaning | leaves it by |
 * | --- | --- | --- |
 * | `initial` | registered, no check has passed | one pass; `unhealthyCount` failures |
 * | `healthy` | gets new flows | `unhealthyCount` failures in a row |
 * | `unhealthy` | gets none, unless the group fails open | `healthyCount` passes in a row |
 * | `unhealthy.draining` | the same, its flows go on | the same; the interval's end: `unhealthy` |
 * | `draining` | deregistered, its flows go on | the delay's end: it is gone |
 * | `unused` | its group serves no listener, or none of its zone | the group being used |
 * | `unavailable` | health checks are off: gets new flows | health checks being on |
 *
 * Time only comes in as `nowMs`, which never goes back. Nothing happens by itself: `tick` lets
 * happen what is due.
 */
import type { TargetGroupSettings } from "./settings.ts";

export type TargetState =
  | "initial"
  | "healthy"
  | "unhealthy"
  | "unhealthy.draining"
  | "unused"
  | "draining"
  | "unavailable";

/** Why a target is in its state; a healthy target has no reason. */
export type TargetReason =
  | "Elb.RegistrationInProgress"
  | "Elb.InitialHealthChecking"
  | "Target.ResponseCodeMismatch"
  | "Target.Timeout"
  | "Target.FailedHealthChecks"
  | "Target.NotRegistered"
  | "Target.NotInUse"
  | "Target.DeregistrationInProgress"
  | "Target.HealthCheckDisabled";

/** What a failed check tells about why. */
export type CheckFailure =
  | "Target.ResponseCodeMismatch"
  | "Target.Timeout"
  | "Target.FailedHealthChecks";

export interface TargetKey {
  /** IPv4 or IPv6 address in text form. */
  address: string;
  /** 1 to 65535. */
  port: number;
}

export interface TargetRecord extends TargetKey {
  /** Id of the availability zone, "all" for a target outside the VPC. */
  zone: string;
  state: TargetState;
  reason: TargetReason | undefined;
  sinceMs: number;
}

export interface TargetEvent extends TargetKey {
  atMs: number;
  from: TargetState | "none";
  to: TargetState | "none";
  reason: TargetReason | undefined;
  /** Whether the target's flows are to be closed: their next packet gets a RST. */
  terminates: boolean;
}

interface Entry extends TargetRecord {
  /** Checks in a row with the same outcome. */
  passes: number;
  failures: number;
  /** When the state ends by itself. */
  dueMs: number;
}

const NEVER_MS = Number.POSITIVE_INFINITY;

/** States that count as registered when shares of healthy targets are taken. */
const REGISTERED: readonly TargetState[] = [
  "initial",
  "healthy",
  "unhealthy",
  "unhealthy.draining",
  "unavailable",
];

export class TargetGroup {
  readonly settings: TargetGroupSettings;
  readonly #targets = new Map<string, Entry>();
  /** Whether targets of a zone can get traffic at all. */
  #isUsed: (zone: string) => boolean = () => true;

  constructor(settings: TargetGroupSettings) {
    this.settings = settings;
  }

  /** All targets, in the order of their registration; those that drain are among them. */
  get targets(): TargetRecord[] {
    return [...this.#targets.values()];
  }

  target(key: TargetKey): TargetRecord | undefined {
    return this.#targets.get(nameOf(key));
  }

  /** When `tick` has something to do next, infinity if never. */
  get nextMs(): number {
    return Math.min(NEVER_MS, ...[...this.#targets.values()].map(({ dueMs }) => dueMs));
  }

  /** Registers a target, or takes back its deregistration. Registering twice changes nothing. */
  register(key: TargetKey, zone: string, nowMs: number, state?: "healthy" | "unhealthy") {
    const before = this.#targets.get(nameOf(key));
    if (before && before.state !== "draining") return [];
    const { address, port } = key;
    const first = this.#firstState(zone, state);
    const entry: Entry = {
      address,
      port,
      zone,
      ...first,
      sinceMs: nowMs,
      passes: 0,
      failures: 0,
      dueMs: NEVER_MS,
    };
    this.#targets.set(nameOf(key), entry);
    return [eventOf(entry, before?.state ?? "none", nowMs)];
  }

  #firstState(
    zone: string,
    state: "healthy" | "unhealthy" | undefined,
  ): Pick<Entry, "state" | "reason"> {
    if (!this.#isUsed(zone)) return { state: "unused", reason: "Target.NotInUse" };
    if (!this.settings.checksHealth) {
      return { state: "unavailable", reason: "Target.HealthCheckDisabled" };
    }
    if (state === "healthy") return { state, reason: undefined };
    if (state === "unhealthy") return { state, reason: "Target.FailedHealthChecks" };
    return { state: "initial", reason: "Elb.RegistrationInProgress" };
  }

  /** Says which zones' targets can get traffic: those become `initial` that could not before. */
  setUse(isUsed: (zone: string) => boolean, nowMs: number): TargetEvent[] {
    this.#isUsed = isUsed;
    const events: TargetEvent[] = [];
    for (const entry of this.#targets.values()) {
      if (entry.state === "draining" || isUsed(entry.zone) === (entry.state !== "unused")) continue;
      const { state, reason } = this.#firstState(entry.zone, undefined);
      events.push(this.#move(entry, state, reason, nowMs));
    }
    return events;
  }

  /** Takes a target out: it drains, then it is gone. An unknown or draining one stays as it is. */
  deregister(key: TargetKey, nowMs: number): TargetEvent[] {
    const entry = this.#targets.get(nameOf(key));
    if (!entry || entry.state === "draining") return [];
    const drains = this.#move(entry, "draining", "Target.DeregistrationInProgress", nowMs);
    entry.dueMs = nowMs + this.settings.deregistrationDelayMs;
    return [drains, ...this.tick(nowMs)];
  }

  /** Takes the outcome of one health check; a failure says why. */
  check(key: TargetKey, outcome: "pass" | CheckFailure, nowMs: number): TargetEvent[] {
    const due = this.tick(nowMs);
    const entry = this.#targets.get(nameOf(key));
    if (!entry) return due;
    const hasPassed = outcome === "pass";
    entry.passes = hasPassed ? entry.passes + 1 : 0;
    entry.failures = hasPassed ? 0 : entry.failures + 1;
    const moved = hasPassed
      ? this.#afterPass(entry, nowMs)
      : this.#afterFail(entry, outcome, nowMs);
    return moved ? [...due, moved] : due;
  }

  #afterPass(entry: Entry, nowMs: number): TargetEvent | undefined {
    const { state, passes } = entry;
    const isUp =
      state === "initial" ||
      (state.startsWith("unhealthy") && passes >= this.settings.healthyCount);
    return isUp ? this.#move(entry, "healthy", undefined, nowMs) : undefined;
  }

  #afterFail(entry: Entry, reason: CheckFailure, nowMs: number): TargetEvent | undefined {
    const { state, failures } = entry;
    if (state === "initial") entry.reason = "Elb.InitialHealthChecking";
    const isDown = state === "initial" || state === "healthy";
    if (!isDown || failures < this.settings.unhealthyCount) return undefined;
    return this.#setUnhealthy(entry, reason, nowMs);
  }

  /** Turns a target healthy or unhealthy at once, as an operator or a replay's timeline says. */
  setHealth(key: TargetKey, isHealthy: boolean, nowMs: number): TargetEvent[] {
    const due = this.tick(nowMs);
    const entry = this.#targets.get(nameOf(key));
    const isDown = entry?.state.startsWith("unhealthy");
    if (!entry || ["draining", "unused", "unavailable"].includes(entry.state)) return due;
    if (isHealthy ? entry.state === "healthy" : isDown) return due;
    const moved = isHealthy
      ? this.#move(entry, "healthy", undefined, nowMs)
      : this.#setUnhealthy(entry, "Target.FailedHealthChecks", nowMs);
    return [...due, moved];
  }

  #setUnhealthy(entry: Entry, reason: TargetReason, nowMs: number): TargetEvent {
    const { terminatesUnhealthy, unhealthyDrainingMs } = this.settings;
    const hadFlows = entry.state === "healthy";
    const drains = hadFlows && !terminatesUnhealthy && unhealthyDrainingMs > 0;
    const event = this.#move(entry, drains ? "unhealthy.draining" : "unhealthy", reason, nowMs);
    if (drains) entry.dueMs = nowMs + unhealthyDrainingMs;
    event.terminates = hadFlows && terminatesUnhealthy;
    return event;
  }

  /** Lets happen what is due at `nowMs`, in the order of time. */
  tick(nowMs: number): TargetEvent[] {
    const due = [...this.#targets.values()].filter(({ dueMs }) => dueMs <= nowMs);
    return due
      .sort((a, b) => a.dueMs - b.dueMs)
      .map((entry) => {
        const atMs = entry.dueMs;
        if (entry.state === "unhealthy.draining") {
          return this.#move(entry, "unhealthy", entry.reason, atMs);
        }
        this.#targets.delete(nameOf(entry));
        const event = eventOf({ ...entry, reason: "Target.NotRegistered" }, entry.state, atMs);
        return { ...event, to: "none", terminates: this.settings.terminatesDeregistered };
      });
  }

  #move(
    entry: Entry,
    state: TargetState,
    reason: TargetReason | undefined,
    nowMs: number,
  ): TargetEvent {
    const from = entry.state;
    entry.state = state;
    entry.reason = reason;
    entry.sinceMs = nowMs;
    entry.passes = 0;
    entry.failures = 0;
    entry.dueMs = NEVER_MS;
    return eventOf(entry, from, nowMs);
  }
}

function nameOf({ address, port }: TargetKey): string {
  return `${address} ${port}`;
}

function eventOf(
  { address, port, state, reason }: TargetRecord,
  from: TargetEvent["from"],
  atMs: number,
): TargetEvent {
  return { address, port, atMs, from, to: state, reason, terminates: false };
}

/** Whether a target counts when healthy shares are taken. */
export function isRegistered({ state }: { state: TargetState }): boolean {
  return REGISTERED.includes(state);
}

/** Whether a target gets new flows by its own merits. */
export function isServing({ state }: { state: TargetState }): boolean {
  return state === "healthy" || state === "unavailable";
}
