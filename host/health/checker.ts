/**
 * Checks many targets, each at its interval: the next check of a target begins one interval after
 * the last one began, or when that has ended, whichever is later, so that no target is ever
 * checked twice at once. First checks are spread over the interval, up to a second.
 *
 * Thresholds and states are not known here: every result goes to whoever keeps them.
 */

import type { Check, CheckResult } from "./probe.ts";

/** A check that is made again and again. The key names it in results. */
export interface CheckPlan {
  key: string;
  intervalMs: number;
  check: Check;
}

/** Time as the checker needs it; the default is the real one. */
export interface Timers {
  now(): number;
  set(run: () => void, ms: number): unknown;
  clear(timer: unknown): void;
}

export interface CheckerOptions {
  probe: (check: Check) => Promise<CheckResult>;
  onResult: (key: string, result: CheckResult) => void;
  random?: () => number;
  timers?: Timers;
}

const SPREAD_MS_MAX = 1000;

const REAL_TIMERS: Timers = {
  now: () => performance.now(),
  set: (run, ms) => setTimeout(run, ms),
  clear: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

interface Running {
  plan: CheckPlan;
  timer: unknown;
  isStopped: boolean;
}

export class Checker {
  readonly #options: CheckerOptions;
  readonly #timers: Timers;
  readonly #running = new Map<string, Running>();

  constructor(options: CheckerOptions) {
    this.#options = options;
    this.#timers = options.timers ?? REAL_TIMERS;
  }

  /** Keeps what is in the list, with its rhythm when nothing about it changed; ends the rest. */
  setPlans(plans: readonly CheckPlan[]): void {
    const wanted = new Map(plans.map((plan) => [plan.key, plan]));
    for (const [key, running] of this.#running) {
      const plan = wanted.get(key);
      if (plan && JSON.stringify(plan) === JSON.stringify(running.plan)) wanted.delete(key);
      else this.#stop(key, running);
    }
    const { random = Math.random } = this.#options;
    for (const [key, plan] of wanted) {
      const running: Running = { plan, timer: undefined, isStopped: false };
      this.#running.set(key, running);
      const spreadMs = random() * Math.min(plan.intervalMs, SPREAD_MS_MAX);
      running.timer = this.#timers.set(() => void this.#check(running), spreadMs);
    }
  }

  get count(): number {
    return this.#running.size;
  }

  /** Ends all checks; results of those under way are dropped. */
  stop(): void {
    for (const [key, running] of this.#running) this.#stop(key, running);
  }

  #stop(key: string, running: Running): void {
    running.isStopped = true;
    this.#timers.clear(running.timer);
    this.#running.delete(key);
  }

  async #check(running: Running): Promise<void> {
    const { key, intervalMs, check } = running.plan;
    const startMs = this.#timers.now();
    const result = await this.#options.probe(check);
    if (running.isStopped) return;
    this.#options.onResult(key, result);
    const restMs = Math.max(0, startMs + intervalMs - this.#timers.now());
    running.timer = this.#timers.set(() => void this.#check(running), restMs);
  }
}
