/** What keeper and unlocker say to each other: CUSTODY.md 4.3, 6.2 and 7.4. An unlocker opens one secret, once. */

import { z } from "zod";
import type { Protocol } from "./frames.ts";
import type { Agreement, GatheringState } from "./gathering.ts";
import { base64 } from "./octet-text.ts";
import { refusalFields } from "./refusal.ts";
import type { RosterVersion } from "./roster.ts";
import { digest, recipient, type Signed } from "./statement.ts";

/** Octets of the parts of a submission, at most; the service answers what is longer with `request-too-large`. */
export const SUBMISSION_LIMITS = { statement: 8 * 1024, signature: 8 * 1024, share: 8 * 1024 };

const STATE_LIMIT = 64 * 1024 * 1024;
const id = z.int().min(0);
const text = z.string();
const octets = z.base64();

const signedSchema = z.strictObject({ statement: octets, signature: text });

const versionSchema = z.strictObject({
  document: octets,
  signatures: z.array(z.strictObject({ operator: text, signature: text })),
  ceremony: z.strictObject({ note: text, approvals: z.array(signedSchema) }).exactOptional(),
});

/** The JSON body of `state`. */
const stateSchema = z.strictObject({
  genesis: digest,
  rosters: z.array(versionSchema),
  identityKey: text,
  ceremony: text,
  unlock: text,
  shareSet: text,
  sealed: octets,
});

/** The JSON body of `open`. */
const agreementSchema = z.strictObject({
  approvals: z.array(signedSchema),
  rosters: z.array(versionSchema),
});

const toUnlocker = z.discriminatedUnion("type", [
  /** The time to gather begins. */
  z.strictObject({ type: z.literal("begin"), gatherSeconds: z.int().min(1).max(604_800) }),
  z.strictObject({ type: z.literal("state") }),
  z.strictObject({
    type: z.literal("submit"),
    id,
    /** Octets of the statement and of the signature; the share follows in the body. */
    statement: z.int().min(0).max(SUBMISSION_LIMITS.statement),
    signature: z.int().min(0).max(SUBMISSION_LIMITS.signature),
  }),
  z.strictObject({ type: z.literal("open"), id }),
]);

export type ToUnlocker = z.infer<typeof toUnlocker>;

export const toUnlockerProtocol: Protocol<ToUnlocker> = {
  schema: toUnlocker,
  bodyLimits: {
    begin: 0,
    state: STATE_LIMIT,
    submit: SUBMISSION_LIMITS.statement + SUBMISSION_LIMITS.signature + SUBMISSION_LIMITS.share,
    open: STATE_LIMIT,
  },
};

const fromUnlocker = z.discriminatedUnion("type", [
  /** Its key is made. */
  z.strictObject({ type: z.literal("recipient"), recipient }),
  z.strictObject({ type: z.literal("gathering") }),
  /** What it was told cannot be believed; it ends. */
  z.strictObject({ type: z.literal("failed"), ...refusalFields }),
  z.strictObject({
    type: z.literal("submitted"),
    id,
    given: z.array(text).max(32),
    missing: z.int().min(0).max(32),
  }),
  z.strictObject({ type: z.literal("refused"), id, ...refusalFields }),
  /** The secret has been handed over; it ends. */
  z.strictObject({ type: z.literal("opened"), id }),
  /** The time to gather is over; it ends. */
  z.strictObject({ type: z.literal("expired") }),
]);

export type FromUnlocker = z.infer<typeof fromUnlocker>;

export const fromUnlockerProtocol: Protocol<FromUnlocker> = {
  schema: fromUnlocker,
  bodyLimits: {
    recipient: 0,
    gathering: 0,
    failed: 0,
    submitted: 0,
    refused: 0,
    opened: 0,
    expired: 0,
  },
};

export function encodeState(state: GatheringState): Buffer {
  const { rosters, sealed, ...rest } = state;
  return json<z.infer<typeof stateSchema>>({
    ...rest,
    rosters: rosters.map(versionText),
    sealed: base64(sealed),
  });
}

export function decodeState(body: Uint8Array): GatheringState {
  const state = stateSchema.parse(parsed(body));
  return { ...state, rosters: state.rosters.map(versionOf), sealed: fromBase64(state.sealed) };
}

export function encodeAgreement({ approvals, rosters }: Agreement): Buffer {
  return json<z.infer<typeof agreementSchema>>({
    approvals: approvals.map(signedText),
    rosters: rosters.map(versionText),
  });
}

export function decodeAgreement(body: Uint8Array): Agreement {
  const { approvals, rosters } = agreementSchema.parse(parsed(body));
  return { approvals: approvals.map(signedOf), rosters: rosters.map(versionOf) };
}

function versionText({ document, signatures, ceremony }: RosterVersion) {
  return {
    document: base64(document),
    signatures: signatures.map(({ operator, signature }) => ({ operator, signature })),
    ...(ceremony === undefined
      ? {}
      : { ceremony: { note: ceremony.note, approvals: ceremony.approvals.map(signedText) } }),
  };
}

function versionOf(version: z.infer<typeof versionSchema>): RosterVersion {
  const { document, signatures, ceremony } = version;
  return {
    document: fromBase64(document),
    signatures,
    ...(ceremony === undefined
      ? {}
      : { ceremony: { note: ceremony.note, approvals: ceremony.approvals.map(signedOf) } }),
  };
}

function signedText({ statement, signature }: Signed): z.infer<typeof signedSchema> {
  return { statement: base64(statement), signature };
}

function signedOf({ statement, signature }: z.infer<typeof signedSchema>): Signed {
  return { statement: fromBase64(statement), signature };
}

function json<Value>(value: Value): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function parsed(body: Uint8Array): unknown {
  return JSON.parse(Buffer.from(body).toString("utf8"));
}

function fromBase64(value: string): Buffer {
  return Buffer.from(value, "base64");
}
