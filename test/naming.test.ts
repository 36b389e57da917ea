/** What a lab's main thread makes of names before it asks its workers: order, numbers, and repetition. */
import { describe, expect, test } from "vitest";
import type { NetworkTables } from "../host/engine/network.ts";
import { createTablePacker } from "../host/engine/packer.ts";
import { type AskThreads, Naming } from "../host/lab/naming.ts";

const service = (id: string) => ({ id, kind: "route", vpc: 1 }) as const;
const tablesOf = (...ids: string[]): NetworkTables => ({ vpcs: [], services: ids.map(service) });

/** A naming whose workers take `ms` to answer, and what they were asked. */
async function asked(delaysMs: number[]) {
  const packer = await createTablePacker({ address: 4096, bytes: 1 << 16 });
  const log: unknown[] = [];
  const ask = (async (method: string, ...words: unknown[]) => {
    await new Promise((resolve) => setTimeout(resolve, delaysMs.shift() ?? 0));
    log.push(method === "loadTables" ? [method] : [method, ...words]);
    return method === "living" ? [[]] : [7];
  }) as unknown as AskThreads;
  return { naming: new Naming(packer, 1, ask), log };
}

describe("tables and flows by name", () => {
  test("reach the workers by number, one change after the other", async () => {
    const { naming, log } = await asked([0, 20, 0]);
    const done = [
      naming.setTables(tablesOf("a", "b")),
      naming.terminate({ service: "b", address: "10.0.0.1" }),
      naming.terminate({ address: "10.0.0.2", port: 80 }),
    ];
    expect(await Promise.all(done)).toEqual([[7], [7], [7]]);
    expect(log).toEqual([
      ["living", []],
      ["loadTables"],
      ["terminate", { service: 1, address: "10.0.0.1" }],
      ["terminate", { address: "10.0.0.2", port: 80 }],
    ]);
    expect(await naming.serviceNumbers(["a", "b", "c"])).toEqual([{ a: 0, b: 1 }]);
  });

  test("are ended once more when the tables have changed, in which they may have begun", async () => {
    const { naming, log } = await asked([]);
    await naming.setTables(tablesOf("a", "b"));
    await naming.terminate({ service: "b" });
    await naming.setTables(tablesOf("a"));
    await naming.setTables(tablesOf("a"));
    const ends = log.filter((one) => Array.isArray(one) && one[0] === "terminate");
    expect(ends).toEqual([
      ["terminate", { service: 1 }],
      ["terminate", { service: 1 }],
    ]);
    await expect(naming.terminate({ service: "b" })).rejects.toThrow(/the tables have no b/);
    // What was refused holds nothing up.
    expect(await naming.terminate({ service: "a" })).toEqual([7]);
  });
});
