/** Rule 11 of AUDIT-LOG 9.6: the rows of a database are what the log says, and nothing besides. */

import { openCheckpoint, parseCheckpoint, type Checkpoint } from "./checkpoint.ts";
import { CustodyCheck } from "./database-custody.ts";
import type { CustodyRows } from "./database-custody-rows.ts";
import { schemaFindings, type SchemaObject } from "./database-schema.ts";
import type { LogEntry, LogEntryOf } from "./entry.ts";
import type { Finding, Findings } from "./findings.ts";
import { readBundleOf, readTileOf, tileReader, type LogSource } from "./log-source.ts";
import { equal, HASH_LENGTH, leafHash } from "./merkle.ts";
import {
  crlDifferencesFromIntent,
  crlDifferencesFromList,
  differencesFromCertificate,
  differencesFromIntent,
  differencesFromRequest,
  idempotencyDifferences,
  revocationDifferences,
  statementDifferences,
  type CertificateRow,
  type CrlRow,
  type IdempotencyRow,
  type NameRow,
  type PolicyVersionRow,
  type RequesterStatementRow,
  type RevocationRow,
} from "./recorded-rows.ts";
import { RowCursor } from "./row-cursor.ts";
import type { Intent, SignedObjects } from "./signed-objects.ts";
import { splitNote } from "./signed-note.ts";
import { TILE_WIDTH, tilesOf, TileTree, tileWidth, type TileUpdate } from "./tiles.ts";
import type { Bundle, TreeCheck } from "./tree-check.ts";

/**
 * Entries that the database's own checkpoint may leave uncovered. It travels with the next commit, of 256 entries at
 * most, or gets a commit of its own soon after; a crash can come between.
 */
const MAX_UNCOVERED = 512;

/** A database, each table in the order of the log's indexes. */
export interface DatabaseRows {
  /** The copy of the log in the database. */
  readonly log: LogSource;
  /** What SQLite finds wrong with the file itself. */
  readonly damage: readonly string[];
  schema(): Promise<SchemaObject[]>;
  /** The migrations that were run, oldest first. */
  steps(): Promise<string[]>;
  /** Entries in it, those included that no checkpoint covers yet. */
  logSize(): Promise<number>;
  /** Rows of audit_checkpoint, and the column `size` of the one that `log` reads. */
  checkpointRows(): Promise<{ readonly count: number; readonly size: number | null }>;
  /** Indexes of entries before the first. */
  strayEntries(): Promise<number[]>;
  tiles(): AsyncIterable<{ readonly level: number; readonly n: number; readonly octets: number }>;
  certificates(): AsyncIterable<CertificateRow>;
  /** Also in the order of kind and value. */
  names(): AsyncIterable<NameRow>;
  crls(): AsyncIterable<CrlRow>;
  revocations(): AsyncIterable<RevocationRow>;
  requesterStatements(): AsyncIterable<RequesterStatementRow>;
  policyVersions(): AsyncIterable<PolicyVersionRow>;
  /** In no order. */
  idempotency(): AsyncIterable<IdempotencyRow>;
  readonly custody: CustodyRows;
}

/** An intent whose result has not come by, and its row. */
type OpenRow = Intent & {
  /** Columns that were reported. */
  readonly wrong: readonly string[];
} & (
    | { readonly crl: false; readonly row: CertificateRow; readonly names: readonly NameRow[] }
    | { readonly crl: true; readonly row: CrlRow }
  );

export interface DatabaseCheckParts {
  readonly database: DatabaseRows;
  /** What is being verified. */
  readonly source: LogSource;
  readonly head: Checkpoint;
  /** The log's verifier key, where one was given. */
  readonly key: string | undefined;
  readonly objects: SignedObjects;
  readonly findings: Findings;
  readonly notices: Finding[];
}

/** Rule 11: every row has its record and every record its row; the database's copy of the log is this log. */
export class DatabaseCheck {
  readonly #parts: DatabaseCheckParts;
  readonly #database: DatabaseRows;
  readonly #head: Checkpoint;
  readonly #size: number;
  readonly #sameLog: boolean;
  readonly #findings: Findings;
  readonly #certificates: RowCursor<CertificateRow>;
  readonly #names: RowCursor<NameRow>;
  readonly #crls: RowCursor<CrlRow>;
  readonly #revocations: RowCursor<RevocationRow>;
  readonly #statements: RowCursor<RequesterStatementRow>;
  readonly #policies: RowCursor<PolicyVersionRow>;
  readonly #custody: CustodyCheck;
  readonly #open = new Map<number, OpenRow>();
  /** The database's own checkpoint. */
  #stored: Checkpoint | undefined;

  private constructor(parts: DatabaseCheckParts, size: number) {
    const { database, source, head, findings } = parts;
    this.#parts = parts;
    this.#database = database;
    this.#head = head;
    this.#size = size;
    this.#sameLog = database.log === source;
    this.#findings = findings;
    const cursor = <Row>(
      rows: AsyncIterable<Row>,
      table: string,
      indexOf: (row: Row) => number,
      nameOf: (row: Row) => string,
    ): RowCursor<Row> =>
      new RowCursor(rows, indexOf, (row) =>
        findings.add(
          `${table} ${nameOf(row)}`,
          `it has no record: entry ${indexOf(row)} is not about it`,
        ),
      );
    this.#certificates = cursor(
      database.certificates(),
      "issued_certificate",
      (row) => row.intentIndex,
      signingName,
    );
    this.#names = cursor(
      database.names(),
      "certificate_name",
      (row) => row.index,
      ({ index, kind, value }) => `${index} ${kind}:${value}`,
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
    this.#custody = new CustodyCheck(database.custody, findings, (rows, table, nameOf) =>
      cursor(rows, table, (row) => row.index, nameOf),
    );
  }

  static async begin(parts: DatabaseCheckParts, tree: TreeCheck): Promise<DatabaseCheck> {
    const { database, head, findings } = parts;
    for (const line of database.damage) findings.add("database", `it is damaged: ${line}`);
    for (const { position, detail } of schemaFindings(
      await database.schema(),
      await database.steps(),
    )) {
      findings.add(position, detail);
    }
    const size = await database.logSize();
    const check = new DatabaseCheck(parts, size);
    if (size < head.size) {
      findings.add("audit_entry", `the database holds ${size} entries, the log ${head.size}`);
    } else if (size > head.size && !check.#sameLog) {
      check.#notice(
        "audit_entry",
        `the last ${size - head.size} entries of the database are not covered by this checkpoint`,
      );
    }
    for (const index of await database.strayEntries()) {
      findings.add(`audit_entry ${index}`, "it stands before the first entry");
    }
    if (check.#sameLog) check.#stored = head;
    else await check.#checkpointRow(tree);
    await check.#custody.begin();
    await check.#checkpointColumns();
    await check.#tileRows();
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
      await this.#result(index, entry);
    } else if (entry.type === "certificate.revoked") {
      await this.#revoked(index, entry);
    } else if (entry.type === "policy.changed" && entry.data?.sequence !== undefined) {
      await this.#statement(index, entry);
    } else if (entry.type === "policy.changed" && entry.data?.policy !== undefined) {
      await this.#policy(index, entry.data.policy);
    }
    await this.#custody.entry(index, entry);
  }

  /**
   * The entries of the database that the checkpoint does not cover. They are no more than the database says of
   * itself, but whoever put a row beside them has to put it into the log as well, under tiles that fit: these are
   * compared with them, and with the database's own checkpoint.
   */
  async *tail(): AsyncGenerator<{ readonly index: number; readonly leaf: Uint8Array }> {
    if (this.#size <= this.#head.size) return;
    const { log } = this.#database;
    const tree = await TileTree.resume(this.#head.size, tileReader(log, this.#head.size)).catch(
      (error: unknown) => {
        if (error instanceof RangeError) return undefined; // a tile is missing, which is reported
        throw error;
      },
    );
    const growing = new Map<number, TileUpdate>();
    for (let n = Math.floor(this.#head.size / TILE_WIDTH); n * TILE_WIDTH < this.#size; n++) {
      const first = n * TILE_WIDTH;
      const { content } = await readBundleOf(log, n, this.#size);
      const leaves = content?.leaves ?? [];
      const fresh = leaves.slice(Math.max(this.#head.size - first, 0));
      const begin = first + leaves.length - fresh.length;
      for (const [offset, leaf] of fresh.entries()) yield { index: begin + offset, leaf };
      if (tree !== undefined) await this.#grow(tree, fresh.map(leafHash), growing);
      if (leaves.length < tileWidth("entries", n, this.#size)) {
        this.#findings.add(`audit_entry ${first + leaves.length}`, "it is missing");
        return;
      }
    }
    for (const update of growing.values()) await this.#grownTile(update);
    this.#covered();
  }

  /** After the tail. */
  async finish(): Promise<void> {
    if (!this.#sameLog) {
      for (const { level, n } of tilesOf(this.#head.size)) {
        if (level === 0) continue; // compared with the bundles
        const { content } = await readTileOf(this.#parts.source, level, n, this.#head.size);
        await this.#tileRow(level, n, content);
      }
    }
    await this.#certificates.finish();
    await this.#names.finish();
    await this.#crls.finish();
    await this.#revocations.finish();
    await this.#statements.finish();
    await this.#policies.finish();
    await this.#custody.finish();
    for (const { index, row } of this.#open.values()) {
      if (row.state !== "pending" || row.doneIndex !== null || row.bytesSha256 !== null) {
        this.#findings.add(
          signingPosition(row),
          `it is ${row.state}, and the log has no result of entry ${index}`,
        );
      }
    }
    await this.#idempotency();
  }

  async #checkpointRow(tree: TreeCheck): Promise<void> {
    const note = await this.#database.log.read("checkpoint");
    if (note === undefined) {
      if (this.#size > 0) this.#findings.add("audit_checkpoint", "there is none");
      return;
    }
    let stored: Checkpoint;
    try {
      const { key } = this.#parts;
      stored =
        key === undefined ? parseCheckpoint(splitNote(note).text) : openCheckpoint(note, key);
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
      return;
    }
    this.#stored = stored;
    if (stored.size <= this.#head.size) {
      tree.rootAt(stored.size, (root) => this.#storedRoot(root));
    } else if (stored.size > this.#size) {
      this.#findings.add(
        position,
        `it covers ${stored.size} entries, and the database has ${this.#size}`,
      );
    }
  }

  /** What the note does not say: that there is one, and under which size. */
  async #checkpointColumns(): Promise<void> {
    const { count, size } = await this.#database.checkpointRows();
    if (count > 1) {
      this.#findings.add("audit_checkpoint", `it has ${count} rows, and only the last one is kept`);
    }
    const stored = this.#stored?.size;
    if (size !== null && stored !== undefined && size !== stored) {
      this.#findings.add(`audit_checkpoint ${size}`, `its note is one of ${stored} entries`);
    }
  }

  #storedRoot(root: Uint8Array): void {
    const stored = this.#stored!;
    if (!equal(root, stored.root)) {
      this.#findings.add(
        `audit_checkpoint ${stored.size}`,
        "the log has another root at this size",
      );
    }
  }

  /** Adds hashes, stopping where the database's own checkpoint stands; tiles that are full are compared. */
  async #grow(
    tree: TileTree,
    hashes: readonly Uint8Array[],
    growing: Map<number, TileUpdate>,
  ): Promise<void> {
    const stop = (this.#stored?.size ?? 0) - tree.size;
    const parts = stop > 0 ? [hashes.slice(0, stop), hashes.slice(stop)] : [hashes];
    for (const part of parts) {
      for (const update of tree.append(part)) {
        if (update.hashes.length === TILE_WIDTH * HASH_LENGTH) {
          growing.delete(update.level);
          await this.#grownTile(update);
        } else {
          growing.set(update.level, update);
        }
      }
      if (part.length > 0 && tree.size === this.#stored?.size) this.#storedRoot(tree.root());
    }
  }

  /** How much of the database its own checkpoint covers. */
  #covered(): void {
    const covered = Math.max(this.#head.size, this.#stored?.size ?? 0);
    const rest = this.#size - covered;
    if (rest <= 0) return;
    const detail = `the checkpoint covers only ${covered} of ${this.#size} entries`;
    if (rest > MAX_UNCOVERED) {
      this.#findings.add(
        "audit_checkpoint",
        `${detail}: a crash leaves ${MAX_UNCOVERED} uncovered at most, so an older checkpoint was put back, ` +
          "or entries were added by somebody without the log's key",
      );
    } else {
      this.#notice(
        "audit_checkpoint",
        `${detail}: nobody has signed the last ${rest}. A running service and a crash leave some, a clean stop none`,
      );
    }
  }

  /** Hashes that are under no entry; those that are missing or wrong are found where they are needed. */
  async #tileRows(): Promise<void> {
    const size = Math.max(this.#size, this.#head.size);
    for await (const { level, n, octets } of this.#database.tiles()) {
      const width = level < 0 || n < 0 || level > 63 ? 0 : tileWidth(level, n, size);
      if (width <= 0 || octets > width * HASH_LENGTH) {
        this.#findings.add(
          `audit_tile ${level}/${n}`,
          `it goes on after the ${Math.max(width, 0)} hashes that ${size} entries make`,
        );
      }
    }
  }

  /** `expected` is the log's own tile; where that is missing or wrong, rule 2 has said so. */
  async #tileRow(level: number, n: number, expected: Uint8Array | undefined): Promise<void> {
    const { content } = await readTileOf(this.#database.log, level, n, this.#head.size);
    if (expected !== undefined && (content === undefined || !equal(content, expected))) {
      this.#findings.add(`audit_tile ${level}/${n}`, "it is not the tile of the log");
    }
  }

  async #grownTile({ level, n, hashes }: TileUpdate): Promise<void> {
    const { content } = await readTileOf(this.#database.log, level, n, this.#size);
    if (content === undefined || !equal(content, hashes)) {
      this.#findings.add(
        `audit_tile ${level}/${n}`,
        "it is not the tile of the entries that no checkpoint covers",
      );
    }
  }

  async #intent(index: number, entry: LogEntryOf<"sign.intent">): Promise<void> {
    if (entry.data.operation === "request") return; // no table keeps requests of a CA's own key
    const crl = entry.data.operation === "crl";
    const names = crl ? [] : await this.#names.allAt(index);
    let open: OpenRow | undefined;
    if (crl) {
      const row = await this.#crls.at(index);
      if (row !== undefined) {
        open = { index, entry, crl, row, wrong: crlDifferencesFromIntent(row, entry) };
      }
    } else {
      const row = await this.#certificates.at(index);
      if (row !== undefined) {
        const wrong = differencesFromIntent(row, entry);
        // Otherwise the certificate says more than the request.
        if (row.bytesSha256 === null) wrong.push(...differencesFromRequest(row, names, entry));
        open = { index, entry, crl, row, names, wrong: [...new Set(wrong)] };
      }
    }
    if (open === undefined) {
      this.#findings.add(
        `entry ${index}`,
        `this sign.intent has no row in ${crl ? "crl" : "issued_certificate"}`,
      );
      return;
    }
    this.#open.set(index, open);
    this.#differing(
      signingPosition(open.row),
      `it is not what entry ${index} says was to be signed`,
      open.wrong,
    );
  }

  async #result(
    index: number,
    entry: LogEntryOf<"sign.done"> | LogEntryOf<"sign.abandoned">,
  ): Promise<void> {
    const open = this.#open.get(entry.data.intent);
    if (open === undefined) {
      return; // the missing row, or the missing intent, was reported
    }
    this.#open.delete(entry.data.intent);
    const { row } = open;
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
    const sha256 = open.crl ? entry.data.crl : entry.data.certificate;
    if (row.state !== "issued" || row.doneIndex !== index) {
      this.#findings.add(
        position,
        `it is ${row.state}, with the result in entry ${row.doneIndex}, and entry ${index} says that it was signed`,
      );
    } else if (row.sha256 !== sha256 || row.bytesSha256 !== sha256) {
      this.#findings.add(position, `its bytes are not those that entry ${index} says were signed`);
    } else {
      await this.#signed(open, position);
    }
  }

  /** The bytes are those of the log: they are what was to be signed, and the row is what they say. */
  async #signed(open: OpenRow, position: string): Promise<void> {
    const { objects } = this.#parts;
    const bytes = await open.row.bytes();
    let wrong: string[] = [];
    if (open.crl) {
      const list = objects.crl(bytes, open, position, this.#findings);
      if (list !== undefined) wrong = crlDifferencesFromList(open.row, list);
    } else {
      const tbs = objects.certificate(bytes, open, position, this.#findings);
      if (tbs !== undefined) wrong = differencesFromCertificate(open.row, open.names, tbs);
    }
    this.#differing(
      position,
      `it is not what the ${open.crl ? "CRL" : "certificate"} says`,
      wrong.filter((column) => !open.wrong.includes(column)),
    );
  }

  async #revoked(index: number, entry: LogEntryOf<"certificate.revoked">): Promise<void> {
    const row = await this.#revocations.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this certificate.revoked has no row in revocation");
      return;
    }
    this.#differing(
      `revocation ${row.issuer}/${row.serialNumber}`,
      `it is not what entry ${index} and the certificate's row say`,
      revocationDifferences(row, entry),
    );
  }

  async #statement(index: number, entry: LogEntryOf<"policy.changed">): Promise<void> {
    const row = await this.#statements.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this policy.changed has no row in requester_statement");
      return;
    }
    this.#differing(
      `requester_statement ${row.sequence}`,
      `it is not the statement of entry ${index}`,
      statementDifferences(row, entry),
    );
  }

  async #policy(index: number, digest: string): Promise<void> {
    const row = await this.#policies.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, "this policy.changed has no row in policy_version");
    } else if (row.digest !== digest || row.documentSha256 !== digest) {
      this.#findings.add(`policy_version ${row.digest}`, `it is not the policy of entry ${index}`);
    }
  }

  /** Kept answers name an intent; the intent's row was compared with the log. */
  async #idempotency(): Promise<void> {
    const answered = new Set<number>();
    for await (const row of this.#database.idempotency()) {
      const position = `idempotency ${row.requester}/${row.key}`;
      if (row.certificateRequester === null) {
        this.#findings.add(position, `entry ${row.index} is no intent of a requester`);
      } else {
        this.#differing(
          position,
          `it is not about what entry ${row.index} says was to be signed`,
          idempotencyDifferences(row),
        );
      }
      if (answered.has(row.index)) {
        this.#findings.add(position, `another key stands for entry ${row.index} as well`);
      }
      answered.add(row.index);
    }
  }

  #differing(position: string, what: string, columns: readonly string[]): void {
    if (columns.length > 0) this.#findings.add(position, `${what}: ${columns.join(", ")}`);
  }

  #notice(position: string, detail: string): void {
    this.#parts.notices.push({ rule: "LOG-11", position, detail });
  }
}

function signingName(row: CertificateRow | CrlRow): string {
  return `${row.issuer}/${"number" in row ? row.number : row.serialNumber}`;
}

function signingPosition(row: CertificateRow | CrlRow): string {
  return `${"number" in row ? "crl" : "issued_certificate"} ${signingName(row)}`;
}
