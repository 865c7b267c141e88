/**
 * A database of the service as an auditor reads it: through the `sqlite3` program that systems ship, so that the
 * verifier is one file without native modules.
 */

import { createHash } from "node:crypto";
import type { DatabaseRows } from "./database-check.ts";
import { custodyRows } from "./database-custody-rows.ts";
import {
  digest,
  literal,
  object,
  PAGE,
  pages,
  readPieces,
  SqliteShell,
  textOf,
  texts,
} from "./database-shell.ts";
import { digestOf } from "./digest.ts";
import type { LogSource } from "./log-source.ts";
import { HASH_LENGTH } from "./merkle.ts";
import type {
  CertificateRow,
  CrlRow,
  IdempotencyRow,
  NameRow,
  PolicyVersionRow,
  RequesterStatementRow,
  RevocationRow,
} from "./recorded-rows.ts";
import { encodeEntryBundle, MAX_ENTRY_LENGTH, parseTilePath, TILE_WIDTH } from "./tiles.ts";

/** A CRL beyond this is read twice: whoever can write the database can make one of a gigabyte, which nobody signed. */
const KEPT_CRL_OCTETS = 64 << 20;

/** What SQLite finds wrong with a file: so much of it is read. */
const MAX_DAMAGE = 20;

/** One snapshot of a database: what a running service writes meanwhile is not seen. */
export interface AuditDatabase {
  readonly log: LogSource;
  readonly rows: DatabaseRows;
  close(): Promise<void>;
}

/**
 * Opens a database file for reading.
 *
 * @param program - The sqlite3 command-line program, 3.37 or later, which knows STRICT tables.
 * @throws Error if the program is not there (it says how to install it), or the file is not a database.
 */
export async function openAuditDatabase(file: string, program = "sqlite3"): Promise<AuditDatabase> {
  const shell = new SqliteShell(file, program);
  try {
    await shell.query("BEGIN");
    // The transaction begins with the first read.
    await shell.query("SELECT count(*) AS tables FROM sqlite_master");
    // Rows are read through indexes, by the service and below; one that is damaged hides rows.
    const found = await shell.query<{ integrity_check: string }>(
      `PRAGMA integrity_check(${MAX_DAMAGE})`,
    );
    const damage = found.map((row) => row.integrity_check).filter((line) => line !== "ok");
    const log = databaseLog(shell);
    return { log, rows: databaseRows(shell, log, damage), close: () => shell.close() };
  } catch (error) {
    await shell.close();
    throw error;
  }
}

function databaseLog(shell: SqliteShell): LogSource {
  return {
    async read(path) {
      if (path === "checkpoint") {
        const [row] = await shell.query<{ note: string }>(
          "SELECT hex(note) AS note FROM audit_checkpoint ORDER BY size DESC LIMIT 1",
        );
        return row === undefined ? undefined : Buffer.from(row.note, "hex");
      }
      const position = parseTilePath(path);
      if (position === undefined) {
        return undefined;
      }
      const { level, n, width } = position;
      if (level === "entries") {
        const first = n * TILE_WIDTH;
        const rows = await shell.query<{ idx: number; leaf: string }>(
          `SELECT idx, CASE WHEN length(leaf) <= ${MAX_ENTRY_LENGTH} THEN hex(leaf) ELSE '' END AS leaf
           FROM audit_entry WHERE idx >= ${first} AND idx < ${first + width} ORDER BY idx`,
        );
        // A bundle says where an entry stands only by order, so it ends before the first that is missing.
        const leaves: Uint8Array[] = [];
        for (const { idx, leaf } of rows) {
          if (idx !== first + leaves.length) break;
          leaves.push(Buffer.from(leaf, "hex"));
        }
        return leaves.length === 0 ? undefined : encodeEntryBundle(leaves);
      }
      const [row] = await shell.query<{ hashes: string }>(
        `SELECT hex(hashes) AS hashes FROM audit_tile WHERE level = ${level} AND n = ${n}`,
      );
      return row === undefined
        ? undefined
        : Buffer.from(row.hashes, "hex").subarray(0, width * HASH_LENGTH);
    },
  };
}

function databaseRows(shell: SqliteShell, log: LogSource, damage: readonly string[]): DatabaseRows {
  return {
    log,
    damage,
    custody: custodyRows(shell),
    async schema() {
      const rows = await shell.query<{ type: string; name: string; table: string; sql: string }>(
        `SELECT ${texts("type", "name", "tbl_name AS table", "sql")} FROM sqlite_master
         ORDER BY type, name`,
      );
      return rows.map((row) => ({
        type: textOf(row.type),
        name: textOf(row.name),
        table: textOf(row.table),
        sql: row.sql === null ? "" : textOf(row.sql),
      }));
    },
    async steps() {
      const rows = await shell.query<{ name: string }>(
        `SELECT ${texts("name")} FROM migrations ORDER BY id`,
      );
      return rows.map(({ name }) => textOf(name));
    },
    async logSize() {
      const [row] = await shell.query<{ size: number }>(
        "SELECT coalesce(max(idx), -1) + 1 AS size FROM audit_entry",
      );
      return row!.size;
    },
    async checkpointRows() {
      const [row] = await shell.query<{ count: number; size: number | null }>(
        "SELECT count(*) AS count, max(size) AS size FROM audit_checkpoint",
      );
      return row!;
    },
    async strayEntries() {
      const rows = await shell.query<{ idx: number }>(
        `SELECT idx FROM audit_entry WHERE idx < 0 LIMIT ${PAGE}`,
      );
      return rows.map(({ idx }) => idx);
    },
    tiles() {
      return pages(shell, "audit_tile", "level, n, length(hashes) AS octets", ["level", "n"]);
    },
    async *certificates() {
      const rows = pages<Columns<CertificateRow>>(
        shell,
        "issued_certificate",
        `${texts("issuer", "key_id AS keyId", "serial_number AS serialNumber", "kind", "profile", "requester")},
         ${texts("subject", "state")}, idx AS intentIndex, done_index AS doneIndex, not_before AS notBefore,
         not_after AS notAfter, created_at AS createdAt, hex(tbs_sha256) AS tbsSha256,
         hex(spki_sha256) AS spkiSha256, hex(certificate_sha256) AS sha256, ${object("csr")}, ${object("certificate")}`,
        ["idx"],
      );
      for await (const row of rows) {
        const certificate = row.certificate === null ? null : Buffer.from(row.certificate, "hex");
        yield {
          issuer: textOf(row.issuer),
          keyId: textOf(row.keyId),
          serialNumber: textOf(row.serialNumber),
          kind: textOf(row.kind),
          profile: textOf(row.profile),
          requester: row.requester === null ? null : textOf(row.requester),
          subject: textOf(row.subject),
          state: textOf(row.state),
          intentIndex: row.intentIndex,
          doneIndex: row.doneIndex,
          notBefore: row.notBefore,
          notAfter: row.notAfter,
          createdAt: row.createdAt,
          tbsSha256: digest(row.tbsSha256),
          spkiSha256: digest(row.spkiSha256),
          sha256: digest(row.sha256),
          csr: row.csr === null ? null : Buffer.from(row.csr, "hex"),
          bytesSha256: certificate === null ? null : digestOf(certificate),
          bytes: async () => certificate ?? Buffer.alloc(0),
        };
      }
    },
    async *names() {
      const rows = pages<NameRow>(
        shell,
        "certificate_name",
        `idx AS "index", ${texts("kind", "value", "reversed")}`,
        ["idx", "kind", "value"],
      );
      for await (const { index, kind, value, reversed } of rows) {
        yield { index, kind: textOf(kind), value: textOf(value), reversed: textOf(reversed) };
      }
    },
    async *crls() {
      const rows = pages<Omit<Columns<CrlRow>, "certificate"> & { length: number | null }>(
        shell,
        "crl",
        `${texts("issuer", "key_id AS keyId", "state")}, CAST(number AS TEXT) AS number, this_update AS thisUpdate,
         next_update AS nextUpdate, intent_index AS intentIndex, done_index AS doneIndex,
         hex(tbs_sha256) AS tbsSha256, hex(crl_sha256) AS sha256, length(crl) AS length`,
        ["intent_index", "issuer", "number"],
      );
      for await (const { length, ...row } of rows) {
        const { issuer, number } = row;
        yield {
          ...row,
          issuer: textOf(issuer),
          keyId: textOf(row.keyId),
          state: textOf(row.state),
          tbsSha256: digest(row.tbsSha256),
          sha256: digest(row.sha256),
          ...(await crlBytes(shell, issuer, number, length)),
        };
      }
    },
    async *revocations() {
      const rows = pages<RevocationRow>(
        shell,
        "revocation",
        `${texts("issuer", "key_id AS keyId", "serial_number AS serialNumber", "reason", "requested_by AS requestedBy")},
         revocation_date AS revocationDate, invalidity_date AS invalidityDate, not_after AS notAfter,
         (SELECT c.not_after FROM issued_certificate c
          WHERE c.issuer = revocation.issuer AND c.serial_number = revocation.serial_number) AS certificateNotAfter,
         log_index AS "index"`,
        ["log_index", "issuer", "serial_number"],
      );
      for await (const row of rows) {
        yield {
          ...row,
          issuer: textOf(row.issuer),
          keyId: textOf(row.keyId),
          serialNumber: textOf(row.serialNumber),
          reason: textOf(row.reason),
          requestedBy: textOf(row.requestedBy),
        };
      }
    },
    async *requesterStatements() {
      const rows = pages<Omit<RequesterStatementRow, "sha256"> & { statement: string }>(
        shell,
        "requester_statement",
        `sequence, hex(statement) AS statement, ${texts("signature", "name", "action")}, log_index AS "index"`,
        ["log_index", "sequence"],
      );
      for await (const { statement, signature, name, action, ...row } of rows) {
        yield {
          ...row,
          signature: textOf(signature),
          name: textOf(name),
          action: textOf(action),
          sha256: digestOf(Buffer.from(statement, "hex")),
        };
      }
    },
    async *policyVersions() {
      const rows = pages<Omit<PolicyVersionRow, "documentSha256"> & { document: string }>(
        shell,
        "policy_version",
        `${texts("digest", "document")}, log_index AS "index"`,
        ["log_index"],
      );
      for await (const { document, ...row } of rows) {
        const documentSha256 = digestOf(Buffer.from(document, "hex"));
        yield { index: row.index, digest: textOf(row.digest), documentSha256 };
      }
    },
    async *idempotency() {
      const rows = pages<IdempotencyRow>(
        shell,
        "idempotency",
        `${texts("requester", "key")}, length(body_sha256) AS bodyOctets, created_at AS createdAt, idx AS "index",
         (SELECT hex(c.requester) FROM issued_certificate c
          WHERE c.idx = idempotency.idx AND c.requester IS NOT NULL) AS certificateRequester,
         (SELECT c.created_at FROM issued_certificate c WHERE c.idx = idempotency.idx) AS certificateCreatedAt`,
        ["requester", "key"],
      );
      for await (const row of rows) {
        const { certificateRequester } = row;
        yield {
          ...row,
          requester: textOf(row.requester),
          key: textOf(row.key),
          certificateRequester: certificateRequester === null ? null : textOf(certificateRequester),
        };
      }
    },
  };
}

/** As the program brings them: texts, digests and bytes as hex. */
type Columns<Row> = Omit<
  Row,
  "tbsSha256" | "spkiSha256" | "sha256" | "csr" | "bytesSha256" | "bytes"
> & {
  readonly tbsSha256: string;
  readonly spkiSha256: string;
  readonly sha256: string;
  readonly csr: string | null;
  readonly certificate: string | null;
};

/** @param issuer - As hex. */
async function crlBytes(
  shell: SqliteShell,
  issuer: string,
  number: string,
  length: number | null,
): Promise<Pick<CrlRow, "bytesSha256" | "bytes">> {
  if (length === null) return { bytesSha256: null, bytes: async () => Buffer.alloc(0) };
  const where = `issuer = CAST(X'${issuer}' AS TEXT) AND number = CAST(${literal(number)} AS INTEGER)`;
  const read = (take: (piece: Buffer, offset: number) => void): Promise<void> =>
    readPieces(shell, { table: "crl", column: "crl", where, length }, take);
  const kept = length <= KEPT_CRL_OCTETS ? Buffer.alloc(length) : undefined;
  const sha256 = createHash("sha256");
  await read((piece, offset) => {
    sha256.update(piece);
    kept?.set(piece, offset);
  });
  return {
    bytesSha256: `sha256:${sha256.digest("hex")}`,
    bytes: async () => {
      if (kept !== undefined) return kept;
      const bytes = Buffer.alloc(length);
      await read((piece, offset) => bytes.set(piece, offset));
      return bytes;
    },
  };
}
