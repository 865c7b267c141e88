/** Rule 11 of AUDIT-LOG 9.6: the rows of a database are what the log says, and nothing besides. */

import { parseCheckpoint, type Checkpoint } from "./checkpoint.ts";
import { digestOf } from "./digest.ts";
import type { LogEntry, LogEntryOf } from "./entry.ts";
import type { Finding, Findings } from "./findings.ts";
import { readBundleOf, readTileOf, type LogSource } from "./log-source.ts";
import { equal } from "./merkle.ts";
import { splitNote } from "./signed-note.ts";
import { tilesOf } from "./tiles.ts";
import type { Bundle, TreeCheck } from "./tree-check.ts";

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
}

export interface CertificateRow extends SigningRow {
  readonly serialNumber: string;
  readonly profile: string;
}

export interface CrlRow extends SigningRow {
  readonly number: string;
}

export interface RevocationRow {
  readonly issuer: string;
  readonly keyId: string;
  readonly serialNumber: string;
  readonly reason: string;
  /** Milliseconds since 1970. */
  readonly revocationDate: number;
  readonly invalidityDate: number | null;
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

/** A database, each table in the order of the log's indexes. */
export interface DatabaseRows {
  /** The copy of the log in the database. */
  readonly log: LogSource;
  /** Entries in it, those included that no checkpoint covers yet. */
  logSize(): Promise<number>;
  certificates(): AsyncIterable<CertificateRow>;
  crls(): AsyncIterable<CrlRow>;
  revocations(): AsyncIterable<RevocationRow>;
  requesterStatements(): AsyncIterable<RequesterStatementRow>;
  policyVersions(): AsyncIterable<PolicyVersionRow>;
}

/** Rows in the order of the index of their record, taken as the records come by. */
class RowCursor<Row> {
  readonly #rows: AsyncIterator<Row>;
  readonly #indexOf: (row: Row) => number;
  readonly #orphan: (row: Row) => void;
  #next: Row | undefined;
  #ended = false;

  constructor(rows: AsyncIterable<Row>, indexOf: (row: Row) => number, orphan: (row: Row) => void) {
    this.#rows = rows[Symbol.asyncIterator]();
    this.#indexOf = indexOf;
    this.#orphan = orphan;
  }

  /** The row of the record at `index`. Rows passed over have no record, and so has a second row of one record. */
  async at(index: number): Promise<Row | undefined> {
    for (let row = await this.#peek(); row !== undefined; row = await this.#peek()) {
      if (this.#indexOf(row) > index) {
        return undefined;
      }
      this.#next = undefined;
      if (this.#indexOf(row) === index) {
        return row;
      }
      this.#orphan(row);
    }
    return undefined;
  }

  /** Rows that no record asked for. */
  async finish(): Promise<void> {
    await this.at(Number.POSITIVE_INFINITY);
  }

  async #peek(): Promise<Row | undefined> {
    if (this.#next === undefined && !this.#ended) {
      const { value, done } = (await this.#rows.next()) as IteratorResult<Row, undefined>;
      this.#next = value;
      this.#ended = done === true;
    }
    return this.#next;
  }
}

/** Rule 11: every row has its record and every record its row; the database's copy of the log is this log. */
export class DatabaseCheck {
  readonly #database: DatabaseRows;
  readonly #head: Checkpoint;
  readonly #size: number;
  readonly #source: LogSource;
  readonly #sameLog: boolean;
  readonly #findings: Findings;
  readonly #notices: Finding[];
  readonly #certificates: RowCursor<CertificateRow>;
  readonly #crls: RowCursor<CrlRow>;
  readonly #revocations: RowCursor<RevocationRow>;
  readonly #statements: RowCursor<RequesterStatementRow>;
  readonly #policies: RowCursor<PolicyVersionRow>;
  /** Rows of intents whose result has not come by. */
  readonly #open = new Map<number, CertificateRow | CrlRow>();
  readonly #later = new Map<string, number>();

  private constructor(
    database: DatabaseRows,
    source: LogSource,
    head: Checkpoint,
    size: number,
    findings: Findings,
    notices: Finding[],
  ) {
    this.#database = database;
    this.#head = head;
    this.#size = size;
    this.#source = source;
    this.#sameLog = database.log === source;
    this.#findings = findings;
    this.#notices = notices;
    const cursor = <Row>(
      rows: AsyncIterable<Row>,
      table: string,
      indexOf: (row: Row) => number,
      nameOf: (row: Row) => string,
    ): RowCursor<Row> =>
      new RowCursor(rows, indexOf, (row) => this.#orphan(table, nameOf(row), indexOf(row)));
    this.#certificates = cursor(
      database.certificates(),
      "issued_certificate",
      (row) => row.intentIndex,
      signingName,
    );
    this.#crls = cursor(database.crls(), "crl", (row) => row.intentIndex, signingName);
    this.#revocations = cursor(
      database.revocations(),
      "revocation",
      (row) => row.index,
      (row) => `${row.issuer}/${row.serialNumber}`,
    );
    this.#statements = cursor(
      database.requesterStatements(),
      "requester_statement",
      (row) => row.index,
      (row) => String(row.sequence),
    );
    this.#policies = cursor(
      database.policyVersions(),
      "policy_version",
      (row) => row.index,
      (row) => row.digest,
    );
  }

  static async begin(
    database: DatabaseRows,
    source: LogSource,
    head: Checkpoint,
    tree: TreeCheck,
    findings: Findings,
    notices: Finding[],
  ): Promise<DatabaseCheck> {
    const size = await database.logSize();
    const check = new DatabaseCheck(database, source, head, size, findings, notices);
    if (size < head.size) {
      findings.add("audit_entry", `the database holds ${size} entries, the log ${head.size}`);
    } else if (size > head.size) {
      check.#notice(
        "audit_entry",
        `the last ${size - head.size} entries of the database are not covered by this checkpoint`,
      );
    }
    if (!check.#sameLog) {
      await check.#checkpointRow(tree);
    }
    return check;
  }

  /** The database's own entries and tiles, where they are not what is being verified. */
  async bundle({ n, first, leaves, tile }: Bundle): Promise<void> {
    if (this.#sameLog) {
      return;
    }
    const size = this.#head.size;
    const entries = await readBundleOf(this.#database.log, n, size);
    const rows = entries.content?.leaves ?? [];
    for (const [offset, leaf] of leaves.entries()) {
      const row = rows[offset];
      if (row === undefined) {
        this.#findings.add(`audit_entry ${first + offset}`, "it is missing");
        break;
      }
      if (!equal(row, leaf)) {
        this.#findings.add(
          `audit_entry ${first + offset}`,
          `it is not entry ${first + offset} of the log`,
        );
      }
    }
    await this.#tileRow(0, n, tile.content);
  }

  async entry(index: number, entry: LogEntry): Promise<void> {
    if (entry.type === "sign.intent") {
      await this.#intent(index, entry);
    } else if (entry.type === "sign.done" || entry.type === "sign.abandoned") {
      this.#result(index, entry);
    } else if (entry.type === "certificate.revoked") {
      await this.#revoked(index, entry);
    } else if (entry.type === "policy.changed" && entry.data?.sequence !== undefined) {
      await this.#statement(index, entry, entry.data);
    } else if (entry.type === "policy.changed" && entry.data?.policy !== undefined) {
      await this.#policy(index, entry.data.policy);
    }
  }

  async finish(): Promise<void> {
    if (!this.#sameLog) {
      for (const { level, n } of tilesOf(this.#head.size)) {
        if (level === 0) continue; // compared with the bundles
        const { content } = await readTileOf(this.#source, level, n, this.#head.size);
        await this.#tileRow(level, n, content);
      }
    }
    await this.#certificates.finish();
    await this.#crls.finish();
    await this.#revocations.finish();
    await this.#statements.finish();
    await this.#policies.finish();
    for (const [index, row] of this.#open) {
      const position = signingPosition(row);
      const { doneIndex } = row;
      if (row.state === "pending" && doneIndex === null && row.bytesSha256 === null) {
        continue;
      }
      if (doneIndex !== null && doneIndex >= this.#head.size && doneIndex < this.#size) {
        this.#passed(tableOf(row));
      } else {
        this.#findings.add(
          position,
          `it is ${row.state}, and the log has no result of entry ${index}`,
        );
      }
    }
    for (const [table, count] of this.#later) {
      this.#notice(table, `rows of entries that this checkpoint does not cover: ${count}`);
    }
  }

  async #checkpointRow(tree: TreeCheck): Promise<void> {
    const note = await this.#database.log.read("checkpoint");
    if (note === undefined) {
      if (this.#size > 0) this.#findings.add("audit_checkpoint", "there is none");
      return;
    }
    let stored: Checkpoint;
    try {
      stored = parseCheckpoint(splitNote(note).text);
    } catch (error) {
      this.#findings.add("audit_checkpoint", (error as Error).message);
      return;
    }
    const position = `audit_checkpoint ${stored.size}`;
    if (stored.origin !== this.#head.origin) {
      this.#findings.add(
        position,
        `it is one of ${stored.origin}, the log is ${this.#head.origin}`,
      );
    } else if (stored.size <= this.#head.size) {
      tree.rootAt(stored.size, (root) => {
        if (!equal(root, stored.root))
          this.#findings.add(position, "the log has another root at this size");
      });
    }
  }

  /** `expected` is the log's own tile; where that is missing or wrong, rule 2 has said so. */
  async #tileRow(level: number, n: number, expected: Uint8Array | undefined): Promise<void> {
    const { content } = await readTileOf(this.#database.log, level, n, this.#head.size);
    if (expected !== undefined && (content === undefined || !equal(content, expected))) {
      this.#findings.add(`audit_tile ${level}/${n}`, "it is not the tile of the log");
    }
  }

  async #intent(index: number, entry: LogEntryOf<"sign.intent">): Promise<void> {
    const { subject, data } = entry;
    const crl = data.operation === "crl";
    const row = crl ? await this.#crls.at(index) : await this.#certificates.at(index);
    if (row === undefined) {
      this.#findings.add(
        `entry ${index}`,
        `this sign.intent has no row in ${crl ? "crl" : "issued_certificate"}`,
      );
      return;
    }
    this.#open.set(index, row);
    const name =
      "number" in row ? row.number === data.number : row.serialNumber === subject.serialNumber;
    const profile = "number" in row || data.profile === undefined || row.profile === data.profile;
    if (
      !name ||
      !profile ||
      row.issuer !== subject.issuer ||
      row.keyId !== subject.keyId ||
      row.tbsSha256 !== data.tbs
    ) {
      this.#findings.add(
        signingPosition(row),
        `it is not what entry ${index} says was to be signed`,
      );
    }
  }

  #result(index: number, entry: LogEntryOf<"sign.done"> | LogEntryOf<"sign.abandoned">): void {
    const row = this.#open.get(entry.data.intent);
    if (row === undefined) {
      return; // the missing row, or the missing intent, was reported
    }
    this.#open.delete(entry.data.intent);
    const position = signingPosition(row);
    if (entry.type === "sign.abandoned") {
      if (
        row.state !== "abandoned" ||
        row.doneIndex !== index ||
        row.sha256 !== null ||
        row.bytesSha256 !== null
      ) {
        this.#findings.add(
          position,
          `it is ${row.state}, and entry ${index} says that it was abandoned`,
        );
      }
      return;
    }
    const sha256 = "number" in row ? entry.data.crl : entry.data.certificate;
    if (row.state !== "issued" || row.doneIndex !== index) {
      this.#findings.add(
        position,
        `it is ${row.state}, and entry ${index} says that it was signed`,
      );
    } else if (row.sha256 !== sha256 || row.bytesSha256 !== sha256) {
      this.#findings.add(position, `its bytes are not those that entry ${index} says were signed`);
    }
  }

  async #revoked(
    index: number,
    { subject, data }: LogEntryOf<"certificate.revoked">,
  ): Promise<void> {
    const row = await this.#revocations.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this certificate.revoked has no row in revocation");
    } else if (
      row.issuer !== subject.issuer ||
      row.keyId !== subject.keyId ||
      row.serialNumber !== subject.serialNumber ||
      row.reason !== data.reason ||
      row.revocationDate !== Date.parse(data.revocationDate) ||
      row.invalidityDate !==
        (data.invalidityDate === undefined ? null : Date.parse(data.invalidityDate))
    ) {
      this.#findings.add(
        `revocation ${row.issuer}/${row.serialNumber}`,
        `it is not what entry ${index} says was revoked`,
      );
    }
  }

  async #statement(
    index: number,
    { evidence }: LogEntryOf<"policy.changed">,
    data: NonNullable<LogEntryOf<"policy.changed">["data"]>,
  ): Promise<void> {
    const row = await this.#statements.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this policy.changed has no row in requester_statement");
    } else if (
      row.sequence !== data.sequence ||
      row.name !== data.requester ||
      row.action !== data.action ||
      row.signature !== evidence?.signature ||
      row.sha256 !== digestOf(Buffer.from(evidence.statement, "base64"))
    ) {
      this.#findings.add(
        `requester_statement ${row.sequence}`,
        `it is not the statement of entry ${index}`,
      );
    }
  }

  async #policy(index: number, digest: string): Promise<void> {
    const row = await this.#policies.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this policy.changed has no row in policy_version");
    } else if (row.digest !== digest || row.documentSha256 !== digest) {
      this.#findings.add(`policy_version ${row.digest}`, `it is not the policy of entry ${index}`);
    }
  }

  #orphan(table: string, name: string, index: number): void {
    if (index >= this.#head.size && index < this.#size) {
      this.#passed(table);
    } else {
      this.#findings.add(`${table} ${name}`, `it has no record: entry ${index} is not about it`);
    }
  }

  #passed(table: string): void {
    this.#later.set(table, (this.#later.get(table) ?? 0) + 1);
  }

  #notice(position: string, detail: string): void {
    this.#notices.push({ rule: "LOG-11", position, detail });
  }
}

function tableOf(row: CertificateRow | CrlRow): string {
  return "number" in row ? "crl" : "issued_certificate";
}

function signingName(row: CertificateRow | CrlRow): string {
  return `${row.issuer}/${"number" in row ? row.number : row.serialNumber}`;
}

function signingPosition(row: CertificateRow | CrlRow): string {
  return `${tableOf(row)} ${signingName(row)}`;
}
