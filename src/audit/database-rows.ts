/**
 * A database of the service as an auditor reads it: through the `sqlite3` program that systems ship, so that the
 * verifier is one file without native modules.
 */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { createHash } from "node:crypto";
import { devNull } from "node:os";
import { resolve } from "node:path";
import type {
  CertificateRow,
  CrlRow,
  DatabaseRows,
  PolicyVersionRow,
  RequesterStatementRow,
  RevocationRow,
} from "./database-check.ts";
import { digestOf } from "./digest.ts";
import type { LogSource } from "./log-source.ts";
import { HASH_LENGTH } from "./merkle.ts";
import { encodeEntryBundle, parseTilePath, TILE_WIDTH } from "./tiles.ts";

/** Rows a query brings. Certificates travel as hex, about 4 kB each. */
const PAGE = 1000;

/** Octets of a CRL that a query brings: it may have hundreds of megabytes, which are hashed piece by piece. */
const PIECE = 1 << 20;

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
 * @param program - The sqlite3 command-line program, 3.33 or later.
 * @throws Error if the program is not there (it says how to install it), or the file is not a database.
 */
export async function openAuditDatabase(file: string, program = "sqlite3"): Promise<AuditDatabase> {
  const shell = new SqliteShell(file, program);
  try {
    await shell.query("BEGIN");
    // The transaction begins with the first read.
    await shell.query("SELECT count(*) AS tables FROM sqlite_master");
  } catch (error) {
    await shell.close();
    throw error;
  }
  const log = databaseLog(shell);
  return { log, rows: databaseRows(shell, log), close: () => shell.close() };
}

function databaseLog(shell: SqliteShell): LogSource {
  return {
    async read(path) {
      if (path === "checkpoint") {
        const [row] = await shell.query<{ note: string }>(
          "SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1",
        );
        return row === undefined ? undefined : Buffer.from(row.note);
      }
      const position = parseTilePath(path);
      if (position === undefined) {
        return undefined;
      }
      const { level, n, width } = position;
      if (level === "entries") {
        const first = n * TILE_WIDTH;
        const rows = await shell.query<{ idx: number; leaf: string }>(
          `SELECT idx, hex(leaf) AS leaf FROM audit_entry
           WHERE idx >= ${first} AND idx < ${first + width} ORDER BY idx`,
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

function databaseRows(shell: SqliteShell, log: LogSource): DatabaseRows {
  return {
    log,
    async logSize() {
      const [row] = await shell.query<{ size: number }>(
        "SELECT coalesce(max(idx), -1) + 1 AS size FROM audit_entry",
      );
      return row!.size;
    },
    async *certificates() {
      const rows = pages<Columns<CertificateRow> & { certificate: string | null }>(
        shell,
        "issued_certificate",
        `issuer, key_id AS keyId, serial_number AS serialNumber, profile, state, idx AS intentIndex,
         done_index AS doneIndex, hex(tbs_sha256) AS tbsSha256, hex(certificate_sha256) AS sha256,
         CASE WHEN certificate IS NULL THEN NULL ELSE hex(certificate) END AS certificate`,
        ["idx"],
      );
      for await (const { certificate, tbsSha256, sha256, ...row } of rows) {
        yield {
          ...row,
          tbsSha256: digest(tbsSha256),
          sha256: digest(sha256),
          bytesSha256: certificate === null ? null : digestOf(Buffer.from(certificate, "hex")),
        };
      }
    },
    async *crls() {
      const rows = pages<Columns<CrlRow> & { length: number | null }>(
        shell,
        "crl",
        `issuer, key_id AS keyId, CAST(number AS TEXT) AS number, state, intent_index AS intentIndex,
         done_index AS doneIndex, hex(tbs_sha256) AS tbsSha256, hex(crl_sha256) AS sha256, length(crl) AS length`,
        ["intent_index", "issuer", "number"],
      );
      for await (const { length, tbsSha256, sha256, ...row } of rows) {
        const bytesSha256 = length === null ? null : await crlDigest(shell, row, length);
        yield { ...row, tbsSha256: digest(tbsSha256), sha256: digest(sha256), bytesSha256 };
      }
    },
    async *revocations() {
      yield* pages<RevocationRow>(
        shell,
        "revocation",
        `issuer, key_id AS keyId, serial_number AS serialNumber, reason,
         revocation_date AS revocationDate, invalidity_date AS invalidityDate, log_index AS "index"`,
        ["log_index", "issuer", "serial_number"],
      );
    },
    async *requesterStatements() {
      const rows = pages<Omit<RequesterStatementRow, "sha256"> & { statement: string }>(
        shell,
        "requester_statement",
        `sequence, hex(statement) AS statement, signature, name, action, log_index AS "index"`,
        ["log_index", "sequence"],
      );
      for await (const { statement, ...row } of rows) {
        yield { ...row, sha256: digestOf(Buffer.from(statement, "hex")) };
      }
    },
    async *policyVersions() {
      const rows = pages<Omit<PolicyVersionRow, "documentSha256"> & { document: string }>(
        shell,
        "policy_version",
        `digest, hex(document) AS document, log_index AS "index"`,
        ["log_index"],
      );
      for await (const { document, ...row } of rows) {
        yield { ...row, documentSha256: digestOf(Buffer.from(document, "hex")) };
      }
    },
  };
}

/** Digests come as hex from the program, `sha256:` and lower case from here. */
type Columns<Row> = Omit<Row, "tbsSha256" | "sha256" | "bytesSha256"> & {
  readonly tbsSha256: string;
  readonly sha256: string;
};

function digest(hex: string): string | null {
  return hex === "" ? null : `sha256:${hex.toLowerCase()}`;
}

async function crlDigest(
  shell: SqliteShell,
  { issuer, number }: { readonly issuer: string; readonly number: string },
  length: number,
): Promise<string> {
  const sha256 = createHash("sha256");
  for (let offset = 0; offset < length; offset += PIECE) {
    const [row] = await shell.query<{ piece: string }>(
      `SELECT hex(substr(crl, ${offset + 1}, ${PIECE})) AS piece FROM crl
       WHERE issuer = ${literal(issuer)} AND number = CAST(${literal(number)} AS INTEGER)`,
    );
    sha256.update(Buffer.from(row?.piece ?? "", "hex"));
  }
  return `sha256:${sha256.digest("hex")}`;
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
  const keyColumns = keys.map((key, index) => `quote("${key}") AS ${names[index]}`).join(", ");
  for (let after: string | undefined; ;) {
    const where = after === undefined ? "" : `WHERE (${order}) > (${after})`;
    const page = await shell.query<Row & Record<string, string>>(
      `SELECT ${columns}, ${keyColumns} FROM "${table}" ${where} ORDER BY ${order} LIMIT ${PAGE}`,
    );
    const before = after;
    for (const row of page) {
      after = names.map((name) => requote(table, row[name]!)).join(", ");
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

/** What SQLite's quote() made of a key, safe to send back: a number stays, a text goes as hex. */
function requote(table: string, quoted: string): string {
  if (/^-?[0-9]+$/.test(quoted)) {
    return quoted;
  }
  if (!quoted.startsWith("'")) {
    throw new Error(
      `${table} has a key that is neither an integer nor a text: ${quoted.slice(0, 80)}`,
    );
  }
  return literal(quoted.slice(1, -1).replaceAll("''", "'"));
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
