/** A share as people hold it: its text (CUSTODY.md 2.4), its commitment (4.1) and its proof key (4.2). */

import {
  createPrivateKey,
  createPublicKey,
  hash,
  hkdfSync,
  sign,
  verify,
  type KeyObject,
} from "node:crypto";
import { bech32m } from "@scure/base";
import { CountersignError } from "../../errors.ts";
import type { Point } from "./field.ts";
import { KEK_LENGTH, MAX_SHARES, type Sharing } from "./sharing.ts";

/** What a share belongs to. */
export interface ShareContext extends Sharing {
  /** SHA-256 of the key's SubjectPublicKeyInfo, 32 octets. */
  readonly keyId: Uint8Array;
  /** 1 and up; each reshare adds one. */
  readonly epoch: number;
}

/** A share that was read: it says of the key only the first 4 octets of its id, as a label. */
export interface Share extends Point, Sharing {
  readonly keyLabel: Uint8Array;
  readonly epoch: number;
}

/** The public part of one share, as the share set has it. */
export interface ShareCommitment {
  /** 32 octets. */
  readonly commit: Uint8Array;
  /** Ed25519 public key, 32 octets. */
  readonly proof: Uint8Array;
}

const SUITE = 1;
const PREFIX = "csshare";
const SHARE_LENGTH = 44;
/** `csshare`, `1`, 71 characters of 5 bits, 6 of checksum. */
const TEXT_LENGTH = 85;
const KEY_ID_LENGTH = 32;
const KEY_LABEL_LENGTH = 4;
const CHALLENGE_LENGTH = 32;
const GROUP = 5;

const ed25519PrivatePrefix = Buffer.from("302e020100300506032b657004220420", "hex");
const ed25519PublicPrefix = Buffer.from("302a300506032b6570032100", "hex");

/**
 * The text of a share: bech32m in capitals, 85 characters.
 *
 * It is the share: keep it out of logs and errors.
 */
export function encodeShare(context: ShareContext, { x, y }: Point): string {
  checkContext(context);
  const octets = Buffer.alloc(SHARE_LENGTH);
  octets[0] = SUITE;
  octets[1] = x;
  octets[2] = context.threshold;
  octets[3] = context.shareCount;
  octets.writeUInt32BE(context.epoch, 4);
  octets.set(context.keyId.subarray(0, KEY_LABEL_LENGTH), 8);
  octets.set(y, 12);
  try {
    return bech32m.encode(PREFIX, bech32m.toWords(octets)).toUpperCase();
  } finally {
    octets.fill(0);
  }
}

/**
 * Reads the text of a share: in capitals or not, with spaces or hyphens wherever they help.
 *
 * @throws CountersignError `share-checksum` for whatever was not written by {@link encodeShare}, without a character
 *   of it: a mistyped share is nearly a share.
 */
export function decodeShare(text: string): Share {
  const octets = shareOctets(text.replaceAll(/[\s-]/g, ""));
  const [suite, x, threshold, shareCount] = octets as unknown as [number, number, number, number];
  if (
    suite !== SUITE ||
    threshold < 2 ||
    threshold > shareCount ||
    shareCount > MAX_SHARES ||
    x < 1 ||
    x > shareCount
  ) {
    throw mistyped();
  }
  const epoch = octets.readUInt32BE(4);
  if (epoch === 0) throw mistyped();
  return {
    x,
    y: Uint8Array.from(octets.subarray(12)),
    threshold,
    shareCount,
    epoch,
    keyLabel: Uint8Array.from(octets.subarray(8, 12)),
  };
}

function shareOctets(text: string): Buffer {
  if (text.length !== TEXT_LENGTH) throw mistyped();
  let octets: Buffer;
  try {
    const { prefix, words } = bech32m.decode(text as `${string}1${string}`, TEXT_LENGTH);
    if (prefix !== PREFIX) throw mistyped();
    // Refuses padding bits that are not zero, which would be a second text of the same share.
    octets = Buffer.from(bech32m.fromWords(words));
  } catch {
    // What the decoder throws has the whole text in its message (S20).
    throw mistyped();
  }
  if (octets.length !== SHARE_LENGTH) throw mistyped();
  return octets;
}

function mistyped(): CountersignError {
  return new CountersignError(
    "share-checksum",
    "this is not the text of a share: a character is wrong, missing or too much. Compare it group by group with the " +
      "paper or the share file and send it again; the shares of the others are still counted",
  );
}

/** The text in numbered groups of five characters, for paper. */
export function shareGroups(text: string): readonly string[] {
  return text.match(new RegExp(`.{1,${GROUP}}`, "g")) ?? [];
}

/** `C` of CUSTODY.md 2.1, 39 octets. */
function contextOctets(context: ShareContext): Buffer {
  checkContext(context);
  const octets = Buffer.alloc(39);
  octets[0] = SUITE;
  octets.set(context.keyId, 1);
  octets.writeUInt32BE(context.epoch, 33);
  octets[37] = context.threshold;
  octets[38] = context.shareCount;
  return octets;
}

function checkContext({ keyId, epoch }: ShareContext): void {
  if (keyId.length !== KEY_ID_LENGTH) throw new RangeError(`a key id has ${KEY_ID_LENGTH} octets`);
  if (!Number.isInteger(epoch) || epoch < 1 || epoch > 0xffff_ffff) {
    throw new RangeError(`an epoch of ${epoch}`);
  }
}

function label(text: string): Buffer {
  return Buffer.from(`${text}\0`, "latin1");
}

/** What a share says about itself in public: its hash, and the key that proves that somebody holds it. */
export function commitmentOf(context: ShareContext, point: Point): ShareCommitment {
  const octets = Buffer.concat([
    label("countersign/v1/share-commit"),
    contextOctets(context),
    Buffer.of(point.x),
    point.y,
  ]);
  const commit = hash("sha256", octets, "buffer");
  octets.fill(0);
  const spki = createPublicKey(proofKey(context, point)).export({ format: "der", type: "spki" });
  return { commit, proof: Uint8Array.from(spki.subarray(ed25519PublicPrefix.length)) };
}

/** `commitsHash` of CUSTODY.md 4.1. @param commitments - of the shares 1, 2, 3 … */
export function commitmentsHash(commitments: readonly ShareCommitment[]): Buffer {
  const pieces = commitments.flatMap(({ commit, proof }, index) => [
    Buffer.of(index + 1),
    commit,
    proof,
  ]);
  return hash("sha256", Buffer.concat([label("countersign/v1/commits"), ...pieces]), "buffer");
}

/**
 * Signs a challenge with the share's proof key: who can do that holds the share, which stays where it is.
 *
 * @param challenge - 32 octets.
 * @returns an Ed25519 signature, 64 octets.
 */
export function proveShare(context: ShareContext, point: Point, challenge: Uint8Array): Buffer {
  return sign(null, drillMessage(context, point.x, challenge), proofKey(context, point));
}

/** Whether a proof is of the share whose public proof key this is. */
export function checkShareProof(
  context: ShareContext,
  x: number,
  { proof }: ShareCommitment,
  challenge: Uint8Array,
  signature: Uint8Array,
): boolean {
  const key = createPublicKey({
    key: Buffer.concat([ed25519PublicPrefix, proof]),
    format: "der",
    type: "spki",
  });
  return verify(null, drillMessage(context, x, challenge), key, signature);
}

function drillMessage(context: ShareContext, x: number, challenge: Uint8Array): Buffer {
  if (challenge.length !== CHALLENGE_LENGTH) {
    throw new RangeError(`a challenge has ${CHALLENGE_LENGTH} octets`);
  }
  return Buffer.concat([
    label("countersign/v1/share-drill"),
    contextOctets(context),
    Buffer.of(x),
    challenge,
  ]);
}

function proofKey(context: ShareContext, { x, y }: Point): KeyObject {
  if (y.length !== KEK_LENGTH) throw new RangeError(`a share's value has ${KEK_LENGTH} octets`);
  const salt = Buffer.concat([contextOctets(context), Buffer.of(x)]);
  const seed = Buffer.from(hkdfSync("sha256", y, salt, "countersign/v1/share-proof", 32));
  const der = Buffer.concat([ed25519PrivatePrefix, seed]);
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  } finally {
    seed.fill(0);
    der.fill(0);
  }
}
