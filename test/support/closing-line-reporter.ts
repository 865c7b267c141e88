import type { Reporter, TestModule } from "vitest/node";

/** Ends the run with one line that programs can read: `N passed, N failed`. A skipped test counts as failed. */
export default class ClosingLineReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    let passed = 0;
    let failed = errors.length;
    for (const module of modules) {
      let tests = 0;
      for (const test of module.children.allTests()) {
        tests += 1;
        if (test.result().state === "passed") passed += 1;
        else failed += 1;
      }
      if (tests === 0) failed += 1;
    }
    // The default reporter prints its summary at the same event; the closing line comes after it.
    process.on("exit", () => console.log(`${passed} passed, ${failed} failed`));
    if (failed > 0) process.exitCode = 1;
  }
}
