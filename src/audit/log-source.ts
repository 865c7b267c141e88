/** Where a log is read from: C2SP tlog-tiles paths, and how a partial tile is found when only a fuller one is left. */

import { HASH_LENGTH } from "./merkle.ts";
import { decodeEntryBundle, TILE_WIDTH, tilePath, tileWidth, type ReadTile } from "./tiles.ts";

/** Reads `checkpoint`, `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`. */
export interface LogSource {
  /** @returns undefined if there is nothing at this path. What comes back is not to be trusted. */
  read(path: string): Promise<Uint8Array | undefined>;
  /**
   * The certificate or CRL of a digest (`sha256:` and hex), where the copy has them beside the log.
   *
   * @returns undefined if it has not. What comes back is not to be trusted.
   */
  object?(digest: string): Promise<Uint8Array | undefined>;
}

/** What was found of a tile or bundle, and the path that a tree of the size asked for has it under. */
export interface Found<Content> {
  readonly path: string;
  readonly content: Content | undefined;
}

/**
 * The hashes of a tile in a tree of `size` leaves. A full tile stands in for a partial one, which a log may delete by
 * then.
 *
 * @returns Content that has exactly as many octets as were asked for only if the source is a good one.
 */
export async function readTileOf(
  source: LogSource,
  level: number,
  n: number,
  size: number,
): Promise<Found<Uint8Array>> {
  const width = tileWidth(level, n, size);
  const path = tilePath(level, n, width);
  const exact = await source.read(path);
  if (exact !== undefined || width === TILE_WIDTH) {
    return { path, content: exact };
  }
  const full = await source.read(tilePath(level, n));
  return { path, content: full?.subarray(0, width * HASH_LENGTH) };
}

/** The entries of bundle `n` in a tree of `size` leaves; see {@link readTileOf}. */
export async function readBundleOf(
  source: LogSource,
  n: number,
  size: number,
): Promise<Found<{ leaves: Uint8Array[]; rest: number }>> {
  const width = tileWidth("entries", n, size);
  const path = tilePath("entries", n, width);
  const exact = await source.read(path);
  if (exact !== undefined) {
    return { path, content: decodeEntryBundle(exact) };
  }
  const full = width === TILE_WIDTH ? undefined : await source.read(tilePath("entries", n));
  if (full === undefined) {
    return { path, content: undefined };
  }
  const { leaves, rest } = decodeEntryBundle(full);
  return { path, content: { leaves: leaves.slice(0, width), rest } };
}

/** Tiles for proofs in the tree of `size` leaves. Check what comes out of them against a signed root. */
export function tileReader(source: LogSource, size: number): ReadTile {
  return async (level, n) => {
    const { path, content } = await readTileOf(source, level, n, size);
    if (content === undefined) {
      throw new RangeError(`${path} is missing`);
    }
    return content;
  };
}
