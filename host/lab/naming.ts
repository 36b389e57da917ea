/**
 * Network tables between those who name services and the workers, which know numbers: tables are
 * packed once for all workers of a process, on its main thread, and what is asked by name is asked
 * of the workers by number. Whatever changes tables or ends flows happens in the order of the calls.
 */
import type { Usage } from "../engine/api.ts";
import type { NetworkTables } from "../engine/network.ts";
import type { TablePacker } from "../engine/packer.ts";
import type { NamedMethod, ThreadApi, WorkerApi } from "./messages.ts";

/** Asks all workers; answers in their order. */
export type AskThreads = <M extends keyof ThreadApi>(
  method: M,
  ...words: Parameters<ThreadApi[M]>
) => Promise<ReturnType<ThreadApi[M]>[]>;

type Named = {
  [M in NamedMethod]: (...words: Parameters<WorkerApi[M]>) => Promise<ReturnType<WorkerApi[M]>[]>;
};

export class Naming implements Named {
  readonly #packer: TablePacker;
  readonly #ask: AskThreads;
  readonly #workerCount: number;
  /** What has been ended since tables were loaded last. Until others are, such flows may begin: they are
   *  ended once more then. */
  readonly #ended: Parameters<ThreadApi["terminate"]>[0][] = [];
  #last: Promise<unknown> = Promise.resolve();

  constructor(packer: TablePacker, workerCount: number, ask: AskThreads) {
    this.#packer = packer;
    this.#workerCount = workerCount;
    this.#ask = ask;
  }

  /** @throws TypeError, RangeError as `TablePacker.pack` */
  setTables(tables: NetworkTables): Promise<ReturnType<WorkerApi["setTables"]>[]> {
    return this.#inOrder(async () => {
      const living = new Set((await this.#ask("living", this.#packer.left)).flat());
      const packed = this.#packer.pack(tables, (service) => living.has(service));
      const answers = await this.#ask("loadTables", packed);
      for (const flows of this.#ended.splice(0)) await this.#ask("terminate", flows);
      return answers;
    });
  }

  /** @throws TypeError when the tables have no such service */
  terminate(flows: Parameters<WorkerApi["terminate"]>[0]): Promise<number[]> {
    return this.#inOrder(async () => {
      const { service: id, ...target } = flows;
      const service = id === undefined ? undefined : this.#packer.numberOf(id);
      if (id !== undefined && service === undefined) {
        throw new TypeError(`service: the tables have no ${id}`);
      }
      const ended = service === undefined ? target : { ...target, service };
      this.#ended.push(ended);
      return this.#ask("terminate", ended);
    });
  }

  async usages(ids: string[]): Promise<Record<string, Usage>[]> {
    const numbers = this.#numbers(ids);
    const all = await this.#ask("usages", Object.values(numbers));
    return all.map((usages) => {
      const names = Object.keys(numbers);
      return Object.fromEntries(usages.map((usage, at) => [names[at] as string, usage]));
    });
  }

  /** The same for all workers. */
  async serviceNumbers(ids: string[]): Promise<Record<string, number>[]> {
    return Array.from({ length: this.#workerCount }, () => this.#numbers(ids));
  }

  #numbers(ids: readonly string[]): Record<string, number> {
    const numbers: Record<string, number> = {};
    for (const id of ids) {
      const number = this.#packer.numberOf(id);
      if (number !== undefined) numbers[id] = number;
    }
    return numbers;
  }

  /** Whatever became of what was asked before, this comes after it. */
  #inOrder<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    const next = this.#last.then(ask);
    this.#last = next.catch(() => undefined);
    return next;
  }
}
