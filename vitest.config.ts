import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 20_000 } },
    globalSetup: ["test/setup/tools.ts"],
    reporters: process.env.CI ? ["default", "json"] : ["default"],
    outputFile: { json: "build/test-results.json" },
  },
});
