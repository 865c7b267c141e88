/** The command at a terminal: `script` (util-linux) gives it one, and types what it is told. */

import { spawn } from "node:child_process";
import { folder, mainModule, type Run } from "./command.ts";

/** @param typed - one line for each question. */
export async function atTerminal(
  parameters: readonly string[],
  typed: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Run> {
  const words = [process.execPath, mainModule, ...parameters];
  const command = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  const { COUNTERSIGN_CONFIG: _, ...outer } = process.env;
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    cwd: folder,
    env: { ...outer, HOME: folder, TERM: "xterm", NO_COLOR: "1", ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stdout = "";
  const left = [...typed];
  let answered = 0;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    // readline clears the line before it writes a question there.
    const asked = stdout.split("\u001b[0J").length - 1;
    while (answered < asked && left.length > 0) {
      child.stdin.write(`${left.shift()}\n`);
      answered++;
    }
  });
  child.stdin.on("error", () => undefined);
  const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { status, stdout, stderr: "" };
}
