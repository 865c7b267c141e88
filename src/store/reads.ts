/** Everything that is read from the database, on connections that cannot write: they see what is committed. */

import type {
  CertificateFilter,
  CertificateKind,
  CertificateName,
  CertificateSummary,
  Reads,
  RecordState,
  RevokedRecord,
  StoredCertificate,
  StoredCrl,
  StoredRevocation,
} from "../issuance/records.ts";
import { reversed } from "./batch.ts";
import type { Connection, Database, SqlValue } from "./database.ts";

interface SummaryRow {
  idx: number;
  issuer: string;
  key_id: string;
  serial_number: string;
  kind: CertificateKind;
  profile: string;
  requester: string | null;
  subject: string;
  names: string;
  not_before: number;
  not_after: number;
  spki_sha256: Uint8Array;
  tbs_sha256: Uint8Array;
  certificate_sha256: Uint8Array | null;
  done_index: number | null;
  state: RecordState;
  created_at: number;
  revocation_reason: string | null;
  revocation_date: number;
}

interface CertificateRow extends SummaryRow {
  csr: Uint8Array | null;
  certificate: Uint8Array | null;
}

interface CrlRow {
  issuer: string;
  key_id: string;
  number: string;
  tbs_sha256: Uint8Array;
  crl: Uint8Array | null;
  crl_sha256: Uint8Array | null;
  this_update: number;
  next_update: number;
  intent_index: number;
  done_index: number | null;
  state: RecordState;
}

const summaryColumns = `
  c.idx, c.issuer, c.key_id, c.serial_number, c.kind, c.profile, c.requester, c.subject,
  (SELECT json_group_array(json_array(n.kind, n.value)) FROM certificate_name n WHERE n.idx = c.idx) AS names,
  c.not_before, c.not_after, c.spki_sha256, c.tbs_sha256, c.certificate_sha256, c.done_index, c.state,
  c.created_at, r.reason AS revocation_reason, r.revocation_date`;

const certificateTables = `
  issued_certificate c
  LEFT JOIN revocation r ON r.issuer = c.issuer AND r.serial_number = c.serial_number`;

const selectCertificates = `SELECT ${summaryColumns}, c.csr, c.certificate FROM ${certificateTables}`;

// The number as text: JavaScript's numbers end at 2^53.
const selectCrls = `
  SELECT issuer, key_id, CAST(number AS TEXT) AS number, tbs_sha256, crl, crl_sha256, this_update, next_update,
    intent_index, done_index, state
  FROM crl`;

/**
 * @param now - Decides which certificates a list calls valid or expired.
 */
export function createReads(
  { reader, scanner }: Database,
  now: () => Date = () => new Date(),
): Reads {
  async function certificates(
    connection: Connection,
    where: string,
    parameters: readonly SqlValue[] = [],
  ): Promise<StoredCertificate[]> {
    const rows = await connection.all<CertificateRow>(
      `${selectCertificates} WHERE ${where}`,
      parameters,
    );
    return rows.map(certificateOf);
  }

  async function crls(where: string, parameters: readonly SqlValue[] = []): Promise<StoredCrl[]> {
    const rows = await reader.all<CrlRow>(`${selectCrls} WHERE ${where}`, parameters);
    return rows.map(crlOf);
  }

  return {
    async certificate(issuer, serialNumber) {
      const found = await certificates(reader, "c.issuer = ? AND c.serial_number = ?", [
        issuer,
        serialNumber,
      ]);
      return found[0];
    },

    async certificateBySha256(digest) {
      return (await certificates(reader, "c.certificate_sha256 = ?", [digest]))[0];
    },

    certificatesByKey: (spkiSha256) =>
      certificates(reader, "c.spki_sha256 = ? ORDER BY c.idx", [spkiSha256]),

    issuerCertificates: () =>
      certificates(reader, "c.kind <> 'leaf' AND c.state = 'issued' ORDER BY c.idx"),

    async listCertificates(filter) {
      const { where, parameters } = searchOf(filter, now());
      // The page is chosen before anything is read of its rows. One more than asked for tells whether there is
      // another.
      const rows = await scanner.all<SummaryRow>(
        `SELECT ${summaryColumns} FROM ${certificateTables}
         WHERE c.idx IN (
           SELECT c.idx FROM ${certificateTables} WHERE ${where} ORDER BY c.idx DESC LIMIT ?)
         ORDER BY c.idx DESC`,
        [...parameters, filter.limit + 1],
      );
      const page = rows.slice(0, filter.limit).map(summaryOf);
      const last = page.at(-1);
      return rows.length > filter.limit && last !== undefined
        ? { certificates: page, next: last.index }
        : { certificates: page };
    },

    async revocation(issuer, serialNumber) {
      const [row] = await reader.all<{
        issuer: string;
        key_id: string;
        serial_number: string;
        reason: string;
        revocation_date: number;
        invalidity_date: number | null;
        requested_by: string;
        log_index: number;
        not_after: number;
      }>("SELECT * FROM revocation WHERE issuer = ? AND serial_number = ?", [issuer, serialNumber]);
      if (row === undefined) return undefined;
      return {
        issuer: row.issuer,
        keyId: row.key_id,
        serialNumber: row.serial_number,
        reason: row.reason,
        revocationDate: new Date(row.revocation_date),
        invalidityDate: dateOf(row.invalidity_date),
        requestedBy: row.requested_by,
        logIndex: row.log_index,
        notAfter: new Date(row.not_after),
      } satisfies StoredRevocation;
    },

    async revokedForCrl(issuer, notAfterFrom) {
      // One text for all rows takes a third of the time that an object a row does.
      const [row] = await scanner.all<{ rows: string | null }>(
        `SELECT group_concat(serial_number || ' ' || revocation_date || ' ' || reason || ' ' ||
           coalesce(invalidity_date, '') || ' ' || not_after, char(10)) AS rows
         FROM (SELECT * FROM revocation WHERE issuer = ? AND not_after >= ? ORDER BY serial_number)`,
        [issuer, notAfterFrom?.getTime() ?? Number.MIN_SAFE_INTEGER],
      );
      return row!.rows === null ? [] : row!.rows.split("\n").map(revokedOf);
    },

    async latestCrl(issuer) {
      return (
        await crls("issuer = ? AND state = 'issued' ORDER BY crl.number DESC LIMIT 1", [issuer])
      )[0];
    },

    async highestCrlNumber(issuer) {
      const [row] = await reader.all<{ number: string | null }>(
        "SELECT CAST(max(number) AS TEXT) AS number FROM crl WHERE issuer = ?",
        [issuer],
      );
      return row!.number === null ? undefined : BigInt(row!.number);
    },

    async pendingIntents() {
      return {
        certificates: await certificates(reader, "c.state = 'pending' ORDER BY c.idx"),
        crls: await crls("state = 'pending' ORDER BY intent_index"),
      };
    },

    async idempotency(requester, key, notBefore) {
      const [row] = await reader.all<CertificateRow & { body_sha256: Uint8Array }>(
        `SELECT i.body_sha256, ${summaryColumns}, c.csr, c.certificate
         FROM idempotency i CROSS JOIN ${certificateTables}
         WHERE i.requester = ? AND i.key = ? AND i.created_at >= ? AND c.idx = i.idx`,
        [requester, key, notBefore.getTime()],
      );
      return row && { bodySha256: row.body_sha256, certificate: certificateOf(row) };
    },

    async requesterStatements() {
      const rows = await reader.all<{
        sequence: number;
        statement: Uint8Array;
        signature: string;
        name: string;
        action: "set" | "remove";
        log_index: number;
      }>("SELECT * FROM requester_statement ORDER BY sequence");
      return rows.map(({ log_index: logIndex, ...row }) => ({ ...row, logIndex }));
    },

    async policyDigest() {
      const [row] = await reader.all<{ digest: string }>(
        "SELECT digest FROM policy_version ORDER BY log_index DESC LIMIT 1",
      );
      return row?.digest;
    },

    async entries(from, to) {
      const rows = await reader.all<{ leaf: Uint8Array }>(
        "SELECT leaf FROM audit_entry WHERE idx >= ? AND idx < ? ORDER BY idx",
        [from, to],
      );
      return rows.map(({ leaf }) => leaf);
    },

    async tile(level, n) {
      const [row] = await reader.all<{ hashes: Uint8Array }>(
        "SELECT hashes FROM audit_tile WHERE level = ? AND n = ?",
        [level, n],
      );
      return row?.hashes;
    },

    async checkpoint() {
      const [row] = await reader.all<{ size: number; note: string }>(
        "SELECT size, note FROM audit_checkpoint ORDER BY size DESC LIMIT 1",
      );
      return row;
    },

    async logSize() {
      const [row] = await reader.all<{ size: number }>(
        "SELECT coalesce(max(idx), -1) + 1 AS size FROM audit_entry",
      );
      return row!.size;
    },

    async counts() {
      const [row] = await scanner.all<{
        entries: number;
        issued: number;
        pending: number;
        revoked: number;
      }>(
        `SELECT (SELECT coalesce(max(idx), -1) + 1 FROM audit_entry) AS entries,
           (SELECT count(*) FROM issued_certificate WHERE certificate_sha256 IS NOT NULL) AS issued,
           (SELECT count(*) FROM issued_certificate WHERE state = 'pending') AS pending,
           (SELECT count(*) FROM revocation) AS revoked`,
      );
      return row!;
    },
  };
}

/** The conditions of a search; every value is bound. */
function searchOf(filter: CertificateFilter, now: Date): { where: string; parameters: SqlValue[] } {
  const conditions = ["true"];
  const parameters: SqlValue[] = [];
  const add = (condition: string, ...values: SqlValue[]) => {
    conditions.push(condition);
    parameters.push(...values);
  };
  // The plus keeps SQLite from reading all of an issuer through the index of serial numbers, to sort it by idx.
  if (filter.issuer !== undefined) add("+c.issuer = ?", filter.issuer);
  if (filter.requester !== undefined) add("c.requester = ?", filter.requester);
  if (filter.profile !== undefined) add("c.profile = ?", filter.profile);
  if (filter.cursor !== undefined) add("c.idx < ?", filter.cursor);
  if (filter.serialPrefix !== undefined) {
    const serials =
      "SELECT idx FROM issued_certificate WHERE serial_number >= ? AND serial_number < ?";
    add(`c.idx IN (${serials})`, filter.serialPrefix, `${filter.serialPrefix}g`);
  }
  if (filter.name?.startsWith("*.") === true) {
    const prefix = reversed(filter.name.slice(1));
    const names = "SELECT idx FROM certificate_name WHERE reversed > ? AND reversed < ?";
    add(`c.idx IN (${names})`, prefix, `${prefix}\u{10ffff}`);
  } else if (filter.name !== undefined) {
    const names = "SELECT idx FROM certificate_name WHERE reversed = ?";
    add(`c.idx IN (${names})`, reversed(filter.name));
  }
  switch (filter.state) {
    case "valid":
      add("c.state = 'issued' AND r.serial_number IS NULL AND c.not_after >= ?", now.getTime());
      break;
    case "expired":
      add("c.state = 'issued' AND r.serial_number IS NULL AND c.not_after < ?", now.getTime());
      break;
    case "revoked":
      add("r.serial_number IS NOT NULL");
      break;
    case undefined:
      break;
  }
  return { where: conditions.join(" AND "), parameters };
}

function summaryOf(row: SummaryRow): CertificateSummary {
  return {
    index: row.idx,
    issuer: row.issuer,
    keyId: row.key_id,
    serialNumber: row.serial_number,
    kind: row.kind,
    profile: row.profile,
    requester: row.requester,
    subject: row.subject,
    names: (JSON.parse(row.names) as [string, string][]).map(([kind, value]): CertificateName => ({
      kind,
      value,
    })),
    notBefore: new Date(row.not_before),
    notAfter: new Date(row.not_after),
    spkiSha256: row.spki_sha256,
    tbsSha256: row.tbs_sha256,
    certificateSha256: row.certificate_sha256,
    state: row.state,
    doneIndex: row.done_index,
    createdAt: new Date(row.created_at),
    revocation:
      row.revocation_reason === null
        ? null
        : { reason: row.revocation_reason, revocationDate: new Date(row.revocation_date) },
  };
}

function certificateOf(row: CertificateRow): StoredCertificate {
  return { ...summaryOf(row), csr: row.csr, certificate: row.certificate };
}

function crlOf(row: CrlRow): StoredCrl {
  return {
    issuer: row.issuer,
    keyId: row.key_id,
    number: BigInt(row.number),
    tbsSha256: row.tbs_sha256,
    thisUpdate: new Date(row.this_update),
    nextUpdate: new Date(row.next_update),
    intentIndex: row.intent_index,
    doneIndex: row.done_index,
    state: row.state,
    crl: row.crl,
    crlSha256: row.crl_sha256,
  };
}

/** Reads back a line of {@link Reads.revokedForCrl}: no reason of RFC 5280 has a space. */
function revokedOf(line: string): RevokedRecord {
  const [serialNumber, revocationDate, reason, invalidityDate, notAfter] = line.split(" ") as [
    string,
    string,
    string,
    string,
    string,
  ];
  return {
    serialNumber,
    revocationDate: new Date(Number(revocationDate)),
    reason,
    invalidityDate: invalidityDate === "" ? null : new Date(Number(invalidityDate)),
    notAfter: new Date(Number(notAfter)),
  };
}

function dateOf(milliseconds: number | null): Date | null {
  return milliseconds === null ? null : new Date(milliseconds);
}
