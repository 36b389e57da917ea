/** The prototype that the benchmark holds the engine against translates right, or its figure is none. */
import { describe, expect, test } from "vitest";
import { Prototype } from "../bench/prototype.ts";

describe("the benchmark's prototype", () => {
  // Four fifths full: many of the groups of 16 slots are, and flows stand in the next one.
  test.each([100, 5000, 200_000])("translates packets of %i flows, both ways", async (flows) => {
    const prototype = await Prototype.create(flows);
    expect(prototype.verify(64)).toBe(8192);
  });
});
