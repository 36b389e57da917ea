/**
 * A fleet in a simulated world, from one seed: nodes that share their decisions, a front that
 * spreads flows over the nodes of their tenant, clients that send again what was lost; packets and
 * messages that are late or lost, nodes that are cut off from the store or crash. The agreement is
 * the real one (agreement.ts); engines are replaced by tables that choose tuples as engines do, so
 * that thousands of nodes fit. The same options give the same events and the same result anywhere.
 *
 * Watched all the time: one decision per flow; no two flows on one translated tuple; every decision
 * that was acknowledged is found again as long as it must live.
 */
import { wholeNumber } from "../engine/check.ts";
import { plainShards } from "../shard/blast.ts";
import { keyedShard } from "../shard/keyed.ts";
import { latticeOf, type Shard } from "../shard/lattice.ts";
import { KeyedRandom } from "../shard/random.ts";
import { Schedule } from "./schedule.ts";
import { SharedStore } from "./shared-store.ts";
import { SimulatedFlow, type World } from "./simulated-flow.ts";
import { SimulatedNode } from "./simulated-node.ts";
import { SimulatedStore } from "./simulated-store.ts";
import type { FlowStore } from "./store.ts";
import { Watch } from "./watch.ts";

export interface SimulationOptions {
  /** Nodes of the fleet, 1 to 10,000; default 1000. */
  nodes?: number;
  /** Tenants, 1 to 10,000; default 1000. */
  tenants?: number;
  /** Nodes of a tenant; default 5, or all there are. */
  shardSize?: number;
  /** Flows that a tenant begins, spread over the time; default 3. */
  flowsPerTenant?: number;
  /** Translated tuples that a tenant has; default 8. */
  tuplesPerTenant?: number;
  /** Simulated time in seconds, 1 to 3600; default 30. */
  seconds?: number;
  /** Share of packets and messages that are lost, 0 to 0.5; default 0.02. */
  loss?: number;
  /** Crashes and partitions per node and minute; default 0.5 each. */
  crashes?: number;
  partitions?: number;
  placement?: "shuffled" | "plain";
  /** A tenant poisons its nodes at half-time: they crash again as soon as they are up. */
  poison?: boolean;
  seed?: string;
}

export interface SimulationResult {
  schema: "flowplane.simulation/1";
  options: Required<SimulationOptions>;
  events: number;
  flows: { begun: number; established: number; finished: number };
  packets: { sent: number; forwarded: number; lost: number; sentAgain: number };
  decisions: { made: number; adopted: number; conflicts: number; undecided: number; lost: number };
  faults: { crashes: number; partitions: number };
  /** Simulated ms from the first packet of a flow to its decision. */
  decisionMs: { p50: number; p99: number; max: number };
  /** Other tenants that made no progress at all while one poisoned its nodes; absent without. */
  blast?: { tenants: number; dead: number };
  /** Sentences, the first twenty; empty when every invariant held. */
  violations: string[];
  /** Of every forwarded packet, in order: equal results have equal digests. */
  digest: string;
}

const ENTRIES = 262_144;
const MINUTE_MS = 60_000;
/** Much shorter than real ones, so that flows, claims and leases end within the simulated time. */
export const TIMES = { ttlMs: 9000, holdMs: 3000, idleMs: 6000, refreshMs: 2000 };

/**
 * Runs the world to its end. `table` is what the store keeps its entries in.
 * @throws RangeError that names the option, its value and its range
 */
export async function simulate(
  options: SimulationOptions = {},
  table: FlowStore = new SharedStore({ entries: ENTRIES, ...TIMES }),
): Promise<SimulationResult> {
  const all = withDefaults(options);
  const schedule = new Schedule();
  const random = new KeyedRandom(all.seed, "simulation");
  const watch = new Watch(schedule, TIMES);
  const store = new SimulatedStore(schedule, random, table, all.loss);
  const nodes = Array.from({ length: all.nodes }, (_, number) => {
    return new SimulatedNode({
      number,
      schedule,
      random,
      store,
      watch,
      times: TIMES,
      tuples: all.tuplesPerTenant,
    });
  });
  const world: World = { schedule, random, watch, nodes, loss: all.loss, shards: shardsOf(all) };
  const flows: SimulatedFlow[] = [];
  const endMs = all.seconds * 1000;
  for (let tenant = 0; tenant < all.tenants; tenant++) {
    for (let number = 0; number < all.flowsPerTenant; number++) {
      const flow = new SimulatedFlow(world, tenant, flows.length);
      flows.push(flow);
      // Flows last a quarter of the time and begin early enough to end within it.
      schedule.after(random.below(Math.floor(endMs / 2)), () => flow.begin(endMs / 4));
    }
  }
  plan(all, world, endMs);
  await schedule.run(endMs);
  return result(all, world, store, flows);
}

function withDefaults(options: SimulationOptions): Required<SimulationOptions> {
  const nodes = wholeNumber("nodes", options.nodes ?? 1000, 1, 10_000);
  return {
    nodes,
    tenants: wholeNumber("tenants", options.tenants ?? 1000, 1, 10_000),
    shardSize: wholeNumber(
      "shardSize",
      options.shardSize ?? Math.min(5, nodes),
      1,
      Math.min(64, nodes),
    ),
    flowsPerTenant: wholeNumber("flowsPerTenant", options.flowsPerTenant ?? 3, 1, 1000),
    tuplesPerTenant: wholeNumber("tuplesPerTenant", options.tuplesPerTenant ?? 8, 1, 60_000),
    seconds: wholeNumber("seconds", options.seconds ?? 30, 1, 3600),
    loss: share("loss", options.loss ?? 0.02, 0.5),
    crashes: share("crashes", options.crashes ?? 0.5, 60),
    partitions: share("partitions", options.partitions ?? 0.5, 60),
    placement: options.placement ?? "shuffled",
    poison: options.poison ?? false,
    seed: options.seed ?? "flowplane",
  };
}

function share(name: string, value: number, max: number): number {
  if (value >= 0 && value <= max) return value;
  throw new RangeError(`${name}: ${value} is not a number from 0 to ${max}`);
}

function shardsOf({
  nodes,
  tenants,
  shardSize,
  placement,
  seed,
}: Required<SimulationOptions>): Shard[] {
  const lattice = latticeOf(nodes, shardSize);
  if (placement === "plain") return plainShards(lattice, tenants, new KeyedRandom(seed, "plain"));
  return Array.from({ length: tenants }, (_, tenant) => keyedShard(lattice, seed, `${tenant}`));
}

/** Crashes and partitions of every node, refreshes, and the poison. */
function plan(all: Required<SimulationOptions>, world: World, endMs: number): void {
  const { schedule, random, nodes } = world;
  const repeat = (everyMs: number, fault: () => void) => {
    if (!Number.isFinite(everyMs)) return;
    const again = () => {
      fault();
      schedule.after(1 + random.below(Math.floor(2 * everyMs)), again);
    };
    schedule.after(random.below(Math.floor(2 * everyMs)) + 1, again);
  };
  for (const node of nodes) {
    repeat(MINUTE_MS / all.crashes, () => node.crash(200 + random.below(3000)));
    repeat(MINUTE_MS / all.partitions, () => node.cutOff(200 + random.below(12_000)));
    schedule.after(random.below(TIMES.refreshMs), () => node.keepRefreshing());
  }
  if (!all.poison) return;
  const poisoned = world.shards[0] as Shard;
  schedule.after(endMs / 2, () => {
    world.watch.attackBegins();
    for (const node of poisoned) nodes[node]?.crash(endMs);
  });
}

function result(
  all: Required<SimulationOptions>,
  { schedule, watch, nodes }: World,
  store: SimulatedStore,
  flows: readonly SimulatedFlow[],
): SimulationResult {
  const total = (pick: (node: SimulatedNode) => number) =>
    nodes.reduce((sum, node) => sum + pick(node), 0);
  const count = (state: SimulatedFlow["state"]) =>
    flows.filter((flow) => flow.state === state).length;
  const times = watch.decisionMs.toSorted((a, b) => a - b);
  const quantile = (part: number) => times[Math.floor(part * (times.length - 1))] ?? 0;
  const begun = flows.length - count("idle");
  return {
    schema: "flowplane.simulation/1",
    options: all,
    events: schedule.events,
    flows: { begun, established: begun - count("opening"), finished: count("finished") },
    packets: {
      sent: flows.reduce((sum, { sent }) => sum + sent, 0),
      forwarded: watch.forwarded,
      lost: flows.reduce((sum, { lost }) => sum + lost, 0) + store.lost,
      sentAgain: flows.reduce((sum, { sentAgain }) => sum + sentAgain, 0),
    },
    decisions: {
      made: total(({ counters }) => counters.made),
      adopted: total(({ counters }) => counters.adopted),
      conflicts: total(({ counters }) => counters.conflicts),
      undecided: total(({ counters }) => counters.undecided),
      lost: total(({ counters }) => counters.lost),
    },
    faults: { crashes: total(({ crashes }) => crashes), partitions: total(({ cuts }) => cuts) },
    decisionMs: { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) },
    ...(all.poison && { blast: watch.blast() }),
    violations: watch.violations,
    digest: watch.digest(),
  };
}
