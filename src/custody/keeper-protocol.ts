/** What service and keeper say to each other: CUSTODY.md 7.4. Each request has a number, and one answer names it. */

import { z } from "zod";
import type { Protocol } from "./frames.ts";
import { refusalFields } from "./refusal.ts";
import {
  BATCH_BODY_LIMIT,
  batchLengths,
  LIST_BODY_LIMIT,
  requestLengths,
  resultLengths,
  RESULTS_BODY_LIMIT,
} from "./sign-batch.ts";

const id = z.int().min(0);
const size = z.int().min(0);
const octets = z.int().min(0).max(LIST_BODY_LIMIT);
const keyId = z.string().regex(/^[0-9a-f]{64}$/);

/** A statement with its signature, one after the other in the body. */
const STATEMENT_BODY_LIMIT = 128 * 1024;

/** Statements about requesters in one frame, at most. */
export const STATEMENTS_LIMIT = 500;

const toKeeper = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("status"), id }),
  /** Makes the head file of a new log. */
  z.strictObject({ type: z.literal("initialise"), id }),
  /** Leaf hashes from index `first` on, 32 octets each. */
  z.strictObject({ type: z.literal("append"), id, first: size }),
  z.strictObject({ type: z.literal("sign"), id, keyId, requests: batchLengths }),
  z.strictObject({
    type: z.literal("sign-list"),
    id,
    keyId,
    request: requestLengths,
    /** Octets of the CRL before this one; 0 for none. */
    predecessor: octets,
    /** Octets of certificates one after the other, DER. */
    dropped: octets,
  }),
  /** The last CRL that a key signed, in case the service did not live to keep it. */
  z.strictObject({ type: z.literal("list"), id, keyId }),
  /** One operator's change of a requester. */
  z.strictObject({ type: z.literal("requester"), id, statement: octets }),
  /** The changes so far, from the first, in as many frames as it takes; `last` ends them. */
  z.strictObject({
    type: z.literal("requesters"),
    id,
    statements: z.array(z.tuple([octets, octets])).max(STATEMENTS_LIMIT),
    last: z.boolean(),
  }),
  z.strictObject({ type: z.literal("lock"), id, statement: octets }),
]);

export type ToKeeper = z.infer<typeof toKeeper>;

export const toKeeperProtocol: Protocol<ToKeeper> = {
  schema: toKeeper,
  bodyLimits: {
    status: 0,
    initialise: 0,
    append: BATCH_BODY_LIMIT,
    sign: BATCH_BODY_LIMIT,
    "sign-list": LIST_BODY_LIMIT,
    list: 0,
    requester: STATEMENT_BODY_LIMIT,
    requesters: 8 * 1024 * 1024,
    lock: STATEMENT_BODY_LIMIT,
  },
};

/** The JSON body of the answer to `status`. Binary values are base64. */
export const statusSchema = z.strictObject({
  service: z.string(),
  origin: z.string(),
  logKey: z.string(),
  identityKey: z.string(),
  head: z.strictObject({ size, root: z.base64() }).nullable(),
  operators: z.array(z.strictObject({ id: z.string(), keys: z.array(z.string()) })),
  requesterSequence: z.int().min(0),
  keys: z.array(
    z.strictObject({
      keyId: z.string(),
      issuer: z.string(),
      state: z.enum(["open", "locked", "held", "unavailable"]),
      detail: z.string().optional(),
      publicKey: z.base64(),
      certificate: z.base64().optional(),
      chain: z.array(z.base64()),
      signaturesLeft: z.int().min(0).optional(),
      grantedPolicy: z.string(),
      list: z.strictObject({ number: z.string(), crl: z.string() }).optional(),
    }),
  ),
});

export type StatusBody = z.infer<typeof statusSchema>;

const fromKeeper = z.discriminatedUnion("type", [
  /** The configuration is read, and each key has opened or failed. */
  z.strictObject({ type: z.literal("ready") }),
  /** The keeper cannot start, and ends. */
  z.strictObject({ type: z.literal("failed"), ...refusalFields }),
  z.strictObject({ type: z.literal("status"), id }),
  z.strictObject({
    type: z.literal("head"),
    id,
    size,
    root: z.string().regex(/^[0-9a-f]{64}$/),
    note: z.string(),
  }),
  z.strictObject({ type: z.literal("signed"), id, results: resultLengths }),
  /** Body: the signature. */
  z.strictObject({ type: z.literal("list-signed"), id }),
  /** Body: a CRL, DER, or nothing. */
  z.strictObject({ type: z.literal("list"), id }),
  z.strictObject({ type: z.literal("done"), id }),
  z.strictObject({ type: z.literal("refused"), id, ...refusalFields }),
]);

export type FromKeeper = z.infer<typeof fromKeeper>;

export const fromKeeperProtocol: Protocol<FromKeeper> = {
  schema: fromKeeper,
  bodyLimits: {
    ready: 0,
    failed: 0,
    status: 16 * 1024 * 1024,
    head: 0,
    signed: RESULTS_BODY_LIMIT,
    "list-signed": 4096,
    list: LIST_BODY_LIMIT,
    done: 0,
    refused: 0,
  },
};
