/** C2SP tlog-proof: one record, its path and a checkpoint in one text that can be checked offline. */

import { CountersignError } from "../errors.ts";
import { openCheckpoint, type Checkpoint } from "./checkpoint.ts";
import { HASH_LENGTH, leafHash, verifyInclusion } from "./merkle.ts";
import type { VerifierKey } from "./signed-note.ts";

const FIRST_LINE = "c2sp.org/tlog-proof@v1";

/** More would be the path of a tree that no number of leaves here can make. */
const MAX_PATH = 63;

export interface LogProof {
  readonly index: number;
  /** From the leaf's sibling up to a child of the root. */
  readonly proof: readonly Uint8Array[];
  /** The signed note, whole. */
  readonly checkpoint: string;
  /** Not authenticated by itself. Here it is the leaf, which the path then authenticates. */
  readonly extra?: Uint8Array;
}

/** The text of a proof, as it is stored with the extension `.tlog-proof`. */
export function formatLogProof({ index, proof, checkpoint, extra }: LogProof): string {
  return [
    FIRST_LINE,
    ...(extra === undefined ? [] : [`extra ${base64(extra)}`]),
    `index ${index}`,
    ...proof.map(base64),
    "",
    checkpoint,
  ].join("\n");
}

/**
 * Reads the text. **Nothing is verified.**
 *
 * @throws SyntaxError if it is not a proof.
 */
export function parseLogProof(text: string): LogProof {
  const split = text.indexOf("\n\n");
  const lines = text.slice(0, split).split("\n");
  if (split < 0 || lines.shift() !== FIRST_LINE) {
    throw new SyntaxError(`not a proof: the first line is not ${FIRST_LINE}`);
  }
  const extra = lines[0]?.startsWith("extra ") ? fromBase64(lines.shift()!.slice(6)) : undefined;
  const index = /^index (0|[1-9][0-9]{0,15})$/.exec(lines.shift() ?? "")?.[1];
  if (index === undefined || !Number.isSafeInteger(Number(index))) {
    throw new SyntaxError("not a proof: the line with the index is missing or malformed");
  }
  const proof = lines.map(fromBase64);
  if (proof.length > MAX_PATH || proof.some((hash) => hash.length !== HASH_LENGTH)) {
    throw new SyntaxError("not a proof: the path is not lines of 32 octets in base64");
  }
  return {
    index: Number(index),
    proof,
    checkpoint: text.slice(split + 2),
    ...(extra === undefined ? {} : { extra }),
  };
}

/**
 * Verifies a proof.
 *
 * @param key - The log's verifier key.
 * @param leaf - The record in question; what the proof carries when absent.
 * @returns The record, which is now known to stand at `index` of the checkpoint's log.
 * @throws CountersignError `signature-invalid` if the checkpoint is not signed by the log, or the path does not lead
 *   from the record to its root.
 */
export function verifyLogProof(
  { index, proof, checkpoint: note, extra }: LogProof,
  key: string | VerifierKey,
  leaf: Uint8Array | undefined = extra,
): { leaf: Uint8Array; index: number; checkpoint: Checkpoint } {
  const checkpoint = openCheckpoint(note, key);
  if (leaf === undefined) {
    throw new CountersignError(
      "signature-invalid",
      "the proof carries no record, and none was given",
    );
  }
  const { size, root } = checkpoint;
  if (!verifyInclusion({ leafHash: leafHash(leaf), index, size, root, proof })) {
    throw new CountersignError(
      "signature-invalid",
      `the proof does not lead from the record, as entry ${index}, to the root of the checkpoint`,
    );
  }
  return { leaf, index, checkpoint };
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

function fromBase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") !== text) {
    throw new SyntaxError("not a proof: malformed base64");
  }
  return bytes;
}
