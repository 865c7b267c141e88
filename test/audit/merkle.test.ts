import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import {
  CompactRange,
  emptyRoot,
  leafHash,
  nodeHash,
  subtrees,
  verifyConsistency,
  verifyInclusion,
} from "../../src/audit/merkle.ts";

const leaves = Array.from({ length: 80 }, (_, index) => leafHash(Buffer.from(`leaf ${index}`)));

/** MTH of RFC 6962 §2.1, word by word. */
function treeHash(hashes: readonly Uint8Array[]): Uint8Array {
  if (hashes.length === 0) return createHash("sha256").digest();
  if (hashes.length === 1) return hashes[0]!;
  let split = 1;
  while (split * 2 < hashes.length) split *= 2;
  return createHash("sha256")
    .update(Uint8Array.of(1))
    .update(treeHash(hashes.slice(0, split)))
    .update(treeHash(hashes.slice(split)))
    .digest();
}

/** PATH of RFC 6962 §2.1.1. */
function path(index: number, hashes: readonly Uint8Array[]): Uint8Array[] {
  if (hashes.length <= 1) return [];
  let split = 1;
  while (split * 2 < hashes.length) split *= 2;
  return index < split
    ? [...path(index, hashes.slice(0, split)), treeHash(hashes.slice(split))]
    : [...path(index - split, hashes.slice(split)), treeHash(hashes.slice(0, split))];
}

/** PROOF and SUBPROOF of RFC 6962 §2.1.2. */
function consistency(oldSize: number, hashes: readonly Uint8Array[], whole = true): Uint8Array[] {
  if (oldSize === hashes.length) return whole ? [] : [treeHash(hashes)];
  let split = 1;
  while (split * 2 < hashes.length) split *= 2;
  return oldSize <= split
    ? [...consistency(oldSize, hashes.slice(0, split), whole), treeHash(hashes.slice(split))]
    : [
        ...consistency(oldSize - split, hashes.slice(split), false),
        treeHash(hashes.slice(0, split)),
      ];
}

function rangeOf(begin: number, end: number): CompactRange {
  const range = CompactRange.empty(begin);
  for (let index = begin; index < end; index++) range.append(leaves[index]!);
  return range;
}

test("RFC 6962 §2.1: leaves, nodes and the empty tree", () => {
  const sha256 = (...parts: Uint8Array[]): Buffer =>
    createHash("sha256").update(Buffer.concat(parts)).digest();
  expect(Buffer.from(emptyRoot).toString("base64")).toBe(
    "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
  );
  for (const length of [0, 1, 65_534, 65_535, 65_536, 100_000]) {
    const leaf = Buffer.alloc(length, 7);
    expect(leafHash(leaf)).toEqual(sha256(Uint8Array.of(0), leaf));
  }
  expect(nodeHash(leaves[0]!, leaves[1]!)).toEqual(
    sha256(Uint8Array.of(1), leaves[0]!, leaves[1]!),
  );
  expect(() => nodeHash(leaves[0]!, leaves[1]!.subarray(1))).toThrow(RangeError);
});

test("a range from 0 has the root of RFC 6962 at every size up to 80", () => {
  const range = CompactRange.empty();
  expect(range.root()).toEqual(treeHash([]));
  for (const [index, leaf] of leaves.entries()) {
    range.append(leaf);
    expect(range.root()).toEqual(treeHash(leaves.slice(0, index + 1)));
  }
});

test("nodes are the canonical decomposition, for every range up to 40", () => {
  for (let begin = 0; begin <= 40; begin++) {
    for (let end = begin; end <= 40; end++) {
      const range = rangeOf(begin, end);
      const parts = subtrees(begin, end);
      expect(range.nodes).toEqual(
        parts.map(({ start, width }) => treeHash(leaves.slice(start, start + width))),
      );
      for (const { start, width } of parts) expect(start % width).toBe(0);
      expect(CompactRange.of(begin, end, range.nodes).nodes).toEqual(range.nodes);
    }
  }
});

test("two ranges that meet merge into the canonical range of both, for all a ≤ b ≤ c up to 40", () => {
  const ranges = new Map<string, CompactRange>();
  for (let begin = 0; begin <= 40; begin++) {
    for (let end = begin; end <= 40; end++) ranges.set(`${begin}-${end}`, rangeOf(begin, end));
  }
  for (let a = 0; a <= 40; a++) {
    for (let b = a; b <= 40; b++) {
      for (let c = b; c <= 40; c++) {
        const merged = ranges.get(`${a}-${b}`)!.clone();
        const next = ranges.get(`${b}-${c}`)!;
        merged.merge(next);
        const want = ranges.get(`${a}-${c}`)!;
        if (
          merged.end !== c ||
          Buffer.compare(Buffer.concat(merged.nodes), Buffer.concat(want.nodes)) !== 0
        ) {
          throw new Error(`[${a}, ${b}) with [${b}, ${c})`);
        }
        expect(next.begin).toBe(b);
      }
    }
  }
});

test("a clone grows by itself", () => {
  const range = rangeOf(0, 5);
  const clone = range.clone();
  clone.append(leaves[5]!);
  expect([range.end, clone.end]).toEqual([5, 6]);
  expect(range.root()).toEqual(treeHash(leaves.slice(0, 5)));
});

test("a range with the wrong nodes is refused", () => {
  const { nodes } = rangeOf(3, 11);
  expect(() => CompactRange.of(3, 12, nodes)).toThrow(RangeError);
  expect(() => CompactRange.of(3, 11, nodes.slice(1))).toThrow(RangeError);
  expect(() => CompactRange.of(3, 11, [...nodes.slice(1), new Uint8Array(31)])).toThrow(RangeError);
  expect(() => CompactRange.of(11, 3, [])).toThrow(RangeError);
  expect(() => CompactRange.of(0.5, 0.5, [])).toThrow(RangeError);
  expect(() => rangeOf(3, 11).merge(rangeOf(12, 13))).toThrow(RangeError);
  expect(() => rangeOf(3, 11).root()).toThrow(RangeError);
});

test("a range far to the right keeps its arithmetic", () => {
  const begin = 2 ** 50 - 3;
  const range = CompactRange.empty(begin);
  for (const leaf of leaves.slice(0, 7)) range.append(leaf);
  expect(subtrees(begin, begin + 7).map(({ width }) => width)).toEqual([1, 2, 4]);
  expect(range.nodes).toEqual([
    leaves[0],
    treeHash(leaves.slice(1, 3)),
    treeHash(leaves.slice(3, 7)),
  ]);
});

test("RFC 9162 §2.1.3.2: inclusion verifies for every leaf of every tree up to 70, and only for it", () => {
  for (let size = 1; size <= 70; size++) {
    const root = treeHash(leaves.slice(0, size));
    for (let index = 0; index < size; index++) {
      const proof = path(index, leaves.slice(0, size));
      const claim = { leafHash: leaves[index]!, index, size, root, proof };
      expect(verifyInclusion(claim)).toBe(true);
      expect(verifyInclusion({ ...claim, leafHash: leaves[index + 1]! })).toBe(false);
      expect(verifyInclusion({ ...claim, proof: [...proof, root] })).toBe(false);
      expect(verifyInclusion({ ...claim, root: leaves[79]! })).toBe(false);
      if (size > 1) {
        expect(verifyInclusion({ ...claim, proof: proof.slice(1) })).toBe(false);
        expect(verifyInclusion({ ...claim, index: (index + 1) % size })).toBe(false);
      }
      expect(verifyInclusion({ ...claim, index: size })).toBe(false);
    }
  }
});

test("RFC 9162 §2.1.4.2: consistency verifies for every pair of trees up to 70, and only for it", () => {
  const roots = leaves.map((_, size) => treeHash(leaves.slice(0, size)));
  for (let size = 0; size <= 70; size++) {
    for (let oldSize = 0; oldSize <= size; oldSize++) {
      const proof = oldSize === 0 ? [] : consistency(oldSize, leaves.slice(0, size));
      const claim = { oldSize, oldRoot: roots[oldSize]!, size, root: roots[size]!, proof };
      expect(verifyConsistency(claim)).toBe(true);
      expect(verifyConsistency({ ...claim, proof: [...proof, leaves[0]!] })).toBe(false);
      expect(verifyConsistency({ ...claim, oldRoot: leaves[79]! })).toBe(false);
      if (proof.length > 0) {
        expect(verifyConsistency({ ...claim, root: leaves[79]! })).toBe(false);
        expect(verifyConsistency({ ...claim, proof: proof.slice(0, -1) })).toBe(false);
        expect(verifyConsistency({ ...claim, oldSize: oldSize - 1 })).toBe(false);
      }
      expect(verifyConsistency({ ...claim, oldSize: size + 1 })).toBe(false);
    }
  }
});
