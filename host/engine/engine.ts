/**
 * Engine: tables in, batches of frames through, verdicts, counters and flows out.
 *
 * The engine's memory is laid out once by `createEngine` and never grows afterwards, so views made
 * from it stay valid for its life. Nothing here allocates per packet or per batch.
 */
import * as abi from "../../assembly/abi.ts";
import { addressBytes } from "../address.ts";
import { Clock } from "../clock.ts";
import { EngineError } from "../errors.ts";
import { HeaderCodec } from "../pp2/codec.ts";
import type {
  Counters,
  EngineOptions,
  Flow,
  PortOptions,
  Region,
  Selection,
  ServiceOptions,
  TerminatedFlows,
  Usage,
} from "./api.ts";
import { options as checkOptions, type OptionNames, oneOf, truth, wholeNumber } from "./check.ts";
import { configure, requireMemory, type Settings, settingsOf } from "./configure.ts";
import { refusedBatch } from "./descriptors.ts";
import { type FrameExplanation, readExplanation } from "./explain.ts";
import { type EngineExports, loadEngine } from "./module.ts";
import { EMIT_NAMES, LINKS, VERDICT_NAMES } from "./names.ts";
import type { CapacityChange, CapacityState, NetworkTables } from "./network.ts";
import { Networks } from "./networks.ts";
import { type PackedTables, TablePacker } from "./packer.ts";
import { ServiceHeaders } from "./proxy.ts";
import { readCounters, readFlow, readUsage } from "./records.ts";
import { checkSelection, selectFrames } from "./selection.ts";
import { ServiceTables } from "./tables.ts";
import { warmUp } from "./warmup.ts";

export { EMIT_NAMES, VERDICT_NAMES };

/** Groups of 16 slots that one step of `terminating` or `expiring` looks at. */
const STEP_GROUPS = 512;

const SIDES = { client: 1, service: 2, both: 3 } as const;
const PORT_OPTIONS: OptionNames<PortOptions> = {
  link: true,
  vpc: true,
  sides: true,
  service: true,
  peer: true,
  routed: true,
  vnetHeader: true,
};

/** The engine's tables and clockwork behind plain methods. Made by `createEngine`. */
export class Engine {
  /** All of the engine's memory. */
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Region for frames; sources fill it. */
  readonly arena: Region;
  /**
   * Descriptors of the batch, 8 words each: address, captured bytes, time in ms, port | port out
   * << 16, verdict | side << 16 | direction << 24, flow handle, record address, bytes on the wire.
   */
  readonly descriptors: Uint32Array<ArrayBuffer>;
  /**
   * Descriptors of the frames that the last batch made the engine emit, in the order in which they
   * leave: the same words, but EMIT_NAMES index | 1 << 16 if after its cause (else before it), and
   * the index of the cause in the batch in place of the record address. See `emitCount`.
   */
  readonly emits: Uint32Array<ArrayBuffer>;
  /** Address of the descriptors, for sources that fill them in WebAssembly. */
  readonly descriptorsAddress: number;
  /** Memory of the flow tables in bytes: tags, records and index. */
  readonly flowTableBytes: number;
  readonly flow6TableBytes: number;
  readonly exports: EngineExports;
  /** Region for network tables, for a `TablePacker` on another thread. */
  readonly networkRegion: Region;
  /** What makes times of descriptors of the host's, where pauses may be longer than 12 days. */
  readonly clock: Clock = new Clock();
  /** @internal Address of the list of departures. */
  readonly departuresAddress: number;
  readonly #view: DataView<ArrayBuffer>;
  readonly #layout: (field: number) => number;
  readonly #services: ServiceTables;
  readonly #networks: Networks;
  readonly #packer: TablePacker;
  /** Frames of the last batch, and the clock of its last packet; undefined before the first. */
  #lastCount = 0;
  #emitCount = 0;
  #lastMs: number | undefined;
  #failure: EngineError | undefined;

  /** @internal */
  constructor(exports: EngineExports, settings: Settings) {
    this.exports = exports;
    configure(exports.memory, exports.configAddress() >>> 0, settings);
    if (exports.create() !== 0) {
      throw new RangeError(
        "flowCountMax, flow6CountMax and arenaBytes: more memory than 4 GiB, or than there is",
      );
    }
    this.memory = exports.memory;
    const buffer = exports.memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    const layoutAddress = exports.layoutAddress() >>> 0;
    this.#layout = (field) => this.#view.getUint32(layoutAddress + field, true);
    const words = (abi.BATCH_COUNT_MAX * abi.FRAME_BYTES) / 4;
    this.descriptorsAddress = this.#layout(abi.LAYOUT_FRAMES);
    this.descriptors = new Uint32Array(buffer, this.descriptorsAddress, words);
    const emits = this.#layout(abi.LAYOUT_EMITS);
    this.emits = new Uint32Array(buffer, emits, words * abi.EMIT_PER_FRAME_MAX);
    this.arena = { address: this.#layout(abi.LAYOUT_ARENA), bytes: settings.arenaBytes };
    this.departuresAddress = this.#layout(abi.LAYOUT_DEPARTURES);
    this.flowTableBytes = this.#layout(abi.LAYOUT_FLOW_TABLE_BYTES);
    this.flow6TableBytes = this.#layout(abi.LAYOUT_FLOW6_TABLE_BYTES);
    const tables = { address: this.#layout(abi.LAYOUT_TABLES), bytes: settings.tablesBytes };
    const codec = new HeaderCodec(exports);
    const headers = () => new ServiceHeaders(codec, settings.proxyProtocol);
    const services = this.#layout(abi.LAYOUT_SERVICES);
    const usage = this.#layout(abi.LAYOUT_USAGE);
    const traits = this.#layout(abi.LAYOUT_TRAITS);
    this.#services = new ServiceTables(this.#view, services, traits, tables, headers());
    this.networkRegion = {
      address: this.#layout(abi.LAYOUT_NETWORK),
      bytes: settings.networkBytes * 2,
    };
    this.#packer = new TablePacker(this.networkRegion, headers(), false);
    this.#networks = new Networks({
      exports,
      bytes: this.bytes,
      view: this.#view,
      usage,
      tallies: this.#layout(abi.LAYOUT_TALLIES),
      traits,
      capacities: this.#layout(abi.LAYOUT_CAPACITIES),
      capacityChanges: this.#layout(abi.LAYOUT_CAPACITY_CHANGES),
      region: this.networkRegion,
    });
    for (let port = 0; port < abi.PORT_COUNT_MAX; port++) this.#clearPort(port);
  }

  #clearPort(port: number): void {
    const address = this.#layout(abi.LAYOUT_PORTS) + port * abi.PORT_BYTES;
    this.#view.setUint8(address + abi.PORT_SIDES, abi.PORT_SIDE_CLIENT);
    this.#view.setUint16(address + abi.PORT_SERVICE, abi.SERVICE_NONE, true);
    this.#view.setUint16(address + abi.PORT_PEER, port, true);
  }

  /**
   * Translates the first `count` frames of the descriptors in place and writes their verdicts.
   * @throws RangeError when `count` is not 0 to 256, a frame does not lie in the arena, or its port
   * is above 4095: nothing has been processed then. EngineError when the engine stops: it refuses
   * all that comes after.
   */
  process(count: number): void {
    if (this.#failure) throw this.#failure;
    wholeNumber("count", count, 0, abi.BATCH_COUNT_MAX);
    this.#emitCount = 0;
    if (count === 0) return;
    let isDone: number;
    try {
      isDone = this.exports.processBatch(count);
    } catch (error) {
      throw this.#stopped(error);
    }
    if (isDone === 0) throw refusedBatch(this.arena, this.descriptors, count);
    this.#emitCount = this.exports.emitCount();
    this.#lastCount = count;
    this.#lastMs = this.#word(count - 1, abi.FRAME_TIME_MS);
  }

  /** How many frames the last batch made the engine emit. */
  get emitCount(): number {
    return this.#emitCount;
  }

  /**
   * XXH64 of those frames of the last batch that go out, the hashes chained by XXH64 in order:
   * `previous` is the digest of the batches before. The same capture, tables and seed give the same
   * digest anywhere.
   */
  digest(previous = 0n): bigint {
    const count = this.#lastCount;
    return BigInt.asUintN(
      64,
      this.#run(() => this.exports.digestFrames(count, previous)),
    );
  }

  /** Runs a part of the engine; whatever it throws is the engine's end. */
  #run<T>(part: () => T): T {
    if (this.#failure) throw this.#failure;
    try {
      return part();
    } catch (error) {
      throw this.#stopped(error);
    }
  }

  #stopped(error: unknown): EngineError {
    const reason = error instanceof Error ? error.message : String(error);
    this.#failure = new EngineError(`the engine has stopped and cannot go on: ${reason}`);
    return this.#failure;
  }

  #word(index: number, field: number): number {
    return this.descriptors[(index * abi.FRAME_BYTES + field) / 4] as number;
  }

  /**
   * Says what frames of a port are. Takes effect with the next batch.
   * @throws TypeError or RangeError naming the option, its value and its range.
   */
  setPort(port: number, options: PortOptions): void {
    wholeNumber("port", port, 0, abi.PORT_COUNT_MAX - 1);
    checkOptions("", options, PORT_OPTIONS);
    const vpc = wholeNumber("vpc", options.vpc ?? 0, 0, 0xffff);
    const link = oneOf("link", options.link ?? "ethernet", LINKS);
    const isRouted = truth("routed", options.routed ?? false);
    const carried = oneOf("sides", options.sides ?? "client", SIDES);
    const sides = carried | (isRouted ? abi.PORT_SIDE_ROUTED : 0);
    if (isRouted && options.service !== undefined) {
      throw new TypeError("service: a routed port has none, its network tables tell");
    }
    const service =
      options.service === undefined
        ? abi.SERVICE_NONE
        : wholeNumber("service", options.service, 0, abi.SERVICE_COUNT_MAX - 1);
    const peer = wholeNumber("peer", options.peer ?? port, 0, abi.PORT_COUNT_MAX - 1);
    const flags = truth("vnetHeader", options.vnetHeader ?? false) ? abi.PORT_FLAG_VNET : 0;
    const zone = this.#run(() => this.exports.zoneOf(vpc, 0, 0)) >>> 0;
    if (zone >= abi.ZONE_COUNT_MAX) {
      throw new RangeError(`vpc: ${vpc} is one more than the ${abi.ZONE_COUNT_MAX} zones hold`);
    }
    const address = this.#layout(abi.LAYOUT_PORTS) + port * abi.PORT_BYTES;
    this.#view.setUint32(address + abi.PORT_ZONE, zone, true);
    this.#view.setUint16(address + abi.PORT_VPC, vpc, true);
    this.#view.setUint8(address + abi.PORT_SIDES, sides);
    this.#view.setUint8(address + abi.PORT_LINK, link);
    this.#view.setUint16(address + abi.PORT_SERVICE, service, true);
    this.#view.setUint16(address + abi.PORT_PEER, peer, true);
    this.#view.setUint8(address + abi.PORT_FLAGS, flags);
  }

  /**
   * Lets frames that come in on ports of one VPC with an outer VLAN tag, and no inner one, belong to
   * another VPC: a trunk. Tagged frames that leave to that VPC get its tag. To be called before such
   * frames come.
   * @throws RangeError naming the argument, its value and its range, or when the tag has a VPC already
   */
  setVlan(vpc: number, vlan: number, to: number): void {
    wholeNumber("vpc", vpc, 0, 0xffff);
    wholeNumber("vlan", vlan, 1, 4094);
    wholeNumber("to", to, 0, 0xffff);
    const isJoined = this.#run(() => {
      return this.exports.joinZone(vpc, vlan, this.exports.zoneOf(to, 0, 0));
    });
    if (!isJoined) throw new RangeError(`vlan: ${vlan} of the VPC ${vpc} has a zone already`);
  }

  /**
   * What the engine knows about the frame of the first descriptor, which is about to be processed.
   * Nothing changes.
   */
  explain(): FrameExplanation {
    const block = this.#run(() => this.exports.explainFrame()) >>> 0;
    return readExplanation(this.#view, block, VERDICT_NAMES);
  }

  /**
   * Number of the service that made the flow of a descriptor of the last batch, also when the flow has
   * ended in that batch; undefined when the frame has none.
   */
  madeBy(handle: number): number | undefined {
    if (handle === 0) return undefined;
    const service = this.#run(() => this.exports.serviceOfFlow(handle)) >>> 0;
    return service === abi.SERVICE_NONE ? undefined : service;
  }

  /**
   * Defines a service. May be called between batches: flows that exist keep their translation.
   * @throws TypeError or RangeError naming the option, its value and its range.
   */
  setService(service: number, options: ServiceOptions): void {
    if (this.#failure) throw this.#failure;
    wholeNumber("service", service, 0, abi.SERVICE_COUNT_MAX - 1);
    this.#services.set(service, options);
  }

  /**
   * Loads the tables that routed ports resolve new flows by, and puts them to use. Flows that exist go
   * on as they are.
   * @throws TypeError or RangeError naming the path, its value and its range; nothing has changed then.
   */
  setTables(tables: NetworkTables): void {
    if (this.#failure) throw this.#failure;
    const packed = this.#packer.pack(tables, (service) => this.hasFlows(service));
    for (const _ of this.loadTables(packed));
  }

  /**
   * Loads tables that a packer has packed, on whatever thread, in steps: each takes well below a
   * millisecond and may stand between two batches. How many there are does not depend on what the tables
   * say. Until the last step the old tables hold. Only one load may be under way.
   * @throws TypeError when they were packed for another engine, or out of turn
   */
  *loadTables(packed: PackedTables): Generator<void, void, void> {
    if (this.#failure) throw this.#failure;
    yield* this.#networks.load(packed);
  }

  /** Whether a service, by its number, has flows that live. */
  hasFlows(service: number): boolean {
    wholeNumber("service", service, 0, abi.SERVICE_COUNT_MAX - 1);
    return this.#networks.hasFlows(service);
  }

  /** The number that a service of `setTables` has, for `usage` and as `madeBy` of flows. */
  serviceNumber(id: string): number | undefined {
    return this.#packer.numberOf(id);
  }

  /** What has become of a capacity of `setTables`. @throws TypeError when there is none */
  capacity(name: string): CapacityState {
    const number = this.#packer.capacityOf(name);
    if (number === undefined) throw new TypeError(`capacity: there is no ${JSON.stringify(name)}`);
    return this.#networks.capacity(number);
  }

  /** When capacities have grown or shrunk since this was last asked; at most 4,095 changes are kept. */
  capacityChanges(): CapacityChange[] {
    return this.#networks.capacityChanges(this.#packer.capacityNames());
  }

  /**
   * Ends the flows that a service of the tables has made, by its id or number, or those that go to a
   * target, or both: the next packet of each is a stray, which its sender may be told by a reset; a new
   * connection is a new flow. Returns how many. Looks at every slot of the flow tables: `terminating`
   * does so in steps.
   * @throws TypeError or RangeError naming what there is not
   */
  terminate(flows: TerminatedFlows): number {
    return lastOf(this.terminating(flows));
  }

  /** The same in steps of less than a millisecond, between which batches may pass. */
  *terminating({ service, address, port }: TerminatedFlows): Generator<void, number, void> {
    const number = typeof service === "string" ? this.#packer.numberOf(service) : service;
    if (service !== undefined && number === undefined) {
      throw new TypeError(`service: the tables have no ${service}`);
    }
    const wanted = wholeNumber("service", number ?? abi.SERVICE_NONE, 0, abi.SERVICE_NONE);
    const bytes = address === undefined ? new Uint8Array(0) : addressBytes(address);
    const portNumber = wholeNumber("port", port ?? 0, 0, 0xffff);
    const portBe = ((portNumber & 0xff) << 8) | (portNumber >> 8);
    const groups = this.exports.groupCount() >>> 0;
    let ended = 0;
    for (let first = 0; first < groups; first += STEP_GROUPS) {
      if (first > 0) yield;
      // The first descriptor lends its place to the address, and gets it back: it may be filled already.
      const place = this.descriptorsAddress;
      const lent = this.bytes.slice(place, place + bytes.length);
      this.bytes.set(bytes, place);
      ended += this.#run(() => {
        return this.exports.terminate(wanted, place, bytes.length, portBe, first, STEP_GROUPS);
      });
      this.bytes.set(lent, place);
    }
    return ended;
  }

  counters(): Counters {
    return readCounters(this.#view, this.#layout(abi.LAYOUT_COUNTERS));
  }

  /** What has passed through a service. */
  usage(service: number): Usage {
    wholeNumber("service", service, 0, abi.SERVICE_COUNT_MAX - 1);
    const usage = this.#layout(abi.LAYOUT_USAGE) + service * abi.USAGE_BYTES;
    const tally = this.#layout(abi.LAYOUT_TALLIES) + service * abi.TALLY_BYTES;
    return readUsage(this.#view, usage, tally);
  }

  /** All live flows, IPv4 first, each as a copy. */
  *flows(): Generator<Flow, void, void> {
    if (this.#failure) throw this.#failure;
    for (const start of [0, abi.HANDLE_IPV6]) {
      let handle = this.exports.flowAfter(start) >>> 0;
      while (handle !== 0) {
        yield readFlow(this.#view, handle, this.exports.flowRecord(handle) >>> 0);
        handle = this.exports.flowAfter(handle) >>> 0;
      }
    }
  }

  /** The flow that a descriptor's handle names, if it still lives. */
  flow(handle: number): Flow | undefined {
    if (this.#failure) throw this.#failure;
    const record = this.exports.flowRecord(handle) >>> 0;
    return handle === 0 || record === 0 ? undefined : readFlow(this.#view, handle >>> 0, record);
  }

  /** The VPC and the VLAN ids, outermost first, of a flow's zone. */
  zone(zone: number): { vpc: number; vlans: number[] } {
    const vpcAndOuter = this.exports.zoneVpcAndOuter(zone) >>> 0;
    const inner = this.exports.zoneInner(zone) >>> 0;
    return {
      vpc: vpcAndOuter & 0xffff,
      vlans: [vpcAndOuter >>> 16, inner].filter((id) => id !== 0),
    };
  }

  /**
   * Of the described frames [first, first + count) keeps those of worker `worker` of `workers`, moved
   * to `first` and on; returns how many. Ports must be set before. Every frame belongs to exactly one
   * worker, both directions of a flow to the same, if all workers select from all frames in order.
   * `isSpread` false leaves everything to one: where targets have ports of their own. `number` is that
   * of the first frame's record, for `listDecisions`.
   */
  select(first: number, count: number, selection: Selection): number {
    const room = abi.BATCH_COUNT_MAX;
    wholeNumber("first", first, 0, room);
    wholeNumber("count", count, 0, room - first);
    checkSelection(selection);
    return this.#run(() => selectFrames(this.exports, first, count, selection));
  }

  /** Takes every flow that is over at `nowMs` out of the active ones, as the sweep does in time. */
  sweep(nowMs: number): void {
    this.#run(() => this.exports.sweepAll(nowMs));
  }

  /**
   * Forgets every flow that is over at `nowMs` of the host's clock (a whole number), by default at
   * the time of the last packet; returns how many. Looks at every slot of the flow tables: `expiring`
   * does so in steps.
   */
  expire(nowMs?: number): number {
    return lastOf(this.expiring(nowMs));
  }

  /** The same in steps of less than a millisecond, between which batches may pass. */
  *expiring(nowMs?: number): Generator<void, number, void> {
    // One wrong time would stop the clock for good.
    if (nowMs !== undefined) wholeNumber("nowMs", nowMs, 0, Number.MAX_SAFE_INTEGER);
    const groups = this.#run(() => this.exports.groupCount() >>> 0);
    const word = nowMs === undefined ? this.#lastMs : this.clock.at(nowMs);
    if (word === undefined) return 0;
    let over = 0;
    for (let first = 0; first < groups; first += STEP_GROUPS) {
      if (first > 0) yield;
      over += this.#run(() => this.exports.expire(word, first, STEP_GROUPS) >>> 0);
    }
    return over;
  }
}

/** What steps return, taken one after the other. */
function lastOf<Value>(steps: Generator<void, Value, void>): Value {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/**
 * Makes an engine.
 * @throws TypeError or RangeError naming the option and its range; EngineError when the module
 * cannot be loaded.
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  const settings = settingsOf(options);
  const exports = await loadEngine(options.wasm, settings.prepareMemory);
  if (settings.warmUp) warmUp(exports, (small) => new Engine(exports, settingsOf(small)));
  const engine = new Engine(exports, settings);
  requireMemory("flowCountMax, flow6CountMax", engine.flowTableBytes + engine.flow6TableBytes);
  if (settings.touchTables) exports.touchTables();
  return engine;
}
