/**
 * Several workers replay one capture: each keeps the frames of its lanes (assembly/capture/select)
 * and decides them with an engine of its own. This side reads the capture too, takes from the
 * workers' rings what became of each record, in order, and puts it where one engine would have:
 * recorders, meters and the digest do not know how many have worked.
 *
 * Invariants: nothing is shared on the packet path, and nobody waits for another worker there; a
 * ring that runs full makes its worker sleep, a record that nobody has decided yet makes this side
 * wait. The result is that of one worker, byte for byte, as long as no flow table is more than
 * three quarters full and fewer datagrams are in pieces than FRAGMENT_COUNT_MAX.
 */

import { Worker } from "node:worker_threads";
import type { FrameMemory } from "../capture/source.ts";
import type { Counters, Usage } from "../engine/api.ts";
import {
  DECISION_BYTES,
  DECISION_WORD_ACTIVE,
  DECISION_WORD_BYTES,
  DECISION_WORD_CREATED,
  DECISION_WORD_FLOW,
  DECISION_WORD_RECORD,
  DECISION_WORD_VERDICT,
  DECISION_WORDS,
  decisionsOf,
  descriptorVerdict,
  isDecisionLast,
  isDecisionMade,
  isDecisionOut,
} from "../engine/decisions.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import {
  WORD_ADDRESS,
  WORD_CAPTURED,
  WORD_CAUSE,
  WORD_FLOW,
  WORD_PORTS,
  WORD_TIME,
  WORD_VERDICT,
  WORD_WIRE,
  WORDS,
} from "./batch.ts";
import type { DecidedBatch, PassCounts, Team, TeamTask } from "./decider.ts";
import { Control, makeRings, nap, RingReader } from "./ring.ts";
import type { WorkerNews, WorkerPass, WorkerTask } from "./worker.ts";

/** What the capture's reader has, and room beside it for frames that no longer fit their records. */
const READER_BYTES = 4 << 20;
const SPARE_BYTES = 128 << 20;
const MODULE_URL = new URL(
  import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js",
  import.meta.url,
);

/** Starts the workers; they are ready when this returns. */
export async function startTeam(task: TeamTask): Promise<Team> {
  const { workers } = task;
  const engine = await createEngine({
    flowCountMax: 16,
    flow6CountMax: 16,
    arenaBytes: READER_BYTES + SPARE_BYTES,
    warmUp: false,
    wasm: task.wasm,
  });
  const shared = makeRings(workers);
  const team = new WorkerTeam(engine, task, new Control(shared));
  for (let worker = 0; worker < workers; worker++) {
    team.hire({ ...task, worker, shared }, new RingReader(shared, worker));
  }
  await team.ready();
  return team;
}

interface Member {
  thread: Worker;
  reader: RingReader;
  isReady: boolean;
  /** Flows active and created, as of its last decision that was taken. */
  active: number;
  created: number;
  first: Extract<WorkerNews, { what: "first" }> | undefined;
  passes: WorkerPass[] | undefined;
}

class WorkerTeam implements Team {
  readonly memory: FrameMemory;
  readonly batch: DecidedBatch;
  readonly #engine: Engine;
  readonly #control: Control;
  readonly #wantsFrames: boolean;
  readonly #members: Member[] = [];
  readonly #list: Uint32Array;
  #listed = 0;
  #emitCount = 0;
  /** Where the next frame that needs room goes. */
  #spare = 0;
  #record = 0;
  #owner = 0;
  #active = 0;
  #activeMax = 0;
  #created = 0;
  #failure: unknown;
  #isStopped = false;

  constructor(engine: Engine, task: TeamTask, control: Control) {
    const { arena, bytes, descriptors, exports, emits } = engine;
    this.#engine = engine;
    this.#control = control;
    this.#wantsFrames = task.wantsFrames;
    this.#list = decisionsOf(engine).words;
    const address = arena.address;
    this.memory = { bytes, descriptors, exports, arena: { address, bytes: READER_BYTES } };
    const flows = () => ({ flows: { active: this.#active, created: this.#created } });
    const emitCount = () => this.#emitCount;
    this.batch = {
      descriptors,
      bytes,
      emits,
      counters: flows,
      get emitCount() {
        return emitCount();
      },
    };
  }

  hire(task: WorkerTask, reader: RingReader): void {
    const thread = new Worker(MODULE_URL, { workerData: task });
    const member: Member = {
      thread,
      reader,
      isReady: false,
      active: 0,
      created: 0,
      first: undefined,
      passes: undefined,
    };
    this.#members.push(member);
    const fail = (error: unknown) => {
      if (!this.#isStopped) this.#failure ??= error;
    };
    thread.on("message", (news: WorkerNews) => {
      if (news.what === "ready") member.isReady = true;
      else if (news.what === "first") member.first = news;
      else member.passes = news.passes;
    });
    thread.on("error", fail);
    thread.on("exit", (code) => {
      if (!member.passes) fail(new Error(`worker ${task.worker} has ended with status ${code}`));
    });
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
    this.#listed = 0;
    this.#emitCount = 0;
    this.#spare = this.#engine.arena.address + READER_BYTES;
    return this.#decide(0, count);
  }

  /** Takes the decisions of descriptors [from, count). */
  #decide(from: number, count: number): Promise<void> | undefined {
    for (let index = from; index < count; index++) {
      const member = this.#ownerOf(this.#record);
      if (!member) return this.#later(index, count);
      this.#takeRecord(member, index);
      this.#record++;
    }
    for (const { reader } of this.#members) reader.release(false);
    return undefined;
  }

  async #later(index: number, count: number): Promise<void> {
    for (const { reader } of this.#members) reader.release(true);
    while (!this.#ownerOf(this.#record)) {
      this.#check();
      const isOver = this.#members.every(({ first }) => first !== undefined);
      if (isOver && !this.#ownerOf(this.#record)) {
        throw new Error(`no worker has decided record ${this.#record + 1}`);
      }
      await nap();
    }
    await this.#decide(index, count);
  }

  /** Who has decided a record: the member whose next decision is about it. */
  #ownerOf(record: number): Member | undefined {
    const members = this.#members;
    for (let step = 0; step < members.length; step++) {
      const member = members[this.#owner] as Member;
      const at = member.reader.peek();
      if (at >= 0 && member.reader.words[at + DECISION_WORD_RECORD] === record) return member;
      this.#owner = this.#owner + 1 === members.length ? 0 : this.#owner + 1;
    }
    return undefined;
  }

  /** Takes all decisions of one record. */
  #takeRecord(member: Member, index: number): void {
    const { reader } = member;
    const { words } = reader;
    const list = this.#list;
    for (let isLast = false; !isLast; ) {
      const at = reader.peek();
      const to = this.#listed * DECISION_WORDS;
      for (let word = 0; word < DECISION_WORDS; word++)
        list[to + word] = words[at + word] as number;
      this.#listed++;
      reader.skip(DECISION_BYTES);
      const verdict = list[to + DECISION_WORD_VERDICT] as number;
      isLast = isDecisionLast(verdict);
      if (isDecisionMade(verdict)) this.#addMade(reader, to, index);
      else this.#setFrame(reader, to, index);
      if (isLast) this.#countFlows(member, to);
    }
  }

  #countFlows(member: Member, decision: number): void {
    const active = this.#list[decision + DECISION_WORD_ACTIVE] as number;
    const created = this.#list[decision + DECISION_WORD_CREATED] as number;
    this.#active += active - member.active;
    this.#created += created - member.created;
    member.active = active;
    member.created = created;
    if (this.#active > this.#activeMax) this.#activeMax = this.#active;
  }

  #setFrame(reader: RingReader, decision: number, index: number): void {
    const { descriptors, bytes } = this.#engine;
    const at = index * WORDS;
    const verdict = this.#list[decision + DECISION_WORD_VERDICT] as number;
    const length = this.#list[decision + DECISION_WORD_BYTES] as number;
    const before = descriptors[at + WORD_CAPTURED] as number;
    descriptors[at + WORD_VERDICT] = descriptorVerdict(verdict);
    descriptors[at + WORD_FLOW] = this.#list[decision + DECISION_WORD_FLOW] as number;
    if (length !== before) {
      descriptors[at + WORD_ADDRESS] = this.#room(length);
      descriptors[at + WORD_CAPTURED] = length;
      descriptors[at + WORD_WIRE] = (descriptors[at + WORD_WIRE] as number) + length - before;
    }
    if (!this.#wantsFrames || !isDecisionOut(verdict)) return;
    const address = descriptors[at + WORD_ADDRESS] as number;
    reader.take(bytes.subarray(address, address + length));
  }

  #addMade(reader: RingReader, decision: number, index: number): void {
    const { descriptors, emits, bytes } = this.#engine;
    const at = this.#emitCount++ * WORDS;
    const length = this.#list[decision + DECISION_WORD_BYTES] as number;
    const address = this.#room(length);
    emits[at + WORD_ADDRESS] = address;
    emits[at + WORD_CAPTURED] = length;
    emits[at + WORD_TIME] = descriptors[index * WORDS + WORD_TIME] as number;
    emits[at + WORD_PORTS] = descriptors[index * WORDS + WORD_PORTS] as number;
    emits[at + WORD_VERDICT] = descriptorVerdict(
      this.#list[decision + DECISION_WORD_VERDICT] as number,
    );
    emits[at + WORD_FLOW] = this.#list[decision + DECISION_WORD_FLOW] as number;
    emits[at + WORD_CAUSE] = index;
    emits[at + WORD_WIRE] = length;
    if (this.#wantsFrames) reader.take(bytes.subarray(address, address + length));
  }

  /** Room for a frame that does not stand in its record. */
  #room(length: number): number {
    const address = this.#spare;
    this.#spare += length;
    const end = this.#engine.arena.address + this.#engine.arena.bytes;
    if (this.#spare > end) throw new Error("a batch has grown by more than there is room for");
    return address;
  }

  digest(_: number, previous: bigint): bigint {
    const { exports } = this.#engine;
    return exports.digestDecisions(this.#list.byteOffset, this.#listed, previous);
  }

  async finish(): Promise<PassCounts> {
    for (const { reader } of this.#members) reader.release(true);
    await this.#all(({ first }) => first !== undefined);
    const firsts = this.#members.map(({ first }) => first as NonNullable<Member["first"]>);
    const counters = added(firsts.map((news) => news.counters));
    counters.flows.activeMax = Math.max(this.#activeMax, counters.flows.active);
    const usage = (service: number) => {
      return added(firsts.map((news) => new Map(news.usages).get(service) as Usage));
    };
    return { counters: counters as Counters, usage };
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
