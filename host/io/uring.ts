/**
 * A ring of requests to the kernel, io_uring(7): any number of reads and writes by one system call, which can
 * wait for results as well. The rings lie in a memory that the caller has anyway, so nothing needs to be
 * mapped (Linux 6.6, and devices whose reads and writes can be told not to wait).
 *
 * The kernel carries requests out one after the other, in the order in which they were put in, before
 * `submit` returns. So a request may read to where an earlier one writes from. Only a patient read that
 * finds nothing stays behind: it is carried out once there is something, within a later `submit`.
 */
import { EINTR, type Syscalls } from "./syscalls.ts";

/** Requests of one submission. */
export const RING_COUNT = 128;
const PAGE_BYTES = 4096;
/** Two pages of queues, two of requests, and what may be left over before the first. */
export const RING_BYTES = 5 * PAGE_BYTES;
const REQUESTS_AT = 2 * PAGE_BYTES;

const SETUP_SUBMIT_ALL = 1 << 7;
const SETUP_SINGLE_ISSUER = 1 << 12;
const SETUP_DEFER_TASKRUN = 1 << 13;
const SETUP_NO_MMAP = 1 << 14;
const SETUP_NO_SQARRAY = 1 << 16;
const SETUP =
  SETUP_SUBMIT_ALL | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN | SETUP_NO_MMAP | SETUP_NO_SQARRAY;
const ENTER_GETEVENTS = 1;
const READ = 22;
const WRITE = 23;
const RWF_NOWAIT = 8;
const EOPNOTSUPP = 95;

/** struct io_uring_sqe and io_uring_cqe, in words. */
const REQUEST_WORDS = 16;
const RESULT_WORDS = 4;
/** struct io_uring_params: its length, and where what is used here begins. */
const PARAMS_BYTES = 120;
const PARAMS_RESULT_COUNT = 4;
const PARAMS_FLAGS = 8;
const PARAMS_SQ_TAIL = 44;
const PARAMS_SQ_ADDRESS = 72;
const PARAMS_CQ_HEAD = 80;
const PARAMS_CQ_TAIL = 84;
const PARAMS_CQ_RESULTS = 100;
const PARAMS_CQ_ADDRESS = 112;
const TWO_TO_32 = 2 ** 32;

export class Ring {
  readonly #system: Syscalls;
  readonly #memory: Uint8Array;
  readonly #words: Uint32Array;
  readonly #base: number;
  readonly #fd: number;
  readonly #resultMask: number;
  // Where these begin, in words of the memory.
  readonly #requests: number;
  readonly #requestTail: number;
  readonly #resultHead: number;
  readonly #resultTail: number;
  readonly #resultsAt: number;
  #tail = 0;
  #count = 0;

  /**
   * Makes a ring for the calling thread in `memory`, between `room` and RING_BYTES later, for descriptors
   * such as `device`. Undefined where the kernel has no such ring, or the device may wait.
   */
  static open(
    system: Syscalls,
    memory: Uint8Array,
    room: number,
    device: number,
  ): Ring | undefined {
    const base = system.addressOf(memory);
    const start = Math.ceil((base + room) / PAGE_BYTES) * PAGE_BYTES - base;
    memory.fill(0, start, start + RING_BYTES - PAGE_BYTES);
    const params = new DataView(new ArrayBuffer(PARAMS_BYTES));
    params.setUint32(PARAMS_FLAGS, SETUP, true);
    params.setBigUint64(PARAMS_CQ_ADDRESS, BigInt(base + start), true);
    params.setBigUint64(PARAMS_SQ_ADDRESS, BigInt(base + start + REQUESTS_AT), true);
    const fd = system.setUpRing(RING_COUNT, new Uint8Array(params.buffer));
    if (fd < 0) return undefined;
    const ring = new Ring(system, memory, fd, start, params);
    // No frame is so short: what can be told not to wait says that, what cannot says so first.
    ring.write(device, start, 0, 0);
    let said = 0;
    ring.submit(1, (_, result) => {
      said = result;
    });
    if (said !== -EOPNOTSUPP) return ring;
    ring.close();
    return undefined;
  }

  private constructor(
    system: Syscalls,
    memory: Uint8Array,
    fd: number,
    start: number,
    params: DataView,
  ) {
    const wordOf = (offsetAt: number) => (start + params.getUint32(offsetAt, true)) >> 2;
    this.#system = system;
    this.#memory = memory;
    this.#words = new Uint32Array(memory.buffer as ArrayBuffer, memory.byteOffset);
    this.#base = system.addressOf(memory);
    this.#fd = fd;
    this.#requests = (start + REQUESTS_AT) >> 2;
    this.#requestTail = wordOf(PARAMS_SQ_TAIL);
    this.#resultHead = wordOf(PARAMS_CQ_HEAD);
    this.#resultTail = wordOf(PARAMS_CQ_TAIL);
    this.#resultsAt = wordOf(PARAMS_CQ_RESULTS);
    this.#resultMask = params.getUint32(PARAMS_RESULT_COUNT, true) - 1;
  }

  /** Requests since the last submission. */
  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === RING_COUNT;
  }

  /**
   * Asks for a read of at most `bytes` to `offset` of the memory, its result to be told with `tag`, a u32. A
   * patient one waits for something to read. @throws RangeError as a Window does
   */
  read(fd: number, offset: number, bytes: number, tag: number, isPatient: boolean): void {
    this.#ask(READ, fd, offset, bytes, tag, isPatient ? 0 : RWF_NOWAIT);
  }

  /** Asks for a write of `bytes` at `offset` of the memory. @throws RangeError as a Window does */
  write(fd: number, offset: number, bytes: number, tag: number): void {
    this.#ask(WRITE, fd, offset, bytes, tag, RWF_NOWAIT);
  }

  #ask(
    operation: number,
    fd: number,
    offset: number,
    bytes: number,
    tag: number,
    flags: number,
  ): void {
    if (!(offset >= 0 && bytes >= 0 && offset + bytes <= this.#memory.length)) {
      const { length } = this.#memory;
      throw new RangeError(`ring: ${bytes} bytes at ${offset} are not within ${length}`);
    }
    if (this.isFull) throw new RangeError(`ring: has no room for more than ${RING_COUNT} requests`);
    const words = this.#words;
    const at = this.#requests + (this.#tail & (RING_COUNT - 1)) * REQUEST_WORDS;
    const address = this.#base + offset;
    words[at] = operation;
    words[at + 1] = fd;
    words[at + 4] = address;
    words[at + 5] = Math.floor(address / TWO_TO_32);
    words[at + 6] = bytes;
    words[at + 7] = flags;
    words[at + 8] = tag;
    this.#tail = (this.#tail + 1) >>> 0;
    this.#count++;
  }

  /**
   * Hands all requests in and waits until `least` results are there, or a signal comes; then tells each result
   * that there is: its tag, and bytes or a negative error number. @throws when the ring is broken
   */
  submit(least: number, tell: (tag: number, result: number) => void): void {
    const count = this.#count;
    this.#count = 0;
    this.#words[this.#requestTail] = this.#tail;
    const taken = this.#system.enterRing(this.#fd, count, least, ENTER_GETEVENTS);
    // A signal can only come while it waits, when all has been handed in.
    if (taken !== count && taken !== -EINTR) {
      throw new Error(`ring: ${taken} of ${count} requests were taken`);
    }
    const words = this.#words;
    const tail = words[this.#resultTail] as number;
    for (let next = words[this.#resultHead] as number; next !== tail; next = (next + 1) >>> 0) {
      const at = this.#resultsAt + (next & this.#resultMask) * RESULT_WORDS;
      tell(words[at] as number, (words[at + 2] as number) | 0);
    }
    words[this.#resultHead] = tail;
  }

  close(): void {
    this.#system.close(this.#fd);
  }
}
