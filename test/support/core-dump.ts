/** What a process leaves when it crashes, whatever its limits say: ST-55. Linux only. */

import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";

/**
 * Whether a core dump can be provoked and found here: the kernel writes it beside the process (no program takes it),
 * and we may lift the limit on it.
 */
export function coresAreFiles(): boolean {
  const pattern = readFileSync("/proc/sys/kernel/core_pattern", "utf8").trim();
  return /^[^|/]/.test(pattern) && process.getuid?.() === 0;
}

/**
 * Ends a process by SIGABRT after lifting its limit on core dumps, as on a machine where a program takes them and asks
 * for no limit. The keeper and its children run in `/`: two tests that do this there are of one file, one after the
 * other.
 *
 * @param folder - is made, and takes the core dump.
 * @returns the core dump, or undefined if there was none.
 * @throws Error if a core dump could not be found here anyway.
 */
export async function coreOf(pid: number, folder: string): Promise<string | undefined> {
  if (!coresAreFiles()) throw new Error("this machine hides its core dumps");
  const place = readlinkSync(`/proc/${pid}/cwd`);
  const cores = (): string[] => readdirSync(place).filter((name) => /^core(\.|$)/.test(name));
  if (cores().length > 0) throw new Error(`there is a core dump in ${place} already`);
  execFileSync("prlimit", ["--pid", String(pid), "--core=unlimited:unlimited"]);
  process.kill(pid, "SIGABRT");
  await ended(pid);
  const [core] = cores();
  if (core === undefined) return undefined;
  mkdirSync(folder, { recursive: true });
  const path = join(folder, core);
  copyFileSync(join(place, core), path); // it may be another disk
  rmSync(join(place, core));
  return path;
}

/** The dump is complete when the process is gone: the kernel writes it first. */
async function ended(pid: number): Promise<void> {
  const gone = (): boolean => {
    try {
      return !existsSync(`/proc/${pid}`) || /\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return true;
    }
  };
  while (!gone()) {
    // oxlint-disable-next-line no-await-in-loop -- there is no event for a process that is no child
    await new Promise((resolve) => setImmediate(resolve));
  }
}
