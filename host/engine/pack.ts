/**
 * Packs network tables into an image. Everything is checked before it is written, and the image is
 * put to use only when it is whole, so a call that throws has changed nothing.
 */
import * as abi from "../../assembly/abi.ts";
import { inNat64 } from "../address.ts";
import { addressOf, oneOf, shown, wholeNumber } from "./check.ts";
import type { NetworkImage } from "./image.ts";
import { type Remembered, ServiceLists } from "./lists.ts";
import type {
  NetworkRoute,
  NetworkRule,
  NetworkService,
  NetworkServiceKind,
  NetworkTables,
  NetworkVpc,
} from "./network.ts";
import { PrefixSets, prefixOf } from "./prefixes.ts";
import { type HeaderTemplates, headerFields, headerFlags, type ServiceHeaders } from "./proxy.ts";
import type { Filler, Work } from "./room.ts";

/** A NAT address has 55,000 ports a destination: the upper ones, where clients' own mostly are. */
const PORT_MIN_LIMITED = 65536 - 55_000;
const NEVER_MS = 0x7fffffff;
const RULE_COUNT_MAX = 10_000;
const ANY_PROTOCOL_HIGH = 0xffffff;

const PROTOCOLS: Record<string, number> = { tcp: 6, udp: 17, icmp: 1, icmpv6: 58 };

const { TRAIT_NETWORK, TRAIT_TARGETED, TRAIT_SEQUENCE, TRAIT_UDP_FRAGMENTS } = abi;
const KINDS: Record<NetworkServiceKind, { traits: number; flags: number }> = {
  "load-balancer": {
    traits:
      TRAIT_NETWORK | TRAIT_TARGETED | TRAIT_SEQUENCE | TRAIT_UDP_FRAGMENTS | abi.TRAIT_UNREACHABLE,
    flags: abi.SERVICE_FLAG_RESET_STRAYS,
  },
  "nat-gateway": {
    traits: TRAIT_NETWORK | TRAIT_UDP_FRAGMENTS | abi.TRAIT_NAT,
    flags: abi.SERVICE_FLAG_RESET_STRAYS,
  },
  route: { traits: TRAIT_NETWORK, flags: abi.SERVICE_FLAG_ADOPT },
};

/** What packing needs to know of the engine. */
export interface PackContext {
  /** The number that a service has, by its id: the same for life. */
  numberOf(id: string): number;
  /** The number of a capacity, from 1. */
  capacityOf(name: string): number;
  remembered: Remembered;
  /** Services of earlier tables that may still have flows, by number: their records and headers. */
  leftovers: ReadonlyMap<number, { record: Uint8Array; headers: HeaderTemplates | undefined }>;
  headers: ServiceHeaders;
  work: Work;
  /** What is packed in the place of what the tables do not hold. */
  filler: Filler | undefined;
}

/** Packs `tables` into an empty image. @throws TypeError, RangeError naming path, value and range */
export function packNetwork(
  image: NetworkImage,
  tables: NetworkTables,
  context: PackContext,
): void {
  const packing = new Packing(image, tables, context);
  packing.rules();
  packing.services();
  packing.vpcs();
  packing.fill();
  image.writeDirectory();
}

class Packing {
  readonly #image: NetworkImage;
  readonly #tables: NetworkTables;
  readonly #context: PackContext;
  readonly #rules = new Map<string, number>();
  readonly #services = new Map<string, number>();
  readonly #prefixes: PrefixSets;
  #idleMsMin = 0;
  #mtuMin = 0;
  /** Targets that the directory has. */
  readonly #said = new Set<string>();
  readonly #lists: ServiceLists;

  constructor(image: NetworkImage, tables: NetworkTables, context: PackContext) {
    this.#image = image;
    this.#tables = tables;
    this.#context = context;
    this.#prefixes = new PrefixSets(image);
    this.#lists = new ServiceLists(image, context.remembered, context.work);
  }

  rules(): void {
    for (const [name, rules] of Object.entries(this.#tables.rules ?? {})) {
      this.#rules.set(name, this.#rulesOf(`rules.${name}`, rules));
    }
  }

  #rulesOf(path: string, rules: readonly NetworkRule[]): number {
    wholeNumber(`${path}.length`, rules.length, 0, RULE_COUNT_MAX);
    const checked = this.#context.remembered(`rules ${JSON.stringify(rules)}`, () =>
      rules.map((rule, at) => checkRule(`${path}[${at}]`, rule)),
    );
    this.#context.work.done.rules += rules.length;
    const v4 = checked.filter(({ address }) => address.length === 4);
    const v6 = checked.filter(({ address }) => address.length === 16);
    // Rules of IPv4 are compared eight at a time.
    const blocks = Math.ceil(v4.length / 8) * 2;
    const image = this.#image;
    const start = image.take(abi.RULES_BLOCKS + (blocks + v6.length) * abi.RULE_BLOCK_BYTES);
    image.put(start + abi.RULES_COUNT, blocks);
    image.put(start + abi.RULES_COUNT6, v6.length);
    const first = start + abi.RULES_BLOCKS;
    for (let lane = 0; lane < blocks * 4; lane++) {
      const at = first + (lane >> 2) * abi.RULE_BLOCK_BYTES + (lane & 3) * 4;
      const rule = v4[lane];
      // A lane that is left over matches nothing: its range is empty.
      image.put(at + abi.RULE_BLOCK_LOW, (rule?.low ?? 0) - 1);
      image.put(at + abi.RULE_BLOCK_HIGH, (rule?.high ?? -1) + 1);
      if (rule === undefined) continue;
      image.bytes.set(rule.address, at + abi.RULE_BLOCK_ADDRESS);
      image.bytes.set(rule.mask, at + abi.RULE_BLOCK_MASK);
    }
    for (const [index, rule] of v6.entries()) {
      const at = first + (blocks + index) * abi.RULE_BLOCK_BYTES;
      image.bytes.set(rule.address, at + abi.RULE_BLOCK_ADDRESS);
      image.bytes.set(rule.mask, at + abi.RULE_BLOCK_MASK);
      image.put(at + abi.RULE_BLOCK_LOW, rule.low - 1);
      image.put(at + abi.RULE_BLOCK_HIGH, rule.high + 1);
    }
    return image.addressOf(start);
  }

  services(): void {
    const image = this.#image;
    const { services } = this.#tables;
    wholeNumber("services.length", services.length, 0, abi.SERVICE_COUNT_MAX);
    for (const [at, { id }] of services.entries()) {
      if (typeof id !== "string" || id === "") throw new TypeError(`services[${at}].id: no name`);
      if (this.#services.has(id)) throw new TypeError(`services[${at}].id: ${id} is there twice`);
      this.#services.set(id, this.#context.numberOf(id));
    }
    const { leftovers, work, filler } = this.#context;
    work.done.services = services.length;
    let count = filler === undefined ? 1 : abi.SERVICE_COUNT_MAX;
    for (const number of this.#services.values()) count = Math.max(count, number + 1);
    for (const number of leftovers.keys()) count = Math.max(count, number + 1);
    const place = image.take(count * abi.SERVICE_BYTES);
    image.put(abi.IMAGE_SERVICES, image.addressOf(place));
    image.put(abi.IMAGE_SERVICE_COUNT, count);
    for (const [number, { record, headers }] of leftovers) {
      image.bytes.set(record, place + number * abi.SERVICE_BYTES);
      this.#headers(place + number * abi.SERVICE_BYTES, headers);
    }
    for (const [at, service] of services.entries()) {
      const number = this.#services.get(service.id) as number;
      const record = place + number * abi.SERVICE_BYTES;
      this.#service(`services[${at}]`, service, number, record);
      const templates = this.#headersOf(`services[${at}]`, number, service);
      this.#headers(record, templates);
    }
    for (const number of leftovers.keys()) this.#compare(place + number * abi.SERVICE_BYTES);
    image.put(abi.IMAGE_IDLE_MS_MIN, this.#idleMsMin);
    image.put(abi.IMAGE_MTU_MIN, this.#mtuMin);
  }

  #headersOf(path: string, number: number, service: NetworkService): HeaderTemplates | undefined {
    try {
      const templates = this.#context.headers.check(number, service.proxyProtocol);
      this.#context.headers.keep(number, templates);
      return templates;
    } catch (error) {
      const Kind = error instanceof TypeError ? TypeError : RangeError;
      throw new Kind(`${path}.${(error as Error).message}`);
    }
  }

  /** Writes PROXY headers and where they are. */
  #headers(record: number, templates: HeaderTemplates | undefined): void {
    if (templates === undefined) return;
    const { v4, v6 } = templates;
    const place = this.#image.take(v4.length + v6.length);
    this.#image.bytes.set(v4, place);
    this.#image.bytes.set(v6, place + v4.length);
    const address = this.#image.addressOf(place);
    for (const [field, value] of headerFields(templates, address, address + v4.length)) {
      this.#image.put(record + field, value);
    }
  }

  /** The shortest idle timeout and the smallest MTU are what the packet path compares with first. */
  #compare(record: number): void {
    const { view } = this.#image;
    const least = (before: number, value: number) =>
      value === 0 || before === 0 ? before || value : Math.min(before, value);
    this.#idleMsMin = least(this.#idleMsMin, view.getUint32(record + abi.SERVICE_IDLE_MS, true));
    this.#mtuMin = least(this.#mtuMin, view.getUint16(record + abi.SERVICE_MTU_BYTES, true));
  }

  #service(path: string, service: NetworkService, number: number, record: number): void {
    const { view } = this.#image;
    const put = (field: number, value: number) => this.#image.put(record + field, value);
    const put16 = (field: number, value: number) => view.setUint16(record + field, value, true);
    const kind = oneOf(`${path}.kind`, service.kind, KINDS);
    // A NAT gateway that has no IPv6 addresses takes IPv6 to IPv4 servers (NAT64).
    const sources = service.sources ?? [];
    const isCrossing =
      service.kind === "nat-gateway" && sources.length > 0 && !sources.some(isIpv6Text);
    const crossed = [...sources, ...sources.map(inNat64)];
    if (isCrossing) this.#image.put(abi.IMAGE_CROSSES, 1);
    const traits =
      kind.traits |
      (service.isSticky ? abi.TRAIT_STICKY : 0) |
      (service.isMtuTold ? abi.TRAIT_MTU_TOLD : 0) |
      (service.isFailOpen ? abi.TRAIT_FAIL_OPEN : 0) |
      (isCrossing ? abi.TRAIT_NAT64 : 0);
    const mtu = service.mtuBytes;
    put(abi.SERVICE_FLAGS, kind.flags | headerFlags(service.proxyProtocol));
    put(abi.SERVICE_TRAITS, traits);
    put16(abi.SERVICE_VPC, wholeNumber(`${path}.vpc`, service.vpc, 0, 0xffff));
    put16(
      abi.SERVICE_MTU_BYTES,
      mtu === undefined ? 0 : wholeNumber(`${path}.mtuBytes`, mtu, 1280, 65535),
    );
    put(abi.SERVICE_IDLE_MS, idleMs(`${path}.idleSeconds`, service.idleSeconds));
    put16(abi.SERVICE_PORT_MIN, PORT_MIN_LIMITED);
    this.#compare(record);
    this.#lists.sources(path, isCrossing ? crossed : sources, put);
    this.#lists.targets(path, service.targets ?? [], put);
    if (service.kind === "load-balancer") this.#sayTargets(path, service, number);
    const { endpoint, inbound, outbound } = service.rules ?? {};
    put(abi.SERVICE_RULES_ENDPOINT, this.#ruleSet(`${path}.rules.endpoint`, endpoint));
    put(abi.SERVICE_RULES_INBOUND, this.#ruleSet(`${path}.rules.inbound`, inbound));
    put(abi.SERVICE_RULES_OUTBOUND, this.#ruleSet(`${path}.rules.outbound`, outbound));
    const { capacity } = service;
    if (capacity === undefined) return;
    if (!Object.hasOwn(this.#tables.capacities ?? {}, capacity)) {
      throw new TypeError(`${path}.capacity: there is no capacity ${shown(capacity)}`);
    }
    put16(abi.SERVICE_CAPACITY, this.#context.capacityOf(capacity));
  }

  #ruleSet(path: string, name: string | undefined): number {
    if (name === undefined) return 0;
    const address = this.#rules.get(name);
    if (address === undefined) throw new TypeError(`${path}: there are no rules ${shown(name)}`);
    return address;
  }

  /** Lists targets that see clients' addresses, so that what they send late is known for theirs. */
  #sayTargets(path: string, service: NetworkService, number: number): void {
    const hidden = new Set((service.sources ?? []).map((text) => isIpv6Text(text)));
    for (const [at, { address, port = 0 }] of (service.targets ?? []).entries()) {
      if (port === 0 || hidden.has(isIpv6Text(address))) continue;
      const key = `${service.vpc} ${address} ${port}`;
      if (this.#said.has(key)) continue;
      this.#said.add(key);
      const bytes = addressOf(`${path}.targets[${at}]`, address);
      this.#image.add(abi.SPACE_TARGET, service.vpc, (6 << 16) | port, bytes, number);
    }
  }

  vpcs(): void {
    const seen = new Set<number>();
    for (const [at, vpc] of this.#tables.vpcs.entries()) {
      const path = `vpcs[${at}]`;
      wholeNumber(`${path}.vpc`, vpc.vpc, 0, 0xffff);
      if (seen.has(vpc.vpc)) throw new TypeError(`${path}.vpc: ${vpc.vpc} is there twice`);
      seen.add(vpc.vpc);
      this.#vpc(path, vpc);
    }
  }

  #vpc(path: string, vpc: NetworkVpc): void {
    const image = this.#image;
    const record = image.take(abi.VPC_BYTES);
    image.add(abi.SPACE_VPC, vpc.vpc, 0, new Uint8Array(0), image.addressOf(record));
    const port = vpc.port ?? abi.PORT_NONE;
    if (vpc.port !== undefined) wholeNumber(`${path}.port`, port, 0, abi.PORT_COUNT_MAX - 1);
    image.put(record + abi.VPC_PORT, port);
    this.#addresses(path, vpc);
    const tables: number[] = [];
    for (const [at, routes] of (vpc.routeTables ?? []).entries()) {
      tables.push(this.#prefixes.write(this.#routes(`${path}.routeTables[${at}]`, routes)));
    }
    image.put(record + abi.VPC_MAIN, tables[0] ?? 0);
    const subnets = (vpc.subnets ?? []).map(({ cidr, routeTable }, at) => {
      const place = `${path}.subnets[${at}]`;
      wholeNumber(`${place}.routeTable`, routeTable, 0, tables.length - 1);
      return {
        path: `${place}.cidr`,
        ...prefixOf(`${place}.cidr`, cidr),
        value: tables[routeTable] as number,
      };
    });
    if (subnets.length > 0) image.put(record + abi.VPC_SUBNETS, this.#prefixes.write(subnets));
  }

  #routes(path: string, routes: readonly NetworkRoute[]) {
    return routes.map(({ to, service }, at) => {
      const value =
        service === undefined
          ? abi.ROUTE_BLACKHOLE
          : this.#number(`${path}[${at}].service`, service);
      return { path: `${path}[${at}].to`, ...prefixOf(`${path}[${at}].to`, to), value };
    });
  }

  #addresses(path: string, vpc: NetworkVpc): void {
    const keys = new Set<string>();
    const once = (place: string, key: string) => {
      if (keys.has(key)) throw new TypeError(`${place}: ${key} is there twice`);
      keys.add(key);
    };
    for (const [at, owned] of (vpc.addresses ?? []).entries()) {
      const place = `${path}.addresses[${at}]`;
      const address = addressOf(`${place}.address`, owned.address);
      once(`${place}.address`, owned.address);
      const owner = this.#number(`${place}.service`, owned.service);
      this.#image.add(abi.SPACE_ADDRESS, vpc.vpc, 0, address, owner);
      for (const [index, listener] of (owned.listeners ?? []).entries()) {
        const spot = `${place}.listeners[${index}]`;
        const protocol = oneOf(`${spot}.protocol`, listener.protocol, { tcp: 6, udp: 17 });
        const port = wholeNumber(`${spot}.port`, listener.port, 1, 65535);
        once(spot, `${owned.address} ${listener.protocol} ${port}`);
        const service = this.#number(`${spot}.service`, listener.service);
        this.#image.add(abi.SPACE_LISTENER, vpc.vpc, (protocol << 16) | port, address, service);
      }
    }
  }

  /** What the tables leave of their room, done on filler; none of it is ever looked up. */
  fill(): void {
    const { work, filler } = this.#context;
    work.done.entries = this.#image.entryCount;
    work.check();
    if (filler === undefined) return;
    for (const rules of filler.rules(work.left("rules"))) this.#rulesOf("filler", rules);
    const record = this.#image.take(work.left("services") * abi.SERVICE_BYTES);
    let place = record - abi.SERVICE_BYTES;
    for (const service of filler.services(work)) {
      this.#services.set(service.id, abi.SERVICE_NONE);
      place += abi.SERVICE_BYTES;
      this.#service("filler", service, abi.SERVICE_NONE, place);
      this.#headers(place, this.#headersOf("filler", abi.SERVICE_NONE, service));
    }
    for (const list of filler.lists(work)) this.#lists.targets("filler", list, () => undefined);
    filler.rings(work);
    this.#services.set("filler", 0);
    this.#addresses("filler", filler.vpc(work.left("entries")));
    work.done.entries = this.#image.entryCount;
  }

  #number(path: string, id: string): number {
    const number = this.#services.get(id);
    if (number === undefined) throw new TypeError(`${path}: there is no service ${shown(id)}`);
    return number;
  }
}

function isIpv6Text(address: unknown): boolean {
  return typeof address === "string" && address.includes(":");
}

function idleMs(path: string, seconds: number | undefined): number {
  if (seconds === undefined) return 0;
  if (seconds === 0) return NEVER_MS;
  return wholeNumber(path, seconds, 1, abi.TIMEOUT_SECONDS_MAX) * 1000;
}

function checkRule(path: string, rule: NetworkRule) {
  const { address, mask } = prefixOf(`${path}.cidr`, rule.cidr);
  const [first, last] = rule.ports ?? [0, 65535];
  wholeNumber(`${path}.ports[0]`, first, 0, 65535);
  wholeNumber(`${path}.ports[1]`, last, first, 65535);
  if (rule.protocol === undefined) {
    if (rule.ports !== undefined) throw new TypeError(`${path}.ports: no protocol that has them`);
    return { address, mask, low: 0, high: ANY_PROTOCOL_HIGH };
  }
  const protocol =
    typeof rule.protocol === "number"
      ? wholeNumber(`${path}.protocol`, rule.protocol, 0, 255)
      : oneOf(`${path}.protocol`, rule.protocol, PROTOCOLS);
  const hasPorts = protocol === 6 || protocol === 17;
  const key = protocol << 16;
  return {
    address,
    mask,
    low: key | (hasPorts ? first : 0),
    high: key | (hasPorts ? last : 65535),
  };
}
