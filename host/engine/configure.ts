/** From the options of `createEngine` to the configuration block of the engine (CONFIG_*). */
import * as abi from "../../assembly/abi.ts";
import type { EngineOptions, Timeouts } from "./api.ts";
import {
  options as checkOptions,
  type OptionNames,
  optionalFunction,
  shown,
  truth,
  wholeNumber,
} from "./check.ts";

/** Idle timeouts that an engine has unless it is told otherwise, in seconds. */
export const TIMEOUTS_DEFAULT: Readonly<Timeouts> = {
  halfOpen: 30,
  established: 350,
  closing: 60,
  udp: 120,
  icmp: 60,
  other: 350,
};

const SEED_BYTES = 16;
/** A service-side tuple rests this long after its flow, so that late packets meet nobody else. */
const TUPLE_HOLD_MS = 60_000;
const { TIMEOUT_SECONDS_MAX } = abi;

/** Options with every default filled in, all of them checked. */
export interface Settings {
  flowCountMax: number;
  flow6CountMax: number;
  arenaBytes: number;
  tablesBytes: number;
  networkBytes: number;
  seed: Uint8Array;
  timeouts: Timeouts;
  warmUp: boolean;
  touchTables: boolean;
  prepareMemory: ((memory: WebAssembly.Memory) => void) | undefined;
  /** CONFIG_PP2_*. */
  proxyProtocol: number;
  /** Of a compact table: its gateway's first address as a number, and how many follow each other. */
  gateway?: { address: number; count: number };
}

const OPTIONS: OptionNames<EngineOptions> = {
  flowCountMax: true,
  flow6CountMax: true,
  arenaBytes: true,
  tablesBytes: true,
  networkBytes: true,
  seed: true,
  timeouts: true,
  wasm: true,
  warmUp: true,
  prepareMemory: true,
  touchTables: true,
  proxyProtocol: true,
};

/** @throws TypeError or RangeError that names the option, its value and its range */
export function settingsOf(options: EngineOptions): Settings {
  checkOptions("", options, OPTIONS);
  return {
    flowCountMax: wholeNumber("flowCountMax", options.flowCountMax ?? 1 << 20, 16, 60_000_000),
    flow6CountMax: wholeNumber("flow6CountMax", options.flow6CountMax ?? 1 << 18, 16, 28_000_000),
    arenaBytes: wholeNumber("arenaBytes", options.arenaBytes ?? 4 << 20, 1 << 16, 1 << 30),
    tablesBytes: wholeNumber("tablesBytes", options.tablesBytes ?? 4 << 20, 1 << 16, 1 << 30),
    networkBytes: wholeNumber("networkBytes", options.networkBytes ?? 0, 0, 1 << 29) & ~63,
    seed: seedOf(options.seed),
    timeouts: timeoutsOf(options.timeouts ?? {}),
    warmUp: truth("warmUp", options.warmUp ?? true),
    touchTables: truth("touchTables", options.touchTables ?? false),
    prepareMemory: optionalFunction("prepareMemory", options.prepareMemory),
    proxyProtocol: proxyProtocolOf(options.proxyProtocol ?? false),
  };
}

/** CONFIG_PP2_*. @throws TypeError */
export function proxyProtocolOf(option: boolean | "udp"): number {
  if (option === "udp") return abi.CONFIG_PP2_TCP | abi.CONFIG_PP2_UDP;
  if (typeof option === "boolean") return option ? abi.CONFIG_PP2_TCP : 0;
  throw new TypeError(`proxyProtocol: ${shown(option)} is not true, false or "udp"`);
}

function seedOf(seed: Uint8Array | undefined): Uint8Array {
  if (seed === undefined) return crypto.getRandomValues(new Uint8Array(SEED_BYTES));
  if (!(seed instanceof Uint8Array)) {
    throw new TypeError(`seed: ${shown(seed)} is not a Uint8Array`);
  }
  if (seed.length !== SEED_BYTES) {
    throw new RangeError(`seed: ${seed.length} bytes are not ${SEED_BYTES}`);
  }
  return seed.slice();
}

function timeoutsOf(timeouts: Partial<Timeouts>): Timeouts {
  const names = Object.keys(TIMEOUTS_DEFAULT) as (keyof Timeouts)[];
  checkOptions("timeouts", timeouts, TIMEOUTS_DEFAULT);
  const all = { ...TIMEOUTS_DEFAULT };
  for (const name of names) {
    const seconds = timeouts[name] ?? TIMEOUTS_DEFAULT[name];
    if (!(typeof seconds === "number" && seconds >= 0 && seconds <= TIMEOUT_SECONDS_MAX)) {
      const range = `from 0 to ${TIMEOUT_SECONDS_MAX} seconds`;
      throw new RangeError(`timeouts.${name}: ${shown(seconds)} is not ${range}`);
    }
    all[name] = seconds;
  }
  return all;
}

/** Writes the configuration block; `create()` reads it. */
export function configure(
  memory: WebAssembly.Memory,
  configAddress: number,
  settings: Settings,
): void {
  const view = new DataView(memory.buffer);
  const set = (field: number, value: number) => view.setUint32(configAddress + field, value, true);
  set(abi.CONFIG_FLOW_COUNT_MAX, settings.flowCountMax);
  set(abi.CONFIG_FLOW6_COUNT_MAX, settings.flow6CountMax);
  set(abi.CONFIG_ARENA_BYTES, settings.arenaBytes);
  set(abi.CONFIG_TABLES_BYTES, settings.tablesBytes);
  set(abi.CONFIG_NETWORK_BYTES, settings.networkBytes);
  new Uint8Array(memory.buffer).set(settings.seed, configAddress + abi.CONFIG_SEED);
  const { halfOpen, established, closing, udp, icmp, other } = settings.timeouts;
  const byState = [halfOpen, established, established, established, closing, udp, icmp, other];
  for (const [state, seconds] of byState.entries()) {
    set(abi.CONFIG_TIMEOUTS_MS + state * 4, Math.round(seconds * 1000));
  }
  set(abi.CONFIG_TUPLE_HOLD_MS, TUPLE_HOLD_MS);
  set(abi.CONFIG_PP2, settings.proxyProtocol);
  set(abi.CONFIG_COMPACT_ADDRESS, settings.gateway?.address ?? 0);
  set(abi.CONFIG_COMPACT_ADDRESS_COUNT, settings.gateway?.count ?? 0);
}

/** Tables above this size are made only where there is memory for all of it. */
const CHECKED_BYTES = 256 << 20;

/**
 * Memory is had when it is first written, and a system that has none left by then ends the process:
 * so a large table is held against what is free before the first packet. Browsers do not tell.
 */
export function requireMemory(options: string, bytes: number): void {
  const { process: node } = globalThis as { process?: { availableMemory?(): number } };
  const free = node?.availableMemory?.();
  if (free === undefined || bytes <= CHECKED_BYTES || bytes <= free) return;
  throw new RangeError(
    `${options}: tables of ${bytes} bytes, and ${free} bytes of memory are free`,
  );
}
