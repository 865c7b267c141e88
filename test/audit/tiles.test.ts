import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import {
  CompactRange,
  leafHash,
  verifyConsistency,
  verifyInclusion,
} from "../../src/audit/merkle.ts";
import {
  consistencyProof,
  decodeEntryBundle,
  encodeEntryBundle,
  inclusionProof,
  parseTilePath,
  rangeNodes,
  tilePath,
  tilesOf,
  TileTree,
  tileWidth,
} from "../../src/audit/tiles.ts";
import { MemoryLog } from "../support/log.ts";

const { tileIndexes } = JSON.parse(
  readFileSync(new URL("../vectors/audit-log.json", import.meta.url), "utf8"),
) as { tileIndexes: [number, string][] };

const leafAt = (index: number): Uint8Array => Buffer.from(`{"a":${index}}`);
const leaves = (from: number, to: number): Uint8Array[] =>
  Array.from({ length: to - from }, (_, offset) => leafAt(from + offset));

function logOf(batches: readonly number[]): MemoryLog {
  const log = new MemoryLog();
  for (const size of batches) log.append(leaves(log.tree.size, log.tree.size + size));
  return log;
}

/** Numbers that look random and are the same in every run. */
function* pseudoRandom(seed: number): Generator<number> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    yield state >>> 8;
  }
}

test.for(tileIndexes)("CUSTODY 14: tile index %i is %s", ([n, path]) => {
  expect(tilePath(0, n)).toBe(`tile/0/${path}`);
  expect(tilePath("entries", n, 7)).toBe(`tile/entries/${path}.p/7`);
  expect(parseTilePath(`tile/63/${path}`)).toEqual({ level: 63, n, width: 256 });
  expect(parseTilePath(`tile/entries/${path}.p/255`)).toEqual({ level: "entries", n, width: 255 });
});

test.for([
  "tile/0/0",
  "tile/0/0000",
  "tile/0/x000/001",
  "tile/0/001/002",
  "tile/0/x001/x002",
  "tile/00/000",
  "tile/64/000",
  "tile/0/000.p/0",
  "tile/0/000.p/256",
  "tile/0/000.p/01",
  "tile/0/000.p/",
  "tile/data/000",
  "tile/8/0/000",
  "tile/0/x999/x999/x999/x999/x999/999",
  "/tile/0/000",
  "tile/0/000/",
  "tile/0/../000",
  "checkpoint",
  "",
])("C2SP tlog-tiles: %s is not a path", (path) => {
  expect(parseTilePath(path)).toBeUndefined();
});

test("C2SP tlog-tiles: the tiles of a tree of 70,000", () => {
  const tiles = [...tilesOf(70_000)];
  const count = (level: number): number => tiles.filter((tile) => tile.level === level).length;
  expect([count(0), count(1), count(2), tiles.length]).toEqual([274, 2, 1, 277]);
  expect([tileWidth(0, 273, 70_000), tileWidth(1, 1, 70_000), tileWidth(2, 0, 70_000)]).toEqual([
    112, 17, 1,
  ]);
  expect([...tilesOf(256)]).toEqual([
    { level: 0, n: 0, width: 256 },
    { level: 1, n: 0, width: 1 },
  ]);
  expect([...tilesOf(0)]).toEqual([]);
});

test("entry bundles: 16-bit lengths, and what is cut off is counted", () => {
  const entries = [Buffer.alloc(0), Buffer.alloc(65_535, 1), Buffer.from("x")];
  const bundle = encodeEntryBundle(entries);
  expect(decodeEntryBundle(bundle)).toEqual({ leaves: entries, rest: 0 });
  expect(decodeEntryBundle(bundle.subarray(0, -1))).toEqual({
    leaves: entries.slice(0, 2),
    rest: 2,
  });
  expect(() => encodeEntryBundle([Buffer.alloc(65_536)])).toThrow(RangeError);
});

test("ST-79: any batches of 100 entries give the same root, tiles and proofs", async () => {
  const single = logOf(Array.from({ length: 100 }, () => 1));
  const random = pseudoRandom(1);
  for (let round = 0; round < 20; round++) {
    const batches: number[] = [];
    for (let left = 100; left > 0; left -= batches.at(-1)!) {
      batches.push(Math.min(left, (random.next().value % 30) + 1));
    }
    const log = logOf(batches);
    expect(log.tree.root()).toEqual(single.tree.root());
    expect(log.tiles).toEqual(single.tiles);
    for (let index = 0; index < 100; index++) {
      const proof = await inclusionProof(log.readTile, index, 100);
      expect(
        verifyInclusion({
          leafHash: leafHash(leafAt(index)),
          index,
          size: 100,
          root: log.tree.root(),
          proof,
        }),
      ).toBe(true);
    }
  }
});

test("any batches of 70,000 entries give the same tiles as one by one, and each touched tile once a batch", () => {
  const hashes = leaves(0, 70_000).map(leafHash);
  const single = TileTree.empty();
  const want = new Map<string, Uint8Array>();
  for (const hash of hashes) {
    for (const { level, n, hashes: row } of single.append([hash])) want.set(`${level}/${n}`, row);
  }
  const random = pseudoRandom(2);
  for (const largest of [64, 1000, 70_000]) {
    const tree = TileTree.empty();
    const rows = new Map<string, Uint8Array>();
    while (tree.size < hashes.length) {
      const updates = tree.append(
        hashes.slice(tree.size, tree.size + 1 + (random.next().value % largest)),
      );
      const keys = updates.map(({ level, n }) => `${level}/${n}`);
      expect(new Set(keys).size).toBe(keys.length);
      for (const { level, n, hashes: row } of updates) rows.set(`${level}/${n}`, row);
    }
    expect(tree.root()).toEqual(single.root());
    expect(rows.size).toBe([...tilesOf(70_000)].length);
    for (const [key, row] of rows) expect(Buffer.compare(row, want.get(key)!)).toBe(0);
  }
});

test("the root and range of the tiles are those of the tree", () => {
  const tree = TileTree.empty();
  const range = CompactRange.empty();
  expect(tree.root()).toEqual(range.root());
  for (let index = 0; index < 1000; index++) {
    const hash = leafHash(leafAt(index));
    tree.append([hash]);
    range.append(hash);
    expect(tree.root()).toEqual(range.root());
  }
  expect(tree.range().nodes).toEqual(range.nodes);
});

test.for([0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000])(
  "a tree of %i entries goes on from its stored tiles",
  async (size) => {
    const log = logOf([size]);
    const resumed = await TileTree.resume(size, log.readTile);
    expect(resumed.root()).toEqual(log.tree.root());
    expect(Buffer.concat(resumed.range().nodes)).toEqual(Buffer.concat(log.tree.range().nodes));
    const more = leaves(size, size + 300).map(leafHash);
    expect(resumed.append(more)).toEqual(log.tree.append(more));
    expect(resumed.root()).toEqual(log.tree.root());
  },
);

test("a tree goes on from a size that its tiles have passed, and not from one they have not reached", async () => {
  const log = logOf([600]);
  expect((await TileTree.resume(590, log.readTile)).root()).toEqual(logOf([590]).tree.root());
  await expect(TileTree.resume(601, log.readTile)).rejects.toThrow(
    /tile\/0\/002 has 88 hashes, the tree needs 89/,
  );
});

test("what is appended after a snapshot is forgotten, as often as it takes", () => {
  const log = logOf([500]);
  const snapshot = log.tree.snapshot();
  const root = log.tree.root();
  const first = log.tree.append(leaves(9_000, 9_700).map(leafHash));
  const kept = structuredClone(first);
  for (const size of [1, 300, 700]) {
    log.tree.restore(snapshot);
    expect([log.tree.size, log.tree.root()]).toEqual([500, root]);
    const fresh = logOf([500]);
    const more = leaves(500, 500 + size).map(leafHash);
    expect(log.tree.append(more)).toEqual(fresh.tree.append(more));
    expect(log.tree.root()).toEqual(fresh.tree.root());
  }
  // Rows that were handed out belong to whoever stores them.
  expect(first).toEqual(kept);
});

test("inclusion and consistency proofs from tiles verify for every size up to 70", async () => {
  const roots: Uint8Array[] = [];
  for (let size = 0; size <= 70; size++) roots.push(logOf([size]).tree.root());
  // One set of tiles, wider than most of the trees asked about.
  const log = logOf([70]);
  for (let size = 0; size <= 70; size++) {
    for (let index = 0; index < size; index++) {
      const proof = await inclusionProof(log.readTile, index, size);
      const hash = leafHash(leafAt(index));
      expect(verifyInclusion({ leafHash: hash, index, size, root: roots[size]!, proof })).toBe(
        true,
      );
    }
    for (let oldSize = 0; oldSize <= size; oldSize++) {
      const proof = await consistencyProof(log.readTile, oldSize, size);
      expect(
        verifyConsistency({ oldSize, oldRoot: roots[oldSize]!, size, root: roots[size]!, proof }),
      ).toBe(true);
    }
  }
});

test("proofs across tiles of three levels verify, with at most 17 hashes", async () => {
  const log = logOf([70_000]);
  const random = pseudoRandom(3);
  const indexes = [0, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999];
  for (let round = 0; round < 30; round++) indexes.push(random.next().value % 70_000);
  for (const index of indexes) {
    const proof = await inclusionProof(log.readTile, index, 70_000);
    const hash = leafHash(leafAt(index));
    expect(proof.length).toBeLessThanOrEqual(17);
    expect(
      verifyInclusion({ leafHash: hash, index, size: 70_000, root: log.tree.root(), proof }),
    ).toBe(true);
    const oldRoot = (await TileTree.resume(index, log.readTile)).root();
    const consistent = await consistencyProof(log.readTile, index, 70_000);
    expect(
      verifyConsistency({
        oldSize: index,
        oldRoot,
        size: 70_000,
        root: log.tree.root(),
        proof: consistent,
      }),
    ).toBe(true);
  }
});

test("a head is extended by the nodes of the leaves after it", async () => {
  const log = logOf([70_000]);
  for (const seen of [0, 1, 255, 300, 65_536, 66_001, 69_999, 70_000]) {
    const head = (await TileTree.resume(seen, log.readTile)).range();
    head.merge(CompactRange.of(seen, 70_000, await rangeNodes(log.readTile, seen, 70_000)));
    expect(head.root()).toEqual(log.tree.root());
  }
});

test("proofs of what is not there are refused", async () => {
  const log = logOf([10]);
  await expect(inclusionProof(log.readTile, 10, 10)).rejects.toThrow(RangeError);
  await expect(inclusionProof(log.readTile, 0, 11)).rejects.toThrow(RangeError);
  await expect(consistencyProof(log.readTile, 11, 10)).rejects.toThrow(RangeError);
});
