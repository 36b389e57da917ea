import { defineConfig } from "vitest/config";

/**
 * Tests with namespaces, servers and clocks of the real world: one file at a time, with the machine to
 * themselves. All others share the cores, and run first.
 */
export const LIVE = ["test/{agent,dns,fleet,lab,live,placement,redis}*.test.ts"];

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 20_000 } },
    globalSetup: ["test/setup/compile-cache.ts", "test/setup/tools.ts"],
    reporters: process.env.CI ? ["default", "json"] : ["default"],
    outputFile: { json: "build/test-results.json" },
    projects: [
      {
        extends: true,
        test: {
          name: "engine",
          include: ["test/**/*.test.ts"],
          exclude: LIVE,
          maxWorkers: "100%",
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: "live", include: LIVE, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
