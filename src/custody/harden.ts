/**
 * What every process that holds secrets does before anything else: CUSTODY.md 7.2 and 7.3. Imported for its effect,
 * as the first import of the process's main module, so that it runs before any other module is evaluated.
 */

import { writeFileSync } from "node:fs";

/**
 * For processes that end with their connection. A service manager and an engine of containers send SIGTERM to all
 * processes at once: the service still needs these for what it has begun.
 */
export function outliveSignals(): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {});
}

// Without a listener Node answers SIGUSR1 by opening the inspector on port 9229, and whoever runs under the same
// user id owns the heap.
process.on("SIGUSR1", () => {});

// A core dump without memory, also where the kernel pipes it to a program that ignores the limit of 0.
try {
  writeFileSync("/proc/self/coredump_filter", "0x0");
} catch (error) {
  // ENOENT: only Linux has it. EACCES: this Node is one that its user may run and not read, so that the kernel keeps
  // /proc/self from this user; who started it has set the filter, which is inherited.
  const { code } = error as NodeJS.ErrnoException;
  if (code !== "ENOENT" && code !== "EACCES") throw error;
}
