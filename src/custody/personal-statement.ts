/**
 * What one person signs about themselves, a share, a key or a ceremony: CUSTODY.md 6.1, the smaller statements. All are
 * canonical JSON with a closed schema; docs/statements.md shows each.
 */

import { z } from "zod";
import {
  digest,
  hexHash,
  name,
  randomId,
  read,
  reason,
  recipient,
  seenLog,
  time,
} from "./statement.ts";

const base64Of = (characters: RegExp) => z.string().regex(characters);
/** Base64 of 32 octets. */
const octets32 = base64Of(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/);
/** Base64 of 64 octets. */
const octets64 = base64Of(/^[A-Za-z0-9+/]{85}[AQgw]==$/);
const sshPublicKey = z
  .string()
  .regex(/^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}$/)
  .max(1024);

const by = { operator: name, at: time };
const seen = { ...by, log: seenLog };

/** Whoever asks to be enrolled has seen no log yet. Namespace `countersign-enrol@v1`. */
const enrolmentSchema = z.strictObject({
  type: z.literal("countersign/enrolment/v1"),
  ...by,
  service: z.string().min(1).max(253),
  /** Type and base64, as in a .pub file, without its comment; it signs this. */
  key: sshPublicKey,
  recipient,
});

/** That the recipient's owner read what was encrypted to it. Namespace `countersign-enrol@v1`. */
const recipientProofSchema = z.strictObject({
  type: z.literal("countersign/recipient-proof/v1"),
  ...seen,
  enrolment: randomId,
  recipient,
  /** SHA-256 of the 32 octets that the file of the challenge holds. */
  answer: digest,
});

const ofShare = {
  ...seen,
  shareSet: digest,
  index: z.int().min(1).max(32),
  /** Base64 of {@link proveShare} over the challenge. */
  proof: octets64,
};

/** A share that came and is the right one; the challenge is the share set's SHA-256. Namespace `countersign-confirm@v1`. */
const confirmationSchema = z.strictObject({
  type: z.literal("countersign/confirmation/v1"),
  ...ofShare,
});

/** A share that is still there; the challenge is the service's. Namespace `countersign-confirm@v1`. */
const drillSchema = z.strictObject({
  type: z.literal("countersign/drill/v1"),
  ...ofShare,
  challenge: octets32,
});

/** Locks one key at once. Namespace `countersign-lock@v1`. */
const lockSchema = z.strictObject({
  type: z.literal("countersign/lock/v1"),
  ...seen,
  keyId: hexHash,
});

/** Locks every key at once, until a `resume`. Namespace `countersign-lock@v1`. */
const panicSchema = z.strictObject({
  type: z.literal("countersign/panic/v1"),
  ...seen,
  service: z.string().min(1).max(253),
  reason,
});

/** Ends a ceremony: its proposer alone, or two others. Namespace `countersign-abort@v1`. */
const abortSchema = z.strictObject({
  type: z.literal("countersign/abort/v1"),
  ...seen,
  ceremony: digest,
  reason,
});

/** The document in the `plan` of a ceremony of kind `resume`: what is let go. */
const resumeSchema = z.strictObject({
  type: z.literal("countersign/resume/v1"),
  service: z.string().min(1).max(253),
  /** Held keys; `all` also ends a panic. */
  release: z.union([z.literal("all"), z.array(hexHash).min(1).max(256)]),
});

export type Enrolment = z.infer<typeof enrolmentSchema>;
export type RecipientProof = z.infer<typeof recipientProofSchema>;
export type Confirmation = z.infer<typeof confirmationSchema>;
export type Drill = z.infer<typeof drillSchema>;
export type Lock = z.infer<typeof lockSchema>;
export type Panic = z.infer<typeof panicSchema>;
export type Abort = z.infer<typeof abortSchema>;
export type Resume = z.infer<typeof resumeSchema>;

/** @throws CountersignError `statement-malformed`; so do the others here. */
export function readEnrolment(octets: Uint8Array): Enrolment {
  return read(enrolmentSchema, octets, "statement-malformed", "an enrolment");
}

export function readRecipientProof(octets: Uint8Array): RecipientProof {
  return read(recipientProofSchema, octets, "statement-malformed", "a proof of a recipient");
}

export function readConfirmation(octets: Uint8Array): Confirmation {
  return read(confirmationSchema, octets, "statement-malformed", "a confirmation of a share");
}

export function readDrill(octets: Uint8Array): Drill {
  return read(drillSchema, octets, "statement-malformed", "a proof of a share");
}

export function readLock(octets: Uint8Array): Lock {
  return read(lockSchema, octets, "statement-malformed", "a statement to lock a key");
}

export function readPanic(octets: Uint8Array): Panic {
  return read(panicSchema, octets, "statement-malformed", "a statement to lock every key");
}

export function readAbort(octets: Uint8Array): Abort {
  return read(abortSchema, octets, "statement-malformed", "a statement to abort a ceremony");
}

export function readResume(octets: Uint8Array): Resume {
  return read(resumeSchema, octets, "statement-malformed", "a document of what is released");
}
