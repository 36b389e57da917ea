/**
 * The few system calls that Node.js has none of its own for: open, ioctl, read, write and poll on
 * devices, io_uring, eventfd, setns, bpf and madvise. They go through koffi, an optional dependency that is loaded only
 * here, so that everything else works without it.
 *
 * A foreign call has no safety net: what is read and written lies inside a `Window`, which checks
 * every address. Failures come back as negative error numbers, as the kernel gives them; nothing on
 * the packet path throws.
 */
import { FlowplaneError } from "../errors.ts";

const EPERM = 1;
export const EINTR = 4;
export const EAGAIN = 11;
export const EBUSY = 16;
export const EINVAL = 22;

export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const POLLIN = 1;
export const CLONE_NEWNET = 0x40000000;
export const MADV_HUGEPAGE = 14;

/** A memory that system calls read from and write to; offsets count from its begin. */
export interface Window {
  /** Bytes read, or a negative error number. @throws RangeError when the room is not inside */
  read(fd: number, offset: number, bytes: number): number;
  /** Bytes written, or a negative error number. @throws RangeError when the bytes are not inside */
  write(fd: number, offset: number, bytes: number): number;
}

/** Every call returns what the kernel does: a number, negative for an error number. */
export interface Syscalls {
  open(path: string, flags: number): number;
  close(fd: number): number;
  /** `argument` is a structure in memory, or a plain number. */
  ioctl(fd: number, request: number, argument: Uint8Array | number): number;
  /**
   * Waits until one of the pollfd structures in `set` (8 bytes each: descriptor i32, events i16,
   * returned events i16) is ready; returns how many are. `timeoutMs` -1 waits without end.
   */
  poll(set: Int32Array, timeoutMs: number): number;
  /** Rests for some microseconds, rounded up by the timer's slack. */
  usleep(micros: number): number;
  /** How late the calling thread's timers may be, in nanoseconds. */
  setTimerSlack(nanos: number): number;
  /**
   * Puts the calling thread before all ordinary ones, at the lowest real-time priority (SCHED_RR).
   * Threads that it starts are ordinary again. One that stands in another class (idle, batch) was
   * put there by somebody, and stays: EPERM.
   */
  setRealTime(): number;
  /** Whether the calling thread has a real-time priority. */
  isRealTime(): boolean;
  eventfd(): number;
  /** Puts the calling thread into a network namespace. */
  setns(fd: number, kind: number): number;
  /** bpf(2): loads a program of the given instructions; returns its descriptor. */
  loadProgram(type: number, instructions: Uint8Array): number;
  /** bpf(2): makes a map of `entries` entries at most; returns its descriptor. */
  createMap(type: number, keyBytes: number, valueBytes: number, entries: number): number;
  /** bpf(2): sets an entry of a map. */
  setEntry(map: number, key: Uint8Array, value: Uint8Array): number;
  /** bpf(2): takes an entry out of a map. */
  removeEntry(map: number, key: Uint8Array): number;
  /** madvise(2) about `bytes` of address space from the begin of `memory` on, in whole pages. */
  advise(memory: Uint8Array, bytes: number, advice: number): number;
  /** io_uring_setup(2): makes a ring of `count` requests, as `params` say and then describe. */
  setUpRing(count: number, params: Uint8Array): number;
  /** io_uring_enter(2): hands `count` requests in and waits until `least` results are there. */
  enterRing(fd: number, count: number, least: number, flags: number): number;
  /** Where the memory begins in this process. */
  addressOf(memory: Uint8Array): number;
  window(memory: Uint8Array): Window;
}

type Foreign = (...words: unknown[]) => number;
interface Koffi {
  load(path: null): { func(definition: string): Foreign };
  errno(): number;
  address(view: Uint8Array | Int32Array): bigint | number;
}

const EFD_NONBLOCK = O_NONBLOCK;
/** Numbers of bpf(2), which the C library has no function for. */
const BPF_NUMBERS: Readonly<Record<string, number>> = { x64: 321, arm64: 280, riscv64: 280 };
const BPF_MAP_CREATE = 0;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_MAP_DELETE_ELEM = 3;
const BPF_PROG_LOAD = 5;
/** Numbers of io_uring(7), the same on all machines. */
const RING_SETUP = 425;
const RING_ENTER = 426;
const PR_SET_TIMERSLACK = 29;
const SCHED_OTHER = 0;
const SCHED_FIFO = 1;
const SCHED_RR = 2;
const SCHED_RESET_ON_FORK = 0x40000000;
const REAL_TIME_PRIORITY_MIN = 1;
/** No kernel has smaller ones; a start within a larger page is refused. */
const PAGE_BYTES = 4096;

let loaded: Syscalls | undefined;

/** @throws FlowplaneError that says what is missing */
export async function loadSyscalls(): Promise<Syscalls> {
  if (loaded) return loaded;
  if (process.platform !== "linux") {
    throw new FlowplaneError(`system calls: this is ${process.platform}, they need Linux`);
  }
  let koffi: Koffi;
  try {
    koffi = (await import("koffi")).default as unknown as Koffi;
  } catch (error) {
    const reason = (error as Error).message.split("\n")[0];
    throw new FlowplaneError(`system calls: need the package koffi (npm install koffi): ${reason}`);
  }
  loaded = bind(koffi);
  return loaded;
}

function bind(koffi: Koffi): Syscalls {
  const libc = koffi.load(null);
  const open = libc.func("int open(const char *path, int flags)");
  const close = libc.func("int close(int fd)");
  const ioctl = libc.func("int ioctl(int fd, unsigned long request, void *argument)");
  const ioctlNumber = libc.func("int ioctl(int fd, unsigned long request, unsigned long argument)");
  const read = libc.func("int64_t read(int fd, uintptr_t address, size_t bytes)");
  const write = libc.func("int64_t write(int fd, uintptr_t address, size_t bytes)");
  const poll = libc.func("int poll(void *set, unsigned long count, int timeoutMs)");
  const usleep = libc.func("int usleep(unsigned int micros)");
  const eventfd = libc.func("int eventfd(unsigned int value, int flags)");
  const setns = libc.func("int setns(int fd, int kind)");
  const madvise = libc.func("int madvise(uintptr_t address, size_t bytes, int advice)");
  const syscall = libc.func("int64_t syscall(int64_t n, int64_t a, uintptr_t b, int64_t c)");
  const enter = libc.func(
    "int syscall(int64_t n, int fd, int count, int least, int flags, uintptr_t signals, size_t bytes)",
  );
  const result = (value: number) => (value < 0 ? -koffi.errno() : value);
  const addressOf = (view: Uint8Array) => koffi.address(view);
  const bpf = (command: number, attributes: Uint8Array) => {
    const number = BPF_NUMBERS[process.arch];
    if (number === undefined) return -EINVAL;
    return result(syscall(number, command, addressOf(attributes), attributes.length));
  };
  return {
    open: (path, flags) => result(open(path, flags)),
    close: (fd) => result(close(fd)),
    ioctl: (fd, request, argument) =>
      result((typeof argument === "number" ? ioctlNumber : ioctl)(fd, request, argument)),
    poll: (set, timeoutMs) => result(poll(set, set.length >> 1, timeoutMs)),
    usleep: (micros) => result(usleep(micros)),
    ...bindScheduling(libc, result),
    eventfd: () => result(eventfd(0, EFD_NONBLOCK | O_CLOEXEC)),
    setns: (fd, kind) => result(setns(fd, kind)),
    loadProgram: (type, instructions) =>
      bpf(BPF_PROG_LOAD, programAttributes(type, instructions, addressOf)),
    createMap: (...numbers) => bpf(BPF_MAP_CREATE, mapAttributes(numbers)),
    setEntry: (map, key, value) =>
      bpf(BPF_MAP_UPDATE_ELEM, entryAttributes(map, addressOf(key), addressOf(value))),
    removeEntry: (map, key) => bpf(BPF_MAP_DELETE_ELEM, entryAttributes(map, addressOf(key), 0)),
    advise(memory, bytes, advice) {
      const base = Number(koffi.address(memory));
      const start = Math.ceil(base / PAGE_BYTES) * PAGE_BYTES;
      return result(madvise(start, Math.max(0, base + bytes - start), advice));
    },
    setUpRing: (count, params) => result(syscall(RING_SETUP, count, addressOf(params), 0)),
    enterRing: (fd, count, least, flags) =>
      result(enter(RING_ENTER, fd, count, least, flags, 0, 0)),
    addressOf: (memory) => Number(addressOf(memory)),
    window(memory) {
      const base = Number(koffi.address(memory));
      // Holds on to the memory for as long as anybody can reach it through the window.
      const check = (offset: number, bytes: number) => {
        if (offset >= 0 && bytes >= 0 && offset + bytes <= memory.length) return;
        throw new RangeError(`window: ${bytes} bytes at ${offset} are not within ${memory.length}`);
      };
      return {
        read(fd, offset, bytes) {
          check(offset, bytes);
          return result(read(fd, base + offset, bytes));
        },
        write(fd, offset, bytes) {
          check(offset, bytes);
          return result(write(fd, base + offset, bytes));
        },
      };
    },
  };
}

function bindScheduling(
  libc: ReturnType<Koffi["load"]>,
  result: (value: number) => number,
): Pick<Syscalls, "setTimerSlack" | "setRealTime" | "isRealTime"> {
  const prctl = libc.func("int prctl(int option, unsigned long argument)");
  const setScheduler = libc.func("int sched_setscheduler(int thread, int policy, void *priority)");
  const getScheduler = libc.func("int sched_getscheduler(int thread)");
  const policyOf = () => getScheduler(0) & ~SCHED_RESET_ON_FORK;
  return {
    setTimerSlack: (nanos) => result(prctl(PR_SET_TIMERSLACK, nanos)),
    setRealTime() {
      if (policyOf() !== SCHED_OTHER) return -EPERM;
      const priority = Int32Array.of(REAL_TIME_PRIORITY_MIN);
      return result(setScheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, priority));
    },
    isRealTime: () => [SCHED_FIFO, SCHED_RR].includes(policyOf()),
  };
}

const LICENSE = new TextEncoder().encode("Apache-2.0\0");

/** union bpf_attr for BPF_PROG_LOAD. */
function programAttributes(
  type: number,
  instructions: Uint8Array,
  addressOf: (view: Uint8Array) => bigint | number,
): Uint8Array {
  const attributes = new Uint8Array(128);
  const view = new DataView(attributes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, instructions.length / 8, true);
  view.setBigUint64(8, BigInt(addressOf(instructions)), true);
  view.setBigUint64(16, BigInt(addressOf(LICENSE)), true);
  return attributes;
}

/** The same for BPF_MAP_CREATE: type, bytes of a key, bytes of a value, most entries. */
function mapAttributes(numbers: readonly number[]): Uint8Array {
  const attributes = new Uint8Array(128);
  attributes.set(new Uint8Array(Uint32Array.from(numbers).buffer));
  return attributes;
}

/** The same for BPF_MAP_*_ELEM. */
function entryAttributes(map: number, key: bigint | number, value: bigint | number): Uint8Array {
  const attributes = new Uint8Array(128);
  const view = new DataView(attributes.buffer);
  view.setUint32(0, map, true);
  view.setBigUint64(8, BigInt(key), true);
  view.setBigUint64(16, BigInt(value), true);
  return attributes;
}
