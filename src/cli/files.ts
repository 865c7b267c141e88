/** Files as the command reads and writes them: keys for their owner alone, and nothing overwritten by accident. */

import { randomBytes } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { CommandFailure, usage } from "./failure.ts";

/** Larger inputs are no certificate, request, key or CRL of any issuer. */
const INPUT_OCTETS = 1 << 29;

/**
 * Reads a file that the command line names.
 *
 * @param file - `-` is standard input.
 */
export function readInput(file: string): Buffer {
  try {
    if (file === "-") return readFileSync(0);
    const descriptor = openSync(file, "r");
    try {
      const stat = fstatSync(descriptor);
      if (stat.isDirectory()) throw usage(`${file} is a folder: name a file`);
      if (stat.size > INPUT_OCTETS) throw usage(`${file} has ${stat.size} octets: too large`);
      return readFileSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw unreadable(file, error);
  }
}

/**
 * Reads a secret from a file that only its owner may read. Pipes, as a shell's `<(…)` makes them, have no mode to
 * check.
 */
export function readSecretFile(file: string, what: string): Buffer {
  try {
    const descriptor = openSync(file, "r");
    try {
      const stat = fstatSync(descriptor);
      if (stat.isDirectory()) throw usage(`${file} is a folder: name the file of the ${what}`);
      // Windows keeps who may read a file elsewhere, and shows every mode as open.
      if (process.platform !== "win32" && stat.isFile() && (stat.mode & 0o077) !== 0) {
        throw new CommandFailure(
          `others may read ${file}, the file of the ${what} (its mode is ${(stat.mode & 0o777).toString(8)})`,
          { code: "file-unsafe", next: `chmod 600 ${file}` },
        );
      }
      return readFileSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw unreadable(file, error, what);
  }
}

function unreadable(file: string, error: unknown, what?: string): CommandFailure {
  if (error instanceof CommandFailure) return error;
  const place = file === "-" ? "standard input" : file;
  const named = what === undefined ? place : `${place}, the file of the ${what},`;
  return usage(`${named} cannot be read: ${reasonOf(error)}`);
}

/** In words: `No such file or directory` without the path and the call. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code === undefined ? undefined : reasons[code]) ?? message;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "it is not there",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EEXIST: "it exists",
};

/**
 * Writes a secret into a new file with mode 0600, on disk before this returns.
 *
 * @throws CommandFailure `file-exists`; nothing is ever overwritten.
 */
export function writeSecretFile(file: string, content: string | Uint8Array, next?: string): void {
  try {
    writeNew(file, content, 0o600);
  } catch (error) {
    throw notWritten(file, error, next ?? "name another file: a key is never overwritten");
  }
}

/** Puts a file of mode 0600 in the place of what is there, whole or not at all. */
export function replaceSecretFile(file: string, content: string | Uint8Array): void {
  try {
    replace(file, content, 0o600);
  } catch (error) {
    throw notWritten(file, error, "try again");
  }
}

/** Makes a folder that only its owner may look into, and those above it. */
export function makeOwnFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw notWritten(folder, error, "name another folder");
  }
}

/** Removes a secret that this command wrote a moment ago and that came to nothing. */
export function removeSecretFile(file: string): void {
  unlinkSync(file);
}

/**
 * Says early that a result could not be written, before anything is asked of the service.
 *
 * @throws CommandFailure `file-exists`, or that its folder is not there.
 */
export function checkWritable(file: string, force = false, next?: string): void {
  if (!force && existsSync(file)) {
    throw notWritten(file, { code: "EEXIST" }, next ?? "name another file, or give --force");
  }
  try {
    accessSync(dirname(resolve(file)), constants.W_OK);
  } catch (error) {
    throw new CommandFailure(
      `nothing can be written into ${dirname(resolve(file))}: ${reasonOf(error)}`,
      {
        code: "file-not-written",
        next: "make the folder, or name another",
        cause: error,
      },
    );
  }
}

/** Writes a result that is no secret, whole or not at all. With `force` it takes the place of what is there. */
export function writeResultFile(file: string, content: string | Uint8Array, force = false): void {
  try {
    if (!force) {
      writeNew(file, content, 0o644);
      return;
    }
    replace(file, content, 0o644);
  } catch (error) {
    throw notWritten(file, error, "name another file, or give --force");
  }
}

function replace(file: string, content: string | Uint8Array, mode: number): void {
  const beside = `${file}.${randomBytes(6).toString("hex")}.new`;
  writeNew(beside, content, mode);
  try {
    renameSync(beside, file);
  } catch (error) {
    unlinkSync(beside);
    throw error;
  }
}

function writeNew(file: string, content: string | Uint8Array, mode: number): void {
  const descriptor = openSync(file, "wx", mode);
  let whole = false;
  try {
    const octets = typeof content === "string" ? Buffer.from(content) : content;
    let offset = 0;
    while (offset < octets.length) offset += writeSync(descriptor, octets, offset);
    fsyncSync(descriptor);
    whole = true;
  } finally {
    closeSync(descriptor);
    if (!whole) unlinkSync(file);
  }
}

function notWritten(file: string, error: unknown, whereExists: string): CommandFailure {
  if ((error as NodeJS.ErrnoException).code === "EEXIST") {
    return new CommandFailure(`${file} exists, and is not overwritten`, {
      code: "file-exists",
      next: whereExists,
    });
  }
  return new CommandFailure(`${file} cannot be written: ${reasonOf(error)}`, {
    code: "file-not-written",
    cause: error,
  });
}
