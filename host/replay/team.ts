/**
 * Several workers replay one capture: each keeps the frames of its lanes (assembly/capture/select)
 * and decides them with an engine of its own. This side gathers from the workers' rings what became of
 * each record, in order (assembly/gather): the digest is that of one engine. Where something is
 * written of each frame it reads the capture too, and the decisions are put where one engine would
 * have them, so recorders and meters do not know how many have worked; else it reads nothing, and
 * workers measure what is theirs.
 *
 * Invariants: nothing is shared on the packet path, and nobody waits for another worker there; a
 * ring that runs full makes its worker sleep, a record that nobody has decided yet makes this side
 * wait. The result is that of one worker, byte for byte, as long as no flow table is more than
 * three quarters full and fewer datagrams are in pieces than FRAGMENT_COUNT_MAX.
 */

import type { Worker } from "node:worker_threads";
import type { FrameMemory } from "../capture/source.ts";
import type { Counters, Usage } from "../engine/api.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import { Gathering, stagesBytes } from "../engine/gathering.ts";
import { CaptureError, revived } from "../errors.ts";
import type { DecidedBatch, PassCounts, Team, TeamTask, Unwatched } from "./decider.ts";
import { hireThreads } from "./hiring.ts";
import { addMeasured } from "./meter.ts";
import { Control, makeRings, nap, RingReader } from "./ring.ts";
import type { FirstNews, WorkerNews, WorkerPass, WorkerTask } from "./worker.ts";

/** What the capture's reader has, and room beside it for frames that no longer fit their records. */
const READER_BYTES = 4 << 20;
const SPARE_BYTES = 128 << 20;
/** Where nobody watches: most records that are gathered at once, and how long workers tell meanwhile. */
const RUN = 1 << 20;
/** How often stages are filled before anything else has a turn. */
const TURNS = 16;
const UNWATCHED_NAP_MS = 4;

/** Gives threads, as many as there are workers, their task; they are ready when this returns. */
export async function startTeam(
  task: TeamTask,
  threads: readonly Worker[] = hireThreads(task.workers),
): Promise<Team> {
  const { workers } = task;
  const engine = await createEngine({
    flowCountMax: 16,
    flow6CountMax: 16,
    arenaBytes: READER_BYTES + stagesBytes(workers) + SPARE_BYTES,
    warmUp: false,
    wasm: task.wasm,
  });
  const shared = makeRings(workers);
  const team = new WorkerTeam(engine, task, new Control(shared));
  for (const [worker, thread] of threads.entries()) {
    team.hire(thread, { ...task, worker, shared });
  }
  await team.ready();
  return team;
}

interface Member {
  thread: Worker;
  reader: RingReader;
  isReady: boolean;
  first: FirstNews | undefined;
  passes: WorkerPass[] | undefined;
}

class WorkerTeam implements Team {
  readonly memory: FrameMemory;
  readonly batch: DecidedBatch;
  readonly #control: Control;
  readonly #gathering: Gathering;
  readonly #members: Member[] = [];
  /** How far the first worker has read. */
  #at = { packets: 0, bytes: 0 };
  #failure: unknown;
  #isStopped = false;

  constructor(engine: Engine, task: TeamTask, control: Control) {
    const { arena, bytes, descriptors, exports, emits } = engine;
    const { workers, isWatched: describes, wantsFrames: hasFrames } = task;
    const { address } = arena;
    const region = { address: address + READER_BYTES, bytes: arena.bytes - READER_BYTES };
    const gathering = new Gathering(engine, { workers, describes, hasFrames, region });
    this.#gathering = gathering;
    this.#control = control;
    this.memory = { bytes, descriptors, exports, arena: { address, bytes: READER_BYTES } };
    this.batch = {
      descriptors,
      bytes,
      emits,
      exports,
      counters: () => ({ flows: gathering.flows }),
      get emitCount() {
        return gathering.emitCount;
      },
    };
  }

  hire(thread: Worker, task: WorkerTask): void {
    const reader = new RingReader(task.shared, task.worker);
    const member: Member = {
      thread,
      reader,
      isReady: false,
      first: undefined,
      passes: undefined,
    };
    this.#members.push(member);
    const fail = (error: unknown) => {
      if (!this.#isStopped) this.#failure ??= revived(error);
    };
    thread.on("message", (news: WorkerNews) => {
      if (news.what === "ready") member.isReady = true;
      else if (news.what === "at") this.#at = news;
      else if (news.what === "first") member.first = news;
      else member.passes = news.passes;
    });
    thread.on("error", fail);
    thread.on("exit", (code) => {
      if (!member.passes) fail(new Error(`worker ${task.worker} has ended with status ${code}`));
    });
    thread.ref();
    thread.postMessage(task);
  }

  /** Waits until every worker is as far as `isThere` says. */
  async #all(isThere: (member: Member) => boolean): Promise<void> {
    for (;;) {
      this.#check();
      if (this.#members.every(isThere)) return;
      await nap();
    }
  }

  #check(): void {
    if (this.#failure === undefined) return;
    void this.stop();
    throw this.#failure;
  }

  async ready(): Promise<void> {
    await this.#all(({ isReady }) => isReady);
  }

  /** Workers define their ports themselves, each when it meets an interface. */
  prepare(): void {}

  begin(): void {
    this.#control.open(1);
  }

  process(count: number): Promise<void> | undefined {
    this.#gathering.begin();
    return this.#describe(0, count);
  }

  /** Takes the decisions of descriptors [from, count). */
  #describe(from: number, count: number): Promise<void> | undefined {
    let index = from + this.#gathering.gather(from, count - from);
    while (index < count) {
      if (!this.#fill()) return this.#more().then(() => this.#describe(index, count));
      index += this.#gathering.gather(index, count - index);
    }
    return undefined;
  }

  /** Takes in what workers have told; false when that is nothing. */
  #fill(): boolean {
    let added = 0;
    for (const [worker, { reader }] of this.#members.entries()) {
      added += this.#gathering.add(worker, (room) => reader.drain(room));
    }
    return added > 0;
  }

  /** Waits until workers have told more. */
  async #more(): Promise<void> {
    while (!this.#fill()) {
      this.#check();
      if (this.#isOver()) {
        // What a worker has told before it was through is in its ring by now.
        if (this.#fill()) return;
        throw new Error(`no worker has decided record ${this.#gathering.records + 1}`);
      }
      await nap();
    }
  }

  /** Whether all workers are through with the first pass. */
  #isOver(): boolean {
    return this.#members.every(({ first }) => first !== undefined);
  }

  async unwatched(report: (packets: number, bytes: number) => void): Promise<Unwatched> {
    for (;;) {
      const isOver = this.#isOver();
      // Rings hold more than stages: what waits there would wait for another nap.
      let hasMore = false;
      for (let turn = 0; turn < TURNS && this.#fill(); turn++) {
        hasMore = true;
        this.#gathering.gather(0, RUN);
      }
      if (isOver && !hasMore) break;
      this.#check();
      report(this.#gathering.records, this.#gatheredBytes());
      // To be woken for each batch would cost more than the batch.
      await nap(isOver ? 0 : UNWATCHED_NAP_MS);
    }
    const { capture, failure } = this.#firsts()[0] as FirstNews;
    if (this.#gathering.records !== capture.packets) {
      throw new Error(`no worker has decided record ${this.#gathering.records + 1}`);
    }
    return {
      capture,
      measured: addMeasured(this.#firsts().map(({ measured }) => measured)),
      digest: this.#gathering.digest,
      failure: failure === undefined ? undefined : new CaptureError(failure),
    };
  }

  /** Captured bytes of the records gathered so far, by the mean length of those that the first worker has read. */
  #gatheredBytes(): number {
    const { packets, bytes } = this.#at;
    return packets > 0 ? this.#gathering.records * (bytes / packets) : 0;
  }

  digest(): bigint {
    return this.#gathering.digest;
  }

  async finish(): Promise<PassCounts> {
    await this.#all(() => this.#isOver());
    const firsts = this.#firsts();
    const counters = added(firsts.map((news) => news.counters));
    counters.flows.activeMax = Math.max(this.#gathering.flows.activeMax, counters.flows.active);
    const usage = (service: number) => {
      return added(firsts.map((news) => new Map(news.usages).get(service) as Usage));
    };
    return { counters: counters as Counters, usage };
  }

  #firsts(): FirstNews[] {
    return this.#members.map(({ first }) => first as FirstNews);
  }

  async rest(passes: number): Promise<WorkerPass[][]> {
    this.#control.open(passes);
    await this.#all((member) => member.passes !== undefined);
    return this.#members.map((member) => member.passes as WorkerPass[]);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#members.map(({ thread }) => thread.terminate()));
  }
}

/** The sum of documents of the same form, number by number. */
function added<T extends object>(documents: readonly T[]): T {
  const [first, ...others] = documents as [Record<string, unknown>];
  const sum = structuredClone(first);
  for (const other of others as Record<string, unknown>[]) {
    for (const [name, value] of Object.entries(other)) {
      const known = sum[name];
      if (typeof value === "number") sum[name] = (known as number) + value;
      else if (typeof value === "object") sum[name] = added([known as object, value as object]);
    }
  }
  return sum as T;
}
