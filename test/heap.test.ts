/** The host allocates nothing per packet or batch: the heap does not grow while packets pass. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const CHILD = fileURLToPath(new URL("../bench/child.ts", import.meta.url));
const PACKETS = 10_000_000;
/** Ten million packets are 78,125 batches: one number kept for each would show. */
const GROWTH_BYTES_MAX = 64 * 1024;

test("ten million packets leave the JavaScript heap as large as it was", () => {
  const words = ["--expose-gc", CHILD, "heap", String(PACKETS)];
  const run = spawnSync(process.execPath, words, { encoding: "utf8" });
  expect(run.stderr).toBe("");
  const { growthBytes, externalBytes, forwarded } = JSON.parse(run.stdout);
  expect(forwarded).toBeGreaterThanOrEqual(PACKETS);
  expect(growthBytes).toBeLessThan(GROWTH_BYTES_MAX);
  expect(externalBytes).toBeLessThan(GROWTH_BYTES_MAX);
});
