/** The tables, column by column. A test compares them with what the migrations build; triggers stand only there. */

import { EntitySchema } from "typeorm";

/** Times are milliseconds since 1970; digests are 32 octets. */
const integer = { type: "integer" } as const;
const text = { type: "text" } as const;
const blob = { type: "blob" } as const;
const optional = { nullable: true } as const;
const key = { primary: true } as const;

export const AuditEntries = new EntitySchema({
  name: "AuditEntry",
  tableName: "audit_entry",
  columns: { idx: { ...integer, ...key }, leaf: blob },
});

export const AuditTiles = new EntitySchema({
  name: "AuditTile",
  tableName: "audit_tile",
  withoutRowid: true,
  columns: { level: { ...integer, ...key }, n: { ...integer, ...key }, hashes: blob },
});

/** Only the newest is kept. */
export const AuditCheckpoints = new EntitySchema({
  name: "AuditCheckpoint",
  tableName: "audit_checkpoint",
  columns: { size: { ...integer, ...key }, note: text },
});

/** `idx` is the index of the sign.intent, `done_index` that of the sign.done or sign.abandoned. */
export const IssuedCertificates = new EntitySchema({
  name: "IssuedCertificate",
  tableName: "issued_certificate",
  columns: {
    idx: { ...integer, ...key },
    issuer: text,
    key_id: text,
    serial_number: text, // lower-case hex of the content octets
    kind: text,
    profile: text,
    requester: { ...text, ...optional },
    subject: text, // RFC 4514
    not_before: integer,
    not_after: integer,
    spki_sha256: blob,
    tbs_sha256: blob,
    csr: { ...blob, ...optional },
    certificate: { ...blob, ...optional }, // null until the signer has signed
    certificate_sha256: { ...blob, ...optional },
    done_index: { ...integer, ...optional },
    state: text,
    created_at: integer,
  },
  uniques: [{ name: "issued_certificate_serial", columns: ["issuer", "serial_number"] }],
  indices: [
    {
      name: "issued_certificate_sha256",
      columns: ["certificate_sha256"],
      where: `"certificate_sha256" IS NOT NULL`,
    },
    { name: "issued_certificate_spki", columns: ["spki_sha256"] },
    { name: "issued_certificate_requester", columns: ["requester", "idx"] },
    { name: "issued_certificate_pending", columns: ["state"], where: `"state" = 'pending'` },
    { name: "issued_certificate_authority", columns: ["kind"], where: `"kind" <> 'leaf'` },
  ],
});

export const CertificateNames = new EntitySchema({
  name: "CertificateName",
  tableName: "certificate_name",
  withoutRowid: true,
  columns: {
    idx: { ...integer, ...key },
    kind: { ...text, ...key },
    value: { ...text, ...key },
    reversed: text,
  },
  indices: [{ name: "certificate_name_reversed", columns: ["reversed"] }],
});

export const IdempotencyKeys = new EntitySchema({
  name: "IdempotencyKey",
  tableName: "idempotency",
  columns: {
    requester: { ...text, ...key },
    key: { ...text, ...key },
    body_sha256: blob,
    idx: integer,
    created_at: integer,
  },
  indices: [{ name: "idempotency_created", columns: ["created_at"] }],
});

export const Revocations = new EntitySchema({
  name: "Revocation",
  tableName: "revocation",
  withoutRowid: true,
  columns: {
    issuer: { ...text, ...key },
    key_id: text,
    serial_number: { ...text, ...key },
    reason: text,
    revocation_date: integer,
    invalidity_date: { ...integer, ...optional },
    requested_by: text,
    log_index: integer,
    not_after: integer,
  },
});

export const Crls = new EntitySchema({
  name: "Crl",
  tableName: "crl",
  columns: {
    issuer: { ...text, ...key },
    key_id: text,
    number: { ...integer, ...key },
    tbs_sha256: blob,
    crl: { ...blob, ...optional },
    crl_sha256: { ...blob, ...optional },
    this_update: integer,
    next_update: integer,
    intent_index: integer,
    done_index: { ...integer, ...optional },
    state: text,
  },
  indices: [
    { name: "crl_intent", columns: ["intent_index"], unique: true },
    { name: "crl_pending", columns: ["state"], where: `"state" = 'pending'` },
  ],
});

export const RequesterStatements = new EntitySchema({
  name: "RequesterStatement",
  tableName: "requester_statement",
  columns: {
    sequence: { ...integer, ...key },
    statement: blob,
    signature: text,
    name: text,
    action: text,
    log_index: integer,
  },
});

export const PolicyVersions = new EntitySchema({
  name: "PolicyVersion",
  tableName: "policy_version",
  columns: {
    log_index: { ...integer, ...key },
    digest: text,
    document: text,
  },
});

/** What statements name by digest. Digests of this table and those below are texts, `sha256:` and hex. */
export const Objects = new EntitySchema({
  name: "Object",
  tableName: "object",
  columns: { digest: { ...text, ...key }, octets: blob },
});

export const RosterVersions = new EntitySchema({
  name: "RosterVersion",
  tableName: "roster_version",
  columns: {
    version: { ...integer, ...key },
    digest: text,
    document: blob,
    evidence: text, // JSON: signatures, and the ceremony's note and approvals
    log_index: integer,
  },
});

/** `changed_index` is the index of the record of the last change of state, here and below. */
export const Ceremonies = new EntitySchema({
  name: "Ceremony",
  tableName: "ceremony",
  columns: {
    digest: { ...text, ...key },
    id: text,
    kind: text,
    key_id: { ...text, ...optional },
    proposer: text,
    note: text,
    state: text,
    not_after: integer,
    created_at: integer,
    log_index: integer,
    changed_index: integer,
  },
  uniques: [{ name: "ceremony_id", columns: ["id"] }],
  indices: [{ name: "ceremony_log_index", columns: ["log_index"] }],
});

export const Approvals = new EntitySchema({
  name: "Approval",
  tableName: "approval",
  columns: {
    ceremony: { ...text, ...key },
    operator: { ...text, ...key },
    verdict: text,
    role: text,
    statement: blob,
    signature: text,
    at: integer,
    log_index: integer,
  },
});

export const Aborts = new EntitySchema({
  name: "Abort",
  tableName: "abort",
  columns: {
    ceremony: { ...text, ...key },
    operator: { ...text, ...key },
    statement: blob,
    signature: text,
    log_index: integer,
  },
});

export const Unlocks = new EntitySchema({
  name: "Unlock",
  tableName: "unlock",
  columns: {
    digest: { ...text, ...key },
    id: text,
    ceremony: text,
    key_id: text,
    share_set: text,
    note: text,
    state: text,
    expires_at: integer,
    log_index: integer,
    changed_index: integer,
  },
  uniques: [{ name: "unlock_id", columns: ["id"] }],
  indices: [
    { name: "unlock_ceremony", columns: ["ceremony"] },
    {
      name: "unlock_gathering",
      columns: ["ceremony"],
      unique: true,
      where: `"state" = 'gathering'`,
    },
  ],
});

export const Submissions = new EntitySchema({
  name: "Submission",
  tableName: "submission",
  columns: {
    unlock: { ...text, ...key },
    operator: { ...text, ...key },
    verdict: text,
    statement: blob,
    signature: text,
    at: integer,
    log_index: integer,
  },
});

export const ShareSets = new EntitySchema({
  name: "ShareSet",
  tableName: "share_set",
  columns: {
    digest: { ...text, ...key },
    key_id: text,
    epoch: integer,
    ceremony: text,
    note: text,
    sealed: { ...blob, ...optional }, // CSKB; null once retired or dropped
    state: text,
    log_index: integer,
    changed_index: integer,
  },
  indices: [
    { name: "share_set_key", columns: ["key_id"] },
    { name: "share_set_active", columns: ["key_id"], unique: true, where: `"state" = 'active'` },
  ],
});

export const Shares = new EntitySchema({
  name: "Share",
  tableName: "share",
  columns: {
    share_set: { ...text, ...key },
    idx: { ...integer, ...key },
    operator: text,
    file: { ...blob, ...optional }, // age; null once confirmed, retired or dropped
    file_sha256: text,
    confirmation: { ...text, ...optional }, // JSON: statement, signature
    confirmed_index: { ...integer, ...optional },
    proved_at: { ...integer, ...optional },
    proved_index: { ...integer, ...optional },
  },
});

export const Enrolments = new EntitySchema({
  name: "Enrolment",
  tableName: "enrolment",
  columns: {
    id: { ...text, ...key },
    operator: text,
    keys: text, // JSON
    recipient: text,
    statement: { ...blob, ...optional },
    signature: { ...text, ...optional },
    challenge: blob, // age
    challenge_sha256: text,
    state: text,
    created_at: integer,
  },
  indices: [{ name: "enrolment_created", columns: ["created_at"] }],
});

export const entities = [
  AuditEntries,
  AuditTiles,
  AuditCheckpoints,
  IssuedCertificates,
  CertificateNames,
  IdempotencyKeys,
  Revocations,
  Crls,
  RequesterStatements,
  PolicyVersions,
  Objects,
  RosterVersions,
  Ceremonies,
  Approvals,
  Aborts,
  Unlocks,
  Submissions,
  ShareSets,
  Shares,
  Enrolments,
];
