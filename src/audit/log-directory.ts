/** The log as files, C2SP tlog-tiles: written by an export, read by whoever has a copy. */

import { hash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CountersignError } from "../errors.ts";
import { parseCheckpoint } from "./checkpoint.ts";
import type { LogSource } from "./log-source.ts";
import { HASH_LENGTH } from "./merkle.ts";
import { splitNote } from "./signed-note.ts";
import { encodeEntryBundle, TILE_WIDTH, tilePath, tilesOf, tileWidth } from "./tiles.ts";

/** A log directory, or an unpacked copy of one. */
export function directoryLogSource(directory: string): LogSource {
  const read = (path: string): Promise<Uint8Array | undefined> =>
    readIfThere(join(directory, ...segments(path)));
  return { read, object: (digest) => read(`objects/${digest.slice("sha256:".length)}`) };
}

/** What an export reads. The log may grow meanwhile; only what the checkpoint covers is written. */
export interface LogReader {
  readonly size: number;
  /** The signed note of this size. */
  readonly checkpoint: string;
  /** Leaf bytes of `[from, to)`. */
  entries(from: number, to: number): Promise<readonly Uint8Array[]>;
  /** The hashes of a tile, at least those of a tree of `size` leaves. */
  tile(level: number, n: number): Promise<Uint8Array>;
}

/**
 * Writes a log into a directory, or brings the directory up to date. The checkpoint comes last, so that an export
 * that was interrupted is still the older log.
 *
 * @param objects - Certificates, CRLs and what else leaves name by digest; each goes to `objects/<SHA-256, hex>`.
 * @throws CountersignError `rolled-back` if the directory has a longer log, or another one.
 * @throws RangeError if the checkpoint is not of this size, or entries or tiles are missing.
 */
export async function exportLog(
  reader: LogReader,
  directory: string,
  objects: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = [],
): Promise<void> {
  const { size, checkpoint } = reader;
  if (parseCheckpoint(splitNote(checkpoint).text).size !== size) {
    throw new RangeError(`the checkpoint is not one of ${size} entries`);
  }
  const before = await readIfThere(join(directory, "checkpoint"));
  if (before !== undefined && parseCheckpoint(splitNote(before).text).size > size) {
    throw new CountersignError(
      "rolled-back",
      "the directory holds a longer log than the one to export",
    );
  }
  for (let first = 0; first < size; first += TILE_WIDTH) {
    const n = first / TILE_WIDTH;
    const width = tileWidth("entries", n, size);
    const leaves = await reader.entries(first, first + width);
    if (leaves.length !== width) {
      throw new RangeError(
        `entries ${first} to ${first + width} were asked for, got ${leaves.length}`,
      );
    }
    await writeOnce(directory, tilePath("entries", n, width), encodeEntryBundle(leaves));
  }
  for (const { level, n, width } of tilesOf(size)) {
    const hashes = (await reader.tile(level, n)).subarray(0, width * HASH_LENGTH);
    if (hashes.length !== width * HASH_LENGTH) {
      throw new RangeError(`${tilePath(level, n, width)} has ${hashes.length} octets`);
    }
    await writeOnce(directory, tilePath(level, n, width), hashes);
  }
  for await (const object of objects) {
    await writeOnce(directory, `objects/${hash("sha256", object)}`, object);
  }
  await write(join(directory, "checkpoint"), Buffer.from(checkpoint));
}

/** Tiles, bundles and objects never change: a file that is there and differs belongs to another log. */
async function writeOnce(directory: string, path: string, content: Uint8Array): Promise<void> {
  const file = join(directory, ...segments(path));
  const there = await readIfThere(file);
  if (there === undefined) {
    await mkdir(dirname(file), { recursive: true });
    await write(file, content);
  } else if (Buffer.compare(there, content) !== 0) {
    throw new CountersignError("rolled-back", `the directory holds another log: ${path} differs`);
  }
}

async function write(file: string, content: Uint8Array): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.new`, content);
  await rename(`${file}.new`, file);
}

async function readIfThere(file: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A partial tile's directory 000.p may be a file's name in a damaged copy, and the other way round.
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR") {
      return undefined;
    }
    throw error;
  }
}

function segments(path: string): string[] {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new RangeError(`${path} is not a path inside a log`);
  }
  return parts;
}
