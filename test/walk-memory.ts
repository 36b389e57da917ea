/**
 * Memory with the record walk, without the engine around it: the engine's own module where it is
 * built and has the walk, else the walk compiled alone. The arena and the descriptors lie in pages
 * that are added behind whatever the module uses itself.
 */
import fs from "node:fs";
import * as asc from "assemblyscript/asc";
import { BATCH_COUNT_MAX, FRAME_BYTES } from "../assembly/abi.ts";
import type { FrameMemory, WalkExports } from "../host/capture/source.ts";

const root = new URL("../", import.meta.url);
const ENGINE = new URL("build/engine.wasm", root);
const PAGE_BYTES = 65536;

let compiled: Promise<WebAssembly.Module> | undefined;

async function compileWalk(): Promise<WebAssembly.Module> {
  if (fs.existsSync(ENGINE)) {
    const module = await WebAssembly.compile(fs.readFileSync(ENGINE));
    if (WebAssembly.Module.exports(module).some(({ name }) => name === "walkPcap")) return module;
  }
  let binary: Uint8Array<ArrayBuffer> | undefined;
  const options = "--runtime stub --optimizeLevel 3 --enable simd --enable bulk-memory".split(" ");
  const files = ["pcap", "pcapng", "described"].map((name) => `assembly/capture/${name}.ts`);
  const more = ["--config", "none", "--outFile", "walk.wasm", "--maximumMemory", "65536"];
  const { error, stderr } = await asc.main([...files, ...options, ...more], {
    readFile: (name, base) => {
      const url = new URL(name, new URL(`${base}/`, root));
      return fs.existsSync(url) ? fs.readFileSync(url, "utf8") : null;
    },
    writeFile: (_name, contents) => {
      binary = Uint8Array.from(contents as Uint8Array);
    },
  });
  if (error || !binary) throw new Error(`asc: ${stderr.toString()}`);
  return WebAssembly.compile(binary);
}

/** A fresh memory with an arena of 4 MiB unless told otherwise. */
export async function createWalkMemory(arenaBytes = 4 << 20): Promise<FrameMemory> {
  compiled ??= compileWalk();
  const { exports } = await WebAssembly.instantiate(await compiled, {
    env: {
      abort() {
        throw new Error("abort in the walk");
      },
    },
  });
  const memory = exports.memory as WebAssembly.Memory;
  const needed = arenaBytes + BATCH_COUNT_MAX * FRAME_BYTES;
  const at = memory.grow(Math.ceil(needed / PAGE_BYTES)) * PAGE_BYTES;
  return {
    bytes: new Uint8Array(memory.buffer),
    descriptors: new Uint32Array(memory.buffer, at, (BATCH_COUNT_MAX * FRAME_BYTES) / 4),
    arena: { address: at + BATCH_COUNT_MAX * FRAME_BYTES, bytes: arenaBytes },
    exports: exports as unknown as WalkExports,
  };
}
