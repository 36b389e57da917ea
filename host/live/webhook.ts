/**
 * Brings events to a URL by HTTP POST, one after another and in order. A delivery counts when the
 * answer is 2xx; else it is tried again after 1, 2, 4 and 8 seconds, and then given up and counted.
 *
 * Bounded: 1,000 events wait; what comes on top of them is dropped and counted, because a lab does
 * not stop for whoever listens.
 */

import type { LiveEvent } from "./events.ts";

export interface WebhookOptions {
  url: string;
  fetch?: typeof fetch;
  /** Waits so many milliseconds; a test makes it short. */
  wait?: (ms: number) => Promise<void>;
}

export interface WebhookCounters {
  delivered: number;
  retried: number;
  failed: number;
  dropped: number;
}

const QUEUE_MAX = 1000;
const TRIES_MAX = 5;
const FIRST_WAIT_MS = 1000;
const ANSWER_MS_MAX = 5000;

export class Webhook {
  readonly counters: WebhookCounters = { delivered: 0, retried: 0, failed: 0, dropped: 0 };
  readonly #options: WebhookOptions;
  readonly #stop = new AbortController();
  #queue: LiveEvent[] = [];
  #work: Promise<void> | undefined;

  constructor(options: WebhookOptions) {
    this.#options = options;
  }

  get url(): string {
    return this.#options.url;
  }

  send(event: LiveEvent): void {
    if (this.#stop.signal.aborted) return;
    if (this.#queue.length >= QUEUE_MAX) {
      this.counters.dropped++;
      return;
    }
    this.#queue.push(event);
    this.#work ??= this.#deliverAll();
  }

  /** Gives up what waits. */
  async close(): Promise<void> {
    this.counters.dropped += this.#queue.length;
    this.#queue = [];
    this.#stop.abort();
    await this.#work;
  }

  async #deliverAll(): Promise<void> {
    for (;;) {
      const event = this.#queue.shift();
      if (event === undefined) break;
      await this.#deliver(event);
    }
    this.#work = undefined;
  }

  async #deliver(event: LiveEvent): Promise<void> {
    const wait = this.#options.wait ?? ((ms) => pause(ms, this.#stop.signal));
    for (let tries = 1; !this.#stop.signal.aborted; tries++) {
      if (await this.#post(event)) {
        this.counters.delivered++;
        return;
      }
      if (tries === TRIES_MAX) break;
      this.counters.retried++;
      await wait(FIRST_WAIT_MS * 2 ** (tries - 1));
    }
    this.counters.failed++;
  }

  async #post(event: LiveEvent): Promise<boolean> {
    const timeout = AbortSignal.timeout(ANSWER_MS_MAX);
    try {
      const response = await (this.#options.fetch ?? fetch)(this.#options.url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(event),
        signal: AbortSignal.any([timeout, this.#stop.signal]),
      });
      await response.body?.cancel();
      return response.ok;
    } catch {
      return false;
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
