/** How the processes of CUSTODY.md 7.1 are started: flags (7.3), no core dumps, an environment of their own. */

import { spawn, type ChildProcess, type SpawnOptions } from "node:child_process";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export type ProcessKind = "keeper" | "signer";

export interface FlagOptions {
  /** The folder with package.json, dist and node_modules. */
  readonly appRoot: string;
  /** Files that the process may read beyond its own code, absolute. */
  readonly readFiles?: readonly string[];
  /** What the Node that will run it accepts. */
  readonly known?: Pick<ReadonlySet<string>, "has">;
}

/**
 * The flags of Node for one kind of process.
 *
 * @param options.known - the running Node's; Node 20 calls the permission model experimental and has no
 *   `--disable-sigusr1`, which is why `harden.ts` installs a listener on all versions.
 */
export function flagsFor(kind: ProcessKind, options: FlagOptions): string[] {
  const { appRoot, readFiles = [], known = process.allowedNodeEnvironmentFlags } = options;
  const flags = ["--disable-proto=throw", "--disallow-code-generation-from-strings"];
  if (known.has("--disable-sigusr1")) flags.push("--disable-sigusr1");
  switch (kind) {
    case "keeper": // it starts the others, which the permission model would let it do only for everything
      flags.push("--no-addons");
      return flags;
    case "signer":
      flags.push(
        known.has("--permission") ? "--permission" : "--experimental-permission",
        ...readable(appRoot).map((path) => `--allow-fs-read=${path}`),
        ...readFiles.map((path) => `--allow-fs-read=${path}`),
        "--allow-fs-write=/proc/self/coredump_filter",
        "--allow-addons",
        "--secure-heap=65536",
        "--secure-heap-min=16",
        "--disable-warning=ExperimentalWarning", // about the permission model
        // About --allow-addons; addons are what this process is for: the token's module.
        "--disable-warning=SecurityWarning",
      );
      return flags;
  }
}

/** Code only: a home may lie in the same folder, with keys in it. */
function readable(appRoot: string): string[] {
  const paths = [
    join(appRoot, "dist", "/"),
    join(appRoot, "node_modules", "/"),
    join(appRoot, "package.json"),
  ];
  // As an installed package, its dependencies lie beside it.
  if (basename(dirname(appRoot)) === "node_modules") paths.push(join(dirname(appRoot), "/"));
  return paths;
}

/** The folder with package.json, whether this module runs from `src` or from `dist/src`. */
export const appRoot: string = rootOf(fileURLToPath(new URL("../..", import.meta.url)));

function rootOf(folder: string): string {
  return basename(folder) === "dist" ? dirname(folder) : folder.replace(/\/$/, "");
}

/** The built main module of a process: the processes run from `dist`, also when their parent runs from source. */
export function mainModule(name: string): string {
  return join(appRoot, "dist", "src", "custody", name);
}

export interface ProcessOptions {
  readonly kind: ProcessKind;
  /** The built module, absolute. */
  readonly module: string;
  readonly arguments?: readonly string[];
  readonly readFiles?: readonly string[];
  /** All of it: nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * Starts a process with frames on descriptor 3, in a session of its own: Ctrl-C in a terminal reaches only the service,
 * which ends the others when it has finished. Descriptors 1 and 2 are this process's descriptor 2, for words to
 * the administrator; there is no input.
 */
export function startProcess(options: ProcessOptions): ChildProcess {
  const flags = flagsFor(options.kind, { appRoot, readFiles: options.readFiles ?? [] });
  const settings: SpawnOptions = {
    cwd: "/",
    env: {},
    stdio: ["ignore", 2, 2, "pipe"],
    detached: true,
  };
  const environment = Object.entries(options.environment).map(
    ([name, value]) => `${name}=${value}`,
  );
  return spawn(
    "/bin/sh",
    [
      "-c",
      // A program that its user may run and not read cannot set its own filter of core dumps; it inherits this one.
      // Shells add PWD and the like to the environment; env -i takes them off again.
      'ulimit -c 0; { echo 0 >/proc/self/coredump_filter; } 2>/dev/null; exec /usr/bin/env -i "$@"',
      "sh",
      ...environment,
      process.execPath,
      ...flags,
      options.module,
      ...(options.arguments ?? []),
    ],
    settings,
  );
}
