/**
 * What network tables cost: the same packets through an engine with one plain service, and through
 * one with the largest tables (bench/network-tables.ts). Half of the flows go to listeners, half through
 * endpoints into the other VPC. The engines take turns in short windows; the time of a window is that of
 * its middle batch, and a ratio the median over pairs of neighbouring windows, so that a disturbed
 * machine disturbs both or neither.
 *
 * Then what a full reload costs when the largest tables, half of them, or next to nothing is in the
 * room for the largest: packing, in CPU time of another thread, and loading, with the longest time that it
 * keeps a batch waiting.
 *
 *     node bench/network.ts
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { NetworkTables } from "../host/engine/network.ts";
import { type Column, table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { ratioOf, sampleOf } from "./measure.ts";
import { engineOf, FLOWS, Flows, networkEngine, plainEngine } from "./network-flows.ts";
import { IN, LISTENERS, networkTables, ROOM } from "./network-tables.ts";
import type { Packing } from "./network-worker.ts";
import { benchModule } from "./traffic.ts";

const ROUNDS = 8;
/** Pairs of windows of established flows in a round. */
const WINDOWS = 8;
const RELOADS = 15;
/** Packets of one window; the tables' own lines are in the caches again after a small part of it. */
const WINDOW = 65_536;
/** Flows of one window. */
const NEW_WINDOW = 32_768;
const ESTABLISHED_MAX = 1.15;
const NEW_MAX = 2;
/** Times of reloads that count as the same. */
const RELOAD_MAX = 1.1;
const STALL_MS_MAX = 1;

type Kind = "established" | "new";

/** One window each of the same work, in ns per packet or flow. */
interface Pair {
  plain: number;
  network: number;
}

function randomOrder(count: number, seed: number): Uint32Array {
  let state = seed;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) % FLOWS) * 2 + ((state >>> 4) & 1);
  });
}

/** Pairs of windows; who comes first changes from one to the next. */
export async function measureNetwork(rounds = ROUNDS): Promise<Record<Kind, Pair[]>> {
  const plain = new Flows(await plainEngine());
  const network = new Flows(await networkEngine());
  const pairs: Record<Kind, Pair[]> = { established: [], new: [] };
  let turn = 0;
  const pair = (run: (flows: Flows) => number): Pair => {
    if (turn++ % 2 === 0) return { plain: run(plain), network: run(network) };
    const last = run(network);
    return { plain: run(plain), network: last };
  };
  for (let round = 0; round < rounds; round++) {
    for (const flows of [plain, network]) flows.forget();
    for (let first = 0; first < FLOWS; first += NEW_WINDOW) {
      pairs.new.push(pair((flows) => flows.create(first, NEW_WINDOW)));
    }
    for (const flows of [plain, network]) flows.answer();
    for (let window = 0; window < WINDOWS; window++) {
      const order = randomOrder(WINDOW, round * 1000 + window);
      pairs.established.push(pair((flows) => flows.established(order)));
    }
    // The first round is for the compilers.
    if (round === 0) for (const list of Object.values(pairs)) list.length = 0;
  }
  return pairs;
}

/** What reloads alternate between. */
const CONTENTS: Record<string, NetworkTables> = {
  largest: networkTables(),
  half: networkTables(LISTENERS / 2),
  "nearly empty": { vpcs: [{ vpc: 1, port: IN }], services: [] },
};

/** Milliseconds of reloads: packing in a thread of its own, loading, and the longest step of that. */
export async function measureReloads(rounds = RELOADS) {
  const engine = await engineOf();
  const thread = new Worker(new URL("./network-worker.ts", import.meta.url), {
    workerData: { region: engine.networkRegion, wasm: benchModule(), room: ROOM, tables: CONTENTS },
  });
  const times = Object.keys(CONTENTS).map((name) => ({
    name,
    pack: [] as number[],
    load: [] as number[],
    all: [] as number[],
    longest: [] as number[],
  }));
  for (let round = -2; round < rounds; round++) {
    for (const { name, pack, load, all, longest } of times) {
      thread.postMessage(name);
      const [{ packed, packMs }] = (await once(thread, "message")) as [Packing];
      const steps = stepTimes(engine.loadTables(packed));
      if (round < 0) continue;
      const loadMs = steps.reduce((sum, ms) => sum + ms, 0);
      pack.push(packMs);
      load.push(loadMs);
      all.push(packMs + loadMs);
      longest.push(Math.max(...steps));
    }
  }
  await thread.terminate();
  return times;
}

function stepTimes(steps: Iterator<void>): number[] {
  const times: number[] = [];
  for (let isDone: boolean | undefined = false; !isDone; ) {
    const start = performance.now();
    isDone = steps.next().done;
    times.push(performance.now() - start);
  }
  return times;
}

const median = (values: readonly number[]) => sampleOf(values).median;

function printPackets(pairs: Record<Kind, Pair[]>): void {
  const rows = (["established", "new"] as const).map((kind) => {
    const { middle, range } = ratioOf(pairs[kind].map(({ plain, network }) => network / plain));
    const goal = kind === "new" ? NEW_MAX : ESTABLISHED_MAX;
    const times = (["plain", "network"] as const).map((one) =>
      significant(median(pairs[kind].map((pair) => pair[one]))),
    );
    const name = kind === "new" ? "new flows" : kind;
    return [name, ...times, middle.toFixed(2), range, `${goal}`, middle <= goal ? "yes" : "no"];
  });
  const titles = ["packets", "plain ns", "tables ns", "ratio", "half of pairs", "at most", "met"];
  print(titles, rows);
}

function printReloads(times: Awaited<ReturnType<typeof measureReloads>>): void {
  const [full] = times;
  const rows = times.map(({ name, pack, load, all, longest }) => {
    // Of the same round, so of the same minute of the machine.
    const { middle } = ratioOf(all.map((ms, round) => ms / (full?.all[round] ?? ms)));
    const isSame = Math.max(middle, 1 / middle) <= RELOAD_MAX;
    const stall = median(longest);
    const values = [median(pack), median(load), stall].map((ms) => significant(ms));
    const met = isSame && stall <= STALL_MS_MAX;
    return [name, ...values, middle.toFixed(2), met ? "yes" : "no"];
  });
  print(["reload of", "pack CPU ms", "load ms", "longest step ms", "ratio", "met"], rows);
  process.stdout.write(
    `goal: the same time within ${RELOAD_MAX} whatever is in the room, and no step above ${STALL_MS_MAX} ms\n`,
  );
}

function print(titles: readonly string[], rows: readonly (readonly string[])[]): void {
  const columns = titles.map(
    (title, at): Column => ({ title, align: at === 0 ? "left" : "right" }),
  );
  process.stdout.write(`${table(columns, rows).join("\n")}\n`);
}

if (import.meta.main) {
  printPackets(await measureNetwork());
  printReloads(await measureReloads());
}
