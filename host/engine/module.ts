/**
 * Loads and instantiates the compiled engine. The same code runs from the sources, from the
 * published package, in a browser and in a worker: the module lies beside the package as
 * build/engine.wasm unless the caller brings it.
 */
import { instantiate } from "@assemblyscript/loader";
import { ABI_VERSION } from "../../assembly/abi.ts";
import type { WalkExports } from "../capture/source.ts";

/** The exports of assembly/index.ts. Unsigned results arrive signed: `>>> 0` where it matters. */
export interface EngineExports extends Record<string, unknown>, WalkExports {
  readonly memory: WebAssembly.Memory;
  abiVersion(): number;
  configAddress(): number;
  layoutAddress(): number;
  create(): number;
  processBatch(count: number): void;
  flowAfter(handle: number): number;
  flowRecord(handle: number): number;
  expire(nowMs: number): number;
  zoneOf(vpc: number, outer: number, inner: number): number;
  zoneVpcAndOuter(zone: number): number;
  zoneInner(zone: number): number;
  xxh64(start: number, bytes: number, seed: bigint): bigint;
  digestFrames(count: number, digest: bigint): bigint;
}

/** Where the module lies: beside host/ in the sources, beside dist/ in the package. */
function defaultUrl(): URL {
  const isPublished = import.meta.url.includes("/dist/");
  return new URL(
    isPublished ? "../../../build/engine.wasm" : "../../build/engine.wasm",
    import.meta.url,
  );
}

async function bytesOf(source: URL): Promise<BufferSource> {
  if (source.protocol !== "file:") return (await fetch(source)).arrayBuffer();
  // Found at run time, so that bundlers for browsers never see a node: import.
  const { readFileSync } = process.getBuiltinModule("node:fs");
  return readFileSync(source);
}

/** @throws Error when the module is missing or of another version. */
export async function loadEngine(
  wasm: URL | BufferSource | WebAssembly.Module = defaultUrl(),
): Promise<EngineExports> {
  const source = wasm instanceof URL ? await bytesOf(wasm) : wasm;
  const { exports } = await instantiate<EngineExports>(source as WebAssembly.Module, {});
  const version = exports.abiVersion();
  if (version !== ABI_VERSION) {
    throw new Error(
      `engine.wasm has version ${version}, expected ${ABI_VERSION}: run npm run build`,
    );
  }
  return exports;
}
