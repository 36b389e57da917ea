/**
 * Calls between two processes over Node's channel (`process.send`): either side calls what the other
 * one offers, and gets a promise. What an end was waiting for rejects when the other one has gone.
 */
import { FlowplaneError } from "../errors.ts";

/** A ChildProcess, or the `process` of the child. */
export interface ChannelEnd {
  send?(message: unknown, callback: (error: Error | null) => void): unknown;
  on(event: "message", listener: (message: unknown) => void): unknown;
  on(event: "disconnect", listener: () => void): unknown;
}

/** What can be called, by name. */
export type Offers = Record<string, (...words: never[]) => unknown>;

type Message =
  | { kind: "call"; id: number; name: string; words: unknown[] }
  | { kind: "answer"; id: number; value?: unknown; error?: string };

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The other end has gone: nobody knows what became of the call. */
export class ChannelGone extends FlowplaneError {
  constructor() {
    super("the other process has gone");
  }
}

export class Channel {
  readonly #end: ChannelEnd;
  readonly #offers: Offers;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #isGone = false;

  constructor(end: ChannelEnd, offers: Offers) {
    this.#end = end;
    this.#offers = offers;
    end.on("message", (message) => this.#take(message as Message));
    end.on("disconnect", () => this.#lose());
  }

  /** @throws FlowplaneError with what the other end has thrown; ChannelGone when it has gone */
  call(name: string, ...words: unknown[]): Promise<unknown> {
    if (this.#isGone) return Promise.reject(new ChannelGone());
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#say({ kind: "call", id, name, words });
    return promise;
  }

  #say(message: Message): void {
    this.#end.send?.(message, (error) => {
      if (error) this.#lose();
    });
  }

  #take(message: Message): void {
    if (message.kind === "call") return void this.#answer(message);
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(new FlowplaneError(message.error));
  }

  async #answer({ id, name, words }: Extract<Message, { kind: "call" }>): Promise<void> {
    try {
      const offer = this.#offers[name];
      if (offer === undefined) throw new FlowplaneError(`${name}: is not offered`);
      this.#say({ kind: "answer", id, value: await offer(...(words as never[])) });
    } catch (error) {
      this.#say({ kind: "answer", id, error: (error as Error).message });
    }
  }

  #lose(): void {
    this.#isGone = true;
    for (const { reject } of this.#waiting.values()) reject(new ChannelGone());
    this.#waiting.clear();
  }
}
