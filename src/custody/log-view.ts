/** A signer's own view of the log: the head it saw last, and the leaves it may still sign for. */

import { openCheckpoint } from "../audit/checkpoint.ts";
import { CompactRange, equal, HASH_LENGTH, subtrees } from "../audit/merkle.ts";
import { parseVerifierKey } from "../audit/signed-note.ts";
import { CountersignError } from "../errors.ts";
import type { BodyCutter } from "./sign-batch.ts";
import { EXTENSION_LEAVES_LIMIT, type Extension } from "./signer-protocol.ts";

/** From the head seen last to a newer one; the layout is told in signer-protocol.ts. */
export interface LogExtension {
  readonly from: number;
  readonly first: number;
  readonly size: number;
  readonly note: string;
  readonly nodes: readonly Uint8Array[];
  readonly leaves: readonly Uint8Array[];
}

export interface LogView {
  readonly size: number;
  /**
   * Moves on to a newer head.
   *
   * @throws CountersignError `grant-mismatch` if it does not extend the one seen last, or the log's key did not
   *   sign it. Nothing has changed then.
   */
  extend(extension: LogExtension): void;
  /** Whether this leaf stands at the index and was not spent before; it is now. */
  spend(index: number, leafHash: Uint8Array): boolean;
}

/**
 * @param logKey - verifier key of the log.
 * @param head - checkpoint and right edge to begin with; undefined: a log without entries.
 * @throws CountersignError `signature-invalid` if the edge is not that of the checkpoint.
 */
export function openLogView(
  logKey: string,
  head: { note: string; nodes: readonly Uint8Array[] } | undefined,
): LogView {
  const key = parseVerifierKey(logKey);
  let range = CompactRange.empty();
  if (head !== undefined) {
    const checkpoint = openCheckpoint(head.note, key);
    range = CompactRange.of(0, checkpoint.size, head.nodes);
    if (!equal(range.root(), checkpoint.root)) {
      throw new CountersignError("signature-invalid", "the edge of the log has another root");
    }
  }
  const unspent = new Map<number, Uint8Array>(); // in the order of the log

  return {
    get size() {
      return range.end;
    },
    extend({ from, first, size, note, nodes, leaves }) {
      if (from !== range.end) {
        throw mismatch(`a head of the log that goes on from ${from}, not from ${range.end}`);
      }
      const extended = range.clone();
      try {
        extended.merge(CompactRange.of(from, first, nodes));
        for (const leaf of leaves) extended.append(leaf);
        const checkpoint = openCheckpoint(note, key);
        if (checkpoint.size !== size || extended.end !== size) {
          throw mismatch("a checkpoint of another size");
        }
        if (!equal(checkpoint.root, extended.root())) {
          throw mismatch("a head of the log that does not extend the one seen last");
        }
      } catch (error) {
        if (error instanceof CountersignError && error.code === "grant-mismatch") throw error;
        throw mismatch("a head of the log that the log's key did not sign", error);
      }
      range = extended;
      // Copies: the pieces of a frame would keep the whole of it.
      for (const [offset, leaf] of leaves.entries()) unspent.set(first + offset, leaf.slice());
      for (const index of unspent.keys()) {
        if (unspent.size <= EXTENSION_LEAVES_LIMIT) break;
        unspent.delete(index);
      }
    },
    spend(index, leafHash) {
      const known = unspent.get(index);
      if (known === undefined || !equal(known, leafHash)) return false;
      unspent.delete(index);
      return true;
    },
  };
}

/** Cuts the hashes of an extension out of a body. @throws RangeError if they cannot be there. */
export function readExtension(header: Extension, cutter: BodyCutter): LogExtension | undefined {
  if (header === null) return undefined;
  const { from, first, size } = header;
  if (from > first || first > size || size - first > EXTENSION_LEAVES_LIMIT) {
    throw new RangeError(`an extension from ${from} by way of ${first} to ${size}`);
  }
  const hashes = (count: number): Uint8Array[] =>
    Array.from({ length: count }, () => cutter.take(HASH_LENGTH));
  const nodes = hashes(subtrees(from, first).length);
  return { ...header, nodes, leaves: hashes(size - first) };
}

function mismatch(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("grant-mismatch", `the signer was shown ${detail}`, { cause });
}
