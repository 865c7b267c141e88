/** Tries what a process with secrets must not be able to do, under its flags, and tells each outcome on descriptor 3. */

import "../../src/custody/harden.ts";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import inspector from "node:inspector";
import { createRequire } from "node:module";
import { createConnection, Socket } from "node:net";
import { writeHeapSnapshot } from "node:v8";
import { Worker } from "node:worker_threads";

const [allowedFile, forbiddenFile, port] = process.argv.slice(2) as [string, string, string];

function outcome(attempt: () => unknown): string {
  try {
    attempt();
    return "done";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? (error as Error).name;
  }
}

/** To a listener of this machine. */
const connection = await new Promise<string>((resolve) => {
  const socket = createConnection(Number(port), "127.0.0.1");
  socket.once("connect", () => resolve("done"));
  socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code!));
});

const outcomes = {
  permission: typeof process.permission,
  passwd: outcome(() => readFileSync("/etc/passwd")),
  forbiddenFile: outcome(() => readFileSync(forbiddenFile)),
  allowedFile: outcome(() => readFileSync(allowedFile)),
  memory: outcome(() => readFileSync("/proc/self/mem")),
  folder: outcome(() => readdirSync("/")),
  write: outcome(() => writeFileSync("/tmp/countersign-probe", "")),
  spawn: outcome(() => {
    const { error } = spawnSync("/bin/true");
    if (error !== undefined) throw error;
  }),
  worker: outcome(() => new Worker("", { eval: true })),
  inspector: outcome(() => inspector.open(0)),
  inspectorSession: outcome(() => new inspector.Session().connect()),
  heapSnapshot: outcome(() => writeHeapSnapshot("/tmp/countersign-probe.heapsnapshot")),
  report: outcome(() => process.report.writeReport("/tmp/countersign-probe.json")),
  // oxlint-disable-next-line no-implied-eval, typescript/no-implied-eval, no-new-func -- it is what must fail
  code: outcome(() => new Function("return 1")()),
  // oxlint-disable-next-line no-proto -- it is what must fail
  prototype: outcome(() => ({} as { __proto__?: unknown }).__proto__),
  addon: outcome(() => createRequire(import.meta.url)("pkcs11js") as unknown),
  pollution: outcome(() => {
    // oxlint-disable-next-line no-extend-native -- it is what must fail
    (Object.prototype as { random?: unknown }).random = () => Buffer.alloc(0);
  }),
  connection,
};

new Socket({ fd: 3 }).end(JSON.stringify(outcomes), () => process.exit(0));
