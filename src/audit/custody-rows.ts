/**
 * Rows about ceremonies, unlocks and shares, and in which columns they differ from their records: from what the keeper
 * stated and people signed. Columns are named as the tables have them. What is read here may be anybody's.
 */

import { parseCanonicalJson, type Json, type JsonObject } from "./canonical-json.ts";
import { digestOf } from "./digest.ts";
import type { Evidence, LogEntryOf } from "./entry.ts";
import { differing, SAME_MOMENT_MILLISECONDS, within } from "./recorded-rows.ts";
import { splitNote } from "./signed-note.ts";

/** `index` is that of the row's record. Digests are `sha256:` and hex, times milliseconds since 1970, here and below. */
export interface RosterVersionRow {
  readonly index: number;
  readonly version: number;
  readonly digest: string;
  readonly document: Uint8Array;
  /** JSON. */
  readonly evidence: string;
}

/** A row whose state changes. */
interface ChangingRow {
  readonly index: number;
  /** Of the statement or share set. */
  readonly digest: string;
  readonly note: string;
  readonly state: string;
  /** Of the record of the last change. */
  readonly changedIndex: number;
}

export interface CeremonyRow extends ChangingRow {
  readonly id: string;
  readonly kind: string;
  readonly keyId: string | null;
  readonly proposer: string;
  readonly notAfter: number;
  readonly createdAt: number;
}

export interface UnlockRow extends ChangingRow {
  readonly id: string;
  readonly ceremony: string;
  readonly keyId: string;
  readonly shareSet: string;
  readonly expiresAt: number;
}

export interface ShareSetRow extends ChangingRow {
  readonly keyId: string;
  readonly epoch: number;
  readonly ceremony: string;
  /** Of the sealed secret; null where there is none any more. */
  readonly sealedSha256: string | null;
}

/** What one person signed about a ceremony or an unlock. */
export interface SignedRow {
  readonly index: number;
  /** Of the statement that it is about. */
  readonly about: string;
  readonly operator: string;
  readonly statement: Uint8Array;
  readonly signature: string;
}

export interface ApprovalRow extends SignedRow {
  readonly verdict: string;
  readonly role: string;
  readonly at: number;
}

export interface SubmissionRow extends SignedRow {
  readonly verdict: string;
  readonly at: number;
}

export interface ShareRow {
  readonly shareSet: string;
  readonly index: number;
  readonly operator: string;
  readonly fileSha256: string;
  /** Of the file itself; null where it is gone. */
  readonly bytesSha256: string | null;
  /** JSON. */
  readonly confirmation: string | null;
  readonly confirmedIndex: number | null;
  readonly provedAt: number | null;
  readonly provedIndex: number | null;
}

/** The bytes behind a digest that some statement names. */
export interface ObjectRow {
  /** As the row says. */
  readonly digest: string;
  /** Of the bytes themselves. */
  readonly bytesSha256: string;
}

/** A statement of the keeper, out of its note. */
export interface Stated {
  readonly digest: string;
  readonly members: JsonObject;
}

/** @returns undefined if it is no note of a JSON object. */
export function statedIn(note: string): Stated | undefined {
  try {
    const text = Buffer.from(splitNote(Buffer.from(note)).text).subarray(0, -1);
    const members = parseCanonicalJson(text);
    return isObject(members) ? { digest: digestOf(text), members } : undefined;
  } catch {
    return undefined;
  }
}

/** What somebody signed, out of the evidence of a record. */
export function signedIn(evidence: Evidence | undefined): JsonObject {
  try {
    const members = parseCanonicalJson(Buffer.from(evidence?.statement ?? "", "base64"));
    return isObject(members) ? members : {};
  } catch {
    return {};
  }
}

export function rosterDifferences(
  row: RosterVersionRow,
  { data }: LogEntryOf<"roster.changed">,
  ceremony: { readonly note: string; readonly approvals: ReadonlySet<string> } | undefined,
): string[] {
  return differing({
    version: row.version === data.version,
    digest: row.digest === data.roster,
    document:
      digestOf(row.document) === data.roster &&
      Buffer.from(row.document).toString("base64") === data.document,
    evidence: sameEvidence(row.evidence, data, ceremony),
  });
}

function sameEvidence(
  text: string,
  { signatures, ceremony }: LogEntryOf<"roster.changed">["data"],
  recorded: { readonly note: string; readonly approvals: ReadonlySet<string> } | undefined,
): boolean {
  const evidence = jsonObject(text);
  if (!isList(evidence.signatures) || evidence.signatures.length !== signatures.length) {
    return false;
  }
  const same = evidence.signatures.every(
    (one, place) =>
      isObject(one) &&
      one.operator === signatures[place]!.operator &&
      one.signature === signatures[place]!.signature,
  );
  if (!same || (evidence.ceremony === undefined) !== (ceremony === undefined)) return false;
  if (ceremony === undefined) return true;
  const { note, approvals } = isObject(evidence.ceremony) ? evidence.ceremony : {};
  return (
    recorded !== undefined &&
    note === recorded.note &&
    isList(approvals) &&
    approvals.every((one) => isObject(one) && recorded.approvals.has(signedText(one)))
  );
}

/** One text for what was signed and the signature over it. */
export function signedText({ statement, signature }: JsonObject | Evidence): string {
  return JSON.stringify([statement, signature]);
}

export function ceremonyDifferences(
  row: CeremonyRow,
  { at, subject, data }: LogEntryOf<"ceremony.opened">,
  stated: Stated | undefined,
): string[] {
  const { id, kind, keyId, requestedBy, notAfter } = stated?.members ?? {};
  return differing({
    digest: row.digest === subject.ceremony && row.digest === stated?.digest,
    note: row.note === data.note,
    id: row.id === id,
    kind: row.kind === kind && row.kind === data.kind,
    key_id: (row.keyId ?? undefined) === keyId && (row.keyId ?? undefined) === subject.keyId,
    proposer: row.proposer === requestedBy,
    not_after: row.notAfter === timeOf(notAfter),
    created_at: within(row.createdAt, at, SAME_MOMENT_MILLISECONDS),
  });
}

export function unlockDifferences(
  row: UnlockRow,
  { at, subject, data }: LogEntryOf<"unlock.opened">,
  stated: Stated | undefined,
): string[] {
  const { id, ceremony, keyId, shareSet, gatherSeconds } = stated?.members ?? {};
  const gather = typeof gatherSeconds === "number" ? gatherSeconds * 1000 : Number.NaN;
  return differing({
    digest: row.digest === subject.unlock && row.digest === stated?.digest,
    note: row.note === data.note,
    id: row.id === id,
    ceremony: row.ceremony === ceremony && row.ceremony === subject.ceremony,
    key_id: row.keyId === keyId && row.keyId === subject.keyId,
    share_set: row.shareSet === shareSet,
    expires_at: within(row.expiresAt - gather, at, SAME_MOMENT_MILLISECONDS),
  });
}

export function shareSetDifferences(
  row: ShareSetRow,
  { subject, data }: LogEntryOf<"key.generated">,
  stated: Stated | undefined,
): string[] {
  const { keyId, epoch } = stated?.members ?? {};
  return differing({
    digest: row.digest === subject.shareSet && row.digest === stated?.digest,
    note: row.note === data.note,
    key_id: row.keyId === keyId && row.keyId === subject.keyId,
    epoch: row.epoch === epoch && row.epoch === subject.epoch,
    ceremony: row.ceremony === subject.ceremony,
  });
}

export function approvalDifferences(
  row: ApprovalRow,
  { at, subject, data, evidence }: LogEntryOf<"approval.accepted">,
): string[] {
  const { verdict, role } = signedIn(evidence);
  return [
    ...signedDifferences(row, "ceremony", subject.ceremony, evidence),
    ...differing({
      verdict: row.verdict === data.verdict && row.verdict === verdict,
      role: row.role === data.role && row.role === role,
      at: within(row.at, at, SAME_MOMENT_MILLISECONDS),
    }),
  ];
}

export function abortDifferences(
  row: SignedRow,
  { subject, evidence }: LogEntryOf<"ceremony.step">,
): string[] {
  return signedDifferences(row, "ceremony", subject.ceremony, evidence);
}

export function submissionDifferences(
  row: SubmissionRow,
  { type, at, subject, evidence }: LogEntryOf<"share.accepted"> | LogEntryOf<"share.refused">,
): string[] {
  const { verdict } = signedIn(evidence);
  return [
    ...signedDifferences(row, "unlock", subject.unlock, evidence),
    ...differing({
      verdict:
        row.verdict === (type === "share.accepted" ? "give" : "refuse") && row.verdict === verdict,
      at: within(row.at, at, SAME_MOMENT_MILLISECONDS),
    }),
  ];
}

function signedDifferences(
  row: SignedRow,
  column: "ceremony" | "unlock",
  about: string,
  evidence: Evidence | undefined,
): string[] {
  const signed = signedIn(evidence);
  return differing({
    [column]: row.about === about && row.about === signed[column],
    operator: row.operator === signed.operator,
    statement: Buffer.from(row.statement).toString("base64") === evidence?.statement,
    signature: row.signature === evidence?.signature,
  });
}

/** What the log says of one share. */
export interface RecordedShare {
  readonly operator: Json | undefined;
  readonly file: Json | undefined;
  confirmed?: { readonly index: number; readonly evidence: Evidence };
  proved?: { readonly index: number; readonly at: Date };
}

/**
 * @param over - Whether its set is retired or dropped.
 */
export function shareDifferences(
  row: ShareRow,
  { operator, file, confirmed, proved }: RecordedShare,
  over: boolean,
): string[] {
  const confirmation = row.confirmation === null ? undefined : jsonObject(row.confirmation);
  return differing({
    operator: row.operator === operator,
    file_sha256: row.fileSha256 === file,
    file: row.bytesSha256 === (over || confirmed !== undefined ? null : file),
    confirmation:
      (confirmation && signedText(confirmation)) === (confirmed && signedText(confirmed.evidence)),
    confirmed_index: row.confirmedIndex === (confirmed?.index ?? null),
    proved_at:
      proved === undefined
        ? row.provedAt === null
        : row.provedAt !== null && within(row.provedAt, proved.at, SAME_MOMENT_MILLISECONDS),
    proved_index: row.provedIndex === (proved?.index ?? null),
  });
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

function jsonObject(text: string): JsonObject {
  try {
    const value = JSON.parse(text) as Json;
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

function timeOf(value: Json | undefined): number {
  return typeof value === "string" ? Date.parse(value) : Number.NaN;
}
