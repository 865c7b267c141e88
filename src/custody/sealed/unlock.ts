/**
 * What an unlocker does, in a process of its own that ends with it: it takes shares until there are enough, names every
 * one that is wrong, and then opens the sealed secret. CUSTODY.md 4.3, from step 4 on, and 6.2.
 */

import { hash, timingSafeEqual } from "node:crypto";
import { digestOf } from "../../audit/digest.ts";
import { CountersignError } from "../../errors.ts";
import type { ShareSet } from "../plan.ts";
import { openSealedKey, privateKeyOf, readSealedKey, type SealedKeyHeader } from "./sealed-key.ts";
import { commitmentOf, commitmentsHash, type Share, type ShareContext } from "./share.ts";
import { openShareFile } from "./share-file.ts";
import { recoverKek } from "./shamir.ts";

export interface SubmittedShare {
  /** Who has signed the submission. */
  readonly operator: string;
  readonly share: {
    readonly index: number;
    /** `sha256:` and the hex digest of the file, as it was signed. */
    readonly file: string;
  };
  /** An age file to the unlock's recipient. */
  readonly file: Uint8Array;
}

export interface Unlocker {
  /**
   * Takes one share, also when there are enough: of those who gave one, somebody may still refuse. What is refused
   * changes nothing: the shares of others stay counted.
   *
   * @returns how many are counted now.
   * @throws CountersignError `submission-stale`, `share-malformed`, `share-unreadable`, `share-checksum`,
   *   `share-stale`, `share-foreign`, `share-not-yours`, `share-wrong`, `share-repeated`, `unlock-closed`.
   */
  submit(submission: SubmittedShare): Promise<number>;
  /** Who has given a share that counts. */
  readonly given: readonly string[];
  /** How many are still missing. */
  readonly missing: number;
  /**
   * Opens the secret; once, and only with enough shares.
   *
   * @param by - those whose shares may be used.
   * @returns PKCS#8 or a PIN; wipe it.
   * @throws CountersignError `kek-mismatch`, `sealed-key-corrupt`, `unlock-closed`.
   */
  open(by?: readonly string[]): Promise<Buffer>;
}

export interface UnlockerParts {
  readonly shareSet: ShareSet;
  /** CSKB. */
  readonly sealed: Uint8Array;
  /** Of the unlock's recipient. */
  readonly identity: CryptoKey;
}

/**
 * Begins to gather.
 *
 * @throws CountersignError `sealed-key-corrupt` if sealed key and share set do not belong together.
 */
export function createUnlocker({ shareSet, sealed, identity }: UnlockerParts): Unlocker {
  const header = readSealedKey(sealed);
  checkTogether(shareSet, sealed, header);
  const context: ShareContext = header;
  const accepted = new Map<number, { operator: string; file: Uint8Array }>();
  // One after the other: of two submissions of one share at the same time one is a repetition.
  let turn: Promise<unknown> = Promise.resolve();
  let opened = false;

  async function take({ operator, share, file }: SubmittedShare): Promise<number> {
    requireGathering();
    // Whoever saw a signed submission could send it again with another file; that is not its signer's fault.
    if (digestOf(file) !== share.file) {
      throw new CountersignError(
        "submission-stale",
        "the share file is not the one that was signed: make and sign the submission anew",
      );
    }
    const read = await openShareFile(file, identity);
    try {
      requireGathering();
      check(read, operator, share.index);
    } finally {
      read.y.fill(0);
    }
    accepted.set(read.x, { operator, file });
    return accepted.size;
  }

  function check(read: Share, operator: string, index: number): void {
    checkLabels(read, header);
    const own = shareSet.custodians.find((custodian) => custodian.operator === operator);
    if (own === undefined || own.index !== read.x || index !== read.x) {
      throw new CountersignError(
        "share-not-yours",
        `${operator}: this is not the share that the share set gives you. Nobody sends another's share; whoever ` +
          "holds it sends it in their own name",
      );
    }
    const { commit } = commitmentOf(context, read);
    if (!timingSafeEqual(commit, Buffer.from(own.commit, "hex"))) {
      throw new CountersignError(
        "share-wrong",
        `${operator}: the share is well-formed and is not share ${own.index} of this key. Compare it with the paper, or ` +
          "decrypt the share file again. Only this share is refused: " +
          `${context.threshold - missing()} of ${context.threshold} are counted and stay so`,
      );
    }
    if (accepted.has(read.x)) {
      throw new CountersignError(
        "share-repeated",
        `${operator}: your share is counted already; ${missing()} of others are missing`,
      );
    }
  }

  /** That it is the key of this id, if it is one. */
  function checked(secret: Buffer): Buffer {
    try {
      privateKeyOf(header, secret);
      return secret;
    } catch (error) {
      secret.fill(0);
      throw error;
    }
  }

  function requireGathering(): void {
    if (opened) throw closed();
  }

  function missing(): number {
    return Math.max(0, context.threshold - accepted.size);
  }

  return {
    submit(submission) {
      const next = turn.then(() => take(submission));
      turn = next.catch(() => {});
      return next;
    },
    get given() {
      return [...accepted.values()].map(({ operator }) => operator);
    },
    get missing() {
      return missing();
    },
    async open(by) {
      const usable = [...accepted.values()].filter(
        ({ operator }) => by?.includes(operator) ?? true,
      );
      if (opened || usable.length < context.threshold) throw closed();
      opened = true;
      // Only the files were kept; for a moment the shares are in clear together.
      const shares = await Promise.all(
        usable.slice(0, context.threshold).map(({ file }) => openShareFile(file, identity)),
      );
      const kek = recoverKek(shares, context);
      for (const { y } of shares) y.fill(0);
      try {
        return checked(openSealedKey(sealed, kek));
      } finally {
        kek.fill(0);
      }
    },
  };
}

function closed(): CountersignError {
  return new CountersignError("unlock-closed", "this unlock gathers no shares");
}

function checkLabels(read: Share, header: SealedKeyHeader): void {
  // The right values are not said: a guess must not learn from its answer.
  if (!Buffer.from(read.keyLabel).equals(header.keyId.subarray(0, read.keyLabel.length))) {
    throw new CountersignError(
      "share-foreign",
      "this is a share of another key: look for the one whose comments name the key in the statement",
    );
  }
  if (
    read.epoch !== header.epoch ||
    read.threshold !== header.threshold ||
    read.shareCount !== header.shareCount
  ) {
    throw new CountersignError(
      "share-stale",
      "this share is of another epoch of the key: the shares were changed since. Use the file of the last reshare, and " +
        "destroy the older one",
    );
  }
}

function checkTogether(shareSet: ShareSet, sealed: Uint8Array, header: SealedKeyHeader): void {
  const together =
    digestOf(sealed) === shareSet.sealed &&
    Buffer.from(header.keyId).toString("hex") === shareSet.keyId &&
    hash("sha256", Buffer.from(shareSet.publicKey, "base64")) === shareSet.keyId &&
    header.epoch === shareSet.epoch &&
    header.threshold === shareSet.threshold &&
    header.shareCount === shareSet.shareCount &&
    commitmentsHash(
      shareSet.custodians.map(({ commit, proof }) => ({
        commit: Buffer.from(commit, "hex"),
        proof: Buffer.from(proof, "hex"),
      })),
    ).equals(header.commitmentsHash);
  if (!together) {
    throw new CountersignError(
      "sealed-key-corrupt",
      "the sealed key and its share set do not belong together: restore both from one backup",
    );
  }
}
