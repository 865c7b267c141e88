/** What a start demands of the stored log: AUDIT-LOG 9.3. */

import { parseCheckpoint, type Checkpoint } from "../audit/checkpoint.ts";
import { CompactRange, equal, HASH_LENGTH, leafHash } from "../audit/merkle.ts";
import { TILE_WIDTH, TileTree, tileWidth } from "../audit/tiles.ts";
import { CountersignError } from "../errors.ts";
import type { Connection } from "./database.ts";

/** The head that the keeper signed last, as its status says. */
export type KeeperHead = { readonly size: number; readonly root: Uint8Array } | "missing";

const recover =
  "Put the newest copy of the database back. If it is lost, the log can only go on under a new origin, whose " +
  "first record names the last known checkpoint of this one.";

/**
 * Checks the right edge of the log (entries, tiles, newest checkpoint), and that the log is the keeper's head or
 * extends it.
 *
 * @returns The tree of the log.
 * @throws CountersignError `rolled-back` if the log is behind the head or another one, or contradicts itself;
 *   `head-missing` if there is a log but no head.
 */
export async function checkLog(connection: Connection, head: KeeperHead): Promise<TileTree> {
  const [{ size }] = (await connection.all<{ size: number }>(
    "SELECT coalesce(max(idx), -1) + 1 AS size FROM audit_entry",
  )) as [{ size: number }];
  if (head === "missing") {
    if (size > 0) {
      throw new CountersignError(
        "head-missing",
        `The log has ${size} entries, but the keeper has no head of it, so that nothing shows whether this ` +
          `database is the newest. Put the keeper's head file back.`,
        { members: { size } },
      );
    }
  } else if (size < head.size) {
    throw new CountersignError(
      "rolled-back",
      `The database has ${size} entries of the log, but the keeper has signed ${head.size}: it is an older ` +
        `copy, or entries were cut off. ${recover}`,
      { members: { size, headSize: head.size } },
    );
  }
  const resume = async (to: number): Promise<TileTree> => {
    try {
      return await TileTree.resume(to, readTile);
    } catch (error) {
      if (error instanceof RangeError) damaged(error);
      throw error;
    }
  };
  const readTile = async (level: number, n: number): Promise<Uint8Array> => {
    const [row] = await connection.all<{ hashes: Uint8Array }>(
      "SELECT hashes FROM audit_tile WHERE level = ? AND n = ?",
      [level, n],
    );
    return row?.hashes ?? damaged(new Error(`tile ${n} of level ${level} is missing`));
  };

  await checkEdge(connection, size, readTile);
  const tree = await resume(size);
  const [stored] = await connection.all<{ size: number; note: string }>(
    "SELECT size, note FROM audit_checkpoint ORDER BY size DESC LIMIT 1",
  );
  if (stored !== undefined) {
    const checkpoint = readCheckpoint(stored.note);
    const known = checkpoint.size === stored.size && stored.size <= size;
    if (!known || !equal((await resume(stored.size)).root(), checkpoint.root)) {
      damaged(new Error(`the checkpoint of ${stored.size} entries is not of this log`));
    }
  }
  if (head !== "missing" && !equal((await resume(head.size)).root(), head.root)) {
    throw new CountersignError(
      "rolled-back",
      `The first ${head.size} of the ${size} entries in the database are not those that the keeper signed. ` +
        recover,
      { members: { size, headSize: head.size } },
    );
  }
  return tree;
}

/** What a stored note says; its signature is the verifier's business. */
function readCheckpoint(note: string): Checkpoint {
  try {
    return parseCheckpoint(note.slice(0, note.indexOf("\n\n") + 1));
  } catch (error) {
    return damaged(error);
  }
}

/** The last tile of each level holds what it should: hashes of the entries, or of the full tiles below. */
async function checkEdge(
  connection: Connection,
  size: number,
  readTile: (level: number, n: number) => Promise<Uint8Array>,
): Promise<void> {
  let hashes = size;
  let level = 0;
  for (; hashes > 0; level++, hashes = Math.floor(hashes / TILE_WIDTH)) {
    const n = Math.ceil(hashes / TILE_WIDTH) - 1;
    const width = tileWidth(level, n, size);
    const tile = await readTile(level, n);
    const beyond = await connection.all(
      "SELECT 1 FROM audit_tile WHERE level = ? AND n > ? LIMIT 1",
      [level, n],
    );
    if (beyond.length > 0 || tile.length !== width * HASH_LENGTH) {
      damaged(new Error(`level ${level} of the tree does not end where the entries do`));
    }
    const want =
      level === 0 ? await lastLeaves(connection, n) : [await fullTile(level - 1, n, width)];
    const have = splitTail(tile, want.length);
    if (want.length > width || !want.every((hash, index) => equal(hash, have[index]!))) {
      damaged(new Error(`tile ${n} of level ${level} is not of the entries in the database`));
    }
  }
  const above = await connection.all("SELECT 1 FROM audit_tile WHERE level >= ? LIMIT 1", [level]);
  if (above.length > 0) damaged(new Error(`there are tiles of level ${level}`));

  async function fullTile(below: number, n: number, width: number): Promise<Uint8Array> {
    const range = CompactRange.empty();
    for (const hash of splitTail(await readTile(below, n * TILE_WIDTH + width - 1), TILE_WIDTH)) {
      range.append(hash);
    }
    return range.root();
  }
}

async function lastLeaves(connection: Connection, n: number): Promise<Uint8Array[]> {
  const rows = await connection.all<{ leaf: Uint8Array }>(
    "SELECT leaf FROM audit_entry WHERE idx >= ? ORDER BY idx",
    [n * TILE_WIDTH],
  );
  return rows.map(({ leaf }) => leafHash(leaf));
}

/** The last `count` hashes of a tile. */
function splitTail(tile: Uint8Array, count: number): Uint8Array[] {
  const begin = tile.length / HASH_LENGTH - count;
  return Array.from({ length: count }, (_, index) =>
    tile.subarray((begin + index) * HASH_LENGTH, (begin + index + 1) * HASH_LENGTH),
  );
}

function damaged(cause: unknown): never {
  throw new CountersignError(
    "rolled-back",
    `The stored log contradicts itself: ${(cause as Error).message}. ${recover}`,
    { cause },
  );
}
