/**
 * What keeper and signer say to each other: CUSTODY.md 7.4.
 *
 * **How a signer follows the log.** It holds the right edge of the tree that it saw last. A request that comes with
 * news of the log carries an `extension` from there to the head that the keeper signed last:
 *
 *     nodes   the decomposition of [from, first), for leaves the signer need not see one by one
 *     leaves  the hashes of the leaves [first, size)
 *     note    the checkpoint of `size`
 *
 * in this order in the body, 32 octets each, before the requests. The signer appends both to its edge and requires
 * the checkpoint's root, so that the new head extends the one it saw; that costs one hash a leaf. It remembers the
 * leaves that it saw one by one, and an intent must be one of them, which spends it: no intent serves twice, and
 * none that the keeper had not signed for.
 */

import { z } from "zod";
import { grantSchema } from "./grant.ts";
import type { Protocol } from "./frames.ts";
import { refusalFields } from "./refusal.ts";
import { hexHash } from "./statement.ts";
import {
  BATCH_BODY_LIMIT,
  batchLengths,
  LIST_BODY_LIMIT,
  requestLengths,
  resultLengths,
  RESULTS_BODY_LIMIT,
} from "./sign-batch.ts";

const id = z.int().min(0);
const index = z.int().min(0);
const octets = z.int().min(0).max(LIST_BODY_LIMIT);
const base64 = z.base64();

/** Leaves that one extension shows one by one, at most. */
export const EXTENSION_LEAVES_LIMIT = 65_536;
const EXTENSION_LIMIT = (EXTENSION_LEAVES_LIMIT + 128) * 32;

const extension = z
  .strictObject({ from: index, first: index, size: index, note: z.string().max(2_000) })
  .nullable();

export type Extension = z.infer<typeof extension>;

const commonOpening = {
  /** The issuer's id in the policy. */
  issuer: z.string(),
  grant: grantSchema,
  /** Signatures that count as made within the last hour. */
  alreadySigned: z.int().min(0),
  /** Of the grant's digests, those that are used up. */
  usedDigests: z.array(z.string()),
  policy: z.string(),
  /** DER; absent while a founding grant makes it. */
  certificate: base64.nullable(),
  chain: z.array(base64),
  /** SHA-256 of the SubjectPublicKeyInfo of the CA keys of this installation, hex. */
  caKeys: z.array(z.string()),
  logKey: z.string(),
  /** The head that the log had when the signer started: its checkpoint and the tree's right edge. */
  head: z.strictObject({ note: z.string(), nodes: z.array(base64) }).nullable(),
  /** The last CRL that the key signed: its number, SHA-256 and DER. */
  list: z.strictObject({ number: z.string(), crl: z.string(), der: base64 }).nullable(),
};

const openingOfToken = z.strictObject({
  ...commonOpening,
  module: z.string(),
  uri: z.string(),
  /** The signer reads it; the keeper never does. */
  pinFile: z.string(),
});

/** The secret comes from an unlocker, on descriptor 4. */
const openingOfSealed = z.strictObject({
  ...commonOpening,
  sealed: z.discriminatedUnion("payload", [
    z.strictObject({ payload: z.literal("pkcs8"), keyId: hexHash }),
    z.strictObject({
      payload: z.literal("pin"),
      keyId: hexHash,
      module: z.string(),
      uri: z.string(),
    }),
  ]),
});

/** The JSON body of `open`: all that the signer is told, and the whole of what it trusts. */
export const openingSchema = z.union([openingOfToken, openingOfSealed]);

export type Opening = z.infer<typeof openingOfToken>;
export type SealedOpening = z.infer<typeof openingOfSealed>;

const toSigner = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("open") }),
  z.strictObject({ type: z.literal("sign"), id, requests: batchLengths, extension }),
  z.strictObject({
    type: z.literal("sign-list"),
    id,
    request: requestLengths,
    /** Octets of the CRL before this one; 0 for none. */
    predecessor: octets,
    /** Octets of certificates one after the other, DER. */
    dropped: octets,
    extension,
  }),
  /** Statements about requesters, already verified, in order: octets of each. */
  z.strictObject({ type: z.literal("requesters"), statements: z.array(octets).max(1_000) }),
  z.strictObject({ type: z.literal("status"), id }),
]);

export type ToSigner = z.infer<typeof toSigner>;

export const toSignerProtocol: Protocol<ToSigner> = {
  schema: toSigner,
  bodyLimits: {
    // A CRL lies in base64 in it; the new one, its predecessor, had to fit into a request twice over.
    open: 16 * 1024 * 1024 + LIST_BODY_LIMIT,
    sign: BATCH_BODY_LIMIT + EXTENSION_LIMIT,
    "sign-list": LIST_BODY_LIMIT + EXTENSION_LIMIT,
    requesters: BATCH_BODY_LIMIT,
    status: 0,
  },
};

const fromSigner = z.discriminatedUnion("type", [
  /** The token is open; body: the key's SubjectPublicKeyInfo, DER. */
  z.strictObject({ type: z.literal("opened") }),
  /** The key cannot be used: at start, or for a PIN that the token refuses later. */
  z.strictObject({ type: z.literal("failed"), ...refusalFields }),
  z.strictObject({ type: z.literal("signed"), id, results: resultLengths }),
  /** Number and SHA-256 of the CRL that this signature completes; body: the CRL, DER. */
  z.strictObject({
    type: z.literal("list-signed"),
    id,
    number: z.string().regex(/^[0-9]{1,49}$/),
    /** Octets of the signature, which come first in the body; the CRL follows. */
    signature: octets,
  }),
  z.strictObject({ type: z.literal("refused"), id, ...refusalFields }),
  z.strictObject({ type: z.literal("status"), id, signaturesLeft: z.int().min(0) }),
  /** The grant of a key out of a seal is over; the process ends. */
  z.strictObject({ type: z.literal("over"), reason: z.enum(["expired", "idle", "used-up"]) }),
]);

export type FromSigner = z.infer<typeof fromSigner>;

export const fromSignerProtocol: Protocol<FromSigner> = {
  schema: fromSigner,
  bodyLimits: {
    opened: 4096,
    failed: 0,
    signed: RESULTS_BODY_LIMIT,
    "list-signed": LIST_BODY_LIMIT,
    refused: 0,
    status: 0,
    over: 0,
  },
};
