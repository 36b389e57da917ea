/**
 * Huge pages under an engine's memory. A flow table of gigabytes has more pages of 4 KiB than the
 * processor remembers translations for, so nearly every packet waits for page tables as well as for
 * its flow; in pages of 2 MiB it does not (madvise(2), MADV_HUGEPAGE; the kernel's transparent huge
 * pages). The first touch of one costs the kernel 2 MiB of zeros.
 *
 * What the engine does is the same with any pages. Where there are none to be had, all stays as it
 * is, and `word` says why.
 */
import { readFileSync } from "node:fs";
import { loadSyscalls, MADV_HUGEPAGE, type Syscalls } from "./syscalls.ts";

/** What a memory may grow to. It is reserved in full from the beginning. */
const MEMORY_BYTES_MAX = 2 ** 32;
const ENABLED_FILE = "/sys/kernel/mm/transparent_hugepage/enabled";

/** Made by `hugePages`. */
export class HugePages {
  readonly #system: Syscalls | undefined;
  #hindrance: string | undefined;

  /** @internal */
  constructor(system: Syscalls | string) {
    if (typeof system === "string") this.#hindrance = system;
    else this.#system = system;
  }

  /** Whether the system has taken the advice wherever it was given so far. */
  get isHuge(): boolean {
    return this.#hindrance === undefined;
  }

  /** "huge pages", or "plain pages: " and why. */
  get word(): string {
    return this.isHuge ? "huge pages" : `plain pages: ${this.#hindrance}`;
  }

  /** Asks for huge pages in all that a memory may grow to: `prepareMemory` of `createEngine`. */
  readonly prepare = (memory: WebAssembly.Memory): void => {
    this.advise(memory.buffer, MEMORY_BYTES_MAX);
  };

  /** Asks for huge pages in `bytes` of address space from the begin of a buffer on. */
  advise(buffer: ArrayBufferLike, bytes = buffer.byteLength): void {
    const result = this.#system?.advise(new Uint8Array(buffer), bytes, MADV_HUGEPAGE) ?? 0;
    if (result < 0) this.#hindrance = `the kernel refuses huge ones, error ${-result}`;
  }
}

/** Huge pages where this system has them to give; never throws. */
export async function hugePages(): Promise<HugePages> {
  let enabled: string;
  try {
    enabled = readFileSync(ENABLED_FILE, "utf8");
  } catch {
    return new HugePages("this system has no transparent huge pages");
  }
  if (enabled.includes("[never]")) return new HugePages(`${ENABLED_FILE} says never`);
  try {
    return new HugePages(await loadSyscalls());
  } catch (error) {
    return new HugePages((error as Error).message);
  }
}
