/** Packs network tables for bench/network.ts, as the control plane of a lab does: in another thread. */
import { parentPort, workerData } from "node:worker_threads";
import type { Region } from "../host/engine/api.ts";
import type { NetworkTables } from "../host/engine/network.ts";
import { createTablePacker, type PackedTables } from "../host/engine/packer.ts";
import type { TableRoom } from "../host/engine/room.ts";

export interface Packing {
  packed: PackedTables;
  /** Of this thread's CPU: what else the machine has to do says nothing about the work. */
  packMs: number;
}

interface Task {
  region: Region;
  wasm: WebAssembly.Module;
  room: TableRoom;
  tables: Record<string, NetworkTables>;
}

const { region, wasm, room, tables } = workerData as Task;
const packer = await createTablePacker(region, { wasm, room });

/** Packs the tables that a message names. */
parentPort?.on("message", (name: string) => {
  const start = process.threadCpuUsage();
  const packed = packer.pack(tables[name] as NetworkTables, () => false);
  const { user, system } = process.threadCpuUsage(start);
  const packMs = (user + system) / 1000;
  parentPort?.postMessage({ packed, packMs } satisfies Packing);
});
