/**
 * On which nodes of a fleet the packets of each resource are handled. A resource has a shard of the
 * nodes (shuffle sharding, host/shard): what takes all of them down takes few other resources along.
 * Within a shard every bucket of flows has an order of the nodes that a secret gives, and goes to
 * the first one that is up (rendezvous hashing): a node that dies gives its buckets to the others,
 * and takes them back when it returns; nothing else moves.
 *
 * A packet says which resource it is for by its destination (a front's address, an address that a
 * resource sends from), else by its source (a target that answers clients directly), else by what
 * its VPC's default route leads to. It is no error to be wrong: every node can handle every flow.
 */
import { addressBytes, addressText } from "../address.ts";
import { contains, parseCidr } from "../cidr.ts";
import type { NetworkTables, NetworkVpc } from "../engine/network.ts";
import { type Place, ROW_COUNT_MAX, type Spreading } from "../io/spreading.ts";
import { keyedShard } from "../shard/keyed.ts";
import { latticeOf } from "../shard/lattice.ts";
import { KeyedRandom } from "../shard/random.ts";

/** Where packets come from: the VPC of a device and the addresses behind it. */
export interface DevicePlace {
  vpc: number;
  addresses: readonly string[];
}

export interface PlacedResource {
  place: Place;
  /** Name of the resource. */
  resource: string;
}

/** The resource that a service does the work of: its id's part before the zone. */
export function resourceOf(service: string): string {
  return service.split("/")[0] as string;
}

/** All places that tables name, each once. */
export function placesOf(tables: NetworkTables, devices: readonly DevicePlace[]): PlacedResource[] {
  const found = new Map<string, PlacedResource>();
  const add = (vpc: number, address: string, service: string) => {
    const normal = addressText(addressBytes(address));
    const place = { vpc, address: normal };
    found.set(`${vpc} ${normal}`, { place, resource: resourceOf(service) });
  };
  for (const { id, vpc, targets = [], sources = [] } of tables.services) {
    if (sources.length === 0) for (const { address } of targets) add(vpc, address, id);
  }
  for (const { id, vpc, sources = [] } of tables.services) {
    for (const address of sources) add(vpc, address, id);
  }
  for (const { vpc, addresses = [] } of tables.vpcs) {
    for (const { address, service } of addresses) add(vpc, address, service);
  }
  return [
    ...found.values(),
    ...devices.map(({ vpc, addresses }, device) => {
      const own = tables.vpcs.find((one) => one.vpc === vpc);
      const service = own && defaultOf(own, addresses);
      return { place: { device }, resource: service ? resourceOf(service) : `vpc ${vpc}` };
    }),
  ];
}

/** The service that the default route of one of the addresses leads to. */
function defaultOf(vpc: NetworkVpc, addresses: readonly string[]): string | undefined {
  const { routeTables = [], subnets = [] } = vpc;
  for (const address of addresses) {
    const bytes = addressBytes(address);
    const own = subnets.find(({ cidr }) => contains(parseCidr(cidr), bytes));
    const route = routeTables[own?.routeTable ?? 0]?.find(({ to }) => to.endsWith("/0"));
    if (route?.service !== undefined) return route.service;
  }
  return undefined;
}

export interface Spread {
  /** Nodes of the fleet. */
  nodes: number;
  /** Nodes of each resource. */
  perResource: number;
  buckets: number;
  secret: Uint8Array;
}

/** For each bucket of a resource its nodes, the one that comes first first. */
export function ordersOf(spread: Spread, resource: string): number[][] {
  const { nodes, perResource, buckets, secret } = spread;
  const shard = keyedShard(latticeOf(nodes, perResource), secret, resource);
  return Array.from({ length: buckets }, (_, bucket) => {
    const random = new KeyedRandom(secret, `spread:${resource}:${bucket}`);
    return random.draw([...shard], shard.length);
  });
}

/**
 * The node of each bucket. A resource whose nodes are all down stays with them: others would take over
 * what brought them down.
 */
export function rowOf(orders: readonly number[][], isUp: (node: number) => boolean): number[] {
  return orders.map((order) => order.find(isUp) ?? (order[0] as number));
}

const ROW_OF_ALL = 0;

/** The placement of a fleet as the kernel has it. */
export class Placement {
  readonly #spreading: Spreading;
  readonly #spread: Spread;
  readonly #devices: readonly DevicePlace[];
  /** Orders by the number of their row. Row 0 is of all nodes, for what has no resource. */
  readonly #rows: number[][][];
  readonly #rowOf = new Map<string, number>();
  #places = new Map<string, Place>();
  #isUp: boolean[] = [];

  constructor(spreading: Spreading, spread: Spread, devices: readonly DevicePlace[]) {
    this.#spreading = spreading;
    this.#spread = spread;
    this.#devices = devices;
    this.#rows = [ordersOf({ ...spread, perResource: spread.nodes }, "")];
    this.setUp(Array.from({ length: spread.nodes }, () => true));
  }

  /** Follows new tables. Resources keep their rows for life; when rows run out, all nodes serve. */
  place(tables: NetworkTables): void {
    const before = this.#places;
    this.#places = new Map();
    for (const { place, resource } of placesOf(tables, this.#devices)) {
      this.#spreading.setPlace(place, this.#rowFor(resource));
      this.#places.set(JSON.stringify(place), place);
    }
    for (const [key, place] of before) {
      if (!this.#places.has(key)) this.#spreading.removePlace(place);
    }
  }

  #rowFor(resource: string): number {
    const known = this.#rowOf.get(resource);
    if (known !== undefined) return known;
    const row = this.#rows.length < ROW_COUNT_MAX ? this.#rows.length : ROW_OF_ALL;
    this.#rowOf.set(resource, row);
    if (row === ROW_OF_ALL) return row;
    this.#rows.push(ordersOf(this.#spread, resource));
    this.#setRow(row);
    return row;
  }

  /** Says which nodes are up. */
  setUp(isUp: readonly boolean[]): void {
    this.#isUp = [...isUp];
    for (const row of this.#rows.keys()) this.#setRow(row);
  }

  #setRow(row: number): void {
    const orders = this.#rows[row] as number[][];
    this.#spreading.setRow(
      row,
      rowOf(orders, (node) => this.#isUp[node] === true),
    );
  }

  /** Nodes of each resource, by its name. */
  get shards(): Record<string, number[]> {
    const shards = [...this.#rowOf].map(([resource, row]): [string, number[]] => {
      return [resource, (this.#rows[row]?.[0] ?? []).toSorted((a, b) => a - b)];
    });
    return Object.fromEntries(shards);
  }

  close(): void {
    this.#spreading.close();
  }
}
