/**
 * Constant work: tables that have a room are packed with the work of tables that fill it, whatever
 * they hold, so that no change of a configuration makes the next reload slower than the last one (as AWS's
 * "Reliability, constant work, and a good cup of coffee" has it). What tables leave of their room is done
 * on filler, by the functions that pack services, rules and addresses, and lies in the image behind
 * them, where nothing leads to it. A room that the image cannot hold is found by the first packing.
 */
import { buildRing } from "../control/maglev.ts";
import type { Target } from "./api.ts";
import { type OptionNames, options, wholeNumber } from "./check.ts";
import type { NetworkRule, NetworkService, NetworkVpc } from "./network.ts";

/** What tables may hold. */
export interface TableRoom {
  /** Up to 16,384. */
  services: number;
  /** Targets in the lists of all services; up to 1,000,000. */
  targets: number;
  /**
   * Entries of all rings. A list of targets with equal weights has 1,021, from 11 targets on 4,093, from
   * 41 on 16,381 and from 164 on 65,537; equal lists share theirs. Up to 100,000,000.
   */
  ringEntries: number;
  /** Rules of all sets; up to 1,000,000. */
  rules: number;
  /** VPCs, addresses, listeners, and prefixes of routes and subnets, one each; targets that see the
   *  client's address, one per VPC; up to 1,000,000. */
  entries: number;
}

const MOST: TableRoom = {
  services: 16_384,
  targets: 1_000_000,
  ringEntries: 100_000_000,
  rules: 1_000_000,
  entries: 1_000_000,
};
const NAMES: OptionNames<TableRoom> = MOST;
const KINDS = Object.keys(MOST) as (keyof TableRoom)[];

/** A VPC that no port has: numbers have 16 bits. */
const NOWHERE = 1 << 16;
const FILLER_RULES = 60;
/** Lists of filler are as long as the smallest ring is for. */
const FILLER_TARGETS = 10;
const FILLER_RING = 1021;

/** @throws TypeError, RangeError naming the value and its range */
export function checkRoom(path: string, room: TableRoom): TableRoom {
  options(path, room, NAMES);
  for (const kind of KINDS) wholeNumber(`${path}.${kind}`, room[kind], 0, MOST[kind]);
  return { ...room };
}

/** What has been done of each kind for a set of tables, against the room that they have. */
export class Work {
  readonly done: TableRoom = { services: 0, targets: 0, ringEntries: 0, rules: 0, entries: 0 };
  readonly #room: TableRoom | undefined;

  constructor(room: TableRoom | undefined) {
    this.#room = room;
  }

  left(kind: keyof TableRoom): number {
    return this.#room === undefined ? 0 : this.#room[kind] - this.done[kind];
  }

  /** @throws RangeError when tables hold more than they have room for */
  check(): void {
    for (const kind of KINDS) {
      if (this.#room === undefined || this.left(kind) >= 0) continue;
      throw new RangeError(
        `room.${kind}: the tables hold ${this.done[kind]}, more than ${this.#room[kind]}`,
      );
    }
  }
}

/** Filler for all of a room; parts of it are used. */
export class Filler {
  readonly #targets: readonly Target[];
  readonly #services: readonly NetworkService[];
  readonly #rules: readonly NetworkRule[];
  readonly #addresses: readonly NonNullable<NetworkVpc["addresses"]>[number][];

  constructor({ services, targets, rules, entries }: TableRoom) {
    const address = (from: string, n: number) => `${from}.${n >> 16}.${(n >> 8) & 255}.${n & 255}`;
    const listOf = <T>(length: number, make: (n: number) => T) =>
      Array.from({ length }, (_, n) => make(n));
    this.#targets = listOf(targets, (n) => ({ address: address("10", n), port: 8443 }));
    const source = ["10.0.0.0"];
    this.#services = listOf(services, (n) => {
      return { id: `filler-${n}`, kind: "load-balancer", vpc: 0, sources: source };
    });
    this.#rules = listOf(Math.min(rules, FILLER_RULES), (n) => {
      return { protocol: "tcp", ports: [n, n], cidr: `${address("10", n)}/32` };
    });
    this.#addresses = listOf(Math.ceil(entries / 2), (n) => {
      const service = "filler";
      return {
        address: address("10", n),
        service,
        listeners: [{ protocol: "tcp", port: 443, service }],
      };
    });
  }

  /** The services that are left, with a list of the targets that are left each. */
  *services(work: Work): Generator<NetworkService> {
    const lists = this.lists(work);
    for (const service of this.#services.slice(0, work.left("services"))) {
      work.done.services++;
      const list = lists.next().value;
      yield list === undefined ? service : { ...service, targets: list };
    }
  }

  /** Lists of the targets that are left; one of its own each while there is room for its ring. */
  *lists(work: Work): Generator<readonly Target[]> {
    let list: readonly Target[] = [];
    for (let left = work.left("targets"); left > 0; left = work.left("targets")) {
      const length = Math.min(left, FILLER_TARGETS);
      if (work.left("ringEntries") >= FILLER_RING) list = this.#targets.slice(left - length, left);
      if (list.length === 0) return;
      yield list.slice(0, length);
    }
  }

  /** Makes the rings that are left. */
  rings(work: Work): void {
    const targets = Array.from({ length: FILLER_TARGETS }, (_, n) => {
      return { name: `filler-${n}`, weight: 1 };
    });
    while (work.left("ringEntries") >= FILLER_RING) {
      work.done.ringEntries += buildRing(targets, FILLER_RING).length;
    }
  }

  /** Sets of rules, `count` rules in all. */
  *rules(count: number): Generator<readonly NetworkRule[]> {
    for (let left = count; left > 0; left -= FILLER_RULES) yield this.#rules.slice(0, left);
  }

  /** A VPC that takes `count` entries of the directory: an address takes one, its listener another. */
  vpc(count: number): NetworkVpc {
    const addresses = this.#addresses.slice(0, Math.ceil(count / 2));
    const last = addresses.at(-1);
    if (last !== undefined && count % 2 === 1)
      addresses[addresses.length - 1] = { ...last, listeners: [] };
    return { vpc: NOWHERE, addresses };
  }
}
