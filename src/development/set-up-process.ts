/**
 * Makes a development home in a process of its own: it plays the five people, and what it knows of their shares ends with
 * it. The service that opens the home has never had any.
 */

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { refusalOf, errorOf, type Refusal } from "../custody/refusal.ts";
import { setUpDevelopmentHome, type DevelopmentOptions } from "./set-up.ts";

type Told = { readonly progress: string } | { readonly failed: Refusal } | { readonly done: true };

/** @throws CountersignError as {@link setUpDevelopmentHome} does. */
export async function setUpInProcess(home: string, options: DevelopmentOptions): Promise<void> {
  const { progress, ...others } = options;
  const child = fork(fileURLToPath(import.meta.url), [], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  let outcome: Error | "done" = new Error("the process that makes the home has ended");
  child.on("message", (told: Told) => {
    if ("progress" in told) progress(told.progress);
    else outcome = "done" in told ? "done" : errorOf(told.failed);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => resolve());
  });
  child.send({ home, options: others });
  await ended;
  if (outcome instanceof Error) throw outcome;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const end = (told: Told): void => void process.send!(told, () => process.exit());
  process.once("disconnect", () => process.exit(1)); // whoever waits for it has ended
  process.once(
    "message",
    ({ home, options }: { home: string; options: Omit<DevelopmentOptions, "progress"> }) => {
      setUpDevelopmentHome(home, {
        ...options,
        progress: (step) => process.send!({ progress: step } satisfies Told),
      }).then(
        () => end({ done: true }),
        (error: unknown) => end({ failed: refusalOf(error) }),
      );
    },
  );
}
