/**
 * A lab that lives: the data plane with its namespaces (lab/), the control plane that decides
 * (control/), an agent in every VPC (agent/), and what people see and say (control socket, page,
 * webhooks). This file joins them and holds no rule of its own.
 *
 * Every change goes one way: an action or a health check reaches the controller, which loads new
 * tables into the workers and tells of events; from the events follow the agents' zones and checks.
 * A command is answered when the workers have the tables.
 */

import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import type { NetworkConfig } from "../config/schema.ts";
import type { TimelineAction } from "../config/timeline.ts";
import { type ControlEvent, Controller, ControlRefusal } from "../control/controller.ts";
import { resourceId } from "../control/names.ts";
import type { ConnectionNotification } from "../control/notifications.ts";
import { subscribers } from "../control/notifications.ts";
import type { PolicyChange } from "../control/policy.ts";
import { afterLookup, recordName, type VerificationState } from "../control/private-dns.ts";
import { forwarder } from "../dns/forward.ts";
import { type DnsName, DnsView } from "../dns/view.ts";
import type { NetworkTables } from "../engine/network.ts";
import { ConfigError, FlowplaneError } from "../errors.ts";
import type { CheckResult } from "../health/probe.ts";
import { namespaceFile, setResolver } from "../io/namespaces.ts";
import { type Lab, raise } from "../lab/lab.ts";
import { type NetworkPlan, planOf } from "../lab/network.ts";
import { STATE_FOLDER } from "../lab/state.ts";
import { createHeaderCodec } from "../pp2/codec.ts";
import { ACTIONS, actionOf, ownNameOf, recordOf, withEndpoint } from "./actions.ts";
import { checkedTarget, checkPlans } from "./checks.ts";
import { ControlServer, type Handler } from "./control.ts";
import { EventLog, type LiveEvent } from "./events.ts";
import { labMetrics } from "./metrics.ts";
import type { LiveSnapshot } from "./snapshot.ts";
import { snapshotOf } from "./view.ts";
import { WebServer } from "./web.ts";
import { Webhook } from "./webhook.ts";
import { dnsZones, endpointNamesOf } from "./zones.ts";

export interface LiveOptions {
  /** Configuration file, for the state. */
  file?: string;
  /** pcapng that all packets are written to. */
  captureFile?: string;
  stateFolder?: string;
  onEvent?: (event: LiveEvent) => void;
  /** Gets the policies of endpoints, which layer 4 only keeps. */
  onPolicy?: (change: PolicyChange) => void;
}

const DNS_PORT = 53;

/** Where the control socket of a lab is. */
export function socketPath(name: string, stateFolder = STATE_FOLDER): string {
  return join(stateFolder, `${name}.sock`);
}

export class LiveLab {
  readonly events = new EventLog();
  readonly plan: NetworkPlan;
  readonly startedMs = Date.now();
  /** The same moment on the clock that nobody sets. */
  readonly #beganMs = performance.now();
  readonly #config: NetworkConfig;
  readonly #lab: Lab;
  readonly #header: Uint8Array;
  readonly #agents = new Map<string, Agent>();
  readonly #results = new Map<string, CheckResult>();
  readonly #own = new Map<string, DnsName[]>();
  readonly #verification = new Map<string, VerificationState>();
  readonly #keepsPrivateName = new Set<string>();
  readonly #webhooks: Webhook[];
  #controller: Controller | undefined;
  #control: ControlServer | undefined;
  #web: WebServer | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Ends when the workers have done what they were told last. */
  #loaded: Promise<unknown> = Promise.resolve();
  #isRefreshing = false;
  #stopping: Promise<void> | undefined;

  private constructor(config: NetworkConfig, plan: NetworkPlan, lab: Lab, header: Uint8Array) {
    this.#config = config;
    this.plan = plan;
    this.#lab = lab;
    this.#header = header;
    this.#webhooks = (config.lab?.webhooks ?? []).map((url) => new Webhook({ url }));
    for (const [zone, records] of Object.entries(config.lab?.dns.zones ?? {})) {
      const names = records.map((record) => recordOf(zone, record.name, record));
      this.#own.set(zone, names);
    }
  }

  /**
   * Brings a lab up: when this resolves, everything answers.
   * @throws FlowplaneError; nothing of the lab is left then
   */
  static async start(config: NetworkConfig, options: LiveOptions = {}): Promise<LiveLab> {
    const { file, captureFile, stateFolder = STATE_FOLDER } = options;
    const plan = { ...planOf(config), ...(captureFile !== undefined && { captureFile }) };
    const codec = await createHeaderCodec();
    // What AWS sends before a health check: no addresses, although the family says IPv4.
    const header = codec.encode({ local: true, transport: "tcp" });
    const hints = hintsOf(config, plan);
    const lab = await raise(plan, { hints, stateFolder, ...(file !== undefined && { file }) });
    const live = new LiveLab(config, plan, lab, header);
    try {
      await live.#start(stateFolder, options);
    } catch (error) {
      await live.stop();
      throw error;
    }
    return live;
  }

  async #start(stateFolder: string, { onEvent, onPolicy }: LiveOptions): Promise<void> {
    if (onEvent) this.events.follow(onEvent);
    this.events.follow((event) => {
      if (event.kind.startsWith("endpoint.")) for (const hook of this.#webhooks) hook.send(event);
    });
    this.#controller = new Controller(this.#config, {
      capacityMode: "drop",
      hasProxyHeaders: this.plan.proxyProtocol !== false,
      nowMs: 0,
      onEvent: (event) => this.#tell(event),
      ...(onPolicy && { onPolicy }),
      // Commands may have taken away what the timeline is about.
      onRefusal: ({ message }) => this.events.add("timeline.refused", { reason: message }),
      sink: {
        setTables: (tables) => this.#say((plane) => plane.all("setTables", this.#placed(tables))),
        terminate: (flows) => this.#say((plane) => plane.all("terminate", flows)),
      },
    });
    await this.#loaded.catch((error: Error) => {
      // What the tables have no room for is the configuration's.
      if (error.message.startsWith("room.")) throw new ConfigError(`lab.${error.message}`);
      throw error;
    });
    for (const { namespace, vpc } of this.plan.machines) {
      const host = this.plan.serviceHosts.find((one) => one.vpc === vpc);
      if (host && this.#config.vpcs[vpc]?.enable_dns_support) setResolver(namespace, host.resolver);
    }
    await Promise.all(this.plan.serviceHosts.map((host) => this.#addAgent(host)));
    this.#control = await ControlServer.listen({
      path: socketPath(this.plan.name, stateFolder),
      handlers: this.#handlers(),
      events: this.events,
    });
    await this.#addWeb();
    this.#lab.plane.onGone = (device) => this.events.add("lab.device-gone", { device });
    this.#lab.plane.onNode = ({ node, pid, isUp }) => {
      this.events.add("node.state", { node, pid, isUp });
    };
    this.#lab.plane.onCaptureEnded = (reason) => this.events.add("lab.capture-ended", { reason });
    void this.#lab.plane.failed.then((error) => {
      if (!this.#stopping) this.events.add("lab.failed", { reason: error.message });
    });
    const priorities = await this.#lab.plane.all("priority");
    const ios = await this.#lab.plane.all("io");
    this.events.add("lab.up", {
      lab: this.plan.name,
      offload: this.#lab.offload,
      io: ios.find((one) => one !== "ring") ?? "ring",
      priority: priorities.find((one) => one !== "realtime") ?? "realtime",
    });
    this.#arm();
  }

  get #running(): Controller {
    if (this.#controller === undefined) throw new FlowplaneError("lab: is not up yet");
    return this.#controller;
  }

  /** Port of the page, where the lab has one. */
  get httpPort(): number | undefined {
    return this.#web?.port;
  }

  /** Resolves when the data plane has ended by itself, with the reason. */
  get failed(): Promise<Error> {
    return this.#lab.plane.failed;
  }

  /** Milliseconds of the control plane's clock, which begins with the lab and never goes back. */
  #now(): number {
    return performance.now() - this.#beganMs;
  }

  /** Frames for a VPC leave on its port. */
  #placed(tables: NetworkTables): NetworkTables {
    const isPort = (vpc: number) => vpc < this.plan.ports.length;
    const vpcs = tables.vpcs.map((one) => (isPort(one.vpc) ? { ...one, port: one.vpc } : one));
    return { ...tables, vpcs };
  }

  #say(order: (plane: Lab["plane"]) => Promise<unknown>): void {
    const before = this.#loaded.catch(() => undefined);
    this.#loaded = Promise.all([order(this.#lab.plane), before]);
    this.#loaded.catch((error: Error) => {
      if (!this.#stopping) this.events.add("lab.failed", { reason: error.message });
    });
  }

  async #addAgent({ vpc, namespace, resolver }: NetworkPlan["serviceHosts"][number]) {
    const upstreams = this.#config.lab?.dns.forward?.map((address) => ({
      address,
      port: DNS_PORT,
    }));
    const settings = this.#config.vpcs[vpc];
    const subnets = Object.values(settings?.subnets ?? {});
    const agent = await Agent.start({
      namespace: namespaceFile(namespace),
      dnsAddresses: settings?.enable_dns_support ? [resolver] : [],
      zones: this.#zones(vpc),
      places: subnets.flatMap(({ cidr, ipv6_cidr, zone }) =>
        [cidr, ...(ipv6_cidr ? [ipv6_cidr] : [])].map((range) => ({ cidr: range, zone })),
      ),
      plans: checkPlans(this.#running.state, vpc, this.#header),
      onResult: (key, result) => this.#take(key, result),
      forward: upstreams && forwarder(upstreams),
    });
    this.#agents.set(vpc, agent);
    void agent.failed.then((error) => {
      this.events.add("lab.agent-failed", { vpc, reason: error.message });
    });
  }

  async #addWeb(): Promise<void> {
    const port = this.#config.lab?.http;
    if (port === undefined) return;
    const snapshot = () => this.snapshot();
    const scrape = await labMetrics(snapshot, this.events);
    this.#web = await WebServer.listen({ port, snapshot, scrape, events: this.events });
  }

  #zones(vpc: string) {
    return dnsZones(this.#running.state, vpc, {
      own: this.#own,
      verification: this.#verification,
      keepsPrivateName: this.#keepsPrivateName,
    });
  }

  /** Takes the outcome of a health check. */
  #take(key: string, result: CheckResult): void {
    this.#results.set(key, result);
    const { group, ...target } = checkedTarget(key);
    // A target that was deregistered meanwhile has no state to change.
    if (!this.#running.state.groups.get(group)?.target(target)) return;
    const outcome = result.isHealthy ? "pass" : result.reason;
    this.#running.check(group, target, outcome, this.#now());
    this.#arm();
  }

  /** Tells of what the controller did, and lets the agents follow. */
  #tell(event: ControlEvent): void {
    const { kind, atMs: _, ...details } = event;
    if (event.kind === "target") {
      const result = this.#results.get(`${event.group} ${event.address} ${event.port}`);
      const why = result?.isHealthy === false ? { description: result.description } : {};
      this.events.add("target.state", { ...details, ...why });
    } else if (event.kind === "endpoint") {
      const name = event.event ?? "state";
      this.events.add(`endpoint.${name}`, this.#connection(event));
    } else {
      this.events.add(`${kind}.state`, details);
    }
    this.#refresh();
  }

  #connection(event: Extract<ControlEvent, { kind: "endpoint" }>): Record<string, unknown> {
    const { id, from, to } = event;
    const common = { endpoint: id, from, to };
    const config = this.#config.endpoints[id];
    if (event.event === undefined || config === undefined) return common;
    const { regional, zonal } = endpointNamesOf(this.#running.state, id);
    const connection: ConnectionNotification = {
      schema: "flowplane.connection/1",
      event: event.event,
      time: new Date().toISOString(),
      serviceId: config.service,
      endpointId: id,
      owner: this.#config.vpcs[config.vpc]?.account ?? "",
      state: to,
      vpc: config.vpc,
      dnsNames: [regional, ...Object.values(zonal)],
    };
    const service = this.#config.endpoint_services[config.service];
    return {
      ...common,
      connection,
      notifications: subscribers(service?.notifications ?? {}, event.event),
    };
  }

  /** Brings zones and checks of all agents up to date, once for all events of a moment. */
  #refresh(): void {
    if (this.#isRefreshing) return;
    this.#isRefreshing = true;
    queueMicrotask(() => {
      this.#isRefreshing = false;
      if (this.#stopping || this.#controller === undefined) return;
      for (const [vpc, agent] of this.#agents) {
        agent.setZones(this.#zones(vpc));
        agent.setPlans(checkPlans(this.#running.state, vpc, this.#header));
      }
    });
  }

  /** Sleeps until the controller has something to do: an end of draining, the timeline. */
  #arm(): void {
    clearTimeout(this.#timer);
    const { nextMs } = this.#running;
    if (!Number.isFinite(nextMs) || this.#stopping) return;
    const waitMs = Math.min(Math.max(0, nextMs - this.#now()), 60_000);
    this.#timer = setTimeout(() => {
      this.#running.tick(this.#now());
      this.#arm();
    }, waitMs);
  }

  /** What is said of states holds for packets: their tables are in force by then. */
  async snapshot(): Promise<LiveSnapshot> {
    await this.#loaded.catch(() => undefined);
    const dns = await Promise.all(
      this.plan.serviceHosts.map(async ({ vpc, resolver }) => ({
        vpc,
        address: resolver,
        counters: await this.#agents.get(vpc)?.counters(),
      })),
    );
    const snapshot = await snapshotOf({
      lab: this.plan.name,
      startedMs: this.startedMs,
      nowMs: Date.now(),
      plane: this.#lab.plane,
      state: this.#running.state,
      compiled: this.#running.compiled,
      results: this.#results,
      dns,
      webhooks: this.#webhooks.map(({ url, counters }) => ({ url, ...counters })),
    });
    const httpPort = this.httpPort;
    return httpPort === undefined ? snapshot : { ...snapshot, httpPort };
  }

  #handlers(): Record<string, Handler> {
    const actions = ACTIONS.map((name): [string, Handler] => [
      name,
      (given) => this.#act(name, given),
    ]);
    return {
      ...Object.fromEntries(actions),
      status: () => this.snapshot(),
      events: () => this.events.latest(),
      "dns-set": (given) => this.#setName(given),
      "dns-unset": (given) => this.#unsetName(given),
      verify: (given) => this.#verify(given),
    };
  }

  /** Takes an action and answers when the workers have what follows from it. */
  async #act(name: TimelineAction, given: unknown): Promise<void> {
    const defined = name === "create" ? this.#define(given) : undefined;
    try {
      const action = actionOf(name, defined === undefined ? given : { endpoint: defined });
      this.#running.act(action, this.#now());
    } catch (error) {
      if (defined !== undefined) delete this.#config.endpoints[defined];
      if (error instanceof ControlRefusal) throw new FlowplaneError(error.message);
      throw error;
    }
    this.#arm();
    await this.#loaded;
  }

  /** Takes in an endpoint that is not in the file and comes with its definition. @returns its id */
  #define(given: unknown): string | undefined {
    const { endpoint, ...definition } = (given ?? {}) as Record<string, unknown>;
    if (typeof endpoint !== "string" || Object.keys(definition).length === 0) return undefined;
    if (Object.hasOwn(this.#config.endpoints, endpoint)) {
      throw new ConfigError(`endpoint: ${endpoint} is in the configuration already`);
    }
    const endpoints = [...this.#running.state.endpoints];
    const gone = endpoints.flatMap(([id, { state }]) => (state === "deleted" ? [id] : []));
    const checked = withEndpoint(this.#config, endpoint, definition, gone);
    const added = checked.endpoints[endpoint];
    if (added) this.#config.endpoints[endpoint] = added;
    return endpoint;
  }

  #setName(given: unknown): void {
    const { zone, entry } = ownNameOf(given);
    const others = (this.#own.get(zone) ?? []).filter(({ name }) => name !== entry.name);
    const names = [...others, entry];
    new DnsView([{ apex: zone, names }]);
    this.#own.set(zone, names);
    this.events.add("dns.set", { zone, ...entry });
    this.#refresh();
  }

  #unsetName(given: unknown): void {
    const { zone, entry } = ownNameOf(given);
    const before = this.#own.get(zone) ?? [];
    const names = before.filter(({ name }) => name !== entry.name);
    if (names.length === before.length) throw new ConfigError(`name: ${entry.name} is not there`);
    this.#own.set(zone, names);
    this.events.add("dns.unset", { zone, name: entry.name });
    this.#refresh();
  }

  /** Looks for the TXT record that proves the private DNS name of a service to be its owner's. */
  #verify(given: unknown): object {
    const id = String((given as { service?: unknown } | undefined)?.service);
    const service = this.#config.endpoint_services[id];
    if (service === undefined) throw new ConfigError(`service: there is no ${id}`);
    if (service.private_dns_name === undefined) {
      throw new ConfigError(`service: ${id} has no private_dns_name`);
    }
    const before = this.#verification.get(id) ?? service.private_dns_state;
    const proof = {
      state: before,
      name: `_${resourceId(id).slice(0, 10)}`,
      value: `vpce:${resourceId(`txt ${id}`)}`,
    };
    const record = recordName(service.private_dns_name, proof);
    const view = new DnsView([...this.#own].map(([apex, names]) => ({ apex, names })));
    const found = view.find(record);
    const texts = found.kind === "name" ? (found.entry.texts ?? []) : [];
    const state = afterLookup(proof, texts, this.#now() / 3_600_000);
    if (before === "verified" && state !== "verified") this.#keepPrivateNames(id);
    this.#verification.set(id, state);
    this.events.add("service.private-dns", { service: id, state, record });
    this.#refresh();
    return { service: id, state, record, value: proof.value };
  }

  /** Who uses a private name keeps it when its verification is lost. */
  #keepPrivateNames(service: string): void {
    for (const [id, endpoint] of Object.entries(this.#config.endpoints)) {
      const isUsed = endpoint.service === service && endpoint.private_dns_enabled;
      if (isUsed && this.#running.state.endpoints.get(id)?.state === "available") {
        this.#keepsPrivateName.add(id);
      }
    }
  }

  /** Ends everything and removes it. May be called more than once. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.events.add("lab.down", { lab: this.plan.name });
    await this.#control?.close();
    await this.#web?.close();
    await Promise.all([...this.#agents.values()].map((agent) => agent.stop()));
    await Promise.all(this.#webhooks.map((webhook) => webhook.close()));
    await this.#lab.stop();
  }
}

/** What a user may type next. */
function hintsOf(config: NetworkConfig, { machines, name }: NetworkPlan): string[] {
  const targets = Object.values(config.target_groups).flatMap(({ vpc, targets: all }) => {
    return all.map(({ address }) => `${vpc} ${address}`);
  });
  const clients = machines.filter(({ vpc, addresses }) => {
    return !addresses.some((address) => targets.includes(`${vpc} ${address}`));
  });
  const hints: string[] = [];
  for (const { namespace, vpc } of clients) {
    const endpoint = Object.values(config.endpoints).find((one) => one.vpc === vpc);
    const balancer = Object.values(config.load_balancers).find((one) => one.vpc === vpc);
    const front = Object.values(endpoint?.subnets ?? balancer?.subnets ?? {})[0]?.address;
    if (front) hints.push(`ip netns exec ${namespace} curl http://${front}/`);
  }
  hints.push(`flowplane lab status ${name}`, `flowplane lab down ${name}`);
  return hints;
}
