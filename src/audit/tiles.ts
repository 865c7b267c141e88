/** The tree as tiles of 256 hashes, and entries in bundles of 256: C2SP tlog-tiles. */

import {
  CompactRange,
  emptyRoot,
  foldRight,
  HASH_LENGTH,
  subtrees,
  type Subtree,
} from "./merkle.ts";

/** Hashes in a full tile, entries in a full bundle. */
export const TILE_WIDTH = 256;

/** Levels of hashes inside a tile: 2^8 = 256. */
const TILE_HEIGHT = 8;

/** The longest entry a bundle can carry: its length is written in 16 bits. */
export const MAX_ENTRY_LENGTH = 65_535;

/** Where a tile or a bundle of entries stands. `width` is 1 to 255 for a partial one, 256 for a full one. */
export interface TilePosition {
  readonly level: number | "entries";
  readonly n: number;
  readonly width: number;
}

/** `tile/<L>/<N>[.p/<W>]`, with N in groups of three digits: 1234067 is `x001/x234/067`. */
export function tilePath(level: number | "entries", n: number, width: number = TILE_WIDTH): string {
  const digits = String(n);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, "0").match(/.../g)!;
  const last = groups.pop()!;
  const prefix = groups.map((group) => `x${group}/`).join("");
  return `tile/${level}/${prefix}${last}${width === TILE_WIDTH ? "" : `.p/${width}`}`;
}

const pathPattern =
  /^tile\/(entries|0|[1-9][0-9]?)\/((?:x[0-9]{3}\/)*[0-9]{3})(?:\.p\/([1-9][0-9]{0,2}))?$/;

/** Reads a path back; undefined unless it is exactly what {@link tilePath} writes. */
export function parseTilePath(path: string): TilePosition | undefined {
  const match = pathPattern.exec(path);
  if (match === null) {
    return undefined;
  }
  const level = match[1] === "entries" ? "entries" : Number(match[1]);
  const n = Number(match[2]!.replaceAll(/[x/]/g, ""));
  const width = match[3] === undefined ? TILE_WIDTH : Number(match[3]);
  const valid =
    (level === "entries" || level <= 63) &&
    Number.isSafeInteger(n) &&
    tilePath(level, n, width) === path;
  return valid ? { level, n, width } : undefined;
}

/** How many hashes tile `n` of `level` holds in a tree of `size` leaves: 0 to 256. */
export function tileWidth(level: number | "entries", n: number, size: number): number {
  const hashes = Math.floor(size / TILE_WIDTH ** (level === "entries" ? 0 : level));
  return Math.max(0, Math.min(TILE_WIDTH, hashes - n * TILE_WIDTH));
}

/** Every tile of a tree of `size` leaves, full ones and the last partial one of each level. */
export function* tilesOf(size: number): Generator<TilePosition & { readonly level: number }> {
  for (let level = 0; size >= TILE_WIDTH ** level; level++) {
    for (let n = 0, width; (width = tileWidth(level, n, size)) > 0; n++) {
      yield { level, n, width };
    }
  }
}

/** Entries one after the other, each after its length in two octets, big-endian. */
export function encodeEntryBundle(leaves: readonly Uint8Array[]): Uint8Array {
  const bundle = Buffer.allocUnsafe(leaves.reduce((length, leaf) => length + 2 + leaf.length, 0));
  let offset = 0;
  for (const leaf of leaves) {
    offset = bundle.writeUInt16BE(leaf.length, offset);
    bundle.set(leaf, offset);
    offset += leaf.length;
  }
  return bundle;
}

/**
 * The entries of a bundle, as views.
 *
 * @returns What stands before the first length that leads past the end; `rest` counts the octets after it.
 */
export function decodeEntryBundle(bundle: Uint8Array): { leaves: Uint8Array[]; rest: number } {
  const leaves: Uint8Array[] = [];
  let offset = 0;
  while (offset + 2 <= bundle.length) {
    const end = offset + 2 + (bundle[offset]! << 8) + bundle[offset + 1]!;
    if (end > bundle.length) {
      break;
    }
    leaves.push(bundle.subarray(offset + 2, end));
    offset = end;
  }
  return { leaves, rest: bundle.length - offset };
}

/** A tile row to insert, or to replace while it fills. */
export interface TileUpdate {
  readonly level: number;
  readonly n: number;
  /** 32 octets a hash, 1 to 256 hashes. */
  readonly hashes: Uint8Array;
}

/** Reads a tile: at least the hashes that the tree in question needs of it. */
export type ReadTile = (level: number, n: number) => Promise<Uint8Array>;

/** One level: its last tile, not yet full, as bytes to store and as the range it will hash to. */
interface Level {
  n: number;
  bytes: Uint8Array;
  range: CompactRange;
}

/** The state of a {@link TileTree} at one moment. */
export interface TileTreeSnapshot {
  readonly size: number;
  readonly levels: readonly Readonly<Level>[];
}

/**
 * The right edge of the tree: the last tile of each level. Everything to the left is in full tiles that never
 * change. It grows in memory first; when the commit of the rows fails, `restore` takes it back.
 */
export class TileTree {
  #size = 0;
  #levels: Level[] = [];

  static empty(): TileTree {
    return new TileTree();
  }

  /**
   * The tree of `size` leaves from its stored tiles. Compare its root with the checkpoint: only the right edge is read.
   *
   * @throws RangeError if a tile holds fewer hashes than a tree of this size has there.
   */
  static async resume(size: number, readTile: ReadTile): Promise<TileTree> {
    const tree = new TileTree();
    tree.#size = size;
    for (let level = 0; size >= TILE_WIDTH ** level; level++) {
      const n = Math.floor(size / TILE_WIDTH ** (level + 1));
      const row: Level = newLevel(n);
      tree.#levels.push(row);
      const width = tileWidth(level, n, size);
      if (width > 0) {
        for (const hash of splitHashes(await readTile(level, n), width, level, n)) {
          row.bytes.set(hash, row.range.end * HASH_LENGTH);
          row.range.append(Buffer.from(hash)); // a copy: the tile need not stay in memory for it
        }
      }
    }
    return tree;
  }

  get size(): number {
    return this.#size;
  }

  root(): Uint8Array {
    // From the highest level down these are the nodes of the whole tree, left to right.
    return foldRight(this.#levels.toReversed().flatMap(({ range }) => range.nodes)) ?? emptyRoot;
  }

  /** The whole tree as a range that begins at 0. */
  range(): CompactRange {
    const nodes = this.#levels.toReversed().flatMap(({ range }) => range.nodes);
    return CompactRange.of(0, this.#size, nodes);
  }

  /**
   * Adds leaves.
   *
   * @returns The tiles that changed, each once and in its last state, by level and then from left to right.
   */
  append(leafHashes: readonly Uint8Array[]): TileUpdate[] {
    const updates: TileUpdate[] = [];
    let hashes: readonly Uint8Array[] = leafHashes;
    for (let level = 0; hashes.length > 0; level++) {
      const full: Uint8Array[] = [];
      const row = (this.#levels[level] ??= newLevel(0));
      for (const hash of hashes) {
        row.bytes.set(hash, row.range.end * HASH_LENGTH);
        row.range.append(hash);
        if (row.range.end === TILE_WIDTH) {
          updates.push({ level, n: row.n, hashes: row.bytes });
          full.push(row.range.nodes[0]!);
          Object.assign(row, newLevel(row.n + 1));
        }
      }
      if (row.range.end > 0) {
        updates.push({ level, n: row.n, hashes: row.bytes.slice(0, row.range.end * HASH_LENGTH) });
      }
      hashes = full;
    }
    this.#size += leafHashes.length;
    return updates;
  }

  /** The state to come back to. Costs a few small arrays; no hash is copied. */
  snapshot(): TileTreeSnapshot {
    return { size: this.#size, levels: this.#levels.map(copyLevel) };
  }

  /** Forgets what was appended since the snapshot was taken. A snapshot can be restored more than once. */
  restore(snapshot: TileTreeSnapshot): void {
    this.#size = snapshot.size;
    // The octets are copied: those of the snapshot may also stand in rows that were handed out.
    this.#levels = snapshot.levels.map((level) => ({
      ...copyLevel(level),
      bytes: level.bytes.slice(),
    }));
  }
}

function newLevel(n: number): Level {
  return { n, bytes: new Uint8Array(TILE_WIDTH * HASH_LENGTH), range: CompactRange.empty() };
}

function copyLevel({ n, bytes, range }: Readonly<Level>): Level {
  return { n, bytes, range: range.clone() };
}

function splitHashes(tile: Uint8Array, width: number, level: number, n: number): Uint8Array[] {
  if (tile.length < width * HASH_LENGTH) {
    throw new RangeError(
      `${tilePath(level, n)} has ${tile.length / HASH_LENGTH} hashes, the tree needs ${width}`,
    );
  }
  return Array.from({ length: width }, (_, index) => hashAt(tile, index));
}

function hashAt(tile: Uint8Array, index: number): Uint8Array {
  return tile.subarray(index * HASH_LENGTH, (index + 1) * HASH_LENGTH);
}

/**
 * The audit path of leaf `index` in the tree of `size` leaves: RFC 6962 §2.1.1, from the leaf's sibling upwards.
 *
 * @throws RangeError if there is no such leaf, or a tile is too short.
 */
export async function inclusionProof(
  readTile: ReadTile,
  index: number,
  size: number,
): Promise<Uint8Array[]> {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) {
    throw new RangeError(`leaf ${index} is not in a tree of ${size}`);
  }
  return hashRanges(readTile, inclusionRanges(index, 0, size));
}

/**
 * The proof that the tree of `size` leaves begins with the tree of `oldSize`: RFC 6962 §2.1.2. Empty when they are
 * the same or the old one has no leaves.
 *
 * @throws RangeError if the old tree is larger, or a tile is too short.
 */
export async function consistencyProof(
  readTile: ReadTile,
  oldSize: number,
  size: number,
): Promise<Uint8Array[]> {
  if (
    !Number.isSafeInteger(oldSize) ||
    !Number.isSafeInteger(size) ||
    oldSize < 0 ||
    oldSize > size
  ) {
    throw new RangeError(`a tree of ${size} does not contain one of ${oldSize}`);
  }
  const ranges = oldSize === 0 || oldSize === size ? [] : consistencyRanges(oldSize, 0, size);
  return hashRanges(readTile, ranges);
}

/**
 * The nodes of `[begin, end)`, for {@link CompactRange.of}: what somebody who knows the tree of `begin` leaves needs
 * to know the tree of `end`.
 */
export async function rangeNodes(
  readTile: ReadTile,
  begin: number,
  end: number,
): Promise<Uint8Array[]> {
  const read = cached(readTile);
  return Promise.all(subtrees(begin, end).map((part) => subtreeHash(read, part)));
}

type Range = readonly [begin: number, end: number];

/** The ranges whose hashes are the path, bottom up: each is what is left when the tree splits around the leaf. */
function inclusionRanges(index: number, begin: number, end: number): Range[] {
  const ranges: Range[] = [];
  let low = begin;
  let high = end;
  while (high - low > 1) {
    const middle = low + splitPoint(high - low);
    if (index < middle) {
      ranges.push([middle, high]);
      high = middle;
    } else {
      ranges.push([low, middle]);
      low = middle;
    }
  }
  return ranges.reverse();
}

function consistencyRanges(oldSize: number, begin: number, end: number): Range[] {
  const ranges: Range[] = [];
  let low = begin;
  let high = end;
  while (oldSize !== high) {
    const middle = low + splitPoint(high - low);
    if (oldSize <= middle) {
      ranges.push([middle, high]);
      high = middle;
    } else {
      ranges.push([low, middle]);
      low = middle;
    }
  }
  // The last range is a node of the old tree too; at the left edge it is all of it, whose root the reader knows.
  if (low > 0) {
    ranges.push([low, high]);
  }
  return ranges.reverse();
}

/** The largest power of two below `count`. */
function splitPoint(count: number): number {
  let split = 1;
  while (split * 2 < count) {
    split *= 2;
  }
  return split;
}

async function hashRanges(readTile: ReadTile, ranges: readonly Range[]): Promise<Uint8Array[]> {
  const read = cached(readTile);
  return Promise.all(
    ranges.map(async ([begin, end]) => {
      const nodes = await Promise.all(subtrees(begin, end).map((part) => subtreeHash(read, part)));
      return foldRight(nodes)!;
    }),
  );
}

async function subtreeHash(readTile: ReadTile, { start, width }: Subtree): Promise<Uint8Array> {
  const level = Math.floor(Math.log2(width) / TILE_HEIGHT);
  const count = width / TILE_WIDTH ** level;
  const first = start / TILE_WIDTH ** level;
  const n = Math.floor(first / TILE_WIDTH);
  const offset = first % TILE_WIDTH;
  const hashes = splitHashes(await readTile(level, n), offset + count, level, n).slice(offset);
  const range = CompactRange.empty();
  for (const hash of hashes) {
    range.append(hash);
  }
  return range.root();
}

/** Reads each tile once: the ranges of one proof share most of theirs. */
function cached(readTile: ReadTile): ReadTile {
  const tiles = new Map<string, Promise<Uint8Array>>();
  return (level, n) => {
    const key = `${level}/${n}`;
    let tile = tiles.get(key);
    if (tile === undefined) {
      tile = readTile(level, n);
      tiles.set(key, tile);
    }
    return tile;
  };
}
