/**
 * A node of the simulated fleet. Where a real one has an engine, this one has two maps and chooses
 * translated tuples as an engine does: a hash of the flow says where to begin, for every node
 * another, and what this node knows to be taken is passed over. Asking, adopting, waiting and
 * refreshing are as in node.ts.
 */
import { DECISION_BYTES, inMidStream, sideOf } from "../engine/decision.ts";
import type { KeyedRandom } from "../shard/random.ts";
import { agree, lookUp, renew } from "./agreement.ts";
import type { Schedule } from "./schedule.ts";
import type { SimulatedStore } from "./simulated-store.ts";
import type { FlowStore } from "./store.ts";
import type { Watch } from "./watch.ts";

/** A packet of a flow, with its translated tuple where it comes from the service. */
export interface SimulatedPacket {
  tenant: number;
  flow: number;
  begins: boolean;
  fromService: boolean;
  tuple: number;
  /** Where it goes when a node lets it through. */
  deliver: (tuple: number) => void;
  tries: number;
}

interface Entry {
  decision: Uint8Array;
  isProposed: boolean;
  lastSeenMs: number;
}

export interface SimulatedNodeOptions {
  number: number;
  schedule: Schedule;
  random: KeyedRandom;
  store: SimulatedStore;
  watch: Watch;
  times: { ttlMs: number; holdMs: number; idleMs: number; refreshMs: number };
  tuples: number;
}

const QUEUE_MAX = 256;
const TRIES_MAX = 8;
const SETTLE_AFTER_MS = 0.02;
const NOTICED_AFTER_MS = 700;
const PROPOSAL_MS = 2000;
/** Number of no flow. */
const NOBODY = 0xffffffff;

export class SimulatedNode {
  isUp = true;
  crashes = 0;
  cuts = 0;
  readonly counters = { made: 0, adopted: 0, conflicts: 0, undecided: 0, lost: 0 };
  readonly #world: SimulatedNodeOptions;
  readonly #store: FlowStore;
  readonly #byFlow = new Map<number, Entry>();
  readonly #byTuple = new Map<number, Entry>();
  #queue: SimulatedPacket[] = [];
  #isSettling = false;
  #cutUntilMs = 0;
  #upAtMs = 0;
  #downSinceMs = 0;
  #refreshedMs: number | undefined;
  /** Counts lives: what an earlier life began counts for nothing. */
  #life = 0;

  constructor(world: SimulatedNodeOptions) {
    this.#world = world;
    this.#store = world.store.seenFrom(() => !this.isUp || this.#nowMs < this.#cutUntilMs);
  }

  /** What the front believes: it notices a crash after a while. */
  get isSeenDown(): boolean {
    return !this.isUp && this.#nowMs - this.#downSinceMs > NOTICED_AFTER_MS;
  }

  get #nowMs(): number {
    return this.#world.schedule.nowMs;
  }

  /** Loses all it knows, and comes back empty. */
  crash(forMs: number): void {
    this.crashes++;
    this.#life++;
    if (this.isUp) this.#downSinceMs = this.#nowMs;
    this.isUp = false;
    this.#byFlow.clear();
    this.#byTuple.clear();
    this.#queue = [];
    this.#isSettling = false;
    this.#refreshedMs = undefined;
    this.#upAtMs = Math.max(this.#upAtMs, this.#nowMs + forMs);
    this.#world.schedule.after(this.#upAtMs - this.#nowMs, () => {
      if (this.#nowMs >= this.#upAtMs) this.isUp = true;
    });
  }

  /** Cannot reach the store for a while; packets still come and go. */
  cutOff(forMs: number): void {
    this.cuts++;
    this.#cutUntilMs = Math.max(this.#cutUntilMs, this.#nowMs + forMs);
  }

  receive(packet: SimulatedPacket): void {
    if (!this.isUp) return;
    const key = packet.fromService ? packet.tuple : packet.flow;
    const entry = this.#live(packet.fromService ? this.#byTuple : this.#byFlow, key);
    if (entry && !entry.isProposed) this.#forward(entry, packet);
    else if (entry || !packet.begins || this.#propose(packet)) this.#wait(packet);
  }

  async keepRefreshing(): Promise<void> {
    const { schedule, times } = this.#world;
    schedule.after(times.refreshMs, () => this.keepRefreshing());
    if (!this.isUp) return;
    const life = this.#life;
    const askedMs = this.#nowMs;
    const since = this.#refreshedMs ?? askedMs;
    const entries = [...this.#byFlow.values()].filter(
      (entry) => !entry.isProposed && this.#isLive(entry),
    );
    try {
      const decisions = entries.map(({ decision }) => decision);
      const isOurs = await renew(this.#store, decisions, askedMs);
      if (life !== this.#life) return;
      for (const [at, entry] of entries.entries()) {
        if (isOurs[at]) this.#isAcknowledged(entry.decision, askedMs);
        else this.#end(entry);
      }
      this.#refreshedMs = askedMs;
    } catch {
      if (life !== this.#life) return;
      this.#refreshedMs = since;
      if (this.#nowMs - since >= times.ttlMs) for (const entry of entries) this.#end(entry);
    }
  }

  #live(table: Map<number, Entry>, key: number): Entry | undefined {
    const entry = table.get(key);
    if (!entry || this.#isLive(entry)) return entry;
    this.#forget(entry);
    return undefined;
  }

  #isLive({ isProposed, lastSeenMs }: Entry): boolean {
    const lifeMs = isProposed ? PROPOSAL_MS : this.#world.times.idleMs;
    return this.#nowMs - lastSeenMs <= lifeMs;
  }

  #forward(entry: Entry, packet: SimulatedPacket): void {
    entry.lastSeenMs = this.#nowMs;
    const tuple = tupleOf(entry.decision);
    this.#world.watch.forwards(packet.flow, tuple);
    packet.deliver(tuple);
  }

  /** Makes a proposal with the first tuple that is not known to be taken; false when all are. */
  #propose({ tenant, flow }: SimulatedPacket): boolean {
    const { tuples, number } = this.#world;
    const start = Math.imul(flow ^ Math.imul(number, 0x85ebca6b), 0x9e3779b1) >>> 8;
    for (let probe = 0; probe < tuples; probe++) {
      const tuple = tenant * tuples + ((start + probe) % tuples);
      if (this.#live(this.#byTuple, tuple)) continue;
      const decision = decisionOf(flow, tuple);
      this.#learn({ decision, isProposed: true, lastSeenMs: this.#nowMs });
      return true;
    }
    return false;
  }

  #learn(entry: Entry): void {
    this.#byFlow.set(numberOf(entry.decision), entry);
    this.#byTuple.set(tupleOf(entry.decision), entry);
  }

  #forget(entry: Entry): void {
    const [flow, tuple] = [numberOf(entry.decision), tupleOf(entry.decision)];
    if (this.#byFlow.get(flow) === entry) this.#byFlow.delete(flow);
    if (this.#byTuple.get(tuple) === entry) this.#byTuple.delete(tuple);
  }

  #end(entry: Entry): void {
    if (this.#byFlow.get(numberOf(entry.decision)) !== entry) return;
    this.#forget(entry);
    this.counters.lost++;
  }

  /** As adoptFlow of the engine: proposals and what is over make way, all else stays. */
  #adopt(decision: Uint8Array): void {
    const known = this.#live(this.#byFlow, numberOf(decision));
    if (known && !known.isProposed) return;
    if (known && tupleOf(known.decision) === tupleOf(decision)) {
      known.isProposed = false;
      return;
    }
    const owner = this.#live(this.#byTuple, tupleOf(decision));
    if (owner && !owner.isProposed) return;
    if (known) this.#forget(known);
    if (owner) this.#forget(owner);
    this.#learn({ decision, isProposed: false, lastSeenMs: this.#nowMs });
  }

  /** As `restingTuple`: somebody's, which keeps this node from proposing it for a while. */
  #letRest(tuple: number): void {
    const owner = this.#live(this.#byTuple, tuple);
    if (owner && !owner.isProposed) return;
    if (owner) this.#forget(owner);
    const decision = decisionOf(NOBODY, tuple);
    this.#byTuple.set(tuple, { decision, isProposed: true, lastSeenMs: this.#nowMs });
  }

  #wait(packet: SimulatedPacket): void {
    if (this.#queue.length >= QUEUE_MAX || packet.tries++ >= TRIES_MAX) {
      this.counters.undecided++;
      return;
    }
    this.#queue.push(packet);
    if (this.#isSettling) return;
    this.#isSettling = true;
    this.#world.schedule.after(SETTLE_AFTER_MS, () => this.#settle(this.#life));
  }

  async #settle(life: number): Promise<void> {
    if (life !== this.#life) return;
    const waiting = this.#queue;
    this.#queue = [];
    try {
      await this.#decide(waiting, life);
      const strays = await this.#ask(waiting, life);
      if (life !== this.#life) return;
      this.#isSettling = false;
      for (const packet of waiting) if (!strays.has(packet)) this.receive(packet);
    } catch {
      this.counters.undecided += waiting.length;
    }
    if (life !== this.#life) return;
    this.#isSettling = this.#queue.length > 0;
    if (this.#isSettling) {
      this.#world.schedule.after(SETTLE_AFTER_MS, () => this.#settle(life));
    }
  }

  async #decide(waiting: readonly SimulatedPacket[], life: number): Promise<void> {
    const flows = new Set(waiting.filter(({ begins }) => begins).map(({ flow }) => flow));
    const proposals = [...flows].flatMap((flow) => {
      const entry = this.#byFlow.get(flow);
      return entry?.isProposed ? [entry.decision] : [];
    });
    const askedMs = this.#nowMs;
    const agreements = await agree(this.#store, proposals, askedMs);
    if (life !== this.#life) return;
    for (const [at, { outcome, decision }] of agreements.entries()) {
      if (outcome === "full") continue;
      const isResting = outcome === "resting";
      if (isResting) this.#letRest(tupleOf(decision));
      else this.#adopt(decision);
      if (isResting || outcome === "taken") this.counters.conflicts++;
      else if (decision === proposals[at]) this.counters.made++;
      else this.counters.adopted++;
      if (!isResting) this.#isAcknowledged(decision, askedMs);
    }
  }

  #isAcknowledged(decision: Uint8Array, askedMs: number): void {
    this.#world.watch.acknowledged(numberOf(decision), tupleOf(decision), askedMs);
  }

  /** Looks up what only wants to know; returns the packets that nobody knows a flow for. */
  async #ask(waiting: readonly SimulatedPacket[], life: number): Promise<Set<SimulatedPacket>> {
    const strays = new Set<SimulatedPacket>();
    for (const side of ["client", "service"] as const) {
      const isHere = ({ fromService }: SimulatedPacket) => fromService === (side === "service");
      const here = waiting.filter((packet) => !packet.begins && isHere(packet));
      const tuples = here.map(({ flow, tuple }) => sideOf(decisionOf(flow, tuple), side).slice());
      const askedMs = this.#nowMs;
      const found = await lookUp(this.#store, side, tuples, askedMs);
      if (life !== this.#life) return strays;
      for (const [at, decision] of found.entries()) {
        const packet = here[at] as SimulatedPacket;
        if (!decision) {
          strays.add(packet);
          this.#world.watch.notFound(packet.flow, packet.fromService ? packet.tuple : undefined);
          continue;
        }
        this.#adopt(inMidStream(decision));
        this.counters.adopted++;
        this.#isAcknowledged(decision, askedMs);
      }
    }
    return strays;
  }
}

function decisionOf(flow: number, tuple: number): Uint8Array {
  const decision = new Uint8Array(DECISION_BYTES);
  const view = new DataView(decision.buffer);
  view.setUint32(0, flow);
  view.setUint32(48, tuple);
  return decision;
}

function numberOf(decision: Uint8Array): number {
  return new DataView(decision.buffer, decision.byteOffset).getUint32(0);
}

function tupleOf(decision: Uint8Array): number {
  return new DataView(decision.buffer, decision.byteOffset).getUint32(48);
}
