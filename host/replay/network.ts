/**
 * A replay through a network: its tables instead of a scenario's services, and its timeline on the
 * capture's clock.
 *
 * While something is due on that clock, batches are of one frame, so that it happens exactly
 * between the frames before it and those at or after it. Later passes find what the first has left.
 */
import type { FrameSource } from "../capture/source.ts";
import type { NetworkConfig } from "../config/schema.ts";
import { billLine } from "../control/billing.ts";
import type { CompiledResource, CompiledService } from "../control/compile.ts";
import { type ControlEvent, Controller } from "../control/controller.ts";
import { metricsOf } from "../control/metrics.ts";
import { vpcNumbers } from "../control/routes.ts";
import type { PortOptions, Usage } from "../engine/api.ts";
import type { Engine } from "../engine/engine.ts";
import type { NetworkTables } from "../engine/network.ts";
import { definePorts, WORD_TIME } from "./batch.ts";
import { EngineDecider, type PassCounts } from "./decider.ts";
import { ResourceMeter, unitsFor } from "./resource-meter.ts";
import type { ResourceResult } from "./result.ts";

/** VPC of interfaces that the configuration does not name: nothing is routed there. */
const NOWHERE = 0xffff;

/** A network as the replay takes it. */
export class NetworkReplay {
  readonly config: NetworkConfig;
  readonly #numbers: ReadonlyMap<string, number>;
  /** What the timeline did, in the first pass. */
  readonly events: ControlEvent[] = [];

  constructor(config: NetworkConfig) {
    this.config = config;
    this.#numbers = vpcNumbers(config);
  }

  /** Puts the network before an engine that has seen no frame. */
  decider(engine: Engine): NetworkDecider {
    this.events.length = 0;
    return new NetworkDecider(engine, this);
  }

  /** Number of a VPC, and its name. */
  numberOf(vpc: string): number {
    return this.#numbers.get(vpc) ?? NOWHERE;
  }

  nameOf(number: number): string | undefined {
    return [...this.#numbers].find(([, one]) => one === number)?.[0];
  }

  /** The port that an interface of the capture is. */
  port(interfaceNumber: number): PortOptions {
    const { ports } = this.config;
    const found = ports.find((one) => one.interface === interfaceNumber && one.vlan === undefined);
    // A network of one VPC need not say where frames come in.
    const [only] = ports.length === 0 ? Object.keys(this.config.vpcs) : [];
    const name = found?.access === "direct_connect" ? `direct-connect:${found.vpc}` : found?.vpc;
    return { vpc: this.#numbers.get(name ?? only ?? "") ?? NOWHERE, routed: true };
  }

  /** Tags of an interface's frames that stand for VPCs. */
  vlans(interfaceNumber: number): { vlan: number; vpc: number }[] {
    return this.config.ports.flatMap(({ interface: of = interfaceNumber, vlan, vpc, access }) => {
      if (vlan === undefined || of !== interfaceNumber) return [];
      const name = access === "direct_connect" ? `direct-connect:${vpc}` : vpc;
      return [{ vlan, vpc: this.#numbers.get(name) ?? NOWHERE }];
    });
  }
}

/** Bytes that an image of tables takes at the most; a ring has up to 400 entries a target. */
export function imageBytes({ services, vpcs, rules = {} }: NetworkTables): number {
  const ring = (targets: number) => Math.min(131_074, Math.max(2042, targets * 800));
  const ofServices = services.reduce((sum, { targets = [], sources = [] }) => {
    return sum + 1024 + targets.length * 192 + sources.length * 32 + 2 * ring(targets.length);
  }, 0);
  const ofRules = Object.values(rules).reduce((sum, list) => sum + 256 + list.length * 64, 0);
  const entries = vpcs.reduce((sum, { addresses = [], routeTables = [], subnets = [] }) => {
    const listeners = addresses.reduce((all, one) => all + (one.listeners?.length ?? 0), 0);
    return sum + 8 + addresses.length + listeners + subnets.length + routeTables.flat().length;
  }, 0);
  // Directories are at most half full and grow by doubling.
  return 2 ** Math.ceil(Math.log2((1 << 18) + ofServices + ofRules + entries * 128));
}

/** Decides frames by a network's tables, and moves its control plane along the capture's clock. */
export class NetworkDecider extends EngineDecider {
  readonly controller: Controller;
  readonly #network: NetworkReplay;
  readonly #meter: ResourceMeter;
  /** Every resource and service that there has been: what is gone is still reported. */
  readonly #resources = new Map<string, CompiledResource>();
  readonly #services = new Map<string, number>();
  #portCount = 0;
  #nowMs = 0;
  #latestMs = 0;

  constructor(engine: Engine, network: NetworkReplay) {
    super(engine);
    this.#network = network;
    this.#meter = new ResourceMeter(engine);
    this.controller = new Controller(network.config, {
      nowMs: 0,
      capacityMode: "report",
      hasProxyHeaders: true,
      onEvent: (event) => network.events.push(event),
    });
    this.controller.attach({
      setTables: (tables) => this.#load(tables),
      terminate: (flows) => engine.terminate(flows),
    });
  }

  #load(tables: NetworkTables): void {
    this.batch.setTables(tables);
    for (const resource of this.controller.compiled.resources) {
      const before = this.#resources.get(resource.id)?.services ?? [];
      const ids = new Set(resource.services.map(({ id }) => id));
      const services = [...before.filter(({ id }) => !ids.has(id)), ...resource.services];
      this.#resources.set(resource.id, { ...resource, services });
    }
    for (const { id } of tables.services) {
      const number = this.batch.serviceNumber(id);
      if (number !== undefined) this.#services.set(id, number);
    }
    const owners: string[][] = [];
    for (const { id: resource, services } of this.#resources.values()) {
      for (const { id } of services) {
        const number = this.#services.get(id);
        if (number !== undefined) owners[number] = this.#ownersOf(resource);
      }
    }
    this.#meter.name(owners);
  }

  /** A resource, and what stands behind it when it is an endpoint. */
  #ownersOf(id: string): string[] {
    const { endpoints, endpoint_services } = this.#network.config;
    const service = endpoints[id]?.service;
    const balancer = endpoint_services[service ?? ""]?.load_balancer;
    return [id, service, balancer].filter((one) => one !== undefined);
  }

  /** The id of the service with a number, as long as anybody knows it. */
  serviceId(number: number): string | undefined {
    return [...this.#services].findLast(([, one]) => one === number)?.[0];
  }

  /** The resource that a service works or worked for, and the service. */
  ownerOf(id: string): { resource: string; service: CompiledService } | undefined {
    for (const { id: resource, services } of this.#resources.values()) {
      const service = services.find((one) => one.id === id);
      if (service) return { resource, service };
    }
    return undefined;
  }

  get batchMax(): number {
    return Number.isFinite(this.controller.nextMs) ? 1 : Number.MAX_SAFE_INTEGER;
  }

  override prepare(source: FrameSource): void {
    const first = this.#portCount;
    const rule = (port: number) => this.#network.port(port);
    this.#portCount = definePorts(this.batch, source, first, rule);
    for (let port = first; port < this.#portCount; port++) {
      const { vpc = 0 } = this.#network.port(port);
      for (const one of this.#network.vlans(port)) this.batch.setVlan(vpc, one.vlan, one.vpc);
    }
  }

  /** Moves the control plane to the time of the batch's first frame. */
  advance(): void {
    this.#nowMs += ((this.batch.descriptors[WORD_TIME] as number) - this.#nowMs) | 0;
    this.#latestMs = Math.max(this.#latestMs, this.#nowMs);
    this.controller.tick(this.#latestMs);
  }

  override process(count: number): undefined {
    this.advance();
    return super.process(count);
  }

  measure(count: number): void {
    this.#meter.measure(count);
  }

  override finish(nowMs: number): PassCounts {
    const counts = super.finish(nowMs);
    return { ...counts, resources: this.#results(nowMs) };
  }

  #usage(service: string): Usage | undefined {
    const number = this.#services.get(service);
    return number === undefined ? undefined : this.batch.usage(number);
  }

  #results(nowMs: number): ResourceResult[] {
    const resources = [...this.#resources.values()];
    const { state } = this.controller;
    const metrics = metricsOf({ state, resources, usage: (id) => this.#usage(id) });
    const services = Object.keys(this.#network.config.endpoint_services);
    const results = resources.map((one) => this.#result(one.id, one.kind, metrics));
    for (const id of services) results.push(this.#result(id, "endpoint-service", metrics));
    for (const result of results) {
      const endpoint = state.config.endpoints[result.id];
      const record = state.endpoints.get(result.id);
      if (!endpoint || !record) continue;
      const owner = state.config.vpcs[endpoint.vpc]?.account ?? "";
      const line = { endpointId: result.id, serviceId: endpoint.service, owner };
      const zones = Object.keys(endpoint.subnets).length;
      const { zoneHours, gigabytes } = billLine(line, zones, record.createdMs, nowMs, result.bytes);
      result.bill = { zoneHours, gigabytes };
    }
    return results;
  }

  #result(
    id: string,
    kind: ResourceResult["kind"],
    metrics: ReturnType<typeof metricsOf>,
  ): ResourceResult {
    const usages = [...this.#resources.values()]
      .filter((one) => this.#ownersOf(one.id).includes(id))
      .flatMap(({ services }) => services.flatMap((one) => this.#usage(one.id) ?? []));
    const sum = (pick: (usage: Usage) => number) =>
      usages.reduce((total, usage) => total + pick(usage), 0);
    const course = this.#meter.close(id);
    for (const { namespace, metrics: values } of metrics.get(id) ?? []) {
      if (namespace !== "AWS/NetworkELB" && namespace !== "AWS/NATGateway") continue;
      values.PeakBytesPerSecond = course.peakBytesPerSecond;
      values.PeakPacketsPerSecond = course.peakPacketsPerSecond;
      break;
    }
    return {
      id,
      kind,
      packets: sum((usage) => usage.packetsFromClient + usage.packetsFromService),
      bytes: sum((usage) => usage.bytesFromClient + usage.bytesFromService),
      activeFlows: sum((usage) => usage.flowsActive),
      newFlows: sum((usage) => usage.flowsCreated),
      portsExhausted: sum((usage) => usage.portsExhausted),
      peakGbps: (course.peakBytes * 8) / 1e9,
      units: unitsFor(course.peakBytes, course.peakPackets),
      unitsOverTime: course.units,
      metrics: metrics.get(id) ?? [],
    };
  }
}
