/** How the processes of CUSTODY.md 7.1 are started: flags (7.3), no core dumps, an environment of their own. */

import { spawn, spawnSync, type ChildProcess, type StdioOptions } from "node:child_process";
import { basename, dirname, join } from "node:path";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { CountersignError } from "../errors.ts";

/** `dealer-token` deals with a token, `signer` signs with one; `signer-software` with a key in its memory. */
export type ProcessKind =
  | "keeper"
  | "dealer"
  | "dealer-token"
  | "unlocker"
  | "signer"
  | "signer-software";

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
  // It starts the others, which the permission model would let it do only for everything.
  if (kind === "keeper") return [...flags, "--no-addons"];
  flags.push(
    known.has("--permission") ? "--permission" : "--experimental-permission",
    ...readable(appRoot).map((path) => `--allow-fs-read=${path}`),
    ...readFiles.map((path) => `--allow-fs-read=${path}`),
    "--allow-fs-write=/proc/self/coredump_filter",
    "--secure-heap=65536",
    "--secure-heap-min=16",
    "--disable-warning=ExperimentalWarning", // about the permission model
  );
  switch (kind) {
    case "dealer":
    case "unlocker":
      // They load the package that trusts every prototype (CUSTODY.md 1, S3).
      flags.push("--no-addons", "--frozen-intrinsics");
      return flags;
    case "signer-software":
      flags.push("--no-addons");
      return flags;
    case "dealer-token":
    case "signer":
      flags.push(
        "--allow-addons",
        // About --allow-addons; addons are what these processes are for: the token's module.
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

/** What stands before the program of a process that needs no network; nothing where the machine does not allow it. */
let withoutNetwork: readonly string[] | undefined;

/**
 * Whether dealers, unlockers and signers of software keys run without any network. Tried once: unshare(1) needs to be
 * there, and to be allowed. A token may be at the other end of a network, so processes with one keep theirs.
 */
export function networkIsolation(): "none" | "own-namespace" {
  return networkPrefix().length === 0 ? "none" : "own-namespace";
}

function networkPrefix(): readonly string[] {
  withoutNetwork ??=
    (process.getuid?.() === 0 ? [["--net"], ["--user", "--net"]] : [["--user", "--net"]])
      .map((options) => ["/usr/bin/unshare", ...options, "--"])
      .find(
        ([program, ...options]) =>
          spawnSync(program!, [...options, "/bin/true"], { env: {}, stdio: "ignore" }).status === 0,
      ) ?? [];
  return withoutNetwork;
}

function mayNeedNetwork(kind: ProcessKind): boolean {
  return kind === "keeper" || kind === "signer" || kind === "dealer-token";
}

export interface ProcessOptions {
  readonly kind: ProcessKind;
  /** The built module, absolute. */
  readonly module: string;
  readonly arguments?: readonly string[];
  readonly readFiles?: readonly string[];
  /** All of it: nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  /**
   * Descriptor 4: `read` makes the pipe, whose writing end is then `stdio[4]`; that end is given on to the process that
   * writes, and is destroyed here (CUSTODY.md 7.1).
   */
  readonly handOff?: "read" | Duplex;
  /** Descriptor 5: a file that this process has opened and does not read. The caller closes it. */
  readonly pin?: number;
}

/**
 * Starts a process with frames on descriptor 3, in a session of its own: Ctrl-C in a terminal reaches only the service,
 * which ends the others when it has finished. Descriptors 1 and 2 are this process's descriptor 2, for words to
 * the administrator; there is no input.
 *
 * @throws CountersignError `token-unavailable` if the process at the other end of the hand-off has ended.
 */
export function startProcess(options: ProcessOptions): ChildProcess {
  const { kind, handOff, pin } = options;
  const flags = flagsFor(kind, { appRoot, readFiles: options.readFiles ?? [] });
  const stdio: StdioOptions = ["ignore", 2, 2, "pipe"];
  if (typeof handOff === "object" && handOff.destroyed) {
    throw new CountersignError(
      "token-unavailable",
      "the process that would take the secret has ended",
    );
  }
  if (handOff !== undefined || pin !== undefined) {
    stdio.push(handOff === "read" ? "pipe" : (handOff ?? "ignore"));
  }
  if (pin !== undefined) stdio.push(pin);
  const environment = Object.entries(options.environment).map(
    ([name, value]) => `${name}=${value}`,
  );
  const child = spawn(
    "/bin/sh",
    [
      "-c",
      // A program that its user may run and not read cannot set its own filter of core dumps; it inherits this one.
      // Shells add PWD and the like to the environment; env -i takes them off again.
      'ulimit -c 0; { echo 0 >/proc/self/coredump_filter; } 2>/dev/null; exec "$@"',
      "sh",
      ...(mayNeedNetwork(kind) ? [] : networkPrefix()),
      "/usr/bin/env",
      "-i",
      ...environment,
      process.execPath,
      ...flags,
      options.module,
      ...(options.arguments ?? []),
    ],
    { cwd: "/", env: {}, stdio, detached: true },
  );
  if (typeof handOff === "object") handOff.destroy();
  return child;
}
