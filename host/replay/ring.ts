/**
 * Shared memory between the workers of a replay and the thread that restores the order: a ring for
 * each worker, written by it alone and read by that thread alone, and a few words of control.
 *
 * Rings count in cells of CELL_BYTES, the size of a decision; positions are cells since the start,
 * modulo 2^32. Invariants: a reader sees whole items only; a writer that finds its ring full sleeps
 * until the reader has made room; nobody holds a lock.
 */

export const CELL_BYTES = 32;
const CELL_WORDS = CELL_BYTES / 4;
/** 4 MiB: sixteen of the longest frames that any reader accepts. */
const RING_CELLS = 1 << 17;
const RING_MASK = RING_CELLS - 1;
/** A reader lets a writer go on after so many cells. */
const RELEASE_CELLS = RING_CELLS / 8;

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
export function nap(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, NAP_MS));
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
  readonly words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #control: Int32Array;
  readonly #worker: number;
  #consumed = 0;
  #released = 0;
  #produced = 0;

  constructor(shared: SharedRings, worker: number) {
    const ring = shared.rings[worker] as SharedArrayBuffer;
    this.words = new Uint32Array(ring);
    this.#bytes = new Uint8Array(ring);
    this.#control = new Int32Array(shared.control);
    this.#worker = worker;
  }

  /** Index in `words` of the next item; -1 when there is none yet. */
  peek(): number {
    if (this.#consumed === this.#produced) {
      this.#produced = Atomics.load(this.#control, PRODUCED + this.#worker);
      if (this.#consumed === this.#produced) return -1;
    }
    return (this.#consumed & RING_MASK) * CELL_WORDS;
  }

  skip(bytes: number): void {
    this.#consumed = (this.#consumed + cellsOf(bytes)) | 0;
  }

  /** Copies the next item to `target`, which is as long as the item, and steps over it. */
  take(target: Uint8Array): void {
    const at = (this.#consumed & RING_MASK) * CELL_BYTES;
    const first = Math.min(target.length, this.#bytes.length - at);
    target.set(this.#bytes.subarray(at, at + first));
    if (first < target.length) target.set(this.#bytes.subarray(0, target.length - first), first);
    this.skip(target.length);
  }

  /** Gives room back to the writer, if there is much or `isDue`. */
  release(isDue: boolean): void {
    const cells = (this.#consumed - this.#released) | 0;
    if (cells === 0 || (cells < RELEASE_CELLS && !isDue)) return;
    this.#released = this.#consumed;
    Atomics.store(this.#control, CONSUMED + this.#worker, this.#consumed);
    Atomics.notify(this.#control, CONSUMED + this.#worker);
  }
}

function cellsOf(bytes: number): number {
  return Math.ceil(bytes / CELL_BYTES);
}
