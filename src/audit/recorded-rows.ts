/**
 * Rows of a database, and in which columns they differ from what they are rows of: the record, the certificate, the
 * request. Columns are named as the tables have them.
 */

import { extensionOf, type TbsCertificate } from "../x509/certificate.ts";
import type { CertificateList } from "../x509/certificate-list.ts";
import { readCertificationRequest } from "../x509/certification-request.ts";
import { equalOctets } from "../x509/der.ts";
import { parseBasicConstraints } from "../x509/extension.ts";
import { parseGeneralNames, type GeneralName } from "../x509/general-name.ts";
import { nameText } from "../x509/name.ts";
import { extensionOids } from "../x509/oid.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { serialNumberHex } from "../x509/serial-number.ts";
import { digestOf } from "./digest.ts";
import type { LogEntryOf } from "./entry.ts";

interface SigningRow {
  readonly issuer: string;
  readonly keyId: string;
  readonly state: string;
  readonly intentIndex: number;
  /** Of the sign.done or sign.abandoned. */
  readonly doneIndex: number | null;
  /** `sha256:` and hex, here and below. */
  readonly tbsSha256: string | null;
  /** As the row says. */
  readonly sha256: string | null;
  /** Of the stored bytes themselves. */
  readonly bytesSha256: string | null;
  /** The stored bytes; to be asked for only once their digest is a known one. */
  readonly bytes: () => Promise<Uint8Array>;
}

/** Times are milliseconds since 1970, here and below. */
export interface CertificateRow extends SigningRow {
  readonly serialNumber: string;
  readonly kind: string;
  readonly profile: string;
  readonly requester: string | null;
  readonly subject: string;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly spkiSha256: string | null;
  readonly csr: Uint8Array | null;
  readonly createdAt: number;
}

/** A name that searches find a certificate by. */
export interface NameRow {
  /** Of the certificate's sign.intent. */
  readonly index: number;
  readonly kind: string;
  readonly value: string;
  readonly reversed: string;
}

export interface CrlRow extends SigningRow {
  readonly number: string;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
}

export interface RevocationRow {
  readonly issuer: string;
  readonly keyId: string;
  readonly serialNumber: string;
  readonly reason: string;
  readonly revocationDate: number;
  readonly invalidityDate: number | null;
  readonly requestedBy: string;
  readonly notAfter: number;
  /** Of the row of the certificate; null if there is none. */
  readonly certificateNotAfter: number | null;
  readonly index: number;
}

export interface RequesterStatementRow {
  readonly sequence: number;
  /** Of the statement. */
  readonly sha256: string;
  readonly signature: string;
  readonly name: string;
  readonly action: string;
  readonly index: number;
}

export interface PolicyVersionRow {
  /** As the row says. */
  readonly digest: string;
  /** Of the stored document itself. */
  readonly documentSha256: string;
  readonly index: number;
}

export interface IdempotencyRow {
  readonly requester: string;
  readonly key: string;
  readonly bodyOctets: number;
  readonly createdAt: number;
  /** Of the intent. */
  readonly index: number;
  /** Of the row of the certificate; null if there is none. */
  readonly certificateRequester: string | null;
  readonly certificateCreatedAt: number | null;
}

/** A record is made within moments of the row beside it, by the same clock. */
export const SAME_MOMENT_MILLISECONDS = 60_000;

/** A CRL's times are taken before its entries are read, of which there may be millions. */
const SAME_CRL_MILLISECONDS = 600_000;

/** Of a certificate's row, from its sign.intent. */
export function differencesFromIntent(
  row: CertificateRow,
  { at, actor, subject, data }: LogEntryOf<"sign.intent">,
): string[] {
  const asked = actor.kind === "requester";
  const csr = row.csr === null ? undefined : digestOf(row.csr);
  return differing({
    issuer: row.issuer === subject.issuer,
    key_id: row.keyId === subject.keyId,
    serial_number: row.serialNumber === subject.serialNumber,
    tbs_sha256: row.tbsSha256 === data.tbs,
    profile: row.profile === data.profile,
    csr: csr === data.csr,
    requester: row.requester === (asked ? actor.id : null),
    // Whoever asks gets leaves; what nobody asked for is a CA's, and its profile says of which kind.
    kind: asked ? row.kind === "leaf" : row.kind === data.profile && row.kind !== "leaf",
    created_at: within(row.createdAt, at, SAME_MOMENT_MILLISECONDS),
  });
}

/** Of a certificate's row and its names, from the certificate. */
export function differencesFromCertificate(
  row: CertificateRow,
  names: readonly NameRow[],
  tbs: TbsCertificate,
): string[] {
  const subjectAltName = extensionOf(tbs, extensionOids.subjectAltName);
  return differing({
    serial_number: row.serialNumber === serialNumberHex(tbs.serialNumber),
    kind: row.kind === kindOf(tbs),
    subject: row.subject === nameText(tbs.subject),
    not_before: row.notBefore === tbs.notBefore.getTime(),
    not_after: row.notAfter === tbs.notAfter.getTime(),
    spki_sha256: row.spkiSha256 === digestOf(tbs.subjectPublicKeyInfo),
    certificate_name: sameNames(
      names,
      subjectAltName === undefined ? [] : parseGeneralNames(subjectAltName.value),
    ),
  });
}

/**
 * Of the row and names of a certificate that is not there, from the request that its intent names by digest. Its
 * validity is in neither: all that is known is that the intent lay in it.
 */
export function differencesFromRequest(
  row: CertificateRow,
  names: readonly NameRow[],
  { at }: LogEntryOf<"sign.intent">,
): string[] {
  const wrong = differing({
    not_before: row.notBefore <= at.getTime() + SAME_MOMENT_MILLISECONDS,
    not_after: row.notAfter > at.getTime() - SAME_MOMENT_MILLISECONDS,
  });
  if (row.csr === null) {
    return [...wrong, ...differing({ certificate_name: names.length === 0 })];
  }
  try {
    const request = readCertificationRequest(row.csr);
    return [
      ...wrong,
      ...differing({
        subject: row.subject === nameText(request.subject),
        spki_sha256: row.spkiSha256 === `sha256:${spkiDigest(request.publicKey.spki)}`,
        certificate_name: sameNames(names, request.names),
      }),
    ];
  } catch {
    return [...wrong, "csr"];
  }
}

/** Of a CRL's row, from its sign.intent. */
export function crlDifferencesFromIntent(
  row: CrlRow,
  { at, subject, data }: LogEntryOf<"sign.intent">,
): string[] {
  return differing({
    issuer: row.issuer === subject.issuer,
    key_id: row.keyId === subject.keyId,
    number: row.number === data.number,
    tbs_sha256: row.tbsSha256 === data.tbs,
    this_update: within(row.thisUpdate, at, SAME_CRL_MILLISECONDS),
    next_update: row.nextUpdate > row.thisUpdate,
  });
}

/** Of a CRL's row, from the CRL. */
export function crlDifferencesFromList(row: CrlRow, list: CertificateList): string[] {
  return differing({
    number: row.number === String(list.crlNumber),
    this_update: row.thisUpdate === list.thisUpdate.getTime(),
    next_update: row.nextUpdate === list.nextUpdate.getTime(),
  });
}

/** Of a revocation's row, from its record and from the row of the certificate. */
export function revocationDifferences(
  row: RevocationRow,
  { actor, subject, data }: LogEntryOf<"certificate.revoked">,
): string[] {
  const { invalidityDate } = data;
  return differing({
    issuer: row.issuer === subject.issuer,
    key_id: row.keyId === subject.keyId,
    serial_number: row.serialNumber === subject.serialNumber,
    reason: row.reason === data.reason,
    revocation_date: row.revocationDate === Date.parse(data.revocationDate),
    invalidity_date:
      row.invalidityDate === (invalidityDate === undefined ? null : Date.parse(invalidityDate)),
    requested_by: row.requestedBy === actor.id,
    not_after: row.notAfter === row.certificateNotAfter,
  });
}

/** Of a requester's statement, from its record. */
export function statementDifferences(
  row: RequesterStatementRow,
  { data, evidence }: LogEntryOf<"policy.changed">,
): string[] {
  const statement = evidence && digestOf(Buffer.from(evidence.statement, "base64"));
  return differing({
    sequence: row.sequence === data?.sequence,
    name: row.name === data?.requester,
    action: row.action === data?.action,
    signature: row.signature === evidence?.signature,
    statement: row.sha256 === statement,
  });
}

/** Of a kept answer, from the row of the certificate it stands for. */
export function idempotencyDifferences(row: IdempotencyRow): string[] {
  return differing({
    requester: row.requester === row.certificateRequester,
    created_at: row.createdAt === row.certificateCreatedAt,
    body_sha256: row.bodyOctets === 32,
  });
}

/** From the last character to the first: what names end in is then a prefix. */
function reversed(text: string): string {
  return Array.from(text).reverse().join("");
}

export function differing(same: Readonly<Record<string, boolean>>): string[] {
  return Object.keys(same).filter((column) => !same[column]);
}

export function within(milliseconds: number, at: Date, tolerance: number): boolean {
  return Math.abs(milliseconds - at.getTime()) <= tolerance;
}

function kindOf(tbs: TbsCertificate): string {
  const basicConstraints = extensionOf(tbs, extensionOids.basicConstraints);
  if (basicConstraints === undefined || !parseBasicConstraints(basicConstraints.value).cA) {
    return "leaf";
  }
  return equalOctets(tbs.subject, tbs.issuer) ? "root" : "intermediate";
}

/** Rows hold names in their one spelling; a request may ask for a host in capitals. */
function sameNames(rows: readonly NameRow[], names: readonly GeneralName[]): boolean {
  const wanted = new Set(
    names.map((name) => {
      if (!("value" in name)) return name.kind;
      return `${name.kind}:${name.kind === "dns" ? name.value.toLowerCase() : name.value}`;
    }),
  );
  return (
    rows.length === wanted.size &&
    rows.every(
      ({ kind, value, reversed: backwards }) =>
        wanted.has(`${kind}:${value}`) && backwards === reversed(value),
    )
  );
}
