/** Rule 2 of AUDIT-LOG 9.6: entries, tiles and root are one tree. */

import type { Checkpoint } from "./checkpoint.ts";
import { MAX_FINDINGS, type Findings } from "./findings.ts";
import { readBundleOf, readTileOf, type Found, type LogSource } from "./log-source.ts";
import { emptyRoot, equal, HASH_LENGTH, leafHash } from "./merkle.ts";
import { TILE_WIDTH, tilePath, TileTree, tileWidth, type TileUpdate } from "./tiles.ts";

/** Bundles and tiles that are read ahead: over a network waiting costs more than hashing. */
const READ_AHEAD = 8;

/** Entries of one bundle and the hashes of the tile below them. */
export interface Bundle {
  readonly n: number;
  readonly first: number;
  readonly width: number;
  readonly entriesPath: string;
  /** Fewer than `width` where entries are missing. */
  readonly leaves: readonly Uint8Array[];
  /** Octets or entries after the last that should be there. */
  readonly surplus: boolean;
  readonly tile: Found<Uint8Array>;
}

/** The bundles of a log of `size` entries, from the first. Nothing in them is checked. */
export async function* readBundles(source: LogSource, size: number): AsyncGenerator<Bundle> {
  const ahead: Promise<Bundle>[] = [];
  const count = Math.ceil(size / TILE_WIDTH);
  for (let n = 0; n < count; n++) {
    while (ahead.length < READ_AHEAD && n + ahead.length < count) {
      const bundle = readBundle(source, n + ahead.length, size);
      bundle.catch(() => {}); // it is awaited below, or nobody waits for it any more
      ahead.push(bundle);
    }
    yield await ahead.shift()!;
  }
}

async function readBundle(source: LogSource, n: number, size: number): Promise<Bundle> {
  const width = tileWidth("entries", n, size);
  const [entries, tile] = await Promise.all([
    readBundleOf(source, n, size),
    readTileOf(source, 0, n, size),
  ]);
  const { leaves, rest } = entries.content ?? { leaves: [], rest: 0 };
  return {
    n,
    first: n * TILE_WIDTH,
    width,
    entriesPath: entries.path,
    leaves: leaves.slice(0, width),
    surplus: leaves.length > width || (leaves.length === width && rest > 0),
    tile,
  };
}

/** A hash of a tile above the first level that is not what the tiles below it make. */
interface Difference {
  readonly position: string;
  readonly detail: string;
}

/**
 * Rule 2: the root recomputed from the entries, and every tile compared with it. Where an entry and its leaf hash in
 * the tile disagree, both trees are followed to their roots: the one that the checkpoint names tells which of the two
 * was changed.
 */
export class TreeCheck {
  readonly #source: LogSource;
  readonly #head: Checkpoint;
  readonly #findings: Findings;
  readonly #byEntries = TileTree.empty();
  #byTiles: TileTree | undefined;
  readonly #entryDifferences = new Set<number>();
  readonly #above = { entries: [] as Difference[], tiles: [] as Difference[] };
  readonly #growing = {
    entries: new Map<number, TileUpdate>(),
    tiles: new Map<number, TileUpdate>(),
  };
  readonly #marks: {
    size: number;
    check: (root: Uint8Array) => void;
    entries?: Uint8Array;
    tiles?: Uint8Array;
  }[] = [];
  #complete = true;
  #lost = false;

  constructor(source: LogSource, head: Checkpoint, findings: Findings) {
    this.#source = source;
    this.#head = head;
    this.#findings = findings;
  }

  /** Entries and leaf hashes of a bundle are both missing: what follows cannot be placed. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Asks for the root of the first `size` entries, which is given to `check` at the end. */
  rootAt(size: number, check: (root: Uint8Array) => void): void {
    this.#marks.push({ size, check });
  }

  async bundle({ n, first, width, entriesPath, leaves, surplus, tile }: Bundle): Promise<void> {
    const computed: (Uint8Array | undefined)[] = leaves.map(leafHash);
    if (leaves.length < width) {
      this.#complete = false;
      this.#findings.add(
        `entry ${first + leaves.length}`,
        `it is missing: ${entriesPath} has ${leaves.length} entries of ${width}`,
      );
    } else if (surplus) {
      this.#findings.add(entriesPath, `it goes on after its ${width} entries`);
    }
    const stored = this.#storedHashes(tile, width);
    const byEntries: Uint8Array[] = [];
    const byTiles: Uint8Array[] = [];
    const differing: number[] = [];
    for (let offset = 0; offset < width; offset++) {
      const fromEntry = computed[offset];
      const fromTile = stored[offset];
      const either = fromEntry ?? fromTile;
      if (either === undefined) {
        this.#lost = true;
        return;
      }
      if (fromEntry !== undefined && fromTile !== undefined && !equal(fromEntry, fromTile)) {
        differing.push(first + offset);
      }
      byEntries.push(either);
      byTiles.push(fromTile ?? either);
    }
    if (differing.length > 0 && this.#byTiles === undefined) {
      this.#byTiles = TileTree.empty();
      this.#byTiles.restore(this.#byEntries.snapshot());
      for (const [level, update] of this.#growing.entries) {
        this.#growing.tiles.set(level, update);
      }
      this.#above.tiles.push(...this.#above.entries);
      for (const mark of this.#marks) {
        if (mark.entries !== undefined) mark.tiles = mark.entries;
      }
    }
    for (const index of differing) {
      if (this.#entryDifferences.size < 2 * MAX_FINDINGS) this.#entryDifferences.add(index);
    }
    await this.#grow(this.#byEntries, byEntries, "entries", n);
    if (this.#byTiles !== undefined) {
      await this.#grow(this.#byTiles, byTiles, "tiles", n);
    }
  }

  async finish(): Promise<void> {
    if (this.#lost) {
      return;
    }
    await this.#compareGrowing("entries");
    if (this.#byTiles !== undefined) {
      await this.#compareGrowing("tiles");
    }
    const { root, size } = this.#head;
    const entriesLead = equal(this.#byEntries.root(), root);
    const tilesLead = this.#byTiles !== undefined && equal(this.#byTiles.root(), root);
    for (const index of this.#entryDifferences) {
      const offset = index % TILE_WIDTH;
      const n = Math.floor(index / TILE_WIDTH);
      const path = tilePath(0, n, tileWidth(0, n, size));
      if (entriesLead) {
        this.#findings.add(
          `${path} hash ${offset}`,
          `it is not the leaf hash of entry ${index}, which is as signed`,
        );
      } else if (tilesLead) {
        this.#findings.add(
          `entry ${index}`,
          `it was changed: the signed tree has another leaf there, as ${path} has`,
        );
      } else {
        this.#findings.add(
          `entry ${index}`,
          `its leaf hash is not hash ${offset} of ${path}, and neither is as signed`,
        );
      }
    }
    if (!entriesLead && !tilesLead) {
      const found = this.#complete
        ? "the entries have another root"
        : "the entries and tiles that are left have another root";
      this.#findings.add(
        "checkpoint",
        `${found} than the checkpoint: ${base64(this.#byEntries.root())}, not ${base64(root)}`,
      );
    }
    for (const { position, detail } of this.#above[tilesLead ? "tiles" : "entries"]) {
      this.#findings.add(position, detail);
    }
    for (const mark of this.#marks) {
      const found = mark.size === 0 ? emptyRoot : tilesLead ? mark.tiles : mark.entries;
      if (found !== undefined) mark.check(found);
    }
  }

  /** Adds the hashes of bundle `n`, stopping where a root was asked for. */
  async #grow(
    tree: TileTree,
    hashes: readonly Uint8Array[],
    which: "entries" | "tiles",
    n: number,
  ): Promise<void> {
    const begin = n * TILE_WIDTH;
    const stops = new Set([begin + hashes.length]);
    for (const { size } of this.#marks) {
      if (size > begin && size < begin + hashes.length) stops.add(size);
    }
    for (const stop of [...stops].sort((a, b) => a - b)) {
      for (const update of tree.append(hashes.slice(tree.size - begin, stop - begin))) {
        if (update.level === 0) continue;
        if (update.hashes.length === TILE_WIDTH * HASH_LENGTH) {
          this.#growing[which].delete(update.level);
          await this.#compare(update, which);
        } else {
          this.#growing[which].set(update.level, update);
        }
      }
      for (const mark of this.#marks) {
        if (mark.size === stop) mark[which] = tree.root();
      }
    }
  }

  async #compareGrowing(which: "entries" | "tiles"): Promise<void> {
    for (const update of this.#growing[which].values()) {
      await this.#compare(update, which);
    }
  }

  async #compare({ level, n, hashes }: TileUpdate, which: "entries" | "tiles"): Promise<void> {
    const tile = await readTileOf(this.#source, level, n, this.#head.size);
    const differences = this.#above[which];
    if (tile.content === undefined || tile.content.length !== hashes.length) {
      differences.push({
        position: tile.path,
        detail: lengthProblem(tile.content, hashes.length / HASH_LENGTH),
      });
    }
    for (const [offset, stored] of hashesOf(tile.content).entries()) {
      const computed = hashes.subarray(offset * HASH_LENGTH, (offset + 1) * HASH_LENGTH);
      if (computed.length > 0 && !equal(stored, computed)) {
        const below = tilePath(level - 1, n * TILE_WIDTH + offset);
        differences.push({
          position: `${tile.path} hash ${offset}`,
          detail: `it is not the hash of ${below}`,
        });
      }
    }
  }

  #storedHashes({ path, content }: Found<Uint8Array>, width: number): Uint8Array[] {
    if (content === undefined || content.length !== width * HASH_LENGTH) {
      this.#findings.add(path, lengthProblem(content, width));
    }
    return hashesOf(content).slice(0, width);
  }
}

function lengthProblem(content: Uint8Array | undefined, width: number): string {
  return content === undefined
    ? "it is missing"
    : `it has ${content.length} octets, and ${width} hashes have ${width * HASH_LENGTH}`;
}

/** Whole hashes only. */
function hashesOf(content: Uint8Array | undefined): Uint8Array[] {
  const count = Math.floor((content?.length ?? 0) / HASH_LENGTH);
  return Array.from({ length: count }, (_, index) =>
    content!.subarray(index * HASH_LENGTH, (index + 1) * HASH_LENGTH),
  );
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}
