/**
 * A flow of the simulated world: a client and a service that send packets through whichever node of
 * the tenant the front picks, and send again what was not answered. The front hashes flow and node,
 * once for packets of the client and once, unlike it, for those of the service; it notices after a
 * while that a node is down.
 */

import type { Shard } from "../shard/lattice.ts";
import type { KeyedRandom } from "../shard/random.ts";
import type { Schedule } from "./schedule.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import type { Watch } from "./watch.ts";

export interface World {
  schedule: Schedule;
  random: KeyedRandom;
  watch: Watch;
  nodes: readonly SimulatedNode[];
  /** Nodes of each tenant. */
  shards: readonly Shard[];
  loss: number;
}

const NETWORK_MS = 0.2;
const RETRY_MS = 500;
const PAUSE_MS = 800;

export class SimulatedFlow {
  state: "idle" | "opening" | "open" | "finished" = "idle";
  sent = 0;
  lost = 0;
  sentAgain = 0;
  readonly #world: World;
  readonly #tenant: number;
  readonly #flow: number;
  #beganMs = 0;
  #endMs = 0;
  /** Exchanges that were answered. */
  #answered = 0;

  constructor(world: World, tenant: number, flow: number) {
    this.#world = world;
    this.#tenant = tenant;
    this.#flow = flow;
  }

  begin(lastsMs: number): void {
    this.state = "opening";
    this.#beganMs = this.#world.schedule.nowMs;
    this.#endMs = this.#beganMs + lastsMs;
    this.#exchange(0);
  }

  /** Sends until it is answered. */
  #exchange(tries: number): void {
    const { schedule, watch } = this.#world;
    const exchange = this.#answered;
    if (tries > 0) this.sentAgain++;
    watch.tries(this.#tenant);
    this.#send(false, 0, (tuple) => this.#send(true, tuple, () => this.#isAnswered(exchange)));
    schedule.after(RETRY_MS * Math.min(4, 1 + tries), () => {
      if (this.#answered === exchange && schedule.nowMs < this.#endMs) this.#exchange(tries + 1);
    });
  }

  #isAnswered(exchange: number): void {
    const { schedule, watch } = this.#world;
    if (this.#answered !== exchange) return;
    this.#answered++;
    watch.isServed(this.#tenant);
    if (this.state === "opening") watch.decisionMs.push(schedule.nowMs - this.#beganMs);
    this.state = "open";
    schedule.after(PAUSE_MS, () => {
      if (schedule.nowMs < this.#endMs) this.#exchange(0);
      else this.state = "finished";
    });
  }

  #send(fromService: boolean, tuple: number, deliver: (tuple: number) => void): void {
    const { schedule, random, loss } = this.#world;
    this.sent++;
    const node = this.#nodeFor(fromService);
    if (!node || random.below(1_000_000) < loss * 1e6) {
      this.lost++;
      return;
    }
    const begins = !fromService && this.state === "opening";
    const packet = { tenant: this.#tenant, flow: this.#flow, begins, fromService, tuple, tries: 0 };
    const arrives = (out: number) => schedule.after(NETWORK_MS, () => deliver(out));
    schedule.after(NETWORK_MS * (1 + random.below(100) / 50), () => {
      node.receive({ ...packet, deliver: arrives });
    });
  }

  /** The node with the highest hash (rendezvous) of those that the front believes to be up. */
  #nodeFor(fromService: boolean): SimulatedNode | undefined {
    const { nodes, shards } = this.#world;
    let best: SimulatedNode | undefined;
    let bestRank = -1;
    for (const number of shards[this.#tenant] as Shard) {
      const node = nodes[number] as SimulatedNode;
      if (node.isSeenDown) continue;
      let rank = Math.imul(this.#flow * 2 + (fromService ? 1 : 0), 0x85ebca6b) ^ number;
      rank = Math.imul(rank ^ (rank >>> 15), 0xc2b2ae35);
      rank = (rank ^ (rank >>> 13)) >>> 0;
      if (rank > bestRank) [best, bestRank] = [node, rank];
    }
    return best;
  }
}
