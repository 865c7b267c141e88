/** Shares on their way: age files, from the dealer to a custodian and from there to an unlock. CUSTODY.md 3.1 and 3.3. */

import { Decrypter, Encrypter, identityToRecipient } from "age-encryption";
import { CountersignError } from "../../errors.ts";
import { utf8 } from "../octet-text.ts";
import { decodeShare, encodeShare, type Share, type ShareContext } from "./share.ts";
import type { Point } from "./field.ts";

/** Octets of a submitted file, at most; a hybrid one has some two thousand. */
export const SHARE_FILE_LIMIT = 8 * 1024;

const FIRST_LINE = "age-encryption.org/v1";

/** What the comments of a share file say beside the share itself. */
export interface ShareFileLabels {
  readonly service: string;
  /** Distinguished name of the issuer, as people write it. */
  readonly issuer: string;
  readonly custodian: string;
  /** `sha256:` and the hex digest of the plan that the share was dealt by. */
  readonly plan: string;
}

/** The one key that opens the files of one unlock; it cannot be taken out of the process, and ends with it. */
export interface UnlockIdentity {
  /** age recipient, `age1…`. */
  readonly recipient: string;
  readonly key: CryptoKey;
}

/**
 * Checks an age recipient that a custodian enrols.
 *
 * @throws CountersignError `recipient-refused`, saying what to send instead.
 */
export function checkRecipient(recipient: string): void {
  const refuse = (detail: string): never => {
    throw new CountersignError("recipient-refused", `this recipient cannot get a share: ${detail}`);
  };
  if (recipient.startsWith("AGE-SECRET-KEY-")) {
    refuse("it is a secret key, which stays with you; age-keygen -y KEYFILE prints its recipient");
  }
  if (/^(?:ssh-|ecdsa-)/.test(recipient)) {
    refuse("it is an SSH key; make an age identity with age-keygen -o KEYFILE");
  }
  if (recipient !== recipient.toLowerCase())
    refuse("write it in lower case, as age-keygen prints it");
  if (recipient.startsWith("age1yubikey1")) {
    refuse(
      "age1yubikey1 is the old form of that plugin; update it and enrol its age1tag1 recipient",
    );
  }
  if (!/^age1(?:(?:tag|pq|tagpq)1)?[02-9ac-hj-np-z]+$/.test(recipient)) {
    refuse("it is not of the form age1…, age1tag1…, age1pq1… or age1tagpq1…");
  }
  try {
    new Encrypter().addRecipient(recipient);
  } catch {
    refuse("its checksum or its length is wrong; copy it again, whole");
  }
}

/**
 * The file for one custodian.
 *
 * @param recipient - checked by {@link checkRecipient}.
 * @returns a binary age file with one recipient.
 */
export async function sealShareFile(
  context: ShareContext,
  point: Point,
  recipient: string,
  labels: ShareFileLabels,
): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  return encrypter.encrypt(shareFileText(context, point, labels));
}

/**
 * The file that only the owner of a recipient can read: CUSTODY.md 3.2, step 0.
 *
 * @param recipient - checked by {@link checkRecipient}.
 * @param challenge - 32 random octets.
 * @returns a binary age file.
 */
export async function sealChallenge(challenge: Uint8Array, recipient: string): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  return encrypter.encrypt(challenge);
}

function shareFileText(context: ShareContext, point: Point, labels: ShareFileLabels): string {
  const { threshold, shareCount, epoch, keyId } = context;
  const { service, issuer, custodian, plan } = labels;
  for (const label of Object.values(labels) as string[]) {
    // One more line would be one more share.
    if (/[\p{Cc}\p{Surrogate}]/u.test(label))
      throw new RangeError("a label with a control character");
  }
  return [
    "# countersign share, version 1. Keep secret. Never e-mail, photograph or paste into a web page.",
    `# service ${service}   issuer ${issuer}`,
    `# key ${Buffer.from(keyId).toString("hex").slice(0, 16)}…   epoch ${epoch}   ` +
      `share ${point.x} of ${shareCount}, any ${threshold} unlock   custodian ${custodian}`,
    `# plan ${plan}`,
    encodeShare(context, point),
    "",
  ].join("\n");
}

/**
 * Reads what an opened share file says.
 *
 * @throws CountersignError `share-malformed` unless exactly one line is not a comment; `share-checksum`.
 */
export function readShareFileText(text: string): Share {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "" && !line.startsWith("#"));
  if (lines.length !== 1) {
    throw new CountersignError(
      "share-malformed",
      `a share file has one line beside its comments, this one ${lines.length}`,
    );
  }
  return decodeShare(lines[0]!);
}

/** Makes the key of an unlock. */
export async function newUnlockIdentity(): Promise<UnlockIdentity> {
  const { privateKey } = (await crypto.subtle.generateKey({ name: "X25519" }, false, [
    "deriveBits",
  ])) as CryptoKeyPair;
  return { recipient: await identityToRecipient(privateKey), key: privateKey };
}

/**
 * How many recipients can open an age file: its header says so, in lines that begin with an arrow.
 *
 * @throws CountersignError `share-malformed` if it is no age file of version 1, or too long.
 */
export function recipientCount(file: Uint8Array): number {
  const text = Buffer.from(file.buffer, file.byteOffset, file.length).toString("latin1");
  const end = text.indexOf("\n--- ");
  if (file.length > SHARE_FILE_LIMIT || !text.startsWith(`${FIRST_LINE}\n`) || end === -1) {
    throw new CountersignError(
      "share-malformed",
      text.startsWith("-----BEGIN AGE")
        ? "this age file is armored; send it as age writes it without -a"
        : "this is not an age file of a share",
    );
  }
  return text
    .slice(0, end)
    .split("\n")
    .filter((line) => line.startsWith("-> ")).length;
}

/**
 * Opens a share file.
 *
 * @param identity - of an unlock, or a custodian's `AGE-SECRET-KEY-1…`.
 * @throws CountersignError `share-malformed`; `share-unreadable` if it has more than one recipient or was encrypted to
 *   another one; `share-checksum`.
 */
export async function openShareFile(
  file: Uint8Array,
  identity: CryptoKey | string,
): Promise<Share> {
  const count = recipientCount(file);
  if (count !== 1) {
    throw new CountersignError(
      "share-unreadable",
      `this age file can be opened by ${count} recipients. Encrypt it to one: the recipient of this unlock`,
    );
  }
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  let octets: Uint8Array;
  try {
    octets = await decrypter.decrypt(file);
  } catch (error) {
    throw new CountersignError(
      "share-unreadable",
      "this age file was not encrypted to this recipient, or was damaged on its way. Usually it was made for an " +
        "earlier unlock: encrypt the share anew to the recipient in the present statement",
      { cause: error },
    );
  }
  try {
    return readShareFileText(utf8(octets));
  } finally {
    octets.fill(0);
  }
}
