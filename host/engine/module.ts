/**
 * Loads and instantiates the compiled engine. The same code runs from the sources, from the
 * published package, in a browser and in a worker: the module lies beside the package as
 * build/engine.wasm unless the caller brings it.
 */
import { instantiateSync } from "@assemblyscript/loader";
import { ABI_VERSION } from "../../assembly/abi.ts";
import type { WalkExports } from "../capture/source.ts";
import { EngineError } from "../errors.ts";
import { shown } from "./check.ts";

/** The exports of assembly/index.ts. Unsigned results arrive signed: `>>> 0` where it matters. */
export interface EngineExports extends WalkExports, Record<string, unknown> {
  readonly memory: WebAssembly.Memory;
  abiVersion(): number;
  configAddress(): number;
  layoutAddress(): number;
  create(): number;
  /** Writes to every page of the flow tables, which changes nothing. */
  touchTables(): void;
  /** 0, and nothing has happened, when a frame or a port is out of range; else 1. */
  processBatch(count: number): number;
  /** Frames of the last batch that leave through devices; DEPARTURE_* entries. */
  listDepartures(count: number, flags: number): number;
  /** Writes a frame of a device as a pcapng block; returns its bytes. */
  writeRecord(
    to: number,
    header: number,
    bytes: number,
    device: number,
    direction: number,
    timeNs: bigint,
  ): number;
  /** 0 when there is no room for the address. */
  placeAddress(port: number, address: number, device: number): number;
  /** `processBatch` over the compact table. */
  processCompact(count: number): number;
  /** As `flowAfter`, `flowRecord` and `expire`, of the compact table. */
  compactAfter(handle: number): number;
  compactRecord(handle: number): number;
  expireCompact(nowMs: number): number;
  /** Frames that the last batch caused, in Engine.emits. */
  emitCount(): number;
  flowAfter(handle: number): number;
  flowRecord(handle: number): number;
  expire(nowMs: number, first: number, count: number): number;
  /** Ends flows by service (0xffff = any) and target (no bytes = any) in some groups of slots. */
  terminate(
    service: number,
    address: number,
    addressBytes: number,
    portBe: number,
    first: number,
    count: number,
  ): number;
  /** Groups of slots in both flow tables. */
  groupCount(): number;
  /** Swaps the network image at this address in; 0 = none. */
  useImage(address: number): void;
  /** Whether new flows are proposed, and wait, instead of beginning. */
  askFirst(isOn: number): void;
  /** Where decisions are handed over, DECIDED_BYTES. */
  decisionAddress(): number;
  /** 0 when no flow has this handle. */
  writeDecision(handle: number): number;
  /** Tuple of frame `index` of the last batch, as DECIDED_SIDE_*; 0 when it has none. */
  writeTuple(index: number): number;
  /** 0 when no flow has this handle. */
  forgetFlow(handle: number): number;
  /** Handle of the flow, 0 when there is no room for it or its tuples are in use. */
  adoptFlow(nowMs: number): number;
  zoneOf(vpc: number, outer: number, inner: number): number;
  explainFrame(): number;
  /** Also of a flow that has ended since. */
  serviceOfFlow(handle: number): number;
  joinZone(vpc: number, outer: number, zone: number): number;
  zoneVpcAndOuter(zone: number): number;
  zoneInner(zone: number): number;
  xxh64(start: number, bytes: number, seed: bigint): bigint;
  digestFrames(count: number, digest: bigint): bigint;
  /** Which frames a worker wants; see assembly/capture/select.ts. */
  beginSelection(
    worker: number,
    workers: number,
    isSpread: number,
    isWalking: number,
    end: bigint,
  ): void;
  selectFrames(first: number, count: number, number: number): number;
  decisionsAddress(): number;
  listDecisions(count: number): number;
  /** Gathering what workers have decided; see assembly/gather.ts. */
  beginGathering(workers: number, isDescribed: number, isWithFrames: number): void;
  beginGathered(start: number, end: number): void;
  setTold(worker: number, next: number, end: number): void;
  toldFrom(worker: number): number;
  gather(record: number, index: number, count: number): number;
  gatheredDigest(): bigint;
  gatheredActive(): number;
  gatheredActiveMax(): number;
  gatheredCreated(): number;
  gatheredEmits(): number;
  /** Index of the first frame of another second; see assembly/measure.ts. */
  measureFrames(first: number, count: number, isTold: number, nowMs: number): number;
  measuredMs(): number;
  measuredLatestMs(): number;
  measuredSecond(): number;
  measuredOutputBytes(): number;
  measuredFlowBytes(): number;
  /** The worker's clock at the capture's latest instant, where frames are selected. */
  ownLatestMs(): number;
  sweepAll(nowMs: number): void;
  pp2Buffer(): number;
  pp2Result(): number;
  pp2Begin(isProxy: number, family: number, addressBytes: number, hasCrc: number): void;
  /** Address at which the value belongs, 0 when there is no room. */
  pp2Append(type: number, bytes: number): number;
  pp2Finish(padTo: number): number;
  pp2Seal(bytes: number, at: number): void;
  /** PP2_STATUS_*. */
  pp2Decode(bytes: number): number;
}

/** Where the module lies: beside host/ in the sources, beside dist/ in the package. */
export function moduleUrl(name: "engine" | "store"): URL {
  const isPublished = import.meta.url.includes("/dist/");
  return new URL(`${isPublished ? "../" : ""}../../build/${name}.wasm`, import.meta.url);
}

/** A module in a file. @throws EngineError when it cannot be read */
export function fileBytes(source: URL): BufferSource {
  try {
    // Found at run time, so that bundlers for browsers never see a node: import.
    const { readFileSync } = process.getBuiltinModule("node:fs");
    return readFileSync(source);
  } catch (error) {
    throw unreadable(source, error);
  }
}

async function bytesOf(source: URL): Promise<BufferSource> {
  if (source.protocol === "file:") return fileBytes(source);
  try {
    const response = await fetch(source);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.arrayBuffer();
  } catch (error) {
    throw unreadable(source, error);
  }
}

function unreadable(source: URL, error: unknown): EngineError {
  const reason = error instanceof Error ? error.message : String(error);
  return new EngineError(`${source}: cannot be read, npm run build makes it: ${reason}`);
}

/** The compiled module, for threads that are to share it. @throws EngineError */
export async function compileEngine(url = moduleUrl("engine")): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await bytesOf(url));
}

async function exportsOf(
  source: BufferSource | WebAssembly.Module,
): Promise<Partial<EngineExports>> {
  try {
    const module =
      source instanceof WebAssembly.Module ? source : await WebAssembly.compile(source);
    // Not the loader's instantiate(): it asks for the global Response, and Node then loads all of
    // its fetch, 25 ms.
    return instantiateSync<EngineExports>(module, {}).exports;
  } catch (error) {
    throw new EngineError(`wasm: is no WebAssembly module for the engine: ${error}`);
  }
}

/**
 * @throws TypeError when `wasm` is none of the three; EngineError when the module is missing, is
 * something else, or is of another version. `prepareMemory` gets its memory before it grows.
 */
export async function loadEngine(
  wasm: URL | BufferSource | WebAssembly.Module = moduleUrl("engine"),
  prepareMemory?: (memory: WebAssembly.Memory) => void,
): Promise<EngineExports> {
  const isBytes = wasm instanceof ArrayBuffer || ArrayBuffer.isView(wasm);
  if (!(wasm instanceof URL || wasm instanceof WebAssembly.Module || isBytes)) {
    throw new TypeError(`wasm: ${shown(wasm)} is not a URL, bytes or a WebAssembly.Module`);
  }
  const exports = await exportsOf(wasm instanceof URL ? await bytesOf(wasm) : wasm);
  const version = exports.abiVersion?.();
  if (version !== ABI_VERSION) {
    const found = version === undefined ? "no version" : `version ${version}`;
    throw new EngineError(`wasm: has ${found}, expected ${ABI_VERSION}: run npm run build`);
  }
  prepareMemory?.(exports.memory as WebAssembly.Memory);
  return exports as EngineExports;
}
