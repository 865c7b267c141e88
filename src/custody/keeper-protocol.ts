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
import { digest } from "./statement.ts";

const id = z.int().min(0);
const size = z.int().min(0);
const octets = z.int().min(0).max(LIST_BODY_LIMIT);
const keyId = z.string().regex(/^[0-9a-f]{64}$/);

/** A statement with its signature, one after the other in the body. */
const STATEMENT_BODY_LIMIT = 128 * 1024;

/** Octets of a ceremony with its approvals, of 256 people at most; and of all versions of a roster. */
const CEREMONY_BODY_LIMIT = 4 * 1024 * 1024;
const ROSTERS_BODY_LIMIT = 64 * 1024 * 1024;

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
  z.strictObject({ type: z.literal("panic"), id, statement: octets }),
  // From here on the bodies are those of keeper-bodies.ts, but for a share, which is the body.
  z.strictObject({ type: z.literal("rosters"), id }),
  z.strictObject({ type: z.literal("roster"), id }),
  z.strictObject({ type: z.literal("statement"), id }),
  z.strictObject({ type: z.literal("unlock"), id }),
  z.strictObject({ type: z.literal("submit"), id }),
  z.strictObject({ type: z.literal("open"), id }),
  z.strictObject({ type: z.literal("deal"), id }),
  /** The old PIN of a token in use may go: what was dealt is stored. */
  z.strictObject({ type: z.literal("commit"), id, ceremony: digest }),
  z.strictObject({ type: z.literal("end-unlock"), id, unlock: digest }),
  z.strictObject({ type: z.literal("activate"), id }),
  z.strictObject({ type: z.literal("resume"), id }),
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
    panic: STATEMENT_BODY_LIMIT,
    rosters: ROSTERS_BODY_LIMIT,
    roster: CEREMONY_BODY_LIMIT,
    statement: CEREMONY_BODY_LIMIT,
    unlock: CEREMONY_BODY_LIMIT,
    submit: STATEMENT_BODY_LIMIT,
    open: CEREMONY_BODY_LIMIT,
    deal: CEREMONY_BODY_LIMIT,
    commit: 0,
    "end-unlock": 0,
    activate: CEREMONY_BODY_LIMIT,
    resume: CEREMONY_BODY_LIMIT,
  },
};

/** The JSON body of the answer to `status`. Binary values are base64. */
export const statusSchema = z.strictObject({
  service: z.string(),
  origin: z.string(),
  logKey: z.string(),
  identityKey: z.string(),
  head: z.strictObject({ size, root: z.base64() }).nullable(),
  genesis: z.string(),
  /** The version in force; null until it was shown. */
  roster: z.strictObject({ version: z.int(), digest }).nullable(),
  panic: z.strictObject({ operator: z.string(), at: z.string() }).nullable(),
  operators: z.array(
    z.strictObject({
      id: z.string(),
      keys: z.array(z.string()),
      roles: z.array(z.string()),
      recipient: z.string().optional(),
    }),
  ),
  requesterSequence: z.int().min(0),
  keys: z.array(
    z.strictObject({
      keyId: z.string(),
      issuer: z.string(),
      state: z.enum(["open", "locked", "held", "unavailable"]),
      custody: z.enum(["token", "sealed"]),
      epoch: z.int().optional(),
      operations: z.array(z.enum(["certificate", "crl"])),
      until: z.iso.datetime().optional(),
      ceremony: digest.optional(),
      detail: z.string().optional(),
      pinRefused: z.literal(true).optional(),
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
  /** Body: a statement's digest and its note. */
  z.strictObject({ type: z.literal("stated"), id }),
  /** Whose shares an unlocker has counted. */
  z.strictObject({
    type: z.literal("gathered"),
    id,
    given: z.array(z.string()).max(32),
    missing: z.int().min(0),
  }),
  /** Body: what was dealt; nothing where a key is open now. */
  z.strictObject({ type: z.literal("opened"), id }),
  z.strictObject({ type: z.literal("refused"), id, ...refusalFields }),
  /** Something has ended by itself, or by somebody's lock; it answers nothing. */
  z.strictObject({
    type: z.literal("closed"),
    what: z.enum(["unlock", "key"]),
    unlock: digest,
    ceremony: digest,
    keyId,
    reason: z.enum(["ended", "expired", "idle", "used-up", "locked", "panic"]),
  }),
]);

export type FromKeeper = z.infer<typeof fromKeeper>;

/** Something that ended by itself, or by somebody's lock. Digests are those of the statements. */
export type Closed = Omit<Extract<FromKeeper, { type: "closed" }>, "type">;

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
    stated: CEREMONY_BODY_LIMIT,
    gathered: 0,
    opened: CEREMONY_BODY_LIMIT,
    refused: 0,
    closed: 0,
  },
};
