/**
 * Simulated time: events in the order of their instants, those of one instant in the order in which
 * they were planned. What an event sets off through promises is over before the next event.
 */

interface Event {
  atMs: number;
  number: number;
  run: () => void;
}

/** Turns of the promise queue after which whatever an event has set off waits for another event. */
const TURNS = 24;

export class Schedule {
  nowMs = 0;
  events = 0;
  /** A binary heap. */
  readonly #heap: Event[] = [];
  #planned = 0;

  after(delayMs: number, run: () => void): void {
    const event = { atMs: this.nowMs + delayMs, number: this.#planned++, run };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(event, heap[above] as Event)) break;
      heap[at] = heap[above] as Event;
      at = above;
    }
    heap[at] = event;
  }

  /** Runs all events up to an instant. */
  async run(endMs: number): Promise<void> {
    for (let event = this.#next(endMs); event; event = this.#next(endMs)) {
      this.nowMs = event.atMs;
      this.events++;
      event.run();
      for (let turn = 0; turn < TURNS; turn++) await undefined;
    }
    this.nowMs = endMs;
  }

  #next(endMs: number): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.atMs > endMs) return undefined;
    const last = heap.pop() as Event;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      const right = heap[below + 1];
      if (right && isBefore(right, heap[below] as Event)) below++;
      if (!isBefore(heap[below] as Event, last)) break;
      heap[at] = heap[below] as Event;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.number < other.number);
}
