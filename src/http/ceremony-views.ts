/** Ceremonies and unlocks as operators see them: who has said what, and what is missing. CUSTODY.md 6.4. */

import { z } from "zod";
import { ceremonyKinds } from "../custody/statement.ts";
import type { CeremonyView, MissingView, PersonView, UnlockView } from "../ceremony/view.ts";
import { base64Text, digest, keyId, operatorId, timestamp } from "./schemas.ts";

export const ceremonyState = z.enum([
  "draft",
  "previewed",
  "gathering",
  "unlocking",
  "unlocked",
  "signed",
  "verified",
  "published",
  "pending",
  "applied",
  "locked",
  "rejected",
  "aborted",
  "expired",
  "failed",
]);

export const unlockState = z.enum(["gathering", "opened", "refused", "expired", "ended"]);

const id = z
  .string()
  .regex(/^[0-9a-f]{32}$/)
  .meta({ description: "16 random octets, hex" });

const statementDigest = digest.meta({ description: "SHA-256 of its statement, without a newline" });

const people = z
  .array(
    z.strictObject({
      operator: operatorId,
      state: z.enum(["approved", "rejected", "given", "refused", "waiting"]),
      role: z.string().exactOptional(),
      at: timestamp.exactOptional(),
    }),
  )
  .meta({ description: "Who may say something, and what they have said" });

export const missing = z
  .strictObject({
    roles: z
      .record(z.string(), z.int())
      .meta({ description: "How many people of each role; empty when the rules are met" }),
    shares: z.int().exactOptional().meta({ description: "How many shares, for a sealed key" }),
    people: z
      .array(operatorId)
      .exactOptional()
      .meta({ description: "Custodians of a plan who have not approved it" }),
  })
  .meta({ description: "What is missing" });

/** What whoever signed something about a ceremony is told. */
export const ceremonyProgress = z.strictObject({
  id,
  digest: statementDigest,
  state: ceremonyState,
  people,
  missing,
});

export const ceremony = z.strictObject({
  ...ceremonyProgress.shape,
  kind: z.enum(ceremonyKinds),
  keyId: keyId.exactOptional(),
  reason: z.string(),
  requestedBy: operatorId,
  notAfter: timestamp,
  createdAt: timestamp,
  unlock: z
    .strictObject({ id, digest: statementDigest, state: unlockState, expiresAt: timestamp })
    .exactOptional()
    .meta({ description: "The newest unlock" }),
  shareSet: digest.exactOptional().meta({ description: "The share set that was dealt" }),
  results: z
    .array(
      z.strictObject({
        tbs: digest.meta({ description: "SHA-256 of what was approved" }),
        signed: base64Text.meta({ description: "The signed certificate, CRL or request, DER" }),
      }),
    )
    .exactOptional(),
  trouble: z
    .string()
    .exactOptional()
    .meta({ description: "Why the last step did not succeed; it is tried again" }),
  links: z.strictObject({ self: z.string(), statement: z.string() }),
});

export const unlock = z.strictObject({
  id,
  digest: statementDigest,
  ceremony: digest.meta({ description: "Digest of the ceremony that it is for" }),
  keyId,
  epoch: z.int(),
  threshold: z.int(),
  shareCount: z.int(),
  shareSet: digest,
  state: unlockState,
  expiresAt: timestamp,
  createdAt: timestamp,
  people,
  missing,
  links: z.strictObject({ self: z.string(), statement: z.string(), ceremony: z.string() }),
});

export function progressJson(view: CeremonyView): z.input<typeof ceremonyProgress> {
  return {
    id: view.id,
    digest: view.digest,
    state: view.state,
    people: view.people.map(personJson),
    missing: missingJson(view.missing),
  };
}

export function ceremonyJson(view: CeremonyView): z.input<typeof ceremony> {
  const self = `/v1/ceremonies/${view.id}`;
  return {
    ...progressJson(view),
    kind: view.kind,
    ...(view.keyId === undefined ? {} : { keyId: view.keyId }),
    reason: view.reason,
    requestedBy: view.requestedBy,
    notAfter: view.notAfter.toISOString(),
    createdAt: view.createdAt.toISOString(),
    ...(view.unlock === undefined
      ? {}
      : {
          unlock: {
            id: view.unlock.id,
            digest: view.unlock.digest,
            state: view.unlock.state,
            expiresAt: view.unlock.expiresAt.toISOString(),
          },
        }),
    ...(view.shareSet === undefined ? {} : { shareSet: view.shareSet }),
    ...(view.results === undefined
      ? {}
      : {
          results: view.results.map(({ tbs, der }) => ({
            tbs,
            signed: Buffer.from(der).toString("base64"),
          })),
        }),
    ...(view.trouble === undefined ? {} : { trouble: view.trouble }),
    links: { self, statement: `${self}/statement` },
  };
}

export function unlockJson(view: UnlockView): z.input<typeof unlock> {
  const self = `/v1/unlocks/${view.id}`;
  return {
    id: view.id,
    digest: view.digest,
    ceremony: view.ceremony,
    keyId: view.keyId,
    epoch: view.epoch,
    threshold: view.threshold,
    shareCount: view.shareCount,
    shareSet: view.shareSet,
    state: view.state,
    expiresAt: view.expiresAt.toISOString(),
    createdAt: view.createdAt.toISOString(),
    people: view.people.map(personJson),
    missing: missingJson(view.missing),
    links: {
      self,
      statement: `${self}/statement`,
      ceremony: `/v1/ceremonies/${view.ceremony}`,
    },
  };
}

/** Field by field: what a view has beside these stays here. */
function personJson({ operator, state, role, at }: PersonView): z.input<typeof people>[number] {
  return {
    operator,
    state,
    ...(role === undefined ? {} : { role }),
    ...(at === undefined ? {} : { at: at.toISOString() }),
  };
}

export function missingJson({ roles, shares, people }: MissingView): z.input<typeof missing> {
  return {
    roles: { ...roles },
    ...(shares === undefined ? {} : { shares }),
    ...(people === undefined ? {} : { people: [...people] }),
  };
}
