/** The built command as a child process, in a folder and with a home of its own. */

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { packageRoot } from "../support/service.ts";

export const mainModule = join(packageRoot, "dist/src/cli/main.js");

export interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

/** Where the files of this test file are; the command runs in it and takes it for the home directory. */
export const folder = mkdtempSync(join(tmpdir(), "countersign-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

export function path(name: string): string {
  return join(folder, name);
}

/** Puts octets or text into a file of the folder. */
export function write(name: string, content: string | Uint8Array, mode = 0o644): string {
  writeFileSync(path(name), content, { mode });
  return name;
}

export function openssl(...parameters: readonly string[]): string {
  const run = spawnSync("openssl", parameters, { cwd: folder, encoding: "utf8" });
  if (run.status !== 0) throw new Error(`openssl ${parameters.join(" ")}: ${run.stderr}`);
  return run.stdout;
}

export async function countersign(
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<Run> {
  const { COUNTERSIGN_CONFIG: _, ...env } = process.env;
  const child = spawn(process.execPath, [mainModule, ...parameters], {
    cwd: folder,
    env: { ...env, HOME: folder, ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.stdin.on("error", () => undefined); // it may end without reading
  child.stdin.end(options.input ?? "");
  const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { status, stdout, stderr };
}

/** Runs with --json and reads what it printed. */
export async function countersignJson<T>(
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<T> {
  const run = await countersign(["--json", ...parameters], options);
  if (run.stdout === "") throw new Error(`it printed nothing: ${run.stderr}`);
  return JSON.parse(run.stdout) as T;
}
