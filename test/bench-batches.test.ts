/** The benchmark of batches by their size runs all that it compares, and says it by name. */
import { expect, test } from "vitest";
import { measureBatches } from "../bench/batches.ts";

test("batches of each size over few flows and many, beside loads, take some time", async () => {
  const medians = await measureBatches({
    sizes: [0, 1, 8],
    flows: [64, 2000],
    loadBytes: 1 << 20,
    turns: 1,
    batches: 20,
  });
  expect([...medians.keys()]).toEqual(["64 flows", "2,000 flows", "loads in 1 MiB"]);
  for (const list of medians.values()) {
    expect(list).toHaveLength(3);
    // Two looks at the clock may show the same instant when nothing lies between them.
    for (const micros of list) expect(micros).toBeGreaterThanOrEqual(0);
    expect(list.at(-1)).toBeLessThan(1e6);
  }
});
