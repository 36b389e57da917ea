/**
 * The control plane of a network: takes what a person, a health check or a timeline does, keeps the
 * state, and loads the tables that follow from it into the engine, all at once and between batches.
 *
 * Time only comes in as `nowMs`, which never goes back. An action that is refused changes nothing.
 */
import type { NetworkConfig } from "../config/schema.ts";
import type { TimelineAction, TimelineEvent } from "../config/timeline.ts";
import type { NetworkTables } from "../engine/network.ts";
import { type Compiled, type CompileOptions, compile } from "./compile.ts";
import {
  type Actor,
  createEndpoint,
  type EndpointAction,
  EndpointRefusal,
  type EndpointState,
  stepEndpoint,
} from "./endpoints.ts";
import { eligible } from "./failover.ts";
import type { ConnectionEvent } from "./notifications.ts";
import { POLICY_DEFAULT, type PolicyChange, parsePolicy, policyError } from "./policy.ts";
import { ControlState, weightKey } from "./state.ts";
import type { CheckFailure, TargetEvent, TargetGroup, TargetKey } from "./targets.ts";

/** What the control plane moves: the engine, or the workers of a lab. */
export interface ControlSink {
  setTables(tables: NetworkTables): void;
  /** Ends flows of a service, to a target, or both: their next packet gets a RST. */
  terminate(flows: { service?: string; address?: string; port?: number }): void;
}

export type ControlEvent =
  | ({ kind: "target"; group: string } & TargetEvent)
  | {
      kind: "endpoint";
      atMs: number;
      id: string;
      from: EndpointState | "none";
      to: EndpointState;
      /** The notification that subscribers of the service get. */
      event: ConnectionEvent | undefined;
    }
  | { kind: "nat-address"; atMs: number; id: string; address: string; to: string }
  | { kind: "weight"; atMs: number; id: string; listener: string; group: string; weight: number };

/** One action of a timeline, without its time. */
export type ControlAction = Pick<TimelineEvent, TimelineAction>;

export interface ControllerOptions extends CompileOptions {
  nowMs: number;
  sink?: ControlSink;
  onEvent?: (event: ControlEvent) => void;
  /** Gets what the timeline asks for and the state does not allow; default: it is thrown. */
  onRefusal?: (refusal: ControlRefusal) => void;
  /** Gets every policy of an endpoint when it comes into force and when it ends; default none. */
  onPolicy?: (change: PolicyChange) => void;
}

/** A name that the network does not have, or an action that its state does not allow. */
export class ControlRefusal extends Error {
  override readonly name = "ControlRefusal";
}

export class Controller {
  readonly state: ControlState;
  readonly #options: ControllerOptions;
  #sink: ControlSink | undefined;
  #compiled: Compiled;
  #isChanged = false;
  #nextEvent = 0;

  constructor(config: NetworkConfig, options: ControllerOptions) {
    this.state = new ControlState(config, options.nowMs);
    this.#options = options;
    this.#compiled = compile(this.state, options);
    if (options.sink) this.attach(options.sink);
    for (const [id, policy] of this.state.policies) {
      this.#tellPolicy({ atMs: options.nowMs, id, change: "attached", policy });
    }
  }

  /** Loads the tables as they are into what moves packets, and all later ones. */
  attach(sink: ControlSink): void {
    this.#sink = sink;
    sink.setTables(this.#compiled.tables);
  }

  /** What follows from configuration and state. */
  get compiled(): Compiled {
    return this.#compiled;
  }

  /**
   * When `tick` has something to do next, infinity if never: an end of draining, an acceptance
   * that does not come, the timeline.
   */
  get nextMs(): number {
    const groups = [...this.state.groups.values()].map(({ nextMs }) => nextMs);
    const nats = [...this.state.nats.values()].map(({ nextMs }) => nextMs);
    const endpoints = [...this.state.endpoints.keys()].map((id) => this.state.expiryMs(id));
    return Math.min(this.#timelineMs, ...groups, ...nats, ...endpoints);
  }

  get #timelineMs(): number {
    const event = this.state.config.timeline[this.#nextEvent];
    return event === undefined ? Number.POSITIVE_INFINITY : event.at_seconds * 1000;
  }

  /**
   * Lets happen what is due at `nowMs`, each at its own time and in that order.
   * @throws {ControlRefusal} when the timeline asks for what the state does not allow, unless
   *   `onRefusal` gets it
   */
  tick(nowMs: number): void {
    for (let dueMs = this.nextMs; dueMs <= nowMs; dueMs = this.nextMs) {
      for (const [name, group] of this.state.groups) this.#tell(name, group.tick(dueMs));
      for (const [id, nat] of this.state.nats) {
        for (const address of nat.tick(dueMs)) this.#nat(id, address, "released", dueMs);
      }
      for (const id of this.state.endpoints.keys()) {
        if (this.state.expiryMs(id) <= dueMs) this.#step(id, "expire", dueMs);
      }
      while (this.#timelineMs <= dueMs) {
        this.#play(this.#nextEvent++, dueMs);
      }
    }
    this.#load();
  }

  #play(index: number, nowMs: number): void {
    const event = this.state.config.timeline[index];
    try {
      if (event) this.#act(event, nowMs);
    } catch (error) {
      if (!(error instanceof ControlRefusal)) throw error;
      const refusal = new ControlRefusal(`timeline[${index}]: ${error.message}`);
      if (this.#options.onRefusal === undefined) throw refusal;
      this.#options.onRefusal(refusal);
    }
  }

  /** Takes an action. @throws {ControlRefusal} */
  act(action: ControlAction, nowMs: number): void {
    this.tick(nowMs);
    this.#act(action, nowMs);
    this.#load();
  }

  /** Takes the outcome of a health check. */
  check(group: string, key: TargetKey, outcome: "pass" | CheckFailure, nowMs: number): void {
    this.tick(nowMs);
    this.#tell(group, this.#group(group).check(key, outcome, nowMs));
    this.#load();
  }

  /** Takes a step of an endpoint. @throws {ControlRefusal} when actor or state do not allow it */
  endpoint(id: string, action: EndpointAction, nowMs: number, actor?: Actor): void {
    this.tick(nowMs);
    this.#step(id, action, nowMs, actor);
    this.#load();
  }

  /**
   * Replaces the policy of an endpoint, of either kind; undefined: the one that allows everything
   * (EC2 API: ModifyVpcEndpoint, `PolicyDocument` and `ResetPolicy`). No flow depends on it.
   * @throws {ControlRefusal} when there is no such endpoint, or the document is no policy
   */
  setPolicy(id: string, document: unknown, nowMs: number): void {
    this.tick(nowMs);
    this.#setPolicy(id, document, nowMs);
  }

  #setPolicy(id: string, document: unknown, nowMs: number): void {
    if (!this.state.policies.has(id)) throw new ControlRefusal(`endpoint: there is no ${id}`);
    const wrong = document === undefined ? undefined : policyError(document);
    if (wrong) throw new ControlRefusal(`${id}: policy: ${wrong}`);
    const policy = parsePolicy(document ?? POLICY_DEFAULT);
    this.state.policies.set(id, policy);
    this.#tellPolicy({ atMs: nowMs, id, change: "replaced", policy });
  }

  #tellPolicy(change: PolicyChange): void {
    // A copy: what a hook does to its document is not done to ours.
    this.#options.onPolicy?.({ ...change, policy: structuredClone(change.policy) });
  }

  #act(action: ControlAction, nowMs: number): void {
    const { register, deregister, health, weight, policy, create, associate, disassociate } =
      action;
    if (register) {
      const group = this.#group(register.target_group);
      const vpc = this.state.config.target_groups[register.target_group]?.vpc ?? "";
      const why = this.state.directory.whyNoTarget(register.target_group, register.target);
      if (why) throw new ControlRefusal(`target: ${register.target} ${why}`);
      const zone = this.state.zoneOf(vpc, register.target);
      const key = this.#key(register);
      const events = group.register(key, zone, nowMs, register.state);
      this.#tell(register.target_group, events);
    }
    if (deregister) {
      const group = this.#group(deregister.target_group);
      const key = this.#key(deregister);
      if (!group.target(key)) throw unknownTarget(deregister.target_group, key);
      this.#tell(deregister.target_group, group.deregister(key, nowMs));
    }
    if (health) {
      const group = this.#group(health.target_group);
      const key = this.#key(health);
      if (!group.target(key)) throw unknownTarget(health.target_group, key);
      this.#tell(health.target_group, group.setHealth(key, health.state === "healthy", nowMs));
    }
    if (weight) this.#weigh(weight, nowMs);
    if (policy) this.#setPolicy(policy.endpoint, policy.document, nowMs);
    if (create) this.#create(create.endpoint, nowMs);
    for (const step of ["accept", "reject", "delete"] as const) {
      const endpoint = action[step]?.endpoint;
      if (endpoint !== undefined) this.#step(endpoint, step, nowMs);
    }
    if (associate) {
      const { nat_gateway, address } = associate;
      const why = this.state.whyNoNatAddress(nat_gateway, address);
      if (why) throw new ControlRefusal(`${nat_gateway}: ${address} ${why}`);
      this.#changeNat(associate.nat_gateway, associate.address, "associate", nowMs);
    }
    if (disassociate) {
      this.#changeNat(disassociate.nat_gateway, disassociate.address, "disassociate", nowMs);
    }
  }

  #group(name: string): TargetGroup {
    const group = this.state.groups.get(name);
    if (!group) throw new ControlRefusal(`target_group: there is no ${name}`);
    return group;
  }

  #key(item: { target_group: string; target: string; port?: number | undefined }): TargetKey {
    const port = item.port ?? this.state.config.target_groups[item.target_group]?.port ?? 0;
    return { address: item.target, port };
  }

  /** Tells events of targets, and ends the flows that have to end. */
  #tell(group: string, events: readonly TargetEvent[]): void {
    for (const event of events) {
      this.#isChanged = true;
      if (event.terminates && !this.#failsOpen(group, event)) this.#terminateTarget(group, event);
      this.#options.onEvent?.({ kind: "target", group, ...event });
    }
  }

  /** A target that made its group fail open keeps its flows, as it gets new ones. */
  #failsOpen(name: string, { to }: TargetEvent): boolean {
    if (to !== "unhealthy") return false;
    const { targets, settings } = this.#group(name);
    const isCrossZone = this.state.isCrossZone(name);
    return this.state
      .zonesUsing(name)
      .some((zone) => eligible(targets, zone, isCrossZone, settings).isFailOpen);
  }

  #terminateTarget(group: string, { address, port }: TargetKey): void {
    for (const service of this.#servicesOf(group)) {
      this.#sink?.terminate({ service, address, port });
    }
  }

  /** Services with a target group behind them, of one listener or of all. */
  #servicesOf(group: string, listener?: string): string[] {
    const services = this.#compiled.resources.flatMap((resource) => resource.services);
    return services
      .filter((one) => one.groups.includes(group) && (listener ?? one.listener) === one.listener)
      .map(({ id }) => id);
  }

  #weigh(item: NonNullable<ControlAction["weight"]>, nowMs: number): void {
    const { load_balancer: id, protocol, port, target_group: group, weight } = item;
    if (!this.state.directory.forwards(id, protocol, port, group)) {
      throw new ControlRefusal(`weight: ${id} has no listener ${protocol} ${port} with ${group}`);
    }
    this.state.weights.set(weightKey(id, protocol, port, group), weight);
    this.#isChanged = true;
    const listeners = protocol.split("_").map((word) => `${word}:${port}`);
    if (weight === 0) {
      // A group that is weighed out loses its connections as well.
      for (const { address, port: at } of this.#group(group).targets) {
        for (const listener of listeners) {
          for (const service of this.#servicesOf(group, listener)) {
            this.#sink?.terminate({ service, address, port: at });
          }
        }
      }
    }
    const listener = listeners.join(" ");
    this.#options.onEvent?.({ kind: "weight", atMs: nowMs, id, listener, group, weight });
  }

  #create(id: string, nowMs: number): void {
    const { config, endpoints, directory } = this.state;
    const endpoint = config.endpoints[id];
    if (!endpoint) throw new ControlRefusal(`endpoint: there is no ${id}`);
    const service = config.endpoint_services[endpoint.service];
    const before = endpoints.get(id)?.state ?? "deleted";
    if (before !== "deleted") throw new ControlRefusal(`${id}: exists, in the state ${before}`);
    const account = directory.config.vpcs[endpoint.vpc]?.account ?? "";
    const { to, event } = refusing(id, () =>
      createEndpoint(endpoint.principal ?? `arn:aws:iam::${account}:root`, {
        allowedPrincipals: service?.allowed_principals ?? [],
        isAcceptanceRequired: service?.acceptance_required ?? true,
      }),
    );
    endpoints.set(id, { state: to, sinceMs: nowMs, createdMs: nowMs });
    this.#isChanged = true;
    this.#options.onEvent?.({ kind: "endpoint", atMs: nowMs, id, from: "none", to, event });
    const policy = parsePolicy(endpoint.policy ?? POLICY_DEFAULT);
    this.state.policies.set(id, policy);
    this.#tellPolicy({ atMs: nowMs, id, change: "attached", policy });
    if (to === "pending") this.#step(id, "ready", nowMs);
  }

  #step(id: string, action: EndpointAction, nowMs: number, actor?: Actor): void {
    const record = this.state.endpoints.get(id);
    if (!record) throw new ControlRefusal(`endpoint: there is no ${id}`);
    const step = refusing(id, () => stepEndpoint(record.state, action, actor));
    record.state = step.to;
    record.sinceMs = nowMs;
    this.#isChanged = true;
    if (step.terminates) {
      const found = this.#compiled.resources.find((resource) => resource.id === id);
      for (const service of found?.services ?? []) this.#sink?.terminate({ service: service.id });
    }
    const { from, to, event } = step;
    this.#options.onEvent?.({ kind: "endpoint", atMs: nowMs, id, from, to, event });
    // What AWS does in between takes no time here.
    if (to === "pending") this.#step(id, "ready", nowMs);
    if (to === "deleting") this.#step(id, "gone", nowMs);
    if (to === "deleted") this.#removePolicy(id, nowMs);
  }

  #removePolicy(id: string, nowMs: number): void {
    const policy = this.state.policies.get(id);
    if (policy === undefined) return;
    this.state.policies.delete(id);
    this.#tellPolicy({ atMs: nowMs, id, change: "removed", policy });
  }

  #changeNat(
    id: string,
    address: string,
    change: "associate" | "disassociate",
    nowMs: number,
  ): void {
    const nat = this.state.nats.get(id);
    if (!nat) throw new ControlRefusal(`nat_gateway: there is no ${id}`);
    refusing(id, () => nat[change](address, nowMs));
    this.#nat(id, address, change === "associate" ? "succeeded" : "disassociating", nowMs);
  }

  #nat(id: string, address: string, to: string, nowMs: number): void {
    this.#isChanged = true;
    this.#options.onEvent?.({ kind: "nat-address", atMs: nowMs, id, address, to });
  }

  /** Compiles anew and loads the tables, if something has changed. */
  #load(): void {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    this.#compiled = compile(this.state, this.#options);
    this.#sink?.setTables(this.#compiled.tables);
  }
}

function unknownTarget(group: string, { address, port }: TargetKey): ControlRefusal {
  return new ControlRefusal(`target: ${group} has no ${address} port ${port}`);
}

/** Words a model's refusal with the name of what it is about. */
function refusing<Result>(id: string, step: () => Result): Result {
  try {
    return step();
  } catch (error) {
    const isRefusal = error instanceof EndpointRefusal || (error as Error).name === "NatRefusal";
    if (isRefusal) throw new ControlRefusal(`${id}: ${(error as Error).message}`);
    throw error;
  }
}
