/**
 * Shared memory between the workers of a replay and the thread that restores the order: a ring for
 * each worker, written by it alone and read by that thread alone, and a few words of control.
 *
 * Rings count in cells of CELL_BYTES, the size of a decision; positions are cells since the start,
 * modulo 2^32. Invariants: nothing is overwritten that was not read; a writer that finds its ring full
 * sleeps until the reader has made room; nobody holds a lock.
 */

export const CELL_BYTES = 32;
/** 4 MiB: sixteen of the longest frames that any reader accepts. */
const RING_CELLS = 1 << 17;
const RING_MASK = RING_CELLS - 1;

/** Words of control. */
const GATE = 0;
const ARRIVED = 1;
const PRODUCED = 2;
const CONSUMED = PRODUCED + 64;
const CONTROL_WORDS = CONSUMED + 64;

/** What all threads share. */
export interface SharedRings {
  control: SharedArrayBuffer;
  rings: SharedArrayBuffer[];
}

export function makeRings(workers: number): SharedRings {
  const rings = Array.from({ length: workers }, () => {
    return new SharedArrayBuffer(RING_CELLS * CELL_BYTES);
  });
  return { control: new SharedArrayBuffer(CONTROL_WORDS * 4), rings };
}

/** The words that tell threads when to go on. */
export class Control {
  readonly #words: Int32Array;
  readonly #workers: number;

  constructor({ control, rings }: SharedRings) {
    this.#words = new Int32Array(control);
    this.#workers = rings.length;
  }

  /** Lets workers into all passes up to `pass`. */
  open(pass: number): void {
    Atomics.store(this.#words, GATE, pass);
    Atomics.notify(this.#words, GATE);
  }

  /** Sleeps until `pass` is open and all workers have come so far. */
  enter(pass: number): void {
    for (let open = 0; open < pass; ) {
      open = Atomics.load(this.#words, GATE);
      if (open < pass) Atomics.wait(this.#words, GATE, open);
    }
    const all = pass * this.#workers;
    const arrived = Atomics.add(this.#words, ARRIVED, 1) + 1;
    if (arrived === all) Atomics.notify(this.#words, ARRIVED);
    for (let count = arrived; count < all; count = Atomics.load(this.#words, ARRIVED)) {
      Atomics.wait(this.#words, ARRIVED, count);
    }
  }
}

const NAP_MS = 1;

/**
 * Rests while workers work. To be woken for each batch would cost more than the batch: so whoever has
 * nothing to do looks again a little later, and finds much.
 */
export function nap(ms = NAP_MS): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A worker's end of its ring. */
export class RingWriter {
  readonly #control: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #worker: number;
  #produced = 0;

  constructor(shared: SharedRings, worker: number) {
    this.#control = new Int32Array(shared.control);
    this.#bytes = new Uint8Array(shared.rings[worker] as SharedArrayBuffer);
    this.#worker = worker;
  }

  /** Waits for room for `bytes` bytes in items that stand together. */
  reserve(bytes: number): void {
    const cells = cellsOf(bytes);
    for (;;) {
      const consumed = Atomics.load(this.#control, CONSUMED + this.#worker);
      if (((this.#produced - consumed) | 0) + cells <= RING_CELLS) return;
      this.publish();
      Atomics.wait(this.#control, CONSUMED + this.#worker, consumed);
    }
  }

  /** Appends an item for which there is room; it begins at a cell. */
  put(item: Uint8Array): void {
    const at = (this.#produced & RING_MASK) * CELL_BYTES;
    const first = Math.min(item.length, this.#bytes.length - at);
    this.#bytes.set(item.subarray(0, first), at);
    if (first < item.length) this.#bytes.set(item.subarray(first), 0);
    this.#produced = (this.#produced + cellsOf(item.length)) | 0;
  }

  /** Shows the reader what was put. */
  publish(): void {
    Atomics.store(this.#control, PRODUCED + this.#worker, this.#produced);
  }
}

/** The reading end of a worker's ring. */
export class RingReader {
  readonly #bytes: Uint8Array;
  readonly #control: Int32Array;
  readonly #worker: number;
  #consumed = 0;

  constructor(shared: SharedRings, worker: number) {
    this.#bytes = new Uint8Array(shared.rings[worker] as SharedArrayBuffer);
    this.#control = new Int32Array(shared.control);
    this.#worker = worker;
  }

  /**
   * Moves what there is to `target`, as much as fits in whole cells, and gives its room back to the
   * writer. Returns how many bytes.
   */
  drain(target: Uint8Array): number {
    const produced = Atomics.load(this.#control, PRODUCED + this.#worker);
    const there = (produced - this.#consumed) | 0;
    const cells = Math.min(there, Math.floor(target.length / CELL_BYTES));
    if (cells === 0) return 0;
    const at = (this.#consumed & RING_MASK) * CELL_BYTES;
    const length = cells * CELL_BYTES;
    const first = Math.min(length, this.#bytes.length - at);
    target.set(this.#bytes.subarray(at, at + first));
    if (first < length) target.set(this.#bytes.subarray(0, length - first), first);
    this.#consumed = (this.#consumed + cells) | 0;
    Atomics.store(this.#control, CONSUMED + this.#worker, this.#consumed);
    Atomics.notify(this.#control, CONSUMED + this.#worker);
    return length;
  }
}

function cellsOf(bytes: number): number {
  return Math.ceil(bytes / CELL_BYTES);
}
