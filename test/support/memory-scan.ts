/** Looks for secrets in the memory of another process, through /proc: ST-8, ST-59. Linux only. */

import { closeSync, openSync, readFileSync, readdirSync, readSync } from "node:fs";
import { type Finding, NeedleSearch, type Needles } from "./needles.ts";

export interface MemoryFinding extends Finding {
  /** Such as `[heap]`, `[stack]`, a file, or `anonymous`; the offset is from the mapping's beginning. */
  readonly mapping: string;
  /** As /proc/PID/maps has it: where it lies, and what the process may do there. */
  readonly range: string;
}

interface Mapping {
  readonly name: string;
  readonly range: string;
  readonly start: bigint;
  readonly end: bigint;
}

/**
 * Searches all memory that a process can read. It stands still meanwhile, so that nothing moves from what is not yet
 * read to what was; about a second for each 500 MB. Only this process ever holds the needles, so it cannot be the one
 * that is searched.
 *
 * The scan proves itself: it also looks for the process's own command line, which is there.
 *
 * @param pid - of this user; where Yama asks for it, a descendant.
 * @throws Error if the process is gone, may not be read, or its command line was not found.
 */
export function scanMemory(pid: number, needles: Needles): MemoryFinding[] {
  if (pid === process.pid) throw new RangeError("this process holds the needles itself");
  const control = readFileSync(`/proc/${pid}/cmdline`);
  if (control.length < 16) throw new Error(`process ${pid} has no command line to be found by`);
  const controlled = "its own command line";
  const search = new NeedleSearch({ ...needles, [controlled]: control });
  const memory = openSync(`/proc/${pid}/mem`, "r");
  const found: MemoryFinding[] = [];
  try {
    process.kill(pid, "SIGSTOP");
    waitUntilStopped(pid);
    for (const mapping of mappingsOf(pid)) {
      const { name, range } = mapping;
      const findings = search.search(readerOf(memory, mapping));
      found.push(...findings.map((finding) => ({ ...finding, mapping: name, range })));
    }
  } finally {
    process.kill(pid, "SIGCONT");
    closeSync(memory);
  }
  if (!found.some(({ needle, part }) => needle === controlled && part === "whole")) {
    throw new Error(`the scan of process ${pid} did not find even its command line`);
  }
  return found.filter(({ needle }) => needle !== controlled);
}

/** Mappings of the kernel's data, which it does not let be read this way. */
const kernelsOwn = new Set(["[vvar]", "[vvar_vclock]", "[vsyscall]"]);

function mappingsOf(pid: number): Mapping[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").trimEnd().split("\n");
  return lines.flatMap((line) => {
    // 7f0c4e000000-7f0c4e021000 rw-p 00000000 00:00 0    [heap]
    const [, from, to, rights, name] =
      /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$/.exec(line) ?? [];
    if (from === undefined) throw new Error(`/proc/${pid}/maps is not understood: ${line}`);
    if (!rights!.startsWith("r") || kernelsOwn.has(name!)) return [];
    return [
      {
        name: name === "" ? "anonymous" : name!,
        range: `${from}-${to} ${rights}`,
        start: BigInt(`0x${from}`),
        end: BigInt(`0x${to}`),
      },
    ];
  });
}

function readerOf(memory: number, { start, end, name, range }: Mapping) {
  let position = start;
  return (into: Uint8Array): number => {
    const wanted = Number(
      end - position < BigInt(into.length) ? end - position : BigInt(into.length),
    );
    if (wanted === 0) return 0;
    try {
      const length = readSync(memory, into, 0, wanted, position);
      if (length === 0) throw new Error("no more octets");
      position += BigInt(length);
      return length;
    } catch (cause) {
      throw new Error(`the mapping ${name} (${range}) cannot be read`, { cause });
    }
  };
}

function waitUntilStopped(pid: number): void {
  const deadline = performance.now() + 5_000;
  const running = (): boolean =>
    readdirSync(`/proc/${pid}/task`).some((task) => {
      const status = readFileSync(`/proc/${pid}/task/${task}/stat`, "utf8");
      return !/^\S+ \(.*\) [TtZ] /s.test(status);
    });
  while (running()) {
    if (performance.now() > deadline) throw new Error(`process ${pid} does not stand still`);
  }
}
