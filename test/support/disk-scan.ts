/** Looks for secrets in the files of a folder: databases and their write-ahead logs, backups, logs, core dumps. */

import { closeSync, fstatSync, openSync, readdirSync, readSync } from "node:fs";
import { join, relative } from "node:path";
import { type Finding, NeedleSearch, type Needles } from "./needles.ts";

export interface DiskFinding extends Finding {
  /** The file, from the folder; for a find in its name, that it is one. */
  readonly file: string;
}

export interface DiskScan {
  readonly findings: readonly DiskFinding[];
  /** The regular files that were read, from the folder, in order: an empty folder holds no secrets either. */
  readonly files: readonly string[];
}

/**
 * Searches the names and contents of all files below a folder, to the last octet, so also what SQLite has freed and not
 * overwritten. It follows no symbolic links. What is compressed or encrypted is not seen through.
 *
 * @param except - files that may hold the needles, from the folder; each must be there.
 */
export function scanFiles(
  folder: string,
  needles: Needles,
  except: readonly string[] = [],
): DiskScan {
  const search = new NeedleSearch(needles);
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  const files: string[] = [];
  const findings: DiskFinding[] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    const file = relative(folder, path);
    const name = Buffer.from(entry.name);
    findings.push(...find(search, onceOf(name), `${file} (its name)`));
    if (!entry.isFile()) continue;
    files.push(file);
    if (!except.includes(file)) findings.push(...scanFile(path, file, search));
  }
  const absent = except.filter((file) => !files.includes(file));
  if (absent.length > 0) throw new Error(`not there: ${absent.join(", ")}`);
  return { findings, files: files.toSorted() };
}

function scanFile(path: string, file: string, search: NeedleSearch): DiskFinding[] {
  const descriptor = openSync(path, "r");
  try {
    if (!fstatSync(descriptor).isFile()) throw new Error(`${file} is no file any more`);
    const read = (into: Uint8Array): number => readSync(descriptor, into, 0, into.length, null);
    return find(search, read, file);
  } finally {
    closeSync(descriptor);
  }
}

function find(
  search: NeedleSearch,
  read: (into: Uint8Array) => number,
  file: string,
): DiskFinding[] {
  return search.search(read).map((finding) => ({ ...finding, file }));
}

function onceOf(octets: Buffer): (into: Uint8Array) => number {
  let rest = octets;
  return (into) => {
    const length = rest.copy(into);
    rest = rest.subarray(length);
    return length;
  };
}
