import { defineConfig } from "vitest/config";

/**
 * Tests with namespaces, servers and clocks of the real world. All others share the cores, and run first.
 * Of these, some mostly wait, for health checks and for programs to start: two files at a time, next. The
 * last ones carry load, lose packets or kill nodes: one at a time, with the machine to themselves.
 */
const WAITING = [
  "test/{agent,dns,redis}.test.ts",
  "test/lab-{refusals,sessions,signals}.test.ts",
  "test/live{,-lab,-view}.test.ts",
];
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
        test: { name: "waiting", include: WAITING, maxWorkers: 2, sequence: { groupOrder: 1 } },
      },
      {
        extends: true,
        test: {
          name: "live",
          include: LIVE,
          exclude: WAITING,
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
