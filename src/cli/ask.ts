/** Questions to the person at the terminal, on standard error and from standard input. */

import { createInterface } from "node:readline";
import type { Context } from "./context.ts";
import { CommandFailure, usage } from "./failure.ts";
import { onOneLine } from "./output.ts";

/** Whether somebody is there to answer. */
export function canAsk({ output }: Context): boolean {
  return !output.json && process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** One line; Ctrl-C and Ctrl-D are an empty one. */
export async function ask(question: string): Promise<string> {
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await new Promise<string>((resolve) => {
    reader.question(question, resolve);
    reader.once("close", () => resolve(""));
  });
  reader.close();
  return answer.trim();
}

/** Whether the answer is yes. */
export async function agrees(question: string): Promise<boolean> {
  return /^y(?:es)?$/i.test(await ask(`${onOneLine(question)} [y/N] `));
}

/**
 * Goes on only if the person says so, or has said so with `--yes`.
 *
 * @throws CommandFailure `declined`; with exit code 2 if nobody is there to ask.
 */
export async function confirm(
  context: Context,
  question: string,
  yes: boolean | undefined,
): Promise<void> {
  if (yes === true) return;
  if (!canAsk(context)) {
    throw usage("nobody is there to confirm the statement", "give --yes to sign it unseen");
  }
  if (!(await agrees(question))) {
    throw new CommandFailure("nothing was signed, and nothing has changed", { code: "declined" });
  }
}
