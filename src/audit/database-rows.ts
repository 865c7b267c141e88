/**
 * A database of the service as an auditor reads it: through the `sqlite3` program that systems ship, so that the
 * verifier is one file without native modules.
 */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { createHash } from "node:crypto";
import { devNull } from "node:os";
import { resolve } from "node:path";
import type { DatabaseRows } from "./database-check.ts";
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

/** Rows a query brings. Certificates travel as hex, with their requests about 3 kB each. */
const PAGE = 1000;

/** Octets of a CRL that a query brings. */
const PIECE = 1 << 20;

/** A CRL beyond this is read twice: whoever can write the database can make one of a gigabyte, which nobody signed. */
const KEPT_CRL_OCTETS = 64 << 20;

/** More than a certificate or request that the service handles has; what goes on after that has another digest. */
const MAX_OBJECT_OCTETS = 1 << 17;

/** What SQLite finds wrong with a file: so much of it is read. */
const MAX_DAMAGE = 20;

const MARKER = "--- end of answer ---";
const END = `${MARKER}\n`;

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

/** Columns (`name` or `name AS alias`) whose text comes as hex: the program ends a text at its first NUL. */
function texts(...columns: readonly string[]): string {
  return columns
    .map((column) => {
      const [name, alias = name] = column.split(" AS ");
      return `CASE WHEN "${name}" IS NULL THEN NULL ELSE hex("${name}") END AS "${alias}"`;
    })
    .join(", ");
}

function textOf(hex: string): string {
  return Buffer.from(hex, "hex").toString();
}

/** A column of bytes as hex. One octet too many is enough to tell that there are too many. */
function object(column: string): string {
  return `CASE WHEN ${column} IS NULL THEN NULL
    ELSE hex(substr(${column}, 1, ${MAX_OBJECT_OCTETS + 1})) END AS ${column}`;
}

/** `sha256:` and lower case, from hex. */
function digest(hex: string): string | null {
  return hex === "" ? null : `sha256:${hex.toLowerCase()}`;
}

/** @param issuer - As hex. */
async function crlBytes(
  shell: SqliteShell,
  issuer: string,
  number: string,
  length: number | null,
): Promise<Pick<CrlRow, "bytesSha256" | "bytes">> {
  if (length === null) return { bytesSha256: null, bytes: async () => Buffer.alloc(0) };
  const read = async (take: (piece: Buffer, offset: number) => void): Promise<void> => {
    for (let offset = 0; offset < length; offset += PIECE) {
      const [row] = await shell.query<{ piece: string }>(
        `SELECT hex(substr(crl, ${offset + 1}, ${PIECE})) AS piece FROM crl
         WHERE issuer = CAST(X'${issuer}' AS TEXT) AND number = CAST(${literal(number)} AS INTEGER)`,
      );
      take(Buffer.from(row?.piece ?? "", "hex"), offset);
    }
  };
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

/** Every row of a table in the order of `keys`, which together are unique, a page at a time. */
async function* pages<Row>(
  shell: SqliteShell,
  table: string,
  columns: string,
  keys: readonly string[],
): AsyncGenerator<Row> {
  const names = keys.map((_, index) => `key_${index}`);
  const order = keys.map((key) => `"${key}"`).join(", ");
  const keyColumns = keys
    .map(
      (key, index) =>
        `CASE typeof("${key}") WHEN 'integer' THEN CAST("${key}" AS TEXT) ELSE 'x' || hex("${key}") END
         AS ${names[index]}`,
    )
    .join(", ");
  for (let after: string | undefined; ;) {
    const where = after === undefined ? "" : `WHERE (${order}) > (${after})`;
    const page = await shell.query<Row & Record<string, string>>(
      `SELECT ${columns}, ${keyColumns} FROM "${table}" ${where} ORDER BY ${order} LIMIT ${PAGE}`,
    );
    const before = after;
    for (const row of page) {
      after = names.map((name) => keyLiteral(row[name]!)).join(", ");
      for (const name of names) {
        delete (row as Record<string, string>)[name];
      }
      yield row as Row;
    }
    if (page.length < PAGE) {
      return;
    }
    if (after === before) {
      throw new Error(`${table} cannot be read in order`);
    }
  }
}

/** A key as it is sent back: an integer stays, a text goes as hex, so that it cannot end the statement. */
function keyLiteral(key: string): string {
  return key.startsWith("x") ? `CAST(X'${key.slice(1)}' AS TEXT)` : key;
}

/** A text from the database cannot end the statement it is put into. */
function literal(text: string): string {
  return `CAST(X'${Buffer.from(text).toString("hex")}' AS TEXT)`;
}

interface Waiting {
  readonly answer: string[];
  tail: string;
  readonly resolve: (text: string) => void;
  readonly reject: (error: Error) => void;
}

/** One process of the program, asked one thing after the other. */
class SqliteShell {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  #failure: Error | undefined;
  #errors = "";
  #waiting: Waiting | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(file: string, program: string) {
    // Without the init file of whoever runs it; stops at the first error.
    const options = ["-init", devNull, "-batch", "-bail", "-readonly", "-json", resolve(file)];
    const child = spawn(program, options, { stdio: "pipe" });
    this.#process = child;
    this.#ended = new Promise((resolve) => {
      child.on("error", (error: NodeJS.ErrnoException) => {
        this.#fail(error.code === "ENOENT" ? missing(program) : error);
        resolve();
      });
      child.on("close", () => {
        this.#fail(
          new Error(`the database cannot be read: ${this.#errors.trim() || "sqlite3 ended"}`),
        );
        resolve();
      });
    });
    child.stdin.on("error", () => {}); // the process has ended, which is reported above
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-1000);
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => this.#receive(text));
  }

  /** The rows of one statement. */
  query<Row>(sql: string): Promise<Row[]> {
    const asked = this.#last.then(() => this.#ask(sql));
    this.#last = asked.catch(() => {});
    return asked.then((text) => (text === "" ? [] : (JSON.parse(text) as Row[])));
  }

  async close(): Promise<void> {
    await this.#last;
    this.#process.stdin.end();
    await this.#ended;
  }

  #ask(sql: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#waiting = { answer: [], tail: "", resolve, reject };
      this.#process.stdin.write(`${sql.replaceAll("\n", " ")};\n.print "${MARKER}"\n`);
    });
  }

  #receive(text: string): void {
    const waiting = this.#waiting;
    if (waiting === undefined) {
      return;
    }
    waiting.answer.push(text);
    // In pieces, maybe. Inside an answer nothing is followed by a line break but brackets and commas.
    waiting.tail = (waiting.tail + text).slice(-END.length);
    if (waiting.tail === END) {
      this.#waiting = undefined;
      waiting.resolve(waiting.answer.join("").slice(0, -END.length).trimEnd());
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }
}

function missing(program: string): Error {
  return new Error(
    `the program ${program} is needed to read a database and is not installed: ` +
      "apt-get install sqlite3 (Debian, Ubuntu), dnf install sqlite (Fedora), apk add sqlite (Alpine), " +
      "brew install sqlite (macOS)",
  );
}
