/** The Merkle tree of the log: RFC 6962 §2.1, identical in RFC 9162 §2.1. Hashes are 32 octets of SHA-256. */

import { hash } from "node:crypto";

/** Octets of a hash. */
export const HASH_LENGTH = 32;

/** The root of the tree without leaves: SHA-256 of nothing. */
export const emptyRoot: Uint8Array = hash("sha256", new Uint8Array(0), "buffer");

// One-shot hashing of one buffer is the fastest that Node has; both inputs are put together here.
const leafInput = new Uint8Array(1 + 65_535);
const nodeInput = new Uint8Array(1 + 2 * HASH_LENGTH).fill(0x01, 0, 1);

/** `SHA-256(0x00 ‖ leaf)`. */
export function leafHash(leaf: Uint8Array): Uint8Array {
  if (leaf.length < leafInput.length) {
    leafInput.set(leaf, 1);
    return hash("sha256", leafInput.subarray(0, 1 + leaf.length), "buffer");
  }
  return hash("sha256", Buffer.concat([leafInput.subarray(0, 1), leaf]), "buffer");
}

/** `SHA-256(0x01 ‖ left ‖ right)`. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  if (left.length !== HASH_LENGTH || right.length !== HASH_LENGTH) {
    throw new RangeError("a node is the hash of two hashes of 32 octets");
  }
  nodeInput.set(left, 1);
  nodeInput.set(right, 1 + HASH_LENGTH);
  return hash("sha256", nodeInput, "buffer");
}

/**
 * The hashes of a run of leaves `[begin, end)`, as few as can stand for it: the perfect subtrees of the canonical
 * decomposition, left to right, at most two of each height. Two runs that meet merge into the run of both, so a tree
 * can be extended by leaves one has, or by the decomposition of leaves one has never seen.
 */
export class CompactRange {
  readonly begin: number;
  #end: number;
  readonly #nodes: Uint8Array[];

  private constructor(begin: number, end: number, nodes: Uint8Array[]) {
    this.begin = begin;
    this.#end = end;
    this.#nodes = nodes;
  }

  /** A run without leaves that begins, and for now ends, at leaf `begin`. */
  static empty(begin = 0): CompactRange {
    return CompactRange.of(begin, begin, []);
  }

  /**
   * The run with these nodes.
   *
   * @throws RangeError if `begin` and `end` are not indexes in order, or call for another number of nodes, or a node
   *   is not 32 octets long.
   */
  static of(begin: number, end: number, nodes: readonly Uint8Array[]): CompactRange {
    if (!isIndex(begin) || !isIndex(end) || begin > end) {
      throw new RangeError(`[${begin}, ${end}) is not a range of leaves`);
    }
    const count = subtrees(begin, end).length;
    if (nodes.length !== count) {
      throw new RangeError(`[${begin}, ${end}) has ${count} nodes, got ${nodes.length}`);
    }
    if (nodes.some((node) => node.length !== HASH_LENGTH)) {
      throw new RangeError("a node is 32 octets long");
    }
    return new CompactRange(begin, end, [...nodes]);
  }

  get end(): number {
    return this.#end;
  }

  /** Left to right; see {@link subtrees} for the leaves under each. */
  get nodes(): readonly Uint8Array[] {
    return this.#nodes;
  }

  /** A range of its own: appending to one does not change the other. */
  clone(): CompactRange {
    return new CompactRange(this.begin, this.#end, [...this.#nodes]);
  }

  /** Adds the leaf at `end`. One node hash on average. */
  append(leaf: Uint8Array): void {
    this.#push(leaf, 1);
  }

  /**
   * Adds the leaves of a range that begins where this one ends. `next` is not changed.
   *
   * @throws RangeError if it begins elsewhere.
   */
  merge(next: CompactRange): void {
    if (next.begin !== this.#end) {
      throw new RangeError(
        `a range that ends at ${this.#end} does not meet one that begins at ${next.begin}`,
      );
    }
    const parts = subtrees(next.begin, next.end);
    for (const [index, node] of next.nodes.entries()) {
      this.#push(node, parts[index]!.width);
    }
  }

  /**
   * The root of the tree with the leaves `[0, end)`.
   *
   * @throws RangeError if the range does not begin at 0.
   */
  root(): Uint8Array {
    if (this.begin !== 0) {
      throw new RangeError(`a range that begins at ${this.begin} has no root`);
    }
    return foldRight(this.#nodes) ?? emptyRoot;
  }

  /** Adds a perfect subtree of `width` leaves, aligned to its width, at `end`. */
  #push(node: Uint8Array, width: number): void {
    // A right child whose sibling is in the range becomes its parent. The sibling is then the last node: it ends
    // where this node begins, and nothing wider could end there without holding this node.
    let start = this.#end;
    let hashed = node;
    this.#end = start + width;
    for (let span = width; (start / span) % 2 === 1 && start - span >= this.begin; span *= 2) {
      hashed = nodeHash(this.#nodes.pop()!, hashed);
      start -= span;
    }
    this.#nodes.push(hashed);
  }
}

/** A perfect subtree: `width` leaves, a power of two, from `start`, a multiple of it. */
export interface Subtree {
  readonly start: number;
  readonly width: number;
}

/** The canonical decomposition of `[begin, end)`: from the left, always the widest perfect subtree that fits. */
export function subtrees(begin: number, end: number): Subtree[] {
  const parts: Subtree[] = [];
  for (let start = begin; start < end;) {
    let width = 1;
    while (start % (2 * width) === 0 && start + 2 * width <= end) {
      width *= 2;
    }
    parts.push({ start, width });
    start += width;
  }
  return parts;
}

/** The hash over perfect subtrees that shrink from left to right: what RFC 6962 §2.1 calls MTH of their leaves. */
export function foldRight(nodes: readonly Uint8Array[]): Uint8Array | undefined {
  let folded = nodes.at(-1);
  for (let index = nodes.length - 2; index >= 0; index--) {
    folded = nodeHash(nodes[index]!, folded!);
  }
  return folded;
}

/** An audit path: RFC 9162 §2.1.3. `leafHash` is the hash of the leaf, `proof` runs from its sibling upwards. */
export interface InclusionProof {
  readonly leafHash: Uint8Array;
  readonly index: number;
  readonly size: number;
  readonly root: Uint8Array;
  readonly proof: readonly Uint8Array[];
}

/** Whether the leaf stands at `index` of the tree of `size` leaves with this root: RFC 9162 §2.1.3.2. */
export function verifyInclusion({ leafHash, index, size, root, proof }: InclusionProof): boolean {
  if (
    !isIndex(index) ||
    !isIndex(size) ||
    index >= size ||
    !allHashes([leafHash, root, ...proof])
  ) {
    return false;
  }
  let node = index;
  let last = size - 1;
  let hashed = leafHash;
  for (const sibling of proof) {
    if (last === 0) {
      return false;
    }
    if (node % 2 === 1 || node === last) {
      hashed = nodeHash(sibling, hashed);
      while (node % 2 === 0 && node !== 0) {
        node /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      hashed = nodeHash(hashed, sibling);
    }
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && equal(hashed, root);
}

/** A consistency proof: RFC 9162 §2.1.4. */
export interface ConsistencyProof {
  readonly oldSize: number;
  readonly oldRoot: Uint8Array;
  readonly size: number;
  readonly root: Uint8Array;
  readonly proof: readonly Uint8Array[];
}

/**
 * Whether the tree of `size` leaves begins with the tree of `oldSize` leaves: RFC 9162 §2.1.4.2. The empty tree is a
 * beginning of every tree, and needs no proof; so is a tree of itself.
 */
export function verifyConsistency({
  oldSize,
  oldRoot,
  size,
  root,
  proof,
}: ConsistencyProof): boolean {
  if (
    !isIndex(oldSize) ||
    !isIndex(size) ||
    oldSize > size ||
    !allHashes([oldRoot, root, ...proof])
  ) {
    return false;
  }
  if (oldSize === 0) {
    return proof.length === 0 && equal(oldRoot, emptyRoot) && (size > 0 || equal(root, emptyRoot));
  }
  if (oldSize === size) {
    return proof.length === 0 && equal(oldRoot, root);
  }
  let node = oldSize - 1;
  let last = size - 1;
  while (node % 2 === 1) {
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  // A size that is a power of two is itself a node of the new tree, and the proof leaves it out.
  const path = node === 0 ? [oldRoot, ...proof] : proof;
  let oldHashed = path[0];
  let hashed = path[0];
  if (oldHashed === undefined || hashed === undefined) {
    return false;
  }
  for (const sibling of path.slice(1)) {
    if (last === 0) {
      return false;
    }
    if (node % 2 === 1 || node === last) {
      oldHashed = nodeHash(sibling, oldHashed);
      hashed = nodeHash(sibling, hashed);
      while (node % 2 === 0 && node !== 0) {
        node /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      hashed = nodeHash(hashed, sibling);
    }
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && equal(oldHashed, oldRoot) && equal(hashed, root);
}

/** Whether two hashes are the same. Nothing here is secret, so the time it takes does not matter. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function isIndex(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function allHashes(hashes: readonly Uint8Array[]): boolean {
  return hashes.every((value) => value.length === HASH_LENGTH);
}
