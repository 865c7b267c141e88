/**
 * The service's part in ceremonies in a process of its own, which answers what a test asks of its parts, and in which
 * one process is killed, without warning, at one step.
 */

import { fork, type ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JournalItem } from "../../src/issuance/journal.ts";
import { parseEntry } from "../../src/audit/entry.ts";
import { appRoot } from "../../src/custody/process-flags.ts";
import { CountersignError, type ErrorCode } from "../../src/errors.ts";
import { isAlive, pidsOf } from "../custody/keeper-home.ts";
import { startRunning, type Running, type RunningParts } from "../ceremony/running.ts";

export const victims = ["service", "keeper", "dealer", "unlocker", "signer"] as const;
export type Victim = (typeof victims)[number];

/**
 * `before` or `after` something that is done once more: an entry of the log by its type and state, such as `before
 * ceremony.step unlocking`, or a word to the keeper, such as `after keeper.deal`; `during` one as soon as the victim is
 * there.
 */
export interface Crash {
  readonly step: string;
  /** The how many-th time; 1 when absent. */
  readonly time?: number;
  readonly victim: Victim;
}

export type Settings = Pick<RunningParts, "directory" | "configFile" | "genesis" | "policy">;

interface Start extends Settings {
  readonly crash: Crash;
}

interface Question {
  readonly id: number;
  readonly path: readonly string[];
  readonly args: readonly unknown[];
}

interface Failure {
  readonly code: ErrorCode | undefined;
  readonly message: string;
}

type Told =
  | { readonly roster: string; readonly keeper: number }
  | { readonly failed: string }
  | { readonly id: number; readonly value?: unknown; readonly failure?: Failure };

export interface CrashingService {
  /** Its parts, as far as methods go. */
  readonly running: Running;
  readonly child: ChildProcess;
  readonly keeper: number;
  /** What went wrong where nobody waited. */
  readonly failures: string[];
  readonly ended: Promise<void>;
}

/** The processes that were there when the victim was killed. */
export function pidsFile(directory: string): string {
  return join(directory, "killed.json");
}

/** Starts the service; `crash` comes when its step does. */
export async function startCrashing(settings: Settings, crash: Crash): Promise<CrashingService> {
  const child = fork(join(appRoot, "dist/test/support/crashing-ceremonies.js"), {
    serialization: "advanced",
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const waiting = new Map<number, (told: Exclude<Told, { keeper: number }>) => void>();
  const failures: string[] = [];
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const ready = new Promise<{ roster: string; keeper: number }>((resolve, reject) => {
    child.on("message", (told: Told) => {
      if ("keeper" in told) resolve(told);
      else if ("failed" in told) failures.push(told.failed);
      else {
        waiting.get(told.id)?.(told);
        waiting.delete(told.id);
      }
    });
    void ended.then(() => reject(new Error("the service did not start")));
  });
  const gone = { code: undefined, message: "the service has ended" };
  void ended.then(() => {
    for (const [id, answer] of waiting) answer({ id, failure: gone });
  });
  let next = 0;
  const ask = (path: readonly string[], args: readonly unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const id = next++;
      waiting.set(id, (told) => {
        const failure = "failure" in told ? told.failure : undefined;
        if (failure !== undefined) reject(errorOf(failure));
        else resolve("value" in told ? told.value : undefined);
      });
      if (child.connected) child.send({ id, path, args } satisfies Question);
      else waiting.get(id)!({ id, failure: gone });
    });
  const part = (...path: string[]): unknown =>
    new Proxy(() => {}, {
      get: (_, name) => part(...path, String(name)),
      apply: (_, __, args: unknown[]) => ask(path, args),
    });
  child.send({ ...settings, crash } satisfies Start);
  const { roster, keeper } = await ready;
  const running = {
    domain: part("domain"),
    reads: part("reads"),
    keeper: part("keeper"),
    rosters: { inForce: { digest: roster } },
  } as unknown as Running;
  return { running, child, keeper, failures, ended };
}

function errorOf({ code, message }: Failure): Error {
  return code === undefined ? new Error(message) : new CountersignError(code, message);
}

function failureOf(error: unknown): Failure {
  const code = error instanceof CountersignError ? error.code : undefined;
  return { code, message: error instanceof Error ? error.message : String(error) };
}

/** What an entry is called here. */
function nameOf({ leaf }: Pick<JournalItem, "leaf">): string {
  const { type, data } = parseEntry(leaf) as { type: string; data?: { state?: string } };
  return data?.state === undefined ? type : `${type} ${data.state}`;
}

function processes(): Record<Victim, number[]> {
  const keeper = pidsOf("keeper", process.pid);
  const of = (kind: "dealer" | "unlocker" | "signer"): number[] =>
    keeper.flatMap((pid) => pidsOf(kind, pid));
  return {
    service: [process.pid],
    keeper,
    dealer: of("dealer"),
    unlocker: of("unlocker"),
    signer: of("signer"),
  };
}

/** Puts the crash into the way of the domain. */
function crashing(directory: string, { step, time = 1, victim }: Crash): RunningParts["around"] {
  let left = time;
  const kill = (all: Record<Victim, number[]>): void => {
    writeFileSync(pidsFile(directory), JSON.stringify(Object.values(all).flat()));
    for (const pid of all[victim]) process.kill(pid, "SIGKILL");
    while (all[victim].some(isAlive)); // nothing goes on before it is gone
  };
  const reached = (name: string): boolean => name === step && --left === 0;
  const at = (name: string): void => {
    if (!reached(name)) return;
    const all = processes();
    if (all[victim].length === 0) throw new Error(`there is no ${victim} ${name}`);
    kill(all);
  };
  const asSoonAs = async (): Promise<void> => {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const all = processes();
      if (all[victim].length > 0) {
        kill(all);
        return;
      }
      if (performance.now() > deadline) throw new Error(`there is no ${victim} ${step}`);
      // oxlint-disable-next-line no-await-in-loop -- nothing tells when a process begins
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return ({ keeper, journal }) => ({
    keeper: new Proxy(keeper, {
      get(target, name, receiver) {
        const value: unknown = Reflect.get(target, name, receiver);
        if (typeof value !== "function" || name === "onClosed") return value;
        return async (...args: unknown[]): Promise<unknown> => {
          at(`before keeper.${String(name)}`);
          const answer = (value as (...given: unknown[]) => unknown).apply(target, args);
          if (reached(`during keeper.${String(name)}`)) await asSoonAs();
          const result = await answer;
          at(`after keeper.${String(name)}`);
          return result;
        };
      },
    }),
    journal: new Proxy(journal, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (name !== "append" && name !== "appendAll") return value.bind(target) as unknown;
        return async (given: JournalItem | readonly JournalItem[]): Promise<unknown> => {
          const names = [given].flat().map((item) => nameOf(item as JournalItem));
          for (const entry of names) at(`before ${entry}`);
          const result: unknown = await (value as (items: typeof given) => unknown).call(
            target,
            given,
          );
          for (const entry of names) at(`after ${entry}`);
          return result;
        };
      },
    }),
  });
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const tell = (told: Told): void => void process.send!(told);
  const start = ({ crash, ...settings }: Start): Promise<Running> =>
    startRunning({
      ...settings,
      now: () => new Date(),
      observers: {
        denied: () => undefined,
        failed: (_, error) => tell({ failed: failureOf(error).message }),
      },
      around: crashing(settings.directory, crash)!,
    });
  const answer = async (running: Running, { id, path, args }: Question): Promise<void> => {
    try {
      const holder = path.slice(0, -1).reduce<object>((part, name) => {
        return Reflect.get(part, name) as object;
      }, running);
      const method = Reflect.get(holder, path.at(-1)!) as (...given: unknown[]) => unknown;
      tell({ id, value: await method.apply(holder, [...args]) });
    } catch (error) {
      tell({ id, failure: failureOf(error) });
    }
  };
  process.once("message", (first: Start) => {
    void start(first).then((running) => {
      process.on("message", (question: Question) => void answer(running, question));
      tell({ roster: running.rosters.inForce.digest, keeper: pidsOf("keeper", process.pid)[0]! });
    });
  });
  process.once("disconnect", () => process.exit(0));
}
