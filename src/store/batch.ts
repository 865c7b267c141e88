/**
 * A batch of the journal as one SQL statement. Everything that one transaction writes is handed over in two kinds of
 * values: JSON texts with the plain columns, and one blob with all octets, which the JSON points into. A temporary
 * trigger takes them apart. So a commit is one trip to SQLite's thread instead of one for each table, it is all or
 * nothing without a ROLLBACK of ours, and its cost hardly grows with the number of rows.
 */

import { hash } from "node:crypto";
import type { TileUpdate } from "../audit/tiles.ts";
import type { CustodyItem } from "../ceremony/journal.ts";
import type { JournalItem } from "../issuance/journal.ts";
import { custodyOperations, custodyStatements, isCustodyItem } from "./custody-batch.ts";
import type { Connection, SqlValue } from "./database.ts";

export interface Batch {
  /** The log's size before it. */
  readonly first: number;
  readonly items: readonly (JournalItem | CustodyItem)[];
  readonly tiles: readonly TileUpdate[];
  readonly checkpoint?: { readonly size: number; readonly note: string } | undefined;
  /** Idempotency keys from before this are forgotten, some with each batch. */
  readonly idempotencyFrom: Date;
}

const columns = [
  "first",
  "octets",
  "entries",
  "certificates",
  "names",
  "idempotency",
  "certificate_results",
  "revocations",
  "crls",
  "crl_results",
  "requesters",
  "policies",
  "custody",
  "tiles",
  "checkpoint_size",
  "checkpoint_note",
  "idempotency_from",
] as const;

/** `e.value` is the row as a JSON array; octets are two members of it: where they begin, from 1, and how many. */
const octets = (member: number) =>
  `substr(NEW.octets, e.value ->> ${member}, e.value ->> ${member + 1})`;

const view = `
  CREATE TEMP VIEW journal_batch AS
  SELECT ${columns.map((column) => `NULL AS ${column}`).join(", ")}`;

const trigger = `
  CREATE TEMP TRIGGER journal_batch_insert INSTEAD OF INSERT ON journal_batch
  BEGIN
    INSERT INTO audit_entry (idx, leaf)
    SELECT NEW.first + e.key, ${octets(0)} FROM json_each(NEW.entries) e;

    INSERT INTO issued_certificate
      (idx, issuer, key_id, serial_number, kind, profile, requester, subject,
       not_before, not_after, created_at, spki_sha256, tbs_sha256, csr, state)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
      e.value ->> 5, e.value ->> 6, e.value ->> 7, e.value ->> 8, e.value ->> 9, e.value ->> 10,
      ${octets(11)}, ${octets(13)}, ${octets(15)}, 'pending'
    FROM json_each(NEW.certificates) e;

    INSERT INTO certificate_name (idx, kind, value, reversed)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2, e.value ->> 3
    FROM json_each(NEW.names) e;

    DELETE FROM idempotency WHERE rowid IN (
      SELECT rowid FROM idempotency WHERE created_at < NEW.idempotency_from LIMIT 512);

    INSERT INTO idempotency (idx, requester, key, body_sha256, created_at)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2, ${octets(3)}, e.value ->> 5
    FROM json_each(NEW.idempotency) e
    WHERE true
    ON CONFLICT (requester, key) DO UPDATE SET
      idx = excluded.idx, body_sha256 = excluded.body_sha256, created_at = excluded.created_at;

    UPDATE issued_certificate SET
      done_index = NEW.first + (e.value ->> 1), state = e.value ->> 2,
      certificate = ${octets(3)}, certificate_sha256 = ${octets(5)}
    FROM json_each(NEW.certificate_results) e WHERE idx = e.value ->> 0;
    SELECT RAISE(ABORT, 'a result without an intent')
    WHERE changes() <> json_array_length(NEW.certificate_results);

    INSERT INTO revocation
      (log_index, issuer, key_id, serial_number, reason, revocation_date, invalidity_date,
       requested_by, not_after)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
      e.value ->> 5, e.value ->> 6, e.value ->> 7, e.value ->> 8
    FROM json_each(NEW.revocations) e;

    INSERT INTO crl
      (intent_index, issuer, key_id, number, this_update, next_update, tbs_sha256, state)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2,
      CAST(e.value ->> 3 AS INTEGER), e.value ->> 4, e.value ->> 5, ${octets(6)}, 'pending'
    FROM json_each(NEW.crls) e;

    UPDATE crl SET
      done_index = NEW.first + (e.value ->> 1), state = e.value ->> 2,
      crl = ${octets(3)}, crl_sha256 = ${octets(5)}
    FROM json_each(NEW.crl_results) e WHERE intent_index = e.value ->> 0;
    SELECT RAISE(ABORT, 'a result without an intent')
    WHERE changes() <> json_array_length(NEW.crl_results);

    INSERT INTO requester_statement (log_index, sequence, name, action, signature, statement)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
      ${octets(5)}
    FROM json_each(NEW.requesters) e;

    INSERT INTO policy_version (log_index, digest, document)
    SELECT NEW.first + (e.value ->> 0), e.value ->> 1, e.value ->> 2
    FROM json_each(NEW.policies) e;

    INSERT INTO audit_tile (level, n, hashes)
    SELECT e.value ->> 0, e.value ->> 1, ${octets(2)} FROM json_each(NEW.tiles) e
    WHERE true
    ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes;

    DELETE FROM audit_checkpoint WHERE size < NEW.checkpoint_size;
    INSERT INTO audit_checkpoint (size, note)
    SELECT NEW.checkpoint_size, NEW.checkpoint_note WHERE NEW.checkpoint_size IS NOT NULL
    ON CONFLICT (size) DO NOTHING;
  END`;

const insert = `INSERT INTO journal_batch VALUES (${columns.map(() => "?").join(", ")})`;

/** Must run once on a connection before {@link insertBatch}. */
export async function prepareBatches(writer: Connection): Promise<void> {
  await writer.all("DROP VIEW IF EXISTS temp.journal_batch");
  await writer.all(view);
  await writer.all(trigger);
  for (const statement of custodyStatements) await writer.all(statement);
}

/** Writes a batch in a transaction of its own. When it rejects, nothing of the batch was written. */
export async function insertBatch(writer: Connection, batch: Batch): Promise<void> {
  await writer.all(insert, encodeBatch(batch));
}

function encodeBatch(batch: Batch): SqlValue[] {
  const pieces: Uint8Array[] = [];
  let length = 0;
  /** Two members of a row: where the octets begin and how many they are. */
  const put = (piece: Uint8Array | null): [number, number | null] => {
    if (piece === null) return [0, null];
    pieces.push(piece);
    length += piece.length;
    return [length - piece.length + 1, piece.length];
  };
  const sha256 = (bytes: Uint8Array) => hash("sha256", bytes, "buffer");

  const entries: unknown[] = [];
  const certificates: unknown[] = [];
  const names: unknown[] = [];
  const idempotency: unknown[] = [];
  const certificateResults: unknown[] = [];
  const revocations: unknown[] = [];
  const crls: unknown[] = [];
  const crlResults: unknown[] = [];
  const requesters: unknown[] = [];
  const policies: unknown[] = [];
  const custody: unknown[] = [];
  batch.items.forEach((item, offset) => {
    entries.push(put(item.leaf));
    if (isCustodyItem(item)) {
      custody.push(...custodyOperations(item, offset, put));
      return;
    }
    switch (item.kind) {
      case "entry":
        break;
      case "certificate-intent": {
        const { row } = item;
        certificates.push([
          offset,
          row.issuer,
          row.keyId,
          row.serialNumber,
          row.kind,
          row.profile,
          row.requester,
          row.subject,
          row.notBefore.getTime(),
          row.notAfter.getTime(),
          row.createdAt.getTime(),
          ...put(row.spkiSha256),
          ...put(row.tbsSha256),
          ...put(row.csr),
        ]);
        for (const { kind, value } of row.names) {
          names.push([offset, kind, value, reversed(value)]);
        }
        if (row.idempotency !== undefined) {
          const { requester, key, bodySha256 } = row.idempotency;
          idempotency.push([offset, requester, key, ...put(bodySha256), row.createdAt.getTime()]);
        }
        break;
      }
      case "certificate-done":
        certificateResults.push([
          item.intentIndex,
          offset,
          "issued",
          ...put(item.certificate),
          ...put(sha256(item.certificate)),
        ]);
        break;
      case "certificate-abandoned":
        certificateResults.push([item.intentIndex, offset, "abandoned"]);
        break;
      case "revocation": {
        const { row } = item;
        revocations.push([
          offset,
          row.issuer,
          row.keyId,
          row.serialNumber,
          row.reason,
          row.revocationDate.getTime(),
          row.invalidityDate?.getTime() ?? null,
          row.requestedBy,
          row.notAfter.getTime(),
        ]);
        break;
      }
      case "crl-intent": {
        const { row } = item;
        crls.push([
          offset,
          row.issuer,
          row.keyId,
          String(row.number),
          row.thisUpdate.getTime(),
          row.nextUpdate.getTime(),
          ...put(row.tbsSha256),
        ]);
        break;
      }
      case "crl-done":
        crlResults.push([
          item.intentIndex,
          offset,
          "issued",
          ...put(item.crl),
          ...put(sha256(item.crl)),
        ]);
        break;
      case "crl-abandoned":
        crlResults.push([item.intentIndex, offset, "abandoned"]);
        break;
      case "requester": {
        const { row } = item;
        requesters.push([
          offset,
          row.sequence,
          row.name,
          row.action,
          row.signature,
          ...put(row.statement),
        ]);
        break;
      }
      case "policy":
        policies.push([offset, item.row.digest, item.row.document]);
        break;
    }
  });
  const tiles = batch.tiles.map(({ level, n, hashes }) => [level, n, ...put(hashes)]);
  return [
    batch.first,
    Buffer.concat(pieces, length),
    JSON.stringify(entries),
    JSON.stringify(certificates),
    JSON.stringify(names),
    JSON.stringify(idempotency),
    JSON.stringify(certificateResults),
    JSON.stringify(revocations),
    JSON.stringify(crls),
    JSON.stringify(crlResults),
    JSON.stringify(requesters),
    JSON.stringify(policies),
    custody.length === 0 ? null : JSON.stringify(custody),
    JSON.stringify(tiles),
    batch.checkpoint?.size ?? null,
    batch.checkpoint?.note ?? null,
    batch.idempotencyFrom.getTime(),
  ];
}

/** From the last character to the first: what names end in is then a prefix. */
export function reversed(text: string): string {
  return Array.from(text).reverse().join("");
}
