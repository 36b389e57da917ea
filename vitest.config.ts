import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/setup/tools.ts"],
    reporters: process.env.CI ? ["default", "json"] : ["default"],
    outputFile: { json: "build/test-results.json" },
  },
});
