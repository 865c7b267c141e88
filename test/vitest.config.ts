import { defineConfig } from "vitest/config";

export default defineConfig({
  root: new URL("..", import.meta.url).pathname,
  test: {
    dir: "test",
    include: ["**/*.test.ts"],
    // A process for each file: SoftHSM reads SOFTHSM2_CONF once, when it is loaded.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    reporters: ["default", "./test/support/closing-line-reporter.ts"],
  },
});
