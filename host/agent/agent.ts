/**
 * The agent of a VPC: what AWS runs inside every VPC and nobody sees, namely the resolver at the
 * address +2 and the health checks of load balancers. It lives in a thread of its own inside the
 * VPC's network namespace (worker.ts); this is the handle that the main thread has.
 *
 * If the thread ends by itself, `failed` tells; the data plane goes on without it.
 */

import { Worker } from "node:worker_threads";
import type { Forward } from "../dns/forward.ts";
import type { DnsCounters } from "../dns/server.ts";
import { DnsView, type DnsZone } from "../dns/view.ts";
import { FlowplaneError } from "../errors.ts";
import type { CheckPlan } from "../health/checker.ts";
import type { CheckResult } from "../health/probe.ts";
import type { AgentStart, FromAgent, ToAgent } from "./messages.ts";

export interface AgentOptions extends Omit<AgentStart, "isForwarding" | "dnsPort"> {
  dnsPort?: number;
  onResult: (key: string, result: CheckResult) => void;
  /** Asks another resolver; without it names outside the zones are refused. */
  forward?: Forward | undefined;
}

const START_MS_MAX = 20_000;
const STOP_MS_MAX = 3000;

export class Agent {
  readonly #thread: Worker;
  readonly #options: AgentOptions;
  readonly #waiting = new Map<number, (counters: DnsCounters | undefined) => void>();
  /** Resolves when the thread ends by itself, with the reason. */
  readonly failed: Promise<Error>;
  #nextId = 1;
  #isStopping = false;
  readonly #ended: Promise<void>;

  private constructor(options: AgentOptions) {
    const { onResult, forward, dnsPort = 53, ...rest } = options;
    this.#options = options;
    const start: AgentStart = { ...rest, dnsPort, isForwarding: forward !== undefined };
    const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";
    this.#thread = new Worker(new URL(file, import.meta.url), { workerData: start });
    const failed = Promise.withResolvers<Error>();
    const ended = Promise.withResolvers<void>();
    this.failed = failed.promise;
    this.#ended = ended.promise;
    let failure: Error | undefined;
    this.#thread.on("error", (error: Error) => {
      failure = error;
    });
    this.#thread.on("exit", () => {
      for (const resolve of this.#waiting.values()) resolve(undefined);
      this.#waiting.clear();
      if (!this.#isStopping) failed.resolve(failure ?? new FlowplaneError("agent: it has ended"));
      ended.resolve();
    });
  }

  /** Starts an agent and waits until it answers. @throws FlowplaneError with the reason */
  static async start(options: AgentOptions): Promise<Agent> {
    // What is wrong about names is told here, not by a thread that ends.
    new DnsView(options.zones);
    const agent = new Agent(options);
    const ready = Promise.withResolvers<void>();
    agent.#thread.on("message", (message: FromAgent) => {
      if (message.kind === "ready") ready.resolve();
      else agent.#take(message);
    });
    const timer = setTimeout(() => {
      ready.reject(new FlowplaneError("agent: it does not start"));
    }, START_MS_MAX);
    agent.failed.then((error) => {
      ready.reject(new FlowplaneError(`agent: ${error.message}`, { cause: error }));
    });
    try {
      await ready.promise;
    } catch (error) {
      await agent.stop();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return agent;
  }

  /** The next DNS answer comes from these zones. @throws ConfigError; the old ones stay then */
  setZones(zones: DnsZone[]): void {
    new DnsView(zones);
    this.#say({ kind: "zones", zones });
  }

  /** From now on these targets are checked. */
  setPlans(plans: CheckPlan[]): void {
    this.#say({ kind: "plans", plans });
  }

  /** What the DNS server has done; undefined when the thread has ended. */
  counters(): Promise<DnsCounters | undefined> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#say({ kind: "counters", id });
      void this.#ended.then(() => resolve(undefined));
    });
  }

  /** Ends the thread, by force if it does not end by itself. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#say({ kind: "stop" });
    const timer = setTimeout(() => void this.#thread.terminate(), STOP_MS_MAX);
    await this.#ended;
    clearTimeout(timer);
  }

  #say(message: ToAgent): void {
    this.#thread.postMessage(message);
  }

  #take(message: FromAgent): void {
    switch (message.kind) {
      case "result":
        if (!this.#isStopping) this.#options.onResult(message.key, message.result);
        return;
      case "forward":
        void this.#forward(message.id, message.message);
        return;
      case "counters":
        this.#waiting.get(message.id)?.(message.counters);
        this.#waiting.delete(message.id);
    }
  }

  async #forward(id: number, message: Uint8Array): Promise<void> {
    const response = await this.#options.forward?.(message);
    this.#say({ kind: "forwarded", id, response });
  }
}
